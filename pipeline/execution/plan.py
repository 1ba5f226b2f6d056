"""What is to be done: plain values that any worker, here or on another machine, can be handed.

A :class:`Job` says what is wanted of every source, a :class:`Task` of one. From both follows, without opening a
stage's inputs, the key of each stage's result: the hash of the stage's name and version, the parameters that it
declares, the versions of the libraries and the bytes of the weights that work for it, and the keys of what it requires,
down to the bytes of the media. The device is not part of it: a GPU rounds differently, but measures the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from emopipe.constants import MODALITIES
from emopipe.pipeline.backends.loading import Backends, Basis, in_use, installed
from emopipe.pipeline.config import ExtractionConfig
from emopipe.pipeline.records import Source
from emopipe.pipeline.stages.fusion import FUSION
from emopipe.pipeline.stages.stage import AnyStage
from emopipe.pipeline.stages.table import ALL_STAGES, EXTRACTED, STAGES
from emopipe.pipeline.store.store import Content, Store


@dataclass(frozen=True)
class Job:
    """What is wanted of every source of a run.

    Attributes:
        config: how to extract.
        store: folder of the store.
        modalities: which to extract.
        labelled: take a source as one utterance instead of cutting it.
        model, checkpoint: name or folder of the checkpoint that predicts, and its id; None: extract alone.
        bases: kind of backend -> what it works with, for those of :attr:`kinds`.
        clips: path -> sha256 of the clips from which people are learnt.
        device: "auto", "cpu" or "cuda".
        offline: never fetch a weight.
        threads: of a worker; 0 leaves the choice to the libraries.
        backends: what loads the extractors; a class that can be imported.
        least_confidence: answers that are less sure are uncertain; None leaves that to the checkpoint.
        relative: the checkpoint reads features relative to the speaker's other utterances.
    """

    config: ExtractionConfig
    store: Path
    modalities: tuple[str, ...] = MODALITIES
    labelled: bool = False
    model: str | None = None
    checkpoint: str | None = None
    bases: Mapping[str, Basis] = field(default_factory=dict)
    clips: Mapping[str, str] = field(default_factory=dict)
    device: str = "auto"
    offline: bool = False
    threads: int = 0
    backends: Callable[..., Backends] = Backends
    least_confidence: float | None = None
    relative: bool = False

    @property
    def stages(self) -> tuple[AnyStage, ...]:
        """What a source goes through."""
        return STAGES if self.model is None else ALL_STAGES

    @property
    def measuring(self) -> tuple[str, ...]:
        """The stages that are stored, up to what is predicted from."""
        return tuple(stage.name for stage in self.stages if stage.stored and stage is not FUSION)

    @property
    def values(self) -> tuple[str, ...]:
        """What is wanted in the end."""
        return EXTRACTED if self.model is None else (*EXTRACTED, "waveform", "predictions")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of backends that are wanted."""
        jobs = (self,) if self.baseline_clip is None else (self, self.of_reference)
        return tuple(
            dict.fromkeys(stage.backend for job in jobs for stage in job.stages if stage.backend and job.wants(stage))
        )

    @property
    def baseline_clip(self) -> str | None:
        """The sha256 of the clip that shows a baseline."""
        return self.clips.get(self.config.people.baseline)

    @property
    def of_reference(self) -> Job:
        """The job of measuring that clip."""
        return replace(self, labelled=False, model=None, checkpoint=None)

    @property
    def unverified(self) -> dict[str, str]:
        """Name -> sha256 of the weights in use that are none of the catalogue's, byte for byte."""
        identities = {name: one for basis in self.bases.values() for name, one in basis.weights.items()}
        return {name: identities[name].hash for name in sorted(identities) if not identities[name].verified}

    def wants(self, stage: AnyStage) -> bool:
        """Whether the stage has anything to do."""
        return bool(set(stage.modalities) & set(self.modalities)) and stage.needed(self.config, self.labelled)

    def entry(self, name: str) -> Any:
        """A parameter by its dotted name ("face.rate"), or one of the job's own ("labelled").

        Clips from which people are learnt count by their bytes, wherever they lie.
        """
        value: Any = self
        for part in (f"config.{name}" if "." in name else name).split("."):
            value = getattr(value, part)
        if name == "people.enrol":
            value = {person: self.clips.get(clip, clip) for person, clip in value.items()}
        return _plain(self.clips.get(value, value) if name == "people.baseline" else value)

    def sealed_config(self) -> dict[str, Any]:
        """The configuration with what did the measuring: versions of libraries and plugins, unverified weights."""
        versions = {name: release for basis in self.bases.values() for name, release in basis.libraries.items()}
        sealed = {**self.config.as_dict(), "versions": versions}
        return {**sealed, "unverified": self.unverified} if self.unverified else sealed


