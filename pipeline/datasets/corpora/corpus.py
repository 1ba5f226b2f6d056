"""What a corpus is: where to ask for it, how its files lie, and how these become rows of a labels table."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Final

from emopipe.errors import CorpusError, InputNotFound, Reason, reason
from emopipe.models.data.split_names import split_name
from emopipe.pipeline.datasets.csv_input import Table, read_table
from emopipe.pipeline.media.finding import RECORDING_SUFFIXES

#: Names that are listed one by one in a message; the rest is counted.
LISTED: Final = 5
_LEFTOVERS: Final = ("__MACOSX",)


@dataclass(frozen=True)
class Row:
    """A labelled utterance or picture of a corpus.

    Attributes:
        id: unique within its split.
        labels: column -> label or value; "" where there is none.
        file: a video, sound or picture file below the corpus's folder, with "/": where it is, or where it should be.
        text: the words, where the corpus has them.
        start, end: seconds, where the row is a stretch of its file.
        speaker: who speaks, "" when unknown.
        split: train, valid or test; "" where the corpus has no split of its own.
        dialogue: the conversation, unique within its split; "" for none.
        utterance: place in the conversation.
    """

    id: str
    labels: Mapping[str, str | float]
    file: str = ""
    text: str = ""
    start: float | None = None
    end: float | None = None
    speaker: str = ""
    split: str = ""
    dialogue: str = ""
    utterance: int | None = None


@dataclass(frozen=True)
class Corpus:
    """What emopipe knows of a corpus. Everything but `rows` and `columns` is words and numbers for people.

    Attributes:
        name: what commands call it.
        title: its full name.
        language, modalities, labels: what it holds.
        licence: under which terms it is handed out.
        source: where to ask for it.
        layout: how its files lie.
        rows: reads its folder.
        counts: split -> rows of the complete corpus, "" where it has no splits; none when they are not known.
        columns: columns by which its own table is recognised, where it brings one.
    """

    name: str
    title: str
    language: str
    modalities: str
    labels: str
    licence: str
    source: str
    layout: str
    rows: Callable[[CorpusFolder], Iterable[Row]]
    counts: Mapping[str, int] = field(default_factory=dict)
    columns: frozenset[str] = frozenset()

    @property
    def terms(self) -> str:
        """Its title, its licence and where to ask for it, in words."""
        return f"{self.title}. Licence: {self.licence}. Ask for it at {self.source}"


@dataclass(frozen=True)
class CorpusFolder:
    """The files of a corpus.

    Attributes:
        path: the folder.
        pictures: where pictures are written that the corpus holds inside a table; None: they cannot be written.
        reasons: what is doubtful about the corpus, as its adapter tells it.
    """

    path: Path
    pictures: Path | None = None
    reasons: list[Reason] = field(default_factory=list)

    @cached_property
    def files(self) -> tuple[str, ...]:
        """All files below the folder, relative and with "/", sorted; without hidden ones."""
        if not self.path.is_dir():
            raise InputNotFound("there is no such folder", path=self.path)
        found = []
        for root, folders, names in os.walk(self.path):
            folders[:] = [name for name in folders if not name.startswith(".") and name not in _LEFTOVERS]
            below = Path(root).relative_to(self.path)
            found += [(below / name).as_posix() for name in names if not name.startswith(".")]
        return tuple(sorted(found))

    @cached_property
    def existing(self) -> frozenset[str]:
        """The same files, to look them up."""
        return frozenset(self.files)

    @cached_property
    def by_name(self) -> Mapping[str, Sequence[str]]:
        """Name of a file -> the files of that name."""
        names: dict[str, list[str]] = {}
        for file in self.files:
            names.setdefault(file.rpartition("/")[2], []).append(file)
        return names

    @cached_property
    def by_stem(self) -> Mapping[str, Sequence[str]]:
        """Name of a recording without its suffix -> the recordings of that name."""
        names: dict[str, list[str]] = {}
        for file in self.recordings:
            names.setdefault(PurePosixPath(file).stem, []).append(file)
        return names

    @cached_property
    def recordings(self) -> tuple[str, ...]:
        """The files that are videos or sound."""
        return tuple(file for file in self.files if PurePosixPath(file).suffix.lower() in RECORDING_SUFFIXES)

    def first(self, *names: str) -> str | None:
        """The file that goes by one of these names, the first name before the others; None without any.

        Raises:
            CorpusError: several of that name lie equally deep.
        """
        for name in names:
            depths = sorted((file.count("/"), file) for file in self.by_name.get(name, ()))
            if len(depths) > 1 and depths[0][0] == depths[1][0]:
                what = f"there are several files {name}: {depths[0][1]} and {depths[1][1]}"
                raise CorpusError(what, path=self.path, hint="Name the folder of one corpus")
            if depths:
                return depths[0][1]
        return None

    def needed(self, *names: str) -> str:
        """The same file, which must be there.

        Raises:
            CorpusError: it is not.
        """
        file = self.first(*names)
        if file is None:
            raise CorpusError(f"there is no file {' or '.join(names)}", path=self.path)
        return file

    def table(self, file: str, *columns: str) -> Table:
        """A table of the corpus, which must have these columns.

        Raises:
            CorpusError: it cannot be read or lacks a column.
        """
        table = read_table(self.path / file, f"table {file}", CorpusError)
        self.reasons.extend(table.reasons)
        missing = [name for name in columns if name not in table.columns]
        if missing:
            what = f"the table {file} has no column {missing[0]}, only {', '.join(table.columns)[:200]}"
            raise CorpusError(what, path=self.path / file)
        return table

    def words(self, file: str) -> str:
        """A text file, whatever its encoding.

        Raises:
            CorpusError: it cannot be read.
        """
        try:
            content = (self.path / file).read_bytes()
        except OSError as error:
            raise CorpusError(f"{file} cannot be read: {error.strerror}", path=self.path) from error
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError:
            return content.decode("cp1252", errors="replace")

    def doubt(self, code: str, what: str) -> None:
        """Tell what is doubtful about the corpus."""
        self.reasons.append(reason(code, what))


def folder_split(file: str) -> str:
    """The split that the folders of a file name, the nearest first: `dev_splits_complete` is valid; "" for none."""
    for part in reversed(PurePosixPath(file).parent.parts):
        words = "".join(mark if mark.isalpha() else " " for mark in part).split()
        named = next(filter(None, map(split_name, words)), None)
        if named:
            return named
    return ""


def some(names: Sequence[str]) -> str:
    """The first names, and that there are more."""
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")
