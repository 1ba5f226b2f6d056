"""MediaPipe Face Landmarker: 478 landmarks and 52 blendshapes per face, folded into the face table.

An expression encoder reads the pixels of each face that the landmarks align, see :mod:`.expression`.

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
from emopipe.extractors.face.expression import ExpressionEncoder, face_crop
from emopipe.extractors.face.face_table_builder import FaceRows
from emopipe.extractors.face.mesh import mesh_components
from emopipe.extractors.face.table import (
    BLENDSHAPES,
    BOX,
    EMOTIONS,
    EXPRESSION,
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
MEASURED: Final = frozenset(
    {*ACTION_UNIT_SOURCES, "AU25", *BLENDSHAPES, *MESH_COMPONENTS, *POSE, *EMOTIONS, *EXPRESSION} - DEAD_BLENDSHAPES
)
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
    libraries=("mediapipe", "torch"),
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
        self._encoder = ExpressionEncoder()

    def track(self, frames: Iterable[TimedPicture]) -> pa.Table:
        """The face table of a clip: frames with strictly increasing times, consumed one at a time."""
        rows, stamp = FaceRows(), -1
        with self._create("VIDEO") as landmarker:
            for frame in frames:
                first, stamp = stamp < 0, max(stamp + 1, round(frame.time * 1000))
                with _muted() if first else nullcontext():
                    result = landmarker.detect_for_video(_image(frame.rgb), stamp)
                sight = Sight(result, frame.rgb)
                looks = [look(frame.rgb, mesh[ANCHORS, :2]) for mesh in sight.meshes]
                rows.add(frame.time, sight.rows(self._encoder), looks)
        return rows.table(backend=BACKEND.name, version=_version())

    def still(self, rgb: np.ndarray) -> pa.Table:
        """The face table of one picture, at time 0; see :func:`attempts` for where a face is looked for."""
        sight = self.sight(rgb)
        rows = FaceRows()
        rows.add(0.0, sight.rows(self._encoder) if sight else [])
        return rows.table(backend=BACKEND.name, version=_version())

    def meshes(self, rgb: np.ndarray) -> list[np.ndarray]:
        """Landmarks (478, 3) in pixels of each face of one picture; z in the scale of x."""
        sight = self.sight(rgb)
        return sight.meshes if sight else []

    def sight(self, rgb: np.ndarray) -> Sight | None:
        """The faces of one picture, in the first of its :func:`attempts` that shows any."""
        if self._stills is None:
            self._stills = self._create("IMAGE")
        for picture in attempts(rgb):
            with _muted():
                result = self._stills.detect(_image(picture))
            if result.face_landmarks:
                return Sight(result, picture)
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


class Sight:
    """The faces that MediaPipe found in one picture.

    Attributes:
        rgb: the picture that was looked at, uint8 (height, width, 3).
        meshes: landmarks (478, 3) in pixels of each face; z in the scale of x.
    """

    def __init__(self, result: Any, rgb: np.ndarray) -> None:
        self.rgb = rgb
        self.meshes = [_mesh(landmarks, rgb.shape) for landmarks in result.face_landmarks]
        self._result = result

    def rows(self, encoder: ExpressionEncoder) -> list[dict[str, float]]:
        """Rows of the face table without time and track."""
        crops = [face_crop(self.rgb, mesh) for mesh in self.meshes]
        return [row | encoder.measure(crop) for row, crop in zip(self.shapes(), crops, strict=True)]

    def shapes(self) -> list[dict[str, float]]:
        """What of the rows comes from landmarks: all but the expression encoder's columns."""
        size = np.array([self.rgb.shape[1], self.rgb.shape[0]])
        result = self._result
        parts = zip(self.meshes, result.face_blendshapes, result.facial_transformation_matrixes, strict=True)
        return [
            _measure(mesh, {one.category_name: float(one.score) for one in blendshapes}, np.asarray(matrix), size)
            for mesh, blendshapes, matrix in parts
        ]


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
