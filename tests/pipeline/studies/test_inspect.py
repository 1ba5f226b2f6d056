"""`emopipe inspect` finds planted faults, says what to do first, and copes with odd datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from emopipe.models.data.reading import read
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.studies.inspect import doubtful_labels, inspect_dataset, near_duplicates
from tests.models.conftest import CLASSES, learnable, write_dataset

#: Rows whose labels are swapped.
SWAPPED = (3, 40, 77, 101, 150)


def changed(folder: Path, **columns: list[Any]) -> Path:
    """The dataset with other columns in its manifest."""
    table = pq.read_table(folder / "manifest.parquet")
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    pq.write_table(table, folder / "manifest.parquet")
    return folder


def column(folder: Path, name: str) -> list[Any]:
    return list(pq.read_table(folder / "manifest.parquet")[name].to_pylist())


def test_swapped_labels_are_among_the_first_to_listen_to(tmp_path: Path) -> None:
    folder = learnable(tmp_path / "data", count=168, speakers=7, noise=0.8, splits=False)
    labels = column(folder, "label")
    for row in SWAPPED:
        labels[row] = CLASSES[(CLASSES.index(labels[row]) + 2) % len(CLASSES)]
    doubtful = doubtful_labels(read(changed(folder, label=labels)), "label")
    first = {row["clip"] for row in doubtful[:10]}
    assert len(first & {f"u{row}" for row in SWAPPED}) >= 3


def test_a_duplicate_across_splits_is_found_and_comes_first(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    steps = {f"u{row}": rng.normal(size=(3, 6)) for row in range(24)}
    steps["u23"] = steps["u5"] + 1e-4 * rng.normal(size=(3, 6))
    steps["u9"] = steps["u5"].copy()
    rows = [
        {"id": f"u{n}", "speaker": f"s{n % 3}", "split": "train", "face": f"u{n}", "label": CLASSES[n // 3 % 4]}
        for n in range(24)
    ]
    rows[9] |= {"speaker": rows[5]["speaker"], "label": rows[5]["label"]}
    rows[23]["split"] = "valid"
    folder = write_dataset(tmp_path / "data", rows, {"face": steps})
    data = read(folder)
    found = near_duplicates(data, data.labels("label"))
    assert {(row["one"], row["other"]) for row in found} == {("u5", "u9"), ("u5", "u23"), ("u9", "u23")}
    assert "in train and valid" in found[0]["why it matters"] and found[-1]["why it matters"] == ""
    told = inspect_dataset(folder).advice
    assert any("2 pairs of clips are nearly the same" in one for one in told)


def test_a_speaker_with_one_class_and_a_class_of_one_speaker_are_named(tmp_path: Path) -> None:
    folder = learnable(tmp_path / "data", count=60, speakers=5, splits=False)
    pairs = zip(column(folder, "label"), column(folder, "speaker"), strict=True)
    labels = ["bliss" if speaker == "s2" else label for label, speaker in pairs]
    told = inspect_dataset(changed(folder, label=labels)).advice
    assert any("speaker 's2' has the class 'bliss' alone" in one for one in told)
    assert any("class 'bliss' is of one speaker alone" in one for one in told)


def test_counts_gaps_and_durations_are_told(tmp_path: Path) -> None:
    folder = learnable(tmp_path / "data", count=60, speakers=5, missing=0.4)
    ends = [0.2, *([1.0] * 59)]
    labels = [None, *column(folder, "label")[1:]]
    found = inspect_dataset(changed(folder, end=ends, label=labels))
    assert {row["class"]: row["clips"] for row in found.classes}["happiness"] == "15"
    assert sum(int(row["train"]) for row in found.classes) == column(folder, "split")[1:].count("train")
    voice = next(row for row in found.modalities if row["modality"] == "voice")
    assert int(voice["present"]) + int(voice["absent"]) == 60 and voice["why"].startswith("no_face")
    assert any("1 utterances are shorter" in one for one in found.advice)
    assert any("1 rows have no label" in one for one in found.advice)


def test_numbers_one_speaker_and_two_rows_are_inspected(tmp_path: Path) -> None:
    values = inspect_dataset(learnable(tmp_path / "values", count=40, speakers=4), "sentiment")
    assert float(values.classes[0]["least"]) < float(values.classes[0]["most"]) and not values.doubtful
    one = learnable(tmp_path / "one", count=24, speakers=1, splits=False)
    assert any("there is one speaker" in advice for advice in inspect_dataset(one).advice)
    assert inspect_dataset(learnable(tmp_path / "two", count=2, speakers=1, splits=False)).rows == 2


def test_the_command_prints_tables_and_writes_a_page(tmp_path: Path) -> None:
    folder = learnable(tmp_path / "my <data>", count=48, speakers=4)
    page = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["inspect", str(folder), "--out", str(page)])
    assert done.exit_code == 0, done.output
    assert "What to do first" in done.output and "Modalities" in done.output
    text = page.read_text("utf-8")
    assert "my &lt;data&gt;" in text and "What to do first" in text


@pytest.mark.parametrize("arguments", [["--label", "mood"], ["--out", "/dev/null/page.html"]])
def test_what_cannot_be_inspected_or_written_is_an_error_with_a_code(tmp_path: Path, arguments: list[str]) -> None:
    folder = learnable(tmp_path / "data", count=24, speakers=3)
    done = CliRunner().invoke(app, ["inspect", str(folder), *arguments])
    assert done.exit_code == 2 and "EMO-" in done.output
