"""The extractors of one configuration, each loaded when first needed and kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emopipe.extractors.face.table import FEATURE_GROUPS, FaceBackend, feature_columns
from emopipe.pipeline import weights
from emopipe.pipeline.config import ExtractionConfig, FaceConfig
from emopipe.pipeline.errors import EmopipeError
from emopipe.pipeline.progress import Hook, silent

if TYPE_CHECKING:
    from whisper.model import Whisper

    from emopipe.extractors.speech.vad import VoiceActivity
    from emopipe.extractors.text.transformer import TextEncoder


#: Face backend -> the distribution that measures.
FACE_LIBRARIES: Final = {"mediapipe": "mediapipe", "pyfeat": "py-feat"}


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
    """

    def __init__(
        self, config: ExtractionConfig, *, device: str = "auto", offline: bool = False, hook: Hook = silent
    ) -> None:
        _check_face(config.face)
        self.config = config
        self._wanted_device = device
        self._offline = offline
        self._hook = hook

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

    @cached_property
    def face(self) -> FaceBackend:
        """What measures faces.

        Raises:
            EmopipeError: EMO-201 to EMO-204 for its weights, EMO-301 when its library is missing, EMO-503 when weights
                that the user gave are of another kind.
        """
        config, files = self.config.face, self.face_weights
        try:
            if config.backend == "pyfeat":
                from emopipe.extractors.face.pyfeat import PyFeat

                return PyFeat(files, config.detector, self.device, config.max_faces)
            from emopipe.extractors.face.mediapipe import FaceLandmarker

            return FaceLandmarker(files["model"], config.max_faces)
        except ImportError as error:
            what = f"{FACE_LIBRARIES[config.backend]} cannot be imported: {error}"
            raise EmopipeError("EMO-301", what, hint="See `emopipe doctor`, or use --face mediapipe") from error
        except (FileNotFoundError, ValueError) as error:
            hint = "See `emopipe models verify` and what EMOPIPE_WEIGHTS holds"
            raise EmopipeError("EMO-503", str(error), hint=hint) from error

    @cached_property
    def face_weights(self) -> dict[str, Path]:
        """The files and folders that the face backend loads. Imports nothing, so that a missing one is told at once."""
        config = self.config.face
        if config.backend == "pyfeat":
            from emopipe.extractors.face.pyfeat import REPOSITORIES

            names = {name: f"pyfeat-{name.replace('_', '-')}" for name in REPOSITORIES[config.detector]}
            with _all_told(list(names.values())):
                return {name: self._weight(entry) for name, entry in names.items()}
        return {"model": self._weight(config.weights)}

    @property
    def face_columns(self) -> list[str]:
        """Columns of the face table that make features."""
        return _face_columns(self.config.face)

    @property
    def face_features(self) -> list[str]:
        """What a step of a face is made of: the columns' means, and their deviations where asked for."""
        deviations = [f"{name}_sd" for name in self.face_columns] if self.config.face.deviations else []
        return self.face_columns + deviations

    @cached_property
    def asr(self) -> Whisper:
        """The Whisper that writes down words."""
        return self._whisper(self.config.speech.asr)

    @cached_property
    def voice_encoder(self) -> Whisper:
        """The Whisper whose encoder listens to the voice; usually the same model."""
        same = self.config.voice.encoder == self.config.speech.asr
        return self.asr if same else self._whisper(self.config.voice.encoder)

    @cached_property
    def vad(self) -> VoiceActivity:
        from emopipe.extractors.speech.vad import VoiceActivity

        return VoiceActivity(self._weight(self.config.speech.vad), self.config.speech.vad_threshold)

    @cached_property
    def text(self) -> TextEncoder:
        from emopipe.extractors.text.transformer import TextEncoder

        return TextEncoder(self._weight(self.config.text.encoder), self.device, self.config.text.max_tokens)

    def feature_names(self) -> dict[str, list[str]]:
        """Modality -> names of its feature columns. Loads the text encoder and Whisper."""
        from emopipe.extractors.voice.features import feature_names

        return {
            "text": self.text.feature_names(),
            "face": self.face_features,
            "voice": feature_names(self.voice_encoder),
        }

    def sealed_config(self) -> dict[str, Any]:
        """The configuration with the versions of the libraries that did the measuring."""
        face = FACE_LIBRARIES[self.config.face.backend]
        libraries = (face, "librosa", "openai-whisper", "silero-vad", "transformers")
        return {**self.config.as_dict(), "versions": {name: version(name) for name in libraries}}

    def _whisper(self, name: str) -> Whisper:
        from emopipe.extractors.speech.whisper import load_whisper

        return load_whisper(self._weight(name), self.device, name.removeprefix("whisper-"))

    def _weight(self, name: str) -> Path:
        """A path (anything with a slash in it) as it is, a catalogue name resolved."""
        if Path(name).name != name:
            return Path(name)
        return weights.resolve(name, offline=self._offline, hook=self._hook)


@contextmanager
def _all_told(names: Sequence[str]) -> Iterator[None]:
    """When one of several weights cannot be had, say which others are not here either."""
    try:
        yield
    except EmopipeError as error:
        others = [name for name in names if f" {name} " not in error.what and weights.status(name).state == "missing"]
        if not others:
            raise
        hint = f"{error.hint}. Not here either: {', '.join(others)}"
        raise EmopipeError(error.code, error.what, path=error.path, hint=hint) from None


def _face_columns(config: FaceConfig) -> list[str]:
    if config.backend == "pyfeat":
        from emopipe.extractors.face.pyfeat import MEASURED

        return feature_columns(config.features, MEASURED[config.detector])
    from emopipe.extractors.face import mediapipe

    return feature_columns(config.features, mediapipe.MEASURED)


def _check_face(config: FaceConfig) -> None:
    """Refuse a backend, a detector or features that there are none of.

    Raises:
        EmopipeError: EMO-503.
    """
    from emopipe.extractors.face.pyfeat import REPOSITORIES

    for what, name, known in (
        ("face backend", config.backend, FACE_LIBRARIES),
        ("detector of py-feat", config.detector, REPOSITORIES if config.backend == "pyfeat" else ("",)),
        *(("group of face features", group, FEATURE_GROUPS) for group in config.features),
    ):
        if name not in known:
            hint = f"Use {' or '.join(filter(None, known)) or 'none'}"
            raise EmopipeError("EMO-503", f"unknown {what} {name!r}", hint=hint)
    if not _face_columns(config):
        what = f"{config.backend} measures none of the face features {', '.join(config.features)}"
        raise EmopipeError("EMO-503", what, hint=f"Choose among {', '.join(FEATURE_GROUPS)}")
