"""Extract a dataset: every labelled source goes through the stages, its features into the dataset's files."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq
import tomli_w

from emopipe.errors import DatasetError, EmopipeError, OutputError, Reason, Where
from emopipe.extractors.person_normalization import Baselines
from emopipe.files import atomic_folder
from emopipe.pipeline.backends.loading import PEOPLE
from emopipe.pipeline.datasets.labels import LabelledSource
from emopipe.pipeline.datasets.person_normalization import normalise_dataset
from emopipe.pipeline.datasets.writing import FeatureWriter, manifest_row, manifest_table
from emopipe.pipeline.execution.engine import Engine, Here
from emopipe.pipeline.execution.plan import Job, Task
from emopipe.pipeline.execution.worker import Outcome, Worker
from emopipe.pipeline.progress import Event, Hook, silent
from emopipe.pipeline.records import Extraction, Failure, Source


def write_dataset(
    rows: Sequence[LabelledSource],
    out: Path,
    job: Job,
    engine: Engine,
    *,
    reasons: Sequence[Reason] = (),
    hook: Hook = silent,
) -> tuple[list[Failure], list[Reason]]:
    """Extract every source and write a dataset.

    Args:
        rows: the sources.
        out: folder to create; it appears when everything is written, and must not exist.
        job: how to extract.
        engine: what does the work.
        reasons: what is doubtful about the labels table.
        hook: told of progress.

    Returns:
        The sources that failed, which are also listed in `failures.csv` and are not in the manifest; and what is
        doubtful about the labels table and the recordings, or was chosen in reading them, also in `reasons.csv`.

    Raises:
        OutputError: when `out` exists or cannot be written; DatasetError when no source gave an utterance.
    """
    if out.exists():
        raise OutputError("the output folder exists", path=out, hint="Name another, or remove it")
    try:
        with atomic_folder(out) as folder:
            for one in reasons:
                hook(Event("info" if one.is_note else "warning", "labels", str(one)))
            failures, doubts = _write(rows, folder, job, engine, hook)
            every = [*reasons, *doubts]
            _write_reasons(folder / "reasons.csv", every)
            return failures, every
    except OSError as error:
        raise OutputError(f"the dataset cannot be written: {error.strerror}", path=out) from error


def _write(
    rows: Sequence[LabelledSource], folder: Path, job: Job, engine: Engine, hook: Hook
) -> tuple[list[Failure], list[Reason]]:
    manifest: list[dict[str, Any]] = []
    failures: list[Failure] = []
    reasons: list[Reason] = []
    names = _feature_names([row.source for row in rows], job, hook)
    with ExitStack() as stack:
        writers = {m: stack.enter_context(FeatureWriter(folder, m, names[m])) for m in job.modalities}
        results = _extractions([row.source for row in rows], job, engine, hook)
        for done, (row, result) in enumerate(zip(rows, results, strict=True), start=1):
            hook(Event("progress", "extract", row.source.id, done=done, total=len(rows)))
            if isinstance(result, EmopipeError):
                failures.append(Failure(row.source.id, result.reason()))
                hook(Event("warning", "extract", str(result)))
                continue
            for one in result.warnings:
                hook(Event("info" if one.is_note else "warning", "extract", f"{row.source.id}: {one}"))
            reasons += [_of_source(one, row.source) for one in result.warnings]
            enrolled, count = job.config.people.enrol, len(result.utterances)
            manifest += [manifest_row(row, u, i, count, writers, enrolled) for i, u in enumerate(result.utterances)]
    if not manifest:
        first = failures[0].reason if failures else "there were no utterances"
        raise DatasetError(f"no source gave an utterance; the first reason: {first}")
    if job.labelled and job.config.people.baseline != "none":
        own = {name: names[name] for name in job.config.people.baseline_of if name in names}
        normalise_dataset(folder, manifest, own, _reference(job, hook))
    pq.write_table(manifest_table(manifest), folder / "manifest.parquet", compression="zstd")
    (folder / "config.toml").write_text(tomli_w.dumps(job.sealed_config()), "utf-8")
    with (folder / "failures.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [("id", "code", "reason"), *((f.id, f.reason.code, str(f.reason)) for f in failures)]
        )
    return failures, reasons


def _feature_names(sources: Sequence[Source], job: Job, hook: Hook) -> dict[str, list[str]]:
    """Modality -> names of its feature columns; what was loaded to ask is freed again, since others do the work.

    Raises:
        WeightError: one that will be needed cannot be had.
    """
    with job.backends(job.config, device=job.device, offline=job.offline, hook=hook) as backends:
        backends.prepare(*_kinds(sources, job))
        return backends.feature_names(job.modalities)


def _of_source(one: Reason, source: Source) -> Reason:
    """A reason that says which source it is of."""
    return replace(one, where=replace(one.where or Where(), path=source.id))


def _write_reasons(path: Path, reasons: Sequence[Reason]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        places = [one.where or Where() for one in reasons]
        lines = [
            (one.code, one.what, one.hint, place.path, place.start, place.end)
            for one, place in zip(reasons, places, strict=True)
        ]
        csv.writer(file).writerows([("code", "reason", "hint", "id", "start", "end"), *lines])


def _extractions(
    sources: Sequence[Source], job: Job, engine: Engine, hook: Hook
) -> Iterator[Extraction | EmopipeError]:
    """One result per source, in order: computed by the engine in any order, then read from the store."""
    tasks = [Task(source, job.measuring) for source in sources]
    outcomes = ((task.source, outcome) for task, outcome in engine.run(job, tasks, hook))
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
