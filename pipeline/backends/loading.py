"""The extractors of one configuration, each loaded when first needed and kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emopipe.constants import MODALITIES
from emopipe.errors import ConfigError, DeviceUnavailable, EmopipeError, FeatureMismatch, UnknownName
from emopipe.extractors.face.table import FEATURE_GROUPS, feature_columns
from emopipe.pipeline import weights
from emopipe.pipeline.backends import registry, speakers
from emopipe.pipeline.backends.registry import Plugin
from emopipe.pipeline.config import VOICE_CLUSTERS, ExtractionConfig, FaceConfig, diarizes, recognises
from emopipe.pipeline.progress import Hook, silent
from emopipe.pipeline.weights.store import sha256 as sha256_of

if TYPE_CHECKING:
    import numpy as np

    from emopipe.extractors.contracts import (
        Diarizer,
        FaceBackend,
        SpeechBackend,
        TextBackend,
        VoiceBackend,
        VoiceEncoder,
    )
    from emopipe.extractors.speech.diarize import VoiceClusters
    from emopipe.extractors.speech.vad import VoiceActivity

#: Kinds of backends that tell people apart: by turns of speech, and who they are by name.
PEOPLE: Final = ("speakers", "people")
DEVICES: Final = ("auto", "cpu", "cuda")
#: Settings that name weights.
WEIGHTS: Final = ("weights", "encoder", "speaker_encoder", "asr", "multilingual")


def pick_device(choice: str) -> str:
    """Turn "auto", "cpu" or "cuda" into a torch device name.

    Raises:
        DeviceUnavailable: when CUDA is asked for and absent, ConfigError for another word.
    """
    _check_device(choice)
    import torch

    if choice == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable("no CUDA device is available", hint="Use --device cpu or --device auto")
    return "cuda" if choice != "cpu" and torch.cuda.is_available() else "cpu"


def _check_device(choice: str) -> None:
    if choice not in DEVICES:
        raise ConfigError(f"unknown device {choice!r}", hint=f"Use {', '.join(DEVICES)}")


def table(config: ExtractionConfig, kind: str) -> Any:
    """The table of a configuration that tells about a kind of backend: voice activity is part of speech."""
    return getattr(config, {"vad": "speech", "speakers": "people"}.get(kind, kind))


def backend_name(config: ExtractionConfig, kind: str) -> str:
    """The name of the backend that a configuration chooses; "" when it wants none."""
    if kind == "vad":
        return "silero-vad"
    if kind in PEOPLE:
        diarizer = config.people.diarizer
        voices = diarizer if diarizer in VOICE_CLUSTERS else VOICE_CLUSTERS[0]
        return voices if kind == "people" else "" if diarizer == "none" else diarizer
    name: str = table(config, kind).backend
    return name


def chosen(config: ExtractionConfig, kind: str) -> Plugin:
    """The backend that a configuration chooses. Imports none.

    Raises:
        UnknownName: there is none of that name.
    """
    return registry.chosen(_declared_as(kind), backend_name(config, kind))


def _declared_as(kind: str) -> str:
    """The kind under which backends are declared: voices are compared by the encoder of a diarizer."""
    return "speakers" if kind == "people" else kind


def libraries(config: ExtractionConfig, kind: str) -> dict[str, str]:
    """Distribution -> version of what measures, and of bundled weights the beginning of their sha256.

    Those that are not installed are left out.

    Raises:
        UnknownName: an unknown backend.
    """
    plugin = chosen(config, kind)
    if plugin.foreign:
        name, _, release = plugin.origin.rpartition(" ")
        return {name: release}
    declared = registry.declaration(plugin)
    releases = {name: release for name in declared.libraries if (release := installed(name))}
    return releases | {name: _digest(path) for name, path in declared.bundled.items()}


def works_on_gpu(config: ExtractionConfig, kind: str) -> bool:
    """Whether what works for a stage uses a GPU where there is one: a kind of backend, "model", or "" for none."""
    if kind in ("", "model"):
        return kind == "model"
    return registry.declaration(chosen(config, kind)).gpu


def in_use(library: str) -> str:
    """The version of a distribution, or the digest of this package's weights of that name; "" for neither."""
    return installed(library) or _bundled().get(library, "")


