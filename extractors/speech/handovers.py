"""Where one speaker hands over to another: one changepoint between two known voices.

Pieces that are long enough to tell people apart reach over a handover, so that it comes out early or late by up to
half of their length, or at a pause nearby. Short pieces tell less each, but all of them together tell where the voice
changes: the sum of how much more they are like the one speaker before a moment, and like the other after it, is
greatest at the handover. It is the likelihood ratio of one changepoint where the difference of cosines has the same
spread on both sides. A pause is a moment like another: a pause in a turn just before an overlapped handover draws
the longer pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from emopipe.extractors.contracts import Interval
from emopipe.extractors.speech.speakers import SHORTEST

#: Length of the short pieces, in seconds. Chosen on 45 made handovers of the speakers that `benchmarks/people.py
#: --tune` has, by what lies on the wrong side beyond a collar of 0.25 s: with pieces 0.1 s apart 0.3 s; with 1 s 0.6,
#: with 0.5 s 1.2, and without this search 0.9.
SHORT_PIECE: Final = 0.75
#: Where the middles of short pieces lie from those of the steps, in seconds.
SHIFTS: Final = (-0.025, 0.025)
#: So far before and after where a handover was found, in seconds, it may lie. On nine generated interviews of the same
#: speakers, half of whose handovers overlap, 0.1 s lie on the wrong side; with 0.8 s 0.3, with 0.6 s 0.5, where changes
#: at pauses stay 1.2, and without this search 1.3. There, to prefer pauses made nothing better.
AROUND: Final = 1.0
#: Fewer short pieces tell nothing of where it lies.
LEAST_PIECES: Final = 3

#: Cosines (pieces, people) of spans of sound with the voice of each person.
Cosines = Callable[[Sequence[Interval]], np.ndarray]


def with_handovers_placed(
    labels: np.ndarray, times: np.ndarray, speech: Sequence[Interval], cosines: Cosines
) -> np.ndarray:
    """The person of each step (steps,), with handovers where the voice changes.

    Nobody loses a turn: a handover stays between the ones beside it. It may move over a pause.

    Args:
        labels: the person of each step (steps,).
        times: middles of the steps in seconds, ascending (steps,).
        speech: spans of speech in seconds, ascending; each has a step.
        cosines: of pieces of the sound, see :data:`Cosines`.
    """
    placed = labels.copy()
    edges = [0, *(1 + np.flatnonzero(np.diff(labels))).tolist(), len(labels)]
    people = labels[edges[:-1]]
    handovers = range(1, len(edges) - 1)
    searched = [_search(times, edges[index - 1 : index + 2], speech)[1] for index in handovers]
    heard = [pieces[_audible(pieces)] for pieces in searched]
    if any(map(len, heard)):
        # Most of what is asked for below: all of it together takes less time than bit by bit.
        cosines(_intervals(np.unique(np.concatenate(heard), axis=0)))
    for index in handovers:
        who = people[index - 1 : index + 1]
        edges[index] = _handover(who, times, edges[index - 1 : index + 2], speech, cosines)
        placed[edges[index - 1] : edges[index]], placed[edges[index] : edges[index + 1]] = who
    return placed


def _handover(
    who: np.ndarray, times: np.ndarray, steps: Sequence[int], speech: Sequence[Interval], cosines: Cosines
) -> int:
    """The first step of the second of two turns; at least a step is left of each.

    Args:
        who: the two people.
        times: of all steps.
        steps: the first one of the first turn, the handover as it was found, and the end of the second turn.
        speech: spans of speech.
        cosines: of pieces of the sound.
    """
    first, found, end = steps
    low, of_step = _search(times, steps, speech)
    heard = _audible(of_step)
    pieces, rows = np.unique(of_step[heard], axis=0, return_inverse=True)
    if len(pieces) < LEAST_PIECES:
        return found
    alike = cosines(_intervals(pieces))[rows]
    differences = np.zeros(len(of_step))
    differences[heard] = alike[:, who[0]] - alike[:, who[1]]
    sums = np.concatenate([[0.0], np.cumsum(differences.reshape(len(SHIFTS), -1).mean(0))])
    places = low + np.arange(len(sums))
    allowed = (places > first) & (places < end)
    return int(places[np.where(allowed, sums, -np.inf).argmax()])


def _search(times: np.ndarray, steps: Sequence[int], speech: Sequence[Interval]) -> tuple[int, np.ndarray]:
    """The first step around a handover, and the short pieces (shifts * steps, 2) of all steps around it."""
    first, found, end = steps
    low = max(first, int(np.searchsorted(times, times[found - 1] - AROUND)))
    high = min(end, int(np.searchsorted(times, times[found] + AROUND)))
    return low, np.concatenate([_short_pieces(times[low:high] + shift, speech) for shift in SHIFTS])


def _audible(pieces: np.ndarray) -> np.ndarray:
    """Which pieces (pieces, 2) are long enough for a vector."""
    enough: np.ndarray = np.ptp(pieces, 1) >= SHORTEST
    return enough


def _intervals(pieces: np.ndarray) -> list[Interval]:
    return [(start, end) for start, end in pieces.tolist()]


def _short_pieces(times: np.ndarray, speech: Sequence[Interval]) -> np.ndarray:
    """Start and end of a piece (steps, 2) around each step, moved into its span of speech; a shorter span is one."""
    starts, ends = np.array(speech).T
    span = np.searchsorted(starts, times, "right") - 1
    first = np.clip(times - SHORT_PIECE / 2, starts[span], np.maximum(starts[span], ends[span] - SHORT_PIECE))
    return np.stack([first, np.minimum(first + SHORT_PIECE, ends[span])], 1)
