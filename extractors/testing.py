"""What every extractor must do, as one call for its own tests: ``check_text(create(settings, locate, "cpu"))``.

The contracts are in `contracts.py`. A breach raises AssertionError, in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa

from emopipe.constants import SAMPLE_RATE
from emopipe.extractors.contracts import FaceBackend, SpeechBackend, TextBackend, Turn, VoiceBackend, Word
from emopipe.extractors.face.table import BOX, FEATURE_GROUPS, SCHEMA, feature_columns
from emopipe.extractors.speech.transcript import LONGEST_WINDOW, transcribe

#: Texts of one word, of many, of other scripts and of none that anybody can read.
TEXTS: Final = (
    "no",
    "I am so glad that you came!",
    "word " * 400,
    "我很高兴。",
    "Привет, как дела?",
    "😀 …",
    "a\tb\nc",
)
#: Numbers that are computed in another order may differ by this much.
TOLERANCE: Final = 1e-3


def require(condition: bool, words: str) -> None:
    """Raise AssertionError with these words unless the condition holds."""
    if not condition:
        raise AssertionError(words)


def check_text(encoder: TextBackend, texts: Sequence[str] = TEXTS) -> None:
    """Text: named columns, at least a step for any text, and the same vectors alone, in a batch and again.

    Args:
        encoder: what is tested.
        texts: to test it with.
    """
    width = len(_names(encoder.feature_names()))
    require(encoder.encode([]) == [], "no texts are not answered by an empty list")
    together = encoder.encode(texts)
    require(len(together) == len(texts), f"{len(texts)} texts got {len(together)} answers")
    for text, vectors in zip(texts, together, strict=True):
        what = f"the vectors of {text[:20]!r}"
        _check_matrix(vectors, width, what)
        require(len(vectors) > 0, f"there are no {what[4:]}")
        (alone,) = encoder.encode([text])
        require(_close(alone, vectors), f"{what} are others alone than in a batch")
    require(all(map(_close, encoder.encode(texts), together)), "the same texts get other vectors the second time")
    for language in ("en", "zh", None):
        (vectors,) = encoder.encode(["a text in some language"], language)
        _check_matrix(vectors, width, f"the vectors of a text in the language {language}")


def check_speech(recogniser: SpeechBackend, sounds: Sequence[np.ndarray] = ()) -> None:
    """Speech: words in order inside their sound, the same alone, in a batch and again, and no harm from silence.

    Args:
        recogniser: what is tested.
        sounds: of speech, float32 mono at 16 kHz, at most 30 s each; silence, noise and a click are tested anyway.
    """
    chance = np.random.default_rng(0)
    noise = chance.normal(0, 0.05, SAMPLE_RATE).astype(np.float32)
    silence = np.zeros(2 * SAMPLE_RATE, np.float32)
    given = [*sounds, noise, silence, noise[:400]]
    require(recogniser.listen([], "en") == [], "no sounds are not answered by no words")
    languages = _check_languages(recogniser, given)
    likeliest = max(languages[0], key=lambda code: languages[0][code])
    heard = recogniser.listen(given, likeliest)
    require(len(heard) == len(given), f"{len(given)} sounds got {len(heard)} answers")
    for sound, words in zip(given, heard, strict=True):
        _check_words(words, len(sound) / SAMPLE_RATE)
        (alone,) = recogniser.listen([sound], likeliest)
        require(_same_words(alone, words), f"{_text(words)!r} is heard as {_text(alone)!r} alone")
    again = recogniser.listen(given, likeliest)
    require(all(map(_same_words, again, heard)), "the same sounds get other words the second time")
    _check_windows(recogniser)


def check_voice(extractor: VoiceBackend) -> None:
    """Voice: named columns, steps that fill the utterance, nothing missing, and the same again."""
    width = len(_names(extractor.feature_names()))
    for seconds, window in ((0.3, 1.0), (1.0, 1.0), (7.3, 2.0), (31.0, 10.0)):
        for sound in (_buzz(seconds), np.zeros(round(seconds * SAMPLE_RATE), np.float32)):
            steps = extractor.measure(sound, start=5.0, window=window)
            what = f"the voice features of {seconds} s"
            _check_matrix(steps.features, width, what)
            require(bool(np.isfinite(steps.features).all()), f"{what} are not finite")
            require(len(steps.start) == len(steps.end) == len(steps.features) > 0, f"{what} have not a time per step")
            inside = steps.start[0] >= 5.0 - TOLERANCE and steps.end[-1] <= 5.0 + seconds + TOLERANCE
            require(bool(inside), f"{what} go beyond the utterance")
            require(bool((np.diff(steps.start) > 0).all()), f"{what} are not in order")
            require(bool((steps.end > steps.start).all()), f"a step of {what} has no length")
            same = _close(extractor.measure(sound, start=5.0, window=window).features, steps.features)
            require(same, f"{what} are others the second time")


def check_face(extractor: FaceBackend, picture: np.ndarray | None = None) -> None:
    """Face: the common table whatever is seen, the same again, from clips and pictures of any size, and after closing.

    Args:
        extractor: what is tested; it is closed.
        picture: with one face, uint8 (height, width, 3), which must be found; grey and noise are tested anyway.
    """
    measured = set(extractor.measured)
    require(measured <= set(SCHEMA.names), f"columns that the face table lacks: {sorted(measured - set(SCHEMA.names))}")
    require(bool(feature_columns(FEATURE_GROUPS, measured)), "it measures no feature")
    chance = np.random.default_rng(0)
    pictures = [np.full((90, 120, 3), 128, np.uint8), chance.integers(0, 256, (240, 160, 3)).astype(np.uint8)]
    pictures += [picture] if picture is not None else []
    for one in pictures:
        before = one.copy()
        table = extractor.still(one)
        _check_table(table, 1, measured)
        require(bool((one == before).all()), "it writes into the picture")
        require(_same_table(extractor.still(one), table), "the same picture gives another table the second time")
    if picture is not None:
        require(table.num_rows >= 1, "the face in the picture is not found")
        _check_clip(extractor, picture, measured)
    _check_table(extractor.track([]), 0, measured)
    extractor.close()
    extractor.close()


@dataclass(frozen=True)
class _Frame:
    time: float
    rgb: np.ndarray


def _check_clip(extractor: FaceBackend, picture: np.ndarray, measured: set[str]) -> None:
    blank = np.zeros_like(picture)
    frames = [_Frame(0.2 * index, blank if index == 2 else picture) for index in range(5)]
    table = extractor.track(iter(frames))
    _check_table(table, 5, measured)
    times = set(table["time"].to_pylist())
    require({0.0, 0.2, 0.2 * 4} <= times, f"the face of a still clip is found only at {sorted(times)}")
    require(bool(np.diff(table["time"].to_numpy()).min() >= 0), "the rows are not in order of time")
    biggest = np.bincount(table["track"].to_numpy()).max()
    require(biggest >= 3, "a face that does not move does not keep its track")
    require(_same_table(extractor.track(iter(frames)), table), "the same clip gives another table the second time")


def _check_table(table: pa.Table, frames: int, measured: set[str]) -> None:
    require(table.schema.equals(SCHEMA), f"the schema is not that of the face table: {table.schema.names}")
    facts = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    require({"backend", "version", "frames"} <= set(facts), f"the table's metadata are {facts}")
    require(facts["frames"] == str(frames), f"{frames} frames were shown, the table speaks of {facts['frames']}")
    if not table.num_rows:
        return
    for name in ("time", "track", "quality", *BOX):
        require(table[name].null_count == 0, f"{name} is null")
    for name in set(SCHEMA.names[len(BOX) + 3 :]) - measured:
        require(table[name].null_count == table.num_rows, f"{name} is filled, but not declared as measured")
    quality = table["quality"].to_numpy()
    require(bool(((quality >= 0) & (quality <= 1)).all()), "quality is not between 0 and 1")
    wide = (table["x1"].to_numpy() > table["x0"].to_numpy()) & (table["y1"].to_numpy() > table["y0"].to_numpy())
    require(bool(wide.all()), "a box has no size")


def _same_table(one: pa.Table, two: pa.Table) -> bool:
    if one.num_rows != two.num_rows:
        return False
    return all(_close(one[name].to_numpy().astype(float), two[name].to_numpy().astype(float)) for name in SCHEMA.names)


def _names(names: list[str]) -> list[str]:
    require(bool(names) and all(names), "there are no feature names, or empty ones")
    require(len(set(names)) == len(names), "two features have one name")
    return names


def _check_matrix(values: Any, width: int, what: str) -> None:
    require(isinstance(values, np.ndarray) and values.dtype == np.float32, f"{what} are no float32 array")
    shaped = values.ndim == 2 and values.shape[1] == width
    require(shaped, f"{what} have the shape {values.shape}, not (steps, {width})")
    require(not np.isinf(values).any(), f"{what} are infinite")


def _check_languages(recogniser: SpeechBackend, sounds: Sequence[np.ndarray]) -> list[Mapping[str, float]]:
    """The languages of sounds: codes with probabilities, at least one of each."""
    languages = recogniser.languages(sounds)
    require(len(languages) == len(sounds), f"the languages of {len(sounds)} sounds are {len(languages)} answers")
    for chances in languages:
        require(bool(chances) and all(code for code in chances), f"{chances!r} names no language")
        likely = all(0 <= chance <= 1 for chance in chances.values()) and sum(chances.values()) <= 1 + TOLERANCE
        require(likely, f"{chances!r} are not probabilities of languages")
    return languages


def _check_words(words: Sequence[Word], seconds: float) -> None:
    for word in words:
        require(bool(word.text.strip()), "a word has no text")
        require(0 <= word.probability <= 1, f"the probability of {word.text!r} is {word.probability}")
        inside = 0 <= word.start <= word.end <= LONGEST_WINDOW
        require(inside, f"{word.text!r} is said from {word.start} to {word.end} s in a sound of {seconds} s")
    require(all(a.start <= b.start for a, b in pairwise(words)), "words are not in order of time")


def _text(words: Sequence[Word]) -> str:
    return "".join(word.text for word in words)


def _same_words(one: Sequence[Word], two: Sequence[Word]) -> bool:
    times = [np.array([(word.start, word.end, word.probability) for word in words]) for words in (one, two)]
    return _text(one) == _text(two) and _close(*times)


def _check_windows(recogniser: SpeechBackend) -> None:
    """It does its work inside the pipeline: on a sound longer than it is ever given at once."""
    turns = [Turn(0.5, 1.5, 0), Turn(20.0, 34.0, 0)]
    transcript = transcribe(_buzz(35.0), turns, recogniser)
    for word in transcript.words:
        inside = any(turn.start - TOLERANCE <= word.start <= word.end <= turn.end + TOLERANCE for turn in turns)
        require(inside, f"{word.text!r} is placed outside the spans of speech")


def _buzz(seconds: float) -> np.ndarray:
    """A voice-like buzz: a pulse train with a slow rise and fall."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tones = sum(np.sin(2 * np.pi * 120 * harmonic * time) / harmonic for harmonic in range(1, 20))
    sound: np.ndarray = (0.1 * tones * (1 + np.sin(2 * np.pi * 3 * time))).astype(np.float32)
    return sound


def _close(one: np.ndarray, two: np.ndarray) -> bool:
    return one.shape == two.shape and np.allclose(one, two, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
