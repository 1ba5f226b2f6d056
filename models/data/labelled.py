"""Choose the labelled rows of a dataset, and turn their labels into numbers to learn from or to measure against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emopipe.models.data.dataset import Dataset


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
    index = {name: number for number, name in enumerate(classes)}
    return np.array([-1 if name is None else index.get(str(name), -1) for name in labels], dtype=np.int64)


def presence(dataset: Dataset, modalities: Sequence[str]) -> NDArray[np.bool_]:
    """Look up which rows have which of some modalities that the dataset knows: (N, K) bool."""
    columns: NDArray[np.bool_] = dataset.present[:, [dataset.modalities.index(name) for name in modalities]]
    return columns
