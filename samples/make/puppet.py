"""Any portrait as a talking head: the jaw opens with the voice, the head sways a little.

Coarser than `synthetic.Face`, which makes one portrait smile and weep, but it takes any face of which MediaPipe's mesh
points are known. For pictures of several people: sample conversations and benchmarks of who speaks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Image = NDArray[np.uint8]

CORNERS = (61, 291)  # MediaPipe face-mesh indices: corners of the mouth
LIPS = (13, 14)  # middle of the upper and the lower inner lip
CHIN = 152
CAVITY = (52, 24, 26)  # RGB


@dataclass(frozen=True)
class Sway:
    """Where the head is: shift as a share of the face's height, turn in degrees, scale."""

    dx: float = 0.0
    dy: float = 0.0
    roll: float = 0.0
    scale: float = 1.0


UPRIGHT = Sway()


class Puppet:
    """A portrait cut to a square around its face.

    Args:
        picture: RGB uint8 (height, width, 3).
        mesh: MediaPipe's landmarks of its face in pixels (468 or 478, 2 or 3).
        side: pixels of the square to draw.
        share: the face's height as a share of the square's.
    """

    def __init__(self, picture: Image, mesh: Floats, side: int = 360, share: float = 0.5) -> None:
        points = np.asarray(mesh[:, :2], np.float64)
        centre, height = points.mean(0), float(np.ptp(points[:, 1]))
        scale = share * side / height
        affine = np.array([[scale, 0, side / 2 - scale * centre[0]], [0, scale, side * 0.48 - scale * centre[1]]])
        flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        view = cv2.warpAffine(picture, affine, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        self.picture: Image = np.asarray(view, np.uint8)
        self.points = points @ affine[:, :2].T + affine[:, 2]
        self.height = share * side
        self._plan_mouth()

    def _plan_mouth(self) -> None:
        """What does not change as the mouth opens, for the box that its motion reaches."""
        side = self.picture.shape[0]
        (left, right), (upper, lower) = self.points[list(CORNERS)], self.points[list(LIPS)]
        half, middle = float(np.linalg.norm(right - left)) / 2, (left + right) / 2
        reach = max(1.0, self.points[CHIN, 1] - lower[1] + 0.25 * self.height)
        x0, y0 = np.clip([middle[0] - 1.6 * half, min(left[1], right[1], upper[1]) - 2], 0, side - 1).astype(int)
        x1, y1 = np.clip([middle[0] + 1.6 * half, lower[1] + reach + half], 1, side).astype(int)
        self._box = slice(y0, y1), slice(x0, x1)
        across, down = np.meshgrid(np.arange(x0, x1, dtype=np.float64), np.arange(y0, y1, dtype=np.float64))
        tilt = (right[1] - left[1]) / (right[0] - left[0])
        from_middle = (across - middle[0]) / half
        self._places = across, down
        self._below = down - (upper[1] + lower[1]) / 2 - tilt * (across - middle[0])
        self._pull = np.clip(1 - (from_middle / 1.6) ** 2, 0, 1) * np.clip(1 - self._below / reach, 0, 1)
        self._inside = np.clip(1 - (from_middle / 0.9) ** 2, 0, 1)

    def draw(self, opening: float, sway: Sway = UPRIGHT) -> Image:
        """One frame (side, side, 3); `opening` is 0 for closed lips to 1 for a mouth as open as speech makes it."""
        return self._moved(self._spoken(opening), sway)

    def _spoken(self, opening: float) -> Image:
        """The portrait with its lower lip and chin dropped, and the gap between the lips dark."""
        drop = 0.11 * self.height * opening
        if drop < 0.5:
            return self.picture
        (across, down), below = self._places, self._below
        source = down - np.clip(drop * self._pull, 0, np.maximum(below, 0))
        part = cv2.remap(self.picture, across.astype(np.float32), source.astype(np.float32), cv2.INTER_LINEAR)
        depth = np.minimum(below, drop * self._inside**0.6 - below)
        gap = np.clip(depth / max(1.0, 0.008 * self.height) + 0.5, 0, 1)[..., None] * (self._inside > 0)[..., None]
        frame = self.picture.copy()
        frame[self._box] = part * (1 - gap) + np.array(CAVITY) * gap
        return frame

    def _moved(self, frame: Image, sway: Sway) -> Image:
        side = frame.shape[0]
        affine = cv2.getRotationMatrix2D((side / 2, 0.7 * side), sway.roll, sway.scale)
        affine[:, 2] += (sway.dx * self.height, sway.dy * self.height)
        return np.asarray(cv2.warpAffine(frame, affine, (side, side), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def sways(frames: int, fps: float, seed: int) -> Iterator[Sway]:
    """Slow motion of a head, its own for each seed."""
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, 6)
    for frame in range(frames):
        t = frame / fps
        dx, dy, roll, far = (
            np.sin(rate * t + phase) for rate, phase in zip((0.7, 0.9, 0.6, 0.35), phases[:4], strict=True)
        )
        yield Sway(0.025 * dx, 0.015 * dy, 2.0 * roll, 1 + 0.02 * far)
