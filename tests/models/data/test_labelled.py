"""Which rows are labelled, for training, for measuring, and for a look inside a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from emopipe.errors import DatasetError
from emopipe.models.data.dataset import Dataset
from emopipe.models.data.labelled import label_doubts, labelled, presence, targets, unknown_classes, usable


@pytest.fixture(scope="module")
def data(partial: Dataset) -> Dataset:
    """Eight rows, some without a label, that lack some modalities."""
    few = partial.subset(np.arange(8))
    names = ["anger", None, "fear", "anger", "None", "happiness", "anger", None]
    values = [0.5, None, float("nan"), -1.0, float("inf"), 2.0, 0.0, 1.0]
    for column, cells in (("label", names), ("sentiment", values), ("split", ["train"] * 6 + ["test"] * 2)):
        kind = pa.float64() if column == "sentiment" else pa.string()
        at = few.manifest.column_names.index(column)
        few = few.with_manifest(few.manifest.set_column(at, column, pa.array(cells, kind)))
    return few


@pytest.mark.parametrize(
    ("label", "classes", "rows"),
    [
        ("label", None, [0, 2, 3, 4, 5, 6]),
        ("label", ("anger", "happiness"), [0, 3, 5, 6]),
        ("label", ("None",), [4]),
        ("sentiment", None, [0, 3, 5, 6, 7]),
        ("sentiment", (), [0, 3, 5, 6, 7]),
    ],
)
def test_rows_with_a_known_label_are_chosen(
    data: Dataset, label: str, classes: Sequence[str] | None, rows: list[int]
) -> None:
    assert np.flatnonzero(labelled(data, label, classes)).tolist() == rows
    inside = [row for row in rows if row < 6]
    assert np.flatnonzero(labelled(data, label, classes, split="train")).tolist() == inside
    seen = [row for row in rows if data.present[row, data.modalities.index("face")]]
    assert np.flatnonzero(labelled(data, label, classes, modalities=["face"])).tolist() == seen
    assert not labelled(data, label, classes, modalities=[]).any()


def test_rows_of_classes_that_a_model_does_not_know_are_counted(data: Dataset) -> None:
    assert unknown_classes(data, "label", ("anger", "Happiness")) == {"fear": 1, "None": 1}
    assert unknown_classes(data, "label", ("fear", "None", "happiness")) == {"anger": 3}
    assert unknown_classes(data, "label", ("fear", "None", "happiness"), "test") == {"anger": 1}
    assert unknown_classes(data, "sentiment", ()) == {}


def test_labels_become_numbers(data: Dataset) -> None:
    assert targets(data, "label", ("happiness", "anger")).tolist() == [1, -1, -1, 1, -1, 0, 1, -1]
    assert np.array_equal(targets(data, "sentiment", ()), data.labels("sentiment"), equal_nan=True)
    with pytest.raises(DatasetError, match="no column 'mood'"):
        targets(data, "mood", ())


def test_what_has_no_modality_is_not_trained_on(data: Dataset) -> None:
    nothing = data.select(["face"])
    assert np.array_equal(usable(nothing, "label"), labelled(data, "label") & presence(data, ["face"])[:, 0])
    assert not usable(nothing, "label").all()


def relabelled(data: Dataset, cells: Sequence[object]) -> Dataset:
    """The dataset with other labels."""
    at = data.manifest.column_names.index("label")
    return data.with_manifest(data.manifest.set_column(at, "label", pa.array(cells)))


def test_spellings_of_a_label_are_one_class_and_told(data: Dataset) -> None:
    other = relabelled(data, ["Anger", "anger", "anger ", "NA", "nan", "Fear", None, ""])
    assert other.labels("label").tolist() == ["anger"] * 3 + [None, None, "Fear", None, None]
    assert targets(other, "label", ("ANGER", "fear")).tolist() == [0, 0, 0, -1, -1, 1, -1, -1]
    joined, missing = label_doubts(other, "label")
    assert "taken as anger" in joined and missing.startswith("3 cells")


def test_small_whole_numbers_are_told_to_be_a_regression(data: Dataset) -> None:
    assert "0, 1 of label are taken as values" in label_doubts(relabelled(data, [0, 1] * 4), "label")[0]
    assert label_doubts(relabelled(data, [0.5, 1] * 4), "label") == []


def test_a_column_of_lists_is_not_labels(data: Dataset) -> None:
    with pytest.raises(DatasetError, match="not labels"):
        relabelled(data, [[1]] * 8).labels("label")
