"""Freed memory goes back to the system."""

from __future__ import annotations

import platform

import psutil
import pytest

from emopipe.pipeline.execution.memory import return_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc hands memory back when it is told to")
def test_what_lies_below_something_in_use_is_handed_back() -> None:
    blocks = [bytes(100_000) for _ in range(2000)]
    kept = [blocks.pop(), *blocks[::100]]
    blocks.clear()
    before = psutil.Process().memory_info().rss
    return_freed_memory()
    assert before - psutil.Process().memory_info().rss > 100_000_000
    assert len(kept) == 21


def test_where_memory_cannot_be_handed_back_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emopipe.pipeline.execution.memory._trim", lambda: None)
    return_freed_memory()
