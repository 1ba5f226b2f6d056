"""`emopipe compare`: several models on the same folds."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from emopipe.options import StudyOptions, listed
from emopipe.pipeline.cli.options import DatasetPath, Debug, Json, Results, with_option_groups
from emopipe.pipeline.cli.session import session

#: `unimodal` stands for each modality by itself.
COMPARED = "linear,unimodal,late-fusion,lf-dnn,tfn,lmf,mult,self-mm,misa,mfn,mmim,dmd,emoe"


@with_option_groups
def compare(
    options: StudyOptions,
    dataset: DatasetPath,
    out: Results,
    models: Annotated[
        str, typer.Option(help="Comma-separated; face-only is one modality, unimodal each by itself.")
    ] = COMPARED,
    reference: Annotated[str | None, typer.Option(help="Model that the others are compared with: emoe.")] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Cross-validate several models on the same folds, with intervals of their differences.

    The configuration file may hold the tables [train], [model] and [models.NAME].
    """
    with session(json, debug) as console:
        from emopipe.pipeline.config import given_tables, training_tables
        from emopipe.pipeline.studies.compare import Study, compare_models

        tables: dict[str, Any] = training_tables(given_tables(options.get("config")))
        single = {name: options.get(name) for name in ("label", "epochs", "seed", "allow_speaker_overlap", "device")}
        tables["train"] = {**tables.get("train", {}), **{k: v for k, v in single.items() if v not in (None, False)}}
        study = Study.of(options)
        rows = compare_models(
            dataset, out, listed(models), tables, reference, study, hook=console.hook, offline=options["offline"]
        )
        console.study(f"Models on {dataset}", rows)
        console.print(f"Tables are in {out}/")
