"""Where in a frame to look for small faces: square views of it, in which the face detector sees them larger.

The detector looks at pictures scaled down to 128 pixels and finds faces that are a fifth of them at least: 384 pixels
in a frame of 1920. Views of a half, a quarter and an eighth of the frame bring that down to 48. There are too many to
look at all of them in each frame, so that a budget is spent where something moves that is not a known face: a live
face moves, and a portrait on the wall is of no interest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

#: Shares of the frame's longer side that views have, as long as that is LEAST_SIDE pixels: faces that are smaller than
#: a fifth of this have too few pixels to be measured.
SHARES: Final = (1 / 2, 1 / 4, 1 / 8)
LEAST_SIDE: Final = 160
#: Views overlap by this share of their side, so that a face on the edge of one is inside the next.
OVERLAP: Final = 0.25
#: Views earned by each frame, per face in it: a view takes a fifth of the time of a face, so that they add a
#: twenty-fifth. A frame without any face earns one view.
EARNED: Final = 0.2
#: At most so many views are saved up, and a face that is found earns FOUND more: where there is one, there are others.
MOST_SAVED: Final = 6.0
FOUND: Final = 1.0
#: Motion is measured on a grid of so many columns at least, from so many pixels on each side of a cell.
COLUMNS: Final = 64
CELL: Final = 4
#: Difference of brightness (0..255) from one frame to the next that is taken for noise: so much, and so many times what
#: half of the cells differ by, which is noise up to MOST_NOISE and a moving camera beyond.
MARGIN: Final = 1.0
NOISE: Final = 1.5
MOST_NOISE: Final = 4.0
#: A view is worth a look when the motion seen in it since the last look adds up to this (brightness times cells).
WORTH: Final = 12.0
#: The picture was cut when cells differ by this much on average.
CUT: Final = 20.0
#: Seconds between two times at which all the largest views are looked at because nobody is seen after a cut.
REST: Final = 1.0
#: Motion within a known face's box, enlarged by this factor, is that face's.
REACH: Final = 1.6


class CloseViews:
    """Chooses the views of successive frames of a clip."""

    def __init__(self) -> None:
        self._shape: tuple[int, ...] = ()
        self._views = np.zeros((0, 3), int)
        self._cells = np.zeros((0, 0))
        self._heat = np.zeros(0)
        self._before: np.ndarray | None = None
        self._saved = 0.0
        self._cut = -REST

    def see(self, rgb: np.ndarray, time: float, known: Sequence[np.ndarray]) -> None:
        """Take in a frame.

        Args:
            rgb: uint8 (height, width, 3).
            time: seconds, later than that of the frame before.
            known: boxes of faces that are seen in it already, in pixels.
        """
        if rgb.shape != self._shape:
            self._lay_out(rgb.shape)
        self._saved = min(MOST_SAVED, self._saved + (EARNED * len(known) or 1.0))
        motion = self._motion(rgb)
        if motion is None or motion.mean() > CUT:
            if not known and time - self._cut >= REST:
                largest = self._views[:, 2] == self._views[:, 2].max(initial=0)
                self._heat[largest] = np.inf
                self._saved = MOST_SAVED + largest.sum()
                self._cut = time
            return
        height, width = rgb.shape[:2]
        for box in known:
            _clear(motion, box / np.array([width, height, width, height]))
        self._heat += self._cells @ motion.reshape(-1)

    def next(self) -> tuple[int, int, int] | None:
        """The view to look at: left, top and side in pixels; None when none is worth it or the budget is spent."""
        if self._saved < 1.0 or not len(self._heat):
            return None
        best = int(self._heat.argmax())
        if self._heat[best] < WORTH:
            return None
        self._saved -= 1.0
        self._heat[best] = 0.0
        left, top, side = self._views[best].tolist()
        return left, top, side

    def found(self, faces: int) -> None:
        """The last view showed so many faces that were not known."""
        self._saved = min(MOST_SAVED, self._saved + FOUND * faces)

    def _lay_out(self, shape: tuple[int, ...]) -> None:
        self._shape, self._before = shape, None
        self._views = views_of(shape[1], shape[0])
        rows, columns = _grid(shape)
        down = (np.arange(rows) + 0.5) / rows * shape[0]
        across = (np.arange(columns) + 0.5) / columns * shape[1]
        left, top, side = self._views.T[:, :, None]
        rows_inside = (down >= top) & (down < top + side)
        columns_inside = (across >= left) & (across < left + side)
        inside = rows_inside[:, :, None] & columns_inside[:, None]
        self._cells = inside.reshape(len(self._views), rows * columns).astype(np.float32)
        self._heat = np.zeros(len(self._views))

    def _motion(self, rgb: np.ndarray) -> np.ndarray | None:
        """How much each cell changed since the frame before, without noise; None for the first frame."""
        import cv2

        rows, columns = _grid(rgb.shape)
        step = _step(rgb.shape)
        green = np.ascontiguousarray(rgb[::step, ::step, 1][: rows * CELL, : columns * CELL])
        before, self._before = self._before, green
        if before is None:
            return None
        change = cv2.resize(cv2.absdiff(green, before), (columns, rows), interpolation=cv2.INTER_AREA).astype(
            np.float32
        )
        noise = NOISE * min(float(np.median(change)), MOST_NOISE) + MARGIN
        return np.asarray(np.maximum(change - noise, 0.0))


def views_of(width: int, height: int) -> np.ndarray:
    """All views of a frame, the largest first: left, top and side in pixels (n, 3)."""
    sides = [side for share in SHARES if (side := round(share * max(width, height))) >= LEAST_SIDE]
    views = [
        (left, top, side)
        for side in (min(side, width, height) for side in sides)
        for top in _starts(height, side)
        for left in _starts(width, side)
    ]
    return np.array(views, int).reshape(-1, 3)


def _starts(length: int, side: int) -> list[int]:
    """Where views begin that cover a length with some overlap."""
    count = int(np.ceil((length - side) / ((1 - OVERLAP) * side))) + 1
    return [int(start) for start in np.linspace(0, length - side, count).round()]


def _step(shape: tuple[int, ...]) -> int:
    """Every which row and column of a frame is compared."""
    return max(1, shape[1] // (COLUMNS * CELL))


def _grid(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of the grid on which motion is measured."""
    step = _step(shape)
    return max(1, len(range(0, shape[0], step)) // CELL), max(1, len(range(0, shape[1], step)) // CELL)


def _clear(motion: np.ndarray, box: np.ndarray) -> None:
    """Set motion (rows, columns) to zero in an enlarged box, given in shares of the frame."""
    middle, half = (box[:2] + box[2:]) / 2, REACH * (box[2:] - box[:2]) / 2
    rows, columns = motion.shape
    size = np.array([columns, rows])
    low = np.clip(np.floor((middle - half) * size), 0, size).astype(int)
    high = np.clip(np.ceil((middle + half) * size), 0, size).astype(int)
    motion[low[1] : high[1], low[0] : high[0]] = 0.0
