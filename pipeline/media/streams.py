"""Open a media file, and choose which of its streams are seen and heard."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Literal

from emopipe.errors import NoStreams, NotMedia
from emopipe.pipeline.media.finding import checked, open_av, words_of

StreamKind = Literal["video", "audio"]

#: Languages that stand for none.
UNDETERMINED: Final = frozenset([None, "", "und", "unk", "mis", "mul", "zxx"])
#: Tracks of one recording whose lengths differ by more than this share are not several microphones.
LENGTHS_APART: Final = 0.1


@dataclass(frozen=True)
class StreamFacts:
    """What a container says about one of its streams, and whether the stream is used.

    Attributes:
        index: number in the container.
        kind: "video" or "audio".
        codec: FFmpeg's name.
        title, language: as tagged; "" when not.
        default: whether the container marks it as the one to play.
        used: whether it is seen or heard.
        layout: of the channels, in FFmpeg's words; "" for video.
    """

    index: int
    kind: StreamKind
    codec: str
    title: str
    language: str
    default: bool
    used: bool
    layout: str = ""


@dataclass(frozen=True)
class Selection:
    """The streams that are used: PyAV's video stream or None, and the audio streams."""

    video: Any | None
    audio: Sequence[Any]


def open_container(path: Path) -> Any:
    """Open a media file with PyAV.

    Raises:
        InputError: it is missing, unreadable, empty or not media.
    """
    import av

    def opened() -> Any:
        try:
            return open_av(path)
        except (av.FFmpegError, ValueError, EOFError, OverflowError) as error:
            if isinstance(error, PermissionError) and not os.access(path, os.R_OK):
                raise
            hint = "It may be truncated or not be media at all; play it in a media player to check"
            raise NotMedia(f"the file cannot be decoded: {words_of(error)}", path=path, hint=hint) from None

    return checked(path, opened)


def select_streams(container: Any, path: Path, tracks: str = "mix") -> Selection:
    """Choose the default video stream, and the audio tracks that belong to it.

    Several audio tracks of one length and language are several microphones, and all are used. Of tracks in several
    languages, the default one is; tracks of commentary or audio description are left.

    Args:
        container: of PyAV.
        path: of the file.
        tracks: "mix" and "speakers": the tracks that belong together; "first"; or the number of a track, from 1.

    Raises:
        NoStreams: there is neither video nor audio, or no track of the number.
    """
    videos = [stream for stream in container.streams.video if _is_moving(stream) and _is_decodable(stream)]
    video = _preferred(container, videos)
    audio = [stream for stream in container.streams.audio if _is_decodable(stream)]
    if tracks == "first":
        chosen = audio[:1]
    elif tracks.isdecimal():
        chosen = audio[int(tracks) - 1 : int(tracks)]
        if audio and not chosen:
            what = f"there is no audio track {tracks}; the file has {len(audio)}"
            raise NoStreams(what, path=path, hint="Choose another with --tracks")
    else:
        chosen = _belonging_together(container, audio, video if len(videos) > 1 else None)
    if video is None and not chosen:
        unknown = "that can be decoded" if [*container.streams.video, *container.streams.audio] else ""
        raise NoStreams(f"the file has neither a video nor an audio stream {unknown}".rstrip(), path=path)
    return Selection(video, chosen)


def stream_facts(container: Any, selection: Selection) -> list[StreamFacts]:
    """What the container says about its video and audio streams, cover art left out."""
    used = {stream.index for stream in (selection.video, *selection.audio) if stream is not None}
    return [
        StreamFacts(
            stream.index,
            stream.type,
            stream.codec_context.name if stream.codec_context is not None else "",
            stream.metadata.get("title", ""),
            "" if stream.language in UNDETERMINED else stream.language,
            _is_default(stream),
            stream.index in used,
            stream.layout.name if stream.type == "audio" and _is_decodable(stream) else "",
        )
        for stream in container.streams
        if stream.type == "audio" or (stream.type == "video" and _is_moving(stream))
    ]


def first_time(streams: Sequence[Any]) -> float:
    """The time in seconds at which the first of the streams begins; the media clock starts there."""
    starts = [float(s.start_time * s.time_base) for s in streams if s.start_time is not None]
    return min(starts, default=0.0)


def promised_duration(container: Any) -> float:
    """Seconds that a container says that it lasts from its first item on; 0 where it does not say."""
    duration = (container.duration or 0) / 1_000_000
    return max(0.0, duration - seconds_before(container)) or duration


