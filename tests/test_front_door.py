"""The front door: the functions of `emopipe` do what the commands do, with the same engine and the same store."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import emopipe
from emopipe.errors import ConfigError, DatasetError, EmopipeError, OptionConflict, OutputError
from emopipe.extractors.face.table import face_table
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.store.store import Store
from tests.conftest import SAMPLES, tone, write_media

DEFAULT_WEIGHTS = ("face-landmarker", "whisper-base", "minilm-l6-emotion", "silero-vad", "speaker-encoder")


@pytest.fixture(scope="module")
def store(weight: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in DEFAULT_WEIGHTS:
        weight(name)
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def results(store: Path) -> emopipe.Results:
    return emopipe.run([str(SAMPLES / "happy.mp4"), Path("no such.mp4")], store=store, progress=False)


def test_a_run_gives_a_row_per_utterance(results: emopipe.Results) -> None:
    frame = results.to_pandas()
    assert frame.index.names == ["file", "start", "end"]
    assert set(frame["label"]) == {"happiness"} and "wonderful" in frame["text"].iloc[0].lower()
    shares = frame.filter(regex="^probability_").to_numpy()
    assert shares.shape == (len(frame), 7) and np.allclose(shares.sum(axis=1), 1, atol=1e-3)


def test_a_file_that_cannot_be_read_is_a_result_too(results: emopipe.Results) -> None:
    assert [file.state for file in results] == ["ok", "failed"] and results[1] in results.failed
    assert [reason.code for reason in results[1].reasons] == ["EMO-101"]
    assert len(results[:1]) == 1 and "no such.mp4: failed" in repr(results)


def test_faces_are_a_row_per_sampled_frame(results: emopipe.Results) -> None:
    faces = results.faces.to_pandas()
    assert faces.index.names == ["file", "time", "track"]
    times = faces.index.get_level_values("time")
    assert len(faces) > 10 and (np.diff(times) >= 0).all() and faces["AU12"].between(0, 5).all()


def test_results_show_as_html_without_scripts(results: emopipe.Results) -> None:
    html = results._repr_html_()
    assert "happy.mp4" in html and "happiness" in html and "<script" not in html


def test_the_command_line_gives_the_same_answer_from_the_same_store(
    results: emopipe.Results, store: Path, tmp_path: Path
) -> None:
    done = CliRunner().invoke(app, ["run", str(SAMPLES / "happy.mp4"), "--out", str(tmp_path), "--store", str(store)])
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "happy.json").read_text())["utterances"]
    assert [one["text"] for one in written] == [one.text for one in results[0].utterances]
    for one, other in zip(written, results[0].utterances, strict=True):
        assert one["probabilities"] == pytest.approx(other.probabilities, abs=1e-4)


def test_progress_and_results_are_told_as_they_come(store: Path) -> None:
    events: list[object] = []
    seen: list[str] = []
    emopipe.run(
        SAMPLES / "happy.mp4",
        store=store,
        progress=lambda *event: events.append(event),
        on_result=lambda file: seen.append(file.state),
    )
    assert events and seen == ["ok"]


def test_a_dry_run_does_nothing_and_tells_the_plan(tmp_path: Path) -> None:
    plans: list[tuple[int, int]] = []
    results = emopipe.run(
        SAMPLES / "happy.mp4",
        store=tmp_path / "store",
        dry_run=True,
        on_plan=lambda steps, stored, _: plans.append((len(steps), stored)),
        progress=False,
    )
    assert len(results) == 0 and plans[0][0] > 0 and plans[0][1] == 0


def test_a_temporary_store_lives_as_long_as_its_results(store: Path, tmp_path: Path) -> None:
    write_media(tmp_path / "tone.wav", sound=tone(1.0))
    (tmp_path / "notes.txt").write_text("who was there")
    results = emopipe.run(tmp_path, no_store=True, progress=False)
    assert [path.name for path in results.skipped] == ["notes.txt"]
    folder = results._store
    assert folder.is_dir() and results.faces.to_pandas().empty
    del results
    assert not folder.exists()


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(OptionConflict):
        emopipe.run(SAMPLES / "happy.mp4", retry_failed=True, progress=False)
    with pytest.raises(OptionConflict):
        emopipe.run(SAMPLES / "happy.mp4", no_store=True, engine="ray", progress=False)


def test_an_unknown_checkpoint_is_an_error_with_a_code() -> None:
    with pytest.raises(EmopipeError) as refused:
        emopipe.load("no such model")
    assert refused.value.code.startswith("EMO-")


@pytest.mark.slow
def test_from_recordings_to_a_model_that_is_run(store: Path, tmp_path: Path) -> None:
    rows = [
        ("interview.mp4", 6.1, 7.4, "good", "train"),
        ("interview.mp4", 7.5, 9.7, "good", "train"),
        ("interview.mp4", 11.2, 13.1, "bad", "train"),
        ("interview.mp4", 13.2, 15.7, "bad", "train"),
        ("interview.mp4", 25.6, 26.9, "good", "valid"),
        ("interview.mp4", 19.8, 20.3, "bad", "valid"),
    ]
    table = tmp_path / "labels.csv"
    pd.DataFrame(rows, columns=["file", "start", "end", "label", "split"]).to_csv(table, index=False)
    dataset = emopipe.extract(SAMPLES, tmp_path / "features", labels=table, store=store, progress=False)
    assert dataset.sources == 6 and not dataset.failures
    assert dataset.to_pandas().index.names == ["file", "start", "end"] and len(dataset.load().ids) == 6

    model = emopipe.train(dataset.path, tmp_path / "model", epochs=2, progress=False)
    assert model.classes == ("bad", "good") and model.validation is not None
    assert emopipe.load(tmp_path / "model").id == model.id
    shares = model.predict_proba(dataset.path)
    assert shares.shape == (6, 2) and np.allclose(shares.sum(axis=1), 1, atol=1e-5)
    assert list(model.predict(dataset.path)["label"]) == list(shares.idxmax(axis=1))
    assert 0 <= model.evaluate(dataset.path, "valid").metrics["uar"] <= 1

    measured = emopipe.evaluate(dataset.path, tmp_path / "model", progress=False)
    assert measured.to_pandas().shape[0] >= 1
    (result,) = emopipe.run(SAMPLES / "happy.mp4", model=tmp_path / "model", store=store, progress=False)
    assert {utterance.label for utterance in result.utterances} <= {"bad", "good"}


def test_a_dataset_that_does_not_exist_is_an_error_with_a_code(tmp_path: Path) -> None:
    with pytest.raises(DatasetError):
        emopipe.train(tmp_path / "nothing", tmp_path / "model", progress=False)


@pytest.mark.slow
def test_a_script_without_main_guard_works_on_several_files(store: Path, tmp_path: Path) -> None:
    """Worker processes are started anew: they must not run the caller's script again."""
    script = tmp_path / "script.py"
    script.write_text(
        "import emopipe\n"
        f"results = emopipe.run([{str(SAMPLES)!r} + '/' + name for name in ('happy.mp4', 'silent.mp4')], "
        f"store={str(store)!r}, jobs=2, progress=False)\n"
        "print([file.state for file in results])\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "['ok', 'degraded']"


def test_importing_it_loads_no_heavy_module() -> None:
    heavy = ("torch", "numpy", "pandas", "cv2", "av", "transformers", "librosa", "mediapipe")
    code = f"import sys, emopipe; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("call", "keyword", "meant"),
    [
        (lambda **options: emopipe.run("no such.mp4", progress=False, **options), "redacted", "redact"),
        (lambda **options: emopipe.run("no such.mp4", progress=False, **options), "pseudonym", "pseudonyms"),
        (lambda **options: emopipe.extract("no such.csv", "out", progress=False, **options), "modality", "modalities"),
        (lambda **options: emopipe.train("no such", "out", progress=False, **options), "epoch", "epochs"),
        (lambda **options: emopipe.evaluate("no such", progress=False, **options), "labels", "label"),
        (lambda **options: emopipe.load("emopipe-default", **options), "devise", "device"),
    ],
)
def test_a_keyword_that_there_is_not_is_refused(call: Callable[..., object], keyword: str, meant: str) -> None:
    with pytest.raises(TypeError, match=f"{keyword}.*{meant}"):
        call(**{keyword: "x"})


