"""Spectral measures and pitch of sound, each as librosa 0.11 defines it, in numpy and scipy alone.

librosa itself has numba compile parts of it: 17 s when it is first imported after installation, 2 s in every process
to load what was compiled.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Final

import numpy as np

from emopipe.constants import SAMPLE_RATE

#: Powers below this count as this much.
FLOOR: Final = 1e-10
#: Magnitude of what counts as zero between two samples.
ZERO: Final = 1e-10
#: Width of the window over which changes are measured, in frames.
DELTA_WIDTH: Final = 9
#: Spectral contrast: lowest edge of the octaves in Hz, and share of bins that are peaks, and valleys.
LOWEST_OCTAVE: Final = 200.0
QUANTILE: Final = 0.02
#: Levels further below the highest one are taken for this far, in dB.
RANGE: Final = 80.0
#: Share of the magnitudes below the roll-off frequency.
ROLLOFF: Final = 0.85
#: YIN takes the first period at which the difference is below this (de Cheveigné and Kawahara, 2002).
TROUGH: Final = 0.1


def framed(samples: np.ndarray, length: int, hop: int) -> np.ndarray:
    """Frames of sound (frames, length) that share its memory."""
    return np.lib.stride_tricks.sliding_window_view(samples, length)[::hop]


def magnitudes(samples: np.ndarray, length: int, hop: int) -> np.ndarray:
    """Magnitudes of the short-time Fourier transform, float32 (length / 2 + 1, frames), frames centred on hops."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    padded = np.pad(samples.astype(np.float32), length // 2)
    spectrum = np.fft.rfft(window * framed(padded, length, hop))
    return np.abs(spectrum.astype(np.complex64)).T


def decibels(power: np.ndarray, floor: float = FLOOR) -> np.ndarray:
    """Powers in dB."""
    return np.asarray(10 * np.log10(np.maximum(floor, power)))


