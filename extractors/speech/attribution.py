"""Whose words: the speaker of each word, and utterances that cover all speech and end where the speaker changes."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from emopipe.extractors.contracts import Interval, Span, Turn, Word
from emopipe.extractors.speech.utterances import split_utterances


def speaker_utterances(words: Sequence[Word], turns: Sequence[Turn], *, pause: float, longest: float) -> list[Span]:
    """Utterances of one person each, which together cover all turns.

    They end as :func:`split_utterances` tells, and where the speaker changes. Speech without words belongs to the
    utterance beside it when it is shorter than a pause, and is an utterance without words when it is longer.

    Args:
        words: in order of time.
        turns: in order of time; those of one person apart.
        pause, longest: in seconds.
    """
    runs = _runs(turns)
    spans: list[Span] = []
    for run, spoken in zip(runs, _words_by_run(words, runs), strict=True):
        cut = split_utterances(spoken, pause=pause, longest=longest)
        spans += _covering(run, _with_length(cut, run), pause, longest)
    return sorted(spans, key=lambda span: (span.start, span.end))


def _runs(turns: Sequence[Turn]) -> list[list[Turn]]:
    """Group the turns of each person between which nobody else speaks, in order of time."""
    runs: list[list[Turn]] = []
    current: dict[int, list[Turn]] = {}
    ends: dict[int, float] = {}
    for turn in turns:
        run = current.get(turn.person)
        if run is None or any(end > run[-1].end for person, end in ends.items() if person != turn.person):
            run = current[turn.person] = []
            runs.append(run)
        run.append(turn)
        ends[turn.person] = max(turn.end, ends.get(turn.person, turn.end))
    return runs


def _words_by_run(words: Sequence[Word], runs: Sequence[Sequence[Turn]]) -> list[list[Word]]:
    """The words of each run: those whose middle one of its turns holds, or that follow it.

    A word whose person is known goes to a run of that person.
    """
    owners: dict[int | None, list[tuple[float, int]]] = {}
    for index, run in enumerate(runs):
        for turn in run:
            owners.setdefault(turn.person, []).append((turn.start, index))
            owners.setdefault(None, []).append((turn.start, index))
    starts = {person: sorted(pairs) for person, pairs in owners.items()}
    by_run: list[list[Word]] = [[] for _ in runs]
    for word in words:
        pairs = starts.get(word.person) or starts[None]
        place = bisect.bisect_right(pairs, ((word.start + word.end) / 2, len(runs))) - 1
        by_run[pairs[max(0, place)][1]].append(word)
    return by_run


def _with_length(spans: Sequence[Span], run: Sequence[Turn]) -> list[Span]:
    """Spans of which those without any length are joined to a neighbour; the only one becomes as long as its turn."""
    kept: list[Span] = []
    for span in spans:
        if kept and (span.end <= span.start or kept[-1].end <= kept[-1].start):
            last = kept[-1]
            words = last.words + span.words
            text = "".join(word.text for word in words).strip()
            kept[-1] = replace(last, end=max(last.end, span.end), text=text, words=words)
        else:
            kept.append(span)
    if len(kept) == 1 and kept[0].end <= kept[0].start:
        turn = max(run, key=lambda turn: min(kept[0].end, turn.end) - max(kept[0].start, turn.start))
        return [replace(kept[0], start=turn.start, end=turn.end)]
    return kept


def _covering(run: Sequence[Turn], spans: Sequence[Span], pause: float, longest: float) -> list[Span]:
    """Utterances that cover the turns of a run: those given, made longer, and others without words."""
    person = run[0].person
    spoken = [replace(span, person=person) for span in spans]
    silent: list[Turn] = []
    for start, end in _uncovered(run, spans):
        after = sum(span.start <= start for span in spans)
        if end - start < pause and after > 0 and start - spoken[after - 1].end < pause:
            spoken[after - 1] = replace(spoken[after - 1], end=max(end, spoken[after - 1].end))
        elif end - start < pause and after < len(spans) and spans[after].start - end < pause:
            spoken[after] = replace(spoken[after], start=min(start, spoken[after].start))
        else:
            silent.append(Turn(start, end, person))
    return spoken + _between(silent, spoken, pause, longest)


def _uncovered(run: Sequence[Turn], spans: Sequence[Span]) -> list[Interval]:
    """The parts of turns outside the spans, which are in order and apart."""
    parts: list[Interval] = []
    for turn in run:
        edges = [turn.start]
        for span in spans:
            if span.start < turn.end and span.end > turn.start:
                edges += [max(span.start, turn.start), min(span.end, turn.end)]
        edges.append(turn.end)
        parts += [(low, high) for low, high in zip(edges[::2], edges[1::2], strict=True) if high > low]
    return parts


def _between(silent: Sequence[Turn], spoken: Sequence[Span], pause: float, longest: float) -> list[Span]:
    """Utterances without words, none of which reaches over one with words."""
    groups: list[list[Turn]] = []
    for turn in silent:
        if groups and not any(groups[-1][-1].start < span.start < turn.start for span in spoken):
            groups[-1].append(turn)
        else:
            groups.append([turn])
    return [span for group in groups for span in turn_utterances(group, pause=pause, longest=longest)]


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
