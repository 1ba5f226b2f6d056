"""Models that stand on a pretrained network, from the command line: found by name, trained, measured, run."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from emopipe import load
from emopipe.errors import EmopipeError
from emopipe.extractors.contracts import Span
from emopipe.extractors.windows import FeatureSequence
from emopipe.models.data.dataset import Sample
from emopipe.models.training.config import TrainConfig
from emopipe.pipeline.backends.backbones import load_predictor, locate, with_backbone
from emopipe.pipeline.backends.loading import Backends
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.config import ExtractionConfig
from emopipe.pipeline.progress import silent
from emopipe.pipeline.stages.table import FUSION
from tests.models.conftest import CLASSES
from tests.models.tiny_backbone import write_backbone
from tests.pipeline.conftest import DIMS, SMALL


@pytest.fixture(autouse=True)
def given(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOPIPE_WEIGHTS", str(tiny_weights))


@pytest.fixture(scope="module")
def model(conversations: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "egmf"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOPIPE_WEIGHTS", str(tiny_weights))
        invoke("train", conversations, "--out", out, "--config", conversations.parent / "small.toml", "--offline")
    return out


def invoke(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_a_backbone_is_found_by_its_name(tiny_weights: Path) -> None:
    assert locate({"backbone": "smollm2-135m"}) == {"backbone_path": str(tiny_weights / "smollm2-135m")}
    assert locate({"backbone": "some/own"}) == {"backbone_path": str(tiny_weights / "own")}
    for told in ({}, {"backbone": ""}, {"backbone": "hub/id"}, {"backbone": "own", "backbone_path": "there"}):
        assert locate(told) == {}


def test_bert_of_the_published_emoe_is_found_by_its_name(tiny_weights: Path) -> None:
    (tiny_weights / "bert-base-uncased").mkdir(exist_ok=True)
    asked = TrainConfig("emoe-paper")
    assert with_backbone(asked).options == {"text_weights_path": str(tiny_weights / "bert-base-uncased")}
    for options in ({"text_weights": "random"}, {"text_encoder": False}, {"text_weights_path": "there"}):
        assert with_backbone(TrainConfig("emoe-paper", options)).options == options


def test_a_missing_backbone_is_an_error_that_says_what_to_do(
    model: Path, conversations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMOPIPE_WEIGHTS")
    monkeypatch.setenv("EMOPIPE_CACHE", str(tmp_path))
    shown = invoke("evaluate", conversations, "--model", model, "--offline", code=3)
    assert "EMO-201" in shown and "emopipe models fetch smollm2-135m" in shown.replace("\n", " ")
    with pytest.raises(EmopipeError, match="EMO-201"):
        load(model, offline=True)
    unknown = tmp_path / "unknown.toml"
    unknown.write_text(SMALL + 'backbone = "nowhere"\n')
    shown = invoke("train", conversations, "--out", tmp_path / "out", "--config", unknown, code=2)
    assert "EMO-404" in shown and "EMOPIPE_WEIGHTS" in shown


def test_another_backbone_than_in_training_is_refused(
    model: Path, conversations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_backbone(tmp_path / "smollm2-135m", seed=2)
    monkeypatch.setenv("EMOPIPE_WEIGHTS", str(tmp_path))
    shown = invoke("evaluate", conversations, "--model", model, code=2)
    assert "EMO-404" in shown and "sha256" in shown


def test_the_checkpoint_names_its_backbone_and_no_place(model: Path, tiny_weights: Path) -> None:
    text = (model / "config.json").read_text()
    options = json.loads(text)["options"]
    assert options["backbone"] == "smollm2-135m" and len(options["backbone_sha256"]) == 64
    assert str(tiny_weights) not in text and not options["backbone_path"]
    assert (model / "model.safetensors").stat().st_size < 200_000


def test_it_is_measured_drawn_and_compared(model: Path, conversations: Path, tmp_path: Path) -> None:
    assert "text+face+voice" in invoke("evaluate", conversations, "--model", model, "--offline")
    invoke("visualize", model, conversations, "--out", tmp_path / "pictures", "--split", "all")
    config = tmp_path / "compare.toml"
    config.write_text(SMALL + "[models.lf-dnn]\nhidden = 8\n[models.emoe]\nwidth = 16\nlayers = 1\nheads = 2\n")
    options = ["--folds", 2, "--seeds", 1, "--config", config, "--offline"]
    invoke("compare", conversations, "--out", tmp_path, "--models", "egmf,lf-dnn,emoe", *options)
    with (tmp_path / "comparison.csv").open(newline="") as file:
        assert [row["model"] for row in csv.DictReader(file)] == ["egmf", "lf-dnn", "emoe"]


@pytest.mark.parametrize("label", ["label", "sentiment"])
def test_a_run_hands_on_the_words_and_the_lines_before(
    label: str, conversations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = conversations.parent / "small.toml"
    invoke("train", conversations, "--out", tmp_path / "model", "--config", config, "--label", label)
    steps = {
        name: FeatureSequence(np.zeros(2), np.ones(2), np.ones((2, dim), np.float32)) for name, dim in DIMS.items()
    }
    spans = [Span(at, at + 1, text) for at, text in enumerate(("good", "", "so bad"))]
    predictor, _ = load_predictor(str(tmp_path / "model"), offline=True)
    predict = predictor.predict
    seen: list[Sample] = []

    def remember(samples: Any, **options: Any) -> Any:
        seen.extend(samples)
        return predict(samples, **options)

    monkeypatch.setattr(predictor, "predict", remember)
    values = {name: [sequence] * 3 for name, sequence in steps.items()}
    values |= {
        "speaker": None,
        "people": [],
        "baselines": {},
        "spans": spans,
        "face_quality": [1.0] * 3,
        "predictor": lambda: predictor,
    }
    config = ExtractionConfig()
    predictions: Any = FUSION.compute(values.__getitem__, config, Backends(config), silent)["predictions"]
    assert [(one.words, one.earlier) for one in seen] == [("good", ()), ("", ("good",)), ("so bad", ("good",))]
    assert len(predictions) == 3
    for prediction in predictions:
        assert set(prediction.weights) == set(DIMS)
        assert (prediction.label in CLASSES) == (label == "label")
