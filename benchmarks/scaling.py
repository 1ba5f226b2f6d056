"""What more workers are worth: 1 to 256 files on 1 to 64 workers, simulated, and two workers in fact.

    python benchmarks/scaling.py RECORDING... [--slow 10] [--workers 1 2 8 64]

Seconds of each stage are measured on the recordings (files or folders) by one worker of one thread that has loaded its
models. The whole command is then run on them by one process and by two, and by one and two workers of a Ray cluster on
this machine where Ray is installed. What the command of one worker takes beside those stages is the start: of
the command and of its worker, with loading and writing.

The simulation gives each worker a core of its own. All start at once; then whoever is free takes the longest file that
is left, as the pools do. Files are as long as the recordings, over and over; in the second table one takes `--slow`
times as long as the mean. Set beside it, the measured runs tell how far to trust it. Wants two idle cores.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from statistics import fmean

from emopipe.pipeline.execution.engine import THREADS
from emopipe.pipeline.execution.jobs import prediction_job
from emopipe.pipeline.execution.plan import Task
from emopipe.pipeline.execution.worker import Worker
from emopipe.pipeline.media.finding import find_media
from emopipe.pipeline.records import Source
from emopipe.pipeline.store.store import temporary_store

WARM_UP = Path(__file__).parent.parent / "samples" / "happy.mp4"
MODEL = "emopipe-default"
FILES = [2**power for power in range(9)]


def makespan(lengths: Sequence[float], workers: int, start: float) -> float:
    """Seconds until all files are done.

    Args:
        lengths: seconds that each file takes a worker.
        workers: how many there are; those without a file are not started.
        start: seconds until a worker can begin.
    """
    free = [start] * min(workers, len(lengths))
    for length in sorted(lengths, reverse=True):
        heapq.heapreplace(free, free[0] + length)
    return max(free)


def measure(clips: Sequence[Path]) -> None:
    """Work on clips in this process; prints the seconds of each stage of each clip as JSON."""
    with temporary_store() as store:
        job = replace(prediction_job(MODEL, store, device="cpu"), threads=1)
        with Worker(job, debug=True) as worker:
            outcomes = [worker.perform(Task(Source(str(clip), media=clip))) for clip in (WARM_UP, *clips)]
    print(json.dumps([dict(outcome.computed) for outcome in outcomes[1:]]))


def measured(clips: Sequence[Path]) -> list[Mapping[str, float]]:
    """Stage -> seconds of each clip, by a fresh process of one thread."""
    command = [sys.executable, __file__, "--measure", *map(str, clips)]
    environment = {**os.environ, **dict.fromkeys(THREADS, "1")}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    stages: list[Mapping[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return stages


def command_seconds(clips: Sequence[Path], workers: int, options: Sequence[str]) -> float:
    """Seconds of the whole command with an empty store."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "emopipe.pipeline", "run", *map(str, clips), "--model", MODEL]
        command += ["--out", f"{folder}/out", "--store", f"{folder}/store", "--device", "cpu", "--jobs", str(workers)]
        began = time.perf_counter()
        subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.perf_counter() - began


@contextmanager
def cluster() -> Iterator[str]:
    """The address of a Ray cluster on this machine with two CPUs; it sends nothing."""
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9"}
    os.environ.update({**quiet, "RAY_worker_niceness": "0"})
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 2, "memory": 4 << 30, "include_dashboard": False}
    machines = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield machines.address
    finally:
        machines.shutdown()


def compared(name: str, clips: Sequence[Path], lengths: Sequence[float], options: Sequence[str] = ()) -> float:
    """Run by one worker and by two, and print that beside the simulation; the seconds of the start."""
    one, two = (command_seconds(clips, workers, options) for workers in (1, 2))
    start = one - sum(lengths)
    expected = makespan(lengths, 2, start)
    print(f"| {name} | {one:.1f} | {start:.1f} | {two:.1f} | {expected:.1f} | {one / two:.2f} |", flush=True)
    return start


def table(lengths: Sequence[float], workers: Sequence[int], start: float, slow: float = 1) -> None:
    """Print seconds, and how many times one worker's pace that is."""
    print(f"\n| files | {' | '.join(f'{count} workers' for count in workers)} |")
    print("|---|" + "---|" * len(workers))
    for files in FILES:
        chosen = [slow * fmean(lengths), *islice(cycle(lengths), files - 1)]
        alone = makespan(chosen, 1, start)
        spans = [makespan(chosen, count, start) for count in workers]
        print(f"| {files} | {' | '.join(f'{span:.0f} ({alone / span:.1f})' for span in spans)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path, nargs="+")
    parser.add_argument("--slow", type=float, default=10)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 8, 64])
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(options.recordings)
    clips = find_media(options.recordings).files
    stages = measured(clips)
    lengths = [sum(clip.values()) for clip in stages]
    names = dict.fromkeys(name for clip in stages for name in clip)
    means = ", ".join(f"{name} {fmean(clip.get(name, 0) for clip in stages):.2f}" for name in names)
    print(f"{len(clips)} recordings, seconds of one worker for each on average: {fmean(lengths):.2f} ({means})\n")
    print("| engine | one worker, s | of which start | two workers, s | simulated | times the pace of one |")
    print("|---|---|---|---|---|---|")
    start = compared("processes", clips, lengths)
    if find_spec("ray") is not None:
        with cluster() as address:
            start = compared("Ray", clips, lengths, ("--engine", "ray", "--ray-address", address))
    print(f"\nSimulated, with {start:.1f} s to start: seconds (times the pace of one worker)")
    table(lengths, options.workers, start)
    print(f"\nThe same, one file of {options.slow:g} times the mean")
    table(lengths, options.workers, start, options.slow)


if __name__ == "__main__":
    main()
