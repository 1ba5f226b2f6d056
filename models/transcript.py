"""What was said: the words of each utterance, and the lines before it in the same conversation."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import pyarrow as pa


class Transcript:
    """The words of a manifest's utterances.

    A conversation is the rows of one `dialogue`, or, where the manifest tells none, of one `media` file; rows with
    neither stand alone. Its lines are ordered by `utterance` (a number) where there is one, else by `start`, else as
    in the manifest.

    Args:
        manifest: with a column `id`, and `words` where anything was said.
    """

    def __init__(self, manifest: pa.Table) -> None:
        self._manifest = manifest

    def words(self, utterance: str) -> str:
        """The words of an utterance, empty when there are none."""
        lines, place = self._lines[utterance]
        return lines[place]

    def earlier(self, utterance: str) -> tuple[str, ...]:
        """The lines before an utterance in its conversation, oldest first, without those that have no words."""
        lines, place = self._lines[utterance]
        return tuple(line for line in lines[:place] if line)

    @cached_property
    def _lines(self) -> dict[str, tuple[list[str], int]]:
        """Utterance -> the lines of its conversation, and which of them it is."""
        ids, words = self._column("id"), self._column("words")
        conversations: dict[object, list[int]] = {}
        for row, (dialogue, media) in enumerate(zip(self._column("dialogue"), self._column("media"), strict=True)):
            key = ("media", media) if dialogue is None else ("dialogue", dialogue)
            conversations.setdefault(("row", row) if key[1] is None else key, []).append(row)
        numbers, starts = self._column("utterance"), self._column("start")
        found: dict[str, tuple[list[str], int]] = {}
        for rows in conversations.values():
            order = next(
                (one for one in (numbers, starts) if all(isinstance(one[row], int | float) for row in rows)), []
            )
            rows.sort(key=lambda row: order[row] if order else 0)
            lines = [str(words[row] or "").strip() for row in rows]
            found |= {ids[row]: (lines, place) for place, row in enumerate(rows)}
        return found

    def _column(self, name: str) -> list[Any]:
        known = name in self._manifest.column_names
        return self._manifest[name].to_pylist() if known else [None] * self._manifest.num_rows