@cache
def _bundled() -> dict[str, str]:
    """Name -> beginning of the sha256 of the weights that come with this package."""
    digests: dict[str, str] = {}
    for kind in registry.BUILT_IN:
        for plugin in registry.extractors(kind):
            with suppress(EmopipeError):
                bundled = {} if plugin.foreign else registry.declaration(plugin).bundled
                digests |= {name: _digest(path) for name, path in bundled.items()}
    return digests


@cache
def installed(library: str) -> str:
    """The version of a distribution; "" when it is not installed."""
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


@cache
def _digest(path: Path) -> str:
    return sha256_of(path)[:12]


def weight_names(config: ExtractionConfig, kind: str) -> list[str]:
    """The weights that a backend loads; of a plugin's, as far as its options name what is here.

    Raises:
        UnknownName: an unknown backend.
    """
    if not {"people": recognises, "speakers": diarizes}.get(kind, lambda people: True)(config.people):
        return []
    plugin, settings = chosen(config, kind), settings_of(config, kind)
    if not plugin.foreign:
        return [name for name in registry.declaration(plugin).weights(settings) if name]
    named = [settings[name] for name in WEIGHTS if settings.get(name)]
    return [name for name in (*named, *_texts(settings.get("options"))) if _is_here(name)]


def settings_of(config: ExtractionConfig, kind: str) -> dict[str, Any]:
    """The table of a configuration that tells about a kind of backend, as plain data."""
    name = {"vad": "speech", "speakers": "people"}.get(kind, kind)
    settings: dict[str, Any] = config.as_dict(full=True)[name]
    return settings


def _texts(value: Any) -> Iterator[str]:
    """Every text within the options of a plugin."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)


def _is_here(name: str) -> bool:
    """Whether a plugin's option names a weight of the catalogue, a file, or the folder of a model."""
    if (entry := weights.known(name)) is not None:
        return all(entry.files.values()) or weights.status(entry).path is not None
    path = Path(name).expanduser()
    there = path.name != name and (path.is_file() or (path / "config.json").is_file())
    return there or (path.name != "" and weights.given(path.name) is not None)


@dataclass(frozen=True)
class Basis:
    """What decides, beside its parameters, what a backend or a model makes of its input.

    Attributes:
        libraries: distribution -> version.
        weights: name -> identity.
        settings: the whole table of a plugin, which may read any of it; of a backend of this package: nothing.
    """

    libraries: Mapping[str, str]
    weights: Mapping[str, weights.Identity] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def model_basis(name: str) -> Basis:
    """What a fusion model works with, beside the weights that its checkpoint holds."""
    origins = {plugin.name: plugin.origin for plugin in registry.foreign("model", registry.MODELS_GROUP)}
    package, _, release = origins.get(name, "").rpartition(" ")
    return Basis({"torch": installed("torch"), **({package: release} if package else {})})


