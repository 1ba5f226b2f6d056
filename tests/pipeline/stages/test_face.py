"""Whose face an utterance has where several are seen, and what is told of faces that were not measured."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from emopipe.errors import Where
from emopipe.extractors.face.table import FaceLimit, face_table
from emopipe.models.sealed import check_features
from emopipe.pipeline.backends.loading import Backends
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.config import ExtractionConfig
from emopipe.pipeline.execution.engine import Here
from emopipe.pipeline.execution.jobs import portable
from emopipe.pipeline.stages.face import FaceInputs, measure_face
from emopipe.pipeline.stages.stage import Context
from emopipe.pipeline.store.store import Store
from tests.conftest import ROOT, SAMPLES

SHARED = ROOT.parent / "shared"
MEETING = SHARED / "odd" / "14b_meeting_of_4.mp4"


def test_faces_beyond_the_limit_are_told_with_their_place() -> None:
    table = face_table([], backend="test", version="0", frames=9, limit=FaceLimit(9, 1.2, 7.404))
    face = SimpleNamespace(track=lambda frames: table, measured=())
    media = SimpleNamespace(
        info=SimpleNamespace(has_video=True, duration=8.0), threads=1, video_faults=[], frames=lambda rate: iter([])
    )
    values = {"media": media, "image": None, "wanted": frozenset({"face"})}
    context = Context(ExtractionConfig(), SimpleNamespace(face=face), lambda event: None)  # type: ignore[arg-type]
    (told,) = measure_face(FaceInputs(values.__getitem__), context).face_warnings
    assert told.code == "faces_beyond_limit" and "more than 9 faces" in told.what and "max_faces" in told.hint
    assert told.modality == "face" and told.where == Where(start=1.2, end=7.4)


def test_how_many_faces_are_measured_is_not_taken_from_a_checkpoint() -> None:
    """It says nothing of what is measured of each; checkpoints of before would look for two."""
    sealed = ExtractionConfig().as_dict()
    sealed["face"]["max_faces"] = 2
    config = ExtractionConfig.from_dict(portable(sealed))
    assert config.face.max_faces == ExtractionConfig().face.max_faces >= 9
    check_features({"face": ("a",)}, sealed, {"face": ("a",)}, config.as_dict())


def document(clip: Path, out: Path, *options: str) -> dict[str, Any]:
    """What `emopipe run` writes about a clip."""
    result = CliRunner().invoke(app, ["run", str(clip), "--out", str(out), "--no-store", "--offline", *options])
    assert result.exit_code == 0, result.output
    written: dict[str, Any] = json.loads((out / f"{clip.stem}.json").read_text("utf-8"))
    return written


@pytest.fixture(scope="module")
def weights(weight: Callable[[str], Path]) -> None:
    for name in ("face-landmarker", "whisper-base", "minilm-l6-emotion", "silero-vad", "speaker-encoder"):
        weight(name)


@pytest.mark.slow
def test_the_lone_speaker_of_a_meeting_has_their_own_face(weights: None, tmp_path: Path) -> None:
    """The base is `samples/interview.mp4`, among photographs of others: the label is that of the face alone in view."""
    if not MEETING.exists():
        pytest.skip("no odd recordings here")
    meeting = document(MEETING, tmp_path, "--modalities", "face,voice")
    alone = document(SAMPLES / "interview.mp4", tmp_path, "--modalities", "face,voice")
    assert len(meeting["utterances"]) == len(alone["utterances"])
    (speaker,) = meeting["people"]
    assert len(speaker["tracks"]) == 1
    assert not any(row["absent"].get("face") for row in meeting["utterances"])
    same = [a["label"] == b["label"] for a, b in zip(meeting["utterances"], alone["utterances"], strict=True)]
    assert sum(same) >= 0.7 * len(same)


@pytest.mark.slow
def test_where_the_speakers_face_is_beyond_the_limit_nobody_elses_is_taken(weights: None, tmp_path: Path) -> None:
    if not MEETING.exists():
        pytest.skip("no odd recordings here")
    config = tmp_path / "two.toml"
    config.write_text("[face]\nmax_faces = 2\n")
    facts = document(MEETING, tmp_path, "--modalities", "face,voice", "--config", str(config))
    assert facts["state"] == "degraded"
    assert [reason["code"] for reason in facts["reasons"]] == ["faces_beyond_limit", "speaker_not_seen"]
    assert {row["absent"]["face"] for row in facts["utterances"]} == {"speaker_not_seen"}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "tiles"), [("plain", 9), ("joins", 9), ("plain", 4)])
def test_who_talks_in_a_video_call_has_their_own_face(weights: None, tmp_path: Path, kind: str, tiles: int) -> None:
    """A real clip among photographs that move and somebody who listens, by `benchmarks/gallery.py`."""
    if not (SHARED / "data" / "clips").exists():
        pytest.skip("no real clips here")
    spec = importlib.util.spec_from_file_location("gallery", ROOT / "benchmarks" / "gallery.py")
    assert spec is not None and spec.loader is not None
    gallery = importlib.util.module_from_spec(spec)
    sys.modules["gallery"] = gallery
    spec.loader.exec_module(gallery)
    with (
        Backends(ExtractionConfig(), device="cpu") as backends,
        Store(tmp_path / "store") as store,
        closing(Here(debug=True)) as engine,
    ):
        material = gallery.Material(SHARED / "data", tmp_path, backends, False)
        plan = gallery.Plan(kind, tiles, "ravdess_01_neutral", 0)
        found = gallery.measure(*gallery.made(plan, tmp_path, material), engine, store)
    assert found["own"] >= 0.8 * found["in view"] and found["other"] <= 0.02 * found["speech"]
