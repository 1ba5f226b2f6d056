"""Whose voice: speaker embeddings by CAM++ (Wang et al., 2023), trained on 200,000 Chinese and English speakers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

import numpy as np

from emopipe.constants import SAMPLE_RATE
from emopipe.extractors.contracts import Backend, Likeness, Locate
from emopipe.extractors.sharing import shared
from emopipe.extractors.speech.diarize import VoiceClusters
from emopipe.extractors.speech.speakers import equally_long, sounds_of, unit
from emopipe.extractors.threads import one_thread, side_by_side

if TYPE_CHECKING:
    from torch import Tensor

    from emopipe.extractors.contracts import Interval, Samples

#: The weight that is loaded when the configuration names no other.
WEIGHT: Final = "campplus"
MELS: Final = 80
WIDTH: Final = 192
#: Pieces that go through the network at once, and their seconds: what more of them make leaves a core's cache.
BATCH: Final = 8
BATCH_SECONDS: Final = 6.4
#: Channels of the hidden states; seconds of the middle of the first step of the hidden states, and between two.
HIDDEN: Final = 512
FIRST_TIME: Final = 0.0125
STEP: Final = 0.02
#: The greatest sample of 16 bits.
FULL_SCALE: Final = 32768.0
#: Chosen on forty generated minutes of one to three people in clean, reverberant and telephone sound (RAVDESS actors 1
#: to 10, EmoDB, Javanese, guests of Urdu talk shows). There, two halves of one person's speech have cosines of 0.63 to
#: 0.83 (but for one of 0.49), two people 0.17 to 0.55, and each two of three people 0.47 at most. Recordings of one
#: RAVDESS actor in different emotions and rooms have 0.38 to 0.77, those of two 0.48 at most.
LIKENESS: Final = Likeness(
    alike=0.60, alike_of_more=0.46, alike_if_several_seen=0.70, doubtful=(0.50, 0.68), recognised=0.50
)


def create(settings: Mapping[str, Any], locate: Locate, device: str) -> VoiceClusters:
    """The diarizer that a table `people` of a configuration describes."""
    return VoiceClusters(load_campplus(locate(settings["encoder"] or WEIGHT), device))


BACKEND: Final = Backend(
    "campplus",
    create,
    weights=lambda settings: [settings["encoder"] or WEIGHT],
    libraries=("torchaudio", "scipy", "torch"),
    settings=("encoder",),
    gpu=False,
)

#: What is loaded and in use: the features of the voice are often made by the encoder that tells speakers apart.
_loaded: WeakValueDictionary[tuple[Path, int, str], CampPlus] = WeakValueDictionary()


def load_campplus(path: str | Path, device: str) -> CampPlus:
    """Load a :class:`CampPlus`; one that is in use already is shared."""
    return shared(_loaded, CampPlus, path, device)


class CampPlus:
    """Turns pieces of speech into unit vectors that lie close together when one person speaks them.

    Args:
        model_path: `campplus.safetensors`.
        device: "cpu" or "cuda".

    Raises:
        ValueError: it is not such a file.
    """

    likeness = LIKENESS

    def __init__(self, model_path: str | Path, device: str = "cpu") -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from emopipe.extractors.onednn import with_convolutions
        from emopipe.extractors.speech.campplus_network import CampPlusNetwork, folded

        network = CampPlusNetwork()
        try:
            network.load_state_dict(load_file(model_path))
        except (RuntimeError, SafetensorError) as error:
            raise ValueError(f"{model_path} is not a checkpoint of CAM++") from error
        network = folded(network.to(device))
        self._network: Any = with_convolutions(network) if device == "cpu" else network
        self._device = device

    def heard(self, samples: Samples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the network makes of one utterance.

        Args:
            samples: float32 mono at 16 kHz (samples,), at least 0.2 s.

        Returns:
            Times in seconds (frames,), hidden states, float32 (frames, 512), every 20 ms, and the vector (192,), which
            is not brought to length 1.
        """
        import torch

        with torch.inference_mode(), one_thread():
            bands = _bands(np.asarray(samples))[None]
            hidden, vectors = self._network.heard(bands.to(self._device))
        states: np.ndarray = hidden[0].float().cpu().numpy()
        return FIRST_TIME + np.arange(len(states)) * STEP, states, vectors[0].float().cpu().numpy()

    def embed(self, samples: Samples, pieces: Sequence[Interval]) -> np.ndarray:
        """Unit vectors, float32 (pieces, 192).

        Args:
            samples: float32 mono at 16 kHz (samples,), the whole clip.
            pieces: spans in seconds, each at least 0.2 s.
        """
        import torch

        def embedded(rows: list[int]) -> np.ndarray:
            heard = sounds_of(samples, [pieces[row] for row in rows])
            length = min(map(len, heard))
            bands = torch.stack([_bands(sound[:length]) for sound in heard])
            some: np.ndarray = self._network(bands.to(self._device)).float().cpu().numpy()
            return some

        vectors, groups = np.zeros((len(pieces), WIDTH), np.float32), equally_long(pieces, BATCH, BATCH_SECONDS)
        for rows, made in zip(groups, side_by_side(embedded, groups), strict=True):
            vectors[rows] = made
        return unit(vectors)


def _bands(sound: np.ndarray) -> Tensor:
    """Logarithms of Kaldi's mel bands (80, frames), each less its mean, so that level and line do not count.

    Samples are scaled as Kaldi's are, to 16 bits: below full scale 1, its floor would cut off what is quiet.
    """
    import torch
    from torchaudio.compliance.kaldi import fbank

    wave = torch.from_numpy(np.ascontiguousarray(sound, np.float32))[None] * FULL_SCALE
    bands: Tensor = fbank(wave, num_mel_bins=MELS, sample_frequency=SAMPLE_RATE, dither=0.0)
    return (bands - bands.mean(0)).T
