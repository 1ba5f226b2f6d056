"""What is usual for a speaker: mean and variance over the other utterances, wherever enough of them are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from emopipe.models.data.dataset import Dataset, Sample, collate
from emopipe.models.data.speakers import LEAST_OTHERS, SpeakerMeans


@given(st.lists(st.floats(-100, 100, width=32), min_size=LEAST_OTHERS + 1, max_size=9), st.integers(1, 4))
def test_an_utterance_is_never_part_of_its_own_reference(levels: list[float], steps: int) -> None:
    means = SpeakerMeans()
    utterances = [np.full((steps, 2), level, np.float32) for level in levels]
    for one in utterances:
        means.add("anna", {"voice": one, "face": None})
    for index, one in enumerate(utterances):
        others = means.of_others("anna", "voice", one)
        assert others is not None
        rest = levels[:index] + levels[index + 1 :]
        assert np.allclose(others[0], np.mean(rest), atol=1e-3)
        assert np.allclose(others[1], np.var(rest, ddof=1), rtol=1e-4, atol=1e-3)


def test_too_few_others_an_unknown_speaker_and_an_absent_modality_give_no_reference() -> None:
    means = SpeakerMeans()
    steps = np.ones((2, 3), np.float32)
    for _ in range(LEAST_OTHERS):
        means.add("anna", {"voice": steps})
        means.add(None, {"voice": steps})
    assert means.of_others("anna", "voice", steps) is None
    means.add("anna", {"voice": steps})
    assert means.of_others("anna", "voice", steps) is not None
    assert means.of_others(None, "voice", steps) is None
    assert means.of_others("anna", "face", steps) is None
    assert means.of_others("anna", "voice", None) is None


def test_what_was_not_measured_is_left_out_feature_by_feature() -> None:
    means = SpeakerMeans()
    utterances = [np.array([[level, np.nan], [level, np.nan if level else 4.0]], np.float32) for level in range(4)]
    for one in utterances:
        means.add("anna", {"face": one})
    others = means.of_others("anna", "face", utterances[3])
    assert others is not None and others[0].tolist() == [1.0, 4.0]
    assert others[1][0] == 1.0 and np.isnan(others[1][1])
    alone = means.of_others("anna", "face", utterances[0])
    assert alone is not None and alone[0][0] == 2.0 and np.isnan(alone[0][1])


def test_rows_of_a_dataset_and_samples_of_a_recording_tell_the_same(make: Callable[..., Dataset]) -> None:
    data = make(count=80, speakers=4, missing=0.3)
    rows = np.arange(len(data))
    batch = data.batch(rows, relative=True)
    means = SpeakerMeans()
    for row in rows:
        means.add(data.speakers[row], data.sample(row).features)
    samples = []
    for row in rows:
        sample = data.sample(row)
        usual = {name: means.of_others(data.speakers[row], name, steps) for name, steps in sample.features.items()}
        samples.append(Sample(sample.features, usual=usual))
    again = collate(samples, data.schema)
    for name in data.modalities:
        assert np.array_equal(batch.speaker_means[name].numpy(), again.speaker_means[name].numpy(), equal_nan=True)
        told = (batch.speaker_variances[name].numpy(), again.speaker_variances[name].numpy())
        assert np.array_equal(*told, equal_nan=True)
    assert not data.batch(rows).speaker_means