def promised_end(container: Any, streams: Sequence[Any]) -> float:
    """Seconds on the media clock until which a container says that the streams used last; 0 where it does not say.

    Subtitles and streams that are not used may last longer.
    """
    ends = [_promised_end(stream, first_time(streams)) for stream in streams]
    return min(promised_duration(container), max(ends)) if ends and all(ends) else promised_duration(container)


def _promised_end(stream: Any, origin: float) -> float:
    """Seconds on the media clock until which a container says that a stream lasts; 0 where it does not say."""
    if stream.duration:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base) - origin
    return max(0.0, _seconds_of_clock(stream.metadata.get("DURATION", "")) - seconds_before(stream.container))


def seconds_before(container: Any) -> float:
    """Seconds that what a container says of durations counts from before its first item.

    Matroska and FLV count from 0, also where a recording that was cut out or was begun late begins at another time.
    """
    counts_from_nought = {"matroska", "flv"} & set(container.format.name.split(","))
    return max(0.0, (container.start_time or 0) / 1_000_000) if counts_from_nought else 0.0


def promised_seconds(stream: Any) -> float | None:
    """How long a container says that a stream lasts; None where it does not say, or the size of the file was asked."""
    from_rate = stream.frames / float(stream.average_rate) if stream.type == "video" and stream.average_rate else 0.0
    if stream.duration and "mov" in stream.container.format.name.split(","):
        # Edits make what is played shorter than the frames that are stored.
        from_rate = min(from_rate, float(stream.duration * stream.time_base))
    tagged = _seconds_of_clock(stream.metadata.get("DURATION", "")) - seconds_before(stream.container)
    return max(from_rate, tagged, 0.0) or None


def pixel_aspect(stream: Any) -> Fraction:
    """Width of a pixel by its height; 1 where the stream does not say, or nothing that a camera makes."""
    aspect = stream.codec_context.sample_aspect_ratio or stream.sample_aspect_ratio
    return aspect if aspect and Fraction(1, 5) <= aspect <= 5 else Fraction(1)


def _is_moving(stream: Any) -> bool:
    """Whether a video stream is one, and not cover art or thumbnails."""
    from av.stream import Disposition

    still = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
    return not stream.disposition & still


def _is_decodable(stream: Any) -> bool:
    """Whether FFmpeg knows the codec of a stream."""
    return stream.codec_context is not None


def _is_default(stream: Any) -> bool:
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.default)


def _preferred(container: Any, streams: Sequence[Any], related: Any | None = None) -> Any | None:
    """The one stream that the container marks as default, else the one that FFmpeg would play."""
    marked = [stream for stream in streams if _is_default(stream)] or list(streams)
    if len(marked) < 2:
        return next(iter(marked), None)
    best = container.streams.best(marked[0].type, related)
    return best if best in marked else marked[0]


def _belonging_together(container: Any, tracks: Sequence[Any], video: Any | None) -> list[Any]:
    """The audio tracks that are several microphones of one recording, else the preferred one.

    Args:
        container: of PyAV.
        tracks: all audio streams.
        video: the chosen one where there are several, which may be of several programmes; else None.
    """
    plain = [track for track in tracks if not _is_additional(track)] or list(tracks)
    languages = {track.language for track in plain} - UNDETERMINED
    if len(plain) > 1 and (len(languages) > 1 or (video is not None and container.format.name == "mpegts")):
        return [_preferred(container, plain, video)]
    lengths = {track.index: _length(track) for track in plain}
    longest = max((length for length in lengths.values() if length), default=0.0)
    return [
        track for track in plain if not lengths[track.index] or lengths[track.index] >= (1 - LENGTHS_APART) * longest
    ]


def _is_additional(stream: Any) -> bool:
    """Whether a track is commentary, or made for people who do not see or hear well."""
    from av.stream import Disposition

    additional = Disposition.comment | Disposition.hearing_impaired | Disposition.visual_impaired | Disposition.karaoke
    return bool(stream.disposition & additional)


def _length(stream: Any) -> float:
    """Seconds that a stream lasts; 0 when it does not say."""
    measured = float(stream.duration * stream.time_base) if stream.duration else 0.0
    return measured or _seconds_of_clock(stream.metadata.get("DURATION", ""))


def _seconds_of_clock(text: str) -> float:
    """Seconds of "hh:mm:ss.fraction", as Matroska tags them; 0 for anything else."""
    parts = text.split(":")
    try:
        hours, minutes, seconds = (float(part) for part in parts)
    except ValueError:
        return 0.0
    return hours * 3600 + minutes * 60 + seconds
