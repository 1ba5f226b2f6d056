"""Words on the media clock, from any recogniser, only where a voice was detected, so that silence yields no words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from emopipe.constants import SAMPLE_RATE
from emopipe.extractors.contracts import Samples, Word

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
    """Words in order, the language that was spoken (ISO 639-1, None without speech)."""

    words: list[Word]
    language: str | None


def speech_windows(segments: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Group spans of speech so that each group spans at most 30 s; a longer span is cut."""
    windows: list[list[tuple[float, float]]] = []
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
    segments: Sequence[tuple[float, float]],
    recogniser: SpeechBackend,
    *,
    language: str | None = None,
    least_confidence: float = 0.0,
) -> Transcript:
    """Words in the given spans of speech.

    Args:
        samples: float32 mono at 16 kHz (samples,), the whole clip; read slice by slice.
        segments: spans of speech in seconds.
        recogniser: what writes down words.
        language: ISO 639-1 code, or None to detect it on the first window and keep it.
        least_confidence: a span of speech whose words have a lower mean probability yields no words: the recogniser
            was guessing at a laugh, a sigh or noise.

    Returns:
        The transcript; word times are clipped to the spans of speech, and the first and last word of a span start
        and end with it: voice activity knows a word's outer edges better than attention does.
    """
    words: list[Word] = []
    windows = speech_windows(segments)
    for first in range(0, len(windows), BATCH):
        batch = windows[first : first + BATCH]
        starts = [max(0.0, window[0][0] - MARGIN) for window in batch]
        ends = [window[-1][1] + MARGIN for window in batch]
        sounds = [samples[int(a * SAMPLE_RATE) : int(b * SAMPLE_RATE)] for a, b in zip(starts, ends, strict=True)]
        heard, language = recogniser.listen(sounds, language)
        for start, window, said in zip(starts, batch, heard, strict=True):
            words += [_placed(word, start, window) for word in said]
    words = _sure(words, segments, least_confidence)
    return Transcript(_snapped(words, segments), language if words else None)


def _placed(word: Word, offset: float, spans: Sequence[tuple[float, float]]) -> Word:
    """A word on the media clock, clipped to the span of speech that it overlaps most or lies nearest to."""
    start, end = word.start + offset, word.end + offset
    low, high = _home(start, end, spans)
    start = min(max(start, low), high)
    return replace(word, start=start, end=max(start, min(end, high)))


def _home(start: float, end: float, spans: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The span that [start, end] overlaps most, or lies nearest to."""
    return max(spans, key=lambda span: min(end, span[1]) - max(start, span[0]))


def _sure(words: Sequence[Word], segments: Sequence[tuple[float, float]], least: float) -> list[Word]:
    """Words without those of spans in which the mean probability is below `least`."""
    homes = [_home(word.start, word.end, segments) for word in words]
    chances: dict[tuple[float, float], list[float]] = {}
    for word, home in zip(words, homes, strict=True):
        chances.setdefault(home, []).append(word.probability)
    return [word for word, home in zip(words, homes, strict=True) if np.mean(chances[home]) >= least]


def _snapped(words: Sequence[Word], segments: Sequence[tuple[float, float]]) -> list[Word]:
    """Stretch the first and the last word of each span of speech to the span's edges."""
    snapped = list(words)
    homes = [_home(word.start, word.end, segments) for word in words]
    for index, home in enumerate(homes):
        if index == 0 or homes[index - 1] != home:
            snapped[index] = replace(snapped[index], start=home[0])
        if index == len(homes) - 1 or homes[index + 1] != home:
            snapped[index] = replace(snapped[index], end=home[1])
    return snapped
