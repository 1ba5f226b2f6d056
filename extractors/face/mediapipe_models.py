"""MediaPipe's face detector and face landmarker, whose results are numpy arrays in pixels.

The Python layer of MediaPipe makes an object of each of 478 landmarks, which takes longer than the arithmetic on them.
So results are read from its C structures, of the version that `pyproject.toml` pins.
"""

from __future__ import annotations

import ctypes
import os
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

#: The detector's model inside the landmarker's bundle.
DETECTOR: Final = "face_detector.tflite"
#: The detector's own probability from which a place is looked at closely; the landmarker then decides.
LEAST_SCORE: Final = 0.4
#: Probabilities of detector and landmarker from which a face counts; in a single picture that shows no such face; and
#: in one that must be turned.
SURE: Final = (0.5, 0.5)
DOUBTFUL: Final = (0.2, 0.3)
TURNED: Final = (0.2, 0.5)


@dataclass(frozen=True)
class FaceMesh:
    """One face of a picture.

    Attributes:
        points: landmarks (478, 3) in pixels of the picture; z in the scale of x.
        blendshapes: scores (52,) in MediaPipe's order, `_neutral` first.
        pose: the facial transformation matrix (4, 4).
    """

    points: np.ndarray
    blendshapes: np.ndarray
    pose: np.ndarray

    @cached_property
    def box(self) -> np.ndarray:
        """x0, y0, x1, y1 in pixels."""
        return np.concatenate([self.points[:, :2].min(0), self.points[:, :2].max(0)])

    def moved(self, x: float, y: float) -> FaceMesh:
        """The face in a picture of which its own is a part that begins at (x, y)."""
        return FaceMesh(self.points + np.array([x, y, 0.0]), self.blendshapes, self.pose)

    def under(self, affine: np.ndarray) -> FaceMesh:
        """The face in a picture that is its own under a map (2, 3) of shift and rotation in pixels."""
        points, pose = self.points.copy(), self.pose.copy()
        points[:, :2] = points[:, :2] @ affine[:, :2].T + affine[:, 2]
        # The matrix counts upwards, pixels downwards.
        pose[:2] = affine[:, :2].T @ pose[:2]
        return FaceMesh(points, self.blendshapes, pose)


class LandmarkModel:
    """The face landmarker: meshes of the faces of whole pictures.

    Args:
        path: `face_landmarker.task`.
        max_faces: how many faces to look for.
        video: pictures are successive frames of one clip: faces are followed from one to the next.
        least: probabilities of detector and landmarker from which a face counts.
    """

    def __init__(self, path: str, max_faces: int, *, video: bool, least: tuple[float, float] = SURE) -> None:
        from mediapipe.tasks.python import vision
        from mediapipe.tasks.python.core.base_options import BaseOptions

        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=path),
            running_mode=vision.RunningMode.VIDEO if video else vision.RunningMode.IMAGE,
            num_faces=max_faces,
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
            min_face_detection_confidence=least[0],
            min_face_presence_confidence=least[1],
        )
        self._stamp: int | None = -1 if video else None
        self._used = False
        with muted():
            self._task: Any = vision.FaceLandmarker.create_from_options(options)

    def faces(self, rgb: np.ndarray, time: float = 0.0) -> list[FaceMesh]:
        """The faces of a picture; in a clip, `time` in seconds must not fall."""
        from mediapipe.tasks.python.vision.face_landmarker import FaceLandmarkerResultC

        image, result, library = _image(rgb), FaceLandmarkerResultC(), self._task._lib
        given = (self._task._handle, image._image_ptr, None)
        with _muted_first(self._used):
            if self._stamp is None:
                library.MpFaceLandmarkerDetectImage(*given, ctypes.byref(result))
            else:
                self._stamp = max(self._stamp + 1, round(time * 1000))
                library.MpFaceLandmarkerDetectForVideo(*given, self._stamp, ctypes.byref(result))
        self._used = True
        try:
            return [_face_mesh(result, index, rgb.shape) for index in range(result.face_landmarks_count)]
        finally:
            library.MpFaceLandmarkerCloseResult(ctypes.byref(result))

    def close(self) -> None:
        """Free the model; left to the interpreter's exit, MediaPipe complains."""
        self._task.close()


class DetectionModel:
    """The face detector that the landmarker works with: boxes of faces, without landmarks, in a fifth of the time.

    Args:
        path: `face_landmarker.task`.
    """

    def __init__(self, path: str) -> None:
        from mediapipe.tasks.python import vision
        from mediapipe.tasks.python.core.base_options import BaseOptions

        model = zipfile.ZipFile(path).read(DETECTOR)
        options = vision.FaceDetectorOptions(
            base_options=BaseOptions(model_asset_buffer=model), min_detection_confidence=LEAST_SCORE
        )
        self._used = False
        with muted():
            self._task: Any = vision.FaceDetector.create_from_options(options)

    def boxes(self, rgb: np.ndarray) -> list[np.ndarray]:
        """x0, y0, x1, y1 in pixels of each face of a picture."""
        with _muted_first(self._used):
            found = [detection.bounding_box for detection in self._task.detect(_image(rgb)).detections]
        self._used = True
        return [
            np.array([box.origin_x, box.origin_y, box.origin_x + box.width, box.origin_y + box.height], np.float64)
            for box in found
        ]

    def close(self) -> None:
        """Free the model."""
        self._task.close()


def model_path(path: str | Path) -> str:
    """The path of `face_landmarker.task` as MediaPipe wants it.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no face landmarker model at {path}")
    return str(path)


@contextmanager
def muted() -> Iterator[None]:
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


@contextmanager
def _muted_first(used: bool) -> Iterator[None]:
    """Notices come with the first picture."""
    if used:
        yield
    else:
        with muted():
            yield


def _image(rgb: np.ndarray) -> Any:
    import mediapipe

    # MediaPipe pays no heed to strides: rows that decoders pad (a width of 360, say) would shear the picture.
    return mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(rgb))


def _face_mesh(result: Any, index: int, shape: tuple[int, ...]) -> FaceMesh:
    """One face of the landmarker's C result."""
    landmarks, scores = result.face_landmarks[index], result.face_blendshapes[index]
    points = _records(landmarks.landmarks, landmarks.landmarks_count, ("x", "y", "z"))
    points = points * [shape[1], shape[0], shape[1]]
    blendshapes = _records(scores.categories, scores.categories_count, ("score",))[:, 0]
    return FaceMesh(points, blendshapes, np.asarray(result.facial_transformation_matrixes[index].to_numpy()))


def _records(pointer: Any, count: int, names: tuple[str, ...]) -> np.ndarray:
    """Float fields of a C array of structures, float64 (count, names)."""
    kind = pointer._type_
    layout = np.dtype(
        {
            "names": names,
            "formats": [np.float32] * len(names),
            "offsets": [getattr(kind, name).offset for name in names],
            "itemsize": ctypes.sizeof(kind),
        }
    )
    raw = (kind * count).from_address(ctypes.addressof(pointer.contents))
    fields = np.frombuffer(raw, layout)
    return np.stack([fields[name] for name in names], 1).astype(np.float64)
