"""An engine of many machines: a Ray cluster.

What crosses the wire is tasks (paths and times), events, and outcomes. Media are read, and results kept, by each
machine for itself in folders that all of them see.
"""

from __future__ import annotations

import logging
import os
import platform
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, ClassVar, Final

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
from emopipe.pipeline.execution.engine import THREADS, WORKER_BYTES, Death, Message, Pool, RemoteWorker, Started, paced
from emopipe.pipeline.execution.plan import Job, Task, results
from emopipe.pipeline.execution.worker import Outcome, Worker
from emopipe.pipeline.progress import Event, silent
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
#: Between two looks at the cluster, in seconds.
_LOOK: Final = 0.5
#: To connect to the cluster's head, in seconds.
_CONNECT: Final = 5.0
#: Settings of this process that hold for its workers, too.
_SETTINGS: Final = "EMOPIPE_"
_START: Final = (
    "Start one by `ray start --head` on one machine and `ray start --address=HOST:6379` on the others, and run emopipe "
    "on one of them"
)
_SEE: Final = "Put inputs, checkpoint and --store into a folder that all machines see under the same path"


class Ray(Pool):
    """Workers on the machines of a Ray cluster: one per core, or per GPU for what a GPU does.

    A worker that dies, or a machine that goes, costs nothing but the stage that it was at: another one does the task
    again, which fails with a reason when that one dies, too. Machines that join are put to work.

    Args:
        address: HOST:PORT of the cluster's head, or "auto" for the cluster that this machine is part of.
        jobs: how many workers at most; None: as many as there is room for.

    Raises:
        LibraryMissing: when Ray is not installed.
        ClusterUnavailable: when the cluster cannot be reached or has no room.
    """

    lacking: ClassVar[str] = "waiting for a worker: the cluster must have a free CPU and memory"

    def __init__(self, address: str = "auto", *, jobs: int | None = None) -> None:
        self._ray, self._connected = _connect(address)
        self._most = jobs
        self._job: Job | None = None
        self._seal: Mapping[str, Any] = {}
        self._capacity = _Capacity(self._ray)
        room = self._capacity.of("CPU")
        super().__init__(min(room, jobs or room))
        if self.jobs < 1:
            self.close()
            what = f"no machine of the Ray cluster has a CPU and {WORKER_BYTES / 2**30:.0f} GiB of memory for a worker"
            raise ClusterUnavailable(what, hint="`ray status` shows what there is; let another machine join")

    def prepare(self, job: Job) -> Job:
        """The job with one thread a worker; workers of another job are ended.

        Raises:
            DeviceUnavailable: when a GPU is wanted and no machine has one.
            ClusterUnavailable: when the store was opened for one machine only.
        """
        job = replace(job, threads=1)
        if job != self._job:
            self.renew()
            self._job, self._seal = job, _seal(job)
        if job.device == "cuda" and not self._capacity.of("GPU"):
            raise DeviceUnavailable("no machine of the Ray cluster has a GPU", hint="Use --device auto")
        return job

    def kinds(self) -> Sequence[str]:
        """See :class:`Pool`."""
        return tuple(_RESOURCES)

    def steps(self, job: Job, task: Task) -> list[tuple[str, Task]]:
        """See :class:`Pool`."""
        return _steps(job, task, job.device != "cpu" and self._capacity.of("GPU") > 0)

    def room(self, kind: str) -> int:
        """As many as the living machines have room for, and no more than were asked for."""
        room = self._capacity.of(kind)
        if self._most is None:
            return room
        others = sum(worker.kind != kind for worker in self.workers)
        return min(room, self._most - others)

    def hire(self, job: Job, kind: str) -> RemoteWorker:
        """See :class:`Pool`."""
        return _RayWorker(self._ray, job, self._seal, kind)

    def messages(self) -> Iterator[tuple[RemoteWorker, Message]]:
        """What workers have to say; waits a little for one."""
        by_reply = {
            worker.pending: worker
            for worker in self.workers
            if isinstance(worker, _RayWorker) and worker.pending is not None
        }
        if not by_reply:
            time.sleep(_LOOK)
            return
        ready, _ = self._ray.wait(list(by_reply), num_returns=1, timeout=_LOOK)
        if ready:  # whoever else is: a talkative worker must not keep the others from being heard
            ready, _ = self._ray.wait(list(by_reply), num_returns=len(by_reply), timeout=0)
        for pending in ready:
            if by_reply[pending] in self.workers:
                message = by_reply[pending].receive()
                if isinstance(message, Death):
                    self._capacity.forget()
                yield by_reply[pending], message

    def close(self) -> None:
        """End the workers and leave the cluster."""
        super().close()
        if self._connected:
            self._ray.shutdown()
            self._connected = False


