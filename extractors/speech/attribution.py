"""Whose words: the speaker of each word, and utterances that end where the speaker changes."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, pairwise

import numpy as np

from emopipe.extractors.contracts import Span, Turn, Word
from emopipe.extractors.speech.utterances import split_utterances


def speaker_utterances(words: Sequence[Word], turns: Sequence[Turn], *, pause: float, longest: float) -> list[Span]:
    """Utterances of one person each; see :func:`split_utterances` for where else they end.

    Args:
        words: in order of time.
        turns: in order of time, at least one.
        pause, longest: in seconds.
    """
    starts = [turn.start for turn in turns]
    spans: list[Span] = []
    for person, own in groupby(words, key=lambda word: _speaker(word, turns, starts)):
        spans += [replace(span, person=person) for span in split_utterances(list(own), pause=pause, longest=longest)]
    return spans


def _speaker(word: Word, turns: Sequence[Turn], starts: Sequence[float]) -> int:
    """The person whose turn holds the middle of the word, or ended last before it."""
    return turns[max(0, bisect.bisect_right(starts, (word.start + word.end) / 2) - 1)].person


def turn_utterances(turns: Sequence[Turn], *, pause: float, longest: float) -> list[Span]:
    """Utterances when there are no words: speech of one person without a pause, cut into equal parts when too long."""
    spans: list[Span] = []
    for turn in turns:
        last = spans[-1] if spans else None
        if last is not None and last.person == turn.person and turn.start - last.end < pause:
            spans[-1] = replace(last, end=turn.end)
        else:
            spans.append(Span(turn.start, turn.end, person=turn.person))
    return [part for span in spans for part in _cut(span, longest)]


def _cut(span: Span, longest: float) -> list[Span]:
    parts = max(1, math.ceil((span.end - span.start) / longest))
    edges = np.linspace(span.start, span.end, parts + 1).tolist()
    return [replace(span, start=low, end=high) for low, high in pairwise(edges)]


def with_only_speaker(spans: Sequence[Span], turns: Sequence[Turn]) -> list[Span]:
    """Give spans that were not cut by speaker to the only speaker there is; spans without speech stay nobody's."""
    numbers = {turn.person for turn in turns}
    if len(numbers) != 1:
        return list(spans)
    (number,) = numbers
    heard = [any(turn.start < span.end and turn.end > span.start for turn in turns) for span in spans]
    return [replace(span, person=number) if there else span for span, there in zip(spans, heard, strict=True)]
