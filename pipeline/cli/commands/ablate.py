"""`emopipe ablate`: a model without its parts."""

from __future__ import annotations

from typing import Annotated

import typer

from emopipe.options import StudyOptions, listed
from emopipe.pipeline.cli.options import DatasetPath, Debug, Json, Results, with_option_groups
from emopipe.pipeline.cli.session import session


@with_option_groups
def ablate(
    options: StudyOptions,
    dataset: DatasetPath,
    out: Results,
    model: Annotated[str, typer.Option(help="emoe or one of its forms, or egmf.")] = "emoe",
    sweep: Annotated[bool, typer.Option(help="Also try other values of alpha, lambda1, lambda2 and t.")] = True,
    draw: Annotated[
        str, typer.Option(help="Comma-separated; also draw the settings over these metrics, such as acc7,acc2_non0.")
    ] = "",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train EMOE without routing and each loss, or EGMF without each modality, expert, gate stage and LoRA."""
    with session(json, debug) as console:
        from emopipe.api import training_config
        from emopipe.pipeline.studies.compare import Study, ablate_model

        study = Study.of(options)
        config = training_config(model, {**options, "modalities": ()})
        tables = ablate_model(
            dataset, out, config, sweep, study, listed(draw), hook=console.hook, offline=options["offline"]
        )
        for title, rows in tables.items():
            console.study(title.capitalize(), rows)
        console.print(f"Tables and figures are in {out}/")
