"""Batches, and what happens to them: broken files, changed parameters, odd names, full disks, growing files."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emopipe.errors import EmopipeError
from emopipe.pipeline.datasets.speakers_table import read_speakers
from emopipe.pipeline.execution.batch import find_inputs, run_files
from emopipe.pipeline.execution.engine import Engine, Here
from emopipe.pipeline.execution.jobs import prediction_job
from emopipe.pipeline.progress import Event
from emopipe.pipeline.records import FileResult
from emopipe.pipeline.report.clip_page import DATA
from emopipe.pipeline.store.store import Store
from tests.conftest import ROOT, blank, tone, write_media
from tests.pipeline.stand_ins import StandIns, write_checkpoint

#: The output of a run that depends on how long it took.
TIMED = "timings.csv"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips of different brightness in a folder."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(3):
        clip(folder / f"{number}.mp4", grey=60 + 30 * number)
    return folder


def clip(path: Path, seconds: float = 1.0, grey: int = 100) -> Path:
    return write_media(path, blank(seconds, grey=grey, size=(48, 64)), tone(seconds))


def batch(
    paths: Sequence[Path] | Path,
    model: Path,
    root: Path,
    engine: Engine | None = None,
    *,
    out: str = "out",
    store: str = "store",
    retry: bool = False,
    backends: Callable[..., Any] = StandIns,
    people: dict[str, Any] | None = None,
    modalities: Sequence[str] = (),
    speakers: Mapping[str, str] | None = None,
    **options: Any,
) -> list[FileResult]:
    """Run with stand-ins."""
    with Store(root / store) as kept, closing(engine or Here()) as chosen:
        overrides = {"people": people or {}}
        job = prediction_job(
            str(model),
            kept,
            modalities=modalities,
            device="cpu",
            offline=True,
            overrides=overrides,
            backends=backends,
        )
        inputs = find_inputs([paths] if isinstance(paths, Path) else paths, root / out if retry else None)
        if speakers is not None:
            inputs = inputs.told(read_speakers(speakers, inputs.every))
        return list(run_files(inputs, job, root / out, chosen, **options))


def work(root: Path) -> Counter[str]:
    """How often each stage was started."""
    with Store(root / "store") as store:
        return Counter(stage for _, stage, _ in store.work())


def outputs(folder: Path) -> dict[str, bytes]:
    """The files that two runs of the same must agree on."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != TIMED]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def entries(out: Path) -> dict[str, dict[str, Any]]:
    """The manifest, by file name."""
    inputs = json.loads((out / "manifest.json").read_text("utf-8"))["inputs"]
    return {Path(entry["media"]).name: entry for entry in inputs}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# What is computed again


def test_a_second_run_computes_nothing_and_leaves_the_same_bytes(model: Path, clips: Path, tmp_path: Path) -> None:
    batch(clips, model, tmp_path)
    before = work(tmp_path)
    assert before["probe"] == before["face"] == before["voice"] == before["fusion"] == 3
    batch(clips, model, tmp_path, out="again")
    assert work(tmp_path) == before
    assert outputs(tmp_path / "again") == outputs(tmp_path / "out")
    assert len(table(tmp_path / "out" / TIMED)) > len(table(tmp_path / "again" / TIMED)) == 0


def test_modalities_that_are_not_asked_for_are_left_alone(model: Path, clips: Path, tmp_path: Path) -> None:
    batch(clips, model, tmp_path, out="some", modalities=["voice"])
    before = work(tmp_path)
    assert before["voice"] == before["fusion"] == 3 and not before["face"] and not before["text"]
    for entry in entries(tmp_path / "some").values():
        document = json.loads((tmp_path / "some" / f"{entry['outputs']}.json").read_text("utf-8"))
        assert entry["state"] == "ok" and document["utterances"]
        for utterance in document["utterances"]:
            assert utterance["absent"] == {"face": "not_requested", "text": "not_requested"}
            assert set(utterance["weights"]) == {"voice"}
    batch(clips, model, tmp_path, out="all")
    after = work(tmp_path)
    assert after["face"] == 3 and after["fusion"] == 6
    assert outputs(tmp_path / "all") != outputs(tmp_path / "some")


def test_a_modality_that_the_checkpoint_does_not_read_is_told(model: Path, tmp_path: Path) -> None:
    with pytest.raises(EmopipeError, match="does not read smell") as caught:
        batch([], model, tmp_path, modalities=["smell"])
    assert caught.value.code == "EMO-403"


