"""Engines do the tasks of a job: one worker in this process, or a pool of workers elsewhere.

An engine takes plain tasks and gives outcomes as they come. Pools of processes and of a Ray cluster share one way to
hand out tasks and to try again what was lost with a worker; see :class:`Pool`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final, Protocol

from emopipe.errors import EmopipeError
from emopipe.pipeline.execution.plan import Job, Task
from emopipe.pipeline.execution.worker import Outcome, Worker
from emopipe.pipeline.progress import Event, Hook, silent

#: What a worker with all models takes, in bytes; see `benchmarks/long_video.py`.
WORKER_BYTES: Final = 2 << 30
#: Settings by which numerical libraries are told how many threads to use.
THREADS: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
#: A task whose worker has died so many times has failed.
TRIALS: Final = 2
#: After so long without a worker it is told what is waited for, in seconds.
_PATIENCE: Final = 30.0
#: Between two messages of a worker about the progress of one stage, in seconds.
_PACE: Final = 0.2


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


@dataclass
class Assignment:
    """A task on its way through workers.

    Attributes:
        task: the whole.
        steps: what is left of it: kinds of worker, and what each shall do.
        computed: stage -> seconds, of the steps that are done.
        began: when the first of them began, of `time.perf_counter`.
        lost: how often a worker died while it was at it.
    """

    task: Task
    steps: list[tuple[str, Task]]
    computed: dict[str, float] = field(default_factory=dict)
    began: float = 0.0
    lost: int = 0

    @property
    def kind(self) -> str:
        """The kind of worker that the next step needs."""
        return self.steps[0][0]

    def outcome(self, of_last_step: Outcome) -> Outcome:
        """What became of the whole task, from what became of its last step."""
        computed = {**self.computed, **of_last_step.computed}
        return replace(of_last_step, computed=computed, seconds=time.perf_counter() - self.began)


@dataclass(frozen=True)
class Started:
    """A worker is ready for tasks, on a machine."""

    machine: str = ""


@dataclass(frozen=True)
class Death:
    """A worker has died.

    Attributes:
        cause: in words, "" when nobody knows.
        out_of_memory: the machine's memory ran out.
    """

    cause: str = ""
    out_of_memory: bool = False


#: What a worker says: it is ready, how it gets on, what became of its task, what stops every task, that it has died.
Message = Started | Event | Outcome | EmopipeError | Death


class RemoteWorker(ABC):
    """A worker outside this process, and what it is at.

    Args:
        kind: of worker; see :meth:`Pool.kinds`.

    Attributes:
        assignment: what it is at; None when it waits.
        stage: of the assignment.
        started: it is, or was, ready for tasks.
        used: it was given a task.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.assignment: Assignment | None = None
        self.stage = "worker"
        self.started = False
        self.used = False

    @property
    def idle(self) -> bool:
        """Whether it waits for a task."""
        return self.started and self.assignment is None

    def send(self, assignment: Assignment) -> None:
        """Let it do the next step of a task."""
        self.assignment, self.stage, self.used = assignment, "worker", True
        self.perform(assignment.steps[0][1])

    def receive(self) -> Message:
        """The next message; what it tells of the worker is noted."""
        message = self.next_message()
        if not isinstance(message, Death):
            self.started = True
        if isinstance(message, Event) and message.kind == "start":
            self.stage = message.name
        return message

    @abstractmethod
    def perform(self, task: Task) -> None:
        """Hand it a task."""

    @abstractmethod
    def next_message(self) -> Message:
        """What it says next."""

    @abstractmethod
    def failure(self, death: Death) -> EmopipeError:
        """Why the task of a worker that died has failed."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once."""

    def dismiss(self) -> None:
        """Let it end by itself, if it can."""
        self.kill()


