"""Rows of several coders in a labels table become one row with a column of labels for each coder."""

from __future__ import annotations

from pathlib import Path

import pytest

from emopipe.errors import LabelsTableError
from emopipe.pipeline.datasets.labels import Labels, read_labels


def labels(folder: Path, text: str) -> Labels:
    for name in ("a.mp4", "b.mp4"):
        (folder / name).touch()
    path = folder / "labels.csv"
    path.write_text(text, "utf-8")
    return read_labels(path)


def test_rows_of_coders_are_joined(tmp_path: Path) -> None:
    read = labels(
        tmp_path,
        "file,speaker,Coder,label,arousal,age,weight\n"
        "a.mp4,anna,x,stress,0.5,30,1\na.mp4,anna,y,calm,0.1,30,0.5\nb.mp4,ben,y,calm,0.2,41,1\n",
    )
    assert [row.source.id for row in read.rows] == ["a.mp4", "b.mp4"]
    first, second = (row.labels for row in read.rows)
    expected = {"label_1": "stress", "label_2": "calm", "arousal_1": "0.5", "arousal_2": "0.1"}
    assert first == {"age": "30", "weight": "0.75", **expected}
    assert second["label_1"] == "" and second["label_2"] == "calm" and second["weight"] == "1"
    (note,) = [one for one in read.reasons if one.code == "coders_joined"]
    assert "3 rows of 2 coders are 2 utterances; x is 1, y is 2" in note.what


def test_a_coder_who_labels_a_clip_twice_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(LabelsTableError, match=r"line 3.*'x' labels the same as in line 2"):
        labels(tmp_path, "file,coder,label\na.mp4,x,stress\na.mp4,x,calm\n")


def test_several_rows_without_a_coder_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LabelsTableError) as caught:
        labels(tmp_path, "file,label\na.mp4,stress\na.mp4,calm\n")
    assert "a column coder if several people labelled them" in caught.value.hint


@pytest.mark.parametrize(("cell", "fine"), [("0", True), ("1,5", True), ("", True), ("-1", False), ("much", False)])
def test_weights_are_numbers(tmp_path: Path, cell: str, fine: bool) -> None:
    text = f"file;label;weight\na.mp4;stress;{cell}\nb.mp4;calm;1\n"
    if fine:
        assert labels(tmp_path, text).rows[0].labels["weight"] == cell.replace(",", ".")
    else:
        with pytest.raises(LabelsTableError, match="weight is"):
            labels(tmp_path, text)


def test_weights_with_a_decimal_comma_are_averaged(tmp_path: Path) -> None:
    read = labels(tmp_path, "file;coder;label;weight\na.mp4;x;calm;0,5\na.mp4;y;calm;0,3\n")
    assert read.rows[0].labels["weight"] == "0.4"
