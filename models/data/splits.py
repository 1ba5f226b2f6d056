"""Split rows for training and testing, and cut cross-validation folds, with every speaker on one side."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emopipe.errors import TrainingError
from emopipe.models.data.dataset import Dataset, Indices


def strata(labels: NDArray[Any]) -> NDArray[Any]:
    """(N,) what to balance over the folds: the classes themselves, or fifths of numeric labels."""
    if labels.dtype == object:
        return labels.astype(str)
    edges = np.unique(np.quantile(labels, (0.2, 0.4, 0.6, 0.8)))
    return np.searchsorted(edges, labels).astype(str)


def folds(
    dataset: Dataset, labels: NDArray[Any], count: int, seed: int, by_speaker: bool = True
) -> list[tuple[Indices, Indices]]:
    """Cut the rows into `count` folds, classes balanced, and no speaker (or media file) in two folds.

    Args:
        dataset: the rows.
        labels: (N,) their labels, none missing.
        count: how many folds at most; fewer when there are fewer speakers.
        seed: of the shuffling.
        by_speaker: False lets speakers fall on both sides.

    Returns:
        Pairs of (rows to train on, rows to test on).

    Raises:
        TrainingError: fewer than two speakers.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    rows = strata(labels)
    parts = min(count, len(set(dataset.groups))) if by_speaker else min(count, len(rows))
    if parts < 2:
        raise TrainingError(
            f"there are fewer than two {dataset.grouped_by}, so none can be held out",
            hint="Add recordings of other people, or set allow_speaker_overlap = true",
        )
    kind = StratifiedGroupKFold if by_speaker else StratifiedKFold
    splitter = kind(n_splits=parts, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer members than folds is not a fault
        try:
            pairs = list(splitter.split(np.zeros(len(rows)), rows, dataset.groups if by_speaker else None))
        except ValueError:  # every class is rarer than the number of folds
            pairs = []
    if not all(len(test) for _, test in pairs) or not pairs:
        pairs = list(_plain(dataset.groups if by_speaker else np.arange(len(rows)), parts, seed))
    return [(train.astype(np.int64), test.astype(np.int64)) for train, test in pairs]


def _plain(groups: NDArray[Any], count: int, seed: int) -> Iterator[tuple[Indices, Indices]]:
    names, number = np.unique(groups.astype(str), return_inverse=True)
    part = np.random.default_rng(seed).permutation(len(names))[number] % count
    for fold in range(count):
        yield np.flatnonzero(part != fold), np.flatnonzero(part == fold)


def holdout(
    dataset: Dataset, labels: NDArray[Any], count: int, seed: int, by_speaker: bool = True
) -> tuple[Indices, Indices]:
    """One of :func:`folds`: the one that leaves most classes to train on and, among these, most to validate on."""
    kinds = strata(labels)
    pairs = folds(dataset, labels, count, seed, by_speaker)
    return max(pairs, key=lambda pair: (len(set(kinds[pair[0]])), len(set(kinds[pair[1]]))))


def manifest_split(dataset: Dataset, allow_overlap: bool = False) -> tuple[Indices, Indices] | None:
    """The rows that the manifest calls `train`, or nothing, and `valid`; None when it has no `valid`.

    Raises:
        TrainingError: a speaker is on both sides and `allow_overlap` is False.
    """
    train = np.flatnonzero([name in ("train", None) for name in dataset.split])
    valid = np.flatnonzero(dataset.split == "valid")
    if len(valid) == 0 or len(train) == 0:
        return None
    if not allow_overlap:
        refuse_overlap(dataset, train, valid, "train and valid")
    return train, valid


def refuse_overlap(dataset: Dataset, one: Indices, other: Indices, sides: str) -> None:
    """Raise a TrainingError when a known speaker occurs on both sides."""
    both = overlap(dataset, one, other)
    if both:
        some = ", ".join(both[:3]) + (", ..." if len(both) > 3 else "")
        raise TrainingError(
            f"{len(both)} speakers are in both {sides}: {some}",
            hint="Split by speaker (rows without a split are trained on), or set allow_speaker_overlap = true",
        )


def overlap(dataset: Dataset, one: Indices, other: Indices) -> list[str]:
    """Known speakers that occur on both sides, sorted."""
    sides = [{str(name) for name in dataset.speakers[rows] if name is not None} for rows in (one, other)]
    return sorted(sides[0] & sides[1])
