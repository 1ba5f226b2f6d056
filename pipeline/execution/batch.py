"""Run the pipeline on media files: extract, predict, write."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

from emopipe.errors import EmopipeError, OptionConflict, Reason, reason
from emopipe.models.data.speakers import LEAST_OTHERS
from emopipe.pipeline.backends.loading import pick_device
from emopipe.pipeline.execution.engine import WORKER_BYTES, Engine, Here
from emopipe.pipeline.execution.forecast import Step, explain
from emopipe.pipeline.execution.jobs import config_hash
from emopipe.pipeline.execution.plan import Job, Task, contents, missing, results
from emopipe.pipeline.execution.processes import Processes
from emopipe.pipeline.execution.protection import Protection, refuse_mixed
from emopipe.pipeline.execution.relating import related
from emopipe.pipeline.execution.worker import Outcome
from emopipe.pipeline.media.finding import find_media
from emopipe.pipeline.privacy.disguise import Disguise
from emopipe.pipeline.progress import Event, Hook, silent
from emopipe.pipeline.records import Extraction, FileResult, Related, Source, TurnResult, UtteranceResult
from emopipe.pipeline.report.batch_page import write_summary
from emopipe.pipeline.report.outputs import SUMMARY, Sink, read_manifest
from emopipe.pipeline.report.participants import Participants
from emopipe.pipeline.stages.fusion import FUSION
from emopipe.pipeline.stages.probe import PROBE
from emopipe.pipeline.store.store import Content, Store

#: Reasons for absence that belong to the nature of an utterance or of what is asked, and are not a fault of the file.
ORDINARY: frozenset[str] = frozenset({"too_short", "not_requested"})


def engine_for(
    files: int,
    *,
    jobs: int | None = None,
    memory: int | None = None,
    device: str = "auto",
    debug: bool = False,
    ray: str | None = None,
) -> Engine:
    """Processes for a batch; this process for a single file, and to debug; a Ray cluster where one is named.

    Args:
        files: how many there are.
        jobs: worker processes; None: one per core (one on a GPU), as far as memory allows.
        memory: bytes that all workers together may take; None for no limit.
        device: that the models are wanted on.
        debug: let failures through.
        ray: address of a Ray cluster.

    Raises:
        LibraryMissing: without Ray, ClusterUnavailable without the cluster, ConfigError for a limit of memory on one.
    """
    if ray is not None and not debug:
        from emopipe.pipeline.execution.ray import Ray

        if memory is not None:
            hint = "Leave out --limit-memory: Ray itself watches the memory of each machine"
            raise OptionConflict("memory cannot be limited on a Ray cluster", hint=hint)
        return Ray(ray, jobs=jobs)
    if debug or (files <= 1 and memory is None):
        return Here(debug=debug)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpu = device != "cpu" and pick_device(device) == "cuda"
    if jobs is None:
        import psutil

        room = memory or psutil.virtual_memory().available
        jobs = 1 if gpu else max(1, min(cores, room // WORKER_BYTES))
    jobs = max(1, min(jobs, files))
    return Processes(jobs, threads=max(1, cores // (jobs if gpu else files)), memory=memory)


@dataclass(frozen=True)
class Inputs:
    """What a run is given.

    Attributes:
        files: to be worked on.
        refused: what cannot be used at all, and why.
        kept: what an earlier run has done with, with its entry in the manifest.
        skipped: files beside them that are not recordings.
        speakers: file -> who speaks in it, or is interviewed, where that is told.
    """

    files: list[Path]
    refused: dict[Path, EmopipeError]
    kept: dict[Path, dict[str, Any]]
    skipped: dict[Path, Reason] = field(default_factory=dict)
    speakers: Mapping[Path, str] = field(default_factory=dict)

    @property
    def every(self) -> list[Path]:
        """All of them, in the order of the manifest."""
        return sorted({*self.files, *self.refused, *self.kept}, key=os.fsencode)

    def told(self, speakers: Mapping[Path, str]) -> Inputs:
        """The same, knowing who speaks in which file.

        What an earlier run has done with is worked on again where its speaker is in a file that was not done: what is
        usual for them has changed.
        """
        changed = {speakers[path] for path in self.files if path in speakers}
        again = [path for path in self.kept if speakers.get(path) in changed]
        kept = {path: entry for path, entry in self.kept.items() if path not in again}
        return replace(self, files=[*self.files, *again], kept=kept, speakers=speakers)


def find_inputs(paths: Sequence[Path], retry: Path | None = None, disguise: Disguise | None = None) -> Inputs:
    """The files that paths, folders and patterns stand for.

    Args:
        paths: what the user names; when retrying they may be left out.
        retry: outputs of an earlier run: inputs that its manifest calls neither failed nor unfinished are kept.
        disguise: what the earlier run hid; its manifest does not tell where the files are.

    Raises:
        InputNotFound: when there was no earlier run; OptionConflict when only its manifest, with pseudonyms, could tell
            the files.
    """
    hide = disguise or Disguise()
    if retry is not None and not paths and hide.pseudonyms:
        hint = "Name the files or folders once more"
        raise OptionConflict("with pseudonyms, the earlier run does not tell where its files are", hint=hint)
    earlier = {} if retry is None else read_manifest(retry)
    if earlier and not paths and not any(map(os.path.lexists, earlier)):
        hint = "Repeat the command in the folder in which it was first given, or name the files or folders once more"
        raise OptionConflict("none of the files of the earlier run is where it was", path=retry, hint=hint)
    media = find_media(paths or list(earlier))
    hidden = {path: earlier.get(hide.path(path)) for path in media.files}
    finished = {path: entry for path, entry in hidden.items() if retry and entry and _is_done(entry, retry)}
    unfinished = [path for path in media.files if path not in finished]
    return Inputs(unfinished, {Path(error.path or ""): error for error in media.errors}, finished, media.skipped)


def _is_done(entry: Mapping[str, Any], out: Path) -> bool:
    """Whether an earlier run has done with an input, and what it wrote is still there."""
    return entry["state"] in ("ok", "degraded") and (out / f"{entry['outputs']}.json").is_file()


def run_files(
    inputs: Inputs,
    job: Job,
    out: Path | None,
    engine: Engine,
    *,
    participants: Participants | None = None,
    protection: Protection | None = None,
    phases: bool = False,
    explained: Callable[[list[Step], int], None] | None = None,
    dry: bool = False,
    hook: Hook = silent,
) -> Iterator[FileResult]:
    """Run a batch; each clip's outputs are written when it is done, tables and manifest at the end.

    Every input that is not kept yields a result. What cannot be used at all comes first, as failed; then what is in
    the store already; the rest is worked on from the longest file to the shortest.

    Args:
        inputs: of :func:`find_inputs`.
        job: what is wanted.
        out: folder for the outputs; None writes none.
        engine: what does the work.
        participants: which groups people belong to, for the page about the batch.
        protection: what is hidden in results and outputs.
        phases: do one stage of all files before the next stage, so that one model at a time is loaded.
        explained: told before the work which steps will be done, and how many files need none.
        dry: explain and go no further.
        hook: told of progress.

    Raises:
        OutputError: when the outputs cannot be written, and what befalls every file (see :class:`Engine`).
    """
    protected = protection or Protection()
    shown = protected.disguise.paths(inputs.every)
    if out is not None:
        refuse_mixed(out, protected.disguise)
    with Store(job.store) as store:
        sink = None if dry or out is None else _sink(out, shown, inputs.skipped, job, protected, store)
        batch = _Batch(job, engine, store, hook)
        if inputs.skipped:
            what = f"{len(inputs.skipped)} files that are not recordings, or are there already, are skipped"
            hook(Event("info", "batch", what))
        hook(Event("start", "batch", total=len(inputs.refused) + len(inputs.files)))
        batch.probe([Source(str(path), media=path, speaker=inputs.speakers.get(path)) for path in inputs.files])
        if explained is not None:
            steps, stored = batch.explain()
            explained([replace(step, source=protected.disguise.source(step.source)) for step in steps], stored)
        if dry:
            batch.tell_failed(inputs.refused.values())
            return
        _tell_mixed(inputs.kept, job, hook)
        if sink is not None:
            for path, entry in inputs.kept.items():
                sink.keep(shown[path], entry)
        few = _Few(job, inputs)
        try:
            refused = ((Source(str(path), media=path), Outcome(error)) for path, error in inputs.refused.items())
            for source, outcome in chain(refused, batch.run(phases)):
                result = protected.hide(_result(job, source, outcome))
                if sink is not None:
                    result = protected.copy(result, source.media, sink, store, hook)
                    sink.write(result)
                few.count(result)
                yield result
        except BaseException:
            with suppress(EmopipeError):
                _finish(sink, len(shown), participants)
            raise
        _finish(sink, len(shown), participants)
        few.tell(hook)
        _tell_lost(sink, hook)


def _sink(
    out: Path,
    shown: Mapping[Path, Path],
    skipped: Mapping[Path, Reason],
    job: Job,
    protected: Protection,
    store: Store,
) -> Sink:
    """What writes the outputs of a run."""
    hidden = {protected.disguise.path(path): protected.disguise.reason(why) for path, why in skipped.items()}
    return Sink(out, list(shown.values()), config_hash(job.config), version("emopipe"), hidden, store)


def _tell_lost(sink: Sink | None, hook: Hook) -> None:
    """Tell of corrections of earlier results that have no utterance now."""
    if sink is not None and sink.lost:
        what = f"{sink.lost} corrections fit no utterance any more; `emopipe correct` names them"
        hook(Event("warning", "batch", what))


def _tell_mixed(kept: Mapping[Path, Mapping[str, Any]], job: Job, hook: Hook) -> None:
    """Tell of results of an earlier run that stay beside those of another model or of other settings."""
    mine = (job.checkpoint, config_hash(job.config))
    others = sum((entry["checkpoint"], entry["config_hash"]) != mine for entry in kept.values())
    if others:
        what = f"the results of {others} recordings stay as another model or other settings made them"
        hook(Event("warning", "batch", f"{what}; repeat all options of the run with --retry-failed"))


class _Few:
    """Recordings that have too few utterances to tell what is usual for who speaks, where that would be of use."""

    def __init__(self, job: Job, inputs: Inputs) -> None:
        self._recordings = 0
        self._is_of_use = job.relative and not inputs.speakers

    def count(self, result: FileResult) -> None:
        """Count a recording, if it is one."""
        self._recordings += 0 < len(result.utterances) <= LEAST_OTHERS

    def tell(self, hook: Hook) -> None:
        """Tell what naming the speakers would do, where there are enough of them."""
        if self._is_of_use and self._recordings > LEAST_OTHERS:
            what = f"{self._recordings} recordings have too few utterances to tell what is usual for who speaks; "
            hint = "if the same people speak in several of them, name them in a table with --speakers; "
            hint += "`emopipe speakers` suggests one by their voices"
            hook(Event("info", "batch", what + hint))


def _finish(sink: Sink | None, inputs: int, participants: Participants | None) -> None:
    """Write what there is about the run as a whole; the page about it when there is more than one input."""
    if sink is None:
        return
    sink.finish()
    if inputs > 1 or participants or (sink.folder / SUMMARY).exists():
        write_summary(sink.folder, participants, sink.store)


class _Batch:
    """Many sources on their way through the stages.

    Recordings in which the same speaker is named are measured first, and predicted when all of them are.
    """

    def __init__(self, job: Job, engine: Engine, store: Store, hook: Hook) -> None:
        self._job, self._engine, self._store, self._hook = job, engine, store, hook
        self._related: dict[Source, Related] = {}
        self._failed: dict[Source, Outcome] = {}
        self._durations: dict[Source, float] = {}
        self._computed: dict[Source, dict[str, float]] = {}
        self._rates: dict[str, float | None] = {}

    def probe(self, sources: Sequence[Source]) -> None:
        """Hash every file and measure its duration; done before all else, in parallel, and only once per file."""
        self._durations = dict.fromkeys(sources, 0.0)
        known, content = self._store.known, self._store.content
        self._do([Task(source, (PROBE.name,)) for source in sources if self._duration(source, known) is None])
        self._relate()
        for source in sources:
            if source not in self._failed:
                with suppress(EmopipeError):  # it changes or is gone: the stage that reads it tells
                    self._durations[source] = self._duration(source, content) or 0.0
                self._tell_cost(source)

    def tell_failed(self, refused: Iterable[EmopipeError]) -> None:
        """Tell what cannot be worked on."""
        for error in [*refused, *(outcome.error for outcome in self._failed.values() if outcome.error)]:
            self._hook(Event("warning", "batch", str(error)))

    def _relate(self) -> None:
        """Find the recordings of each named speaker, of those that can be used."""
        self._related = related(self._alive(), self._job, self._store)

    def _as_related(self, source: Source) -> Source:
        """The source with the recordings of its speaker."""
        return replace(source, related=self._related.get(source))

    def _tell_cost(self, source: Source) -> None:
        """Tell how long a source is that has to be worked on, and how long that will take, if past times tell."""
        duration = self._durations[source]
        rates = [self._rate(stage) for stage in self._missing(source)]
        if rates:
            known_rates = [rate for rate in rates if rate is not None]
            seconds = sum(known_rates) * duration if len(known_rates) == len(rates) else None
            self._hook(Event("plan", "file", source=source.id, total=duration, seconds=seconds))

    def _rate(self, stage: str) -> float | None:
        if stage not in self._rates:
            self._rates[stage] = self._store.rate(stage)
        return self._rates[stage]

    def _duration(self, source: Source, look: Callable[[Path], Content | None]) -> float | None:
        """The duration in seconds of a source that was probed before, else None.

        A file that was written just now has no lasting entry in the store's index: `look` may hash it.
        """
        content = None if source.media is None else look(source.media)
        if content is None:
            return None
        probed = self._store.get(results(source, {"media": content}, self._job)[PROBE.name].key)
        return None if probed is None else float(probed["duration"])

    def explain(self) -> tuple[list[Step], int]:
        """The steps that will be done, and how many files need none."""
        steps = {source: self._steps(source) for source in self._alive()}
        return [step for some in steps.values() for step in some], sum(not some for some in steps.values())

    def _steps(self, source: Source) -> list[Step]:
        return explain(self._as_related(source), self._job, self._store, self._durations[source])

    def run(self, phases: bool) -> Iterator[tuple[Source, Outcome]]:
        """What becomes of each source."""
        yield from self._failed.items()
        alive = self._alive()
        stored = [source for source in alive if not self._missing(source)]
        yield from self._assemble(stored)
        rest = sorted(set(alive) - set(stored), key=lambda source: (-self._durations[source], source.id))
        self._fetch_weights(rest)
        if phases:
            yield from self._by_stage(rest)
        else:
            yield from self._by_file(rest)

    def _by_file(self, sources: Sequence[Source]) -> Iterator[tuple[Source, Outcome]]:
        """What becomes of each source; what is related to others waits until these are measured."""
        tasks = [Task(source, self._job.measuring if source in self._related else ()) for source in sources]
        for task, outcome in self._engine.run(self._job, tasks, self._hook):
            if not task.stages or self._fails(task, outcome):
                yield task.source, self._with_earlier_work(task.source, outcome)
        self._relate()
        waiting = [task.source for task in tasks if task.stages and task.source not in self._failed]
        waiting.sort(key=lambda source: source.speaker or "")  # workers keep what is usual for one speaker at a time
        tasks = [Task(self._as_related(source)) for source in waiting]
        for task, outcome in self._engine.run(self._job, tasks, self._hook):
            yield task.source, self._with_earlier_work(task.source, outcome)

    def _by_stage(self, sources: Sequence[Source]) -> Iterator[tuple[Source, Outcome]]:
        """What becomes of each source, one stage of all after the other."""
        for stage in self._job.stages:
            left = [source for source in sources if source not in self._failed]
            if stage is FUSION:
                self._relate()
                left = [self._as_related(source) for source in left]
            tasks = [Task(source, (stage.name,)) for source in left if stage.name in self._missing(source)]
            if stage.stored and tasks:
                self._hook(Event("start", "phase", stage.name, total=len(tasks)))
                yield from self._do(tasks)
                self._engine.renew()
        yield from self._assemble([source for source in sources if source not in self._failed])

    def _fetch_weights(self, sources: Sequence[Source]) -> None:
        """Have the weights of the stages that will run, before hours of work end in the want of one."""
        job = self._job
        running = {name for source in sources for name in self._missing(source)}
        needed = {stage.backend for stage in job.stages if stage.name in running} - {"model"}
        with job.backends(job.config, device=job.device, offline=job.offline, hook=self._hook) as backends:
            backends.prepare(*(kind for kind in job.bases if kind in needed))

    def _do(self, tasks: Sequence[Task]) -> list[tuple[Source, Outcome]]:
        """Do single stages; returns the sources that failed."""
        fresh = []
        for task, outcome in self._engine.run(self._job, tasks, self._hook):
            if self._fails(task, outcome):
                fresh.append((task.source, outcome))
        return fresh

    def _fails(self, task: Task, outcome: Outcome) -> bool:
        """Note the work on single stages; returns whether the source has failed."""
        self._computed.setdefault(task.source, {}).update(outcome.computed)
        if outcome.error is not None:
            self._failed[task.source] = outcome
        return outcome.error is not None

    def _assemble(self, sources: Sequence[Source]) -> Iterator[tuple[Source, Outcome]]:
        """What is put together from the store needs no models, and no worker but this process."""
        here = self._engine if isinstance(self._engine, Here) else Here()
        for task, outcome in here.run(self._job, [Task(self._as_related(source)) for source in sources], silent):
            yield task.source, self._with_earlier_work(task.source, outcome)
        if here is not self._engine:
            here.close()

    def _with_earlier_work(self, source: Source, outcome: Outcome) -> Outcome:
        return replace(outcome, computed={**self._computed.get(source, {}), **outcome.computed})

    def _alive(self) -> list[Source]:
        return [source for source in self._durations if source not in self._failed]

    def _missing(self, source: Source) -> list[str]:
        """The stages that a source has still to go through; those of one that has become unreadable tell when run."""
        try:
            by_stage = results(self._as_related(source), contents(source, self._store), self._job)
        except EmopipeError:
            return [stage.name for stage in self._job.stages]
        return [result.stage.name for result in missing(by_stage, self._job.values, self._store.has)]


def _result(job: Job, source: Source, outcome: Outcome) -> FileResult:
    """What became of a source."""
    from emopipe.extractors.speech.diarize import joined

    media, checkpoint, extraction = source.media or Path(), job.checkpoint or "", outcome.extraction
    if outcome.error is not None or extraction is None:
        reasons = [outcome.error.reason()] if outcome.error is not None else []
        return FileResult(media, "failed", reasons, checkpoint=checkpoint, computed=outcome.computed)
    reasons, info = _degradations(extraction), extraction.info
    if source.related is not None:
        info = {**info, "related_recordings": len(source.related.sources)}
    unverified = info.get("unverified_weights", [])
    pairs = zip(extraction.utterances, outcome.predictions or [], strict=True)
    return FileResult(
        media,
        "ok" if all(one.is_note for one in reasons) else "degraded",
        reasons,
        extraction.duration,
        info,
        checkpoint,
        extraction.people,
        [TurnResult(turn.start, turn.end, turn.person, turn.overlapped) for turn in joined(extraction.turns)],
        [UtteranceResult.of(utterance, one, unverified, job.least_confidence) for utterance, one in pairs],
        outcome.computed,
        outcome.keys,
    )


def _degradations(extraction: Extraction) -> list[Reason]:
    """Warnings, and the reasons for modalities that no utterance of the clip has."""
    utterances = extraction.utterances
    if not utterances:
        return [*extraction.warnings, reason("no_evidence")]
    reasons = list(extraction.warnings)
    for modality in sorted({name for u in utterances for name in u.absent}):
        if all(modality in u.absent for u in utterances):
            told = {one.code for one in reasons if one.modality == modality}
            codes = sorted({u.absent[modality] for u in utterances} - ORDINARY - told)
            reasons += [reason(code, modality=modality) for code in codes]
    return reasons
