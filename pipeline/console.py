"""What a person (or a program, with --json) sees of a run: progress, results, errors."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from emopipe.pipeline.errors import EmopipeError
from emopipe.pipeline.progress import Event

if TYPE_CHECKING:
    from emopipe.pipeline.outputs import ClipResult

#: Between two lines of progress of one task where the output is no terminal, in seconds.
QUIET: float = 5.0
#: Columns of tables that go to a file or another program.
FILE_WIDTH: int = 150


class Console:
    """Renders events and results: live in a terminal, as plain lines elsewhere, as JSON lines on request."""

    def __init__(self, *, json_lines: bool = False) -> None:
        from rich.console import Console as Rich

        self.json_lines = json_lines
        self._out = Rich(highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
        self._err = Rich(highlight=False, width=None if sys.stderr.isatty() else FILE_WIDTH, stderr=True)
        self._live = sys.stderr.isatty() and not json_lines
        self._status: Any = None
        self._told: dict[str, float] = {}

    def __enter__(self) -> Console:
        if self._live:
            self._status = self._err.status("starting")
            self._status.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def hook(self, event: Event) -> None:
        """Show an event."""
        if self.json_lines:
            facts = {name: value for name, value in asdict(event).items() if name != "kind" and value not in (None, "")}
            self.emit({"event": event.kind, **facts})
        elif event.kind in ("warning", "info"):
            self._say(f"{event.name}: {event.message}", "yellow" if event.kind == "warning" else None)
        elif self._live:
            self._status.update(_progress_line(event))
        elif event.kind == "start":
            self._told[event.name] = time.monotonic()
        elif event.kind == "progress" and time.monotonic() - self._told.get(event.name, 0.0) > QUIET:
            self._told[event.name] = time.monotonic()
            self._say(_progress_line(event))

    def _say(self, text: str, style: str | None = None) -> None:
        """A line on standard error."""
        self._err.print(text, style=style, markup=False, soft_wrap=True)

    def emit(self, facts: Mapping[str, Any]) -> None:
        """One JSON line on standard output."""
        sys.stdout.write(json.dumps(facts, ensure_ascii=False) + "\n")
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

    def table(self, title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A table; with --json, one line per row."""
        if self.json_lines:
            for row in rows:
                self.emit(dict(zip(header, row, strict=True)))
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(title) if title else None, title_justify="left", show_edge=False, pad_edge=False)
        for name in header:
            table.add_column(name, overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self._out.print(table)

    def clip(self, result: ClipResult) -> None:
        """The predictions of one clip."""
        if self.json_lines:
            facts = {"media": str(result.path), "state": result.state, "reasons": result.reasons}
            self.emit({"event": "clip", **facts, "utterances": result.rows()})
            return
        self._out.print(f"\n{result.path}: {result.state}", style="bold", markup=False, soft_wrap=True)
        for reason in result.reasons:
            style = "red" if result.state == "failed" else "yellow"
            self._out.print(f"  {reason}", style=style, markup=False, soft_wrap=True)
        if result.extraction is not None:
            if names := result.extraction.info.get("unverified_weights"):
                self._out.print(
                    f"  unverified weights: {', '.join(names)}", style="yellow", markup=False, soft_wrap=True
                )
            rows, header = result.rows(), ("time", "words", "emotion", "probability", "weights", "absent")
            if any(row["role"] for row in rows):
                self.table("", ("who", *header), ((_who(row), *_cells(row)) for row in rows))
            else:
                self.table("", header, map(_cells, rows))


def _progress_line(event: Event) -> str:
    share = f" {100 * event.done / event.total:.0f} %" if event.done is not None and event.total else ""
    return f"{event.name}{share}" + (f": {event.message}" if event.message else "")


def clock(seconds: float) -> str:
    """Minutes and seconds, "1:02.5"."""
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"


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
