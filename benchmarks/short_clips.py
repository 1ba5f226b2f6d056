"""What many short clips cost to extract: seconds per second of video by one worker and by two, and memory.

    python benchmarks/short_clips.py "clips/*.mp4" [--most 168] [--jobs 1,2] [--modalities voice,text] [--work FOLDER]

Each row is a whole `emopipe extract` of the recordings (a folder's, or those that a pattern matches) with an empty
store, start included. Seconds of CPU are those of all processes; memory is that of the process that took most. Wants as
many idle cores as workers.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from emopipe.pipeline.media.decoding import Media
from emopipe.pipeline.media.finding import find_media


@dataclass(frozen=True)
class Spent:
    """What a command took: seconds of wall time and of CPU, and the greatest memory of a process in MiB."""

    wall: float
    cpu: float
    memory: float


def linked(clips: Path, most: int, into: Path) -> float:
    """Links to the first recordings of a folder or a pattern; returns their length in seconds."""
    into.mkdir(parents=True)
    seconds = 0.0
    for clip in find_media([clips]).files[:most]:
        (into / clip.name).symlink_to(clip.resolve())
        with Media(clip) as media:
            seconds += media.examine().duration
    return seconds


def extracted(clips: Path, out: Path, jobs: int, modalities: str) -> Spent:
    """Extract the clips into a dataset, with an empty store."""
    command = [sys.executable, "-m", "emopipe.pipeline", "extract", clips, "--out", out / "dataset"]
    command += ["--store", out / "store", "--jobs", jobs, "--modalities", modalities, "--device", "cpu"]
    out.mkdir(parents=True)
    began = time.perf_counter()
    with (out / "log.txt").open("w") as log:
        process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    if status:
        raise SystemExit(f"the extraction failed; see {out / 'log.txt'}")
    return Spent(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, help="A folder or a pattern.")
    parser.add_argument("--most", type=int, default=168, help="So many clips at most.")
    parser.add_argument("--jobs", default="1,2", help="Numbers of workers, one run each.")
    parser.add_argument("--modalities", default="text,face,voice")
    parser.add_argument("--work", type=Path, help="Folder to work in, left behind; must not exist.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary) / "work"
        clips = work / "clips"
        seconds = linked(options.clips, options.most, clips)
        print(f"{len(list(clips.iterdir()))} clips, {seconds:.0f} s of video, {os.cpu_count()} cores", flush=True)
        walls = {}
        for jobs in map(int, options.jobs.split(",")):
            spent = extracted(clips, work / f"jobs-{jobs}", jobs, options.modalities)
            walls[jobs] = spent.wall
            print(
                f"{jobs} worker(s): {spent.wall:.1f} s, {spent.wall / seconds:.3f} s of wall time and "
                f"{spent.cpu / seconds:.3f} s of CPU per second of video (wall at most 0.25 with two), "
                f"{spent.memory:.0f} MiB at most in a process (at most 1,526, which is 1.6 GB)",
                flush=True,
            )
        if {1, 2} <= walls.keys():
            print(f"two workers are {walls[1] / walls[2]:.2f} times as fast as one (at least 1.7)")


if __name__ == "__main__":
    main()
