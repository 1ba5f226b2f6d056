"""An engine of many machines: a Ray cluster.

What crosses the wire is tasks (paths and times), events, and outcomes. Media are read, and results kept, by each
machine for itself in folders that all of them see.
"""

from __future__ import annotations

import logging
import os
import platform
import socket
import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final

from emopipe.errors import (
    ClusterUnavailable,
    DeviceUnavailable,
    EmopipeError,
    LibraryMissing,
    OutOfMemory,
    StageFailure,
    WorkerDied,
)
from emopipe.pipeline.backends.loading import works_on_gpu
from emopipe.pipeline.execution.plan import Job, Task, results
from emopipe.pipeline.execution.processes import THREADS, WORKER_BYTES, paced
from emopipe.pipeline.execution.worker import Outcome, Worker
from emopipe.pipeline.progress import Event, Hook, silent
from emopipe.pipeline.records import Source
from emopipe.pipeline.stages.stage import AnyStage, input_names
from emopipe.pipeline.stages.table import Given
from emopipe.pipeline.store.store import Store

#: What a worker asks of its machine, by what it is for. Those on a GPU take no CPU for themselves: they must not wait
#: for the others to end.
_RESOURCES: Final[Mapping[str, Mapping[str, float]]] = {
    "GPU": {"num_cpus": 0, "num_gpus": 1},
    "CPU": {"num_cpus": 1, "num_gpus": 0},
}
#: A task whose worker has died so many times has failed.
_TRIALS: Final = 2
#: Workers that may die one after the other before their first task.
_STILLBORN: Final = 3
#: Between two looks at the cluster, in seconds.
_LOOK: Final = 0.5
#: After so long without a worker it is told what is waited for, in seconds.
_PATIENCE: Final = 30.0
#: To connect to the cluster's head, in seconds.
_CONNECT: Final = 5.0
#: Settings of this process that hold for its workers, too.
_SETTINGS: Final = "EMOPIPE_"
_START: Final = (
    "Start one by `ray start --head` on one machine and `ray start --address=HOST:6379` on the others, and run emopipe "
    "on one of them"
)
_SEE: Final = "Put inputs, checkpoint and --store into a folder that all machines see under the same path"

Message = Event | Outcome | EmopipeError


