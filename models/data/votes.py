"""Several labels of one row: votes of coders (raters, annotators), and the label that they give together.

They stand in the manifest in one of three forms, here for the label `label`:

- a column for each coder: `label_1`, `label_2`, ...;
- a column for each class that counts votes or gives shares: `votes_anger`, `votes_neutral`, ... (of a label called
  otherwise, such as `mood`, also `mood_votes_anger`, ...);
- several names in one cell, `anger;sadness`, which then share it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emopipe.errors import DatasetError
from emopipe.models.data.label_values import join_spellings, spelling_key

Numbers = NDArray[np.float64]

#: Between the names of a cell that holds several.
SEPARATORS: Final = re.compile(r"\s*[;|]\s*")
VOTES: Final = "votes_"
DEFAULT_LABEL: Final = "label"


@dataclass(frozen=True)
class Votes:
    """The votes on N rows.

    Attributes:
        columns: of the manifest, that hold them.
        classes: the K classes that were voted for; () for values.
        table: (N, K) votes or shares of each class; of values (N, coders), NaN where a coder gave none.
        labels: (N,) the class that most voted for, None without votes, of classes with as many votes the one that was
            named first; or the mean value, NaN without any.
        tied: (N,) where several classes have most votes.
    """

    columns: tuple[str, ...]
    classes: tuple[str, ...]
    table: Numbers
    labels: NDArray[Any]
    tied: NDArray[np.bool_]

    def shares(self, classes: Sequence[str]) -> NDArray[np.float32]:
        """(N, C) shares of some classes in the votes for these; zeros where none was voted for."""
        place = {spelling_key(name): column for column, name in enumerate(self.classes)}
        chosen = [place.get(spelling_key(name)) for name in classes]
        columns = [np.zeros(len(self.table)) if at is None else self.table[:, at] for at in chosen]
        votes = np.stack(columns, axis=1) if columns else np.zeros((len(self.table), 0))
        shares: NDArray[np.float32] = (votes / np.maximum(votes.sum(1, keepdims=True), 1e-12)).astype(np.float32)
        return shares


def read_votes(manifest: pa.Table, label: str) -> Votes | None:
    """Read the votes on a label; None where there is one label a row at most.

    Raises:
        DatasetError: a column of counts holds something that is not a number of 0 or more.
    """
    coders = coder_columns(manifest.column_names, label)
    if len(coders) > (label in manifest.column_names):
        return _of_coders(manifest, coders)
    counted = _count_columns(manifest, label)
    if counted:
        return _of_counts(manifest, counted)
    if label in manifest.column_names and _holds_text(manifest[label]):
        cells = manifest[label].to_pylist()
        if any(cell is not None and SEPARATORS.search(cell) for cell in cells):
            return _of_names((label,), [[cell] for cell in cells])
    return None


def coder_columns(columns: Sequence[str], label: str) -> tuple[str, ...]:
    """The columns with the labels of single coders, in the order of their numbers."""
    numbered = [re.fullmatch(rf"{re.escape(label)}_(\d{{1,4}})", name) for name in columns]
    return tuple(one[0] for one in sorted(filter(None, numbered), key=lambda one: int(one[1])))


def _count_columns(manifest: pa.Table, label: str) -> dict[str, str]:
    """Column with votes for a class -> that class; votes without the name of a label are for the one that fits."""
    named = _beginning_with(manifest.column_names, f"{label}_{VOTES}")
    plain = _beginning_with(manifest.column_names, VOTES)
    if named or label not in manifest.column_names:
        return named or (plain if label == DEFAULT_LABEL else {})
    if not plain or not _holds_text(manifest[label]):
        return {}
    labels, _ = join_spellings(manifest[label].to_pylist())
    classes = {spelling_key(one) for one in plain.values()}
    return plain if all(spelling_key(one) in classes for one in labels if one is not None) else {}


def _beginning_with(columns: Sequence[str], start: str) -> dict[str, str]:
    return {name: name.removeprefix(start) for name in columns if name.startswith(start) and len(name) > len(start)}


def _holds_text(column: pa.ChunkedArray) -> bool:
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind))


def _of_coders(manifest: pa.Table, columns: tuple[str, ...]) -> Votes:
    cells = [manifest[name].to_pylist() for name in columns]
    rows = list(zip(*cells, strict=True))
    if not all(_is_numeric(manifest[name].type) for name in columns):
        return _of_names(columns, [[None if one is None else _name(one) for one in row] for row in rows])
    table = np.array([[np.nan if one is None else float(one) for one in row] for row in rows]).reshape(-1, len(columns))
    given = np.isfinite(table)
    means = np.where(given, table, 0.0).sum(1) / np.maximum(given.sum(1), 1)
    labels = np.where(given.any(1), means, np.nan)
    return Votes(columns, (), table, labels, np.zeros(len(rows), dtype=bool))


def _name(cell: Any) -> str:
    return f"{cell:g}" if isinstance(cell, float) else str(cell)


def _of_names(columns: tuple[str, ...], rows: Sequence[Sequence[str | None]]) -> Votes:
    """Votes of rows with a cell for each coder, each with one name or several."""
    cells = [[SEPARATORS.split(cell.strip()) if cell else [] for cell in row] for row in rows]
    spelled, _ = join_spellings([name for row in cells for cell in row for name in cell])
    joined = iter(spelled)
    votes = [[[name for name in (next(joined) for _ in cell) if name is not None] for cell in row] for row in cells]
    classes = tuple(sorted({name for row in votes for cell in row for name in cell}))
    table, first = np.zeros((len(rows), len(classes))), np.zeros((len(rows), len(classes)))
    place = {name: column for column, name in enumerate(classes)}
    for row, coders in enumerate(votes):
        order = list(dict.fromkeys(name for cell in coders for name in cell))
        for rank, name in enumerate(order):
            first[row, place[name]] = -rank
        for cell in coders:
            for name in cell:
                table[row, place[name]] += 1 / len(cell)
    return _with_labels(columns, classes, table, first)


def _of_counts(manifest: pa.Table, columns: dict[str, str]) -> Votes:
    for name in columns:
        if not _is_numeric(manifest[name].type):
            raise DatasetError(f"the column {name!r} holds text, not votes", hint="Write a number in each row")
    cells = [manifest[name].to_pylist() for name in columns]
    table = np.array([[0.0 if one is None else float(one) for one in column] for column in cells]).T
    if not np.isfinite(table).all() or (table < 0).any():
        what = f"votes such as {next(iter(columns))!r} hold a number below 0"
        raise DatasetError(what, hint="Count the coders who chose the class, or give its share")
    return _with_labels(tuple(columns), tuple(columns.values()), table, np.zeros_like(table))


def _with_labels(columns: tuple[str, ...], classes: tuple[str, ...], table: Numbers, first: Numbers) -> Votes:
    """Votes with the label of each row; `first` (N, K) is larger for classes that were named earlier."""
    most = table.max(1, initial=0.0)
    leading = (table >= most[:, None] - 1e-9) & (most[:, None] > 0)
    labels = np.full(len(table), None, dtype=object)
    rows = np.flatnonzero(most > 0)
    best = np.where(leading, first, -np.inf).argmax(1) if classes else np.zeros(len(table), dtype=int)
    labels[rows] = [classes[column] for column in best[rows]]
    return Votes(columns, classes, table, labels, leading.sum(1) > 1)


def votes_in_words(votes: Votes) -> str:
    """Where votes stand and how many rows are tied, in words."""
    tied = int(votes.tied.sum())
    several = f"; {tied} rows have no majority, and the class named first counts" if tied else ""
    return f"votes of {', '.join(votes.columns)}{several}"