def conversation(path: Path) -> Path:
    """A low tone and a high one by turns, the high one for longer, without a face that could tell them apart."""
    sound = [tone(2.0, 200.0), tone(1.0, level=0.0), tone(3.0, 900.0), tone(1.0, level=0.0)]
    return write_media(path, blank(14.0, size=(48, 64)), np.concatenate(sound * 2))


def test_people_are_told_apart_and_asking_for_another_subject_measures_nothing_again(
    model: Path, tmp_path: Path
) -> None:
    path = conversation(tmp_path / "two.mp4")
    (first,) = batch(path, model, tmp_path)
    assert [(row.speaker, row.role) for row in first.utterances] == [
        ("S1", "interviewer"),
        ("S2", "interviewee"),
    ] * 2
    before = work(tmp_path)
    (second,) = batch(path, model, tmp_path, people={"subject": "1"})
    assert work(tmp_path) - before == Counter(["people", "subject", "fusion"])
    assert [row.role for row in second.utterances] == ["interviewee", "interviewer"] * 2
    copy = shutil.copy(path, tmp_path / "copy.mp4")
    batch(Path(copy), model, tmp_path, people={"subject": "1"})
    assert work(tmp_path) - before == Counter(["people", "subject", "fusion"])


def test_enrolled_people_are_named_by_the_bytes_of_their_clip(model: Path, tmp_path: Path) -> None:
    path = conversation(tmp_path / "two.mp4")
    clips = [write_media(tmp_path / f"{hertz}.wav", sound=tone(3.0, hertz)) for hertz in (200.0, 900.0)]
    batch(path, model, tmp_path)
    before = work(tmp_path)
    (found,) = batch(path, model, tmp_path, people={"enrol": {"anna": str(clips[0])}})
    assert [row.speaker for row in found.utterances] == ["anna", "S2"] * 2
    again = Counter(["sound", "names", "people", "subject", "fusion"])
    assert work(tmp_path) - before == again
    moved = shutil.move(clips[0], tmp_path / "elsewhere.wav")
    batch(path, model, tmp_path, people={"enrol": {"anna": str(moved)}})
    assert work(tmp_path) - before == again
    (found,) = batch(path, model, tmp_path, people={"enrol": {"anna": str(clips[1])}})
    assert [row.speaker for row in found.utterances] == ["S1", "anna"] * 2


def test_a_baseline_clip_is_measured_once_and_taken_off(model: Path, tmp_path: Path) -> None:
    based = write_checkpoint(tmp_path / "based", people={"baseline": "person"})
    path, calm = clip(tmp_path / "one.mp4", 2.0), clip(tmp_path / "calm.mp4", 2.0)
    (alone,) = batch(path, based, tmp_path)
    assert {row.absent["voice"] for row in alone.utterances} == {"no_baseline"}
    before = work(tmp_path)
    (found,) = batch(path, based, tmp_path, people={"baseline": str(calm)})
    assert not any({"face", "voice"} & row.absent.keys() for row in found.utterances)
    assert not (work(tmp_path) - before).keys() & {"face", "voice"}, "the clip has the same bytes"
    with pytest.raises(EmopipeError, match="baseline"):
        batch(path, model, tmp_path, people={"baseline": str(calm)})


class Alone(StandIns):
    """Stand-ins that must not be asked for voices."""

    @cached_property
    def speakers(self) -> Any:
        raise AssertionError("the speaker encoder was loaded")


@pytest.mark.parametrize("people", [{}, {"diarizer": "none"}, {"count": 1}])
def test_where_nobody_is_told_apart_the_encoder_is_not_loaded(
    model: Path, tmp_path: Path, people: dict[str, Any]
) -> None:
    silent = tmp_path / "silent.mp4"
    (write_media(silent, blank(1.0, size=(48, 64)), tone(1.0, level=0.0)) if not people else clip(silent))
    (found,) = batch(silent, model, tmp_path, engine=Here(debug=True), backends=Alone, people=people)
    assert found.state != "failed"


def test_moving_and_renaming_a_video_loses_nothing(model: Path, clips: Path, tmp_path: Path) -> None:
    shutil.copytree(clips, tmp_path / "before")
    batch(tmp_path / "before", model, tmp_path)
    before = work(tmp_path)
    (tmp_path / "after").mkdir()
    (tmp_path / "before" / "0.mp4").rename(tmp_path / "after" / "renamed.mp4")
    (result,) = batch(tmp_path / "after", model, tmp_path, out="moved")
    assert work(tmp_path) == before
    assert result.state == "ok" and result.media.name == "renamed.mp4"


