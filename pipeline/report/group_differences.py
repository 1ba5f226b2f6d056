"""Comparison of groups of persons: the mean of each group and the difference to the first one, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from emopipe.pipeline.report.drift import limits, measures_of, number_of
from emopipe.pipeline.report.intervals import Difference, Estimate, difference, mean_over_persons
from emopipe.pipeline.report.person_statistics import Comparison, Group, Person


@dataclass(frozen=True)
class Contrast:
    """One measure in the groups of a column.

    Attributes:
        measure: an emotion whose share of a person's time it is, "mean value", ...
        groups: group -> mean over its persons; None where it is not known of anybody.
        differences: group -> difference to the first group; None where one of the two is empty.
    """

    measure: str
    groups: Mapping[str, Estimate | None]
    differences: Mapping[str, Difference | None]


def contrasts(comparison: Comparison, outcomes: Sequence[str]) -> list[Contrast]:
    """Compare the groups of a column, measure by measure; none where nobody has the measure."""
    tallies = [tally for group in comparison.groups for tally in group.tallies.values()]
    return [_contrast(comparison.groups, measure) for measure in measures_of(tallies, outcomes)]


def _contrast(groups: Sequence[Group], measure: str) -> Contrast:
    numbers = {group.value: _numbers(group, measure) for group in groups}
    first, *others = numbers
    least, most = limits(measure)
    return Contrast(
        measure,
        {group: mean_over_persons(list(of_group.values()), least, most) for group, of_group in numbers.items()},
        {group: difference(numbers[first], numbers[group], most) for group in others},
    )


def _numbers(group: Group, measure: str) -> dict[Person, float]:
    numbers = {person: number_of(tally, measure) for person, tally in group.tallies.items()}
    return {person: number for person, number in numbers.items() if number is not None}