@cache
def mel_filters(length: int, bands: int) -> np.ndarray:
    """Slaney's mel filters (bands, length / 2 + 1)."""
    from torchaudio.functional import melscale_fbanks

    filters = melscale_fbanks(length // 2 + 1, 0.0, SAMPLE_RATE / 2, bands, SAMPLE_RATE, "slaney", "slaney")
    return np.asarray(filters.T.numpy(), np.float32)


def cepstrum(mel: np.ndarray, coefficients: int) -> np.ndarray:
    """Cepstral coefficients (coefficients, frames) of mel bands in dB."""
    from scipy.fft import dct

    return np.asarray(dct(mel, axis=0, norm="ortho")[:coefficients])


def delta(values: np.ndarray) -> np.ndarray:
    """How fast values (rows, frames) change, by the line that fits them best over DELTA_WIDTH frames."""
    from scipy.ndimage import correlate1d

    steps = np.arange(DELTA_WIDTH) - DELTA_WIDTH // 2
    return np.asarray(correlate1d(values, steps / (steps**2).sum(), axis=-1, mode="nearest"))


def contrast(magnitude: np.ndarray, octaves: int) -> np.ndarray:
    """Peaks above valleys of the spectrum in dB, below the lowest octave and in each: (octaves + 1, frames)."""
    frequencies = _frequencies(len(magnitude))
    edges = np.concatenate([[0.0], LOWEST_OCTAVE * 2.0 ** np.arange(octaves + 1)])
    peaks, valleys = [], []
    for number, (low, high) in enumerate(pairwise(edges.tolist())):
        bins = np.flatnonzero((frequencies >= low) & (frequencies <= high))
        first = bins[0] - (number > 0)
        last = len(magnitude) - 1 if number == octaves else bins[-1]
        count = max(1, int(np.rint(QUANTILE * (last - first + 1))))
        ordered = np.sort(magnitude[first : last + (number == octaves)], axis=0)
        peaks.append(decibels(ordered[-count:].mean(0)))
        valleys.append(decibels(ordered[:count].mean(0)))
    return np.asarray(_within_range(np.stack(peaks)) - _within_range(np.stack(valleys)))


def _within_range(levels: np.ndarray) -> np.ndarray:
    """Levels in dB, none lower than RANGE below the highest."""
    return np.asarray(np.maximum(levels, levels.max() - RANGE))


def zero_crossings(samples: np.ndarray, length: int, hop: int) -> np.ndarray:
    """Share of samples of each frame at which the sign is another than before (frames,)."""
    padded = np.pad(samples, length // 2, mode="edge")
    negative = np.signbit(np.where(np.abs(padded) <= ZERO, 0.0, padded))
    crossings = np.cumsum(np.concatenate([[0], negative[1:] != negative[:-1]]))
    starts = np.arange(0, len(padded) - length + 1, hop)
    return np.asarray((crossings[starts + length - 1] - crossings[starts]) / length)


def centroid(magnitude: np.ndarray) -> np.ndarray:
    """Mean frequency in Hz, weighted by magnitude (frames,)."""
    total = magnitude.sum(0)
    weighted = (_frequencies(len(magnitude))[:, None] * magnitude).sum(0)
    return np.asarray(np.where(total < np.finfo(np.float32).tiny, weighted, weighted / np.maximum(total, 1e-37)))


def rolloff(magnitude: np.ndarray) -> np.ndarray:
    """Frequency in Hz below which most of the magnitudes lie (frames,)."""
    total = np.cumsum(magnitude, axis=0)
    return np.asarray(_frequencies(len(magnitude))[(total >= ROLLOFF * total[-1]).argmax(0)])


def flatness(magnitude: np.ndarray) -> np.ndarray:
    """How much the power is like noise, 0..1 (frames,)."""
    power = np.maximum(FLOOR, magnitude**2)
    return np.asarray(np.exp(np.log(power).mean(0)) / power.mean(0))


def onsets(mel: np.ndarray, delay: int) -> np.ndarray:
    """Mean rise of mel bands in dB from frame to frame (frames,), delayed by so many frames."""
    rise = np.maximum(0.0, np.diff(mel, axis=1)).mean(0)
    return np.concatenate([np.zeros(1 + delay, mel.dtype), rise])[: mel.shape[1]]


def yin(samples: np.ndarray, lowest: float, highest: float, length: int, hop: int) -> np.ndarray:
    """Pitch in Hz of each frame (frames,), whether it is voiced or not.

    Args:
        samples: float32 mono at 16 kHz (samples,).
        lowest, highest: between which it is sought, in Hz.
        length, hop: of frames, in samples.
    """
    shortest, longest = int(SAMPLE_RATE / highest), min(int(np.ceil(SAMPLE_RATE / lowest)), length - 1)
    differences = _differences(framed(np.pad(samples, length // 2), length, hop), shortest, longest)
    before, here, after = differences[:-2], differences[1:-1], differences[2:]
    trough = np.zeros(differences.shape, bool)
    trough[0] = differences[0] < differences[1]
    trough[1:-1] = (here < before) & (here <= after)
    trough[-1] = differences[-1] < differences[-2]
    trough &= differences < TROUGH
    period = np.where(trough.any(0), trough.argmax(0), differences.argmin(0))
    bend, slope = after + before - 2 * here, (after - before) / 2
    shifts = np.zeros_like(differences)
    np.divide(-slope, bend, out=shifts[1:-1], where=np.abs(slope) < np.abs(bend))
    return np.asarray(SAMPLE_RATE / (shortest + period + np.take_along_axis(shifts, period[None], axis=0)[0]))


def _differences(frames: np.ndarray, shortest: int, longest: int) -> np.ndarray:
    """YIN's difference of each frame from itself by period (periods, frames), as a share of its cumulative mean."""
    from scipy.fft import irfft, next_fast_len, rfft

    size = next_fast_len(2 * frames.shape[1] - 1, real=True)
    spectrum = rfft(frames, n=size)
    alike = irfft(spectrum.real**2 + spectrum.imag**2, n=size)[:, : longest + 1]
    energy = np.cumsum(np.square(frames[:, :longest]), axis=1)
    difference = 2 * (alike[:, :1] - alike[:, 1:]) - energy
    mean = (np.cumsum(difference, axis=1) / np.arange(1, longest + 1, dtype=np.float32))[:, shortest - 1 :]
    return np.asarray(difference[:, shortest - 1 :] / (mean + np.finfo(mean.dtype).tiny)).T


@cache
def _frequencies(bins: int) -> np.ndarray:
    """Frequency of each bin of a spectrum, in Hz (bins,)."""
    return np.linspace(0, SAMPLE_RATE / 2, bins)
