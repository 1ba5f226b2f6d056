"""What a run left in its folder: timelines, persons, conversations, questions and moments of all files."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from emopipe.errors import PrivacyError, Reason
from emopipe.pipeline.corrections.review import review_of
from emopipe.pipeline.formatting import clock
from emopipe.pipeline.privacy.disguise import read_disguise
from emopipe.pipeline.report.drift import in_parts
from emopipe.pipeline.report.moments import Moment, moment_of
from emopipe.pipeline.report.outputs import (
    SUMMARY,
    has_pseudonyms,
    names_of_people,
    read_manifest,
    read_skipped,
    reason_from_json,
)
from emopipe.pipeline.report.pages import Names
from emopipe.pipeline.report.participants import NAME, Participants, read_participants
from emopipe.pipeline.report.person_statistics import (
    INTERVIEWER,
    NO_EVIDENCE,
    UNCERTAIN,
    VALUE,
    Appearance,
    Person,
    Tally,
    predicted,
)
from emopipe.pipeline.report.questions import (
    AlignedQuestions,
    Question,
    align_questions,
    aligned_as_before,
    find_questions,
)
from emopipe.pipeline.report.turn_taking import Talk, Transfer, turn_taking
from emopipe.pipeline.store.store import Store

#: What the questions on a page begin with.
QUESTIONS: Final = '<script type="application/json" id="questions">'
#: Spans of all timelines, and of one file's at most and at least; files with more utterances are shown in steps.
SPANS, MOST_SPANS, FEWEST_SPANS = 12_000, 100, 8

#: State in the manifest -> what to do next.
STATES: Final = {
    "failed": "See below what the code means, and run again with --retry-failed",
    "degraded": "Read the results on the file's page with that in mind",
    "pending": "Repeat the command: the run was interrupted, and goes on where it was",
    "missing": "Repeat the command; what was computed is kept",
}


@dataclass(frozen=True)
class Span:
    """A stretch of a timeline: start and end in seconds, what was predicted, and that in words."""

    start: float
    end: float
    outcome: str
    note: str


@dataclass(frozen=True)
class Clip:
    """A file with results: its entry in the manifest, each person's timeline, and the seconds between its marks.

    `step` is 0 where every utterance has a span of its own; `reviewed` counts utterances that people looked at, by
    :attr:`~emopipe.pipeline.corrections.review.Review.kind`; `transfers` are changes of the floor between `speakers`,
    number -> name.
    """

    media: Path
    entry: Mapping[str, Any]
    duration: float
    lanes: list[tuple[Appearance, list[Span]]]
    step: float
    reviewed: Counter[str]
    transfers: Sequence[Transfer]
    speakers: Mapping[int, str]


@dataclass(frozen=True)
class Trouble:
    """An input that is not ok: why, what to do next, and the code, which the page explains."""

    media: Path
    state: str
    reason: str
    todo: str
    code: str = ""


class Batch:
    """What a run left in its folder, reduced to what the page tells.

    Args:
        folder: the outputs.
        store: holds what was measured; where it lacks vectors of words, questions are aligned as on the page that is
            there.

    Raises:
        InputNotFound: when there was no run, OutputError when its manifest cannot be used.
    """

    def __init__(self, folder: Path, store: Store | None = None) -> None:
        self.entries = read_manifest(folder)
        self.skipped = read_skipped(folder)
        self.clips: list[Clip] = []
        self.troubles: list[Trouble] = []
        self.labels: set[str] = set()
        self.names = Names(self.entries)
        self.moments: list[Moment] = []
        #: What the results say of how they were made -> the different answers.
        self.made: dict[str, set[str]] = defaultdict(set)
        self._questions: list[Question] = []
        self._keys: dict[Path, Mapping[str, str]] = {}
        limit = max(FEWEST_SPANS, min(MOST_SPANS, SPANS // max(len(self.entries), 1)))
        for media, entry in self.entries.items():
            results = _results(folder, entry)
            self.troubles += _troubles(media, entry, missing=results is None)
            if results:
                self._take(media, entry, results, limit)
        self.questions = self._aligned(folder, store)

    def _take(self, media: Path, entry: Mapping[str, Any], results: Mapping[str, Any], limit: int) -> None:
        rows = results["utterances"]
        self.labels |= {name for row in rows for name in row["probabilities"]}
        self.made["emopipe"].add(results["emopipe"])
        self.made["checkpoint"].add(results["checkpoint"])
        self.made["config"].add(results["config_hash"])
        self.made["unverified"] |= set(results["info"].get("unverified_weights") or ())
        duration = max([results["duration"] or 0.0, *(row["end"] for row in rows)])
        step = duration / limit if len(rows) > limit else 0.0
        talks, transfers = turn_taking(results.get("turns", ()))
        speakers = {one["number"]: one["name"] for one in results.get("people", ())}
        by_name = {speakers.get(number, ""): talk for number, talk in talks.items()} if len(talks) > 1 else {}
        self._questions += find_questions(media, rows)
        self._keys[media] = results.get("keys", {})
        lanes: list[tuple[Appearance, list[Span]]] = []
        place = sum(len(clip.lanes) for clip in self.clips)
        for speaker, role in dict.fromkeys((row["speaker"], row.get("role")) for row in rows):
            speaker_rows = [row for row in rows if (row["speaker"], row.get("role")) == (speaker, role)]
            self.moments += [moment_of(row, place + len(lanes)) for row in speaker_rows]
            spans = _steps(speaker_rows, step) if step else [_span(row) for row in speaker_rows]
            lanes.append((_appearance(media, speaker_rows, duration, by_name.get(speaker or "")), spans))
        reviewed: Counter[str] = Counter(review.kind for row in rows if (review := review_of(row)) is not None)
        self.clips.append(Clip(media, entry, duration, lanes, step, reviewed, transfers, speakers))

    def _aligned(self, folder: Path, store: Store | None) -> AlignedQuestions:
        if store is not None:
            aligned = align_questions(self._questions, self._keys, store)
            if aligned.threshold is not None:
                return aligned
        return aligned_as_before(self._questions, _questions_on(folder / SUMMARY), self.stems)

    @cached_property
    def appearances(self) -> list[Appearance]:
        """Everybody in every file."""
        return [appearance for clip in self.clips for appearance, _ in clip.lanes]

    @property
    def interviewees(self) -> list[Appearance]:
        """Everybody in every file who is not the interviewer."""
        return [one for one in self.appearances if one.person.role != INTERVIEWER]

    @cached_property
    def outcomes(self) -> list[str]:
        """What was predicted anywhere, in the order of the page."""
        occurring = {outcome for one in self.appearances for outcome in one.tally.seconds}
        return [name for name in (*sorted(self.labels), VALUE, UNCERTAIN, NO_EVIDENCE) if name in occurring]

    @property
    def stems(self) -> dict[Path, str]:
        """File with results -> name of its outputs."""
        return {clip.media: clip.entry["outputs"] for clip in self.clips}

    @property
    def states(self) -> dict[Path, str]:
        """Input -> what became of it."""
        return {media: entry["state"] for media, entry in self.entries.items()}


def _appearance(media: Path, rows: Sequence[Mapping[str, Any]], duration: float, talk: Talk | None) -> Appearance:
    """A speaker of a file, by their utterances."""
    speaker, tally = rows[0]["speaker"], Tally()
    for row in rows:
        tally.add(row)
    if talk is not None:
        tally.add_talk(talk)
    person = Person.of(media, speaker, rows[0].get("role"))
    return Appearance(media, person, speaker, tally, in_parts(rows, duration), talk)


def _results(folder: Path, entry: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a run wrote about a file; {} when there is nothing to be, None when it is lost."""
    if entry["outputs"] is None:
        return {}
    try:
        document = json.loads((folder / f"{entry['outputs']}.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) and "utterances" in document else None


def _troubles(media: Path, entry: Mapping[str, Any], *, missing: bool) -> Iterator[Trouble]:
    state = "missing" if missing else entry["state"]
    if state == "missing":
        yield Trouble(media, state, f"{entry['outputs']}.json is not in the folder any more, or damaged", STATES[state])
    elif state == "pending":
        yield Trouble(media, state, "the run ended before this file was done", STATES[state])
    else:
        for facts in entry["reasons"]:
            yield _trouble(media, state, reason_from_json(facts))


def _trouble(media: Path, state: str, reason: Reason) -> Trouble:
    """A reason without the file's own name, and what to do next."""
    elsewhere = replace(
        reason, hint="", where=None if reason.where and reason.where.path == str(media) else reason.where
    )
    return Trouble(media, state, str(elsewhere), reason.hint or STATES[state], reason.code)


def _span(row: Mapping[str, Any]) -> Span:
    outcome = predicted(row)
    note = outcome
    if outcome == UNCERTAIN:
        note = f"uncertain, perhaps {row['label']} {row['confidence']:.0%}" if row["label"] else "uncertain"
    elif outcome == VALUE:
        note = f"{row['value']:.2f}"
    elif outcome != NO_EVIDENCE:
        note = f"{outcome} {row['confidence']:.0%}"
    return Span(row["start"], row["end"], outcome, f"{clock(row['start'])}–{clock(row['end'])} {note}")


def _steps(rows: Iterable[Mapping[str, Any]], step: float) -> list[Span]:
    """Spans of whole steps: what has most of the time of each; adjoining steps with the same are one span."""
    times: defaultdict[int, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in rows:
        first, last = int(row["start"] / step), int(row["end"] / step)
        for index in range(first, last + 1):
            inside = min(row["end"], (index + 1) * step) - max(row["start"], index * step)
            if inside > 0:
                times[index][predicted(row)] += inside
    leading = [(index, max(times[index], key=lambda outcome: times[index][outcome])) for index in sorted(times)]
    spans = []
    for (_, outcome), run in groupby(enumerate(leading), key=lambda item: (item[1][0] - item[0], item[1][1])):
        indices = [index for _, (index, _) in run]
        start, end = indices[0] * step, (indices[-1] + 1) * step
        spans.append(Span(start, end, outcome, f"{clock(start)}–{clock(end)} mostly {outcome}"))
    return spans


def _questions_on(page: Path) -> dict[str, Any]:
    """The questions that a page aligned; none where there is no such page."""
    try:
        text = page.read_text("utf-8").partition(QUESTIONS)[2].partition("</script>")[0]
        questions: dict[str, Any] = json.loads(text)
    except (OSError, ValueError):
        return {}
    return questions if isinstance(questions, dict) else {}


def participants_of_run(
    table: str | os.PathLike[str] | None, results: Path, pseudonyms: str | os.PathLike[str] | None
) -> Participants | None:
    """Read a participants table for the results of a run; None without a table.

    Args:
        table: names people and files as they are.
        results: folder of the run.
        pseudonyms: the table of names and pseudonyms of the run, where it had one.

    Raises:
        PrivacyError: the results have pseudonyms, and they are not given; as for
            :func:`~emopipe.pipeline.report.participants.read_participants` else.
    """
    if table is None:
        return None
    disguise = read_disguise(pseudonyms, None)
    read = read_participants(Path(table), read_manifest(results), disguise).hidden(disguise)
    if not pseudonyms and has_pseudonyms(results):
        people = {"", *names_of_people(results)}
        unknown = [row.line for row in read.rows if (row.file and row.media is None) or row.person not in people]
        if unknown:
            what = f"line {unknown[0]} of the {NAME} is of nobody in the results, which have pseudonyms"
            hint = "Give the run's table with --pseudonyms, or write pseudonyms: the page would show names"
            raise PrivacyError(what, path=results, hint=hint)
    return read
