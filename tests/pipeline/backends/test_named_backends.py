"""Whisper and BERT as the user names them, from features to the report, on random weights of the right architecture.

The weights are test weights, and that is what the labels and the report must say.
"""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from emopipe import run
from emopipe.models import checkpoint
from emopipe.models.data import reading
from emopipe.pipeline.cli.app import app
from tests.conftest import SAMPLES
from tests.tiny_bert import write_bert

#: Stretches of the interview with speech in them, by the samples' own timeline.
LABELS = """file,start,end,label,speaker,split
interview.mp4,6,9.5,happiness,anna,train
interview.mp4,11,15.5,sadness,anna,train
interview.mp4,17.5,21.5,happiness,ben,valid
interview.mp4,23,27,sadness,ben,valid
"""
CONFIG = """
[speech]
temperatures = [0.0]
least_confidence = 0.0
language = "en"
[train]
epochs = 1
[model]
name = "lf-dnn"
hidden = 8
"""


def write_tiny_whisper(path: Path) -> None:
    """A Whisper with the dimensions of `tiny` and random weights, in half precision as published."""
    from whisper.model import ModelDimensions, Whisper

    dims = ModelDimensions(80, 1500, 384, 6, 4, 51865, 448, 384, 6, 4)
    with torch.random.fork_rng():
        torch.manual_seed(3)  # with this one it stops after some words
        model = Whisper(dims)
        torch.nn.init.normal_(model.decoder.positional_embedding, std=0.02)
    state = {name: tensor.half() for name, tensor in model.state_dict().items()}
    state["decoder.token_embedding.weight"] *= 0.05
    torch.save({"dims": asdict(dims), "model_state_dict": state}, path)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights that the user gives under the names of published ones."""
    folder = tmp_path_factory.mktemp("given")
    write_tiny_whisper(folder / "tiny.pt")
    write_bert(folder / "bert-base-uncased")
    return folder


def emopipe(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def trained(given: Path, weight: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of words by `whisper:tiny` through `bert-base-uncased`, and of voices by another Whisper."""
    for name in ("whisper-base", "silero-vad", "campplus"):
        weight(name)
    folder = tmp_path_factory.mktemp("named")
    (folder / "labels.csv").write_text(LABELS)
    (folder / "config.toml").write_text(CONFIG)
    named = ["--asr", "whisper:tiny", "--text", "bert-base-uncased", "--config", folder / "config.toml", "--offline"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOPIPE_WEIGHTS", str(given))
        chosen = ["--labels", folder / "labels.csv", "--modalities", "text,voice"]
        emopipe("extract", SAMPLES, "--out", folder / "data", *chosen, *named)
        emopipe("train", folder / "data", "--out", folder / "model", "--config", folder / "config.toml", "--offline")
    return folder


@pytest.mark.slow
def test_the_dataset_says_which_weights_measured_it(trained: Path) -> None:
    dataset = reading.read(trained / "data")
    assert len(dataset) == 4 and dataset.dims["text"] == 768
    assert dataset.extraction["speech"]["asr"] == "whisper-tiny"
    assert dataset.extraction["voice"] == {
        "encoder": "whisper-base",
        "speaker_encoder": "campplus",
        "window": 1.0,
    }
    assert set(dataset.extraction["unverified"]) == {"whisper-tiny", "bert-base-uncased"}
    assert all(len(sha256) == 64 for sha256 in dataset.extraction["unverified"].values())
    texts = [one for one in (dataset.sample(row).features["text"] for row in range(4)) if one is not None]
    assert texts and all(np.isfinite(one).all() and one.shape[1] == 768 for one in texts)


@pytest.mark.slow
def test_the_report_and_every_label_say_that_the_weights_are_unverified(
    trained: Path, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMOPIPE_WEIGHTS", str(given))
    shown = emopipe("run", SAMPLES / "happy.mp4", "--model", trained / "model", "--out", tmp_path, "--offline")
    assert "unverified weights: bert-base-uncased, whisper-tiny" in shown.replace("\n", " ")
    facts = json.loads((tmp_path / "happy.json").read_text("utf-8"))
    assert facts["info"]["unverified_weights"] == ["bert-base-uncased", "whisper-tiny"]
    labelled = [row for row in facts["utterances"] if row["label"]]
    assert labelled and all(row["unverified_weights"] == facts["info"]["unverified_weights"] for row in labelled)
    page = (tmp_path / "happy.html").read_text("utf-8")
    assert "Unverified weights: bert-base-uncased, whisper-tiny" in page
    assert page.count('<span class="none">unverified weights</span>') == len(labelled)
    with (tmp_path / "utterances.csv").open(newline="", encoding="utf-8") as file:
        assert {row["unverified_weights"] for row in csv.DictReader(file)} == {"bert-base-uncased; whisper-tiny"}


@pytest.mark.slow
def test_other_weights_under_the_name_are_refused(
    trained: Path, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.pt").symlink_to(given / "tiny.pt")
    write_bert(tmp_path / "bert-base-uncased", seed=1, num_hidden_layers=1)
    monkeypatch.setenv("EMOPIPE_WEIGHTS", str(tmp_path))
    shown = emopipe("run", SAMPLES / "happy.mp4", "--model", trained / "model", "--offline", code=2)
    sealed = checkpoint.read_spec(trained / "model").extraction["unverified"]["bert-base-uncased"]
    assert "EMO-402" in shown and sealed in shown.replace("\n", "")


@pytest.mark.slow
def test_the_recogniser_may_be_another_than_in_training(
    trained: Path, given: Path, tmp_path: Path, weight: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words are words; the voice encoder and the text encoder are what a checkpoint seals."""
    monkeypatch.setenv("EMOPIPE_WEIGHTS", str(given))
    (result,) = run(SAMPLES / "happy.mp4", model=trained / "model", asr="whisper-base", offline=True, progress=False)
    assert result.info["unverified_weights"] == ["bert-base-uncased"]
    assert "wonderful news" in " ".join(one.text for one in result.utterances).lower()
    other = emopipe("run", SAMPLES / "happy.mp4", "--model", trained / "model", "--text", "minilm-l6", code=2)
    assert "EMO-402" in other and "bert-base-uncased" in other and "minilm-l6" in other
