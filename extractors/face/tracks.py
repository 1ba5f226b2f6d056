"""Link the faces of successive frames into tracks, and the tracks of one person into one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
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
#: Where most faces stay, one that stays but looks like somebody else was measured badly: so much overlap, and for so
#: many frames in a row, is believed to be the same face.
STEADY_OVERLAP: Final = 0.5
MOST_DOUBTED: Final = 2


@dataclass
class _Track:
    """What is known of one track.

    Attributes:
        seen, box, last: when, where and how it was last seen.
        looks: how it has looked.
        beside: tracks that were seen beside it.
        doubted: for so many frames it has looked like somebody else.
    """

    seen: float
    box: np.ndarray
    last: np.ndarray | None
    looks: list[np.ndarray] = field(default_factory=list)
    beside: set[int] = field(default_factory=set)
    doubted: int = 0


class TrackLinker:
    """Assigns each face the number of the track that it continues, or a new one.

    A face continues the track whose box it overlaps, unless it looks like somebody else: then the picture was cut.
    One that reappears after a cut or a loss, anywhere in the frame, continues the track that looks the same. Where most
    other faces stay there was no cut, and a look that differs for a moment is a bad measurement. Without looks, only
    boxes count.
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
        places = np.asarray(boxes, np.float64).reshape(-1, 4)
        seen = np.stack(looks) if looks is not None and len(looks) else None
        overlap = self._overlap(time, places)
        tracks = np.full(len(places), -1)
        _assign(tracks, self._stays(overlap, seen))
        steady = 2 * np.count_nonzero(tracks >= 0) >= len(places)
        if seen is not None:
            _assign(tracks, self._returns(seen, tracks))
        doubted = tracks < 0
        if steady:
            _assign(tracks, self._doubted(overlap, tracks))
        for index, place in enumerate(places):
            look = None if seen is None else seen[index]
            if tracks[index] < 0:
                tracks[index] = len(self._tracks)
                self._tracks.append(_Track(time, place, look))
                self._remember(self._tracks[-1], time, place, look)
            elif doubted[index]:
                track = self._tracks[tracks[index]]
                track.seen, track.box, track.doubted = time, place, track.doubted + 1
            else:
                self._remember(self._tracks[tracks[index]], time, place, look)
        numbers: list[int] = tracks.tolist()
        for track in numbers:
            self._tracks[track].beside |= set(numbers) - {track}
        return numbers

    def _overlap(self, time: float, places: np.ndarray) -> np.ndarray:
        """How much each face overlaps each track where that was last seen (faces, tracks); 0 where that is little."""
        if not self._tracks or not len(places):
            return np.zeros((len(places), len(self._tracks)))
        shared = overlaps(places, np.array([track.box for track in self._tracks]))
        shared[:, [time - track.seen > LONGEST_GAP for track in self._tracks]] = 0.0
        shared[shared < LEAST_OVERLAP] = 0.0
        return shared

    def _stays(self, overlap: np.ndarray, looks: np.ndarray | None) -> np.ndarray:
        """How well each face continues each track in its place (faces, tracks); 0 when it does not."""
        lasts = [track.last for track in self._tracks]
        if looks is None or not lasts or any(last is None for last in lasts):
            return overlap
        step = distances(looks, np.array(lasts))
        return np.where((overlap > 0) & (step < CUT), overlap + 2 - step, 0.0)

    def _returns(self, looks: np.ndarray, tracks: np.ndarray) -> np.ndarray:
        """How well each face without a track looks like each free one (faces, tracks); 0 when it does not."""
        worth = np.zeros((len(looks), len(self._tracks)))
        left, free = np.flatnonzero(tracks < 0), np.setdiff1d(np.arange(len(self._tracks)), tracks)
        if len(left) and len(free):
            nearest = self._nearest(looks[left], free)
            worth[np.ix_(left, free)] = np.where(nearest < SAME, 1 - nearest, 0.0)
        return worth

    def _doubted(self, overlap: np.ndarray, tracks: np.ndarray) -> np.ndarray:
        """How well each face without a track lies where a free one was, though it looks like somebody else."""
        worth = np.where(overlap >= STEADY_OVERLAP, overlap, 0.0)
        worth[tracks >= 0] = 0.0
        worth[:, [track.doubted >= MOST_DOUBTED for track in self._tracks]] = 0.0
        worth[:, tracks[tracks >= 0]] = 0.0
        return worth

    def _nearest(self, looks: np.ndarray, tracks: np.ndarray) -> np.ndarray:
        """The smallest distance of each look to one that each of these tracks has had (looks, tracks)."""
        kept = [self._tracks[track].looks for track in tracks]
        nearest = np.full((len(looks), len(tracks)), np.inf)
        known = [place for place, one in enumerate(kept) if one]
        if known:
            apart = distances(looks, np.array([look for place in known for look in kept[place]]))
            starts = np.cumsum([0, *(len(kept[place]) for place in known[:-1])])
            nearest[:, known] = np.minimum.reduceat(apart, starts, axis=1)
        return nearest

    def _remember(self, track: _Track, time: float, box: np.ndarray, look: np.ndarray | None) -> None:
        track.seen, track.box, track.last, track.doubted = time, box, look, 0
        if look is None or len(track.looks) >= MOST_LOOKS:
            return
        if not track.looks or distances(look[None], np.array(track.looks)).min() > NEW_LOOK:
            track.looks.append(look)

    def people(self) -> list[int]:
        """The person of each track, once all frames are linked: numbers in the order of first appearance.

        Tracks that come near each other in looks are one person, unless they were seen in one frame.
        """
        person = list(range(len(self._tracks)))
        beside = [set(track.beside) for track in self._tracks]
        everybody = np.arange(len(self._tracks))
        near: list[tuple[float, int, int]] = []
        for one, track in enumerate(self._tracks):
            if track.looks:
                apart = self._nearest(np.array(track.looks), everybody[one + 1 :]).min(0)
                near += [(float(apart[i]), one, one + 1 + int(i)) for i in np.flatnonzero(apart < SAME)]
        for _, a, b in sorted(near):
            first, second = sorted((person[a], person[b]))
            if first == second or second in {person[other] for other in beside[first]}:
                continue
            beside[first] |= beside[second]
            person = [first if one == second else one for one in person]
        order = {one: number for number, one in enumerate(sorted(set(person)))}
        return [order[one] for one in person]


def _assign(tracks: np.ndarray, worth: np.ndarray) -> None:
    """Give faces the tracks that they continue, so that the sum of `worth` (faces, tracks) is greatest."""
    for face, track in _pairs(worth):
        if worth[face, track] > 0:
            tracks[face] = track


def _pairs(worth: np.ndarray) -> Iterable[tuple[int, int]]:
    """Faces and their tracks, so that the sum of `worth` (faces, tracks) is greatest; a single face is not weighed."""
    if len(worth) == 1:
        return [(0, int(worth[0].argmax()))] if worth.size else []
    from scipy.optimize import linear_sum_assignment

    return zip(*linear_sum_assignment(-worth), strict=True)


def overlaps(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes x0, y0, x1, y1: (n, 4) and (m, 4) give (n, m)."""
    low = np.maximum(some[:, None, :2], others[None, :, :2])
    high = np.minimum(some[:, None, 2:], others[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (some, others)]
    whole = areas[0][:, None] + areas[1][None] - shared
    return np.asarray(np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0))
