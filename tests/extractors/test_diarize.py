"""Who speaks when: on made-up voices, whose vectors are known."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emopipe.extractors.contracts import Turn, VoiceEncoder
from emopipe.extractors.speech.campplus import CampPlus
from emopipe.extractors.speech.diarize import (
    VoiceClusters,
    _clusters,
    cut_pieces,
    joined,
    merged,
    one_speaker,
    overlap_share,
    smoothest,
    step_times,
    turns_of,
    voice_of,
)
from emopipe.extractors.speech.pyannote import Pyannote, exclusive_turns
from emopipe.extractors.speech.speakers import GE2E, SpeakerEncoder, equally_long, unit
from emopipe.pipeline.media.decoding import Media
from tests.conftest import SAMPLES

SOUND = np.zeros(0, np.float32)
#: Seconds of a conversation of two: start, end, who.
TALK = [(0.5, 4.0, 0), (4.3, 12.0, 1), (12.4, 15.0, 0), (15.2, 27.0, 1), (27.3, 30.0, 0), (30.2, 40.0, 1)]


class KnownVoices:
    """An encoder that hears who speaks in the middle of a piece.

    Args:
        talk: start, end and number of the speaker.
        alike: cosine of two different speakers.
        noise: length of a random vector added to each piece's.
    """

    likeness = GE2E

    def __init__(self, talk: Sequence[tuple[float, float, int]], alike: float = 0.6, noise: float = 0.3) -> None:
        self._talk, self._noise = talk, noise
        rng = np.random.default_rng(0)
        axes = np.linalg.qr(rng.normal(size=(64, 8)))[0].T
        self._voices = np.sqrt(alike) * axes[0] + np.sqrt(1 - alike) * axes[1:]
        self._rng = rng

    def embed(self, samples: Any, pieces: Sequence[tuple[float, float]]) -> np.ndarray:
        vectors = []
        for start, end in pieces:
            shares = np.array([max(0.0, min(end, b) - max(start, a)) for a, b, _ in self._talk])
            voice = sum(share * self._voices[who] for share, (*_, who) in zip(shares, self._talk, strict=True))
            noise = self._rng.normal(size=64)
            vectors.append(unit(np.asarray(voice)[None])[0] + self._noise * noise / np.linalg.norm(noise))
        return unit(np.array(vectors)).astype(np.float32)


def speech_of(talk: Sequence[tuple[float, float, int]]) -> list[tuple[float, float]]:
    return [(start, end) for start, end, _ in talk]


def wrong_seconds(turns: Sequence[Turn], talk: Sequence[tuple[float, float, int]]) -> float:
    """Seconds of speech given to another person; people are numbered in the order of first words."""
    right = sum(
        max(0.0, min(turn.end, end) - max(turn.start, start))
        for turn in turns
        for start, end, who in talk
        if turn.person == who
    )
    return sum(end - start for start, end, _ in talk) - right


class CountedVoices(KnownVoices):
    """Notes what it is asked for, and says the same of a piece whenever it is asked."""

    def __init__(self, talk: Sequence[tuple[float, float, int]], **more: float) -> None:
        super().__init__(talk, **more)
        self.asked: list[tuple[float, float]] = []

    def embed(self, samples: Any, pieces: Sequence[tuple[float, float]]) -> np.ndarray:
        self.asked += pieces
        return np.concatenate([self._alone(samples, piece) for piece in pieces])

    def _alone(self, samples: Any, piece: tuple[float, float]) -> np.ndarray:
        self._rng = np.random.default_rng(round(1000 * piece[0]))
        return super().embed(samples, [piece])


@pytest.mark.parametrize("several_seen", [False, True])
def test_what_was_prepared_is_not_embedded_again_and_changes_nothing(several_seen: bool) -> None:
    encoder = CountedVoices(TALK, alike=0.6, noise=0.3)
    clusters, speech = VoiceClusters(encoder), speech_of(TALK)
    expected = clusters.turns(SOUND, speech, several_seen=several_seen)
    needed, encoder.asked = encoder.asked, []
    clusters.prepare(SOUND, speech)
    prepared, encoder.asked = encoder.asked, []
    assert clusters.turns(SOUND, speech, several_seen=several_seen) == expected
    assert sorted(encoder.asked) == sorted(set(needed) - set(prepared))
    assert len(set(prepared) & set(needed)) > 0.5 * len(needed)


def test_what_was_prepared_of_another_sound_is_not_used() -> None:
    encoder = CountedVoices(TALK)
    clusters, speech = VoiceClusters(encoder), speech_of(TALK)
    clusters.prepare(SOUND, speech)
    encoder.asked = []
    clusters.turns(SOUND.copy(), speech)
    assert encoder.asked


def test_two_voices_are_told_apart_and_counted() -> None:
    found = VoiceClusters(KnownVoices(TALK)).turns(SOUND, speech_of(TALK))
    assert {turn.person for turn in found.turns} == {0, 1} and found.doubt == ""
    assert wrong_seconds(found.turns, TALK) < 1.0


def test_one_voice_in_different_moods_stays_one_person() -> None:
    found = VoiceClusters(KnownVoices(TALK, alike=0.93)).turns(SOUND, speech_of(TALK))
    assert found.turns == one_speaker(speech_of(TALK)) and found.doubt == ""


def test_three_voices_are_counted() -> None:
    talk = [(start, end, index % 3) for index, (start, end, _) in enumerate(TALK)]
    turns = VoiceClusters(KnownVoices(talk, alike=0.4)).turns(SOUND, speech_of(talk)).turns
    assert {turn.person for turn in turns} == {0, 1, 2} and wrong_seconds(turns, talk) < 1.5


@pytest.mark.parametrize(("alike", "people", "words"), [(0.8, 2, "two voices"), (0.83, 1, "one voice")])
def test_a_close_call_between_one_person_and_two_is_told(alike: float, people: int, words: str) -> None:
    found = VoiceClusters(KnownVoices(TALK, alike=alike, noise=0.1)).turns(SOUND, speech_of(TALK))
    assert {turn.person for turn in found.turns} == set(range(people))
    assert words in found.doubt


@pytest.mark.parametrize("people", [1, 2, 3])
def test_a_given_number_of_people_is_kept_without_a_doubt(people: int) -> None:
    found = VoiceClusters(KnownVoices(TALK, alike=0.83, noise=0.6)).turns(SOUND, speech_of(TALK), people=people)
    assert {turn.person for turn in found.turns} == set(range(people)) and found.doubt == ""


def test_alike_voices_are_two_people_when_the_picture_says_so() -> None:
    clusters = VoiceClusters(KnownVoices(TALK, alike=0.83, noise=0.1))
    assert {turn.person for turn in clusters.turns(SOUND, speech_of(TALK)).turns} == {0}
    assert {turn.person for turn in clusters.turns(SOUND, speech_of(TALK), several_seen=True).turns} == {0, 1}


def test_voices_that_sound_the_same_are_two_people_when_two_are_seen_to_talk() -> None:
    clusters = VoiceClusters(KnownVoices(TALK, alike=0.95, noise=0.1))
    assert {turn.person for turn in clusters.turns(SOUND, speech_of(TALK), several_seen=True).turns} == {0}
    turns = clusters.turns(SOUND, speech_of(TALK), least=2, several_seen=True).turns
    assert {turn.person for turn in turns} == {0, 1} and wrong_seconds(turns, TALK) < 1.0


def test_a_change_of_speaker_without_a_pause_is_found_and_flagged() -> None:
    talk = [(0.0, 8.0, 0), (8.0, 16.0, 1), (16.5, 22.0, 0)]
    turns = VoiceClusters(KnownVoices(talk, noise=0.1)).turns(SOUND, [(0.0, 16.0), (16.5, 22.0)]).turns
    whole = joined(turns)
    assert [turn.person for turn in whole] == [0, 1, 0]
    change = whole[0].end
    assert change == pytest.approx(8.0, abs=0.4)
    flagged = [(turn.start, turn.end) for turn in turns if turn.overlapped]
    assert flagged == [(pytest.approx(change - 0.5), change), (change, pytest.approx(change + 0.5))]
    assert overlap_share(turns, change - 1, change + 1) == pytest.approx(0.5)
    assert overlap_share(turns, 17, 20) == 0.0


def test_changes_of_speaker_without_pauses_come_in_time() -> None:
    edges = np.cumsum([0, 6.1, 4.5, 7.3, 3.2, 5.9, 6.6, 4.4])
    talk = [(low, high, index % 2) for index, (low, high) in enumerate(pairwise(edges.tolist()))]
    turns = VoiceClusters(KnownVoices(talk, noise=0.4)).turns(SOUND, [(0.0, float(edges[-1]))]).turns
    changes = [turn.end for turn in joined(turns)][:-1]
    assert changes == pytest.approx(edges[1:-1].tolist(), abs=0.2)


@pytest.mark.parametrize("people", [2, 3, 6])
def test_clusters_are_as_tight_as_those_of_scikit_learn(people: int) -> None:
    """Which takes 120 MiB and a second of every process."""
    from sklearn.cluster import KMeans

    rng = np.random.default_rng(people)
    vectors = unit(np.repeat(rng.normal(size=(people, 64)), 12, axis=0) + 1.2 * rng.normal(size=(12 * people, 64)))
    clusters = [_clusters(vectors, people), KMeans(people, n_init=10, random_state=0).fit_predict(vectors)]
    loose = [
        sum(np.var(vectors[of == one], axis=0).sum() * (of == one).sum() for one in np.unique(of)) for of in clusters
    ]
    assert len(np.unique(clusters[0])) == people
    assert loose[0] <= 1.002 * loose[1]
    assert np.array_equal(_clusters(vectors, people), clusters[0])


def test_there_are_no_more_clusters_than_vectors() -> None:
    assert _clusters(np.ones((6, 4), np.float32), 3).tolist() == [0] * 6


def test_turns_of_one_person_under_two_names_are_merged() -> None:
    labels = np.repeat([0, 1, 2, 0], 40)
    speech = [(0.0, 12.0), (13.0, 17.0)]
    turns = turns_of(labels, step_times(speech), speech)
    assert {turn.person for turn in turns} == {0, 1, 2}
    # 1 and 2 follow each other without a pause: no overlap is left between them.
    assert merged(turns, {0: 0, 1: 1, 2: 1}) == turns_of(np.repeat([0, 1, 1, 0], 40), step_times(speech), speech)
    assert merged(turns, {0: 0, 1: 0, 2: 0}) == one_speaker(speech)
    assert merged(turns, {0: 0, 1: 1, 2: 2}) == turns


def test_a_moment_of_doubt_does_not_change_the_speaker() -> None:
    scores = np.tile([[1.0, 0.0]], (60, 1))
    scores[30] = [0.0, 1.0]
    assert smoothest(scores, np.arange(60) * 0.1).tolist() == [0] * 60
    scores[30:] = [0.0, 1.0]
    assert smoothest(scores, np.arange(60) * 0.1).tolist() == [0] * 30 + [1] * 30


spans = st.lists(st.tuples(st.floats(0.12, 4), st.floats(0.05, 9)), max_size=12).map(
    lambda steps: [
        (sum(a + b for a, b in steps[:i]) + gap, sum(a + b for a, b in steps[:i]) + gap + length)
        for i, (gap, length) in enumerate(steps)
    ]
)


@settings(max_examples=20)
@given(spans, st.integers(0, 3))
def test_turns_cover_the_speech_and_nothing_else(speech: list[tuple[float, float]], people: int) -> None:
    talk = [(start, end, index % 2) for index, (start, end) in enumerate(speech)]
    turns = VoiceClusters(KnownVoices(talk)).turns(SOUND, speech, people=people).turns
    assert all(turn.end > turn.start for turn in turns)
    assert all(a.end <= b.start + 1e-9 for a, b in pairwise(turns))
    edges = [(start, end) for start, end in speech]
    merged = [(one.start, one.end) for one in joined([Turn(t.start, t.end, 0) for t in turns])]
    assert merged == edges


@given(spans)
def test_pieces_lie_within_the_speech(speech: list[tuple[float, float]]) -> None:
    for start, end in cut_pieces(speech):
        assert 0.2 <= end - start <= 1.6 + 1e-6
        assert any(a - 1e-6 <= start and end <= b + 1e-6 for a, b in speech)


# The encoders themselves


@pytest.fixture(scope="module", params=["campplus", "ge2e"])
def encoder(request: pytest.FixtureRequest, weight: Callable[[str], Path]) -> VoiceEncoder:
    if request.param == "ge2e":
        return SpeakerEncoder(weight("speaker-encoder"))
    return CampPlus(weight("campplus"))


def test_a_voice_is_like_itself_at_any_level_and_unlike_another(encoder: VoiceEncoder) -> None:
    with Media(SAMPLES / "interview.mp4") as media:
        woman = np.asarray(media.audio)
    with Media(SAMPLES / "conversation.mp4") as media:
        both = np.asarray(media.audio)
    first = voice_of(woman, [(1.0, 4.7)], encoder)
    quiet = voice_of(0.05 * woman, [(1.0, 4.7)], encoder)
    again = voice_of(woman, [(6.3, 9.5)], encoder)
    other = voice_of(both, [(0.9, 3.9)], encoder)
    assert first is not None and quiet is not None and again is not None and other is not None
    assert np.linalg.norm(first) == pytest.approx(1, abs=1e-5)
    assert first @ quiet > 0.99
    likeness = encoder.likeness
    assert first @ again > likeness.recognised and first @ again > likeness.alike_of_more > 0
    assert first @ other < min(likeness.recognised, first @ again - 0.05)


def test_pieces_of_any_length_are_heard_together_or_alone_alike(encoder: VoiceEncoder) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 64_000).astype(np.float32)
    pieces = [(0.0, 1.6), (0.5, 2.1), (1.0, 1.4), (2.0, 3.6), (1.0, 1.2)]
    together = encoder.embed(sound, pieces)
    alone = np.concatenate([encoder.embed(sound, [piece]) for piece in pieces])
    assert np.allclose(together, alone, atol=1e-4)


def test_another_file_is_no_checkpoint_of_campplus(weight: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match="not a checkpoint of CAM"):
        CampPlus(weight("speaker-encoder"))


# pyannote, whose weights are not to be had


def test_overlapping_turns_become_exclusive_and_flagged() -> None:
    heard = [(0.0, 5.0, "A"), (4.0, 9.0, "B"), (6.0, 6.5, "A"), (10.0, 12.0, "A")]
    turns = exclusive_turns(heard, [(0.0, 9.5), (10.0, 12.0)])
    assert turns == [
        Turn(0.0, 4.0, 0),
        Turn(4.0, 5.0, 0, True),
        Turn(5.0, 6.0, 1),
        Turn(6.0, 6.5, 1, True),
        Turn(6.5, 9.5, 1),
        Turn(10.0, 12.0, 0),
    ]
    assert exclusive_turns([], [(1.0, 2.0)]) == [Turn(1.0, 2.0, 0)]


class FakePipeline:
    """What pyannote.audio offers of itself: it hears A until 2 s and B after."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    @classmethod
    def from_pretrained(cls, where: str) -> FakePipeline | None:
        if where == "gated":
            return None
        if where == "nowhere":
            raise OSError("no such repository")
        return cls()

    def to(self, device: Any) -> None:
        self.device = device

    def __call__(self, file: dict[str, Any], **counts: int) -> Any:
        self.asked = {"shape": tuple(file["waveform"].shape), "rate": file["sample_rate"], **counts}
        parts = [(SimpleNamespace(start=0.0, end=2.0), None, "A"), (SimpleNamespace(start=2.0, end=4.0), None, "B")]
        annotation = SimpleNamespace(itertracks=lambda yield_label: iter(parts))
        return SimpleNamespace(speaker_diarization=annotation)


