"""Full disks at any write, stores that cannot be written, clocks that go back: nothing is lost or counted twice."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emopipe.errors import EmopipeError
from emopipe.pipeline.store import serialization
from emopipe.pipeline.store.store import Store
from tests.pipeline.execution.test_batch import EMOPIPE, batch, inside, outputs
from tests.pipeline.execution.test_batch import clips as clips  # noqa: PLC0414
from tests.pipeline.execution.test_batch import model as model  # noqa: PLC0414


def finished(store: Path) -> Counter[str]:
    """How often each stage of each file came to its end; what is not stored is left out."""
    with Store(store) as opened:
        return Counter(key for key, stage, seconds in opened.work() if seconds is not None and stage != "sound")


class FullDisk:
    """Lets every write through but the n-th, and those after it until the disk has room again."""

    def __init__(self, patch: pytest.MonkeyPatch, nth: int, writes: int) -> None:
        self._left, self._writes = nth, writes
        write, replace = serialization.write, Path.replace
        write_bytes, mkdir = Path.write_bytes, Path.mkdir

        def stored(sink: Any, *arguments: Any) -> None:
            write(sink, *arguments)
            if isinstance(sink, Path) and self._refuses():
                os.truncate(sink, 10)
                self._fail()

        def guarded(original: Any) -> Any:
            def call(path: Path, *arguments: Any, **options: Any) -> Any:
                if self._refuses():
                    self._fail()
                return original(path, *arguments, **options)

            return call

        patch.setattr(serialization, "write", stored)
        patch.setattr(Path, "replace", guarded(replace))
        patch.setattr(Path, "write_bytes", guarded(write_bytes))
        patch.setattr(Path, "mkdir", guarded(mkdir))

    def _refuses(self) -> bool:
        self._left -= 1
        return -self._writes <= self._left < 0

    def _fail(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nth=st.integers(0, 70), writes=st.sampled_from([1, 3, 1000]))
def test_a_disk_that_is_full_at_any_write_costs_nothing_that_was_computed(
    model: Path, clips: Path, tmp_path: Path, nth: int, writes: int
) -> None:
    if not (tmp_path / "never").exists():
        batch(clips, model, tmp_path / "never")
    root = Path(tempfile.mkdtemp(dir=tmp_path))
    with pytest.MonkeyPatch.context() as patch:
        FullDisk(patch, nth, writes)
        try:
            batch(clips, model, root)
        except EmopipeError as error:
            assert error.code in ("EMO-601", "EMO-602")
    stored = {path.stem for path in (root / "store" / "results").glob("*/*.parquet")}
    before = finished(root / "store")
    assert all(result.state == "ok" for result in batch(clips, model, root))
    after = finished(root / "store")
    assert all(after[key] == before[key] for key in stored)
    assert outputs(root / "out") == outputs(tmp_path / "never" / "out")
    assert not any((root / "store" / "temporary").iterdir())


def test_a_store_on_a_disk_that_is_read_only_is_told(model: Path, clips: Path, tmp_path: Path) -> None:
    (tmp_path / "fixed").mkdir()
    script = f"mount -t tmpfs none $1/fixed && {EMOPIPE} $2 --model $3 --store $1/fixed/store --out $1/out && "
    script += f"mount -o remount,ro $1/fixed && {EMOPIPE} $2 --model $3 --store $1/fixed/store --out $1/out"
    done = inside(script, tmp_path, clips, model)
    assert done.returncode == 2 and "EMO-602" in done.stderr and "--store" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("step", [-400 * 86_400.0, -1.0, 400 * 86_400.0])
def test_a_clock_that_is_set_between_runs_costs_nothing(
    model: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    batch(clips, model, tmp_path)
    before, real, real_ns = finished(tmp_path / "store"), time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: real() + step)
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + int(step * 1e9))
    batch(clips, model, tmp_path, out="again")
    assert finished(tmp_path / "store") == before and max(before.values()) == 1
    assert outputs(tmp_path / "again") == outputs(tmp_path / "out")
    with Store(tmp_path / "store") as store:
        assert store.prune(lambda facts: False) == (0, 0)
