"""Files that nobody should have, run through emopipe: no traceback, no hang, nothing from nothing.

    python benchmarks/hostile.py [--seed 0 ...] [--files 200] [--kinds media checkpoints plugins stores] [--log FILE]

Media are mutated recordings (see `hostile_media.py`). Of every file, streams are read, faces measured and speech is
found
by the default extractors; a share of them (`--whole`, and every file without evidence) goes through the whole command:
words, voice, text, people, fusion and written pages. Checkpoints, plugins' metadata and stores are mutated as
`hostile_artifacts.py` says. Each file is worked on by a worker process, which loads its models once, under a limit of
time (`--seconds`, and a tenth of what the recording truly lasts),
of memory beyond what the worker held when it was warm (`--growth`), and of bytes written (`--disk`).

Outcomes: "ok" (a result), "degraded" (a result with reasons), "refused" (a reason with a code); and the faults
"internal" (EMO-901 or any other exception), "traceback" (written to stderr), "hang", "died", "memory", "disk", "no
reason", and "unfounded" (a prediction without evidence, or numbers that cannot be). The exit code tells whether there
were faults.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any, Final

import psutil
from hostile_artifacts import CheckpointTrial, PluginTrial, StoreTrial
from hostile_trials import Case, MediaTrial

TRIALS: Final[dict[str, Any]] = {
    "media": MediaTrial,
    "checkpoints": CheckpointTrial,
    "plugins": PluginTrial,
    "stores": StoreTrial,
}
KINDS: Final = tuple(TRIALS)
FAULTS: Final = ("internal", "traceback", "hang", "died", "memory", "disk", "no reason", "unfounded")
#: Between two looks at a worker's memory, in seconds.
LOOK: Final = 0.05
MIB: Final = 1 << 20
#: Share of the seconds that a recording truly lasts that work on it may take beyond the limit.
LASTING: Final = 0.1


@dataclass(frozen=True)
class Limits:
    """What a file may cost: seconds, bytes of memory beyond the warm worker's, bytes written."""

    seconds: float
    growth: int
    disk: int


@dataclass
class Verdict:
    """What became of a case.

    Attributes:
        case: which.
        outcome: see the module.
        code: of the error or of the first reason.
        detail: in words.
        seconds: of work.
        growth: most memory beyond what the worker held when it was warm, in bytes.
    """

    case: Case
    outcome: str
    code: str = ""
    detail: str = ""
    seconds: float = 0.0
    growth: int = 0


@dataclass
class Tally:
    """What became of all cases of one kind."""

    verdicts: list[Verdict] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)


class Worker:
    """A process that tries cases, and its memory when it was warm.

    Args:
        kind: of trial.
        folder: to work in.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.log = folder / f"stderr-{time.time_ns()}.txt"
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, kind, folder, self.log), daemon=True)
        self._process.start()
        theirs.close()
        if not self._pipe.poll(300):
            raise SystemExit("a worker does not become ready")
        self._pipe.recv()
        self._about = psutil.Process(self._process.pid)
        self.warm = self.held()
        self._read = 0

    def held(self) -> int:
        """Bytes of memory that it holds now."""
        return int(self._about.memory_info().rss)

    def try_case(self, case: Case, limits: Limits) -> Verdict:
        """Let it try a case under limits; it is killed when it exceeds one."""
        began, most = time.monotonic(), 0
        written = self._about.io_counters().write_bytes
        self._pipe.send(case)
        while not self._pipe.poll(LOOK):
            spent = time.monotonic() - began
            try:
                most = max(most, self.held())
                disk = self._about.io_counters().write_bytes - written
            except psutil.Error:
                disk = 0
            exceeded = [
                what
                for what, over in (
                    ("died", not self._process.is_alive() and not self._pipe.poll()),
                    ("hang", spent > limits.seconds + LASTING * case.lasts),
                    ("memory", most - self.warm > limits.growth),
                    ("disk", disk > limits.disk),
                )
                if over
            ]
            if exceeded:
                return self._stopped(case, exceeded[0], spent, most)
        try:
            outcome, code, detail = self._pipe.recv()
        except EOFError:
            return self._stopped(case, "died", time.monotonic() - began, most)
        seconds, growth = time.monotonic() - began, max(0, most - self.warm)
        if self._said() and outcome not in FAULTS:
            outcome, detail = "traceback", self.log.read_text("utf-8", "replace")[-3000:]
        return Verdict(case, outcome, code, detail, seconds, growth)

    def _stopped(self, case: Case, what: str, spent: float, most: int) -> Verdict:
        self.close()
        detail = f"exit code {self._process.exitcode}" if what == "died" else ""
        return Verdict(case, what, "", detail, spent, max(0, most - self.warm))

    def _said(self) -> bool:
        """Whether it has written a traceback since it was last asked."""
        with self.log.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        self._read += len(new)
        return b"Traceback (most recent call last)" in new

    @property
    def alive(self) -> bool:
        """Whether it can try another case."""
        return self._process.is_alive()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(pipe: Any, kind: str, folder: Path, log: Path) -> None:
    """The life of a worker."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 2)
    trial = TRIALS[kind](folder)
    pipe.send(None)
    while True:
        pipe.send(trial.attempt(pipe.recv()))