def test_a_changed_video_is_a_new_one(model: Path, clips: Path, tmp_path: Path) -> None:
    shutil.copytree(clips, tmp_path / "in")
    batch(tmp_path / "in", model, tmp_path)
    before = work(tmp_path)
    clip(tmp_path / "in" / "0.mp4", grey=200)
    batch(tmp_path / "in", model, tmp_path)
    assert work(tmp_path) - before == Counter(dict.fromkeys(before, 1))


def test_another_checkpoint_reruns_fusion_alone(model: Path, clips: Path, tmp_path: Path) -> None:
    batch(clips, model, tmp_path)
    before = work(tmp_path)
    other = write_checkpoint(tmp_path / "other", seed=1)
    batch(clips, other, tmp_path, out="other-out")
    assert work(tmp_path) - before == Counter(fusion=3)
    assert outputs(tmp_path / "other-out")["0.json"] != outputs(tmp_path / "out")["0.json"]


def test_another_voice_parameter_reruns_voice_and_fusion_alone(model: Path, clips: Path, tmp_path: Path) -> None:
    batch(clips, model, tmp_path)
    before = work(tmp_path)
    other = write_checkpoint(tmp_path / "other", voice={"window": 0.5})
    told: list[Any] = []
    batch(clips, other, tmp_path, out="other-out", explained=lambda steps, stored: told.extend(steps))
    # The decoded sound is no result: it is quicker decoded again than kept.
    assert work(tmp_path) - before == Counter(sound=3, voice=3, fusion=3)
    reasons = {step.stage: step.why for step in told}
    assert reasons["voice"] == "voice.window changed from 1.0 to 0.5"
    assert reasons["fusion"].startswith("checkpoint changed from ")
    assert {step.stage for step in told} == {"sound", "voice", "fusion"}


def test_what_follows_from_a_change_says_so(model: Path, clips: Path, tmp_path: Path) -> None:
    batch(clips, model, tmp_path)
    told: list[Any] = []
    other = write_checkpoint(tmp_path / "other", speech={"vad_threshold": 0.4, "pause": 0.3})
    batch(clips, other, tmp_path, dry=True, explained=lambda steps, stored: told.extend(steps))
    reasons = {step.stage: step.why for step in told}
    assert reasons["speech"] == "speech.vad_threshold changed from 0.5 to 0.4"
    assert reasons["voice"] == "follows speech; follows sound"
    assert reasons["people"] == "follows speakers"
    assert reasons["subject"] == "follows people"
    assert "face" not in reasons


def test_a_damaged_result_is_computed_again(model: Path, clips: Path, tmp_path: Path) -> None:
    batch(clips, model, tmp_path)
    before = work(tmp_path)
    for path in (tmp_path / "store" / "results").glob("*/*.parquet"):
        path.write_bytes(path.read_bytes()[:100])
    batch(clips, model, tmp_path, out="again")
    assert outputs(tmp_path / "again") == outputs(tmp_path / "out")
    assert work(tmp_path)["face"] == 2 * before["face"]


def test_it_is_explained_what_will_run_and_why(model: Path, clips: Path, tmp_path: Path) -> None:
    told: list[tuple[list[Any], int]] = []
    explained = lambda steps, stored: told.append((steps, stored))  # noqa: E731
    assert batch(clips, model, tmp_path, explained=explained, dry=True) == []
    assert not (tmp_path / "out").exists() and work(tmp_path) == Counter(probe=3)
    steps, stored = told[0]
    assert stored == 0 and {step.why for step in steps} == {"new file"} and len(steps) == 3 * 9
    assert all(step.seconds is None for step in steps)
    batch(sorted(clips.iterdir())[:2], model, tmp_path)
    batch(clips, model, tmp_path, explained=explained, dry=True)
    steps, stored = told[1]
    assert stored == 2 and {step.source.media.name for step in steps} == {"2.mp4"}
    assert all(step.seconds is not None for step in steps)


def test_phases_give_the_same_as_file_by_file(model: Path, clips: Path, tmp_path: Path) -> None:
    class Counting(Here):
        renewed = 0

        def renew(self) -> None:
            self.renewed += 1
            super().renew()

    engine = Counting()
    batch(clips, model, tmp_path)
    batch(clips, model, tmp_path, engine, phases=True, out="phases", store="other")
    assert outputs(tmp_path / "phases") == outputs(tmp_path / "out")
    assert engine.renewed > 5
    with Store(tmp_path / "other") as store:
        stages = [stage for _, stage, _ in store.work() if stage != "sound"]
    assert stages == [stage for stage in dict.fromkeys(stages) for _ in range(3)]


