"""Tables of studies as Markdown and CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emopipe.files import writing

Row = dict[str, Any]


def markdown(rows: Sequence[Row]) -> str:
    """Rows with the same keys as a Markdown table."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([str(row[name]) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Rows with the same keys as CSV; None is an empty cell.

    Raises:
        OutputError: when it cannot be written.
    """
    with writing("the table", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def write_text(path: Path, text: str) -> None:
    """A page.

    Raises:
        OutputError: when it cannot be written.
    """
    with writing("the page", path):
        path.write_text(text, "utf-8")
