"""Cells of a labels table: times as people write them, and files as people name them."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import Final

_NUMBER: Final = re.compile(r"(\d+(?:[.,]\d*)?|[.,]\d+)\s*(ms|msec|s|sec)?", re.ASCII | re.IGNORECASE)
_CLOCK: Final = re.compile(r"(?:(\d{1,3}):)?(\d{1,3}):([0-5]?\d(?:[.,]\d+)?)", re.ASCII)


def seconds(cell: str) -> float:
    """A time: seconds with a decimal point or comma, "6150 ms", "mm:ss" or "hh:mm:ss.fff".

    Raises:
        ValueError: it is none of these.
    """
    number, clock = _NUMBER.fullmatch(cell), _CLOCK.fullmatch(cell)
    if number and len(cell) < 30:
        value = float(number[1].replace(",", "."))
        return value / 1000 if (number[2] or "").lower().startswith("m") else value
    if clock:
        return 3600 * int(clock[1] or 0) + 60 * int(clock[2]) + float(clock[3].replace(",", "."))
    raise ValueError(cell)


def existing(folder: Path, name: str) -> Path:
    r"""The file that a cell names, whatever its Unicode form, and with \ for /; as it is written when there is none."""
    for written in dict.fromkeys((name, name.replace("\\", "/"))):
        path = folder / written
        if os.path.exists(path):  # noqa: PTH110 - Path.exists raises where a name is too long
            return path
        found = folder
        for part in Path(written).parts:
            found = _named(found, part) or found / part
        if os.path.exists(found):  # noqa: PTH110
            return found
    return folder / name


def similar(path: Path) -> str:
    """A file beside one that is missing whose name differs in case, blanks or suffix only; "" for none."""

    def key(name: str) -> str:
        return "".join(unicodedata.normalize("NFC", Path(name).stem).casefold().split())

    return next((name for name in _names(path.parent) if key(name) == key(path.name)), "")


def _named(folder: Path, part: str) -> Path | None:
    return next((folder / name for name in _names(folder) if unicodedata.normalize("NFC", name) == part), None)


def _names(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(os.listdir(folder)))  # noqa: PTH208 - names are compared, not paths
    except (OSError, ValueError):
        return ()