def test_only_what_failed_is_tried_again(model: Path, clips: Path, tmp_path: Path) -> None:
    shutil.copytree(clips, tmp_path / "in")
    whole = (tmp_path / "in" / "1.mp4").read_bytes()
    (tmp_path / "in" / "1.mp4").write_bytes(whole[:200])
    results = batch(tmp_path / "in", model, tmp_path)
    assert [result.state for result in results].count("failed") == 1
    (tmp_path / "in" / "1.mp4").write_bytes(whole)
    (tmp_path / "in" / "0.mp4").unlink()
    (result,) = batch([], model, tmp_path, retry=True)
    assert result.media.name == "1.mp4" and result.state == "ok"
    shutil.copy(clips / "0.mp4", tmp_path / "in")
    batch(tmp_path / "in", model, tmp_path, out="whole")
    assert outputs(tmp_path / "whole") == outputs(tmp_path / "out")


def test_without_an_earlier_run_there_is_nothing_to_try_again(tmp_path: Path) -> None:
    with pytest.raises(EmopipeError, match="EMO-101"):
        find_inputs([], tmp_path)


# Inputs


def test_any_name_will_do_and_none_overwrites_another(model: Path, clips: Path, tmp_path: Path) -> None:
    names = ['it\'s "quoted".mp4', "new\nline.mp4", "日本語 имя.mp4", os.fsdecode(b"latin\xe9.mp4"), "a:b%20#?.mp4"]
    names += ["summary.mp4", "manifest.mp4", "x" * 240 + ".mp4", "-rf.mp4", "[1].mp4", "same.mp4", "SAME.mov", "*.mp4"]
    folder = tmp_path / "in"
    (folder / "deeper").mkdir(parents=True)
    for name in names:
        shutil.copy(clips / "0.mp4", folder / name)
    shutil.copy(clips / "1.mp4", folder / "deeper" / "same.mp4")
    results = batch([folder, folder / "*.mp4"], model, tmp_path)
    out = tmp_path / "out"
    assert sorted(result.media.name for result in results) == sorted([*names, "same.mp4"])
    told = json.loads((out / "manifest.json").read_text("utf-8"))["inputs"]
    assert [Path(entry["media"]).exists() for entry in told] == [True] * len(results)
    assert len({entry["outputs"].casefold() for entry in told}) == len(results)
    for entry in told:
        assert (out / f"{entry['outputs']}.html").exists() and (out / f"{entry['outputs']}.csv").exists()
    assert len(table(out / "summary.csv")) == len(results)
    assert "%0A" in (out / "new\nline.html").read_text("utf-8")
    assert work(tmp_path)["face"] == 2  # the copies have the same content


def test_a_file_that_grows_while_it_is_read_fails_and_leaves_nothing_behind(
    model: Path, clips: Path, tmp_path: Path
) -> None:
    shutil.copytree(clips, tmp_path / "in")
    growing = tmp_path / "in" / "1.mp4"

    def record(event: Event) -> None:
        if event.kind == "start" and event.name == "face" and event.source == str(growing):
            with growing.open("ab") as file:
                file.write(b"\0" * 1000)

    states = {result.media.name: result for result in batch(tmp_path / "in", model, tmp_path, hook=record)}
    assert states["1.mp4"].state == "failed" and states["1.mp4"].reasons[0].code == "EMO-107"
    assert states["0.mp4"].state == states["2.mp4"].state == "ok"
    with Store(tmp_path / "store") as store:
        assert [facts["stage"] for _, facts in made(store) if facts["content"] == store.content(growing).hash] == []
    assert batch(growing, model, tmp_path, out="later")[0].state == "ok"


def made(store: Store) -> list[tuple[str, dict[str, Any]]]:
    from emopipe.pipeline.store.serialization import read_facts

    return [(path.stem, read_facts(path)) for path in (store.folder / "results").glob("*/*.parquet")]


# Disks