@pytest.fixture
def pyannote(monkeypatch: pytest.MonkeyPatch) -> None:
    audio: Any = ModuleType("pyannote.audio")
    audio.Pipeline = FakePipeline
    monkeypatch.setitem(sys.modules, "pyannote", ModuleType("pyannote"))
    monkeypatch.setitem(sys.modules, "pyannote.audio", audio)


def test_pyannote_is_handed_the_sound_and_the_number_of_people(pyannote: None) -> None:
    backend = Pyannote("some/pipeline")
    turns = backend.turns(np.zeros(64_000, np.float32), [(0.0, 4.0)], people=2).turns
    assert turns == [Turn(0.0, 2.0, 0), Turn(2.0, 4.0, 1)]
    asked = {"shape": (1, 64_000), "rate": 16_000}
    assert backend._pipeline.asked == {**asked, "num_speakers": 2}
    backend.turns(np.zeros(64_000, np.float32), [(0.0, 4.0)], least=2, most=3)
    assert backend._pipeline.asked == {**asked, "min_speakers": 2, "max_speakers": 3}
    backend.turns(
        np.zeros(64_000, np.float32), [(0.0, 4.0)], least=2, most=1
    )  # more mouths move than may be told apart
    assert backend._pipeline.asked == {**asked, "min_speakers": 1, "max_speakers": 1}


