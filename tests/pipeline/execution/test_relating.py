"""Recordings of the same speaker, told by a table: answers relative to what is usual for them in all of these."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import emopipe
from emopipe.errors import EmopipeError
from emopipe.models import checkpoint
from emopipe.models.data.dataset import Sample
from emopipe.models.data.speakers import LEAST_OTHERS, SpeakerMeans
from emopipe.pipeline.datasets.speakers_table import read_speakers
from emopipe.pipeline.execution.batch import find_inputs
from emopipe.pipeline.execution.engine import Here
from emopipe.pipeline.execution.jobs import prediction_job
from emopipe.pipeline.execution.plan import Job, Task
from emopipe.pipeline.execution.processes import Processes
from emopipe.pipeline.execution.protection import Protection
from emopipe.pipeline.execution.relating import related
from emopipe.pipeline.execution.worker import Worker
from emopipe.pipeline.privacy.disguise import read_disguise
from emopipe.pipeline.progress import Event
from emopipe.pipeline.records import FileResult, Source
from emopipe.pipeline.store.store import Store
from tests.conftest import tone, write_media
from tests.pipeline.execution.test_batch import batch, clip, conversation, outputs, work
from tests.pipeline.stand_ins import StandIns, write_checkpoint

SPEAKERS = {f"{number}.mp4": "anna" for number in range(5)}


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that reads face and voice relative to the speaker."""
    return write_checkpoint(tmp_path_factory.mktemp("relative"), relative=True)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips with one utterance each, five of them anna's."""
    folder = tmp_path_factory.mktemp("anna")
    for number in range(6):
        clip(folder / f"{number}.mp4", grey=60 + 20 * number)
    return folder


def answers(results: Sequence[FileResult]) -> dict[str, list[Mapping[str, float]]]:
    return {result.media.name: [row.probabilities for row in result.utterances] for result in results}


def job_of(model: Path, store: Store) -> Job:
    return prediction_job(str(model), store, device="cpu", offline=True, backends=StandIns)


def test_answers_are_relative_to_the_speakers_utterances_in_other_recordings(
    model: Path, clips: Path, tmp_path: Path
) -> None:
    alone = answers(batch(clips, model, tmp_path, out="alone"))
    results = batch(clips, model, tmp_path, speakers=SPEAKERS)
    told = answers(results)
    predictor, means = checkpoint.load(model), SpeakerMeans()
    with Store(tmp_path / "store") as store, closing(Here()) as engine:
        tasks = [Task(Source(name, media=clips / name), features=True) for name in SPEAKERS]
        done = [outcome.extraction for _, outcome in engine.run(job_of(model, store), tasks)]
    found = [(one.utterances[0], one.utterances[0].features) for one in done if one is not None]
    steps = [{name: sequence.features for name, sequence in features.items()} for _, features in found]
    for rows in steps:
        means.add("anna", rows)
    for name, (utterance, _), rows in zip(SPEAKERS, found, steps, strict=True):
        usual = {modality: means.of_others("anna", modality, step) for modality, step in rows.items()}
        (expected,) = predictor.predict([Sample(rows, utterance.quality, utterance.text, usual=usual)])
        assert told[name][0] == pytest.approx(dict(expected.probabilities), abs=1e-5)
        assert told[name] != alone[name]
    assert told["5.mp4"] == alone["5.mp4"], "nobody says whose it is"
    by_name = {result.media.name: result for result in results}
    assert [person.name for person in by_name["0.mp4"].people] == ["anna"]
    assert {row.speaker for name in SPEAKERS for row in by_name[name].utterances} == {"anna"}
    document = json.loads((tmp_path / "out" / "0.json").read_text("utf-8"))
    assert document["info"]["related_recordings"] == 5
    assert "related_recordings" not in json.loads((tmp_path / "out" / "5.json").read_text("utf-8"))["info"]


def test_a_model_that_does_not_read_relative_answers_as_ever(clips: Path, tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "plain")
    alone = answers(batch(clips, model, tmp_path, out="alone"))
    results = batch(clips, model, tmp_path, speakers=SPEAKERS)
    assert answers(results) == alone
    assert all("related_recordings" not in result.info for result in results)


