"""Rows of a dataset's manifest."""

from __future__ import annotations

from pathlib import Path

import pytest

from emopipe.pipeline.datasets.labels import LabelledSource
from emopipe.pipeline.datasets.writing import manifest_row
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
