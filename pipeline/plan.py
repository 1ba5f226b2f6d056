"""What is to be done: plain values that any worker, here or on another machine, can be handed.

A :class:`Job` says what is wanted of every source, a :class:`Task` of one. From both follows, without opening a
stage's inputs, the key of each stage's result: the hash of the stage's name and version, the parameters, weights and
library versions that it declares, and the keys of what it requires, down to the bytes of the media.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from emopipe.pipeline import weights
from emopipe.pipeline.backends import Backends
from emopipe.pipeline.config import MODALITIES, ExtractionConfig
from emopipe.pipeline.records import Source
from emopipe.pipeline.stages import EXTRACTED, FUSION, STAGES, Stage
from emopipe.pipeline.store import Content, Store


@dataclass(frozen=True)
class Job:
    """What is wanted of every source of a run.

    Attributes:
        config: how to extract.
        store: folder of the store.
        modalities: which to extract.
        labelled: take a source as one utterance instead of cutting it.
        model, checkpoint: name or folder of the checkpoint that predicts, and its id; None: extract alone.
        weights: identity of each weight that the configuration names; see :func:`weight_identities`.
        device: "auto", "cpu" or "cuda".
        offline: never fetch a weight.
        threads: of a worker; 0 leaves the choice to the libraries.
        backends: what loads the extractors; a class that can be imported.
    """

    config: ExtractionConfig
    store: Path
    modalities: tuple[str, ...] = MODALITIES
    labelled: bool = False
    model: str | None = None
    checkpoint: str | None = None
    weights: Mapping[str, str] = field(default_factory=dict)
    device: str = "auto"
    offline: bool = False
    threads: int = 0
    backends: Callable[..., Backends] = Backends

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What a source goes through."""
        return STAGES if self.model is None else (*STAGES, FUSION)

    @property
    def values(self) -> tuple[str, ...]:
        """What is wanted in the end."""
        return EXTRACTED if self.model is None else (*EXTRACTED, "predictions")

    def entry(self, name: str) -> Any:
        """A parameter by its dotted name ("face.rate"), or one of the job's own ("labelled")."""
        return _entry(self.config, name) if "." in name else getattr(self, name)


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
    """Where a stage's result for one source is kept, and the facts that its key is the hash of."""

    stage: Stage
    key: str
    facts: Mapping[str, Any]


#: Facts that a key is not made from: it is enough that they are among the inputs.
_BESIDE: Final = ("content",)


def contents(source: Source, store: Store) -> dict[str, Content]:
    """The bytes of the files that a source consists of, by their role.

    Raises:
        EmopipeError: EMO-101 to EMO-107 for a file that cannot be read.
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
    known: dict[str, Any] = {
        "source": [source.text, source.start, source.end],
        "media": hashes.get("media"),
        "sound_media": hashes.get("audio", hashes.get("media")),
        "image": hashes.get("image"),
    }
    content = next(iter(hashes.values()), "")
    found = {}
    for stage in job.stages:
        facts = {
            "stage": stage.name,
            "version": stage.version,
            "content": content,
            "wanted": bool(set(stage.modalities) & set(job.modalities)),
            "parameters": {name: _plain(job.entry(name)) for name in stage.parameters},
            "weights": {name: {w: job.weights.get(w) for w in _named(job.entry(name))} for name in stage.weights},
            "libraries": {name: _version(name) for name in stage.libraries},
            "inputs": {name: known.get(name) for name in stage.requires},
        }
        decisive = {name: value for name, value in facts.items() if name not in _BESIDE}
        key = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:40]
        known |= {name: f"{stage.name} {key}" for name in stage.provides}
        found[stage.name] = Result(stage, key, facts)
    return found


def missing(found: Mapping[str, Result], wanted: Collection[str], has: Callable[[str], bool]) -> list[Result]:
    """The results that must be computed so that the wanted values are there, in order.

    Args:
        found: of :func:`results`.
        wanted: names of values.
        has: whether the store has a key.
    """
    asked, order = set(wanted), []
    for result in reversed(list(found.values())):
        stage = result.stage
        if asked.intersection(stage.provides) and not (stage.stored and has(result.key)):
            asked |= set(stage.requires)
            order.append(result)
    return order[::-1]


def superseded(facts: Mapping[str, Any]) -> bool:
    """Whether a result was made by a version of a stage, or of a library, that is no longer used here."""
    stage = next((stage for stage in (*STAGES, FUSION) if stage.name == facts["stage"]), None)
    if stage is None or stage.version != facts["version"]:
        return True
    return any(_version(name) != used for name, used in facts["libraries"].items())


def weight_identities(config: ExtractionConfig, store: Store) -> dict[str, str]:
    """Name of each weight of a configuration -> what tells its bytes: of the user's own files, their hash.

    Raises:
        EmopipeError: EMO-102 when a file of the user's cannot be read.
    """
    names = {one for stage in STAGES for entry in stage.weights for one in _named(_entry(config, entry))}
    return {name: _identity(name, store) for name in sorted(names)}


def _named(value: Any) -> list[str]:
    """The weights or files that an entry of the configuration names: one, none ("") or several (by name)."""
    return sorted({str(one) for one in (value.values() if isinstance(value, Mapping) else [value]) if one})


def _entry(config: ExtractionConfig, name: str) -> Any:
    table, _, key = name.partition(".")
    return getattr(getattr(config, table), key)


def _identity(name: str, store: Store) -> str:
    path: Path | None
    if Path(name).name != name:
        path = Path(name)
    elif name in weights.names():
        status = weights.status(name)
        path = status.path if status.state == "given" else None
    else:
        path = weights.given(name)
    if path is None and name in weights.names():
        entry = weights.entry(name)
        return hashlib.sha256(json.dumps([dict(entry.files), entry.convert], sort_keys=True).encode()).hexdigest()
    if path is None or not path.exists():
        return name
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return hashlib.sha256("".join(store.content(file).hash for file in files).encode()).hexdigest()


@cache
def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value
