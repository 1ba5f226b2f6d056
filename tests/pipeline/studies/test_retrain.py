"""The guide's retraining loop on a folder of MP4s: extract, train, evaluate, run."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from emopipe import load
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.media.decoding import Media
from tests.conftest import ROOT, SAMPLES, write_media

#: Stretches of the interview in which one expression is shown and heard, in seconds.
STRETCHES = {"neutral": (1.0, 4.7), "happiness": (6.1, 9.6), "sadness": (11.2, 15.6), "anger": (17.4, 21.5)}
#: What makes one portrait several "speakers": mirrored or not, brightness, gain of the voice.
SPEAKERS = {"anna": (False, 1.0, 1.0), "ben": (True, 0.8, 0.7), "cleo": (False, 0.7, 0.5), "dan": (True, 1.0, 0.9)}
#: Label -> a label of another name, and a number.
OTHER_LABELS = {"neutral": ("calm", 0), "happiness": ("calm", 1), "sadness": ("stress", -0.5), "anger": ("stress", -1)}

pytestmark = pytest.mark.slow


def emopipe(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def clips(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Write every stretch as every speaker; yields file, label, speaker."""
    with Media(SAMPLES / "interview.mp4") as media:
        frames = list(media.frames(10))
        sound = media.audio
    assert sound is not None
    for speaker, (mirrored, light, gain) in SPEAKERS.items():
        for label, (start, end) in STRETCHES.items():
            shown = [f.rgb[:, ::-1] if mirrored else f.rgb for f in frames if start <= f.time < end]
            shown = [(light * rgb).astype(np.uint8) for rgb in shown]
            heard = gain * sound[round(start * 16_000) : round(end * 16_000)]
            name = f"{speaker} {label}.mp4"
            write_media(folder / name, shown, heard, fps=10)
            yield name, label, speaker


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The recordings of three speakers in a folder with labels, extracted; the fourth speaker's lie beside it."""
    root = tmp_path_factory.mktemp("retrain")
    folder = root / "my_dataset"
    folder.mkdir()
    rows = list(clips(folder))
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "label", "speaker", "state", "valence", "mood_1", "mood_2", "mood_3"))
        for name, label, speaker in rows:
            state, valence = OTHER_LABELS[label]
            votes = (state, "stress" if speaker == "ben" else state, state)
            if speaker != "dan":
                writer.writerow((name, label, speaker, state, valence, *votes))
        writer.writerow(("broken.mp4", "anger", "anna", "stress", -1, "stress", "", "stress"))
    (folder / "broken.mp4").write_text("not a video")
    commands = re.findall(r"^emopipe .*", (ROOT / "docs" / "training.md").read_text("utf-8"), flags=re.M)
    assert "emopipe extract my_dataset/ --labels my_dataset/labels.csv --out features" in commands
    done = emopipe("extract", folder, "--labels", folder / "labels.csv", "--out", root / "features", "--jobs", 2)
    assert done.exit_code == 1, done.output
    return root, root / "features"


@pytest.fixture(scope="module")
def model(dataset: tuple[Path, Path]) -> Path:
    root, features = dataset
    config = root / "small.toml"
    config.write_text("[model]\nwidth = 32\nlayers = 1\n[train]\nepochs = 30\nbatch_size = 4\nfolds = 3\n")
    done = emopipe("train", features, "--out", root / "my_model", "--config", config)
    assert done.exit_code == 0, done.output
    assert (root / "my_model" / "README.md").read_text("utf-8").startswith("# A fusion model trained on features")
    return root / "my_model"


def test_the_dataset_holds_every_usable_row_and_names_the_broken_one(dataset: tuple[Path, Path]) -> None:
    _, features = dataset
    manifest = pq.read_table(features / "manifest.parquet").to_pylist()
    assert len(manifest) == 12 and {row["speaker"] for row in manifest} == {"anna", "ben", "cleo"}
    for row in manifest:
        assert row["face"] == row["voice"] == row["text"] == row["id"]
        assert row["words"] and row["face_quality"] > 0.3
    failures = (features / "failures.csv").read_text("utf-8")
    assert "broken.mp4" in failures and "EMO-104" in failures
    config = (features / "config.toml").read_text("utf-8")
    assert 'backend = "mediapipe"' in config and "[versions]" in config


