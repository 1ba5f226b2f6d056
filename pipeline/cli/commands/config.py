"""`emopipe config`: the extraction configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emopipe.pipeline.cli.options import Debug, Json
from emopipe.pipeline.cli.session import session

app = typer.Typer(help="The extraction configuration.", no_args_is_help=True)


@app.command()
def show(
    config: Annotated[Path | None, typer.Option(help="A TOML file whose settings replace the defaults.")] = None,
    model: Annotated[str | None, typer.Option(help="Show the configuration that a checkpoint seals.")] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Print the resolved extraction configuration as TOML."""
    with session(json, debug) as console:
        import tomli_w

        from emopipe.pipeline.config import ExtractionConfig, load_config

        if model is None:
            tables = (ExtractionConfig() if config is None else load_config(config)).as_dict(full=True)
        else:
            from emopipe.models.sealed import read_sealed

            tables = dict(read_sealed(model).extraction)
        console.print(tomli_w.dumps(tables).rstrip())
        if json:
            console.emit(tables)
