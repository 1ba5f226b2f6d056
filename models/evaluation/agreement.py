"""How far coders (raters, annotators) agree: Krippendorff's alpha, and one coder against the others as a ceiling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from emopipe.models.data.dataset import Dataset
from emopipe.models.metrics import interval_alpha, nominal_alpha

Numbers = NDArray[np.float64]
_TOLERANCE: Final = 1e-9


@dataclass(frozen=True)
class Agreement:
    """How far coders agree.

    Attributes:
        rows: that two coders or more labelled.
        votes: on these, in the mean.
        alpha: Krippendorff's (2004): 1 for perfect agreement, 0 for chance; of classes nominal, of values interval.
        figures: the mean over coders of how one agrees with what the others say together, in the figures that models
            are measured in: uar and accuracy against their majority, or mae and corr against their mean.
    """

    rows: int
    votes: float
    alpha: float
    figures: dict[str, float]

    def words(self) -> str:
        """The agreement as a sentence."""
        figures = ", ".join(f"{name} {value:.3f}" for name, value in self.figures.items())
        return (
            f"Agreement of coders: alpha {self.alpha:.3f}; one coder against the others {figures} "
            f"({self.rows} rows, {self.votes:.1f} votes each): a model can hardly be expected to do better."
        )


def coder_agreement(dataset: Dataset, label: str, rows: NDArray[Any] | None = None) -> Agreement | None:
    """Measure how far the coders of a label agree.

    Args:
        dataset: N rows.
        label: the manifest column, or what its columns of votes are named after.
        rows: only these; None for all.

    Returns:
        The agreement; None where no row has labels of two coders, or there are shares that are not counts of votes.
    """
    votes = dataset.votes(label)
    if votes is None or (len(votes.columns) == 1 and votes.classes):
        return None
    table = votes.table if rows is None else votes.table[rows]
    return of_values(table) if not votes.classes else of_counts(table)


def of_counts(counts: Numbers) -> Agreement | None:
    """Agreement of (N, K) votes for classes."""
    if (np.abs(counts - counts.round()) > _TOLERANCE).any():
        return None
    counts = counts[counts.sum(1) >= 2]
    if len(counts) == 0:
        return None
    each = counts.sum(1, keepdims=True)
    table = left_out(counts)
    truth, hits = table.sum(1), np.diagonal(table)
    recalls = hits[truth > 0] / truth[truth > 0]
    figures = {"uar": float(recalls.mean()), "accuracy": float(hits.sum() / table.sum())}
    return Agreement(len(counts), float(each.mean()), nominal_alpha(counts), figures)


def left_out(counts: Numbers) -> Numbers:
    """(K, K) votes for classes by what the other votes on the same row say: rows their majority, columns the vote.

    Where the others are tied, the vote counts in equal parts for each of their classes.
    """
    table = np.zeros((counts.shape[1],) * 2)
    for column in range(counts.shape[1]):
        given = counts[counts[:, column] > 0]
        others = given.copy()
        others[:, column] -= 1
        leading = others >= others.max(1, keepdims=True, initial=0.0) - _TOLERANCE
        table[:, column] = (given[:, column, None] * leading / leading.sum(1, keepdims=True)).sum(0)
    return table


def of_values(values: Numbers) -> Agreement | None:
    """Agreement of (N, coders) values, NaN where a coder gave none."""
    values = values[np.isfinite(values).sum(1) >= 2]
    if len(values) == 0:
        return None
    each = np.isfinite(values).sum(1)
    sums = np.nansum(values, axis=1, keepdims=True)
    others = (sums - values) / (each[:, None] - 1)
    figures = {
        "mae": _mean_over_coders(values, others, lambda own, rest: float(np.abs(own - rest).mean())),
        "corr": _mean_over_coders(values, others, _correlation),
    }
    return Agreement(len(values), float(each.mean()), interval_alpha(values), figures)


def _mean_over_coders(values: Numbers, others: Numbers, figure: Callable[[Numbers, Numbers], float]) -> float:
    columns = [np.isfinite(values[:, coder]) for coder in range(values.shape[1])]
    found = [figure(values[rows, coder], others[rows, coder]) for coder, rows in enumerate(columns) if rows.any()]
    known = [one for one in found if np.isfinite(one)]
    return float(np.mean(known)) if known else float("nan")


def _correlation(own: Numbers, rest: Numbers) -> float:
    if len(own) < 2 or np.ptp(own) == 0 or np.ptp(rest) == 0:
        return float("nan")
    return float(np.corrcoef(own, rest)[0, 1])
