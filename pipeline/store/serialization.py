"""Results of stages as Parquet files: what is tabular becomes rows, the rest goes into the file's metadata.

A result is a mapping of names to values, at most one of which is tabular: an Arrow table; a list (or, to be written as
it comes, an iterator) of feature sequences, one per utterance; a list of records; a list of equally long tuples. The
others must be expressible in JSON, or be records. Records are the dataclasses of :data:`RECORDS`, and no other class
is ever built from a file.
"""

from __future__ import annotations

import bisect
import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emopipe.errors import Reason, StoreError, reason
from emopipe.extractors.windows import FeatureSequence
from emopipe.pipeline.records import AbsenceReason, Absent

#: Class -> module of the records that a result may hold.
RECORDS: Final = {
    "Absent": "emopipe.pipeline.records",
    "Person": "emopipe.pipeline.records",
    "Prediction": "emopipe.models.prediction",
    "Reason": "emopipe.errors",
    "Span": "emopipe.extractors.contracts",
    "Turn": "emopipe.extractors.contracts",
    "Where": "emopipe.errors",
    "Word": "emopipe.extractors.contracts",
}
#: Value of a stage -> code of what it held as plain text before reasons had codes.
_TEXT_REASONS: Final = {
    "file_faults": "file_truncated",
    "video_faults": "data_damaged",
    "sound_faults": "data_damaged",
    "decoding_faults": "data_damaged",
    "face_warnings": "weights_unverified",
    "text_warnings": "language_not_read",
    "people_warnings": "person_not_found",
}
#: Utterances whose sequences are written, read and held in memory together.
GROUP: Final = 64
#: Where in a file's metadata we keep ours.
_OURS: Final = b"emopipe"
_TAG: Final = "$"