class Pool(ABC):
    """Hands out tasks to workers, and tries again once what was lost with a worker that died.

    Args:
        jobs: workers at a time.

    Attributes:
        retry_alone: what was lost is tried again by a fresh worker when nobody else works, since memory may have been
            the reason.
        first_starts, later_starts: so many workers may die one after the other before they are ready: before any has
            been, and afterwards.
        lacking: what is told when no worker is there for a while.
    """

    retry_alone: ClassVar[bool] = False
    first_starts: ClassVar[int] = 3
    later_starts: ClassVar[int] = 3
    lacking: ClassVar[str] = "waiting for a worker"

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.workers: list[RemoteWorker] = []
        self._never_started = 0
        self._any_started = False

    def run(self, job: Job, tasks: Sequence[Task], hook: Hook = silent) -> Iterator[tuple[Task, Outcome]]:
        """See :class:`Engine`."""
        job = self.prepare(job)
        waiting: Waiting = {kind: deque() for kind in self.kinds()}
        for assignment in [Assignment(task, self.steps(job, task)) for task in tasks]:
            waiting[assignment.kind].append(assignment)
        left, last_message = len(tasks), time.monotonic()
        try:
            while left:
                self._hire(job, waiting)
                self._assign(waiting, hook)
                for worker, message in self.messages():
                    last_message = time.monotonic()
                    done = self._settle(worker, message, waiting, hook)
                    if done is not None:
                        left -= 1
                        yield done
                        last_message = time.monotonic()  # what became of the task may have been worked on meanwhile
                        self._assign(waiting, hook)
                self.watch()
                if time.monotonic() - last_message > _PATIENCE and all(one.assignment is None for one in self.workers):
                    last_message = time.monotonic()
                    hook(Event("info", "workers", self.lacking))
        except BaseException:
            self.close()
            raise

    def renew(self) -> None:
        """See :class:`Engine`."""
        for worker in self.workers:
            worker.dismiss()
        self.workers = []

    def close(self) -> None:
        """See :class:`Engine`."""
        for worker in self.workers:
            worker.kill()
        self.workers = []

    # What differs between pools

    def prepare(self, job: Job) -> Job:
        """The job as workers are handed it."""
        return job

    def kinds(self) -> Sequence[str]:
        """The kinds of worker."""
        return ("CPU",)

    def steps(self, job: Job, task: Task) -> list[tuple[str, Task]]:
        """The parts of a task, and the kind of worker for each."""
        return [("CPU", task)]

    @abstractmethod
    def room(self, kind: str) -> int:
        """How many workers of a kind there may be."""

    @abstractmethod
    def hire(self, job: Job, kind: str) -> RemoteWorker:
        """Start a worker."""

    @abstractmethod
    def messages(self) -> Iterator[tuple[RemoteWorker, Message]]:
        """What workers have to say; waits a little for one."""

    def watch(self) -> None:  # noqa: B027
        """Look after the workers between messages; by default there is nothing to do."""

    # What they share

    def _hire(self, job: Job, waiting: Waiting) -> None:
        """Have workers for what is waiting, as many as there is room for; idle ones of other kinds make room."""
        for kind, assignments in waiting.items():
            if not assignments:
                continue
            for worker in [one for one in self.workers if one.idle and one.kind != kind and not waiting[one.kind]]:
                self._remove(worker)
            same_kind = [worker for worker in self.workers if worker.kind == kind]
            busy = sum(worker.assignment is not None for worker in same_kind)
            room = 1 if self._is_retry(assignments[0]) else self.room(kind)
            for _ in range(min(room, len(assignments) + busy) - len(same_kind)):
                self.workers.append(self.hire(job, kind))

    def _is_retry(self, assignment: Assignment) -> bool:
        return self.retry_alone and assignment.lost > 0

    def _assign(self, waiting: Waiting, hook: Hook) -> None:
        """Give idle workers what is waiting."""
        for worker in list(self.workers):
            if not worker.idle or not waiting[worker.kind]:
                continue
            if self._is_retry(waiting[worker.kind][0]) and not self._is_fresh_and_alone(worker):
                if all(one.assignment is None for one in self.workers):
                    self.renew()
                return
            assignment = waiting[worker.kind].popleft()
            if not assignment.began:
                assignment.began = time.perf_counter()
                hook(Event("start", "file", source=assignment.task.source.id))
            if self._is_retry(assignment):
                what = "trying again without other workers"
                hook(Event("info", "retry", what, source=assignment.task.source.id))
            worker.send(assignment)

    def _is_fresh_and_alone(self, worker: RemoteWorker) -> bool:
        return self.workers == [worker] and not worker.used

    def _settle(
        self, worker: RemoteWorker, message: Message, waiting: Waiting, hook: Hook
    ) -> tuple[Task, Outcome] | None:
        """What a message means for a task: its outcome when it has ended, else None.

        Raises:
            EmopipeError: what stops every task.
        """
        if isinstance(message, Event):
            hook(message)
        elif isinstance(message, EmopipeError):
            raise message
        elif isinstance(message, Death):
            return self._after_death(worker, message, waiting, hook)
        elif isinstance(message, Started):
            self._any_started, self._never_started = True, 0
        elif worker.assignment is not None:
            assignment, worker.assignment = worker.assignment, None
            if message.error is None and len(assignment.steps) > 1:
                assignment.computed |= message.computed
                assignment.steps = assignment.steps[1:]
                waiting[assignment.kind].appendleft(assignment)
                return None
            return self._ended(assignment, message, hook)
        return None

    def _ended(self, assignment: Assignment, outcome: Outcome, hook: Hook) -> tuple[Task, Outcome]:
        full_outcome = assignment.outcome(outcome)
        hook(Event("end", "file", source=assignment.task.source.id, seconds=full_outcome.seconds))
        return assignment.task, full_outcome

    def _after_death(
        self, worker: RemoteWorker, death: Death, waiting: Waiting, hook: Hook
    ) -> tuple[Task, Outcome] | None:
        """Forget a worker that died; its task is done again after all others, or has failed.

        Raises:
            EmopipeError: when no worker comes so far as to ask for a task.
        """
        error, assignment = worker.failure(death), worker.assignment
        self._remove(worker)
        if not worker.started:
            self._never_started += 1
            if self._never_started >= (self.later_starts if self._any_started else self.first_starts):
                raise error
        if assignment is None:
            return None
        assignment.lost += 1
        source = assignment.task.source
        if assignment.lost < TRIALS:
            what = f"{error.what}; it is tried again at the end"
            hook(Event("warning", worker.stage, what, source=source.id))
            waiting[assignment.kind].append(assignment)
            return None
        return self._ended(assignment, Outcome(error.changed(path=source.path)), hook)

    def _remove(self, worker: RemoteWorker) -> None:
        worker.kill()
        self.workers.remove(worker)


Waiting = Mapping[str, deque[Assignment]]


def paced(send: Callable[[Event], None]) -> Hook:
    """A hook that sends events on, progress not too often."""
    sent: dict[str, float] = {}

    def hook(event: Event) -> None:
        now = time.monotonic()
        if event.kind != "progress" or now - sent.get(event.name, 0.0) > _PACE:
            sent[event.name] = now
            send(event)

    return hook
