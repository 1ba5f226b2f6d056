"""A call in a thread of its own, which ends when nobody wants its result any more."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event as Flag
from typing import Generic, TypeVar

from emopipe.pipeline.progress import Event, Hook

T = TypeVar("T")


class Background(Generic[T]):
    """A call in a thread of its own, which begins at once.

    What it tells of its progress is passed on by the thread that waits for its result, while it waits.

    Args:
        work: the call; it is given a hook, by which it is also ended.

    Attributes:
        seconds: wall time that the call took, once it has ended.
    """

    def __init__(self, work: Callable[[Hook], T]) -> None:
        self.seconds = 0.0
        self._told: SimpleQueue[Event | None] = SimpleQueue()
        self._waited_for, self._dropped = Flag(), Flag()
        self._pool = ThreadPoolExecutor(1, "background")
        self._result = self._pool.submit(self._call, work)

    def result(self, hook: Hook) -> T:
        """What the call returns or raises, when it has ended; meanwhile the hook is told what it tells."""
        self._waited_for.set()
        while (event := self._told.get()) is not None:
            hook(event)
        return self._result.result()

    def drop(self) -> None:
        """End the call where it next tells something, and wait until it has ended."""
        self._dropped.set()
        self._pool.shutdown()

    def _call(self, work: Callable[[Hook], T]) -> T:
        began = time.perf_counter()
        try:
            return work(self._tell)
        finally:
            self.seconds = time.perf_counter() - began
            self._told.put(None)

    def _tell(self, event: Event) -> None:
        if self._dropped.is_set():
            raise _DroppedError
        if event.kind != "progress" or self._waited_for.is_set():
            self._told.put(event)


class _DroppedError(Exception):
    """Nobody wants the result of the call."""
