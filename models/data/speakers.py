"""Mean features of each speaker, so that an utterance can be read relative to the speaker's other utterances."""

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
        self._sums: dict[tuple[str, str], NDArray[np.float64]] = {}
        self._counts: dict[tuple[str, str], NDArray[np.int64]] = {}
        self._utterances: dict[tuple[str, str], int] = {}

    def add(self, speaker: str | None, features: Mapping[str, Numbers | None]) -> None:
        """Count an utterance: modality -> its steps (T, D), None where it is absent."""
        for modality, steps in features.items():
            if speaker is None or steps is None or len(steps) == 0:
                continue
            mean, key = utterance_mean(steps), (speaker, modality)
            finite = np.isfinite(mean)
            self._sums[key] = self._sums.get(key, np.zeros(len(mean))) + np.where(finite, mean, 0.0)
            self._counts[key] = self._counts.get(key, np.zeros(len(mean), np.int64)) + finite
            self._utterances[key] = self._utterances.get(key, 0) + 1

    def of_others(self, speaker: str | None, modality: str, steps: Numbers | None) -> Numbers | None:
        """Mean (D,) over the other utterances of a speaker; None where there are too few of them.

        Args:
            speaker: who speaks.
            modality: of which features.
            steps: (T, D) of the utterance itself, which was counted.
        """
        if speaker is None or steps is None or self._utterances.get((speaker, modality), 0) - 1 < LEAST_OTHERS:
            return None
        mean, key = utterance_mean(steps), (speaker, modality)
        finite = np.isfinite(mean)
        count = self._counts[key] - finite
        rest = (self._sums[key] - np.where(finite, mean, 0.0)) / np.maximum(count, 1)
        others: Numbers = np.where(count > 0, rest, np.nan).astype(np.float32)
        return others


def utterance_mean(steps: Numbers) -> NDArray[np.float64]:
    """Mean (D,) over the steps (T, D) in which a feature was measured; NaN where it never was."""
    finite = np.isfinite(steps)
    count = finite.sum(0)
    total = np.where(finite, steps, 0.0).sum(0, dtype=np.float64)
    mean: NDArray[np.float64] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean
