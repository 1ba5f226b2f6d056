"""Who speaks in which recordings, as far as voices tell: a table to correct and give to `emopipe run --speakers`.

Each recording is compared by the voice of the one who is interviewed in it, or speaks most: the mean of what the
speaker encoder makes of their utterances, each counting as much as it is long. Recordings are put together by average
linkage of the cosine similarity.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from emopipe.errors import StudyError
from emopipe.pipeline.datasets.recording_names import RecordingNames
from emopipe.pipeline.progress import Event, Hook, silent
from emopipe.pipeline.records import is_generic
from emopipe.pipeline.studies.tables import Row, write_csv

if TYPE_CHECKING:
    from emopipe.pipeline.export.recording import Recording
    from emopipe.pipeline.records import Person

Numbers = NDArray[np.float64]

#: Mean cosine similarity from which recordings are of one speaker: 100 % of RAVDESS's clips and 96 % of EmoDB's are
#: then among those of their speaker (at 0.35: 97 and 95 %), in 31 groups for 20 people and 17 for 10 (25 and 13).
ALIKE: Final = 0.4
#: What the table tells of a recording beside its file.
COLUMNS: Final = ("speaker", "recordings", "similarity", "next_speaker", "next_similarity")
#: The model whose features hold what a speaker encoder hears.
HEARS_SPEAKERS: Final = "emopipe-default"


@dataclass(frozen=True)
class Voice:
    """The voice of who is interviewed in a recording, or speaks most.

    Attributes:
        recording: its place among the recordings.
        name: of the speaker in the results; None where nobody told it.
        vector: of length 1, (192,).
    """

    recording: int
    name: str | None
    vector: Numbers


def suggest_speakers(results: Path, out: Path | None, *, store: Path, hook: Hook = silent) -> list[Row]:
    """Tell by the voices who may speak in which recordings of a run.

    Args:
        results: folder of the run.
        out: the table, CSV; None writes none.
        store: in which the run kept what it measured.
        hook: told of progress, and of recordings whose voice cannot be compared.

    Returns:
        One row per recording, in the order of the run: `file`; `speaker`, the name in the results or of those whose
        voice is alike, else P1, P2, ..., None where no voice can be compared; `recordings` of that speaker;
        `similarity`, the mean cosine with the voices in the others of these; `next_speaker`, whose voice is nearest
        among the others, and `next_similarity`.

    Raises:
        InputNotFound: no run has left results there.
        StudyError: no voices can be compared, or the table is there already.
        OutputError: the results cannot be used, or the table cannot be written.
    """
    from emopipe.pipeline.export.recording import recordings_of_run

    if out is not None and out.exists():
        raise StudyError(
            "the table is there already", path=out, hint="It may hold corrections: name another with --out"
        )
    media: list[Path] = []
    voices: list[Voice] = []
    missing = 0
    for number, recording in enumerate(recordings_of_run(results, store)):
        hook(Event("progress", "speakers", recording.media, done=number + 1))
        media.append(recording.result.media)
        missing += recording.lacks("voice")
        voice = _voice(recording, number)
        voices += [] if voice is None else [voice]
    if len(voices) < 2:
        raise StudyError("there are no two recordings whose voices can be compared", path=results, hint=_why(missing))
    if missing:
        hook(Event("warning", "speakers", f"the voices of {missing} of {len(media)} recordings are not in the store"))
    rows = _rows(media, voices)
    if out is not None:
        write_csv(out, rows)
    return rows


def _why(missing: int) -> str:
    if missing:
        return "Name the store of the run with --store, or run again"
    return f"It takes recordings with speech, and a model that hears speakers, as {HEARS_SPEAKERS} does"


def _voice(recording: Recording, number: int) -> Voice | None:
    """The voice of a recording; None where a speaker encoder did not hear any."""
    from emopipe.extractors.speech.campplus import WIDTH

    if not recording.facts("voice").get("parameters", {}).get("voice.speaker_encoder"):
        return None
    person = _main_speaker(recording.result.people)
    name = None if person is None else person.name
    vector = np.zeros(WIDTH)
    for index, features in recording.mean_features("voice").items():
        utterance = recording.result.utterances[index]
        if person is None or utterance.speaker == name:
            vector += _unit(features[-WIDTH:]) * (utterance.end - utterance.start)
    return Voice(number, None if is_generic(name) else name, _unit(vector)) if vector.any() else None


def _main_speaker(people: Sequence[Person]) -> Person | None:
    asked = [person for person in people if person.role != "interviewer"]
    return max(asked, key=lambda person: person.talk, default=None)


def _unit(vector: Numbers) -> Numbers:
    length = float(np.linalg.norm(vector))
    return vector / length if length else vector


def group(vectors: Numbers) -> NDArray[np.int64]:
    """Number of the speaker of each of these unit vectors (N, D), N > 1."""
    from sklearn.cluster import AgglomerativeClustering

    clustering = AgglomerativeClustering(None, metric="cosine", linkage="average", distance_threshold=1 - ALIKE)
    numbers: NDArray[np.int64] = clustering.fit_predict(vectors)
    return numbers


def named(numbers: Sequence[int], told: Sequence[str | None]) -> list[str]:
    """The speaker of each recording: as told, else the name that most of its group are told, else P1, P2, ...

    Args:
        numbers: the group of each recording.
        told: the name in the results, None where there is none.
    """
    taken = set(told)
    free = (name for count in range(1, 2 * len(numbers) + 1) if (name := f"P{count}") not in taken)
    names: dict[int, str] = {}
    for number in numbers:
        if number not in names:
            known = Counter(name for other, name in zip(numbers, told, strict=True) if other == number and name)
            names[number] = known.most_common(1)[0][0] if known else next(free)
    return [name or names[number] for number, name in zip(numbers, told, strict=True)]


def _rows(media: Sequence[Path], voices: Sequence[Voice]) -> list[Row]:
    vectors = np.stack([voice.vector for voice in voices])
    speakers = named(group(vectors).tolist(), [voice.name for voice in voices])
    found = {voice.recording: facts for voice, facts in zip(voices, _compared(vectors, speakers), strict=True)}
    names, nobody = RecordingNames(media), dict.fromkeys(COLUMNS)
    return [{"file": names.shortest(path), **found.get(number, nobody)} for number, path in enumerate(media)]


def _compared(vectors: Numbers, speakers: Sequence[str]) -> Iterator[Row]:
    """What is told of each recording: how like the others of its speaker it is, and the most alike speaker beside."""
    counts = Counter(speakers)
    people = list(counts)
    own = np.array([[speaker == one for one in people] for speaker in speakers])
    others = np.array([counts[one] for one in people]) - own
    likeness = vectors @ (vectors.T @ own) - own
    means = np.where(others > 0, likeness / np.maximum(others, 1), -np.inf).round(3)
    for speaker, is_own, row in zip(speakers, own, means, strict=True):
        beside = np.where(is_own, -np.inf, row)
        best = int(beside.argmax())
        nearest = (people[best], float(beside[best])) if len(people) > 1 else (None, None)
        similarity = None if counts[speaker] == 1 else float(row[is_own][0])
        yield dict(zip(COLUMNS, (speaker, counts[speaker], similarity, *nearest), strict=True))
