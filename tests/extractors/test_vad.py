"""Voice activity: frames run together give what the model gives one by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emopipe.extractors.speech import vad
from emopipe.extractors.speech.vad import VoiceActivity
from emopipe.pipeline.media.decoding import Media
from tests.conftest import SAMPLES


@pytest.fixture(scope="module")
def activity(weight: Callable[[str], Path]) -> VoiceActivity:
    return VoiceActivity(weight("silero-vad"))


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    with Media(SAMPLES / "conversation.mp4") as media:
        sound = np.asarray(media.audio)
    return np.concatenate([sound[: 12 * 16_000], np.zeros(3 * 16_000, np.float32), sound[12 * 16_000 : 20 * 16_000]])


def one_by_one(activity: VoiceActivity, sound: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    monkeypatch.setattr(vad._Network, "of", classmethod(lambda kind, model: None))
    return activity._probabilities(sound)


@pytest.mark.parametrize("frames_at_once", [1, 7, 1000])
def test_probabilities_are_those_of_the_model_frame_by_frame(
    activity: VoiceActivity, speech: np.ndarray, frames_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vad, "BLOCK", frames_at_once * vad.FRAME)
    sound = speech[: 4 * 16_000 + 100] if frames_at_once < 10 else speech
    together = activity._probabilities(sound)
    assert max(together) > 0.9 and min(together) < 0.1
    assert together == pytest.approx(one_by_one(activity, sound, monkeypatch), abs=1e-4)


def test_each_recording_begins_anew(activity: VoiceActivity, speech: np.ndarray) -> None:
    assert activity.segments(speech) == activity.segments(speech)
    assert activity.segments(np.zeros(16_000, np.float32)) == []


def test_a_model_of_other_layers_runs_frame_by_frame() -> None:
    assert vad._Network.of(object()) is None