def test_every_way_of_working_gives_the_same_bytes_and_measures_once(model: Path, clips: Path, tmp_path: Path) -> None:
    batch(clips, model, tmp_path, speakers=SPEAKERS)
    before = work(tmp_path)
    assert before["face"] == before["voice"] == before["fusion"] == 6
    batch(clips, model, tmp_path, out="again", speakers=SPEAKERS)
    assert work(tmp_path) == before
    batch(clips, model, tmp_path, out="phases", store="phased", speakers=SPEAKERS, phases=True)
    engine = Processes(2)
    batch(clips, model, tmp_path, engine, out="processes", store="third", speakers=SPEAKERS)
    for folder in ("again", "phases", "processes"):
        assert outputs(tmp_path / folder) == outputs(tmp_path / "out")


def test_names_of_files_and_their_order_do_not_matter(model: Path, clips: Path, tmp_path: Path) -> None:
    batch(clips, model, tmp_path, speakers=SPEAKERS)
    before = work(tmp_path)
    for number in range(5):
        shutil.copy(clips / f"{number}.mp4", tmp_path / f"{9 - number}.mp4")
    renamed = {f"{9 - number}.mp4": "anna" for number in range(5)}
    batch([*tmp_path.glob("*.mp4")], model, tmp_path, out="renamed", speakers=renamed)
    assert work(tmp_path) == before


def test_another_recording_of_the_speaker_reruns_fusion_alone(model: Path, clips: Path, tmp_path: Path) -> None:
    batch([clips / name for name in [*SPEAKERS][:4]], model, tmp_path, speakers=SPEAKERS)
    before = work(tmp_path)
    told: list[tuple[list[Any], int]] = []
    explained = lambda steps, stored: told.append((steps, stored))  # noqa: E731
    five = [clips / name for name in SPEAKERS]
    batch(five, model, tmp_path, speakers=SPEAKERS, explained=explained, dry=True)
    old = [step for step in told[0][0] if step.source.media.name != "4.mp4"]
    assert {(step.stage, step.why) for step in old} == {
        ("fusion", "what is usual for the speaker in all recordings changed")
    } and len(old) == 4
    batch(five, model, tmp_path, speakers=SPEAKERS)
    assert work(tmp_path) - before == {**dict.fromkeys(before, 1), "fusion": 5}


def test_who_speaks_often_enough_in_a_recording_is_read_relative_to_that(model: Path, tmp_path: Path) -> None:
    long = clip(tmp_path / "long.mp4", seconds=25.0, grey=90)
    short = [clip(tmp_path / f"{number}.mp4", grey=40 + 50 * number) for number in range(3)]
    alone = answers(batch([long, *short], model, tmp_path, out="alone"))
    assert len(alone["long.mp4"]) > LEAST_OTHERS
    told = answers(batch([long, *short], model, tmp_path, speakers={path.name: "anna" for path in [long, *short]}))
    assert told["long.mp4"] == alone["long.mp4"]
    assert all(told[path.name] != alone[path.name] for path in short)


def test_a_recording_that_fails_is_left_out_and_the_rest_is_done_again_with_it(
    model: Path, clips: Path, tmp_path: Path
) -> None:
    shutil.copytree(clips, tmp_path / "in")
    whole = (tmp_path / "in" / "1.mp4").read_bytes()
    (tmp_path / "in" / "1.mp4").write_bytes(whole[:200])
    broken = batch(tmp_path / "in", model, tmp_path, speakers=SPEAKERS)
    assert Counter(result.state for result in broken) == {"ok": 5, "failed": 1}
    assert {result.info.get("related_recordings") for result in broken} == {None, 4}
    before = work(tmp_path)
    batch(tmp_path / "in", model, tmp_path, out="twice", speakers=SPEAKERS)
    assert work(tmp_path) - before in (Counter(), Counter(probe=1)), "only what fails is tried again"
    (tmp_path / "in" / "1.mp4").write_bytes(whole)
    mended = batch([], model, tmp_path, retry=True, speakers=SPEAKERS)
    assert {result.media.name for result in mended} == {*SPEAKERS}
    batch(tmp_path / "in", model, tmp_path, out="whole", speakers=SPEAKERS)
    assert outputs(tmp_path / "whole") == outputs(tmp_path / "out")


