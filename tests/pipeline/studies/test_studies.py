"""The commands that compare, ablate and draw write readable tables and figures."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from typer.testing import CliRunner

from emopipe.errors import EmopipeError
from emopipe.models.evaluation.explain import project_together
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.studies import plots
from emopipe.pipeline.studies.compare import configurations, paper_table
from emopipe.pipeline.studies.tables import markdown
from tests.models import mmsa_files
from tests.models.conftest import learnable

SMALL = """
[train]
epochs = 1
batch_size = 32
[model]
width = 16
layers = 1
heads = 2
[models.unimodal]
width = 16
[models.lf-dnn]
hidden = 8
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = learnable(tmp_path_factory.mktemp("studies") / "data", count=120, missing=0.2)
    (path.parent / "small.toml").write_text(SMALL)
    return path


def invoke(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == code, result.output
    return result.output


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_compare_writes_one_table_and_every_run(folder: Path, tmp_path: Path) -> None:
    options = ["--models", "unimodal,late-fusion,lf-dnn,emoe", "--folds", 2, "--seeds", 1, "--require", "face,voice"]
    arguments = ["compare", folder, "--out", tmp_path, *options, "--config", folder.parent / "small.toml"]
    shown = invoke(*arguments)
    assert "late" in shown and "differ" in shown
    rows = table(tmp_path / "comparison.csv")
    names = ["text-only", "face-only", "voice-only", "late-fusion", "lf-dnn", "emoe"]
    assert [row["model"] for row in rows] == names
    assert len(table(tmp_path / "runs.csv")) == 12
    emoe = rows[-1]
    assert emoe["difference"] == "" and float(emoe["pooled"]) == pytest.approx(float(emoe["reference"]))
    assert float(rows[3]["low"]) <= float(rows[3]["difference"]) <= float(rows[3]["high"])
    text = (tmp_path / "comparison.md").read_text()
    assert "reference `emoe`" in text and "bootstrap" in text and "having face and voice" in text
    before = (tmp_path / "runs.jsonl").read_text()
    invoke(*arguments, "--reference", "lf-dnn")
    assert (tmp_path / "runs.jsonl").read_text() == before
    assert "reference `lf-dnn`" in (tmp_path / "comparison.md").read_text()


def test_models_are_compared_on_a_split_of_the_dataset(tmp_path: Path) -> None:
    path = mmsa_files.write(tmp_path / "mosi.pkl", mmsa_files.content())
    options = [
        "--models",
        "linear,lf-dnn",
        "--label",
        "sentiment",
        "--epochs",
        1,
        "--seeds",
        2,
        "--reference",
        "linear",
    ]
    invoke("compare", path, "--out", tmp_path / "study", "--split", "testing", *options)
    text = (tmp_path / "study" / "comparison.md").read_text()
    assert "split test x 2 seeds" in text and "tested on its split test; the epoch is chosen on its validation" in text
    assert "Values are scored as those of MOSI: no corpus" in text
    assert [row["fold"] for row in table(tmp_path / "study" / "runs.csv")] == ["0"] * 4
    refused = invoke("compare", path, "--out", tmp_path / "study", "--split", "holdout", *options, code=2)
    assert "EMO-509" in refused


def test_evaluate_tells_of_rows_whose_class_the_model_does_not_know(folder: Path, tmp_path: Path) -> None:
    invoke("train", folder, "--model", "linear", "--out", tmp_path / "m")
    manifest = pq.read_table(folder / "manifest.parquet")
    labels = ["boredom" if name == "anger" else name for name in manifest["label"].to_pylist()]
    at, other = manifest.column_names.index("label"), shutil.copytree(folder, tmp_path / "other")
    pq.write_table(manifest.set_column(at, "label", pa.array(labels)), other / "manifest.parquet")
    words = "labelled rows are not measured, of classes that the model does not know"
    assert f"30 {words}: boredom (30)" in invoke("evaluate", other, "--model", tmp_path / "m", "--split", "all")
    assert words not in invoke("evaluate", folder, "--model", tmp_path / "m", "--split", "all")


def test_ablate_writes_tables_and_the_sweep(folder: Path, tmp_path: Path) -> None:
    small = folder.parent / "tiny.toml"
    small.write_text(SMALL.split("[models.unimodal]", maxsplit=1)[0])
    invoke(
        "ablate",
        folder,
        "--out",
        tmp_path,
        "--folds",
        2,
        "--seeds",
        1,
        "--config",
        small,
        "--modalities",
        "face,voice",
        "--draw",
        "accuracy",
    )
    rows = table(tmp_path / "ablations.csv")
    assert (tmp_path / "sweep-accuracy.png").stat().st_size > 10_000
    assert {"full", "without learned routing", "without entropy", "concat instead of sum"} <= {r["model"] for r in rows}
    sweep = table(tmp_path / "sweep.csv")
    assert {row["model"].split(" = ")[0] for row in sweep} == {"alpha", "lambda1", "lambda2", "temperature"}
    same = next(row for row in sweep if row["model"] == "alpha = 0.1")
    assert same["uar"] == rows[0]["uar"]
    assert (tmp_path / "sweep.png").stat().st_size > 10_000 and "<svg" in (tmp_path / "sweep.svg").read_text()
    assert (tmp_path / "ablations.md").read_text().count("\n## ") == 5
    assert "| model | ACC | F1 | P | R | WF1 |" in (tmp_path / "ablations.md").read_text()


def test_tables_have_the_columns_of_the_papers() -> None:
    values = {"model": "emoe", "acc7": 0.4771, "acc5": 0.5, "acc2_non0": 0.854, "f1_non0": 0.853, "mae": 0.7104}
    text = paper_table([{**values, "acc2_has0": 0.8, "corr": 0.7}])
    assert text.startswith("| model | ACC7 | ACC2 | F1 | MAE |") and "| emoe | 47.7 | 85.4 | 85.3 | 0.710 |" in text
    sims = paper_table([{"model": "emoe", "acc5": 0.4, "acc3": 0.6, "acc2": 0.8, "f1": 0.79, "mae": 0.4}])
    assert sims.startswith("| model | ACC5 | ACC2 | F1 | MAE |")
    classes = {"accuracy": 0.7258, "macro_f1": 0.7073, "macro_precision": 0.7208, "macro_recall": 0.7086}
    shown = paper_table([{"model": "emoe", **classes, "weighted_f1": 0.72}])
    assert "| emoe | 72.6 | 70.7 | 72.1 | 70.9 | 72.0 |" in shown


def test_the_largest_shares_are_framed_and_models_share_an_embedding(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    figure = Figure()
    shares = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    plots._bars(axes := figure.add_subplot(), shares, ("text", "face", "voice"), "share")
    framed = [one for one in axes.patches if isinstance(one, Rectangle) and not one.get_fill()]
    assert [(round(one.get_y(), 6), round(one.get_height(), 6)) for one in framed] == [(0.0, 0.5), (0.3, 0.7)]
    spots = project_together({"one": rng.normal(size=(20, 6)), "two": rng.normal(size=(20, 4))})
    assert [one.shape for one in spots.values()] == [(20, 2), (20, 2)]
    for labels in (["a", "b"] * 10, np.linspace(-1, 1, 20)):
        plots.scatter_side_by_side(spots, dict.fromkeys(spots, labels), "title", tmp_path / "picture")
        assert (tmp_path / "picture.png").stat().st_size > 10_000


@pytest.mark.parametrize("label", ["label", "sentiment"])
def test_visualize_draws_features_and_trust(folder: Path, tmp_path: Path, label: str) -> None:
    small = folder.parent / "tiny.toml"
    small.write_text(SMALL.split("[models.unimodal]", maxsplit=1)[0])
    invoke("train", folder, "--out", tmp_path / "model", "--config", small, "--label", label)
    beside = ("--beside", tmp_path / "model")
    invoke("visualize", tmp_path / "model", folder, "--out", tmp_path / "pictures", "--split", "all", *beside)
    assert (tmp_path / "pictures" / "compared.png").stat().st_size > 10_000
    names = {f"{name}.{kind}" for name in ("tsne", "importance", "compared") for kind in ("png", "svg")}
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {*names, "utterances.csv"}
    row = table(tmp_path / "pictures" / "utterances.csv")[0]
    assert sum(float(row[f"{m}_weight"]) for m in ("text", "face", "voice")) == pytest.approx(1)
    assert "EMO-503" in invoke("visualize", tmp_path / "model", folder, "--out", tmp_path, "--split", "none", code=2)


def test_options_reach_the_model_they_name() -> None:
    tables = {"train": {"lr": 0.5}, "model": {"width": 8}, "models": {"tfn": {"hidden": 4}}}
    found = configurations(["emoe", "tfn", "face-only"], tables, ("face", "voice"))
    assert found["emoe"].options == {"width": 8} and found["tfn"].options == {"hidden": 4}
    assert found["face-only"].model == "unimodal" and found["face-only"].modalities == ("face",)
    assert all(config.lr == 0.5 for config in found.values())
    assert list(configurations(["unimodal"], {}, ("face", "voice"))) == ["face-only", "voice-only"]
    with pytest.raises(EmopipeError, match="no text features"):
        configurations(["text-only"], {}, ("face",))


def test_tables_are_markdown() -> None:
    assert markdown([{"a": "1", "b": 2}]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_training_is_shown_in_tensorboard(folder: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    small = folder.parent / "small.toml"
    invoke(
        "train", folder, "--out", tmp_path / "m", "--config", small, "--tensorboard", tmp_path / "board", "--epochs", 2
    )
    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    assert {"train/total", "train/entropy", "valid/uar", "lr"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("valid/uar")] == [1, 2]
