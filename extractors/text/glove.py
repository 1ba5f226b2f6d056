"""Vectors of words from a table of them, as GloVe (Pennington et al. 2014) and word2vec publish them as text.

Each line is a word and its numbers, parted by spaces. The file is only ever read as text: nothing in it can run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from emopipe.extractors.contracts import Backend, Locate, TextBackend

#: Words with their apostrophes, numbers, and single other signs.
WORD: Final = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+(?:[.,]\d+)*|[^\w\s]")
#: How GloVe parts contractions, where it has no entry for the whole.
CONTRACTION: Final = re.compile(r"(.+?)(n't|'(?:s|m|d|ll|re|ve))$", re.IGNORECASE)
#: More characters than this make no line of such a table.
LONGEST_LINE: Final = 200_000


def create(settings: Mapping[str, Any], locate: Locate, device: str) -> TextBackend:
    """The table that `text.encoder` names."""
    return WordVectors(locate(settings["encoder"]), settings["max_tokens"])


BACKEND: Final = Backend(
    "glove",
    create,
    weights=lambda settings: [settings["encoder"]],
    libraries=("numpy",),
    settings=("encoder", "max_tokens"),
    gpu=False,
    obtain="Get a table such as glove.840B.300d.txt from nlp.stanford.edu/projects/glove and give --text glove:PATH",
)


class WordVectors:
    """A table of word vectors. Only where each word stands is kept in memory; vectors are read as they are needed.

    Args:
        path: the text file.
        max_tokens: longer texts are cut to so many words.

    Raises:
        OSError, ValueError: it cannot be read, or is not such a table.
    """

    def __init__(self, path: str | Path, max_tokens: int = 64) -> None:
        self._path, self._max_tokens = Path(path), max_tokens
        self._vectors: dict[str, np.ndarray | None] = {}
        self._places, self.width = _index(self._path)

    def feature_names(self) -> list[str]:
        """Names of the feature columns, in order."""
        return [f"word_{index:03d}" for index in range(self.width)]

    def encode(self, texts: Sequence[str], language: str | None = None) -> list[np.ndarray]:
        """Vectors of the words of each text that the table has, float32 (words, width); one step of NaN without any."""
        return [self._encoded(text) for text in texts]

    def _encoded(self, text: str) -> np.ndarray:
        vectors = [vector for word in WORD.findall(text) for vector in self._of(word)][: self._max_tokens]
        return np.stack(vectors) if vectors else np.full((1, self.width), np.nan, dtype=np.float32)

    def _of(self, word: str) -> list[np.ndarray]:
        """The vector of a word, or of the two parts of a contraction; none for a word that is not there."""
        plain = word.replace("’", "'")
        whole = self._vector(plain)
        if whole is not None:
            return [whole]
        parts = CONTRACTION.match(plain)
        found = [self._vector(part) for part in parts.groups()] if parts else []
        return [vector for vector in found if vector is not None]

    def _vector(self, word: str) -> np.ndarray | None:
        """As it is written, else in lower case."""
        if word not in self._vectors:
            place = self._places.get(word, self._places.get(word.lower()))
            self._vectors[word] = None if place is None else self._read(place)
        return self._vectors[word]

    def _read(self, place: int) -> np.ndarray:
        with self._path.open("rb") as file:
            file.seek(place)
            line = file.readline(LONGEST_LINE)
        numbers = line.decode("utf-8", "replace").split()[-self.width :]
        try:
            vector = np.array(numbers, dtype=np.float32)
        except ValueError as error:
            raise ValueError(f"the table of word vectors has a line that is not numbers, at byte {place}") from error
        if len(vector) != self.width or not np.isfinite(vector).all():
            raise ValueError(f"the table of word vectors has a line of other or infinite numbers, at byte {place}")
        return vector


def _index(path: Path) -> tuple[dict[str, int], int]:
    """Word -> byte at which its line begins, and the width of the vectors; a first line of two numbers is a header."""
    places: dict[str, int] = {}
    width, place = 0, 0
    with path.open("rb") as file:
        while line := file.readline(LONGEST_LINE):
            fields = line.count(b" ") + 1 - line.rstrip(b"\n").endswith(b" ")
            if place or fields > 2:
                width = width or _width(line, path)
                if fields <= width:
                    raise ValueError(f"{path.name} is not a table of word vectors: byte {place} begins a shorter line")
                word = line.rstrip().rsplit(b" ", width)[0].decode("utf-8", "replace")
                places.setdefault(word, place)
            place += len(line)
    if not places:
        raise ValueError(f"{path.name} is not a table of word vectors: it is empty")
    return places, width


def _width(line: bytes, path: Path) -> int:
    """How many numbers follow the word of the first line."""
    fields = line.split()
    numbers = 0
    for field in reversed(fields[1:]):
        try:
            float(field)
        except ValueError:
            break
        numbers += 1
    if numbers < 2:
        raise ValueError(f"{path.name} is not a table of word vectors: its first line has no numbers behind a word")
    return numbers