def test_a_damaged_result_is_made_again_with_the_others(model: Path, clips: Path, tmp_path: Path) -> None:
    batch(clips, model, tmp_path, speakers=SPEAKERS)
    for path in (tmp_path / "store" / "results").glob("*/*.parquet"):
        path.write_bytes(path.read_bytes()[:100])
    batch(clips, model, tmp_path, out="again", speakers=SPEAKERS)
    assert outputs(tmp_path / "again") == outputs(tmp_path / "out")


@pytest.mark.parametrize(
    ("people", "names"),
    [
        ({}, ["S1", "anna"]),
        ({"subject": "1"}, ["anna", "S2"]),
        ({"enrol": 900.0}, ["anna", "ben"]),
    ],
)
def test_of_several_people_the_table_names_who_is_interviewed(
    model: Path, tmp_path: Path, people: dict[str, Any], names: list[str]
) -> None:
    path = conversation(tmp_path / "two.mp4")
    if "enrol" in people:
        people = {"enrol": {"ben": str(write_media(tmp_path / "ben.wav", sound=tone(3.0, people["enrol"])))}}
    (found,) = batch(path, model, tmp_path, people=people, speakers={"two": "anna"})
    assert [person.name for person in found.people] == names
    assert [row.speaker for row in found.utterances] == names * 2


def test_only_the_named_speakers_utterances_tell_what_is_usual_for_them(model: Path, tmp_path: Path) -> None:
    path, short = conversation(tmp_path / "two.mp4"), clip(tmp_path / "one.mp4")
    with Store(tmp_path / "store") as store:
        job = job_of(model, store)
        sources = [Source(str(one), media=one, speaker="anna") for one in (path, short)]
        groups = related(sources, job, store)
        assert groups[sources[0]] == groups[sources[1]]
        with Worker(job) as worker:
            means = worker.related_means(groups[sources[0]])
    assert means._utterances["anna", "voice"] == 3, "two of the conversation, and that of the clip"
    assert {speaker for speaker, _ in means._utterances} == {"anna"}


def test_a_speaker_of_whom_nothing_is_left_is_told(model: Path, tmp_path: Path) -> None:
    path = conversation(tmp_path / "two.mp4")
    enrolled = {
        name: str(write_media(tmp_path / f"{name}.wav", sound=tone(3.0, hertz)))
        for name, hertz in (("ben", 200.0), ("carla", 900.0))
    }
    (found,) = batch(path, model, tmp_path, people={"enrol": enrolled}, speakers={"two": "anna"})
    assert [person.name for person in found.people] == ["ben", "carla"]
    assert [one.code for one in found.reasons if "anna was not heard" in one.what] == ["person_not_found"]
    assert found.state == "degraded"


def test_it_is_told_what_naming_the_speakers_of_short_recordings_would_do(
    model: Path, clips: Path, tmp_path: Path
) -> None:
    told: list[Event] = []
    batch(clips, model, tmp_path, hook=told.append)
    (hint,) = [event.message for event in told if event.kind == "info"]
    assert hint.startswith("6 recordings have too few utterances") and "--speakers" in hint
    told.clear()
    batch(clips, model, tmp_path, out="named", speakers=SPEAKERS, hook=told.append)
    batch([clips / "0.mp4", clips / "1.mp4"], model, tmp_path, out="two", hook=told.append)
    batch(clips, write_checkpoint(tmp_path / "plain"), tmp_path, out="plain", hook=told.append)
    assert not [event for event in told if event.kind == "info"]


def test_page_and_methods_tell_that_recordings_are_related(model: Path, clips: Path, tmp_path: Path) -> None:
    batch(clips, model, tmp_path, speakers=SPEAKERS)
    assert "named in 5 recordings of the run" in (tmp_path / "out" / "0.html").read_text("utf-8")
    assert "recordings of the run" not in (tmp_path / "out" / "5.html").read_text("utf-8")
    with Store(tmp_path / "store"):
        section, _ = emopipe.methods(tmp_path / "out", out=tmp_path / "methods", store=tmp_path / "store")
    assert "The speaker of 5 recordings was named beforehand." in section.read_text("utf-8")


