"""Turn-taking in a recording: who talks how much, gaps and overlaps where the floor changes, and pauses.

The stretches of speech are classed as in Heldner and Edlund (2010), "Pauses, gaps and overlaps in conversations",
Journal of Phonetics 38, 555-568.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Transfer:
    """A change of the floor from one speaker to another.

    Attributes:
        start: seconds; when the next speaker begins.
        before, after: numbers of the speakers.
        offset: floor transfer offset in seconds: from the end of one speaker's speech to the start of the other's;
            above zero a gap, below zero an overlap.
    """

    start: float
    before: int
    after: int
    offset: float


@dataclass
class Talk:
    """How a speaker takes part in a recording.

    Attributes:
        seconds: of speech; where two stretches of the same speaker overlap, once.
        whole: seconds of speech of all speakers.
        turns: how often the speaker takes or has the floor.
        latencies: floor transfer offset of each turn that follows somebody else's.
        pauses: seconds of each silence inside a turn.
        inside: stretches of speech that lie wholly inside another's, such as "mhm"; they take no floor.
    """

    seconds: float = 0.0
    whole: float = 0.0
    turns: int = 0
    latencies: list[float] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    inside: int = 0


def turn_taking(turns: Iterable[Mapping[str, Any]]) -> tuple[dict[int, Talk], list[Transfer]]:
    """How each speaker takes part, and each change of the floor.

    Args:
        turns: `start`, `end` and `person` of each stretch of speech, as in the JSON of a recording.
    """
    stretches = _joined(turns)
    talks: dict[int, Talk] = {}
    for start, end, person in stretches:
        talks.setdefault(person, Talk()).seconds += end - start
    whole = sum(talk.seconds for talk in talks.values())
    for talk in talks.values():
        talk.whole = whole
    return talks, _follow(stretches, talks)


def _follow(stretches: Sequence[tuple[float, float, int]], talks: Mapping[int, Talk]) -> list[Transfer]:
    """Go through the stretches in order; whoever has the floor keeps it until another speaks on after them."""
    transfers: list[Transfer] = []
    holder, until = None, 0.0
    for start, end, person in stretches:
        talk = talks[person]
        if person == holder:
            if start > until:
                talk.pauses.append(start - until)
        elif holder is not None and end <= until:
            talk.inside += 1
            continue
        else:
            talk.turns += 1
            if holder is not None:
                talk.latencies.append(start - until)
                transfers.append(Transfer(start, holder, person, start - until))
        holder, until = person, max(end, until) if person == holder else end
    return transfers


def _joined(turns: Iterable[Mapping[str, Any]]) -> list[tuple[float, float, int]]:
    """Stretches in order of time; those of one speaker that touch or overlap are one."""
    last: dict[int, list[float]] = {}
    joined: list[tuple[list[float], int]] = []
    for turn in sorted(turns, key=lambda one: (one["start"], one["end"], one["person"])):
        start, end, person = float(turn["start"]), float(turn["end"]), int(turn["person"])
        if person in last and start <= last[person][1]:
            last[person][1] = max(last[person][1], end)
        elif end > start:
            last[person] = [start, end]
            joined.append((last[person], person))
    return [(start, end, person) for (start, end), person in joined]
