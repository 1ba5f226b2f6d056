"""A table of participants: which groups the people of a batch belong to."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from emopipe.errors import EmopipeError, ParticipantsTableError
from emopipe.models.data.label_values import told
from emopipe.pipeline.datasets.csv_input import read_table
from emopipe.pipeline.datasets.recording_names import AMBIGUOUS, RecordingNames
from emopipe.pipeline.privacy.disguise import Disguise
from emopipe.pipeline.records import is_generic

NAME: Final = "participants table"
#: Columns that say who is meant; all others are groups.
KEYS: Final = ("person", "file")


@dataclass(frozen=True)
class Participant:
    """A row of the table.

    Attributes:
        line: in the file.
        person: the speaker that is meant; "": whoever is not the interviewer.
        file: as the table names it; "": any.
        media: the input that `file` means; None when it means none.
        groups: column -> value, "" where the cell is empty.
    """

    line: int
    person: str
    file: str
    media: Path | None
    groups: Mapping[str, str]

    @property
    def name(self) -> str:
        """How the table calls them."""
        return " / ".join(part for part in (self.file, self.person) if part)


@dataclass(frozen=True)
class Participants:
    """The table: its group columns, and its rows in order."""

    columns: tuple[str, ...]
    rows: tuple[Participant, ...]

    def find(self, media: Path, speaker: str | None) -> Participant | None:
        """The row of a speaker in an input: one that names both, else the person, else the file."""
        name = unicodedata.normalize("NFC", speaker or "")
        keys = ((media, name), (None, name), (media, ""))
        return next((self._known[key] for key in keys if key in self._known), None)

    def hidden(self, disguise: Disguise) -> Participants:
        """The table with pseudonyms, as the results have them."""
        rows = (
            replace(
                row,
                person=disguise.text(row.person),
                file=disguise.text(row.file),
                media=None if row.media is None else disguise.path(row.media),
                groups={column: disguise.text(value) for column, value in row.groups.items()},
            )
            for row in self.rows
        )
        return Participants(self.columns, tuple(rows))

    @cached_property
    def _known(self) -> dict[tuple[Path | None, str], Participant]:
        return {(row.media, row.person): row for row in self.rows if row.media is not None or not row.file}


def read_participants(path: Path, files: Iterable[Path], disguise: Disguise | None = None) -> Participants:
    """Read a participants table: CSV with the column `person` or `file`, or both, and any columns of groups.

    A `person` is a speaker's name as the results give it, a `file` an input: its name, with or without suffix and as
    much of the path before it as is needed to tell it from others.

    Args:
        path: the table.
        files: the inputs of the run.
        disguise: what hides their names already; the rows are as the table has them.

    Raises:
        InputNotFound: without the file; ParticipantsTableError when it is not such a table, naming the line or column.
    """
    table = read_table(path, NAME, ParticipantsTableError)
    columns = table.columns
    groups = tuple(column for column in columns if column not in KEYS)
    if len(groups) == len(columns):
        hint = "Say who is meant in a column called person or file"
        raise ParticipantsTableError(f"the {NAME} has only the columns {', '.join(columns)}", path=path, hint=hint)
    if not groups:
        what = f"the {NAME} has no column of groups beside {', '.join(columns)}"
        raise ParticipantsTableError(what, path=path, hint="Add one, such as group")
    names = RecordingNames(files)
    rows: dict[tuple[Path | str | None, str], Participant] = {}
    for line, cells in table.rows.items():
        known = {column: cell if column == "file" else told(cell) for column, cell in cells.items()}
        row = _participant(line, known, groups, names, path, disguise or Disguise())
        other = rows.setdefault((row.media or row.file, row.person), row)
        if other is not row:
            raise _unusable(path, line, f"{row.name} is in line {other.line} already", "Keep one of the two")
    return Participants(groups, tuple(rows.values()))


def _participant(
    line: int,
    cells: Mapping[str, str],
    groups: Sequence[str],
    names: RecordingNames,
    table: Path,
    disguise: Disguise,
) -> Participant:
    person, file = cells.get("person", ""), cells.get("file", "")
    if not person and not file:
        raise _unusable(table, line, f"{' and '.join(k for k in KEYS if k in cells)} is empty", "Say who is meant")
    if not file and is_generic(person):
        hint = "Name the file as well, in a column called file"
        raise _unusable(table, line, f"person is {person}, which is somebody else in every file", hint)
    if doubt := names.doubt(disguise.text(file)):
        raise _unusable(table, line, doubt, AMBIGUOUS)
    media = next(iter(names.find(disguise.text(file))), None)
    return Participant(line, person, file, media, {column: cells[column] for column in groups})


def _unusable(table: Path, line: int, what: str, hint: str) -> EmopipeError:
    return ParticipantsTableError(f"line {line} of the {NAME}: {what}", path=table, hint=hint)
