"""Two people in conversation, with known turns: a voice and a face each, filmed in one of three ways.

`write_conversation` puts given sounds and portraits together; `spoken_parts` lets one synthetic voice speak in two
pitches. What is right is known to the sample: who speaks when, and who is on the screen.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from puppet import Image, Puppet, sways
from scipy.signal import resample_poly
from synthetic import SAMPLE_RATE, trim, write_video

Floats = NDArray[np.float32]
Layout = Literal["pair", "cuts", "one"]

INTERVIEWER, INTERVIEWEE = 0, 1


@dataclass(frozen=True)
class Part:
    """Something to say: who (0 or 1), the sound at SAMPLE_RATE, seconds of silence before (negative: too early)."""

    person: int
    sound: Floats
    pause: float
    text: str = ""


@dataclass(frozen=True)
class Said:
    """A part with its place in the clip, in seconds."""

    start: float
    end: float
    person: int
    text: str = ""


@dataclass(frozen=True)
class Shot:
    """Who is on the screen from `start` to `end` seconds, from left to right."""

    start: float
    end: float
    people: tuple[int, ...]


def spoken_parts(lines: Sequence[tuple[int, str, float]], pitches: tuple[float, float]) -> list[Part]:
    """Say (person, text, pause before) with hibari's voice, raised or lowered for each person.

    Args:
        lines: what is said.
        pitches: factor on pitch and formants of each person; the tempo stays.
    """
    from hibari import Hibari  # type: ignore[import-untyped]

    voice = Hibari()
    parts = []
    for person, text, pause in lines:
        factor = pitches[person]
        breath = np.zeros(SAMPLE_RATE // 5, np.float32)
        waves = [trim(wave) for wave in voice.stream(text, speed=min(1.25, max(0.8, 1 / factor)), seed=0)]
        wave = np.concatenate([part for one in waves for part in (breath, one)][1:])
        parts.append(Part(person, shifted(wave, factor), pause, text))
    return parts


def shifted(wave: Floats, factor: float) -> Floats:
    """The wave played `factor` times as fast, so that pitch and formants rise by as much."""
    return np.asarray(resample_poly(wave, 100, round(100 * factor)), np.float32)


def mixed(parts: Sequence[Part], lead: float = 0.8) -> tuple[list[Floats], list[Said]]:
    """The track of each person, and when each part is heard. Sounds are brought to the same level."""
    said, time = [], lead
    for part in parts:
        start = max(0.0, time + part.pause)
        said.append(Said(start, start + len(part.sound) / SAMPLE_RATE, part.person, part.text))
        time = max(time, said[-1].end)
    tracks = [np.zeros(round((time + 0.7) * SAMPLE_RATE), np.float32) for _ in range(2)]
    for part, place in zip(parts, said, strict=True):
        first = round(place.start * SAMPLE_RATE)
        level = np.sqrt(np.mean(part.sound**2)) + 1e-9
        tracks[part.person][first : first + len(part.sound)] += part.sound * np.float32(0.07 / level)
    return tracks, said


def shots(said: Sequence[Said], seconds: float, layout: Layout, seed: int) -> list[Shot]:
    """What the camera does: shows both, shows whoever speaks (now and then the listener), or the interviewee alone."""
    if layout == "pair":
        return [Shot(0.0, seconds, (INTERVIEWER, INTERVIEWEE))]
    if layout == "one":
        return [Shot(0.0, seconds, (INTERVIEWEE,))]
    chance = np.random.default_rng(seed)
    cuts: list[Shot] = []
    for first, last in _runs(said):
        person, end = first.person, last.end
        start = cuts[-1].end if cuts else 0.0
        if end - first.start > 6 and chance.random() < 0.4:
            middle = (first.start + end) / 2
            cuts += [Shot(start, middle, (person,)), Shot(middle, middle + 1.5, (1 - person,))]
            start = middle + 1.5
        cuts.append(Shot(start, end + 0.1, (person,)))
    return [*cuts[:-1], Shot(cuts[-1].start, seconds, cuts[-1].people)]


def _runs(said: Sequence[Said]) -> Iterator[tuple[Said, Said]]:
    """First and last part of each turn."""
    for _, own in itertools.groupby(said, key=lambda one: one.person):
        turn = list(own)
        yield turn[0], turn[-1]


def openings(track: Floats, frames: int, fps: float, seed: int) -> Floats:
    """How far the mouth is open in each frame, 0 to 1: by loudness, and a little now and then when silent."""
    hop = SAMPLE_RATE / fps
    power = np.concatenate([[0.0], np.cumsum(track.astype(np.float64) ** 2)])
    edges = np.minimum((np.arange(frames + 1) * hop).astype(int), len(track))
    level = np.sqrt(np.diff(power[edges]) / hop)
    mouth = np.clip(level / 0.13, 0, 1) ** 0.7
    chance = np.random.default_rng(seed)
    for time in np.cumsum(chance.uniform(4, 9, int(frames / fps / 4) + 1)):
        first = int(time * fps)
        mouth[first : first + int(0.4 * fps)] = np.maximum(mouth[first : first + int(0.4 * fps)], 0.2)
    return np.asarray(mouth, np.float32)


def write_conversation(
    path: Path, puppets: Sequence[Puppet], parts: Sequence[Part], layout: Layout, seed: int = 0, fps: int = 25
) -> tuple[list[Said], list[Shot]]:
    """Write the clip; returns who speaks when, and who is seen when."""
    tracks, said = mixed(parts)
    seconds = len(tracks[0]) / SAMPLE_RATE
    takes = shots(said, seconds, layout, seed)
    noise = np.random.default_rng(seed).normal(0, 1e-3, len(tracks[0])).astype(np.float32)
    sound = np.clip(tracks[0] + tracks[1] + noise, -1, 1)
    write_video(path, _frames(puppets, tracks, takes, int(seconds * fps), fps, seed), fps, sound, crf=24)
    return said, takes


def _frames(
    puppets: Sequence[Puppet], tracks: Sequence[Floats], takes: Sequence[Shot], frames: int, fps: int, seed: int
) -> Iterator[Image]:
    mouths = [openings(track, frames, fps, seed + person) for person, track in enumerate(tracks)]
    heads = [list(sways(frames, fps, seed + 7 * person)) for person in range(len(tracks))]
    for frame in range(frames):
        take = next((one for one in takes if one.end > frame / fps), takes[-1])
        views = [puppets[one].draw(float(mouths[one][frame]), heads[one][frame]) for one in take.people]
        yield np.concatenate(views, axis=1)
