"""Comparisons pair runs by fold and seed, resample speakers, and go on after a kill; ablations change one thing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from emopipe.errors import ConfigError, StudyError, TrainingError
from emopipe.models import metrics
from emopipe.models.data.dataset import Dataset
from emopipe.models.data.labelled import presence
from emopipe.models.evaluation.ablate import FULL, SWEEP, ablations, sweep
from emopipe.models.evaluation.compare import SCORES, Run, compare, differences, read_runs, scores
from emopipe.models.evaluation.evaluate import evaluate, fold_datasets, split_datasets, train_fold
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.loop import train

QUICK = TrainConfig(epochs=2, batch_size=32, lr=5e-3, options={"width": 16, "layers": 1, "heads": 2, "router_width": 8})
CONFIGS = {
    "emoe": QUICK,
    "lf-dnn": replace(QUICK, model="lf-dnn", options={"hidden": 8}),
    "face": replace(QUICK, model="unimodal", modalities=("face",), options={"width": 16, "heads": 2}),
}


@pytest.fixture(scope="module")
def runs(shared: Dataset) -> list[Run]:
    return compare(shared, CONFIGS, folds=2, seeds=(0, 1))


def test_every_model_meets_the_same_folds(runs: list[Run], shared: Dataset) -> None:
    assert [(run.fold, run.seed, run.model) for run in runs[:4]] == [
        (0, 0, "emoe"),
        (0, 0, "lf-dnn"),
        (0, 0, "face"),
        (0, 1, "emoe"),
    ]
    assert len(runs) == 12
    for fold in (0, 1):
        assert len({tuple(run.ids) for run in runs if run.fold == fold}) == 1
    once = [name for run in runs if run.model == "emoe" and run.seed == 0 for name in run.ids]
    assert sorted(once) == sorted(shared.ids)
    for run in runs:
        truth, predicted = np.array(run.truth), np.array(run.predicted)
        assert run.metrics["uar"] == pytest.approx(metrics.classification(truth, predicted)["uar"])


def test_scores_are_means_over_runs(runs: list[Run]) -> None:
    rows = scores(runs)
    assert [row["model"] for row in rows] == ["emoe", "lf-dnn", "face"]
    own = [run.metrics["uar"] for run in runs if run.model == "lf-dnn"]
    assert rows[1]["uar"] == pytest.approx(np.mean(own)) and rows[1]["uar_sd"] == pytest.approx(np.std(own, ddof=1))
    assert rows[1]["runs"] == 4 and rows[1]["parameters"] > 0


def test_differences_are_paired(runs: list[Run], shared: Dataset) -> None:
    groups = dict(zip(shared.ids, shared.groups, strict=True))
    found = {one.model: one for one in differences(runs, "emoe", groups, "uar", resamples=500)}
    assert set(found) == {"emoe", "lf-dnn", "face"}
    for one in (found["lf-dnn"], found["face"]):
        assert one.low < one.difference < one.high
        assert one.difference == pytest.approx(one.pooled - one.reference)
        assert one.run_low < one.run_difference < one.run_high
    same = [*runs, *(replace(run, model="twin") for run in runs if run.model == "emoe")]
    twin = next(one for one in differences(same, "emoe", groups, "uar", 100) if one.model == "twin")
    assert (twin.difference, twin.low, twin.high, twin.run_difference) == (0, 0, 0, 0)


def made_up(model: str, right: int, seed: int = 0, fold: int = 0) -> Run:
    """100 utterances, of which so many are right."""
    truth = ["a", "b"] * 50
    said = [one if i < right else {"a": "b", "b": "a"}[one] for i, one in enumerate(truth)]
    found = metrics.classification(np.array(truth), np.array(said))
    return Run("k", model, fold, seed, 1, 1.0, found, [str(i) for i in range(100)], truth, said)


def test_an_interval_is_as_wide_as_the_speakers_are_few() -> None:
    pair = [made_up("one", 90), made_up("two", 70)]
    widths = []
    for speakers in (100, 10):
        found = differences(pair, "two", {str(i): f"{i * speakers // 100:03d}" for i in range(100)}, "uar")[0]
        assert found.difference == pytest.approx(0.2)
        widths.append(found.high - found.low)
    # Twenty of a hundred utterances differ: standard error sqrt(0.2 * 0.8 / 100) = 0.04 of independent ones.
    assert widths[0] == pytest.approx(2 * 1.96 * 0.04, rel=0.1)
    assert widths[1] > 2 * widths[0]


def test_the_t_interval_of_runs_allows_for_shared_training_rows() -> None:
    gaps = (0.1, 0.2, 0.3, 0.2)
    own = [
        replace(made_up("one", 50, s, f), metrics={"uar": 0.5 + g}) for g, (f, s) in zip(gaps, _cells(), strict=True)
    ]
    other = [replace(made_up("two", 50, s, f), metrics={"uar": 0.5}) for f, s in _cells()]
    found = differences([*own, *other], "two", {str(i): str(i) for i in range(100)}, "uar", 10)[0]
    half = 3.18245 * np.std(gaps, ddof=1) * np.sqrt(1 / 4 + 1 / 1)
    assert found.run_difference == pytest.approx(0.2)
    assert found.run_high - 0.2 == pytest.approx(half, rel=1e-4)


def _cells() -> list[tuple[int, int]]:
    return [(fold, seed) for fold in range(2) for seed in range(2)]


@pytest.mark.parametrize("metric", ["uar", "accuracy", "macro_f1", "weighted_f1"])
def test_counted_metrics_are_the_metrics(metric: str) -> None:
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 3, 60), rng.integers(0, 4, 60)
    table = np.zeros((4, 4))
    np.add.at(table, (truth, said), 1)
    assert SCORES[metric](table[None])[0] == pytest.approx(metrics.classification(truth, said)[metric])


def test_values_are_compared_by_their_error(shared: Dataset) -> None:
    configs = {name: replace(config, label="sentiment") for name, config in CONFIGS.items() if name != "face"}
    found = compare(shared, configs, folds=2, seeds=(0,))
    groups = dict(zip(shared.ids, shared.groups, strict=True))
    one = {one.model: one for one in differences(found, "emoe", groups, "mae", 200)}["lf-dnn"]
    errors = [
        abs(a - b) for run in found if run.model == "lf-dnn" for a, b in zip(run.truth, run.predicted, strict=True)
    ]
    assert one.pooled == pytest.approx(np.mean(errors))
    with pytest.raises(ConfigError, match="corr"):
        differences(found, "emoe", groups, "corr")


def test_values_that_were_not_said_leave_the_utterance_out_for_both() -> None:
    names, truth = ["a", "b", "c", "d"], [0.0, 1.0, 2.0, 3.0]
    one = Run("", "one", 0, 0, 0, 0.0, {"mae": 0.5}, names, truth, [float("nan"), 1.5, 2.5, 3.5])
    two = Run("", "two", 0, 0, 0, 0.0, {"mae": 1.0}, names, truth, [9.0, 2.0, float("nan"), 3.0])
    groups = {name: name for name in names}
    found = differences([one, two], "two", groups, "mae")[0]
    assert (found.pooled, found.reference, found.difference) == (0.5, 0.5, 0.0)
    none = replace(one, predicted=[float("nan")] * 4)
    assert np.isnan(differences([none, two], "two", groups, "mae")[0].difference)


def test_an_interrupted_comparison_goes_on(shared: Dataset, runs: list[Run], tmp_path: Path) -> None:
    record = tmp_path / "runs.jsonl"
    two = {name: CONFIGS[name] for name in ("emoe", "face")}
    first = compare(shared, two, folds=2, seeds=(0,), record=record)
    lines = record.read_text().splitlines(keepends=True)
    record.write_text("".join(lines[:3]) + lines[3][:40])
    told: list[dict[str, object]] = []
    again = compare(shared, {**two, "same": QUICK}, folds=2, seeds=(0,), record=record, hook=told.append)
    assert len({event["epoch"] for event in told if event["event"] == "epoch"}) == 2
    assert sum(event["event"] == "epoch" for event in told) == 2  # one run of two epochs was missing
    assert [(run.model, run.predicted) for run in again if run.model != "same"] == [
        (run.model, run.predicted) for run in first
    ]
    assert len(read_runs(record)) == 4
    changed = compare(shared, {"emoe": replace(QUICK, lr=1e-4)}, folds=2, seeds=(0,), record=record)
    assert changed[0].key != first[0].key


def test_unknown_references_and_mixed_labels_are_refused(runs: list[Run], shared: Dataset) -> None:
    with pytest.raises(ConfigError, match="reference"):
        differences(runs, "mult", {}, "uar")
    with pytest.raises(ConfigError, match="one column"):
        compare(shared, {"a": QUICK, "b": replace(QUICK, label="sentiment")})


def test_tests_and_validation_may_require_modalities(make: Callable[..., Dataset]) -> None:
    data = make(count=200, missing=0.5, splits=False)
    requires = ("face", "voice")
    whole, kept = fold_datasets(data, QUICK, 3), fold_datasets(data, QUICK, 3, requires)
    for (train_a, _), (train_b, test) in zip(whole, kept, strict=True):
        assert train_a.ids.tolist() == train_b.ids.tolist()
        assert test.present[:, 1:].all() and len(test)
    inner = kept[0][0]
    valid = train_fold(inner, QUICK, requires).split[1]
    assert len(valid) and inner.present[valid][:, 1:].all()


# ----------------------------------------------------------------------------------------------------------- ablations


def test_ablations_change_one_thing_each() -> None:
    tables = ablations(QUICK)
    assert set(tables) == {
        "routing and distillation",
        "router losses",
        "unimodal losses",
        "fusion",
        "form of distillation",
    }
    assert all(next(iter(variants)) == FULL for variants in tables.values())
    both = tables["routing and distillation"]["without both"].options
    assert both == {**QUICK.options, "routing": "uniform", "lambda2": 0.0}
    assert tables["fusion"]["concat instead of sum"].options["fusion"] == "concat"
    flipped = ablations(replace(QUICK, options={"fusion": "concat"}))
    assert flipped["fusion"]["sum instead of concat"].options["fusion"] == "sum"


def test_egmf_is_trained_without_each_of_its_parts() -> None:
    base = TrainConfig("egmf")
    tables = ablations(base, ("text", "face", "voice"))
    assert list(tables) == ["modalities", "experts", "gate", "LoRA"] and sweep(base) == {}
    assert all(next(iter(variants)) == FULL for variants in tables.values())
    kept = {name: one.modalities for name, one in tables["modalities"].items() if name != FULL}
    assert kept == {
        "without text": ("face", "voice"),
        "without face": ("text", "voice"),
        "without voice": ("text", "face"),
        "without face and voice": ("text",),
    }
    experts = [one.options["closed_experts"] for name, one in tables["experts"].items() if name != FULL]
    assert experts == [(1,), (2,), (3,), (1, 2, 3)]
    assert [one.options.get("gate") for one in tables["gate"].values()] == [None, "first", "second", "uniform"]
    assert tables["LoRA"]["without LoRA"].options == {"lora_rank": 0}
    assert list(ablations(replace(base, options={"lora_rank": 0}), ("text", "face"))["LoRA"]) == [FULL, "with LoRA"]
    assert list(ablations(base, ("face",))) == ["experts", "gate", "LoRA"]
    with pytest.raises(StudyError, match="words alone"):
        ablations(base, ("text",))


def test_a_sweep_holds_the_configured_value() -> None:
    found = sweep(replace(QUICK, options={"alpha": 0.3}))
    assert set(found) == set(SWEEP)
    assert list(found["alpha"]) == [0.0, 0.01, 0.1, 0.3, 1.0, 10.0]
    assert found["temperature"][2.0].options == {"alpha": 0.3, "temperature": 2.0}
    with pytest.raises(ConfigError, match="no parts"):
        sweep(replace(QUICK, model="lf-dnn", options={}))


def with_splits(dataset: Dataset) -> Dataset:
    """Half of the speakers train, others validate, the rest test."""
    names = sorted(set(dataset.speakers))
    parts = dict(zip(names, ("train", "train", "valid", "test") * len(names), strict=False))
    at = dataset.manifest.column_names.index("split")
    splits = pa.array([parts[name] for name in dataset.speakers], pa.string())
    return dataset.with_manifest(dataset.manifest.set_column(at, "split", splits))


def test_a_split_of_the_dataset_is_tested_over_seeds(shared: Dataset, tmp_path: Path) -> None:
    data = with_splits(shared)
    configs = {"emoe": CONFIGS["emoe"], "lf-dnn": CONFIGS["lf-dnn"]}
    found = compare(data, configs, seeds=(0, 1), split="test", record=tmp_path / "runs.jsonl")
    assert [(run.fold, run.seed) for run in found] == [(0, 0), (0, 0), (0, 1), (0, 1)]
    assert all(run.ids == data.ids[data.split == "test"].tolist() for run in found)
    alone = train(data, replace(QUICK, seed=1)).predictor
    assert found[2].metrics == pytest.approx(evaluate(alone, data, "test").metrics)
    groups = dict(zip(data.ids, data.groups, strict=True))
    other = differences(found, "emoe", groups, "uar", resamples=200)[1]
    gaps = [found[at + 1].metrics["uar"] - found[at].metrics["uar"] for at in (0, 2)]
    assert other.run_high - other.run_low == pytest.approx(2 * 12.706 * np.std(gaps, ddof=1) / np.sqrt(2), rel=1e-3)
    again = compare(data, configs, seeds=(0, 1), split="test", record=tmp_path / "runs.jsonl")
    assert again == found
    assert {run.key for run in again}.isdisjoint(run.key for run in compare(data, configs, folds=2, seeds=(0,)))


def test_a_split_that_cannot_be_tested_is_refused(shared: Dataset) -> None:
    data = with_splits(shared)
    with pytest.raises(StudyError, match="no labelled row has the split 'other'"):
        compare(data, CONFIGS, split="other")
    with pytest.raises(StudyError, match="all labelled rows are of 'test'"):
        compare(data.subset(data.split == "test"), CONFIGS, split="test")
    at = data.manifest.column_names.index("speaker")
    same = data.with_manifest(data.manifest.set_column(at, "speaker", pa.array(["x"] * len(data))))
    with pytest.raises(TrainingError, match="both training and test: x"):
        compare(same, CONFIGS, split="test")


def test_rows_that_are_validated_on_have_what_is_required(shared: Dataset) -> None:
    data = with_splits(shared)
    ((inner, test),) = split_datasets(data, QUICK, "test", ("face", "voice"))
    assert presence(test, ("face", "voice")).all()
    assert set(inner.split) == {"train", "valid"}
    trained = train_fold(inner, QUICK, ("face", "voice"))
    held = inner.subset(trained.split[1])
    assert presence(held, ("face", "voice")).all() and set(held.split) == {"valid"}
