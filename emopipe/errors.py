"""The one root exception, and the stable codes that users can look up and scripts can test for."""

from __future__ import annotations

from os import PathLike
from typing import Any, Final

#: Code -> what it stands for. A code never changes its meaning once released.
CODES: Final[dict[str, str]] = {
    "EMO-101": "input path does not exist",
    "EMO-102": "input cannot be read (permissions or an I/O error)",
    "EMO-103": "input is empty",
    "EMO-104": "input is not media that can be decoded",
    "EMO-105": "input has neither a video nor an audio stream",
    "EMO-106": "no media files were found under the path",
    "EMO-107": "input changed while it was being read",
    "EMO-201": "a weight is not here and may not be fetched (offline)",
    "EMO-202": "a weight's hash differs from the catalogue's",
    "EMO-203": "no source of a weight could be reached",
    "EMO-204": "the disk is full or the cache cannot be written",
    "EMO-205": "no weight of that name is in the catalogue",
    "EMO-301": "a library is missing or has the wrong version",
    "EMO-302": "the requested device is not available",
    "EMO-303": "a Ray cluster cannot be reached, or cannot be worked with",
    "EMO-401": "a checkpoint is missing, incomplete or damaged",
    "EMO-402": "features offered differ from those the checkpoint was trained on",
    "EMO-501": "a labels table is unusable",
    "EMO-502": "a dataset is missing, incomplete or damaged",
    "EMO-503": "a configuration value is unusable",
    "EMO-504": "training cannot start on this dataset",
    "EMO-505": "a participants table is unusable",
    "EMO-601": "output cannot be written",
    "EMO-602": "results cannot be stored",
    "EMO-901": "an unexpected failure inside a stage",
    "EMO-902": "a worker process died",
    "EMO-903": "a file needs more memory than it may have",
}

ENVIRONMENT_CODES: Final = frozenset(code for code in CODES if code.startswith(("EMO-2", "EMO-3")))
#: What befalls one input befalls them all.
STOPPING_CODES: Final = ENVIRONMENT_CODES | {"EMO-401", "EMO-402", "EMO-503"}


class EmopipeError(Exception):
    """A failure that a user can act on.

    Args:
        code: one of :data:`CODES`.
        what: what happened, one sentence without a full stop.
        path: the file or folder it happened to, when there is one.
        hint: what to do next, one sentence without a full stop.
    """

    def __init__(self, code: str, what: str, *, path: str | PathLike[str] | None = None, hint: str = "") -> None:
        if code not in CODES:
            raise KeyError(f"unknown error code {code}")
        self.code = code
        self.what = what
        self.path = None if path is None else str(path)
        self.hint = hint
        super().__init__(str(self))

    def __reduce__(self) -> tuple[Any, ...]:
        """Survive the way back from a worker process."""
        return _rebuilt, (self.code, self.what, self.path, self.hint)

    def __str__(self) -> str:
        where = f" ({self.path})" if self.path else ""
        todo = f". {self.hint}" if self.hint else ""
        return f"{self.code}: {self.what}{where}{todo}"

    @property
    def stops_all(self) -> bool:
        """Whether every other input would fail in the same way."""
        return self.code in STOPPING_CODES

    @property
    def exit_code(self) -> int:
        """3 for environment problems (missing weight or library), 2 for everything a changed command can mend."""
        return 3 if self.code in ENVIRONMENT_CODES else 2


def _rebuilt(code: str, what: str, path: str | None, hint: str) -> EmopipeError:
    return EmopipeError(code, what, path=path, hint=hint)
