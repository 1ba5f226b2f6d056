"""Words as hashed character n-grams (Weinberger et al. 2009; Bojanowski et al. 2017): no weights, any script."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def create(settings: Mapping[str, Any], locate: Callable[[str], Path], device: str) -> CharacterNgrams:
    """What `[text] backend = "ngrams"` makes; `[text.options] width` is the number of columns."""
    width = settings["options"].get("width", 64)
    if not isinstance(width, int) or width < 2:
        raise ValueError(f"text.options.width is {width!r}, not a whole number above 1")
    return CharacterNgrams(width, settings["max_tokens"])


class CharacterNgrams:
    """A vector of length one per word: its n-grams of 2 to 4 characters, each added to a column with a sign.

    Args:
        width: columns.
        most: words after so many are left out.
    """

    def __init__(self, width: int = 64, most: int = 64) -> None:
        self._width, self._most = width, most

    def feature_names(self) -> list[str]:
        """Names of the columns."""
        return [f"ngram_{column:03d}" for column in range(self._width)]

    def encode(self, texts: Sequence[str], language: str | None = None) -> list[np.ndarray]:
        """Vectors of the words of each text, float32 (words, width)."""
        return [np.stack([self._word(word) for word in self._words(text)]) for text in texts]

    def _words(self, text: str) -> list[str]:
        return re.findall(r"\S+", text.lower())[: self._most] or [""]

    def _word(self, word: str) -> np.ndarray:
        vector = np.zeros(self._width, np.float32)
        for ngram in _ngrams(f"<{word}>"):
            number = zlib.crc32(ngram.encode())
            vector[(number >> 1) % self._width] += 1 if number & 1 else -1
        return vector / max(1.0, float(np.linalg.norm(vector)))


def _ngrams(word: str) -> Iterator[str]:
    for length in (2, 3, 4):
        yield from (word[start : start + length] for start in range(len(word) - length + 1))
