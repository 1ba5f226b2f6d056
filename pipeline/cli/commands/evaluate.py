"""`emopipe evaluate`: measure a checkpoint or a model."""

from __future__ import annotations

from typing import Annotated

import typer

from emopipe.options import TrainingOptions
from emopipe.pipeline.cli.options import DatasetPath, Debug, Json, Prior, Start, with_option_groups
from emopipe.pipeline.cli.session import session


@with_option_groups
def evaluate(
    options: TrainingOptions,
    dataset: DatasetPath,
    model: Annotated[
        str | None, typer.Option(help="A checkpoint, or the name of a model to train for the purpose: emoe.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split to measure on; all for every row.")] = "valid",
    folds: Annotated[int, typer.Option(min=0, help="Cross-validate a model on so many speaker-grouped folds.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Train a model with so many seeds.")] = 1,
    prior: Prior = "uniform",
    start: Start = "auto",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure a checkpoint, or train a model over seeds or folds and measure that."""
    from emopipe.api import evaluate as measure

    with session(json, debug) as console:
        from emopipe.models.evaluation.evaluate import Evaluation

        measured = measure(
            dataset,
            model,
            split=split,
            folds=folds,
            seeds=seeds,
            prior=prior,
            start=start,
            progress=console.hook,
            **options,
        )
        if isinstance(measured, Evaluation):
            console.evaluation(f"{model} on {dataset} ({split})", measured)
            return
        rows = [(name, f"{value:.4f}", f"{measured.sd[name]:.4f}") for name, value in measured.mean.items()]
        console.table(f"{model or 'emoe'} on {dataset}, {len(measured.runs)} runs", ("metric", "mean", "sd"), rows)
        console.scoring(measured.scoring)
        console.agreement(measured.agreement)
