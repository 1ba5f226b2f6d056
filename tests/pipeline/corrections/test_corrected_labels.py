"""Corrections become labels: what most say, of the person and words that they say; correct ten, train, run again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import emopipe
from emopipe.errors import DatasetError, LabelsTableError, OptionConflict
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.corrections.saved import SAVED
from emopipe.pipeline.export.corrected_labels import corrected_labels
from tests.conftest import SAMPLES
from tests.pipeline.corrections.results import SPOKEN, document, edit, save, write_results
from tests.pipeline.report.browser import HAS_BROWSER, ServedPage, browser, served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_results(tmp_path / "results")


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    for name in ("interview.mp4", "second.mp4"):
        path = tmp_path / "elsewhere" / "recordings" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"media")
    return tmp_path / "elsewhere"


def labels(folder: Path, recordings: Path, *documents: Any) -> tuple[list[Any], list[Any]]:
    files = [save(folder.parent / f"given-{index}.json", facts) for index, facts in enumerate(documents)]
    emopipe.correct(folder, files)
    read = corrected_labels(folder, recordings)
    facts = [(one.source.start, one.source.end, one.source.speaker, one.source.text, one.labels) for one in read.rows]
    assert all(one.source.media is not None and one.source.media.exists() for one in read.rows)
    return facts, read.reasons


def test_what_was_labelled_or_confirmed_is_a_row_and_nothing_else(folder: Path, recordings: Path) -> None:
    changes = {"label": "sadness", "text": "So tired.", "person": "Ana María", "bounds": [2.1, 4.2]}
    edits = [edit(0, confirmed=True), edit(1, **changes), edit(2, text="Why?"), edit(3, note="hm")]
    rows, reasons = labels(folder, recordings, document("Ana", *edits))
    assert rows == [
        (0.5, 1.75, "interview/S1", "Good morning.", {"label": "happiness"}),
        (2.1, 4.2, "Ana María", "So tired.", {"label": "sadness"}),
    ]
    assert reasons == []


def test_of_several_people_the_majority_counts_and_a_tie_is_told(folder: Path, recordings: Path) -> None:
    ana = document("Ana", edit(0, label="neutral"), edit(1, label="sadness", text="One."))
    ben = document("Ben", edit(0, label="neutral"), edit(1, confirmed=True))
    cy = document("Cy", edit(0, confirmed=True))
    rows, reasons = labels(folder, recordings, ana, ben, cy)
    assert [(row[0], row[4]) for row in rows] == [(0.5, {"label": "neutral"})]
    (told,) = reasons
    assert told.code == "correctors_disagree" and "Ana, Ben" in told.what and "left out" in told.what


def test_values_of_a_regression_are_labels_too(tmp_path: Path, recordings: Path) -> None:
    spoken = [(*one[:4], None, 0.25 * place) for place, one in enumerate(SPOKEN)]
    folder = write_results(tmp_path / "results", spoken)
    rows, _ = labels(folder, recordings, document("Ana", edit(0, value=0.5), edit(1, confirmed=True)))
    assert [row[4] for row in rows] == [{"label": "0.5"}, {"label": "0.25"}]


def test_recordings_are_found_by_the_end_of_their_path(folder: Path, recordings: Path) -> None:
    other = recordings / "other" / "interview.mp4"
    other.parent.mkdir()
    other.write_bytes(b"media")
    save(folder.parent / "a.json", document("Ana", edit(0, confirmed=True)))
    emopipe.correct(folder, folder.parent / "a.json")
    (row,) = corrected_labels(folder, recordings).rows
    assert row.source.media == recordings / "recordings" / "interview.mp4"
    third = recordings / "copy" / "recordings" / "interview.mp4"
    third.parent.mkdir(parents=True)
    third.write_bytes(b"media")
    with pytest.raises(LabelsTableError, match="several recordings"):
        corrected_labels(folder, recordings)


def test_without_corrections_there_is_nothing_to_learn(folder: Path, recordings: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="emopipe correct"):
        emopipe.extract(recordings, tmp_path / "data", corrections=folder, no_store=True, progress=False)
    with pytest.raises(OptionConflict):
        table = tmp_path / "labels.csv"
        emopipe.extract(recordings, tmp_path / "data", labels=table, corrections=folder, progress=False)


#: What is spoken in the interview of the samples, as the actors were told.
MEANT = ("neutral",) * 2 + ("happiness",) * 2 + ("sadness",) * 2 + ("anger",) * 3 + ("surprise",)


def correction(row: dict[str, Any], label: str) -> dict[str, Any]:
    """What somebody says of an utterance of whom the label is meant."""
    spoken = {name: row[name] for name in ("start", "end", "speaker")}
    return spoken | {"label": label} | ({"confirmed": True} if row["label"] == label else {})


def clicked(results: Path, folder: Path) -> Path:
    """Corrects ten utterances on the page that a server shows, saves them and finds them again; returns the file."""
    with served(results) as port, browser(folder) as driver:
        page = ServedPage(driver, folder)
        page.open(port, "interview")
        page.fill("by", "Ana")
        for number, label in enumerate(MEANT):
            page.click(".row .time", number)
            if page.do("return document.getElementById('edit-label').value") == label:
                page.click("#edit-confirmed")
            else:
                page.fill("edit-label", label)
        assert "10 utterances are saved" in page.press("#send")
        driver.refresh()
        page.wait_for_marks(10)
    return results / SAVED


@pytest.mark.slow
def test_correct_ten_retrain_and_run_again(weight: Callable[[str], Path], tmp_path: Path) -> None:
    """The retrained model answers what was corrected as it was corrected, also where the shipped one did not."""
    for name in ("face-landmarker", "whisper-base", "minilm-l6-emotion", "silero-vad", "speaker-encoder"):
        weight(name)

    def do(*words: object) -> None:
        done = CliRunner().invoke(app, [*map(str, words)])
        assert done.exit_code == 0, done.output

    def interview(out: Path) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((out / "interview.json").read_text("utf-8"))
        return facts

    video, results, again = SAMPLES / "interview.mp4", tmp_path / "results", tmp_path / "again"
    do("run", video, "--out", results)
    facts = interview(results)
    edits = [correction(row, label) for row, label in zip(facts["utterances"][:10], MEANT, strict=True)]
    wrong = sum("confirmed" not in one for one in edits)
    assert wrong >= 3
    if HAS_BROWSER:
        path = clicked(results, tmp_path)
        (saved,) = json.loads(path.read_text("utf-8"))["recordings"]
        assert [{name: one[name] for name in one if name != "when"} for one in saved["utterances"]] == edits
    else:
        path = save(tmp_path / "corrections.json", document("Ana", *edits, probe=facts["keys"]["probe"]))
    do("correct", results, path)
    do("extract", SAMPLES, "--corrections", results, "--out", tmp_path / "learned")
    do("train", tmp_path / "learned", "--out", tmp_path / "model")
    do("run", video, "--model", tmp_path / "model", "--out", again)
    assert [row["label"] for row in interview(again)["utterances"][:10]] == list(MEANT)
    assert emopipe.correct(again, path).agreement[0].value == 1
