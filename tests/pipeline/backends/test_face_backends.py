"""Choosing a face backend: one flag or one line, sealed by the checkpoint; what is said when its weights lack."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from emopipe.constants import EXPRESSION_ENCODER
from emopipe.errors import EmopipeError
from emopipe.extractors.face.expression import WEIGHTS_FILE
from emopipe.extractors.face.pyfeat import MEASURED
from emopipe.extractors.face.table import ACTION_UNITS, face_table, feature_columns
from emopipe.models import checkpoint
from emopipe.models.predictor import Predictor
from emopipe.models.sealed import read_sealed
from emopipe.pipeline import weights
from emopipe.pipeline.backends import registry
from emopipe.pipeline.backends.loading import Backends, libraries
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.config import ExtractionConfig
from emopipe.pipeline.execution.jobs import prediction_job
from emopipe.pipeline.media.decoding import Media
from emopipe.pipeline.store.store import Store
from emopipe.pipeline.studies.extractor_agreement import pair, summary, write_agreement
from tests.conftest import SAMPLES, first_pictures
from tests.pyfeat_weights import NOTE


def emopipe(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def configured(**face: object) -> ExtractionConfig:
    return ExtractionConfig.from_dict({"face": face})


# Configuration


def test_naming_the_backend_is_enough() -> None:
    config = configured(backend="pyfeat")
    assert config.face.detector == "v2" and config.face.weights == ""
    columns = feature_columns(config.face.features, MEASURED["v2"])
    assert columns[:20] == list(ACTION_UNITS) and "valence" in columns and "emotion_anger" in columns
    assert "valence" not in feature_columns(config.face.features, MEASURED["v1"])
    assert ExtractionConfig.from_dict(config.as_dict()) == config


def test_a_sealed_mediapipe_configuration_knows_nothing_of_py_feat() -> None:
    assert "detector" not in ExtractionConfig().as_dict()["face"]
    assert ExtractionConfig().as_dict()["face"]["weights"] == "face-landmarker"


@pytest.mark.parametrize(
    ("face", "told"),
    [
        ({"backend": "openface"}, "Use mediapipe or pyfeat"),
        ({"backend": "pyfeat", "detector": "v3"}, "Use v2 or v1"),
        ({"detector": "v1"}, "unknown detector"),
        ({"features": ["wrinkles"]}, "unknown group of face features 'wrinkles'"),
        ({"features": ["gaze"]}, "mediapipe measures none of the face features gaze"),
        ({"backend": "pyfeat", "detector": "v1", "features": ["affect"]}, "pyfeat measures none"),
    ],
)
def test_mistakes_name_the_choices(face: dict[str, object], told: str) -> None:
    with pytest.raises(EmopipeError) as caught:
        Backends(configured(**face))
    assert caught.value.code in ("EMO-503", "EMO-507") and told in str(caught.value)


def test_the_library_that_measured_is_sealed() -> None:
    versions = libraries(ExtractionConfig(), "face")
    assert versions.keys() == {"mediapipe", "torch", EXPRESSION_ENCODER}
    assert hashlib.sha256(WEIGHTS_FILE.read_bytes()).hexdigest().startswith(versions[EXPRESSION_ENCODER])
    versions = libraries(configured(backend="pyfeat"), "face")
    assert versions["py-feat"] == "2.1.5" and versions.keys().isdisjoint({"mediapipe", EXPRESSION_ENCODER})


def test_checkpoints_name_the_expression_encoder_whose_columns_they_read() -> None:
    current = libraries(ExtractionConfig(), "face")[EXPRESSION_ENCODER]
    for name in ("emopipe-default", "emopipe-multilingual"):
        assert read_sealed(name).extraction["versions"][EXPRESSION_ENCODER] == current


@pytest.mark.parametrize("named", ["0123456789ab", None])
def test_a_checkpoint_of_another_expression_encoder_names_both(named: str | None, tmp_path: Path) -> None:
    predictor = checkpoint.load("emopipe-default")
    extraction = dict(predictor.spec.extraction)
    extraction["versions"] = {**extraction["versions"], EXPRESSION_ENCODER: named}
    if named is None:
        del extraction["versions"][EXPRESSION_ENCODER]
    spec = replace(predictor.spec, extraction=extraction)
    checkpoint.save(tmp_path / "model", Predictor(spec, predictor.module), "")
    result = emopipe("run", SAMPLES / "silent.mp4", "--model", tmp_path / "model", "--out", tmp_path / "out")
    told = " ".join(result.output.split())
    assert result.exit_code == 2 and "EMO-402" in told
    assert libraries(ExtractionConfig(), "face")[EXPRESSION_ENCODER] in told
    assert (named or "by no known expression-encoder") in told


def test_where_no_face_is_wanted_its_backend_is_not_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loaded: list[str] = []
    declaration = registry.declaration
    monkeypatch.setattr(registry, "declaration", lambda plugin: loaded.append(plugin.name) or declaration(plugin))
    with Store(tmp_path / "store") as store:
        prediction_job("emopipe-default", store, modalities=("voice",), device="cpu", offline=True)
        assert loaded and "mediapipe" not in loaded
        prediction_job("emopipe-default", store, modalities=("face",), device="cpu", offline=True)
        assert "mediapipe" in loaded


def test_a_checkpoint_of_the_other_backend_names_both(tmp_path: Path) -> None:
    result = emopipe("run", SAMPLES / "silent.mp4", "--face", "pyfeat:v1", "--out", tmp_path)
    assert result.exit_code == 2 and "EMO-402" in result.output
    assert 'face.backend: trained on "mediapipe", offered "pyfeat"' in result.output.replace("\n", " ")


# Weights that are not here


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("EMOPIPE_WEIGHTS", "EMOPIPE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EMOPIPE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(("offline", "code", "asked"), [(["--offline"], "EMO-201", 0), ([], "EMO-203", 1)])
@pytest.mark.usefixtures("empty_cache")
def test_without_weights_and_network_the_error_says_all_at_once_and_nothing_is_tried_twice(
    offline: list[str], code: str, asked: int, no_network: list[object], tmp_path: Path
) -> None:
    imported = "feat" in sys.modules
    only = ("--face", "pyfeat", "--modalities", "face")
    result = emopipe("extract", SAMPLES / "silent.mp4", *only, "--out", tmp_path / "data", *offline)
    words = " ".join(result.output.split())
    assert result.exit_code == 3 and code in words
    assert "pyfeat-retinaface-r34/model.safetensors" in words and "set EMOPIPE_WEIGHTS to a folder" in words
    assert "Not here either: pyfeat-face-multitask-v2" in words
    assert "--face mediapipe" in words
    assert len(no_network) == asked
    assert ("feat" in sys.modules) == imported


@pytest.mark.usefixtures("empty_cache")
def test_fetching_without_names_leaves_py_feats_weights_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(weights, "fetch", lambda entry, **_: fetched.append(entry.name))
    assert emopipe("models", "fetch").exit_code == 0
    assert "whisper-base" in fetched and not [name for name in fetched if name.startswith("pyfeat")]


def test_research_weights_say_so() -> None:
    result = emopipe("models", "list", "--json")
    lines = map(json.loads, result.output.splitlines())
    rows = {row["name"]: row for row in lines if "name" in row}
    row = rows["pyfeat-face-multitask-v2"]
    assert "non-commercial" in row["licence"] and "Non-commercial research only" in row["intended use"]


def test_given_weights_of_another_kind_are_refused_with_a_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("pyfeat-retinaface-r34", "pyfeat-face-multitask-v2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text("no tensors")
    monkeypatch.setenv("EMOPIPE_WEIGHTS", str(tmp_path))
    with pytest.raises(EmopipeError, match="is no safetensors file") as caught:
        _ = Backends(configured(backend="pyfeat")).face
    assert caught.value.code == "EMO-304"


# From a recording to a prediction


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six labelled stills of three people, so to speak."""
    import cv2

    folder = tmp_path_factory.mktemp("pictures")
    with Media(SAMPLES / "happy.mp4") as media:
        stills = [frame.rgb for frame in media.frames(1.2)][:6]
    rows = [("file", "label", "speaker", "split")]
    for number, rgb in enumerate(stills):
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(rgb, (320, 240))[:, :, ::-1])
        label, split = ("happiness", "neutral")[number % 2], "valid" if number > 3 else "train"
        rows.append((f"{number}.png", label, f"s{number // 2}", split))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


