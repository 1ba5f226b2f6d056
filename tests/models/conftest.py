"""Small datasets with something to learn, written in the format that extraction writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emopipe.models.data.dataset import Dataset
from emopipe.models.data.reading import read

DIMS = {"text": 12, "face": 6, "voice": 20}
CLASSES = ("anger", "happiness", "neutral", "sadness")

CONFIG = """
[face]
backend = "mediapipe"
fps = 5
version = "0.10.31"
[voice]
backend = "librosa"
hop = 0.01
[speech]
backend = "whisper"
size = "base"
[text]
backend = "minilm"
layer = 6
"""


def write_features(folder: Path, modality: str, sequences: Mapping[str, np.ndarray], dim: int) -> None:
    """One modality's Parquet file."""
    keys = [key for key, steps in sequences.items() for _ in steps]
    values = np.concatenate([*sequences.values(), np.zeros((0, dim), np.float32)]).astype(np.float32)
    times = np.concatenate([np.arange(len(steps)) for steps in sequences.values()] or [np.zeros(0)]).astype(float)
    table = pa.table(
        {
            "key": pa.array(keys, pa.string()),
            "start": times,
            "end": times + 1,
            "features": pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), dim),
        }
    )
    facts = {"modality": modality, "names": [f"{modality}_{number}" for number in range(dim)]}
    pq.write_table(
        table.replace_schema_metadata({b"emopipe": json.dumps(facts).encode()}), folder / f"{modality}.parquet"
    )


def write_dataset(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    features: Mapping[str, Mapping[str, np.ndarray]],
    dims: Mapping[str, int] = DIMS,
    config: str = CONFIG,
) -> Path:
    """A dataset folder from manifest rows and key -> (T, D) sequences per modality."""
    folder.mkdir(parents=True, exist_ok=True)
    filled = [{"media": None, "start": 0.0, "end": 1.0, "text": None, **row} for row in rows]
    for row in filled:
        for modality in DIMS:
            row.setdefault(modality, None)
            row.setdefault(f"{modality}_absent", None if row[modality] else "no_face")
            row.setdefault(f"{modality}_quality", 0.9 if row[modality] else None)
    pq.write_table(pa.Table.from_pylist(filled), folder / "manifest.parquet")
    for modality, sequences in features.items():
        write_features(folder, modality, sequences, dims[modality])
    (folder / "config.toml").write_text(config)
    return folder


def learnable(
    folder: Path,
    count: int = 240,
    speakers: int = 12,
    missing: float = 0.0,
    noise: float = 1.3,
    seed: int = 0,
    splits: bool = True,
    words: bool = False,
) -> Path:
    """Each modality shows the class in its own direction under its own noise, so together they tell most."""
    rng = np.random.default_rng(seed)
    directions = {m: np.random.default_rng(99).normal(size=(len(CLASSES), dim)) for m, dim in DIMS.items()}
    rows: list[dict[str, Any]] = []
    features: dict[str, dict[str, np.ndarray]] = {modality: {} for modality in DIMS}
    for number in range(count):
        label, speaker = number % len(CLASSES), (number // len(CLASSES)) % speakers
        split = ("train", "train", "train", "valid", "test")[speaker % 5] if splits else "train"
        row: dict[str, Any] = {
            "id": f"u{number}",
            "speaker": f"s{speaker}",
            "split": split,
            "label": CLASSES[label],
            "sentiment": float(np.clip(label - 1.5 + rng.normal(0, 0.3), -3, 3)),
        }
        keep = rng.random(3) >= missing
        keep[rng.integers(3)] = True
        for modality, there in zip(DIMS, keep, strict=True):
            if there:
                steps = rng.integers(1, 6)
                strength = directions[modality][label] + noise * rng.normal(size=DIMS[modality])
                features[modality][f"k{number}"] = 10 + 5 * (strength + 0.3 * rng.normal(size=(steps, DIMS[modality])))
                row[modality] = f"k{number}"
        if words and row.get("text"):
            row["words"] = f"the {CLASSES[label]}"
        rows.append(row)
    return write_dataset(folder, rows, features)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Dataset]:
    """Write a learnable dataset and open it; keywords of `learnable`."""
    return lambda **options: read(learnable(tmp_path / f"data{len(list(tmp_path.iterdir()))}", **options))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A learnable dataset of complete rows that tests only read."""
    return read(learnable(tmp_path_factory.mktemp("shared"), count=400, speakers=20))


@pytest.fixture(scope="session")
def partial(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A learnable dataset with missing modalities that tests only read."""
    return read(learnable(tmp_path_factory.mktemp("partial"), count=200, missing=0.4))
