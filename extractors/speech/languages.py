"""Which language is spoken when: language identification by stretch of speech, smoothed over the recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from emopipe.constants import SAMPLE_RATE
from emopipe.extractors.contracts import Interval, Samples, Turn

if TYPE_CHECKING:
    from emopipe.extractors.contracts import SpeechBackend

#: A stretch of speech ends when it is this long, in seconds.
STRETCH: Final = 8.0
#: It ends where somebody else begins to speak when it is at least this long.
SHORT_STRETCH: Final = 3.0
#: So much of a stretch is listened to: more makes the recogniser no surer.
LISTENED_TO: Final = 5.0
#: A stretch shorter than this counts in proportion to its length, in seconds.
SURE_LENGTH: Final = 4.0
#: A language is never less likely than this in a stretch.
LEAST_CHANCE: Final = 0.01
#: What a change of language costs, against the log odds of a stretch. One that is sure of another language than both
#: its neighbours (0.97 to 0.02, log odds 3.9) pays for two changes, one that is not (0.6 to 0.3, 0.7) for none.
CHANGE: Final = 1.75


@dataclass(frozen=True)
class LanguageSpan:
    """A part of a recording in which one language is spoken.

    Attributes:
        start, end: seconds.
        language: ISO 639-1 code.
        probability: how sure the recogniser is of it; None for a language that was given.
        person: who speaks it, where each person has a track of their own.
    """

    start: float
    end: float
    language: str
    probability: float | None
    person: int | None = None


def spoken_languages(
    samples: Samples, turns: Sequence[Turn], recogniser: SpeechBackend, whole: Interval
) -> list[LanguageSpan]:
    """The language of each stretch of speech; stretches follow each other, and neighbours may share a language.

    Args:
        samples: float32 mono at 16 kHz (samples,), the whole clip.
        turns: in order of time, at least one.
        recogniser: tells how likely each language is in a sound.
        whole: what is listened to when all speech is one stretch, in seconds.
    """
    stretches = speech_stretches(turns)
    starts_ends = [(stretch[0].start, max(turn.end for turn in stretch)) for stretch in stretches]
    parts = [(start, min(end, start + LISTENED_TO)) for start, end in starts_ends] if len(stretches) > 1 else [whole]
    sounds = [samples[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)] for start, end in parts]
    chances = recogniser.languages(sounds)
    lengths = [sum(turn.end - turn.start for turn in stretch) for stretch in stretches]
    languages = smoothed(chances, lengths)
    return [
        LanguageSpan(start, end, language, round(float(chance.get(language, 0.0)), 4))
        for (start, end), language, chance in zip(starts_ends, languages, chances, strict=True)
    ]


def speech_stretches(turns: Sequence[Turn]) -> list[list[Turn]]:
    """Group turns into stretches of about eight seconds, or of three where the speaker changes."""
    stretches: list[list[Turn]] = []
    for turn in [part for whole in turns for part in _parts(whole)]:
        last = stretches[-1] if stretches else None
        length = 0.0 if last is None else sum(one.end - one.start for one in last)
        if last is None or length >= (STRETCH if last[-1].person == turn.person else SHORT_STRETCH):
            stretches.append([turn])
        else:
            last.append(turn)
    return stretches


def _parts(turn: Turn) -> list[Turn]:
    """A long turn in equal parts, each about as long as a stretch."""
    count = max(1, int((turn.end - turn.start) / STRETCH))
    edges = np.linspace(turn.start, turn.end, count + 1).tolist()
    return [replace(turn, start=start, end=end) for start, end in pairwise(edges)]


def smoothed(chances: Sequence[Mapping[str, float]], lengths: Sequence[float]) -> list[str]:
    """The likeliest sequence of languages when a change costs something (Viterbi).

    Args:
        chances: of each stretch, ISO 639-1 code -> probability.
        lengths: seconds of speech of each stretch.
    """
    from emopipe.extractors.speech.diarize import best_path

    codes = sorted({code for chance in chances for code in chance})
    table = np.array([[max(chance.get(code, 0.0), LEAST_CHANCE) for code in codes] for chance in chances])
    weights = np.minimum(np.array(lengths) / SURE_LENGTH, 1.0)
    path = best_path(np.log(table) * weights[:, None], np.full(len(table), CHANGE))
    return [codes[index] for index in path]


def main_language(spans: Sequence[LanguageSpan]) -> str | None:
    """The language that is spoken longest, the first one of several; None without speech."""
    lengths: dict[str, float] = {}
    for span in spans:
        lengths[span.language] = lengths.get(span.language, 0.0) + span.end - span.start
    return max(lengths, key=lambda code: lengths[code], default=None)


def joined_by_language(spans: Sequence[LanguageSpan]) -> list[LanguageSpan]:
    """Neighbours in one language as one, whose probability is their mean by length."""
    groups: list[list[LanguageSpan]] = []
    for span in spans:
        if groups and groups[-1][-1].language == span.language:
            groups[-1].append(span)
        else:
            groups.append([span])
    return [replace(group[0], end=group[-1].end, probability=_mean(group)) for group in groups]


def _mean(group: Sequence[LanguageSpan]) -> float | None:
    if any(span.probability is None for span in group):
        return None
    weights = [max(span.end - span.start, 1e-9) for span in group]
    return round(float(np.average([span.probability or 0.0 for span in group], weights=weights)), 4)


def language_span_at(spans: Sequence[LanguageSpan], start: float, end: float) -> LanguageSpan | None:
    """The span that [start, end] overlaps most, or lies nearest to; None without any."""
    return max(spans, key=lambda span: min(end, span.end) - max(start, span.start), default=None)


def language_at(spans: Sequence[LanguageSpan], start: float, end: float) -> str | None:
    """The language that is spoken in [start, end], or nearest to it; None without any."""
    span = language_span_at(spans, start, end)
    return None if span is None else span.language
