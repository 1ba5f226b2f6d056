"""Write datasets: a labels table (or a folder of media) in, a manifest and one feature table per modality out."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

from emopipe.errors import EmopipeError
from emopipe.pipeline.backends.loading import PEOPLE
from emopipe.pipeline.config import MODALITIES
from emopipe.pipeline.datasets.csv_input import read_table
from emopipe.pipeline.datasets.person_normalization import Baselines, normalise_dataset
from emopipe.pipeline.execution.plan import Job, Task
from emopipe.pipeline.execution.processes import Engine, Here
from emopipe.pipeline.execution.worker import Outcome, Worker
from emopipe.pipeline.media.decoding import IMAGE_SUFFIXES, find_media
from emopipe.pipeline.progress import Event, Hook, silent
from emopipe.pipeline.records import Extraction, Source, Utterance

#: Columns of a labels table that say where signals are; the first two are synonyms.
PATH_COLUMNS: Final = ("file", "video", "audio", "image")
RESERVED: Final = ("id", "text", "start", "end", "speaker", "split")
SOURCES_PER_GROUP: Final = 256


@dataclass(frozen=True)
class LabelledSource:
    """A row of a labels table: its source, its split, and every column that is neither."""

    source: Source
    split: str | None
    labels: dict[str, str]


@dataclass(frozen=True)
class Failure:
    """A source that gave nothing: its id, and the error in words with its code."""

    id: str
    reason: str


def read_labels(path: Path, folder: Path | None = None) -> list[LabelledSource]:
    """Read a labels table (CSV with a header).

    A row names its signals in the columns `file` (or `video`: a video, sound or picture file), `audio`, `image` and
    `text`, alone or together; `start`, `end` (seconds), `speaker`, `split` and `id` are optional; all other columns
    are labels.

    Args:
        path: the table.
        folder: what relative paths in it are relative to; None: the table's own folder.

    Raises:
        EmopipeError: EMO-101 without the file; EMO-501 when it is no such table, naming the line.
    """
    folder = path.parent if folder is None else folder
    rows = read_table(path, "labels table", "EMO-501")
    columns = next(iter(rows.values()))
    if not {*PATH_COLUMNS, "text"} & set(columns):
        hint = "Name the signals in a column called file, video, audio, image or text"
        what = f"the labels table has only the columns {', '.join(columns)}"
        raise EmopipeError("EMO-501", what, path=path, hint=hint)
    sources = [_labelled_source(row, line, path, folder) for line, row in rows.items()]
    _refuse_repeated([row.source.id for row in sources], path)
    return sources


def _labelled_source(cells: dict[str, str], line: int, table: Path, folder: Path) -> LabelledSource:
    paths = {name: folder / cells[name] for name in PATH_COLUMNS if cells.get(name)}
    media = paths.get("file") or paths.get("video")
    image = paths.get("image")
    if media is not None and media.suffix.lower() in IMAGE_SUFFIXES:
        media, image = None, media
    text = cells.get("text") or None
    if media is None and image is None and "audio" not in paths and text is None:
        raise EmopipeError("EMO-501", f"line {line} of the labels table names no signal", path=table)
    name = cells.get("id") or _row_id(paths, cells, line)
    source = Source(
        id=name,
        media=media,
        audio=paths.get("audio"),
        image=image,
        text=text,
        start=_seconds(cells, "start", line, table),
        end=_seconds(cells, "end", line, table),
        speaker=cells.get("speaker") or None,
    )
    labels = {name: value for name, value in cells.items() if name not in (*PATH_COLUMNS, *RESERVED)}
    return LabelledSource(source, cells.get("split") or None, labels)


def _row_id(paths: dict[str, Path], cells: dict[str, str], line: int) -> str:
    """The file as the table names it, with the start time when the row is a stretch of it, else the line's number."""
    if not paths:
        return f"line{line}"
    name = cells[next(iter(paths))]
    return f"{name}@{cells['start']}" if cells.get("start") else name


def _seconds(cells: dict[str, str], name: str, line: int, table: Path) -> float | None:
    if not cells.get(name):
        return None
    try:
        return float(cells[name])
    except ValueError:
        what = f"line {line} of the labels table: {name} is {cells[name]!r}, not seconds"
        raise EmopipeError("EMO-501", what, path=table) from None


def _refuse_repeated(ids: Sequence[str], path: Path) -> None:
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            hint = "Give the rows an id column, or start times if they are stretches of one file"
            raise EmopipeError("EMO-501", f"the labels table has two rows for {name!r}", path=path, hint=hint)
        seen.add(name)


def unlabelled_sources(paths: Sequence[Path]) -> list[LabelledSource]:
    """Sources for media files and folders that have no labels; these are cut into utterances.

    Raises:
        EmopipeError: EMO-102 or EMO-106 for an unusable folder.
    """
    files, errors = find_media(paths)
    if errors:
        raise errors[0]
    return [LabelledSource(Source(id=str(path), media=path), None, {}) for path in files]


