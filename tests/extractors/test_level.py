"""Quiet recordings are raised, and no others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emopipe.extractors.speech.level import RAISED_TO, gain_of, loudness, raised
from tests.conftest import tone


def at_level(decibels: float, seconds: float = 3.0) -> np.ndarray:
    """A tone whose root mean square is at a level."""
    return tone(seconds, level=float(np.sqrt(2) * 10 ** (decibels / 20)))


@pytest.mark.parametrize("decibels", [-70.0, -60.0, -53.0])
def test_what_is_quiet_is_brought_to_one_level(decibels: float) -> None:
    sound = at_level(decibels)
    assert loudness(raised(sound, gain_of(sound))) == pytest.approx(RAISED_TO, abs=0.3)


@pytest.mark.parametrize("decibels", [-51.0, -30.0, -10.0])
def test_what_is_loud_enough_is_left_as_it_is(decibels: float) -> None:
    sound = at_level(decibels)
    assert gain_of(sound) == 1.0 and raised(sound, 1.0) is sound


def test_silence_and_the_noise_of_a_converter_are_left_as_they_are() -> None:
    noise = np.random.default_rng(0).normal(0, 10 ** (-95 / 20), 48_000).astype(np.float32)
    for sound in (np.zeros(48_000, np.float32), np.zeros(0, np.float32), noise):
        assert gain_of(sound) == 1.0


def test_a_click_and_a_long_silence_do_not_hide_how_loud_speech_is() -> None:
    quiet = np.concatenate([np.zeros(60 * 16_000, np.float32), at_level(-60.0)])
    assert loudness(quiet) == pytest.approx(-60.0, abs=0.5)
    quiet[100:900] = 1.0
    assert loudness(quiet) == pytest.approx(-60.0, abs=0.5)


@given(st.integers(0, 40_000), st.integers(0, 40_000))
def test_slices_are_those_of_the_whole_and_stay_within_full_scale(first: int, last: int) -> None:
    sound = at_level(-60.0, 2.0)
    louder = raised(sound, 1000.0)
    assert len(louder) == len(sound)
    part = louder[first:last]
    assert part.dtype == np.float32 and np.abs(part).max(initial=0.0) <= 1.0
    assert np.array_equal(part, np.clip(sound[first:last] * np.float32(1000.0), -1, 1))
