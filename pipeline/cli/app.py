"""The command line: every command by name, in groups. Heavy imports happen inside the commands that need them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final

import typer

from emopipe.pipeline.cli.commands import config, models
from emopipe.pipeline.cli.commands.ablate import ablate
from emopipe.pipeline.cli.commands.blur import blur
from emopipe.pipeline.cli.commands.compare import compare
from emopipe.pipeline.cli.commands.compare_extractors import compare_extractors
from emopipe.pipeline.cli.commands.corpus import corpus
from emopipe.pipeline.cli.commands.correct import correct
from emopipe.pipeline.cli.commands.curve import curve
from emopipe.pipeline.cli.commands.demo import demo
from emopipe.pipeline.cli.commands.diagnose import diagnose
from emopipe.pipeline.cli.commands.diff import diff
from emopipe.pipeline.cli.commands.doctor import doctor
from emopipe.pipeline.cli.commands.evaluate import evaluate
from emopipe.pipeline.cli.commands.export import export
from emopipe.pipeline.cli.commands.extract import extract
from emopipe.pipeline.cli.commands.inspect import inspect
from emopipe.pipeline.cli.commands.methods import methods
from emopipe.pipeline.cli.commands.report import report
from emopipe.pipeline.cli.commands.run import run
from emopipe.pipeline.cli.commands.select import select
from emopipe.pipeline.cli.commands.share import share
from emopipe.pipeline.cli.commands.speakers import speakers
from emopipe.pipeline.cli.commands.store import store
from emopipe.pipeline.cli.commands.train import train
from emopipe.pipeline.cli.commands.view import view
from emopipe.pipeline.cli.commands.visualize import visualize

app = typer.Typer(
    name="emopipe",
    help="Raw video in, emotion predictions per utterance out, on your own machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
USE, TRAIN, STUDY, MAINTAIN = "Use", "Train", "Study", "Maintain"
#: Group of the help -> its commands, in order.
COMMANDS: Final[dict[str, dict[str, Callable[..., None]]]] = {
    USE: {
        "demo": demo,
        "run": run,
        "report": report,
        "export": export,
        "view": view,
        "correct": correct,
        "diff": diff,
        "speakers": speakers,
        "methods": methods,
        "blur": blur,
        "share": share,
    },
    TRAIN: {
        "corpus": corpus,
        "extract": extract,
        "inspect": inspect,
        "train": train,
        "evaluate": evaluate,
        "select": select,
    },
    STUDY: {
        "compare": compare,
        "curve": curve,
        "ablate": ablate,
        "visualize": visualize,
        "diagnose": diagnose,
        "compare-extractors": compare_extractors,
    },
    MAINTAIN: {"doctor": doctor, "store": store},
}
for group, commands in COMMANDS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=group)(command)
app.add_typer(models.app, name="models", rich_help_panel=MAINTAIN)
app.add_typer(config.app, name="config", rich_help_panel=MAINTAIN)


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        typer.echo(f"emopipe {version('emopipe')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Raw video in, emotion predictions per utterance out, on your own machine."""


def main() -> None:
    """Entry point of the console script."""
    app()
