"""Find the faces of a clip's frames: large ones in the whole frame, small ones in close views of it.

A face that the whole frame does not show, because it is small or turned, is followed: it is sought where it was in the
frame before, in a part of the frame cut out around that place. The cost of a frame grows with the faces in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from emopipe.extractors.face.close_views import CloseViews
from emopipe.extractors.face.mediapipe_models import FaceMesh

#: Side of the part of a frame that is cut out around a face, in heights or widths of the face.
AROUND: Final = 2.0
#: Views are scaled down to so many pixels of side: the detector looks at 128.
VIEW_SIDE: Final = 256
#: A face is sought where it was for so many frames that do not show it.
MOST_MISSED: Final = 3
#: Two boxes are one face when their middles are nearer than this share of the smaller one's size.
SAME_PLACE: Final = 0.4


class Landmarks(Protocol):
    """Gives the faces of a picture, see :class:`emopipe.extractors.face.mediapipe_models.LandmarkModel`."""

    def faces(self, rgb: np.ndarray, time: float = 0.0) -> list[FaceMesh]:
        """The faces of a picture; in a clip, with its time in seconds."""


@dataclass
class _Followed:
    """A face that was seen: its box in pixels, and for how many frames it has not been seen."""

    box: np.ndarray
    missed: int = 0


class FaceFinder:
    """Finds the faces of one clip, frame by frame.

    Args:
        whole: finds the large faces of whole frames.
        part: finds the one face of a part of a frame.
        detect: boxes of the faces in a part of a frame.
        most: so many faces of a frame are measured.
    """

    def __init__(
        self, whole: Landmarks, part: Landmarks, detect: Callable[[np.ndarray], list[np.ndarray]], most: int
    ) -> None:
        self._whole = whole
        self._part = part
        self._detect = detect
        self._most = most
        self._followed: list[_Followed] = []
        self._views = CloseViews()

    def faces(self, rgb: np.ndarray, time: float) -> tuple[list[FaceMesh], bool]:
        """The faces of a frame, and whether more than may be measured were seen.

        Args:
            rgb: uint8 (height, width, 3).
            time: seconds, later than that of the frame before.
        """
        faces = without_doubles(self._whole.faces(rgb, time))
        missing = self._follow(rgb, faces)
        self._views.see(rgb, time, [face.box for face in faces])
        new, beyond = self._look_closely(rgb, faces)
        gone = [one for one in missing if not _among(one.box, [*faces, *new])]
        self._followed = [_Followed(face.box) for face in [*faces, *new]] + gone
        return faces, beyond

    def _follow(self, rgb: np.ndarray, faces: list[FaceMesh]) -> list[_Followed]:
        """Add the faces of the frame before that the whole frame does not show; returns those that are not found."""
        missing: list[_Followed] = []
        for one in self._followed:
            if _among(one.box, faces) or len(faces) >= self._most:
                continue
            face = self._face_at(rgb, one.box)
            if face is not None and not _among(face.box, faces):
                faces.append(face)
            elif face is None and one.missed < MOST_MISSED:
                missing.append(_Followed(one.box, one.missed + 1))
        return missing

    def _look_closely(self, rgb: np.ndarray, faces: Sequence[FaceMesh]) -> tuple[list[FaceMesh], bool]:
        """Faces that some close views show beside the given ones, and whether there are more than may be measured.

        They count from the next frame on, if they are still there: a pattern that passes for a face rarely lasts.
        """
        new: list[FaceMesh] = []
        beyond = False
        while view := self._views.next():
            left, top, side = view
            count = len(new)
            for box in self._boxes(rgb[top : top + side, left : left + side]):
                place = box + np.array([left, top, left, top])
                if _among(place, [*faces, *new]):
                    continue
                if len(faces) + len(new) >= self._most:
                    beyond = True
                elif (face := self._face_at(rgb, place)) is not None and not _among(face.box, [*faces, *new]):
                    new.append(face)
            self._views.found(len(new) - count)
        return new, beyond

    def _boxes(self, view: np.ndarray) -> list[np.ndarray]:
        """Boxes of the faces in a square view, in its pixels."""
        import cv2

        side = len(view)
        if side <= VIEW_SIDE:
            return self._detect(view)
        smaller = cv2.resize(view, (VIEW_SIDE, VIEW_SIDE), interpolation=cv2.INTER_LINEAR)
        return [box * (side / VIEW_SIDE) for box in self._detect(smaller)]

    def _face_at(self, rgb: np.ndarray, box: np.ndarray) -> FaceMesh | None:
        """The face at a place of the frame."""
        left, top, right, bottom = part_around(box, rgb.shape)
        found = self._part.faces(rgb[top:bottom, left:right])
        moved = [face.moved(left, top) for face in found]
        return next((face for face in moved if same_place(face.box, box)), None)


def without_doubles(faces: Sequence[FaceMesh]) -> list[FaceMesh]:
    """The faces, of those at one place the largest: a mesh that lost its face while it was followed shrinks."""
    kept: list[FaceMesh] = []
    for face in sorted(faces, key=lambda face: float(face.box[2:] @ [1, 1] - face.box[:2] @ [1, 1]), reverse=True):
        if not _among(face.box, kept):
            kept.append(face)
    return [face for face in faces if any(face is one for one in kept)]


def part_around(box: np.ndarray, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a square part of a frame with a face in its middle, as far as the frame goes."""
    middle, half = (box[:2] + box[2:]) / 2, AROUND * (box[2:] - box[:2]).max() / 2
    low = np.clip(np.floor(middle - half), 0, [shape[1] - 1, shape[0] - 1]).astype(int)
    high = np.clip(np.ceil(middle + half), low + 1, [shape[1], shape[0]]).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def same_place(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two boxes are of one face."""
    sizes = min(float((one[2:] - one[:2]).max()), float((other[2:] - other[:2]).max()))
    apart = float(np.linalg.norm((one[:2] + one[2:]) - (other[:2] + other[2:]))) / 2
    return apart < SAME_PLACE * sizes


def _among(box: np.ndarray, faces: Sequence[FaceMesh]) -> bool:
    return any(same_place(box, face.box) for face in faces)
