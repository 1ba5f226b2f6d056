"""`emopipe corpus`: labels tables of published corpora."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emopipe.errors import EmopipeError
from emopipe.models.data.split_names import SPELLINGS
from emopipe.pipeline.cli.options import Debug, Json
from emopipe.pipeline.cli.session import session

if TYPE_CHECKING:
    from emopipe.errors import Reason
    from emopipe.pipeline.cli.console import Console


SPLITS = tuple(SPELLINGS)
_HEADER = ("name", "corpus", "language", "modalities", "labels", "licence")
_NOTE = "emopipe corpus NAME tells where to ask for one and how its files lie."


def corpus(
    name: Annotated[str, typer.Argument(help="A corpus; list: all that are known.", show_default=False)],
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="Its files as its authors hand them out, or a file of MMSA's features to check; "
            "left out: tell where to ask for it and how its files lie.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Labels table to write.")] = Path("labels.csv"),
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a labels table of a published corpus from its own files, and check that it is complete."""
    with session(json, debug) as console:
        from emopipe.pipeline.datasets.corpora import reading, registry

        if name == "list" and folder is None:
            console.table("Corpora", _HEADER, map(_facts, registry.names()), [_NOTE])
            return
        about = registry.corpus(name)
        console.print(about.terms)
        if folder is None:
            console.print(f"Its files: {about.layout}")
        elif folder.suffix.lower() in reading.FEATURE_SUFFIXES and folder.is_file():
            counts, reasons = reading.check_features(name, folder)
            _tell(console, counts, reasons)
            console.print(f"Train on it: emopipe train {folder} --label sentiment --out my_model")
        else:
            read = reading.read_corpus(name, folder, out.with_name(f"{out.stem}-pictures"))
            labels = read.labels()
            reading.write_labels(read.table, out)
            _tell(console, read.counts, labels.reasons)
            if read.missing:
                listed = out.with_name(f"{out.stem}-missing.txt")
                reading.write_missing(read.missing, listed)
                console.print(f"What is missing is listed in {listed}")
            console.print(f"{len(labels.rows)} rows are in {out}")
            console.print(f"Extract features: emopipe extract {folder} --labels {out} --out features")


def _facts(name: str) -> tuple[str, ...]:
    """A row of the list; what is wrong with the package that brings the corpus in place of its title."""
    from emopipe.pipeline.datasets.corpora import registry

    try:
        known = registry.corpus(name)
    except EmopipeError as error:
        return name, error.what, "", "", "", ""
    return name, known.title, known.language, known.modalities, known.labels, known.licence


def _tell(console: Console, counts: Mapping[str, int], reasons: Sequence[Reason]) -> None:
    from emopipe.pipeline.progress import Event

    for one in reasons:
        console.hook(Event("info" if one.is_note else "warning", "corpus", f"{one}. {one.hint}"))
    sizes = ", ".join(f"{counts[split]}{' in ' + split if split else ''}" for split in sorted(counts, key=_place))
    console.print(f"Rows of the corpus here: {sizes}")


def _place(split: str) -> int:
    return SPLITS.index(split) if split in SPLITS else len(SPLITS)
