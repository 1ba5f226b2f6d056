"""Small files in MMSA's layout."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

COUNTS = {"train": 24, "valid": 8, "test": 6}
STEPS = {"text": 12, "audio": 12, "vision": 12}
DIMS = {"text": 16, "audio": 5, "vision": 7}
VOCABULARY = 40


def content(
    steps: dict[str, int] | None = None, side: str = "end", aligned: bool = True, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Splits of random utterances, padded on one side; the sentiment shows in every modality's first feature."""
    sizes, rng = {**STEPS, **(steps or {})}, np.random.default_rng(seed)
    return {split: _split(split, count, sizes, side, aligned, rng) for split, count in COUNTS.items()}


def _split(
    split: str, count: int, sizes: dict[str, int], side: str, aligned: bool, rng: np.random.Generator
) -> dict[str, Any]:
    sentiment = rng.uniform(-3, 3, count).astype(np.float32)
    table: dict[str, Any] = {
        "id": [f"{split}{number // 4}$_${number}" for number in range(count)],
        "raw_text": np.array([f"words {number}" for number in range(count)], dtype=object),
        "annotations": np.array(["Positive" if one > 0 else "Negative" for one in sentiment]),
        "regression_labels": sentiment,
        "classification_labels": (sentiment > 0).astype(np.int64),
    }
    lengths = {key: rng.integers(3, sizes[key] + 1, count) for key in DIMS}
    for key, dim in DIMS.items():
        values = rng.normal(size=(count, sizes[key], dim)).astype(np.float32)
        values[:, :, 0] += 3 * sentiment[:, None]
        place = np.arange(sizes[key])
        padding = place >= lengths[key][:, None] if side == "end" else place < sizes[key] - lengths[key][:, None]
        values[padding] = 0
        table[key] = values
        if not aligned and key != "text":
            table[f"{key}_lengths"] = lengths[key].tolist()
    mask = np.any(table["text"] != 0, axis=2)
    ids = np.where(mask, rng.integers(1, VOCABULARY, mask.shape), 0)
    table["text_bert"] = np.stack([ids, mask, np.zeros_like(ids)], axis=1).astype(np.float32)
    return table


def write(path: Path, tables: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(tables, protocol=protocol))
    return path
