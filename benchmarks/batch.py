"""What a pool of workers and the store are worth: files per hour, runs with nothing or little to do.

    python benchmarks/batch.py [--files 12] [--seconds 30] [--work FOLDER]

Talking heads are made (`pip install 'emopipe[samples]'`) and run by one worker and by two, each with an empty store;
then again with nothing changed, with another checkpoint, and with one that wants its voice in other windows. Time is
that of the whole command. Wants two idle cores.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from emopipe.models import checkpoint

SAMPLES = Path(__file__).parent.parent / "samples"
MODEL = "emopipe-default"


def talking_heads(folder: Path, files: int, seconds: float) -> None:
    """Clips of different lengths, so that no two have the same content."""
    sys.path.insert(0, str(SAMPLES / "make"))
    from synthetic import write_talking_clip

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        path = folder / f"{number:03}.mp4"
        if not path.exists():
            write_talking_clip(path, seconds + 0.2 * number)


def variant(folder: Path, **voice: Any) -> Path:
    """The shipped checkpoint, hardly changed: another one, which seals other voice parameters if any are given."""
    predictor = checkpoint.load(MODEL)
    extraction = dict(predictor.spec.extraction)
    extraction["voice"] = {**extraction["voice"], **voice}
    predictor.spec = replace(predictor.spec, extraction=extraction)
    for values in predictor.module.parameters():
        values.data *= 1.0001
    checkpoint.save(folder, predictor, "Made by benchmarks/batch.py.")
    return folder


def timed(folder: Path, out: Path, store: Path, jobs: int, model: Path | str = MODEL) -> tuple[float, Counter[str]]:
    """Seconds of a run, and how often each stage was done."""
    command = [sys.executable, "-m", "emopipe.pipeline", "run", folder, "--out", out, "--store", store]
    command += ["--jobs", jobs, "--model", model, "--device", "cpu"]
    began = time.perf_counter()
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    with (out / "timings.csv").open(newline="", encoding="utf-8") as file:
        return seconds, Counter(row["stage"] for row in csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--work", type=Path, help="Folder to work in, left behind.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        clips, store = work / "clips", work / "store-2"
        talking_heads(clips, options.files, options.seconds)
        seconds = {}
        for jobs in (1, 2):
            seconds[jobs], done = timed(clips, work / f"out-{jobs}", work / f"store-{jobs}", jobs)
            rate = 3600 * options.files / seconds[jobs]
            print(f"{jobs} worker(s): {seconds[jobs]:.1f} s, {rate:.0f} files per hour, {dict(done)}", flush=True)
        print(
            f"two workers over one: {seconds[1] / seconds[2]:.2f} times the files per hour (at least 1.6)", flush=True
        )
        again, done = timed(clips, work / "out-again", store, 2)
        print(
            f"nothing changed: {again:.1f} s, {100 * again / seconds[1]:.2f} % of the first run (under 2), {dict(done)}"
        )
        for what, model in (
            ("another checkpoint", variant(work / "other")),
            ("another window of the voice", variant(work / "window", window=0.5)),
        ):
            spent, done = timed(clips, work / f"out-{what}", store, 2, model)
            print(f"{what}: {spent:.1f} s, {dict(done)}", flush=True)


if __name__ == "__main__":
    main()
