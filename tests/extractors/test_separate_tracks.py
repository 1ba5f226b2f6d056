"""Separate microphones: turns by track, without what bleeds over from another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from emopipe.extractors.contracts import Turn, Word
from emopipe.extractors.speech.attribution import speaker_utterances
from emopipe.extractors.speech.diarize import joined
from emopipe.extractors.speech.separate_tracks import turns_of_tracks
from emopipe.extractors.speech.transcript import transcribe_tracks
from emopipe.extractors.speech.vad import VoiceActivity
from emopipe.pipeline.media.decoding import Media
from tests.conftest import SAMPLES

RATE = 16_000


@pytest.fixture(scope="module")
def vad(weight: Callable[[str], Path]) -> VoiceActivity:
    return VoiceActivity(weight("silero-vad"))


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    with Media(SAMPLES / "interview.mp4") as media:
        return np.asarray(media.audio)


def placed(voice: np.ndarray, parts: Sequence[tuple[float, float, float]], seconds: float) -> np.ndarray:
    """Sound of some seconds in which parts of a voice (from, to) begin at given times."""
    sound = np.zeros(round(seconds * RATE), np.float32)
    for start, end, at in parts:
        piece = voice[round(start * RATE) : round(end * RATE)]
        sound[round(at * RATE) : round(at * RATE) + len(piece)] += piece
    return sound


def bleeding(
    tracks: Sequence[np.ndarray], decibels: float, delay: float = 0.006, noise: float = 3e-4
) -> list[np.ndarray]:
    """Each track with the others, fainter and later, and noise of its own."""
    chance = np.random.default_rng(0)
    heard = []
    for at, track in enumerate(tracks):
        others = np.sum([one for index, one in enumerate(tracks) if index != at], axis=0)
        late = np.roll(others, round(delay * RATE)) * 10 ** (decibels / 20)
        heard.append((track + late + noise * chance.standard_normal(len(track))).astype(np.float32))
    return heard


def seconds_of(turns: Sequence[Turn], person: int, start: float = 0.0, end: float = 99.0) -> float:
    return sum(max(0.0, min(turn.end, end) - max(turn.start, start)) for turn in turns if turn.person == person)


#: One speaks at 1 s and at 12 s, the other at 6.5 s, and both at 18 s.
ONE = [(1.9, 4.9, 1.0), (11.2, 15.7, 12.0), (6.1, 9.7, 18.0)]
OTHER = [(6.1, 9.7, 6.5), (11.2, 15.7, 18.0)]


@pytest.mark.parametrize("decibels", [-12.0, -18.0, -30.0])
@pytest.mark.parametrize("gain", [1.0, 0.25])
def test_each_person_has_the_turns_of_their_own_track(
    vad: VoiceActivity, voice: np.ndarray, decibels: float, gain: float
) -> None:
    tracks = bleeding([placed(voice, ONE, 24.0), placed(voice, OTHER, 24.0)], decibels)
    turns = turns_of_tracks([tracks[0], gain * tracks[1]], vad)
    assert seconds_of(turns, 0, 0.5, 4.5) > 2.3 and seconds_of(turns, 0, 11.5, 17.0) > 3.3
    assert seconds_of(turns, 1, 6.0, 10.5) > 2.8
    assert seconds_of(turns, 1, 0.5, 5.5) < 0.5 and seconds_of(turns, 1, 11.5, 17.0) < 0.5
    assert seconds_of(turns, 0, 6.0, 10.5) < 0.5
    both = [turn for turn in turns if turn.overlapped]
    assert {turn.person for turn in both} == {0, 1} and all(17.8 < turn.start < 23 for turn in both)
    assert all(a.start <= b.start for a, b in pairwise(turns))


def test_a_track_on_which_nobody_speaks_has_no_turns(vad: VoiceActivity, voice: np.ndarray) -> None:
    tracks = bleeding([placed(voice, ONE, 24.0), placed(voice, OTHER, 24.0), np.zeros(24 * RATE)], -18.0)
    turns = turns_of_tracks(tracks, vad)
    assert seconds_of(turns, 2) < 0.5 and seconds_of(turns, 0) > 8 and seconds_of(turns, 1) > 6


def test_no_tracks_and_silent_tracks_have_no_turns(vad: VoiceActivity) -> None:
    assert turns_of_tracks([], vad) == []
    assert turns_of_tracks([np.zeros(0, np.float32), np.zeros(RATE, np.float32)], vad) == []


class Listener:
    """Hears one word all along each sound, named for how loud it is."""

    def languages(self, sounds: Sequence[np.ndarray]) -> list[Mapping[str, float]]:
        return [{"en": 1.0} for _ in sounds]

    def listen(self, sounds: Sequence[np.ndarray], language: str) -> list[list[Word]]:
        return [
            [Word(f" {'loud' if np.abs(one).max() > 0.5 else 'soft'}", 0.2, len(one) / RATE - 0.2, 0.9)]
            for one in sounds
        ]


def test_words_are_those_of_a_persons_own_track() -> None:
    loud, soft = (np.full(10 * RATE, level, np.float32) for level in (0.9, 0.2))
    turns = [Turn(1.0, 4.0, 0), Turn(2.0, 3.0, 1, True), Turn(5.0, 8.0, 1)]
    transcript = transcribe_tracks([loud, soft], turns, Listener())
    assert [(word.text, word.person) for word in transcript.words] == [(" loud", 0), (" soft", 1)]
    utterances = speaker_utterances(transcript.words, turns, pause=0.6, longest=15)
    assert {(span.text, span.person) for span in utterances if span.text} == {("loud", 0), ("soft", 1)}


def test_turns_of_one_person_that_touch_are_joined_though_another_begins_between() -> None:
    turns = [Turn(0.0, 2.0, 0), Turn(1.0, 3.0, 1, True), Turn(2.0, 5.0, 0), Turn(3.0, 4.0, 1)]
    assert joined(turns) == [Turn(0.0, 5.0, 0), Turn(1.0, 4.0, 1, True)]
