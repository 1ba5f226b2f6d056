"""The extractors of one configuration, each loaded when first needed and kept."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emopipe.pipeline import weights
from emopipe.pipeline.config import MODALITIES, ExtractionConfig
from emopipe.pipeline.errors import EmopipeError
from emopipe.pipeline.progress import Hook, silent

if TYPE_CHECKING:
    from whisper.model import Whisper

    from emopipe.extractors.face.mediapipe import FaceLandmarker
    from emopipe.extractors.speech.vad import VoiceActivity
    from emopipe.extractors.text.transformer import TextEncoder


DEVICES: Final = ("auto", "cpu", "cuda")


def pick_device(wanted: str) -> str:
    """Turn "auto", "cpu" or "cuda" into a torch device name.

    Raises:
        EmopipeError: EMO-302 when CUDA is asked for and absent, EMO-503 for another word.
    """
    if wanted not in DEVICES:
        raise EmopipeError("EMO-503", f"unknown device {wanted!r}", hint=f"Use {', '.join(DEVICES)}")
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
        if device not in DEVICES:
            raise EmopipeError("EMO-503", f"unknown device {device!r}", hint=f"Use {', '.join(DEVICES)}")
        if config.face.backend != "mediapipe":
            raise EmopipeError("EMO-503", f"unknown face backend {config.face.backend!r}", hint="Use mediapipe")
        self.config = config
        self._wanted = device
        self._offline = offline
        self._hook = hook

    def fetch(self, entries: Iterable[str]) -> None:
        """Bring the weights here that entries of the configuration name ("face.weights"), before work begins.

        Raises:
            EmopipeError: EMO-201 to EMO-205 when one cannot be had.
        """
        for table, _, key in (entry.partition(".") for entry in entries):
            self._weight(getattr(getattr(self.config, table), key))

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
        """Where torch runs.

        Raises:
            EmopipeError: EMO-302 when CUDA is asked for and absent.
        """
        return pick_device(self._wanted)

    @cached_property
    def face(self) -> FaceLandmarker:
        from emopipe.extractors.face.mediapipe import FaceLandmarker

        return FaceLandmarker(self._weight(self.config.face.weights), self.config.face.max_faces)

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

    def feature_names(self, modalities: Collection[str] = MODALITIES) -> dict[str, list[str]]:
        """Modality -> names of its feature columns. Loads the text encoder for text, and Whisper for voice."""
        from emopipe.extractors.face.mediapipe import feature_columns
        from emopipe.extractors.voice.features import feature_names

        names = {
            "text": lambda: self.text.feature_names(),
            "face": lambda: feature_columns(self.config.face.features),
            "voice": lambda: feature_names(self.voice_encoder),
        }
        return {modality: names[modality]() for modality in MODALITIES if modality in modalities}

    def sealed_config(self) -> dict[str, Any]:
        """The configuration with the versions of the libraries that did the measuring."""
        libraries = ("mediapipe", "librosa", "openai-whisper", "silero-vad", "transformers")
        return {**self.config.as_dict(), "versions": {name: version(name) for name in libraries}}

    def _whisper(self, name: str) -> Whisper:
        from emopipe.extractors.speech.whisper import load_whisper

        return load_whisper(self._weight(name), self.device, name.removeprefix("whisper-"))

    def _weight(self, name: str) -> Path:
        """A path (anything with a slash in it) as it is, a catalogue name resolved."""
        if Path(name).name != name:
            return Path(name)
        return weights.resolve(name, offline=self._offline, hook=self._hook)
