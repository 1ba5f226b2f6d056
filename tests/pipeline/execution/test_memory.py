"""Freed memory goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import psutil
import pytest

from emopipe.pipeline.execution.memory import allocate_frugally, return_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc hands memory back when it is told to")
def test_what_lies_below_something_in_use_is_handed_back() -> None:
    blocks = [bytes(100_000) for _ in range(2000)]
    kept = [blocks.pop(), *blocks[::100]]
    blocks.clear()
    before = psutil.Process().memory_info().rss
    return_freed_memory()
    assert before - psutil.Process().memory_info().rss > 100_000_000
    assert len(kept) == 21


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_large_blocks_are_handed_back_as_soon_as_they_are_freed() -> None:
    """By itself the allocator keeps those of up to 32 MiB from the second time on; a new process has no leftovers."""
    code = (
        "import numpy, psutil\n"
        "from emopipe.pipeline.execution.memory import allocate_frugally\n"
        "allocate_frugally()\n"
        "held = psutil.Process().memory_info\n"
        "above = []\n"
        "for _ in range(3):\n"
        "    block = numpy.ones(20 << 20, numpy.uint8)\n"
        "    above.append(numpy.ones(1 << 20, numpy.uint8))\n"
        "    before = held().rss\n"
        "    del block\n"
        "    assert before - held().rss > 15 << 20\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_where_memory_cannot_be_handed_back_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emopipe.pipeline.execution.memory._function", lambda name: None)
    return_freed_memory()
    allocate_frugally.__wrapped__()
