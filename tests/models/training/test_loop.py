"""Training beats chance, is repeatable, survives a kill, and says plainly why it cannot start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from emopipe.errors import ConfigError, DeviceUnavailable, TrainingError
from emopipe.models.checkpoint import identify, load, save
from emopipe.models.data.dataset import Dataset
from emopipe.models.data.reading import read
from emopipe.models.evaluation.evaluate import evaluate
from emopipe.models.training.batches import Batches, drop_modalities, whole_groups
from emopipe.models.training.config import TrainConfig, configuration, read_configuration
from emopipe.models.training.events import silent
from emopipe.models.training.loop import Run, Trained, train
from emopipe.models.training.optimisation import choose_device
from emopipe.models.training.plan import balanced_weights, choose_split, make_plan
from tests.models import mmsa_files
from tests.models.conftest import learnable

QUICK = TrainConfig(epochs=4, batch_size=32, lr=3e-3, options={"width": 16, "layers": 1, "heads": 2, "router_width": 8})


@pytest.fixture(scope="module")
def trained(shared: Dataset) -> Trained:
    return train(shared, replace(QUICK, epochs=10, batch_size=16))


def test_training_beats_chance_and_fusion_beats_each_modality(trained: Trained, shared: Dataset) -> None:
    found = evaluate(trained.predictor, shared, "test")
    singles = [figures["uar"] for name, figures in found.subsets.items() if "+" not in name]
    assert all(uar > 0.35 for uar in singles)
    assert found.metrics["uar"] > max(singles) + 0.05


def test_the_best_epoch_is_kept(trained: Trained) -> None:
    assert trained.best["valid"]["uar"] == max(record["valid"]["uar"] for record in trained.history)


def test_regression_is_told_by_numeric_labels(shared: Dataset) -> None:
    result = train(shared, replace(QUICK, epochs=10, label="sentiment"))
    assert result.predictor.spec.task == "regression"
    found = evaluate(result.predictor, shared, "test").metrics
    truth = shared.labels("sentiment")
    test, rest = shared.split == "test", shared.split == "train"
    assert found["mae"] < 0.85 * np.abs(truth[test] - np.median(truth[rest])).mean()
    assert found["corr"] > 0.5


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(partial: Dataset) -> None:
    one, two, other = (train(partial, replace(QUICK, epochs=2, seed=seed)) for seed in (1, 1, 2))
    assert identify(one.predictor) == identify(two.predictor)
    assert identify(one.predictor) != identify(other.predictor)


def test_training_leaves_the_callers_random_state_alone(partial: Dataset) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    train(partial, replace(QUICK, epochs=1))
    assert torch.equal(torch.rand(1), expected)


class Killed(Exception):
    pass


def stop_after(epochs: int) -> Callable[[dict[str, Any]], None]:
    def hook(event: dict[str, Any]) -> None:
        if event.get("epoch") == epochs:
            raise Killed

    return hook


def test_averaged_weights_lie_between_those_of_the_steps_and_are_what_is_kept(partial: Dataset) -> None:
    plain = replace(QUICK, epochs=1, select="last", batch_size=len(partial))
    before, after, averaged = (
        train(partial, replace(plain, **changes)).predictor.module.state_dict()
        for changes in ({"lr": 1e-30}, {}, {"average": 0.9})
    )
    # One step; the average forgets at first faster than its decay: it stands at 2/11 of the start.
    for name, start in before.items():
        assert torch.allclose(averaged[name], start.lerp(after[name], 9 / 11), atol=1e-6)
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_schedule_for_more_epochs_is_that_of_a_training_stopped_early(partial: Dataset) -> None:
    whole = train(partial, replace(QUICK, epochs=4))
    short = train(partial, replace(QUICK, epochs=2, schedule_epochs=4))
    assert short.history == whole.history[:2] and short.history[-1]["lr"] > 0.3 * QUICK.lr
    with pytest.raises(ConfigError, match="schedule_epochs = 4"):
        replace(QUICK, epochs=5, schedule_epochs=4)


def test_averaging_changes_nothing_but_what_is_kept(partial: Dataset) -> None:
    plain, averaged = (train(partial, replace(QUICK, epochs=3, average=decay)) for decay in (0.0, 0.9))
    assert [one["train"] for one in plain.history] == [one["train"] for one in averaged.history]
    assert [one["valid"] for one in plain.history] != [one["valid"] for one in averaged.history]


def test_half_precision_is_left_to_cpus_that_multiply_it(partial: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = train(partial, replace(QUICK, epochs=1)).history
    for able in (False, True):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: {"avx2": True, "avx512_bf16": able})
        half = train(partial, replace(QUICK, epochs=1, cpu_amp=True)).history
        assert (half == plain) != able


@pytest.mark.parametrize("changes", [{"schedule": "cosine"}, {"schedule": "plateau"}, {"average": 0.9}])
def test_a_resumed_run_ends_like_an_uninterrupted_one(
    partial: Dataset, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = replace(QUICK, epochs=6, plateau=1, patience=6, accumulate=3, **changes)
    whole = train(partial, config, state=tmp_path / "whole")
    for epochs in (2, 3):
        with pytest.raises(Killed):
            train(partial, config, state=tmp_path / "parts", hook=stop_after(epochs))
    parts = train(partial, config, state=tmp_path / "parts")
    assert identify(parts.predictor) == identify(whole.predictor)
    assert parts.history == whole.history
    for name in ("state.safetensors", "metrics.jsonl"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


SCRIPT = """
import sys
from emopipe.models.data.reading import read
from emopipe.models.training.config import configuration
from emopipe.models.training.loop import train
import tomllib, pathlib
tables = tomllib.loads(pathlib.Path(sys.argv[2]).read_text())
train(read(sys.argv[1]), configuration(tables), state=sys.argv[3], hook=lambda event: print(event["event"], flush=True))
"""

TOML = """
[model]
name = "emoe"
width = 16
layers = 1
heads = 2

