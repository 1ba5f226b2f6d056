"""The waveform of a recording: measured once, where the sound is at hand, and drawn from the store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emopipe.constants import SAMPLE_RATE
from emopipe.pipeline.config import ExtractionConfig
from emopipe.pipeline.execution.plan import Job
from emopipe.pipeline.media.sound import Sound
from emopipe.pipeline.stages.waveform import _AT_ONCE, PEAK_RATE, peaks
from tests.conftest import tone

STEP = SAMPLE_RATE // PEAK_RATE


def sound_of(samples: np.ndarray) -> Sound:
    sound = Sound()
    sound.append(samples)
    return sound


def test_the_peak_of_each_step_is_its_greatest_swing_to_either_side() -> None:
    samples = np.concatenate([tone(1.0, level=0.3), np.zeros(SAMPLE_RATE, np.float32), [-0.9]])
    measured = peaks(sound_of(samples))
    assert len(measured) == 2 * PEAK_RATE + 1
    assert measured[:PEAK_RATE] == pytest.approx(0.3, abs=0.01) and not measured[PEAK_RATE:-1].any()
    assert measured[-1] == pytest.approx(0.9)


def test_without_sound_there_is_none() -> None:
    assert len(peaks(None)) == 0 and len(peaks(Sound())) == 0


@given(st.integers(1, 3 * STEP), st.integers(-2, 2))
def test_every_sample_counts_once_wherever_the_sound_is_cut(extra: int, steps: int) -> None:
    count = (_AT_ONCE + steps) * STEP + extra
    samples = np.zeros(count, np.float32)
    samples[-1] = 1
    measured = peaks(sound_of(samples))
    assert len(measured) == -(-count // STEP) and measured[-1] == 1 and measured[:-1].max() == 0


def test_only_runs_that_draw_pages_measure_it(tmp_path: Path) -> None:
    job = Job(ExtractionConfig.from_dict({}), tmp_path)
    assert "waveform" not in job.values and "waveform" not in [stage.name for stage in job.stages]
