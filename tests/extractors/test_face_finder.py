"""Many faces and small ones are found, at a cost that is bounded, and reported from the second frame on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emopipe.extractors.face.close_views import EARNED, CloseViews, views_of
from emopipe.extractors.face.finder import part_around, same_place, without_doubles
from emopipe.extractors.face.mediapipe import FaceLandmarker
from emopipe.extractors.face.mediapipe_models import FaceMesh, LandmarkModel, muted
from emopipe.extractors.face.table import limit_reached
from emopipe.pipeline.media.decoding import Media
from tests.conftest import ROOT, SAMPLES

MEETING = ROOT.parent / "shared" / "odd" / "14b_meeting_of_4.mp4"
RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class Picture:
    """A frame."""

    time: float
    rgb: np.ndarray


# Close views


@given(
    st.integers(64, 4096),
    st.integers(64, 2160),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
)
@settings(max_examples=200, deadline=None)
def test_every_face_of_some_size_lies_within_a_view(w: int, h: int, size: float, x: float, y: float) -> None:
    views = views_of(w, h)
    assert np.all(views[:, :2] >= 0) and np.all(views[:, :2] + views[:, 2:] <= [w, h])
    for side in np.unique(views[:, 2]):
        face = size * 0.25 * side
        left, top = x * (w - face), y * (h - face)
        inside = (views[:, 0] <= left + 1) & (views[:, 1] <= top + 1)
        inside &= (views[:, 0] + side >= left + face - 1) & (views[:, 1] + side >= top + face - 1)
        assert np.any(inside & (views[:, 2] == side))


def picture(seed: int, shape: tuple[int, int] = (720, 1280)) -> np.ndarray:
    """Noise, as of a camera, over a grey wall."""
    noise = np.random.default_rng(seed).normal(0, 2, (*shape, 1))
    return np.clip(120 + np.repeat(noise, 3, 2), 0, 255).astype(np.uint8)


def looked_at(frames: Sequence[np.ndarray], known: Sequence[np.ndarray] = ()) -> list[list[tuple[int, int, int]]]:
    """The views of each frame."""
    views, chosen = CloseViews(), []
    for index, rgb in enumerate(frames):
        views.see(rgb, index / 5, known)
        chosen.append(list(iter(views.next, None)))
    return chosen


def moving(index: int, left: int, top: int, side: int = 90) -> np.ndarray:
    """A frame in which a patch changes."""
    rgb = picture(index)
    rgb[top : top + side, left : left + side] = 40 + 20 * (index % 8)
    return rgb


def test_where_nobody_is_seen_the_largest_views_are_looked_at_first_and_then_what_moves() -> None:
    first, *later = looked_at([picture(index) for index in range(20)])
    assert {side for _, _, side in first} == {640} and not any(later)
    first, *later = looked_at([moving(index, 900, 300) for index in range(20)])
    found = [view for views in later for view in views]
    assert found and {side for _, _, side in found} == {640, 320, 160}
    for left, top, side in found:
        assert left < 990 and left + side > 900 and top < 390 and top + side > 300


def test_motion_of_a_known_face_is_no_reason_to_look() -> None:
    face = np.array([880.0, 280.0, 1010.0, 410.0])
    assert not any(looked_at([moving(index, 900, 300) for index in range(20)], [face]))


def test_a_cut_is_looked_at_as_the_beginning_is() -> None:
    dark = [np.zeros((720, 1280, 3), np.uint8)] * 10
    chosen = looked_at([*[picture(index) for index in range(10)], *dark])
    assert [index for index, views in enumerate(chosen) if views] == [0, 10]


def test_however_much_moves_the_budget_holds() -> None:
    """A fifth of a view per frame for each face in view."""
    frames = [np.random.default_rng(index).integers(0, 255, (720, 1280, 3), np.uint8) // 6 for index in range(40)]
    views = CloseViews()
    count = 0
    for index, rgb in enumerate(frames):
        views.see(rgb, index / 5, [np.array([0.0, 0.0, 50.0, 50.0])])
        count += len(list(iter(views.next, None)))
    assert count == round(EARNED * len(frames))


# Boxes


def mesh(left: float, top: float, size: float) -> FaceMesh:
    points = np.array([[left, top, 0.0], [left + size, top + size, 0.0]])
    return FaceMesh(points, np.zeros(52), np.eye(4))


boxes = st.tuples(st.floats(-500, 3000), st.floats(-500, 3000), st.floats(1, 900)).map(
    lambda box: np.array([box[0], box[1], box[0] + box[2], box[1] + box[2]])
)


@given(boxes, st.integers(16, 2000), st.integers(16, 2000))
def test_what_is_cut_out_around_a_face_lies_in_the_frame(box: np.ndarray, height: int, width: int) -> None:
    left, top, right, bottom = part_around(box, (height, width, 3))
    assert 0 <= left < right <= width and 0 <= top < bottom <= height


@given(boxes, boxes)
def test_whether_two_boxes_are_of_one_face_does_not_depend_on_their_order(one: np.ndarray, other: np.ndarray) -> None:
    assert same_place(one, one) and same_place(one, other) == same_place(other, one)


def test_of_two_meshes_on_one_face_the_larger_is_kept() -> None:
    large, shrunk, beside = mesh(100, 100, 80), mesh(110, 112, 60), mesh(300, 100, 70)
    assert without_doubles([shrunk, beside, large]) == [beside, large]


# Real models


@pytest.fixture(scope="module")
def landmarker(weight: Callable[[str], Path]) -> Iterator[FaceLandmarker]:
    landmarker = FaceLandmarker(weight("face-landmarker"))
    yield landmarker
    landmarker.close()


@pytest.fixture(scope="module")
def happy() -> list[np.ndarray]:
    with Media(SAMPLES / "happy.mp4") as media:
        return [frame.rgb for frame in media.frames(5)]


def test_results_read_from_memory_are_those_of_the_public_interface(
    weight: Callable[[str], Path], happy: list[np.ndarray]
) -> None:
    import mediapipe
    from mediapipe.tasks.python import vision
    from mediapipe.tasks.python.core.base_options import BaseOptions

    path = str(weight("face-landmarker"))
    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=path),
        output_face_blendshapes=True,
        output_facial_transformation_matrixes=True,
    )
    image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(happy[3]))
    with muted(), vision.FaceLandmarker.create_from_options(options) as public:
        theirs = public.detect(image)
    model = LandmarkModel(path, 1, video=False)
    (face,) = model.faces(happy[3])
    model.close()
    height, width = happy[3].shape[:2]
    points = [(point.x * width, point.y * height, point.z * width) for point in theirs.face_landmarks[0]]
    assert np.allclose(face.points, points, atol=1e-3)
    assert np.allclose(face.blendshapes, [category.score for category in theirs.face_blendshapes[0]])
    assert np.allclose(face.pose, theirs.facial_transformation_matrixes[0])
    from emopipe.extractors.face.table import BLENDSHAPES

    assert [category.category_name for category in theirs.face_blendshapes[0]] == ["_neutral", *BLENDSHAPES]


def padded(rgb: np.ndarray, scale: float, place: tuple[int, int], seed: int) -> np.ndarray:
    """The picture scaled down, somewhere in a frame of 1920x1080."""
    frame = picture(seed, (1080, 1920))
    small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    frame[place[1] : place[1] + small.shape[0], place[0] : place[0] + small.shape[1]] = small
    return frame


@pytest.mark.parametrize("height", [60, 90, 150])
def test_a_small_face_in_a_wide_frame_is_found_and_measured(
    landmarker: FaceLandmarker, happy: list[np.ndarray], height: int
) -> None:
    """At 90 pixels of 1920 it was never found."""
    whole = landmarker.track(Picture(index / 5, rgb) for index, rgb in enumerate(happy))
    tall = float(np.mean(whole["y1"].to_numpy() - whole["y0"].to_numpy())) * happy[0].shape[0]
    pictures = [Picture(i / 5, padded(rgb, height / tall, (1300, 200), i)) for i, rgb in enumerate(happy)]
    table = landmarker.track(iter(pictures))
    times = table["time"].to_numpy()
    assert len(times) == len(set(times.tolist())) and (times > 1.0).sum() >= 0.9 * sum(p.time > 1.0 for p in pictures)
    assert set(table["track"].to_pylist()) == {0} and limit_reached(table) is None
    assert np.mean(table["AU12"].to_numpy()) == pytest.approx(np.mean(whole["AU12"].to_numpy()), abs=0.15)


@pytest.fixture(scope="module")
def meeting(landmarker: FaceLandmarker, happy: list[np.ndarray]) -> list[np.ndarray]:
    """Nine tiles: three faces that differ, each in three colours."""
    with Media(SAMPLES / "conversation.mp4") as media:
        frames = [frame.rgb for frame in media.frames(5)]
    tints = np.array([[1.0, 1.0, 1.0], [0.55, 0.8, 1.0], [1.0, 0.7, 0.45]])
    pictures = []
    for index in range(15):
        faces = [happy[index], frames[2 + index], frames[145 + index]]
        tiles = [cv2.resize(face, (320, 240)) * tint for tint in tints for face in faces]
        rows = [np.concatenate(tiles[row : row + 3], 1) for row in (0, 3, 6)]
        pictures.append(np.clip(np.concatenate(rows), 0, 255).astype(np.uint8))
    return pictures


def test_nine_faces_are_nine_tracks(landmarker: FaceLandmarker, meeting: list[np.ndarray]) -> None:
    table = landmarker.track(Picture(index / 5, rgb) for index, rgb in enumerate(meeting))
    tracks, counts = np.unique(table["track"].to_numpy(), return_counts=True)
    lasting = np.isin(table["track"].to_numpy(), tracks[counts > 2])
    assert (counts > 2).sum() == 9 and lasting.mean() > 0.95 and counts[counts > 2].min() >= len(meeting) - 5
    columns = (table["x0"].to_numpy() + table["x1"].to_numpy()) / 2 * 3
    rows = (table["y0"].to_numpy() + table["y1"].to_numpy()) / 2 * 3
    places = np.column_stack([table["track"].to_numpy(), np.floor(columns), np.floor(rows)])[lasting]
    assert len(np.unique(places, axis=0)) == 9
    assert limit_reached(table) is None


def test_more_faces_than_may_be_measured_are_told(weight: Callable[[str], Path], meeting: list[np.ndarray]) -> None:
    landmarker = FaceLandmarker(weight("face-landmarker"), max_faces=4)
    table = landmarker.track(Picture(index / 5, rgb) for index, rgb in enumerate(meeting))
    landmarker.close()
    limit = limit_reached(table)
    _, counts = np.unique(table["time"].to_numpy(), return_counts=True)
    assert counts.max() == 4
    assert limit is not None and limit.most == 4 and 0 <= limit.start <= limit.end <= 2.8


def test_the_meeting_of_four_shows_four_people(landmarker: FaceLandmarker) -> None:
    if not MEETING.exists():
        pytest.skip("no odd recordings here")
    with Media(MEETING) as media:
        frames = [frame for frame in media.frames(5) if frame.time < 6]
    table = landmarker.track(iter(frames))
    tracks, counts = np.unique(table["track"].to_numpy(), return_counts=True)
    assert len(tracks) == 4 and counts.min() >= len(frames) - 2