def test_evaluate_reports_every_subset_with_speakers_apart(dataset: tuple[Path, Path], model: Path) -> None:
    _, features = dataset
    done = emopipe("evaluate", features, "--model", model, "--split", "all", "--json")
    rows = {row["modalities"]: row for row in map(json.loads, done.stdout.splitlines()) if "modalities" in row}
    assert set(rows) == {"text", "face", "voice", "text+face", "text+voice", "face+voice", "text+face+voice"}
    assert float(rows["text+face+voice"]["uar"]) >= 0.75


def test_the_new_checkpoint_runs_on_a_clip_of_an_unknown_speaker(dataset: tuple[Path, Path], model: Path) -> None:
    root, _ = dataset
    clip = root / "my_dataset" / "dan happiness.mp4"
    done = emopipe("run", clip, "--model", model, "--out", root / "out", "--offline")
    assert done.exit_code == 0, done.output
    document = json.loads((root / "out" / "dan happiness.json").read_text("utf-8"))
    labels = [row["label"] for row in document["utterances"]]
    assert labels.count("happiness") >= len(labels) / 2
    assert set(document["utterances"][0]["probabilities"]) == set(STRETCHES)


def test_features_of_another_kind_are_refused_naming_both(dataset: tuple[Path, Path], model: Path) -> None:
    root, features = dataset
    config = root / "other.toml"
    config.write_text("[face]\nfeatures = ['action_units']\n")
    table = root / "one.csv"
    table.write_text("file,label,speaker\nanna anger.mp4,anger,anna\n")
    arguments = ("--labels", table, "--config", config, "--modalities", "face", "--out", root / "units")
    assert emopipe("extract", root / "my_dataset", *arguments).exit_code == 0
    done = emopipe("evaluate", root / "units", "--model", model, "--split", "all")
    assert done.exit_code == 2 and "EMO-402" in done.output
    assert "action_units" in done.output and "expression" in done.output
    assert features.exists()


def test_a_dataset_is_never_overwritten(dataset: tuple[Path, Path]) -> None:
    root, features = dataset
    done = emopipe("extract", root / "my_dataset", "--labels", root / "my_dataset" / "labels.csv", "--out", features)
    assert done.exit_code == 2 and "EMO-601" in done.output


@pytest.fixture(scope="module")
def linear(dataset: tuple[Path, Path]) -> Path:
    root, features = dataset
    done = emopipe("train", features, "--model", "linear", "--out", root / "linear")
    assert done.exit_code == 0, done.output
    return root / "linear"


def test_what_run_says_of_a_recording_is_what_is_measured_on_its_features(
    dataset: tuple[Path, Path], linear: Path
) -> None:
    root, _ = dataset
    recording = (
        SAMPLES / "interview.mp4"
    )  # of one person who says a dozen sentences: they are read relative to each other
    assert emopipe("extract", recording, "--out", root / "interview").exit_code == 0
    assert emopipe("run", recording, "--model", linear, "--out", root / "interview_out").exit_code == 0
    document = json.loads((root / "interview_out" / "interview.json").read_text("utf-8"))
    predicted = load(linear).predict(root / "interview")
    assert len(predicted) == len(document["utterances"]) > 6
    for label in STRETCHES:
        shares = [row["probabilities"][label] for row in document["utterances"]]
        assert shares == pytest.approx(predicted[f"probability_{label}"].tolist(), abs=1e-4)
    nobody = pq.read_table(root / "interview" / "manifest.parquet").drop(["speaker"])
    pq.write_table(nobody, root / "interview" / "manifest.parquet")
    alone = load(linear).predict(root / "interview")
    assert np.abs(alone.filter(like="probability").to_numpy() - predicted.filter(like="probability")).max().max() > 0.01


