"""Training begins with a checkpoint of other classes, other names, numbers, or fewer modalities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from emopipe.errors import ConfigError, FeatureMismatch
from emopipe.models.data.dataset import Dataset
from emopipe.models.data.reading import read
from emopipe.models.networks.emoe import Emoe
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.loop import Trained, train
from emopipe.models.training.optimisation import Schedule, make_optimiser
from tests.models.conftest import CLASSES, write_dataset

SMALL: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2, "router_width": 8}
QUICK = TrainConfig(options=SMALL, epochs=8, batch_size=32, lr=3e-3, device="cpu")
#: Nothing moves, so what was taken over can be looked at.
STILL = replace(QUICK, epochs=1, lr=1e-12, weight_decay=0.0, select="last")


@pytest.fixture(scope="module")
def start(shared: Dataset) -> Trained:
    return train(shared, QUICK)


def relabelled(data: Dataset, names: dict[str, str | None], column: str = "label") -> Dataset:
    at = data.manifest.column_names.index(column)
    labels = [names.get(name, name) for name in data.labels("label")]
    return data.with_manifest(data.manifest.set_column(at, column, pa.array(labels)))


def logits(trained: Trained, data: Dataset) -> dict[str, np.ndarray]:
    scores = trained.predictor.scores(data, np.arange(40))
    return {"fused": scores.logits, **scores.unimodal}


def test_the_same_classes_begin_with_the_same_predictions(start: Trained, shared: Dataset) -> None:
    again = logits(train(shared, STILL, start=start.predictor), shared)
    for name, before in logits(start, shared).items():
        assert np.allclose(before, again[name], atol=1e-5)


def test_classes_that_both_know_keep_their_rows_whatever_their_order(start: Trained, shared: Dataset) -> None:
    data = relabelled(shared, {"anger": "zeal", "neutral": "boredom"})
    new = train(data, STILL, start=start.predictor)
    assert new.predictor.spec.classes == ("boredom", "happiness", "sadness", "zeal")
    before, after = logits(start, shared), logits(new, data)
    for name in ("text", "face", "voice"):  # each branch says what it said of the classes that it knew
        for label in ("happiness", "sadness"):
            old, place = CLASSES.index(label), new.predictor.spec.classes.index(label)
            assert np.allclose(before[name][:, old], after[name][:, place], atol=1e-5)
    kept = new.predictor.spec.training["start"]["kept"]
    assert kept == {"classes": ["happiness", "sadness"], "modalities": ["text", "face", "voice"]}


def test_fewer_classes_leave_the_router_as_it_was(start: Trained, shared: Dataset) -> None:
    data = relabelled(shared, {"anger": None})
    fewer = train(data, STILL, start=start.predictor)
    one, two = (trained.predictor.module for trained in (start, fewer))
    assert isinstance(one, Emoe) and isinstance(two, Emoe)
    assert torch.allclose(one.router.gate.weight, two.router.gate.weight, atol=1e-6)
    width = 2 * SMALL["width"]  # what the router reads of the steps themselves comes first in each modality's block
    assert torch.allclose(one.router.hidden.weight[:, :width], two.router.hidden.weight[:, :width], atol=1e-6)
    with torch.no_grad():
        batch = data.batch(np.arange(12))
        weights = [module.eval()(batch).weights for module in (one, two)]
    assert torch.allclose(*weights, atol=0.3)


def test_numbers_take_the_place_of_classes(start: Trained, shared: Dataset) -> None:
    values = replace(QUICK, label="sentiment")
    told: list[dict[str, Any]] = []
    new = train(shared, values, start=start.predictor, hook=told.append)
    assert new.predictor.spec.task == "regression"
    assert new.best["valid"]["corr"] > 0.5
    assert told[0]["message"] == "taken over: the parts for text, face, voice; new: values"


def test_other_names_are_learned_sooner_than_from_random_weights(start: Trained, make: Callable[..., Dataset]) -> None:
    few = relabelled(make(count=48, speakers=6, seed=5), dict(zip(CLASSES, "abcd", strict=True)))
    quick = replace(QUICK, epochs=4, select="last")
    scores = [train(few, quick, start=one).best["valid"]["uar"] for one in (start.predictor, None)]
    assert scores[0] > scores[1]


def test_a_modality_that_is_not_there_is_left_out_and_a_new_one_begins_anew(start: Trained, shared: Dataset) -> None:
    two = train(shared.select(["face", "voice"]), STILL, start=start.predictor)
    assert np.allclose(logits(start, shared)["face"], logits(two, shared)["face"], atol=1e-5)
    three = train(shared, STILL, start=two.predictor)
    assert three.predictor.spec.training["start"]["kept"]["modalities"] == ["face", "voice"]
    assert np.allclose(logits(three, shared)["voice"], logits(start, shared)["voice"], atol=1e-5)


def test_a_start_of_other_features_is_refused(start: Trained, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": f"u{n}", "speaker": f"s{n // 4 % 4}", "split": "train", "face": f"u{n}", "label": CLASSES[n % 4]}
        for n in range(32)
    ]
    features = {"face": {f"u{n}": np.ones((2, 9), np.float32) for n in range(32)}}
    wider = read(write_dataset(tmp_path / "wider", rows, features, {"face": 9}))
    with pytest.raises(FeatureMismatch, match="trained on 6 features, offered 9"):
        train(wider, QUICK, start=start.predictor)
    with pytest.raises(ConfigError, match="start"):
        train(wider, replace(QUICK, model="lf-dnn", options={}), start=replaced(start))


def replaced(start: Trained) -> Any:
    """The start as one of a dataset without features that could differ."""
    spec = replace(start.predictor.spec, schema={"face": tuple(f"face_{n}" for n in range(9))})
    return type(start.predictor)(spec, start.predictor.module)


def test_what_is_taken_over_learns_more_slowly_and_can_wait(start: Trained) -> None:
    model = start.predictor.module
    names = {name for name, _ in model.named_parameters() if "readout" not in name}
    optimiser = make_optimiser(model, config := replace(QUICK, schedule="none", start_frozen=2, start_rate=0.25), names)
    schedule, rates = Schedule(optimiser, config), []
    for epoch in (1, 2, 3):
        schedule.set_rate(epoch, 9, 10)
        rates.append(sorted({group["lr"] for group in optimiser.param_groups}))
    assert rates == [[0.0, config.lr]] * 2 + [[config.lr / 4, config.lr]]


def test_a_killed_training_from_a_start_goes_on_with_the_same_result(
    start: Trained, make: Callable[..., Dataset], tmp_path: Path
) -> None:
    few = relabelled(make(count=48, speakers=6), {"anger": "zeal"})
    whole = train(few, replace(QUICK, epochs=3), start=start.predictor)

    class Killed(Exception):
        pass

    def kill(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and event["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        train(few, replace(QUICK, epochs=3), start=start.predictor, state=tmp_path / "state", hook=kill)
    resumed = train(few, replace(QUICK, epochs=3), start=start.predictor, state=tmp_path / "state")
    assert np.array_equal(logits(whole, few)["fused"], logits(resumed, few)["fused"])
