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
            help="Its files as its authors hand them out, or features of them to check (a file of MMSA's); "
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
        from emopipe.pipeline.datasets.corpora.corpus import CorpusFolder

        if name == "list" and folder is None:
            console.table("Corpora", _HEADER, map(_facts, registry.names()), [_NOTE])
            return
        about = registry.corpus(name)
        console.print(about.terms)
        if folder is None:
            console.print(f"Its files: {about.layout}")
            return
        features = reading.has_features(name, folder)
        if features:
            _check_features(console, name, folder, out)
        if not features or (folder.is_dir() and CorpusFolder(folder).recordings):
            _write_table(console, name, folder, out)


def _check_features(console: Console, name: str, folder: Path, out: Path) -> None:
    from emopipe.models.data import mintrec
    from emopipe.pipeline.datasets.corpora import reading

    checked = reading.check_features(name, folder)
    _tell(console, checked.counts, checked.reasons)
    _list_missing(console, checked.missing, out.with_name(f"{out.stem}-missing-features.txt"))
    sizes = ", ".join(f"{modality} {size}" for modality, size in checked.sizes.items())
    console.print(f"Numbers a step: {sizes}")
    if "text" not in checked.sizes:
        made = folder / mintrec.TEXT
        console.print(
            "There are no text features; make them: "
            f"emopipe extract {folder} --corpus {name} --modalities text --text bert-base-uncased --out {made}"
        )
    label = "label" if folder.is_dir() else "sentiment"
    console.print(f"Train on it: emopipe train {folder} --label {label} --out my_model")


def _write_table(console: Console, name: str, folder: Path, out: Path) -> None:
    from emopipe.pipeline.datasets.corpora import reading

    read = reading.read_corpus(name, folder, out.with_name(f"{out.stem}-pictures"))
    labels = read.labels()
    reading.write_labels(read.table, out)
    _tell(console, read.counts, labels.reasons)
    _list_missing(console, read.missing, out.with_name(f"{out.stem}-missing.txt"))
    console.print(f"{len(labels.rows)} rows are in {out}")
    console.print(f"Extract features: emopipe extract {folder} --labels {out} --out features")


def _list_missing(console: Console, missing: Sequence[str], listed: Path) -> None:
    from emopipe.pipeline.datasets.corpora import reading

    if missing:
        reading.write_missing(missing, listed)
        console.print(f"What is missing is listed in {listed}")


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
