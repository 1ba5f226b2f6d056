"""Which faces belong to which voices: whose mouth moves, or who is in view alone, while who speaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from emopipe.extractors.face.mouth import AROUND, frame_step, movement, talking, talks_with
from emopipe.extractors.face.table import subject_track

#: Start and end in seconds, and the number of who speaks.
Talk = tuple[float, float, int]

#: A face becomes a speaker's when the log odds that it talks with them are more than this; as the only one left over,
#: when they are more than its negative.
LEAST_ODDS: Final = 2.0
#: Log odds that a face in view alone is the speaker's, per second, and their greatest amount: cameras follow who
#: speaks, but stay on some faces whoever speaks.
ALONE: Final = 0.5
MOST_ALONE: Final = 6.0
#: A lone speaker's face is the largest one, unless another talks with this much more log odds.
MUCH_LIKELIER: Final = 6.0
#: A mouth is the one that a voice comes from when the log odds that it talks all the while are more than this. In eight
#: generated interviews they are at most 1.3 for another's mouth, and 3.9 to 10 for the right one but for two that
#: hardly move (-6.4 and -3.0).
OWN_MOUTH: Final = 3.0
#: A mouth whose log odds of talking are beyond this in a frame is taken to talk, or to be silent.
CLEAR: Final = 0.7
#: Frames and share of the speech seen that several people must have talked in to count.
LEAST_FRAMES: Final = 8
LEAST_SHARE: Final = 0.1


def faces_of_speakers(table: pa.Table, talk: Sequence[Talk]) -> dict[int, tuple[int, ...]]:
    """The tracks of each speaker's face; speakers who are never seen to talk are left out.

    With several speakers, each track goes to whoever speaks while its mouth moves, and to nobody when it never does;
    two tracks that are seen at once are not one person's. When one speaker and one face are left over, they belong
    together unless its mouth clearly tells otherwise: some mouths hardly move. A lone speaker has one face: the most
    persistent large one, unless another is far likelier to talk.

    Args:
        table: a face table.
        talk: stretches in which one person alone speaks, in order.
    """
    speakers = sorted({number for *_, number in talk})
    if table.num_rows == 0 or not speakers:
        return {}
    odds = _odds_by_track(table, talk)
    if len(speakers) == 1:
        return {speakers[0]: (_lone_face(table, odds),)}
    beside = _seen_together(table)
    found: dict[int, list[int]] = {}
    taken: set[int] = set()
    for (speaker, track), total in sorted(odds.items(), key=lambda item: -item[1]):
        if total < LEAST_ODDS or track in taken or beside[track] & set(found.get(speaker, ())):
            continue
        found.setdefault(speaker, []).append(track)
        taken.add(track)
    lonely = [speaker for speaker in speakers if speaker not in found]
    spare = [track for track in beside if track not in taken]
    if len(lonely) == len(spare) == 1 and odds[lonely[0], spare[0]] > -LEAST_ODDS:
        found[lonely[0]] = spare
    return {speaker: tuple(sorted(found[speaker])) for speaker in speakers if speaker in found}


@dataclass(frozen=True)
class Talkers:
    """What faces tell of how many people speak.

    Attributes:
        several: more than one seems to: two mouths talk, each while no other does; or during speech the mouth in view
            talks at times and is still at others.
        least: so many certainly do: 2 when two mouths talk in turn that are seen side by side, so that they cannot be
            one face lost and found; else 1.
    """

    several: bool = False
    least: int = 1


def talkers(table: pa.Table, speech: Sequence[tuple[float, float]]) -> Talkers:
    """How many people the faces of a face table tell to speak in `speech`, stretches in seconds."""
    if table.num_rows == 0:
        return Talkers()
    times, tracks = table["time"].to_numpy(), table["track"].to_numpy()
    heard = _speaker_at(times, [(start, end, 0) for start, end in speech]) == 0
    odds = talking(movement(table))[heard]
    if not len(odds):
        return Talkers()
    _, frame = np.unique(times[heard], return_inverse=True)
    highest = np.full(frame.max() + 1, -np.inf)
    np.maximum.at(highest, frame, odds)
    needed = max(LEAST_FRAMES, LEAST_SHARE * len(highest))
    clear = tracks[heard][(odds > CLEAR) & (odds >= highest[frame])]
    found = {int(track) for track in np.unique(clear) if np.count_nonzero(clear == track) >= needed}
    silent = np.count_nonzero(highest < -CLEAR)
    beside = _seen_together(table)
    return Talkers(
        several=len(found) > 1 or (len(found) == 1 and bool(silent >= needed)),
        least=2 if any(beside[track] & found for track in found) else 1,
    )


def one_mouth(table: pa.Table, talk: Sequence[Talk]) -> dict[int, int]:
    """Each speaker -> the first whose mouth theirs is: voices change with emotions, a face does not.

    Args:
        table: a face table.
        talk: stretches in which one person alone speaks, in order.
    """
    numbers = sorted({number for *_, number in talk})
    if table.num_rows == 0:
        return {number: number for number in numbers}
    tracks, moved = table["track"].to_numpy(), movement(table)
    speaker, weight = _clear_speaker_at(table["time"].to_numpy(), talk), _weight(table)
    first: dict[int, int] = {}
    same: dict[int, int] = {}
    for number in numbers:
        heard = (speaker == number) & ~np.isnan(moved)
        odds = {
            int(track): talks_with(own, np.ones(len(own), bool), weight)
            for track in np.unique(tracks[heard])
            if len(own := moved[heard & (tracks == track)])
        }
        mouth = max(odds, key=lambda track: odds[track], default=-1)
        same[number] = first.setdefault(mouth, number) if odds.get(mouth, 0.0) > OWN_MOUTH else number
    return same


def _weight(table: pa.Table) -> float:
    """Frames tell so much of what independent ones would, since movement is measured around each."""
    return min(1.0, frame_step(table) / (2 * AROUND))


def _odds_by_track(table: pa.Table, talk: Sequence[Talk]) -> dict[tuple[int, int], float]:
    """(speaker, track) -> log odds that the track's face is the speaker's, against nobody's."""
    times, tracks, moved = table["time"].to_numpy(), table["track"].to_numpy(), movement(table)
    speaker, step, weight = _clear_speaker_at(times, talk), frame_step(table), _weight(table)
    _, place, faces = np.unique(times, return_inverse=True, return_counts=True)
    odds: dict[tuple[int, int], float] = {}
    for track in np.unique(tracks).tolist():
        heard = (tracks == track) & (speaker >= 0)
        known, alone = speaker[heard & ~np.isnan(moved)], speaker[heard & (faces[place] == 1)]
        moves = moved[heard & ~np.isnan(moved)]
        for number in sorted({number for *_, number in talk}):
            shown = ALONE * step * (2 * np.count_nonzero(alone == number) - len(alone))
            mouth = talks_with(moves, known == number, weight)
            odds[number, track] = mouth + float(np.clip(shown, -MOST_ALONE, MOST_ALONE))
    return odds


