"""Read image files, and turn decoded frames into upright RGB images of square pixels."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np

from emopipe.errors import (
    NotMedia,
)
from emopipe.pipeline.media.finding import checked

#: Frames larger than this are scaled down, in pixels; the face model's input is smaller still.
MAX_FRAME_SIDE: Final = 1920


def rgb_image(frame: Any, aspect: Fraction) -> np.ndarray:
    """Convert a decoded frame to an image as a player would show it.

    Args:
        frame: of PyAV.
        aspect: width of a pixel by its height.

    Returns:
        Upright RGB, uint8 (height, width, 3), of square pixels, at most MAX_FRAME_SIDE high and wide. Of an interlaced
        frame, one field is taken.
    """
    import cv2

    width, height = _shown_size(frame.width, frame.height, aspect)
    rgb = frame.to_ndarray(format="rgb24")
    if frame.interlaced_frame:
        rgb = rgb[::2]
    if rgb.shape[:2] != (height, width):
        smaller = height < len(rgb) and width < rgb.shape[1]
        rgb = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    quarter_turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(rgb, quarter_turns)) if quarter_turns else rgb


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
