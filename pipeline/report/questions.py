"""Answers to the same question across recordings: an interviewer's questions that are alike, and what followed each.

Questions are compared by the vectors that the text stage made of their words: cosine similarity of the means over
tokens. Two recordings ask the same question where the similarity exceeds a threshold that the run itself gives:
questions of one recording are different ones as a rule, so hardly any pair of them may exceed it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from emopipe.pipeline.records import Absent
from emopipe.pipeline.report.person_statistics import INTERVIEWER, Person, Tally
from emopipe.pipeline.stages.interview_roles import QUESTION
from emopipe.pipeline.store.store import Store

#: Similarity from which questions may be the same. Of 14 questions of clinical interviews, each worded in three ways
#: (`benchmarks/questions.csv`) and read by the default text encoder, 0.6 % of the pairs of different questions and 76 %
#: of the pairs of wordings of the same question are above it; with average linkage no group mixes different questions.
ALIKE: Final = 0.55
#: This share of the pairs of questions within a recording is less similar than what stands for different questions;
#: the threshold lies so far beyond it, of what is left to 1.
DIFFERENT, MARGIN = 0.99, 0.15
#: What an interviewer says with fewer characters and without a question mark ("Mhm.") ends no answer.
BRIEF: Final = 15
#: The similarities of more questions would take more memory than the rest of the page.
MOST_QUESTIONS: Final = 6000


@dataclass(frozen=True)
class Answer:
    """What somebody says after a question.

    Attributes:
        person: who.
        start, end: in seconds.
        latency: seconds from the end of the question to the start of the answer; below zero where it begins earlier.
        text: the words of its utterances.
        tally: what was predicted for them.
    """

    person: Person
    start: float
    end: float
    latency: float
    text: str
    tally: Tally


@dataclass(frozen=True)
class Question:
    """A question in a recording, and what the interviewees say until the interviewer asks or tells something else.

    Attributes:
        media: the recording.
        index: of the utterance in the recording.
        start: of the utterance, in seconds.
        text: the words.
        answers: one for each person.
    """

    media: Path
    index: int
    start: float
    text: str
    answers: Sequence[Answer]


@dataclass(frozen=True)
class SameQuestion:
    """A question that several recordings ask.

    Attributes:
        text: the wording that is most like all others.
        asked: where it is asked.
    """

    text: str
    asked: Sequence[Question]


@dataclass(frozen=True)
class AlignedQuestions:
    """The questions of a run.

    Attributes:
        same: those that several recordings ask, those of most recordings first.
        number: of all questions that are answered.
        compared: number of those whose words have vectors in the store.
        threshold: of the similarity; None where nothing was compared.
        why: nothing is aligned; "" where something is.
    """

    same: Sequence[SameQuestion]
    number: int
    compared: int
    threshold: float | None
    why: str = ""


def find_questions(media: Path, rows: Sequence[Mapping[str, Any]]) -> Iterator[Question]:
    """The interviewer's questions that somebody answers: the last of several in a row."""
    asked: int | None = None
    answers: list[Mapping[str, Any]] = []
    for index, row in enumerate(rows):
        if row.get("role") != INTERVIEWER:
            answers += [row] if asked is not None and row.get("role") else []
            continue
        is_question = QUESTION.search(row["text"]) is not None
        if not is_question and len(row["text"]) < BRIEF:
            continue
        if asked is not None and answers:
            yield _question(media, asked, rows[asked], answers)
            asked = None
        asked, answers = (index if is_question else asked), []
    if asked is not None and answers:
        yield _question(media, asked, rows[asked], answers)


def _question(media: Path, index: int, row: Mapping[str, Any], replies: Sequence[Mapping[str, Any]]) -> Question:
    by_person: dict[Person, list[Mapping[str, Any]]] = {}
    for reply in replies:
        by_person.setdefault(Person.of(media, reply["speaker"], reply["role"]), []).append(reply)
    answers = []
    for person, some in by_person.items():
        tally = Tally()
        for reply in some:
            tally.add(reply)
        start, end = some[0]["start"], max(reply["end"] for reply in some)
        text = " ".join(reply["text"] for reply in some if reply["text"])
        answers.append(Answer(person, start, end, round(start - row["end"], 3), text, tally))
    return Question(media, index, row["start"], row["text"], answers)


def align_questions(
    questions: Sequence[Question], keys: Mapping[Path, Mapping[str, str]], store: Store
) -> AlignedQuestions:
    """Find the questions that several recordings ask.

    Args:
        questions: of all recordings.
        keys: recording -> stage -> key of its result in the store.
        store: holds the vectors of words.
    """
    if (why := _too_few(questions)) or len(questions) > MOST_QUESTIONS:
        return AlignedQuestions((), len(questions), 0, None, why or f"there are more than {MOST_QUESTIONS} questions")
    vectors = _vectors(questions, keys, store)
    compared = [question for question in questions if (question.media, question.index) in vectors]
    if len({question.media for question in compared}) < 2:
        why = "the vectors of the words are not in the store"
        return AlignedQuestions((), len(questions), 0, None, why)
    rows = [vectors[question.media, question.index] for question in compared]
    labels, similarity, threshold = grouped(rows, [question.media for question in compared])
    numbers = (len(questions), len(compared))
    return _aligned(_clusters(labels, similarity, compared), numbers, threshold)


