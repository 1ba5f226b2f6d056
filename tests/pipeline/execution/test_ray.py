"""A batch on a Ray cluster: the same outputs as on this machine, whatever becomes of workers and machines."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from emopipe.errors import EmopipeError
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.config import ExtractionConfig
from emopipe.pipeline.datasets.labels import unlabelled_sources
from emopipe.pipeline.execution.batch import find_inputs, run_files
from emopipe.pipeline.execution.extraction import write_dataset
from emopipe.pipeline.execution.jobs import extraction_job, prediction_job
from emopipe.pipeline.execution.processes import Processes
from emopipe.pipeline.execution.ray import Ray
from emopipe.pipeline.progress import Event, Hook, silent
from emopipe.pipeline.records import FileResult
from emopipe.pipeline.store.store import Store
from tests.conftest import SAMPLES
from tests.pipeline.execution.test_batch import clip, entries, outputs, work
from tests.pipeline.stand_ins import DEADLY, SlowStandIns, StandIns, write_checkpoint

FILES = 6


def test_ray_must_be_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    command = ["run", str(SAMPLES / "interview.mp4"), "--engine", "ray", "--store", str(tmp_path / "store")]
    done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out")])
    assert done.exit_code == 3 and "EMO-301" in done.stderr and 'pip install "emopipe[ray]"' in done.stderr


def test_results_must_be_kept_where_all_machines_see_them() -> None:
    done = CliRunner().invoke(app, ["run", str(SAMPLES / "interview.mp4"), "--engine", "ray", "--no-store"])
    assert done.exit_code == 2 and "EMO-508" in done.stderr and "--store" in done.stderr


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_told() -> None:
    with pytest.raises(EmopipeError, match=r"EMO-303.*127\.0\.0\.1:1.*ray start --head"):
        Ray("127.0.0.1:1")


# On a cluster of two machines


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with one CPU each; they send nothing, and their workers are no less urgent than this process."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**quiet, "RAY_worker_niceness": "0"}.items():
            patch.setenv(name, value)
        found = cluster_utils.Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        found.add_node(**NODE)
        yield found
        found.shutdown()


NODE = {"num_cpus": 1, "memory": 4 << 30}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of different brightness, and one that is broken."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(FILES - 1):
        clip(folder / f"{number}.mp4", grey=60 + 30 * number, seconds=2.0)
    (folder / "broken.mp4").write_bytes((folder / "0.mp4").read_bytes()[:200])
    return folder


@pytest.fixture(scope="module")
def expected(model: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What processes on this machine make of the clips."""
    root = tmp_path_factory.mktemp("processes")
    with Store(root / "store") as store, closing(Processes(2)) as engine:
        job = prediction_job(str(model), store, device="cpu", offline=True, backends=StandIns)
        assert len(list(run_files(find_inputs([clips]), job, root / "out", engine))) == FILES
    return outputs(root / "out")


def on_ray(
    cluster: Any, clips: Path, model: Path, root: Path, hook: Hook = silent, *, slow: bool = False, **options: Any
) -> list[FileResult]:
    """Run with stand-ins."""
    backends = SlowStandIns if slow else StandIns
    with Store(root / "store", shared=True) as store, closing(Ray(cluster.address)) as engine:
        job = prediction_job(str(model), store, device="auto", offline=True, backends=backends)
        return list(run_files(find_inputs([clips]), job, root / "out", engine, hook=hook, **options))


class Once:
    """A hook that does something when a stage starts on a file for the first time, and keeps the warnings.

    Args:
        act: what to do, and whether that is enough.
    """

    def __init__(self, act: Any, stage: str = "face") -> None:
        self._act, self._stage = act, stage
        self.done = False
        self.warnings: list[Event] = []

    def __call__(self, event: Event) -> None:
        if event.kind == "warning":
            self.warnings.append(event)
        if event.kind == "start" and event.name == self._stage and not self.done:
            self.done = bool(self._act())


def workers() -> list[int]:
    """Ids of the processes that are at work in this module's cluster."""
    import psutil

    found = []
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "ray::WorkerActor.perform" in " ".join(one.cmdline()):
                found.append(one.pid)
    return found


def kill_one() -> bool:
    found = workers()
    if found:
        os.kill(found[0], signal.SIGKILL)
    return bool(found)


