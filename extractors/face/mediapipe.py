"""MediaPipe Face Landmarker: 478 landmarks and 52 blendshapes per face, folded into the face table.

Action units are *proxies*: ARKit blendshapes under the names of the FACS units that they resemble, not fitted to
FACS coders. Channels that the model never moves are left null instead of passing a constant zero as a measurement.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from emopipe.extractors.contracts import Backend, Locate
from emopipe.extractors.face.appearance import look
from emopipe.extractors.face.face_table_builder import FaceRows
from emopipe.extractors.face.mesh import mesh_components
from emopipe.extractors.face.table import (
    BLENDSHAPES,
    BOX,
    MESH_COMPONENTS,
    POSE,
    TimedPicture,
    attempts,
    quality,
)

#: Blendshapes that the packaged model holds at zero whatever the face does.
DEAD_BLENDSHAPES: Final = frozenset(
    ["cheekPuff", "cheekSquintLeft", "cheekSquintRight", "jawForward", "noseSneerLeft", "noseSneerRight"]
)
#: Action-unit proxy -> blendshapes whose mean it is. AU06 and AU09 rest on dead channels; AU11 and AU23 have no
#: blendshape; AU25 comes from the gap between the lips.
ACTION_UNIT_SOURCES: Final = {
    "AU01": ("browInnerUp",),
    "AU02": ("browOuterUpLeft", "browOuterUpRight"),
    "AU04": ("browDownLeft", "browDownRight"),
    "AU05": ("eyeWideLeft", "eyeWideRight"),
    "AU07": ("eyeSquintLeft", "eyeSquintRight"),
    "AU10": ("mouthUpperUpLeft", "mouthUpperUpRight"),
    "AU12": ("mouthSmileLeft", "mouthSmileRight"),
    "AU14": ("mouthDimpleLeft", "mouthDimpleRight"),
    "AU15": ("mouthFrownLeft", "mouthFrownRight"),
    "AU17": ("mouthShrugLower",),
    "AU20": ("mouthStretchLeft", "mouthStretchRight"),
    "AU24": ("mouthPressLeft", "mouthPressRight"),
    "AU26": ("jawOpen",),
    "AU28": ("mouthRollLower", "mouthRollUpper"),
    "AU43": ("eyeBlinkLeft", "eyeBlinkRight"),
}
#: Columns of the face table that this backend fills.
MEASURED: Final = frozenset({*ACTION_UNIT_SOURCES, "AU25", *BLENDSHAPES, *MESH_COMPONENTS, *POSE} - DEAD_BLENDSHAPES)
#: Landmarks of the outer corners of the eyes, the tip of the nose and the chin; see :func:`look`.
ANCHORS: Final = [33, 263, 1, 152]
#: The gap between the inner lips that counts as AU25 = 1, as a share of the face's height.
OPEN_LIPS: Final = 0.15


def create(settings: Mapping[str, Any], locate: Locate, device: str) -> FaceLandmarker:
    """The backend that a table `face` of a configuration describes; it runs on the CPU whatever the device."""
    return FaceLandmarker(locate(settings["weights"]), settings["max_faces"])


BACKEND: Final = Backend(
    "mediapipe",
    create,
    weights=lambda settings: [settings["weights"]],
    libraries=("mediapipe",),
    settings=("weights", "max_faces"),
    gpu=False,
)


class FaceLandmarker:
    """Measures faces in clips and in single pictures.

    Args:
        model_path: `face_landmarker.task`.
        max_faces: how many faces to look for in a frame.
    """

    measured = MEASURED

    def __init__(self, model_path: str | Path, max_faces: int = 2) -> None:
        if not Path(model_path).is_file():
            raise FileNotFoundError(f"no face landmarker model at {model_path}")
        self._path = str(model_path)
        self._max_faces = max_faces
        self._stills: Any = None

    def track(self, frames: Iterable[TimedPicture]) -> pa.Table:
        """The face table of a clip: frames with strictly increasing times, consumed one at a time."""
        rows, stamp = FaceRows(), -1
        with self._create("VIDEO") as landmarker:
            for frame in frames:
                first, stamp = stamp < 0, max(stamp + 1, round(frame.time * 1000))
                with _muted() if first else nullcontext():
                    result = landmarker.detect_for_video(_image(frame.rgb), stamp)
                meshes = [_mesh(landmarks, frame.rgb.shape) for landmarks in result.face_landmarks]
                looks = [look(frame.rgb, mesh[ANCHORS, :2]) for mesh in meshes]
                rows.add(frame.time, _faces(result, frame.rgb.shape), looks)
        return rows.table(backend=BACKEND.name, version=_version())

    def still(self, rgb: np.ndarray) -> pa.Table:
        """The face table of one picture, at time 0; see :func:`attempts` for where a face is looked for."""
        found = self._detect_still(rgb)
        rows = FaceRows()
        rows.add(0.0, _faces(*found) if found else [])
        return rows.table(backend=BACKEND.name, version=_version())

    def meshes(self, rgb: np.ndarray) -> list[np.ndarray]:
        """Landmarks (478, 3) in pixels of each face of one picture; z in the scale of x."""
        found = self._detect_still(rgb)
        return [_mesh(landmarks, found[1]) for landmarks in found[0].face_landmarks] if found else []

    def _detect_still(self, rgb: np.ndarray) -> tuple[Any, tuple[int, ...]] | None:
        """The detector's result and the shape of the picture that it looked at; None without a face."""
        if self._stills is None:
            self._stills = self._create("IMAGE")
        for picture in attempts(rgb):
            with _muted():
                result = self._stills.detect(_image(picture))
            if result.face_landmarks:
                return result, picture.shape
        return None

    def close(self) -> None:
        """Free the model for single pictures; left to the interpreter's exit, MediaPipe complains."""
        if self._stills is not None:
            self._stills.close()
            self._stills = None

    def _create(self, mode: str) -> Any:
        from mediapipe.tasks.python import vision
        from mediapipe.tasks.python.core.base_options import BaseOptions

        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=self._path),
            running_mode=vision.RunningMode[mode],
            num_faces=self._max_faces,
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
        )
        with _muted():
            return vision.FaceLandmarker.create_from_options(options)


