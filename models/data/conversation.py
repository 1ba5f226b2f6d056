"""Transcripts: the words of each utterance, and the lines before it in the same conversation."""

from __future__ import annotations

import string
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def spoken(lines: Sequence[tuple[str | None, str]]) -> list[str]:
    """A conversation as a model reads it.

    `A: ` and `B: ` tell its speakers apart, in the order in which they come up, where two or more are known.

    Args:
        lines: speaker (None when unknown) and words of each utterance, in order of time.

    Returns:
        As many lines; empty where there are no words.
    """
    letters = {name: string.ascii_uppercase[number % 26] for number, name in enumerate(_speakers(lines))}
    several_speakers = len(letters) > 1
    return [f"{letters[name]}: {words}" if several_speakers and name and words else words for name, words in lines]


def _speakers(lines: Sequence[tuple[str | None, str]]) -> list[str]:
    return list(dict.fromkeys(name for name, words in lines if name and words))


class Transcript:
    """The words of a manifest's utterances.

    A conversation is the rows of one `dialogue`, or, where the manifest tells none, of one `media` file; rows with
    neither stand alone. Rows of another split never belong to it: what a model is measured on must not be read beside
    what it learnt from, and names of conversations may restart in each split. Its lines are ordered by `utterance` (a
    number) where there is one, else by `start`, else as in the manifest.

    Args:
        manifest: with a column `id`, `words` where anything was said, and `speaker` where known.
    """

    def __init__(self, manifest: pa.Table) -> None:
        self._manifest = manifest

    def words(self, utterance: str) -> str:
        """The words of an utterance, empty when there are none."""
        words, _, place = self._lines[utterance]
        return words[place]

    def line(self, utterance: str) -> str:
        """The words of an utterance as its conversation shows them; see :func:`spoken`."""
        _, lines, place = self._lines[utterance]
        return lines[place]

    def earlier(self, utterance: str) -> tuple[str, ...]:
        """The lines before an utterance in its conversation, oldest first, without those that have no words."""
        _, lines, place = self._lines[utterance]
        return tuple(line for line in lines[:place] if line)

    def conversations(self, utterances: Sequence[str]) -> NDArray[np.int64]:
        """(N,) numbers of the conversations that N utterances belong to."""
        numbers: dict[int, int] = {}
        lines = (id(self._lines[one][0]) for one in utterances)
        return np.array([numbers.setdefault(one, len(numbers)) for one in lines], dtype=np.int64)

    @cached_property
    def _lines(self) -> dict[str, tuple[list[str], list[str], int]]:
        """Utterance -> the words of its conversation, these as :func:`spoken`, and which of them are its own."""
        ids, words, speakers = self._column("id"), self._column("words"), self._column("speaker")
        conversations: dict[object, list[int]] = {}
        names = zip(self._column("dialogue"), self._column("media"), self._column("split"), strict=True)
        for row, (dialogue, media, split) in enumerate(names):
            key = ("media", media, split) if not dialogue else ("dialogue", dialogue, split)
            conversations.setdefault(("row", row) if key[1] is None else key, []).append(row)
        numbers, starts = self._column("utterance"), self._column("start")
        entries: dict[str, tuple[list[str], list[str], int]] = {}
        for rows in conversations.values():
            order = next(
                (one for one in (numbers, starts) if all(isinstance(one[row], int | float) for row in rows)), []
            )
            rows.sort(key=lambda row: order[row] if order else 0)
            texts = [str(words[row] or "").strip() for row in rows]
            lines = spoken([(speakers[row], one) for row, one in zip(rows, texts, strict=True)])
            entries |= {ids[row]: (texts, lines, place) for place, row in enumerate(rows)}
        return entries

    def _column(self, name: str) -> list[Any]:
        exists = name in self._manifest.column_names
        return self._manifest[name].to_pylist() if exists else [None] * self._manifest.num_rows
