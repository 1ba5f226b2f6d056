"""`emopipe share`: results without pictures, sound and words, as an archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emopipe.pipeline.cli.options import Debug, Json, RunResults
from emopipe.pipeline.cli.session import session


def share(
    results: RunResults,
    out: Annotated[Path | None, typer.Option(help="The archive; RESULTS.zip by default.", show_default=False)] = None,
    parts: Annotated[
        str,
        typer.Option(
            "--with", help="What else is in it, with commas: words, corrections, pages, blurred.", show_default=False
        ),
    ] = "",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make an archive of results to hand on, without pictures, sound and words but those asked for."""
    from emopipe.api import share as write_archive

    with session(json, debug) as console:
        shared = write_archive(results, out=out, parts=parts)
        if json:
            console.emit({"event": "share", "path": str(shared.path), "files": [file.name for file in shared.files]})
        console.table(
            f"In {shared.path}",
            ("file", "bytes", "holds"),
            [(file.name, str(file.size), file.holds) for file in shared.files],
            shared.notes,
        )
