"""An automatic start tells why training begins with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from emopipe.errors import OptionConflict
from emopipe.models import checkpoint
from emopipe.models.data.reading import read
from emopipe.models.training.config import TrainConfig
from emopipe.pipeline.progress import Event
from emopipe.pipeline.studies.train import begin, refuse_other_model
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


VIEWS = checkpoint.read_spec("emopipe-default").options["views"]


@pytest.mark.parametrize(
    ("given", "config", "told"),
    [
        ({"name"}, TrainConfig(model="tfn"), "the model tfn"),
        ({"width"}, TrainConfig(options={"width": 16}), "width"),
        ({"views", "backbone_path"}, TrainConfig(options={"backbone_path": "x", "views": VIEWS}), ""),
        (set(), TrainConfig(model="tfn"), ""),
        ({"name"}, TrainConfig(model="emoe"), ""),
        ({"epochs"}, TrainConfig(epochs=2), ""),
    ],
)
def test_a_checkpoint_to_begin_with_brings_its_own_model(given: set[str], config: TrainConfig, told: str) -> None:
    if not told:
        refuse_other_model("emopipe-default", config, given)
        return
    with pytest.raises(OptionConflict, match=told):
        refuse_other_model("emopipe-default", config, given)
