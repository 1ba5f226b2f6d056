"""The extractors of one configuration, each loaded when first needed and kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emopipe.extractors.face.table import FEATURE_GROUPS, feature_columns
from emopipe.pipeline import people, plugins, weights
from emopipe.pipeline.config import MODALITIES, ExtractionConfig, FaceConfig, given_clip
from emopipe.pipeline.errors import EmopipeError
from emopipe.pipeline.progress import Hook, silent

if TYPE_CHECKING:
    import numpy as np

    from emopipe.extractors.contracts import FaceBackend, SpeechBackend, TextBackend, VoiceBackend
    from emopipe.extractors.speech.diarize import Diarizer
    from emopipe.extractors.speech.speakers import SpeakerEncoder
    from emopipe.extractors.speech.vad import VoiceActivity
    from emopipe.pipeline.baseline import Baselines


#: Face backend -> the distribution that measures.
FACE_LIBRARIES: Final = {"mediapipe": "mediapipe", "pyfeat": "py-feat"}
#: Table of the configuration -> options of this package's own backends that name weights.
WEIGHTS: Final = {
    "face": ("weights",),
    "voice": ("encoder",),
    "speech": ("vad", "asr"),
    "text": ("encoder", "multilingual"),
    "people": ("encoder",),
}


def pick_device(wanted: str) -> str:
    """Turn "auto", "cpu" or "cuda" into a torch device name.

    Raises:
        EmopipeError: EMO-302 when CUDA is asked for and absent, EMO-503 for another word.
    """
    if wanted not in ("auto", "cpu", "cuda"):
        raise EmopipeError("EMO-503", f"unknown device {wanted!r}", hint="Use auto, cpu or cuda")
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise EmopipeError("EMO-302", "no CUDA device is available", hint="Use --device cpu or --device auto")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


class Backends:
    """Loads what a configuration names, once.

    Args:
        config: which backends and weights.
        device: "auto", "cpu" or "cuda".
        offline: never fetch a weight.
        hook: told about fetches.

    Raises:
        EmopipeError: EMO-503 for an unknown backend.
    """

    def __init__(
        self, config: ExtractionConfig, *, device: str = "auto", offline: bool = False, hook: Hook = silent
    ) -> None:
        for kind in plugins.BUILT_IN:
            plugins.chosen(kind, getattr(config, kind).backend)
        _check_face(config.face)
        people.check(config.people)
        self.config = config
        self._wanted_device = device
        self._offline = offline
        self._hook = hook
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

        Args:
            kinds: modalities, "speech", or "people".
        """
        for kind in kinds:
            if kind == "people" or not plugins.chosen(kind, getattr(self.config, kind).backend).foreign:
                names = self._named(kind)
                with _all_told(names):
                    _ = [self._weight(name) for name in names]

    def _named(self, kind: str) -> list[str]:
        """The weights that this package's own backend of that kind loads."""
        table = getattr(self.config, kind)
        if kind == "people" and not people.compares_voices(table):
            return []
        if kind == "face" and table.backend == "pyfeat":
            from emopipe.extractors.face.pyfeat import weight_names

            return list(weight_names(table.detector).values())
        return [name for option in WEIGHTS[kind] if (name := getattr(table, option))]

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
        from emopipe.extractors.speech.vad import VoiceActivity

        return VoiceActivity(self._weight(self.config.speech.vad), self.config.speech.vad_threshold)

    @cached_property
    def text(self) -> TextBackend:
        """What turns words into vectors."""
        backend: TextBackend = self._create("text", languages=list(self.languages))
        return backend

    @cached_property
    def speakers(self) -> SpeakerEncoder:
        """What tells voices apart."""
        from emopipe.extractors.speech.speakers import SpeakerEncoder

        return SpeakerEncoder(self._weight(self.config.people.encoder), self.device)

    @cached_property
    def diarizer(self) -> Diarizer:
        """What cuts speech into turns."""
        from emopipe.extractors.speech.diarize import VoiceClusters

        if self.config.people.diarizer == "pyannote":
            return people.load_pyannote(self.config.people.pyannote, self.device, offline=self._offline)
        return VoiceClusters(self.speakers)

    @cached_property
    def enrolled(self) -> dict[str, np.ndarray]:
        """Name -> voice of the enrolled people."""
        return people.enrol(self.config.people, self)

    @cached_property
    def reference(self) -> Baselines:
        """Modality -> baseline that the configured clip shows."""
        from emopipe.pipeline.baseline import reference_of

        clip = given_clip(self.config.people.baseline)
        assert clip is not None
        return reference_of(clip, self)

    @property
    def languages(self) -> tuple[str, ...]:
        """What the text encoder reads, as ISO 639-1 codes; () when it is not known, or anything."""
        known = weights.known(self.config.text.encoder)
        return self.config.text.languages or (known.languages if known else ())

    def face_columns(self) -> list[str]:
        """Columns of the face table that make features."""
        return feature_columns(self.config.face.features, self.face.measured)

    def face_features(self) -> list[str]:
        """What a step of a face is made of: the columns' means, and their deviations where asked for."""
        columns = self.face_columns()
        return columns + ([f"{name}_sd" for name in columns] if self.config.face.deviations else [])

    def feature_names(self, modalities: Collection[str] = MODALITIES) -> dict[str, list[str]]:
        """Modality -> names of its feature columns. Loads what measures them."""
        names: dict[str, Callable[[], list[str]]] = {
            "text": lambda: self.text.feature_names(),
            "face": self.face_features,
            "voice": lambda: self.voice.feature_names(),
        }
        return {modality: name() for modality, name in names.items() if modality in modalities}

    def unverified(self) -> list[str]:
        """Names of weights in use that are none of the catalogue's, byte for byte."""
        return sorted(name for name, found in self._located.items() if not found.verified)

    def check_weights(self, sealed: Mapping[str, str]) -> None:
        """Refuse weights that go by a name that was sealed with other weights.

        Args:
            sealed: name -> sha256, of weights that the catalogue does not vouch for.

        Raises:
            EmopipeError: EMO-402, naming both.
        """
        for name, sha256 in sealed.items():
            if name in self._located and (found := self._located[name].sha256()) != sha256:
                what = f"the checkpoint was trained with weights {name} of sha256 {sha256}, these have {found}"
                hint = "Put the right ones there, or set EMOPIPE_WEIGHTS to a folder that holds them under their name"
                raise EmopipeError("EMO-402", what, path=self._located[name].path, hint=hint)

    def sealed_config(self) -> dict[str, Any]:
        """The configuration with what did the measuring: versions of libraries and of plugins, unverified weights."""
        sealed = {**self.config.as_dict(), "versions": self._versions()}
        unverified = {name: self._located[name].sha256() for name in self.unverified()}
        return {**sealed, "unverified": unverified} if unverified else sealed

    def _versions(self) -> dict[str, str]:
        face = FACE_LIBRARIES.get(self.config.face.backend)
        libraries = [face] if face else []
        libraries += ["librosa", "openai-whisper", "silero-vad", "transformers"]
        libraries += ["faster-whisper"] if self.config.speech.backend == "faster-whisper" else []
        used = [plugins.chosen(kind, getattr(self.config, kind).backend) for kind in plugins.BUILT_IN]
        origins = dict(plugin.origin.rsplit(" ", 1) for plugin in used if plugin.foreign)
        return {name: version(name) for name in libraries} | origins

    def _create(self, kind: str, **more: Any) -> Any:
        settings = {**self.config.as_dict(full=True)[kind], **more}
        return plugins.create(kind, settings["backend"], settings, self._weight, self.device)

    def _weight(self, name: str) -> Path:
        """What libraries load for the name of a weight, or a path."""
        if name not in self._located:
            self._located[name] = weights.locate(name, offline=self._offline, hook=self._hook)
        return self._located[name].path


