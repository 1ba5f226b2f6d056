"""The face table: one row per sampled frame and face, the same columns whatever backend measured them.

Each backend says in a set of names which columns it measures. It fills those in every row; every other column is
null in every row, never zero.

Angles of head and gaze are degrees: pitch grows downwards, yaw towards the subject's left (the picture's right), roll
towards the subject's right shoulder.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa

BOX: Final = ("x0", "y0", "x1", "y1")
POSE: Final = ("pitch", "yaw", "roll")
GAZE: Final = ("gaze_pitch", "gaze_yaw")
AFFECT: Final = ("valence", "arousal")
EMOTIONS: Final = tuple(
    f"emotion_{name}" for name in ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
)
#: py-feat's twenty action units.
ACTION_UNITS: Final = tuple(
    f"AU{number:02d}" for number in (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 17, 20, 23, 24, 25, 26, 28, 43)
)
#: ARKit's blendshapes in the Face Landmarker's order, without its constant `_neutral`.
BLENDSHAPES: Final = tuple(
    [
        "browDownLeft",
        "browDownRight",
        "browInnerUp",
        "browOuterUpLeft",
        "browOuterUpRight",
        "cheekPuff",
        "cheekSquintLeft",
        "cheekSquintRight",
        "eyeBlinkLeft",
        "eyeBlinkRight",
        "eyeLookDownLeft",
        "eyeLookDownRight",
        "eyeLookInLeft",
        "eyeLookInRight",
        "eyeLookOutLeft",
        "eyeLookOutRight",
        "eyeLookUpLeft",
        "eyeLookUpRight",
        "eyeSquintLeft",
        "eyeSquintRight",
        "eyeWideLeft",
        "eyeWideRight",
        "jawForward",
        "jawLeft",
        "jawOpen",
        "jawRight",
        "mouthClose",
        "mouthDimpleLeft",
        "mouthDimpleRight",
        "mouthFrownLeft",
        "mouthFrownRight",
        "mouthFunnel",
        "mouthLeft",
        "mouthLowerDownLeft",
        "mouthLowerDownRight",
        "mouthPressLeft",
        "mouthPressRight",
        "mouthPucker",
        "mouthRight",
        "mouthRollLower",
        "mouthRollUpper",
        "mouthShrugLower",
        "mouthShrugUpper",
        "mouthSmileLeft",
        "mouthSmileRight",
        "mouthStretchLeft",
        "mouthStretchRight",
        "mouthUpperUpLeft",
        "mouthUpperUpRight",
        "noseSneerLeft",
        "noseSneerRight",
    ]
)
MESH_COMPONENTS: Final = tuple(f"mesh_{index:02d}" for index in range(80))
EXPRESSION: Final = tuple(f"expression_{index:02d}" for index in range(32))

#: Groups of columns that a configuration may choose as features.
FEATURE_GROUPS: Final = {
    "action_units": ACTION_UNITS,
    "blendshapes": BLENDSHAPES,
    "mesh": MESH_COMPONENTS,
    "pose": POSE,
    "gaze": GAZE,
    "emotions": EMOTIONS,
    "affect": AFFECT,
    "expression": EXPRESSION,
}
#: Faces at least this tall, in pixels, count as fully resolved in the quality figure.
FULL_QUALITY_HEIGHT: Final = 120
#: Single pictures smaller than this are enlarged, in pixels.
SMALL_IMAGE: Final = 192
#: Borders that are put around a picture in which no face is found otherwise, as shares of its smaller side.
BORDERS: Final = (1 / 3, 0.15, 1.2)

SCHEMA: Final = pa.schema(
    [pa.field("time", pa.float64(), metadata={"unit": "s"}), pa.field("track", pa.int32())]
    + [pa.field(name, pa.float32(), metadata={"unit": "fraction of the frame's width or height"}) for name in BOX]
    + [pa.field("quality", pa.float32(), metadata={"unit": "0..1"})]
    + [pa.field(name, pa.float32(), metadata={"unit": "degrees"}) for name in POSE + GAZE]
    + [pa.field(name, pa.float32(), metadata={"unit": "0..1"}) for name in ACTION_UNITS + BLENDSHAPES + EMOTIONS]
    + [pa.field(name, pa.float32(), metadata={"unit": "-1..1"}) for name in AFFECT]
    + [pa.field(name, pa.float32(), metadata={"unit": "standard deviations"}) for name in MESH_COMPONENTS + EXPRESSION]
)


class TimedPicture(Protocol):
    """A frame as backends need it: seconds and RGB uint8 (height, width, 3)."""

    @property
    def time(self) -> float:
        """Seconds on the media clock."""

    @property
    def rgb(self) -> np.ndarray:
        """The image, uint8 (height, width, 3)."""


def feature_columns(groups: Iterable[str], measured: Collection[str]) -> list[str]:
    """Columns of the named groups that a backend measures, in the table's order."""
    return [name for group in groups for name in FEATURE_GROUPS[group] if name in measured]


