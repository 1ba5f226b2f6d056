"""A folder of MIntRec's features, small."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

COUNTS = {"train": 24, "valid": 8, "test": 8}
INTENTS = ("Complain", "Greet", "Ask for help", "Praise")
DIMS = {"text": 768, "face": 256, "voice": 768}
#: Split -> the first part of its utterances' ids, and its table.
PLACES = {"train": ("S04_E01", "train"), "valid": ("S04_E02", "dev"), "test": ("S05_E01", "test")}


def utterances(dims: Mapping[str, int] = DIMS) -> list[dict[str, Any]]:
    """Rows of the tables with features (T, D) in which the intent shows."""
    rng = np.random.default_rng(0)
    directions = {name: rng.normal(size=(len(INTENTS), dim)) for name, dim in dims.items()}
    rows = []
    for split, count in COUNTS.items():
        for number in range(count):
            intent = number % len(INTENTS)
            row: dict[str, Any] = {"split": split, "id": f"{PLACES[split][0]}_{number}", "words": f"words {number}"}
            for name, dim in dims.items():
                steps = rng.normal(size=(rng.integers(2, 5), dim))
                row[name] = (directions[name][intent] + 0.3 * steps).astype(np.float32)
            rows.append({**row, "label": INTENTS[intent]})
    return rows


def write(folder: Path, rows: list[dict[str, Any]] | None = None, text: bool = True) -> Path:
    """The folder: frames of the face as a list of (1, 256) arrays, the voice as tensors; text as arrays on request."""
    rows = utterances() if rows is None else rows
    for split, (_, name) in PLACES.items():
        lines = ["season\tepisode\tclip\ttext\tlabel"]
        of_split = [row for row in rows if row["split"] == split]
        lines += ["\t".join([*row["id"].split("_"), row["words"], row["label"]]) for row in of_split]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    pickled(
        folder / "video_data" / "video_feats.pkl", {row["id"]: [step[None] for step in row["face"]] for row in rows}
    )
    pickled(folder / "audio_data" / "audio_feats.pkl", {row["id"]: torch.tensor(row["voice"]) for row in rows})
    if text:
        pickled(folder / "text_data" / "text_feats.pkl", {row["id"]: row["text"] for row in rows})
    return folder


def pickled(path: Path, content: Mapping[str, Any]) -> Path:
    """A pickle of features by utterance."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(dict(content)))
    return path
