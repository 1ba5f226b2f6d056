"""`emopipe ablate`: a model without its parts."""

from __future__ import annotations

from typing import Annotated

import typer

from emopipe.options import StudyOptions
from emopipe.pipeline.cli.options import DatasetPath, Debug, Json, Results, with_option_groups
from emopipe.pipeline.cli.session import session


@with_option_groups
def ablate(
    options: StudyOptions,
    dataset: DatasetPath,
    out: Results,
    model: Annotated[str, typer.Option(help="emoe, or one of its forms.")] = "emoe",
    sweep: Annotated[bool, typer.Option(help="Also try other values of alpha, lambda1, lambda2 and t.")] = True,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Take EMOE apart: without routing, without each loss, with other fusion and other settings."""
    with session(json, debug) as console:
        from emopipe.api import training_config
        from emopipe.pipeline.studies.compare import Study, ablate_model

        study = Study.of(options)
        config = training_config(model, {**options, "modalities": ()})
        tables = ablate_model(dataset, out, config, sweep, study, hook=console.hook, offline=options["offline"])
        for title, rows in tables.items():
            console.study(title.capitalize(), rows)
        console.print(f"Tables and figures are in {out}/")
