"""Speech through the pipeline: reasons for missing words, languages, people, and quiet recordings."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from emopipe.extractors.contracts import Span, Turn, Word
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.config import ExtractionConfig, SpeechConfig
from emopipe.pipeline.media.decoding import Media
from emopipe.pipeline.records import Source
from emopipe.pipeline.stages.speech import SPEECH, UTTERANCES, WORDS, language_spoken
from emopipe.pipeline.stages.text import TEXT
from tests.conftest import ROOT, SAMPLES, write_media
from tests.pipeline.media.test_streams import write_tracks

ODD, DATA = ROOT.parent / "shared" / "odd", ROOT.parent / "shared" / "data"
RATE = 16_000


class Fakes:
    """Backends that hear speech everywhere, write down what they are told to, and give a vector to each text."""

    languages: tuple[str, ...] = ("en",)

    def __init__(self, words: Sequence[Word] = (), chances: Mapping[str, float] | None = None) -> None:
        self.recogniser = Recogniser(words, chances or {"en": 0.99})
        self.heard: list[float] = []
        self.read: list[tuple[str, str | None]] = []

    @property
    def vad(self) -> Any:
        return self

    @property
    def asr(self) -> Any:
        return self.recogniser

    @property
    def text(self) -> Any:
        return self

    def segments(self, samples: Any) -> list[tuple[float, float]]:
        self.heard.append(float(np.abs(samples[0 : len(samples)]).max()))
        return [(0.0, len(samples) / RATE)]

    def encode(self, texts: Sequence[str], language: str | None = None) -> list[np.ndarray]:
        self.read += [(text, language) for text in texts]
        return [np.ones((1, 2), np.float32) for _ in texts]


class Recogniser:
    def __init__(self, words: Sequence[Word], chances: Mapping[str, float]) -> None:
        self._words, self._chances = words, chances

    def languages(self, sounds: Sequence[np.ndarray]) -> list[Mapping[str, float]]:
        return [self._chances for _ in sounds]

    def listen(self, sounds: Sequence[np.ndarray], language: str) -> list[list[Word]]:
        return [list(self._words) for _ in sounds]


def computed(
    stage: Any, values: Mapping[str, Any], backends: Any = None, config: ExtractionConfig | None = None
) -> Any:
    made: dict[str, Any] = stage.compute(values.__getitem__, config or ExtractionConfig(), backends, lambda event: None)
    return made


SPEECH_OF_TWO: dict[str, Any] = {
    "source": Source("a"),
    "sound": np.zeros(9 * RATE, np.float32),
    "tracks": [],
    "track_turns": [],
    "gain": 1.0,
    "speech": [(0.5, 4.0), (5.0, 8.5)],
    "turns": [Turn(0.5, 4.0, 0), Turn(5.0, 8.5, 1)],
    "duration": 9.0,
    "labelled": False,
    "wanted": frozenset({"text"}),
}


def heard(backends: Fakes, **more: Any) -> dict[str, Any]:
    """What the stages from words to text make of eight seconds of speech of two people."""
    values = {**SPEECH_OF_TWO, **more}
    for stage in (WORDS, UTTERANCES, TEXT):
        values |= computed(stage, values, backends)
    values["text"] = list(values["text"])
    return values


SURE = (Word(" hello", 0.4, 1.0, 0.9), Word(" you.", 1.2, 3.0, 0.9))


def test_speech_without_words_says_that_none_were_written_down() -> None:
    values = heard(Fakes(SURE))
    assert [(span.text, span.person) for span in values["spans"]] == [("hello you.", 0), ("", 1)]
    assert values["text"][1].reason == "no_words" and values["word_warnings"] == []


def test_unsure_words_are_told_with_their_language() -> None:
    values = heard(Fakes(SURE, {"ms": 0.31, "vi": 0.2}))
    assert {one.reason for one in values["text"]} == {"words_unsure", "no_words"}
    assert values["language"] is None and values["languages"][0]["language"] == "ms"
    (warning,) = values["word_warnings"]
    assert (warning.code, warning.modality) == ("words_unsure", "text")
    assert "3.5 of 7.0 s" in warning.what and "ms, 31 % sure" in warning.what


def test_only_silence_is_called_no_speech() -> None:
    silent = {"speech": [], "turns": [], "sound": np.zeros(9 * RATE, np.float32)}
    assert {one.reason for one in heard(Fakes(), **silent)["text"]} == {"no_speech"}
    assert {one.reason for one in heard(Fakes(), **silent | {"speech": None, "sound": None})["text"]} == {
        "no_audio_stream"
    }


class RecogniserOfTracks(Recogniser):
    """Hears German and a German word in loud sound, English in faint sound."""

    def languages(self, sounds: Sequence[np.ndarray]) -> list[Mapping[str, float]]:
        return [{"de": 0.9, "en": 0.1} if sound.mean() > 0.2 else {"en": 0.9, "de": 0.1} for sound in sounds]

    def listen(self, sounds: Sequence[np.ndarray], language: str) -> list[list[Word]]:
        return [[Word(f" {language}.", 0.2, 1.0, 0.9)] for _ in sounds]


@pytest.mark.parametrize("shift", [-1.0, -0.2, 0.0, 0.2, 1.0])
def test_people_who_talk_at_once_on_tracks_of_their_own_keep_their_languages(shift: float) -> None:
    """The other person's speech covers more of an utterance than the stretches of its own speaker do."""
    turns = [Turn(2.0, 5.0, 0, True), Turn(2.0 + shift, 5.0 + 2 * shift, 1, True), Turn(7.0, 8.0, 0), Turn(8.5, 8.9, 1)]
    values = {
        **SPEECH_OF_TWO,
        "turns": sorted(turns, key=lambda turn: turn.start),
        "track_turns": turns,
        "tracks": [np.full(9 * RATE, level, np.float32) for level in (0.1, 0.3)],
    }
    backends = Fakes()
    backends.recogniser, backends.languages = RecogniserOfTracks((), {}), ("en", "de")
    for stage in (WORDS, UTTERANCES, TEXT):
        values |= computed(stage, values, backends)
    list(values["text"])
    assert {(span.person, span.text) for span in values["spans"] if span.text} == {(0, "en."), (1, "de.")}
    assert {(text, language) for text, language in backends.read} == {("en.", "en"), ("de.", "de")}
    for span in values["spans"]:
        assert language_spoken(span, values["languages"]) == ("en", "de")[span.person]


