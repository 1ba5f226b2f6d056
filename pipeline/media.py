"""Decode a media file once: frames by presentation time and 16 kHz mono sound from the same pass.

All times are float seconds on the media clock, which starts at the container's first time stamp.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numpy as np

from emopipe.pipeline.errors import EmopipeError

T = TypeVar("T")

SAMPLE_RATE: Final = 16_000
#: Frames larger than this are scaled down, in pixels; the face model's input is smaller still.
MAX_FRAME_SIDE: Final = 1920
#: Frames decoded ahead of the one in use.
AHEAD: Final = 4
#: A jump of the sound's time stamps above this is a gap and is filled with silence (or cut), in seconds.
MAX_AUDIO_JITTER: Final = 0.05

VIDEO_SUFFIXES: Final = frozenset(
    [
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".avi",
        ".mpg",
        ".mpeg",
        ".wmv",
        ".flv",
        ".3gp",
        ".ts",
        ".mts",
        ".m2ts",
        ".ogv",
    ]
)
AUDIO_SUFFIXES: Final = frozenset(
    [".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".oga", ".opus", ".wma", ".aif", ".aiff"]
)
IMAGE_SUFFIXES: Final = frozenset([".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"])


@dataclass(frozen=True)
class MediaInfo:
    """What a container says about itself.

    Attributes:
        duration: seconds; 0 when the container does not say.
        has_video, has_audio: whether there is such a stream (cover art is no video).
        width, height: pixels as stored, before any rotation; 0 without video.
        frame_rate: average frames per second; 0 when unknown or without video.
    """

    duration: float
    has_video: bool
    has_audio: bool
    width: int = 0
    height: int = 0
    frame_rate: float = 0.0


@dataclass(frozen=True)
class Frame:
    """One sampled picture: `time` in seconds, `rgb` uint8 (height, width, 3), upright."""

    time: float
    rgb: np.ndarray


class Media:
    """An open media file whose streams are decoded in one pass.

    Iterate :meth:`frames` first if pictures are wanted; sound met on the way is kept, and :attr:`audio` decodes
    what is left. Asking for :attr:`audio` alone skips the video stream. Memory: one frame plus 64 kB per second
    of sound.

    Raises:
        EmopipeError: EMO-101 to EMO-105 when the file is missing, unreadable, empty or no media.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._container = _open(self.path)
        self._video = _picture_stream(self._container)
        self._sound = next(iter(self._container.streams.audio), None)
        if self._video is None and self._sound is None:
            self._container.close()
            raise EmopipeError("EMO-105", "the file has neither a video nor an audio stream", path=self.path)
        self._origin = _origin(self._container, [s for s in (self._video, self._sound) if s is not None])
        self._track = _SoundTrack(self._origin)
        self._finished = False
        self.decode_errors: list[str] = []
        self.last_time = 0.0
        self.info = self._describe()

    def __enter__(self) -> Media:
        return self

    def __exit__(self, *exc: object) -> None:
        self._container.close()

    def _describe(self) -> MediaInfo:
        duration = (self._container.duration or 0) / 1_000_000
        if self._video is None:
            return MediaInfo(duration, False, True)
        video = self._video
        rate = float(video.average_rate or 0)
        return MediaInfo(duration, True, self._sound is not None, video.width, video.height, rate)

    @property
    def duration(self) -> float:
        """Seconds: what was decoded when the pass is over, else what the container says."""
        sound = len(self._track) / SAMPLE_RATE if self._sound is not None else 0.0
        decoded = max(self.last_time, sound)
        return decoded if self._finished and decoded > 0 else self.info.duration

    def frames(self, rate: float) -> Iterator[Frame]:
        """Yield at most `rate` frames per second, chosen by presentation time.

        Args:
            rate: frames per second; the first frame at or after each multiple of 1/rate is taken.
        """
        if self._video is None or self._finished:
            return
        wanted = 0.0
        self._video.thread_type = "AUTO"
        streams = [s for s in (self._video, self._sound) if s is not None]
        for picture in self._decode(streams):
            if picture.time is None:
                continue
            time = float(picture.time) - self._origin
            self.last_time = max(self.last_time, time)
            if time + 1e-6 < wanted:
                continue
            wanted = (math.floor(time * rate + 1e-6) + 1) / rate
            yield Frame(max(time, 0.0), _upright_rgb(picture))

    @property
    def audio(self) -> np.ndarray | None:
        """The whole sound, float32 mono at 16 kHz (samples,), index 0 at time 0; None without an audio stream."""
        if self._sound is None:
            return None
        if not self._finished:
            for _ in self._decode([self._sound]):
                pass
        return self._track.samples()

    def _decode(self, streams: list[Any]) -> Iterator[Any]:
        """Decode the streams to their end: sound goes to the track, pictures are yielded.

        A damaged packet is noted in `decode_errors`; everything that could be decoded is kept.
        """
        import av

        packets = self._container.demux(streams)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except (av.FFmpegError, OSError) as error:
                self.decode_errors.append(str(error))
                break
            try:
                decoded = packet.decode()
            except av.FFmpegError as error:
                self.decode_errors.append(str(error))
                continue
            for frame in decoded:
                if packet.stream is self._video:
                    yield frame
                else:
                    self._track.add(frame)
        self._track.close()
        self._finished = True


