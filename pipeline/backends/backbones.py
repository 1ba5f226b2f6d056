"""Where the pretrained networks that models stand on lie, and checkpoints loaded with theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emopipe.pipeline import weights
from emopipe.pipeline.backends.loading import pick_device
from emopipe.pipeline.progress import Hook, silent

if TYPE_CHECKING:
    from emopipe.models.predictor import Predictor
    from emopipe.models.training.config import TrainConfig


def locate(options: Mapping[str, Any], *, offline: bool = False, hook: Hook = silent) -> dict[str, str]:
    """What a model must be told of this machine.

    Args:
        options: of the model; only `backbone` and `backbone_path` are looked at, and it may have neither.
        offline: never fetch a backbone.
        hook: told of a fetch.

    Returns:
        `backbone_path`, when the backbone is named by the weight catalogue or lies in EMOPIPE_WEIGHTS. Nothing for a
        model without a backbone, or with one whose place is told already: a folder or a hub id.

    Raises:
        WeightError: when it is not here and cannot be had.
    """
    name = options.get("backbone", "")
    if not name or options.get("backbone_path"):
        return {}
    in_catalogue = name in weights.names()
    path = weights.resolve(name, offline=offline, hook=hook) if in_catalogue else weights.given(Path(name).name)
    return {} if path is None else {"backbone_path": str(path)}


def with_backbone(config: TrainConfig, *, offline: bool = False, hook: Hook = silent) -> TrainConfig:
    """A configuration whose model can find what its training begins with: its backbone, see :func:`locate`, or BERT.

    Raises:
        ConfigError: no such model or option.
        WeightError: when it is not here and cannot be had.
    """
    from emopipe.models.registry import configure

    options = asdict(configure(config.model, config.options))
    location = locate(options, offline=offline, hook=hook)
    if options.get("text_encoder") and not options.get("text_weights_path"):
        bert = locate({"backbone": options["text_weights"]}, offline=offline, hook=hook)
        if bert:
            location["text_weights_path"] = bert["backbone_path"]
    return replace(config, options={**config.options, **location}) if location else config


def load_predictor(
    model: str, device: str = "auto", *, offline: bool = False, hook: Hook = silent
) -> tuple[Predictor, str]:
    """A checkpoint ready to predict, and its id.

    Args:
        model: name of a shipped checkpoint, or the folder of another.
        device: "auto", "cpu" or "cuda".
        offline: never fetch the backbone that it stands on.
        hook: told of a fetch.

    Raises:
        CheckpointError: when it is missing or damaged, WeightError or ConfigError when its backbone is missing.
    """
    from emopipe.models import checkpoint

    options = locate(checkpoint.read_spec(model).options, offline=offline, hook=hook)
    predictor = checkpoint.load(model, pick_device(device), options)
    return predictor, checkpoint.identify(predictor)
