"""What is usual for each speaker, so that an utterance can be read relative to the speaker's other utterances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float32]

#: With fewer other utterances, what is usual for a speaker cannot be told from what they express.
LEAST_OTHERS: Final = 3


class SpeakerMeans:
    """Means over the utterances of each speaker, every utterance counting the same; speakers that are None are unknown.

    Values that could not be measured (NaN) are left out, feature by feature.
    """

    def __init__(self) -> None:
        #: Of the utterances' means, by speaker and modality, (3, D): how many were measured, their sum, and that of
        #: their squares.
        self._sums: dict[tuple[str, str], NDArray[np.float64]] = {}
        self._utterances: dict[tuple[str, str], int] = {}

    def add(self, speaker: str | None, features: Mapping[str, Numbers | None]) -> None:
        """Count an utterance: modality -> its steps (T, D), None where it is absent."""
        for modality, steps in features.items():
            if speaker is None or steps is None or len(steps) == 0:
                continue
            key = (speaker, modality)
            self._sums[key] = self._sums.get(key, 0.0) + _powers(steps)
            self._utterances[key] = self._utterances.get(key, 0) + 1

    def of_others(self, speaker: str | None, modality: str, steps: Numbers | None) -> tuple[Numbers, Numbers] | None:
        """Mean (D,) and variance (D,) over the other utterances of a speaker; None where there are too few of them.

        A feature that was measured in none of them has no mean, and one that was not in two has no variance: NaN.

        Args:
            speaker: who speaks.
            modality: of which features.
            steps: (T, D) of the utterance itself, which was counted.
        """
        if speaker is None or steps is None or self._utterances.get((speaker, modality), 0) - 1 < LEAST_OTHERS:
            return None
        count, total, squares = self._sums[speaker, modality] - _powers(steps)
        mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        scatter = np.maximum(squares - total * mean, 0.0)
        variance = np.where(count > 1, scatter / np.maximum(count - 1, 1), np.nan)
        return mean.astype(np.float32), variance.astype(np.float32)


def _powers(steps: Numbers) -> NDArray[np.float64]:
    """(3, D): whether each feature was measured in an utterance, its mean, and the square of that."""
    mean = utterance_mean(steps)
    known = np.nan_to_num(mean)
    return np.stack([np.isfinite(mean), known, known**2])


def utterance_mean(steps: Numbers) -> NDArray[np.float64]:
    """Mean (D,) over the steps (T, D) in which a feature was measured; NaN where it never was."""
    finite = np.isfinite(steps)
    count = finite.sum(0)
    total = np.where(finite, steps, 0.0).sum(0, dtype=np.float64)
    mean: NDArray[np.float64] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean
