"""Corpora by name: those of this package, and those that other packages bring as entry points."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from typing import Final

from emopipe.errors import BackendUnusable, UnknownName
from emopipe.pipeline.datasets.corpora.corpus import Corpus
from emopipe.plugins import entry_points, origin

GROUP: Final = "emopipe.corpora"
_HERE: Final = "emopipe.pipeline.datasets.corpora"
#: Name -> the declaration.
BUILT_IN: Final = {
    "mosi": "sentiment:MOSI",
    "mosei": "sentiment:MOSEI",
    "ch-sims": "sentiment:CH_SIMS",
    "ch-sims-v2": "sentiment:CH_SIMS_V2",
    "meld": "conversations:MELD",
    "cherma": "clips:CHERMA",
    "iemocap": "conversations:IEMOCAP",
    "mintrec": "clips:MINTREC",
    "mer2023": "clips:MER2023",
    "ravdess": "named_files:RAVDESS",
    "ravdess-song": "named_files:RAVDESS_SONG",
    "crema-d": "named_files:CREMA_D",
    "emodb": "named_files:EMODB",
    "savee": "named_files:SAVEE",
    "tess": "named_files:TESS",
    "java-sed": "named_files:JAVA_SED",
    "fer2013": "faces:FER2013",
    "raf-db": "named_files:RAF_DB",
}


def names() -> list[str]:
    """Names of all corpora, this package's first. Imports none."""
    return list(dict.fromkeys([*BUILT_IN, *(point.name for point in entry_points(GROUP))]))


def corpus(name: str) -> Corpus:
    """The corpus of that name; one of this package stays its own.

    Raises:
        UnknownName: there is none, or two packages bring it.
        BackendUnusable: what a package declares is not a corpus, or its code fails.
    """
    if name in BUILT_IN:
        value = f"{_HERE}.{BUILT_IN[name]}"
        return _loaded(EntryPoint(name, value, GROUP), "emopipe")
    points = [point for point in entry_points(GROUP) if point.name == name]
    if not points:
        close = difflib.get_close_matches(name.casefold(), names(), n=1)
        hint = f"Did you mean {close[0]}?" if close else "`emopipe corpus list` shows the names"
        raise UnknownName(f"unknown corpus {name[:80]!r}", hint=hint)
    if len(points) > 1:
        both = " and ".join(map(origin, points))
        raise UnknownName(f"the corpus {name!r} is brought by {both}", hint="Uninstall one of them")
    return _loaded(points[0], origin(points[0]))


def _loaded(point: EntryPoint, brought_by: str) -> Corpus:
    try:
        declared = point.load()
    except (Exception, SystemExit) as error:  # whatever another package's code raises
        what = f"the corpus {point.name} of {brought_by} cannot be loaded: {error!r}"
        raise BackendUnusable(what, hint="Repair or uninstall it") from error
    if not isinstance(declared, Corpus):
        what = f"the corpus {point.name} of {brought_by} is not a Corpus but a {type(declared).__name__}"
        raise BackendUnusable(what, hint="Repair or uninstall it")
    return declared


def recognised(columns: Sequence[str]) -> list[str]:
    """Names of this package's corpora that bring a table with these columns."""
    given = {name.casefold() for name in columns}
    declared = [corpus(name) for name in BUILT_IN]
    return [one.name for one in declared if one.columns and {name.casefold() for name in one.columns} <= given]
