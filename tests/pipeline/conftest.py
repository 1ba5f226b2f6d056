"""A small dataset with words, and tiny backbones under the names that users give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from emopipe.pipeline.config import ExtractionConfig
from tests.models.conftest import CLASSES, write_dataset
from tests.models.tiny_backbone import write_backbone

#: Feature widths of :func:`conversations`.
DIMS = {"text": 3, "face": 4, "voice": 5}
#: A tiny EGMF.
SMALL = """
[train]
epochs = 1
batch_size = 16
[model]
name = "egmf"
width = 16
heads = 2
pseudo_tokens = 2
context = 2
"""


@pytest.fixture(scope="session")
def conversations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty-eight utterances in conversations of four, whose words name the class; some lack face or voice."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    features: dict[str, dict[str, np.ndarray]] = {name: {} for name in DIMS}
    for number in range(48):
        row: dict[str, Any] = {
            "id": f"u{number}",
            "speaker": f"s{number // 4 % 6}",
            "split": ("train", "train", "valid")[number // 4 % 3],
            "label": CLASSES[number % 4],
            "sentiment": number % 4 - 1.5,
            "words": f"the {CLASSES[number % 4]}",
            "dialogue": f"d{number // 4}",
            "utterance": number % 4,
        }
        for name, dim in DIMS.items():
            if name == "text" or rng.random() > 0.2:
                row[name] = f"k{number}"
                features[name][f"k{number}"] = rng.normal(number % 4, 1.0, size=(3, dim)).astype(np.float32)
        rows.append(row)
    config = tomli_w.dumps(ExtractionConfig.from_dict({}).as_dict())
    folder = write_dataset(tmp_path_factory.mktemp("conversations") / "data", rows, features, DIMS, config)
    (folder.parent / "small.toml").write_text(SMALL)
    return folder


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for EMOPIPE_WEIGHTS in which a tiny network has the default backbone's name, and one its own."""
    folder = tmp_path_factory.mktemp("weights")
    write_backbone(folder / "smollm2-135m")
    write_backbone(folder / "own", seed=1)
    return folder
