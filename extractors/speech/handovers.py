"""Where one speaker hands over to another without a pause: one changepoint between two known voices.

Pieces that are long enough to tell people apart reach over a handover, so that it comes out early or late by up to
half of their length. Short pieces tell less each, but all of them together tell where the voice changes: the sum of
how much more they are like the one speaker before a moment, and like the other after it, is greatest at the handover.
It is the likelihood ratio of one changepoint where the difference of cosines has the same spread on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

import numpy as np

from emopipe.extractors.contracts import Interval

#: Length of the short pieces and the distance between their starts, in seconds. Chosen with AROUND on 45 made handovers
#: of the speakers that `benchmarks/people.py --tune` has: with 0.75 s, 0.31 s lie on the wrong side beyond a collar of
#: 0.25 s; with 1 s 0.56, with 0.5 s 1.19, with starts 0.2 s apart 0.68, and without this search 0.85.
SHORT_PIECE: Final = 0.75
HOP: Final = 0.1
#: So far before and after where a handover was found, in seconds, it may lie.
AROUND: Final = 1.0
#: Fewer short pieces tell nothing of where it lies.
LEAST_PIECES: Final = 3

#: Cosines (pieces, people) of spans of sound with the voice of each person.
Cosines = Callable[[Sequence[Interval]], np.ndarray]


def with_handovers_placed(
    labels: np.ndarray, times: np.ndarray, speech: Sequence[Interval], cosines: Cosines
) -> np.ndarray:
    """The person of each step (steps,), with handovers within a span of speech where the voice changes.

    Nobody loses a turn: a handover stays between the ones beside it.

    Args:
        labels: the person of each step (steps,).
        times: middles of the steps in seconds, ascending (steps,).
        speech: spans of speech in seconds.
        cosines: of pieces of the sound, see :data:`Cosines`.
    """
    placed = labels.copy()
    for span in speech:
        low, high = np.searchsorted(times, span)
        edges = [low, *(low + 1 + np.flatnonzero(np.diff(labels[low:high]))), high]
        people = labels[edges[:-1]]
        for index in range(1, len(edges) - 1):
            who = people[index - 1 : index + 1]
            edges[index] = _handover(who, times, edges[index - 1 : index + 2], span, cosines)
            placed[edges[index - 1] : edges[index]], placed[edges[index] : edges[index + 1]] = who
    return placed


def _handover(who: np.ndarray, times: np.ndarray, steps: Sequence[int], span: Interval, cosines: Cosines) -> int:
    """The first step of the second of two turns; at least a step is left of each.

    Args:
        who: the two people.
        times: of all steps.
        steps: the first one of the first turn, the handover as it was found, and the end of the second turn.
        span: of speech in which they lie.
        cosines: of pieces of the sound.
    """
    first, found, end = steps
    low, high = max(times[first], times[found] - AROUND), min(times[end - 1], times[found] + AROUND)
    pieces = _short_pieces((max(span[0], low - SHORT_PIECE / 2), min(span[1], high + SHORT_PIECE / 2)))
    if len(pieces) < LEAST_PIECES:
        return found
    alike = cosines(pieces)
    moment = _changepoint(alike[:, who[0]] - alike[:, who[1]], np.mean(pieces, 1))
    return int(np.clip(np.searchsorted(times, moment), first + 1, end - 1))


def _short_pieces(part: Interval) -> list[Interval]:
    """Pieces of SHORT_PIECE seconds at a distance of HOP seconds that lie within a part of the sound."""
    starts = np.arange(part[0], part[1] - SHORT_PIECE + 1e-6, HOP)
    return [(start, start + SHORT_PIECE) for start in starts.tolist()]


def _changepoint(differences: np.ndarray, middles: np.ndarray) -> float:
    """The moment before which the differences add up to most."""
    sums = np.concatenate([[0.0], np.cumsum(differences)])
    edges = np.array([middles[0] - HOP / 2, *(np.mean(pair) for pair in pairwise(middles)), middles[-1] + HOP / 2])
    return float(edges[sums.argmax()])
