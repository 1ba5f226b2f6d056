"""Checkpoints as far as they can be read without torch: where they lie, what they seal, and whether they are whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from emopipe.models.errors import CheckpointError

#: Raised when the layout changes so that older readers must refuse.
FORMAT: Final = 1

#: Where the checkpoints that come with the package live.
SHIPPED: Final = Path(__file__).parent / "checkpoints"


@dataclass(frozen=True)
class Sealed:
    """What a checkpoint's configuration says.

    Attributes:
        id: of the checkpoint.
        extraction: the sealed extraction configuration.
        modalities: that it looks at.
    """

    id: str
    extraction: Mapping[str, Any]
    modalities: tuple[str, ...]


def read_sealed(path: str | Path) -> Sealed:
    """Read and verify a checkpoint without building its network.

    Raises:
        CheckpointError: it is missing, of a newer format, incomplete or damaged.
    """
    folder = find(path)
    config = read_config(folder)
    weights = read_weights(folder, config)
    name = config.pop("id", None)
    if identity(weights, json.dumps(config, indent=1, ensure_ascii=False)) != name:
        raise damaged(folder, "the configuration was changed")
    return Sealed(str(name), config["extraction"], tuple(config["schema"]))


def identity(weights: bytes, spec: str) -> str:
    """The checkpoint id: the first 12 hex digits of sha256 over weights and configuration."""
    return hashlib.sha256(weights + spec.encode()).hexdigest()[:12]


def read_weights(folder: Path, config: dict[str, Any]) -> bytes:
    """The bytes of the weights; their hash is taken out of the configuration and compared."""
    try:
        weights = (folder / "model.safetensors").read_bytes()
    except OSError as error:
        raise damaged(folder, f"the weights cannot be read: {error}") from error
    if hashlib.sha256(weights).hexdigest() != config.pop("weights_sha256", None):
        raise damaged(folder, "the weights are not those the configuration names")
    return weights


def shipped() -> list[str]:
    """The names of the checkpoints that come with the package."""
    return sorted(one.parent.name for one in SHIPPED.glob("*/config.json"))


def find(path: str | Path) -> Path:
    """The folder of a checkpoint given by its folder or its name."""
    for folder in (Path(path), SHIPPED / str(path)):
        if (folder / "config.json").is_file():
            return folder
    known = ", ".join(shipped())
    hint = "Give the folder of a checkpoint made by `emopipe train`" + (f", or one of: {known}" if known else "")
    raise CheckpointError("there is no checkpoint here", hint=hint, path=path)


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` without its format."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        version = config.pop("format")
    except (OSError, ValueError, AttributeError, KeyError) as error:
        raise damaged(folder, f"config.json cannot be read: {error!r}") from error
    if version != FORMAT:
        raise CheckpointError(
            f"the checkpoint has format {version}, this version reads {FORMAT}",
            hint="Install the version of emopipe that wrote it, or train again",
            path=folder,
        )
    return dict(config)


def damaged(folder: Path, what: str) -> CheckpointError:
    """The error for a checkpoint that is not whole."""
    return CheckpointError(f"the checkpoint is damaged: {what}", hint="Get or train it again", path=folder)
