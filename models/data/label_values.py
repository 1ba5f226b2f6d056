"""Values of labels: which are missing, and which spellings mean one class."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

#: How people and programs write that there is no label, in lower case.
MISSING: Final = (
    *("", "na", "n/a", "#n/a", "nan", "-nan", "null", "#null!", "(null)", "<na>", ".", "-", "--", "?"),
    *("#ref!", "#value!", "#div/0!", "#name?", "#num!"),
)
#: How programs write an empty cell, exactly so: "Na" and "none" are words.
EMPTY: Final = ("NA", "N/A", "#N/A", "NaN", "nan", "NULL", "<NA>")


def told(value: object) -> str:
    """What somebody wrote of a person or group; "" for one of :data:`EMPTY`, and for what data frames hold instead."""
    return "" if value is None or str(value) in EMPTY else str(value)


def spelling_key(label: str) -> str:
    """What spellings of one label have in common: they may differ in case, blanks and Unicode form."""
    return " ".join(unicodedata.normalize("NFC", label).casefold().split())


def join_spellings(labels: Sequence[str | None]) -> tuple[list[str | None], Mapping[str, Sequence[str]]]:
    """Write each label in its most frequent spelling.

    Args:
        labels: as given; None or one of :data:`MISSING` where there is none.

    Returns:
        As many labels, None where missing; and spelling that is used -> others that were joined with it.
    """
    counts = Counter(label for label in labels if label is not None and spelling_key(label) not in MISSING)
    spellings: dict[str, list[str]] = {}
    for label in sorted(counts, key=lambda one: (-counts[one], one.swapcase())):
        spellings.setdefault(spelling_key(label), []).append(label)
    known = [None if label is None else spellings.get(spelling_key(label)) for label in labels]
    joined = {first: others for first, *others in spellings.values() if others}
    return [None if names is None else names[0] for names in known], joined
