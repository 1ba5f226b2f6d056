"""The decoded frames of a video stream in step with the media clock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from emopipe.errors import Reason, reason
from emopipe.pipeline.media.clock import LONGEST_ITEM, Stamped, StreamClock, Timeline
from emopipe.pipeline.media.damage import DamageLog

#: Frames per second of a video that does not say.
ORDINARY_RATE: Final = 25.0


class VideoTrack:
    """Places the decoded frames of a video stream in time.

    Args:
        stream: of PyAV.
        timeline: of the file.

    Attributes:
        index: of the stream.
        damage: of the stream.
    """

    def __init__(self, stream: Any, timeline: Timeline) -> None:
        self.clock: StreamClock[Any] = StreamClock(timeline)
        self.damage = DamageLog("video")
        self.index: int = stream.index
        self._rate = float(stream.average_rate or ORDINARY_RATE)
        self._shown_for = min(1 / self._rate, LONGEST_ITEM)
        self._shown_until = 0.0

    def add(self, frame: Any) -> Iterator[tuple[float, Any]]:
        """Take over a decoded frame; gives those that can be placed, with their times in seconds."""
        stamp = None if frame.time is None else float(frame.time)
        for time, placed in self.clock.push(Stamped(stamp, self._shown_for, frame)):
            yield self._noted(time, placed)

    def close(self) -> Iterator[tuple[float, Any]]:
        """The frames that are still on their way."""
        for time, placed in self.clock.flush():
            yield self._noted(time, placed)

    def _noted(self, time: float, frame: Any) -> tuple[float, Any]:
        if frame.is_corrupt:
            self.damage.sign(time, "damaged frames")
        if time > self._shown_until:
            self.damage.gap(self._shown_until, time)
        self._shown_until = max(self._shown_until, time + self._shown_for)
        return time, frame

    def faults(self) -> list[Reason]:
        """What is wrong with the stream."""
        untimed = []
        if not self.clock.stamped and self.clock.end:
            what = f"the video has no time stamps; it was played at {self._rate:g} frames per second"
            untimed = [reason("no_timestamps", what)]
        return [*untimed, *self.clock.faults(), *self.damage.reasons(self.clock.strays)]