IN_TWO_LANGUAGES: dict[str, Any] = {
    "source": Source("a"),
    "speech": [(0.0, 8.0)],
    "spans": [Span(0, 2, "one", person=0), Span(3, 5, "zwei", person=1), Span(6, 8, "drei", person=1)],
    "language": "de",
    "languages": [
        {"start": 0.0, "end": 2.5, "language": "en", "probability": 0.9},
        {"start": 2.6, "end": 8.0, "language": "de", "probability": 0.9},
    ],
    "unsure": [],
    "wanted": frozenset({"text"}),
}


def test_each_text_is_read_in_its_own_language() -> None:
    backends, other = Fakes(), Fakes()
    backends.languages = other.languages = ("en", "de")
    made = list(computed(TEXT, IN_TWO_LANGUAGES, backends)["text"])
    assert len(made) == 3 and all(len(one.features) for one in made)
    assert backends.read == [("one", "en"), ("zwei", "de"), ("drei", "de")]
    config = ExtractionConfig(speech=SpeechConfig(language="en"))
    given = computed(TEXT, IN_TWO_LANGUAGES | {"languages": []}, other, config)
    assert len(list(given["text"])) == 3 and [language for _, language in other.read] == ["de"] * 3


def test_words_in_a_language_that_is_not_read_are_left_out_and_told() -> None:
    backends = Fakes()
    silent = Span(9, 10, "", person=1)
    made = computed(TEXT, IN_TWO_LANGUAGES | {"spans": [*IN_TWO_LANGUAGES["spans"], silent]}, backends)
    read, *left_out = made["text"]
    assert len(read.features) and backends.read == [("one", "en")]
    assert [one.reason for one in left_out] == ["language_not_read", "language_not_read", "no_speech"]
    (warning,) = made["text_warnings"]
    assert warning.code == "language_not_read" and "'de'" in warning.what and "reads only en" in warning.what


def test_a_quiet_recording_is_raised_before_it_is_listened_to() -> None:
    loud = 0.3 * np.sin(np.arange(3 * RATE) / 10).astype(np.float32)
    backends = Fakes()
    for sound in (loud, loud / 1000):
        made = computed(SPEECH, {"sound": sound, "sound_faults": []}, backends)
    assert backends.heard == [pytest.approx(0.3, abs=0.01), pytest.approx(0.11, abs=0.02)]
    assert made["gain"] == pytest.approx(375, rel=0.1)


# Real recordings


def run(path: Path, folder: Path, *options: str) -> dict[str, Any]:
    """The JSON that a user gets."""
    result = CliRunner().invoke(app, ["run", str(path), "--out", str(folder), "--no-store", "--jobs", "1", *options])
    assert result.exit_code == 0, result.output
    facts: dict[str, Any] = json.loads((folder / f"{path.stem}.json").read_text("utf-8"))
    return facts


def odd(name: str) -> Path:
    if not (ODD / name).is_file():
        pytest.skip(f"{name} is not here")
    return ODD / name


