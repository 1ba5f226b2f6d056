"""Who speaks when in half-minutes of real meetings, recorded by distant microphones: the diarization error rate.

    python benchmarks/meetings.py --data DATA [--diarizer campplus] [--level -40]

DATA holds meetings.zip and meetings.csv (file, start, duration, speaker). The error rate is that of
`diarization_error.py`. The pipeline gives every moment one speaker, so overlapped speech is missed once; how much that
is, is printed as well. --level changes the loudness of the recordings by so many decibels. No setting was chosen on
these recordings.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import av
import numpy as np
from diarization_error import STEP, described, error_rate, masks

from emopipe.constants import SAMPLE_RATE
from emopipe.pipeline.config import ExtractionConfig, PeopleConfig
from emopipe.pipeline.execution.engine import Here
from emopipe.pipeline.execution.jobs import extraction_job
from emopipe.pipeline.execution.plan import Task
from emopipe.pipeline.media.decoding import Media
from emopipe.pipeline.records import Extraction, Source
from emopipe.pipeline.store.store import Store

Talk = tuple[float, float, str]


def meetings(data: Path, work: Path, level: float) -> Iterator[tuple[Path, list[Talk]]]:
    """Each recording, louder by `level` dB, and who speaks in it when."""
    talk: dict[str, list[Talk]] = {}
    with (data / "meetings.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            start = float(row["start"])
            talk.setdefault(row["file"], []).append((start, start + float(row["duration"]), row["speaker"]))
    with zipfile.ZipFile(data / "meetings.zip") as archive:
        archive.extractall(work)
    for path in sorted(work.rglob("*.flac")):
        yield changed(path, level) if level else path, talk[path.name]


def changed(path: Path, level: float) -> Path:
    """The recording in 16 bits, louder by `level` dB."""
    with Media(path) as media:
        samples = np.asarray(media.audio) * 10 ** (level / 20)
    with av.open(str(path.with_suffix(".wav")), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=SAMPLE_RATE)
        whole = (np.clip(samples, -1, 1) * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(whole, format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.with_suffix(".wav")


def extracted(path: Path, config: ExtractionConfig, engine: Here, store: Store) -> Extraction:
    """What the pipeline hears in a recording."""
    job = extraction_job(config, store, modalities=("voice",), device="cpu")
    ((_, outcome),) = engine.run(job, [Task(Source(path.stem, media=path))])
    if outcome.extraction is None:
        raise SystemExit(f"{path}: {outcome.error}")
    return outcome.extraction


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--diarizer", default=PeopleConfig().diarizer)
    parser.add_argument("--level", type=float, default=0.0)
    arguments = parser.parse_args()
    config = ExtractionConfig(people=PeopleConfig(diarizer=arguments.diarizer))
    totals = dict.fromkeys(("missed", "false", "wrong", "speech"), 0.0)
    with (
        tempfile.TemporaryDirectory() as folder,
        Store(Path(folder) / "store") as store,
        closing(Here(debug=True)) as engine,
    ):
        for path, talk in meetings(arguments.data, Path(folder) / "sound", arguments.level):
            extraction = extracted(path, config, engine, store)
            steps = round(max(extraction.duration, *(end for _, end, _ in talk)) / STEP) + 1
            truth = masks(talk, steps)
            estimate = masks(((turn.start, turn.end, turn.person) for turn in extraction.turns), steps)
            seconds, _ = error_rate(truth, estimate)
            overlap = STEP * np.maximum(sum(mask.astype(int) for mask in truth.values()) - 1, 0).sum()
            codes = ", ".join(reason.code for reason in extraction.warnings)
            print(
                f"{path.stem}: {len(truth)} people, {len(estimate)} found, {described(seconds)}; "
                f"{overlap:.1f} s overlapped; {codes}",
                flush=True,
            )
            totals = {name: totals[name] + seconds[name] for name in totals}
    print(f"all: {described(totals)}")


if __name__ == "__main__":
    main()
