"""Checkpoints on disk: `model.safetensors`, `config.json` and a `README.md` card in one folder. No pickle anywhere."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from emopipe.models.errors import BackboneError, CheckpointError, ConfigError, FeatureMismatch
from emopipe.models.predictor import Prediction, Predictor, Spec

__all__ = [
    "FORMAT",
    "CheckpointError",
    "FeatureMismatch",
    "Prediction",
    "Predictor",
    "Spec",
    "identify",
    "load",
    "read_spec",
    "save",
]

#: Raised when the layout changes so that older readers must refuse.
FORMAT: Final = 1

#: Where the checkpoints that come with the package live.
SHIPPED: Final = Path(__file__).parent / "checkpoints"


def _weights(predictor: Predictor) -> bytes:
    state = {name: value.detach().cpu().contiguous() for name, value in predictor.module.state_dict().items()}
    return save_tensors(state)


def _identify(weights: bytes, spec: Spec) -> str:
    return hashlib.sha256(weights + spec.to_json().encode()).hexdigest()[:12]


def identify(predictor: Predictor) -> str:
    """The checkpoint id: the first 12 hex digits of sha256 over weights and configuration."""
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
    target = Path(path)
    weights = _weights(predictor)
    name = _identify(weights, predictor.spec)
    config = {
        "format": FORMAT,
        "id": name,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        **asdict(predictor.spec),
    }
    text = json.dumps(config, indent=1, ensure_ascii=False) + "\n"
    with _replacing(target) as folder:
        write_synced(folder / "model.safetensors", weights)
        write_synced(folder / "config.json", text.encode())
        write_synced(folder / "README.md", card.encode())
    return name


def read_spec(path: str | Path) -> Spec:
    """What a checkpoint says of itself, without its weights.

    Raises:
        CheckpointError: it is missing, of a newer format, or its configuration is damaged.
    """
    folder = _find(path)
    config = _read_config(folder)
    try:
        return _spec({name: value for name, value in config.items() if name not in ("id", "weights_sha256")})
    except (TypeError, KeyError, AttributeError) as error:
        raise _damaged(folder, f"config.json cannot be read: {error!r}") from error


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
    folder = _find(path)
    config = _read_config(folder)
    try:
        weights = (folder / "model.safetensors").read_bytes()
    except OSError as error:
        raise _damaged(folder, f"the weights cannot be read: {error}") from error
    if hashlib.sha256(weights).hexdigest() != config.pop("weights_sha256", None):
        raise _damaged(folder, "the weights are not those the configuration names")
    name = config.pop("id", None)
    try:
        spec = _spec(config)
        module = spec.build(options)
        module.load_state_dict(load_tensors(weights))
    except BackboneError:
        raise
    except (SafetensorError, RuntimeError, TypeError, KeyError, AttributeError, ConfigError) as error:
        raise _damaged(folder, f"weights and configuration do not fit: {error}") from error
    if _identify(weights, spec) != name:
        raise _damaged(folder, "the configuration was changed")
    return Predictor(spec, module, device)


def shipped() -> list[str]:
    """The names of the checkpoints that come with the package."""
    return sorted(one.parent.name for one in SHIPPED.glob("*/config.json"))


def _find(path: str | Path) -> Path:
    for folder in (Path(path), SHIPPED / str(path)):
        if (folder / "config.json").is_file():
            return folder
    known = ", ".join(shipped())
    hint = "Give the folder of a checkpoint made by `emopipe train`" + (f", or one of: {known}" if known else "")
    raise CheckpointError("there is no checkpoint here", hint=hint, path=path)


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        version = config.pop("format")
    except (OSError, ValueError, AttributeError, KeyError) as error:
        raise _damaged(folder, f"config.json cannot be read: {error!r}") from error
    if version != FORMAT:
        raise CheckpointError(
            f"the checkpoint has format {version}, this version reads {FORMAT}",
            hint="Install the version of emopipe that wrote it, or train again",
            path=folder,
        )
    return dict(config)


def _spec(config: Mapping[str, Any]) -> Spec:
    fixed = {
        **config,
        "classes": tuple(config["classes"]),
        "schema": {name: tuple(names) for name, names in config["schema"].items()},
    }
    return Spec(**fixed)


def _damaged(folder: Path, what: str) -> CheckpointError:
    return CheckpointError(f"the checkpoint is damaged: {what}", hint="Get or train it again", path=folder)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A fresh folder that takes the place of `target` when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh, old = (target.with_name(f".{target.name}.{word}-{os.getpid()}") for word in ("new", "old"))
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        yield fresh
        if target.exists():
            target.rename(old)
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