[train]
epochs = {epochs}
patience = 1000
"""


def test_a_run_that_is_killed_outright_goes_on(tmp_path: Path) -> None:
    data = learnable(tmp_path / "data", count=40)
    config = tmp_path / "config.toml"
    config.write_text(TOML.format(epochs=1000))
    command = [sys.executable, "-c", SCRIPT, str(data), str(config), str(tmp_path / "state")]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert run.stdout is not None
    for _ in range(2):
        run.stdout.readline()
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdout.close()
    done = len((tmp_path / "state" / "metrics.jsonl").read_text().splitlines())
    resumed: list[int] = []
    with pytest.raises(Killed):
        train(
            read(data),
            read_configuration(config),
            state=tmp_path / "state",
            hook=lambda event: (resumed.append(event["epoch"]), stop_after(event["epoch"])(event))[0],  # type: ignore[func-returns-value]
        )
    assert done >= 1 and done <= resumed[0] <= done + 2


def test_a_finished_run_is_not_run_again(partial: Dataset, tmp_path: Path) -> None:
    config = replace(QUICK, epochs=2)
    one = train(partial, config, state=tmp_path)
    events: list[dict[str, Any]] = []
    two = train(partial, config, state=tmp_path, hook=events.append)
    assert identify(one.predictor) == identify(two.predictor)
    assert not [event for event in events if event["event"] == "epoch"]


def test_the_state_of_another_run_is_refused(partial: Dataset, tmp_path: Path) -> None:
    train(partial, replace(QUICK, epochs=1), state=tmp_path)
    with pytest.raises(TrainingError, match="another training"):
        train(partial, replace(QUICK, epochs=1, lr=1e-4), state=tmp_path)


def test_a_damaged_state_is_reported(partial: Dataset, tmp_path: Path) -> None:
    (tmp_path / "state.safetensors").write_bytes(b"nonsense")
    with pytest.raises(TrainingError, match="damaged") as caught:
        train(partial, QUICK, state=tmp_path)
    assert caught.value.hint == "Remove it"


def test_metrics_are_written_as_json_lines(partial: Dataset, tmp_path: Path) -> None:
    result = train(partial, replace(QUICK, epochs=2), state=tmp_path)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert records == result.history
    assert {"task", "unimodal", "entropy", "similarity", "distillation", "total"} == set(records[0]["train"])
    assert "uar" in records[0]["valid"]


def test_training_stops_early_when_nothing_gets_better(partial: Dataset) -> None:
    result = train(partial, replace(QUICK, epochs=50, lr=1e-12, patience=3))
    assert len(result.history) == 4
    assert result.best["epoch"] == 1


def test_the_last_epoch_can_be_kept_so_that_validation_rows_choose_nothing(partial: Dataset) -> None:
    result = train(partial, replace(QUICK, epochs=2, select="last"))
    assert result.best["epoch"] == 2
    assert set(partial.split[result.split[0]]) == {"train"} and set(partial.split[result.split[1]]) == {"valid"}


def test_without_a_split_the_last_epoch_is_trained_on_all_rows(partial: Dataset) -> None:
    rows = partial.subset(partial.split != "test")
    at = rows.manifest.column_names.index("split")
    whole = rows.with_manifest(rows.manifest.set_column(at, "split", [["train"] * len(rows)]))
    result = train(whole, replace(QUICK, epochs=2, select="last"))
    assert len(result.split[0]) == len(rows) and len(result.split[1]) == 0
    assert result.predictor.spec.temperature == 1


def test_left_over_batches_make_a_step(partial: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    original = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *a, **k: (steps.append(1), original(self, *a, **k))[1])
    rows = np.flatnonzero(partial.split == "train")[:70]
    train(partial, replace(QUICK, epochs=1, batch_size=10, accumulate=3), split=(rows, rows))
    assert len(steps) == 3  # seven batches: 3 + 3 + 1


def test_accumulated_batches_move_as_one_large_batch(shared: Dataset) -> None:
    still = {
        **QUICK.options,
        **dict.fromkeys(("input_dropout", "embed_dropout", "residual_dropout", "output_dropout"), 0.0),
    }
    config = replace(QUICK, epochs=1, modality_dropout=0.0, options=still, warmup=0.0)
    rows = np.flatnonzero(shared.split == "train")[:64]
    small = train(shared, replace(config, batch_size=16, accumulate=4), split=(rows, rows))
    large = train(shared, replace(config, batch_size=64), split=(rows, rows))
    for one, two in zip(small.predictor.module.parameters(), large.predictor.module.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-4)


def test_standardisation_is_fitted_on_the_training_rows_only(shared: Dataset) -> None:
    rows = np.flatnonzero(shared.split == "train")
    result = train(shared, replace(QUICK, epochs=1))
    mean = result.predictor.module.state_dict()["branches.face.standardise.mean"]
    assert np.allclose(mean.numpy(), shared.subset(rows).steps("face").mean(axis=0), rtol=1e-4)


def test_modality_dropout_hides_some_in_half_of_the_batches_and_never_all(partial: Dataset) -> None:
    rng, batch = np.random.default_rng(0), partial.batch(np.arange(100))
    hidden = []
    for _ in range(200):
        kept = drop_modalities(batch, 0.3, rng).present
        assert (kept <= batch.present).all()
        assert (kept.any(1) == batch.present.any(1)).all()
        hidden.append((batch.present & ~kept).any().item())
    assert 0.4 < np.mean(hidden) < 0.6


class TestBalance:
    @pytest.fixture
    def skewed(self, make: Callable[..., Dataset]) -> Dataset:
        data = make(count=400, missing=0.4)
        labels = data.labels("label")
        return data.subset((labels == "anger") | (np.arange(400) % 5 == 0))

    def weights(self, data: Dataset, balance: str) -> np.ndarray:
        config = replace(QUICK, balance=balance)
        plan = make_plan(data, config, choose_split(data, config), lambda event: None)
        self.rows = plan.train
        return plan.weights

    def test_balanced_classes_weigh_the_same(self, skewed: Dataset) -> None:
        weights, labels = self.weights(skewed, "balanced"), skewed.labels("label")
        mass = [weights[self.rows][labels[self.rows] == name].sum() for name in sorted(set(labels))]
        assert mass == pytest.approx([mass[0]] * 4, rel=1e-4)
        assert weights[self.rows].mean() == pytest.approx(1, rel=1e-5)

    def test_patterns_balance_within_each_set_of_modalities(self, skewed: Dataset) -> None:
        weights, labels = self.weights(skewed, "patterns"), skewed.labels("label")
        for pattern in np.unique(skewed.present[self.rows], axis=0):
            inside = self.rows[(skewed.present[self.rows] == pattern).all(axis=1)]
            names = sorted(set(labels[inside]))
            mass = [weights[inside][labels[inside] == name].sum() for name in names]
            assert mass == pytest.approx([mass[0]] * len(names), rel=1e-4)

    def test_none_leaves_rows_alone(self, skewed: Dataset) -> None:
        assert (self.weights(skewed, "none") == 1).all()


class TestSplits:
    def test_without_a_valid_split_speakers_are_held_out(self, make: Callable[..., Dataset]) -> None:
        data = make(count=200, splits=False)
        result = train(data, replace(QUICK, epochs=1))
        sides = [set(data.speakers[rows]) for rows in result.split]
        assert not sides[0] & sides[1]
        assert 0.1 < len(result.split[1]) / 200 < 0.4
        assert set(data.labels("label")[result.split[1]]) == set(data.labels("label"))

    def test_the_test_split_is_never_trained_on(self, shared: Dataset) -> None:
        result = train(shared, replace(QUICK, epochs=1))
        assert not (shared.split[np.concatenate(result.split)] == "test").any()

    def test_a_speaker_on_both_sides_is_an_error_unless_allowed(self, make: Callable[..., Dataset]) -> None:
        data = make(count=80, speakers=12)
        column = data.manifest.column_names.index("split")
        mixed = data.with_manifest(data.manifest.set_column(column, "split", [["train", "valid"] * 40]))
        with pytest.raises(TrainingError, match="both train and valid: s0") as caught:
            train(mixed, QUICK)
        assert "allow_speaker_overlap" in caught.value.hint

    def test_a_test_speaker_may_not_be_trained_on(self, shared: Dataset) -> None:
        column = shared.manifest.column_names.index("speaker")
        names = ["s4" if name == "s0" else name for name in shared.speakers]
        mixed = shared.with_manifest(shared.manifest.set_column(column, "speaker", [names]))
        with pytest.raises(TrainingError, match="both training and test: s4"):
            train(mixed, QUICK)

    def test_overlap_can_be_allowed(self, make: Callable[..., Dataset]) -> None:
        data = make(count=80, speakers=1, splits=False)
        with pytest.raises(TrainingError, match="fewer than two speakers"):
            train(data, QUICK)
        result = train(data, replace(QUICK, epochs=1, allow_speaker_overlap=True))
        assert len(result.split[1]) > 0

    def test_one_class_is_too_few(self, shared: Dataset) -> None:
        with pytest.raises(TrainingError, match="all rows to train on are labelled 'anger'"):
            train(shared.subset(shared.labels("label") == "anger"), QUICK)

    def test_no_labelled_row_is_too_few(self, shared: Dataset) -> None:
        with pytest.raises(TrainingError, match="no row has a label and a modality"):
            train(shared.subset(np.zeros(len(shared), dtype=bool)), QUICK)

    def test_a_class_that_only_validation_knows_is_an_error(self, shared: Dataset) -> None:
        keep = (shared.split == "valid") | (shared.labels("label") != "fear") & (shared.labels("label") != "anger")
        with pytest.raises(TrainingError, match="'anger' is validated on but never trained on"):
            train(shared.subset(keep), QUICK)

    def test_rows_without_label_are_left_out(self, shared: Dataset) -> None:
        labels = shared.labels("label").tolist()
        labels[:50] = [None] * 50
        at = shared.manifest.column_names.index("label")
        holed = shared.with_manifest(shared.manifest.set_column(at, "label", [labels]))
        result = train(holed, replace(QUICK, epochs=1))
        assert min(result.split[0].min(), result.split[1].min()) >= 50


def test_modalities_can_be_chosen(shared: Dataset) -> None:
    result = train(shared, replace(QUICK, epochs=1, modalities=("voice",)))
    assert result.predictor.spec.modalities == ("voice",)
    assert (result.predictor.scores(shared, np.arange(4)).weights == 1).all()


def test_a_loss_that_explodes_is_reported(shared: Dataset) -> None:
    at = shared.manifest.column_names.index("sentiment")
    huge = shared.with_manifest(shared.manifest.set_column(at, "sentiment", [shared.labels("sentiment") * 1e38]))
    with pytest.raises(TrainingError, match="no longer finite"):
        train(huge, replace(QUICK, label="sentiment", epochs=3))


class TestConfiguration:
    def test_tables_become_a_configuration(self, tmp_path: Path) -> None:
        path = tmp_path / "c.toml"
        path.write_text('[model]\nname = "emoe"\nwidth = 32\nkernel = 3\n[train]\nlr = 1\nmodalities = ["face"]\n')
        config = read_configuration(path)
        assert config.options == {"width": 32, "kernel": 3}
        assert config.lr == 1
        assert config.modalities == ("face",)

    @pytest.mark.parametrize(
        ("tables", "words"),
        [
            ({"training": {}}, r"no table \[training\]"),
            ({"train": {"learning_rate": 1}}, r"\[train\] has no option 'learning_rate'.*lr"),
            ({"model": {"depth": 1}}, "model emoe has no option 'depth'.*layers"),
            ({"model": {"name": "emo"}}, "no model 'emo'.*emoe"),
            ({"model": {"fusion": "product"}}, "fusion = 'product' does not fit.*'sum', 'concat'"),
            ({"train": {"epochs": "ten"}}, "epochs = 'ten' does not fit.*a whole number from 1"),
            ({"train": {"epochs": True}}, "epochs = True does not fit"),
            ({"train": {"epochs": 0}}, r"\[train\] epochs = 0 does not fit.*from 1 to 1000000"),
            ({"train": {"model": "emoe"}}, r"\[model\]"),
            ({"train": {"schedule": "step"}}, "'cosine', 'plateau', 'none'"),
        ],
    )
    def test_mistakes_are_named(self, tables: dict[str, Any], words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            configuration(tables)

    def test_a_file_that_is_no_toml_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "c.toml").write_text("[train")
        with pytest.raises(ConfigError, match=r"c\.toml"):
            read_configuration(tmp_path / "c.toml")

    def test_an_unknown_metric_lists_the_known(self, partial: Dataset) -> None:
        with pytest.raises(ConfigError, match="uar"):
            train(partial, replace(QUICK, metric="f2"))

    def test_cuda_that_is_not_there_is_an_error(self) -> None:
        if torch.cuda.is_available():
            assert choose_device("auto").type == "cuda"
        else:
            with pytest.raises(DeviceUnavailable, match="no CUDA"):
                choose_device("cuda")


def test_training_goes_on_from_a_checkpoint(trained: Trained, shared: Dataset) -> None:
    still = replace(QUICK, epochs=1, batch_size=16, lr=1e-9, weight_decay=0.0)
    again = train(shared, still, start=trained.predictor)
    samples = [shared.sample(row) for row in range(5)]
    for before, after in zip(trained.predictor.module.parameters(), again.predictor.module.parameters(), strict=True):
        assert torch.allclose(before, after, atol=1e-6)
    assert [one.label for one in again.predictor.predict(samples)] == [
        one.label for one in trained.predictor.predict(samples)
    ]


@pytest.mark.parametrize("change", [{"model": "late-fusion"}, {"options": {"width": 24}}])
def test_a_checkpoint_of_another_shape_is_no_start(trained: Trained, shared: Dataset, change: dict[str, Any]) -> None:
    options = {**QUICK.options, **change.get("options", {})}
    with pytest.raises(ConfigError, match="start"):
        train(shared, replace(QUICK, epochs=1, **{**change, "options": options}), start=trained.predictor)


def test_a_conversation_stays_in_one_batch() -> None:
    groups = np.array([0] * 5 + [1] * 3 + [2] * 9 + [3] * 2)
    order = np.random.default_rng(0).permutation(19)
    batches = whole_groups(order, groups[order], 6)
    assert sorted(np.concatenate(batches).tolist()) == list(range(19)) and max(map(len, batches)) <= 6
    together = [set(groups[batch]) for batch in batches]
    assert [sum(group in batch for batch in together) for group in range(4)] == [1, 1, 2, 1]


def test_batches_are_random_or_of_similar_length(partial: Dataset) -> None:
    plan = make_plan(partial, QUICK, choose_split(partial, QUICK), silent)
    order = np.random.default_rng(0).permutation(plan.train)
    cut = [
        Batches(plan, 8, None, torch.device("cpu"), by_length=by_length).cut(order, np.random.default_rng(0))
        for by_length in (False, True)
    ]
    assert np.array_equal(np.concatenate(cut[0]), order) and {len(batch) for batch in cut[0][:-1]} == {8}
    spread = [np.mean([np.ptp(partial.lengths[batch]) for batch in batches]) for batches in cut]
    assert spread[1] < spread[0]
    assert Run(plan, replace(QUICK, order="random"), None, silent)._batches._by_length is False


def test_rare_classes_can_count_more_but_not_as_much(partial: Dataset) -> None:
    targets = np.array([0] * 8 + [1] * 2)
    rows, data = np.arange(10), partial.subset(np.arange(10))
    ratios = []
    for strength in (0.0, 0.5, 1.0):
        weights = balanced_weights(data, targets, rows, replace(QUICK, balance="balanced", balance_strength=strength))
        ratios.append(weights[9] / weights[0])
    assert ratios == pytest.approx([1.0, 2.0, 4.0])


def test_metrics_are_those_of_the_range_of_the_labels(tmp_path: Path) -> None:
    tables = mmsa_files.content()
    config = TrainConfig(model="linear", label="sentiment", epochs=1)
    wide = read(mmsa_files.write(tmp_path / "wide.pkl", tables))
    for table in tables.values():
        table["regression_labels"] = table["regression_labels"] / 3
    narrow = read(mmsa_files.write(tmp_path / "narrow.pkl", tables))
    assert "acc7" in evaluate(train(wide, config).predictor, wide, "test").metrics
    trained = train(narrow, config)
    save(tmp_path / "checkpoint", trained.predictor, "card")
    measured = evaluate(load(tmp_path / "checkpoint"), narrow, "test").metrics
    assert "acc2" in measured and "acc7" not in measured
    gradient = train(narrow, replace(config, model="lf-dnn", options={"hidden": 8}))
    assert "acc5" in gradient.history[0]["valid"] and "acc7" not in gradient.history[0]["valid"]


def of_corpus(data: Dataset, name: str) -> Dataset:
    """The rows as those of a corpus."""
    return data.with_manifest(data.manifest.append_column("corpus", pa.array([name] * len(data))))


def test_the_corpus_chooses_the_metrics_before_the_range_of_the_labels(tmp_path: Path) -> None:
    wide = read(mmsa_files.write(tmp_path / "wide.pkl", mmsa_files.content()))
    named = of_corpus(wide, "ch-sims")
    trained = train(named, TrainConfig(model="lf-dnn", label="sentiment", epochs=1, options={"hidden": 8}))
    assert "acc2" in trained.history[0]["valid"] and "acc7" not in trained.history[0]["valid"]
    save(tmp_path / "checkpoint", trained.predictor, "card")
    predictor = load(tmp_path / "checkpoint")
    own, unnamed, other = (evaluate(predictor, one, "test") for one in (named, wide, of_corpus(wide, "mosi")))
    assert own.scoring is not None and own.scoring.why == "the corpus is ch-sims"
    assert unnamed.metrics == own.metrics and unnamed.scoring == own.scoring  # what it learnt
    assert "acc7" in other.metrics and other.scoring is not None and other.scoring.kind == "mosi"
    plain = train(wide, TrainConfig(model="linear", label="sentiment"))
    found = evaluate(plain.predictor, wide, "test").scoring
    assert found is not None and found.kind == "mosi" and "labels reach" in found.words()
    classes = evaluate(train(wide, TrainConfig(model="linear", label="label")).predictor, wide, "test")
    assert classes.scoring is None


def test_rows_that_all_weigh_nothing_are_refused(make: Callable[..., Dataset]) -> None:
    data = make(count=40)
    data = data.with_manifest(data.manifest.append_column("weight", pa.array([0.0] * len(data))))
    with pytest.raises(TrainingError, match="weight 0"):
        train(data, TrainConfig(model="linear"))
