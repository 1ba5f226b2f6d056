"""Link the faces of successive frames into tracks, and the tracks of one person into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final

import numpy as np

from emopipe.extractors.face.appearance import CUT, SAME, distances

#: A face unseen for longer than this must be recognised by its look to continue its track, in seconds.
LONGEST_GAP: Final = 2.0
#: Boxes that overlap less than this (intersection over union) are different faces.
LEAST_OVERLAP: Final = 0.2
#: Looks kept of a track, each of them at least NEW_LOOK from the others: a face from several sides.
MOST_LOOKS: Final = 8
NEW_LOOK: Final = 0.3


@dataclass
class _Track:
    """What is known of one track: where and how it was last seen, how it has looked, who was seen beside it."""

    seen: float
    box: np.ndarray
    last: np.ndarray | None
    looks: list[np.ndarray] = field(default_factory=list)
    beside: set[int] = field(default_factory=set)


class TrackLinker:
    """Assigns each face the number of the track that it continues, or a new one.

    A face continues the track whose box it overlaps, unless it looks like somebody else: then the picture was cut.
    One that reappears after a cut or a loss, anywhere in the frame, continues the track that looks the same. Without
    looks, only boxes count.
    """

    def __init__(self) -> None:
        self._tracks: list[_Track] = []

    def link(
        self, time: float, boxes: Sequence[Sequence[float]], looks: Sequence[np.ndarray] | None = None
    ) -> list[int]:
        """Track numbers for the faces of the frame at `time` seconds.

        Args:
            time: later than that of the frame before.
            boxes: x0, y0, x1, y1 of each face.
            looks: of each face, see :func:`emopipe.extractors.face.appearance.look`.
        """
        from scipy.optimize import linear_sum_assignment

        faces = [np.asarray(box, np.float64) for box in boxes]
        seen = list(looks) if looks is not None else [None] * len(faces)
        found = list(zip(faces, seen, strict=True))
        worth = np.array([[self._worth(time, box, look, track) for track in self._tracks] for box, look in found])
        tracks = [-1] * len(faces)
        if worth.size:
            for face, track in zip(*linear_sum_assignment(-worth), strict=True):
                if worth[face, track] > 0:
                    tracks[face] = int(track)
        for index, (box, look) in enumerate(found):
            if tracks[index] < 0:
                tracks[index] = len(self._tracks)
                self._tracks.append(_Track(time, box, look))
            self._remember(self._tracks[tracks[index]], time, box, look)
        for track in tracks:
            self._tracks[track].beside |= set(tracks) - {track}
        return tracks

    def _worth(self, time: float, box: np.ndarray, look: np.ndarray | None, track: _Track) -> float:
        """How well a face continues a track; 0 when it does not."""
        shared = overlap(box, track.box) if time - track.seen <= LONGEST_GAP else 0.0
        if look is None or track.last is None:
            return shared if shared >= LEAST_OVERLAP else 0.0
        if shared >= LEAST_OVERLAP and (step := float(np.linalg.norm(look - track.last))) < CUT:
            return shared + 2 - step
        nearest = _nearest([look], track.looks)
        return 1 - nearest if nearest < SAME else 0.0

    def _remember(self, track: _Track, time: float, box: np.ndarray, look: np.ndarray | None) -> None:
        track.seen, track.box, track.last = time, box, look
        if look is not None and len(track.looks) < MOST_LOOKS and _nearest([look], track.looks) > NEW_LOOK:
            track.looks.append(look)

    def people(self) -> list[int]:
        """The person of each track, once all frames are linked: numbers in the order of first appearance.

        Tracks that come near each other in looks are one person, unless they were seen in one frame.
        """
        person = list(range(len(self._tracks)))
        beside = [set(track.beside) for track in self._tracks]
        pairs = combinations([i for i, track in enumerate(self._tracks) if track.looks], 2)
        near = [(_nearest(self._tracks[a].looks, self._tracks[b].looks), a, b) for a, b in pairs]
        for apart, a, b in sorted(near):
            first, second = sorted((person[a], person[b]))
            if apart >= SAME or first == second or second in {person[other] for other in beside[first]}:
                continue
            beside[first] |= beside[second]
            person = [first if one == second else one for one in person]
        order = {one: number for number, one in enumerate(sorted(set(person)))}
        return [order[one] for one in person]


def _nearest(some: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> float:
    """The smallest distance between looks; infinity when there are none."""
    return float(distances(np.stack(some), np.stack(others)).min()) if some and others else float("inf")


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = float(np.prod(np.clip(high - low, 0, None)))
    whole = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - shared
    return shared / whole if whole > 0 else 0.0
