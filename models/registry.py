"""Models by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emopipe.models.baselines.early import LfDnn, LfDnnConfig, Lmf, LmfConfig, Tfn, TfnConfig
from emopipe.models.baselines.late import LateFusion, LateFusionConfig, Unimodal, UnimodalConfig
from emopipe.models.baselines.misa import Misa, MisaConfig
from emopipe.models.baselines.mult import Mult, MultConfig
from emopipe.models.baselines.self_mm import SelfMm, SelfMmConfig
from emopipe.models.configs import change
from emopipe.models.egmf.config import EgmfConfig
from emopipe.models.egmf.model import Egmf
from emopipe.models.emoe import Emoe, EmoeConfig
from emopipe.models.emoe_paper import EmoePaper, EmoePaperConfig
from emopipe.models.errors import ConfigError
from emopipe.models.model import FusionModel, Shape


@dataclass(frozen=True)
class Entry:
    """A registered model: its class and the preset of its configuration."""

    model: type[FusionModel]
    preset: Any


#: name -> class and preset. Two names may be two presets of one class.
MODELS: dict[str, Entry] = {
    "emoe": Entry(Emoe, EmoeConfig()),
    "emoe-paper": Entry(EmoePaper, EmoePaperConfig()),
    "egmf": Entry(Egmf, EgmfConfig()),
    "unimodal": Entry(Unimodal, UnimodalConfig()),
    "late-fusion": Entry(LateFusion, LateFusionConfig()),
    "lf-dnn": Entry(LfDnn, LfDnnConfig()),
    "tfn": Entry(Tfn, TfnConfig()),
    "lmf": Entry(Lmf, LmfConfig()),
    "mult": Entry(Mult, MultConfig()),
    "self-mm": Entry(SelfMm, SelfMmConfig()),
    "misa": Entry(Misa, MisaConfig()),
}


def configure(name: str, options: Mapping[str, Any] | None = None) -> Any:
    """The frozen configuration of a model: its preset with `options` changed.

    Raises:
        ConfigError: no such model, no such option, or a value that does not fit.
    """
    if name not in MODELS:
        raise ConfigError(f"there is no model {name!r}", hint=f"Choose one of: {', '.join(sorted(MODELS))}")
    return change(MODELS[name].preset, options or {}, f"model {name}")


def build(name: str, shape: Shape, options: Mapping[str, Any] | None = None) -> FusionModel:
    """A new model with random weights.

    Raises:
        ConfigError: see :func:`configure`.
    """
    config = configure(name, options)
    return MODELS[name].model(shape, config)
