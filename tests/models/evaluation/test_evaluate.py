"""Evaluation measures what it says: subsets, weights, priors, folds and seeds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emopipe.errors import DatasetError
from emopipe.models.data.dataset import Dataset, FeatureStore
from emopipe.models.evaluation.evaluate import cross_validate, evaluate, evaluate_seeds, summarise
from emopipe.models.predictor import Predictor, Scores
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.loop import train
from tests.models.conftest import CLASSES

QUICK = TrainConfig(epochs=3, batch_size=32, lr=3e-3, options={"width": 16, "layers": 1, "heads": 2, "router_width": 8})


@pytest.fixture(scope="module")
def predictor(partial: Dataset) -> Predictor:
    return train(partial, replace(QUICK, epochs=6)).predictor


def test_every_subset_is_measured_on_the_rows_that_have_it(predictor: Predictor, partial: Dataset) -> None:
    found = evaluate(predictor, partial, "test")
    rows = np.flatnonzero(partial.split == "test")
    assert set(found.subsets) == {
        "text",
        "face",
        "voice",
        "text+face",
        "text+voice",
        "face+voice",
        "text+face+voice",
    }
    assert found.subsets["face"]["rows"] == partial.present[rows, 1].sum()
    assert found.subsets["text+voice"]["rows"] == partial.present[rows][:, [0, 2]].all(axis=1).sum()
    assert found.rows == len(rows)


def test_rows_that_lack_a_modality_are_measured_with_what_they_have(predictor: Predictor, partial: Dataset) -> None:
    found = evaluate(predictor, partial, "test")
    assert found.subsets["text+face+voice"]["rows"] < found.rows
    assert found.to_pandas().loc["all rows"].to_dict() == {"rows": found.rows, **found.metrics}
    assert evaluate(predictor, partial, "test", by_subset=False) == replace(found, subsets={})
    complete = partial.subset(np.flatnonzero(partial.present.all(axis=1)))
    assert "all rows" not in evaluate(predictor, complete, None).by_modalities()
    assert "all rows" not in evaluate(predictor, partial, "test", modalities=["face"]).by_modalities()


def test_confusion_counts_every_row(predictor: Predictor, partial: Dataset) -> None:
    found = evaluate(predictor, partial, "test")
    matrix = np.array(found.confusion)
    assert found.classes == CLASSES
    assert matrix.sum() == found.rows
    assert np.trace(matrix) / matrix.sum() == pytest.approx(found.metrics["accuracy"])


def test_hidden_modalities_are_not_used(predictor: Predictor, partial: Dataset) -> None:
    found = evaluate(predictor, partial, "test", modalities=["face"])
    assert set(found.weights) == {"face"} and found.weights["face"] == 1
    whole = evaluate(predictor, partial, "test")
    assert found.metrics["uar"] == whole.subsets["face"]["uar"]
    assert found.rows + found.no_evidence == whole.rows


def test_a_dataset_without_some_modality_is_measured_on_the_others(predictor: Predictor, partial: Dataset) -> None:
    one = evaluate(predictor, partial.select(["voice"]), "test")
    assert one.metrics == evaluate(predictor, partial, "test", modalities=["voice"]).metrics


def test_a_split_without_rows_is_an_error(predictor: Predictor, partial: Dataset) -> None:
    with pytest.raises(DatasetError, match="no row of split 'holdout'"):
        evaluate(predictor, partial, "holdout")


class TestPrior:
    def scores(self, present: list[bool]) -> Scores:
        logits = np.log(np.array([[0.4, 0.3, 0.2, 0.1]], np.float32))
        return Scores(logits, {}, np.zeros((1, 3), np.float32), np.array([present]))

    def with_priors(self, predictor: Predictor) -> Predictor:
        even, skewed = [0.25] * 4, [0.1, 0.1, 0.7, 0.1]
        priors = {"": {"natural": even, "trained": even}, "text": {"natural": skewed, "trained": even}}
        return Predictor(replace(predictor.spec, priors=priors, temperature=1.0), predictor.module)

    def test_uniform_changes_nothing(self, predictor: Predictor) -> None:
        found = self.with_priors(predictor).probabilities(self.scores([True, False, False]))
        assert found[0].tolist() == pytest.approx([0.4, 0.3, 0.2, 0.1])

    def test_training_shares_of_the_same_modalities_reweight_the_posterior(self, predictor: Predictor) -> None:
        tuned = self.with_priors(predictor)
        expected = np.array([0.4, 0.3, 0.2, 0.1]) * [0.1, 0.1, 0.7, 0.1]
        found = tuned.probabilities(self.scores([True, False, False]), "train")
        assert found[0].tolist() == pytest.approx((expected / expected.sum()).tolist(), rel=1e-5)
        others = tuned.probabilities(self.scores([False, True, False]), "train")
        assert others[0].tolist() == pytest.approx([0.4, 0.3, 0.2, 0.1], rel=1e-5)

    def test_given_shares_do_too(self, predictor: Predictor) -> None:
        shares = dict(zip(CLASSES, (0.97, 0.01, 0.01, 0.01), strict=True))
        assert self.with_priors(predictor).probabilities(self.scores([False, True, True]), shares)[0, 0] > 0.97

    def test_training_shares_are_recorded_by_pattern(self, predictor: Predictor) -> None:
        assert "" in predictor.spec.priors and "text+face+voice" in predictor.spec.priors
        for shares in predictor.spec.priors.values():
            assert sum(shares["natural"]) == pytest.approx(1) and sum(shares["trained"]) == pytest.approx(1)


def test_cross_validation_tests_every_row_once_per_seed(partial: Dataset) -> None:
    events: list[dict[str, object]] = []
    found = cross_validate(partial, QUICK, folds=3, seeds=(0, 1), modalities=("voice", "text"), hook=events.append)
    assert [(run["fold"], run["seed"]) for run in found.runs] == [(f, s) for f in range(3) for s in (0, 1)]
    assert found.mean["uar"] == pytest.approx(np.mean([run["uar"] for run in found.runs]))
    assert found.sd["uar"] == pytest.approx(np.std([run["uar"] for run in found.runs], ddof=1))
    assert found.mean["uar"] > 0.3
    assert sum(event["event"] == "run" for event in events) == 6


def test_seeds_on_the_manifest_split(partial: Dataset) -> None:
    found = evaluate_seeds(partial, replace(QUICK, epochs=1), [3, 4], split="test")
    assert [run["seed"] for run in found.runs] == [3, 4]


def test_without_a_split_seeds_are_measured_on_what_training_held_out(make: Callable[..., Dataset]) -> None:
    data = make(splits=False, count=80)
    assert evaluate_seeds(data, replace(QUICK, epochs=1), [3]).runs[0]["uar"] >= 0
    trained = train(data, replace(QUICK, epochs=1)).predictor
    with pytest.raises(DatasetError, match=r"no row of split 'valid'.*train \(80 rows\).*--split all"):
        evaluate(trained, data, "valid")


def test_summaries_skip_what_is_undefined() -> None:
    found = summarise(
        [{"fold": 0, "seed": 0, "corr": math.nan, "mae": 1.0}, {"fold": 1, "seed": 0, "corr": 0.5, "mae": 3.0}]
    )
    assert found.mean == {"corr": 0.5, "mae": 2.0}
    assert math.isnan(found.sd["corr"]) and found.sd["mae"] == pytest.approx(math.sqrt(2))


def test_values_of_all_folds_are_scored_alike(make: Callable[..., Dataset], tmp_path: Path) -> None:
    data = make(count=60, speakers=6, splits=False)
    values = np.clip(data.labels("sentiment"), -0.9, 0.9)
    values[data.speakers == "s3"] = 1.4
    manifest = data.manifest.set_column(data.manifest.column_names.index("sentiment"), "sentiment", [values])
    config = replace(QUICK, label="sentiment", model="linear", options={})
    stores = {name: FeatureStore.open(tmp_path / "data0" / f"{name}.parquet", name) for name in data.modalities}
    found = cross_validate(Dataset(manifest, stores, data.extraction, data.hash), config, folds=3)
    assert found.scoring is not None and found.scoring.kind == "mosi"
    assert all("acc7" in run for run in found.runs)


def test_rows_are_measured_beside_all_others_of_their_speakers(predictor: Predictor, partial: Dataset) -> None:
    rows = np.flatnonzero(partial.split == "test")
    assert evaluate(predictor, partial, None, rows=rows) == evaluate(predictor, partial, "test")
