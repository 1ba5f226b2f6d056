"""Read the tables that users write."""

from __future__ import annotations

import csv
from pathlib import Path

from emopipe.errors import EmopipeError, InputNotFound


def read_table(path: Path, name: str, unusable: type[EmopipeError]) -> dict[int, dict[str, str]]:
    """Rows of a CSV file with a header, by their line in the file; cells and column names without outer blanks.

    Empty rows and columns without a name are left out; a cell that is missing at the end of a row is "".

    Args:
        path: the file.
        name: what the table is called in errors.
        unusable: the error for an unusable table.

    Raises:
        InputNotFound: without the file.
        EmopipeError: of the type `unusable` when it is no CSV in UTF-8, has a column twice, no rows, or a row
            with more cells than the header.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = [cell.strip() for cell in next(reader, [])]
            lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except FileNotFoundError:
        raise InputNotFound(f"there is no such {name}", path=path) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        hint = "Save it as CSV with commas, in UTF-8"
        raise unusable(f"the {name} cannot be read as CSV: {error}", path=path, hint=hint) from None
    twice = sorted({column for column in header if column and header.count(column) > 1})
    if twice:
        raise unusable(f"the {name} has the column {twice[0]} twice", path=path)
    rows = {line: row for line, row in lines if any(row)}
    for line, row in rows.items():
        if any(row[len(header) :]):
            what = f"line {line} of the {name} has {len(row)} cells, its header {len(header)}"
            raise unusable(what, path=path, hint='Put a cell that holds a comma into "quotes"')
    if not rows:
        raise unusable(f"the {name} has no rows", path=path)
    padding = [""] * len(header)
    return {
        line: {column: cell for column, cell in zip(header, [*row, *padding], strict=False) if column}
        for line, row in rows.items()
    }
