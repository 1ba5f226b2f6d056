"""`emopipe run` as a user calls it: samples, and everything that can be wrong with an input."""

from __future__ import annotations

import csv
import json
import re
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from emopipe import run
from emopipe.errors import EmopipeError
from emopipe.models import checkpoint
from emopipe.models.data.reading import read
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.loop import train
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.execution.batch import find_inputs, run_files
from emopipe.pipeline.execution.engine import Here
from emopipe.pipeline.execution.jobs import prediction_job
from emopipe.pipeline.store.store import temporary_store
from tests.conftest import SAMPLES, blank, tone, write_media
from tests.models.mmsa_files import content
from tests.models.mmsa_files import write as write_mmsa

pytestmark = pytest.mark.usefixtures("default_weights")


@pytest.fixture(scope="session")
def default_weights(weight: Any) -> None:
    for name in ("face-landmarker", "whisper-base", "minilm-l6-emotion", "silero-vad"):
        weight(name)


def emopipe(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture(scope="session")
def interview(default_weights: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """One run over the longest sample."""
    out = tmp_path_factory.mktemp("interview")
    return emopipe("run", SAMPLES / "interview.mp4", "--out", out, "--offline"), out


@pytest.fixture(scope="session")
def troubles(default_weights: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """One run over a folder in which every file is bad in its own way."""
    folder, out = tmp_path_factory.mktemp("troubles"), tmp_path_factory.mktemp("out")
    (folder / "text.mp4").write_text("Not a video.\n" * 100)
    (folder / "zero.mp4").touch()
    happy = (SAMPLES / "happy.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(happy[: len(happy) // 3])
    (folder / "trunc.mp4").write_bytes(write_media(folder / "x.mp4", blank(2.0), tone(2.0)).read_bytes()[:3000])
    (folder / "x.mp4").unlink()
    shutil.copy(SAMPLES / "silent.mp4", folder / "no audio.mp4")
    write_media(folder / "only-tone.wav", sound=tone(2.0))
    write_media(folder / "faceless.mp4", blank(2.0, grey=128), tone(2.0))
    write_media(folder / "black'quiet.mp4", blank(2.0), np.zeros(32_000, np.float32))
    return emopipe("run", folder, folder / "missing.mp4", "--out", out, "--offline"), out


def document(out: Path, stem: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((out / f"{stem}.json").read_text("utf-8"))
    return loaded


def entry(out: Path, name: str) -> dict[str, Any]:
    """What the manifest says of the input of that file name."""
    inputs = json.loads((out / "manifest.json").read_text("utf-8"))["inputs"]
    found: dict[str, Any] = next(item for item in inputs if Path(item["media"]).name == name)
    return found


def test_every_utterance_of_the_interview_is_predicted(interview: tuple[Result, Path]) -> None:
    result, out = interview
    assert result.exit_code == 0
    rows = document(out, "interview")["utterances"]
    assert len(rows) >= 6
    for row in rows:
        assert set(row["weights"]) == {"text", "face", "voice"} and not row["absent"]
        assert sum(row["weights"].values()) == pytest.approx(1, abs=1e-3)
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-3)
        assert row["label"] == max(row["probabilities"], key=row["probabilities"].get)
        assert row["confidence"] == max(row["probabilities"].values())
    glad = next(row for row in rows if "so happy today" in row["text"])
    assert glad["label"] == "happiness"
    assert glad["start"] == pytest.approx(6.15, abs=0.4)


def test_the_table_shows_time_words_label_probability_weights(interview: tuple[Result, Path]) -> None:
    result, out = interview
    for part in ("interview.mp4: ok", "0:06.", "so happy today", "happiness", "face 0."):
        assert part in result.output
    assert str(out) in result.output.replace("\n", "")


def test_csv_and_summary_agree_with_the_document(interview: tuple[Result, Path]) -> None:
    _, out = interview
    rows = document(out, "interview")["utterances"]
    for name in ("interview.csv", "utterances.csv"):
        with (out / name).open(newline="", encoding="utf-8") as file:
            table = list(csv.DictReader(file))
        assert [row["label"] for row in table] == [row["label"] for row in rows]
        assert [float(row["weight_face"]) for row in table] == [row["weights"]["face"] for row in rows]
        assert [row["text"] for row in table] == [row["text"] for row in rows]


def test_the_page_is_self_contained_and_names_every_utterance(interview: tuple[Result, Path]) -> None:
    _, out = interview
    page = (out / "interview.html").read_text("utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    assert all(row["text"].replace("'", "&#39;") in page for row in document(out, "interview")["utterances"])
    assert 'src="' in page and "interview.mp4" in page
    assert page.count('class="row"') == len(document(out, "interview")["utterances"])


@pytest.mark.slow
def test_rerunning_gives_the_same_bytes(interview: tuple[Result, Path], tmp_path: Path) -> None:
    _, out = interview
    emopipe("run", SAMPLES / "interview.mp4", "--out", tmp_path / "stored", "--offline")
    emopipe("run", SAMPLES / "interview.mp4", "--out", tmp_path / "anew", "--offline", "--no-store")
    for name in ("interview.json", "interview.csv", "utterances.csv", "summary.csv", "manifest.json"):
        assert (tmp_path / "stored" / name).read_bytes() == (out / name).read_bytes()
        assert (tmp_path / "anew" / name).read_bytes() == (out / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("text.mp4", "EMO-104"),
        ("trunc.mp4", "EMO-104"),
        ("zero.mp4", "EMO-103"),
        ("missing.mp4", "EMO-101"),
    ],
)
def test_files_that_cannot_be_used_fail_with_a_code(troubles: tuple[Result, Path], name: str, code: str) -> None:
    result, out = troubles
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    told = entry(out, name)
    assert told["state"] == "failed" and told["reasons"][0]["code"] == code and told["utterances"] == 0
    assert not (out / Path(name).with_suffix(".json")).exists()


def test_a_video_cut_short_is_degraded_or_failed_but_never_whole(troubles: tuple[Result, Path]) -> None:
    _, out = troubles
    told = entry(out, "truncated.mp4")
    assert told["state"] in ("degraded", "failed") and told["reasons"]


def test_a_video_without_sound_is_judged_by_the_face(troubles: tuple[Result, Path]) -> None:
    _, out = troubles
    assert entry(out, "no audio.mp4")["state"] == "degraded"
    for row in document(out, "no audio")["utterances"]:
        assert row["absent"] == {"text": "no_audio_stream", "voice": "no_audio_stream"}
        assert row["weights"] == {"face": 1.0} and row["label"]


@pytest.mark.parametrize(
    ("stem", "absent"),
    [
        ("only-tone", {"face": "no_video_stream", "voice": "no_speech", "text": "no_speech"}),
        ("faceless", {"face": "no_face", "voice": "no_speech", "text": "no_speech"}),
        ("black'quiet", {"face": "no_face", "voice": "no_speech", "text": "no_speech"}),
    ],
)
def test_without_evidence_there_is_no_prediction(
    troubles: tuple[Result, Path], stem: str, absent: dict[str, str]
) -> None:
    _, out = troubles
    facts = document(out, stem)
    assert facts["state"] == "degraded" and facts["reasons"]
    for row in facts["utterances"]:
        assert row["absent"] == absent
        assert row["label"] is None and row["probabilities"] == {} and row["weights"] == {} and row["abstained"]


def test_sound_alone_is_judged_by_voice_and_words(tmp_path: Path) -> None:
    from emopipe.pipeline.media.decoding import Media

    with Media(SAMPLES / "happy.mp4") as media:
        sound = media.audio
    assert sound is not None
    clip = write_media(tmp_path / "happy.wav", sound=sound)
    assert emopipe("run", clip, "--out", tmp_path / "out", "--offline").exit_code == 0
    row = document(tmp_path / "out", "happy")["utterances"][0]
    assert row["absent"] == {"face": "no_video_stream"} and set(row["weights"]) == {"text", "voice"}
    assert "wonderful news" in row["text"].lower()


def test_an_unreadable_folder_and_an_empty_one_fail_with_a_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    result = emopipe("run", tmp_path / "empty", "--out", tmp_path / "out")
    assert result.exit_code == 1 and "EMO-106" in result.output

    def refuse(folder: Path, onerror: Any, **options: Any) -> list[Any]:
        onerror(PermissionError(13, "Permission denied", str(folder)))
        return []

    monkeypatch.setattr("os.walk", refuse)
    result = emopipe("run", tmp_path / "empty", "--out", tmp_path / "out")
    assert result.exit_code == 1 and "EMO-102" in result.output


def test_inputs_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(SAMPLES / "silent.mp4", tmp_path / folder / "clip.mp4")
    emopipe("run", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out", "--offline")
    assert len(list((tmp_path / "out").glob("clip*.json"))) == 2


def test_an_output_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = emopipe("run", SAMPLES / "silent.mp4", "--out", tmp_path / "file" / "out", "--offline")
    assert result.exit_code == 2 and "EMO-601" in result.output


def test_a_missing_checkpoint_and_other_features_are_told(tmp_path: Path) -> None:
    result = emopipe("run", SAMPLES / "silent.mp4", "--model", tmp_path / "none", "--out", tmp_path)
    assert result.exit_code == 2 and "EMO-401" in result.output
    config = tmp_path / "other.toml"
    config.write_text("[face]\nfeatures = ['blendshapes']\n")
    result = emopipe("run", SAMPLES / "silent.mp4", "--config", config, "--out", tmp_path)
    assert result.exit_code == 2 and "EMO-402" in result.output
    assert "blendshapes" in result.output and "expression" in result.output


def test_missing_weights_offline_end_in_the_environment_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMOPIPE_CACHE", str(tmp_path / "cache"))
    result = emopipe("run", SAMPLES / "silent.mp4", "--offline", "--out", tmp_path / "out", "--no-store")
    assert result.exit_code == 3 and "EMO-201" in result.output and "emopipe models fetch" in result.output


def test_json_lines_can_be_parsed_and_hold_the_predictions(tmp_path: Path) -> None:
    result = emopipe("run", SAMPLES / "silent.mp4", "--out", tmp_path, "--offline", "--json", "--no-store")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    clip = next(event for event in events if event["event"] == "clip")
    assert clip["utterances"] == document(tmp_path, "silent")["utterances"]
    assert {"face", "speech", "words", "voice", "text"} <= {e["name"] for e in events if e["event"] == "end"}


@pytest.mark.parametrize("shown", ["--explain", "--json"])
def test_with_pseudonyms_nothing_that_is_printed_or_written_tells_a_name(shown: str, tmp_path: Path) -> None:
    folder, table = tmp_path / "Müller", tmp_path / "names.csv"
    folder.mkdir()
    shutil.copy(SAMPLES / "silent.mp4", folder / "anna silent.mp4")
    (folder / "anna_bad.mp4").write_text("Not a video.")
    (folder / "anna.txt").write_text("Not a recording.")
    table.write_text("name,pseudonym\nAnna,P01\nMüller,P02\n", "utf-8")
    hidden = ("--offline", "--pseudonyms", table, "--out", tmp_path / "out", "--store", tmp_path / "store", "--jobs", 1)
    result = emopipe("run", folder, folder / "anna missing.mp4", *hidden, shown)
    assert result.exit_code == 1 and "P02/P01 silent.mp4" in result.output and "P02/P01_bad.mp4" in result.output
    refused = emopipe("run", folder, *hidden, shown, "--subject", "Anna")
    assert refused.exit_code == 2 and "'P01'" in refused.output
    written = [path.name + path.read_text("utf-8") for path in (tmp_path / "out").rglob("*.*") if path.is_file()]
    for text in (result.output, refused.output, *written):
        assert not re.search("anna|müller", text, re.IGNORECASE)


def test_a_stage_that_breaks_costs_one_file_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from emopipe.extractors.face.mediapipe import FaceLandmarker

    def explode(self: FaceLandmarker, frames: Any) -> None:
        raise RuntimeError("graph failed")

    for name in ("one.mp4", "two.wav"):
        write_media(tmp_path / name, blank(1.0) if name == "one.mp4" else (), tone(1.0))
    monkeypatch.setattr(FaceLandmarker, "track", explode)
    with temporary_store() as store, closing(Here()) as engine:
        job = prediction_job("emopipe-default", store, offline=True)
        results = list(run_files(find_inputs([tmp_path]), job, tmp_path / "out", engine))
    assert [result.media.name for result in results] == ["one.mp4", "two.wav"]
    (reason,) = entry(tmp_path / "out", "one.mp4")["reasons"]
    assert (reason["code"], reason["what"]) == ("EMO-901", "stage face broke: RuntimeError: graph failed")
    assert reason["where"] == {"path": str(tmp_path / "one.mp4")} and "--debug" in reason["hint"]
    assert entry(tmp_path / "out", "two.wav")["state"] == "degraded"


def test_a_checkpoint_of_foreign_features_is_refused_by_name(tmp_path: Path) -> None:
    table = write_mmsa(tmp_path / "mosi.pkl", content())
    small = {"width": 16, "layers": 1, "heads": 2}
    trained = train(read(table), TrainConfig("emoe", small, label="sentiment", epochs=1))
    checkpoint.save(tmp_path / "model", trained.predictor, "card")
    with pytest.raises(EmopipeError, match="features of a mmsa file") as caught:
        run(SAMPLES / "happy.mp4", model=tmp_path / "model", progress=False)
    assert caught.value.code == "EMO-402"


def test_unsure_answers_are_uncertain_as_asked(interview: tuple[Result, Path]) -> None:
    before = json.loads((interview[1] / "interview.json").read_text("utf-8"))["utterances"]
    half, never = (run(SAMPLES / "interview.mp4", abstain=one, progress=False) for one in (0.5, "never"))
    (half,), (never,) = half, never
    sure = [one.confidence for one in half.utterances if not one.abstained]
    unsure = [one.confidence for one in half.utterances if one.abstained]
    assert sure and unsure and max(unsure) < min(sure)
    assert not any(one.abstained for one in never.utterances)
    assert [one.label for one in half.utterances] == [one["label"] for one in before]


@pytest.mark.parametrize(
    ("model", "abstain"), [("emopipe-default", "1.5"), ("emopipe-default", "often"), ("emopipe-default-1", "0.2")]
)
def test_a_share_of_unsure_answers_that_means_nothing_is_refused(model: str, abstain: str, tmp_path: Path) -> None:
    result = emopipe("run", SAMPLES / "happy.mp4", "--out", tmp_path, "--model", model, "--abstain", abstain)
    assert result.exit_code == 2 and "EMO-503" in result.output
    assert not list(tmp_path.iterdir())
