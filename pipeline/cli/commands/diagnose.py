"""`emopipe diagnose`: look inside a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emopipe.options import MachineOptions, listed
from emopipe.pipeline.cli.options import Checkpoint, DatasetPath, Debug, Json, with_option_groups
from emopipe.pipeline.cli.session import session


@with_option_groups
def diagnose(
    options: MachineOptions,
    checkpoint: Checkpoint,
    dataset: DatasetPath,
    out: Annotated[Path, typer.Option(help="Folder for the page, tables and pictures.", show_default=False)],
    split: Annotated[str, typer.Option(help="Split to look at; all for every row.")] = "valid",
    backbones: Annotated[
        str | None, typer.Option(help="Comma-separated; train the same configuration with these and compare.")
    ] = None,
    metric: Annotated[
        str, typer.Option(help="What differences are measured in; auto: uar for classes, mae for values.")
    ] = "auto",
    by: Annotated[
        str, typer.Option(help="Also tell groups apart: language, speaker, corpus or another column of the manifest.")
    ] = "",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Look inside EGMF or EMOE: is the gate alive, do experts differ, what is each part worth."""
    with session(json, debug) as console:
        from emopipe.pipeline.studies.diagnose import diagnose_checkpoint

        names = listed(backbones or "")
        findings, files = diagnose_checkpoint(
            checkpoint, dataset, out, split, names, metric, by, hook=console.hook, **options
        )
        for finding in findings:
            console.print(finding)
        if json:
            console.emit({"findings": findings, "files": [str(path) for path in files]})
        console.print(f"The page, tables and pictures are in {out}/")
