"""`emopipe diff`: what changed between two runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emopipe.pipeline.cli.options import Debug, Json
from emopipe.pipeline.cli.session import session

if TYPE_CHECKING:
    from collections.abc import Mapping

    from emopipe.pipeline.report.differences import Difference

HEADER = ("recording", "time", "words", "before", "after", "changed")


def diff(
    first: Annotated[Path, typer.Argument(help="Results of `emopipe run`.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Results over the same recordings.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Folder for diff.csv and diff.json, with all utterances.", show_default=False)
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Tell what changed between two runs, models or settings, utterance by utterance."""
    from emopipe.api import diff as compare

    with session(json, debug) as console:
        found = compare(first, second, out=out)
        if found.changed:
            console.table("Changed", HEADER, map(_row, found.changed))
        for name, run in found.alone.items():
            console.print(f"{name} is in the {run} run alone")
        counts = dict(found.counts)
        total = counts.pop("utterances")
        told = ", ".join(f"{name} {number}" for name, number in counts.items()) or "nothing"
        kappa = "" if found.kappa is None else f"; Cohen's kappa of the labels {found.kappa:.3f}"
        console.print(f"{len(found.changed)} of {total} utterances changed: {told}{kappa}")
        if out is not None:
            console.print(f"All utterances are in {out}/")


def _row(one: Difference) -> tuple[str, ...]:
    from emopipe.pipeline.formatting import clock, printable

    words = (one.after or one.before or {}).get("text", "")
    cells = (one.recording, clock(one.start), words, _answer(one.before), _answer(one.after), ", ".join(one.changed))
    return tuple(printable(cell) for cell in cells)


def _answer(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    if row["value"] is not None:
        return f"{row['value']:.2f}"
    share = "" if row["confidence"] is None else f" {row['confidence']:.0%}"
    return f"{row['label']}{share}" if row["label"] else "no evidence"
