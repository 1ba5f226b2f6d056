"""The extractors of one configuration, each loaded when first needed and kept."""

from __future__ import annotations

from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emopipe.pipeline import people, weights
from emopipe.pipeline.config import ExtractionConfig, given_clip
from emopipe.pipeline.errors import EmopipeError
from emopipe.pipeline.progress import Hook, silent

if TYPE_CHECKING:
    import numpy as np
    from whisper.model import Whisper

    from emopipe.extractors.face.mediapipe import FaceLandmarker
    from emopipe.extractors.speech.diarize import Diarizer
    from emopipe.extractors.speech.speakers import SpeakerEncoder
    from emopipe.extractors.speech.vad import VoiceActivity
    from emopipe.extractors.text.transformer import TextEncoder
    from emopipe.pipeline.baseline import Baselines


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
        if config.face.backend != "mediapipe":
            raise EmopipeError("EMO-503", f"unknown face backend {config.face.backend!r}", hint="Use mediapipe")
        people.check(config.people)
        self.config = config
        self.device = pick_device(device)
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
            return people.load_pyannote(self.config.people.pyannote, self.device, self._offline)
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

    def feature_names(self) -> dict[str, list[str]]:
        """Modality -> names of its feature columns. Loads the text encoder and Whisper."""
        from emopipe.extractors.face.mediapipe import feature_columns
        from emopipe.extractors.voice.features import feature_names

        return {
            "text": self.text.feature_names(),
            "face": feature_columns(self.config.face.features),
            "voice": feature_names(self.voice_encoder),
        }

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