@dataclass(frozen=True)
class FaceLimit:
    """More faces were seen than are measured.

    Attributes:
        most: so many are measured.
        start, end: seconds of the first and of the last frame with more.
    """

    most: int
    start: float
    end: float


def limit_reached(table: pa.Table) -> FaceLimit | None:
    """Whether more faces were seen than are measured; None when not."""
    text = (table.schema.metadata or {}).get(b"limit")
    return FaceLimit(**json.loads(text)) if text else None


def face_table(
    rows: list[dict[str, float | int | None]],
    *,
    backend: str,
    version: str,
    frames: int,
    note: str = "",
    limit: FaceLimit | None = None,
) -> pa.Table:
    """Build the table from one dictionary per face; columns that a row lacks become null.

    Args:
        rows: column name -> value.
        backend, version: what measured, kept in the schema's metadata.
        frames: how many frames were looked at, kept there too (rows exist only where a face was found).
        note: what whoever reads the results must know of the weights, kept there too.
        limit: more faces were seen than were measured, kept there too.
    """
    facts = {"backend": backend, "version": version, "frames": str(frames), "note": note}
    facts |= {"limit": json.dumps(asdict(limit))} if limit else {}
    schema = SCHEMA.with_metadata({name: value for name, value in facts.items() if value})
    columns = [
        pa.array([row.get(name) for row in rows], kind) for name, kind in zip(schema.names, schema.types, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def renumbered(table: pa.Table, numbers: Sequence[int]) -> pa.Table:
    """The table with track number i replaced by `numbers[i]`."""
    tracks = np.asarray(numbers, np.int32)[table["track"].to_numpy()]
    return table.set_column(table.schema.get_field_index("track"), table.schema.field("track"), pa.array(tracks))


def subject_track(table: pa.Table) -> int | None:
    """The most persistent large face: the track with the greatest sum of face heights over time."""
    if table.num_rows == 0:
        return None
    tracks = table["track"].to_numpy()
    heights = table["y1"].to_numpy() - table["y0"].to_numpy()
    return int(np.bincount(tracks, weights=heights).argmax())


def quality(box: Any, size: Any, pitch: float, yaw: float) -> float:
    """How well a face can be measured, 0..1: its height, how frontal it is, and its share inside the picture.

    Args:
        box: x0, y0, x1, y1 in pixels.
        size: width and height of the picture in pixels.
        pitch, yaw: of the head, in degrees.
    """
    low, high = np.asarray(box[:2], np.float64), np.asarray(box[2:], np.float64)
    inside = np.prod(np.clip(high, 0, size) - np.clip(low, 0, size)) / np.prod(high - low)
    frontal = max(0.0, np.cos(np.radians(yaw)) * np.cos(np.radians(pitch)))
    return float(min(1.0, (high[1] - low[1]) / FULL_QUALITY_HEIGHT) * frontal * inside)


def attempts(rgb: np.ndarray) -> Iterable[np.ndarray]:
    """Forms of a single picture in which to look for a face, one after the other.

    Detectors want room around the face: first the picture as it is (unless it is tiny), then enlarged with borders of
    several widths.
    """
    import cv2

    side = min(rgb.shape[:2])
    if side >= SMALL_IMAGE:
        yield rgb
    scale = max(1.0, SMALL_IMAGE / side)
    larger = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) if scale > 1 else rgb
    for share in BORDERS:
        border = int(share * min(larger.shape[:2]))
        yield cv2.copyMakeBorder(larger, border, border, border, border, cv2.BORDER_REPLICATE)
