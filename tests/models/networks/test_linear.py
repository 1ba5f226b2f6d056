"""The linear model: fitted at once, relative to the speaker where that is known, sensible with hardly any data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import softmax

from emopipe.models import checkpoint
from emopipe.models.data.dataset import Dataset
from emopipe.models.data.reading import read
from emopipe.models.evaluation.evaluate import cross_validate, evaluate
from emopipe.models.networks.linear import inner_folds
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.loop import Trained, train
from tests.models.conftest import CLASSES, write_dataset


def settings(**changes: Any) -> TrainConfig:
    return TrainConfig(**{"model": "linear", "device": "cpu", **changes})


def fitted(data: Dataset, **changes: Any) -> Trained:
    return train(data, settings(**changes))


def with_column(data: Dataset, name: str, values: list[Any]) -> Dataset:
    at = data.manifest.column_names.index(name)
    return data.with_manifest(data.manifest.set_column(at, name, pa.array(values)))


def speakers_apart(folder: Path, speakers: int = 8, rows: int = 24) -> Dataset:
    """Classes that differ by much less than speakers do."""
    rng = np.random.default_rng(3)
    directions = rng.normal(size=(len(CLASSES), 6))
    manifest: list[dict[str, Any]] = []
    steps: dict[str, np.ndarray] = {}
    for speaker in range(speakers):
        offset = 6 * rng.normal(size=6)
        for row in range(rows):
            key = f"{speaker}-{row}"
            steps[key] = offset + directions[row % len(CLASSES)] + 0.4 * rng.normal(size=(3, 6))
            manifest.append({"id": key, "speaker": f"s{speaker}", "split": "train", "face": key})
            manifest[-1] |= {"label": CLASSES[row % len(CLASSES)], "sentiment": float(row % len(CLASSES))}
    return read(write_dataset(folder, manifest, {"face": steps}))


@pytest.mark.parametrize(("label", "metric", "bound"), [("label", "uar", 0.75), ("sentiment", "corr", 0.75)])
def test_it_predicts_classes_and_values_of_new_speakers(shared: Dataset, label: str, metric: str, bound: float) -> None:
    found = evaluate(fitted(shared, label=label).predictor, shared, "test")
    assert found.metrics[metric] > bound
    assert found.subsets["text+face+voice"][metric] > max(found.subsets[name][metric] for name in ("text", "face"))


def test_it_reads_utterances_relative_to_the_speaker_where_the_speaker_is_known(tmp_path: Path) -> None:
    data = speakers_apart(tmp_path / "data")
    relative = cross_validate(data, settings(), folds=4).mean["uar"]
    plain = cross_validate(data, settings(options={"relative": False}), folds=4).mean["uar"]
    assert relative > 0.9 and relative > plain + 0.2
    predictor = fitted(data).predictor
    nobody = with_column(data, "speaker", [None] * len(data))
    assert evaluate(predictor, nobody, None).rows == len(data)  # and lone clips are answered, too
    unknown = fitted(nobody).history[0]["chosen"]
    assert set(unknown) == {"face_plain"}


def test_all_rows_are_trained_on_unless_the_dataset_names_some_to_validate_on(
    shared: Dataset, make: Callable[..., Dataset]
) -> None:
    free = make(count=40, speakers=5, splits=False)
    whole = fitted(free)
    assert len(whole.split[0]) == len(free) and len(whole.split[1]) == 0
    assert set(whole.history[0]["chosen"]) > {"text_plain", "voice_relative"}
    assert len(fitted(shared).split[1]) == int((shared.split == "valid").sum())


@pytest.mark.parametrize("speakers", [1, 2])
def test_one_speaker_and_two_are_enough_to_fit_to(make: Callable[..., Dataset], speakers: int) -> None:
    data = make(count=24, speakers=speakers, splits=False)
    assert evaluate(fitted(data).predictor, data, None).metrics["uar"] > 0.5


def test_a_class_with_one_row_and_a_dataset_of_two_rows_do_not_stop_it(make: Callable[..., Dataset]) -> None:
    data = make(count=40, speakers=4, splits=False)
    rare = with_column(data, "label", ["rare", *data.labels("label").tolist()[1:]])
    assert "rare" in fitted(rare).predictor.spec.classes
    assert len(fitted(data.subset(np.array([0, 1]))).predictor.spec.classes) == 2


@pytest.mark.parametrize(("speakers", "parts"), [(6, 6), (12, 5)])
def test_strengths_are_chosen_with_one_of_few_speakers_left_out(
    make: Callable[..., Dataset], speakers: int, parts: int
) -> None:
    data = make(count=120, speakers=speakers, splits=False)
    folds = inner_folds(data, data.labels("label"), 5, seed=0)
    assert len(folds) == parts
    assert all(not set(data.speakers[rest]) & set(data.speakers[held]) for rest, held in folds)


def test_strengths_that_are_given_are_used(shared: Dataset) -> None:
    chosen = fitted(shared, options={"strengths": [0.5]}).history[0]["chosen"]
    assert {one["strength"] for one in chosen.values()} == {0.5}


def test_the_same_data_give_the_same_checkpoint_and_it_predicts_as_before(shared: Dataset, tmp_path: Path) -> None:
    first, again = (fitted(shared).predictor for _ in range(2))
    assert checkpoint.save(tmp_path / "model", first, "card") == checkpoint.identify(again)
    loaded = checkpoint.load(tmp_path / "model")
    assert np.array_equal(loaded.scores(shared).logits, first.scores(shared).logits)


def test_many_features_are_reduced(make: Callable[..., Dataset]) -> None:
    data = make(count=80, speakers=4, splits=False)
    found = evaluate(fitted(data, options={"components": 4}).predictor, data, None)
    assert found.metrics["uar"] > 0.5


BESIDE_EMOE = {"width": 16, "layers": 1, "heads": 2, "router_width": 8, "relative": True, "linear": True}


@pytest.mark.parametrize("label", ["label", "sentiment"])
def test_emoe_answers_with_the_mean_of_its_network_and_linear_models(
    shared: Dataset, tmp_path: Path, label: str
) -> None:
    config = TrainConfig("emoe", BESIDE_EMOE, label=label, epochs=2, device="cpu")
    trained = train(shared, config)
    predictor = trained.predictor
    assert trained.best["chosen"]
    linear = fitted(shared, label=label).predictor
    network = train(shared, replace(config, options={**BESIDE_EMOE, "linear": False})).predictor
    mean, alone, both = predictor.scores(shared), network.scores(shared), linear.scores(shared)

    def answers(logits: np.ndarray) -> np.ndarray:
        return logits if label == "sentiment" else softmax(logits, axis=-1)

    expected = (answers(alone.logits) + answers(both.logits)) / 2
    np.testing.assert_allclose(answers(mean.logits), expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(mean.weights, alone.weights)
    checkpoint.save(tmp_path / "model", predictor, "card")
    again = checkpoint.load(tmp_path / "model").scores(shared)
    np.testing.assert_array_equal(again.logits, mean.logits)


@pytest.mark.parametrize("options", [{"model": "linear"}, {"model": "emoe", "options": BESIDE_EMOE, "epochs": 2}])
def test_one_modality_alone_is_answered_by_what_that_modality_says(shared: Dataset, options: dict[str, Any]) -> None:
    predictor = train(shared, settings(**options)).predictor
    face = predictor.scores(shared.select(("face",)))
    np.testing.assert_allclose(softmax(face.logits, -1), softmax(face.unimodal["face"], -1), atol=1e-5)


def test_emoe_with_linear_models_goes_on_after_a_kill(shared: Dataset, tmp_path: Path) -> None:
    config = TrainConfig("emoe", BESIDE_EMOE, epochs=2, device="cpu")
    train(shared, config, state=tmp_path)
    resumed = train(shared, config, state=tmp_path).predictor
    whole = train(shared, config).predictor
    np.testing.assert_array_equal(resumed.scores(shared).logits, whole.scores(shared).logits)


def test_emoe_with_linear_models_begins_with_a_checkpoint_without_them(shared: Dataset) -> None:
    without = TrainConfig("emoe", {**BESIDE_EMOE, "linear": False}, epochs=1, device="cpu")
    start = train(shared, without).predictor
    begun = train(shared, replace(without, options=BESIDE_EMOE), start=start)
    assert begun.predictor.spec.training["start"]["kept"]["classes"] == list(CLASSES)
