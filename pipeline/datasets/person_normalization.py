"""Features relative to what is normal for the person, in the utterances of a clip and in the rows of a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emopipe.extractors.person_normalization import Baselines, person_baselines
from emopipe.files import atomic_file
from emopipe.pipeline.records import AbsenceReason

if TYPE_CHECKING:
    import pyarrow as pa


NO_BASELINE: Final[AbsenceReason] = "no_baseline"


def normalise_dataset(
    folder: Path, manifest: list[dict[str, Any]], names: Mapping[str, Sequence[str]], reference: Baselines | None
) -> None:
    """Take the features of a dataset's rows relative to each speaker's baseline; the manifest's rows are changed too.

    Speakers are those of the manifest; rows without one are their file's. With a baseline clip, it is everybody's.

    Args:
        folder: holds one Parquet file per modality; see :class:`emopipe.pipeline.datasets.writing.FeatureWriter`.
        manifest: rows of the manifest.
        names: modality -> names of its features, for those that are to be taken relative.
        reference: baselines that a clip shows.
    """
    files = {name: folder / f"{name}.parquet" for name in names}
    people: dict[str, list[int]] = {}
    for index, row in enumerate(manifest):
        people.setdefault(str(row["speaker"] or row["media"] or row["id"]), []).append(index)
    known: dict[str, Baselines] = {}
    if reference is not None:
        known = {person: reference for person in people}
    else:
        means, lengths = _dataset_means(manifest, files, names)
        known = {
            person: person_baselines(
                {name: means[name][rows] for name in names}, {name: lengths[name][rows] for name in names}, names
            )
            for person, rows in people.items()
        }
    for name, path in files.items():
        by_key = {manifest[row][name]: known[person][name] for person, rows in people.items() for row in rows}
        _rewrite(path, by_key)
        for row in manifest:
            if row[name] is not None and by_key[row[name]] is None:
                row |= {name: None, f"{name}_absent": NO_BASELINE, f"{name}_quality": None}


def _dataset_means(
    manifest: Sequence[Mapping[str, Any]], files: Mapping[str, Path], names: Mapping[str, Sequence[str]]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Mean features and number of steps of each row of the manifest, by modality."""
    means = {name: np.full((len(manifest), len(columns)), np.nan, np.float32) for name, columns in names.items()}
    lengths = {name: np.zeros(len(manifest)) for name in names}
    for name, path in files.items():
        rows = {row[name]: index for index, row in enumerate(manifest) if row[name] is not None}
        for keys, values, _ in _parts(path):
            starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
            for start, end in zip(starts, [*starts[1:], len(keys)], strict=True):
                means[name][rows[keys[start]]] = values[start:end].mean(0)
                lengths[name][rows[keys[start]]] = end - start
    return means, lengths


def _parts(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray, pa.RecordBatch]]:
    """Row groups of a feature file: keys (steps,), features (steps, dims), the group; no key is in two."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    for group in range(file.num_row_groups):
        table = file.read_row_group(group).combine_chunks()
        width = table.schema.field("features").type.list_size
        flat = table["features"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        yield np.asarray(table["key"].to_pylist(), object), flat.reshape(-1, width), table


def _rewrite(path: Path, baselines: Mapping[str, np.ndarray | None]) -> None:
    """Take the features of a file relative to the baseline of their key, leaving out those that have none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pq.read_schema(path)
    at = schema.get_field_index("features")
    with atomic_file(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for keys, values, table in _parts(path):
            lowered = [
                value - own for key, value in zip(keys, values, strict=True) if (own := baselines[key]) is not None
            ]
            flat = np.array(lowered, np.float32).reshape(-1)
            features = pa.FixedSizeListArray.from_arrays(pa.array(flat), values.shape[1])
            rest = table.filter(pa.array([baselines[key] is not None for key in keys]))
            writer.write_table(rest.set_column(at, schema.field("features"), features))
