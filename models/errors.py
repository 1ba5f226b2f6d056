"""What goes wrong with datasets, features, training runs and checkpoints, each with what to do about it."""

from __future__ import annotations

from os import PathLike


class ModelsError(ValueError):
    """A failure that a user can act on.

    Args:
        what: what happened, one sentence without a full stop.
        hint: what to do next, one sentence without a full stop.
        path: the file or folder it happened to, when there is one.
    """

    def __init__(self, what: str, *, hint: str = "", path: str | PathLike[str] | None = None) -> None:
        self.what = what
        self.hint = hint
        self.path = None if path is None else str(path)
        where = f" ({self.path})" if self.path else ""
        todo = f". {hint}" if hint else ""
        super().__init__(f"{what}{where}{todo}")


class DatasetError(ModelsError):
    """A dataset is missing, incomplete or damaged."""


class FeatureMismatch(ModelsError):
    """Features offered differ from those the checkpoint was trained on."""


class ConfigError(ModelsError):
    """A configuration value is unknown or unusable."""


class BackboneError(ConfigError):
    """A pretrained network that a model stands on is not there, or is not the one it was trained with."""


class TrainingError(ModelsError):
    """Training cannot start or go on with this dataset."""


class CheckpointError(ModelsError):
    """A checkpoint is missing, incomplete or damaged."""
