"""Features relative to what is normal for the person, in the utterances of a clip and in the rows of a dataset."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emopipe.errors import ReferenceClipUnusable
from emopipe.extractors.person_normalization import person_baselines
from emopipe.pipeline.progress import Hook
from emopipe.pipeline.records import AbsenceReason, Absent
from emopipe.pipeline.store.serialization import absence

if TYPE_CHECKING:
    import pyarrow as pa

    from emopipe.pipeline.backends.loading import Backends

#: Modality -> baseline, or None when the person has none.
Baselines = Mapping[str, np.ndarray | None]
NO_BASELINE: Final[AbsenceReason] = "no_baseline"


def find_baselines(values: Mapping[str, Any], backends: Backends, hook: Hook) -> dict[str, Any]:
    """What is normal for each person of a clip: number -> modality -> features, None where that cannot be told.

    The rows of a labelled source are too few to tell; see :func:`normalise_dataset`.
    """
    config = backends.config.people
    if values["labelled"] or config.baseline == "none":
        return {"baselines": {}}
    spans, shown = values["spans"], {person.number for person in values["people"] if person.reference}
    measured = {name: found for name in config.baseline_of if (found := _means(values[name], len(spans)))}
    names = backends.feature_names({"voice"} & measured.keys())
    baselines = {}
    for number in dict.fromkeys(span.person for span in spans):
        rows = [index for index, span in enumerate(spans) if span.person == number]
        means, lengths = ({name: found[part][rows] for name, found in measured.items()} for part in (0, 1))
        own = values["reference"]() if number in shown else person_baselines(means, lengths, names)
        baselines[str(number)] = {name: None if one is None else one.tolist() for name, one in own.items()}
    return {"baselines": baselines}


def _means(sequences: Sequence[Any], count: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean features (utterances, dims), NaN where absent, and steps (utterances,); None when all are absent."""
    present = [index for index in range(count) if absence(sequences, index) is None]
    if not present:
        return None
    lengths = np.zeros(count)
    means = np.zeros(0)
    for index in present:
        steps = sequences[index].features
        means = means if means.size else np.full((count, steps.shape[1]), np.nan)
        means[index], lengths[index] = np.nanmean(steps, axis=0), len(steps)
    return means, lengths


def relative(values: Mapping[str, Any], modality: str, index: int) -> Any:
    """The features of an utterance relative to its speaker's baseline, where there shall be one, or their absence."""
    sequence, own = values[modality][index], _own(values, index)
    if isinstance(sequence, Absent) or modality not in own:
        return sequence
    if own[modality] is None:
        return Absent(NO_BASELINE)
    return replace(sequence, features=(sequence.features - np.asarray(own[modality])).astype(np.float32))


def relative_absence(values: Mapping[str, Any], modality: str, index: int) -> AbsenceReason | None:
    """The reason why :func:`relative` gives no features; None when it gives them. Reads none."""
    needed = _own(values, index).get(modality, ())
    return absence(values[modality], index) or (NO_BASELINE if needed is None else None)


def _own(values: Mapping[str, Any], index: int) -> Mapping[str, Any]:
    found: Mapping[str, Any] = values["baselines"].get(str(values["spans"][index].person), {})
    return found


def reference_of(values: Mapping[str, Any], clip: Path, modalities: Sequence[str]) -> Baselines:
    """The baseline that a clip shows: the mean over everything that its main person says and does.

    Args:
        values: `spans`, `people` and the features of the clip.
        clip: where they are from.
        modalities: whose baselines are wanted.

    Raises:
        ConfigError: when it shows nothing.
    """
    main = max(values["people"], key=lambda person: person.talk, default=None)
    own = [index for index, span in enumerate(values["spans"]) if main is None or span.person == main.number]
    found: dict[str, np.ndarray | None] = {}
    for modality in modalities:
        steps = [values[modality][index].features for index in own if absence(values[modality], index) is None]
        found[modality] = np.concatenate(steps).mean(0) if steps else None
    if all(value is None for value in found.values()):
        hint = "Give one in which the person is seen or heard"
        raise ReferenceClipUnusable("the baseline clip shows nobody's features", path=clip, hint=hint)
    return found


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
