"""`emopipe store`: what is kept, and less of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emopipe.options import byte_size
from emopipe.pipeline.cli.options import Debug, Json
from emopipe.pipeline.cli.session import session


def store(
    store: Annotated[Path | None, typer.Option(help="Folder in which results are kept and found again.")] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Remove results of outdated stages and libraries.")] = False,
    unused_for: Annotated[
        float | None, typer.Option(min=0, help="With --prune: also what was not used for so many days.")
    ] = None,
    down_to: Annotated[
        str | None,
        typer.Option(help="With --prune: also the longest unused, until the rest is as small as 500M or 20G."),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what the store of results holds, and make it smaller."""
    with session(json, debug) as console:
        from datetime import datetime

        from emopipe.pipeline.execution.plan import superseded
        from emopipe.pipeline.store.store import Store, store_dir

        with Store(store or store_dir()) as opened:
            if prune:
                age = None if unused_for is None else unused_for * 86_400
                size = None if down_to is None else byte_size(down_to)
                count, freed = opened.prune(superseded, unused_for=age, down_to=size)
                console.print(f"{count} results were removed, {freed / 1e6:.1f} MB")
            used = opened.usage()
            rows = [
                (u.stage, str(u.results), f"{u.bytes / 1e6:.1f}", f"{datetime.fromtimestamp(u.used):%Y-%m-%d}")
                for u in used
            ]
            console.table(str(opened.folder), ("stage", "results", "MB", "last used"), rows)
            console.print(f"{sum(u.results for u in used)} results, {sum(u.bytes for u in used) / 1e6:.1f} MB")