class Backends:
    """Loads what a configuration names, once.

    Args:
        config: which backends and weights.
        device: "auto", "cpu" or "cuda".
        offline: never fetch a weight.
        hook: told about fetches.

    Raises:
        ConfigError: for an unknown backend or device.
    """

    def __init__(
        self, config: ExtractionConfig, *, device: str = "auto", offline: bool = False, hook: Hook = silent
    ) -> None:
        _check_device(device)
        for kind in registry.BUILT_IN:
            if backend_name(config, kind):
                chosen(config, kind)
        _check_face(config.face)
        speakers.check(config.people)
        self.config = config
        self._wanted_device = device
        self._how: dict[str, Any] = {"offline": offline, "hook": hook}
        self._located: dict[str, weights.Located] = {}

    def close(self) -> None:
        """Free what must be freed by hand."""
        if "face" in self.__dict__:
            self.face.close()

    def __enter__(self) -> Backends:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @cached_property
    def device(self) -> str:
        """The name that torch has for the device."""
        return pick_device(self._wanted_device)

    def prepare(self, *kinds: str) -> None:
        """Find the weights of these backends before anything is loaded, so that a missing one is told at once.

        Those that need a hub come first: where it is out of reach, nothing else is fetched in vain.

        Raises:
            WeightError: when one cannot be had.
        """
        built_in = [kind for kind in kinds if not chosen(self.config, kind).foreign]
        names = dict.fromkeys(name for kind in built_in for name in weight_names(self.config, kind))
        ordered = sorted(names, key=_is_embedded)
        with _naming_all_missing(ordered):
            _ = [self._weight(name) for name in ordered]

    def bases(self, kinds: Sequence[str], digest: Callable[[Path], str]) -> dict[str, Basis]:
        """Kind -> what that backend measures with; see :meth:`basis`."""
        with _naming_all_missing([name for kind in kinds for name in weight_names(self.config, kind)]):
            return {kind: self.basis(kind, digest) for kind in kinds}

    def basis(self, kind: str, digest: Callable[[Path], str]) -> Basis:
        """What a backend measures with; nothing is loaded.

        Args:
            kind: of the backend.
            digest: tells the sha256 of a file.

        Raises:
            WeightError: when a weight outside the catalogue cannot be had.
        """
        names = weight_names(self.config, kind)
        if any(map(weights.needs_file, names)):
            _ = [self._weight(name) for name in names]
        identities = {name: weights.identify(name, digest=digest, **self._how) for name in names}
        settings = settings_of(self.config, kind) if chosen(self.config, kind).foreign else {}
        return Basis(libraries(self.config, kind), identities, settings)

    @cached_property
    def face(self) -> FaceBackend:
        """What measures faces."""
        backend: FaceBackend = self._create("face")
        return backend

    @cached_property
    def voice(self) -> VoiceBackend:
        """What measures voices."""
        backend: VoiceBackend = self._create("voice")
        return backend

    @cached_property
    def asr(self) -> SpeechBackend:
        """What writes down words."""
        backend: SpeechBackend = self._create("speech")
        return backend

    @cached_property
    def vad(self) -> VoiceActivity:
        """What finds speech."""
        backend: VoiceActivity = self._create("vad")
        return backend

    @cached_property
    def text(self) -> TextBackend:
        """What turns words into vectors."""
        backend: TextBackend = self._create("text", languages=list(self.languages))
        return backend

    @cached_property
    def speakers(self) -> VoiceEncoder:
        """What tells voices apart."""
        clusters: VoiceClusters = self._create("people")
        return clusters.encoder

    @cached_property
    def diarizer(self) -> Diarizer:
        """What cuts speech into turns."""
        backend: Diarizer = self._create("speakers", offline=self._how["offline"])
        return backend

    @cached_property
    def enrolled(self) -> dict[str, np.ndarray]:
        """Name -> voice of the enrolled people."""
        return speakers.enrol(self.config.people, self.vad, self.speakers)

    @property
    def languages(self) -> tuple[str, ...]:
        """What the text encoder reads, as ISO 639-1 codes; () when it is not known, or anything."""
        encoder = weights.known(self.config.text.encoder)
        return self.config.text.languages or (encoder.languages if encoder else ())

    def face_columns(self) -> list[str]:
        """Columns of the face table that make features."""
        return feature_columns(self.config.face.features, self.face.measured)

    def face_features(self) -> list[str]:
        """What a step of a face is made of: the columns' means, and their deviations where asked for."""
        columns = self.face_columns()
        return columns + ([f"{name}_sd" for name in columns] if self.config.face.deviations else [])

    def text_features(self) -> list[str]:
        """What a token's vector is made of."""
        return self.text.feature_names()

    def voice_features(self) -> list[str]:
        """What a step of a voice is made of."""
        return self.voice.feature_names()

    def feature_names(self, modalities: Collection[str] = MODALITIES) -> dict[str, list[str]]:
        """Modality -> names of its feature columns. Loads what measures them."""
        names: dict[str, Callable[[], list[str]]] = {
            "text": self.text_features,
            "face": self.face_features,
            "voice": self.voice_features,
        }
        return {modality: name() for modality, name in names.items() if modality in modalities}

    def runs_parallel(self, kind: str) -> bool:
        """Whether calls of a backend may run at the same time, in several threads; nobody knows it of a plugin's."""
        plugin = chosen(self.config, kind)
        return not plugin.foreign and registry.declaration(plugin).parallel

    def check_weights(self, sealed: Mapping[str, str], digest: Callable[[Path], str]) -> None:
        """Refuse weights that go by a name that was sealed with other weights.

        Args:
            sealed: name -> sha256, of weights that the catalogue did not vouch for.
            digest: tells the sha256 of a file.

        Raises:
            FeatureMismatch: naming both; WeightError when one cannot be had.
        """
        for name, sha256 in sealed.items():
            self._weight(name)
            if (actual := self._located[name].sha256(digest)) != sha256:
                what = f"the checkpoint was trained with weights {name} of sha256 {sha256}, these have {actual}"
                hint = "Put the right ones there, or set EMOPIPE_WEIGHTS to a folder that holds them under their name"
                raise FeatureMismatch(what, path=self._located[name].path, hint=hint)

    def _create(self, kind: str, **more: Any) -> Any:
        settings = {**settings_of(self.config, kind), **more}
        name = backend_name(self.config, kind)
        return registry.create(_declared_as(kind), name, settings, self._weight, self.device)

    def _weight(self, name: str) -> Path:
        """What libraries load for the name of a weight, or a path."""
        if name not in self._located:
            self._located[name] = weights.locate(name, **self._how)
        return self._located[name].path


