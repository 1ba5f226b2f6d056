"""What there is to choose from, as tables: weights, extractors, fusion models and checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from urllib.parse import urlsplit

from emopipe.pipeline import plugins, weights

WEIGHT_COLUMNS = ("name", "state", "size", "from", "licence", "intended use")


@dataclass(frozen=True)
class Table:
    """A title, a header, and rows of cells."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(*, flat: bool = False) -> list[Table]:
    """All tables.

    Args:
        flat: weights in one table with a column for their purpose, instead of a table for each purpose.
    """
    return [*(_flat_weights() if flat else _weights()), _extractors(), _models(), _checkpoints()]


def _entries() -> list[weights.Entry]:
    return [*map(weights.entry, weights.names()), *weights.unlisted()]


def _flat_weights() -> list[Table]:
    header = (*WEIGHT_COLUMNS, "purpose", "title", "verified")
    listed = set(weights.names())
    rows = [(*_weight(one), one.purpose, one.title, "yes" if one.name in listed else "no") for one in _entries()]
    return [Table("Weights", header, rows)]


def _weights() -> list[Table]:
    ordered = sorted(_entries(), key=lambda one: _order(one.purpose))
    return [
        Table(purpose, WEIGHT_COLUMNS, [_weight(one) for one in group])
        for purpose, group in groupby(ordered, key=lambda one: one.purpose)
    ]


def _order(purpose: str) -> int:
    return list(dict.fromkeys(one.purpose for one in _entries())).index(purpose)


def _weight(entry: weights.Entry) -> tuple[str, ...]:
    status = weights.status(entry)
    size = f"{(status.bytes or entry.download) / 1e6:,.0f} MB".replace(",", " ")
    name = f"{entry.name} ({', '.join(entry.aliases)})" if entry.aliases else entry.name
    return name, _state(status), size, _origin(entry), entry.licence, entry.intended_use


def _state(status: weights.Status) -> str:
    return "not here" if status.state == "missing" else status.state


def _origin(entry: weights.Entry) -> str:
    source = entry.sources[0]
    return urlsplit(source.base).hostname or source.base if isinstance(source, weights.Url) else "package index"


def _extractors() -> Table:
    found = [plugin for kind in plugins.BUILT_IN for plugin in plugins.extractors(kind)]
    return Table("Extractors", ("modality", "backend", "from"), [(one.kind, one.name, one.origin) for one in found])


def _models() -> Table:
    from emopipe.models.registry import MODELS

    rows = [(name, "emopipe") for name in MODELS]
    rows += [(one.name, one.origin) for one in plugins.foreign("model", plugins.MODELS_GROUP)]
    return Table("Models", ("model", "from"), rows)


def _checkpoints() -> Table:
    from emopipe.pipeline.training import shipped_checkpoints

    return Table("Checkpoints", ("name", "predicts", "from"), shipped_checkpoints())
