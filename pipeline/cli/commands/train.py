"""`emopipe train`: train a fusion model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emopipe.options import TrainingOptions
from emopipe.pipeline.cli.options import DatasetPath, Debug, Json, Start, with_option_groups
from emopipe.pipeline.cli.session import session


@with_option_groups
def train(
    options: TrainingOptions,
    dataset: DatasetPath,
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint.", show_default=False)],
    model: Annotated[str | None, typer.Option(help="Model to train.")] = None,
    start: Start = "auto",
    tensorboard: Annotated[Path | None, typer.Option(help="Folder of event files for TensorBoard.")] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a fusion model on a dataset; a killed training goes on where it was."""
    from emopipe.api import train as train_model

    with session(json, debug) as console:
        trained = train_model(
            dataset, out, model=model, start=start, tensorboard=tensorboard, progress=console.hook, **options
        )
        if trained.validation is not None:
            console.evaluation("Validation, by what the model may see", trained.validation)
        if trained.linear is not None:
            console.evaluation("The same by a linear model", trained.linear)
        if trained.folds:
            console.study(f"Folds of {trained.folds_of}", trained.folds)
        if trained.verdict:
            console.print(trained.verdict)
        console.print(f"Checkpoint {trained.id} is in {out}/")
