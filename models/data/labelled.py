"""Choose the labelled rows of a dataset, and turn their labels into numbers to learn from or to measure against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emopipe.models.data.dataset import Dataset, Floats, Indices
from emopipe.models.data.label_values import join_spellings, spelling_key
from emopipe.models.scoring import Scoring, scoring


def labelled(
    dataset: Dataset,
    label: str,
    classes: Sequence[str] | None = None,
    *,
    modalities: Sequence[str] | None = None,
    split: str | None = None,
) -> NDArray[np.bool_]:
    """Choose the rows that have a known label, as an (N,) mask.

    Args:
        dataset: N rows.
        label: the manifest column.
        classes: the known ones; none where labels are values; None where any label will do.
        modalities: rows have at least one of these; None: they need not have any.
        split: rows belong to this one; None for all.

    Raises:
        DatasetError: the manifest has no such column.
    """
    found = dataset.labels(label) if classes is None else targets(dataset, label, classes)
    chosen: NDArray[np.bool_]
    if found.dtype == object:
        chosen = np.array([name is not None for name in found], dtype=bool)
    else:
        chosen = np.isfinite(found) & (not classes or found >= 0)
    if modalities is not None:
        chosen &= presence(dataset, modalities).any(axis=1)
    return chosen if split is None else chosen & (dataset.split == split)


def usable(dataset: Dataset, label: str) -> NDArray[np.bool_]:
    """Choose the rows that can be trained on, as an (N,) mask: those with any label and at least one modality."""
    return labelled(dataset, label, modalities=dataset.modalities)


def targets(dataset: Dataset, label: str, classes: Sequence[str]) -> NDArray[Any]:
    """Turn labels into numbers: (N,) indices of classes, -1 for what is none of them; or values, NaN for none.

    Args:
        dataset: N rows.
        label: the manifest column.
        classes: class names; none where labels are values.

    Raises:
        DatasetError: the manifest has no such column.
    """
    labels = dataset.labels(label)
    if not classes:
        return labels.astype(np.float64)
    exact = {name: number for number, name in enumerate(classes)}
    similar = {spelling_key(name): number for name, number in exact.items()}
    names = [None if name is None else str(name) for name in labels]
    return np.array(
        [-1 if name is None else exact.get(name, similar.get(spelling_key(name), -1)) for name in names],
        dtype=np.int64,
    )


def scoring_of(dataset: Dataset, label: str) -> Scoring | None:
    """How values of a column are scored; None for classes.

    Raises:
        DatasetError: the manifest has no such column.
    """
    labels = dataset.labels(label)
    if labels.dtype == object:
        return None
    return scoring(dataset.corpora, label, dataset.largest(label))


def label_doubts(dataset: Dataset, label: str) -> list[str]:
    """Tell what is doubtful about a column of labels, in words: joined spellings, missing cells, numbers of classes."""
    labels = dataset.labels(label)
    if label not in dataset.manifest.column_names:
        return []
    if labels.dtype != object:
        values = np.unique(labels[np.isfinite(labels)])
        few = 0 < len(values) <= 10 and 2 * len(values) <= np.isfinite(labels).sum()
        if not few or not (values == values.round()).all():
            return []
        named = ", ".join(f"{value:g}" for value in values)
        hint = "to learn classes, write names in place of the numbers"
        return [f"the labels {named} of {label} are taken as values, so that this is a regression; {hint}"]
    given = [None if name is None else str(name) for name in dataset.column(label)]
    joined = join_spellings(given)[1]
    missing = sum(name is not None for name in given) - sum(name is not None for name in labels)
    doubts = [f"{', '.join(others)} of {label} are taken as {name}" for name, others in joined.items()]
    return [*doubts, *([f"{missing} cells of {label} such as NA or nan are taken as missing"] if missing else [])]


def soft_targets(dataset: Dataset, label: str, classes: Sequence[str]) -> NDArray[np.float32] | None:
    """Turn votes into shares of classes, (N, C): of rows without any, all for the class of their label.

    Args:
        dataset: N rows.
        label: the manifest column.
        classes: class names; none where labels are values.

    Returns:
        The shares; None where there are no votes for classes.
    """
    votes = dataset.votes(label) if classes else None
    if votes is None or not votes.classes:
        return None
    shares, numbers = votes.shares(classes), targets(dataset, label, classes)
    bare = np.flatnonzero((shares.sum(1) == 0) & (numbers >= 0))
    shares[bare, numbers[bare]] = 1.0
    return shares


def no_rows_hint(dataset: Dataset, split: str | None) -> str:
    """Tell what to do where a split has no usable row, in words."""
    sizes = Counter(name for name in dataset.split if name is not None)
    if split is None or split in sizes:
        return "Check the label column and the modalities"
    told = ", ".join(f"{name} ({count} rows)" for name, count in sizes.items()) or "no splits at all"
    everything = "Use --split all, which also measures on rows that were trained on"
    return (
        f'The dataset has {told}. {everything}, or mark rows of the labels table as split "{split}" and extract again'
    )


def presence(dataset: Dataset, modalities: Sequence[str]) -> NDArray[np.bool_]:
    """Look up which rows have which of some modalities that the dataset knows: (N, K) bool."""
    columns: NDArray[np.bool_] = dataset.present[:, [dataset.modalities.index(name) for name in modalities]]
    return columns


def unknown_classes(dataset: Dataset, label: str, classes: Sequence[str], split: str | None = None) -> dict[str, int]:
    """Count the labelled rows of classes that a model does not know: class -> rows, the most first.

    Args:
        dataset: N rows.
        label: the manifest column.
        classes: the known ones; none where labels are values, of which all are known.
        split: of these rows alone; None for all.
    """
    if not classes or dataset.labels(label).dtype != object:
        return {}
    strange = labelled(dataset, label, split=split) & ~labelled(dataset, label, classes)
    return dict(Counter(map(str, dataset.labels(label)[strange])).most_common())


def even_weights(weights: Floats, rows: Indices) -> NDArray[np.float64]:
    """Sample weights (N,), scaled to a mean of 1 over `rows`."""
    return weights.astype(np.float64) / max(float(weights[rows].mean()), 1e-12)
