"""Ablation studies of EMOE: without its parts, and with other settings, as the paper's tables and figures ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from emopipe.errors import StudyError
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


def ablations(base: TrainConfig) -> dict[str, dict[str, TrainConfig]]:
    """Table -> variant -> configuration; every table begins with the full model.

    The paper's three: the mixture of experts (here: learned routing) and unimodal distillation; the two losses of the
    router; and how features are fused. A fourth compares the forms of the distillation.

    Raises:
        ConfigError: the model is not an EMOE.
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
        "fusion": {f"{other} instead of {config['fusion']}": {"fusion": other}},
        "form of distillation": {
            f"distillation {form}": {"distillation": form}
            for form in ("paper", "mse", "kl")
            if form != config["distillation"]
        },
    }
    return {
        table: {FULL: base} | {name: _changed(base, options) for name, options in variants.items()}
        for table, variants in changes.items()
    }


def sweep(base: TrainConfig) -> dict[str, dict[float, TrainConfig]]:
    """Parameter -> value, rising and with the configured one among them -> configuration."""
    config = _settings(base)
    values = {name: sorted({*tried, float(config[name])}) for name, tried in SWEEP.items()}
    return {name: {value: _changed(base, {name: value}) for value in choices} for name, choices in values.items()}


def _settings(base: TrainConfig) -> dict[str, Any]:
    config = configure(base.model, base.options)
    if not issubclass(entry(base.model).model, Mixture):
        raise StudyError(f"model {base.model} has no parts to take away", hint="Ablate emoe, or one of its forms")
    return {name: getattr(config, name) for name in ("fusion", "distillation", *SWEEP)}


def _changed(base: TrainConfig, options: Mapping[str, Any]) -> TrainConfig:
    return replace(base, options={**base.options, **options})
