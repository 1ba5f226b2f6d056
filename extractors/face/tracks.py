"""Link the faces of successive frames into tracks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

#: A face unseen for longer than this starts a new track, in seconds.
LONGEST_GAP: Final = 2.0
#: Boxes that overlap less than this (intersection over union) are different faces.
LEAST_OVERLAP: Final = 0.2


class TrackLinker:
    """Assigns each face box the number of the track that it continues, or a new one."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[float, np.ndarray]] = {}
        self._next = 0

    def link(self, time: float, boxes: Sequence[Sequence[float]]) -> list[int]:
        """Track numbers for the boxes (x0, y0, x1, y1) of the frame at `time` seconds, by greatest total overlap."""
        from scipy.optimize import linear_sum_assignment

        faces = [np.asarray(box, np.float64) for box in boxes]
        alive = [track for track, (seen, _) in self._last.items() if time - seen <= LONGEST_GAP]
        shared = np.array([[overlap(face, self._last[t][1]) for t in alive] for face in faces])
        tracks = [-1] * len(faces)
        if shared.size:
            for face, column in zip(*linear_sum_assignment(-shared), strict=True):
                if shared[face, column] >= LEAST_OVERLAP:
                    tracks[face] = alive[column]
        for index, face in enumerate(faces):
            if tracks[index] < 0:
                tracks[index], self._next = self._next, self._next + 1
            self._last[tracks[index]] = (time, face)
        return tracks


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = float(np.prod(np.clip(high - low, 0, None)))
    whole = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - shared
    return shared / whole if whole > 0 else 0.0
