"""A pool of processes on this machine."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import connection, get_context, parent_process
from typing import Any, ClassVar, Final

from emopipe.errors import EmopipeError, OutOfMemory, WorkerDied
from emopipe.pipeline.execution.engine import THREADS, Death, Message, Pool, RemoteWorker, Started, paced
from emopipe.pipeline.execution.plan import Job, Task
from emopipe.pipeline.execution.worker import Worker

#: Between two looks at the workers' memory, in seconds.
_LOOK: Final = 0.5


class Processes(Pool):
    """A pool of processes that load extractors and model once each.

    A process that dies costs nothing but the stage that it was at: its task is tried again when all others are done,
    by a worker that is alone, and fails with a reason when that one dies, too.

    Args:
        jobs: how many.
        threads: of each.
        memory: bytes that all together may take; one that exceeds its share is stopped, and its task treated as if it
            had died. None for no limit.
    """

    retry_alone: ClassVar[bool] = True
    first_starts: ClassVar[int] = 1

    def __init__(self, jobs: int, *, threads: int = 1, memory: int | None = None) -> None:
        super().__init__(jobs)
        self._threads = threads
        self._memory = memory

    def prepare(self, job: Job) -> Job:
        """The job with the threads that a worker may use."""
        return replace(job, threads=self._threads)

    def room(self, kind: str) -> int:
        """As many as were asked for."""
        return self.jobs

    def hire(self, job: Job, kind: str) -> RemoteWorker:
        """Start a process."""
        return _Process(job)

    def messages(self) -> Iterator[tuple[RemoteWorker, Message]]:
        """What processes have to say; waits a little for one."""
        pipes = {worker.pipe: worker for worker in self._processes()}
        for pipe in connection.wait(list(pipes), timeout=_LOOK):
            worker = pipes[pipe]  # type: ignore[index]
            if worker in self.workers:
                yield worker, worker.receive()

    def watch(self) -> None:
        """Stop processes that take more memory than their share."""
        if self._memory is not None:
            alone = any(worker.assignment is not None and worker.assignment.lost for worker in self.workers)
            for worker in self._processes():
                worker.limit(self._memory // (1 if alone else self.jobs))

    def _processes(self) -> list[_Process]:
        return [worker for worker in self.workers if isinstance(worker, _Process)]


class _Process(RemoteWorker):
    """A worker process."""

    def __init__(self, job: Job) -> None:
        super().__init__("CPU")
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        with _environment({name: str(job.threads) for name in THREADS}), _without_main():
            self._process = context.Process(target=_serve, args=(theirs, job), daemon=True)
            self._process.start()
        theirs.close()
        self._exceeded = 0

    def perform(self, task: Task) -> None:
        """See :class:`RemoteWorker`."""
        with suppress(OSError):  # it has died, which the next message tells
            self.pipe.send(task)

    def next_message(self) -> Message:
        """See :class:`RemoteWorker`."""
        try:
            message: Message = self.pipe.recv()
        except (EOFError, OSError):
            return Death()
        return message

    def failure(self, death: Death) -> EmopipeError:
        """See :class:`RemoteWorker`."""
        self._process.join()
        code = self._process.exitcode or 0
        path = None if self.assignment is None else self.assignment.task.source.path
        if self._exceeded:
            what = f"stage {self.stage} took {self._exceeded / 1e9:.1f} GB, more than a worker may have"
            return OutOfMemory(what, path=path, hint="Raise --limit-memory, or lower --jobs")
        how = f"was killed by signal {-code} ({_signal_name(-code)})" if code < 0 else f"ended with exit code {code}"
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
        """See :class:`RemoteWorker`."""
        with suppress(OSError):
            self.pipe.send(None)
        self._process.join(5)
        self.kill()

    def kill(self) -> None:
        """See :class:`RemoteWorker`."""
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
                pipe.send(Started())
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


def _signal_name(number: int) -> str:
    names = {one.value: one.name for one in signal.Signals}
    return names.get(number, "unknown")
