"""MIntRec's features as its authors hand them out (github.com/thuiar/MIntRec), read without running pickled code.

Beside the tables `train.tsv`, `dev.tsv` and `test.tsv` (season, episode, clip, text, label) lie pickles of features by
utterance, `{"S04_E01_12": steps}`:

- `video_data/video_feats.pkl`: a list of (1, 256) arrays, one a key frame;
- `audio_data/audio_feats.pkl`: (T, 768) arrays or torch tensors, of wav2vec 2.0.

Text features are not handed out. They are read from `text_data`, which is a dataset that extraction made of the words,
or holds `text_feats.pkl` of the same layout.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from emopipe.errors import DatasetError
from emopipe.models.data import unpickle
from emopipe.models.data.dataset import Dataset, FeatureStore, Floats
from emopipe.models.data.split_names import split_name

NAME: Final = "mintrec"
TABLES: Final = ("train.tsv", "dev.tsv", "test.tsv")
COLUMNS: Final = ("season", "episode", "clip", "text", "label")
#: Our modalities, and what the files call them.
KINDS: Final = {"text": "text", "face": "video", "voice": "audio"}
#: Sizes of the published features, and of BERT's, which the papers use.
SIZES: Final = {"text": 768, "face": 256, "voice": 768}
#: Folder of the text features.
TEXT: Final = "text_data"

_LAYOUT: Final = (
    "Expected MIntRec's layout: train.tsv, dev.tsv, test.tsv, video_data/video_feats.pkl, audio_data/audio_feats.pkl"
)


@dataclass(frozen=True)
class _Utterance:
    id: str
    split: str
    words: str
    label: str


def holds(folder: Path) -> bool:
    """Whether a folder holds a table of MIntRec beside features."""
    return any((folder / name).is_file() for name in TABLES) and bool(_files(folder))


def read(folder: Path, text: Dataset | None = None) -> Dataset:
    """Open a folder of MIntRec's features; the splits are those of its tables.

    An utterance of which a file has no features lacks that modality. The manifest has the columns `label` (the intent),
    `words` and `corpus`.

    Args:
        folder: see the top of this module.
        text: rows of the same ids with text features.

    Raises:
        DatasetError: a file cannot be read, asks to run code, or has another layout; the message says where.
    """
    utterances = _utterances(folder)
    ids = [one.id for one in utterances]
    stores = {modality: _store(modality, path, _pickled(path, ids)) for modality, path in _files(folder).items()}
    extraction: dict[str, Any] = {modality: {"source": NAME} for modality in stores}
    if text is not None and "text" in text.modalities:
        stores["text"] = _store("text", folder / TEXT, _of_dataset(text, ids))
        extraction["text"] = text.extraction.get("text", {"source": NAME})
    columns: dict[str, Any] = {
        "id": ids,
        "media": pa.nulls(len(ids), pa.string()),
        "split": [one.split for one in utterances],
        "words": [one.words or None for one in utterances],
        "label": [one.label or None for one in utterances],
        "corpus": [NAME] * len(ids),
    }
    for modality, store in stores.items():
        columns[modality] = pa.array([name if name in store.index else None for name in ids], pa.string())
    return Dataset(pa.table(columns), stores, extraction, _hash(folder, text))


def _files(folder: Path) -> dict[str, Path]:
    """Modality -> its pickle, where there is one.

    Raises:
        DatasetError: several pickles, none of which has the published name.
    """
    files: dict[str, Path] = {}
    for modality, kind in KINDS.items():
        named = [folder / f"{kind}_data" / f"{kind}_feats.pkl", folder / f"{kind}_feats.pkl"]
        others = sorted((folder / f"{kind}_data").glob("*.pkl"))
        found = next((path for path in named if path.is_file()), None)
        if found is None and len(others) > 1:
            what = f"{kind}_data holds {', '.join(path.name for path in others[:5])}"
            raise DatasetError(what, hint=f"Keep one of them, or call it {kind}_feats.pkl", path=folder)
        if found is not None or others:
            files[modality] = found or others[0]
    return files


def _utterances(folder: Path) -> list[_Utterance]:
    """The rows of all tables, train first."""
    utterances = [one for name in TABLES if (folder / name).is_file() for one in _rows(folder / name)]
    twice = [name for name, count in Counter(one.id for one in utterances).items() if count > 1]
    if twice:
        raise DatasetError(f"two utterances are called {twice[0]!r}", path=folder)
    return utterances


def _rows(path: Path) -> list[_Utterance]:
    split = split_name(path.stem) or ""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", restval="")
            reader.fieldnames = [name.strip().casefold() for name in reader.fieldnames or ()]
            lines = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise DatasetError(f"the table cannot be read: {error}", path=path) from error
    lacks = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if lacks:
        raise DatasetError(f"the table has no column {lacks[0]}", hint=_LAYOUT, path=path)
    places = ("_".join(line[name].strip() for name in COLUMNS[:3]) for line in lines)
    return [
        _Utterance(place, split, line["text"].strip(), line["label"].strip())
        for place, line in zip(places, lines, strict=True)
    ]


def _pickled(path: Path, ids: Sequence[str]) -> dict[str, Floats]:
    """Utterance -> its steps (T, D), of those that the file has."""
    content = unpickle.load(path)
    if not isinstance(content, dict):
        raise DatasetError("the pickle does not hold features by utterance", hint=_LAYOUT, path=path)
    found = {name: _steps(content[name], name, path) for name in ids if name in content}
    if not found:
        some = ", ".join(map(repr, list(content)[:3]))
        what = f"the file has features of none of the {len(ids)} utterances, but of {some or 'nothing'}"
        raise DatasetError(what, hint=_LAYOUT, path=path)
    return found


def _steps(value: Any, name: str, path: Path) -> Floats:
    """(T, D) float32 of an array (T, D) or (T, 1, D), or of a list of arrays (D,) or (1, D)."""
    try:
        parts = [one.numpy() for one in value] if isinstance(value, list) else [value.numpy()]
        array = np.stack(parts) if isinstance(value, list) else parts[0]
        if array.ndim == 3 and array.shape[1] == 1:
            array = array[:, 0]
        steps = array.astype(np.float32)
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise DatasetError(
            f"the features of {name} are not numbers: {error!r:.100}", hint=_LAYOUT, path=path
        ) from error
    if steps.ndim != 2 or 0 in steps.shape:
        raise DatasetError(f"the features of {name} have the shape {array.shape}, not steps x features", path=path)
    return np.nan_to_num(steps, nan=0.0, posinf=0.0, neginf=0.0)


def _of_dataset(text: Dataset, ids: Sequence[str]) -> dict[str, Floats]:
    """The same of the text features of a dataset."""
    rows = {str(name): row for row, name in enumerate(text.ids)}
    found = {name: text.sample(rows[name]).features["text"] for name in ids if name in rows}
    return {name: steps for name, steps in found.items() if steps is not None}


def _store(modality: str, path: Path, found: Mapping[str, Floats]) -> FeatureStore:
    sizes = Counter(steps.shape[1] for steps in found.values())
    if len(sizes) > 1:
        (usual, _), *_ = sizes.most_common(1)
        odd = next(name for name, steps in found.items() if steps.shape[1] != usual)
        what = f"the features of {odd} have {found[odd].shape[1]} numbers a step, others {usual}"
        raise DatasetError(what, hint="Extract them all with the same tool", path=path)
    if not found:
        raise DatasetError("there are text features of none of the utterances", path=path)
    names = tuple(f"{modality}_{number}" for number in range(next(iter(sizes))))
    lengths = np.array([len(steps) for steps in found.values()], dtype=np.int64)
    values = np.concatenate(list(found.values()))
    return FeatureStore(path, modality, names, list(found), lengths, lambda: values)


def _hash(folder: Path, text: Dataset | None) -> str:
    """sha256 of the tables and the features."""
    whole = hashlib.sha256((text.hash if text is not None else "").encode())
    tables = [path for name in TABLES if (path := folder / name).is_file()]
    for path in [*tables, *_files(folder).values()]:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
