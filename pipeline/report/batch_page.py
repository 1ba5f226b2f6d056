"""Write one self-contained HTML page about all files of a run, from what the run left in its folder."""

from __future__ import annotations

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from emopipe.errors import Reason
from emopipe.pipeline.corrections.review import review_of
from emopipe.pipeline.formatting import clock, printable
from emopipe.pipeline.report.codes import explained
from emopipe.pipeline.report.outputs import DISCLAIMER, put, read_manifest, read_skipped, reason_from_json
from emopipe.pipeline.report.pages import colours, render
from emopipe.pipeline.report.participants import Participants
from emopipe.pipeline.report.person_statistics import (
    INTERVIEWER,
    NO_EVIDENCE,
    UNCERTAIN,
    VALUE,
    Appearance,
    Comparison,
    Person,
    Tally,
    compare,
    per_person,
    predicted,
    spread,
)

SUMMARY: Final = "summary.html"
#: Spans of all timelines, and of one file's at most and at least; files with more utterances are shown in steps.
SPANS, MOST_SPANS, FEWEST_SPANS = 12_000, 100, 8
#: Seconds of utterances below which shares say little.
LITTLE: Final = 30.0
#: Groups of more persons are drawn without a mark for each.
MOST_MARKS: Final = 40

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
    :attr:`~emopipe.pipeline.corrections.review.Review.kind`.
    """

    media: Path
    entry: Mapping[str, Any]
    duration: float
    lanes: list[tuple[Appearance, list[Span]]]
    step: float
    reviewed: Counter[str]


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

    Raises:
        InputNotFound: when there was no run, OutputError when its manifest cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.entries = read_manifest(folder)
        self.skipped = read_skipped(folder)
        self.clips: list[Clip] = []
        self.troubles: list[Trouble] = []
        self.labels: set[str] = set()
        #: What the results say of how they were made -> the different answers.
        self.made: dict[str, set[str]] = defaultdict(set)
        limit = max(FEWEST_SPANS, min(MOST_SPANS, SPANS // max(len(self.entries), 1)))
        for media, entry in self.entries.items():
            results = _results(folder, entry)
            self.troubles += _troubles(media, entry, missing=results is None)
            if results:
                self._take(media, entry, results, limit)

    def _take(self, media: Path, entry: Mapping[str, Any], results: Mapping[str, Any], limit: int) -> None:
        rows = results["utterances"]
        self.labels |= {name for row in rows for name in row["probabilities"]}
        self.made["emopipe"].add(results["emopipe"])
        self.made["checkpoint"].add(results["checkpoint"])
        self.made["config"].add(results["config_hash"])
        self.made["unverified"] |= set(results["info"].get("unverified_weights") or ())
        duration = max([results["duration"] or 0.0, *(row["end"] for row in rows)])
        step = duration / limit if len(rows) > limit else 0.0
        lanes = []
        for speaker, role in dict.fromkeys((row["speaker"], row.get("role")) for row in rows):
            speaker_rows = [row for row in rows if (row["speaker"], row.get("role")) == (speaker, role)]
            tally = Tally()
            for row in speaker_rows:
                tally.add(row)
            spans = _steps(speaker_rows, step) if step else [_span(row) for row in speaker_rows]
            lanes.append((Appearance(media, Person.of(media, speaker, role), speaker, tally), spans))
        reviewed: Counter[str] = Counter(review.kind for row in rows if (review := review_of(row)) is not None)
        self.clips.append(Clip(media, entry, duration, lanes, step, reviewed))

    @property
    def appearances(self) -> list[Appearance]:
        """Everybody in every file."""
        return [appearance for clip in self.clips for appearance, _ in clip.lanes]


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


def write_summary(folder: Path, participants: Participants | None = None) -> Path:
    """Write `summary.html` about the run whose outputs lie in a folder. Returns its path.

    Args:
        folder: outputs of `emopipe run`.
        participants: which groups people belong to; read with the inputs of that run.

    Raises:
        InputNotFound: when there was no run, OutputError when its manifest cannot be used or the page cannot
            be written.
    """
    return put(folder / SUMMARY, render_summary(Batch(folder), participants))


def render_summary(batch: Batch, participants: Participants | None = None) -> str:
    """The page as text."""
    appearances = batch.appearances
    people = per_person(appearances)
    labels = sorted(batch.labels)
    occurring = {outcome for tally in people.values() for outcome in tally.seconds}
    outcomes = [name for name in (*labels, VALUE, UNCERTAIN, NO_EVIDENCE) if name in occurring]
    styles = {UNCERTAIN: "u", NO_EVIDENCE: "n", VALUE: "v"}
    styles |= {label: f"c{index}" for index, label in enumerate(labels)}
    states = {media: entry["state"] for media, entry in batch.entries.items()}
    name = _names(batch.entries)

    def called(person: Person) -> str:
        parts = (name(person.media) if person.media else None, person.speaker)
        return " / ".join(printable(part) for part in parts if part)

    return render(
        "batch.html",
        batch=batch,
        states=Counter(states.values()),
        material=sum(clip.duration for clip in batch.clips),
        people=people,
        reviewed=sum((clip.reviewed for clip in batch.clips), Counter[str]()),
        asked={person: tally for person, tally in people.items() if person.role != INTERVIEWER},
        interviewers={person: tally for person, tally in people.items() if person.role == INTERVIEWER},
        apart=any(person.speaker for person in people),
        outcomes=outcomes,
        unseen=[label for label in labels if label not in occurring],
        styles=styles,
        colours=colours(labels),
        codes=explained(trouble.code for trouble in batch.troubles),
        cohort=compare(participants, appearances, states) if participants else None,
        name=name,
        called=called,
        link=_link,
        axis=_axis,
        spread=spread,
        little=LITTLE,
        most_marks=MOST_MARKS,
        disclaimer=DISCLAIMER,
    )


def _names(media: Iterable[Path]) -> Callable[[Path], str]:
    """How to call a file: its path below the folder that all lie in."""
    folders = [os.fspath(path.parent) for path in media]
    try:
        common = os.path.commonpath(folders)
    except ValueError:  # none, or absolute and relative ones
        common = ""
    return lambda path: printable(path.relative_to(common).as_posix() if common else path.as_posix())


def _link(entry: Mapping[str, Any]) -> str:
    """The address of a file's own page, which lies beside this one."""
    return quote(os.fsencode(f"{entry['outputs']}.html"))


def _axis(comparison: Comparison, outcomes: Iterable[str]) -> float:
    """The end of an axis from 0 on which all shares and deviations of a comparison fit: the next tenth."""
    reach = [0.0]
    for shares in (group.shares(outcome) for group in comparison.groups for outcome in outcomes):
        if shares:
            mean, deviation = spread(shares)
            reach += [*shares, mean + (deviation or 0.0)]
    return min(1.0, max(1, math.ceil(round(10 * max(reach), 6))) / 10)