def aligned_as_before(
    questions: Sequence[Question], before: Mapping[str, Any], stems: Mapping[Path, str]
) -> AlignedQuestions:
    """The same questions as on a page that was written with the store.

    Args:
        questions: of all recordings.
        before: :func:`as_json` of the page.
        stems: recording -> name of its files.
    """
    if why := _too_few(questions):
        return AlignedQuestions((), len(questions), 0, None, why)
    by_place = {(stems[question.media], question.index): question for question in questions}
    try:
        groups = [
            SameQuestion(str(one["text"]), [by_place[stem, index] for stem, index in one["asked"]])
            for one in before["same"]
        ]
        return _aligned(groups, (len(questions), before["compared"]), before["threshold"])
    except (LookupError, TypeError, ValueError):
        why = "the vectors of the words are needed: write the page with the store of the run"
        return AlignedQuestions((), len(questions), 0, None, why)


def as_json(aligned: AlignedQuestions, stems: Mapping[Path, str]) -> dict[str, Any]:
    """As it is written to the page, by names of files and numbers of utterances."""
    same = [{"text": one.text, "asked": [[stems[q.media], q.index] for q in one.asked]} for one in aligned.same]
    return {"threshold": aligned.threshold, "compared": aligned.compared, "same": same}


def _too_few(questions: Sequence[Question]) -> str:
    if len({question.media for question in questions}) > 1:
        return ""
    return "fewer than two recordings have an interviewer who asks and somebody who answers"


def _vectors(
    questions: Sequence[Question], keys: Mapping[Path, Mapping[str, str]], store: Store
) -> dict[tuple[Path, int], NDArray[np.float64]]:
    """Recording and number of a question -> mean vector of its words."""
    from emopipe.models.data.speakers import utterance_mean

    vectors: dict[tuple[Path, int], NDArray[np.float64]] = {}
    indices: dict[Path, list[int]] = {}
    for question in questions:
        indices.setdefault(question.media, []).append(question.index)
    for media, wanted in indices.items():
        stored = store.get(keys[media]["text"]) if "text" in keys.get(media, {}) else None
        sequences = (stored or {}).get("text", ())
        for index in wanted:
            sequence = sequences[index] if index < len(sequences) else Absent("not_requested")
            if not isinstance(sequence, Absent) and len(sequence.features):
                vectors[media, index] = utterance_mean(sequence.features)
    return vectors


def _similarity(vectors: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Cosine similarity of each pair; 0 where vectors are of different encoders, or nothing was measured."""
    width = max(map(len, vectors))
    rows = np.zeros((len(vectors), width))
    for row, vector in zip(rows, vectors, strict=True):
        row[: len(vector)] = np.nan_to_num(vector) if len(vector) == width else 0.0
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / np.where(norms > 0, norms, 1.0)
    similarity: NDArray[np.float64] = np.clip(rows @ rows.T, -1.0, 1.0)
    return similarity


def _threshold(similarity: NDArray[np.float64], media: Sequence[Path]) -> float:
    """Similarity of the same question: above nearly all pairs within a recording, whatever the encoder is."""
    numbers = {path: number for number, path in enumerate(dict.fromkeys(media))}
    places = np.array([numbers[path] for path in media])
    first, second = np.triu_indices(len(places), 1)
    inside = similarity[first, second][places[first] == places[second]]
    different = float(np.quantile(inside, DIFFERENT)) if len(inside) else 0.0
    return max(ALIKE, different + MARGIN * (1.0 - different))


def grouped(
    vectors: Sequence[NDArray[np.float64]], media: Sequence[Path]
) -> tuple[NDArray[np.int64], NDArray[np.float64], float]:
    """Put questions together that are the same.

    Args:
        vectors: of each question.
        media: the recording of each.

    Returns:
        The group of each question (n,), the similarity of each pair (n, n), and the threshold.
    """
    from sklearn.cluster import AgglomerativeClustering

    similarity = _similarity(vectors)
    threshold = _threshold(similarity, media)
    clustering = AgglomerativeClustering(
        n_clusters=None, metric="precomputed", linkage="average", distance_threshold=1.0 - threshold
    )
    return clustering.fit_predict(1.0 - similarity), similarity, threshold


def _clusters(
    labels: NDArray[np.int64], similarity: NDArray[np.float64], questions: Sequence[Question]
) -> Iterator[SameQuestion]:
    for label in dict.fromkeys(labels.tolist()):
        members = np.flatnonzero(labels == label).tolist()
        central = members[int(np.argmax(similarity[np.ix_(members, members)].sum(1)))]
        yield SameQuestion(questions[central].text, [questions[member] for member in members])


def _aligned(groups: Iterable[SameQuestion], numbers: tuple[int, int], threshold: float) -> AlignedQuestions:
    same = [(len({question.media for question in one.asked}), one) for one in groups]
    several = sorted((pair for pair in same if pair[0] > 1), key=lambda pair: -pair[0])
    why = "" if several else "no two recordings ask the same question"
    return AlignedQuestions([one for _, one in several], *numbers, threshold, why)
