"""Threads: how many torch takes, and the second half of a work in a thread beside the first half."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Final, ParamSpec, Self

P = ParamSpec("P")

#: So many calls wait at most.
MOST_WAITING: Final = 4


@contextmanager
def one_thread() -> Iterator[int]:
    """Have torch use one thread; tells how many it used before.

    Thousands of tiny operations run no faster on more threads, and many times slower when a core is taken.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


class InOrder:
    """Makes calls one after the other in a thread of its own: a context that ends when all are done.

    The error of a call is raised by one of the next calls, or at the end of the context. When the context is left
    because of an error, calls that have not begun are dropped.

    Args:
        beside: False: no thread, each call is made at once.
    """

    def __init__(self, *, beside: bool) -> None:
        self._pool = ThreadPoolExecutor(1, "in-order") if beside else None
        self._waiting: deque[Future[object]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._pool is not None:
            with self._pool:
                while self._waiting and kind is None:
                    self._waiting.popleft().result()
                self._pool.shutdown(cancel_futures=True)

    def call(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Have a function called after those before; waits when too many do."""
        if self._pool is None:
            function(*args, **kwargs)
            return
        if len(self._waiting) == MOST_WAITING:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(function, *args, **kwargs))
