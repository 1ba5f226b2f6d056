"""What is normal for a person, from features whose calm is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emopipe.extractors.person_normalization import arousal, baseline, calm, person_baselines

NAMES = {"voice": ["pitch_mean", "pitch_std", "centroid_mean", "timbre"], "face": ["smile", "frown"]}
RNG = np.random.default_rng(0)


def person(excited: int, quiet: int) -> dict[str, np.ndarray]:
    """Utterance means of somebody with a voice and a face of their own, the excited utterances first."""
    voice = np.array([210.0, 20.0, 1500.0, 7.0]) + RNG.normal(0, [5, 2, 50, 0.1], (excited + quiet, 4))
    face = np.array([0.3, 0.1]) + RNG.normal(0, 0.01, (excited + quiet, 2))
    voice[:excited] += [90, 40, 900, 3]
    face[:excited] += [0.5, 0.2]
    return {"voice": voice, "face": face}


def test_the_calm_half_leaves_the_excited_utterances_out() -> None:
    means = person(excited=5, quiet=7)
    chosen = calm(arousal(means, NAMES))
    assert not chosen[:5].any() and chosen.sum() == 6


def test_the_baseline_is_the_persons_own_calm_in_every_feature() -> None:
    means = person(excited=5, quiet=7)
    lengths = {name: np.full(12, 4) for name in means}
    found = person_baselines(means, lengths, NAMES)
    assert found["voice"] is not None and found["face"] is not None
    assert found["voice"] == pytest.approx([210, 20, 1500, 7], rel=0.05)
    assert found["face"] == pytest.approx([0.3, 0.1], abs=0.02)


def test_the_face_tells_calm_where_there_is_no_voice_and_the_reverse() -> None:
    means = person(excited=4, quiet=8)
    assert not calm(arousal({"face": means["face"]}, NAMES))[:4].any()
    assert not calm(arousal({"voice": means["voice"]}, NAMES))[:4].any()


def test_utterances_without_any_evidence_are_never_the_calm_ones() -> None:
    means = person(excited=3, quiet=6)
    for values in means.values():
        values[8] = np.nan
    chosen = calm(arousal(means, NAMES))
    assert not chosen[8] and chosen.sum() == 4


def test_few_utterances_have_no_baseline() -> None:
    means = person(excited=1, quiet=2)
    assert person_baselines(means, {name: np.full(3, 4) for name in means}, NAMES) == {"voice": None, "face": None}


def test_a_modality_that_no_calm_utterance_has_gets_no_baseline() -> None:
    means = person(excited=5, quiet=5)
    means["face"][5:] = np.nan
    found = person_baselines(means, {name: np.full(10, 4) for name in means}, NAMES)
    assert found["face"] is None and found["voice"] is not None


def test_longer_utterances_weigh_more() -> None:
    means, lengths = np.array([[0.0], [3.0], [100.0]]), np.array([2, 1, 5])
    assert baseline(means, lengths, np.array([True, True, False])) == pytest.approx([1.0])


@given(st.integers(4, 30), st.floats(0.1, 10), st.floats(-50, 50))
def test_units_of_the_features_do_not_matter(count: int, scale: float, shift: float) -> None:
    voice = np.random.default_rng(count).normal(size=(count, 4))
    chosen = calm(arousal({"voice": voice}, NAMES))
    assert chosen.sum() == int(np.ceil(count / 2))
    assert (calm(arousal({"voice": scale * voice + shift}, NAMES)) == chosen).all()
