"""Read image files, and turn decoded frames into upright RGB images of square pixels."""

from __future__ import annotations

import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np

from emopipe.errors import ImageTooLarge, NotMedia, Reason, reason
from emopipe.pipeline.media.finding import checked

#: Frames larger than this are scaled down, in pixels; the face model's input is smaller still.
MAX_FRAME_SIDE: Final = 1920
#: Image files of more pixels are not decoded: cameras of telephones take 108 million. A few bytes may hold gigabytes.
MOST_STILL_PIXELS: Final = 120_000_000


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


def read_image(path: str | Path) -> tuple[np.ndarray, list[Reason]]:
    """Read an image file as upright RGB uint8 (height, width, 3), and tell what is doubtful about it.

    The size is read from the header first, so that an image of absurd size takes no memory.

    Raises:
        ImageTooLarge: it has more than MOST_STILL_PIXELS.
        InputError: it cannot be read or decoded.
    """
    import cv2

    path = Path(path)
    width, height, count = checked(path, lambda: _header(path))
    if width * height > MOST_STILL_PIXELS:
        what = f"the image has {width} by {height} pixels; more than {MOST_STILL_PIXELS // 1_000_000} million are"
        raise ImageTooLarge(f"{what} not decoded", path=path)
    data = checked(path, lambda: np.fromfile(path, np.uint8))
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise NotMedia("the image cannot be decoded; it may be cut off", path=path)
    faults = [reason("first_of_images", f"the file holds {count} images, and the first was used")] if count > 1 else []
    return np.ascontiguousarray(image[:, :, ::-1]), faults


def _header(path: Path) -> tuple[int, int, int]:
    """Width, height and the number of images that an image file shows, without decoding it."""
    from PIL import Image

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            # Photos of telephones hold previews and depth maps beside the one image that is shown.
            return image.width, image.height, 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(str(error).split(", could")[0], path=path) from None
    except (PermissionError, FileNotFoundError):
        raise
    except Exception:
        raise NotMedia("the file is not an image that can be decoded", path=path) from None
