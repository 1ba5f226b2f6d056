"""Read the tables that users write: CSV as spreadsheets export it, whatever its delimiter and encoding."""

from __future__ import annotations

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from emopipe.errors import EmopipeError, InputNotFound, Reason, reason

DELIMITERS: Final = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
#: The first bytes of spreadsheet files: of xlsx and ods, and of xls.
SPREADSHEETS: Final = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
AS_CSV: Final = "Open it in the spreadsheet program and save it as CSV in UTF-8 (File, Save as, CSV UTF-8)"
#: Faults of a table that are listed one by one; the rest is counted.
LISTED: Final = 5
_MARKS: Final = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
#: Control characters that stand where Windows-1252 was taken for Latin-1, and what they were.
_MISREAD: Final = {code: bytes([code]).decode("cp1252", "ignore") or None for code in range(0x80, 0xA0) if code != 0x85}
_BLANKS: Final = dict.fromkeys(map(ord, " \xa0\u2018\u2019\u201c\u201d\u2013\u2014\u2026\xab\xbb"))
#: Four letters with accents in a row; a letter between two signs.
_UNLIKE_WESTERN: Final = re.compile("[\xc0-\xff]{4}|[\xa1-\xaa\xac-\xba\xbc-\xbe][A-Za-z][\xa1-\xaa\xac-\xba\xbc-\xbe]")
_INVISIBLE: Final = "\ufeff\u200b\u200e\u200f\u2060"


@dataclass(frozen=True)
class Table:
    """A table with a header.

    Attributes:
        rows: line of the file -> column -> cell.
        reasons: what is doubtful about how it was read.
    """

    rows: dict[int, dict[str, str]]
    reasons: tuple[Reason, ...] = ()

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(next(iter(self.rows.values())))


@dataclass(frozen=True)
class Fault:
    """What is wrong with a line of a table, and what to do about it."""

    line: int
    what: str
    hint: str = ""


def refuse(faults: Iterable[Fault], name: str, unusable: type[EmopipeError], path: Path | None) -> None:
    """Raise one error that tells all faults of a table, the first ones word by word; nothing without any."""
    found = sorted(faults, key=lambda fault: fault.line)
    if not found:
        return
    hints = list(dict.fromkeys(fault.hint for fault in found[:LISTED] if fault.hint))
    hint = ". ".join(hints)
    if len(found) == 1:
        raise unusable(f"line {found[0].line} of the {name}: {found[0].what}", path=path, hint=hint)
    lines = "; ".join(f"line {fault.line}: {fault.what}" for fault in found[:LISTED])
    rest = f"; and {len(found) - LISTED} more" if len(found) > LISTED else ""
    raise unusable(f"the {name} has {len(found)} faults: {lines}{rest}", path=path, hint=hint)