class Ray:
    """Workers on the machines of a Ray cluster: one per core, or per GPU for what a GPU does.

    A worker that dies, or a machine that goes, costs nothing but the stage that it was at: another one does the task
    again, which fails with a reason when that one dies, too. Machines that join are put to work.

    Args:
        address: HOST:PORT of the cluster's head, or "auto" for the cluster that this machine is part of.
        jobs: how many workers at most; None: as many as there is room for.

    Raises:
        LibraryMissing: when Ray is not installed, ClusterUnavailable when the cluster cannot be reached or has no room.
    """

    def __init__(self, address: str = "auto", *, jobs: int | None = None) -> None:
        self._ray, self._connected = _connect(address)
        self._most = jobs
        self._workers: list[_Member] = []
        self._job: Job | None = None
        self._seal: Mapping[str, Any] = {}
        self._stillborn = 0
        self._room = _Room(self._ray)
        self.jobs = min(self._room.of("CPU"), jobs or self._room.of("CPU"))
        if self.jobs < 1:
            self.close()
            what = f"no machine of the Ray cluster has a CPU and {WORKER_BYTES / 2**30:.0f} GiB of memory for a worker"
            raise ClusterUnavailable(what, hint="`ray status` shows what there is; let another machine join")

    def run(self, job: Job, tasks: Sequence[Task], hook: Hook = silent) -> Iterator[tuple[Task, Outcome]]:
        """See :class:`emopipe.pipeline.execution.processes.Engine`."""
        job = replace(job, threads=1)
        if job != self._job:
            self.renew()
            self._job, self._seal = job, _seal(job)
        gpus = job.device != "cpu" and self._room.of("GPU") > 0
        if job.device == "cuda" and not gpus:
            raise DeviceUnavailable("no machine of the Ray cluster has a GPU", hint="Use --device auto")
        errands = [_Errand(task, _steps(job, task, gpus)) for task in tasks]
        waiting: dict[str, deque[_Errand]] = {kind: deque() for kind in _RESOURCES}
        for errand in errands:
            waiting[errand.kind].append(errand)
        left, idle_since = len(errands), time.monotonic()
        try:
            while left:
                self._staff(waiting)
                self._assign(waiting, hook)
                for worker, message in self._messages():
                    idle_since = time.monotonic()
                    if isinstance(message, Event):
                        hook(message)
                    elif (done := self._settle(worker, message, waiting, hook)) is not None:
                        left -= 1
                        yield done
                if time.monotonic() - idle_since > _PATIENCE and not any(w.errand for w in self._workers):
                    idle_since = time.monotonic()
                    hook(Event("info", "ray", "waiting for a worker: the cluster must have a free CPU and memory"))
        except BaseException:
            self.close()
            raise

    def renew(self) -> None:
        """See :class:`emopipe.pipeline.execution.processes.Engine`."""
        for worker in self._workers:
            worker.kill()
        self._workers = []

    def close(self) -> None:
        """See :class:`emopipe.pipeline.execution.processes.Engine`."""
        self.renew()
        if self._connected:
            self._ray.shutdown()
            self._connected = False

    def _staff(self, waiting: Mapping[str, Collection[_Errand]]) -> None:
        """Have workers for what is waiting, as many as there is room for; those of the other kind make room."""
        for kind, errands in waiting.items():
            if errands:
                for worker in [w for w in self._workers if w.idle and w.kind != kind and not waiting[w.kind]]:
                    self._dismiss(worker)
                own = [worker for worker in self._workers if worker.kind == kind]
                busy = sum(worker.errand is not None for worker in own)
                room = min(self._room.of(kind), len(errands) + busy) - len(own)
                if self._most is not None:
                    room = min(room, self._most - len(self._workers))
                assert self._job is not None
                self._workers += [_Member(self._ray, self._job, self._seal, kind) for _ in range(room)]

    def _assign(self, waiting: Mapping[str, deque[_Errand]], hook: Hook) -> None:
        for worker in self._workers:
            if worker.idle and waiting[worker.kind]:
                errand = waiting[worker.kind].popleft()
                if not errand.begun:
                    hook(Event("start", "file", source=errand.task.source.id))
                errand.begun = errand.begun or time.perf_counter()
                worker.send(errand)

    def _messages(self) -> Iterator[tuple[_Member, Message | _Death]]:
        """What workers have to say; waits a little for one."""
        asked = {worker.pending: worker for worker in self._workers if worker.pending is not None}
        if not asked:
            time.sleep(_LOOK)
            return
        ready, _ = self._ray.wait(list(asked), num_returns=1, timeout=_LOOK)
        if ready:  # whoever else is: a talkative worker must not keep the others from being heard
            ready, _ = self._ray.wait(list(asked), num_returns=len(asked), timeout=0)
        for pending in ready:
            if (message := asked[pending].receive()) is not None:
                yield asked[pending], message

    def _settle(
        self,
        worker: _Member,
        message: Outcome | EmopipeError | _Death,
        waiting: Mapping[str, deque[_Errand]],
        hook: Hook,
    ) -> tuple[Task, Outcome] | None:
        """What the end of a step means for its task: None when it is to be gone on with."""
        if isinstance(message, EmopipeError):
            raise message
        errand, worker.errand = worker.errand, None
        if isinstance(message, _Death):
            return self._bury(worker, message, errand, waiting, hook)
        assert errand is not None
        errand.add(message)
        if errand.steps and message.error is None:
            waiting[errand.kind].appendleft(errand)
            return None
        outcome = replace(message, computed=errand.computed, seconds=time.perf_counter() - errand.begun)
        hook(Event("end", "file", source=errand.task.source.id, seconds=outcome.seconds))
        return errand.task, outcome

    def _bury(
        self,
        worker: _Member,
        death: _Death,
        errand: _Errand | None,
        waiting: Mapping[str, deque[_Errand]],
        hook: Hook,
    ) -> tuple[Task, Outcome] | None:
        """Forget a worker that died; its task is done again after all others, or has failed.

        Raises:
            WorkerDied: when no worker comes so far as to ask for a task.
        """
        self._dismiss(worker)
        self._room.forget()
        self._stillborn = 0 if worker.started else self._stillborn + 1
        error = worker.cause_of_death(death)
        if self._stillborn >= _STILLBORN:
            raise error
        if errand is None:
            return None
        errand.lost += 1
        source = errand.task.source
        if errand.lost < _TRIALS:
            hook(Event("warning", worker.stage, f"{error.what}; it is tried again at the end", source=source.id))
            waiting[errand.kind].append(errand)
            return None
        error = error.changed(path=source.path)
        outcome = Outcome(error, computed=errand.computed, seconds=time.perf_counter() - errand.begun)
        hook(Event("end", "file", source=source.id, seconds=outcome.seconds))
        return errand.task, outcome

    def _dismiss(self, worker: _Member) -> None:
        worker.kill()
        self._workers.remove(worker)


