"""Pool what was measured per frame into the short windows that a fusion model reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FeatureSequence:
    """Features of one utterance in one modality.

    Attributes:
        start, end: seconds of each step (steps,).
        features: float32 (steps, dims).
    """

    start: np.ndarray
    end: np.ndarray
    features: np.ndarray


def window_edges(start: float, end: float, length: float) -> np.ndarray:
    """Edges in seconds (windows + 1,) of equal windows that fill [start, end], as near to `length` as can be.

    Length 0 makes one window.
    """
    count = max(1, round((end - start) / length)) if length else 1
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
    inner = np.searchsorted(times, edges[1:-1], side="left")
    slices = np.split(values, inner)
    means = [_mean(rows) for rows in slices]
    return np.array(means, np.float32).reshape(len(slices), -1), np.array([len(rows) for rows in slices])


def _mean(rows: np.ndarray) -> np.ndarray:
    """Mean over the first axis, ignoring NaN; NaN where nothing is left."""
    missing = np.isnan(rows)
    if len(rows) and not missing.any():
        return np.asarray(rows.mean(0))
    counts = (~missing).sum(0)
    mean: np.ndarray = np.divide(np.nansum(rows, 0), counts, out=np.full(rows.shape[1], np.nan), where=counts > 0)
    return mean


def window_deviations(times: np.ndarray, values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Standard deviation of `values` in each window, float32 (windows, dims); NaN rules as in :func:`window_means`."""
    mean, rows = window_means(times, values, edges)
    square, _ = window_means(times, (values - np.repeat(mean, rows, axis=0)) ** 2, edges)
    deviation: np.ndarray = np.sqrt(square)
    return deviation
