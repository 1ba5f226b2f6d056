"""Hours of video in one process: whether resident memory stays flat.

    python benchmarks/soak.py [--hours 2] [--minutes 10] [--model emopipe-default] [--wall SECONDS]

A minute of a talking head (1280x720, 30 frames per second, with speech; `pip install 'emopipe[samples]'`) is repeated
without being encoded again to videos of so many minutes, each a little longer than the one before, so that no result
is found in the store. One worker works on them one after the other, by the whole command, until the hours are done or
so many seconds have passed. Memory is looked at after each video; from the second one on it may grow by 5 %.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

import psutil
from long_video import SAMPLES, peak, repeated

from emopipe.pipeline.execution.engine import Here
from emopipe.pipeline.execution.jobs import prediction_job
from emopipe.pipeline.execution.plan import Task
from emopipe.pipeline.records import Source
from emopipe.pipeline.store.store import temporary_store

#: Resident memory at the end over that after the second video.
MOST: Final = 1.05
MIB: Final = 1 << 20


def soak(folder: Path, hours: float, minutes: int, model: str, wall: float) -> list[float]:
    """Resident memory in MiB after each video; prints it."""
    sys.path.insert(0, str(SAMPLES / "make"))
    from synthetic import write_talking_clip

    minute, held, done = folder / "minute.mp4", [], 0.0
    write_talking_clip(minute, 60)
    began, process = time.monotonic(), psutil.Process()
    with temporary_store() as store:
        job = replace(prediction_job(model, store, device="cpu", offline=True), threads=1)
        engine = Here()
        while done < hours * 3600 and time.monotonic() - began < wall:
            clip = repeated(minute, minutes + len(held), folder / f"{len(held)}.mp4")
            ((_, outcome),) = engine.run(job, [Task(Source(str(clip), media=clip))])
            if outcome.error is not None or outcome.extraction is None:
                raise SystemExit(str(outcome.error))
            clip.unlink()
            done += outcome.extraction.duration
            held.append(process.memory_info().rss / MIB)
            spent = time.monotonic() - began
            print(
                f"{done / 60:6.1f} minutes of video, {spent:6.0f} s: {held[-1]:.0f} MiB held, {peak():.0f} MiB at most"
            )
            sys.stdout.flush()
        engine.close()
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--model", default="emopipe-default")
    parser.add_argument("--wall", type=float, default=float("inf"), help="Seconds after which no video is begun.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        held = soak(Path(folder), options.hours, options.minutes, options.model, options.wall)
    if len(held) < 3:
        raise SystemExit("too few videos to tell; raise --hours or --wall")
    growth = held[-1] / held[1]
    print(f"last over second: {growth:.3f} (at most {MOST})")
    raise SystemExit(growth > MOST)


if __name__ == "__main__":
    main()
