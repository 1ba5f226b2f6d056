"""Killed at any moment and run again, a batch ends as if nothing had happened, and hardly anything is done twice."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from emopipe.pipeline.store.store import Store
from tests.conftest import ROOT, SAMPLES
from tests.pipeline.execution.test_batch import clip, outputs
from tests.pipeline.stand_ins import write_checkpoint

JOBS = 2
KILLS = 10


def start(module: str, folder: Path, root: Path, *options: object) -> subprocess.Popen[bytes]:
    """A run in a process group of its own."""
    command = [sys.executable, "-m", module, "run", folder, "--jobs", JOBS, "--offline", "--device", "cpu", *options]
    words = [str(word) for word in command]
    log = (root / "log.txt").open("ab")
    return subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)


def started(store: Path) -> list[tuple[str, str, float | None]]:
    """Every start of a stage whose result is stored, so far."""
    if not (store / "index.sqlite").exists():
        return []
    with Store(store) as opened:
        return [row for row in opened.work() if row[1] != "sound"]


def kill_at(run: subprocess.Popen[bytes], store: Path, starts: int, delay: float) -> None:
    """SIGKILL the run and its workers a little after so many stages were started."""
    while len(started(store)) < starts and run.poll() is None:
        time.sleep(0.02)
    time.sleep(delay)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()


def done_twice(store: Path, kills: int) -> None:
    """At most one stage of one file per worker and kill was started again, and none was finished twice."""
    rows = started(store)
    assert max(Counter(key for key, _, seconds in rows if seconds is not None).values()) == 1
    again = sum(times - 1 for times in Counter(key for key, _, _ in rows).values())
    assert again <= kills * JOBS


def fifty(folder: Path) -> Path:
    """45 clips and five files that are broken in different ways."""
    folder.mkdir()
    for number in range(45):
        clip(folder / f"clip {number:02}.mp4", seconds=0.8 + number % 4 * 0.2, grey=20 + 4 * number)
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("not a video\n" * 100)
    (folder / "head.mp4").write_bytes((folder / "clip 00.mp4").read_bytes()[:200])
    (folder / "noise.mkv").write_bytes(random.Random(0).randbytes(5000))
    (folder / "lost.mp4").symlink_to(folder / "nowhere.mp4")
    return folder


@pytest.mark.slow
def test_fifty_files_killed_ten_times_end_as_if_never_killed(tmp_path: Path) -> None:
    folder = fifty(tmp_path / "in")
    model = write_checkpoint(tmp_path / "model")
    options = ("--model", model, "--store", tmp_path / "store", "--out", tmp_path / "out")
    stand_ins = "tests.pipeline.emopipe_with_stand_ins"
    chance = random.Random(6)
    whole = 45 * 6  # probe, face, speech, voice, subject and fusion of each
    moments = sorted(chance.uniform(0, 0.95 * whole) for _ in range(KILLS))
    for moment in moments:
        run = start(stand_ins, folder, tmp_path, *options)
        kill_at(run, tmp_path / "store", int(moment), chance.uniform(0, 0.2))
    assert start(stand_ins, folder, tmp_path, *options).wait() == 1
    done_twice(tmp_path / "store", KILLS)
    entries = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))["inputs"]
    assert Counter(entry["state"] for entry in entries) == {"ok": 45, "failed": 5}
    reasons = {Path(e["media"]).name: e["reasons"][0]["code"] for e in entries if e["state"] == "failed"}
    assert reasons == {
        "empty.mp4": "EMO-103",
        "text.mp4": "EMO-104",
        "head.mp4": "EMO-104",
        "noise.mkv": "EMO-104",
        "lost.mp4": "EMO-101",
    }
    fresh = ("--model", model, "--store", tmp_path / "other", "--out", tmp_path / "never")
    assert start(stand_ins, folder, tmp_path, *fresh).wait() == 1
    assert outputs(tmp_path / "out") == outputs(tmp_path / "never")
    assert "Traceback" not in (tmp_path / "log.txt").read_text("utf-8")


@pytest.mark.slow
def test_the_real_extractors_go_on_where_they_were_killed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("happy.mp4", "silent.mp4"):
        shutil.copy(SAMPLES / name, tmp_path / "in")
    options = ("--store", tmp_path / "store", "--out", tmp_path / "out")
    emopipe = "emopipe.pipeline"
    kill_at(start(emopipe, tmp_path / "in", tmp_path, *options), tmp_path / "store", 6, 0.3)
    before = started(tmp_path / "store")
    assert start(emopipe, tmp_path / "in", tmp_path, *options).wait() == 0
    done_twice(tmp_path / "store", 1)
    assert {stage for _, stage, seconds in before if seconds is not None} >= {"probe", "face"}
    assert start(emopipe, tmp_path / "in", tmp_path, "--no-store", "--out", tmp_path / "never").wait() == 0
    assert outputs(tmp_path / "out") == outputs(tmp_path / "never")