def read_table(path: Path, name: str, unusable: type[EmopipeError]) -> Table:
    """Read a CSV file with a header; cells and column names in NFC and without outer blanks.

    Commas, semicolons, tabs or bars part the cells; UTF-8, UTF-16 and Windows-1252 are understood. Empty rows and
    columns without a name are left out; a cell that is missing at the end of a row is "".

    Args:
        path: the file.
        name: what the table is called in errors.
        unusable: the error for an unusable table.

    Raises:
        InputNotFound: without the file.
        EmopipeError: of the type `unusable` when it is no CSV, has a column twice, no rows, or rows with more cells
            than the header.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputNotFound(f"there is no such {name}", path=path) from None
    except (OSError, ValueError) as error:
        raise unusable(
            f"the {name} cannot be read: {error}", path=path, hint="Check the path and its permissions"
        ) from None
    if content.startswith(SPREADSHEETS):
        raise unusable(f"the {name} is a spreadsheet file, not CSV", path=path, hint=AS_CSV)
    text, encoding = _decoded(content, name, unusable, path)
    delimiter = _delimiter(text)
    header, lines = _parsed(text, delimiter, name, unusable, path)
    twice = sorted({column for column in header if column and header.count(column) > 1})
    if twice:
        hint = "Rename one of the two columns, or delete it"
        raise unusable(f"the {name} has the column {twice[0]} twice", path=path, hint=hint)
    rows = {line: row for line, row in lines if any(row)}
    hint = (
        'Put a cell that holds a comma into "quotes"' if delimiter == "," else "Check the cells at the end of the row"
    )
    long = (
        Fault(line, f"there are {len(row)} cells, in the header {len(header)}", hint)
        for line, row in rows.items()
        if any(row[len(header) :])
    )
    refuse(long, name, unusable, path)
    if not rows or not any(header):
        hint = "The first row names the columns, each other row is one recording or a stretch of it"
        raise unusable(f"the {name} has no rows", path=path, hint=hint)
    padding = [""] * len(header)
    cells = {
        line: {column: cell for column, cell in zip(header, [*row, *padding], strict=False) if column}
        for line, row in rows.items()
    }
    return Table(cells, _format(path, delimiter, encoding, name))


def _decoded(content: bytes, name: str, unusable: type[EmopipeError], path: Path) -> tuple[str, str]:
    """The text, and its encoding."""
    encoding = next((coding for mark, coding in _MARKS.items() if content.startswith(mark)), "")
    if not encoding and b"\0" in content[:400]:
        encoding = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    for coding in [encoding] if encoding else ["utf-8", "cp1252"]:
        try:
            text = content.decode(coding).translate(_MISREAD)
        except UnicodeDecodeError:
            continue
        if not any(unicodedata.category(mark) == "Cc" and mark not in "\t\n\r\v\f\x85" for mark in set(text)):
            if coding == "cp1252" and _is_other_coding(text):
                break
            return unicodedata.normalize("NFC", text), coding
    what = f"the {name} cannot be read as CSV: it is not text in UTF-8, UTF-16 or Windows-1252"
    raise unusable(what, path=path, hint=AS_CSV)


def _is_other_coding(text: str) -> bool:
    """Whether text that was read as Windows-1252 is Cyrillic, Chinese, Japanese or the like in another encoding.

    Western words hardly hold four letters with accents in a row, and cells of them are not accents for the most part.
    """
    cells = (cell.translate(_BLANKS) for cell in re.split(r"[,;\t|\r\n]", text))
    accented = ((cell, sum(mark > "\x7f" for mark in cell)) for cell in cells)
    return _UNLIKE_WESTERN.search(text) is not None or any(
        count > 2 and 3 * count >= 2 * len(cell) for cell, count in accented
    )


def _delimiter(text: str) -> str:
    """The delimiter that Excel names in the first line, else the one that the header uses most."""
    first = text.partition("\n")[0].casefold()
    if first.startswith("sep=") and first[4:5] in DELIMITERS:
        return first[4]
    line = next((line for line in text.splitlines() if line.strip(" ,;\t|")), "")

    def cells(delimiter: str) -> int:
        try:
            return len(next(csv.reader([line], delimiter=delimiter), []))
        except csv.Error:
            return 0

    return max(DELIMITERS, key=cells)


def _parsed(
    text: str, delimiter: str, name: str, unusable: type[EmopipeError], path: Path
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header, and the line at which each row begins with its cells."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines: list[tuple[int, list[str]]] = []
    before = 0
    try:
        for row in reader:
            lines.append((before + 1, [_clean(cell) for cell in row]))
            before = reader.line_num
    except csv.Error as error:
        hint = "Close the quotes that the row opens, or write two for one that is meant"
        refuse([Fault(before + 1, f"it cannot be read as CSV: {error}", hint)], name, unusable, path)
    while lines and (not any(lines[0][1]) or lines[0][1][0].casefold().startswith("sep=")):
        lines.pop(0)
    return (lines[0][1], lines[1:]) if lines else ([], [])


def _clean(cell: str) -> str:
    return cell.strip().strip(_INVISIBLE).strip()


def _format(path: Path, delimiter: str, encoding: str, name: str) -> tuple[Reason, ...]:
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    unusual: Sequence[str] = [
        *([f"cells are parted by {DELIMITERS[delimiter]}"] if delimiter != usual else []),
        *(["it is read as Windows-1252"] if encoding == "cp1252" else []),
        *(["it is UTF-16"] if encoding.startswith("utf-16") else []),
    ]
    return (reason("table_format", f"the {name}: {', '.join(unusual)}"),) if unusual else ()
