"""Keys of results: they change with everything that decides a result, and with nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emopipe.errors import EmopipeError, PlanError
from emopipe.pipeline import weights
from emopipe.pipeline.config import ExtractionConfig
from emopipe.pipeline.execution.jobs import extraction_job
from emopipe.pipeline.execution.plan import Job, results, superseded
from emopipe.pipeline.progress import silent
from emopipe.pipeline.records import Source
from emopipe.pipeline.stages.stage import Context, Inputs, Stage, check_plan
from emopipe.pipeline.stages.table import ALL_STAGES, FUSION, STAGES, Given
from emopipe.pipeline.store.store import Content, Store
from tests.conftest import tone, write_media
from tests.pipeline.backends.test_plugins import TEXT, distribution

FILE = Content("a" * 64, 1, 1)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store(tmp_path / "store") as opened:
        yield opened


def job(store: Store, modalities: tuple[str, ...] = ("text", "face", "voice"), **tables: Any) -> Job:
    config = ExtractionConfig.from_dict(tables)
    return extraction_job(config, store, modalities=modalities, device="cpu", offline=True)


def keys(chosen: Job, source: Source | None = None, file: Content = FILE) -> dict[str, str]:
    source = source or Source("clip", media=Path("clip.mp4"))
    return {name: result.key for name, result in results(source, {"media": file}, chosen).items()}


def changed(first: dict[str, str], second: dict[str, str]) -> set[str]:
    return {name for name in first if first[name] != second[name]}


EVERYTHING = {stage.name for stage in STAGES}
#: Stages that come after the words, and after who speaks.
CUT = {"utterances", "people", "voice", "text", "subject"}
TURNS = {"turns", "words", *CUT}
NOBODY_ELSE = {"diarizer": "none"}


def test_every_option_of_the_configuration_is_declared_by_a_stage() -> None:
    declared = {name for stage in STAGES for name in stage.settings if "." in name}
    tables = {one.name: getattr(ExtractionConfig(), one.name) for one in dataclasses.fields(ExtractionConfig)}
    assert declared == {f"{name}.{one.name}" for name, table in tables.items() for one in dataclasses.fields(table)}


@pytest.mark.parametrize(
    ("tables", "again"),
    [
        ({"face": {"rate": 4.0}}, {"face", "speakers", *TURNS}),
        ({"face": {"deviations": True}}, {"subject"}),
        ({"voice": {"window": 0.5}}, {"voice"}),
        ({"text": {"layers": [-2, -1]}}, {"text"}),
        ({"speech": {"pause": 0.4}}, CUT),
        ({"speech": {"prompt": "Anna"}}, {"words", *CUT}),
        ({"speech": {"vad_threshold": 0.4}}, {"sound", "speech", "speakers", *TURNS}),
        ({"people": {"subject": "longest"}}, {"people", "subject"}),
        ({"people": {"count": 2}}, {"speakers", *TURNS}),
        ({"people": {"most": 3}}, {"speakers", *TURNS}),
        ({"people": NOBODY_ELSE}, {"speakers", *TURNS}),
        ({"people": {"baseline": "person"}}, {"baseline"}),
        ({"speech": {"backend": "faster-whisper", "asr": "faster-whisper-base"}}, {"words", *CUT}),
    ],
)
def test_an_option_changes_its_stage_and_those_after_it(store: Store, tables: Any, again: set[str]) -> None:
    assert changed(keys(job(store)), keys(job(store, **tables))) == again


def test_the_face_is_not_asked_who_speaks_where_one_person_does(store: Store) -> None:
    first, second = (job(store, people=NOBODY_ELSE, face={"rate": rate}) for rate in (4.0, 5.0))
    assert changed(keys(first), keys(second)) == {"face", "people", "subject"}
    assert "speakers" not in first.kinds and "people" not in first.kinds


def test_clips_of_people_count_by_their_bytes(store: Store, tmp_path: Path) -> None:
    clips = [tmp_path / name for name in ("one.wav", "same.wav", "other.wav")]
    for clip, hertz in zip(clips, (200.0, 200.0, 900.0), strict=True):
        write_media(clip, sound=tone(0.5, hertz))
    for option, again in (
        (lambda clip: {"enrol": {"anna": clip}}, {"names", "people", "subject"}),
        (lambda clip: {"baseline": clip}, {"names", "people", "subject", "baseline"}),
    ):
        one, same, other = (keys(job(store, people=option(str(clip)))) for clip in clips)
        assert one == same
        assert changed(one, other) == changed(keys(job(store)), one) == again
    enrolled = {"enrol": {"anna": str(clips[0])}}
    assert changed(keys(job(store, people=enrolled)), keys(job(store, people={**enrolled, "baseline": "person"}))) == {
        "baseline"
    }


def test_the_speaker_encoder_counts_only_where_it_works(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = weights.entry("campplus")
    (tmp_path / "given" / entry.name).mkdir(parents=True)
    (tmp_path / "given" / entry.name / entry.ready).write_bytes(b"other")

    def found() -> list[dict[str, str]]:
        voices: list[dict[str, str]] = [{}, {"speaker_encoder": ""}]
        return [keys(job(store, people=people, voice=voice)) for voice in voices for people in ({}, NOBODY_ELSE)]

    before = found()
    monkeypatch.setenv("EMOPIPE_WEIGHTS", str(tmp_path / "given"))
    again = [changed(*pair) for pair in zip(before, found(), strict=True)]
    assert again == [{"speakers", *TURNS}, {"voice"}, {"speakers", *TURNS}, set()]


def test_rows_of_a_table_are_of_one_person_each(store: Store) -> None:
    def labelled(**people: Any) -> dict[str, str]:
        config = ExtractionConfig.from_dict({"people": people})
        return keys(extraction_job(config, store, labelled=True, device="cpu", offline=True))

    assert labelled() == labelled(count=2) == labelled(baseline="person")


def test_other_bytes_change_what_reads_them_and_another_path_nothing(store: Store) -> None:
    chosen = job(store)
    idle = {"names", "baseline", "tracks"}
    assert changed(keys(chosen), keys(chosen, file=Content("b" * 64, 1, 1))) == EVERYTHING - idle
    assert keys(chosen) == keys(chosen, Source("moved", media=Path("elsewhere/clip.mov")))


def test_what_is_not_wanted_does_not_matter(store: Store) -> None:
    first, second = (job(store, ("face",), voice={"window": seconds}) for seconds in (1.0, 2.0))
    assert keys(first) == keys(second) and first.kinds == ("face",)
    found = results(Source("clip", media=Path("clip.mp4")), {"media": FILE}, first)
    assert {name for name, result in found.items() if not result.idle} == {
        "probe",
        "face",
        "turns",
        "utterances",
        "subject",
    }


def test_words_alone_have_nothing_to_do_but_text(store: Store) -> None:
    found = results(Source("row", text="so glad"), {}, job(store))
    assert [name for name, result in found.items() if not result.quick] == ["text"]


def test_other_weights_under_the_same_name_are_others(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys(job(store))
    entry = weights.entry("silero-vad")
    folder = tmp_path / "given"
    (folder / entry.name).mkdir(parents=True)
    monkeypatch.setenv("EMOPIPE_WEIGHTS", str(folder))
    found = []
    for content in (b"one", b"other"):
        (folder / entry.name / entry.ready).write_bytes(content)
        chosen = job(store)
        assert list(chosen.unverified) == ["silero-vad"] == list(chosen.sealed_config()["unverified"])
        found.append(keys(chosen))
    again = {"sound", "speech", "speakers", *TURNS}
    assert changed(before, found[0]) == changed(found[0], found[1]) == again


def test_a_plugin_counts_with_its_version_its_table_and_the_files_that_it_names(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, own = tmp_path / "site", tmp_path / "own.bin"
    monkeypatch.syspath_prepend(str(site))
    distribution(site, "vowels", {TEXT: {"vowels": "vowels:create"}})
    own.write_bytes(b"one")
    text = {"backend": "vowels", "encoder": "", "options": {"table": str(own)}}
    first = job(store, text=text)
    assert first.bases["text"].libraries == {"vowels": "1.5"} and str(own) in first.unverified
    assert "transformers" not in first.sealed_config()["versions"]
    own.write_bytes(b"another")
    assert changed(keys(first), keys(job(store, text=text))) == {"text"}
    more = {**text, "max_tokens": 9}
    assert changed(keys(job(store, text=text)), keys(job(store, text=more))) == {"text"}
    (site / "vowels-1.5.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: vowels\nVersion: 1.6\n")
    assert job(store, text=text).bases["text"].libraries == {"vowels": "1.6"}


def test_a_plan_in_which_something_is_missing_is_refused() -> None:
    check_plan(ALL_STAGES, Given)

    class Lost(Inputs):
        nowhere: int

    class Mistaken(Inputs):
        duration: str

    @dataclasses.dataclass(frozen=True)
    class Nothing:
        nothing: int

    for inputs, message in ((Lost, "'odd' requires 'nowhere'"), (Mistaken, "'odd' reads 'duration' as str")):
        odd = Stage("odd", 1, inputs, Nothing, lambda inputs, context: Nothing(0))
        with pytest.raises(PlanError, match=message):
            check_plan((*STAGES, odd, FUSION), Given)


def test_a_stage_reads_what_it_declares_and_nothing_else() -> None:
    class Duration(Inputs):
        duration: float

    @dataclasses.dataclass(frozen=True)
    class Made:
        made: float

    def ask(read: Callable[[Any, Context], float]) -> dict[str, object]:
        stage = Stage(
            "curious", 1, Duration, Made, lambda i, c: Made(read(i, c)), settings=("face.rate", "people.count")
        )
        backends: Any = None
        return stage.compute({"duration": 3.0, "sound": 1.0}.__getitem__, ExtractionConfig(), backends, silent)

    assert ask(lambda inputs, context: inputs.duration * context.settings.face.rate) == {"made": 15.0}
    with pytest.raises(AttributeError, match="does not declare 'sound'"):
        ask(lambda inputs, context: inputs.sound)
    with pytest.raises(PlanError, match=r"stage curious reads the setting face\.window without declaring it"):
        ask(lambda inputs, context: context.settings.face.window)
    with pytest.raises(PlanError, match="reads the setting voice without"):
        ask(lambda inputs, context: context.settings.voice.window)


def test_unknown_backends_and_devices_are_told_before_work(store: Store) -> None:
    for tables in ({"text": {"backend": "mystery"}}, {"face": {"backend": "pyfeat", "detector": "v9"}}):
        with pytest.raises(EmopipeError, match="EMO-507"):
            job(store, **tables)
    with pytest.raises(EmopipeError, match="unknown device"):
        extraction_job(ExtractionConfig(), store, device="abacus")


def test_results_of_weights_that_come_with_emopipe_are_not_out_of_date(store: Store) -> None:
    chosen = job(store)
    found = results(Source("clip", media=Path("clip.mp4")), {"media": FILE}, chosen)
    assert "expression-encoder" in found["face"].facts["libraries"]
    assert not any(superseded(result.facts) for result in found.values() if result.stage.stored)
    facts = found["face"].facts
    changed = {**facts, "libraries": {**facts["libraries"], "expression-encoder": "0" * 12}}
    assert superseded(changed) and superseded({**facts, "version": facts["version"] - 1})
