"""The one channel through which progress, timing and warnings leave a stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class Event:
    """Something worth telling.

    Attributes:
        kind: what sort of event this is.
        name: the stage or task it belongs to.
        message: words for a person.
        done: how far the task is, in the units of `total`.
        total: the whole of the task, or None when it is not known.
        seconds: wall time of a finished task.
        source: the input that it is about, "" when it is about none.
    """

    kind: Literal["plan", "start", "progress", "end", "warning", "info"]
    name: str
    message: str = ""
    done: float | None = None
    total: float | None = None
    seconds: float | None = None
    source: str = ""


class Hook(Protocol):
    """Receives every event; must not raise."""

    def __call__(self, event: Event, /) -> None: ...


def silent(event: Event) -> None:
    """The hook that tells nobody."""


@contextmanager
def timed(hook: Hook, name: str, message: str = "") -> Iterator[None]:
    """Announce the start of a task and, when it did not raise, its end with the seconds it took."""
    hook(Event("start", name, message))
    began = time.perf_counter()
    yield
    hook(Event("end", name, message, seconds=time.perf_counter() - began))
