"""Faces keep their numbers through cuts and losses, and belong to the voices that move their mouths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from emopipe.extractors.face.appearance import CUT, SAME, distances, look
from emopipe.extractors.face.face_voice_matching import Talkers, faces_of_speakers, one_mouth, talkers
from emopipe.extractors.face.mediapipe import ANCHORS, FaceLandmarker
from emopipe.extractors.face.mouth import movement, talking
from emopipe.extractors.face.table import face_table, renumbered
from emopipe.extractors.face.tracks import TrackLinker
from emopipe.pipeline.media.decoding import Media
from tests.conftest import ROOT, SAMPLES, write_media

CLIPS = ROOT.parent / "shared" / "data" / "clips"
LEFT, RIGHT, MIDDLE = (0.1, 0.2, 0.4, 0.7), (0.6, 0.2, 0.9, 0.7), (0.3, 0.2, 0.7, 0.8)


def looks(people: int, seed: int = 0) -> np.ndarray:
    """Looks far from each other."""
    return np.random.default_rng(seed).normal(size=(people, 648)) / np.sqrt(648)


def near(one: np.ndarray, seed: int, by: float = 0.2) -> np.ndarray:
    """The same face a moment later."""
    noise = np.random.default_rng(seed).normal(size=648)
    return one + by * noise / np.linalg.norm(noise)


def test_a_face_keeps_its_number_through_cuts_to_another_at_the_same_place() -> None:
    anna, ben = looks(2)
    linker = TrackLinker()
    shown = [0, 0, 1, 1, 1, 0, 0, 1, 0]
    found = [linker.link(t / 5, [MIDDLE], [near((anna, ben)[who], t)]) for t, who in enumerate(shown)]
    assert [track for (track,) in found] == shown
    assert linker.people() == [0, 1]


def test_a_face_that_was_lost_for_long_comes_back_elsewhere_under_its_number() -> None:
    anna, ben = looks(2)
    linker = TrackLinker()
    assert linker.link(0.0, [LEFT, RIGHT], [anna, ben]) == [0, 1]
    assert linker.link(30.0, [LEFT], [near(ben, 1)]) == [1]
    assert linker.link(30.2, [LEFT, RIGHT], [near(ben, 2), near(anna, 3)]) == [1, 0]


def test_without_looks_a_long_loss_starts_a_new_number() -> None:
    linker = TrackLinker()
    assert linker.link(0.0, [MIDDLE]) == linker.link(1.5, [MIDDLE]) == [0]
    assert linker.link(9.0, [MIDDLE]) == [1]
    assert linker.people() == [0, 1]


def test_tracks_that_prove_to_be_one_face_are_joined_in_the_end() -> None:
    """A profile at first looks like a stranger; later the head turns slowly from the front to the profile."""
    front, profile = looks(2)
    linker = TrackLinker()
    assert linker.link(0.0, [MIDDLE], [front]) == [0]
    assert linker.link(5.0, [MIDDLE], [profile]) == [1]
    for step in range(11):
        linker.link(20.0 + step / 5, [MIDDLE], [front + (profile - front) * step / 10])
    assert linker.people() == [0, 0]


def test_faces_seen_side_by_side_are_never_joined() -> None:
    twin = looks(1)[0]
    linker = TrackLinker()
    assert linker.link(0.0, [LEFT, RIGHT], [near(twin, 1, 0.1), near(twin, 2, 0.1)]) == [0, 1]
    assert linker.link(0.2, [LEFT, RIGHT], [near(twin, 3, 0.1), near(twin, 4, 0.1)]) == [0, 1]
    assert linker.people() == [0, 1]


def gallery(people: int, columns: int = 3) -> np.ndarray:
    """Boxes of a gallery's tiles."""
    places = np.array([(index % columns, index // columns) for index in range(people)]) / columns
    return np.hstack([places + 0.05, places + 0.25])


def test_nine_people_keep_their_numbers_when_a_gallery_is_rearranged() -> None:
    people, places, chance = looks(9), gallery(9), np.random.default_rng(1)
    linker, order = TrackLinker(), np.arange(6)
    for step in range(30):
        if step == 10:
            order = np.arange(9)
        if step > 10 and step % 5 == 0:
            order = chance.permutation(9)
        found = linker.link(step / 5, places[: len(order)], [near(people[who], 10 * step + who) for who in order])
        assert found == order.tolist()
    assert linker.people() == list(range(9))


def test_people_who_leave_a_gallery_and_come_back_keep_their_numbers() -> None:
    people, places = looks(9), gallery(9)
    linker = TrackLinker()
    for step, shown in enumerate([range(9), range(4), range(4), [7, 8, 1, 2, 3], range(9)]):
        found = linker.link(4.0 * step, places[: len(shown)], [near(people[who], 10 * step + who) for who in shown])
        assert found == list(shown)


def test_a_face_that_is_measured_badly_for_a_moment_keeps_its_number_where_others_stay() -> None:
    people, stranger, places = looks(3), looks(1, seed=9)[0], gallery(3)
    linker = TrackLinker()
    shown = [near(one, index) for index, one in enumerate(people)]
    assert linker.link(0.0, places, shown) == [0, 1, 2]
    assert linker.link(0.2, places, [*shown[:2], stranger]) == [0, 1, 2]
    assert linker.link(0.4, places, shown) == [0, 1, 2]
    for time in (0.6, 0.8):
        assert linker.link(time, places, [*shown[:2], stranger]) == [0, 1, 2]
    assert linker.link(1.0, places, [*shown[:2], stranger]) == [0, 1, 3], "by now it is somebody else"


def test_renumbering_changes_the_tracks_alone() -> None:
    rows: list[dict[str, float | int | None]] = [{"time": t / 5, "track": t, "AU25": 0.1 * t} for t in range(3)]
    table = face_table(rows, backend="test", version="0", frames=3)
    changed = renumbered(table, [5, 7, 5])
    assert changed["track"].to_pylist() == [5, 7, 5]
    assert changed.drop(["track"]).equals(table.drop(["track"])) and changed.schema.metadata == table.schema.metadata


# Real pictures


@pytest.fixture(scope="module")
def landmarker(weight: Callable[[str], Path]) -> Iterator[FaceLandmarker]:
    landmarker = FaceLandmarker(weight("face-landmarker"), max_faces=2)
    yield landmarker
    landmarker.close()


@pytest.mark.slow
def test_the_two_faces_of_the_conversation_keep_their_numbers_through_its_cuts(landmarker: FaceLandmarker) -> None:
    with Media(SAMPLES / "conversation.mp4") as media:
        table = landmarker.track(media.frames(5))
    interviewer, interviewee = (0.0, 4.0), (27.8, 32.5)
    times, tracks = table["time"].to_numpy(), table["track"].to_numpy()
    assert set(tracks.tolist()) == {0, 1}
    for (start, end), expected in ((interviewer, 0), (interviewee, 1)):
        assert set(tracks[(times > start) & (times < end)].tolist()) == {expected}


def test_a_video_whose_rows_are_padded_in_memory_shows_its_faces(landmarker: FaceLandmarker, tmp_path: Path) -> None:
    with Media(SAMPLES / "happy.mp4") as media:
        pictures = [frame.rgb[20:380, 140:500] for frame in media.frames(5)]
    clip = write_media(tmp_path / "square.mp4", pictures, fps=5)
    with Media(clip) as media:
        table = landmarker.track(media.frames(5))
    assert table.num_rows == len(pictures)


@dataclass(frozen=True)
class Picture:
    time: float
    rgb: np.ndarray


def test_real_clips_cut_together_have_as_many_faces_as_people(landmarker: FaceLandmarker) -> None:
    """Three people in turn, twice each, with two seconds of black in between; frames of different sizes."""
    names = ("mead_M030_anger.mp4", "mead_W036_happiness.mp4", "ravdess_01_neutral.mp4")
    if not CLIPS.exists():
        pytest.skip("no real clips here")
    import cv2

    pictures: list[np.ndarray] = []
    shown: list[int] = []
    for part in (0, 1):
        for person, name in enumerate(names):
            with Media(CLIPS / name) as media:
                frames = [cv2.resize(frame.rgb, (1280, 720)) for frame in media.frames(5)]
            half = len(frames) // 2
            kept = frames[part * half : (part + 1) * half]
            pictures += [*kept, *[np.zeros_like(kept[0])] * 10]
            shown += [person] * len(kept) + [-1] * 10
    table = landmarker.track(Picture(index / 5, rgb) for index, rgb in enumerate(pictures))
    rows = np.round(table["time"].to_numpy() * 5).astype(int)
    who = np.array(shown)[rows]
    assert len(rows) == sum(one >= 0 for one in shown)
    for person in range(3):
        assert len(set(table["track"].to_numpy()[who == person].tolist())) == 1
    assert len(set(table["track"].to_pylist())) == 3


def test_looks_of_one_face_are_near_and_of_another_far(landmarker: FaceLandmarker) -> None:
    seen: dict[str, list[np.ndarray]] = {}
    for name, times in (("interview.mp4", (0, 40, 80, 120)), ("conversation.mp4", (5, 10, 15))):
        with Media(SAMPLES / name) as media:
            frames = [frame.rgb for frame in media.frames(5)]
        seen[name] = [look(frames[at], landmarker.meshes(frames[at])[0][ANCHORS, :2]) for at in times]
    one, other = (np.array(seen[name]) for name in ("interview.mp4", "conversation.mp4"))
    assert distances(one, one).max() < SAME and distances(other, other).max() < SAME
    assert distances(one, other).min() > CUT


# Mouths and voices


def faces(
    mouths: dict[int, Sequence[tuple[float, float]]],
    seconds: float,
    seen: Any = None,
    rate: int = 5,
    widest: float | None = 0.7,
    sway: float = 0.01,
) -> pa.Table:
    """A face table.

    Args:
        mouths: track -> when its mouth talks.
        seconds: length of the clip.
        seen: track -> when it is in view; None: always.
        rate: frames per second.
        widest: gap between talking lips; None: gaps are not measured.
        sway: by so much of the picture's height heads go up and down; 0: they are pictures on the wall.
    """
    rng = np.random.default_rng(0)
    rows: list[dict[str, float | int | None]] = []
    for frame in range(int(seconds * rate)):
        time = frame / rate
        for track, spans in mouths.items():
            if seen is not None and not any(a <= time <= b for a, b in seen[track]):
                continue
            moving = any(a <= time <= b for a, b in spans)
            gap = widest and (float(rng.uniform(0.0, widest)) if moving else 0.02 + 0.005 * float(rng.uniform()))
            low = 0.2 + sway * float(np.sin(time + track))
            rows.append({"time": time, "track": track, "AU25": gap, "y0": low, "y1": low + 0.4 + 0.01 * track})
    return face_table(rows, backend="test", version="0", frames=int(seconds * rate))


ASKS, ANSWERS = [(0.0, 3.0), (13.0, 16.0)], [(3.5, 12.5), (16.5, 25.0)]
DIALOGUE = sorted([(*span, 0) for span in ASKS] + [(*span, 1) for span in ANSWERS])


def test_a_moving_mouth_is_told_from_a_still_one() -> None:
    table = faces({0: [(0.0, 5.0)]}, 10.0)
    odds, times = talking(movement(table)), table["time"].to_numpy()
    assert odds[times < 4.5].min() > 0.5 and odds[times > 5.6].max() < -0.5


def test_a_mouth_that_was_not_measured_tells_nothing() -> None:
    rows: list[dict[str, float | int | None]] = [{"time": t / 5, "track": 0} for t in range(10)]
    assert not talking(movement(face_table(rows, backend="test", version="0", frames=10))).any()


def test_each_voice_gets_the_face_whose_mouth_moves_with_it() -> None:
    table = faces({0: ANSWERS, 1: ASKS}, 26.0)
    assert faces_of_speakers(table, DIALOGUE) == {0: (1,), 1: (0,)}
    assert talkers(table, sorted(ASKS + ANSWERS)) == Talkers(several=True, least=2)


@pytest.mark.parametrize(("rate", "widest"), [(2, 0.7), (5, 0.1), (10, 0.7)])
def test_few_frames_and_lips_that_hardly_open_are_enough(rate: int, widest: float) -> None:
    table = faces({0: ANSWERS, 1: ASKS}, 26.0, rate=rate, widest=widest)
    assert faces_of_speakers(table, DIALOGUE) == {0: (1,), 1: (0,)}


def test_without_mouths_whoever_is_in_view_alone_is_taken_to_speak() -> None:
    shown = {0: [*ASKS, (6.0, 7.5)], 1: ANSWERS}
    table = faces({0: [], 1: []}, 26.0, seen=shown, widest=None)
    assert faces_of_speakers(table, DIALOGUE) == {0: (0,), 1: (1,)}
    assert faces_of_speakers(faces({0: [], 1: []}, 26.0, widest=None), DIALOGUE) == {}, "side by side nothing tells"


def test_cuts_to_the_speaker_link_face_and_voice_by_cooccurrence() -> None:
    table = faces({0: ASKS, 1: ANSWERS}, 26.0, seen={0: ASKS, 1: ANSWERS})
    assert faces_of_speakers(table, DIALOGUE) == {0: (0,), 1: (1,)}
    # Never side by side, so this may as well be one face that was lost and found.
    assert talkers(table, sorted(ASKS + ANSWERS)) == Talkers(several=True, least=1)


def test_a_voice_off_camera_has_no_face() -> None:
    table = faces({0: ANSWERS}, 26.0)
    assert faces_of_speakers(table, DIALOGUE) == {1: (0,)}
    assert talkers(table, sorted(ASKS + ANSWERS)) == Talkers(several=True, least=1)


@pytest.mark.parametrize(("moves", "linked"), [(0.05, True), (0.0, False)])
def test_a_mouth_that_hardly_moves_is_that_of_the_speaker_left_over(moves: float, linked: bool) -> None:
    """Unless it is as still as that of somebody who listens all the time."""
    talkative, other = faces({0: ASKS}, 26.0).to_pylist(), faces({0: ANSWERS}, 26.0, widest=moves).to_pylist()
    rows = sorted([*talkative, *({**row, "track": 1} for row in other)], key=lambda row: row["time"])
    table = face_table(rows, backend="test", version="0", frames=len(talkative))
    assert faces_of_speakers(table, DIALOGUE) == ({0: (0,), 1: (1,)} if linked else {0: (0,)})


def test_voices_that_one_mouth_speaks_with_are_one_persons() -> None:
    split = [*DIALOGUE[:-1], (*DIALOGUE[-1][:2], 2)]
    assert one_mouth(faces({0: ANSWERS, 1: ASKS}, 26.0), split) == {0: 0, 1: 1, 2: 1}
    assert one_mouth(faces({0: ANSWERS}, 26.0), split) == {0: 0, 1: 1, 2: 1}, "the asker is off camera"
    assert one_mouth(faces({0: [], 1: []}, 26.0), split) == {0: 0, 1: 1, 2: 2}
    assert one_mouth(face_table([], backend="test", version="0", frames=5), split) == {0: 0, 1: 1, 2: 2}


def test_faces_that_never_talk_belong_to_nobody() -> None:
    assert faces_of_speakers(faces({0: [], 1: []}, 26.0), DIALOGUE) == {}


def test_one_person_filmed_in_two_ways_keeps_both_tracks() -> None:
    first, second = [(3.5, 12.5)], [(16.5, 25.0)]
    table = faces({0: first, 1: second, 2: ASKS}, 26.0, seen={0: first, 1: second, 2: ASKS})
    assert faces_of_speakers(table, DIALOGUE) == {0: (2,), 1: (0, 1)}


ALONE = [(1.0, 9.0, 0), (11.0, 19.0, 0)]
SPEECH = [(start, end) for start, end, _ in ALONE]


def test_the_only_face_of_a_recording_is_its_lone_speakers() -> None:
    assert faces_of_speakers(faces({0: []}, 20.0), ALONE) == {0: (0,)}
    assert faces_of_speakers(faces({0: []}, 20.0, sway=0.0), ALONE) == {0: (0,)}
    assert faces_of_speakers(faces({0: []}, 20.0, widest=None), ALONE) == {0: (0,)}


@pytest.mark.parametrize("silent", [1, 3, 8])
def test_a_lone_speaker_has_the_face_that_talks_among_any_number_of_silent_ones(silent: int) -> None:
    mouths: dict[int, Sequence[tuple[float, float]]] = {track: [] for track in range(1 + silent)}
    assert faces_of_speakers(faces(mouths, 20.0), ALONE) == {}, "none of them talks"
    assert faces_of_speakers(faces({**mouths, 1: SPEECH}, 20.0), ALONE) == {0: (1,)}
    assert talkers(faces({**mouths, 1: SPEECH}, 20.0), SPEECH) == Talkers()


def test_a_mouth_that_moves_whenever_the_speaker_pauses_is_not_theirs() -> None:
    pauses = [(0.0, 1.0), (9.0, 11.0), (19.0, 20.0)]
    assert faces_of_speakers(faces({0: pauses, 1: []}, 20.0), ALONE) == {}
    assert faces_of_speakers(faces({0: pauses, 1: SPEECH}, 20.0), ALONE) == {0: (1,)}


def test_lips_that_hardly_move_need_fewer_faces_beside_them() -> None:
    """Among two faces it may be the speaker's, among nine it would be a guess."""

    def among(silent: int) -> dict[int, tuple[int, ...]]:
        mouths: dict[int, Sequence[tuple[float, float]]] = {track: [] for track in range(1, 1 + silent)}
        moving, others = faces({0: SPEECH}, 20.0, widest=0.1).to_pylist(), faces(mouths, 20.0).to_pylist()
        rows = sorted([*moving, *others], key=lambda row: row["time"])
        return faces_of_speakers(face_table(rows, backend="test", version="0", frames=100), ALONE)

    assert among(1) == {0: (0,)} and among(12) == {}


def test_restless_mouths_beside_a_talking_one_do_not_make_two_people() -> None:
    """One laughs all the time, one moves as the speaker does: neither talks in turn with them."""
    mouths = {0: SPEECH, 1: [(0.0, 20.0)], 2: SPEECH, 3: []}
    assert talkers(faces(mouths, 20.0), SPEECH) == Talkers()


def test_two_mouths_that_talk_alike_leave_it_open_whose_voice_is_heard() -> None:
    assert faces_of_speakers(faces({0: SPEECH, 1: SPEECH, 2: []}, 20.0), ALONE) == {}


def test_pictures_on_the_wall_and_people_who_pass_by_are_not_left_over() -> None:
    still = faces({0: []}, 20.0).to_pylist()
    picture = [{**row, "track": 1} for row in faces({0: []}, 20.0, sway=0.0).to_pylist()]
    passing = [{**row, "track": 2} for row in still if row["time"] < 1.5]
    rows = sorted([*still, *picture, *passing], key=lambda row: row["time"])
    table = face_table(rows, backend="test", version="0", frames=100)
    assert faces_of_speakers(table, ALONE) == {0: (0,)}


def test_without_faces_or_speech_nothing_is_linked() -> None:
    nobody = face_table([], backend="test", version="0", frames=5)
    assert faces_of_speakers(nobody, DIALOGUE) == {} and talkers(nobody, ASKS) == Talkers()
    assert faces_of_speakers(faces({0: ASKS}, 20.0), []) == {} and talkers(faces({0: ASKS}, 20.0), []) == Talkers()
