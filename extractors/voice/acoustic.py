"""Classical acoustic features as librosa defines them, all from one short-time Fourier transform."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from emopipe.constants import SAMPLE_RATE
from emopipe.extractors.voice import spectral

HOP: Final = 160
FRAME: Final = 512
PITCH_FRAME: Final = 1024
LOWEST_PITCH: Final = 65.0
HIGHEST_PITCH: Final = 500.0
#: A frame is voiced when the sound one pitch period later resembles it at least this much (correlation).
VOICED_ABOVE: Final = 0.5
MFCCS: Final = 20
MEL_BANDS: Final = 26
#: Frames by which librosa shifts onsets when its own spectrum is not asked for; checkpoints were trained with it.
ONSET_DELAY: Final = 6

#: Column -> unit. `level` is relative to the recording's own loud frames, so that microphone gain does not matter.
UNITS: Final = {
    **{f"mfcc_{i:02d}": "1" for i in range(MFCCS)},
    **{f"mfcc_delta_{i:02d}": "1 per frame" for i in range(MFCCS)},
    **{f"mel_{i:02d}": "dB below the loud frames" for i in range(MEL_BANDS)},
    **{f"contrast_{i}": "dB" for i in range(6)},
    "level": "dB below the loud frames",
    "zero_crossings": "share of samples",
    "centroid": "kHz",
    "rolloff": "kHz",
    "flatness": "dB",
    "flux": "dB per frame",
    "pitch": "semitones above 65 Hz, null when unvoiced",
    "voiced": "0 or 1",
}
COLUMNS: Final = tuple(UNITS)
SCHEMA: Final = pa.schema(
    [pa.field("time", pa.float64(), metadata={"unit": "s"})]
    + [pa.field(name, pa.float32(), metadata={"unit": unit}) for name, unit in UNITS.items()]
)


def acoustic_features(samples: np.ndarray, start: float = 0.0) -> pa.Table:
    """Frame-wise acoustic features, one row per 10 ms.

    Args:
        samples: float32 mono at 16 kHz (samples,), at least one frame (512 samples) long.
        start: seconds of the first sample on the media clock.

    Returns:
        A table with the columns of :data:`SCHEMA`.

    Raises:
        ValueError: fewer than 512 samples.
    """
    if len(samples) < FRAME:
        raise ValueError(f"{len(samples)} samples are too few for acoustic features; at least {FRAME} are needed")
    magnitude = spectral.magnitudes(samples, FRAME, HOP)
    power = magnitude**2
    mel = spectral.decibels(spectral.mel_filters(FRAME, 64) @ power)
    mfcc = spectral.cepstrum(mel, MFCCS)
    level = spectral.decibels(power.mean(0), floor=1e-12)
    loud = np.percentile(level, 90)
    bands = spectral.decibels(spectral.mel_filters(FRAME, MEL_BANDS) @ power)
    pitch, voiced = _pitch(samples, magnitude.shape[1])
    columns = np.vstack(
        [
            mfcc,
            spectral.delta(mfcc),
            bands - np.percentile(bands, 90),
            spectral.contrast(magnitude, octaves=5),
            level - loud,
            spectral.zero_crossings(samples, FRAME, HOP),
            spectral.centroid(magnitude) / 1000,
            spectral.rolloff(magnitude) / 1000,
            spectral.decibels(spectral.flatness(magnitude)),
            spectral.onsets(mel, ONSET_DELAY),
            pitch,
            voiced,
        ]
    ).astype(np.float32)
    times = start + np.arange(magnitude.shape[1]) * HOP / SAMPLE_RATE
    return pa.Table.from_arrays(
        [pa.array(times), *(pa.array(column, from_pandas=True) for column in columns)], schema=SCHEMA
    )


def _pitch(samples: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Pitch by YIN in semitones above 65 Hz (NaN when unvoiced) and voicing (0 or 1), each (frames,)."""
    hertz = spectral.yin(samples, LOWEST_PITCH, HIGHEST_PITCH, PITCH_FRAME, HOP)[:frames]
    voiced = _periodicity(samples, hertz) >= VOICED_ABOVE
    return np.where(voiced, 12 * np.log2(hertz / LOWEST_PITCH), np.nan), voiced.astype(np.float32)


def _periodicity(samples: np.ndarray, hertz: np.ndarray) -> np.ndarray:
    """Correlation of each frame with itself one pitch period later (frames,), 0 for silence."""
    padded = np.pad(samples, (PITCH_FRAME // 2, PITCH_FRAME))
    frames = spectral.framed(padded, PITCH_FRAME, HOP)[: len(hertz)]
    lag = np.round(SAMPLE_RATE / hertz).astype(int)
    width = PITCH_FRAME // 2
    here = frames[:, :width]
    later = np.take_along_axis(frames, lag[:, None] + np.arange(width), axis=1)
    norm = np.sqrt((here**2).sum(1) * (later**2).sum(1))
    alike: np.ndarray = np.divide((here * later).sum(1), norm, out=np.zeros(len(hertz)), where=norm > 1e-6)
    return alike