def test_a_linear_model_trains_and_runs_like_any_other(dataset: tuple[Path, Path], linear: Path) -> None:
    root, _ = dataset
    clip = root / "my_dataset" / "dan happiness.mp4"
    done = emopipe("run", clip, "--model", linear, "--out", root / "linear_out", "--offline")
    assert done.exit_code == 0, done.output
    document = json.loads((root / "linear_out" / "dan happiness.json").read_text("utf-8"))
    assert document["utterances"] and set(document["utterances"][0]["probabilities"]) == set(STRETCHES)


def test_training_prints_the_linear_model_beside_its_own_result(dataset: tuple[Path, Path], model: Path) -> None:
    root, features = dataset
    config = root / "small.toml"
    done = emopipe("train", features, "--out", root / "again", "--config", config, "--epochs", 1)
    assert done.exit_code == 0, done.output
    assert "Folds of speakers" in done.output
    card = (root / "again" / "README.md").read_text("utf-8")
    assert re.search(r"\| emoe \| \d.*\n\| linear \| \d", card) and "less that of the linear model" in card


@pytest.mark.parametrize("label", ["state", "valence", "mood"])
def test_labels_of_other_names_and_numbers_begin_with_the_shipped_checkpoint(
    dataset: tuple[Path, Path], label: str
) -> None:
    root, features = dataset
    out = root / label
    done = emopipe("train", features, "--label", label, "--epochs", 2, "--out", out)
    assert done.exit_code == 0, done.output
    assert "begins with emopipe-default" in done.output and "taken over: the parts for text, face, voice" in done.output
    assert "settings for 12 clips, 3 speakers" in done.output and "Folds of speakers" in done.output
    card = (out / "README.md").read_text("utf-8")
    assert "## What it began with" in card and "RAVDESS" in card and "Non-commercial research only" in card
    sealed = json.loads((out / "config.json").read_text("utf-8"))
    assert sealed["training"]["start"]["kept"]["modalities"] == ["text", "face", "voice"]
    measured = emopipe("evaluate", features, "--model", out, "--split", "all", "--json")
    assert measured.exit_code == 0 and '"text+face+voice"' in measured.stdout
    assert ("Agreement of coders: alpha" in measured.output or '"alpha"' in measured.stdout) == (label == "mood")
    assert ("learns the shares of votes of mood_1" in done.output) == (label == "mood")
    clip = root / "my_dataset" / "dan happiness.mp4"
    done = emopipe("run", clip, "--model", out, "--out", root / f"{label}_out", "--offline")
    assert done.exit_code == 0, done.output
    (row, *_) = json.loads((root / f"{label}_out" / "dan happiness.json").read_text("utf-8"))["utterances"]
    assert row["value"] is not None if label == "valence" else set(row["probabilities"]) == {"stress", "calm"}


def test_a_training_begins_with_random_weights_where_that_is_asked_for(dataset: tuple[Path, Path]) -> None:
    root, features = dataset
    done = emopipe("train", features, "--start", "none", "--epochs", 1, "--out", root / "anew")
    assert done.exit_code == 0, done.output
    assert "begins with" not in done.output
    assert "start" not in json.loads((root / "anew" / "config.json").read_text("utf-8"))["training"]


def test_one_speaker_is_warned_of_and_trained_on(dataset: tuple[Path, Path]) -> None:
    root, features = dataset
    alone = root / "alone"
    shutil.copytree(features, alone)
    table = pq.read_table(alone / "manifest.parquet")
    at = table.column_names.index("speaker")
    pq.write_table(table.set_column(at, "speaker", pa.array(["anna"] * len(table))), alone / "manifest.parquet")
    done = emopipe("train", alone, "--epochs", 1, "--out", root / "of_one")
    assert done.exit_code == 0, done.output
    assert "there is one speaker" in done.output
