"""Confidence is calibrated and abstention keeps its promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from emopipe.models.data.dataset import Dataset
from emopipe.models.data.labelled import targets
from emopipe.models.evaluation.evaluate import cross_validate, evaluate, fold_datasets
from emopipe.models.training.calibration import (
    Answers,
    abstain_threshold,
    calibrate,
    calibrated,
    fit_product,
    fit_temperature,
    helps,
    risk_coverage,
    tempered_across_folds,
)
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.loop import train


def test_temperature_undoes_overconfidence() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 3))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([rng.choice(3, p=row) for row in p])
    assert fit_temperature(logits, labels) == pytest.approx(1, abs=0.1)
    assert fit_temperature(5 * logits, labels) == pytest.approx(5, rel=0.1)
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, int)) == 1


def test_a_product_weighs_each_modality_by_what_it_tells() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=4000)
    seen = np.eye(3)[labels] + rng.normal(size=(4000, 3))  # a Gaussian's log density ratios are exactly these
    told = {
        "face": 4 * seen,
        "voice": np.eye(3)[labels] + rng.normal(size=(4000, 3)),
        "noise": rng.normal(size=(4000, 3)),
    }
    fitted = fit_product(told, labels)
    assert fitted["face"] == pytest.approx(4, rel=0.15) and fitted["voice"] == pytest.approx(1, rel=0.15)
    assert fitted["noise"] == pytest.approx(20)
    assert fit_product(told, labels, np.ones(4000)) == pytest.approx(fitted)


def test_a_few_sure_errors_do_not_decide_how_sure_a_product_is() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=4000)
    heard = np.eye(3)[labels] + rng.normal(size=(4000, 3))
    wrong = np.arange(4000) < 40
    told = np.where(wrong[:, None], 30 * np.eye(3)[(labels + 1) % 3], heard)
    assert fit_product({"voice": told}, labels)["voice"] == pytest.approx(1, rel=0.15)
    assert fit_temperature(told, labels) > 2


def test_risk_falls_with_coverage_when_confidence_tells() -> None:
    curve = risk_coverage(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, False]))
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert curve.risk.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 2])
    assert curve.area == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)


@pytest.mark.parametrize(("accuracy", "expected"), [(0.5, 0.0), (0.6, 0.7), (0.9, 0.8), (1.0, 0.8)])
def test_threshold_reaches_the_asked_accuracy_with_most_answers(accuracy: float, expected: float) -> None:
    confidence, correct = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, False])
    assert abstain_threshold(confidence, correct, accuracy) == expected


def test_threshold_does_not_split_ties() -> None:
    assert abstain_threshold(np.array([0.9, 0.8, 0.8]), np.array([True, True, False]), 0.9) == 0.9


def test_an_accuracy_out_of_reach_answers_nothing() -> None:
    assert abstain_threshold(np.array([0.9, 0.8]), np.array([False, False]), 0.5) > 1


def test_a_calibrated_predictor_abstains_where_it_would_miss_the_accuracy(shared: Dataset) -> None:
    small = {"width": 16, "layers": 1, "heads": 2, "router_width": 8}
    config = TrainConfig(epochs=6, batch_size=16, lr=3e-3, options=small)
    predictor = train(shared, config).predictor
    valid = shared.subset(shared.split == "valid")
    strict = calibrate(predictor, valid, accuracy=0.95)
    rows = [valid.sample(row) for row in range(len(valid))]
    answered = [
        (p.label, t) for p, t in zip(strict.predict(rows), valid.labels("label"), strict=True) if not p.abstained
    ]
    assert 0 < len(answered) < len(rows)
    assert np.mean([label == truth for label, truth in answered]) >= 0.95
    assert not any(p.abstained for p in predictor.predict(rows))


def test_regression_is_left_as_it_is(shared: Dataset) -> None:
    config = TrainConfig(epochs=1, label="sentiment", options={"width": 16, "layers": 1, "heads": 2})
    predictor = train(shared, config).predictor
    assert calibrate(predictor, shared) is predictor
    assert replace(predictor.spec) == predictor.spec


def overconfident(rng: np.random.Generator, factor: float, rows: int = 200) -> Answers:
    """Answers whose logits are too large by a factor."""
    logits = rng.normal(size=(rows, 3)) * 2
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = np.array([rng.choice(3, p=share) for share in shares])
    return Answers(factor * logits, truth)


def test_the_temperature_of_folds_is_chosen_by_the_other_folds_where_that_helps() -> None:
    rng = np.random.default_rng(0)
    folds = [overconfident(rng, 4.0) for _ in range(4)]
    tempered = tempered_across_folds(folds)
    assert helps(folds, tempered)
    assert Answers.join(tempered).error() < 0.5 * Answers.join(folds).error()
    opposite = [overconfident(rng, 4.0), overconfident(rng, 0.25)]
    assert not helps(opposite, tempered_across_folds(opposite))


def test_cross_validation_tells_the_calibration_error_at_that_temperature(make: Callable[..., Dataset]) -> None:
    data = make(count=160, speakers=16, splits=False, noise=2.5)
    raw = {"relative": False, "strengths": (1e6,)}  # hardly regularised, so far too sure
    config = TrainConfig("linear", raw, device="cpu")
    summary = cross_validate(data, config, folds=4)
    inner, test = fold_datasets(data, config, 4)[0]
    uncalibrated = evaluate(train(inner, config).predictor, test, None).metrics
    assert summary.runs[0]["uar"] == uncalibrated["uar"] and summary.runs[0]["ece"] < uncalibrated["ece"]


def test_models_of_folds_that_are_never_wrong_are_not_made_certain() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 12)
    right = Answers(np.eye(3)[truth] * 2.0, truth)
    for tempered in tempered_across_folds([right, right]):
        assert 0.9 < tempered.probabilities(1.0).max() < 0.97


def test_rows_are_calibrated_beside_all_others_of_their_speakers(make: Callable[..., Dataset]) -> None:
    data = make(count=120, speakers=6)
    options = {"width": 16, "layers": 1, "heads": 2, "router_width": 8, "relative": True}
    predictor = train(data, TrainConfig(epochs=2, lr=3e-3, options=options)).predictor
    valid = np.flatnonzero(data.split == "valid")
    rows = valid[::3]
    whole, alone = calibrate(predictor, data, rows=rows), calibrate(predictor, data.subset(rows))
    scores = predictor.scores(data, rows)
    truth = targets(data, "label", predictor.spec.classes)[rows]
    assert whole.spec.temperature == calibrated(predictor, Answers(scores.logits, truth)).spec.temperature
    assert whole.spec.temperature != alone.spec.temperature
