"""py-feat 2 (Cheong et al., 2023), folded into the face table: twenty action units, emotions, head pose and gaze.

`Detectorv2` is one network for everything, and gives valence, arousal and blendshapes too; `Detectorv1` is one model
per task. Both find faces with RetinaFace. Batches of our own frames go to their `detect_faces` and `forward`; their
`detect` would open the file a second time. Nobody is identified: the identity networks are not even loaded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from emopipe.extractors.contracts import Backend, Locate
from emopipe.extractors.face.appearance import look
from emopipe.extractors.face.face_table_builder import FaceRows
from emopipe.extractors.face.table import (
    ACTION_UNITS,
    AFFECT,
    BLENDSHAPES,
    BOX,
    TimedPicture,
    attempts,
    quality,
)
from emopipe.extractors.import_isolation import contained

if TYPE_CHECKING:
    import torch


#: Detector -> the repositories of py-feat's hub that hold its weights.
REPOSITORIES: Final = {
    "v2": ("retinaface_r34", "face_multitask_v2"),
    "v1": ("retinaface_r34", "mobilefacenet", "xgb_au", "resmasknet", "l2cs", "pose_mlp_v2"),
}
#: Device -> frames that go through the networks at once.
BATCH: Final = {"cpu": 4, "cuda": 16}
#: RetinaFace looks at pictures scaled down to this, in pixels; the faces are cut out of the originals.
FINDER_SIDE: Final = 640
#: Faces that RetinaFace is less sure of are none.
LEAST_SCORE: Final = 0.5

_DEGREES: Final = 180 / math.pi
#: Column of the face table -> py-feat's column and the factor between them. Its angles are radians that grow upwards
#: and towards the subject's right.
_SHARED: Final = {
    **{name: (name, 1.0) for name in ACTION_UNITS},
    "pitch": ("Pitch", -_DEGREES),
    "yaw": ("Yaw", -_DEGREES),
    "roll": ("Roll", _DEGREES),
    "gaze_pitch": ("gaze_pitch", -_DEGREES),
    "gaze_yaw": ("gaze_yaw", -_DEGREES),
}
#: Emotion -> what Detectorv1 and Detectorv2 call it.
_EMOTIONS: Final = {
    "anger": ("anger", "Anger"),
    "disgust": ("disgust", "Disgust"),
    "fear": ("fear", "Fear"),
    "happiness": ("happiness", "Happy"),
    "neutral": ("neutral", "Neutral"),
    "sadness": ("sadness", "Sad"),
    "surprise": ("surprise", "Surprise"),
}
SOURCES: Final = {
    "v1": _SHARED | {f"emotion_{name}": (first, 1.0) for name, (first, _) in _EMOTIONS.items()},
    "v2": _SHARED
    | {f"emotion_{name}": (second, 1.0) for name, (_, second) in _EMOTIONS.items()}
    | {name: (name, 1.0) for name in AFFECT + BLENDSHAPES},
}
#: Detector -> columns of the face table that it fills. The mesh is not among them: py-feat gives its depth no scale.
MEASURED: Final = {detector: frozenset(sources) for detector, sources in SOURCES.items()}

#: py-feat's columns of dlib's landmarks: outer corners of the eyes, tip of the nose, chin; see :func:`look`.
ANCHORS: Final = [f"{axis}_{point}" for point in (36, 45, 30, 8) for axis in "xy"]

#: What the file of classifiers may be made of, besides what skops trusts by itself: names beginning with one of these.
_CLASSIFIERS: Final = ("feat.au_detectors.StatLearning.SL_test.", "xgboost.")


def weight_names(detector: str) -> dict[str, str]:
    """Repository -> our name of its weights, for a detector."""
    return {name: f"pyfeat-{name.replace('_', '-')}" for name in REPOSITORIES[detector]}


def create(settings: Mapping[str, Any], locate: Locate, device: str) -> PyFeat:
    """The backend that a table `face` of a configuration describes."""
    folders = {name: locate(weight) for name, weight in weight_names(settings["detector"]).items()}
    return PyFeat(folders, settings["detector"], device, settings["max_faces"])


BACKEND: Final = Backend(
    "pyfeat",
    create,
    weights=lambda settings: list(weight_names(settings["detector"]).values()),
    libraries=("py-feat", "torch"),
    settings=("detector", "max_faces"),
)


class PyFeat:
    """Measures faces in clips and in single pictures.

    Args:
        folders: repository -> the folder that holds its files; those that :data:`REPOSITORIES` names.
        detector: "v2" or "v1".
        device: "cpu" or "cuda".
        max_faces: the largest so many faces of a frame are measured.
        batch: frames that go through the networks at once; 0: as many as suit the device.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: a file is not what py-feat expects.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        detector: str = "v2",
        device: str = "cpu",
        max_faces: int = 2,
        batch: int = 0,
    ) -> None:
        self.measured = MEASURED[detector]
        self._name = detector
        self._version = f"{_version()} (Detector{detector})"
        self._batch = batch or BATCH[device]
        self._note = _note(folders)
        self._detector = _load(folders, detector, device, max_faces)

    def track(self, frames: Iterable[TimedPicture]) -> pa.Table:
        """The face table of a clip: frames of increasing times, of which one batch is held."""
        rows = FaceRows()
        for batch in _batches(frames, self._batch):
            found = self._measure(np.stack([frame.rgb for frame in batch]))
            for frame, faces in zip(batch, found, strict=True):
                looks = [look(frame.rgb, anchors) for _, anchors in faces]
                rows.add(frame.time, [face for face, _ in faces], looks)
        return rows.table(backend=BACKEND.name, version=self._version, note=self._note)

    def still(self, rgb: np.ndarray) -> pa.Table:
        """The face table of one picture, at time 0; see :func:`attempts` for where a face is looked for."""
        found = (self._measure(picture[None])[0] for picture in attempts(rgb))
        faces = next((faces for faces in found if faces), [])
        rows = FaceRows()
        rows.add(0.0, [face for face, _ in faces])
        return rows.table(backend=BACKEND.name, version=self._version, note=self._note)

    def close(self) -> None:
        """Let go of the networks."""
        self._detector = None

    def _measure(self, pictures: np.ndarray) -> list[list[tuple[dict[str, float], np.ndarray]]]:
        """The faces in each of the pictures, RGB uint8 (N, height, width, 3), largest first: columns and anchors."""
        import torch

        stack = torch.from_numpy(pictures).permute(0, 3, 1, 2)
        found = self._detector.detect_faces(stack, face_detection_threshold=LEAST_SCORE)
        shown = [index for index, faces in enumerate(found) if not faces["boxes"].isnan().any()]
        measured: list[list[tuple[dict[str, float], np.ndarray]]] = [[] for _ in found]
        if not shown:
            return measured
        sources = SOURCES[self._name]
        factors = np.array([factor for _, factor in sources.values()])
        table = self._detector.forward([found[index] for index in shown], _unscaled(stack[shown]))
        values = iter(table[[name for name, _ in sources.values()]].to_numpy(np.float64) * factors)
        anchors = iter(table[ANCHORS].to_numpy(np.float64).reshape(-1, 4, 2))
        size = np.array([pictures.shape[2], pictures.shape[1]])
        for index in shown:
            boxes = found[index]["boxes"].cpu().numpy()
            rows = [_row(box, dict(zip(sources, next(values).tolist(), strict=True)), size) for box in boxes]
            measured[index] = [(row, next(anchors)) for row in rows]
        return measured