@pytest.mark.parametrize(("where", "offline"), [("gated", False), ("nowhere", False), ("some/pipeline", True)])
def test_a_pyannote_that_cannot_be_had_is_told(pyannote: None, where: str, offline: bool) -> None:
    with pytest.raises(FileNotFoundError, match=where):
        Pyannote(where, offline=offline)


@pytest.mark.parametrize("seed", range(8))
def test_voices_that_hardly_differ_are_one_person(seed: int) -> None:
    chance = np.random.default_rng(seed)

    class OneVoice:
        likeness = GE2E

        def embed(self, samples: np.ndarray, pieces: Sequence[tuple[float, float]]) -> np.ndarray:
            return unit(np.eye(256)[0] + 0.001 * chance.standard_normal((len(pieces), 256))).astype(np.float32)

    turns = VoiceClusters(OneVoice()).turns(SOUND, [(0.0, 3.0), (3.5, 9.0)]).turns
    assert {turn.person for turn in turns} == {0}


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.2, 9)), max_size=40), st.integers(1, 9), st.floats(0.5, 20))
def test_pieces_are_embedded_in_groups_of_one_length(
    spans: list[tuple[float, float]], most: int, most_seconds: float
) -> None:
    pieces = [(start, start + length) for start, length in spans]
    groups = equally_long(pieces, most, most_seconds)
    assert sorted(row for rows in groups for row in rows) == list(range(len(pieces)))
    for rows in groups:
        lengths = [round((pieces[row][1] - pieces[row][0]) * 100) for row in rows]
        assert len(set(lengths)) == 1
        assert len(rows) == 1 or (len(rows) <= most and sum(lengths) <= 100 * most_seconds + 1e-6)
