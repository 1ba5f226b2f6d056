"""`emopipe extract`: make a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emopipe.errors import counted
from emopipe.options import MeasurementOptions
from emopipe.pipeline.cli.options import Json, with_option_groups
from emopipe.pipeline.cli.session import session


@with_option_groups
def extract(
    options: MeasurementOptions,
    path: Annotated[Path, typer.Argument(help="A labels table, a folder or a media file.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder of the dataset; must not exist.", show_default=False)],
    labels: Annotated[Path | None, typer.Option(help="A labels table whose paths are relative to the folder.")] = None,
    corrections: Annotated[
        Path | None,
        typer.Option(help="Results with corrections: what people labelled or confirmed in them.", show_default=False),
    ] = None,
    corpus: Annotated[
        str | None, typer.Option(help="The folder is this corpus's own; see `emopipe corpus list`.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Extract features into a dataset, one utterance per row of a labels table (or per utterance found)."""
    from emopipe.api import extract as extract_dataset

    with session(json, options.get("debug", False)) as console:
        if corpus is not None:
            from emopipe.pipeline.datasets.corpora.registry import corpus as named

            console.print(named(corpus).terms)
        made = extract_dataset(
            path, out, labels=labels, corrections=corrections, corpus=corpus, progress=console.hook, **options
        )
        if made.reasons:
            title = f"What was doubtful or was chosen (all in {out / 'reasons.csv'})"
            rows = [(one.code, str(count), one.what, one.hint) for one, count in counted(made.reasons)]
            console.table(title, ("code", "times", "for instance", "what to do"), rows)
        console.print(f"{made.sources - len(made.failures)} of {made.sources} sources are in {out}/")
        if made.failures:
            console.print(f"{len(made.failures)} failed; their reasons are in {out / 'failures.csv'}")
    raise typer.Exit(1 if made.failures else 0)
