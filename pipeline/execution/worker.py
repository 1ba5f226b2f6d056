"""Do the tasks of a job, one after the other, with extractors and model loaded once."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from emopipe.errors import EmopipeError, StageFailure, StoreError
from emopipe.extractors.person_normalization import Baselines
from emopipe.pipeline.backends.loading import Backends
from emopipe.pipeline.config import given_clip
from emopipe.pipeline.execution.memory import return_freed_memory
from emopipe.pipeline.execution.plan import Job, Result, Task, contents, missing, results
from emopipe.pipeline.media.decoding import Media
from emopipe.pipeline.progress import Event, Hook, silent, timed
from emopipe.pipeline.records import Extraction, Source
from emopipe.pipeline.stages.assembly import ExtractionInputs, assemble
from emopipe.pipeline.stages.person_normalization import FeatureInputs, baselines_of_clip
from emopipe.pipeline.stages.stage import AnyStage, Inputs
from emopipe.pipeline.store import serialization
from emopipe.pipeline.store.store import Store, changed

if TYPE_CHECKING:
    from emopipe.models.prediction import Prediction
    from emopipe.models.predictor import Predictor

#: Stages whose features a checkpoint must have been trained on: checked before the first one is computed.
MEASURING: Final = ("face", "voice", "text")
#: A stage that took so many seconds worked on much: what it freed is handed back before the next takes its own.
LONG: Final = 1.0
REPEAT: Final = "Repeat with --debug to see where"


@dataclass(frozen=True)
class Outcome:
    """What became of a task; small, unless features were asked for.

    Attributes:
        error: why it failed; None when it did not.
        extraction, predictions: what was found, in step; None when only stages were asked for, or it failed.
        computed: stage -> seconds, for the stages that were not in the store.
        keys: stage -> key of its result in the store.
        seconds: wall time spent on the task.
    """

    error: EmopipeError | None = None
    extraction: Extraction | None = None
    predictions: list[Prediction] | None = None
    computed: Mapping[str, float] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0


class _FinalInputs(Inputs):
    predictions: list[Prediction]


class Worker:
    """Does tasks.

    Args:
        job: what is wanted.
        hook: told of progress; every event names its source.
        debug: let a failure through instead of making it an outcome.

    Raises:
        StoreError: when the store cannot be used.
    """

    def __init__(self, job: Job, hook: Hook = silent, *, debug: bool = False) -> None:
        self.job = job
        self.store = Store(job.store)
        self._hook = hook
        self._debug = debug
        self._checked: set[str] = set()
        self._last: tuple[str, dict[str, object]] = ("", {})

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc: object) -> None:
        if "backends" in self.__dict__:
            self.backends.close()
        self.store.__exit__()

    @cached_property
    def backends(self) -> Backends:
        """The extractors."""
        job = self.job
        return job.backends(job.config, device=job.device, offline=job.offline, hook=self._hook)

    @cached_property
    def predictor(self) -> Predictor:
        """The fusion model."""
        from emopipe.pipeline.backends.backbones import load_predictor

        assert self.job.model is not None
        return load_predictor(self.job.model, self.job.device, offline=self.job.offline, hook=self._hook)[0]

    @cached_property
    def reference(self) -> Baselines:
        """Modality -> baseline that the configured clip shows.

        Raises:
            InputError: for a clip that cannot be used, ConfigError for one that shows nothing.
        """
        config = self.job.config.people
        clip = given_clip(config.baseline)
        assert clip is not None
        with _Evaluation(Source(str(clip), media=clip), self, self.job.of_reference, silent, {}) as evaluation:
            evaluation.ensure(("spans", "people", *config.baseline_of))
            return baselines_of_clip(FeatureInputs(evaluation.value), clip, config.baseline_of)

    def check_features(self, modalities: Collection[str]) -> None:
        """Refuse extractors whose features the checkpoint was not trained on; loads what it must ask.

        Raises:
            FeatureMismatch: naming both sides; WeightError when a weight is missing.
        """
        from emopipe.models.sealed import check_features, read_sealed

        if self.job.model is None or self._checked.issuperset(modalities):
            return
        offered = self.backends.feature_names(modalities)
        sealed = read_sealed(self.job.model)
        check_features(sealed.schema, sealed.extraction, offered, self.job.config.as_dict())
        self._checked.update(modalities)

    def remembered(self, key: str) -> dict[str, object] | None:
        """What :meth:`remember` was told last, if it was told of this key."""
        return self._last[1] if self._last[0] == key else None

    def remember(self, key: str, values: dict[str, object]) -> dict[str, object]:
        """Hold on to values that are not stored: the next source may be another stretch of the same file."""
        self._last = (key, values)
        return values

    def perform(self, task: Task) -> Outcome:
        """Do a task. A source that cannot be used makes a failed outcome, never an exception, unless debugging.

        Raises:
            EmopipeError: what would befall every task: a missing weight, features of another kind.
        """
        began = time.perf_counter()
        name = task.source.id
        computed: dict[str, float] = {}
        try:
            with _Evaluation(
                task.source, self, self.job, lambda event: self._hook(replace(event, source=name)), computed
            ) as evaluation:
                outcome = self._answer(task, evaluation)
        except EmopipeError as error:
            if self._debug or error.stops_all:
                raise
            outcome = Outcome(error)
        except Exception as error:
            if self._debug:
                raise
            what = f"an unexpected failure: {type(error).__name__}: {error}"
            outcome = Outcome(StageFailure(what, path=task.source.path, hint=REPEAT))
        return replace(outcome, computed=computed, seconds=time.perf_counter() - began)

    def _answer(self, task: Task, evaluation: _Evaluation) -> Outcome:
        if task.stages:
            evaluation.ensure([value for name in task.stages for value in evaluation.results[name].stage.provides])
            return Outcome()
        evaluation.ensure(self.job.values)
        inputs = ExtractionInputs(evaluation.value)
        extraction = assemble(task.source, inputs, [*self.job.unverified], features=task.features)
        if self.job.model is None:
            return Outcome(None, extraction, keys=evaluation.keys)
        evaluation.value("waveform")  # pages read it from the store: where it is damaged there, it is made again
        return Outcome(None, extraction, _FinalInputs(evaluation.value).predictions, keys=evaluation.keys)


class _Evaluation:
    """The values of one source, computed or read from the store as they are needed."""

    def __init__(self, source: Source, worker: Worker, job: Job, hook: Hook, computed: dict[str, float]) -> None:
        self._source, self._worker, self._hook = source, worker, hook
        self._job, self._store = job, worker.store
        self._open = ExitStack()
        self._files = contents(source, self._store)
        self.results = results(source, self._files, self._job)
        self._producers = {name: result for result in self.results.values() for name in result.stage.provides}
        self._computed = computed
        self._values: dict[str, object] = {
            "source": source,
            "image": source.image,
            "speaker": source.speaker,
            "wanted": frozenset(self._job.modalities),
            "labelled": self._job.labelled,
            "reference": lambda: worker.reference,
            "predictor": lambda: worker.predictor,
        }

    def __enter__(self) -> _Evaluation:
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    @property
    def keys(self) -> dict[str, str]:
        """Stage -> key in the store, of the results that are kept there."""
        return {name: result.key for name, result in self.results.items() if result.stage.stored and not result.quick}

    def ensure(self, names: Collection[str]) -> None:
        """Compute what of the named values is not in the store, in the order of the stages."""
        for result in missing(self.results, names, self._store.has):
            self._compute(result)

    def value(self, name: str) -> object:
        """A value by its name; computed when the store does not have it."""
        if name not in self._values:
            if name in ("media", "sound_media"):
                self._open_media()
            elif (stored := self._store.get(self._producers[name].key)) is not None:
                self._values |= stored
            else:  # it was removed, or found damaged, since we looked
                self._compute(self._producers[name])
        return self._values[name]

    def _open_media(self) -> None:
        """Both names stand for one open file when picture and sound come from the same: it is decoded once."""

        def opened(path: Path | None) -> Media | None:
            return (
                None
                if path is None
                else self._open.enter_context(Media(path, self._job.threads, str(self._job.config.speech.tracks)))
            )

        media = opened(self._source.media)
        self._values |= {"media": media, "sound_media": opened(self._source.audio) or media}

    def _compute(self, result: Result) -> None:
        stage = result.stage
        if result.quick:
            with self._guarded(stage.name):
                made = self._run_stage(stage)
            self._values |= {name: list(v) if isinstance(v, Iterator) else v for name, v in made.items()}
            return
        if not stage.stored:
            self._values |= self._worker.remembered(result.key) or self._worker.remember(result.key, self._run(result))
            return
        with self._store.claim(result.key, self._tell_waiting(stage.name)):
            self._values |= self._store.get(result.key) or self._run(result)

    def _tell_waiting(self, stage: str) -> Callable[[], None]:
        return lambda: self._hook(Event("info", stage, "another process is at it; waiting"))

    def _run(self, result: Result) -> dict[str, object]:
        """Run a stage on the values that it requires, and keep what comes of it."""
        stage = result.stage
        for name in stage.requires:
            self.value(name)
        if stage.name in MEASURING and stage.name in self._job.modalities:
            self._worker.check_features([stage.name])
        footage = 0.0 if "duration" in stage.provides else cast(float, self.value("duration"))
        number = self._store.began(result.key, stage.name, footage)
        began = time.perf_counter()
        with timed(self._hook, stage.name), self._guarded(stage.name):
            made = self._run_stage(stage)
            self._refuse_changed(stage.requires)
            values = self._keep(result, made, began) if stage.stored else made
        self._computed[stage.name] = time.perf_counter() - began
        self._store.ended(number, self._computed[stage.name])
        if self._computed[stage.name] > LONG:
            return_freed_memory()
        return values

    def _run_stage(self, stage: AnyStage) -> dict[str, object]:
        return stage.compute(self.value, self._job.config, self._worker.backends, self._hook)

    def _keep(self, result: Result, made: dict[str, object], began: float) -> dict[str, object]:
        """Store what a stage made, and read it back; when it cannot be stored, go on with it in memory."""
        guarded = {name: self._within(result.stage.name, value) for name, value in made.items()}
        try:
            return self._store.put(result.key, guarded, result.facts, began)
        except StoreError as error:
            self._hook(Event("warning", result.stage.name, str(error)))
            used_up = any(isinstance(value, Iterator) for value in made.values())
            return serialization.in_memory(self._run_stage(result.stage) if used_up else made)

    def _within(self, stage: str, value: object) -> object:
        """An iterator whose failures are the stage's, not the store's; anything else as it is."""
        if not isinstance(value, Iterator):
            return value

        def items() -> Iterator[object]:
            with self._guarded(stage):
                yield from value

        return items()

    def _refuse_changed(self, names: Collection[str]) -> None:
        """What was read of a file that is being written to is good for nothing."""
        paths = {"media": self._source.media, "audio": self._source.audio, "image": self._source.image}
        if {"media", "sound_media", "image"}.intersection(names):
            for role, content in self._files.items():
                path = paths[role]
                if path is not None and not content.still(path):
                    raise changed(path)

    @contextmanager
    def _guarded(self, stage: str) -> Iterator[None]:
        """Whatever breaks inside a stage becomes a coded error of that source, so that a batch goes on."""
        try:
            yield
        except EmopipeError:
            raise
        except Exception as error:
            what = f"stage {stage} broke: {type(error).__name__}: {error}"
            raise StageFailure(what, path=self._source.path, hint=REPEAT) from error