def inside(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a shell script where file systems can be mounted; skips where that is not allowed."""
    probe = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs none /mnt"]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    command = ["unshare", "-rm", "sh", "-c", script, "sh", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


EMOPIPE = f"'{sys.executable}' -m tests.pipeline.emopipe_with_stand_ins run --offline --device cpu --jobs 1"


def test_a_full_store_is_told_and_costs_no_result(model: Path, clips: Path, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    script = f"mount -t tmpfs -o size=300k none $1/small && {EMOPIPE} $2 --model $3 --store $1/small --out $1/out"
    done = inside(script, tmp_path, clips, model)
    assert done.returncode == 0, done.stderr
    assert "EMO-602" in done.stderr and "the disk is full" in done.stderr and "Traceback" not in done.stderr
    batch(clips, model, tmp_path, out="whole")
    whole, full = outputs(tmp_path / "whole"), outputs(tmp_path / "out")
    assert whole.keys() == full.keys()
    for name in whole:
        if re.fullmatch(r"\d\.html", name):  # only the curves come from the store
            assert page_facts(full[name]) == {**page_facts(whole[name]), "curves": page_facts(full[name])["curves"]}
        else:
            assert whole[name] == full[name]
    assert any(b"Without curves" in full[name] for name in full)


def page_facts(page: bytes) -> dict[str, Any]:
    """What the script of a clip's page works with."""
    facts: dict[str, Any] = json.loads(page.decode().partition(DATA)[2].partition("</script>")[0])
    return facts


def test_a_full_output_disk_ends_the_run_and_loses_nothing(model: Path, clips: Path, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    script = f"mount -t tmpfs -o size=24k none $1/small && {EMOPIPE} $2 --model $3 --store $1/store --out $1/small/out"
    done = inside(script, tmp_path, clips, model)
    assert done.returncode == 2 and "EMO-601" in done.stderr and "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    before = work(tmp_path)
    batch(clips, model, tmp_path)
    with Store(tmp_path / "store") as store:
        finished = Counter(key for key, stage, seconds in store.work() if seconds is not None and stage != "sound")
    assert before["fusion"] and max(finished.values()) == 1


def test_an_output_folder_that_cannot_be_written_is_told_before_work_begins(
    model: Path, clips: Path, tmp_path: Path
) -> None:
    (tmp_path / "fixed").mkdir()
    script = "mount -t tmpfs none $1/fixed && mkdir $1/fixed/out && mount -o remount,ro $1/fixed && "
    done = inside(script + f"{EMOPIPE} $2 --model $3 --store $1/store --out $1/fixed/out", tmp_path, clips, model)
    assert done.returncode == 2 and "EMO-601" in done.stderr and "Read-only" in done.stderr
    assert "--out" in done.stderr and work(tmp_path) == Counter()


def test_a_store_that_cannot_be_written_is_told_before_work_begins(model: Path, clips: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmopipeError, match="EMO-602"):
        batch(clips, model, tmp_path / "file")


def test_a_clip_whose_page_cannot_be_made_is_unfinished_and_the_failure_is_told(
    model: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> str:
        raise ValueError("no page")

    monkeypatch.setattr("emopipe.pipeline.report.outputs.render_page", broken)
    with pytest.raises(ValueError, match="no page"):
        batch(clips, model, tmp_path)
    assert {entry["state"] for entry in entries(tmp_path / "out").values()} == {"pending"}
    assert table(tmp_path / "out" / "utterances.csv") == []


def test_a_look_ahead_tells_what_would_fail(model: Path, clips: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no media")
    events: list[Event] = []
    paths = [clips / "0.mp4", tmp_path / "bad.mp4", tmp_path / "none.mp4", tmp_path / "*.wav"]
    assert batch(paths, model, tmp_path, dry=True, hook=events.append) == []
    told = "\n".join(event.message for event in events if event.kind == "warning")
    assert all(name in told for name in ("bad.mp4", "none.mp4", "*.wav")) and "0.mp4" not in told


def test_retrying_with_another_model_is_told(model: Path, clips: Path, tmp_path: Path) -> None:
    bad = tmp_path / "in" / "bad.mp4"
    bad.parent.mkdir()
    shutil.copy(clips / "0.mp4", bad.with_name("good.mp4"))
    bad.write_bytes(b"no media")
    batch(bad.parent, model, tmp_path)
    events: list[Event] = []
    other = write_checkpoint(tmp_path / "other", seed=1)
    batch(bad.parent, other, tmp_path, retry=True, hook=events.append)
    assert any("repeat all options" in event.message for event in events)
    events.clear()
    batch(bad.parent, model, tmp_path, retry=True, hook=events.append)
    assert not any("repeat all options" in event.message for event in events)
