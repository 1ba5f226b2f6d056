"""A linear model of features relative to the speaker beside the network's answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from emopipe.models import checkpoint
from emopipe.models.data.dataset import Dataset
from emopipe.models.networks.emoe import Emoe
from emopipe.models.networks.relative_expert import RelativeExpert
from emopipe.models.training.loop import train
from tests.models.conftest import CLASSES
from tests.models.networks.test_variation import SETTINGS, WIDTH, speakers, targets, training

LEARNED = {f"s{number}": list(CLASSES[:3]) * 6 for number in range(5)}


def fitted(data: Dataset) -> RelativeExpert:
    expert = RelativeExpert(WIDTH, len(CLASSES), "classification")
    weights = np.ones(len(data), np.float32)
    assert expert.fit("voice", data, targets(data), weights, 4, 0)["strength"] > 0
    return expert


def unusual(data: Dataset) -> torch.Tensor:
    """Each utterance's mean features less what is usual for its speaker (N, D)."""
    batch = data.batch(np.arange(len(data)), relative=True)
    return batch.features["voice"].mean(1) - batch.speaker_means["voice"]


def test_it_reads_new_speakers_wherever_their_features_lie(tmp_path: Path) -> None:
    expert = fitted(speakers(tmp_path / "learned", LEARNED))
    new = speakers(tmp_path / "new", {"other": list(CLASSES[:3]) * 5}, 9, apart=50.0)
    answers = expert(unusual(new), torch.zeros(len(new), len(CLASSES))).argmax(1).numpy()
    assert (answers == targets(new)).mean() > 0.9


def test_how_much_its_rows_count_among_all_does_not_change_the_penalty(tmp_path: Path) -> None:
    data = speakers(tmp_path, LEARNED)
    light = RelativeExpert(WIDTH, len(CLASSES), "classification")
    light.fit("voice", data, targets(data), np.full(len(data), 0.01, np.float32), 4, 0)
    torch.testing.assert_close(light.expert(unusual(data)), fitted(data).expert(unusual(data)))


def test_of_classes_that_it_never_saw_the_network_alone_tells(tmp_path: Path) -> None:
    data = speakers(tmp_path, LEARNED)
    expert = fitted(data)
    assert expert.fitted.tolist() == [True] * 3 + [False] * (len(CLASSES) - 3)
    said = torch.randn(len(data), len(CLASSES), generator=torch.Generator().manual_seed(0))
    both, network = expert(unusual(data), said).softmax(1), said.softmax(1)
    torch.testing.assert_close(both[:, 3:], network[:, 3:])
    torch.testing.assert_close(both.sum(1), torch.ones(len(data)))
    least = network[:, :3] / 2
    assert (both[:, :3] >= least - 1e-6).all()


def test_until_it_is_fitted_the_networks_answer_stays() -> None:
    said = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    classes = RelativeExpert(WIDTH, 3, "classification")(torch.ones(4, WIDTH), said)
    torch.testing.assert_close(classes.softmax(1), said.softmax(1))
    assert torch.equal(RelativeExpert(WIDTH, 1, "regression")(torch.ones(4, WIDTH), said[:, :1]), said[:, :1])


def test_values_are_the_mean_of_both(tmp_path: Path) -> None:
    data = training(tmp_path)
    expert = RelativeExpert(WIDTH, 1, "regression")
    values = targets(data).astype(np.float64)
    expert.fit("voice", data, values, np.ones(len(data), np.float32), 4, 0)
    alone = expert.expert(unusual(data))
    assert np.corrcoef(alone[:, 0].detach().numpy(), values)[0, 1] > 0.7
    torch.testing.assert_close(expert(unusual(data), torch.ones(len(data), 1)), alone / 2 + 0.5)


def test_too_little_is_not_fitted_to(tmp_path: Path) -> None:
    lone = speakers(tmp_path / "few", {"few": list(CLASSES)})
    one_class = speakers(tmp_path / "sad", {f"s{number}": ["sadness"] * 6 for number in range(4)})
    for data in (lone, one_class):
        expert = RelativeExpert(WIDTH, len(CLASSES), "classification")
        assert expert.fit("voice", data, targets(data), np.ones(len(data), np.float32), 4, 0) == {}
        assert not expert.fitted.any()


def test_rows_that_are_read_again_count_once(tmp_path: Path) -> None:
    """Else an utterance would judge a model that was fitted to it."""
    once, thrice = (fitted(speakers(tmp_path / str(times), LEARNED, readings=times)) for times in (1, 3))
    for name, value in once.state_dict().items():
        torch.testing.assert_close(thrice.state_dict()[name], value)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_model_answers_with_it_where_a_modality_is_alone_and_a_checkpoint_keeps_it(
    share: float, tmp_path: Path
) -> None:
    data = speakers(tmp_path / "learned", LEARNED)
    options = {**SETTINGS.options, "relative_share": share, "relative_linear": ["voice"]}
    predictor = train(data, replace(SETTINGS, options=options)).predictor
    net = predictor.module
    assert isinstance(net, Emoe) and not any(p.requires_grad for p in net.linear_relative.parameters())
    expert = net.linear_relative["voice"]
    assert isinstance(expert, RelativeExpert) and expert.fitted[:3].all()
    mixed = {**dict.fromkeys("ab", ["anger"] * 2), "known": list(CLASSES[:3]) * 4}  # of two utterances little is usual
    new = speakers(tmp_path / "new", mixed, 3)
    batch = new.batch(np.arange(len(new)), relative=True)
    with torch.inference_mode():
        answer = net(batch)
        network, plain = net._network(batch).logits, net._network(replace(batch, speaker_means={})).logits
        known = expert(unusual(new), network)
    expected = torch.cat([network[:4], known[4:]]).softmax(1)
    torch.testing.assert_close(answer.logits.softmax(1), (1 - share) * plain.softmax(1) + share * expected)
    torch.testing.assert_close(answer.unimodal["voice"].softmax(1), answer.logits.softmax(1))
    checkpoint.save(tmp_path / "model", predictor, "")
    assert np.array_equal(checkpoint.load(tmp_path / "model").scores(new).logits, predictor.scores(new).logits)