def _lone_face(table: pa.Table, odds: dict[tuple[int, int], float]) -> int:
    largest = subject_track(table)
    assert largest is not None
    by_track = {track: total for (_, track), total in odds.items()}
    likeliest = max(by_track, key=lambda track: by_track[track], default=largest)
    much = by_track.get(likeliest, 0.0) > max(0.0, by_track.get(largest, 0.0)) + MUCH_LIKELIER
    return likeliest if much else largest


def _speaker_at(times: np.ndarray, talk: Sequence[Talk]) -> np.ndarray:
    """The number of who speaks at each time, -1 for nobody."""
    starts = np.array([start for start, _, _ in talk])
    ends = np.array([end for _, end, _ in talk])
    numbers = np.array([number for *_, number in talk], np.int64)
    if not len(starts):
        return np.full(len(times), -1)
    at = np.clip(np.searchsorted(starts, times, side="right") - 1, 0, None)
    inside = (times >= starts[at]) & (times <= ends[at])
    speakers: np.ndarray = np.where(inside, numbers[at], -1)
    return speakers


def _clear_speaker_at(times: np.ndarray, talk: Sequence[Talk]) -> np.ndarray:
    """The number of who speaks at each time when nobody else does shortly before or after, else -1."""
    now, *around = (_speaker_at(times + shift, talk) for shift in (0.0, -AROUND, AROUND))
    clear = [(one == now) | (one < 0) for one in around]
    return np.where(clear[0] & clear[1], now, -1)


def _seen_together(table: pa.Table) -> dict[int, set[int]]:
    """Track -> the tracks that some frame shows beside it."""
    times, tracks = table["time"].to_numpy(), table["track"].to_numpy()
    beside: dict[int, set[int]] = {int(track): set() for track in np.unique(tracks)}
    for rows in np.split(np.arange(len(times)), np.flatnonzero(np.diff(times)) + 1):
        seen = {int(track) for track in tracks[rows]}
        for track in seen:
            beside[track] |= seen - {track}
    return beside
