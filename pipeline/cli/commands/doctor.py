"""`emopipe doctor`: is this machine fit."""

from __future__ import annotations

import typer

from emopipe.pipeline.cli.options import Debug, Json
from emopipe.pipeline.cli.session import session


def doctor(json: Json = False, debug: Debug = False) -> None:
    """Check this machine for everything emopipe needs."""
    with session(json, debug) as console:
        from emopipe.pipeline.doctor import checks

        looked_at = checks()
        rows = [(check.name, check.state, check.detail, check.hint) for check in looked_at]
        console.table("", ("check", "state", "found", "what to do"), rows)
    raise typer.Exit(3 if any(check.state == "fail" for check in looked_at) else 0)
