"""Pools of processes: what a worker's death costs, limits on memory, several runs at once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from emopipe.pipeline.execution.batch import engine_for
from emopipe.pipeline.execution.processes import Processes
from emopipe.pipeline.progress import Event
from tests.conftest import ROOT
from tests.pipeline.execution.test_batch import batch, clip, clips, model, outputs, table, work
from tests.pipeline.stand_ins import DEADLY, GREEDY, SlowStandIns

__all__ = ["clips", "model"]


@pytest.mark.slow
def test_a_worker_that_dies_or_takes_too_much_costs_its_own_file_only(model: Path, clips: Path, tmp_path: Path) -> None:
    shutil.copytree(clips, tmp_path / "in")
    clip(tmp_path / "in" / "deadly.mp4", seconds=3.0, grey=DEADLY)
    clip(tmp_path / "in" / "greedy.mp4", seconds=2.0, grey=GREEDY)
    told: list[Event] = []
    engine = Processes(2, memory=2 * 1_200_000_000)
    found = {r.media.stem: r for r in batch(tmp_path / "in", model, tmp_path, engine, hook=told.append)}
    assert [found[str(number)].state for number in range(3)] == ["ok"] * 3
    assert found["deadly"].reasons[0].code == "EMO-902" and "SIGKILL" in found["deadly"].reasons[0].what
    assert found["greedy"].state == "ok"  # alone it may have the memory of both
    assert any("more than a worker may have" in event.message for event in told)
    assert {row["state"] for row in table(tmp_path / "out" / "summary.csv")} == {"ok", "failed"}
    retried = [event.source for event in told if event.name == "retry"]
    assert sorted(Path(source).stem for source in retried) == ["deadly", "greedy"]
    order = [Path(event.source).stem for event in told if event.kind == "start" and event.name == "file"]
    assert order[5:7] == ["deadly", "greedy"]  # after every file was probed: the longest first
    batch([tmp_path / "in" / f"{number}.mp4" for number in range(3)], model, tmp_path, out="whole", store="fresh")
    (greedy,) = batch(
        tmp_path / "in" / "greedy.mp4", model, tmp_path, Processes(1, memory=1_080_000_000), store="third"
    )
    assert greedy.reasons[0].code == "EMO-903" and "--limit-memory" in greedy.reasons[0].hint
    whole = outputs(tmp_path / "whole")
    assert {n: outputs(tmp_path / "out")[n] for n in ("0.json", "2.csv")} == {n: whole[n] for n in ("0.json", "2.csv")}


@pytest.mark.slow
def test_two_runs_at_once_share_the_work(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(4):
        clip(tmp_path / "in" / f"{number}.mp4", seconds=2.0, grey=40 + 20 * number)
    command = [sys.executable, "-m", "tests.pipeline.emopipe_with_stand_ins", "run", str(tmp_path / "in")]
    options = ["--model", str(model), "--store", str(tmp_path / "store"), "--offline", "--device", "cpu", "--jobs", "1"]
    runs = [
        subprocess.Popen([*command, *options, "--out", str(tmp_path / name)], cwd=ROOT, stderr=subprocess.DEVNULL)
        for name in ("first", "second")
    ]
    assert [run.wait() for run in runs] == [0, 0]
    assert outputs(tmp_path / "first") == outputs(tmp_path / "second")
    done = work(tmp_path)
    assert done == Counter({name: 4 for name in done if name != "sound"}) + Counter(sound=done["sound"])


def test_the_pool_is_as_large_as_files_and_memory_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)

    def jobs(files: int, **options: Any) -> int:
        return engine_for(files, device="cpu", **options).jobs

    assert jobs(1) == jobs(100, debug=True) == 1
    assert jobs(3, jobs=5) == 3 and jobs(100, jobs=5) == 5
    assert jobs(100, memory=7 << 30) == 3 and jobs(100, memory=1 << 20) == 1


def test_stand_ins_can_be_handed_to_processes() -> None:
    import pickle

    assert pickle.loads(pickle.dumps(SlowStandIns)) is SlowStandIns
