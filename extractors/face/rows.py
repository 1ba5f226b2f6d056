"""A face table that grows: rows are packed into columns as they come, so that hours of faces stay small."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pyarrow as pa

from emopipe.extractors.face.table import face_table

#: Rows held as dictionaries before they are packed; a packed row takes 700 bytes instead of 10,000.
PACKED: Final = 512


class FaceRows:
    """Collects the rows of :func:`face_table`."""

    def __init__(self) -> None:
        self._loose: list[dict[str, float | int | None]] = []
        self._packed: list[pa.Table] = []

    def extend(self, rows: Iterable[dict[str, float | int | None]]) -> None:
        """Add one dictionary per face."""
        self._loose += rows
        if len(self._loose) >= PACKED:
            self._pack()

    def _pack(self) -> None:
        self._packed.append(face_table(self._loose, backend="", version="", frames=0))
        self._loose = []

    def table(self, *, backend: str, version: str, frames: int, note: str = "") -> pa.Table:
        """All rows as one table; arguments as for :func:`face_table`."""
        self._pack()
        empty = face_table([], backend=backend, version=version, frames=frames, note=note)
        packed = [part.replace_schema_metadata(empty.schema.metadata) for part in self._packed]
        return pa.concat_tables([empty, *packed]).combine_chunks()
