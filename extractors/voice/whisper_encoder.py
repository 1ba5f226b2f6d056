"""What Whisper's encoder hears: the hidden states of its layers, which carry tone of voice as well as words.

Radford et al. 2022 describe the encoder. The sound is not padded to 30 s: the position embedding is cropped to the
utterance's own length, so a short utterance costs little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from emopipe.constants import SAMPLE_RATE
from emopipe.extractors.threads import one_thread

if TYPE_CHECKING:
    from whisper.model import Whisper

#: Encoder frames per second of sound.
FRAME_RATE: Final = 50
LONGEST: Final = 30.0


def layer_names(layers: int, width: int) -> list[str]:
    """Feature names of flattened layer outputs, layer by layer."""
    return [f"whisper_{layer + 1}_{unit:03d}" for layer in range(layers) for unit in range(width)]


def encoder_states(samples: np.ndarray, model: Whisper) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of all encoder blocks for one utterance.

    Args:
        samples: float32 mono at 16 kHz (samples,), at most 30 s; longer sound is cut.
        model: a loaded Whisper model.

    Returns:
        Times in seconds (frames,) and states, float32 (frames, layers * width).

    Raises:
        ValueError: no samples.
    """
    if len(samples) == 0:
        raise ValueError("no samples to encode")
    import torch
    import whisper

    encoder = model.encoder
    sound = torch.from_numpy(np.ascontiguousarray(samples[: int(LONGEST * SAMPLE_RATE)], np.float32))
    with torch.inference_mode(), one_thread():
        mel = whisper.log_mel_spectrogram(sound, n_mels=model.dims.n_mels).to(model.device)
        mel = torch.nn.functional.pad(mel, (0, mel.shape[-1] % 2))
        hidden = torch.nn.functional.gelu(encoder.conv1(mel[None]))
        hidden = torch.nn.functional.gelu(encoder.conv2(hidden)).transpose(1, 2)
        hidden = hidden + encoder.positional_embedding[: hidden.shape[1]]
        states = []
        for block in encoder.blocks:
            hidden = block(hidden)
            states.append(hidden[0])
        joined = torch.cat(states, dim=1).float().cpu().numpy()
    return (np.arange(len(joined)) + 0.5) / FRAME_RATE, joined
