"""Words, utterances, and silence that stays silent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emopipe.extractors.contracts import Word
from emopipe.extractors.speech.diarize import one_speaker
from emopipe.extractors.speech.transcript import speech_windows, transcribe
from emopipe.extractors.speech.utterances import fixed_windows, split_utterances
from emopipe.extractors.speech.vad import VoiceActivity
from emopipe.extractors.speech.whisper import WhisperRecogniser, load_whisper
from emopipe.pipeline.media.decoding import Media
from tests.conftest import SAMPLES

segments = st.lists(st.tuples(st.floats(0.05, 5), st.floats(0.1, 70)), max_size=20).map(
    lambda steps: [
        (sum(a + b for a, b in steps[:i]) + gap, sum(a + b for a, b in steps[:i]) + gap + length)
        for i, (gap, length) in enumerate(steps)
    ]
)


@given(segments)
def test_speech_windows_hold_all_speech_and_stay_under_thirty_seconds(spans: list[tuple[float, float]]) -> None:
    windows = speech_windows(spans)
    for window in windows:
        assert window[-1][1] - window[0][0] <= 30
    assert sum(b - a for w in windows for a, b in w) == pytest.approx(sum(b - a for a, b in spans))


def said(text: str, *times: float) -> list[Word]:
    """Words of a text with a start time each, every one 0.3 s long."""
    return [Word(f" {word}", t, t + 0.3, 0.9) for word, t in zip(text.split(), times, strict=True)]


def test_utterances_end_at_sentence_ends_and_pauses() -> None:
    words = said("I came. Then we left and it rained", 0, 0.3, 0.6, 0.9, 1.2, 3.0, 3.3, 3.6)
    spans = split_utterances(words, pause=0.6, longest=15)
    assert [span.text for span in spans] == ["I came.", "Then we left", "and it rained"]
    assert [(span.start, span.end) for span in spans] == [(0, 0.6), (0.6, 1.5), (3.0, pytest.approx(3.9))]


@pytest.mark.parametrize("first", ["नमस्ते।", "اچھا۔", "أين؟", "Ինչ։", "እሺ።", "ဟုတ်ကဲ့။", "បាទ។", "Τι;", "そう。"])
def test_utterances_end_where_sentences_of_other_scripts_do(first: str) -> None:
    spans = split_utterances(said(f"{first} x", 0, 0.3), pause=0.6, longest=15)
    assert [span.text for span in spans] == [first, "x"]


def test_a_latin_semicolon_ends_no_utterance() -> None:
    assert len(split_utterances(said("So; then", 0, 0.3), pause=0.6, longest=15)) == 1


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0.05, 1), st.booleans()), max_size=60))
def test_splitting_keeps_every_word_in_order_and_respects_the_longest(steps: list[tuple[float, float, bool]]) -> None:
    words, now = [], 0.0
    for gap, length, ends in steps:
        words.append(Word(" x." if ends else " x", now + gap, now + gap + length, 1.0))
        now += gap + length
    spans = split_utterances(words, pause=0.6, longest=5.0)
    assert [word for span in spans for word in span.words] == words
    assert all(span.end - span.start <= 5.0 or len(span.words) == 1 for span in spans)


def test_fixed_windows_fill_the_clip() -> None:
    assert [(s.start, s.end) for s in fixed_windows(12.0, 5.0)] == [(0, 6), (6, 12)]
    assert len(fixed_windows(2.0, 5.0)) == 1
    assert fixed_windows(0.0, 5.0) == []


def test_silence_noise_and_hum_hold_no_speech(weight: Callable[[str], Path]) -> None:
    vad = VoiceActivity(weight("silero-vad"))
    rng = np.random.default_rng(0)
    hum = 0.2 * np.sin(2 * np.pi * 50 * np.arange(48_000) / 16_000)
    for sound in (np.zeros(48_000), rng.normal(0, 0.05, 48_000), hum, np.zeros(100)):
        assert vad.segments(sound.astype(np.float32)) == []


@pytest.mark.slow
def test_the_words_of_the_interview_are_heard_where_they_are(weight: Callable[[str], Path]) -> None:
    """The sample's own timeline is the truth; speech starts and ends within 0.4 s of it."""
    with Media(SAMPLES / "interview.mp4") as media:
        sound = media.audio
    assert sound is not None
    vad = VoiceActivity(weight("silero-vad"))
    recogniser = WhisperRecogniser(load_whisper(weight("whisper-base"), "cpu"))
    transcript = transcribe(sound, one_speaker(vad.segments(sound)), recogniser)
    assert transcript.language == "en"
    text = "".join(word.text for word in transcript.words).lower()
    for phrase in ("good morning", "swimming race", "our old dog died", "not fair", "snowing in may", "on monday"):
        assert phrase in text
    spans = split_utterances(transcript.words, pause=0.6, longest=15)
    dog = next(span for span in spans if "dog died" in span.text)
    assert dog.start == pytest.approx(11.2, abs=0.4)
    assert transcribe(sound, [], recogniser).words == []
