"""Rows of a dataset's manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from emopipe.errors import DatasetError
from emopipe.extractors.windows import FeatureSequence
from emopipe.pipeline.datasets.labels import LabelledSource
from emopipe.pipeline.datasets.writing import FeatureWriter, manifest_row, manifest_table
from emopipe.pipeline.records import Source, Utterance


@pytest.mark.parametrize(
    ("given", "heard", "count", "speaker"),
    [
        ("anna", "S1", 1, "anna"),
        (None, "S1", 2, "a.mp4/S1"),
        (None, "S1", 1, None),  # who that is, no other row says: rows stay together by conversation or media file
        (None, "ben", 1, "ben"),
        (None, None, 1, None),
    ],
)
def test_a_speaker_has_a_name_that_holds_across_the_dataset(
    given: str | None, heard: str | None, count: int, speaker: str | None
) -> None:
    source = Source(id="a.mp4", media=Path("a.mp4"), speaker=given)
    utterance = Utterance(source="a.mp4", start=0.0, end=1.0, text="hello", language=None, speaker=heard)
    row = manifest_row(LabelledSource(source, None, {}), utterance, 0, count, {}, ("ben",))
    assert row["speaker"] == speaker


@pytest.mark.parametrize(
    ("cells", "numeric"),
    [
        (["1", "-0.5", ""], True),
        (["1_0", "0_1"], False),
        (["inf", "1"], False),
        (["\uff11", "\uff12"], False),
        ([0.5, None], True),
        ([np.float32(0.5), 1], True),
    ],
)
def test_numbers_are_those_that_the_table_was_told_of(cells: list[object], numeric: bool) -> None:
    table = manifest_table([{"id": str(number), "label": cell} for number, cell in enumerate(cells)])
    assert pa.types.is_floating(table["label"].type) == numeric
    assert table["label"].null_count == sum(cell in (None, "") for cell in cells)


def test_conversations_are_told_apart_by_their_names() -> None:
    table = manifest_table([{"id": name, "dialogue": name} for name in ("1_2", "12", "012", "")])
    assert table["dialogue"].to_pylist() == ["1_2", "12", "012", None]


def test_features_without_names_are_refused(tmp_path: Path) -> None:
    edges = np.arange(2.0)
    with FeatureWriter(tmp_path, "text", ["a", "b"]) as writer:
        writer.add("good", FeatureSequence(edges, edges + 1, np.zeros((2, 2), np.float32)))
        with pytest.raises(DatasetError, match="bad are 3 numbers, their names 2"):
            writer.add("bad", FeatureSequence(edges, edges + 1, np.zeros((2, 3), np.float32)))
