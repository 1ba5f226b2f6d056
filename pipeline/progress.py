"""The one channel through which progress, timing and warnings leave a stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol


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

    def __call__(self, event: Event, /) -> None:
        """Take note of an event."""


def silent(event: Event) -> None:
    """The hook that tells nobody."""


@contextmanager
def timed(hook: Hook, name: str, message: str = "") -> Iterator[None]:
    """Announce the start of a task and, when it did not raise, its end with the seconds it took."""
    hook(Event("start", name, message))
    began = time.perf_counter()
    yield
    hook(Event("end", name, message, seconds=time.perf_counter() - began))


class ProgressBar:
    """A hook that shows a bar in notebooks and terminals: files of a batch, else the steps of the task at hand."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task = ""

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, event: Event, /) -> None:
        """Take in an event."""
        if event.kind in ("warning", "info"):
            self._show(event.message if event.kind == "warning" else "")
        elif event.name == "batch":
            self._start("files", event.total or 0)
        elif event.name == "file" and self._task == "files":
            self._bar.update(1 if event.kind == "end" else 0)
        elif self._task == "files":
            share = f" {100 * event.done / event.total:.0f} %" if event.done and event.total else ""
            self._bar.set_postfix_str(f"{event.name}{share}")
        elif event.kind == "progress" and event.total:
            if self._task != event.name:
                self._start(event.name, event.total)
            self._bar.update((event.done or 0) - self._bar.n)

    def _start(self, task: str, total: float) -> None:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # without ipywidgets a notebook gets a bar of text
            from tqdm.auto import tqdm

            if self._bar is not None:
                self._bar.close()
            self._task, self._bar = task, tqdm(total=total, desc=task, leave=False)

    def _show(self, message: str) -> None:
        if message:
            from tqdm.auto import tqdm

            tqdm.write(message)