def _is_embedded(name: str) -> bool:
    """Whether a weight needs no hub."""
    entry = weights.known(name)
    return entry is not None and entry.embedded


@contextmanager
def _naming_all_missing(names: Sequence[str]) -> Iterator[None]:
    """When one of several weights cannot be had, say which others are not here either."""
    try:
        yield
    except EmopipeError as error:
        in_catalogue = [name for name in names if f" {name} " not in error.what and weights.known(name)]
        missing = [name for name in in_catalogue if weights.status(name).state == "missing"]
        if not missing:
            raise
        hint = f"{error.hint}. Not here either: {', '.join(missing)}"
        raise error.changed(hint=hint) from None


def _check_face(config: FaceConfig) -> None:
    """Refuse a detector or features that there are none of.

    Raises:
        ConfigError: .
    """
    from emopipe.extractors.face import mediapipe, pyfeat

    for what, name, allowed in (
        ("detector of py-feat", config.detector, pyfeat.REPOSITORIES if config.backend == "pyfeat" else ("",)),
        *(("group of face features", group, FEATURE_GROUPS) for group in config.features),
    ):
        if name not in allowed:
            hint = f"Use {' or '.join(filter(None, allowed)) or 'none'}"
            raise UnknownName(f"unknown {what} {name!r}", hint=hint)
    measured = {"mediapipe": mediapipe.MEASURED, "pyfeat": pyfeat.MEASURED.get(config.detector, frozenset())}
    if config.backend in measured and not feature_columns(config.features, measured[config.backend]):
        what = f"{config.backend} measures none of the face features {', '.join(config.features)}"
        raise ConfigError(what, hint=f"Choose among {', '.join(FEATURE_GROUPS)}")
