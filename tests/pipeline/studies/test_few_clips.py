"""A handful of labelled clips, as after correcting ten utterances, still makes a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from emopipe.models.training.config import configuration
from emopipe.pipeline.config import ExtractionConfig
from emopipe.pipeline.progress import Event
from emopipe.pipeline.studies.train import train_checkpoint
from tests.models.conftest import DIMS, write_dataset

GIVEN = {"epochs", "width"}
#: Labels of the clips of each speaker.
ONE_EACH = {"ana": ["anger", "fear", "joy"]}
ONE_CLASS = {"ana": ["anger", "fear", "joy"], "ben": ["anger"]}


@pytest.mark.parametrize("clips", [ONE_EACH, ONE_CLASS], ids=["each class once", "a speaker of one class"])
def test_training_is_kept_where_folds_cannot_measure_it(tmp_path: Path, clips: dict[str, list[str]]) -> None:
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    features: dict[str, dict[str, np.ndarray]] = {name: {} for name in DIMS}
    for speaker, label in ((speaker, label) for speaker, labels in clips.items() for label in labels):
        key = f"u{len(rows)}"
        rows.append({"id": key, "speaker": speaker, "split": None, "label": label, **dict.fromkeys(DIMS, key)})
        for name, dim in DIMS.items():
            features[name][key] = rng.normal(size=(3, dim)).astype(np.float32)
    config = tomli_w.dumps(ExtractionConfig.from_dict({}).as_dict())
    folder = write_dataset(tmp_path / "data", rows, features, DIMS, config)
    events: list[Event] = []
    settings = {"model": {"name": "emoe", "width": 8}, "train": {"epochs": 1}}
    result = train_checkpoint(folder, tmp_path / "model", configuration(settings), hook=events.append, given=GIVEN)
    assert (tmp_path / "model" / "config.json").is_file() and result.folds == []
    assert any("folds cannot measure" in event.message for event in events)
