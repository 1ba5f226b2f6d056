"""MediaPipe Face Landmarker: 478 landmarks and 52 blendshapes per face, folded into the face table.

An expression encoder reads the pixels of each face, aligned by its landmarks: see :mod:`.expression`.

Action units are *proxies*: ARKit blendshapes under the names of the FACS units that they resemble, not fitted to
FACS coders. Channels that the model never moves are left null instead of passing a constant zero as a measurement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from emopipe.constants import EXPRESSION_ENCODER
from emopipe.extractors.contracts import Backend, Locate
from emopipe.extractors.face.appearance import look
from emopipe.extractors.face.expression import WEIGHTS_FILE, ExpressionEncoder, face_crop
from emopipe.extractors.face.face_table_builder import FaceRows
from emopipe.extractors.face.finder import FaceFinder
from emopipe.extractors.face.mediapipe_models import (
    DOUBTFUL,
    SURE,
    TURNED,
    DetectionModel,
    FaceMesh,
    LandmarkModel,
    model_path,
)
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
from emopipe.extractors.threads import InOrder, one_thread

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
#: So many faces of a frame are measured unless told otherwise.
MAX_FACES: Final = 16
#: Expressions are read when so many faces wait, or so many frames.
EXPRESSIONS_AT_ONCE: Final = 16
#: How a face is looked for in a single picture, until one is found: least probabilities of detector and landmarker, and
#: the angle in degrees by which the picture is turned.
LOOKS: Final = ((SURE, 0.0), (DOUBTFUL, 0.0), (TURNED, 25.0), (TURNED, -25.0))
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
    bundled={EXPRESSION_ENCODER: WEIGHTS_FILE},
    settings=("weights", "max_faces"),
    gpu=False,
)


class FaceLandmarker:
    """Measures faces in clips and in single pictures.

    Args:
        path: `face_landmarker.task`.
        max_faces: so many faces of a frame are measured.
    """

    measured = MEASURED

    def __init__(self, path: str | Path, max_faces: int = MAX_FACES) -> None:
        self._path = model_path(path)
        self._max_faces = max_faces
        self._stills: dict[tuple[float, float], LandmarkModel] = {}
        self._parts: LandmarkModel | None = None
        self._detector: DetectionModel | None = None
        self._encoder = ExpressionEncoder()

    def track(self, frames: Iterable[TimedPicture]) -> pa.Table:
        """The face table of a clip: frames with strictly increasing times, consumed one at a time."""
        self._parts = self._parts or LandmarkModel(self._path, 1, video=False)
        self._detector = self._detector or DetectionModel(self._path)
        rows = FaceRows()
        waiting = _WaitingFaces(self._encoder, rows)
        with (
            one_thread() as threads,
            closing(LandmarkModel(self._path, self._max_faces, video=True)) as whole,
            InOrder(beside=threads > 1) as afterwards,
        ):
            finder = FaceFinder(whole, self._parts, self._detector.boxes, self._max_faces)
            for frame in frames:
                faces, beyond = finder.faces(frame.rgb, frame.time)
                afterwards.call(waiting.add, frame, faces)
                if beyond:
                    rows.more_than(self._max_faces, frame.time)
            afterwards.call(waiting.release)
        return rows.table(backend=BACKEND.name, version=_version())

    def still(self, rgb: np.ndarray) -> pa.Table:
        """The face table of one picture, at time 0; see :func:`attempts` for where a face is looked for."""
        picture, faces = self.in_still(rgb)
        rows, expressions = FaceRows(), self._encoder.measure_all([face_crop(picture, face.points) for face in faces])
        shown = zip(faces, expressions, strict=True)
        rows.add(0.0, [measure(face, picture.shape) | expression for face, expression in shown])
        return rows.table(backend=BACKEND.name, version=_version())

    def meshes(self, rgb: np.ndarray) -> list[np.ndarray]:
        """Landmarks (478, 3) in pixels of each face of one picture; z in the scale of x."""
        return [face.points for face in self.in_still(rgb)[1]]

    def in_still(self, rgb: np.ndarray) -> tuple[np.ndarray, list[FaceMesh]]:
        """The picture that was looked at in the end, and the faces in it."""
        for least, angle in LOOKS:
            if least not in self._stills:
                self._stills[least] = LandmarkModel(self._path, self._max_faces, video=False, least=least)
            for picture in attempts(rgb):
                faces = _faces_turned(self._stills[least], picture, angle)
                if faces:
                    return picture, faces
        return rgb, []

    def close(self) -> None:
        """Free the models."""
        for model in (*self._stills.values(), self._parts, self._detector):
            if model is not None:
                model.close()
        self._stills, self._parts, self._detector = {}, None, None


def _faces_turned(model: LandmarkModel, picture: np.ndarray, angle: float) -> list[FaceMesh]:
    """The faces of a picture, looked for when it is turned about its middle by an angle in degrees, anticlockwise."""
    import cv2

    if not angle:
        return model.faces(picture)
    height, width = picture.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
    turned = cv2.warpAffine(picture, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
    back = cv2.invertAffineTransform(turn)
    return [face.under(back) for face in model.faces(turned)]


class _WaitingFaces:
    """Faces of a clip on their way into its face table: expressions are read several at a time."""

    def __init__(self, encoder: ExpressionEncoder, rows: FaceRows) -> None:
        self._encoder, self._rows = encoder, rows
        self._frames: list[tuple[float, list[dict[str, float]], list[np.ndarray]]] = []
        self._crops: list[np.ndarray] = []

    def add(self, frame: TimedPicture, faces: Sequence[FaceMesh]) -> None:
        """Take in a frame's faces; the frame itself is not held."""
        rgb = frame.rgb
        looks = [look(rgb, face.points[ANCHORS, :2]) for face in faces]
        self._frames.append((frame.time, [measure(face, rgb.shape) for face in faces], looks))
        self._crops += [face_crop(rgb, face.points) for face in faces]
        if max(len(self._crops), len(self._frames)) >= EXPRESSIONS_AT_ONCE:
            self.release()

    def release(self) -> None:
        """Pass on what waits."""
        expressions = iter(self._encoder.measure_all(self._crops))
        for time, rows, looks in self._frames:
            self._rows.add(time, [row | next(expressions) for row in rows], looks)
        self._frames, self._crops = [], []


