"""Faces: pose taken out, tracks kept, expressions measured on the samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from emopipe.extractors.face.mediapipe import DEAD_BLENDSHAPES, MEASURED, FaceLandmarker, _faces_turned, measure
from emopipe.extractors.face.mediapipe_models import LandmarkModel, model_path
from emopipe.extractors.face.mesh import align, fit_basis, mesh_components
from emopipe.extractors.face.table import (
    ACTION_UNITS,
    AFFECT,
    FEATURE_GROUPS,
    GAZE,
    SCHEMA,
    face_table,
    feature_columns,
    subject_track,
)
from emopipe.extractors.face.tracks import TrackLinker
from emopipe.pipeline.media.decoding import Media
from tests.conftest import SAMPLES

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def landmarker(weight: Callable[[str], Path]) -> Iterator[FaceLandmarker]:
    landmarker = FaceLandmarker(weight("face-landmarker"))
    yield landmarker
    landmarker.close()


def test_alignment_undoes_any_pose() -> None:
    reference = RNG.normal(size=(478, 3))
    for seed in range(5):
        turn = Rotation.random(random_state=seed).as_matrix()
        moved = 37.0 * reference @ turn.T + [100, -20, 5]
        assert np.allclose(align(moved[None], reference)[0], reference, atol=1e-9)


def test_alignment_never_mirrors_a_face() -> None:
    reference = RNG.normal(size=(478, 3))
    mirrored = reference * [-1, 1, 1]
    assert not np.allclose(align(mirrored[None], reference)[0], reference, atol=0.1)


def test_the_basis_finds_the_directions_in_which_faces_differ() -> None:
    base = RNG.normal(size=(478, 3)) * 50
    direction = np.zeros((478, 3))
    direction[[13, 14]] = [[0, -1, 0], [0, 1, 0]]
    strength = RNG.normal(size=200)
    meshes = base + strength[:, None, None] * direction
    basis = fit_basis(meshes, 2)
    scores = (align(meshes, basis["reference"]) - basis["reference"]).reshape(200, -1) @ basis["components"][0]
    assert abs(np.corrcoef(scores, strength)[0, 1]) > 0.999


def test_packaged_components_do_not_depend_on_pose(landmarker: FaceLandmarker) -> None:
    with Media(SAMPLES / "happy.mp4") as media:
        rgb = next(iter(media.frames(5))).rgb
    mesh = landmarker.meshes(rgb)[0]
    turned = 0.5 * mesh @ Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix().T + 7
    assert np.allclose(mesh_components(mesh), mesh_components(turned), atol=1e-3)


def test_tracks_follow_boxes_through_motion_loss_and_crossing_counts() -> None:
    linker = TrackLinker()
    assert linker.link(0.0, [(0.1, 0.1, 0.3, 0.4), (0.6, 0.1, 0.8, 0.4)]) == [0, 1]
    assert linker.link(0.2, [(0.62, 0.1, 0.82, 0.4), (0.12, 0.1, 0.32, 0.4)]) == [1, 0]
    assert linker.link(0.4, [(0.13, 0.1, 0.33, 0.4)]) == [0]
    assert linker.link(1.0, [(0.61, 0.1, 0.81, 0.4)]) == [1]
    assert linker.link(9.0, [(0.61, 0.1, 0.81, 0.4)]) == [2]
    assert linker.link(9.2, []) == []


def test_the_subject_is_the_most_persistent_large_face() -> None:
    passer_by = [{"time": 0.0, "track": 0, "y0": 0.0, "y1": 0.9}]
    speaker = [{"time": t / 5, "track": 1, "y0": 0.2, "y1": 0.6} for t in range(10)]
    background = [{"time": t / 5, "track": 2, "y0": 0.5, "y1": 0.6} for t in range(12)]
    table = face_table([*passer_by, *speaker, *background], backend="test", version="0", frames=12)
    assert subject_track(table) == 1
    assert subject_track(face_table([], backend="test", version="0", frames=3)) is None


def test_no_constant_channel_passes_for_a_measurement(landmarker: FaceLandmarker) -> None:
    with Media(SAMPLES / "happy.mp4") as media:
        table = landmarker.track(media.frames(5))
    assert table.schema.equals(SCHEMA)
    assert table.schema.metadata[b"backend"] == b"mediapipe"
    for name in [*DEAD_BLENDSHAPES, "AU06", "AU09", "AU11", "AU23", *GAZE, *AFFECT]:
        assert table[name].null_count == table.num_rows
    measured = feature_columns(FEATURE_GROUPS, MEASURED)
    assert not set(measured) & {*DEAD_BLENDSHAPES, "AU06"}
    assert all(table[name].null_count == 0 for name in measured)
    assert len([name for name in ACTION_UNITS if name in measured]) == 16


def test_expressions_of_the_interview_move_the_right_action_units(landmarker: FaceLandmarker) -> None:
    with Media(SAMPLES / "interview.mp4") as media:
        table = landmarker.track(media.frames(5))
    time = table["time"].to_numpy()
    assert len(np.unique(time)) == int(table.schema.metadata[b"frames"])

    def mean(name: str, start: float, end: float) -> float:
        return float(table[name].to_numpy()[(time > start) & (time < end)].mean())

    happy, sad, angry, surprised = (6.5, 9.3), (11.5, 15.3), (17.7, 21.2), (23.3, 26.5)
    assert mean("AU12", *happy) > 0.6 > 0.2 > max(mean("AU12", *span) for span in (sad, angry, surprised))
    assert mean("AU15", *sad) > max(mean("AU15", *span) for span in (happy, angry, surprised))
    assert mean("AU04", *angry) > 2 * max(mean("AU04", *span) for span in (happy, sad, surprised))
    assert mean("AU02", *surprised) > 2 * max(mean("AU02", *span) for span in (happy, sad, angry))
    assert table["quality"].to_numpy().mean() > 0.7


def test_angles_grow_downwards_and_towards_the_pictures_right(landmarker: FaceLandmarker) -> None:
    angles, seen = [], []
    with Media(SAMPLES / "interview.mp4") as media:
        for frame in media.frames(1.5):
            row, mesh = landmarker.still(frame.rgb).to_pylist()[0], landmarker.meshes(frame.rgb)[0]
            (top, chin), (left, right), (cheek, other), nose = (
                mesh[[10, 152]],
                mesh[[33, 263]],
                mesh[[234, 454]],
                mesh[1],
            )
            angles.append([row["pitch"], row["yaw"], row["roll"]])
            # The chin lies back when the head is down; the nose points aside; the eyes are on a slope.
            seen.append([chin[2] - top[2], nose[0] - (cheek[0] + other[0]) / 2, left[1] - right[1]])
    for angle, sight in zip(np.transpose(angles), np.transpose(seen), strict=True):
        assert np.corrcoef(angle, sight)[0, 1] > 0.8


def test_small_pictures_are_enlarged_and_empty_ones_have_no_face(landmarker: FaceLandmarker) -> None:
    import cv2

    with Media(SAMPLES / "happy.mp4") as media:
        rgb = next(iter(media.frames(5))).rgb
    box = landmarker.still(rgb).to_pylist()[0]
    height, width = rgb.shape[:2]
    top, left = int(box["y0"] * height), int(box["x0"] * width)
    face = np.ascontiguousarray(rgb[top : int(box["y1"] * height), left : int(box["x1"] * width)])
    assert landmarker.still(cv2.resize(face, (48, 48))).num_rows == 1
    blurred = cv2.GaussianBlur(face, (0, 0), face.shape[1] / 14)
    assert landmarker.still(blurred).num_rows == 1, "a face that is seen with other borders and less surely"
    empty = landmarker.still(np.zeros((100, 100, 3), np.uint8))
    assert empty.num_rows == 0 and empty.schema.metadata[b"frames"] == b"1"


@pytest.mark.parametrize("angle", [25.0, -25.0])
def test_a_face_found_in_a_turned_picture_lies_where_it_is_in_the_upright_one(
    weight: Callable[[str], Path], angle: float
) -> None:
    model = LandmarkModel(model_path(weight("face-landmarker")), 1, video=False)
    with Media(SAMPLES / "happy.mp4") as media:
        rgb = next(iter(media.frames(5))).rgb
    (upright,), (turned,) = model.faces(rgb), _faces_turned(model, rgb, angle)
    model.close()
    height = upright.box[3] - upright.box[1]
    assert np.abs(turned.points - upright.points)[:, :2].max() < 0.05 * height
    first, second = (measure(face, rgb.shape) for face in (upright, turned))
    assert all(abs(first[name] - second[name]) < 6 for name in ("pitch", "yaw", "roll"))


def test_a_missing_model_is_told() -> None:
    with pytest.raises(FileNotFoundError, match="no face landmarker"):
        FaceLandmarker("nowhere.task")
