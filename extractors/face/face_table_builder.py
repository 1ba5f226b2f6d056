"""A face table that grows: faces are linked into tracks and packed into columns as they come, so hours stay small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from emopipe.extractors.face.table import BOX, FaceLimit, face_table, renumbered
from emopipe.extractors.face.tracks import TrackLinker

#: Rows held as dictionaries before they are packed; a packed row takes 700 bytes instead of 10,000.
PACKED: Final = 512


class FaceRows:
    """Collects the faces of a clip's frames into its face table."""

    def __init__(self) -> None:
        self._linker = TrackLinker()
        self._loose: list[dict[str, float | int | None]] = []
        self._packed: list[pa.Table] = []
        self._frames = 0
        self._limit: FaceLimit | None = None

    def add(self, time: float, faces: Sequence[Mapping[str, float]], looks: Sequence[np.ndarray] | None = None) -> None:
        """Add a frame, or the only picture.

        Args:
            time: seconds, later than that of the frame before.
            faces: column -> value, of each face.
            looks: of each face, see :func:`emopipe.extractors.face.appearance.look`.
        """
        tracks = self._linker.link(time, [[face[side] for side in BOX] for face in faces], looks)
        self._loose += [{"time": time, "track": track, **face} for track, face in zip(tracks, faces, strict=True)]
        self._frames += 1
        if len(self._loose) >= PACKED:
            self._pack()

    def more_than(self, most: int, time: float) -> None:
        """More faces than may be measured were seen at a time in seconds."""
        start = time if self._limit is None else self._limit.start
        self._limit = FaceLimit(most, start, time)

    def _pack(self) -> None:
        self._packed.append(face_table(self._loose, backend="", version="", frames=0))
        self._loose = []

    def table(self, *, backend: str, version: str, note: str = "") -> pa.Table:
        """The face table, in which a track is a person; arguments as for :func:`face_table`."""
        self._pack()
        empty = face_table([], backend=backend, version=version, frames=self._frames, note=note, limit=self._limit)
        packed = [part.replace_schema_metadata(empty.schema.metadata) for part in self._packed]
        return renumbered(pa.concat_tables([empty, *packed]).combine_chunks(), self._linker.people())
