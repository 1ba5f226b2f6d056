"""Where faces are between the sampled frames in which they were seen, with a margin, and where they were lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emopipe.errors import ConfigError
from emopipe.extractors.face.table import BOX

#: A face that is lost for no longer than this, in seconds, is taken to have moved in a straight line meanwhile.
LONGEST_GAP: Final = 10.0
#: Largest shift of pitch, in semitones.
MOST_PITCH: Final = 12.0


@dataclass(frozen=True)
class BlurSettings:
    """How faces are blurred.

    Attributes:
        margin: that is blurred around a face, as a share of its width and height on each side.
        hold: seconds for which the place of a face is blurred before it is first seen and after it is last seen.
        whole: blur the whole picture where no face is known.
        pitch: semitones by which the sound is shifted.
    """

    margin: float = 0.4
    hold: float = 1.0
    whole: bool = False
    pitch: float = 0.0

    def check(self) -> None:
        """Raise a ConfigError for settings that are not numbers, or out of bounds."""
        if not all(isinstance(one, int | float) for one in (self.margin, self.hold, self.pitch)):
            raise ConfigError("margin, hold or pitch is not a number", hint="Write numbers without quotes")
        if not abs(self.pitch) <= MOST_PITCH:
            raise ConfigError(f"a pitch of {self.pitch:g} semitones is too much", hint="Choose within -12 and 12")
        if not (0 <= self.margin <= 5 and 0 <= self.hold <= 60):
            raise ConfigError("margin or hold is out of bounds", hint="Choose a margin of 0 to 5, a hold of 0 to 60 s")


@dataclass(frozen=True)
class _Track:
    """A face: times (N,) in seconds and boxes (N, 4) as shares of the picture, in order."""

    times: NDArray[np.float64]
    boxes: NDArray[np.float64]


class FaceBoxes:
    """The places of faces at any time.

    Args:
        table: the face table; None: there are no faces.
        settings: margin and hold.
    """

    def __init__(self, table: pa.Table | None, settings: BlurSettings) -> None:
        self._settings = settings
        self._tracks = [] if table is None else _tracks(table)
        self._begin = np.array([track.times[0] - settings.hold for track in self._tracks])
        self._end = np.array([track.times[-1] + settings.hold for track in self._tracks])

    def at(self, time: float) -> list[tuple[float, float, float, float]]:
        """Left, top, right and bottom of what is to be blurred, as shares of the picture, within it."""
        alive = np.flatnonzero((self._begin <= time) & (time <= self._end)) if self._tracks else ()
        return [self._widened(box) for index in alive for box in self._boxes(self._tracks[int(index)], time)]

    def _boxes(self, track: _Track, time: float) -> list[NDArray[np.float64]]:
        """The places of a face: where it was seen before and will be seen next, while they are held, and between."""
        after = int(np.searchsorted(track.times, time))
        if after == len(track.times) or after == 0:
            return [track.boxes[min(after, len(track.times) - 1)]]
        start, end = track.times[after - 1], track.times[after]
        first, last = track.boxes[after - 1], track.boxes[after]
        boxes = []
        if end - start <= LONGEST_GAP:
            boxes.append(first + (last - first) * ((time - start) / (end - start)))
        if end - start > self._settings.hold:
            boxes += [first] if time - start <= self._settings.hold else []
            boxes += [last] if end - time <= self._settings.hold else []
        return boxes

    def _widened(self, box: NDArray[np.float64]) -> tuple[float, float, float, float]:
        x0, y0, x1, y1 = map(float, box)
        wide, high = (x1 - x0) * self._settings.margin, (y1 - y0) * self._settings.margin
        return max(x0 - wide, 0.0), max(y0 - high, 0.0), min(x1 + wide, 1.0), min(y1 + high, 1.0)


def _tracks(table: pa.Table) -> list[_Track]:
    times, numbers = (table[name].to_numpy() for name in ("time", "track"))
    boxes = np.column_stack([table[name].to_numpy() for name in BOX]).astype(np.float64)
    usable = np.isfinite(boxes).all(axis=1)
    tracks = []
    for number in np.unique(numbers[usable]):
        rows = np.flatnonzero((numbers == number) & usable)
        rows = rows[np.argsort(times[rows], kind="stable")]
        moments, first = np.unique(times[rows], return_index=True)
        tracks.append(_Track(moments.astype(np.float64), boxes[rows[first]]))
    return tracks
