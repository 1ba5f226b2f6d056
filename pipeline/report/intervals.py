"""Means over persons and differences between groups of persons, with 95 % intervals.

Everybody counts once, with one number, however many utterances they have: utterances of one person are alike and would
make intervals far too narrow if they were taken for independent. Intervals are Student's t over persons; groups may
spread differently (Welch).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final, TypeVar

import numpy as np

Key = TypeVar("Key")
#: Share of such intervals that hold the true value.
LEVEL: Final = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean, or a difference of means.

    Attributes:
        mean: of the persons.
        low, high: of the interval; None with fewer than two persons, or when all have the same number.
        persons: how many.
    """

    mean: float
    low: float | None
    high: float | None
    persons: int


@dataclass(frozen=True)
class Difference:
    """The difference of a group to another.

    Attributes:
        estimate: the mean difference and its interval.
        within: the same persons are compared with themselves; else one group with another.
        left_out: persons in both groups who are left out, because too few are in both to compare within persons.
    """

    estimate: Estimate
    within: bool
    left_out: int


def mean_over_persons(numbers: Sequence[float], least: float = -np.inf, most: float = np.inf) -> Estimate | None:
    """The mean of one number per person, with its interval; None without any.

    Args:
        numbers: of the persons.
        least, most: what the number can be; the interval does not go beyond.
    """
    from scipy.stats import ttest_1samp

    if not numbers:
        return None
    low, high = _bounds(ttest_1samp(numbers, 0.0), least, most) if _varies(numbers) else (None, None)
    return Estimate(fmean(numbers), low, high, len(numbers))


def difference(first: Mapping[Key, float], second: Mapping[Key, float], reach: float = np.inf) -> Difference | None:
    """How much larger a number is in the second group than in the first; None when one of them is empty.

    Where at least as many persons are in both groups as in either alone, they are compared with themselves; else
    those who are in both are left out.

    Args:
        first, second: person -> number.
        reach: how large a difference can be; the interval does not go beyond.
    """
    both = first.keys() & second.keys()
    alone = [numbers for person, numbers in first.items() if person not in both]
    others = [numbers for person, numbers in second.items() if person not in both]
    if both and len(both) >= min(len(alone), len(others)):
        within = mean_over_persons(
            [second[person] - first[person] for person in first if person in both], -reach, reach
        )
        return None if within is None else Difference(within, True, 0)
    if not alone or not others:
        return None
    low, high = None, None
    if min(len(alone), len(others)) > 1 and (_varies(alone) or _varies(others)):
        low, high = _bounds(_welch(others, alone), -reach, reach)
    estimate = Estimate(fmean(others) - fmean(alone), low, high, len(alone) + len(others))
    return Difference(estimate, False, len(both))


def _welch(first: Sequence[float], second: Sequence[float]) -> Any:
    from scipy.stats import ttest_ind

    with warnings.catch_warnings():
        # Warned of where all of a group have the same number, which does no harm here.
        warnings.simplefilter("ignore", RuntimeWarning)
        return ttest_ind(first, second, equal_var=False)


def _varies(numbers: Sequence[float]) -> bool:
    return len(numbers) > 1 and float(np.ptp(numbers)) > 1e-12


def _bounds(test: Any, least: float, most: float) -> tuple[float | None, float | None]:
    interval = test.confidence_interval(LEVEL)
    low, high = float(interval.low), float(interval.high)
    return (max(low, least), min(high, most)) if np.isfinite([low, high]).all() else (None, None)
