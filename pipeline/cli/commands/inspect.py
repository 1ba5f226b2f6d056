"""`emopipe inspect`: look at a dataset before training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emopipe.pipeline.cli.options import DatasetPath, Debug, Json
from emopipe.pipeline.cli.session import session


def inspect(
    dataset: DatasetPath,
    label: Annotated[str, typer.Option(help="Manifest column that would be predicted.")] = "label",
    out: Annotated[Path | None, typer.Option(help="HTML page to write.", show_default=False)] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Look at a dataset before training: counts, gaps, near-duplicates, doubtful labels, and what to do first."""
    with session(json, debug) as console:
        from emopipe.pipeline.studies.inspect import inspect_dataset

        found = inspect_dataset(dataset, label, out)
        for title, rows in found.tables.items():
            console.table(title, list(rows[0]), [[str(cell) for cell in row.values()] for row in rows])
        console.table("What to do first", ("advice",), [[one] for one in found.advice or ["nothing odd was found"]])
        if out is not None:
            console.print(f"The page is {out}")
