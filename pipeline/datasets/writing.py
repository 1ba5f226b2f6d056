"""The files of a dataset: its manifest, a row per utterance, and the features of each modality."""

from __future__ import annotations

import json
from collections.abc import Collection
from numbers import Real
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emopipe.constants import MODALITIES
from emopipe.errors import DatasetError
from emopipe.pipeline.datasets.label_columns import is_number
from emopipe.pipeline.datasets.labels import LabelledSource
from emopipe.pipeline.records import Source, Utterance

SOURCES_PER_GROUP: Final = 256


def manifest_row(
    row: LabelledSource,
    utterance: Utterance,
    index: int,
    count: int,
    writers: dict[str, FeatureWriter],
    enrolled: Collection[str],
) -> dict[str, Any]:
    """The manifest's row of an utterance; its features are handed to the writers."""
    name = row.source.id if count == 1 else f"{row.source.id}#{index + 1}"
    record: dict[str, Any] = {
        "id": name,
        "media": str(row.source.path) if row.source.path else None,
        "start": utterance.start,
        "end": utterance.end,
        "speaker": _speaker(row.source, utterance, count, enrolled),
        "role": utterance.role,
        "overlap": utterance.overlap,
        "split": row.split,
        "words": utterance.text or None,
        **row.labels,
    }
    for modality in MODALITIES:
        present = modality in utterance.features
        record[modality] = name if present else None
        record[f"{modality}_absent"] = utterance.absent.get(modality)
        record[f"{modality}_quality"] = utterance.quality.get(modality)
        if present:
            writers[modality].add(name, utterance.features[modality])
    return record


def _speaker(source: Source, utterance: Utterance, count: int, enrolled: Collection[str]) -> str | None:
    """A name that holds across the dataset: S1 of one clip is not S1 of another, nor of a lone utterance anybody."""
    if source.speaker is not None or utterance.speaker is None or utterance.speaker in enrolled:
        return source.speaker or utterance.speaker
    return f"{source.id}/{utterance.speaker}" if count > 1 else None


def manifest_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as a table; a label column in which every cell is a number becomes numeric."""
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    fixed = {"start": pa.float64(), "end": pa.float64(), **{f"{m}_quality": pa.float64() for m in MODALITIES}}
    texts = {"id", "media", "speaker", "role", "split", "words", "dialogue"}
    known = {*texts, *MODALITIES, *(f"{m}_absent" for m in MODALITIES)}
    arrays = {}
    for name, values in columns.items():
        if name in fixed or name in known:
            given = [value or None for value in values] if name == "dialogue" else values
            arrays[name] = pa.array(given, fixed.get(name, pa.string()))
        else:
            arrays[name] = _label_array(values)
    return pa.table(arrays)


def _label_array(values: list[Any]) -> pa.Array:
    given = [None if value in (None, "") else value for value in values]
    if all(value is None or isinstance(value, Real) or is_number(value) for value in given):
        return pa.array([None if value is None else float(value) for value in given], pa.float64())
    return pa.array(given, pa.string())


class FeatureWriter:
    """Streams the feature sequences of one modality into its Parquet file."""

    def __init__(self, folder: Path, modality: str, names: list[str]) -> None:
        metadata = {b"emopipe": json.dumps({"modality": modality, "names": names}).encode()}
        self._width = len(names)
        features = pa.list_(pa.float32(), self._width)
        fields = [("key", pa.string()), ("start", pa.float64()), ("end", pa.float64()), ("features", features)]
        self._schema = pa.schema(fields).with_metadata(metadata)
        self._writer = pq.ParquetWriter(folder / f"{modality}.parquet", self._schema, compression="zstd")
        self._waiting: list[tuple[str, Any]] = []

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self._flush()
        self._writer.close()

    def add(self, key: str, sequence: Any) -> None:
        """Write the features of an utterance under a key.

        Raises:
            DatasetError: their number is not that of the names.
        """
        width = np.shape(sequence.features)[1]
        if width != self._width:
            hint = "Repair the extractor: its vectors and feature_names() differ"
            raise DatasetError(f"features of {key} are {width} numbers, their names {self._width}", hint=hint)
        self._waiting.append((key, sequence))
        if len(self._waiting) >= SOURCES_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        keys = [key for key, sequence in self._waiting for _ in sequence.start]
        start, end = (np.concatenate([getattr(s, edge) for _, s in self._waiting]) for edge in ("start", "end"))
        flat = np.concatenate([s.features for _, s in self._waiting]).astype(np.float32).reshape(-1)
        features = pa.FixedSizeListArray.from_arrays(pa.array(flat), self._width)
        arrays = [pa.array(keys), pa.array(start), pa.array(end), features]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._waiting = []
