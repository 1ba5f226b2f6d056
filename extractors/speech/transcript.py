"""Words on the media clock, from any recogniser, only where a voice was detected, so that silence yields no words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from emopipe.constants import SAMPLE_RATE
from emopipe.extractors.contracts import Interval, Samples, Turn, Word
from emopipe.extractors.speech.diarize import joined
from emopipe.extractors.speech.languages import (
    LanguageSpan,
    joined_by_language,
    language_at,
    language_span_at,
    main_language,
    spoken_languages,
)
from emopipe.extractors.speech.level import gain_of, raised

if TYPE_CHECKING:
    from emopipe.extractors.contracts import SpeechBackend

#: A recogniser is given at most this much at once, in seconds.
LONGEST_WINDOW: Final = 30.0
#: Sound left on both sides of a span of speech, in seconds.
MARGIN: Final = 0.2
#: Windows handed over at once, to be decoded side by side: a decoder step reads all weights, however many share it.
BATCH: Final = 8


@dataclass(frozen=True)
class Transcript:
    """What was said.

    Attributes:
        words: in order.
        language: ISO 639-1 code of the language that is spoken longest; None without words.
        languages: which language is spoken when, in order.
        unsure: spans of speech whose words were dropped, because the recogniser was guessing.
    """

    words: list[Word]
    language: str | None
    languages: list[LanguageSpan]
    unsure: list[Interval]


def speech_windows(segments: Sequence[Interval]) -> list[list[Interval]]:
    """Group spans of speech so that each group spans at most 30 s; a longer span is cut."""
    windows: list[list[Interval]] = []
    longest = LONGEST_WINDOW - 2 * MARGIN
    for start, end in segments:
        pieces = math.ceil((end - start) / longest) or 1
        edges = np.linspace(start, end, pieces + 1).tolist()
        for piece in pairwise(edges):
            if windows and piece[1] - windows[-1][0][0] <= longest:
                windows[-1].append(piece)
            else:
                windows.append([piece])
    return windows


def transcribe(
    samples: Samples,
    turns: Sequence[Turn],
    recogniser: SpeechBackend,
    *,
    language: str = "",
    least_confidence: float = 0.0,
) -> Transcript:
    """Words in turns of speech.

    Args:
        samples: float32 mono at 16 kHz (samples,), the whole clip; read slice by slice.
        turns: of speech, in order of time and apart.
        recogniser: what writes down words.
        language: ISO 639-1 code; "" finds out which language is spoken when.
        least_confidence: a turn yields no words when their mean probability, times that of the language, is lower: the
            recogniser was guessing at a laugh, a sigh, noise, or a language that it hardly knows.

    Returns:
        The transcript; word times are clipped to the turns, and the first and last word of a turn start and end with
        it: voice activity knows a word's outer edges better than attention does.
    """
    if not turns:
        return Transcript([], None, [], [])
    speech = [(turn.start, turn.end) for turn in turns]
    languages = _languages(samples, turns, recogniser, language)
    words: list[Word] = []
    for code, parts in groupby(_cut_at(speech, languages), key=lambda part: language_at(languages, *part)):
        words += _words(samples, speech_windows(list(parts)), recogniser, code or "en")
    told = joined_by_language(languages)
    sure, unsure = _sure(words, speech, told, least_confidence)
    return Transcript(_snapped(sure, speech), main_language(languages) if sure else None, told, unsure)


def transcribe_tracks(
    tracks: Sequence[Samples],
    turns: Sequence[Turn],
    recogniser: SpeechBackend,
    *,
    language: str = "",
    least_confidence: float = 0.0,
) -> Transcript:
    """Words in turns of people each of whom has a track: those of a person are heard on their own track alone.

    Args:
        tracks: float32 mono at 16 kHz (samples,), on one clock; a person's number is that of their track.
        turns: as :func:`emopipe.extractors.speech.separate_tracks.turns_of_tracks` finds them.
        recogniser: what writes down words.
        language: as for :func:`transcribe`.
        least_confidence: as for :func:`transcribe`.

    Returns:
        The transcript; each word, and each span of a language, knows its person.
    """
    whole = joined(turns)
    parts = []
    for person, track in enumerate(tracks):
        own = [turn for turn in whole if turn.person == person]
        samples = raised(track, gain_of(track))
        part = transcribe(samples, own, recogniser, language=language, least_confidence=least_confidence)
        words = [replace(word, person=person) for word in part.words]
        parts.append(replace(part, words=words, languages=[replace(span, person=person) for span in part.languages]))
    words = sorted((word for part in parts for word in part.words), key=lambda word: word.start)
    languages = sorted((span for part in parts for span in part.languages), key=lambda span: span.start)
    unsure = sorted(span for part in parts for span in part.unsure)
    return Transcript(words, main_language(languages) if words else None, languages, unsure)


def _languages(samples: Samples, turns: Sequence[Turn], recogniser: SpeechBackend, language: str) -> list[LanguageSpan]:
    """Which language is spoken when; a given one is kept."""
    if language:
        return [LanguageSpan(turns[0].start, max(turn.end for turn in turns), language, None)]
    return spoken_languages(samples, turns, recogniser, _bounds([(turn.start, turn.end) for turn in turns]))


def _cut_at(speech: Sequence[Interval], languages: Sequence[LanguageSpan]) -> list[Interval]:
    """Spans of speech, cut where the language changes within one."""
    changes = [after.start for before, after in pairwise(languages) if before.language != after.language]
    parts: list[Interval] = []
    for start, end in speech:
        edges = [start, *(change for change in changes if start < change < end), end]
        parts += pairwise(edges)
    return parts


def _bounds(window: Sequence[Interval]) -> Interval:
    """From where to where a recogniser is handed a window."""
    return max(0.0, window[0][0] - MARGIN), window[-1][1] + MARGIN


def _words(
    samples: Samples, windows: Sequence[Sequence[Interval]], recogniser: SpeechBackend, language: str
) -> list[Word]:
    """Words of windows in one language, on the media clock."""
    words: list[Word] = []
    for first in range(0, len(windows), BATCH):
        batch = windows[first : first + BATCH]
        bounds = [_bounds(window) for window in batch]
        sounds = [samples[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)] for start, end in bounds]
        heard = recogniser.listen(sounds, language)
        for (start, _), window, said in zip(bounds, batch, heard, strict=True):
            words += [_placed(word, start, window) for word in said]
    return words


def _placed(word: Word, offset: float, spans: Sequence[Interval]) -> Word:
    """A word on the media clock, clipped to the span of speech that it overlaps most or lies nearest to."""
    start, end = word.start + offset, word.end + offset
    low, high = _home(start, end, spans)
    start = min(max(start, low), high)
    return replace(word, start=start, end=max(start, min(end, high)))


def _home(start: float, end: float, spans: Sequence[Interval]) -> Interval:
    """The span that [start, end] overlaps most, or lies nearest to."""
    return max(spans, key=lambda span: min(end, span[1]) - max(start, span[0]))


def _sure(
    words: Sequence[Word], speech: Sequence[Interval], languages: Sequence[LanguageSpan], least: float
) -> tuple[list[Word], list[Interval]]:
    """Words without those of spans that the recogniser was too unsure of, and those spans."""
    homes = [_home(word.start, word.end, speech) for word in words]
    chances: dict[Interval, list[float]] = {}
    for word, home in zip(words, homes, strict=True):
        chances.setdefault(home, []).append(word.probability)
    unsure = {home for home, its in chances.items() if np.mean(its) * _chance(languages, home) < least}
    return [word for word, home in zip(words, homes, strict=True) if home not in unsure], sorted(unsure)


def _chance(languages: Sequence[LanguageSpan], part: Interval) -> float:
    """The probability of the language of a part of the speech; 1 when it was given."""
    spoken = language_span_at(languages, *part)
    return 1.0 if spoken is None or spoken.probability is None else spoken.probability


def _snapped(words: Sequence[Word], speech: Sequence[Interval]) -> list[Word]:
    """Stretch the first and the last word of each span of speech to the span's edges."""
    snapped = list(words)
    homes = [_home(word.start, word.end, speech) for word in words]
    for index, home in enumerate(homes):
        if index == 0 or homes[index - 1] != home:
            snapped[index] = replace(snapped[index], start=home[0])
        if index == len(homes) - 1 or homes[index + 1] != home:
            snapped[index] = replace(snapped[index], end=home[1])
    return snapped
