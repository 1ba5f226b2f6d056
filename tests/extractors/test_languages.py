"""Which language is spoken when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emopipe.extractors.contracts import Turn, Word
from emopipe.extractors.speech.languages import (
    LanguageSpan,
    joined_by_language,
    language_at,
    main_language,
    smoothed,
    speech_stretches,
)
from emopipe.extractors.speech.transcript import transcribe

RATE = 16_000
#: How sure a recogniser is of English, German and Welsh.
EN, DE, UNSURE = {"en": 0.98, "de": 0.01}, {"de": 0.97, "en": 0.02}, {"cy": 0.64, "en": 0.33, "de": 0.01}


def test_a_stretch_in_another_language_is_found_and_an_unsure_or_short_one_is_not() -> None:
    assert smoothed([EN, EN, DE, DE], [8.0] * 4) == ["en", "en", "de", "de"]
    assert smoothed([EN, DE, EN], [8.0] * 3) == ["en", "de", "en"]
    assert smoothed([EN, UNSURE, EN], [8.0] * 3) == ["en", "en", "en"]
    assert smoothed([EN, DE, EN], [8.0, 0.5, 8.0]) == ["en", "en", "en"]
    assert smoothed([UNSURE], [1.0]) == ["cy"]


def test_a_recogniser_of_few_languages_names_no_others() -> None:
    assert smoothed([{"en": 1.0}, {"en": 1.0}], [3.0, 3.0]) == ["en", "en"]


@given(st.lists(st.tuples(st.floats(0.0, 3.0), st.floats(0.05, 60.0), st.integers(0, 2)), min_size=1, max_size=20))
def test_stretches_hold_all_speech_and_none_is_long(steps: list[tuple[float, float, int]]) -> None:
    turns, now = [], 0.0
    for gap, length, person in steps:
        turns.append(Turn(now + gap, now + gap + length, person))
        now += gap + length
    stretches = speech_stretches(turns)
    assert sum(t.end - t.start for s in stretches for t in s) == pytest.approx(sum(t.end - t.start for t in turns))
    assert all(sum(turn.end - turn.start for turn in stretch) < 24.0 for stretch in stretches)
    assert all(a[-1].end <= b[0].start + 1e-9 for a, b in pairwise(stretches))


def test_spans_are_joined_by_language_and_the_longest_is_the_main_one() -> None:
    spans = [LanguageSpan(0, 4, "en", 0.9), LanguageSpan(5, 6, "en", 0.4), LanguageSpan(7, 15, "de", 0.8)]
    joined = joined_by_language(spans)
    assert joined == [LanguageSpan(0, 6, "en", 0.8), LanguageSpan(7, 15, "de", 0.8)]
    assert main_language(joined) == "de" and main_language([]) is None
    assert language_at(joined, 6.1, 6.3) == "en" and language_at([], 0, 1) is None


class Bilingual:
    """Hears German where the sound is loud and English where it is soft, and writes down the language it was told."""

    def __init__(self, sure: float = 0.97) -> None:
        self.sure, self.told = sure, []  # type: tuple[float, list[tuple[str, float]]]

    def languages(self, sounds: Sequence[np.ndarray]) -> list[Mapping[str, float]]:
        loud = [float(np.median(np.abs(sound))) > 0.5 for sound in sounds]
        return [{"de" if one else "en": self.sure, "en" if one else "de": 0.01} for one in loud]

    def listen(self, sounds: Sequence[np.ndarray], language: str) -> list[list[Word]]:
        self.told += [(language, len(sound) / RATE) for sound in sounds]
        return [[Word(f" {language}", 0.2, len(sound) / RATE - 0.2, 0.8)] for sound in sounds]


def sound_of(*levels: tuple[float, float]) -> np.ndarray:
    return np.concatenate([np.full(round(seconds * RATE), level, np.float32) for seconds, level in levels])


#: Twelve seconds of English and, without a pause, twenty of German.
MIXED = sound_of((12.0, 0.1), (20.0, 0.9))


def test_windows_end_where_the_language_changes() -> None:
    recogniser = Bilingual()
    turns = [Turn(0.0, 5.0, 0), Turn(5.5, 12.0, 0), Turn(12.0, 31.0, 1)]
    transcript = transcribe(MIXED, turns, recogniser)
    assert {language for language, _ in recogniser.told} == {"en", "de"}
    assert [(span.start, span.end, span.language) for span in transcript.languages] == [
        (0.0, 12.0, "en"),
        (12.0, 31.0, "de"),
    ]
    assert transcript.language == "de"
    assert all((word.text == " en") == (word.end <= 12.0) for word in transcript.words)


def test_a_given_language_is_kept_and_not_looked_for() -> None:
    recogniser = Bilingual()
    transcript = transcribe(MIXED, [Turn(0.0, 31.0, 0)], recogniser, language="fr")
    assert {language for language, _ in recogniser.told} == {"fr"}
    assert transcript.languages == [LanguageSpan(0.0, 31.0, "fr", None)] and transcript.language == "fr"


def test_words_in_a_language_that_the_recogniser_is_unsure_of_are_dropped_and_told() -> None:
    turns = [Turn(0.0, 5.0, 0)]
    sure = transcribe(MIXED, turns, Bilingual(), least_confidence=0.3)
    assert [word.text for word in sure.words] == [" en"] and sure.unsure == []
    unsure = transcribe(MIXED, turns, Bilingual(sure=0.3), least_confidence=0.3)
    assert unsure.words == [] and unsure.unsure == [(0.0, 5.0)] and unsure.language is None
    assert [(span.language, span.probability) for span in unsure.languages] == [("en", 0.3)]
    everything = transcribe(MIXED, turns, Bilingual(sure=0.3), least_confidence=0.0)
    assert len(everything.words) == 1