class _RayWorker(RemoteWorker):
    """A worker of the cluster as this process knows it."""

    def __init__(self, ray: Any, job: Job, seal: Mapping[str, Any], kind: str) -> None:
        super().__init__(kind)
        settings = {name: value for name, value in os.environ.items() if name.startswith(_SETTINGS)}
        variables = {**settings, **dict.fromkeys(THREADS, str(job.threads))}
        # A worker without a GPU must not load models on one that happens to be there.
        job = job if kind == "GPU" else replace(job, device="cpu")
        options = {**_RESOURCES[kind], "memory": WORKER_BYTES, "scheduling_strategy": "SPREAD"}
        actor = ray.remote(WorkerActor).options(**options, max_restarts=0, runtime_env={"env_vars": variables})
        self._ray = ray
        self._actor = actor.remote(job, seal, str(Path.cwd()))
        self._machine = "a machine of the cluster"
        #: What is asked of it; None when it waits.
        self.pending: Any = self._actor.start.remote()

    def perform(self, task: Task) -> None:
        """See :class:`RemoteWorker`."""
        self.pending = self._actor.perform.options(num_returns="streaming").remote(task)

    def next_message(self) -> Message:
        """See :class:`RemoteWorker`."""
        from ray import exceptions

        try:
            message: Message = self._ray.get(self.pending if not self.started else next(self.pending))
        except exceptions.OutOfMemoryError as error:
            return Death(str(error), out_of_memory=True)
        except (exceptions.RayError, StopIteration) as error:
            return Death(str(error))
        if isinstance(message, Started):
            self._machine = message.machine
        if not isinstance(message, Event):
            self.pending = None
        return message

    def failure(self, death: Death) -> EmopipeError:
        """See :class:`RemoteWorker`."""
        hint = "Run again with --retry-failed; if memory ran out (the system's log tells), let fewer work at a time"
        if death.out_of_memory:
            return OutOfMemory(f"the memory of {self._machine} ran out in stage {self.stage}", hint=hint)
        what = f"the worker on {self._machine} died, or the machine left the cluster, in stage {self.stage}"
        if not self.started:
            what = f"a worker died before its first task: {' '.join(death.cause.split())}"
        return WorkerDied(what, hint=hint)

    def kill(self) -> None:
        """See :class:`RemoteWorker`."""
        with suppress(Exception):  # it, or the cluster, is gone
            self._ray.kill(self._actor)


class WorkerActor:
    """A worker as Ray's process knows it: does its tasks in a thread, so that events can be told meanwhile.

    Args:
        job: what is wanted.
        seal: of the job, see :func:`_seal`.
        folder: that relative paths are meant from.
    """

    def __init__(self, job: Job, seal: Mapping[str, Any], folder: str) -> None:
        self._job, self._seal = job, seal
        self._tasks: SimpleQueue[Task] = SimpleQueue()
        self._messages: SimpleQueue[Message] = SimpleQueue()
        with suppress(OSError):  # paths may be absolute
            os.chdir(folder)

    def start(self) -> Message:
        """That it is ready; an error when its machine is not fit for the job."""
        Thread(target=self._serve, daemon=True).start()
        return self._messages.get()

    def perform(self, task: Task) -> Iterator[Message]:
        """Events, and in the end the outcome."""
        self._tasks.put(task)
        while True:
            message = self._messages.get()
            yield message
            if isinstance(message, Outcome | EmopipeError):
                return

    def _serve(self) -> None:
        try:
            _check_seal(self._job, self._seal)
            with Worker(self._job, paced(self._messages.put)) as worker:
                self._messages.put(Started(platform.node()))
                while True:
                    self._messages.put(worker.perform(self._tasks.get()))
        except EmopipeError as error:
            self._messages.put(error)
        except BaseException as error:
            what = f"a worker on {platform.node()} broke: {type(error).__name__}: {error}"
            self._messages.put(StageFailure(what))


class _Capacity:
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
    available, light = {*input_names(Given)}, []

    def works_there(stage: AnyStage) -> bool:
        return job.wants(stage) and works_on_gpu(job.config, stage.backend)

    for stage in job.stages:
        if available.issuperset(stage.requires) and not works_there(stage):
            available.update(stage.provides)
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
        own_facts = _facts(based(replace(job, bases={}), store, silent, sealed))
    for stage, facts in seal["facts"].items():
        for what in ("version", "libraries", "weights", "parameters"):
            here, there = own_facts[stage][what], facts[what]
            if here != there:
                difference = f"{machine} does stage {stage} with {what} {here}, this machine with {there}"
                raise LibraryMissing(difference, hint="Install the same emopipe on all machines")


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
        _check_listening(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise ClusterUnavailable(f"there is no Ray cluster at {address}: {first}", hint=_START) from error
    return ray, True


def _check_listening(address: str) -> None:
    """Fail within seconds where nobody listens; Ray itself waits for minutes for a cluster that was stopped.

    Where "auto" leads is written down by `ray start` on this machine; where it is not, Ray looks for itself.

    Raises:
        OSError, ValueError: nobody listens, or it is not an address.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "") or _last_started()
    if address and address != "auto":
        host, _, port = address.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT).close()


def _last_started() -> str:
    """The address of the cluster that was last started on this machine; "" when none was."""
    folder = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    with suppress(OSError):
        return (folder / "ray" / "ray_current_cluster").read_text().strip()
    return ""
