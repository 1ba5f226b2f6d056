"""Where somebody speaks: Silero voice activity detection."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emopipe.constants import SAMPLE_RATE
from emopipe.extractors.contracts import Backend, Locate, Samples
from emopipe.extractors.import_isolation import contained
from emopipe.extractors.threads import one_thread

if TYPE_CHECKING:
    from torch import Tensor

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

        chances: list[float] = []
        self._model.reset_states()
        network = _Network.of(self._model)
        with one_thread(), torch.inference_mode():
            for first in range(0, len(samples), BLOCK):
                block = np.ascontiguousarray(samples[first : first + BLOCK], np.float32)
                frames = torch.from_numpy(np.pad(block, (0, -len(block) % FRAME)).reshape(-1, FRAME))
                if network is None:
                    chances += [self._model(frame, SAMPLE_RATE).item() for frame in frames]
                else:
                    chances += network.probabilities(frames)
        return chances


class _Network:
    """The layers of Silero VAD 5 and 6, run over many frames at once: only the recurrent one needs them in order.

    Called frame by frame, as the model itself wants it, nine tenths of the time go into calls.

    Args:
        layers: the part of the model that is for 16 kHz.
    """

    def __init__(self, layers: Any) -> None:
        import torch

        self._basis: Tensor = layers.stft.forward_basis_buffer
        self._hop: int = layers.stft.hop_length
        self._padding, self._encoder, self._decoder = layers.stft.padding, layers.encoder, layers.decoder.decoder
        cell = layers.decoder.rnn
        self._recurrent = torch.nn.LSTM(cell.weight_ih.shape[1], cell.weight_hh.shape[1])
        state = {f"{name}_l0": getattr(cell, name) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        self._recurrent.load_state_dict(state)
        self._state: tuple[Tensor, Tensor] | None = None
        self._before = torch.zeros(layers.context_size_samples)

    @classmethod
    def of(cls, model: Any) -> _Network | None:
        """The network of a loaded model; None for a model of other layers."""
        try:
            return cls(model._model)
        except (AttributeError, RuntimeError):
            return None

    def probabilities(self, frames: Tensor) -> list[float]:
        """Of speech in each frame (frames, FRAME) that follows those of the call before."""
        import torch

        context = len(self._before)
        whole = torch.cat([self._before, frames.reshape(-1)])
        self._before = whole[-context:]
        windows = whole.unfold(0, context + FRAME, FRAME)
        waves = torch.conv1d(self._padding(windows)[:, None], self._basis, stride=self._hop)
        real, imaginary = waves.chunk(2, 1)
        encoded = self._encoder((real.square() + imaginary.square()).sqrt())
        hidden, self._state = self._recurrent(encoded.squeeze(-1), self._state)
        chances: list[float] = self._decoder(hidden[:, :, None]).reshape(-1).tolist()
        return chances