@pytest.mark.parametrize(
    "options",
    [
        {"jobs": 0},
        {"jobs": "2"},
        {"people": -1},
        {"people": float("nan")},
        {"engine": "dask"},
        {"limit_memory": -5},
        {"abstain": True},
        {"fps": "fast"},
        {"people": 2, "diarizer": "none"},
        {"config": {"people": {"count": 2}}, "diarizer": "none"},
    ],
)
def test_values_that_the_command_line_refuses_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        emopipe.run("no such.mp4", progress=False, **options)  # type: ignore[arg-type]


def test_results_are_in_the_order_in_which_files_were_named() -> None:
    names = ["b.mp4", "missing/*.mp4", "c.mp4", "a.mp4"]
    results = emopipe.run(names, progress=False)
    assert [str(file.media) for file in results] == ["b.mp4", "c.mp4", "a.mp4", "missing/*.mp4"]


def test_columns_are_there_when_nothing_was_found() -> None:
    results = emopipe.run("no such.mp4", progress=False)
    frame = results.to_pandas()
    assert list(frame[["text", "label", "confidence"]].columns) == ["text", "label", "confidence"]
    assert frame["confidence"].dtype == frame["value"].dtype == float and frame.index.names == ["file", "start", "end"]
    assert results.faces.to_pandas()[["AU04", "AU12", "person"]].empty


