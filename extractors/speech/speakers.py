"""Whose voice: the GE2E speaker encoder (Wan et al., 2018) with Resemblyzer's weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emopipe.constants import SAMPLE_RATE
from emopipe.extractors.contracts import Interval, Likeness, Samples

if TYPE_CHECKING:
    from torch import Tensor

MELS: Final = 40
WIDTH: Final = 256
LAYERS: Final = 3
#: Samples of an analysis window: 25 ms.
FRAME: Final = 400
#: Samples between two windows: 10 ms.
HOP: Final = 160
#: Every piece is brought to this level before it is heard, in dB of full scale.
LEVEL: Final = -30.0
#: Pieces that go through the network at once.
BATCH: Final = 64
#: A piece shorter than this says nothing about who speaks, in seconds.
SHORTEST: Final = 0.2


#: Of the GE2E encoder; tuned on speakers of RAVDESS, EmoDB and URDU that the benchmark does not use.
GE2E: Final = Likeness(
    alike=0.81, alike_of_more=0.70, alike_if_several_seen=0.88, doubtful=(0.79, 0.86), recognised=0.75
)


class SpeakerEncoder:
    """Turns pieces of speech into unit vectors that lie close together when one person speaks them.

    Attributes:
        likeness: what its cosines tell of whether two voices are one person's.

    Args:
        model_path: `speaker_encoder.safetensors`.
        device: "cpu" or "cuda".
    """

    likeness = GE2E

    def __init__(self, model_path: str | Path, device: str = "cpu") -> None:
        import torch
        from safetensors.torch import load_file

        self._network: Any = torch.nn.ModuleDict(
            {
                "lstm": torch.nn.LSTM(MELS, WIDTH, LAYERS, batch_first=True),
                "linear": torch.nn.Linear(WIDTH, WIDTH),
            }
        )
        self._network.load_state_dict(load_file(model_path))
        self._network.to(device).eval()
        self._device = device

    def embed(self, samples: Samples, pieces: Sequence[Interval]) -> np.ndarray:
        """Unit vectors, float32 (pieces, 256).

        Args:
            samples: float32 mono at 16 kHz (samples,), the whole clip.
            pieces: spans in seconds, each at least 0.2 s; the encoder was trained on 1.6 s.
        """
        import torch

        vectors = np.zeros((len(pieces), WIDTH), np.float32)
        with torch.inference_mode():
            for rows in equally_long(pieces):
                heard = sounds_of(samples, [pieces[row] for row in rows])
                frames = min(len(sound) for sound in heard) // HOP + 1
                mels = torch.stack([_mel(sound)[:frames] for sound in heard])
                _, (hidden, _) = self._network["lstm"](mels.to(self._device))
                vectors[rows] = torch.relu(self._network["linear"](hidden[-1])).float().cpu().numpy()
        return unit(vectors)


def unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors (n, dims) at length 1; a vector of zeros stays."""
    lengths: np.ndarray = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: np.ndarray = vectors / np.where(lengths > 0, lengths, 1.0)
    return scaled


def sounds_of(samples: Samples, pieces: Sequence[Interval]) -> list[np.ndarray]:
    """The sound of each piece, given in seconds."""
    return [samples[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)] for start, end in pieces]


def equally_long(pieces: Sequence[Interval], most: int = BATCH, most_seconds: float = float("inf")) -> list[list[int]]:
    """Rows of pieces that are equally long to 10 ms, at most so many at once, and no more than so long together."""
    by_length: dict[int, list[int]] = {}
    for row, (start, end) in enumerate(pieces):
        by_length.setdefault(round((end - start) * 100), []).append(row)
    groups = []
    for length, rows in by_length.items():
        count = max(1, int(min(most, 100 * most_seconds / max(length, 1))))
        groups += [rows[first : first + count] for first in range(0, len(rows), count)]
    return groups


def _mel(sound: np.ndarray) -> Tensor:
    """Mel power bands (frames, 40) of a piece brought to LEVEL."""
    import torch

    wave = torch.from_numpy(np.ascontiguousarray(sound, np.float32))
    level = wave.square().mean().sqrt().clamp(min=1e-8)
    wave = wave * (10 ** (LEVEL / 20) / level)
    window = torch.hann_window(FRAME)
    spectrum = torch.stft(wave, FRAME, HOP, FRAME, window, center=True, pad_mode="constant", return_complex=True)
    return (_filters() @ spectrum.abs().square()).T


@cache
def _filters() -> Tensor:
    """Librosa's mel filters (40, 201), which the encoder was trained with."""
    import librosa
    import torch

    return torch.from_numpy(librosa.filters.mel(sr=SAMPLE_RATE, n_fft=FRAME, n_mels=MELS)).float()
