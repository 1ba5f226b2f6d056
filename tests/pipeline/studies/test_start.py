"""An automatic start tells why training begins with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from emopipe.models.data.reading import read
from emopipe.models.training.config import TrainConfig
from emopipe.pipeline.progress import Event
from emopipe.pipeline.studies.train import begin
from tests.models.conftest import learnable


@pytest.mark.parametrize(
    ("model", "start", "kind", "words"),
    [
        ("emoe", "auto", "warning", "begins with random weights: no shipped checkpoint"),
        ("late-fusion", "auto", "info", "begins with random weights: the model late-fusion takes nothing over"),
        ("linear", "auto", "", ""),
        ("emoe", "none", "", ""),
    ],
)
def test_random_weights_are_told_and_why(tmp_path: Path, model: str, start: str, kind: str, words: str) -> None:
    data = read(learnable(tmp_path / "data", count=8))
    events: list[Event] = []
    _, first, chosen = begin(start, data, TrainConfig(model), offline=True, hook=events.append)
    assert first is None and chosen is None
    assert [event.kind for event in events] == ([kind] if kind else [])
    assert not words or words in events[0].message
