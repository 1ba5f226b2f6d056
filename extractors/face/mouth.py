"""Whose mouth is talking: how much the gap between the lips varies from frame to frame.

Mouths differ: the gap of one talks with a deviation of 0.03, of another with 0.2. So whether a face is a speaker's is
asked of the face as a whole: does its mouth move more while that person speaks than it does otherwise?
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa

#: The gap is watched for this long before and after a frame, in seconds, and for one frame at least.
AROUND: Final = 0.45
#: What is added to that deviation before its logarithm is taken.
FLOOR: Final = 0.005
#: That logarithm for mouths that talk and for silent ones: mean over faces, and deviation from face to face. On real
#: clips at 5 frames a second, medians of AU25's deviation are 0.13 to 0.21 and 0.003 to 0.03; of drawn faces, smaller.
TALKING: Final = (-2.1, 0.7)
SILENT: Final = (-4.6, 0.6)
#: Of mouths that move whoever speaks: they laugh, chew, or their landmarks are unsure. Share of the faces that do so;
#: as many talk when the person in question does not. Share of speakers who move their mouths in pauses, too.
RESTLESS: Final = (-3.0, 0.8)
RESTLESS_SHARE: Final = 0.1
RESTLESS_IN_PAUSES: Final = 0.3
#: Its deviation within a face.
WITHIN: Final = 0.9
#: Log odds of talking per unit from where a mouth is as likely to talk as not, and their greatest amount.
EVEN: Final = -3.0
SLOPE: Final = 1.2
SUREST: Final = 2.0


def movement(table: pa.Table) -> np.ndarray:
    """Logarithm of how much the mouth of each row of a face table moves around its time (rows,); NaN if unknown."""
    times, tracks = table["time"].to_numpy(), table["track"].to_numpy()
    gaps = table["AU25"].to_numpy(zero_copy_only=False).astype(np.float64)
    around = max(AROUND, 1.05 * frame_step(table))
    moved = np.full(len(times), np.nan)
    for track in np.unique(tracks):
        rows = np.flatnonzero((tracks == track) & ~np.isnan(gaps))
        moved[rows] = np.log(_deviations(times[rows], gaps[rows], around) + FLOOR)
    return moved


def talking(moved: np.ndarray) -> np.ndarray:
    """Log odds that a mouth talks, frame by frame, from its :func:`movement`; 0 where that is unknown."""
    return np.asarray(np.nan_to_num(np.clip(SLOPE * (moved - EVEN), -SUREST, SUREST)))


def talks(moved: np.ndarray, weight: float = 1.0) -> float:
    """Log odds that a mouth talks all the while, against that it never does, from its :func:`movement`.

    Both are judged by the probability of the movement if it is normal, around a level of the face's own, which varies
    from face to face as :data:`TALKING` and :data:`SILENT` say.

    Args:
        moved: of the face's rows (rows,), none NaN.
        weight: rows tell so much of what independent ones would.
    """
    return _likelihood(moved, *TALKING, weight) - _likelihood(moved, *SILENT, weight)


def in_step(moved: np.ndarray, speaks: np.ndarray, weight: float = 1.0) -> float:
    """Log odds that a face talks whenever somebody speaks, against that it is not that person's.

    A face that talks has a level of movement for speech and another for the rest of the time, as in :func:`talks`. One
    that is not that person's is silent, or moves its mouth all the time as :data:`RESTLESS` says, or talks when that
    person does not.

    Args:
        moved: of the face's rows (rows,), none NaN.
        speaks: whether that person speaks then (rows,).
        weight: rows tell so much of what independent ones would.
    """
    while_speaking, otherwise = moved[speaks], moved[~speaks]
    silent_then = _likelihood(otherwise, *SILENT, weight)
    restless_then = _likelihood(otherwise, *RESTLESS, weight)
    theirs = _likelihood(while_speaking, *TALKING, weight) + _mixed(
        [silent_then, restless_then], [1 - RESTLESS_IN_PAUSES, RESTLESS_IN_PAUSES]
    )
    silent, restless = _likelihood(moved, *SILENT, weight), _likelihood(moved, *RESTLESS, weight)
    another = _likelihood(while_speaking, *SILENT, weight) + _likelihood(otherwise, *TALKING, weight)
    shares = [1 - 2 * RESTLESS_SHARE, RESTLESS_SHARE, RESTLESS_SHARE]
    return theirs - _mixed([silent, restless, another], shares)


def frame_step(table: pa.Table) -> float:
    """Seconds from one frame with a face to the next, as they mostly are; 0 with fewer than two."""
    steps = np.diff(np.unique(table["time"].to_numpy()))
    return float(np.median(steps)) if len(steps) else 0.0


def _mixed(likelihoods: Sequence[float], shares: Sequence[float]) -> float:
    """Log probability of a mixture."""
    return float(np.logaddexp.reduce(np.add(likelihoods, np.log(shares))))


def _likelihood(values: np.ndarray, mean: float, deviation: float, weight: float) -> float:
    """Log probability of values around a level that is drawn from N(mean, deviation), but for a constant per value."""
    if not len(values):
        return 0.0
    count, variance, drawn = weight * len(values), WITHIN**2, deviation**2
    spread = variance + count * drawn
    apart = count * (values.mean() - mean) ** 2 / spread + weight * ((values - values.mean()) ** 2).sum() / variance
    return float(0.5 * (np.log(variance / spread) - apart))


def _deviations(times: np.ndarray, values: np.ndarray, around: float) -> np.ndarray:
    """Standard deviation of the values around each time; NaN with fewer than three of them."""
    low = np.searchsorted(times, times - around, side="left")
    high = np.searchsorted(times, times + around, side="right")
    sums, squares = (np.concatenate([[0.0], np.cumsum(values**power)]) for power in (1, 2))
    count = high - low
    mean = (sums[high] - sums[low]) / count
    variance = np.maximum((squares[high] - squares[low]) / count - mean**2, 0.0)
    deviation: np.ndarray = np.where(count >= 3, np.sqrt(variance), np.nan)
    return deviation
