"""Memory that was freed goes back to the system, where the allocator would keep it."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, Final

#: Settings of glibc's allocator, by their numbers in malloc.h. Blocks of 4 MiB and more, such as pictures and what
#: networks hold between layers, are the system's again as soon as they are freed; smaller ones come from one arena for
#: all threads, whose free end is handed back when it exceeds 64 MiB.
FRUGAL: Final = {-8: 1, -3: 4 << 20, -1: 64 << 20}


@cache
def allocate_frugally() -> None:
    """Have the process keep less of what it frees; does nothing where the C library cannot (all but glibc)."""
    setting = _function("mallopt")
    if setting is not None:
        for number, value in FRUGAL.items():
            setting(number, value)


def return_freed_memory() -> None:
    """Hand freed memory back; does nothing where the C library cannot (all but glibc)."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


@cache
def _function(name: str) -> Any:
    """A function of the C library; None where it has none of that name."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return None