@pytest.mark.slow
def test_extract_train_and_run_call_py_feat_and_say_that_its_weights_are_for_tests(
    pyfeat_cache: Callable[[str], Path],
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_network: list[object],
) -> None:
    monkeypatch.setenv("EMOPIPE_CACHE", str(pyfeat_cache("v2")))
    data, model, out = tmp_path / "data", tmp_path / "model", tmp_path / "out"
    labels = pictures / "labels.csv"
    result = emopipe("extract", labels, "--face", "pyfeat", "--modalities", "face", "--out", data)
    assert result.exit_code == 0, result.output
    assert NOTE in " ".join(result.output.split())
    names = json.loads(pq.read_schema(data / "face.parquet").metadata[b"emopipe"])["names"]
    assert names == feature_columns(configured(backend="pyfeat").face.features, MEASURED["v2"]) and len(names) == 34
    assert 'backend = "pyfeat"' in (data / "config.toml").read_text()

    config = tmp_path / "small.toml"
    config.write_text("[model]\nwidth = 8\nlayers = 1\nheads = 2\n")
    result = emopipe("train", data, "--out", model, "--epochs", 1, "--config", config)
    assert result.exit_code == 0, result.output

    result = emopipe("run", SAMPLES / "silent.mp4", "--model", model, "--fps", 1, "--out", tmp_path / "refused")
    assert "face.rate: trained on 2.0, offered 1.0" in " ".join(result.output.split())
    result = emopipe("run", SAMPLES / "silent.mp4", "--model", model, "--out", out)
    assert result.exit_code == 0, result.output
    told = json.loads((out / "manifest.json").read_text())["inputs"][0]
    assert (
        told["state"] == "degraded"
        and [r["code"] for r in told["reasons"]] == ["weights_unverified"]
        and told["reasons"][0]["what"] == NOTE
    )
    assert NOTE in (out / "silent.html").read_text("utf-8") and NOTE in " ".join(result.output.split())
    rows = json.loads((out / "silent.json").read_text())["utterances"]
    assert rows and all(row["label"] in ("happiness", "neutral") for row in rows)
    assert all(row["weights"] == {"face": 1.0} for row in rows)
    assert all(row["unverified_weights"] == ["pyfeat-face-multitask-v2"] for row in rows)
    assert (out / "silent.html").read_text("utf-8").count('<span class="none">unverified weights</span>') == len(rows)
    assert "unverified weights: pyfeat-face-multitask-v2" in " ".join(result.output.split())
    assert not no_network


