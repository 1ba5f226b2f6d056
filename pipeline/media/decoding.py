"""Decode a media file once: frames by presentation time and 16 kHz mono sound from the same pass.

All times are float seconds on the media clock, which starts at the container's first time stamp. Memory does not grow
with the length of the file: frames pass one by one, long sound lies in a temporary file.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numpy as np

from emopipe.constants import SAMPLE_RATE
from emopipe.errors import (
    NoStreams,
    Reason,
    Where,
    reason,
)
from emopipe.pipeline.media.finding import words_of
from emopipe.pipeline.media.sound import Sound
from emopipe.pipeline.media.streams import first_time, open_container, picture_stream

T = TypeVar("T")

#: Frames larger than this are scaled down, in pixels; the face model's input is smaller still.
MAX_FRAME_SIDE: Final = 1920
#: Frames decoded ahead of the one in use.
AHEAD: Final = 4
#: Sound that is further than this from where its time stamps want it is put right by silence or a cut, in seconds.
MAX_AUDIO_JITTER: Final = 0.05
#: No recording pauses for longer than this, in seconds: a longer step of the time stamps is a fault of the clock.
LONGEST_STEP: Final = 3600.0
#: Nor does it go back in time by more than the reordering of frames, in seconds.
LONGEST_STEP_BACK: Final = 1.0
#: A file whose streams end before this share of the duration that it promises was cut short.
WHOLE: Final = 0.9


@dataclass(frozen=True)
class StreamInfo:
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

    Iterate :meth:`frames` first if both pictures and sound are wanted: sound met on the way is kept. Asking for
    :attr:`audio` alone skips the video stream. `video_faults` and `sound_faults` tell afterwards what was damaged.

    Args:
        path: the file.
        threads: for decoding video; 0 lets the codec choose.

    Raises:
        InputError: when the file is missing, unreadable, empty or no media.
    """

    def __init__(self, path: str | Path, threads: int = 0) -> None:
        self.path = Path(path)
        self.threads = threads
        self._attach()
        self._track: _SoundTrack | None = None
        self.video_faults: list[Reason] = []
        self.sound_faults: list[Reason] = []
        self.info = self._describe()

    def _attach(self) -> None:
        """Open the file at its beginning."""
        self._container = open_container(self.path)
        self._video = picture_stream(self._container)
        self._sound = next(iter(self._container.streams.audio), None)
        if self._video is None and self._sound is None:
            self._container.close()
            raise NoStreams("the file has neither a video nor an audio stream", path=self.path)
        self._origin = first_time(self._container, self._streams())
        self._fresh = True

    def _rewind(self) -> None:
        """Go back to the beginning for another pass over the file."""
        if not self._fresh:
            self._container.close()
            self._attach()
        self._fresh = False

    def __enter__(self) -> Media:
        return self

    def __exit__(self, *exc: object) -> None:
        self._container.close()

    def _streams(self) -> list[Any]:
        return [stream for stream in (self._video, self._sound) if stream is not None]

    def _describe(self) -> StreamInfo:
        duration = (self._container.duration or 0) / 1_000_000
        if self._video is None:
            return StreamInfo(duration, False, True)
        video = self._video
        rate = float(video.average_rate or 0)
        return StreamInfo(duration, True, self._sound is not None, video.width, video.height, rate)

    def examine(self) -> tuple[float, list[Reason]]:
        """Seconds to the end of the last packet, and what is wrong with the file as a whole; nothing is decoded.

        What containers say of their duration is often wrong, or nothing.
        """
        self._rewind()
        clocks = {stream.index: _Clock(self._origin) for stream in self._streams()}
        last = 0.0
        for packet in self._packets(self._streams(), []):
            shown = packet.pts if packet.pts is not None else packet.dts
            if shown is None:
                continue
            decoded = packet.dts if packet.dts is not None else shown
            base = float(packet.time_base)
            time = clocks[packet.stream.index].place(decoded * base)
            last = max(last, time + (shown - decoded + (packet.duration or 0)) * base)
        promised = self.info.duration
        if promised - last > 1.0 and last < WHOLE * promised:
            what = f"the file ends after {last:.1f} s of the {promised:.1f} s that it promises"
            return last or promised, [reason("file_truncated", what, where=Where(start=last, end=promised))]
        return last or promised, []

    def frames(self, rate: float) -> Iterator[Frame]:
        """Yield at most `rate` frames per second, chosen by presentation time.

        Args:
            rate: frames per second; the first frame at or after each multiple of 1/rate is taken.
        """
        if self._video is None:
            return
        self._rewind()
        wanted, clock = 0.0, _Clock(self._origin)
        self._video.thread_type, self._video.codec_context.thread_count = "AUTO", self.threads
        for picture in self._decode(self._streams() if self._track is None else [self._video]):
            if picture.time is None:
                continue
            time = clock.place(float(picture.time))
            if time + 1e-6 < wanted:
                continue
            wanted = (math.floor(time * rate + 1e-6) + 1) / rate
            yield Frame(max(time, 0.0), _upright_rgb(picture))
        self.video_faults += clock.faults()

    @property
    def audio(self) -> Sound | None:
        """The whole sound, index 0 at time 0; None without an audio stream."""
        if self._sound is None:
            return None
        if self._track is None:
            self._rewind()
            for _ in self._decode([self._sound]):
                pass
        assert self._track is not None
        return self._track.sound

    def _decode(self, streams: list[Any]) -> Iterator[Any]:
        """Decode the streams to their end: sound goes to the track, pictures are yielded.

        A damaged packet is noted among the faults; everything that could be decoded is kept.
        """
        import av

        track, sounds, faults = _SoundTrack(self._origin), self._sound in streams, []
        if self._video in streams:
            self.video_faults = []
            faults.append(self.video_faults)
        if sounds:
            self.sound_faults = []
            faults.append(self.sound_faults)
        for packet in self._packets(streams, faults):
            picture = packet.stream is self._video
            try:
                decoded = packet.decode()
            except av.FFmpegError as error:
                (self.video_faults if picture else self.sound_faults).append(reason("data_damaged", words_of(error)))
                continue
            for frame in decoded:
                if picture:
                    yield frame
                else:
                    track.add(frame)
        if sounds:
            track.close()
            self.sound_faults += track.clock.faults()
            self._track = track

    def _packets(self, streams: list[Any], faults: list[list[Reason]]) -> Iterator[Any]:
        """The packets of the streams, as far as the file can be read; what stops it is added to each of `faults`."""
        import av

        packets = self._container.demux(streams)
        while True:
            try:
                yield next(packets)
            except StopIteration:
                return
            except (av.FFmpegError, OSError) as error:
                for noted in faults:
                    noted.append(reason("data_damaged", words_of(error)))
                return


