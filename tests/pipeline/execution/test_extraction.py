"""What was doubtful or was chosen in extracting a dataset is kept with it, and shown."""

from __future__ import annotations

import csv
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
from typer.testing import CliRunner

from emopipe.errors import Reason, reason
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.config import ExtractionConfig
from emopipe.pipeline.datasets.labels import read_labels
from emopipe.pipeline.execution.engine import Here
from emopipe.pipeline.execution.extraction import write_dataset
from emopipe.pipeline.execution.jobs import extraction_job
from emopipe.pipeline.progress import Event
from emopipe.pipeline.store.store import Store
from tests.conftest import blank, write_media
from tests.pipeline.media.test_streams import sine, write_tracks
from tests.pipeline.stand_ins import StandIns


def extracted(folder: Path, events: list[Event]) -> tuple[Path, list[Reason]]:
    """A dataset of two recordings of several tracks, one that is broken, and a table with an odd spelling."""
    for name in ("a.mkv", "b.mkv"):
        write_tracks(folder / name, [sine(3, 300), sine(3, 500)])
    (folder / "c.mkv").write_text("no recording")
    table = folder / "labels.csv"
    table.write_text("file,label,split\na.mkv,Happy,train\nb.mkv,happy ,dev\nc.mkv,sad,train\n")
    labels = read_labels(table)
    with Store(folder / "store") as store, closing(Here()) as engine:
        job = replace(extraction_job(ExtractionConfig(), store, labelled=True, offline=True), backends=StandIns)
        failures, reasons = write_dataset(
            labels.rows, folder / "data", job, engine, reasons=labels.reasons, hook=events.append
        )
    assert [failure.id for failure in failures] == ["c.mkv"]
    return folder / "data", reasons


def test_reasons_of_the_table_and_of_recordings_are_kept_and_shown(tmp_path: Path) -> None:
    events: list[Event] = []
    data, reasons = extracted(tmp_path, events)
    assert [one.where and one.where.path for one in reasons if one.code == "streams_chosen"] == ["a.mkv", "b.mkv"]
    assert [one.where for one in reasons if one.code == "labels_joined"] == [None]
    with (data / "reasons.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["code"], row["id"]) for row in rows if row["code"] == "streams_chosen"] == [
        ("streams_chosen", "a.mkv"),
        ("streams_chosen", "b.mkv"),
    ]
    assert all(row["reason"] and row["hint"] for row in rows) and len(rows) == len(reasons)
    assert {event.kind for event in events if "tracks" in event.message} <= {"info"}

    page = tmp_path / "page.html"
    shown = CliRunner().invoke(app, ["inspect", str(data), "--out", str(page), "--json"])
    assert shown.exit_code == 0, shown.output
    html = page.read_text("utf-8")
    for code in ("streams_chosen", "labels_joined", "EMO-104"):
        assert code in html and code in shown.output
    assert reason("streams_chosen").hint in html


def test_words_alone_do_not_lack_a_stream_of_a_file_but_a_recording(tmp_path: Path) -> None:
    write_media(tmp_path / "mute.mp4", blank(1.0))
    table = tmp_path / "labels.csv"
    table.write_text("file,text,label\nmute.mp4,Good morning.,happy\n,Good night.,sad\n")
    with Store(tmp_path / "store") as store, closing(Here()) as engine:
        job = replace(extraction_job(ExtractionConfig(), store, labelled=True, offline=True), backends=StandIns)
        write_dataset(read_labels(table).rows, tmp_path / "data", job, engine)
    absent = pq.read_table(tmp_path / "data" / "manifest.parquet").to_pydict()
    assert absent["voice_absent"] == ["no_audio_stream", "no_recording"]
    assert absent["face_absent"][1] == "no_recording"
