"""`emopipe speakers`: recordings put together by the voices that the store holds, as a table for `emopipe run`."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import emopipe
from emopipe.errors import EmopipeError
from emopipe.extractors.speech.campplus import WIDTH
from emopipe.extractors.windows import FeatureSequence
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.datasets.speakers_table import read_speakers
from emopipe.pipeline.records import Absent, FileResult, Person
from emopipe.pipeline.report.outputs import Sink
from emopipe.pipeline.store.store import Store
from emopipe.pipeline.studies.speakers import group, named, suggest_speakers
from tests.conftest import SAMPLES
from tests.pipeline.studies.test_select import utterance

ANNA, BEN = Person(0, "S1", "interviewee", talk=4.0), Person(1, "S2", "interviewer", talk=9.0)
AXES = np.eye(WIDTH)


def voice(axis: int, noise: int = 0) -> FeatureSequence:
    """Features of an utterance in two windows: what else is measured, and the speaker encoder's vector."""
    vector = AXES[axis] + 0.4 * AXES[100 + noise]
    return FeatureSequence(np.arange(2.0), np.arange(1.0, 3.0), np.tile(np.append(99.0, vector), (2, 1)))


class Run:
    """What a run leaves in results and store, as far as voices go."""

    def __init__(self, folder: Path) -> None:
        self.results, self.store, self.media = folder / "results", folder / "store", folder / "clips"
        self._files: list[FileResult] = []

    def add(
        self,
        name: str,
        *voices: FeatureSequence | Absent,
        people: Sequence[Person] = (Person(0, "S1", talk=2.0),),
        speakers: Sequence[str] = (),
        encoder: str = "campplus",
    ) -> Run:
        media = self.media / name
        media.parent.mkdir(parents=True, exist_ok=True)
        media.touch()
        key = f"voice {len(self._files):040x}"
        facts = {"stage": "voice", "content": name, "version": 1, "parameters": {"voice.speaker_encoder": encoder}}
        with Store(self.store) as store:
            store.put(key, {"voice": list(voices)}, {**facts, "libraries": {}})
        by = speakers or [people[0].name] * len(voices)
        rows = [utterance(3.0 * number, speaker=speaker) for number, speaker in enumerate(by)]
        self._files.append(
            FileResult(media, "ok", [], 12.0, {}, "emopipe-default", list(people), [], rows, keys={"voice": key})
        )
        return self

    def finish(self) -> Run:
        sink = Sink(self.results, [file.media for file in self._files], "c0", "1")
        for file in self._files:
            sink.write(file)
        sink.finish()
        return self


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def speakers(run: Run) -> dict[str, str | None]:
    rows = suggest_speakers(run.finish().results, None, store=run.store)
    return {row["file"]: row["speaker"] for row in rows}


def test_recordings_with_alike_voices_are_of_one_speaker(run: Run) -> None:
    run.add("b/1.mp4", voice(0)).add("a.mp4", voice(1, 1)).add("b/2.mp4", voice(0, 2), voice(0, 3))
    run.add("silent.mp4", Absent("no_audio_stream"))
    rows = suggest_speakers(run.finish().results, None, store=run.store)
    assert [(row["file"], row["speaker"], row["recordings"]) for row in rows] == [
        ("1.mp4", "P1", 2),
        ("a.mp4", "P2", 1),
        ("2.mp4", "P1", 2),
        ("silent.mp4", None, None),
    ]
    assert rows[0]["similarity"] == rows[2]["similarity"] > 0.8 and rows[1]["similarity"] is None
    assert [row["next_speaker"] for row in rows] == ["P2", "P1", "P2", None]
    assert all(row["next_similarity"] == 0 for row in rows[:3])


def test_who_is_interviewed_is_compared_not_who_asks(run: Run) -> None:
    for number, axis in enumerate((0, 0, 1)):
        both = (voice(axis), voice(5), voice(5), voice(5))
        run.add(f"{number}.mp4", *both, people=[ANNA, BEN], speakers=["S1", "S2", "S2", "S2"])
    assert list(speakers(run).values()) == ["P1", "P1", "P2"]


def test_names_in_the_results_are_kept_and_go_over_to_alike_voices(run: Run) -> None:
    run.add("1.mp4", voice(0), people=[Person(0, "P1")]).add("2.mp4", voice(1)).add("3.mp4", voice(0, 1))
    assert speakers(run) == {"1.mp4": "P1", "2.mp4": "P2", "3.mp4": "P1"}


