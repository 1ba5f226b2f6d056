"""Read image files, and turn decoded frames into upright RGB images of square pixels."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np

from emopipe.errors import NotMedia
from emopipe.pipeline.media.finding import checked

#: Frames larger than this are scaled down, in pixels; the face model's input is smaller still.
MAX_FRAME_SIDE: Final = 1920
#: Frames of more pixels are not decoded: twice those of 8K. One of them may lie in a few bytes and take gigabytes.
MOST_PIXELS: Final = 1 << 26


class ImageConverter:
    """Turns the decoded frames of a video stream into images as a player would show them.

    Colours are converted and sizes changed in one step, so that a frame of any size takes little memory.
    """

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()

    def image(self, frame: Any, aspect: Fraction) -> np.ndarray:
        """The image of a frame.

        Args:
            frame: of PyAV.
            aspect: width of a pixel by its height.

        Returns:
            Upright RGB, uint8 (height, width, 3), of square pixels, at most MAX_FRAME_SIDE high and wide. Of an
            interlaced frame, one field is taken.
        """
        width, height = _shown_size(frame.width, frame.height, aspect)
        lines = frame.height if frame.interlaced_frame else height
        smaller = width < frame.width or lines < frame.height
        rgb = self._reformatter.reformat(
            frame, width, lines, "rgb24", interpolation="AREA" if smaller else "BILINEAR", threads=1
        ).to_ndarray()
        if frame.interlaced_frame:
            rgb = _resized(rgb[::2], width, height)
        quarter_turns = round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(rgb, quarter_turns)) if quarter_turns else rgb


def _resized(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    import cv2

    way = cv2.INTER_AREA if height < len(rgb) else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=way))


def _shown_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Width and height of the image of a frame whose pixels have an aspect."""
    wide, high = (width * float(aspect), float(height)) if aspect > 1 else (float(width), height / float(aspect))
    scale = min(1.0, MAX_FRAME_SIDE / max(wide, high))
    return max(1, round(wide * scale)), max(1, round(high * scale))


def read_image(path: str | Path) -> np.ndarray:
    """Read a picture file as upright RGB uint8 (height, width, 3).

    Raises:
        InputError: .
    """
    import cv2

    path = Path(path)
    data = checked(path, lambda: np.fromfile(path, np.uint8))
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if image is None:
        raise NotMedia("the file is no picture that can be decoded", path=path)
    return np.ascontiguousarray(image[:, :, ::-1])
