"""Where somebody speaks: Silero voice activity detection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from emopipe.extractors.contained import contained

SAMPLE_RATE: Final = 16_000


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

    def segments(self, samples: np.ndarray) -> list[tuple[float, float]]:
        """Spans of speech in seconds, ascending and apart, in float32 mono sound at 16 kHz (samples,)."""
        import torch
        from silero_vad import get_speech_timestamps

        if len(samples) < 512:
            return []
        sound = torch.from_numpy(np.ascontiguousarray(samples, np.float32))
        with _one_thread():
            spans = get_speech_timestamps(sound, self._model, sampling_rate=SAMPLE_RATE, threshold=self._threshold)
        return [(span["start"] / SAMPLE_RATE, span["end"] / SAMPLE_RATE) for span in spans]


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