class _Errand:
    """A task on its way: the steps that are left of it, what came of those that are done, and how often it was lost."""

    def __init__(self, task: Task, steps: list[tuple[str, Task]]) -> None:
        self.task = task
        self.steps = steps
        self.computed: dict[str, float] = {}
        self.begun = 0.0
        self.lost = 0

    @property
    def kind(self) -> str:
        """Of the worker that the next step needs."""
        return self.steps[0][0]

    def add(self, outcome: Outcome) -> None:
        """Take down what came of a step."""
        self.computed |= outcome.computed
        self.steps = self.steps[1:]


@dataclass(frozen=True)
class _Death:
    """That a worker is no more, in Ray's words."""

    told: str
    memory: bool = False


class _Member:
    """A worker as this process knows it."""

    def __init__(self, ray: Any, job: Job, seal: Mapping[str, Any], kind: str) -> None:
        settings = {name: value for name, value in os.environ.items() if name.startswith(_SETTINGS)}
        variables = {**settings, **dict.fromkeys(THREADS, str(job.threads))}
        # A worker without a GPU must not load models on one that happens to be there.
        job = job if kind == "GPU" else replace(job, device="cpu")
        options = {**_RESOURCES[kind], "memory": WORKER_BYTES, "scheduling_strategy": "SPREAD"}
        actor = ray.remote(Servant).options(**options, max_restarts=0, runtime_env={"env_vars": variables})
        self._ray = ray
        self._actor = actor.remote(job, seal, str(Path.cwd()))
        self._machine = "a machine of the cluster"
        self.kind = kind
        self.pending: Any = self._actor.start.remote()
        self.started = False
        self.errand: _Errand | None = None
        self.stage = "worker"

    @property
    def idle(self) -> bool:
        return self.pending is None

    def send(self, errand: _Errand) -> None:
        """Let it do the next step."""
        self.errand, self.stage = errand, "worker"
        self.pending = self._actor.perform.options(num_returns="streaming").remote(errand.steps[0][1])

    def receive(self) -> Message | _Death | None:
        """What it has to say; None when it has started."""
        from ray import exceptions

        try:
            message = self._ray.get(self.pending if not self.started else next(self.pending))
        except exceptions.OutOfMemoryError as error:
            return _Death(str(error), memory=True)
        except (exceptions.RayError, StopIteration) as error:
            return _Death(str(error))
        if isinstance(message, str):
            self._machine, self.started = message, True
            message = None
        elif isinstance(message, Event) and message.kind == "start":
            self.stage = message.name
        if not isinstance(message, Event):
            self.pending = None
        return message  # type: ignore[no-any-return]

    def cause_of_death(self, death: _Death) -> EmopipeError:
        """Why its task failed."""
        hint = "Run again with --retry-failed; if memory ran out (the system's log tells), let fewer work at a time"
        if death.memory:
            what = f"the memory of {self._machine} ran out in stage {self.stage}"
            return OutOfMemory(what, hint=hint)
        what = f"the worker on {self._machine} died, or the machine left the cluster, in stage {self.stage}"
        if not self.started:
            what = f"a worker died before its first task: {' '.join(death.told.split())}"
        return WorkerDied(what, hint=hint)

    def kill(self) -> None:
        with suppress(Exception):  # it, or the cluster, is gone
            self._ray.kill(self._actor)


class Servant:
    """A worker as Ray's process knows it: does its tasks in a thread, so that events can be told meanwhile.

    Args:
        job: what is wanted.
        seal: of the job, see :func:`_seal`.
        folder: that relative paths are meant from.
    """

    def __init__(self, job: Job, seal: Mapping[str, Any], folder: str) -> None:
        self._job, self._seal = job, seal
        self._tasks: SimpleQueue[Task] = SimpleQueue()
        self._messages: SimpleQueue[Message | str] = SimpleQueue()
        with suppress(OSError):  # paths may be absolute
            os.chdir(folder)

    def start(self) -> Message | str:
        """The name of the machine; an error when it is not fit for the job."""
        Thread(target=self._serve, daemon=True).start()
        return self._messages.get()

    def perform(self, task: Task) -> Iterator[Message | str]:
        """Events, and in the end the outcome."""
        self._tasks.put(task)
        message: Message | str = ""
        while not isinstance(message, Outcome | EmopipeError):
            message = self._messages.get()
            yield message

    def _serve(self) -> None:
        try:
            _check_seal(self._job, self._seal)
            with Worker(self._job, paced(self._messages.put)) as worker:
                self._messages.put(platform.node())
                while True:
                    self._messages.put(worker.perform(self._tasks.get()))
        except EmopipeError as error:
            self._messages.put(error)
        except BaseException as error:
            what = f"a worker on {platform.node()} broke: {type(error).__name__}: {error}"
            self._messages.put(StageFailure(what))


