"""Save and load checkpoints: `model.safetensors`, `config.json` and a card, `README.md`, in one folder. No pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from emopipe.errors import BackboneError, ConfigError
from emopipe.files import atomic_folder, writing
from emopipe.models.prediction import Prediction
from emopipe.models.predictor import Predictor, Spec
from emopipe.models.sealed import FORMAT, damaged, find, identity, read_config, read_weights, shipped

__all__ = [
    "FORMAT",
    "Prediction",
    "Predictor",
    "Spec",
    "identify",
    "load",
    "read_spec",
    "save",
    "shipped",
]


def _weights(predictor: Predictor) -> bytes:
    state = {name: value.detach().cpu().contiguous() for name, value in predictor.module.state_dict().items()}
    return save_tensors(state)


def _identify(weights: bytes, spec: Spec) -> str:
    return identity(weights, spec.to_json())


def identify(predictor: Predictor) -> str:
    """Compute the checkpoint id: the first 12 hex digits of sha256 over weights and configuration."""
    return _identify(_weights(predictor), predictor.spec)


def save(path: str | Path, predictor: Predictor, card: str) -> str:
    """Write a checkpoint folder, replacing one that is there; a kill leaves the old one or the new one.

    Args:
        path: the folder.
        predictor: what to save.
        card: the text of its README.md.

    Returns:
        The checkpoint id.
    """
    weights = _weights(predictor)
    name = _identify(weights, predictor.spec)
    config = {
        "format": FORMAT,
        "id": name,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        **asdict(predictor.spec),
    }
    text = json.dumps(config, indent=1, ensure_ascii=False) + "\n"
    with writing("the checkpoint", Path(path)), atomic_folder(Path(path), durable=True) as folder:
        (folder / "model.safetensors").write_bytes(weights)
        (folder / "config.json").write_text(text, encoding="utf-8")
        (folder / "README.md").write_text(card, encoding="utf-8")
    return name


def read_spec(path: str | Path) -> Spec:
    """Read what a checkpoint says of itself, without its weights.

    Raises:
        CheckpointError: it is missing, of a newer format, or its configuration is damaged.
    """
    folder = find(path)
    config = read_config(folder)
    try:
        return _spec({name: value for name, value in config.items() if name not in ("id", "weights_sha256")})
    except (TypeError, KeyError, AttributeError) as error:
        raise damaged(folder, f"config.json cannot be read: {error!r}") from error


def load(path: str | Path, device: str | torch.device = "cpu", options: Mapping[str, Any] | None = None) -> Predictor:
    """Open a checkpoint folder, or one that comes with the package by its name.

    Args:
        path: the folder, or the name.
        device: where to run it.
        options: options of the model that hold on this machine only, such as where its backbone lies.

    Raises:
        CheckpointError: it is missing, of a newer format, incomplete or damaged.
        BackboneError: it stands on a pretrained network that is not there, or on another one.
    """
    folder = find(path)
    config = read_config(folder)
    weights = read_weights(folder, config)
    name = config.pop("id", None)
    try:
        spec = _spec(config)
        module = spec.build(options)
        module.load_state_dict(load_tensors(weights))
    except BackboneError:
        raise
    except (SafetensorError, RuntimeError, TypeError, KeyError, AttributeError, ConfigError) as error:
        raise damaged(folder, f"weights and configuration do not fit: {error}") from error
    if _identify(weights, spec) != name:
        raise damaged(folder, "the configuration was changed")
    return Predictor(spec, module, device)


def _spec(config: Mapping[str, Any]) -> Spec:
    fixed = {
        **config,
        "classes": tuple(config["classes"]),
        "schema": {name: tuple(names) for name, names in config["schema"].items()},
    }
    return Spec(**fixed)