class _SoundTrack:
    """Collects decoded sound as 16 kHz mono, keeping it in step with the media clock."""

    def __init__(self, origin: float) -> None:
        self._origin = origin
        self._chunks: list[np.ndarray] = []
        self._length = 0
        self._received = 0.0
        self._resampler: Any = None

    def __len__(self) -> int:
        return self._length

    def add(self, frame: Any) -> None:
        if frame.time is not None:
            self._align(float(frame.time) - self._origin)
        self._received += frame.samples / frame.sample_rate
        self._append(self._resample(frame))

    def close(self) -> None:
        if self._resampler is not None:
            self._append(self._resample(None))
            self._resampler = None

    def samples(self) -> np.ndarray:
        self._chunks = [np.concatenate(self._chunks)] if self._chunks else [np.zeros(0, np.float32)]
        return self._chunks[0]

    def _align(self, time: float) -> None:
        """Fill a gap before `time` with silence (late start, lost packets)."""
        gap = time - self._received
        if gap > MAX_AUDIO_JITTER:
            self._append([np.zeros(round(gap * SAMPLE_RATE), np.float32)])
            self._received = time

    def _resample(self, frame: Any) -> list[np.ndarray]:
        import av

        if self._resampler is None:
            self._resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        if frame is not None:
            frame.pts = None
        return [out.to_ndarray().reshape(-1) for out in self._resampler.resample(frame)]

    def _append(self, chunks: list[np.ndarray]) -> None:
        for chunk in chunks:
            self._chunks.append(np.nan_to_num(chunk.astype(np.float32, copy=False)))
            self._length += len(chunk)


def read_image(path: str | Path) -> np.ndarray:
    """Read a picture file as upright RGB uint8 (height, width, 3).

    Raises:
        EmopipeError: EMO-101 to EMO-104.
    """
    import cv2

    path = Path(path)
    data = _checked(path, lambda: np.fromfile(path, np.uint8))
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if image is None:
        raise EmopipeError("EMO-104", "the file is no picture that can be decoded", path=path)
    return np.ascontiguousarray(image[:, :, ::-1])


def find_media(paths: Sequence[Path]) -> tuple[list[Path], list[EmopipeError]]:
    """Replace folders by the video and sound files below them, in sorted order; files stay as they are given.

    Returns:
        The files, and an error for every folder that cannot be listed (EMO-102) or holds no media (EMO-106).
    """
    found: list[Path] = []
    errors: list[EmopipeError] = []
    for path in paths:
        try:
            found += _media_below(path) if path.is_dir() else [path]
        except EmopipeError as error:
            errors.append(error)
    return list(dict.fromkeys(found)), errors


def _media_below(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise EmopipeError("EMO-102", "the folder cannot be listed", path=error.filename, hint="Check its permissions")

    wanted = VIDEO_SUFFIXES | AUDIO_SUFFIXES
    files = sorted(
        Path(root) / name
        for root, _, names in os.walk(folder, onerror=refuse)
        for name in names
        if Path(name).suffix.lower() in wanted and not name.startswith(".")
    )
    if not files:
        raise EmopipeError("EMO-106", "the folder holds no video or audio files", path=folder)
    return files


def _checked(path: Path, read: Callable[[], Any]) -> Any:
    """Run `read` on a file that exists, may be read and is not empty; turn the failures into coded errors."""
    if not path.exists():
        raise EmopipeError("EMO-101", "there is no such file", path=path, hint="Check the spelling")
    if path.is_file() and path.stat().st_size == 0:
        raise EmopipeError("EMO-103", "the file is empty", path=path, hint="Copy or download it again")
    try:
        return read()
    except PermissionError:
        raise EmopipeError(
            "EMO-102", "no permission to read the file", path=path, hint="Check its permissions"
        ) from None


def _open(path: Path) -> Any:
    import av

    def open_container() -> Any:
        try:
            return av.open(str(path), metadata_errors="replace")
        except (av.FFmpegError, ValueError, EOFError) as error:
            if isinstance(error, PermissionError):
                raise
            hint = "It may be truncated or not be media at all; play it in a media player to check"
            raise EmopipeError(
                "EMO-104", f"the file cannot be decoded: {_reason(error)}", path=path, hint=hint
            ) from None

    return _checked(path, open_container)


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)


def _picture_stream(container: Any) -> Any | None:
    """The first video stream that is not cover art."""
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    return None


def _origin(container: Any, streams: list[Any]) -> float:
    starts = [float(s.start_time * s.time_base) for s in streams if s.start_time is not None]
    return min(starts, default=0.0)


def _upright_rgb(picture: Any) -> np.ndarray:
    """RGB of a decoded frame, scaled to at most MAX_FRAME_SIDE and turned as a player would show it."""
    import cv2

    rgb = picture.to_ndarray(format="rgb24")
    scale = MAX_FRAME_SIDE / max(picture.width, picture.height)
    if scale < 1:
        rgb = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    quarter_turns = round(picture.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(rgb, quarter_turns)) if quarter_turns else rgb


def ahead(items: Iterable[T], depth: int = AHEAD) -> Iterator[T]:
    """Fetch up to `depth` items in a second thread while the consumer works on one; order and errors are kept."""
    source, end = iter(items), object()
    with ThreadPoolExecutor(1, "decode") as pool:
        waiting = deque(pool.submit(next, source, end) for _ in range(depth))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, source, end))
            yield cast(T, item)
