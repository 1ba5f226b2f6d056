"""`emopipe select`: what to label next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emopipe.pipeline.cli.options import Debug, Json, StoreOfRun
from emopipe.pipeline.cli.session import session


def select(
    results: Annotated[Path, typer.Argument(help="Results of `emopipe run` on unlabelled recordings.")],
    count: Annotated[int, typer.Option(min=1, help="How many utterances to choose.")] = 50,
    out: Annotated[
        Path | None, typer.Option(help="Folder for table and page; beside the results by default.", show_default=False)
    ] = None,
    labelled: Annotated[
        Path | None, typer.Option(help="A dataset of what is labelled already, to choose other things.")
    ] = None,
    store: StoreOfRun = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Choose the utterances most worth labelling next (active learning): uncertain, typical, and unlike each other."""
    with session(json, debug) as console:
        from emopipe.pipeline.store.store import store_dir
        from emopipe.pipeline.studies.select import select_utterances

        kept = store or Path(store_dir())
        found = select_utterances(results, out or results, count, store=kept, labelled=labelled, hook=console.hook)
        shown = ("rank", "file", "start", "end", "speaker", "predicted", "uncertainty", "represents", "transcription")
        rows = [{**row, "file": Path(row["file"]).name} for row in found.rows]
        console.table(f"What to label next in {results}", shown, [[str(row[name]) for name in shown] for row in rows])
        console.print(f"{len(rows)} of {found.candidates} utterances: select.csv and select.html in {out or results}/")
