"""`emopipe methods`: what a paper tells of how recordings were analysed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emopipe.pipeline.cli.options import Debug, Json, RunResults, StoreOfRun
from emopipe.pipeline.cli.session import session


def methods(
    results: RunResults,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files; the results by default.", show_default=False)
    ] = None,
    store: StoreOfRun = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a methods section for a paper: settings, versions, hashes, licences, limits, and references as BibTeX."""
    from emopipe.api import methods as write_methods

    with session(json, debug) as console:
        files = write_methods(results, out=out, store=store)
        if json:
            console.emit({"event": "methods", "files": [str(path) for path in files]})
        console.print(f"{' and '.join(path.name for path in files)} are in {out or results}/")
