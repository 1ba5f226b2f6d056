"""How a worker of `hostile.py` tries a file of each kind, and how it judges what emopipe says of it."""

from __future__ import annotations

import math
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final, Protocol

from emopipe.errors import EmopipeError
from emopipe.pipeline.execution.batch import find_inputs, run_files
from emopipe.pipeline.execution.engine import Here
from emopipe.pipeline.execution.jobs import prediction_job
from emopipe.pipeline.execution.plan import Task
from emopipe.pipeline.records import FileResult, Source
from emopipe.pipeline.store.store import Store

MODEL: Final = "emopipe-default"
#: What is done with every media file, whole or not.
MEASURED: Final = ("probe", "face", "speech")
#: Outcome, code, detail.
Judgement = tuple[str, str, str]


@dataclass(frozen=True)
class Case:
    """A hostile file.

    Attributes:
        kind: how it was made.
        path: where it lies.
        whole: it goes through the whole command.
        evidence: somebody may be seen or heard in it.
        lasts: seconds that it truly lasts.
    """

    kind: str
    path: str
    whole: bool = True
    evidence: bool = True
    lasts: float = 0.0


class Trial(Protocol):
    """One kind of file: makes cases in the parent, tries them in a worker that has loaded what it needs."""

    def __init__(self, folder: Path) -> None: ...

    @staticmethod
    def cases(rng: Random, files: int, whole: float, folder: Path) -> Iterator[Case]:
        """Make the files, one by one."""

    def attempt(self, case: Case) -> Judgement:
        """Try a file."""


def judged(attempt: Callable[[], Judgement]) -> Judgement:
    """What became of an attempt; a coded error is a refusal, EMO-901 and everything else an internal failure."""
    try:
        return attempt()
    except EmopipeError as error:
        return of_error(error)
    except BaseException as error:
        return "internal", type(error).__name__, "".join(traceback.format_exception(error))[-3000:]


def of_error(error: EmopipeError) -> Judgement:
    """A refusal, unless the error says that something broke that should not."""
    if error.code not in ("", "EMO-901", "EMO-904"):
        return "refused", error.code, error.what
    return "internal", error.code, "".join(traceback.format_exception(error.__cause__ or error))[-3000:]


class MediaTrial:
    """Media files, by the default checkpoint and its extractors."""

    def __init__(self, folder: Path) -> None:
        from hostile_media import SAMPLES

        self._out = folder / "out"
        self._store = Store(Path(tempfile.mkdtemp(prefix="store-", dir=folder)))
        self._job = prediction_job(MODEL, self._store, device="cpu", offline=True)
        self._engine = Here()
        for sample in ("happy.mp4", "silent.mp4"):
            self.attempt(Case("sample", str(SAMPLES / sample)))

    @staticmethod
    def cases(rng: Random, files: int, whole: float, folder: Path) -> Iterator[Case]:
        """See :class:`Trial`."""
        from hostile_media import KINDS, Recordings

        recordings, kinds = Recordings(), list(KINDS)
        for number in range(files):
            if number % len(kinds) == 0:
                rng.shuffle(kinds)
            kind = kinds[number % len(kinds)]
            made = KINDS[kind](rng, recordings)
            path = folder / f"{number:04}-{kind}{made.suffix}"
            path.write_bytes(made.data)
            yield Case(kind, str(path), not made.evidence or rng.random() < whole, made.evidence, made.lasts)

    def attempt(self, case: Case) -> Judgement:
        """See :class:`Trial`."""
        return judged(lambda: self._whole(case) if case.whole else self._measured(case))

    def _measured(self, case: Case) -> Judgement:
        source = Source(case.path, media=Path(case.path))
        ((_, outcome),) = self._engine.run(self._job, [Task(source, MEASURED)])
        return ("ok", "", "") if outcome.error is None else of_error(outcome.error)

    def _whole(self, case: Case) -> Judgement:
        inputs = find_inputs([Path(case.path)])
        (result,) = run_files(inputs, self._job, self._out, self._engine)
        return of_result(result, evidence=case.evidence)


def of_result(result: FileResult, *, evidence: bool = True) -> Judgement:
    """Judge the result of a file: every state but ok has a reason, and every prediction something to go by."""
    first = result.reasons[0] if result.reasons else None
    code, what = (first.code, first.what) if first is not None else ("", "")
    if code in ("EMO-901", "EMO-904"):
        return "internal", code, what
    if result.state != "ok" and not code:
        return "no reason", "", result.state
    fault = unfounded(result, evidence)
    if fault:
        return "unfounded", code, fault
    return ("refused" if result.state == "failed" else result.state), code, what


def unfounded(result: FileResult, evidence: bool) -> str:
    """What a result says that it cannot know; "" when there is nothing."""
    for one in result.utterances:
        predicted = one.label is not None or one.value is not None
        present = set(one.weights)
        if predicted and (not evidence or not present or present & set(one.absent)):
            return f"{one.start:.1f} to {one.end:.1f} s: {one.label} from {sorted(present)}, absent {dict(one.absent)}"
        numbers = [one.start, one.end, *one.probabilities.values(), *one.weights.values(), *one.quality.values()]
        if not all(math.isfinite(number) for number in numbers) or not 0 <= one.start <= one.end:
            return f"numbers that cannot be: {numbers}"
        if one.end > (result.duration or 0.0) + 1.0:
            return f"an utterance at {one.end:.1f} s of {result.duration} s"
    return ""
