"""`emopipe view`: the pages of a run in a browser, with recordings that seek and corrections that are saved."""

from __future__ import annotations

from typing import Annotated

import typer

from emopipe.pipeline.cli.options import Debug, Json, RunResults
from emopipe.pipeline.cli.session import session


def view(
    results: RunResults,
    port: Annotated[int, typer.Option(help="Of 127.0.0.1 to listen on; 0: one that is free.", min=0, max=65535)] = 0,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the first page in the browser.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Serve the pages and recordings of a run on this machine alone, until Ctrl-C, and save corrections made there."""
    from emopipe.pipeline.report.viewer import serve

    with session(json, debug) as console:

        def ready(address: str) -> None:
            if json:
                console.emit({"event": "view", "address": address})
            console.print(f"{address}\nThe address is secret: whoever has it can read and correct. Ctrl-C ends.")
            if open_browser:
                _open(address)

        serve(results, port, ready)


def _open(address: str) -> None:
    import webbrowser

    webbrowser.open(address)
