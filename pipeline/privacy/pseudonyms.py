"""Pseudonyms: a table of names and what stands in their place, and where the names are in texts and paths."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from emopipe.errors import PseudonymsTableError
from emopipe.pipeline.datasets.csv_input import Fault, read_table, refuse
from emopipe.pipeline.privacy.replacing import Replacement, apart

NAME: Final = "pseudonyms table"
#: Safe in file names, pages and spreadsheets.
_PSEUDONYM: Final = re.compile(r"[^\W_](?:[\w .-]{0,58}[\w-])?")
#: Letters that Unicode does not take apart.
_PLAIN: Final = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "æ": "ae", "œ": "oe", "ı": "i", "þ": "th"})
#: Between the parts of a name: Anna Müller, Anna-Müller, anna_muller, AnnaMuller.
_BETWEEN: Final = r"[\W_]{0,3}"
#: Scripts that write words without blanks between them, or hang endings on names.
_UNSPACED: Final = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI", "LAO", "KHMER", "MYANMAR")
#: Windows keeps these names of files for itself.
_DEVICES: Final = frozenset({"con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(10))})


@dataclass(frozen=True)
class Folded:
    """A text without case, accents and invisible characters, and where each of its characters comes from."""

    text: str
    origin: tuple[int, ...]


def folded(text: str) -> Folded:
    """Fold case and diacritics."""
    characters: list[str] = []
    origin: list[int] = []
    for index, character in enumerate(text):
        taken_apart = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())
        for piece in taken_apart.translate(_PLAIN):
            if not unicodedata.combining(piece) and unicodedata.category(piece) != "Cf":
                characters.append(piece)
                origin.append(index)
    return Folded("".join(characters), tuple(origin))


@dataclass(frozen=True)
class Pseudonyms:
    """Name -> pseudonym. Names are found as whole words, whatever their case and accents.

    Args:
        of: each name, as the table has it, and its pseudonym.
    """

    of: Mapping[str, str]

    def __bool__(self) -> bool:
        return bool(self.of)

    def find(self, text: str) -> list[Replacement]:
        """Where the names are, and what stands in their place; of several at one place, the longest name."""
        whole = folded(text)
        if self._any is None or not self._any.search(whole.text):
            return []
        return apart(
            Replacement(start, end, _beside(text, start, end, pseudonym))
            for pattern, pseudonym in self._patterns
            for start, end in _places(pattern, whole, text)
        )

    @cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], str]]:
        return [(re.compile(f"(?=({_pattern(name)}))"), pseudonym) for name, pseudonym in self.of.items()]

    @cached_property
    def _any(self) -> re.Pattern[str] | None:
        return re.compile("|".join(map(_pattern, self.of))) if self.of else None


def _pattern(name: str) -> str:
    """A regular expression for a name in folded texts."""
    return _BETWEEN.join(re.escape(part) for part in _parts(name))


def _parts(name: str) -> list[str]:
    return re.findall(r"[^\W_]+", folded(name).text)


def _places(pattern: re.Pattern[str], whole: Folded, text: str) -> Iterator[tuple[int, int]]:
    """Where a name stands as a whole word; a genitive's s may follow it."""
    for match in pattern.finditer(whole.text):
        start, end = match.span(1)
        if not _is_edge(whole, text, start):
            continue
        genitive = whole.text[end : end + 1] == "s" and _is_edge(whole, text, end + 1)
        if _is_edge(whole, text, end) or (genitive and not _splits(whole, end)):
            yield whole.origin[start], _beyond(text, whole.origin[end - 1])


def _beside(text: str, start: int, end: int, pseudonym: str) -> str:
    """A pseudonym, parted from numbers beside it: P1 of anna2 is P1-2."""
    before = "-" if pseudonym[0].isnumeric() and text[start - 1 : start].isnumeric() else ""
    after = "-" if pseudonym[-1].isnumeric() and text[end : end + 1].isnumeric() else ""
    return f"{before}{pseudonym}{after}"


def _splits(whole: Folded, at: int) -> bool:
    """Whether a place lies within one character of the text."""
    return 0 < at < len(whole.text) and whole.origin[at - 1] == whole.origin[at]


def _is_edge(whole: Folded, text: str, at: int) -> bool:
    """Whether a word may begin or end at a place of the folded text."""
    if at in (0, len(whole.text)):
        return True
    if _splits(whole, at):
        return False
    before, after = text[whole.origin[at - 1]], text[whole.origin[at]]
    if before.isalpha() and after.isalpha():
        return (before.islower() and after.isupper()) or _is_unspaced(before) or _is_unspaced(after)
    return not (before.isnumeric() and after.isnumeric())


def _is_unspaced(character: str) -> bool:
    return unicodedata.name(character, "").startswith(_UNSPACED)


def _beyond(text: str, last: int) -> int:
    """The end of a character with the accents that follow it."""
    end = last + 1
    while end < len(text) and unicodedata.combining(text[end]):
        end += 1
    return end


def read_pseudonyms(path: Path) -> Pseudonyms:
    """Read a table of pseudonyms: CSV with the columns `name` and `pseudonym`.

    Several names may have one pseudonym: `Anna`, `Anna Müller` and `Annie` are the same person.

    Raises:
        InputNotFound: without the file; PseudonymsTableError when it is not such a table, naming the lines.
    """
    table = read_table(path, NAME, PseudonymsTableError)
    if not {"name", "pseudonym"} <= {*table.columns}:
        what = f"the {NAME} has the columns {', '.join(table.columns)}"
        raise PseudonymsTableError(what, path=path, hint="Call the columns name and pseudonym")
    pairs = {line: (row["name"], row["pseudonym"]) for line, row in table.rows.items()}
    faults = [Fault(line, what, hint) for line, pair in pairs.items() for what, hint in _faults(*pair)]
    refuse(faults or _contradictions(pairs), NAME, PseudonymsTableError, path)
    return Pseudonyms(dict(pairs.values()))


def _faults(name: str, pseudonym: str) -> Iterator[tuple[str, str]]:
    """What is wrong with a row by itself; the names are not repeated, for errors are written to logs."""
    letters = "".join(_parts(name))
    if not name or not pseudonym:
        yield ("name is empty" if not name else "pseudonym is empty"), "Give both, or delete the row"
    elif len(letters) < 2 and not any(map(_is_unspaced, name)):
        yield "the name has fewer than two letters or digits", "It would be replaced everywhere; write more of it"
    elif not _PSEUDONYM.fullmatch(pseudonym) or pseudonym.casefold() in _DEVICES or ".." in pseudonym:
        hint = (
            "Use letters, digits, blanks, hyphens, single points and underscores, at most 60, a letter or digit first"
        )
        yield "the pseudonym cannot be part of a file name", hint


def _contradictions(pairs: Mapping[int, tuple[str, str]]) -> Iterator[Fault]:
    """What is wrong with rows together."""
    names: dict[str, tuple[int, str]] = {}
    for line, (name, pseudonym) in pairs.items():
        earlier, other = names.setdefault(" ".join(_parts(name)), (line, pseudonym))
        if other != pseudonym:
            what = f"the name has another pseudonym in line {earlier}"
            yield Fault(line, what, "Keep one of the two; case and accents do not tell names apart")
    every = Pseudonyms(dict(pairs.values()))
    for line, (_, pseudonym) in pairs.items():
        if every.find(pseudonym):
            yield Fault(line, "the pseudonym holds a name of the table", "Choose pseudonyms that nobody is called")
