"""A table of speakers: who speaks in which recording."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from emopipe.errors import SpeakersTableError
from emopipe.models.data.label_values import told
from emopipe.pipeline.datasets.csv_input import Fault, read_table, refuse
from emopipe.pipeline.datasets.recording_names import AMBIGUOUS, RecordingNames
from emopipe.pipeline.records import is_generic

NAME: Final = "speakers table"
#: What the columns are called; the first name that is there counts.
FILE: Final = ("file", "video")
SPEAKER: Final = ("speaker", "person")


def read_speakers(given: Path | Mapping[str, str] | Mapping[Path, str], files: Iterable[Path]) -> dict[Path, str]:
    """Read who speaks in which input: CSV with the columns `file` and `speaker` (or `person`); others are left alone.

    A `file` is an input: its name, with or without suffix and as much of the path before it as is needed to tell it
    from others. Rows of other files, and without a speaker (empty, NA, nan, None in a mapping), count for nothing.

    Args:
        given: the table, or file -> speaker.
        files: the inputs of the run.

    Returns:
        Input -> its speaker.

    Raises:
        InputNotFound: without the file; SpeakersTableError when it is not such a table, naming the lines or columns.
    """
    path = given if isinstance(given, Path) else None
    rows = _rows(given) if isinstance(given, Path) else _entries(given)
    found, faults = _resolved(rows, RecordingNames(files))
    refuse(faults, NAME, SpeakersTableError, path)
    if not found:
        hint = "Write the names of files as they are on the disk; a row without a speaker counts for nothing"
        raise SpeakersTableError(f"the {NAME} names the speaker of none of the inputs", path=path, hint=hint)
    return found


def _rows(path: Path) -> dict[int, tuple[str, str]]:
    """Line of the table -> file and speaker."""
    table = read_table(path, NAME, SpeakersTableError)
    file, speaker = (next((name for name in names if name in table.columns), "") for names in (FILE, SPEAKER))
    if not file or not speaker:
        what = f"the {NAME} has only the columns {', '.join(table.columns)[:200]}"
        raise SpeakersTableError(
            what, path=path, hint="Name recordings in a column file, who speaks in a column speaker"
        )
    return {line: (cells[file], told(cells[speaker])) for line, cells in table.rows.items()}


def _entries(given: Mapping[str, str] | Mapping[Path, str]) -> dict[int, tuple[str, str]]:
    """Place in a mapping -> file and speaker."""
    rows = enumerate(given.items(), start=1)
    return {place: (str(file), unicodedata.normalize("NFC", told(speaker))) for place, (file, speaker) in rows}


def _resolved(rows: Mapping[int, tuple[str, str]], names: RecordingNames) -> tuple[dict[Path, str], list[Fault]]:
    """Input -> speaker of the rows, by line, and what is wrong with them."""
    found: dict[Path, tuple[str, int]] = {}
    faults = []
    for line, (file, speaker) in rows.items():
        media = names.find(file) if file and speaker else []
        if media and (doubt := names.doubt(file)):
            faults.append(Fault(line, doubt, AMBIGUOUS))
        elif media and is_generic(speaker):
            hint = "S1, S2, ... are what results call people without a name: write P1, or a name"
            faults.append(Fault(line, f"speaker is {speaker}", hint))
        elif media:
            other, before = found.setdefault(media[0], (speaker, line))
            if other != speaker:
                hint = "Name the one who is interviewed; --enrol knows others by their voices"
                faults.append(Fault(line, f"{file} is of {speaker}, in line {before} of {other}", hint))
    return {media: speaker for media, (speaker, _) in found.items()}, faults
