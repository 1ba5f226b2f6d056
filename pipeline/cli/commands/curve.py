"""`emopipe curve`: would more recordings help?"""

from __future__ import annotations

from typing import Annotated

import typer

from emopipe.options import TrainingOptions
from emopipe.pipeline.cli.options import DatasetPath, Debug, Json, Results, Start, with_option_groups
from emopipe.pipeline.cli.session import session


@with_option_groups
def curve(
    options: TrainingOptions,
    dataset: DatasetPath,
    out: Results,
    model: Annotated[str, typer.Option(help="Model to train; linear is quick.")] = "emoe",
    shares: Annotated[str, typer.Option(help="Percents of the speakers, and of the clips, to train on.")] = (
        "10,20,50,100"
    ),
    more: Annotated[str, typer.Option(help="Numbers of clips: would so many more help?")] = "50,200,500",
    folds: Annotated[int, typer.Option(min=2, help="Speaker-grouped folds.")] = 5,
    seeds: Annotated[int, typer.Option(min=1, help="Draws of each part, each trained once on each fold.")] = 1,
    start: Start = "auto",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure the learning curve of a dataset, and tell what more clips or speakers would bring, with the doubt."""
    from emopipe.api import given_settings, training_config

    with session(json, debug) as console:
        from emopipe.pipeline.studies.curve import CurveOptions, percents, whole_numbers, write_curve

        found = write_curve(
            dataset,
            out,
            training_config(model, options),
            CurveOptions(percents(shares), whole_numbers(more), folds, seeds),
            start=start,
            given=given_settings(model, options),
            hook=console.hook,
            offline=options["offline"],
        )
        console.study(f"Learning curve of {model} on {dataset}", found.points)
        if found.forecasts:
            console.study("What more would bring", found.forecasts)
        for verdict in found.verdicts:
            console.print(verdict)
        console.agreement(found.agreement)
        console.print(f"Tables and a plot are in {out}/")
