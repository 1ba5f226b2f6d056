"""Who speaks when where each person has a microphone: voice activity by track, without what bleeds over."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from emopipe.constants import SAMPLE_RATE
from emopipe.extractors.contracts import Interval, Samples, Turn
from emopipe.extractors.speech.level import FRAME, LOUD_FOR, frame_powers, gain_of, loudness, raised

if TYPE_CHECKING:
    from emopipe.extractors.speech.vad import VoiceActivity

#: Length of a frame, in seconds.
STEP: Final = FRAME / SAMPLE_RATE
#: Levels are compared over so many frames around each, 0.22 s: longer than the way of sound through a room.
AROUND: Final = 7
#: What is fainter than on another track by this, in dB, is that track's speaker, heard from afar.
BLEED: Final = 8.0
#: A microphone may be set so much fainter than the loudest, in dB.
GAIN_DIFFERENCE: Final = 12.0
#: But somebody speaks into it only when, for a second in all, none other is louder by more than this, in dB.
AS_LOUD: Final = 3.0
#: A pause or a sound within a turn is at least so long, in seconds.
LEAST: Final = 0.25


def turns_of_tracks(tracks: Sequence[Samples], vad: VoiceActivity) -> list[Turn]:
    """Turns in order of their starts; the speaker's number is that of the track. Turns of several people may overlap.

    The same speech, heard more faintly on another track, is left out there. Microphones may be set differently loud.

    Args:
        tracks: float32 mono at 16 kHz (samples,), on one clock, one for each person.
        vad: finds speech.
    """
    if not tracks:
        return []
    count = max(len(track) for track in tracks) // FRAME + 1
    speech = np.array([_speaking(vad.segments(raised(track, gain_of(track))), count) for track in tracks])
    levels = _calibrated(np.array([_levels(track, count) for track in tracks]), speech, tracks)
    own = [_settled(speech[at] & ~_bled(levels, at, BLEED), speech[at]) for at in range(len(tracks))]
    shared = np.sum(own, axis=0) > 1
    turns = [
        Turn(start * STEP, end * STEP, person, bool(shared[start]))
        for person, frames in enumerate(own)
        for start, end in _runs(frames.astype(int) + (frames & shared))
    ]
    return sorted(turns, key=lambda turn: (turn.start, turn.person))


def _speaking(segments: Sequence[Interval], count: int) -> np.ndarray:
    """In which frames there is speech (frames,)."""
    frames = np.zeros(count, bool)
    for start, end in segments:
        frames[round(start / STEP) : round(end / STEP)] = True
    return frames


def _levels(track: Samples, count: int) -> np.ndarray:
    """Level around each frame in dB of full scale (frames,)."""
    levels = np.full(count, -np.inf)
    powers = np.convolve(frame_powers(track), np.ones(AROUND) / AROUND, "same")[:count] if len(track) else np.zeros(0)
    with np.errstate(divide="ignore"):
        levels[: len(powers)] = 10 * np.log10(np.maximum(powers, 0.0))
    return levels


def _calibrated(levels: np.ndarray, speech: np.ndarray, tracks: Sequence[Samples]) -> np.ndarray:
    """Levels (tracks, frames) as if all microphones were set equally loud."""
    loud = np.array([loudness(track) for track in tracks])
    calibrated = levels.copy()
    for at in range(len(tracks)):
        speaks = (speech[at] & ~_bled(levels, at, AS_LOUD)).sum() * STEP >= LOUD_FOR
        if speaks and np.isfinite(loud[at]):
            calibrated[at] += min(loud.max() - loud[at], GAIN_DIFFERENCE)
    return calibrated


def _bled(levels: np.ndarray, at: int, by: float) -> np.ndarray:
    """In which frames a track is fainter than another by so many dB (frames,)."""
    others = np.delete(levels, at, axis=0)
    fainter: np.ndarray = others.max(0, initial=-np.inf) > levels[at] + by
    return fainter


def _settled(frames: np.ndarray, speech: np.ndarray) -> np.ndarray:
    """Frames of which short gaps within speech are filled, and short runs left out."""
    settled = frames.copy()
    for start, end in _runs((speech & ~frames).astype(int)):
        if (end - start) * STEP < LEAST and start > 0 and end < len(frames) and frames[start - 1] and frames[end]:
            settled[start:end] = True
    for start, end in _runs(settled.astype(int)):
        if (end - start) * STEP < LEAST:
            settled[start:end] = False
    return settled


def _runs(values: np.ndarray) -> list[tuple[int, int]]:
    """First and past-the-end index of each run of one value other than 0."""
    edges = np.flatnonzero(np.diff(values, prepend=0, append=0))
    return [(a, b) for a, b in pairwise(edges.tolist()) if values[a]]
