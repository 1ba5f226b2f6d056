"""What a person (or a program, with --json) sees of a run: progress, results, errors."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from emopipe.errors import EmopipeError
from emopipe.pipeline.cli.live_display import Board
from emopipe.pipeline.formatting import clock, printable, span
from emopipe.pipeline.progress import Event
from emopipe.pipeline.report.outputs import reason_as_json, row_of

if TYPE_CHECKING:
    from emopipe.models.evaluation.agreement import Agreement
    from emopipe.models.evaluation.evaluate import Evaluation
    from emopipe.models.scoring import Scoring
    from emopipe.pipeline.execution.forecast import Step
    from emopipe.pipeline.records import FileResult

#: Between two lines of progress of one task where the output is not a terminal, in seconds.
QUIET: float = 5.0
#: The same where several files are worked on.
BATCH_QUIET: float = 30.0
#: Columns of tables that go to a file or another program.
FILE_WIDTH: int = 150


class Console:
    """Renders events and results: live in a terminal, as plain lines elsewhere, as JSON lines on request."""

    def __init__(self, *, json_lines: bool = False) -> None:
        from rich.console import Console as Rich

        self.json_lines = json_lines
        self._out = Rich(highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
        self._err = Rich(highlight=False, width=None if sys.stderr.isatty() else FILE_WIDTH, stderr=True)
        self._terminal = sys.stderr.isatty() and not json_lines
        self._live: Any = None
        self._describe: dict[tuple[str, str], float] = {}
        self._board = Board()

    def __enter__(self) -> Console:
        if self._terminal:
            from rich.live import Live
            from rich.spinner import Spinner

            self._live = Live(Spinner("dots", "starting"), console=self._err, transient=True)
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    @property
    def batch(self) -> bool:
        """Whether several files are being worked on."""
        return self._board.total > 1

    def hook(self, event: Event) -> None:
        """Show an event."""
        self._board.tell(event)
        if self.json_lines:
            facts = {name: value for name, value in asdict(event).items() if name != "kind" and value not in (None, "")}
            self.emit({"event": event.kind, **facts})
        elif event.kind in ("warning", "info"):
            self._say(_describe(event), "yellow" if event.kind == "warning" else None)
        elif event.kind == "plan":
            return
        elif self._live is not None:
            self._live.update(self._board if self.batch else _spinner(event))
        elif event.kind == "start":
            self._describe[event.source, event.name] = time.monotonic()
        elif event.kind == "progress" and self._is_due(event):
            self._describe[event.source, event.name] = time.monotonic()
            self._say(_describe(event))

    def _is_due(self, event: Event) -> bool:
        """Whether a task has been silent for a while."""
        pause = BATCH_QUIET if self.batch else QUIET
        return time.monotonic() - self._describe.get((event.source, event.name), 0.0) > pause

    def _say(self, text: str, style: str | None = None) -> None:
        """A line on standard error."""
        self._err.print(printable(text), style=style, markup=False, soft_wrap=True)

    def emit(self, facts: Mapping[str, Any]) -> None:
        """One JSON line on standard output."""
        line = json.dumps(facts, ensure_ascii=False) + "\n"
        sys.stdout.write(line.encode("utf-8", "backslashreplace").decode())  # names of files that are not Unicode
        sys.stdout.flush()

    def print(self, text: str) -> None:
        """A line for a person; nothing with --json."""
        if not self.json_lines:
            self._out.print(text, markup=False, soft_wrap=True)

    def error(self, error: EmopipeError) -> None:
        """An error, with its code and what to do."""
        if self.json_lines:
            facts = {"event": "error", "code": error.code, "what": error.what, "path": error.path, "hint": error.hint}
            self.emit(facts)
        else:
            self._say(str(error), "red")

    def table(
        self, title: str, header: Sequence[str], rows: Iterable[Sequence[str]], notes: Sequence[str] = ()
    ) -> None:
        """A table and notes below it; with --json, one line per row and no notes."""
        if self.json_lines:
            for row in rows:
                self.emit(dict(zip(header, row, strict=True)))
            return
        from rich.padding import Padding
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(title) if title else None, title_justify="left", show_edge=False, pad_edge=False)
        for name in header:
            table.add_column(name, overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self._out.print(table)
        for note in notes:
            self._out.print(Padding(Text(note), (0, 0, 0, 2)))

    def clip(self, result: FileResult) -> None:
        """What became of one input: all its predictions, or a line when it is one of many."""
        self._board.ended(str(result.media), result.state)
        rows = [row_of(utterance) for utterance in result.utterances]
        if self.json_lines:
            facts = {"media": str(result.media), "state": result.state}
            reasons = [reason_as_json(reason) for reason in result.reasons]
            self.emit({"event": "clip", **facts, "reasons": reasons, "utterances": rows})
            return
        name = printable(str(result.media))
        if self.batch:
            work = f"{span(sum(result.computed.values()))} of work" if result.computed else "stored"
            summary = f", {len(rows)} utterances, {work}" if result.state != "failed" else ""
            number = sum(self._board.states.values())
            self._out.print(
                f"[{number}/{self._board.total}] {name}: {result.state}{summary}", markup=False, soft_wrap=True
            )
        else:
            self._out.print(f"\n{name}: {result.state}", style="bold", markup=False, soft_wrap=True)
        for reason in result.reasons:
            style = "red" if result.state == "failed" else "yellow"
            self._out.print(f"  {printable(str(reason))}", style=style, markup=False, soft_wrap=True)
        if result.state == "failed":
            return
        if names := result.info.get("unverified_weights"):
            self._out.print(f"  unverified weights: {', '.join(names)}", style="yellow", markup=False, soft_wrap=True)
        if not self.batch:
            self._utterances(rows)

    def _utterances(self, rows: Sequence[dict[str, Any]]) -> None:
        """The utterances of a clip; with who speaks where there are several people."""
        header = ("time", "words", "emotion", "probability", "weights", "absent")
        if any(row["role"] for row in rows):
            self.table("", ("who", *header), ((_who(row), *_cells(row)) for row in rows))
        else:
            self.table("", header, map(_cells, rows))

    def study(self, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Results of a study: the columns that fit a terminal; the files have all."""
        hidden = ("runs", "parameters", "s/run", "pooled", "runs [95 %]")
        names = [name for name in rows[0] if name not in hidden]
        self.table(title, names, [[row[name] for name in names] for row in rows])

    def evaluation(self, title: str, evaluation: Evaluation) -> None:
        """How good a checkpoint is, by what it may see."""
        rows = [
            (subset, f"{figures['rows']:.0f}", *(f"{figures[name]:.4f}" for name in evaluation.metrics))
            for subset, figures in evaluation.by_modalities().items()
        ]
        self.table(title, ("modalities", "rows", *evaluation.metrics), rows)
        if self.json_lines:
            counts = {"rows": evaluation.rows, "no_evidence": evaluation.no_evidence}
            self.emit({"weights": evaluation.weights, **counts})
        weights = ", ".join(f"{name} {share:.3f}" for name, share in evaluation.weights.items())
        self.print(f"All rows: {evaluation.rows}; without evidence: {evaluation.no_evidence}; mean weights: {weights}")
        self.scoring(evaluation.scoring)
        self.agreement(evaluation.agreement)

    def scoring(self, scoring: Scoring | None) -> None:
        """How values are scored, and why so."""
        if scoring is None:
            return
        if self.json_lines:
            self.emit({"scoring": asdict(scoring)})
        self.print(scoring.words())

    def agreement(self, agreement: Agreement | None) -> None:
        """How far coders agree, where several labelled the same rows."""
        if agreement is None:
            return
        if self.json_lines:
            self.emit({"agreement": asdict(agreement)})
        self.print(agreement.words())

    def plan(self, steps: Sequence[Step], stored: int, jobs: int) -> None:
        """What will be done, why, and how long that will take."""
        rows: dict[tuple[str, str], list[Step]] = {}
        for step in steps:
            rows.setdefault((step.source.id, step.why), []).append(step)
        lines = [
            (printable(source), ", ".join(step.stage for step in some), why, _estimate(some))
            for (source, why), some in rows.items()
        ]
        if lines:
            self.table("To do", ("file", "stages", "why", "time"), lines)
        from emopipe.pipeline.execution.forecast import forecast

        seconds, unknown = forecast(steps, jobs)
        if self.json_lines:
            self.emit(
                {"event": "forecast", "stored": stored, "steps": len(steps), "seconds": seconds, "unknown": unknown}
            )
        stored_note = f"{stored} files are stored and need nothing. " if stored else ""
        times = f"about {span(seconds)} with {jobs} at a time" if unknown < len(steps) else "unknown"
        less = f", without {unknown} steps that were never timed" if 0 < unknown < len(steps) else ""
        self.print(
            f"{stored_note}{len(steps)} steps to do; time: {times}{less}" if steps else f"{stored_note}Nothing to do."
        )


