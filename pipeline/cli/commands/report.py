"""`emopipe report`: the page about a batch, once more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emopipe.pipeline.cli.options import Debug, Json, Participants, Pseudonyms, StoreOfRun
from emopipe.pipeline.cli.session import session


def report(
    out: Annotated[Path, typer.Argument(help="Results of `emopipe run`.", show_default=False)],
    participants: Participants = None,
    pseudonyms: Pseudonyms = None,
    store: StoreOfRun = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the page about all files of a run once more, from its results and store alone, and its tables."""
    with session(json, debug) as console:
        from emopipe.pipeline.report.batch import participants_of_run
        from emopipe.pipeline.report.batch_page import write_summary
        from emopipe.pipeline.store.store import store_of_run

        people = participants_of_run(participants, out, pseudonyms)
        with store_of_run(store) as opened:
            page = write_summary(out, people, opened)
        if json:
            console.emit({"event": "report", "page": str(page)})
        console.print(f"The page is {page}")
