"""Features relative to what is normal for the person, in the utterances of a clip and in the rows of a dataset."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emopipe.extractors.baseline import person_baselines
from emopipe.pipeline.config import given_clip
from emopipe.pipeline.errors import EmopipeError
from emopipe.pipeline.records import AbsenceReason, Extraction, Source, Utterance

if TYPE_CHECKING:
    import pyarrow as pa

    from emopipe.pipeline.backends import Backends

#: Modality -> baseline, or None when the person has none.
Baselines = Mapping[str, np.ndarray | None]
NO_BASELINE: AbsenceReason = "no_baseline"


def relative(extraction: Extraction, backends: Backends) -> Extraction:
    """The clip with features relative to each person's baseline; a modality without one is absent as "no_baseline"."""
    config = backends.config.people
    measured = {name for utterance in extraction.utterances for name in utterance.features}
    names = backends.feature_names(measured & {*config.baseline_of})
    shown = {person.name for person in extraction.people if person.reference}
    people = sorted({utterance.speaker or "" for utterance in extraction.utterances})
    own = {person: [u for u in extraction.utterances if (u.speaker or "") == person] for person in people}
    known = {
        person: backends.reference if person in shown else _of_utterances(said, names) for person, said in own.items()
    }
    utterances = [_less(utterance, known[utterance.speaker or ""]) for utterance in extraction.utterances]
    return replace(extraction, utterances=utterances)


def reference_of(clip: Path, backends: Backends) -> Baselines:
    """The baseline that a clip shows: the mean over everything that its main person says and does.

    Raises:
        EmopipeError: EMO-101 to EMO-105 for a clip that cannot be used, EMO-503 for one that shows nothing.
    """
    from emopipe.pipeline.stages import measure

    extraction = measure(Source(id=clip.stem, media=clip), backends)
    main = max(extraction.people, key=lambda person: person.talk, default=None)
    own = [u for u in extraction.utterances if main is None or u.speaker == main.name]
    found: dict[str, np.ndarray | None] = {}
    for modality in backends.config.people.baseline_of:
        steps = [u.features[modality].features for u in own if modality in u.features]
        found[modality] = np.concatenate(steps).mean(0) if steps else None
    if all(value is None for value in found.values()):
        hint = "Give one in which the person is seen or heard"
        raise EmopipeError("EMO-503", "the baseline clip shows nobody's features", path=clip, hint=hint)
    return found


def _of_utterances(utterances: Sequence[Utterance], names: Mapping[str, Sequence[str]]) -> Baselines:
    means = {name: np.full((len(utterances), len(columns)), np.nan) for name, columns in names.items()}
    lengths = {name: np.zeros(len(utterances)) for name in names}
    for row, utterance in enumerate(utterances):
        for name in names.keys() & utterance.features.keys():
            steps = utterance.features[name].features
            means[name][row], lengths[name][row] = np.nanmean(steps, axis=0), len(steps)
    return person_baselines(means, lengths, names)


def _less(utterance: Utterance, baselines: Baselines) -> Utterance:
    """The utterance with its features less the baselines."""
    features, absent, quality = dict(utterance.features), dict(utterance.absent), dict(utterance.quality)
    for modality in baselines.keys() & features.keys():
        own = baselines[modality]
        if own is None:
            absent[modality] = NO_BASELINE
            del features[modality], quality[modality]
        else:
            sequence = features[modality]
            features[modality] = replace(sequence, features=(sequence.features - own).astype(np.float32))
    return replace(utterance, features=features, absent=absent, quality=quality)


def normalise_dataset(folder: Path, manifest: list[dict[str, Any]], backends: Backends) -> None:
    """Take the features of a dataset's rows relative to each speaker's baseline; the manifest's rows are changed too.

    Speakers are those of the manifest; rows without one are their file's. With a baseline clip, it is everybody's.

    Args:
        folder: holds one Parquet file per modality, as written by :class:`emopipe.pipeline.dataset.FeatureWriter`.
        manifest: rows of the manifest.
        backends: the configured extractors.
    """
    config = backends.config.people
    files = {name: folder / f"{name}.parquet" for name in config.baseline_of if (folder / f"{name}.parquet").exists()}
    names = backends.feature_names(files)
    people: dict[str, list[int]] = {}
    for index, row in enumerate(manifest):
        people.setdefault(str(row["speaker"] or row["media"] or row["id"]), []).append(index)
    if given_clip(config.baseline) is not None:
        known = {person: backends.reference for person in people}
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

    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    schema = pq.read_schema(path)
    at = schema.get_field_index("features")
    with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for keys, values, table in _parts(path):
            lowered = [
                value - own for key, value in zip(keys, values, strict=True) if (own := baselines[key]) is not None
            ]
            flat = np.array(lowered, np.float32).reshape(-1)
            features = pa.FixedSizeListArray.from_arrays(pa.array(flat), values.shape[1])
            rest = table.filter(pa.array([baselines[key] is not None for key in keys]))
            writer.write_table(rest.set_column(at, schema.field("features"), features))
    partial.replace(path)
