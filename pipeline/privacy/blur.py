"""Copies of recordings in which faces are blurred."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from emopipe.errors import OutputError
from emopipe.files import atomic_file
from emopipe.pipeline.media.decoding import Media
from emopipe.pipeline.media.finding import words_of
from emopipe.pipeline.privacy.face_boxes import BlurSettings, FaceBoxes
from emopipe.pipeline.privacy.sound_copy import SoundCopy
from emopipe.pipeline.progress import Event, Hook, silent
from emopipe.pipeline.store.store import Store

#: A face is reduced to so many patches of colour across.
PATCHES: Final = 6
#: Ticks per second of the copy's clock of pictures.
_CLOCK: Final = 90_000
#: No recording has more frames a second than this.
_EVERY_FRAME: Final = 1000.0


@dataclass(frozen=True)
class Blurred:
    """A copy that was written.

    Attributes:
        path: of the copy.
        frames: pictures in it.
        without_face: pictures in which no face was known, and nothing was blurred unless all of it.
    """

    path: Path
    frames: int
    without_face: int


def blur_result(
    media: Path, out: Path, key: str | None, store: Store, settings: BlurSettings, hook: Hook = silent
) -> Blurred:
    """Write a blurred copy of a recording that was measured.

    Args:
        media: the recording.
        out: the copy.
        key: of the faces in the store.
        store: has them.
        settings: how faces are blurred.
        hook: told of progress.

    Raises:
        OutputError: the faces are not in the store, or the copy cannot be written.
    """
    measured = None if key is None else store.get(key)
    if measured is None:
        raise OutputError("the faces are not in the store, so none can be blurred", path=media, hint="Run again")
    table = measured["face_table"]
    return blur(media, out, table if isinstance(table, pa.Table) else None, settings, hook)


def blur(media: Path, out: Path, faces: pa.Table | None, settings: BlurSettings, hook: Hook = silent) -> Blurred:
    """Write a copy of a recording in which faces are blurred; nothing of the recording's metadata is in it.

    Args:
        media: the recording.
        out: the copy, an MP4 file with H.264 and AAC; replaced when it is there.
        faces: the face table; None: there are no faces.
        settings: how faces are blurred.
        hook: told of progress.

    Raises:
        InputError: the recording cannot be read; ConfigError for settings out of bounds; OutputError when the copy
            cannot be written.
    """
    import av

    settings.check()
    boxes = FaceBoxes(faces, settings)
    if out.exists() and out.samefile(media):
        raise OutputError("the copy would take the place of the recording", path=out, hint="Name another file")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with (
            Media(media) as source,
            atomic_file(out) as partial,
            av.open(str(partial), "w", format="mp4", options={"movflags": "+faststart"}) as container,
        ):
            return _written(container, source, SoundCopy(media, settings.pitch), boxes, settings, out, hook)
    except (OSError, av.FFmpegError) as error:
        raise OutputError(f"the copy cannot be written: {words_of(error)}", path=out) from None


def _written(
    container: Any, source: Media, sound: SoundCopy, boxes: FaceBoxes, settings: BlurSettings, out: Path, hook: Hook
) -> Blurred:
    """Write pictures and sound, each as far as the other."""
    pictures = source.frames(_EVERY_FRAME)
    first = next(pictures, None)
    video = None if first is None else _VideoWriter(container, source, first.rgb)
    audio = _AudioWriter(container, sound) if sound.has_sound else None
    frames = without = 0
    for frame in () if first is None else chain([first], pictures):
        places = boxes.at(frame.time)
        without += not places
        rgb = blurred_image(frame.rgb, places or ([(0.0, 0.0, 1.0, 1.0)] if settings.whole else []))
        if audio is not None:
            audio.until(frame.time)
        assert video is not None
        video.write(frame.time, rgb)
        frames += 1
        if frames % 25 == 0:
            hook(Event("progress", "blur", done=frame.time, total=max(source.info.duration, frame.time)))
    if audio is not None:
        audio.until(float("inf"))
        audio.close()
    if video is not None:
        video.close()
    return Blurred(out, frames, without)


def blurred_image(rgb: np.ndarray, places: list[tuple[float, float, float, float]]) -> np.ndarray:
    """An image with what is in some places reduced to patches of colour, from which nobody can restore it.

    Args:
        rgb: uint8 (height, width, 3).
        places: left, top, right and bottom, as shares of width and height.
    """
    import cv2

    height, width = rgb.shape[:2]
    image = rgb.copy() if places else rgb
    for x0, y0, x1, y1 in places:
        left, top = max(0, int(x0 * width)), max(0, int(y0 * height))
        right, bottom = min(width, int(np.ceil(x1 * width))), min(height, int(np.ceil(y1 * height)))
        if right <= left or bottom <= top:
            continue
        part = rgb[top:bottom, left:right]
        across = min(PATCHES, right - left)
        down = max(1, min(round(PATCHES * (bottom - top) / (right - left)), bottom - top, 2 * PATCHES))
        small = cv2.resize(part, (across, down), interpolation=cv2.INTER_AREA)
        image[top:bottom, left:right] = cv2.resize(small, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
    return image


class _VideoWriter:
    """Encodes pictures with their own times, so that a changing frame rate stays as it is."""

    def __init__(self, container: Any, source: Media, rgb: np.ndarray) -> None:
        self._container = container
        rate = Fraction(source.info.frame_rate or 25).limit_denominator(1001)
        self._stream = container.add_stream("libx264", rate=rate)
        self._stream.options = {"crf": "20", "preset": "veryfast", "bf": "0"}
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, _CLOCK)
        height, width = rgb.shape[:2]
        self._stream.width, self._stream.height = max(2, width // 2 * 2), max(2, height // 2 * 2)
        self._last = -1

    def write(self, time: float, rgb: np.ndarray) -> None:
        """Encode a picture; one of another size than the first is brought to that."""
        from av import VideoFrame

        size = self._stream.width, self._stream.height
        frame = VideoFrame.from_ndarray(rgb, format="rgb24").reformat(*size, format="yuv420p")
        frame.pts = self._last = max(round(time * _CLOCK), self._last + 1)
        frame.time_base = Fraction(1, _CLOCK)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Encode what is still on its way."""
        self._container.mux(self._stream.encode(None))


class _AudioWriter:
    """Encodes sound."""

    def __init__(self, container: Any, sound: SoundCopy) -> None:
        self._container = container
        self._stream = container.add_stream("aac", rate=sound.rate, layout=sound.layout)
        self._frames: Iterator[Any] = sound.frames()
        self._time = 0.0

    def until(self, time: float) -> None:
        """Encode the sound up to a time."""
        while self._time <= time and (frame := next(self._frames, None)) is not None:
            self._time = float((frame.pts + frame.samples) * frame.time_base)
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Encode what is still on its way."""
        self._container.mux(self._stream.encode(None))