def write_dataset(
    rows: Sequence[LabelledSource], out: Path, job: Job, engine: Engine, *, hook: Hook = silent
) -> list[Failure]:
    """Extract every source and write a dataset.

    Args:
        rows: the sources.
        out: folder to create; it appears when everything is written, and must not exist.
        job: how to extract.
        engine: what does the work.
        hook: told of progress.

    Returns:
        The sources that failed; they are also listed in `failures.csv` and are not in the manifest.

    Raises:
        EmopipeError: EMO-601 when `out` exists or cannot be written; EMO-502 when no source gave an utterance.
    """
    if out.exists():
        raise EmopipeError("EMO-601", "the output folder exists", path=out, hint="Name another, or remove it")
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        failures = _write(rows, partial, job, engine, hook)
        partial.rename(out)
    except OSError as error:
        raise EmopipeError("EMO-601", f"the dataset cannot be written: {error.strerror}", path=out) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return failures


def _write(rows: Sequence[LabelledSource], folder: Path, job: Job, engine: Engine, hook: Hook) -> list[Failure]:
    manifest: list[dict[str, Any]] = []
    failures: list[Failure] = []
    with job.backends(job.config, device=job.device, offline=job.offline, hook=hook) as backends:
        backends.prepare(*_kinds([row.source for row in rows], job))
        names = backends.feature_names(job.modalities)
    with ExitStack() as stack:
        writers = {m: stack.enter_context(FeatureWriter(folder, m, names[m])) for m in job.modalities}
        results = _extractions([row.source for row in rows], job, engine, hook)
        for done, (row, result) in enumerate(zip(rows, results, strict=True), start=1):
            hook(Event("progress", "extract", row.source.id, done=done, total=len(rows)))
            if isinstance(result, EmopipeError):
                failures.append(Failure(row.source.id, str(result)))
                hook(Event("warning", "extract", str(result)))
                continue
            for warning in result.warnings:
                hook(Event("warning", "extract", f"{row.source.id}: {warning}"))
            enrolled, count = job.config.people.enrol, len(result.utterances)
            manifest += [_manifest_row(row, u, i, count, writers, enrolled) for i, u in enumerate(result.utterances)]
    if not manifest:
        reasons = failures[0].reason if failures else "there were no utterances"
        raise EmopipeError("EMO-502", f"no source gave an utterance; the first reason: {reasons}")
    if job.labelled and job.config.people.baseline != "none":
        own = {name: names[name] for name in job.config.people.baseline_of if name in names}
        normalise_dataset(folder, manifest, own, _reference(job, hook))
    pq.write_table(_manifest_table(manifest), folder / "manifest.parquet", compression="zstd")
    (folder / "config.toml").write_text(tomli_w.dumps(job.sealed_config()), "utf-8")
    with (folder / "failures.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "reason"), *((f.id, f.reason) for f in failures)])
    return failures


def _extractions(
    sources: Sequence[Source], job: Job, engine: Engine, hook: Hook
) -> Iterator[Extraction | EmopipeError]:
    """One result per source, in order: computed by the engine in any order, then read from the store."""
    stages = tuple(stage.name for stage in job.stages if stage.stored)
    outcomes = ((task.source, outcome) for task, outcome in engine.run(job, [Task(s, stages) for s in sources], hook))
    done: dict[Source, Outcome] = {}
    with closing(Here()) as reader:
        for source in sources:
            while source not in done:
                finished, outcome = next(outcomes)
                done[finished] = outcome
            outcome = done.pop(source)
            if outcome.error is None:
                ((_, outcome),) = reader.run(job, [Task(source, features=True)])
            yield outcome.error or cast(Extraction, outcome.extraction)


def _reference(job: Job, hook: Hook) -> Baselines | None:
    """The baseline that a clip shows; None without a clip."""
    if job.baseline_clip is None:
        return None
    with Worker(job, hook) as worker:
        return worker.reference


def _kinds(sources: Sequence[Source], job: Job) -> list[str]:
    """The backends that sources need: words that are given need no recogniser, silent ones nobody who listens."""
    modalities = job.modalities
    sound = any(source.media or source.audio for source in sources)
    heard = "text" in modalities and any(source.text is None and (source.media or source.audio) for source in sources)
    listening = sound and ("voice" in modalities or heard)
    people = [kind for kind in PEOPLE if listening and kind in job.kinds]
    return [*modalities, *(["vad"] if listening else []), *(["speech"] if heard else []), *people]


def _manifest_row(
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
        "speaker": _speaker(row.source, utterance, enrolled),
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


def _speaker(source: Source, utterance: Utterance, enrolled: Collection[str]) -> str | None:
    """A name that holds across the dataset: S1 of one clip is not S1 of another."""
    if source.speaker is not None or utterance.speaker is None:
        return source.speaker
    return utterance.speaker if utterance.speaker in enrolled else f"{source.id}/{utterance.speaker}"


def _manifest_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as a table; a label column in which every cell is a number becomes numeric."""
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    fixed = {"start": pa.float64(), "end": pa.float64(), **{f"{m}_quality": pa.float64() for m in MODALITIES}}
    known = {"id", "media", "speaker", "role", "split", "words", *MODALITIES, *(f"{m}_absent" for m in MODALITIES)}
    arrays = {}
    for name, values in columns.items():
        if name in fixed or name in known:
            arrays[name] = pa.array(values, fixed.get(name, pa.string()))
        else:
            arrays[name] = _label_array(values)
    return pa.table(arrays)


def _label_array(values: list[Any]) -> pa.Array:
    try:
        return pa.array([None if value in (None, "") else float(value) for value in values], pa.float64())
    except ValueError:
        return pa.array([value or None for value in values], pa.string())


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
