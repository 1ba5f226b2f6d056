"""Expression on pixels: faces cut out the same way wherever they are, and read the same way every time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emopipe.extractors.face.alignment import similarity, warped
from emopipe.extractors.face.expression import ANCHORS, PLACES, SIDE, WEIGHTS_FILE, ExpressionEncoder, face_crop
from emopipe.extractors.face.expression_network import WIDTH, ExpressionNetwork, folded
from emopipe.extractors.face.mediapipe import FaceLandmarker
from emopipe.extractors.face.table import EMOTIONS, EXPRESSION
from emopipe.models import checkpoint
from emopipe.pipeline.config import ExtractionConfig
from emopipe.pipeline.media.decoding import Media
from tests.conftest import SAMPLES

RNG = np.random.default_rng(0)
#: Landmarks of the lips' middle and corners, and of the chin.
MOUTH = [13, 14, 61, 291, 17, 152]


@pytest.fixture(scope="module")
def landmarker(weight: Callable[[str], Path]) -> Iterator[FaceLandmarker]:
    landmarker = FaceLandmarker(weight("face-landmarker"))
    yield landmarker
    landmarker.close()


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    with Media(SAMPLES / "happy.mp4") as media:
        return next(iter(media.frames(5))).rgb.copy()


@pytest.fixture(scope="module")
def mesh(landmarker: FaceLandmarker, picture: np.ndarray) -> np.ndarray:
    return landmarker.meshes(picture)[0]


def smooth_picture(height: int = 200, width: int = 240) -> np.ndarray:
    noise = RNG.integers(0, 255, (height // 20, width // 20, 3)).astype(np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other).mean())


@given(
    scale=st.floats(0.3, 4),
    angle=st.floats(-3, 3),
    shift=st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
)
@settings(max_examples=30, deadline=None)
def test_a_similarity_is_found_from_its_points(scale: float, angle: float, shift: tuple[float, float]) -> None:
    points = np.array(PLACES) * 100
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    found = similarity(points, points @ turn.T + shift)
    assert np.allclose(found, np.column_stack([turn, shift]), atol=1e-6)


def test_a_map_that_moves_nothing_cuts_the_corner_out() -> None:
    rgb = smooth_picture()
    assert np.array_equal(warped(rgb, np.eye(2, 3), 96), rgb[:96, :96])


@pytest.mark.parametrize("scale", [0.2, 0.5, 1.0, 2.0])
def test_a_map_that_scales_keeps_pictures_in_place(scale: float) -> None:
    rgb = smooth_picture(400, 400)
    affine = np.array([[scale, 0, 48 - scale * 200], [0, scale, 48 - scale * 200]])
    centres = (np.arange(96) - 48) / scale + 200
    expected = cv2.remap(
        cv2.GaussianBlur(rgb, (0, 0), max(0.1, 0.4 / scale)),
        np.tile(centres.astype(np.float32), (96, 1)),
        np.tile(centres.astype(np.float32)[:, None], (1, 96)),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    assert difference(warped(rgb, affine, 96), expected) < 4


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1.0), (25, 1.0), (-40, 1.0), (0, 0.6), (15, 1.7), (180, 1.0)])
def test_the_crop_is_the_same_wherever_the_face_is(
    picture: np.ndarray, mesh: np.ndarray, degrees: float, scale: float
) -> None:
    height, width = picture.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, scale)
    moved = cv2.warpAffine(picture, turn, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    points = mesh[:, :2] @ turn[:, :2].T + turn[:, 2]
    assert np.ptp(points, axis=0).max() > SIDE
    inside = slice(16, 80)
    one, other = face_crop(picture, mesh), face_crop(moved, points)
    assert difference(one[inside, inside], other[inside, inside]) < 6


def test_the_mouth_does_not_move_the_crop(picture: np.ndarray, mesh: np.ndarray) -> None:
    open_mouth = mesh.copy()
    open_mouth[MOUTH, 1] += 40
    assert not set(MOUTH) & set(ANCHORS)
    assert np.array_equal(face_crop(picture, mesh), face_crop(picture, open_mouth))


def test_eyes_and_nose_come_to_their_places(picture: np.ndarray, mesh: np.ndarray) -> None:
    affine = similarity(mesh[list(ANCHORS), :2], np.array(PLACES) * SIDE)
    places = mesh[list(ANCHORS), :2] @ affine[:, :2].T + affine[:, 2]
    assert np.abs(places - np.array(PLACES) * SIDE).max() < 0.1 * SIDE
    margin = 10
    assert difference(face_crop(picture, mesh, margin)[margin:-margin, margin:-margin], face_crop(picture, mesh)) < 3


@pytest.mark.parametrize("shift", [(-500, 0), (0, 400), (3000, 3000)])
def test_a_face_beyond_the_picture_has_a_crop(picture: np.ndarray, mesh: np.ndarray, shift: tuple[int, int]) -> None:
    crop = face_crop(picture, mesh[:, :2] + shift)
    assert crop.shape == (SIDE, SIDE, 3) and crop.dtype == np.uint8


def test_batch_normalisation_folds_away() -> None:
    torch.manual_seed(0)
    network = ExpressionNetwork()
    x = torch.randn(2, 3, SIDE, SIDE)
    network.train()(torch.randn(4, 3, SIDE, SIDE))
    with torch.inference_mode():
        before = network.eval()(x)
        after = folded(network)(x)
    assert before.shape == (2, WIDTH)
    assert torch.allclose(before, after, atol=1e-4)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())


def test_the_encoder_is_small_and_always_says_the_same(picture: np.ndarray, mesh: np.ndarray) -> None:
    assert WEIGHTS_FILE.stat().st_size < 10_000_000
    crop = face_crop(picture, mesh)
    first, again = ExpressionEncoder().measure(crop), ExpressionEncoder().measure(crop)
    assert first == again
    assert tuple(first) == EMOTIONS + EXPRESSION
    assert sum(first[name] for name in EMOTIONS) == pytest.approx(1)
    assert np.isfinite(list(first.values())).all()


def test_the_face_table_holds_what_the_encoder_says(
    landmarker: FaceLandmarker, picture: np.ndarray, mesh: np.ndarray
) -> None:
    row = landmarker.still(picture).to_pylist()[0]
    expected = ExpressionEncoder().measure(face_crop(picture, mesh))
    assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert max(EMOTIONS, key=lambda name: row[name]) == "emotion_happiness"


def test_expressions_of_the_interview_are_read(landmarker: FaceLandmarker) -> None:
    with Media(SAMPLES / "interview.mp4") as media:
        table = landmarker.track(media.frames(5))
    time = table["time"].to_numpy()
    for name, (start, end) in {"sadness": (11.5, 15.3), "surprise": (23.3, 26.5)}.items():
        inside = (time > start) & (time < end)
        own = table[f"emotion_{name}"].to_numpy()
        assert own[inside].mean() > 3 * own[~inside].mean(), name


def test_the_default_checkpoint_reads_shapes_and_pixels() -> None:
    spec = checkpoint.read_spec("emopipe-default")
    assert spec.extraction["face"]["features"] == list(ExtractionConfig().face.features)
    assert {*EMOTIONS, *EXPRESSION} < set(spec.schema["face"])


@pytest.mark.parametrize("name", ["emopipe-default-1", "emopipe-egmf"])
def test_checkpoints_from_before_read_the_columns_that_they_seal(name: str) -> None:
    spec = checkpoint.read_spec(name)
    assert spec.extraction["face"]["features"] == ["blendshapes", "mesh"]
    assert not {*EMOTIONS, *EXPRESSION} & set(spec.schema["face"])


def test_expressions_of_several_faces_are_those_of_each_by_itself() -> None:
    crops = list(RNG.integers(0, 256, (5, SIDE, SIDE, 3), np.uint8))
    encoder = ExpressionEncoder()
    together, alone = encoder.measure_all(crops), [encoder.measure(crop) for crop in crops]
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    assert encoder.measure_all([]) == []


def test_a_clip_has_every_face_in_order_however_many_are_read_at_once(
    landmarker: FaceLandmarker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Media(SAMPLES / "happy.mp4") as media:
        frames = list(media.frames(5))
    tables = []
    for at_once in (1, 7):
        monkeypatch.setattr("emopipe.extractors.face.mediapipe.EXPRESSIONS_AT_ONCE", at_once)
        tables.append(landmarker.track(iter(frames)))
    one, other = tables
    assert one.num_rows > 20 and one["time"].equals(other["time"]) and one["track"].equals(other["track"])
    for name in (*EMOTIONS, *EXPRESSION, "AU12"):
        assert np.allclose(one[name].to_numpy(), other[name].to_numpy(), atol=1e-4)