class _Room:
    """How many workers the living machines have room for."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._looked = 0.0
        self._machines: list[Mapping[str, float]] = []

    def of(self, kind: str) -> int:
        """As many of a kind as fit when there are no others."""
        if time.monotonic() - self._looked > 4 * _LOOK:
            self._looked = time.monotonic()
            self._machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return sum(int(min(one.get(kind, 0), one.get("memory", 0) // WORKER_BYTES)) for one in self._machines)

    def forget(self) -> None:
        """A machine has gone, perhaps."""
        self._looked = 0.0


def _steps(job: Job, task: Task, gpus: bool) -> list[tuple[str, Task]]:
    """The parts of a task, and the kind of worker for each: where there are GPUs, they do what only they do well."""
    light = _without_gpu(job)
    if not gpus or (task.stages and light.issuperset(task.stages)):
        return [("CPU", task)]
    first = tuple(stage.name for stage in job.stages if stage.stored and stage.name in light)
    return [("GPU", task)] if task.stages else [("CPU", replace(task, stages=first)), ("GPU", task)]


def _without_gpu(job: Job) -> frozenset[str]:
    """The stages that neither work on a GPU nor need what does."""
    given, light = {*input_names(Given)}, []

    def works_there(stage: AnyStage) -> bool:
        return job.wants(stage) and works_on_gpu(job.config, stage.backend)

    for stage in job.stages:
        if given.issuperset(stage.requires) and not works_there(stage):
            given.update(stage.provides)
            light.append(stage.name)
    return frozenset(light)


def _seal(job: Job) -> Mapping[str, Any]:
    """What all machines must agree on: which store it is, and what results are made with.

    Raises:
        ClusterUnavailable: when the store was opened for one machine only.
    """
    with Store(job.store) as store:
        if store.shared_as is None:
            hint = "Open it by Store(folder, shared=True)"
            raise ClusterUnavailable("the store is not shared with other machines", path=job.store, hint=hint)
        return {"store": store.shared_as, "facts": _facts(job)}


def _facts(job: Job) -> dict[str, Mapping[str, Any]]:
    return {name: result.facts for name, result in results(Source(""), {}, job).items()}


def _check_seal(job: Job, seal: Mapping[str, Any]) -> None:
    """Refuse a machine that would keep its results elsewhere, or measure with other libraries or weights.

    Raises:
        ClusterUnavailable: LibraryMissing.
    """
    from emopipe.models.sealed import read_sealed
    from emopipe.pipeline.execution.jobs import based

    machine = platform.node()
    if not job.store.is_dir():
        raise ClusterUnavailable(f"{machine} does not see the store", path=job.store, hint=_SEE)
    with Store(job.store) as store:
        if store.shared_as != seal["store"]:
            raise ClusterUnavailable(f"{machine} sees another store", path=job.store, hint=_SEE)
        sealed = None if job.model is None else read_sealed(job.model)
        found = _facts(based(replace(job, bases={}), store, silent, sealed))
    for stage, facts in seal["facts"].items():
        for what in ("version", "libraries", "weights", "parameters"):
            here, there = found[stage][what], facts[what]
            if here != there:
                said = f"{machine} does stage {stage} with {what} {here}, this machine with {there}"
                raise LibraryMissing(said, hint="Install the same emopipe on all machines")


def _connect(address: str) -> tuple[Any, bool]:
    """Ray, connected to a cluster, and whether the connection was made here.

    Raises:
        LibraryMissing: when Ray is not installed, ClusterUnavailable when there is no cluster.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError:
        hint = 'Install it on every machine: pip install "emopipe[ray]"'
        raise LibraryMissing("Ray is not installed", hint=hint) from None
    if ray.is_initialized():
        return ray, False
    try:
        found = _listening(address)
        ray.init(address=found, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise ClusterUnavailable(f"there is no Ray cluster at {address}: {first}", hint=_START) from error
    return ray, True


def _listening(address: str) -> str:
    """HOST:PORT of an address behind which somebody listens; Ray itself waits for minutes for one that was stopped."""
    from ray._private.services import canonicalize_bootstrap_address_or_die

    found: str = canonicalize_bootstrap_address_or_die(address)
    host, _, port = found.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT).close()
    return found
