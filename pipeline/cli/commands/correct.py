"""`emopipe correct`: corrections beside the predictions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emopipe.pipeline.cli.options import Debug, Json, Participants, Pseudonyms, RunResults
from emopipe.pipeline.cli.session import session

if TYPE_CHECKING:
    from emopipe.pipeline.corrections.agreement import Agreement
    from emopipe.pipeline.corrections.documents import Outcome

NOTE = "1: always, 0: as often as by chance. Looking only at doubtful utterances makes the model look worse than it is."
HEADER = ("recording", "time", "speaker", "by", "correction", "outcome", "what to do")


def correct(
    results: RunResults,
    corrections: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Files that the page of a clip saved (.json), or exported ELAN files that were edited (.eaf); "
            "none: tell what was applied before.",
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Who corrected, in place of what the files say.", show_default=False)
    ] = None,
    participants: Participants = None,
    pseudonyms: Pseudonyms = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Put corrections beside the predictions of a run, and tell how far people and model agree; no video is read."""
    from emopipe.api import correct as apply

    with session(json, debug) as console:
        corrected = apply(results, corrections or (), by=by, participants=participants, pseudonyms=pseudonyms)
        if corrected.outcomes:
            console.table("Corrections", HEADER, map(_row, corrected.outcomes))
        if corrected.agreement:
            header = ("agreement", "who", "utterances", "value")
            console.table("Agreement", header, map(_agreement, corrected.agreement), [NOTE])
        applied, refused = len(corrected.applied), len(corrected.refused)
        console.print(f"{applied} applied, {refused} refused; {len(corrected.files)} files are written anew")
    raise typer.Exit(1 if corrected.refused else 0)


def _row(outcome: Outcome) -> tuple[str, ...]:
    from emopipe.pipeline.formatting import clock, printable

    times = "" if outcome.start is None else clock(outcome.start)
    told = ("applied", "") if outcome.reason is None else (outcome.reason.what, outcome.reason.hint)
    cells = (outcome.recording, times, outcome.speaker or "", outcome.by, outcome.what, *told)
    return tuple(printable(cell) for cell in cells)


def _agreement(one: Agreement) -> tuple[str, ...]:
    from emopipe.pipeline.formatting import printable

    value = "not defined" if one.value is None else f"{one.value:.3f}"
    return one.measure, printable(", ".join(one.who)), str(one.utterances), value
