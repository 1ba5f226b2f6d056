"""Keep what an import does to the whole process from staying, and what it brings and nobody calls from coming."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


@contextmanager
def contained() -> Iterator[None]:
    """Undo, at the end of the block, what was done in it to the process.

    Put back are the environment, the warning filters (within the block nothing is warned of), torch's number of threads
    and gradient mode, and the names in `__main__`. A library that asks for one thread through OMP_NUM_THREADS finds
    it set, because an OpenMP runtime reads it once, when it is loaded, and would keep to one thread ever after.
    """
    import torch

    environment, threads = dict(os.environ), torch.get_num_threads()
    main = sys.modules["__main__"].__dict__
    names = set(main)
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    try:
        with warnings.catch_warnings(), torch.set_grad_enabled(torch.is_grad_enabled()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        for name in set(main) - names:
            del main[name]


@contextmanager
def numba_later() -> Iterator[None]:
    """Have functions that modules imported in the block compile with numba compiled when they are first called.

    numba itself is imported no sooner. Within the block, a module named `numba` has nothing but `jit`, with arguments.
    """
    if "numba" in sys.modules:
        yield
        return
    stand_in: Any = ModuleType("numba")
    stand_in.__spec__, stand_in.jit = ModuleSpec("numba", None), _jit_later
    sys.modules["numba"] = stand_in
    try:
        yield
    finally:
        if sys.modules.get("numba") is stand_in:
            del sys.modules["numba"]


def _jit_later(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        compiled: list[Callable[..., Any]] = []

        @wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            if not compiled:
                import numba

                compiled.append(numba.jit(**options)(function))
            return compiled[0](*arguments, **named)

        return call

    return decorate