def _estimate(steps: Sequence[Step]) -> str:
    known_seconds = [step.seconds for step in steps if step.seconds is not None]
    return ("" if len(known_seconds) == len(steps) else "over ") + span(sum(known_seconds)) if known_seconds else "?"


def _describe(event: Event) -> str:
    """An event in words."""
    share = f" {100 * event.done / event.total:.0f} %" if event.done is not None and event.total else ""
    about = f"{event.source}: " if event.source else ""
    return f"{about}{event.name}{share}" + (f": {event.message}" if event.message else "")


def _spinner(event: Event) -> Any:
    from rich.spinner import Spinner
    from rich.text import Text

    return Spinner("dots", Text(printable(_describe(replace(event, source="")))))


def _who(row: dict[str, Any]) -> str:
    return f"{row['speaker']}, {row['role']}" if row["role"] else ""


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    label = row["label"] or ("no evidence" if row["value"] is None else f"{row['value']:.2f}")
    notes = ["uncertain"] * bool(row["abstained"] and row["label"])
    notes += ["unverified weights"] * bool(row.get("unverified_weights"))
    return (
        f"{clock(row['start'])}-{clock(row['end'])}",
        row["text"],
        f"{label} ({', '.join(notes)})" if notes else label,
        f"{row['confidence']:.2f}" if row["confidence"] else "",
        " ".join(f"{name} {share:.2f}" for name, share in row["weights"].items()),
        " ".join(f"{name}: {reason}" for name, reason in row["absent"].items()),
    )
