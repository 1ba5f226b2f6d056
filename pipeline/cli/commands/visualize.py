"""`emopipe visualize`: pictures of what a checkpoint does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emopipe.options import MachineOptions
from emopipe.pipeline.cli.options import Checkpoint, DatasetPath, Debug, Json, with_option_groups
from emopipe.pipeline.cli.session import session


@with_option_groups
def visualize(
    options: MachineOptions,
    checkpoint: Checkpoint,
    dataset: DatasetPath,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.", show_default=False)],
    split: Annotated[str, typer.Option(help="Split to show; all for every row.")] = "valid",
    beside: Annotated[
        list[str] | None,
        typer.Option(help="Another checkpoint, drawn in the same t-SNE embedding; repeatable.", show_default=False),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw the fused features (t-SNE), and whom the router trusts beside who is right."""
    with session(json, debug) as console:
        from emopipe.pipeline.studies.visualize import visualize_checkpoint

        for path in visualize_checkpoint(checkpoint, dataset, out, split, beside or (), hook=console.hook, **options):
            console.print(str(path))
