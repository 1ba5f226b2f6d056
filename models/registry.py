"""Registry of models by name: this package's, and those that others declare under the entry points `emopipe.models`.

Such an entry point names an :class:`Entry`, or a :class:`FusionModel` whose preset is `Config()`. What a model must
do, `emopipe.models.testing` checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any, Final

from emopipe.errors import BackendUnusable, UnknownName
from emopipe.models.configs import change
from emopipe.models.networks.comparison.dmd import Dmd, DmdConfig
from emopipe.models.networks.comparison.early import LfDnn, LfDnnConfig, Lmf, LmfConfig, Tfn, TfnConfig
from emopipe.models.networks.comparison.late import LateFusion, LateFusionConfig, Unimodal, UnimodalConfig
from emopipe.models.networks.comparison.mfn import Mfn, MfnConfig
from emopipe.models.networks.comparison.misa import Misa, MisaConfig
from emopipe.models.networks.comparison.mmim import Mmim, MmimConfig
from emopipe.models.networks.comparison.mult import Mult, MultConfig
from emopipe.models.networks.comparison.self_mm import SelfMm, SelfMmConfig
from emopipe.models.networks.egmf.config import EgmfConfig
from emopipe.models.networks.egmf.model import Egmf
from emopipe.models.networks.emoe import Emoe, EmoeConfig
from emopipe.models.networks.emoe_paper import EmoePaper, EmoePaperConfig
from emopipe.models.networks.ensemble import Ensemble
from emopipe.models.networks.linear import Linear, LinearConfig
from emopipe.models.networks.model import FusionModel, Shape
from emopipe.plugins import entry_points, origin


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
    "linear": Entry(Linear, LinearConfig()),
    "unimodal": Entry(Unimodal, UnimodalConfig()),
    "late-fusion": Entry(LateFusion, LateFusionConfig()),
    "lf-dnn": Entry(LfDnn, LfDnnConfig()),
    "tfn": Entry(Tfn, TfnConfig()),
    "lmf": Entry(Lmf, LmfConfig()),
    "mult": Entry(Mult, MultConfig()),
    "self-mm": Entry(SelfMm, SelfMmConfig()),
    "misa": Entry(Misa, MisaConfig()),
    "mfn": Entry(Mfn, MfnConfig()),
    "mmim": Entry(Mmim, MmimConfig()),
    "dmd": Entry(Dmd, DmdConfig()),
}


#: The group of entry points of other packages' models.
GROUP: Final = "emopipe.models"


def names() -> list[str]:
    """List all models that can be trained, this package's first. Imports none of other packages'."""
    return [*MODELS, *(one.name for one in entry_points(GROUP))]


def entry(name: str) -> Entry:
    """Look up the registered model of that name.

    Raises:
        ConfigError: there is none, more than one package brings it, or it cannot be imported.
    """
    if name in MODELS:
        return MODELS[name]
    entries = [one for one in entry_points(GROUP) if one.name == name]
    if not entries:
        raise UnknownName(f"there is no model {name!r}", hint=f"Choose one of: {', '.join(sorted(names()))}")
    if len(entries) > 1:
        both = " and ".join(origin(one).rpartition(" ")[0] or "unknown" for one in entries)
        raise UnknownName(f"the model {name!r} is brought by {both}", hint="Uninstall one of them")
    return _loaded(entries[0])


def _loaded(point: EntryPoint) -> Entry:
    package = origin(point)
    try:
        model = point.load()
    except (Exception, SystemExit) as error:  # whatever another package's code raises
        raise BackendUnusable(f"the model {point.name!r} of {package} cannot be imported: {error}") from error
    if isinstance(model, type) and issubclass(model, FusionModel):
        return Entry(model, model.Config())
    if not isinstance(model, Entry):
        raise BackendUnusable(f"what {package} calls the model {point.name!r} is not a model: {point.value}")
    return model


def configure(name: str, options: Mapping[str, Any] | None = None) -> Any:
    """Validate options and give the frozen configuration of a model: its preset with `options` changed.

    Raises:
        ConfigError: no such model, no such option, or a value that does not fit.
    """
    return change(entry(name).preset, options or {}, f"model {name}")


def build(name: str, shape: Shape, options: Mapping[str, Any] | None = None) -> FusionModel:
    """Build a new model with random weights.

    Raises:
        ConfigError: see :func:`configure`.
    """
    config, model = configure(name, options), entry(name).model
    members = [model(shape, config) for _ in range(getattr(config, "members", 1))]
    return members[0] if len(members) == 1 else Ensemble(members)
