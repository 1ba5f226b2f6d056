"""Measure what `emopipe run --speakers` is worth on short clips of people whom training did not see, named or guessed.

    python benchmarks/named_speakers.py --data DATA --work WORK [--seeds 3]

WORK is that of `default_model.py`, after its steps `measure` and `people`: these keep models that did not see one
speaker of Java-SED each. Every one of them, calibrated as the checkpoint is by the answers on left-out corpora, without
those to its speaker, runs over the recordings of its speaker as a user would run it: as they are, with a table that
names the speaker, and with the table that `emopipe speakers` makes of all recordings, uncorrected. The answer to a
recording is that to its utterances together, each as much as it is long; a recording without an answer counts as wrong.
Rows give the UAR (mean and standard deviation over seeds) with its 95 % bootstrap interval over speakers, and how much
higher it is with names.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import default_model
import generalisation
import numpy as np

import emopipe
from emopipe.models import checkpoint
from emopipe.pipeline.records import FileResult

#: What is looked at.
ASKED = ("face", "voice", "face,voice")


@dataclass(frozen=True)
class Clip:
    """A recording, who speaks in it, and the emotion that they show."""

    path: Path
    speaker: str
    emotion: str


def recordings(data: Path, work: Path) -> list[Clip]:
    """The recordings of Java-SED, where the step `clips` unpacked them."""
    folder = generalisation.unpacked(data, work / "clips", "javased")
    rows = generalisation.corpus_rows(data, "javased", most=0)
    return [Clip(folder / row["file"], row["speaker"], row["emotion"]) for row in rows]


def calibrated_model(work: Path, speaker: str, seed: int) -> Path:
    """A checkpoint that knows the speaker neither by training nor by calibration."""
    trained = default_model.without_person(work, speaker, seed)
    unseen = dict(np.load(work / "unseen.npz"))
    others = {name: column[unseen["speakers"] != speaker] for name, column in unseen.items()}
    model = default_model.calibrated(checkpoint.load(trained), others)
    checkpoint.save(trained.with_name(f"{trained.name}-calibrated"), model, "")
    return trained.with_name(f"{trained.name}-calibrated")


def answer(result: FileResult) -> str:
    """The class that a recording's utterances show together; "" without any."""
    shares: Counter[str] = Counter()
    for one in result.utterances:
        shares.update({name: share * (one.end - one.start) for name, share in one.probabilities.items()})
    return max(shares, key=lambda name: shares[name], default="")


def suggested(clips: Sequence[Clip], model: Path) -> dict[Path, str]:
    """Who speaks in the recordings, as far as their voices tell."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [clip.path for clip in clips]
        emopipe.run(paths, model=model, modalities="voice", out=folder, progress=False, offline=True)
        table = emopipe.speakers(folder, progress=False).set_index("file")["speaker"].dropna()
    return {path: table[path.name] for path in paths if path.name in table}


def right_answers(
    clips: Sequence[Clip], models: Sequence[Path], modalities: str, speakers: Mapping[Path, str]
) -> np.ndarray:
    """(seeds, recordings of one speaker): whether each is answered right.

    Args:
        clips: the recordings of the speaker.
        models: one for each seed.
        modalities: what is looked at.
        speakers: who is said to speak in which recording, these or others.
    """
    named = {speakers.get(clip.path) for clip in clips} - {None}
    together = {path: speaker for path, speaker in speakers.items() if speaker in named}
    paths = list(dict.fromkeys([*(clip.path for clip in clips), *together]))
    rows = []
    for model in models:
        results = emopipe.run(
            paths, model=model, modalities=modalities, speakers=together or None, progress=False, offline=True
        )
        by_path = {result.media: answer(result) for result in results}
        rows.append([by_path[clip.path] == clip.emotion for clip in clips])
    return np.array(rows, float)


def figure(right: np.ndarray, truth: np.ndarray, speakers: np.ndarray) -> str:
    """The UAR over seeds, with the mean interval over speakers."""
    shares = [generalisation.uar(truth, row) for row in right]
    low, high = np.mean([generalisation.interval(truth, row, speakers) for row in right], axis=0)
    return f"{default_model.mean_and_spread(shares)} [{low:.3f}, {high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    clips = sorted(recordings(options.data, options.work), key=lambda clip: (clip.speaker, clip.path))
    truth, who = np.array([clip.emotion for clip in clips]), np.array([clip.speaker for clip in clips])
    people = sorted({clip.speaker for clip in clips})
    models = {one: [calibrated_model(options.work, one, seed) for seed in range(options.seeds)] for one in people}
    tables = {"not named": {}, "named": {clip.path: clip.speaker for clip in clips}}
    tables["as voices tell"] = suggested(clips, models[people[0]][0])
    print(f"{len(clips)} recordings, {len(people)} speakers, {options.seeds} seeds")
    print("| modalities | not named | named | more | as voices tell | more |\n|---|---|---|---|---|---|")
    for modalities in ASKED:
        alone, named, guessed = (
            np.concatenate(
                [
                    right_answers([clip for clip in clips if clip.speaker == one], models[one], modalities, table)
                    for one in people
                ],
                axis=1,
            )
            for table in tables.values()
        )
        cells = [figure(right, truth, who) for right in (alone, named, named - alone, guessed, guessed - alone)]
        print(f"| {modalities} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