def _row(box: np.ndarray, values: dict[str, float], size: np.ndarray) -> dict[str, float]:
    """One row of the face table without its time and track; box and size in pixels."""
    sides = dict(zip(BOX, (box / np.tile(size, 2)).tolist(), strict=True))
    return sides | {"quality": quality(box, size, values["pitch"], values["yaw"])} | values


def _batches(frames: Iterable[TimedPicture], size: int) -> Iterator[list[TimedPicture]]:
    """At most `size` successive frames of one shape."""
    for _, alike in groupby(frames, key=lambda frame: frame.rgb.shape):
        while batch := list(islice(alike, size)):
            yield batch


def _unscaled(stack: torch.Tensor) -> dict[str, Any]:
    """Pictures (N, 3, height, width) in the words of py-feat's loaders: neither scaled nor padded."""
    import torch

    none = torch.zeros(len(stack))
    padding = dict.fromkeys(("Left", "Top", "Right", "Bottom"), none)
    return {"Image": stack, "Scale": torch.ones(len(stack)), "Padding": padding}


@cache
def _version() -> str:
    from importlib.metadata import version

    return version("py-feat")


# Loading


class _LargestFaces:
    """Stands in front of py-feat's RetinaFace: gives it smaller pictures, and of each keeps the largest faces."""

    def __init__(self, finder: Any, most: int) -> None:
        self._finder = finder
        self._most = most

    def __call__(self, pictures: torch.Tensor) -> list[list[list[float]]]:
        """[x0, y0, x1, y1, score] of the faces in each of the pictures (N, 3, height, width), in their pixels."""
        from torch.nn.functional import interpolate

        height, width = pictures.shape[-2:]
        scale = FINDER_SIDE / max(height, width)
        if scale >= 1:
            return [self._largest(faces, 1.0, 1.0) for faces in self._finder(pictures)]
        size = (round(height * scale), round(width * scale))
        smaller = interpolate(pictures, size, mode="bilinear", antialias=True)
        return [self._largest(faces, width / size[1], height / size[0]) for faces in self._finder(smaller)]

    def _largest(self, faces: list[list[float]], x: float, y: float) -> list[list[float]]:
        kept = sorted(faces, key=lambda face: face[1] - face[3])[: self._most]
        return [[x0 * x, y0 * y, x1 * x, y1 * y, score] for x0, y0, x1, y1, score in kept]


