"""Place the time stamps of streams on one clock: stray stamps are set aside, joined recordings run on.

All streams of a file share a :class:`Timeline`, so that video and audio stay in step where a file consists of parts
whose time stamps start anew.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Generic, TypeVar

from emopipe.errors import Reason, reason

T = TypeVar("T")

#: No recording pauses for longer than this, in seconds: a longer step of the time stamps is a fault of the clock.
LONGEST_PAUSE: Final = 3600.0
#: Nor does it go back in time by more than the reordering of frames, in seconds.
LONGEST_STEP_BACK: Final = 1.0
#: A step forward by more than this is believed only when the stamps that follow go on from there, in seconds.
LONGEST_PLAIN_STEP: Final = 1.0
#: So many stamps are looked at to tell a stray one from a step of the clock.
LOOK_AHEAD: Final = 8
#: No image is shown, and no piece of sound lasts, for longer than this, in seconds, whatever the container says.
LONGEST_ITEM: Final = 10.0
#: Pauses beyond :data:`LONGEST_PAUSE` that are together longer than so many times what is seen or heard are not
#: believed: without a bound, a file of some kilobytes lasts for years.
MOST_PAUSES: Final = 30
#: Streams of one part of a joined recording begin within this of each other, in seconds.
PARTS_APART: Final = 10.0


@dataclass(frozen=True)
class Stamped(Generic[T]):
    """A packet or frame and its time stamp; both in seconds, the stamp None where there is none."""

    stamp: float | None
    duration: float
    item: T


class Timeline:
    """What has to be added to the time stamps of a file, part by part.

    Args:
        origin: seconds; the time stamp at which the file begins.
    """

    def __init__(self, origin: float) -> None:
        self._shifts = [-origin]
        self._end = 0.0

    @property
    def first_shift(self) -> float:
        """What to add to the stamps of the first part."""
        return self._shifts[0]

    def reached(self, end: float) -> None:
        """Note that a stream lasts until `end`, on the media clock."""
        self._end = max(self._end, end)

    def known_shift(self, stamp: float, last: float, reach: float) -> float | None:
        """What brings a stamp to at most `reach` after `last`, where another stamp needed it before."""
        for shift in reversed(self._shifts):
            if last - LONGEST_STEP_BACK <= stamp + shift <= last + reach:
                return shift
        return None

    def new_shift(self, stamp: float) -> float:
        """What makes a stamp go on where the streams have come to."""
        self._shifts.append(self._end - stamp)
        return self._shifts[-1]


class StreamClock(Generic[T]):
    """Places the items of one stream on the media clock, in the order in which they come.

    An item without a stamp, or with a stray one, is placed where the one before it ends.

    Args:
        timeline: of the file.

    Attributes:
        joined: how often the time stamps started anew.
        strays: times of the items whose lone stamps lay elsewhere than their neighbours'.
        stamped: whether any item had a stamp.
        end: where the last item placed ends, in seconds.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._shift = timeline.first_shift
        self._waiting: deque[Stamped[T]] = deque()
        self._last = 0.0
        self._paused = 0.0
        self._filled = 0.0
        self.end = 0.0
        self.joined = 0
        self.strays: list[float] = []
        self.stamped = False

    def push(self, item: Stamped[T]) -> Iterator[tuple[float, T]]:
        """Take over an item; gives those that can be placed, with their times in seconds."""
        self._waiting.append(item)
        if len(self._waiting) > LOOK_AHEAD:
            yield self._placed_first()

    def flush(self) -> Iterator[tuple[float, T]]:
        """The items that are left when the stream has ended."""
        while self._waiting:
            yield self._placed_first()

    def placed(self, items: Iterable[Stamped[T]]) -> Iterator[tuple[float, T]]:
        """The items with their times in seconds."""
        for item in items:
            yield from self.push(item)
        yield from self.flush()

    def estimate(self, stamp: float | None) -> float:
        """About where an item lies that has not been placed, in seconds."""
        return self.end if stamp is None else stamp + self._shift

    def faults(self) -> list[Reason]:
        """That time stamps started anew, if they did."""
        return [reason("timestamps_joined")] if self.joined else []

    def _placed_first(self) -> tuple[float, T]:
        item = self._waiting.popleft()
        if item.stamp is None:
            time = self.end
        else:
            self.stamped = True
            time = self._place(item.stamp, [other.stamp for other in self._waiting if other.stamp is not None])
            time = self._believed(item.stamp, time)
        duration = min(item.duration, LONGEST_ITEM)
        self._filled += duration
        self._last = max(self._last, time)
        self.end = max(self.end, time + duration)
        self._timeline.reached(self.end)
        return time, item.item

    def _place(self, stamp: float, following: Sequence[float]) -> float:
        time = stamp + self._shift
        reach = _reach(following)
        if _goes_on(time, self._last, reach):
            return time
        if self._is_stray(stamp, following, reach):
            self.strays.append(self.end)
            return self.end
        shift = self._timeline.known_shift(stamp, self._last, reach)
        if shift is None and self._last <= time <= self._last + LONGEST_PAUSE:
            return time
        self.joined += 1
        if shift is None:
            shift = self._timeline.known_shift(stamp, self._last, PARTS_APART)
        self._shift = self._timeline.new_shift(stamp) if shift is None else shift
        return stamp + self._shift

    def _believed(self, stamp: float, time: float) -> float:
        """The time at which an item lies, or the end of the one before when pauses take too much of the stream."""
        pause = time - self.end
        if pause <= LONGEST_PLAIN_STEP:
            return time
        if self._paused + pause > LONGEST_PAUSE + MOST_PAUSES * self._filled:
            self.joined += 1
            self._shift = self.end - stamp
            return self.end
        self._paused += pause
        return time

    def _is_stray(self, stamp: float, following: Sequence[float], reach: float) -> bool:
        """Whether more of the following stamps go on from the one before than from this one."""
        before = sum(_goes_on(other + self._shift, self._last, reach) for other in following)
        after = sum(_goes_on(other, stamp, reach) for other in following)
        return before > after


def _goes_on(time: float, last: float, reach: float) -> bool:
    return last - LONGEST_STEP_BACK <= time <= last + reach


def _reach(following: Sequence[float]) -> float:
    """How far apart neighbouring stamps of a stream may lie without a doubt, in seconds."""
    steps = [abs(later - earlier) for earlier, later in pairwise(following)]
    return max(LONGEST_PLAIN_STEP, 3 * statistics.median(steps)) if steps else LONGEST_PLAIN_STEP
