"""A live picture of a batch: a row for each file that is being worked on, and a line about the whole."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from emopipe.pipeline.formatting import printable, span
from emopipe.pipeline.progress import Event


@dataclass
class _Row:
    """A file at work, and the stage that it is at."""

    began: float
    stage: str = ""
    stage_began: float = 0.0
    done: float = 0.0
    total: float = 0.0


@dataclass
class Board:
    """Takes in events and shows where a batch stands.

    Attributes:
        total: files of the batch.
        states: how many files ended as what.
    """

    total: int = 0
    states: dict[str, int] = field(default_factory=dict)
    _planned: dict[str, Event] = field(default_factory=dict)
    _over: set[str] = field(default_factory=set)
    _rows: dict[str, _Row] = field(default_factory=dict)
    _worked: float = 0.0

    def tell(self, event: Event, now: float | None = None) -> None:
        """Take in an event, at a time in seconds (now)."""
        now = time.monotonic() if now is None else now
        if event.kind == "start" and event.name == "batch":
            self.total = int(event.total or 0)
        elif event.kind == "plan":
            self._planned[event.source] = event
        elif event.name == "file":
            self._tell_file(event, now)
        elif event.source in self._rows:
            self._tell_stage(event, now)

    def _tell_file(self, event: Event, now: float) -> None:
        if event.kind == "start":
            self._rows[event.source] = _Row(now)
        elif (row := self._rows.pop(event.source, None)) is not None:
            self._worked += now - row.began

    def _tell_stage(self, event: Event, now: float) -> None:
        row = self._rows[event.source]
        if event.kind == "start":
            row.stage, row.stage_began, row.done, row.total = event.name, now, 0.0, 0.0
        elif event.kind == "progress":
            row.done, row.total = event.done or 0.0, event.total or 0.0

    def ended(self, source: str, state: str) -> None:
        """Note what became of a file."""
        self.states[state] = self.states.get(state, 0) + 1
        self._over.add(source)

    def left(self, now: float | None = None) -> float | None:
        """Seconds until the batch is done, as far as one can tell.

        What a file costs is expected from past timings, or else to be as its length; how far off that is shows in the
        files that have ended.
        """
        now = time.monotonic() if now is None else now
        plans = self._planned.values()
        timed = all(plan.seconds is not None for plan in plans)
        costs = {plan.source: (plan.seconds if timed else plan.total) or 0.0 for plan in plans}
        finished = sum(cost for source, cost in costs.items() if source in self._over)
        if not plans or not (timed or finished > 0):
            return None
        pace = self._worked / finished if finished > 0 else 1.0
        work = pace * (sum(costs.values()) - finished) - sum(now - row.began for row in self._rows.values())
        return max(0.0, work) / max(1, len(self._rows))

    def summary(self, now: float | None = None) -> str:
        """A line about the whole."""
        parts = [f"{sum(self.states.values())} of {self.total} files"]
        parts += [f"{count} {state}" for state, count in sorted(self.states.items())]
        left = self.left(now)
        return ", ".join([*parts, *([f"{span(left)} left"] if left is not None else [])])

    def rows(self, now: float | None = None) -> list[tuple[str, str, float, str, str]]:
        """File, stage, share of the stage that is done, its rate, and the time that it has left."""
        now = time.monotonic() if now is None else now
        return [(source, row.stage, *_pace(row, now)) for source, row in self._rows.items()]

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table(show_edge=False, pad_edge=False, box=None)
        for name, wide in (("file", None), ("stage", 10), ("progress", 20), ("rate", 8), ("left", 8)):
            table.add_column(name, width=wide, overflow="ellipsis", no_wrap=True)
        for source, stage, share, rate, left in self.rows():
            bar = ProgressBar(total=1.0, completed=share, width=20)
            table.add_row(Text(printable(source)), stage, bar, rate, left)
        return Group(table, Text(self.summary(), style="bold"))


def _pace(row: _Row, now: float) -> tuple[float, str, str]:
    """Of a stage: the share that is done, progress per second, and the time left."""
    if row.total <= 0 or row.done <= 0 or now <= row.stage_began:
        return 0.0, "", ""
    rate = row.done / (now - row.stage_began)
    return min(1.0, row.done / row.total), f"{rate:.1f}/s", span(max(0.0, row.total - row.done) / rate)