def test_a_file_without_a_face_keeps_the_faces_of_others(tmp_path: Path) -> None:
    rows = [[], [{"time": 0.0, "track": 0, "AU12": 2.0}]]
    files = []
    with Store(tmp_path) as store:
        for number, some in enumerate(rows):
            key = f"{number:040x}"
            facts = {"stage": "face", "content": key, "version": 1, "libraries": {}}
            store.put(key, {"face_table": face_table(some, backend="x", version="1", frames=1)}, facts)
            files.append(emopipe.results.FileResult(Path(f"{number}.mp4"), "ok", [], keys={"face": key}))
    faces = emopipe.Results(files, tmp_path).faces.to_pandas()
    assert faces.reset_index()[["file", "track", "AU12"]].values.tolist() == [["1.mp4", 0, 2.0]]


@pytest.mark.parametrize("options", [{"folds": 3}, {"seeds": 2}, {"epochs": 4}, {"label": "other"}])
def test_what_a_checkpoint_cannot_heed_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(OptionConflict, match=next(iter(options))):
        emopipe.evaluate("no such", "emopipe-default", progress=False, **options)  # type: ignore[arg-type]
    for wrong in ({"folds": 1}, {"folds": -1}, {"seeds": 0}):
        with pytest.raises(ConfigError):
            emopipe.evaluate("no such", "emoe", progress=False, **wrong)


@pytest.mark.parametrize("config", [{"tarin": {"epochs": 1}}, {"epochs": 3}, {"train": 3}, {"model": "linear"}])
def test_settings_of_no_table_are_refused_wherever_they_are_given(config: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        emopipe.train("no such", tmp_path / "out", config=config, progress=False)
    with pytest.raises(ConfigError):
        emopipe.run("no such.mp4", config={"face": "mediapipe"}, progress=False)


def test_faces_that_are_not_looked_for_cannot_be_blurred(tmp_path: Path) -> None:
    with pytest.raises(OptionConflict, match="blurred"):
        emopipe.run("no such.mp4", modalities="voice", blurred=True, out=tmp_path, progress=False)


def test_training_replaces_checkpoints_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "project" / "notes").mkdir(parents=True)
    (tmp_path / "labels.csv").write_text("file,label\n")
    for taken in ("project", "labels.csv"):
        with pytest.raises(OutputError, match="take the place"):
            emopipe.train("no such", tmp_path / taken, progress=False)
    assert (tmp_path / "project" / "notes").is_dir() and (tmp_path / "labels.csv").is_file()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError):
        emopipe.train("no such", tmp_path / "empty", progress=False)


@pytest.mark.parametrize(("out", "margin"), [("copy.avi", 0.4), ("copy.mp4", "0.4"), ("copy.mp4", 9)])
def test_settings_of_a_blurred_copy_are_checked(out: str, margin: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        emopipe.blur(SAMPLES / "silent.mp4", out=tmp_path / out, margin=margin, progress=False)  # type: ignore[arg-type]


def test_a_language_is_given_by_its_code() -> None:
    with pytest.raises(ConfigError, match="english"):
        emopipe.run("no such.mp4", config={"speech": {"language": "english"}}, progress=False)


def test_a_retry_in_another_folder_keeps_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("bad.mp4").write_bytes(b"no media")
    emopipe.run("bad.mp4", out=tmp_path / "out", progress=False)
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    monkeypatch.chdir(tmp_path / "there")
    with pytest.raises(OptionConflict, match="where it was"):
        emopipe.run(retry_failed=True, out=tmp_path / "out", progress=False)
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before


def test_participants_of_no_input_are_told(tmp_path: Path) -> None:
    table = tmp_path / "participants.csv"
    table.write_text("file,group\nno such.mp4,a\nother.mp4,b\n")
    told: list[str] = []
    emopipe.run(
        "no such.mp4",
        participants=table,
        out=tmp_path / "out",
        progress=lambda event: told.append(event.message),
    )
    assert [one for one in told if "participants" in one] == [
        "1 rows of the participants table name no input, such as other.mp4"
    ]


def test_options_that_are_none_are_left_out() -> None:
    names = ("people", "face", "enrol", "fps", "jobs", "engine", "config", "modalities", "store", "device", "abstain")
    (result,) = emopipe.run("no such.mp4", progress=False, **dict.fromkeys(names))  # type: ignore[arg-type]
    assert result.reasons[0].code == "EMO-101"
    with pytest.raises(DatasetError):
        emopipe.evaluate("no such", progress=False, epochs=None)  # type: ignore[arg-type]