def _load(folders: Mapping[str, Path], detector: str, device: str, max_faces: int) -> Any:
    """One of py-feat's detectors, with its weights."""
    build = {"v1": _detector_v1, "v2": _detector_v2}[detector]
    try:
        with contained():
            return build(folders, device, max_faces)
    except (ImportError, OSError, ValueError):
        raise
    except Exception as error:  # whatever torch, skops and py-feat say of a file that is another or damaged
        raise ValueError(f"py-feat cannot use its weights: {error}") from error


def _detector_v2(folders: Mapping[str, Path], device: str, max_faces: int) -> Any:
    from feat import Detectorv2
    from feat.multitask.inference import HF_WEIGHTS_FILE

    weights = folders["face_multitask_v2"] / HF_WEIGHTS_FILE
    with _served(folders):
        detector = Detectorv2(device=device, identity_model=None, multitask_weights=str(weights))
    detector.face_detector = _LargestFaces(detector.face_detector, max_faces)
    return detector


def _detector_v1(folders: Mapping[str, Path], device: str, max_faces: int) -> Any:
    import torch
    from feat import Detectorv1
    from feat.utils.face_pose_mlp import pose_from_landmarks_mlp

    _check_classifiers(folders["xgb_au"])
    with _served(folders):
        detector = Detectorv1(device=device, identity_model=None)
        # py-feat would load this network with the first face, and go on without a pose when it cannot.
        if pose_from_landmarks_mlp(torch.zeros(1, 68, 2).to(detector.device)) is None:
            raise ValueError(f"py-feat cannot use what is in {folders['pose_mlp_v2']}")
    _check_gaze(detector.gaze_detector.model, folders["l2cs"])
    detector.facepose_detector = _LargestFaces(detector.facepose_detector, max_faces)
    return detector


@contextmanager
def _served(folders: Mapping[str, Path]) -> Iterator[None]:
    """Within this block, py-feat is given files of these folders instead of asking its hub."""
    import feat.detector
    import huggingface_hub

    def local(repo_id: str, filename: str, **_: object) -> str:
        path = folders[repo_id.removeprefix("py-feat/")] / filename
        if not path.is_file():
            raise FileNotFoundError(f"no weights of py-feat at {path}")
        return str(path)

    askers: tuple[Any, ...] = (huggingface_hub, feat.detector)
    kept = [asker.hf_hub_download for asker in askers]
    try:
        for asker in askers:
            asker.hf_hub_download = local
        yield
    finally:
        for asker, download in zip(askers, kept, strict=True):
            asker.hf_hub_download = download


def _check_classifiers(folder: Path) -> None:
    """Refuse a file of classifiers that would make objects of other kinds: py-feat trusts whatever is in it."""
    from skops.io import get_untrusted_types

    for path in folder.glob("*.skops"):
        foreign = [name for name in get_untrusted_types(file=path) if not name.startswith(_CLASSIFIERS)]
        if foreign:
            raise ValueError(f"{path} holds more than classifiers: {', '.join(foreign)}")


def _check_gaze(network: torch.nn.Module, folder: Path) -> None:
    """Refuse weights that leave a part of the gaze network untrained, which py-feat would not notice."""
    unused = ("num_batches_tracked", "fc_finetune")
    for path in folder.glob("*.safetensors"):
        found = {name.replace("module.", "", 1) for name in _header(path)[0]}
        missing = [name for name in network.state_dict() if name not in found and not any(u in name for u in unused)]
        if missing:
            raise ValueError(f"{path} lacks {len(missing)} tensors, such as {missing[0]}")


def _note(folders: Mapping[str, Path]) -> str:
    """What the weights say of themselves, under `note` in the metadata of their files."""
    files = [path for folder in folders.values() for path in sorted(folder.glob("*.safetensors"))]
    return "; ".join(sorted({note for path in files if (note := _header(path)[1].get("note"))}))


def _header(path: Path) -> tuple[list[str], dict[str, str]]:
    """Names of the tensors in a safetensors file, and its metadata."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            return list(file.keys()), file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from error
