"""Whether memory stays flat in the length of a video: peak memory of one worker on a short and on a long one.

    python benchmarks/long_video.py [--minutes 4 40] [--model emopipe-default] [--keep FOLDER]

A minute of a talking head (1280x720, 30 frames per second, with speech) is made and repeated without being encoded
again (`pip install 'emopipe[samples]'`). Each video is worked on in a fresh process of one thread with an empty store,
by face, speech, words, voice, text and fusion.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from emopipe.pipeline.execution.jobs import prediction_job
from emopipe.pipeline.execution.plan import Task
from emopipe.pipeline.execution.worker import Worker
from emopipe.pipeline.progress import Event
from emopipe.pipeline.records import Source
from emopipe.pipeline.store.store import temporary_store

SAMPLES = Path(__file__).parent.parent / "samples"
#: Targets: peak on the long video over that on the short one, and in MiB.
RATIO, MOST = 1.1, 1_600_000_000 / (1 << 20)


def repeated(minute: Path, times: int, path: Path, note: str = "") -> Path:
    """A video that shows another so many times, with rising time stamps and a note in its metadata."""
    with av.open(str(path), "w") as out:
        out.metadata["comment"] = note
        streams: dict[int, Any] = {}
        end = Fraction(0)
        for _ in range(times):
            with av.open(str(minute)) as source:
                # All of them before the first packet: that writes the header.
                streams = streams or {one.index: out.add_stream_from_template(one) for one in source.streams}
                packets = [packet for packet in source.demux() if packet.dts is not None]
                # Where frames are reordered, the first ones are decoded before time 0.
                shift = end - min(packet.dts * packet.time_base for packet in packets)
                for packet in packets:
                    offset = math.ceil(shift / packet.time_base)
                    packet.dts += offset
                    packet.pts += offset
                    end = max(end, (packet.dts + (packet.duration or 0)) * packet.time_base)
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)
    return path


def peak() -> float:
    """Most memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(clip: Path, model: str) -> None:
    """Work on a clip in this process; prints its figures as JSON."""
    stages: dict[str, tuple[float, float]] = {}

    def hook(event: Event) -> None:
        if event.kind == "end":
            stages[event.name] = (event.seconds or 0.0, peak())

    began = time.perf_counter()
    with temporary_store() as store:
        job = replace(prediction_job(model, store, device="cpu", hook=hook), threads=1)
        with Worker(job, hook) as worker:
            outcome = worker.perform(Task(Source(str(clip), media=clip)))
    if outcome.error is not None or outcome.extraction is None:
        raise SystemExit(str(outcome.error))
    utterances = outcome.extraction.utterances
    facts = {"duration": outcome.extraction.duration, "utterances": len(utterances)}
    print(json.dumps({**facts, "seconds": time.perf_counter() - began, "peak": peak(), "stages": stages}))


def measured(clip: Path, model: str) -> dict[str, Any]:
    """The figures of a fresh process."""
    command = [sys.executable, __file__, "--measure", str(clip), "--model", model]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **threads})
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def show(figures: dict[str, Any]) -> None:
    print(f"{figures['duration'] / 60:.1f} minutes, {figures['utterances']} utterances: peak {figures['peak']:.0f} MiB")
    print(f"  {'stage':<12}{'seconds':>9}{'peak so far, MiB':>18}")
    for name, (seconds, most) in figures["stages"].items():
        print(f"  {name:<12}{seconds:>9.1f}{most:>18.0f}")
    print(f"  {'total':<12}{figures['seconds']:>9.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, nargs="+", default=[4, 40])
    parser.add_argument("--model", default="emopipe-default")
    parser.add_argument("--keep", type=Path, help="Folder in which the videos are made and left.")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(options.measure, options.model)
    sys.path.insert(0, str(SAMPLES / "make"))
    from synthetic import write_talking_clip

    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        minute = folder / "minute.mp4"
        if not minute.exists():
            write_talking_clip(minute, 60)
        peaks = []
        for minutes in options.minutes:
            clip = repeated(minute, minutes, folder / f"{minutes}.mp4")
            figures = measured(clip, options.model)
            show(figures)
            peaks.append(figures["peak"])
    ratio, most = peaks[-1] / peaks[0], max(peaks)
    print(f"longest over shortest: {ratio:.3f} (at most {RATIO}); peak {most:.0f} MiB (under {MOST:.0f})")
    raise SystemExit(ratio > RATIO or most >= MOST)


if __name__ == "__main__":
    main()
