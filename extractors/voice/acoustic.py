"""Classical acoustic features with librosa, all from one short-time Fourier transform."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from emopipe.constants import SAMPLE_RATE

HOP: Final = 160
FRAME: Final = 512
PITCH_FRAME: Final = 1024
LOWEST_PITCH: Final = 65.0
HIGHEST_PITCH: Final = 500.0
#: A frame is voiced when the sound one pitch period later resembles it at least this much (correlation).
VOICED_ABOVE: Final = 0.5
MFCCS: Final = 20
MEL_BANDS: Final = 26

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
    import librosa
    from librosa import feature

    magnitude = np.abs(librosa.stft(samples, n_fft=FRAME, hop_length=HOP))
    power = magnitude**2
    mel = librosa.power_to_db(feature.melspectrogram(S=power, sr=SAMPLE_RATE, n_mels=64), top_db=None)
    mfcc = feature.mfcc(S=mel, n_mfcc=MFCCS)
    level = librosa.power_to_db(power.mean(0), amin=1e-12, top_db=None)
    loud = np.percentile(level, 90)
    bands = librosa.power_to_db(feature.melspectrogram(S=power, sr=SAMPLE_RATE, n_mels=MEL_BANDS), top_db=None)
    pitch, voiced = _pitch(samples, magnitude.shape[1])
    columns = np.vstack(
        [
            mfcc,
            feature.delta(mfcc, mode="nearest"),
            bands - np.percentile(bands, 90),
            feature.spectral_contrast(S=magnitude, sr=SAMPLE_RATE, n_bands=5),
            level - loud,
            feature.zero_crossing_rate(samples, frame_length=FRAME, hop_length=HOP)[0],
            feature.spectral_centroid(S=magnitude, sr=SAMPLE_RATE)[0] / 1000,
            feature.spectral_rolloff(S=magnitude, sr=SAMPLE_RATE)[0] / 1000,
            librosa.power_to_db(feature.spectral_flatness(S=magnitude)[0], top_db=None),
            librosa.onset.onset_strength(S=mel, sr=SAMPLE_RATE, hop_length=HOP),
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
    import librosa

    hertz = librosa.yin(
        samples, fmin=LOWEST_PITCH, fmax=HIGHEST_PITCH, sr=SAMPLE_RATE, frame_length=PITCH_FRAME, hop_length=HOP
    )[:frames]
    voiced = _periodicity(samples, hertz) >= VOICED_ABOVE
    return np.where(voiced, 12 * np.log2(hertz / LOWEST_PITCH), np.nan), voiced.astype(np.float32)


def _periodicity(samples: np.ndarray, hertz: np.ndarray) -> np.ndarray:
    """Correlation of each frame with itself one pitch period later (frames,), 0 for silence."""
    import librosa

    padded = np.pad(samples, (PITCH_FRAME // 2, PITCH_FRAME))
    frames = librosa.util.frame(padded, frame_length=PITCH_FRAME, hop_length=HOP)[:, : len(hertz)].T
    lag = np.round(SAMPLE_RATE / hertz).astype(int)
    width = PITCH_FRAME // 2
    here = frames[:, :width]
    later = np.take_along_axis(frames, lag[:, None] + np.arange(width), axis=1)
    norm = np.sqrt((here**2).sum(1) * (later**2).sum(1))
    alike: np.ndarray = np.divide((here * later).sum(1), norm, out=np.zeros(len(hertz)), where=norm > 1e-6)
    return alike
