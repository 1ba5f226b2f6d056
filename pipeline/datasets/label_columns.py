"""Columns of labels: spellings of one class, missing cells, and numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from emopipe.errors import Reason, reason
from emopipe.models.data.label_values import MISSING, join_spellings
from emopipe.models.data.votes import VOTES

#: Columns that are not labels although they are kept as they are.
TEXTS: Final = ("dialogue", "utterance", "weight")
#: Cells that hold a number, and are not written as one that is read.
_LIKE_NUMBER: Final = re.compile(r"[-+]?\d[\d.,' \xa0\u202f]*\s*%?")
#: The minus signs of typesetting.
_MINUS: Final = re.compile(r"[\u2212\u2013](?=[\d.,])")
#: Numbers that stand for a missing one in statistics programs.
_STAND_INS: Final = re.compile(r"-?(9{2,5}|8{2,5})|-9|-1", re.ASCII)
_COMMA: Final = re.compile(r"[-+]?\d+,\d+")
#: More whole numbers than these are values rather than numbers of classes.
MOST_CLASSES: Final = 10


def tidy(column: str, cells: Sequence[str]) -> tuple[list[str], list[Reason]]:
    """The cells of a column of labels as they are used, and what was changed or is doubtful.

    Args:
        column: its name.
        cells: NFC, without outer blanks.

    Returns:
        As many cells; "" where one is missing.
    """
    if column == "weight":
        return [cell.replace(",", ".") for cell in cells], []
    if column in TEXTS:
        return list(cells), []
    reasons = []
    missing = Counter(cell for cell in cells if cell and cell.casefold() in MISSING)
    kept = ["" if cell in missing else _MINUS.sub("-", cell) for cell in cells]
    if missing:
        named = ", ".join(missing)
        reasons.append(reason("labels_missing", f"{column}: {sum(missing.values())} cells ({named}) count as missing"))
    given = [cell for cell in kept if cell]
    if any(map(_COMMA.fullmatch, given)) and all(_COMMA.fullmatch(cell) or is_number(cell) for cell in given):
        kept = [cell.replace(",", ".") for cell in kept]
        reasons.append(reason("decimal_comma", f"{column}: decimal commas were read"))
        given = [cell for cell in kept if cell]
    numbers = [cell for cell in given if is_number(cell)]
    if numbers and len(numbers) == len(given):
        return kept, [*reasons, *_whole_numbers(column, numbers), *_far_numbers(column, numbers)]
    if numbers:
        others = sorted(set(given) - set(numbers))
        what = f"{column}: {len(numbers)} cells are numbers, others are names such as {others[0]!r}"
        reasons.append(reason("labels_mixed", what))
    elif given and all(map(_LIKE_NUMBER.fullmatch, given)):
        what = f"{column}: cells such as {given[0]!r} are not read as numbers, and are taken as names of classes"
        reasons.append(reason("labels_mixed", what))
    spelled, joined = join_spellings(kept)
    if joined:
        examples = "; ".join(f"{', '.join(map(repr, others))} as {name!r}" for name, others in list(joined.items())[:3])
        reasons.append(reason("labels_joined", f"{column}: {examples}" + ("; ..." if len(joined) > 3 else "")))
    return [cell or "" for cell in spelled], reasons


def _whole_numbers(column: str, cells: Sequence[str]) -> list[Reason]:
    if column.startswith(VOTES) or f"_{VOTES}" in column:  # counts are meant
        return []
    values = {float(cell) for cell in cells}
    if len(values) > MOST_CLASSES or len(values) * 2 > len(cells) or not all(one.is_integer() for one in values):
        return []
    named = ", ".join(f"{one:g}" for one in sorted(values))
    return [reason("labels_numbers", f"{column}: {named} are taken as values, so that training is a regression")]


def _far_numbers(column: str, cells: Sequence[str]) -> list[Reason]:
    """Numbers such as -99 that lie far from all others, as statistics programs write missing values."""
    far = {cell for cell in cells if _STAND_INS.fullmatch(cell)}
    others = [float(cell) for cell in cells if cell not in far]
    if len(set(others)) < 3:
        return []
    low, high = min(others), max(others)
    far = {cell for cell in far if not 2 * low - high <= float(cell) <= 2 * high - low}
    if not far:
        return []
    count = sum(cell in far for cell in cells)
    what = f"{column}: {', '.join(sorted(far))} ({count} cells) lie far from all others, which are {low:g} to {high:g}"
    return [reason("labels_far", what)]


def is_number(cell: str) -> bool:
    """Whether a cell is read as a number: ASCII digits, with a decimal point or an exponent."""
    return re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?", cell, re.ASCII) is not None