@contextmanager
def _muted() -> Iterator[None]:
    """Drop what MediaPipe's native code writes to standard error: notices at start-up that no setting silences."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@cache
def _version() -> str:
    from importlib.metadata import version

    return version("mediapipe")


def _image(rgb: np.ndarray) -> Any:
    import mediapipe

    # MediaPipe pays no heed to strides: rows that decoders pad (a width of 360, say) would shear the picture.
    return mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(rgb))


def _mesh(landmarks: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Landmarks as (478, 3) in pixels."""
    return np.array([(point.x, point.y, point.z) for point in landmarks]) * [shape[1], shape[0], shape[1]]


def _faces(result: Any, shape: tuple[int, ...]) -> list[dict[str, float]]:
    faces = []
    parts = zip(result.face_landmarks, result.face_blendshapes, result.facial_transformation_matrixes, strict=True)
    for landmarks, blendshapes, matrix in parts:
        scores = {category.category_name: float(category.score) for category in blendshapes}
        faces.append(_measure(_mesh(landmarks, shape), scores, np.asarray(matrix), np.array([shape[1], shape[0]])))
    return faces


def _measure(mesh: np.ndarray, scores: dict[str, float], matrix: np.ndarray, size: np.ndarray) -> dict[str, float]:
    """One row of the face table without its time and track; `mesh` is (478, 3) and `size` (width, height) in pixels."""
    low, high = mesh[:, :2].min(0), mesh[:, :2].max(0)
    pitch, yaw, roll = _euler(matrix)
    row = dict(zip(BOX, [*(low / size), *(high / size)], strict=True))
    row["quality"] = quality((*low, *high), size, pitch, yaw)
    row |= {"pitch": pitch, "yaw": yaw, "roll": roll}
    row |= {name: scores[name] for name in BLENDSHAPES if name not in DEAD_BLENDSHAPES}
    row |= {au: float(np.mean([scores[name] for name in names])) for au, names in ACTION_UNIT_SOURCES.items()}
    row["AU25"] = float(min(1.0, np.linalg.norm(mesh[13] - mesh[14]) / (high[1] - low[1]) / OPEN_LIPS))
    row |= dict(zip(MESH_COMPONENTS, mesh_components(mesh).tolist(), strict=True))
    return row


def _euler(matrix: np.ndarray) -> tuple[float, float, float]:
    """Pitch, yaw and roll of the head in degrees from the 4x4 facial transformation matrix."""
    from scipy.spatial.transform import Rotation

    pitch, yaw, roll = Rotation.from_matrix(matrix[:3, :3]).as_euler("xyz", degrees=True)
    return float(pitch), float(yaw), float(roll)
