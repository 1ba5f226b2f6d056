"""The face table: one row per sampled frame and face, the same columns whatever backend measured them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa

BOX: Final = ("x0", "y0", "x1", "y1")
POSE: Final = ("pitch", "yaw", "roll")
#: py-feat's twenty action units. A backend that cannot measure one leaves it null.
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

#: Groups of columns that a configuration may choose as features.
FEATURE_GROUPS: Final = {
    "action_units": ACTION_UNITS,
    "blendshapes": BLENDSHAPES,
    "mesh": MESH_COMPONENTS,
    "pose": POSE,
}

SCHEMA: Final = pa.schema(
    [pa.field("time", pa.float64(), metadata={"unit": "s"}), pa.field("track", pa.int32())]
    + [pa.field(name, pa.float32(), metadata={"unit": "fraction of the frame's width or height"}) for name in BOX]
    + [pa.field("quality", pa.float32(), metadata={"unit": "0..1"})]
    + [pa.field(name, pa.float32(), metadata={"unit": "degrees"}) for name in POSE]
    + [pa.field(name, pa.float32(), metadata={"unit": "0..1"}) for name in ACTION_UNITS + BLENDSHAPES]
    + [pa.field(name, pa.float32(), metadata={"unit": "standard deviations"}) for name in MESH_COMPONENTS]
)


def face_table(rows: list[dict[str, float | int | None]], *, backend: str, version: str, frames: int) -> pa.Table:
    """Build the table from one dictionary per face; columns that a row lacks become null.

    Args:
        rows: column name -> value.
        backend, version: what measured, kept in the schema's metadata.
        frames: how many frames were looked at, kept there too (rows exist only where a face was found).
    """
    schema = SCHEMA.with_metadata({"backend": backend, "version": version, "frames": str(frames)})
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