def write(sink: Any, values: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Write a result.

    Args:
        sink: a path or an Arrow output stream.
        values: the result; iterators in it are used up.
        facts: what is to be known about it, in JSON.

    Raises:
        TypeError: a value of another kind, or a second tabular one.
        OSError: it cannot be written.
    """
    kinds = {name: kind for name, value in values.items() if (kind := _kind(value))}
    if len(kinds) > 1:
        raise TypeError(f"a stage may provide one table, not {len(kinds)}: {', '.join(kinds)}; split it in two")
    plain = {name: value for name, value in values.items() if name not in kinds}
    about: dict[str, Any] = {"facts": facts, "plain": plain}
    if not kinds:
        return _write_table(sink, pa.table({}), about)
    ((about["name"], about["kind"]),) = kinds.items()
    _WRITERS[about["kind"]](sink, values[about["name"]], about)


def read(source: Any) -> dict[str, Any]:
    """Read a result back from a path or an Arrow buffer; sequences are read from it as they are used.

    Raises:
        OSError: it is damaged.
    """
    with _damage():
        file = pq.ParquetFile(source, memory_map=isinstance(source, Path), page_checksum_verification=True)
        about = _about(file)
        values: dict[str, Any] = {name: _with_codes(name, value) for name, value in about["plain"].items()}
        if "kind" in about:
            values[about["name"]] = _READERS[about["kind"]](file, about, source)
        return values


def read_facts(path: Path) -> dict[str, Any]:
    """The facts that were written with a result.

    Raises:
        OSError: it is damaged.
    """
    with _damage(), pq.ParquetFile(path) as file:
        return dict(_about(file)["facts"])


def _with_codes(name: str, value: Any) -> Any:
    """A plain value; reasons that were stored as text get the code that belongs to the value."""
    if name not in _TEXT_REASONS:
        return value
    return [one if isinstance(one, Reason) else reason(_TEXT_REASONS[name], one) for one in value]


@contextmanager
def _damage() -> Iterator[None]:
    """What Arrow says of a damaged file becomes an OSError."""
    try:
        yield
    except pa.ArrowException as error:
        raise OSError(str(error)) from error


def in_memory(values: Mapping[str, Any]) -> dict[str, Any]:
    """A result as it would be read back, for when it cannot be stored."""
    sink = pa.BufferOutputStream()
    write(sink, values, {})
    return read(sink.getvalue())


#: Of each utterance, its features or the reason for their absence.
FeatureSequences = Sequence[FeatureSequence | Absent]
#: The same, or made one by one as they are written.
FeatureStream = FeatureSequences | Iterator[FeatureSequence | Absent]


class StoredSequences(Sequence[FeatureSequence | Absent]):
    """The feature sequence of each utterance, or :class:`Absent`; a few utterances are in memory at a time."""

    def __init__(self, file: pq.ParquetFile, about: Mapping[str, Any], source: Any) -> None:
        self._file, self._source = file, source
        self._length: int = about["utterances"]
        self._absent = {int(index): Absent(reason) for index, reason in about["absent"].items()}
        self._firsts: list[int] = about["firsts"]
        self._held: tuple[int, dict[int, FeatureSequence]] = (-1, {})

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> FeatureSequence | Absent: ...
    @overload
    def __getitem__(self, index: slice) -> list[FeatureSequence | Absent]: ...
    def __getitem__(self, index: int | slice) -> FeatureSequence | Absent | list[FeatureSequence | Absent]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._length))]
        if not -self._length <= index < self._length:
            raise IndexError(index)
        index %= self._length
        return self._absent[index] if index in self._absent else self._group(index)[index]

    def reason(self, index: int) -> AbsenceReason | None:
        """Why the utterance has no sequence; None when it has one. Reads nothing."""
        return self._absent[index].reason if index in self._absent else None

    def _group(self, index: int) -> dict[int, FeatureSequence]:
        """The sequences of the group that holds an utterance, by utterance."""
        number = bisect.bisect_right(self._firsts, index) - 1
        if self._held[0] != number:
            rows = self._read(number).combine_chunks()
            utterance, start, end = (rows[name].to_numpy() for name in ("utterance", "start", "end"))
            features = rows["features"].combine_chunks().flatten().to_numpy().reshape(len(utterance), -1)
            names, edges = np.unique(utterance, return_index=True)
            parts = [slice(low, high) for low, high in zip(edges, [*edges[1:], len(utterance)], strict=True)]
            steps = [FeatureSequence(start[part], end[part], features[part]) for part in parts]
            self._held = (number, dict(zip(names.tolist(), steps, strict=True)))
        return self._held[1]

    def _read(self, number: int) -> pa.Table:
        try:
            with _damage():
                return self._file.read_row_group(number)
        except OSError as error:
            if isinstance(self._source, Path):
                self._source.unlink(missing_ok=True)
            what = f"a stored result is damaged and was removed: {error}"
            raise StoreError(what, path=self._source, hint="Run again: it is computed anew") from error


def absence(sequences: FeatureSequences, index: int) -> AbsenceReason | None:
    """Why an utterance has no sequence; None when it has one. Of stored sequences, none is read."""
    if isinstance(sequences, StoredSequences):
        return sequences.reason(index)
    item = sequences[index]
    return item.reason if isinstance(item, Absent) else None


def _kind(value: Any) -> str:
    """Which kind of table a value is; "" when it is none."""
    if isinstance(value, pa.Table):
        return "table"
    if isinstance(value, Iterator | StoredSequences):
        return "sequences"
    return _kind_of_list(value) if isinstance(value, list) and value else ""


def _kind_of_list(value: list[Any]) -> str:
    """The same of a list that has items."""
    if isinstance(value[0], Reason):
        return ""
    if any(isinstance(item, FeatureSequence) for item in value) or all(isinstance(item, Absent) for item in value):
        return "sequences"
    if all(type(item) is type(value[0]) and type(item).__name__ in RECORDS for item in value):
        return "records"
    return "tuples" if all(isinstance(item, tuple) and len(item) == len(value[0]) for item in value) else ""


def _writer(sink: Any, schema: pa.Schema, about: Mapping[str, Any]) -> pq.ParquetWriter:
    floats = about.get("kind") == "sequences"
    return pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        use_dictionary=not floats,
        use_byte_stream_split=floats,
        write_page_checksum=True,
    )


def _write_table(sink: Any, table: pa.Table, about: Mapping[str, Any]) -> None:
    with _writer(sink, table.schema, about) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_OURS: _json(about)})


def _write_sequences(sink: Any, sequences: Iterable[Any], about: dict[str, Any]) -> None:
    """Row groups of :data:`GROUP` utterances; a group whose utterances are all absent is left out."""
    about |= {"absent": {}, "firsts": [], "utterances": 0}
    writer: Any = None
    waiting: list[tuple[int, Any]] = []
    for index, item in enumerate(sequences):
        about["utterances"] = index + 1
        if index % GROUP == 0 and waiting:
            writer = _write_group(sink, writer, waiting, about)
            waiting = []
        if isinstance(item, Absent):
            about["absent"][index] = item.reason
        else:
            waiting.append((index, item))
    if waiting:
        writer = _write_group(sink, writer, waiting, about)
    with writer or _writer(sink, pa.schema([]), about) as writer:
        writer.add_key_value_metadata({_OURS: _json(about)})


def _write_group(sink: Any, writer: Any, items: list[tuple[int, Any]], about: dict[str, Any]) -> Any:
    features = np.concatenate([steps.features for _, steps in items]).astype(np.float32, copy=False)
    columns = {
        "utterance": pa.array(np.concatenate([np.full(len(steps.start), index, np.int32) for index, steps in items])),
        "start": pa.array(np.concatenate([steps.start for _, steps in items])),
        "end": pa.array(np.concatenate([steps.end for _, steps in items])),
        "features": pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), features.shape[1]),
    }
    rows = pa.table(columns)
    writer = writer or _writer(sink, rows.schema, about)
    about["firsts"].append(items[0][0])
    writer.write_table(rows)
    return writer


def _write_records(sink: Any, records: list[Any], about: dict[str, Any]) -> None:
    """One column per field; what is not a number, text or truth value is kept as JSON."""
    about["record"] = type(records[0]).__name__
    columns, about["nested"] = {}, []
    for field in dataclasses.fields(records[0]):
        cells = [getattr(record, field.name) for record in records]
        if not all(cell is None or isinstance(cell, bool | int | float | str) for cell in cells):
            about["nested"].append(field.name)
            cells = [_json(cell) for cell in cells]
        columns[field.name] = pa.array(cells)
    _write_table(sink, pa.table(columns), about)


def _write_tuples(sink: Any, tuples: list[tuple[Any, ...]], about: Mapping[str, Any]) -> None:
    columns = {str(place): pa.array(cells) for place, cells in enumerate(zip(*tuples, strict=True))}
    _write_table(sink, pa.table(columns), about)


def _read_table(file: pq.ParquetFile, about: Mapping[str, Any], source: Any) -> pa.Table:
    table = file.read()
    metadata = {name: value for name, value in (table.schema.metadata or {}).items() if name != _OURS}
    return table.replace_schema_metadata(metadata or None)


def _read_records(file: pq.ParquetFile, about: Mapping[str, Any], source: Any) -> list[Any]:
    rows = file.read().to_pylist()
    for row in rows:
        row |= {name: json.loads(row[name], object_hook=_revive) for name in about["nested"]}
    return [_record(about["record"], row) for row in rows]


def _read_tuples(file: pq.ParquetFile, about: Mapping[str, Any], source: Any) -> list[tuple[Any, ...]]:
    return list(zip(*(column.to_pylist() for column in file.read().columns), strict=True))


_WRITERS: Final[dict[str, Any]] = {
    "table": _write_table,
    "sequences": _write_sequences,
    "records": _write_records,
    "tuples": _write_tuples,
}
_READERS: Final[dict[str, Any]] = {
    "table": _read_table,
    "sequences": StoredSequences,
    "records": _read_records,
    "tuples": _read_tuples,
}


def _about(file: pq.ParquetFile) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads(file.metadata.metadata[_OURS], object_hook=_revive)
    except (KeyError, TypeError, ValueError) as error:
        raise OSError(f"no result of a stage: {error}") from None
    return about


def _json(value: Any) -> str:
    return json.dumps(value, default=_tagged)


def _tagged(value: Any) -> Any:
    """Records carry the name of their class; numpy's numbers are numbers."""
    name = type(value).__name__
    if dataclasses.is_dataclass(value) and name in RECORDS:
        return {_TAG: name, **{field.name: getattr(value, field.name) for field in dataclasses.fields(value)}}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a result cannot hold a {name}")


def _revive(pairs: dict[str, Any]) -> Any:
    return _record(pairs.pop(_TAG), pairs) if _TAG in pairs else pairs


def _record(name: str, fields: dict[str, Any]) -> Any:
    """Build a record; JSON knows no tuples, so fields that want one get it."""
    kind = getattr(import_module(RECORDS[name]), name)
    tuples = {field.name for field in dataclasses.fields(kind) if str(field.type).startswith("tuple")}
    return kind(**{field: tuple(value) if field in tuples else value for field, value in fields.items()})
