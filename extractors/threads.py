"""Threads: how many torch takes, calls side by side, and the second half of a work beside the first half."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")

#: How long a thread of Python keeps others waiting where two do a lot, in seconds: a tenth of what is usual.
SHORT_TURN: Final = 0.0005
#: So many calls wait at most.
MOST_WAITING: Final = 4


@contextmanager
def one_thread() -> Iterator[int]:
    """Have torch and numpy's products use one thread; tells how many torch used before.

    Thousands of tiny operations run no faster on more threads, and many times slower when a core is taken.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _products().limit(limits=1):
            yield before
    finally:
        torch.set_num_threads(before)


@cache
def _products() -> Any:
    """The libraries by which numpy multiplies matrices."""
    import numpy  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(internal_api="openblas")


def several_threads() -> bool:
    """Whether torch uses more than one thread."""
    import torch

    return torch.get_num_threads() > 1


@contextmanager
def leaving_a_thread() -> Iterator[None]:
    """Leave room for a thread beside: torch uses one fewer than it did, and threads of Python soon give way."""
    import torch

    before, turn = torch.get_num_threads(), sys.getswitchinterval()
    torch.set_num_threads(max(1, before - 1))
    sys.setswitchinterval(SHORT_TURN)
    try:
        yield
    finally:
        sys.setswitchinterval(turn)
        torch.set_num_threads(before)


def side_by_side(function: Callable[[T], U], items: Sequence[T]) -> Iterator[U]:
    """Results of a call for each item, in their order, without gradients.

    As many calls run at a time as torch has threads, and in each of them torch has one: that takes less time than to
    share the operations of one call after the other among the threads. A single call has them all.
    """
    import torch

    def call(item: T) -> U:
        with torch.inference_mode():
            return function(item)

    if len(items) < 2 or torch.get_num_threads() == 1:
        yield from map(call, items)
        return
    with one_thread() as threads, ThreadPoolExecutor(threads, "side", torch.set_num_threads, (1,)) as pool:
        yield from pool.map(call, items)


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
