"""Labels of several coders (raters, annotators) in rows of their own, joined into one row of a labels table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from emopipe.errors import Reason, reason
from emopipe.pipeline.datasets.csv_input import Fault, Table
from emopipe.pipeline.datasets.label_columns import TEXTS, is_number

#: Names of the column that tells who labelled a row.
CODER_COLUMNS: Final = ("coder", "rater", "annotator")


def join_coders(table: Table, signals: Sequence[str]) -> tuple[Table, list[Reason], list[Fault]]:
    """Join the rows that several coders labelled alike: each label becomes a column for each coder.

    `label` of the coders anna and ben becomes `label_1` and `label_2`; what all coders say alike, as a column of the
    speaker's age, stays one column. The weight of a row is the mean of theirs.

    Args:
        table: with a column of :data:`CODER_COLUMNS`; any other is returned as it is.
        signals: the columns that tell of which recording and stretch a row is.

    Returns:
        The table, a note of which coder became which number, and rows of one coder for the same signal.
    """
    who = next((name for name in table.columns if name.casefold() in CODER_COLUMNS), None)
    if who is None:
        return table, [], []
    units: dict[tuple[str, ...], dict[str, int]] = {}
    faults = []
    for line, row in table.rows.items():
        unit = units.setdefault(tuple(row.get(name, "") for name in signals), {})
        first = unit.setdefault(row[who], line)
        if first != line and table.rows[first] != row:
            what = f"{row[who]!r} labels the same as in line {first}, otherwise"
            faults.append(Fault(line, what, f"Keep one of the two, or correct the column {who}"))
    coders = sorted({name for unit in units.values() for name in unit})
    labels = [name for name in table.columns if name not in (*signals, who)]
    parted = [name for name in labels if name == "label" or _differs(table, units, name)]
    rows = {}
    for unit in units.values():
        line = min(unit.values())
        cells = {name: cell for name, cell in table.rows[line].items() if name != who and name not in parted}
        for name in parted:
            given = {coder: table.rows[at][name] for coder, at in unit.items()}
            cells |= _cells(name, given, coders)
        rows[line] = cells
    named = ", ".join(f"{name} is {number}" for number, name in enumerate(coders[:8], 1))
    what = f"{len(table.rows)} rows of {len(coders)} coders are {len(rows)} utterances; {named}"
    return replace(table, rows=rows), [reason("coders_joined", what + ("; ..." if len(coders) > 8 else ""))], faults


def _differs(table: Table, units: Mapping[tuple[str, ...], Mapping[str, int]], name: str) -> bool:
    return any(len({table.rows[line][name] for line in unit.values()}) > 1 for unit in units.values())


def _cells(name: str, given: Mapping[str, str], coders: Sequence[str]) -> dict[str, str]:
    """What several coders wrote into a column, as cells of one row."""
    if name == "weight":
        cells = (cell.replace(",", ".") for cell in given.values())
        numbers = [float(cell) for cell in cells if is_number(cell)]
        return {name: f"{sum(numbers) / len(numbers):g}" if numbers else ""}
    if name in TEXTS:
        return {name: next(filter(None, given.values()), "")}
    return {f"{name}_{number}": given.get(coder, "") for number, coder in enumerate(coders, 1)}
