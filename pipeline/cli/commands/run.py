"""`emopipe run`: predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emopipe.options import RunOptions
from emopipe.pipeline.cli.commands.export import FORMATS
from emopipe.pipeline.cli.options import Json, Participants, with_option_groups
from emopipe.pipeline.cli.session import session

Paths = Annotated[
    list[Path] | None,
    typer.Argument(help="Video or audio files, folders of them, or patterns.", show_default=False),
]


@with_option_groups
def run(
    options: RunOptions,
    paths: Paths = None,
    model: Annotated[
        str, typer.Option(help="Name of a shipped checkpoint, or a checkpoint folder.")
    ] = "emopipe-default",
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("emopipe-out"),
    participants: Participants = None,
    speakers: Annotated[
        Path | None,
        typer.Option(help="CSV with the columns file and speaker: who speaks in which file.", show_default=False),
    ] = None,
    formats: Annotated[str, typer.Option(help=f"More formats, with commas: {FORMATS}.", show_default=False)] = "",
    phases: Annotated[bool, typer.Option("--phases", help="One stage of all files after the other.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Only what failed in, or was missing from, the last run into --out.")
    ] = False,
    explain: Annotated[bool, typer.Option("--explain", help="First show what will be done, why, how long.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Explain, and do nothing.")] = False,
    json: Json = False,
) -> None:
    """Predict the emotion of every utterance in videos or sound files."""
    from emopipe.api import run as run_files

    if not paths and not retry_failed:
        raise typer.BadParameter("name files, folders or patterns", param_hint="PATHS")
    with session(json, options.get("debug", False)) as console:
        results = run_files(
            paths or [],
            model=model,
            out=out,
            participants=participants,
            speakers=speakers,
            formats=formats,
            retry_failed=retry_failed,
            phases=phases,
            dry_run=dry_run,
            progress=console.hook,
            on_result=console.clip,
            on_plan=console.plan if explain or dry_run else None,
            **options,
        )
        if not dry_run:
            console.print(f"\nResults are in {out}/")
    raise typer.Exit(1 if results.failed else 0)