def test_pseudonyms_hide_the_names_that_a_table_tells(model: Path, clips: Path, tmp_path: Path) -> None:
    table = tmp_path / "pseudonyms.csv"
    table.write_text("name,pseudonym\nanna,P1\n")
    protection = Protection(read_disguise(table, None))
    batch(clips, model, tmp_path, speakers=SPEAKERS, protection=protection)
    assert json.loads((tmp_path / "out" / "0.json").read_text("utf-8"))["people"][0]["name"] == "P1"
    written = [path for path in (tmp_path / "out").iterdir() if path.is_file()]
    assert written and not any("anna" in path.read_text("utf-8", "replace").lower() for path in written)


# The table


def table_of(folder: Path, text: str) -> Path:
    path = folder / "speakers.csv"
    path.write_text(text, "utf-8")
    return path


FILES = [Path("in/anna_1.mp4"), Path("in/ben.mp4"), Path("in/deep/ben.mp4"), Path("in/Zoë.wav")]


@pytest.mark.parametrize("columns", ["file,speaker,emotion", "file,person,group", "video;speaker;x"])
def test_files_are_named_as_far_as_it_takes(tmp_path: Path, columns: str) -> None:
    delimiter = ";" if ";" in columns else ","
    rows = [columns, "anna_1,anna,1", "in/ben.mp4,ben,2", "deep/ben,carla,3", "Zoe\u0308.wav,zoe,4", "other.mp4,x,5"]
    table = table_of(
        tmp_path, "\n".join(row.replace(",", delimiter) for row in [*rows, "in/anna_1.mp4,anna,6", ",y,7"])
    )
    assert read_speakers(table, FILES) == dict(zip(FILES, ["anna", "ben", "carla", "zoe"], strict=True))


def test_a_mapping_may_name_files_as_paths_or_by_their_names() -> None:
    by_path, by_name = {FILES[0]: "anna", FILES[3]: "zoe"}, {"anna_1": "anna", "Zoë.wav": "zoe", "else.mp4": "x"}
    assert read_speakers(by_path, FILES) == read_speakers(by_name, FILES) == by_path
    with pytest.raises(EmopipeError, match="EMO-512"):
        read_speakers({"ben": "ben"}, FILES)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("file,label\nanna_1.mp4,joy\n", "only the columns file, label"),
        ("name,speaker\nanna_1.mp4,anna\n", "only the columns name, speaker"),
        ("file,speaker\nben,ben\n", "may be in/ben.mp4 and in/deep/ben.mp4"),
        (
            "file,speaker\nanna_1,anna\nanna_1,ben\n",
            "line 3 of the speakers table: anna_1 is of ben, in line 2 of anna",
        ),
        ("file,speaker\nanna_1,S1\n", "speaker is S1"),
        ("file,speaker\nelse.mp4,anna\n", "none of the inputs"),
        ("file,speaker\nanna_1,\n", "none of the inputs"),
        ("", "no rows"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(EmopipeError, match="EMO-512") as caught:
        read_speakers(table_of(tmp_path, text), FILES)
    assert told in str(caught.value) and caught.value.exit_code == 2


def test_a_missing_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(EmopipeError, match="EMO-101"):
        read_speakers(tmp_path / "none.csv", FILES)


def test_without_a_change_kept_files_stay_kept(clips: Path, model: Path, tmp_path: Path) -> None:
    batch(clips, model, tmp_path, speakers=SPEAKERS)
    inputs = find_inputs([clips], tmp_path / "out").told({clips / name: who for name, who in SPEAKERS.items()})
    assert len(inputs.kept) == 6 and not inputs.files


@pytest.mark.parametrize("nobody", [None, float("nan"), "", "NA", "nan"])
def test_nobody_is_named_by_what_data_frames_hold_of_unknown_speakers(nobody: Any, tmp_path: Path) -> None:
    files = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    assert read_speakers({files[0]: "anna", files[1]: nobody}, files) == {files[0]: "anna"}
    table = tmp_path / "speakers.csv"
    table.write_text(f"file,speaker\na.mp4,anna\nb.mp4,{nobody}\n".replace("None", ""))
    assert read_speakers(table, files) == {files[0]: "anna"}
    with pytest.raises(EmopipeError, match="none of the inputs"):
        read_speakers(dict.fromkeys(files, nobody), files)