def run(kind: str, seed: int, files: int, whole: float, limits: Limits, folder: Path) -> Iterator[tuple[Verdict, int]]:
    """Try the cases of a kind; gives each verdict, and what the worker holds afterwards beyond its warm memory."""
    worker: Worker | None = None
    for case in TRIALS[kind].cases(Random(f"{seed} {kind}"), files, whole, folder):
        if worker is None or not worker.alive:
            worker = Worker(kind, folder)
        verdict = worker.try_case(case, limits)
        yield verdict, worker.held() - worker.warm if worker.alive else 0
        if verdict.outcome in ("ok", "degraded", "refused"):
            with suppress(OSError):
                shutil.rmtree(case.path) if Path(case.path).is_dir() else Path(case.path).unlink()
    if worker is not None and worker.alive:
        worker.close()


def show(kind: str, seed: int, tally: Tally) -> int:
    """Print a table of outcomes; returns the number of faults."""
    verdicts = tally.verdicts
    counts = Counter(verdict.outcome for verdict in verdicts)
    print(
        f"{kind}, seed {seed}: {len(verdicts)} files, {sum(v.case.whole for v in verdicts)} through the whole command"
    )
    print("  " + ", ".join(f"{name} {counts[name]}" for name in ("ok", "degraded", "refused")))
    print("  faults: " + ", ".join(f"{name} {counts[name]}" for name in FAULTS))
    slowest, largest = max(v.seconds for v in verdicts), max(v.growth for v in verdicts)
    print(
        f"  {sum(v.seconds for v in verdicts):.0f} s, slowest {slowest:.1f} s; memory: most {largest / MIB:.0f} MiB "
        f"beyond the warm worker, {tally.kept[-1] / MIB:.0f} MiB kept at the end"
    )
    codes = Counter(v.code for v in verdicts if v.code)
    print("  codes: " + ", ".join(f"{code} {times}" for code, times in codes.most_common()))
    for verdict in verdicts:
        if verdict.outcome in FAULTS:
            print(
                f"  {verdict.outcome}: {verdict.case.kind} {verdict.case.path}: {verdict.code} {verdict.detail[-300:]}"
            )
    sys.stdout.flush()
    return sum(counts[name] for name in FAULTS)


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    parser.add_argument("--files", type=int, default=200, help="Of each kind and seed.")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--whole", type=float, default=0.2, help="Share of the media that runs the whole command.")
    parser.add_argument("--seconds", type=float, default=60, help="Limit of time for one file.")
    parser.add_argument("--growth", type=int, default=600, help="Limit of memory beyond the warm worker's, in MiB.")
    parser.add_argument("--disk", type=int, default=1000, help="Limit of bytes written for one file, in MiB.")
    parser.add_argument("--work", type=Path, help="Folder to work in, left behind with the files that were faults.")
    parser.add_argument("--log", type=Path, help="JSON lines of every verdict.")
    return parser.parse_args(words)


def main() -> None:
    options = arguments()
    limits = Limits(options.seconds, options.growth * MIB, options.disk * MIB)
    faults = 0
    with tempfile.TemporaryDirectory(prefix="hostile-", ignore_cleanup_errors=True) as temporary:
        for seed in options.seed:
            for kind in options.kinds:
                folder = (options.work or Path(temporary)) / f"{kind}-{seed}"
                folder.mkdir(parents=True, exist_ok=True)
                tally = Tally()
                for verdict, kept in run(kind, seed, options.files, options.whole, limits, folder):
                    tally.verdicts.append(verdict)
                    tally.kept.append(kept)
                    if options.log:
                        with options.log.open("a", encoding="utf-8") as file:
                            file.write(json.dumps(asdict(verdict), default=str) + "\n")
                faults += show(kind, seed, tally)
    raise SystemExit(faults > 0)


if __name__ == "__main__":
    main()