@dataclass(frozen=True)
class Task:
    """What is wanted of one source.

    Attributes:
        source: what to read.
        stages: whose results shall be in the store afterwards; () for all that the job wants.
        features: hand back the features, too, not only what was found and predicted.
    """

    source: Source
    stages: tuple[str, ...] = ()
    features: bool = False


@dataclass(frozen=True)
class Result:
    """A stage's result for one source.

    Attributes:
        stage: that makes it.
        key: under which it is kept.
        facts: that the key is the hash of.
        idle: whether the stage has nothing to do.
    """

    stage: AnyStage
    key: str
    facts: Mapping[str, Any]
    idle: bool

    @property
    def quick(self) -> bool:
        """Whether it is made whenever it is asked for."""
        return self.idle or self.stage.quick


#: Facts that a key is not made from: it is enough that they are among the inputs.
_BESIDE: Final = ("content",)


def contents(source: Source, store: Store) -> dict[str, Content]:
    """The bytes of the files that a source consists of, by their role.

    Raises:
        InputError: for a file that cannot be read.
    """
    roles = {"media": source.media, "audio": source.audio, "image": source.image}
    return {role: store.content(path) for role, path in roles.items() if path is not None}


def results(source: Source, files: Mapping[str, Content], job: Job) -> dict[str, Result]:
    """Stage name -> its result for the source, whether it is there or not.

    Args:
        source: the source.
        files: its :func:`contents`.
        job: what is wanted.
    """
    hashes = {role: content.hash for role, content in files.items()}
    origins: dict[str, Any] = {
        "source": [source.text, source.start, source.end],
        "speaker": source.speaker,
        "related_means": None if source.related is None else source.related.key,
        "media": hashes.get("media"),
        "sound_media": hashes.get("audio", hashes.get("media")),
        "image": hashes.get("image"),
    }
    content = next(iter(hashes.values()), "")
    by_stage = {}
    for stage in job.stages:
        is_wanted = job.wants(stage)
        facts = {
            "stage": stage.name,
            "version": stage.version,
            "content": content,
            **(_decisions(stage, job) if is_wanted else _NO_DECISIONS),
            "inputs": {name: origins.get(name) for name in stage.requires if is_wanted},
        }
        decisive = {name: value for name, value in facts.items() if name not in _BESIDE}
        key = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:40]
        origins |= {name: f"{stage.name} {key}" for name in stage.provides}
        idle = not is_wanted or (stage.signals != () and not any(origins[name] for name in stage.signals))
        by_stage[stage.name] = Result(stage, key, facts, idle)
    return by_stage


def _decisions(stage: AnyStage, job: Job) -> dict[str, Any]:
    """What decides the result of a stage beside its inputs."""
    basis = job.bases.get(stage.backend, Basis({}))
    return {
        "wanted": True,
        "parameters": {**_plain(basis.settings), **{name: job.entry(name) for name in stage.settings}},
        "weights": {name: one.hash for name, one in basis.weights.items()},
        "libraries": {**basis.libraries, **{name: installed(name) for name in stage.libraries}},
    }


#: Of a stage that has nothing to do.
_NO_DECISIONS: Final[Mapping[str, Any]] = {"wanted": False, "parameters": {}, "weights": {}, "libraries": {}}


def missing(by_stage: Mapping[str, Result], values: Collection[str], has: Callable[[str], bool]) -> list[Result]:
    """The results that must be computed so that the wanted values are there, in order; quick ones are not told.

    Args:
        by_stage: of :func:`results`.
        values: names of values.
        has: whether the store has a key.
    """
    required, order = set(values), []
    for result in reversed(list(by_stage.values())):
        stage = result.stage
        if required.intersection(stage.provides) and (result.quick or not (stage.stored and has(result.key))):
            required |= set() if result.idle else set(stage.requires)
            order.append(result)
    return [result for result in reversed(order) if not result.quick]


def superseded(facts: Mapping[str, Any]) -> bool:
    """Whether a result was made by a version of a stage, or of a library, that is no longer used here."""
    stage = next((stage for stage in ALL_STAGES if stage.name == facts["stage"]), None)
    if stage is None or stage.version != facts["version"]:
        return True
    return any(in_use(name) != used for name, used in facts["libraries"].items())


def _plain(value: Any) -> Any:
    """Values of a configuration as JSON gives them back."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