@cache
def _version() -> str:
    from importlib.metadata import version

    return version("mediapipe")


def measure(face: FaceMesh, shape: tuple[int, ...]) -> dict[str, float]:
    """What landmarks tell of a face in a picture of that shape: a row without time, track and the encoder's columns."""
    mesh, size = face.points, np.array([shape[1], shape[0]])
    low, high = face.box[:2], face.box[2:]
    pitch, yaw, roll = _euler(face.pose)
    scores = dict(zip(BLENDSHAPES, face.blendshapes[1:].tolist(), strict=True))
    row = dict(zip(BOX, [*(low / size).tolist(), *(high / size).tolist()], strict=True))
    row["quality"] = quality(face.box, size, pitch, yaw)
    row |= {"pitch": pitch, "yaw": yaw, "roll": roll}
    row |= {name: score for name, score in scores.items() if name not in DEAD_BLENDSHAPES}
    row |= {au: sum(scores[name] for name in names) / len(names) for au, names in ACTION_UNIT_SOURCES.items()}
    row["AU25"] = float(min(1.0, np.linalg.norm(mesh[13] - mesh[14]) / (high[1] - low[1]) / OPEN_LIPS))
    row |= dict(zip(MESH_COMPONENTS, mesh_components(mesh).tolist(), strict=True))
    return row


def _euler(matrix: np.ndarray) -> tuple[float, float, float]:
    """Pitch, yaw and roll of the head in degrees from the 4x4 facial transformation matrix."""
    turn = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    pitch, roll = np.arctan2(turn[2, 1], turn[2, 2]), np.arctan2(turn[1, 0], turn[0, 0])
    yaw = np.arcsin(np.clip(-turn[2, 0], -1.0, 1.0))
    return float(np.degrees(pitch)), float(np.degrees(yaw)), float(np.degrees(roll))
