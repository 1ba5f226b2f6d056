"""What was doubtful or was chosen in extracting a dataset is kept with it, and shown."""

from __future__ import annotations

import csv
from contextlib import closing
from dataclasses import replace
from pathlib import Path

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
