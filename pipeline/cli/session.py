"""What every command runs in: a console, and errors that become messages and exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from emopipe.errors import EmopipeError

if TYPE_CHECKING:
    from emopipe.pipeline.cli.console import Console


@contextmanager
def session(json_lines: bool, debug: bool) -> Iterator[Console]:
    """A console; coded errors are shown and become the exit code."""
    from emopipe.pipeline.cli.console import Console

    with Console(json_lines=json_lines) as console:
        try:
            yield console
        except EmopipeError as error:
            if debug:
                raise
            console.error(error)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