@pytest.mark.slow
def test_a_cluster_makes_the_same_as_processes(
    cluster: Any, clips: Path, model: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    told: list[Event] = []
    results = on_ray(cluster, clips, model, tmp_path, told.append)
    assert len(results) == FILES and outputs(tmp_path / "out") == expected
    assert [event.source for event in told if event.kind == "end" and event.name == "fusion"]
    done = work(tmp_path)
    assert done["face"] == done["fusion"] == FILES - 1
    assert not list((tmp_path / "store").glob("*-wal"))  # which works on one machine only
    with Store(tmp_path / "store") as store:
        assert store.shared_as


@pytest.mark.slow
def test_recordings_of_a_speaker_are_related_as_on_this_machine(cluster: Any, clips: Path, tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "relative", relative=True)
    inputs = find_inputs([clips]).told({path: "anna" for path in clips.iterdir()})
    for name, shared in (("here", False), ("there", True)):
        engine = Ray(cluster.address) if shared else Processes(2)
        with Store(tmp_path / f"store {name}", shared=shared) as store, closing(engine):
            job = prediction_job(str(model), store, device="cpu", offline=True, backends=StandIns)
            results = list(run_files(inputs, job, tmp_path / name, engine))
        assert {one.info.get("related_recordings") for one in results} == {None, FILES - 1}
    assert outputs(tmp_path / "there") == outputs(tmp_path / "here")


@pytest.mark.slow
def test_killing_a_worker_loses_nothing_and_counts_nothing_twice(
    cluster: Any, clips: Path, model: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    hook = Once(kill_one)
    results = on_ray(cluster, clips, model, tmp_path, hook, slow=True)
    assert hook.done and "the worker on" in hook.warnings[0].message
    assert sorted(Counter(result.media.name for result in results).values()) == [1] * FILES
    assert outputs(tmp_path / "out") == expected
    with Store(tmp_path / "store") as store:
        begun = [(key, stage) for key, stage, _ in store.work() if stage != "sound"]
        ended = [key for key, stage, seconds in store.work() if seconds is not None and stage != "sound"]
    assert len(begun) - len(set(begun)) <= 1 and max(Counter(ended).values()) == 1


@pytest.mark.slow
def test_a_file_that_kills_its_workers_fails_with_a_reason(cluster: Any, model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    clip(tmp_path / "in" / "good.mp4")
    clip(tmp_path / "in" / "deadly.mp4", grey=DEADLY)
    on_ray(cluster, tmp_path / "in", model, tmp_path)
    told = entries(tmp_path / "out")
    assert told["good.mp4"]["state"] == "ok" and told["deadly.mp4"]["state"] == "failed"
    assert told["deadly.mp4"]["reasons"][0]["code"] == "EMO-902"
    assert "stage face" in told["deadly.mp4"]["reasons"][0]["what"]
    assert work(tmp_path)["face"] == 3


@pytest.mark.slow
def test_where_there_is_a_gpu_it_does_what_only_it_does_well(
    cluster: Any, clips: Path, model: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    node = cluster.add_node(**{**NODE, "num_cpus": 0}, num_gpus=1)
    try:
        results = on_ray(cluster, clips, model, tmp_path)
    finally:
        cluster.remove_node(node)
    assert len(results) == FILES and outputs(tmp_path / "out") == expected
    done = work(tmp_path)
    assert done["face"] == done["fusion"] == FILES - 1


@pytest.mark.slow
def test_what_cannot_be_shared_is_told(cluster: Any, clips: Path, model: Path, tmp_path: Path) -> None:
    with Store(tmp_path / "store") as store, closing(Ray(cluster.address)) as engine:
        job = prediction_job(str(model), store, offline=True, backends=StandIns)
        with pytest.raises(EmopipeError, match=r"EMO-303.*not shared"):
            list(run_files(find_inputs([clips]), job, tmp_path / "out", engine))


@pytest.mark.slow
def test_a_dataset_extracted_on_a_cluster_is_that_of_processes(cluster: Any, clips: Path, tmp_path: Path) -> None:
    made = {}
    for name, shared in (("processes", False), ("ray", True)):
        with Store(tmp_path / f"store of {name}", shared=shared) as store:
            job = replace(extraction_job(ExtractionConfig(), store, offline=True), backends=StandIns)
            with closing(Ray(cluster.address) if shared else Processes(2)) as engine:
                failures, _ = write_dataset(unlabelled_sources([clips]), tmp_path / name, job, engine)
        assert len(failures) == 1
        made[name] = {one.name: one.read_bytes() for one in (tmp_path / name).iterdir()}
    assert made["ray"] == made["processes"] and "face.parquet" in made["ray"]


@pytest.mark.slow
def test_removing_a_machine_loses_nothing(  # the last one: the machine does not come back
    cluster: Any, clips: Path, model: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    def remove() -> bool:
        if len(workers()) < 2:
            return False
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        return True

    hook = Once(remove)
    results = on_ray(cluster, clips, model, tmp_path, hook, slow=True)
    assert hook.done and "left the cluster, in stage" in hook.warnings[0].message
    assert len(results) == FILES and outputs(tmp_path / "out") == expected
    with Store(tmp_path / "store") as store:
        ended = [key for key, stage, seconds in store.work() if seconds is not None and stage != "sound"]
    assert max(Counter(ended).values()) == 1
