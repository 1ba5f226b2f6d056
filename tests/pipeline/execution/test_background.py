"""Faces are measured beside the stages of the sound: with the same results, and no thread outlives its source."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emopipe.pipeline.config import ExtractionConfig
from emopipe.pipeline.execution.background import Background
from emopipe.pipeline.execution.engine import Here
from emopipe.pipeline.execution.jobs import extraction_job
from emopipe.pipeline.execution.plan import Job, Task
from emopipe.pipeline.execution.worker import Outcome
from emopipe.pipeline.progress import Event
from emopipe.pipeline.records import Source
from emopipe.pipeline.store.store import Store
from tests.conftest import blank, tone, write_media
from tests.pipeline.stand_ins import StandIns, _Face, _Loud

#: Nobody waits longer for another thread, in seconds.
PATIENCE = 60


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_media(tmp_path / "clip.mp4", blank(4.0), np.concatenate([tone(1.5), np.zeros(16_000), tone(1.5)]))


def outcome(clip: Path, store: Path, backends: Callable[..., Any] = StandIns, events: list[Event] | None = None) -> Any:
    """What becomes of a clip with an empty store."""
    told = [] if events is None else events
    with Store(store) as opened, closing(Here()) as engine:
        task = Task(Source("clip", media=clip), features=True)
        ((_, done),) = engine.run(job_of(opened, backends), [task], told.append)
    return done


def job_of(store: Store, backends: Callable[..., Any]) -> Job:
    config = ExtractionConfig.from_dict({"people": {"diarizer": "ge2e"}})
    job = extraction_job(config, store, modalities=("face", "voice"), offline=True)
    return replace(job, backends=backends, device="cpu")


def told_of(done: Outcome) -> list[Any]:
    assert done.error is None, done.error
    assert done.extraction is not None
    found = done.extraction
    return [[found.duration, found.warnings, found.info, found.people, found.turns], *found.utterances]


@pytest.mark.usefixtures("two_threads")
def test_results_are_the_same_on_one_thread_and_on_two(clip: Path, tmp_path: Path) -> None:
    beside = told_of(outcome(clip, tmp_path / "two"))
    torch.set_num_threads(1)
    assert str(beside) == str(told_of(outcome(clip, tmp_path / "one")))
    assert len(beside) > 1


class _Waiting(_Face):
    """Looks at nothing before somebody has listened."""

    def __init__(self, heard: threading.Event) -> None:
        super().__init__()
        self._heard = heard

    def track(self, frames: Iterable[Any]) -> Any:
        assert self._heard.wait(PATIENCE)
        return super().track(frames)


class FacesAfterSound(StandIns):
    """Would never end one after the other."""

    @cached_property
    def heard(self) -> threading.Event:
        return threading.Event()

    @cached_property
    def face(self) -> Any:
        return _Waiting(self.heard)

    @cached_property
    def vad(self) -> Any:
        heard = self.heard

        class Told(_Loud):
            def segments(self, samples: Any) -> list[tuple[float, float]]:
                heard.set()
                return super().segments(samples)

        return Told(self.config.speech.vad_threshold)


@pytest.mark.usefixtures("two_threads")
def test_sound_is_heard_while_faces_are_measured(clip: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    done = outcome(clip, tmp_path / "store", FacesAfterSound, events)
    assert len(told_of(done)) > 1
    stages = [(event.kind, event.name) for event in events if event.kind in ("start", "end")]
    assert all(stages.count(("start", name)) == stages.count(("end", name)) == 1 for _, name in stages)
    assert set(done.computed) >= {"face", "speech", "speakers", "voice"}
    assert torch.get_num_threads() == 2


class Blind(StandIns):
    """Sees nothing but trouble."""

    @cached_property
    def face(self) -> Any:
        class Broken(_Face):
            def track(self, frames: Iterable[Any]) -> Any:
                raise ArithmeticError("no such face")

        return Broken()


@pytest.mark.usefixtures("two_threads")
def test_a_failure_beside_is_a_failure_of_its_stage(clip: Path, tmp_path: Path) -> None:
    error = outcome(clip, tmp_path / "store", Blind).error
    assert error is not None and "stage face broke" in error.what and "no such face" in error.what


class SeenElsewhere(StandIns):
    """While it listens, another process measures the same faces, and is faster."""

    @cached_property
    def face(self) -> Any:
        class Slow(_Face):
            def track(self, frames: Iterable[Any]) -> Any:
                for _ in frames:
                    time.sleep(0.2)
                raise AssertionError("nobody has stopped it")

        return Slow()

    @cached_property
    def vad(self) -> Any:
        class Told(_Loud):
            def segments(self, samples: Any) -> list[tuple[float, float]]:
                ANOTHER[0]()
                return super().segments(samples)

        return Told(self.config.speech.vad_threshold)


ANOTHER: list[Callable[[], object]] = []


@pytest.mark.usefixtures("two_threads")
def test_faces_that_another_process_has_measured_meanwhile_are_taken(clip: Path, tmp_path: Path) -> None:
    ANOTHER[:] = [lambda: None]
    expected = told_of(outcome(clip, tmp_path / "alone"))

    def other_process() -> None:
        with Store(tmp_path / "store") as store, closing(Here()) as engine:
            torch.set_num_threads(1)
            list(engine.run(job_of(store, StandIns), [Task(Source("clip", media=clip), ("face",))]))

    def beside() -> None:
        thread = threading.Thread(target=other_process)
        thread.start()
        thread.join()

    ANOTHER[:] = [beside]
    assert str(told_of(outcome(clip, tmp_path / "store", SeenElsewhere))) == str(expected)
    assert "background" not in "".join(one.name for one in threading.enumerate())


LOOKED_AT: list[float] = []


class Deaf(StandIns):
    """Hears nothing but trouble, while faces are slow."""

    @cached_property
    def face(self) -> Any:
        class Slow(_Face):
            def _row(self, at: float, rgb: np.ndarray) -> dict[str, float | int | None]:
                LOOKED_AT.append(at)
                return super()._row(at, rgb)

        return Slow(pause=0.5)

    @cached_property
    def vad(self) -> Any:
        class Broken(_Loud):
            def segments(self, samples: Any) -> list[tuple[float, float]]:
                raise ArithmeticError("no such sound")

        return Broken(0.5)


@pytest.mark.usefixtures("two_threads")
def test_where_the_sound_fails_faces_are_measured_no_further(clip: Path, tmp_path: Path) -> None:
    LOOKED_AT.clear()
    error = outcome(clip, tmp_path / "store", Deaf).error
    assert error is not None and "stage speech broke" in error.what
    assert len(LOOKED_AT) < 4.0 * ExtractionConfig().face.rate
    assert torch.get_num_threads() == 2 and "background" not in "".join(one.name for one in threading.enumerate())


def test_what_is_told_in_the_background_is_passed_on_in_order_by_who_waits() -> None:
    events, tellers = list[str](), set[threading.Thread]()

    def note(event: Event) -> None:
        events.append(event.message)
        tellers.add(threading.current_thread())

    def work(hook: Callable[[Event], None]) -> int:
        for message in "abc":
            hook(Event("info", "work", message))
        return 7

    call = Background(work)
    assert call.result(note) == 7 and events == ["a", "b", "c"] and tellers == {threading.current_thread()}
    assert call.seconds >= 0


def test_a_dropped_call_ends_where_it_next_tells_something() -> None:
    begun = threading.Event()

    def work(hook: Callable[[Event], None]) -> None:
        begun.set()
        while True:
            hook(Event("progress", "work"))

    call = Background(work)
    assert begun.wait(PATIENCE)
    call.drop()
    assert "background" not in "".join(thread.name for thread in threading.enumerate())


def test_the_error_of_a_call_in_the_background_is_raised_where_it_is_waited_for() -> None:
    with pytest.raises(ZeroDivisionError):
        Background(lambda hook: 1 // 0).result(lambda event: None)