class _Clock:
    """Places the time stamps of one stream on the media clock, closing steps that no recording makes."""

    def __init__(self, origin: float) -> None:
        self._shift = -origin
        self._last = 0.0
        self._leaps = 0

    def place(self, stamp: float) -> float:
        """Seconds on the media clock of a time stamp in seconds."""
        time = stamp + self._shift
        if not self._last - LONGEST_STEP_BACK <= time <= self._last + LONGEST_STEP:
            self._leaps += 1
            self._shift += self._last - time
            time = self._last
        self._last = max(self._last, time)
        return time

    def faults(self) -> list[Reason]:
        return [reason("timestamps_joined")] if self._leaps else []


class _SoundTrack:
    """Collects decoded sound as 16 kHz mono, keeping it in step with the media clock."""

    def __init__(self, origin: float) -> None:
        self.sound = Sound()
        self.clock = _Clock(origin)
        self._received = 0.0
        self._stamp = -math.inf
        self._resampler: Any = None

    def add(self, frame: Any) -> None:
        """Take over a decoded frame, unless what came before has run past its time."""
        if frame.time is not None and float(frame.time) != self._stamp:
            self._stamp = float(frame.time)
            ahead = self._received - self.clock.place(self._stamp)
            if ahead > MAX_AUDIO_JITTER:
                return
            if ahead < -MAX_AUDIO_JITTER:
                self._fill(-ahead)
        self._received += frame.samples / frame.sample_rate
        self._resample(frame)

    def close(self) -> None:
        """Take over what the resampler still holds."""
        if self._resampler is not None:
            self._resample(None)
            self._resampler = None

    def _fill(self, seconds: float) -> None:
        """Silence for a late start or lost packets."""
        self._received += seconds
        for _ in range(int(seconds)):
            self.sound.append(np.zeros(SAMPLE_RATE, np.float32))
        self.sound.append(np.zeros(round(seconds % 1 * SAMPLE_RATE), np.float32))

    def _resample(self, frame: Any) -> None:
        import av

        if self._resampler is None:
            self._resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        if frame is not None:
            frame.pts = None
        for out in self._resampler.resample(frame):
            self.sound.append(np.nan_to_num(out.to_ndarray().reshape(-1)))


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
