"""Networks that are trained side by side answer with their mean."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emopipe.errors import ConfigError
from emopipe.models import checkpoint, testing
from emopipe.models.networks.emoe import Emoe
from emopipe.models.networks.ensemble import Ensemble
from emopipe.models.networks.model import Shape
from emopipe.models.registry import build
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.loop import Trained, new_model, train
from emopipe.models.training.plan import choose_split, make_plan
from tests.models.networks.test_variation import training

SHAPE = Shape({"text": 5, "face": 3, "voice": 7}, 4, "classification", testing.CLASSES)
VALUES = replace(SHAPE, outputs=1, task="regression", classes=())
OPTIONS: dict[str, Any] = {"width": 8, "layers": 1, "heads": 2, "router_width": 8}
SETTINGS = TrainConfig(device="cpu", epochs=2, select="last", options={**OPTIONS, "members": 3})


def ensemble(shape: Shape = SHAPE, members: int = 3, **options: Any) -> Ensemble:
    built = build("emoe", shape, {**OPTIONS, **options, "members": members}).eval()
    assert isinstance(built, Ensemble)
    return built


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(training(tmp_path_factory.mktemp("data")), SETTINGS)


def test_it_does_all_that_a_model_must() -> None:
    testing.check_model("emoe", {**OPTIONS, "members": 2})


def test_one_network_is_no_ensemble() -> None:
    assert isinstance(build("emoe", SHAPE, OPTIONS), Emoe)


@pytest.mark.parametrize("shape", [SHAPE, VALUES])
def test_the_answer_is_the_mean_of_the_networks_answers(shape: Shape) -> None:
    net, batch = ensemble(shape), testing.batch(shape, 6)
    with torch.no_grad():
        output, each = net(batch), [one(batch) for one in net]

    def mean(parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(parts).mean(0)

    of = (lambda x: x) if shape.task == "regression" else (lambda x: x.softmax(1))
    torch.testing.assert_close(of(output.logits), mean([of(one.logits) for one in each]))
    torch.testing.assert_close(output.weights, mean([one.weights for one in each]))
    for name in shape.modalities:
        torch.testing.assert_close(of(output.unimodal[name]), mean([of(one.unimodal[name]) for one in each]))
    assert torch.equal(output.features["fused"], torch.cat([one.features["fused"] for one in each], 1))
    assert not torch.allclose(each[0].logits, each[1].logits)


def test_the_loss_is_the_mean_of_the_networks_losses() -> None:
    net, batch = ensemble(), testing.batch(SHAPE, 6)
    terms, each = net.loss(net(batch), batch), [one.loss(one(batch), batch) for one in net]
    for name, value in terms.items():
        assert value.item() == pytest.approx(float(sum(one[name].detach() for one in each)) / 3, rel=1e-5)


def test_a_trained_one_is_kept_and_read(trained: Trained, tmp_path: Path) -> None:
    data = training(tmp_path / "data")
    checkpoint.save(tmp_path / "model", trained.predictor, "")
    read = checkpoint.load(tmp_path / "model")
    assert isinstance(read.module, Ensemble)
    assert (read.scores(data).logits == trained.predictor.scores(data).logits).all()


def test_what_is_not_learned_by_gradient_is_the_same_in_all(tmp_path: Path) -> None:
    options = {**OPTIONS, "members": 2, "relative": True, "relative_share": "varied", "linear": True}
    net = train(training(tmp_path), replace(SETTINGS, epochs=1, options=options)).predictor.module
    assert isinstance(net, Ensemble)
    one, other = (dict(member.state_dict()) for member in net)
    fixed = [name for name in one if name.startswith(("variation", "linear")) or ".standardise." in name]
    assert len(fixed) > 10
    for name in fixed:
        assert torch.equal(one[name], other[name]), name
    assert torch.isfinite(one["variation.voice.line"]).all()


def test_what_begins_with_one_takes_over_its_networks(trained: Trained, tmp_path: Path) -> None:
    plan = make_plan(training(tmp_path), SETTINGS, choose_split(training(tmp_path), SETTINGS), lambda _: None)
    source = trained.predictor.module
    assert isinstance(source, Ensemble)
    whole, _ = new_model(plan, SETTINGS, trained.predictor)
    assert isinstance(whole, Ensemble)
    lone, inherited = new_model(plan, replace(SETTINGS, options={**OPTIONS, "members": 1}), trained.predictor)
    assert inherited is not None and set(inherited.classes) == set(source.shape.classes)
    for one, other in [*zip(whole, source, strict=True), (lone, source.first)]:
        for name, value in other.named_parameters():
            assert torch.equal(dict(one.named_parameters())[name], value), name


def test_each_network_reads_its_view(tmp_path: Path) -> None:
    data = training(tmp_path / "data")
    names = data.schema["voice"]
    views = {"voice": [re.escape(names[0]), "|".join(map(re.escape, names[1:]))]}
    options = {**OPTIONS, "members": 3, "views": views, "relative": True}
    predictor = train(data, replace(SETTINGS, epochs=1, options=options)).predictor
    checkpoint.save(tmp_path / "model", predictor, "")
    read = checkpoint.load(tmp_path / "model")
    net = read.module
    assert isinstance(net, Ensemble) and read.spec.options["views"] == predictor.spec.options["views"]
    batch = data.batch(np.arange(len(data)), data.modalities)
    changed = batch.features["voice"].clone()
    changed[..., 0] += 1
    other = replace(batch, features={**batch.features, "voice": changed})
    with torch.no_grad():
        differ = [not torch.equal(one(batch).logits, one(other).logits) for one in net]
    assert differ == [True, False, True]


@pytest.mark.parametrize("pattern", ["(", "nothing is called so"])
def test_a_view_of_nothing_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ConfigError, match="views: "):
        train(training(tmp_path), replace(SETTINGS, options={**OPTIONS, "views": {"voice": [pattern]}}))
