"""How loud a recording is, and quiet recordings raised to where voice activity and speech recognition work."""

from __future__ import annotations

from typing import Final

import numpy as np

from emopipe.constants import SAMPLE_RATE
from emopipe.extractors.contracts import Samples

#: Length of the frames whose loudness is measured, in samples: 32 ms.
FRAME: Final = 512
#: Samples held in memory at once.
BLOCK: Final = 1000 * FRAME
#: The level of a recording is the one that it reaches for so long in all, in seconds: speech, not a click.
LOUD_FOR: Final = 1.0
#: Levels in dB of full scale (root mean square of a frame). Speech as people record it reaches -30 to -10; from -55
#: downwards, voice activity misses words and people are invented. Studio recordings of calm speech at -51 work as they
#: are, and stay so.
QUIET: Final = -52.0
RAISED_TO: Final = -22.0
#: What is fainter than this is the noise of a converter: it is left as it is.
SILENT: Final = -85.0


def gain_of(samples: Samples) -> float:
    """The factor that brings a quiet recording to the level of ordinary speech; 1 for what is loud enough, or silent.

    Args:
        samples: float32 mono at 16 kHz (samples,), read block by block.
    """
    level = loudness(samples)
    if not SILENT < level < QUIET:
        return 1.0
    return float(10 ** ((RAISED_TO - level) / 20))


def loudness(samples: Samples) -> float:
    """The level that a recording reaches for a second in all, or at most, in dB of full scale; -inf for silence."""
    powers = np.concatenate(
        [_powers(samples[at : at + BLOCK]) for at in range(0, len(samples), BLOCK)] or [np.zeros(1)]
    )
    rank = min(len(powers), round(LOUD_FOR * SAMPLE_RATE / FRAME))
    loud = np.partition(powers, len(powers) - rank)[len(powers) - rank]
    return float(10 * np.log10(loud)) if loud > 0 else float("-inf")


def frame_powers(samples: Samples) -> np.ndarray:
    """Mean square of each frame of 32 ms (frames,)."""
    blocks = [_powers(samples[at : at + BLOCK]) for at in range(0, len(samples), BLOCK)]
    return np.concatenate(blocks) if blocks else np.zeros(0)


def _powers(block: np.ndarray) -> np.ndarray:
    """Mean square of each frame (frames,); the last one is filled up with silence."""
    frames: np.ndarray = np.pad(block, (0, -len(block) % FRAME)).reshape(-1, FRAME).astype(np.float64)
    means: np.ndarray = np.square(frames).mean(1)
    return means


class Raised:
    """Samples made louder by a factor, within full scale, slice by slice."""

    def __init__(self, samples: Samples, gain: float) -> None:
        self._samples, self._gain = samples, gain

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, part: slice) -> np.ndarray:
        louder: np.ndarray = np.clip(self._samples[part] * np.float32(self._gain), -1.0, 1.0)
        return louder


def raised(samples: Samples, gain: float) -> Samples:
    """The samples made louder by a factor; themselves when it is 1."""
    return samples if gain == 1.0 else Raised(samples, gain)
