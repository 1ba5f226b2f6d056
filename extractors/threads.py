"""Threads: how many torch takes, calls side by side, and the second half of a work beside the first half."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Final, ParamSpec, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")

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


def side_by_side(function: Callable[[T], U], items: Sequence[T]) -> list[U]:
    """Results of a call for each item, in their order, without gradients.

    As many calls run at a time as torch has threads, and in each of them torch has one: that takes less time than to
    share the operations of one call after the other among the threads. A single call has them all.
    """
    import torch

    def call(item: T) -> U:
        with torch.inference_mode():
            return function(item)

    if len(items) < 2 or torch.get_num_threads() == 1:
        return [call(item) for item in items]
    with one_thread() as threads, ThreadPoolExecutor(threads, "side", torch.set_num_threads, (1,)) as pool:
        return list(pool.map(call, items))


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
