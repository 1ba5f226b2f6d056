"""The commands that compare, ablate and draw write readable tables and figures."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from typer.testing import CliRunner

from emopipe.errors import EmopipeError
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.studies.compare import configurations
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
    assert [row["fold"] for row in table(tmp_path / "study" / "runs.csv")] == ["0"] * 4
    refused = invoke("compare", path, "--out", tmp_path / "study", "--split", "holdout", *options, code=2)
    assert "EMO-509" in refused


def test_ablate_writes_tables_and_the_sweep(folder: Path, tmp_path: Path) -> None:
    small = folder.parent / "tiny.toml"
    small.write_text(SMALL.split("[models.unimodal]", maxsplit=1)[0])
    invoke(
        "ablate", folder, "--out", tmp_path, "--folds", 2, "--seeds", 1, "--config", small, "--modalities", "face,voice"
    )
    rows = table(tmp_path / "ablations.csv")
    assert {"full", "without learned routing", "without entropy", "concat instead of sum"} <= {r["model"] for r in rows}
    sweep = table(tmp_path / "sweep.csv")
    assert {row["model"].split(" = ")[0] for row in sweep} == {"alpha", "lambda1", "lambda2", "temperature"}
    same = next(row for row in sweep if row["model"] == "alpha = 0.1")
    assert same["uar"] == rows[0]["uar"]
    assert (tmp_path / "sweep.png").stat().st_size > 10_000 and "<svg" in (tmp_path / "sweep.svg").read_text()
    assert (tmp_path / "ablations.md").read_text().count("\n## ") == 4


@pytest.mark.parametrize("label", ["label", "sentiment"])
def test_visualize_draws_features_and_trust(folder: Path, tmp_path: Path, label: str) -> None:
    small = folder.parent / "tiny.toml"
    small.write_text(SMALL.split("[models.unimodal]", maxsplit=1)[0])
    invoke("train", folder, "--out", tmp_path / "model", "--config", small, "--label", label)
    invoke("visualize", tmp_path / "model", folder, "--out", tmp_path / "pictures", "--split", "all")
    names = {"tsne.png", "tsne.svg", "importance.png", "importance.svg", "utterances.csv"}
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == names
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
