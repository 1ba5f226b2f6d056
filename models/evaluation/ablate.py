"""Ablation studies of EMOE and EGMF: trained anew without their parts, as the papers' tables and figures ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from emopipe.errors import StudyError
from emopipe.models.networks.egmf.config import EgmfConfig
from emopipe.models.networks.egmf.experts import BRANCHES
from emopipe.models.networks.egmf.model import Egmf
from emopipe.models.networks.emoe import Mixture
from emopipe.models.registry import configure, entry
from emopipe.models.training.config import TrainConfig

#: The model as configured.
FULL: Final = "full"

#: What is tried of each parameter, beside what is configured; `temperature` is the paper's t.
SWEEP: Final[dict[str, tuple[float, ...]]] = {
    "alpha": (0.0, 0.01, 0.1, 1.0, 10.0),
    "lambda1": (0.0, 0.01, 0.1, 1.0),
    "lambda2": (0.0, 0.01, 0.1, 1.0, 10.0),
    "temperature": (0.05, 0.1, 0.2, 0.5, 1.0, 2.0),
}


def ablations(base: TrainConfig, modalities: Sequence[str] = ()) -> dict[str, dict[str, TrainConfig]]:
    """Table -> variant -> configuration; every table begins with the full model.

    Args:
        base: the full model, of EMOE (a form of it) or EGMF.
        modalities: that the dataset has; EGMF is trained without each of them.

    Raises:
        StudyError: the model is neither, or nothing can be left out of it.
    """
    is_egmf = issubclass(entry(base.model).model, Egmf)
    tables = _of_egmf(base, tuple(base.modalities or modalities)) if is_egmf else _of_emoe(base)
    changed = {table: {FULL: base} | variants for table, variants in tables.items() if variants}
    if not changed:
        raise StudyError("nothing can be left out of words alone", hint="Ablate egmf on a dataset with face or voice")
    return changed


def _of_egmf(base: TrainConfig, modalities: tuple[str, ...]) -> dict[str, dict[str, TrainConfig]]:
    """The paper's: modalities, experts, stages of the gate, and LoRA. Without face and voice there are no experts."""
    config: EgmfConfig = configure(base.model, base.options)
    signals = [name for name in modalities if name != "text"]
    hidden = [(name,) for name in modalities] + ([tuple(signals)] if len(signals) > 1 else [])
    rest = {names: tuple(one for one in modalities if one not in names) for names in hidden}
    without = {f"without {' and '.join(names)}": replace(base, modalities=left) for names, left in rest.items() if left}
    if not signals:
        return {"modalities": without}
    closed: dict[str, tuple[int, ...]] = {
        f"without expert d/{narrow}": (number,) for number, (narrow, _) in enumerate(BRANCHES, start=1)
    }
    closed["without experts"] = tuple(range(1, len(BRANCHES) + 1))
    gates = {"first": "first stage alone", "second": "second stage alone", "uniform": "without gate"}
    lora = {"without LoRA": 0} if config.lora_rank else {"with LoRA": EgmfConfig.lora_rank}
    return {
        "modalities": without,
        "experts": {name: _changed(base, {"closed_experts": numbers}) for name, numbers in closed.items()},
        "gate": {words: _changed(base, {"gate": gate}) for gate, words in gates.items() if gate != config.gate},
        "LoRA": {name: _changed(base, {"lora_rank": rank}) for name, rank in lora.items()},
    }


def _of_emoe(base: TrainConfig) -> dict[str, dict[str, TrainConfig]]:
    """Table -> variant -> configuration, without the full model.

    The paper's three: the mixture of experts (here: learned routing) and unimodal distillation; the two losses of the
    router; and how features are fused. Others leave out the unimodal losses, and compare the forms of the distillation.
    """
    config = _settings(base)
    other = "concat" if config["fusion"] == "sum" else "sum"
    changes: dict[str, dict[str, dict[str, Any]]] = {
        "routing and distillation": {
            "without learned routing": {"routing": "uniform"},
            "without distillation": {"lambda2": 0.0},
            "without both": {"routing": "uniform", "lambda2": 0.0},
        },
        "router losses": {
            "without entropy": {"entropy": 0.0},
            "without similarity": {"alpha": 0.0},
            "without router losses": {"lambda1": 0.0},
        },
        "unimodal losses": {"without unimodal losses": {"unimodal": 0.0}},
        "fusion": {f"{other} instead of {config['fusion']}": {"fusion": other}},
        "form of distillation": {
            f"distillation {form}": {"distillation": form}
            for form in ("paper", "mse", "kl")
            if form != config["distillation"]
        },
    }
    return {
        table: {name: _changed(base, options) for name, options in variants.items()}
        for table, variants in changes.items()
    }


def sweep(base: TrainConfig) -> dict[str, dict[float, TrainConfig]]:
    """Parameter -> value, rising and with the configured one among them -> configuration; EGMF has none of them."""
    if issubclass(entry(base.model).model, Egmf):
        return {}
    config = _settings(base)
    values = {name: sorted({*tried, float(config[name])}) for name, tried in SWEEP.items()}
    return {name: {value: _changed(base, {name: value}) for value in choices} for name, choices in values.items()}


def _settings(base: TrainConfig) -> dict[str, Any]:
    config = configure(base.model, base.options)
    if not issubclass(entry(base.model).model, Mixture):
        raise StudyError(f"model {base.model} has no parts to take away", hint="Ablate egmf, emoe or a form of it")
    return {name: getattr(config, name) for name in ("fusion", "distillation", *SWEEP)}


def _changed(base: TrainConfig, options: Mapping[str, Any]) -> TrainConfig:
    return replace(base, options={**base.options, **options})
