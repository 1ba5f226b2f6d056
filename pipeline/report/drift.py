"""Drift: how shares and measures change within a recording, and from recording to recording of the same person."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from emopipe.pipeline.report.intervals import Estimate, mean_over_persons
from emopipe.pipeline.report.person_statistics import MEASURES, UNBOUNDED, Appearance, Person, Tally

#: A recording is looked at in so many parts of equal length.
PARTS: Final = 4


@dataclass(frozen=True)
class Drift:
    """How one number changes, as a mean over persons.

    Attributes:
        measure: an emotion whose share of the time it is, "mean value", ...
        parts: the mean in each part of the recording; None where nobody says anything.
        change: from the first part to the last, over those who speak in both, or from a person's first recording to
            their last; None where nobody does.
    """

    measure: str
    parts: Sequence[Estimate | None]
    change: Estimate | None


def in_parts(rows: Iterable[Mapping[str, Any]], duration: float) -> tuple[Tally, ...]:
    """What was predicted in each part of a recording; an utterance belongs where its middle is."""
    parts = tuple(Tally() for _ in range(PARTS))
    for row in rows:
        middle = (row["start"] + row["end"]) / 2
        parts[min(int(PARTS * middle / duration), PARTS - 1) if duration else 0].add(row)
    return parts


def drift_within(appearances: Iterable[Appearance], outcomes: Sequence[str]) -> list[Drift]:
    """How shares change from part to part of the recordings."""
    people: dict[Person, tuple[Tally, ...]] = {}
    for one in appearances:
        merged = people.setdefault(one.person, tuple(Tally() for _ in range(PARTS)))
        for whole, part in zip(merged, one.quarters, strict=False):
            whole.merge(part)
    return _drifts(list(people.values()), outcomes)


def drift_across(appearances: Iterable[Appearance], outcomes: Sequence[str]) -> list[Drift]:
    """How shares change from a person's first recording to their last, of those who are in several."""
    series = [(first, last) for _, (first, *_, last) in recordings_of_people(appearances).items()]
    pairs = [(first[1], last[1]) for first, last in series]
    return _drifts(pairs, outcomes)


def recordings_of_people(appearances: Iterable[Appearance]) -> dict[Person, list[tuple[Path, Tally]]]:
    """The recordings of each person who is in several, in the order of their paths, with numbers by size."""
    recordings: dict[Person, dict[Path, Tally]] = {}
    for one in appearances:
        recordings.setdefault(one.person, {}).setdefault(one.media, Tally()).merge(one.tally)
    return {
        person: sorted(some.items(), key=lambda pair: natural_order(pair[0]))
        for person, some in recordings.items()
        if len(some) > 1
    }


def natural_order(path: Path) -> list[tuple[int, int, str]]:
    """For sorting: "week 2" before "week 10"."""
    parts = re.split(r"([0-9]+)", path.as_posix().casefold())
    return [(1, 0, part) if index % 2 == 0 else (0, int(part), "") for index, part in enumerate(parts)]


def number_of(tally: Tally, measure: str) -> float | None:
    """A person's share of an outcome, or one of their measures; None where it is not known."""
    if measure in MEASURES:
        return tally.measures.get(measure)
    return tally.share(measure) if tally.total else None


def measures_of(tallies: Iterable[Tally], outcomes: Sequence[str]) -> list[str]:
    """What can be compared between tallies: the outcomes and measures that occur in any."""
    tallies = list(tallies)
    shares = [outcome for outcome in outcomes if any(tally.share(outcome) for tally in tallies)]
    return [*shares, *(name for name in MEASURES if any(name in tally.measures for tally in tallies))]


def limits(measure: str) -> tuple[float, float]:
    """The least and the most that a measure can be."""
    return (-math.inf, math.inf) if measure in UNBOUNDED else (0.0, 1.0)


def _drifts(people: Sequence[Sequence[Tally]], outcomes: Sequence[str]) -> list[Drift]:
    tallies = [tally for parts in people for tally in parts]
    return [_drift(measure, people) for measure in measures_of(tallies, outcomes)]


def _drift(measure: str, people: Sequence[Sequence[Tally]]) -> Drift:
    numbers = [[number_of(tally, measure) for tally in tallies] for tallies in people]
    least, most = limits(measure)
    parts = [
        mean_over_persons([one for one in part if one is not None], least, most) for part in zip(*numbers, strict=True)
    ]
    changes = [last - first for first, *_, last in numbers if first is not None and last is not None]
    return Drift(measure, parts, mean_over_persons(changes, least - most, most - least))