@pytest.mark.slow
def test_extract_calls_detectorv1_when_asked(
    pyfeat_cache: Callable[[str], Path], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMOPIPE_CACHE", str(pyfeat_cache("v1")))
    table = tmp_path / "labels.csv"
    table.write_text(f"file,label\n{pictures}/0.png,happiness\n")
    result = emopipe("extract", table, "--face", "pyfeat:v1", "--modalities", "face", "--out", tmp_path / "data")
    assert result.exit_code == 0, result.output
    features = pq.read_table(tmp_path / "data" / "face.parquet")["features"].to_pylist()
    assert np.isfinite(features).all() and len(features[0]) == 32
    assert 'detector = "v1"' in (tmp_path / "data" / "config.toml").read_text()


# Agreement


def faces(backend: str, note: str = "", **units: list[float | None]) -> object:
    """A table in which a large face on the left has the given action units, and a small one on the right has none."""
    rows: list[dict[str, float | int | None]] = []
    shift = 0.02 if backend == "pyfeat" else 0.0
    for index, values in enumerate(zip(*units.values(), strict=True)):
        left = {"x0": 0.1 + shift, "y0": 0.1, "x1": 0.5 + shift, "y1": 0.9}
        right = {"x0": 0.7, "y0": 0.1, "x1": 0.8, "y1": 0.3}
        both = [
            {"time": index / 2, "track": 0, **left, **dict(zip(units, values, strict=True))},
            {"time": index / 2, "track": 1, **right},
        ]
        rows += both[::-1] if backend == "pyfeat" else both
    return face_table(rows, backend=backend, version="0", frames=len(rows) // 2, note=note)


def test_the_same_face_is_compared_over_the_frames_that_show_it_to_both(tmp_path: Path) -> None:
    rising = [0.1, 0.2, 0.3, 0.5]
    first = faces("mediapipe", AU12=rising, AU01=rising, AU02=[0.3] * 4)
    second = faces("pyfeat", NOTE, AU12=[0.5, 0.6, 0.7, 0.9], AU01=[0.4, 0.3, 0.2, 0.0], AU02=rising, AU06=rising)
    agreement = pair(first, second)
    assert agreement.times.tolist() == [0.0, 0.5, 1.0, 1.5]
    assert agreement.correlation("AU12") == pytest.approx(1) and agreement.correlation("AU01") == pytest.approx(-1)
    assert np.isnan(agreement.correlation("AU02")) and np.isnan(agreement.correlation("AU06"))
    assert agreement.note == NOTE
    rows = {row[0]: row[1:] for row in summary(agreement)}
    assert rows["AU12"] == ["1.000", "4", "0.275", "0.675"] and rows["AU06"] == ["", "4", "", "0.275"]

    files = {path.name: path for path in write_agreement(agreement, "clip", tmp_path / "out")}
    assert set(files) == {"agreement.csv", "traces.csv", "agreement.png", "agreement.svg"}
    drawn = files["agreement.svg"].read_text("utf-8")
    assert drawn.count('<g id="axes_') == len(ACTION_UNITS)
    with files["traces.csv"].open(newline="") as file:
        traces = list(csv.DictReader(file))
    assert [float(row["AU12 pyfeat"]) for row in traces] == pytest.approx([0.5, 0.6, 0.7, 0.9])


def test_frames_in_which_one_sees_nobody_are_left_out() -> None:
    first, second = faces("mediapipe", AU12=[0.1, 0.2, 0.3]), faces("pyfeat", AU12=[0.1, 0.2, 0.3])
    assert pair(first, second.slice(2)).times.tolist() == [0.5, 1.0]
    assert not len(pair(first, second.slice(0, 0)).times)


def test_a_backend_is_not_compared_with_itself(tmp_path: Path) -> None:
    result = emopipe("compare-extractors", SAMPLES / "silent.mp4", "--face", "mediapipe", "--out", tmp_path / "out")
    assert result.exit_code == 2 and "EMO-508" in result.output


@pytest.mark.slow
def test_compare_extractors_correlates_both_on_a_clip(
    pyfeat_cache: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMOPIPE_CACHE", str(pyfeat_cache("v2")))
    config, out = tmp_path / "many.toml", tmp_path / "out"
    config.write_text("[face]\nbackend = 'pyfeat'\nmax_faces = 8\n")
    clip = SAMPLES / "happy.mp4"
    result = emopipe("compare-extractors", clip, "--config", config, "--fps", 1, "--offline", "--out", out)
    assert result.exit_code == 0, result.output
    assert "AU12" in result.output and NOTE in " ".join(result.output.split())
    with (out / "agreement.csv").open(newline="") as file:
        rows = {row["action unit"]: row for row in csv.DictReader(file)}
    assert list(rows) == list(ACTION_UNITS)
    assert -1 <= float(rows["AU12"]["r"]) <= 1 and int(rows["AU12"]["frames"]) >= 4
    assert rows["AU06"]["r"] == "" and rows["AU06"]["mean mediapipe"] == "" and rows["AU06"]["mean pyfeat"]
    assert (out / "agreement.png").stat().st_size > 50_000


@pytest.mark.slow
def test_the_shipped_checkpoint_calls_py_feat(
    pyfeat_cache: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: list[object]
) -> None:
    monkeypatch.setenv("EMOPIPE_CACHE", str(pyfeat_cache("v1")))
    clip = first_pictures(SAMPLES / "silent.mp4", tmp_path / "silent.mp4", 1.6)  # py-feat takes 10 s for a frame
    result = emopipe("run", clip, "--model", "emopipe-pyfeat", "--fps", 1, "--out", tmp_path)
    assert result.exit_code == 2 and "face.rate" in result.output
    result = emopipe("run", clip, "--model", "emopipe-pyfeat", "--out", tmp_path)
    assert result.exit_code in (0, 1), result.output
    document = json.loads((tmp_path / "silent.json").read_text())
    assert any("face" in one["weights"] and "face" not in one["absent"] for one in document["utterances"])
    assert NOTE in json.dumps(document)
    assert document["info"]["unverified_weights"] == ["pyfeat-l2cs", "pyfeat-pose-mlp-v2"]
