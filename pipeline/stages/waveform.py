"""Waveform: how far the sound of a source swings, for its picture on pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from emopipe.constants import SAMPLE_RATE
from emopipe.pipeline.media.sound import Sound
from emopipe.pipeline.stages.stage import Context, Inputs, Stage

#: Peaks a second.
PEAK_RATE: Final = 20
#: Peaks measured at once.
_AT_ONCE: Final = 60 * PEAK_RATE


class WaveformInputs(Inputs):
    """The sound."""

    sound: Sound | None


@dataclass(frozen=True)
class Waveform:
    """The greatest absolute sample of each twentieth of a second, in the column `peak`; empty without sound."""

    waveform: pa.Table


def measure_waveform(inputs: WaveformInputs, context: Context) -> Waveform:
    """Measure the envelope of the sound."""
    return Waveform(pa.table({"peak": pa.array(peaks(inputs.sound), pa.float32())}))


def peaks(sound: Sound | None) -> np.ndarray:
    """The greatest absolute sample of each twentieth of a second, the last of which may be shorter; float32 (n,)."""
    samples = SAMPLE_RATE // PEAK_RATE
    parts = [np.zeros(0, np.float32)]
    if sound is None:
        return parts[0]
    for start in range(0, len(sound), _AT_ONCE * samples):
        part = np.abs(sound[start : start + _AT_ONCE * samples])
        parts.append(np.pad(part, (0, -len(part) % samples)).reshape(-1, samples).max(axis=1))
    return np.concatenate(parts)


WAVEFORM: Final = Stage(
    "waveform",
    1,
    WaveformInputs,
    Waveform,
    measure_waveform,
    modalities=("voice", "text"),
    signals=("sound_media",),
)
