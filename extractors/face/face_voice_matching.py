"""Which faces belong to which voices: whose mouth moves, or who is in view alone, while who speaks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from emopipe.extractors.face.mouth import AROUND, frame_step, in_step, movement, talking, talks

#: Start and end in seconds, and the number of who speaks.
Talk = tuple[float, float, int]
#: Log odds that a face is a speaker's, by (speaker, track).
Odds = Mapping[tuple[int, int], float]

#: Probability that a speaker is behind the camera, before anything is known: a lone one, and one of several.
UNSEEN: Final = 0.2
UNSEEN_OF_SEVERAL: Final = 0.65
#: A face becomes a speaker's when it is theirs with this probability: somebody else's face is twice as bad as none. In
#: 24 generated galleries of nine (`benchmarks/gallery.py --tune`) the speaker's own face has 0.95 and more, and where
#: it is left out, no other has more than 0.47.
SURE: Final = 2 / 3
#: The only face left over is that of the only one of several speakers left over unless its log odds are below this.
LEAST_ODDS: Final = -2.0
#: Log odds that a face in view alone is the speaker's, per second, and their greatest amount: cameras follow who
#: speaks, but stay on some faces whoever speaks. With a lone speaker, that says little.
ALONE: Final = 0.5
MOST_ALONE: Final = 6.0
MOST_ALONE_LONE: Final = 1.5
#: A mouth is the one that a voice comes from when the log odds that it talks all the while are more than this. In eight
#: generated interviews they are at most 1.3 for another's mouth, and 3.9 to 10 for the right one but for two that
#: hardly move (-6.4 and -3.0).
OWN_MOUTH: Final = 3.0
#: A mouth whose log odds of talking are beyond this in a frame is taken to talk, or to be silent; one that talks in
#: another's place has twice as much more.
CLEAR: Final = 0.7
#: Frames and share of the speech seen that several people must have talked in to count.
LEAST_FRAMES: Final = 8
LEAST_SHARE: Final = 0.08
#: A mouth talks when it moves clearly in so many times more of the frames with speech than of those without; of the
#: latter one is added in which so much of it moves. Restless mouths of generated galleries reach 1.9.
CALMER: Final = 2.0
FEW: Final = 0.1
#: Who is seen in fewer frames than this share of those of the face that is seen most passes by.
PASSING: Final = 0.1
#: A face whose middle varies by less than this share of its size hangs on the wall; live ones vary by 0.6 % and more
#: in three seconds.
UNMOVED: Final = 0.004
#: The number of who speaks where nobody does, and where it is not clear.
NOBODY, UNCLEAR = -1, -2


def faces_of_speakers(table: pa.Table, talk: Sequence[Talk]) -> dict[int, tuple[int, ...]]:
    """The tracks of each speaker's face; speakers who are not seen to talk are left out.

    A track goes to whoever speaks while its mouth moves, unless a face beside it is nearly as likely to be theirs, and
    to nobody when its mouth does not move with speech. Two tracks that are seen at once are not one person's.

    Without such evidence, what is left over decides: the one face left over belongs to the one of several speakers
    who is left over unless its mouth clearly tells otherwise (some mouths hardly move), and the only face of a
    recording belongs to its only speaker. Pictures on the wall and people who pass by are not left over.

    Args:
        table: a face table.
        talk: stretches in which one person alone speaks, in order.
    """
    speakers = sorted({number for *_, number in talk})
    if table.num_rows == 0 or not speakers:
        return {}
    odds, lasting = _odds_by_track(table, talk), _lasting_faces(table)
    tracks_of = _faces_that_talk(odds, _seen_together(table), len(lasting))
    taken = {track for tracks in tracks_of.values() for track in tracks}
    lonely = [speaker for speaker in speakers if speaker not in tracks_of]
    spare = [track for track in lasting if track not in taken]
    if len(lonely) == len(spare) == 1 and (len(speakers) == 1 or odds[lonely[0], spare[0]] > LEAST_ODDS):
        tracks_of[lonely[0]] = spare
    return {speaker: tuple(sorted(tracks_of[speaker])) for speaker in speakers if speaker in tracks_of}


def _faces_that_talk(odds: Odds, beside: Mapping[int, set[int]], faces: int) -> dict[int, list[int]]:
    """Speaker -> the tracks whose mouths move with them, the likeliest first; so many faces may be theirs."""
    unseen = UNSEEN_OF_SEVERAL if len({speaker for speaker, _ in odds}) > 1 else UNSEEN
    each = (1 - unseen) / max(1, faces)
    found: dict[int, list[int]] = {}
    taken: set[int] = set()
    for (speaker, track), total in sorted(odds.items(), key=lambda item: -item[1]):
        if track in taken or beside[track] & set(found.get(speaker, ())):
            continue
        theirs = each * np.exp([total, *_rivals(odds, speaker, beside[track] - taken)])
        if theirs[0] > SURE * (unseen + theirs.sum()):
            found.setdefault(speaker, []).append(track)
            taken.add(track)
    return found


def _rivals(odds: Odds, speaker: int, tracks: Iterable[int]) -> list[float]:
    """Log odds that these tracks are the speaker's, of those that are not likelier to be somebody else's."""
    others = {number for number, _ in odds} - {speaker}
    return [
        odds[speaker, track] for track in tracks if all(odds[other, track] <= odds[speaker, track] for other in others)
    ]


def _lasting_faces(table: pa.Table) -> list[int]:
    """The tracks that may be the face of somebody who speaks though their mouth hardly moves.

    Those are all that are seen for some time and are not pictures on the wall; if all are, the largest.
    """
    numbers, counts = np.unique(table["track"].to_numpy(), return_counts=True)
    lasting = [int(track) for track, count in zip(numbers, counts, strict=True) if count >= PASSING * counts.max()]
    live = [track for track in lasting if not _is_picture(table, track)]
    return live if live or len(lasting) > 1 else lasting


def _is_picture(table: pa.Table, track: int) -> bool:
    """Whether a face does not move at all."""
    rows = table["track"].to_numpy() == track
    low, high = (np.column_stack([_column(table, f"{axis}{side}")[rows] for axis in "xy"]) for side in (0, 1))
    varies = ((low + high) / 2).std(0) / (high - low).mean(0)
    return bool(np.nanmax(varies, initial=0.0) < UNMOVED)


def _column(table: pa.Table, name: str) -> np.ndarray:
    values: np.ndarray = table[name].to_numpy(zero_copy_only=False).astype(np.float64)
    return values


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
    talk = [(start, end, 0) for start, end in speech]
    odds, heard = talking(movement(table)), _speaker_at(times, talk) == 0
    if not heard.any():
        return Talkers()
    needed = max(LEAST_FRAMES, LEAST_SHARE * len(np.unique(times[heard])))
    still = _clear_speaker_at(times, talk) == NOBODY
    moving = [track for track in np.unique(tracks).tolist() if _moves_with(odds, tracks == track, heard, still, needed)]
    by_track = _by_frame(times[heard], tracks[heard], odds[heard])
    in_turn = set()
    for track in moving:
        others = np.full(len(by_track[track]), -np.inf)
        for other in moving:
            if other != track:
                others = np.maximum(others, by_track[other])
        in_its_place = (by_track[track] > CLEAR) & (by_track[track] > others + 2 * CLEAR)
        if np.count_nonzero(in_its_place) >= needed:
            in_turn.add(track)
    silent = np.count_nonzero(np.max(list(by_track.values()), axis=0) < -CLEAR)
    beside = _seen_together(table)
    return Talkers(
        several=len(in_turn) > 1 or (len(in_turn) == 1 and bool(silent >= needed)),
        least=2 if any(beside[track] & in_turn for track in in_turn) else 1,
    )


def _moves_with(odds: np.ndarray, rows: np.ndarray, heard: np.ndarray, still: np.ndarray, needed: float) -> bool:
    """Whether a mouth talks clearly in some of the frames with speech, and hardly ever in those without.

    Args:
        odds: log odds of talking (rows,).
        rows: the mouth's own (rows,).
        heard, still: frames with speech, and clearly without (rows,).
        needed: so many frames count.
    """
    clear = odds > CLEAR
    often = int(np.count_nonzero(clear & rows & heard))
    share = often / max(1, int(np.count_nonzero(rows & heard)))
    share_still = (int(np.count_nonzero(clear & rows & still)) + FEW) / (int(np.count_nonzero(rows & still)) + 1)
    return bool(often >= needed and share > CALMER * share_still)


def _by_frame(times: np.ndarray, tracks: np.ndarray, odds: np.ndarray) -> dict[int, np.ndarray]:
    """Track -> its log odds of talking in each frame, minus infinity where it is not seen."""
    stamps, frame = np.unique(times, return_inverse=True)
    found = {}
    for track in np.unique(tracks).tolist():
        found[track] = np.full(len(stamps), -np.inf)
        found[track][frame[tracks == track]] = odds[tracks == track]
    return found


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
        mouth = _mouth_of(number, tracks, moved, speaker, weight)
        same[number] = number if mouth is None else first.setdefault(mouth, number)
    return same


def _mouth_of(number: int, tracks: np.ndarray, moved: np.ndarray, speaker: np.ndarray, weight: float) -> int | None:
    """The track whose mouth talks all the while that somebody speaks, the one most in step if several do."""
    odds: dict[int, float] = {}
    for track in np.unique(tracks).tolist():
        own = (tracks == track) & ~np.isnan(moved) & ((speaker == number) | (speaker == NOBODY))
        speaks = speaker[own] == number
        if speaks.any() and talks(moved[own][speaks], weight) > OWN_MOUTH:
            odds[track] = in_step(moved[own], speaks, weight)
    return max(odds, key=lambda track: odds[track], default=None)


def _weight(table: pa.Table) -> float:
    """Frames tell so much of what independent ones would, since movement is measured around each."""
    return min(1.0, frame_step(table) / (2 * AROUND))


def _odds_by_track(table: pa.Table, talk: Sequence[Talk]) -> dict[tuple[int, int], float]:
    """(speaker, track) -> log odds that the track's face is the speaker's, against nobody's."""
    times, tracks, moved = table["time"].to_numpy(), table["track"].to_numpy(), movement(table)
    speaker, step, weight = _clear_speaker_at(times, talk), frame_step(table), _weight(table)
    _, place, faces = np.unique(times, return_inverse=True, return_counts=True)
    numbers = sorted({number for *_, number in talk})
    most_alone = MOST_ALONE if len(numbers) > 1 else MOST_ALONE_LONE
    odds: dict[tuple[int, int], float] = {}
    for track in np.unique(tracks).tolist():
        own = tracks == track
        heard = own & (speaker != UNCLEAR) & ~np.isnan(moved)
        alone = speaker[own & (speaker >= 0) & (faces[place] == 1)]
        for number in numbers:
            shown = ALONE * step * (2 * np.count_nonzero(alone == number) - len(alone))
            mouth = in_step(moved[heard], speaker[heard] == number, weight)
            odds[number, track] = mouth + float(np.clip(shown, -most_alone, most_alone))
    return odds


