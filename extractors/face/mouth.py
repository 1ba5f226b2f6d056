"""Whose mouth is talking: how much the gap between the lips varies from frame to frame."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

#: The gap's standard deviation is taken over this long before and after a frame, in seconds.
AROUND: Final = 0.45
#: Standard deviation of AU25 (0..1) at which a mouth is as likely to talk as not. On real clips at 5 frames a second,
#: talking mouths have 0.13 to 0.21 (median of a clip), silent ones 0.003 to 0.03.
EVEN: Final = 0.045
#: Log odds of talking per unit of the logarithm of that deviation, and their greatest amount.
SLOPE: Final = 1.2
SUREST: Final = 2.0


def talking(table: pa.Table) -> np.ndarray:
    """Log odds that the face of each row of a face table talks (rows,); 0 where its mouth was not measured."""
    times, tracks = table["time"].to_numpy(), table["track"].to_numpy()
    gaps = table["AU25"].to_numpy(zero_copy_only=False).astype(np.float64)
    odds = np.zeros(len(times))
    for track in np.unique(tracks):
        rows = np.flatnonzero((tracks == track) & ~np.isnan(gaps))
        odds[rows] = _log_odds(_deviations(times[rows], gaps[rows]))
    return odds


def _deviations(times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Standard deviation of the values around each time; NaN with fewer than three of them."""
    low = np.searchsorted(times, times - AROUND, side="left")
    high = np.searchsorted(times, times + AROUND, side="right")
    sums, squares = (np.concatenate([[0.0], np.cumsum(values**power)]) for power in (1, 2))
    count = high - low
    mean = (sums[high] - sums[low]) / count
    variance = np.maximum((squares[high] - squares[low]) / count - mean**2, 0.0)
    deviation: np.ndarray = np.where(count >= 3, np.sqrt(variance), np.nan)
    return deviation


def _log_odds(deviations: np.ndarray) -> np.ndarray:
    odds: np.ndarray = SLOPE * (np.log(deviations + 0.005) - np.log(EVEN + 0.005))
    return np.asarray(np.nan_to_num(np.clip(odds, -SUREST, SUREST)))
