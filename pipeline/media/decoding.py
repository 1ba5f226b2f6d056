"""Decode a media file once: frames by presentation time and 16 kHz mono sound from the same pass.

All times are float seconds on the media clock, which starts at the container's first time stamp. Memory does not grow
with the length of the file: frames pass one by one, long sound lies in a temporary file.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numpy as np

from emopipe.errors import Reason, Where, reason
from emopipe.pipeline.media.audio_track import AudioTrack, mixed
from emopipe.pipeline.media.clock import LONGEST_ITEM, Stamped, StreamClock, Timeline
from emopipe.pipeline.media.damage import DamageLog, decoded_frames
from emopipe.pipeline.media.finding import MOST_PIXELS, words_of
from emopipe.pipeline.media.images import ImageConverter
from emopipe.pipeline.media.sound import Sound
from emopipe.pipeline.media.streams import (
    StreamFacts,
    first_time,
    open_container,
    pixel_aspect,
    promised_duration,
    promised_end,
    promised_seconds,
    select_streams,
    stream_facts,
)
from emopipe.pipeline.media.video_track import ORDINARY_RATE, VideoTrack
from emopipe.pipeline.media.wav_header import understates_its_sound

T = TypeVar("T")

#: Frames decoded ahead of the one in use.
AHEAD: Final = 4
#: A file whose streams end before this share of the duration that it promises was cut short.
WHOLE: Final = 0.9
#: What is told of a WAV file whose header is wrong.
MISCOUNTED: Final = "the header of the WAV file counts less sound than there is; all of it was read"
#: A stream that lacks more than this of what its container promises has lost something, in seconds.
LEAST_MISSING: Final = 0.5


@dataclass(frozen=True)
class StreamInfo:
    """What a container says about itself.

    Attributes:
        duration: seconds; 0 when the container does not say.
        has_video, has_audio: whether there is such a stream (cover art is not video).
        width, height: pixels as stored, before any rotation; 0 without video.
        frame_rate: average frames per second; 0 when unknown or without video.
        pixel_aspect: width of a pixel by its height.
        streams: all video and audio streams.
    """

    duration: float
    has_video: bool
    has_audio: bool
    width: int = 0
    height: int = 0
    frame_rate: float = 0.0
    pixel_aspect: float = 1.0
    streams: Sequence[StreamFacts] = ()


@dataclass(frozen=True)
class Frame:
    """One sampled image: `time` in seconds, `rgb` uint8 (height, width, 3), upright, of square pixels."""

    time: float
    rgb: np.ndarray


@dataclass(frozen=True)
class Examined:
    """What is known of a file without decoding it: seconds to the end of the last packet, and what is wrong with it."""

    duration: float
    faults: list[Reason]


class Media:
    """An open media file whose streams are decoded in one pass.

    Iterate :meth:`frames` first if both images and sound are wanted: sound met on the way is kept. Asking for
    :attr:`audio` alone skips the video stream. `video_faults` and `audio_faults` tell afterwards what was damaged.

    Args:
        path: the file.
        threads: for decoding video; 0 lets the codec choose.
        tracks: which audio streams are used; see :func:`~emopipe.pipeline.media.streams.select_streams`.
        keeps_sound: False: sound that is met on the way to frames is not decoded, since somebody else does that.

    Raises:
        InputError: when the file is missing, unreadable, empty or not media.
    """

    def __init__(self, path: str | Path, threads: int = 0, tracks: str = "mix", *, keeps_sound: bool = True) -> None:
        self.path = Path(path)
        self.threads = threads
        self._keeps_sound = keeps_sound
        self._wanted_tracks = tracks
        self._attach()
        self._tracks: list[AudioTrack] | None = None
        self._mix: Sound | None = None
        self.video_faults: list[Reason] = []
        self.audio_faults: list[Reason] = []
        self.info = self._describe()

    def _attach(self) -> None:
        """Open the file at its beginning."""
        self._container = open_container(self.path)
        try:
            self._selection = select_streams(self._container, self.path, self._wanted_tracks)
        except BaseException:
            self._container.close()
            raise
        self._origin = first_time(self._streams())
        self._fresh = True

    def _rewind(self) -> Timeline:
        """Go back to the beginning for another pass over the file."""
        if not self._fresh:
            self._container.close()
            self._attach()
        self._fresh = False
        return Timeline(self._origin)

    def __enter__(self) -> Media:
        return self

    def __exit__(self, *exc: object) -> None:
        self._container.close()

    def _streams(self) -> list[Any]:
        video = [] if self._selection.video is None else [self._selection.video]
        return [*video, *self._selection.audio]

    def _describe(self) -> StreamInfo:
        duration = promised_duration(self._container)
        video, streams = self._selection.video, stream_facts(self._container, self._selection)
        if video is None:
            return StreamInfo(duration, False, True, streams=streams)
        return StreamInfo(
            duration,
            True,
            bool(self._selection.audio),
            video.width,
            video.height,
            float(video.average_rate or 0),
            float(pixel_aspect(video)),
            streams,
        )

    def examine(self) -> Examined:
        """Look at every packet; nothing is decoded.

        What containers say of their duration is often wrong, or nothing.
        """
        timeline = self._rewind()
        spans = {stream.index: _PacketSpan(stream, timeline) for stream in self._streams()}
        for packet in self._packets(self._streams(), []):
            spans[packet.stream.index].add(packet)
        for span in spans.values():
            span.close()
        last = max(span.end for span in spans.values())
        promised = promised_end(self._container, self._streams())
        miscounted = [reason("data_damaged", MISCOUNTED)] if understates_its_sound(self.path) else []
        return Examined(last, [*_missing(list(spans.values()), promised), *miscounted])

    def frames(self, rate: float) -> Iterator[Frame]:
        """Yield at most `rate` frames per second, chosen by presentation time.

        Args:
            rate: frames per second; the first frame at or after each multiple of 1/rate is taken.
        """
        if not self.info.has_video:
            return
        pixels = self.info.width * self.info.height
        if pixels > MOST_PIXELS:
            what = f"frames of {self.info.width} by {self.info.height} pixels are not decoded"
            self.video_faults = [reason("frame_size", what)]
            return
        timeline = self._rewind()
        video: Any = self._selection.video
        wanted = 0.0
        converter = ImageConverter()
        video.thread_type, video.codec_context.thread_count = "AUTO", self.threads
        video.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
        audio = self._selection.audio if self._tracks is None and self._keeps_sound else []
        for time, frame in self._decode([video, *audio], timeline, rate):
            if time + 1e-6 < wanted:
                continue
            wanted = (math.floor(time * rate + 1e-6) + 1) / rate
            yield Frame(max(time, 0.0), converter.image(frame, pixel_aspect(video)))
        if not (pixels or wanted):
            self.video_faults = [reason("frame_size"), *self.video_faults]

    @property
    def audio(self) -> Sound | None:
        """The whole sound, sample 0 at time 0, of several tracks their mix; None without an audio stream."""
        if self._mix is None and self._selection.audio:
            self._mix = mixed(self.tracks)
        return self._mix

    @property
    def tracks(self) -> list[Sound]:
        """The sound of each audio stream that is used, its channels mixed."""
        return [track.sounds[0] if track.sounds else Sound() for track in self._decoded_tracks()]

    @property
    def mixes_lose(self) -> list[bool]:
        """Of each audio stream that is used, whether its channels cancel in the mix, or have no known layout."""
        return [track.loses for track in self._decoded_tracks()]

    def channels(self) -> list[list[Sound]]:
        """The channels of each audio stream that is used, kept apart; the file is decoded anew."""
        timeline = self._rewind()
        tracks = [AudioTrack(timeline, apart=True) for _ in self._selection.audio]
        for _ in self._decode_into(tracks, list(self._selection.audio), timeline):
            pass
        return [track.sounds for track in tracks]

    def _decoded_tracks(self) -> list[AudioTrack]:
        if self._tracks is None:
            timeline = self._rewind()
            for _ in self._decode(list(self._selection.audio), timeline):
                pass
        assert self._tracks is not None
        return self._tracks

    def _decode(self, streams: list[Any], timeline: Timeline, sampling: float = 0.0) -> Iterator[tuple[float, Any]]:
        """Decode streams to their end: sound is kept, frames are yielded with their times."""
        tracks = [AudioTrack(timeline) for stream in streams if stream.type == "audio"]
        yield from self._decode_into(tracks, streams, timeline, sampling)
        if tracks:
            self._tracks = tracks
            self.audio_faults = list(dict.fromkeys(fault for track in tracks for fault in track.faults()))

    def _decode_into(
        self, tracks: Sequence[AudioTrack], streams: list[Any], timeline: Timeline, sampling: float = 0.0
    ) -> Iterator[tuple[float, Any]]:
        """Decode streams to their end; frames of sound go to the tracks, those of the video are yielded.

        A damaged packet is noted; everything that could be decoded is kept, but for frames that sampling leaves out.
        """
        video = None if self._selection.video not in streams else VideoTrack(self._selection.video, timeline, sampling)
        indices = (stream.index for stream in streams if stream.type == "audio")
        sinks: dict[int, AudioTrack | VideoTrack] = dict(zip(indices, tracks, strict=True))
        if video is not None:
            sinks[video.index] = video
        for packet in self._packets(streams, [(sink.damage, sink.clock) for sink in sinks.values()]):
            sink = sinks[packet.stream.index]
            sink.prepare(packet)
            for frame in decoded_frames(packet, sink.damage, sink.clock):
                yield from sink.add(frame)
        for sink in sinks.values():
            yield from sink.close()
        if video is not None:
            self.video_faults = video.faults()

    def _packets(self, streams: list[Any], damages: Sequence[tuple[DamageLog, StreamClock[Any]]]) -> Iterator[Any]:
        """The packets of the streams, as far as the file can be read; what stops it is noted as damage."""
        import av

        packets = self._container.demux(streams)
        while True:
            try:
                yield next(packets)
                continue
            except StopIteration:
                return
            except (av.FFmpegError, OSError, ValueError) as error:
                cause = words_of(error)
            except IndexError:  # PyAV, at the end of the file
                cause = "streams that its beginning does not name"
            for damage, clock in damages:
                damage.sign(clock.end, cause)
            return


class _PacketSpan:
    """Where the last packet of a stream ends."""

    def __init__(self, stream: Any, timeline: Timeline) -> None:
        self.stream = stream
        self._clock: StreamClock[float] = StreamClock(timeline)
        self.end = 0.0
        self._rate = float(stream.average_rate or ORDINARY_RATE) if stream.type == "video" else None

    def add(self, packet: Any) -> None:
        """Take over a packet; the empty one at the end of a stream, and those that edits cut away do not count."""
        if not packet.size or packet.is_discard:
            return
        base = float(packet.time_base)
        stamp = packet.dts if packet.dts is not None else packet.pts
        shown = (packet.pts - stamp) * base if stamp is not None and packet.pts is not None else 0.0
        lasts = min((packet.duration or 0) * base or (1 / self._rate if self._rate else 0.0), LONGEST_ITEM)
        shown = min(shown, LONGEST_ITEM)
        self._note(self._clock.push(Stamped(None if stamp is None else stamp * base, lasts, shown + lasts)))

    def close(self) -> None:
        """Take over what is still on its way."""
        self._note(self._clock.flush())

    def _note(self, placed: Iterable[tuple[float, float]]) -> None:
        for time, until_shown in placed:
            self.end = max(self.end, time + until_shown)


def _missing(spans: Sequence[_PacketSpan], promised: float) -> list[Reason]:
    """What a container promises and does not hold, as one reason; none for a whole file."""
    last = max(span.end for span in spans)
    promises = [promised_seconds(span.stream) or 0.0 for span in spans]
    if promised - last > 1.0 and last < WHOLE * promised:
        what = f"the file ends after {last:.1f} s of the {promised:.1f} s that it promises"
        return [reason("file_truncated", what, where=Where(start=last, end=promised))]
    lacking = [
        f"{promise - span.end:.1f} s of {promise:.1f} s of {span.stream.type}"
        for span, promise in zip(spans, promises, strict=True)
        if promise - span.end > LEAST_MISSING
    ]
    if not lacking:
        return []
    what = f"the container promises more than it holds: {' and '.join(lacking)} missing"
    return [reason("data_missing", what, where=Where(start=last, end=max(promises)))]


def ahead(items: Iterable[T], depth: int = AHEAD) -> Iterator[T]:
    """Fetch up to `depth` items in a second thread while the consumer works on one; order and errors are kept."""
    source, end = iter(items), object()
    with ThreadPoolExecutor(1, "decode") as pool:
        waiting = deque(pool.submit(next, source, end) for _ in range(depth))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, source, end))
            yield cast(T, item)
