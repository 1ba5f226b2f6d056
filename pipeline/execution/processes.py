"""Engines do the tasks of a job: one worker in this process, or a pool of processes.

An engine takes plain tasks and gives outcomes as they come; an engine for many machines has the same three methods.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import connection, get_context, parent_process
from typing import Any, Final, Protocol

from emopipe.errors import EmopipeError, OutOfMemory, WorkerDied
from emopipe.pipeline.execution.plan import Job, Task
from emopipe.pipeline.execution.worker import Outcome, Worker
from emopipe.pipeline.progress import Event, Hook, silent

#: What a worker with all models takes, in bytes; see `benchmarks/long_video.py`.
WORKER_BYTES: Final = 2 << 30
#: Between two looks at the workers' memory, in seconds.
_LOOK: Final = 0.5
#: Between two messages of a worker about the progress of one stage, in seconds.
_PACE: Final = 0.2
#: Settings by which numerical libraries are told how many threads to use.
THREADS: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class Engine(Protocol):
    """Does tasks.

    Attributes:
        jobs: how many at a time.
    """

    jobs: int

    def run(self, job: Job, tasks: Sequence[Task], hook: Hook = silent) -> Iterator[tuple[Task, Outcome]]:
        """Do the tasks, beginning in their order; outcomes come in the order in which they are ready.

        Raises:
            EmopipeError: what would befall every task: a missing weight, features of another kind, no workers.
        """

    def renew(self) -> None:
        """Free the models that workers have loaded."""

    def close(self) -> None:
        """End the workers."""


class Here:
    """One worker in this process.

    Args:
        debug: let the failure of a task through.
    """

    def __init__(self, *, debug: bool = False) -> None:
        self.jobs = 1
        self._debug = debug
        self._worker: Worker | None = None

    def run(self, job: Job, tasks: Sequence[Task], hook: Hook = silent) -> Iterator[tuple[Task, Outcome]]:
        """See :class:`Engine`."""
        if self._worker is None or self._worker.job != job:
            self.renew()
            self._worker = Worker(job, hook, debug=self._debug)
        for task in tasks:
            hook(Event("start", "file", source=task.source.id))
            outcome = self._worker.perform(task)
            hook(Event("end", "file", source=task.source.id, seconds=outcome.seconds))
            yield task, outcome

    def renew(self) -> None:
        """See :class:`Engine`."""
        if self._worker is not None:
            self._worker.__exit__()
        self._worker = None

    close = renew


class Processes:
    """A pool of processes that load extractors and model once each.

    A process that dies costs nothing but the stage that it was at: its task is tried again when all others are done,
    by a worker that is alone, and fails with a reason when that one dies, too.

    Args:
        jobs: how many.
        threads: of each.
        memory: bytes that all together may take; one that exceeds its share is stopped, and its task treated as if it
            had died. None for no limit.
    """

    def __init__(self, jobs: int, *, threads: int = 1, memory: int | None = None) -> None:
        self.jobs = jobs
        self._threads = threads
        self._memory = memory
        self._workers: list[_Process] = []
        self._started = False

    def run(self, job: Job, tasks: Sequence[Task], hook: Hook = silent) -> Iterator[tuple[Task, Outcome]]:
        """See :class:`Engine`."""
        job = replace(job, threads=self._threads)
        fallen: list[Task] = []
        try:
            yield from self._drain(job, tasks, self.jobs, hook, fallen)
            for task in fallen:
                self.renew()
                hook(Event("info", "retry", "trying again without other workers", source=task.source.id))
                yield from self._drain(job, [task], 1, hook, None)
        except BaseException:
            self.close()
            raise

    def renew(self) -> None:
        """See :class:`Engine`."""
        for worker in self._workers:
            worker.dismiss()
        self._workers = []

    def close(self) -> None:
        """See :class:`Engine`."""
        for worker in self._workers:
            worker.kill()
        self._workers = []

    def _drain(
        self, job: Job, tasks: Sequence[Task], jobs: int, hook: Hook, fallen: list[Task] | None
    ) -> Iterator[tuple[Task, Outcome]]:
        """Do the tasks; those whose worker died are added to `fallen`, or fail where that is None."""
        waiting = deque(tasks)
        while waiting or any(worker.task for worker in self._workers):
            self._assign(job, waiting, jobs, hook)
            for worker in self._ready():
                message = worker.receive()
                if isinstance(message, Event):
                    hook(message)
                elif isinstance(message, EmopipeError):
                    raise message
                elif isinstance(message, Outcome) and worker.task is not None:
                    task, worker.task = worker.task, None
                    self._assign(job, waiting, jobs, hook)
                    hook(Event("end", "file", source=task.source.id, seconds=message.seconds))
                    yield task, message
                elif message is None:
                    lost = self._bury(worker)
                    if lost is not None and fallen is not None:
                        fallen.append(lost[0])
                        what = f"{lost[1].what}; it is tried again at the end"
                        hook(Event("warning", worker.stage, what, source=lost[0].source.id))
                    elif lost is not None:
                        yield lost[0], Outcome(lost[1], seconds=time.perf_counter() - worker.began)
            self._watch_memory(jobs)

    def _assign(self, job: Job, waiting: deque[Task], jobs: int, hook: Hook) -> None:
        """Give every idle worker a task, and start workers while there are tasks for them."""
        idle = [worker for worker in self._workers if worker.task is None]
        while waiting and (idle or len(self._workers) < jobs):
            if not idle:
                idle.append(_Process(job))
                self._workers += idle
            task = waiting.popleft()
            idle.pop().send(task)
            hook(Event("start", "file", source=task.source.id))

    def _ready(self) -> list[_Process]:
        """The workers that have something to say; waits a little for one."""
        talking = connection.wait([worker.pipe for worker in self._workers], timeout=_LOOK)
        return [worker for worker in self._workers if worker.pipe in talking]

    def _bury(self, worker: _Process) -> tuple[Task, EmopipeError] | None:
        """Forget a process that died; returns the task that was lost with it, and why.

        Raises:
            WorkerDied: when it died before any worker had started: then none will.
        """
        self._workers.remove(worker)
        error = worker.cause_of_death()
        self._started |= worker.started
        if not self._started:
            raise error
        return None if worker.task is None else (worker.task, error)

    def _watch_memory(self, jobs: int) -> None:
        if self._memory is None:
            return
        for worker in self._workers:
            worker.limit(self._memory // jobs)


class _Process:
    """A worker process, and what it is at."""

    def __init__(self, job: Job) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        with _environment({name: str(job.threads) for name in THREADS}), _without_main():
            self._process = context.Process(target=_serve, args=(theirs, job), daemon=True)
            self._process.start()
        theirs.close()
        self.task: Task | None = None
        self.stage = "worker"
        self.began = 0.0
        self.started = False
        self._exceeded = 0

    def send(self, task: Task) -> None:
        self.task, self.began, self.stage = task, time.perf_counter(), "worker"
        with suppress(OSError):  # it has died, which the next receive() tells
            self.pipe.send(task)

    def receive(self) -> Any:
        """The next message; None when the process has died."""
        try:
            message = self.pipe.recv()
        except (EOFError, OSError):
            return None
        self.started = True
        if isinstance(message, Event) and message.kind == "start":
            self.stage = message.name
        return message

    def cause_of_death(self) -> EmopipeError:
        """Why the process ended, as the failure of its task."""
        self._process.join()
        code = self._process.exitcode or 0
        path = None if self.task is None else self.task.source.path
        if self._exceeded:
            what = f"stage {self.stage} took {self._exceeded / 1e9:.1f} GB, more than a worker may have"
            return OutOfMemory(what, path=path, hint="Raise --limit-memory, or lower --jobs")
        how = f"was killed by signal {-code} ({_signal(-code)})" if code < 0 else f"ended with exit code {code}"
        hint = "If memory ran out (the system's log tells), lower --jobs or close other programs, and --retry-failed"
        return WorkerDied(f"the worker process {how} in stage {self.stage}", path=path, hint=hint)

    def limit(self, most: int) -> None:
        """Stop the process when it holds more bytes than it may."""
        import psutil

        with suppress(psutil.Error):
            held = psutil.Process(self._process.pid).memory_info().rss
            if held > most and not self._exceeded:
                self._exceeded = held
                self._process.kill()

    def dismiss(self) -> None:
        """Let it end by itself."""
        with suppress(OSError):
            self.pipe.send(None)
        self._process.join(5)
        self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _serve(pipe: connection.Connection, job: Job) -> None:
    """The life of a worker process: take tasks, send events and outcomes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with suppress(EOFError, OSError):  # the parent is gone
        try:
            with Worker(job, paced(pipe.send)) as worker:
                pipe.send("started")
                while (task := pipe.recv()) is not None:
                    pipe.send(worker.perform(task))
        except EmopipeError as error:
            pipe.send(error)
            pipe.recv()


def _die_with_parent() -> None:
    """What a killed parent asked for is wanted by nobody."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def paced(send: Callable[[Event], None]) -> Hook:
    """A hook that sends events on, progress not too often."""
    told: dict[str, float] = {}

    def hook(event: Event) -> None:
        now = time.monotonic()
        if event.kind != "progress" or now - told.get(event.name, 0.0) > _PACE:
            told[event.name] = now
            send(event)

    return hook


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Environment variables for processes that are started within."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _without_main() -> Iterator[None]:
    """Processes that are started within do not run the user's script again, which then needs no guard against it."""
    main: dict[str, Any] = sys.modules["__main__"].__dict__
    hidden: dict[str, Any] = {name: main.pop(name) for name in ("__file__", "__spec__") if name in main}
    main["__spec__"] = None
    try:
        yield
    finally:
        del main["__spec__"]
        main.update(hidden)


def _signal(number: int) -> str:
    names = {one.value: one.name for one in signal.Signals}
    return names.get(number, "unknown")
