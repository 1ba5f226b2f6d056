"""Explanations hold what the model saw, and say who is right and who is trusted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from emopipe.errors import DatasetError
from emopipe.models.data.dataset import Dataset
from emopipe.models.evaluation.explain import Explanation, agreement, explain, project
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.loop import Trained, train

QUICK = TrainConfig(epochs=3, batch_size=32, lr=5e-3, options={"width": 16, "layers": 1, "heads": 2, "router_width": 8})


@pytest.fixture(scope="module")
def trained(partial: Dataset) -> Trained:
    return train(partial, QUICK)


def test_it_holds_what_the_model_saw(trained: Trained, partial: Dataset) -> None:
    found = explain(trained.predictor, partial, "test", batch_size=16)
    rows = np.flatnonzero(partial.split == "test")
    scores = trained.predictor.scores(partial, rows)
    assert found.ids.tolist() == partial.ids[rows].tolist()
    assert np.array_equal(found.present, partial.present[rows])
    assert np.allclose(found.weights, scores.weights, atol=1e-6)
    classes = np.array(trained.predictor.spec.classes)
    assert found.predicted.tolist() == classes[scores.logits.argmax(axis=1)].tolist()
    assert found.fused.shape == (len(rows), 16)
    assert np.allclose(found.importance.sum(axis=1), 1, atol=1e-5) and (found.importance[~found.present] == 0).all()


def test_importance_is_the_share_of_inverse_error(trained: Trained, partial: Dataset) -> None:
    found = explain(trained.predictor, partial, "test")
    rows = np.flatnonzero(partial.split == "test")
    scores, index = trained.predictor.scores(partial, rows), list(trained.predictor.spec.classes)
    row = int(np.flatnonzero(found.present.all(axis=1))[0])
    costs = []
    for name in found.modalities:
        logits = scores.unimodal[name][row].astype(float)
        costs.append(np.log(np.exp(logits).sum()) - logits[index.index(found.labels[row])])
    inverse = 1 / (np.array(costs) + 0.1)
    assert found.importance[row].tolist() == pytest.approx((inverse / inverse.sum()).tolist(), rel=1e-4)


def test_values_and_models_without_unimodal_predictions(partial: Dataset) -> None:
    config = replace(QUICK, model="lf-dnn", options={"hidden": 8}, label="sentiment", epochs=1)
    found = explain(train(partial, config).predictor, partial)
    assert np.isnan(found.importance).all() and isinstance(found.predicted[0], float)
    assert all(np.isnan(rank) for rank in agreement(found).values())


def test_no_rows_is_an_error(trained: Trained, partial: Dataset) -> None:
    with pytest.raises(DatasetError, match="of split 'holdout'"):
        explain(trained.predictor, partial, "holdout")


def test_agreement_is_a_rank_correlation_where_there_is_a_choice() -> None:
    importance = np.array([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1], [1.0, 0.0]])
    weights = np.array([[0.4, 0.6], [0.5, 0.5], [0.6, 0.4], [1.0, 0.0]])
    present = importance > 0
    nobody = np.empty(4, dtype=object)
    found = Explanation(("face", "voice"), nobody, nobody, nobody, np.zeros((4, 2)), present, weights, importance)
    assert agreement(found) == {"face": pytest.approx(1), "voice": pytest.approx(1)}


@pytest.mark.parametrize("count", [3, 40])
def test_projection_is_finite_and_repeatable(count: int) -> None:
    features = np.random.default_rng(0).normal(size=(count, 5))
    features[:, 2] = 1.0
    one, two = project(features), project(features)
    assert one.shape == (count, 2) and np.isfinite(one).all() and np.array_equal(one, two)
