"""Turn the errors of the models package, which knows no codes, into coded ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from emopipe.errors import EmopipeError


@contextmanager
def coded_errors() -> Iterator[None]:
    """Within this block, errors of `emopipe.models` become :class:`EmopipeError` with their code."""
    from emopipe.models import errors

    codes: dict[type[errors.ModelsError], str] = {
        errors.CheckpointError: "EMO-401",
        errors.FeatureMismatch: "EMO-402",
        errors.DatasetError: "EMO-502",
        errors.ConfigError: "EMO-503",
        errors.BackboneError: "EMO-503",
        errors.TrainingError: "EMO-504",
    }
    try:
        yield
    except errors.BackboneError as error:
        hint = f"{error.hint or 'Give another one'}, or set EMOPIPE_WEIGHTS to a folder that holds it under its name"
        raise EmopipeError(codes[type(error)], error.what, path=error.path, hint=hint) from error
    except errors.ModelsError as error:
        raise EmopipeError(codes[type(error)], error.what, path=error.path, hint=error.hint) from error
