"""Where somebody speaks: Silero voice activity detection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from emopipe.constants import SAMPLE_RATE
from emopipe.extractors.contracts import Backend, Locate, Samples
from emopipe.extractors.import_isolation import contained

#: Samples that the model takes at once.
FRAME: Final = 512
#: Samples held in memory at once.
BLOCK: Final = 1000 * FRAME


def create(settings: Mapping[str, Any], locate: Locate, device: str) -> VoiceActivity:
    """The detector that a table `speech` of a configuration describes; it runs on the CPU whatever the device."""
    return VoiceActivity(locate(settings["vad"]), settings["vad_threshold"])


BACKEND: Final = Backend(
    "silero-vad",
    create,
    weights=lambda settings: [settings["vad"]],
    libraries=("silero-vad", "torch"),
    settings=("vad", "vad_threshold"),
    gpu=False,
)


class VoiceActivity:
    """Silero VAD on the CPU.

    Args:
        model_path: `silero_vad.jit`.
        threshold: probability above which a 32 ms frame counts as speech.
    """

    def __init__(self, model_path: str | Path, threshold: float = 0.5) -> None:
        with contained():  # importing silero_vad would leave torch with one thread
            from silero_vad.utils_vad import init_jit_model

            self._model: Any = init_jit_model(str(model_path))
        self._threshold = threshold

    def segments(self, samples: Samples) -> list[tuple[float, float]]:
        """Spans of speech in seconds, ascending and apart, in float32 mono sound at 16 kHz (samples,)."""
        from silero_vad.utils_vad import get_speech_timestamps_from_probs

        if len(samples) < FRAME:
            return []
        spans = get_speech_timestamps_from_probs(
            self._probabilities(samples),
            sampling_rate=SAMPLE_RATE,
            threshold=self._threshold,
            audio_length_samples=len(samples),
        )
        return [(span["start"] / SAMPLE_RATE, span["end"] / SAMPLE_RATE) for span in spans]

    def _probabilities(self, samples: Samples) -> list[float]:
        """Of speech in each frame of 32 ms; the last one is filled up with silence."""
        import torch

        chances = []
        self._model.reset_states()
        with _one_thread(), torch.inference_mode():
            for first in range(0, len(samples), BLOCK):
                block = np.ascontiguousarray(samples[first : first + BLOCK], np.float32)
                frames = np.pad(block, (0, -len(block) % FRAME)).reshape(-1, FRAME)
                chances += [self._model(frame, SAMPLE_RATE).item() for frame in torch.from_numpy(frames)]
        return chances


@contextmanager
def _one_thread() -> Iterator[None]:
    """Thousands of tiny operations run no faster on more threads, and many times slower when a core is taken."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