@pytest.mark.slow
def test_the_second_person_is_heard_in_their_own_language(tmp_path: Path) -> None:
    facts = run(odd("07c_english_32s_then_german.flac"), tmp_path, "--modalities", "text,voice")
    assert [part["language"] for part in facts["info"]["languages"]] == ["en", "de"]
    assert facts["info"]["languages"][1]["start"] == pytest.approx(32.6, abs=1.0)
    assert len(facts["people"]) == 2
    german = " ".join(row["text"] for row in facts["utterances"] if row["start"] > 32).lower()
    assert "guten morgen" in german and "wütend" in german
    for turn in facts["turns"]:
        inside = [row for row in facts["utterances"] if row["start"] < turn["end"] and row["end"] > turn["start"]]
        covered = sum(min(row["end"], turn["end"]) - max(row["start"], turn["start"]) for row in inside)
        assert covered == pytest.approx(turn["end"] - turn["start"], abs=0.01)
    page = (tmp_path / "07c_english_32s_then_german.html").read_text("utf-8")
    assert "de 0:3" in page


@pytest.mark.slow
def test_two_women_on_the_telephone_are_two_people_and_the_doubt_is_told(tmp_path: Path) -> None:
    facts = run(odd("telephone_two_women.flac"), tmp_path, "--modalities", "text,voice")
    assert len(facts["people"]) == 2 and min(person["talk"] for person in facts["people"]) > 5
    assert "people_unsure" in [reason["code"] for reason in facts["reasons"]]


@pytest.mark.slow
def test_words_in_a_language_that_is_hardly_known_are_unsure(tmp_path: Path) -> None:
    if not (DATA / "javased.zip").is_file():
        pytest.skip("javased.zip is not here")
    with zipfile.ZipFile(DATA / "javased.zip") as archive:
        archive.extract("01-02-03-01.mp4", tmp_path)
    facts = run(tmp_path / "01-02-03-01.mp4", tmp_path / "out", "--modalities", "text,voice")
    assert {row["absent"]["text"] for row in facts["utterances"]} == {"words_unsure"}
    (told,) = [reason for reason in facts["reasons"] if reason["modality"] == "text"]
    assert told["code"] == "words_unsure" and "% sure" in told["what"]
    assert facts["info"]["languages"][0]["probability"] < 0.5


@pytest.mark.slow
def test_a_recording_that_is_40_db_quieter_gives_the_same_people_and_words(tmp_path: Path) -> None:
    with Media(SAMPLES / "interview.mp4") as media:
        sound = np.asarray(media.audio)
    write_media(tmp_path / "plain.wav", sound=sound)
    write_media(tmp_path / "quiet.wav", sound=sound / 100)
    plain, quiet = (run(tmp_path / f"{name}.wav", tmp_path / name) for name in ("plain", "quiet"))
    assert len(plain["people"]) == len(quiet["people"]) == 1
    words, soft = (
        "".join(c for row in facts["utterances"] for c in row["text"].lower() if c.isalpha())
        for facts in (plain, quiet)
    )
    assert soft == words
    assert {reason["code"] for reason in quiet["reasons"]} == {reason["code"] for reason in plain["reasons"]}


#: Samples to a pause in the voice.
LONG = round(10.5 * RATE)


def apart(folder: Path) -> Path:
    """A recording of two microphones, each with the other person 20 dB fainter; they speak in turn."""
    with Media(SAMPLES / "interview.mp4") as media:
        voice = np.asarray(media.audio)[:LONG]
    tracks = [np.zeros(2 * LONG, np.float32) for _ in range(2)]
    tracks[0][:LONG] += voice
    tracks[1][LONG:] += voice
    mixed = [(own + other / 10).repeat(3) for own, other in (tracks, tracks[::-1])]
    return write_tracks(folder / "two.mkv", mixed)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--diarizer", "none")])
def test_with_tracks_of_speakers_each_track_is_a_person(tmp_path: Path, options: tuple[str, ...]) -> None:
    path = apart(tmp_path)
    facts = run(path, tmp_path / "out", "--tracks", "speakers", "--modalities", "text,voice", *options)
    assert [person["name"] for person in facts["people"]] == ["S1", "S2"]
    first, second = ([row for row in facts["utterances"] if row["speaker"] == name] for name in ("S1", "S2"))
    assert max(row["end"] for row in first) <= 10.8 and min(row["start"] for row in second) >= 10.2
    heard = ["".join(c for row in rows for c in row["text"].lower() if c.isalpha()) for rows in (first, second)]
    assert heard[0] == heard[1] != ""
    assert not any(reason["code"] == "people_unsure" for reason in facts["reasons"])


@pytest.mark.slow
def test_of_several_tracks_one_can_be_chosen_by_number(tmp_path: Path) -> None:
    facts = run(apart(tmp_path), tmp_path / "out", "--tracks", "2", "--modalities", "voice")
    assert [stream["used"] for stream in facts["info"]["streams"]] == [False, True]


def test_tracks_that_cannot_be_meant_are_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["run", str(apart(tmp_path)), "--tracks", "all", "--no-store"])
    assert result.exit_code != 0 and "tracks" in result.output
