"""`emopipe blur`: a copy of a recording in which faces are blurred."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emopipe.pipeline.cli.options import Debug, Json
from emopipe.pipeline.cli.session import session


def blur(
    video: Annotated[Path, typer.Argument(help="The recording.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="The copy; VIDEO.blurred.mp4 in this folder by default.", show_default=False)
    ] = None,
    margin: Annotated[
        float, typer.Option(help="What is blurred around a face, as a share of its size on each side.", min=0, max=5)
    ] = 0.4,
    hold: Annotated[
        float,
        typer.Option(help="Seconds for which the place of a face stays blurred where it is lost.", min=0, max=60),
    ] = 1.0,
    whole: Annotated[bool, typer.Option("--whole", help="Blur all of a picture where no face is found.")] = False,
    pitch: Annotated[
        float, typer.Option(help="Semitones by which the sound is shifted, such as -4.", min=-12, max=12)
    ] = 0.0,
    store: Annotated[
        Path | None, typer.Option(help="Folder in which faces are found and kept.", show_default=False)
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a copy of a recording in which faces are blurred along their tracks, without the recording's metadata."""
    from emopipe.api import blur as write_copy

    with session(json, debug) as console:
        copy = write_copy(
            video,
            out=out,
            margin=margin,
            hold=hold,
            whole=whole,
            pitch=pitch,
            store=store,
            offline=offline,
            progress=console.hook,
        )
        if json:
            facts = {"path": str(copy.path), "frames": copy.frames, "without_face": copy.without_face}
            console.emit({"event": "blur", **facts})
        rest = "" if whole or not copy.without_face else ": look at these"
        console.print(
            f"The copy is {copy.path}; in {copy.without_face} of {copy.frames} pictures no face is known{rest}"
        )
