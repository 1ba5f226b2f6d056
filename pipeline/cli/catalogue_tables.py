"""What there is to choose from, as tables: weights, extractors, fusion models and checkpoints."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from urllib.parse import urlsplit

from emopipe.pipeline import weights
from emopipe.pipeline.backends import registry
from emopipe.pipeline.weights.sources import HUB


@dataclass(frozen=True)
class Table:
    """A title, a header, rows of cells, and notes below them."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def tables(*, flat: bool = False) -> list[Table]:
    """All tables.

    Args:
        flat: weights in one table with a column for their purpose, instead of a table for each purpose.
    """
    return [*(_flat_weights() if flat else _weights()), _extractors(), _models(), _checkpoints()]


def _entries() -> list[weights.Entry]:
    return [*map(weights.entry, weights.names()), *weights.unlisted()]


def _flat_weights() -> list[Table]:
    header = ("name", "state", "size", "from", "licence", "intended use", "purpose", "title", "verified")
    listed = set(weights.names())

    def verified(one: weights.Entry) -> str:
        return "yes" if one.name in listed and not one.unhashed else "no"

    rows = [
        (*_weight(one), _host(one), one.licence, one.intended_use, one.purpose, one.title, verified(one))
        for one in _entries()
    ]
    return [Table("Weights", header, rows)]


def _weights() -> list[Table]:
    ordered = sorted(_entries(), key=lambda one: _order(one.purpose))
    return [_of_purpose(purpose, list(group)) for purpose, group in groupby(ordered, key=lambda one: one.purpose)]


def _order(purpose: str) -> int:
    return list(dict.fromkeys(one.purpose for one in _entries())).index(purpose)


def _of_purpose(purpose: str, entries: Sequence[weights.Entry]) -> Table:
    """What they are good for stands below the table: by name, or by a number where several share it."""
    uses = list(dict.fromkeys(one.intended_use for one in entries))
    rows: list[tuple[str, ...]] = [(*_weight(one), _origin(one), _licence(one)) for one in entries]
    header, notes = ["name", "state", "size", "from", "licence"], [f"{one.name}: {one.intended_use}" for one in entries]
    if len(uses) < len(entries):
        rows = [(*row, str(uses.index(one.intended_use) + 1)) for row, one in zip(rows, entries, strict=True)]
        header, notes = [*header, "use"], [f"use {number}: {use}" for number, use in enumerate(uses, start=1)]
    if unhashed := [one.name for one in entries if one.unhashed]:
        notes.append(f"No hash is known of {', '.join(unhashed)}: what is fetched first is held against later.")
    return Table(purpose, header, rows, notes)


def _weight(entry: weights.Entry) -> tuple[str, str, str]:
    """Its names, whether it is here, and how large it is."""
    status = weights.status(entry)
    size = status.bytes or entry.download
    name = f"{entry.name} ({', '.join(entry.aliases)})" if entry.aliases else entry.name
    return name, _state(status), f"{size / 1e6:,.0f} MB".replace(",", " ") if size else "unknown"


def _state(status: weights.Status) -> str:
    return "not here" if status.state == "missing" else status.state


def _host(entry: weights.Entry) -> str:
    source = entry.sources[0]
    return urlsplit(source.base).hostname or source.base if isinstance(source, weights.Url) else "package index"


def _origin(entry: weights.Entry) -> str:
    """Short words for where it comes from."""
    if not isinstance(source := entry.sources[0], weights.Url):
        return "packages"
    return "hub" if source.base.startswith(HUB) else "makers"


def _licence(entry: weights.Entry) -> str:
    """SPDX identifiers; what they stand for where it has none."""
    return re.sub(r"LicenseRef-(\S+)", lambda match: match[1].replace("-", " "), entry.licence)


def _extractors() -> Table:
    plugins = [plugin for kind in registry.BUILT_IN for plugin in registry.extractors(kind)]
    return Table("Extractors", ("modality", "backend", "from"), [(one.kind, one.name, one.origin) for one in plugins])


def _models() -> Table:
    from emopipe.models.registry import MODELS

    rows = [(name, "emopipe") for name in MODELS]
    rows += [(one.name, one.origin) for one in registry.foreign("model", registry.MODELS_GROUP)]
    return Table("Models", ("model", "from"), rows)


def _checkpoints() -> Table:
    from emopipe.pipeline.studies.train import shipped_checkpoints

    return Table("Checkpoints", ("name", "predicts", "from"), shipped_checkpoints())
