"""The decoded frames of a video stream in step with the media clock."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from typing import Any, Final

from emopipe.errors import Reason, reason
from emopipe.pipeline.media.clock import LONGEST_ITEM, Stamped, StreamClock, Timeline
from emopipe.pipeline.media.damage import DamageLog

#: Frames per second of a video that does not say.
ORDINARY_RATE: Final = 25.0
#: Codecs that mark frames to which no other refers. (HEVC's marks are about one temporal layer alone.)
MARKS_UNREFERRED: Final = frozenset(["h264", "mpeg1video", "mpeg2video", "mpeg4"])
#: FFmpeg's flag of formats that hold no time stamps: it makes some up.
NO_TIMESTAMPS: Final = 0x80


class VideoTrack:
    """Places the decoded frames of a video stream in time.

    Args:
        stream: of PyAV.
        timeline: of the file.
        sampling: at most so many frames per second are wanted; see :meth:`prepare`.

    Attributes:
        index: of the stream.
        damage: of the stream.
    """

    def __init__(self, stream: Any, timeline: Timeline, sampling: float) -> None:
        self.clock: StreamClock[Any] = StreamClock(timeline)
        self.damage = DamageLog("video")
        self.index: int = stream.index
        self._rate = float(stream.average_rate or ORDINARY_RATE)
        self._shown_for = min(1 / self._rate, LONGEST_ITEM)
        self._shown_until = 0.0
        self._context = stream.codec_context
        self._made_up = bool(stream.container.format.flags & NO_TIMESTAMPS)
        self._sampling, self._shift = sampling, timeline.first_shift
        self._earliest: dict[int, float] = {}
        self._left_out: list[float] = []

    def prepare(self, packet: Any) -> None:
        """Have the decoder leave out the frame of the next packet where sampling takes an earlier one in its place.

        That is a frame to which no other refers, and with an earlier one in its 1/sampling seconds.
        """
        left_out = False
        if packet.pts is not None and self._context.name in MARKS_UNREFERRED:
            time = float(packet.pts * packet.time_base) + self._shift
            slot = math.floor(time * self._sampling + 1e-6)
            left_out = self._earliest.setdefault(slot, time) < time
            self._earliest[slot] = min(time, self._earliest[slot])
            if left_out:
                heapq.heappush(self._left_out, time)
        self._context.skip_frame = "NONREF" if left_out else "DEFAULT"

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
        shown_until = self._shown_until + self._left_out_before(time) * self._shown_for
        if time > shown_until:
            self.damage.gap(shown_until, time)
        self._shown_until = max(self._shown_until, time + self._shown_for)
        return time, frame

    def _left_out_before(self, time: float) -> int:
        """How many frames were left out since the last one that came; those that came all the same do not count."""
        count = 0
        while self._left_out and self._left_out[0] < time + 1e-6:
            count += heapq.heappop(self._left_out) < time - 1e-6
        return count

    def faults(self) -> list[Reason]:
        """What is wrong with the stream."""
        untimed = []
        if self.clock.end and (self._made_up or not self.clock.stamped):
            what = f"the video has no time stamps; it was played at {self._rate:g} frames per second"
            untimed = [reason("no_timestamps", what)]
        return [*untimed, *self.clock.faults(), *self.damage.reasons(self.clock.strays)]
