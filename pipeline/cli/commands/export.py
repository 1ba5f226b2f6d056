"""`emopipe export`: the results of a run in the formats of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emopipe.pipeline.cli.options import Debug, Json, Pseudonyms, Redact, RunResults, StoreOfRun
from emopipe.pipeline.cli.session import session

#: The names of the formats, for the help: the formats themselves are loaded when they are used.
FORMATS = "parquet, frames.csv, openface.csv, srt, vtt, eaf, textgrid, rttm, xlsx, jsonl"


def export(
    results: RunResults,
    to: Annotated[str, typer.Option("--to", help=f"Formats, with commas: {FORMATS}.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files; beside the results by default.", show_default=False)
    ] = None,
    store: StoreOfRun = None,
    pseudonyms: Pseudonyms = None,
    redact: Redact = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the results of a run for spreadsheets, R, subtitles, ELAN, Praat and others; no video is read again."""
    from emopipe.api import export as export_results

    with session(json, debug) as console:
        exported = export_results(
            results, to, out=out, store=store, pseudonyms=pseudonyms, redact=redact, progress=console.hook
        )
        if json:
            console.emit({"event": "export", "files": [str(path) for path in exported.files]})
        console.print(f"{len(exported.files)} files are in {out or results}/")
    raise typer.Exit(1 if exported.incomplete else 0)
