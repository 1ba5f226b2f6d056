"""Datasets in the layout of MMSA's feature files (github.com/thuiar/MMSA), read without running what a pickle asks.

The layout is `{split: {key: value}}` with the splits train, valid and test, by any of their names (dev). Of the N
utterances of a split:

- `id`: N strings `video$_$clip`; `raw_text` and `annotations` (optional): N strings;
- `text`, `audio`, `vision` (one at least): (N, T, D) numbers, padded with zeros to the same T steps;
- `text_bert` (optional): (N, 3, T) ids, mask and segments of the word pieces of the text;
- `audio_lengths`, `vision_lengths` (unaligned files): N valid steps;
- `regression_labels`: N numbers; Chinese sets also have `regression_labels_T`, `_A` and `_V`.

The files that MulT was published with (github.com/yaohungt/Multimodal-Transformer: GloVe, Facet and COVAREP) differ in
two of these: `labels`, (N, 1, 1), and `id`, (N, 3) video, start and end.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emopipe.errors import DatasetError
from emopipe.models.data import unpickle
from emopipe.models.data.dataset import Dataset, FeatureStore, Floats, Indices, Mask
from emopipe.models.data.known_corpora import corpus_of
from emopipe.models.data.split_names import split_name

SPLITS: Final = ("train", "valid", "test")
#: Our modalities and MMSA's keys.
KEYS: Final = {"text": "text", "face": "vision", "voice": "audio"}
#: Our label columns and MMSA's keys; the first is required.
LABELS: Final = {
    "sentiment": "regression_labels",
    "sentiment_text": "regression_labels_T",
    "sentiment_voice": "regression_labels_A",
    "sentiment_face": "regression_labels_V",
}
#: MulT's keys -> MMSA's.
MULT_KEYS: Final = {"labels": "regression_labels"}
Side = Literal["start", "end"]

_LAYOUT: Final = "Expected MMSA's layout: {split: {id, text, audio, vision, regression_labels, ...}}"


def read(path: str | Path) -> Dataset:
    """Open a file in MMSA's layout.

    The padding is cut off; `dataset.extraction` records on which side of each modality it was and how long the padded
    sequences were. Numbers that are not finite (MMSA's audio has -inf) become 0. The manifest has the columns
    `sentiment` (and `sentiment_text`, `_voice`, `_face`), `label` (the annotations in lower case) and `words` (the raw
    text); and `corpus`, where the splits have as many rows as those of a corpus that is known. `dataset.tokens` holds
    the ids of `text_bert`.

    Raises:
        DatasetError: the file cannot be read, asks to run code, or has another layout; the message says where.
    """
    file = _File(Path(path))
    ids = file.strings("id")
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise DatasetError(f"two utterances are called {twice[0]!r}", path=file.path)
    pieces = file.numbers("text_bert", 3, "steps") if file.has("text_bert") else None
    stores, extraction, tokens = {}, {}, None
    for modality, key in KEYS.items():
        if not file.has(key):
            continue
        steps = np.nan_to_num(file.numbers(key, "steps", "features"), copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        filled: Mask = np.any(steps, axis=2)
        if key == "text" and pieces is not None:
            filled = pieces[:, 1] > 0
            if filled.shape[1] != steps.shape[1]:
                raise file.wrong(f"text_bert has {filled.shape[1]} steps, text has {steps.shape[1]}")
        cut = _padding(filled, file.lengths(f"{key}_lengths"))
        stores[modality] = _store(file.path, modality, ids, steps, cut)
        extraction[modality] = {"source": "mmsa", "steps": steps.shape[1], "padding": cut.side}
        if key == "text" and pieces is not None:
            tokens = _store(file.path, "tokens", ids, pieces[:, 0, :, None], cut)
    if not stores:
        raise file.wrong("there is no text, audio or vision")
    return Dataset(_manifest(file, ids, tuple(stores)), stores, extraction, file.hash(), tokens)


class _File:
    """The tables of the splits, joined key by key in the order of the splits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        content = unpickle.load(path)
        self.tables = self._split_tables(content)
        self.counts = {split: len(self._values(split, "id")) for split in self.tables}

    def _split_tables(self, content: Any) -> dict[str, dict[Any, Any]]:
        """Split -> its table, in the order of the splits, which may go by any of their names."""
        tables: dict[str, dict[Any, Any]] = {}
        for name, table in content.items() if isinstance(content, dict) else ():
            if not isinstance(name, str) or not isinstance(table, dict):
                continue
            split = split_name(name)
            if split in tables:
                raise self.wrong(f"two splits mean {split}, one of them {name[:80]!r}")
            if split is not None:
                tables[split] = {**{MULT_KEYS.get(key, key): value for key, value in table.items()}, **table}
            elif "id" in table:
                raise self.wrong(f"there is an unknown split {name[:80]!r}")
        if not tables:
            raise self.wrong("there is no split train, valid or test")
        return {split: tables[split] for split in SPLITS if split in tables}

    def wrong(self, what: str) -> DatasetError:
        return DatasetError(f"the file is not as expected: {what}", hint=_LAYOUT, path=self.path)

    def hash(self) -> str:
        """sha256 of the file."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def splits(self) -> list[str]:
        """(N,) the split of each utterance."""
        return [split for split, count in self.counts.items() for _ in range(count)]

    def has(self, key: str) -> bool:
        """Whether the file has this key.

        Raises:
            DatasetError: some splits have it and some not.
        """
        there = {split: key in table for split, table in self.tables.items()}
        if len(set(there.values())) > 1:
            lacks = next(split for split, has in there.items() if not has)
            raise self.wrong(f"{lacks} has no {key}, other splits have")
        return all(there.values())

    def _values(self, split: str, key: str) -> NDArray[Any]:
        """One key of one split as an array, lists as arrays of objects."""
        value = self.tables[split].get(key)
        try:
            if isinstance(value, unpickle.Array):
                return value.numpy()
            if isinstance(value, list) and all(isinstance(one, str | int | float) for one in value):
                return np.array(value, dtype=object)
        except (ValueError, TypeError, AttributeError) as error:
            raise self.wrong(f"{key} of {split}: {error}") from error
        if value is None:
            raise self.wrong(f"{split} has no {key}")
        raise self.wrong(f"{key} of {split} is neither an array nor a list of numbers or text")

    def _rows(self, split: str, key: str) -> NDArray[Any]:
        """The same, checked to have one entry per utterance."""
        values = self._values(split, key)
        if values.ndim == 0 or len(values) != self.counts[split]:
            raise self.wrong(f"{key} of {split} has shape {values.shape} for {self.counts[split]} utterances")
        return values

    def strings(self, key: str) -> list[str]:
        """(N,) text; of several parts of each, the first one from the others by MMSA's sign."""
        texts = [_joined(row) for split in self.tables for row in self._rows(split, key).tolist()]
        if len(texts) != sum(self.counts.values()) or not all(isinstance(one, str) for one in texts):
            raise self.wrong(f"{key} is not one text per utterance")
        return texts

    def numbers(self, key: str, *axes: str | int) -> Floats:
        """(N, *axes) float32; an axis is a size, or the name of one that only has to be the same in all splits.

        The file's own copy is let go.
        """
        parts: list[Floats] = []
        for split, table in self.tables.items():
            values = self._rows(split, key)
            if not axes and values.size == len(values):
                values = values.reshape(-1)
            sizes, expected = values.shape[1:], parts[0].shape[1:] if parts else axes
            if len(sizes) != len(expected) or any(
                isinstance(want, int) and size != want for size, want in zip(sizes, expected, strict=True)
            ):
                wanted = ", ".join(map(str, ("utterances", *expected)))
                raise self.wrong(f"{key} of {split} has shape {values.shape}, expected ({wanted})")
            try:
                parts.append(values.astype(np.float32, copy=False))
            except (ValueError, TypeError) as error:
                raise self.wrong(f"{key} of {split} is not made of numbers") from error
            del table[key]
        return np.concatenate(parts)

    def lengths(self, key: str) -> Indices | None:
        """(N,) valid steps, where the file gives them."""
        return self.numbers(key).astype(np.int64) if self.has(key) else None


def _joined(row: Any) -> Any:
    """A text, decoded where it is bytes; a list of them as `FIRST$_$SECOND-THIRD`."""
    if not isinstance(row, list):
        return row.decode("utf-8", "replace") if isinstance(row, bytes) else row
    first, *rest = (str(_joined(part)) for part in row)
    return f"{first}$_${'-'.join(rest)}" if rest else first


@dataclass(frozen=True)
class _Cut:
    """Where content is: (N, T) `valid`, and the side of the padding."""

    valid: Mask
    side: Side


def _padding(filled: Mask, lengths: Indices | None) -> _Cut:
    """Find the padding: empty steps on the side that has more of them; it never reaches into filled steps.

    Args:
        filled: (N, T) steps that are not all zero.
        lengths: (N,) valid steps that the file names; the longer of both counts.
    """
    steps = filled.shape[1]
    if filled.size == 0:
        return _Cut(filled, "end")
    some = filled.any(axis=1)
    before = np.where(some, filled.argmax(axis=1), 0)
    after = np.where(some, filled[:, ::-1].argmax(axis=1), 0)
    side: Side = "start" if before.sum() > after.sum() else "end"
    occupied = np.where(some, steps - (before if side == "start" else after), 0)
    kept = np.clip(occupied if lengths is None else np.maximum(occupied, lengths), 1, steps)[:, None]
    place = np.arange(steps)
    return _Cut(place >= steps - kept if side == "start" else place < kept, side)


def _store(path: Path, modality: str, ids: Sequence[str], steps: Floats, cut: _Cut) -> FeatureStore:
    values = steps[cut.valid]
    names = tuple(f"{modality}_{number}" for number in range(steps.shape[2]))
    return FeatureStore(path, modality, names, ids, cut.valid.sum(axis=1), lambda: values)


def _manifest(file: _File, ids: list[str], modalities: Sequence[str]) -> pa.Table:
    videos = [name.split("$_$")[0] if "$_$" in name else None for name in ids]
    columns: dict[str, Any] = {"id": ids, "media": pa.array(videos, pa.string()), "split": file.splits}
    columns |= dict.fromkeys(modalities, ids)
    for column, key in LABELS.items():
        if column == "sentiment" or file.has(key):
            columns[column] = file.numbers(key).astype(np.float64)
    if file.has("annotations"):
        columns["label"] = [one.lower() for one in file.strings("annotations")]
    if file.has("raw_text"):
        columns["words"] = file.strings("raw_text")
    if (corpus := corpus_of(file.counts)) is not None:
        columns["corpus"] = [corpus] * len(ids)
    return pa.table(columns)
