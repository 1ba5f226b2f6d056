"""The conformance suite of extractors: the built-in ones pass it, and breaches are found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from emopipe.extractors import testing
from emopipe.extractors.contracts import Word
from emopipe.pipeline.backends import registry as plugins
from emopipe.pipeline.config import ExtractionConfig
from emopipe.pipeline.media.decoding import Media
from tests.conftest import SAMPLES

Weight = Callable[[str], Path]


def made(weight: Weight, kind: str, **settings: Any) -> Any:
    """The backend that the pipeline would make of a configuration."""
    table = ExtractionConfig.from_dict({kind: settings}).as_dict(full=True)[kind]
    return plugins.create(kind, table["backend"], table, weight, "cpu")


@pytest.fixture(scope="module")
def speech() -> list[np.ndarray]:
    with Media(SAMPLES / "interview.mp4") as media:
        sound = media.audio
    assert sound is not None
    return [sound[6 * 16_000 : 10 * 16_000], sound[11 * 16_000 : 15 * 16_000]]


@pytest.mark.parametrize(
    "settings", [{}, {"pooling": "mean", "layers": [-2, -1]}, {"pooling": "first"}], ids=["tokens", "mean", "first"]
)
def test_the_text_encoder_passes(weight: Weight, settings: dict[str, Any]) -> None:
    testing.check_text(made(weight, "text", **settings))


@pytest.mark.slow
def test_two_encoders_by_language_pass(weight: Weight) -> None:
    testing.check_text(made(weight, "text", multilingual="multilingual-e5-small", languages=["en"]))


@pytest.mark.slow
@pytest.mark.parametrize("size", ["whisper-base", "whisper-tiny.en"])
def test_whisper_passes(weight: Weight, speech: list[np.ndarray], size: str) -> None:
    testing.check_speech(made(weight, "speech", asr=size), speech)


@pytest.mark.slow
def test_faster_whisper_passes(weight: Weight, speech: list[np.ndarray]) -> None:
    pytest.importorskip("faster_whisper")
    testing.check_speech(made(weight, "speech", backend="faster-whisper", asr="faster-whisper-base"), speech)


@pytest.mark.slow
def test_the_voice_extractor_passes(weight: Weight) -> None:
    testing.check_voice(made(weight, "voice"))


def test_the_face_landmarker_passes(weight: Weight) -> None:
    with Media(SAMPLES / "happy.mp4") as media:
        picture = next(iter(media.frames(5))).rgb
    testing.check_face(made(weight, "face"), picture)


class Letters:
    """A text encoder with one fault."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.calls = 0

    def feature_names(self) -> list[str]:
        return ["vowel", "vowel" if self.fault == "names" else "length"]

    def encode(self, texts: Sequence[str], language: str | None = None) -> list[np.ndarray]:
        self.calls += 1
        found = [np.array([[c in "aeiou", 1] for c in text], np.float32) for text in texts]
        if self.fault == "type":
            return [one.astype(float) for one in found]
        if self.fault == "empty":
            return [one[one[:, 0] == 1] for one in found]
        if self.fault == "batch":
            return [one + len(texts) for one in found]
        if self.fault == "again":
            return [one + self.calls * (len(texts) > 1) for one in found]
        return found


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("names", "two features have one name"),
        ("type", "no float32 array"),
        ("empty", "there are no vectors"),
        ("batch", "others alone than in a batch"),
        ("again", "others alone|other vectors the second time"),
    ],
)
def test_a_breach_of_a_text_encoder_is_named(fault: str, words: str) -> None:
    testing.check_text(Letters(""))
    with pytest.raises(AssertionError, match=words):
        testing.check_text(Letters(fault))


class Talker:
    """A recogniser that hears one word everywhere."""

    def __init__(self, word: Word, sure: float = 0.9) -> None:
        self.word, self.sure = word, sure

    def languages(self, sounds: Sequence[np.ndarray]) -> list[Mapping[str, float]]:
        return [{"en": self.sure} for _ in sounds]

    def listen(self, sounds: Sequence[np.ndarray], language: str) -> list[list[Word]]:
        return [[self.word] for _ in sounds]


@pytest.mark.parametrize(
    ("word", "words"),
    [
        (Word(" ", 0, 1, 0.5), "no text"),
        (Word(" hm", 0, 1, 1.5), "probability"),
        (Word(" hm", 2, 1, 0.5), "is said from"),
        (Word(" hm", 0, 99, 0.5), "is said from"),
    ],
)
def test_a_breach_of_a_recogniser_is_named(word: Word, words: str) -> None:
    testing.check_speech(Talker(Word(" hm", 0, 1, 0.5)))
    with pytest.raises(AssertionError, match=words):
        testing.check_speech(Talker(word))


def test_what_is_not_a_probability_of_a_language_is_named() -> None:
    with pytest.raises(AssertionError, match="not probabilities of languages"):
        testing.check_speech(Talker(Word(" hm", 0, 1, 0.5), sure=3.0))


def test_a_face_table_of_another_schema_is_named(weight: Weight) -> None:
    landmarker = made(weight, "face")
    still = landmarker.still
    landmarker.still = lambda rgb: pa.table({"time": still(rgb)["time"]})
    with closing(landmarker), pytest.raises(AssertionError, match="schema"):
        testing.check_face(landmarker)