@contextmanager
def _all_told(names: Sequence[str]) -> Iterator[None]:
    """When one of several weights cannot be had, say which others are not here either."""
    try:
        yield
    except EmopipeError as error:
        known = [name for name in names if f" {name} " not in error.what and weights.known(name)]
        others = [name for name in known if weights.status(name).state == "missing"]
        if not others:
            raise
        hint = f"{error.hint}. Not here either: {', '.join(others)}"
        raise EmopipeError(error.code, error.what, path=error.path, hint=hint) from None


def _check_face(config: FaceConfig) -> None:
    """Refuse a detector or features that there are none of.

    Raises:
        EmopipeError: EMO-503.
    """
    from emopipe.extractors.face import mediapipe, pyfeat

    for what, name, known in (
        ("detector of py-feat", config.detector, pyfeat.REPOSITORIES if config.backend == "pyfeat" else ("",)),
        *(("group of face features", group, FEATURE_GROUPS) for group in config.features),
    ):
        if name not in known:
            hint = f"Use {' or '.join(filter(None, known)) or 'none'}"
            raise EmopipeError("EMO-503", f"unknown {what} {name!r}", hint=hint)
    measured = {"mediapipe": mediapipe.MEASURED, "pyfeat": pyfeat.MEASURED.get(config.detector, frozenset())}
    if config.backend in measured and not feature_columns(config.features, measured[config.backend]):
        what = f"{config.backend} measures none of the face features {', '.join(config.features)}"
        raise EmopipeError("EMO-503", what, hint=f"Choose among {', '.join(FEATURE_GROUPS)}")
