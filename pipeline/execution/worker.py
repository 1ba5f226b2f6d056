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
from emopipe.extractors.threads import leaving_a_thread, several_threads
from emopipe.pipeline.backends.loading import Backends
from emopipe.pipeline.backends.speakers import learning_from
from emopipe.pipeline.config import given_clip
from emopipe.pipeline.execution.background import Background
from emopipe.pipeline.execution.memory import allocate_frugally, return_freed_memory
from emopipe.pipeline.execution.plan import Job, Result, Task, contents, missing, results
from emopipe.pipeline.media.decoding import Media
from emopipe.pipeline.progress import Event, Hook, silent
from emopipe.pipeline.records import Extraction, Related, Source
from emopipe.pipeline.stages.assembly import ExtractionInputs, UtteranceFeatures, assemble
from emopipe.pipeline.stages.face import FACE
from emopipe.pipeline.stages.fusion import count_utterances
from emopipe.pipeline.stages.person_normalization import FeatureInputs, baselines_of_clip
from emopipe.pipeline.stages.stage import AnyStage, Inputs
from emopipe.pipeline.store import serialization
from emopipe.pipeline.store.store import Store, changed

if TYPE_CHECKING:
    from emopipe.models.data.speakers import SpeakerMeans
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
        allocate_frugally()
        self.job = job
        self.store = Store(job.store)
        self._hook = hook
        self._debug = debug
        self._checked: set[str] = set()
        self._last: tuple[str, dict[str, object]] = ("", {})
        self._related: tuple[str, SpeakerMeans] | None = None

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
            ReferenceClipUnusable: for a clip that cannot be read, or that shows nothing.
        """
        config = self.job.config.people
        clip = given_clip(config.baseline)
        assert clip is not None
        source = Source(str(clip), media=clip)
        with learning_from(clip), _Evaluation(source, self, self.job.of_reference, silent, {}) as evaluation:
            evaluation.ensure(("spans", "people", *config.baseline_of))
            return baselines_of_clip(FeatureInputs(evaluation.value), clip, config.baseline_of)

    def related_means(self, related: Related) -> SpeakerMeans:
        """What is usual for the speaker of some recordings, each utterance counting the same."""
        from emopipe.models.data.speakers import SpeakerMeans

        if self._related is None or self._related[0] != related.key:
            means = SpeakerMeans()
            for source in related.sources:
                with _Evaluation(source, self, self.job, silent, {}) as evaluation:
                    count_utterances(means, UtteranceFeatures(evaluation.value), source.speaker)
            self._related = (related.key, means)
        return self._related[1]

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
        check_features(sealed.schema, sealed.extraction, offered, self.job.sealed_config())
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
        self._faces: Background[dict[str, object]] | None = None
        self._fewer_threads = ExitStack()
        self._waited = 0.0
        self._values: dict[str, object] = {
            "source": source,
            "image": source.image,
            "speaker": source.speaker,
            "wanted": frozenset(self._job.modalities),
            "labelled": self._job.labelled,
            "reference": lambda: worker.reference,
            "predictor": lambda: worker.predictor,
            "related_means": None if (related := source.related) is None else lambda: worker.related_means(related),
        }

    def __enter__(self) -> _Evaluation:
        return self

    def __exit__(self, *exc: object) -> None:
        self._drop_faces()
        self._open.close()

    @property
    def keys(self) -> dict[str, str]:
        """Stage -> key in the store, of the results that are kept there."""
        return {name: result.key for name, result in self.results.items() if result.stage.stored and not result.quick}

    def ensure(self, names: Collection[str]) -> None:
        """Compute what of the named values is not in the store, in the order of the stages.

        Where torch has several threads, one of them measures faces, until somebody reads what comes of it.
        """
        order = missing(self.results, names, self._store.has)
        for result in order:
            if not (result.stage is FACE and result is not order[-1] and self._began_faces()):
                self._compute(result)
        if self._faces is not None:
            self._compute(self.results[FACE.name])

    def value(self, name: str) -> object:
        """A value by its name; computed when the store does not have it."""
        if name not in self._values:
            if self._is_coming(name):
                self._compute(self.results[FACE.name])
            elif name in ("media", "sound_media"):
                self._open_media()
            elif (stored := self._store.get(self._producers[name].key)) is not None:
                self._values |= stored
            else:  # it was removed, or found damaged, since we looked
                self._compute(self._producers[name])
        return self._values[name]

    def _open_media(self) -> None:
        """Both names stand for one open file when picture and sound come from the same: it is decoded once."""
        media = self._opened(self._source.media)
        self._values |= {"media": media, "sound_media": self._opened(self._source.audio) or media}

    def _opened(self, path: Path | None, *, keeps_sound: bool = True) -> Media | None:
        if path is None:
            return None
        tracks = str(self._job.config.speech.tracks)
        return self._open.enter_context(Media(path, self._job.threads, tracks, keeps_sound=keeps_sound))

    def _began_faces(self) -> bool:
        """Begin to measure faces in a thread of its own, for which the file is opened once more, where there is one."""
        if self._source.media is None or self._job.threads == 1:
            return False
        self._worker.check_features([FACE.name])
        with self._guarded(FACE.name):
            _ = self._worker.backends.face  # fetches are told by this thread
        if not several_threads():
            return False
        media = self._opened(self._source.media, keeps_sound=False)
        values = {name: media if name == "media" else self.value(name) for name in FACE.requires}
        config, backends = self._job.config, self._worker.backends
        self._open.enter_context(self._fewer_threads)
        self._fewer_threads.enter_context(leaving_a_thread())
        self._faces = Background(lambda hook: FACE.compute(values.__getitem__, config, backends, hook))
        return True

    def _is_coming(self, name: str) -> bool:
        """Whether a value is what faces are being measured for."""
        return self._faces is not None and name in FACE.provides

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
        if stage is FACE:
            self._drop_faces()  # where another process was faster, they are measured still

    def _tell_waiting(self, stage: str) -> Callable[[], None]:
        return lambda: self._hook(Event("info", stage, "another process is at it; waiting"))

    def _run(self, result: Result) -> dict[str, object]:
        """Run a stage on the values that it requires, and keep what comes of it."""
        stage = result.stage
        for name in stage.requires:
            if not self._is_coming(name):
                self.value(name)
        if stage.name in MEASURING and stage.name in self._job.modalities:
            self._worker.check_features([stage.name])
        footage = 0.0 if "duration" in stage.provides else cast(float, self.value("duration"))
        number = self._store.began(result.key, stage.name, footage)
        self._hook(Event("start", stage.name))
        began, waited = time.perf_counter(), self._waited
        with self._guarded(stage.name):
            if stage is FACE and self._faces is not None:
                made, began = self._measured_faces(self._faces)
                waited = self._waited
            else:
                made = self._run_stage(stage)
            self._refuse_changed(stage.requires)
            values = self._keep(result, made, began) if stage.stored else made
        seconds = time.perf_counter() - began - (self._waited - waited)
        self._computed[stage.name] = seconds
        self._hook(Event("end", stage.name, seconds=seconds))
        self._store.ended(number, seconds)
        if seconds > LONG:
            return_freed_memory()
        return values

    def _measured_faces(self, faces: Background[dict[str, object]]) -> tuple[dict[str, object], float]:
        """What the measuring of faces has made, and when it would have begun had it just ended."""
        began = time.perf_counter()
        try:
            made = faces.result(self._hook)
        finally:
            self._drop_faces()
            self._waited += time.perf_counter() - began
        return made, time.perf_counter() - faces.seconds

    def _drop_faces(self) -> None:
        """End what measures faces, if it has not ended."""
        if self._faces is not None:
            self._faces.drop()
            self._faces = None
            self._fewer_threads.close()

    def _run_stage(self, stage: AnyStage) -> dict[str, object]:
        beside_faces = self._faces is not None
        return stage.compute(self.value, self._job.config, self._worker.backends, self._hook, beside_faces=beside_faces)

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
