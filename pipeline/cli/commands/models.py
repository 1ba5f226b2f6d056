"""`emopipe models`: weights, extractors, fusion models and checkpoints."""

from __future__ import annotations

from typing import Annotated

import typer

from emopipe.pipeline.cli.options import Debug, Json
from emopipe.pipeline.cli.session import session

app = typer.Typer(help="Weights of the extractors: what there is, fetch it, check it.", no_args_is_help=True)


@app.command("list")
def list_models(json: Json = False, debug: Debug = False) -> None:
    """Weights (licence, intended use, whether they are here), extractors, models and checkpoints."""
    with session(json, debug) as console:
        from emopipe.pipeline.cli.catalogue_tables import tables

        for table in tables(flat=json):
            console.table(table.title, table.header, table.rows, table.notes)
            console.print("")


@app.command()
def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Which, also owner/model of the hub; left out: all that need no hub.", show_default=False),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Bring weights into the cache and check them."""
    with session(json, debug) as console:
        from emopipe.pipeline import weights

        for name in names or [name for name in weights.names() if weights.entry(name).embedded]:
            entry = weights.find(name, offline=offline)
            console.print(f"{name}: {weights.fetch(entry, offline=offline, hook=console.hook)}")


@app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="Which; left out: all that are here.", show_default=False)
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Check the hashes of the weights that are here."""
    with session(json, debug) as console:
        from emopipe.pipeline import weights

        entries = [weights.find(name, offline=True) for name in names] if names else weights.here()
        states = [(entry.name, weights.verify(entry)) for entry in entries]
        if not names:
            states = [(name, status) for name, status in states if status.state != "missing"]
        console.table("", ("name", "state", "detail"), [(name, one.state, one.detail) for name, one in states])
    raise typer.Exit(3 if any(status.code for _, status in states) else 0)
