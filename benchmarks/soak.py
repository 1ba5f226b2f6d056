"""Hours of video in one process: whether memory stays flat.

    python benchmarks/soak.py [--hours 2] [--seconds 600] [--modalities face,voice] [--model NAME] [--wall SECONDS]

A minute of a talking head (1280x720, 30 frames per second, with speech; `pip install 'emopipe[samples]'`), or less of
it, is repeated without being encoded again to videos of about so many seconds, each of another length or with other
metadata, so that no result is found in the store. One worker works on them one after the other, by the whole command,
until the hours are done or so many seconds have passed. Memory is looked at after each video, when garbage was
collected and free memory given back: resident memory, and what the C library has lent out (glibc's `mallinfo2`), in
which a leak shows early, since pages that stay resident though little of them is in use do not blur it.

A line is fitted to both over hours of video, without the first quarter, in which libraries fill their pools; its slope
is printed with its interval of 95 %. The interval takes the videos' deviations from the line as independent. Memory
grows when the whole interval lies above 0 and the slope makes more than 5 % in two hours. Many short videos weigh what
is left behind by each. Fewer modalities save time, and tell nothing of the others.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import psutil
from long_video import SAMPLES, peak, repeated
from scipy.stats import linregress, t

from emopipe.pipeline.execution.engine import Here
from emopipe.pipeline.execution.jobs import prediction_job
from emopipe.pipeline.execution.memory import return_freed_memory
from emopipe.pipeline.execution.plan import Task
from emopipe.pipeline.records import Source
from emopipe.pipeline.store.store import temporary_store

#: Growth in so many hours, and the most of it, as a share of what is held at first.
HOURS: Final = 2.0
MOST: Final = 0.05
#: This share of the videos is not fitted.
WARMING_UP: Final = 0.25
#: Fewer videos tell nothing of a line.
LEAST: Final = 8
MIB: Final = 1 << 20


class _Lent(ctypes.Structure):
    """What glibc's `mallinfo2` tells, in bytes."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "top",
        )
    ]


def held_and_lent(process: psutil.Process) -> tuple[float, float]:
    """Resident memory, and what the C library has lent out, in MiB, once all that is free was given back."""
    gc.collect()
    return_freed_memory()
    library = ctypes.CDLL("libc.so.6")
    library.mallinfo2.restype = _Lent
    lent = library.mallinfo2()
    return process.memory_info().rss / MIB, (lent.uordblks + lent.hblkhd) / MIB


@dataclass(frozen=True)
class Growth:
    """The line through memory over hours of video.

    Attributes:
        held: MiB where the line begins.
        slope, low, high: MiB per hour of video, and its interval of 95 %.
        fitted: how many videos it was fitted to.
    """

    held: float
    slope: float
    low: float
    high: float
    fitted: int

    @property
    def grows(self) -> bool:
        """Whether memory is not flat."""
        return self.low > 0 and self.slope * HOURS > MOST * self.held


def growth(hours: list[float], held: list[float]) -> Growth:
    """Fit a line to MiB held after so many hours of video each, the first quarter left out."""
    first = round(WARMING_UP * len(held))
    x, y = np.array(hours[first:]), np.array(held[first:])
    line = linregress(x, y)
    margin = float(t.ppf(0.975, len(x) - 2) * line.stderr)
    slope = float(line.slope)
    return Growth(float(line.intercept + slope * x[0]), slope, slope - margin, slope + margin, len(x))


def soak(folder: Path, options: argparse.Namespace) -> tuple[list[float], list[float], list[float]]:
    """Hours of video done, and memory held and lent in MiB, after each video; prints them."""
    sys.path.insert(0, str(SAMPLES / "make"))
    from synthetic import write_talking_clip

    piece, length = folder / "piece.mp4", min(60, options.seconds)
    write_talking_clip(piece, length)
    hours, held, lent = [], [], []
    began, process = time.monotonic(), psutil.Process()
    modalities = [name for name in options.modalities.split(",") if name]
    with temporary_store() as store:
        job = prediction_job(options.model, store, device="cpu", offline=True, modalities=modalities)
        job, engine = replace(job, threads=1), Here()
        done = 0.0
        while done < options.hours and time.monotonic() - began < options.wall:
            clip = folder / f"{len(held)}.mp4"
            repeated(piece, max(1, round(options.seconds / length)) + len(held) % 3, clip, note=str(len(held)))
            ((_, outcome),) = engine.run(job, [Task(Source(str(clip), media=clip))])
            if outcome.error is not None or outcome.extraction is None:
                raise SystemExit(str(outcome.error))
            clip.unlink()
            done += outcome.extraction.duration / 3600
            hours.append(done)
            del outcome
            for series, now in zip((held, lent), held_and_lent(process), strict=True):
                series.append(now)
            spent = time.monotonic() - began
            words = f"{60 * done:6.1f} minutes of video, {len(held)} videos, {spent:6.0f} s"
            print(f"{words}: {held[-1]:.0f} MiB held, {lent[-1]:.2f} lent, {peak():.0f} at most", flush=True)
        engine.close()
    return hours, held, lent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--seconds", type=int, default=600, help="Length of the shortest video.")
    parser.add_argument("--modalities", default="", help="Look at these alone, with commas; empty: at all.")
    parser.add_argument("--model", default="emopipe-default")
    parser.add_argument("--wall", type=float, default=float("inf"), help="Seconds after which no video is begun.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        hours, held, lent = soak(Path(folder), options)
    if len(held) < LEAST:
        raise SystemExit(f"{len(held)} videos are too few to tell; raise --hours or --wall, or lower --seconds")
    lines = {"held": growth(hours, held), "lent": growth(hours, lent)}
    for what, line in lines.items():
        print(
            f"{what}: {line.slope:+.1f} MiB per hour of video (95 %: {line.low:+.1f} to {line.high:+.1f}) on "
            f"{line.held:.0f} MiB, from {line.fitted} videos; target: at most {MOST:.0%} in {HOURS:g} hours"
        )
    raise SystemExit(any(line.grows for line in lines.values()))


if __name__ == "__main__":
    main()