def test_the_command_writes_a_table_that_a_run_reads_and_never_writes_over_it(run: Run, tmp_path: Path) -> None:
    run.add("a/1.mp4", voice(0)).add("b/1.mp4", voice(0, 1)).add("silent.mp4", Absent("no_audio_stream")).finish()
    table = tmp_path / "speakers.csv"
    command = ["speakers", str(run.results), "--store", str(run.store), "--out", str(table)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0 and "--speakers" in done.output and "silent" not in done.output, done.output
    with table.open(newline="", encoding="utf-8") as file:
        assert [row["speaker"] for row in csv.DictReader(file)] == ["P1", "P1", ""]
    files = [run.media / name for name in ("a/1.mp4", "b/1.mp4", "silent.mp4")]
    assert read_speakers(table, files) == dict.fromkeys(files[:2], "P1")
    table.write_text("file,speaker\na/1.mp4,anna\n")
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2 and "EMO-509" in done.output and "anna" in table.read_text()


def test_the_data_frame_serves_as_speakers_of_a_run(run: Run) -> None:
    run.add("1.mp4", voice(0)).add("2.mp4", voice(0, 1)).add("silent.mp4", Absent("no_audio_stream")).finish()
    table = emopipe.speakers(run.results, store=run.store, progress=False)
    assert table.set_index("file")["speaker"].dropna().to_dict() == {"1.mp4": "P1", "2.mp4": "P1"}


@pytest.mark.parametrize(("encoder", "kept", "hint"), [("", True, "emopipe-default"), ("campplus", False, "--store")])
def test_what_cannot_be_compared_is_an_error_that_tells_what_to_do(
    run: Run, encoder: str, kept: bool, hint: str
) -> None:
    run.add("1.mp4", voice(0), encoder=encoder).add("2.mp4", voice(0), encoder=encoder).finish()
    with pytest.raises(EmopipeError) as caught:
        suggest_speakers(run.results, None, store=run.store if kept else run.store / "none")
    assert caught.value.code == "EMO-509" and hint in caught.value.hint


NAMES = st.none() | st.sampled_from(["anna", "P1", "P3"])


@given(st.lists(st.tuples(st.integers(0, 3), NAMES), min_size=1, max_size=12))
def test_told_names_stay_and_new_ones_are_nobody_elses(rows: list[tuple[int, str | None]]) -> None:
    numbers, told = zip(*rows, strict=True)
    found = named(numbers, told)
    assert [name for name, known in zip(found, told, strict=True) if known] == [known for known in told if known]
    unknown = {number for number in numbers if not any(told[at] for at, one in enumerate(numbers) if one == number)}
    made = {number: {name for name, one in zip(found, numbers, strict=True) if one == number} for number in unknown}
    assert all(len(names) == 1 for names in made.values())
    assert len(set().union(*made.values())) == len(unknown) and not set().union(*made.values()) & set(told)


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=12))
def test_people_are_told_apart_in_any_order(people: list[int]) -> None:
    vectors = np.array([AXES[person] + 0.4 * AXES[100 + at] for at, person in enumerate(people)])
    numbers = group(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    assert all((numbers[a] == numbers[b]) == (people[a] == people[b]) for a in range(len(people)) for b in range(a))


@pytest.mark.slow
def test_the_voice_of_the_samples_is_known_again(weight: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("whisper-base", "campplus", "silero-vad"):
        weight(name)
    clips = [SAMPLES / name for name in ("happy.mp4", "interview.mp4", "silent.mp4")]
    emopipe.run(clips, modalities="voice", out=tmp_path / "results", store=tmp_path / "store", progress=False)
    table = emopipe.speakers(tmp_path / "results", store=tmp_path / "store", progress=False)
    assert table["speaker"].dropna().tolist() == ["P1", "P1"] and table["speaker"].isna().tolist() == [
        False,
        False,
        True,
    ]
    assert table["similarity"][0] > 0.8


def test_files_are_named_so_that_a_run_finds_them(run: Run) -> None:
    names = ("a.mp4", "sub/a.mp4", "b\u200bc.mp4")
    for number, name in enumerate(names):
        run.add(name, voice(0, number))
    table = speakers(run)
    files = [run.media / name for name in names]
    assert read_speakers({name: speaker or "" for name, speaker in table.items()}, files) == dict.fromkeys(files, "P1")
