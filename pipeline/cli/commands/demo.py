"""`emopipe demo`: predict the sample that comes with the package."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer

from emopipe.options import MachineOptions
from emopipe.pipeline.cli.options import Debug, Json, with_option_groups
from emopipe.pipeline.cli.session import session


@with_option_groups
def demo(
    options: MachineOptions,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("emopipe-demo"),
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Predict a synthetic interview that comes with the package, and say where its page is."""
    from emopipe.api import run

    with session(json, debug) as console, as_file(files("emopipe.samples") / "interview.mp4") as clip:
        run(clip, out=out, progress=console.hook, on_result=console.clip, debug=debug, **options)
        console.print(f"\nOpen {out / 'interview.html'} in a browser: its timeline plays the video")
