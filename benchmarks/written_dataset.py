"""Datasets of features that a benchmark has in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tomli_w

from emopipe.constants import MODALITIES
from emopipe.extractors.windows import FeatureSequence
from emopipe.pipeline.datasets.writing import FeatureWriter, manifest_table


def write_dataset(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    features: Mapping[str, tuple[Sequence[str], Sequence[np.ndarray]]],
    config: Mapping[str, Any],
) -> None:
    """Write a dataset in which every row has all modalities.

    Args:
        folder: of the dataset, which must not be there.
        rows: `id`, `speaker`, `split` and labels of each utterance.
        features: modality -> names of D columns, and float32 (T, D) of each row.
        config: of the extraction.
    """
    fresh = folder.with_name(f".{folder.name}.partial")
    fresh.mkdir(parents=True, exist_ok=True)
    for modality, (names, sequences) in features.items():
        with FeatureWriter(fresh, modality, list(names)) as writer:
            for row, steps in zip(rows, sequences, strict=True):
                edges = np.linspace(0.0, 1.0, len(steps) + 1)
                writer.add(row["id"], FeatureSequence(edges[:-1], edges[1:], steps))
    pq.write_table(manifest_table([_row(row, features) for row in rows]), fresh / "manifest.parquet")
    (fresh / "config.toml").write_text(tomli_w.dumps(config), "utf-8")
    fresh.rename(folder)


def _row(row: Mapping[str, Any], features: Mapping[str, Any]) -> dict[str, Any]:
    keys = {name: row["id"] if name in features else None for name in MODALITIES}
    facts = {f"{name}_{fact}": None for name in MODALITIES for fact in ("absent", "quality")}
    return {"media": None, "start": 0.0, "end": 1.0, **row, **keys, **facts}
