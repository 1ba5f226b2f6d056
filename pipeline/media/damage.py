"""Where a stream is damaged, and how much of it is lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from emopipe.errors import Reason, Where, reason
from emopipe.pipeline.media.clock import StreamClock
from emopipe.pipeline.media.finding import words_of

#: Damage within this of other damage is told together, in seconds.
TOGETHER: Final = 1.0
#: A step between frames that is longer than this and lies at damage is a loss, in seconds.
LEAST_LOSS: Final = 0.1
#: So many places are told in words.
PLACES_IN_WORDS: Final = 5


@dataclass
class DamagedStretch:
    """Seconds at which damage begins and ends on the media clock, and what was lost of the stream there."""

    start: float
    end: float
    lost: float = 0.0


class DamageLog:
    """Collects the damage of one stream.

    Args:
        stream: what it is, in words.
    """

    def __init__(self, stream: Literal["video", "audio"]) -> None:
        self._stream = stream
        self._signs: list[DamagedStretch] = []
        self._gaps: list[tuple[float, float]] = []
        self._causes: dict[str, None] = {}

    def sign(self, time: float, cause: str) -> None:
        """Note that something could not be decoded at a time in seconds, and the decoder's words for it."""
        self._causes[cause] = None
        if self._signs and time <= self._signs[-1].end + TOGETHER:
            self._signs[-1].end = max(self._signs[-1].end, time)
            self._signs[-1].start = min(self._signs[-1].start, time)
        else:
            self._signs.append(DamagedStretch(time, time))

    def gap(self, start: float, end: float) -> None:
        """Note that the stream has nothing between two times; that is a loss where there are signs of damage too."""
        if end - start > LEAST_LOSS:
            self._gaps.append((start, end))

    def stretches(self) -> list[DamagedStretch]:
        """The damaged stretches, in order of time."""
        merged: list[DamagedStretch] = []
        for sign in sorted(self._signs, key=lambda one: one.start):
            grown = DamagedStretch(sign.start, sign.end)
            for start, end in self._gaps_at(sign):
                grown.start, grown.end = min(grown.start, start), max(grown.end, end)
            if merged and grown.start <= merged[-1].end + TOGETHER:
                merged[-1].end = max(merged[-1].end, grown.end)
            else:
                merged.append(grown)
        for stretch in merged:
            stretch.lost = sum(end - start for start, end in self._gaps if stretch.start <= start < stretch.end)
        return merged

    def _gaps_at(self, sign: DamagedStretch) -> Iterator[tuple[float, float]]:
        return (gap for gap in self._gaps if gap[0] <= sign.end + TOGETHER and gap[1] >= sign.start - TOGETHER)

    def reasons(self, strays: Sequence[float] = ()) -> list[Reason]:
        """What is damaged where, as one reason; none for a stream that is whole.

        Args:
            strays: seconds at which stray time stamps were set aside.
        """
        for time in strays:
            self.sign(time, "stray time stamps")
        stretches = self.stretches()
        if not stretches:
            return []
        places = [f"{one.start:.1f} to {one.end:.1f} s" for one in stretches[:PLACES_IN_WORDS]]
        if len(stretches) > PLACES_IN_WORDS:
            places.append(f"{len(stretches) - PLACES_IN_WORDS} more places")
        lost = sum(one.lost for one in stretches)
        causes = ", ".join(list(self._causes)[:3])
        what = f"the {self._stream} is damaged at {', '.join(places)}; {lost:.1f} s of it are lost ({causes})"
        return [reason("data_damaged", what, where=Where(start=stretches[0].start, end=stretches[-1].end))]


def decoded_frames(packet: Any, damage: DamageLog, clock: StreamClock[Any]) -> Iterator[Any]:
    """The frames of a packet; damage is noted, and none of FFmpeg's errors leaves."""
    import av

    stamp = packet.pts if packet.pts is not None else packet.dts
    seconds = None if stamp is None or packet.time_base is None else float(stamp * packet.time_base)
    if packet.is_corrupt:
        damage.sign(clock.estimate(seconds), "packets lost")
    try:
        yield from packet.decode()
    except (av.FFmpegError, ValueError) as error:
        damage.sign(clock.estimate(seconds), words_of(error))
