"""Pool what was measured per frame into the short windows that a fusion model reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sequence:
    """Features of one utterance in one modality.

    Attributes:
        start, end: seconds of each step (steps,).
        features: float32 (steps, dims).
    """

    start: np.ndarray
    end: np.ndarray
    features: np.ndarray


def window_edges(start: float, end: float, length: float) -> np.ndarray:
    """Edges in seconds (windows + 1,) of equal windows that fill [start, end], each as near to `length` as can be."""
    count = max(1, round((end - start) / length))
    return np.linspace(start, end, count + 1)


def window_means(times: np.ndarray, values: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of `values` in each window, ignoring NaN.

    Args:
        times: seconds (n,), ascending.
        values: (n, dims).
        edges: seconds (windows + 1,); the last edge is included.

    Returns:
        The means, float32 (windows, dims), NaN where a window has no value, and the number of rows in each window.
    """
    index = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, len(edges) - 2)
    valid = ~np.isnan(values)
    shape = (len(edges) - 1, values.shape[1])
    total, count = np.zeros(shape), np.zeros(shape)
    np.add.at(total, index, np.where(valid, values, 0.0))
    np.add.at(count, index, valid)
    rows = np.bincount(index, minlength=shape[0])
    with np.errstate(invalid="ignore"):
        return (total / np.where(count == 0, np.nan, count)).astype(np.float32), rows


def window_deviations(times: np.ndarray, values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Standard deviation of `values` in each window, float32 (windows, dims); NaN rules as in :func:`window_means`."""
    index = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, len(edges) - 2)
    mean, _ = window_means(times, values, edges)
    square, _ = window_means(times, (values - mean[index]) ** 2, edges)
    return np.sqrt(square)