def _speaker_at(times: np.ndarray, talk: Sequence[Talk]) -> np.ndarray:
    """The number of who speaks at each time, or NOBODY."""
    starts = np.array([start for start, _, _ in talk])
    ends = np.array([end for _, end, _ in talk])
    numbers = np.array([number for *_, number in talk], np.int64)
    if not len(starts):
        return np.full(len(times), NOBODY)
    at = np.clip(np.searchsorted(starts, times, side="right") - 1, 0, None)
    inside = (times >= starts[at]) & (times <= ends[at])
    speakers: np.ndarray = np.where(inside, numbers[at], NOBODY)
    return speakers


def _clear_speaker_at(times: np.ndarray, talk: Sequence[Talk]) -> np.ndarray:
    """The number of who speaks at each time, or NOBODY; UNCLEAR when that is another shortly before or after.

    Who speaks may pause shortly before or after.
    """
    now, *around = (_speaker_at(times + shift, talk) for shift in (0.0, -AROUND, AROUND))
    clear = [(one == now) | ((one == NOBODY) & (now != NOBODY)) for one in around]
    return np.where(clear[0] & clear[1], now, UNCLEAR)


def _seen_together(table: pa.Table) -> dict[int, set[int]]:
    """Track -> the tracks that some frame shows beside it."""
    times, tracks = table["time"].to_numpy(), table["track"].to_numpy()
    beside: dict[int, set[int]] = {int(track): set() for track in np.unique(tracks)}
    for rows in np.split(np.arange(len(times)), np.flatnonzero(np.diff(times)) + 1):
        seen = {int(track) for track in tracks[rows]}
        for track in seen:
            beside[track] |= seen - {track}
    return beside
