"""Open a media file and choose its streams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emopipe.errors import (
    NotMedia,
)
from emopipe.pipeline.media.finding import checked, words_of


def open_container(path: Path) -> Any:
    """Open a media file with PyAV.

    Raises:
        InputError: it is missing, unreadable, empty or not media.
    """
    import av

    def opened() -> Any:
        try:
            return av.open(str(path.absolute()), metadata_errors="replace")  # else "a:b.mp4" would be an address
        except (av.FFmpegError, ValueError, EOFError) as error:
            if isinstance(error, PermissionError):
                raise
            hint = "It may be truncated or not be media at all; play it in a media player to check"
            raise NotMedia(f"the file cannot be decoded: {words_of(error)}", path=path, hint=hint) from None

    return checked(path, opened)


def picture_stream(container: Any) -> Any | None:
    """The first video stream that is not cover art."""
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    return None


def first_time(container: Any, streams: list[Any]) -> float:
    """The time in seconds at which the first of the streams begins; the media clock starts there."""
    starts = [float(s.start_time * s.time_base) for s in streams if s.start_time is not None]
    return min(starts, default=0.0)
