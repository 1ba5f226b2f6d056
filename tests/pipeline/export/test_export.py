"""Exports say what the record says: each format is read back by a library that did not write it."""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import openpyxl
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import emopipe
from emopipe.errors import EmopipeError, OptionConflict, OutputError, UnknownName, reason
from emopipe.extractors.contracts import Word
from emopipe.extractors.face.table import face_table
from emopipe.extractors.windows import FeatureSequence
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.cli.commands.export import FORMATS as NAMED
from emopipe.pipeline.export.elan_praat import apart, words_of
from emopipe.pipeline.export.export import Exported, export, export_folder
from emopipe.pipeline.export.formats import FORMATS, chosen_formats
from emopipe.pipeline.export.recording import Recording, file_result, read_recordings
from emopipe.pipeline.export.subtitles import one_line
from emopipe.pipeline.records import Absent, FileResult, Person, TurnResult, UtteranceResult
from emopipe.pipeline.report.outputs import Sink, document, row_of
from emopipe.pipeline.store.store import Store
from tests.conftest import SAMPLES

HOSTILE = '=HYPERLINK("http://x")<script>alert(1)</script> & --> \n\n{{ 7*7 }} \x00\x1b[31m \' " </v>'
KEYS = {"face": "f" * 40, "voice": "a" * 40, "words": "b" * 40}
#: ELAN's own schemas of EAF: of the version that we write, and of the latest. File -> sha256.
EAF_SCHEMAS = {
    "EAFv2.8.xsd": "0cc4790ef04882a7f4acaaf1faad62d38a2c4eeea7396d1ea4255654fcaa4326",
    "EAFv3.0.xsd": "59e76f90d5840813314b1e635480d044287b811ebd63a40e25cb4e73c6ad72bb",
}


def utterance(start: float, end: float, **rest: Any) -> UtteranceResult:
    facts: dict[str, Any] = {
        "start": start,
        "end": end,
        "speaker": "S1",
        "role": None,
        "overlap": 0.0,
        "text": "Good morning.",
        "label": "happiness",
        "value": None,
        "probabilities": {"anger": 0.2, "happiness": 0.8},
        "weights": {"face": 0.6, "text": 0.4},
        "unimodal": {"face": {"anger": 0.1, "happiness": 0.9}, "text": {"anger": 0.3, "happiness": 0.7}},
        "absent": {"voice": "too_short"},
        "quality": {"face": 0.9, "text": 1.0},
        "confidence": 0.8,
        "abstained": False,
    }
    return UtteranceResult(**{**facts, **rest})


def file_of(utterances: list[UtteranceResult], **rest: Any) -> FileResult:
    people = [Person(0, "S1", "interviewer", (0,), 3.0), Person(1, "Ana María", "interviewee", (2,), 5.0)]
    turns = [TurnResult(0.5, 1.75, 0, False), TurnResult(2.0, 4.0, 1, True), TurnResult(3.5, 5.0, 0, True)]
    facts: dict[str, Any] = {
        "media": Path("folder/two people.mp4"),
        "state": "degraded",
        "reasons": [reason("no_speech", modality="text")],
        "duration": 6.0,
        "info": {"language": "en", "width": 640, "height": 480, "frame_rate": 25.0},
        "checkpoint": "emopipe-default",
        "people": people,
        "turns": turns,
        "utterances": utterances,
        "keys": KEYS,
    }
    return FileResult(**{**facts, **rest})


TWO_PEOPLE = file_of(
    [
        utterance(0.5, 1.75),
        utterance(
            2.0, 4.0, speaker="Ana María", text="Ich – bin müde.", label="anger", abstained=True, confidence=0.41
        ),
        utterance(3.5, 5.0, text="", label=None, probabilities={}, confidence=None, abstained=True),
    ]
)
WORDS = [
    Word(" Good", 0.5, 1.0, 0.9),
    Word(" morning.", 1.0, 1.75, 0.9),
    Word(" Ich", 2.0, 2.5, 0.8),
    Word(" bin", 2.5, 3.0, 0.8),
    Word(" müde.", 3.0, 4.0, 0.8),
]


def measured(**columns: float) -> dict[str, float | int | None]:
    return {"x0": 0.25, "y0": 0.5, "x1": 0.5, "y1": 0.75, "quality": 0.5, "pitch": 10, "yaw": -20, "roll": 5} | columns


FACES = face_table(
    [
        measured(time=0.0, track=0, AU12=0.75, emotion_anger=0.1, emotion_happiness=0.9),
        measured(time=0.2, track=0, AU12=0.25, emotion_anger=0.2, emotion_happiness=0.8),
        measured(time=0.2, track=2, AU12=0.5, emotion_anger=0.3, emotion_happiness=0.7),
        measured(time=0.4, track=7, AU12=0.0, emotion_anger=0.4, emotion_happiness=0.6),
    ],
    backend="pyfeat",
    version="2",
    frames=3,
)
VOICE = [
    FeatureSequence(np.array([0.5, 1.0]), np.array([1.0, 1.75]), np.array([[1, 2, 3], [4, 5, 6]], np.float32)),
    Absent("too_short"),
    FeatureSequence(np.array([3.5]), np.array([5.0]), np.array([[7, 8, 9]], np.float32)),
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with what stages measured of the recording."""
    results: dict[str, dict[str, Any]] = {
        "face": {"face_table": FACES},
        "voice": {"voice": VOICE},
        "words": {"words": WORDS, "language": "en"},
    }
    with Store(tmp_path / "store") as store:
        for stage, values in results.items():
            store.put(KEYS[stage], values, {"stage": stage, "content": "", "parameters": {}})
        yield store


def exported(result: FileResult, store: Store | None, name: str, out: Path) -> Path:
    done = export([Recording(result, "two people", store)], [name], out)
    return done.files[0]


@pytest.fixture
def written(store: Store, tmp_path: Path) -> Exported:
    """The recording in every format."""
    return export([Recording(TWO_PEOPLE, "two people", store)], list(FORMATS), tmp_path / "out")


def test_every_format_writes_its_files_and_nothing_is_missing(written: Exported, tmp_path: Path) -> None:
    assert [path.name for path in written.files] == [
        f"two people{file.suffix}" for files in FORMATS.values() for file in files
    ]
    assert not written.incomplete
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in written.files)


def test_the_same_export_leaves_the_same_bytes(written: Exported, store: Store, tmp_path: Path) -> None:
    again = export([Recording(TWO_PEOPLE, "two people", store)], list(FORMATS), tmp_path / "other" / "out")
    for one, other in zip(written.files, again.files, strict=True):
        if one.suffix != ".eaf":  # which links the media from where it lies
            assert one.read_bytes() == other.read_bytes(), one.name


def test_utterances_in_parquet_jsonl_and_excel_are_those_of_the_record(written: Exported, tmp_path: Path) -> None:
    out = tmp_path / "out"
    parquet = pd.read_parquet(out / "two people.utterances.parquet")
    lines = [json.loads(line) for line in (out / "two people.jsonl").read_text("utf-8").splitlines()]
    book = openpyxl.load_workbook(out / "two people.xlsx")
    header, *rows = book["utterances"].iter_rows(values_only=True)
    assert book.sheetnames == ["utterances", "people", "turns", "about"]
    assert [one["text"] for one in lines] == ["Good morning.", "Ich – bin müde.", ""]
    assert list(header) == list(parquet.columns)
    for index, one in enumerate(TWO_PEOPLE.utterances):
        assert lines[index] == {"media": "folder/two people.mp4", "utterance": index, **row_of(one)}
        table, sheet = parquet.iloc[index], dict(zip(header, rows[index], strict=True))
        for name in ("start", "end", "abstained"):
            assert table[name] == sheet[name] == getattr(one, name)
        assert (sheet["label"], sheet["confidence"]) == (one.label, one.confidence)
        assert sheet.get("probability_happiness") == one.probabilities.get("happiness")
        assert (None if pd.isna(table["label"]) else table["label"]) == one.label
        assert table["absent_voice"] == sheet["absent_voice"] == "too_short"
    assert parquet["role"].isna().all() and parquet["value"].dtype == float
    assert [row[1] for row in book["people"].iter_rows(min_row=2, values_only=True)] == ["S1", "Ana María"]


def test_frames_are_read_by_pyfeat(written: Exported, tmp_path: Path) -> None:
    from feat.utils.io import read_feat

    fex = read_feat(str(tmp_path / "out" / "two people.frames.csv"))
    assert fex["frame"].tolist() == [0, 5, 5, 10] and fex["timestamp"].tolist() == [0.0, 0.2, 0.2, 0.4]
    assert fex["person"].fillna("").tolist() == ["S1", "S1", "Ana María", ""]
    assert fex.aus["AU12"].tolist() == [0.75, 0.25, 0.5, 0.0] and list(fex.aus) == ["AU12"]
    boxes = fex.faceboxes[["FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight"]]
    assert boxes.iloc[0].tolist() == [160, 240, 160, 120]
    assert fex.emotions["happiness"].tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert fex.poses[["Pitch", "Roll", "Yaw"]].iloc[0].tolist() == pytest.approx(np.radians([-10, 5, 20]).tolist())


def test_frames_in_parquet_equal_those_in_csv(written: Exported, tmp_path: Path) -> None:
    parquet = pd.read_parquet(tmp_path / "out" / "two people.frames.parquet")
    csv = pd.read_csv(tmp_path / "out" / "two people.frames.csv")
    pd.testing.assert_frame_equal(parquet, csv, check_dtype=False, rtol=1e-5)


def test_frames_in_openfaces_columns_have_its_units(written: Exported, tmp_path: Path) -> None:
    table = pd.read_csv(tmp_path / "out" / "two people.openface.csv")
    assert table["face_id"].tolist() == [0, 0, 2, 7] and set(table["success"]) == {1}
    assert table["AU12_c"].tolist() == [1, 0, 1, 0] and not [name for name in table if name.endswith("_r")]
    turned = table[["pose_Rx", "pose_Ry", "pose_Rz"]].iloc[0].tolist()
    assert turned == pytest.approx(np.radians([10, 20, -5]).tolist())


def test_voice_is_a_row_per_window(written: Exported, tmp_path: Path) -> None:
    voice = pd.read_parquet(tmp_path / "out" / "two people.voice.parquet")
    assert voice["utterance"].tolist() == [0, 0, 2] and voice["end"].tolist() == [1.0, 1.75, 5.0]
    assert voice.filter(like="voice_").to_numpy().tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_subtitles_are_read_by_another_library(written: Exported, tmp_path: Path) -> None:
    import pysubs2

    for suffix in (".srt", ".vtt"):
        cues = pysubs2.load(str(tmp_path / "out" / f"two people{suffix}"), encoding="utf-8")
        assert [(cue.start, cue.end) for cue in cues] == [(500, 1750), (2000, 4000), (3500, 5000)], suffix
        assert "Good morning." in cues[0].plaintext and "Ich – bin müde." in cues[1].plaintext
    srt = (tmp_path / "out" / "two people.srt").read_text("utf-8")
    assert "S1: Good morning.\n[happiness 80%]" in srt and "[uncertain: anger 41%]" in srt
    vtt = (tmp_path / "out" / "two people.vtt").read_text("utf-8")
    assert "<v.happiness S1>Good morning.</v>" in vtt and "<v.anger.uncertain Ana María>Ich – bin müde.</v>" in vtt


def test_elan_has_tiers_per_person(written: Exported, tmp_path: Path) -> None:
    from speach import elan

    file = elan.read_eaf(str(tmp_path / "out" / "two people.eaf"))
    tiers = {tier.ID: [(a.from_ts.value, a.to_ts.value, a.text) for a in tier] for tier in file if tier.time_alignable}
    assert tiers == {
        "utterance@S1": [(500, 1750, "Good morning."), (3500, 5000, "")],
        "words@S1": [(500, 1000, "Good"), (1000, 1750, "morning.")],
        "turns@S1": [(500, 1750, ""), (3500, 5000, "overlap")],
        "utterance@Ana María": [(2000, 4000, "Ich – bin müde.")],
        "words@Ana María": [(2000, 2500, "Ich"), (2500, 3000, "bin"), (3000, 4000, "müde.")],
        "turns@Ana María": [(2000, 4000, "overlap")],
    }
    for name, values in (("emotion", ["happiness"]), ("confidence", ["0.8000"])):
        tier = file[f"{name}@S1"]
        assert [one.text for one in tier] == values and tier.parent_ref == "utterance@S1"
        assert [one.ref.text for one in tier] == ["Good morning."]
    assert [tier.participant for tier in file] == ["S1"] * 5 + ["Ana María"] * 5
    assert file.media_url == "file://" + str(Path("folder/two people.mp4").resolve())


@pytest.fixture(scope="session")
def elan_schemas(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """ELAN's own schemas, which the source package of pympi brings for its tests."""
    folder = tmp_path_factory.mktemp("pympi")
    wanted = f"pympi-ling=={version('pympi-ling')}"
    options = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--quiet", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, wanted]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"no package index to fetch the source of {wanted} from: {done.stderr[-300:]}")
    (package,) = folder.glob("*.tar.gz")
    paths = []
    with tarfile.open(package) as archive:
        for name, digest in EAF_SCHEMAS.items():
            member = archive.extractfile(next(one for one in archive.getnames() if one.endswith(f"/{name}")))
            assert member is not None
            content = member.read()
            assert hashlib.sha256(content).hexdigest() == digest
            paths.append(folder / name)
            paths[-1].write_bytes(content)
    return paths


@pytest.mark.slow
def test_elan_files_are_valid_by_elans_own_schemas(written: Exported, tmp_path: Path, elan_schemas: list[Path]) -> None:
    from xmlschema import XMLSchema

    path = tmp_path / "out" / "two people.eaf"
    assert "EAFv2.8.xsd" in path.read_text("utf-8")[:1000]
    empty = file_of([], people=[], turns=[], keys={"probe": "0"})
    others = [Recording(hostile_file(), "hostile"), Recording(empty, "empty")]
    files = [path, *export(others, ["eaf"], tmp_path / "others").files]
    broken = tmp_path / "broken.eaf"
    broken.write_text(path.read_text("utf-8").replace('TIME_SLOT_REF1="ts1"', 'TIME_SLOT_REF1="ts999"'), "utf-8")
    for schema in map(XMLSchema, map(str, elan_schemas)):
        assert [(one.name, str(error)) for one in files for error in schema.iter_errors(str(one))] == []
        assert list(schema.iter_errors(str(broken))), "the schema finds what points nowhere"


def test_elan_files_keep_what_the_schema_asks_for(written: Exported, tmp_path: Path) -> None:
    root = ElementTree.parse(tmp_path / "out" / "two people.eaf").getroot()
    slots = {one.get("TIME_SLOT_ID"): int(one.get("TIME_VALUE") or 0) for one in root.iter("TIME_SLOT")}
    ids = [one.get("ANNOTATION_ID") for one in root.iter() if one.get("ANNOTATION_ID")]
    types = {one.get("LINGUISTIC_TYPE_ID"): one for one in root.iter("LINGUISTIC_TYPE")}
    assert list(slots.values()) == sorted(slots.values()) and len(ids) == len(set(ids))
    for one in root.iter("ALIGNABLE_ANNOTATION"):
        assert slots[one.get("TIME_SLOT_REF1")] < slots[one.get("TIME_SLOT_REF2")]
    assert {one.get("ANNOTATION_REF") for one in root.iter("REF_ANNOTATION")} <= set(ids)
    assert {one.get("LINGUISTIC_TYPE_REF") for one in root.iter("TIER")} == set(types)
    entries = [one.text for one in root.iter("CVE_VALUE")]
    assert entries == ["anger", "happiness"] and types["emotion"].get("CONTROLLED_VOCABULARY_REF") == "emotion"
    order = [one.tag for one in root]
    known = ["HEADER", "TIME_ORDER", "TIER", "LINGUISTIC_TYPE", "LANGUAGE", "CONSTRAINT", "CONTROLLED_VOCABULARY"]
    assert list(dict.fromkeys(order)) == known


def test_praat_has_the_same_tiers(written: Exported, tmp_path: Path) -> None:
    import tgt

    grid = tgt.read_textgrid(str(tmp_path / "out" / "two people.TextGrid"), encoding="utf-8")
    tiers = {tier.name: [(one.start_time, one.end_time, one.text) for one in tier] for tier in grid}
    assert tiers["utterance@S1"] == [(0.5, 1.75, "Good morning."), (3.5, 5.0, "-")]
    assert tiers["emotion@Ana María"] == [(2.0, 4.0, "anger")]
    assert tiers["words@S1"] == [(0.5, 1.0, "Good"), (1.0, 1.75, "morning.")]
    assert tiers["turns@S1"] == [(0.5, 1.75, "S1"), (3.5, 5.0, "overlap")]
    assert grid.end_time == 6.0


def test_turns_are_read_from_rttm(written: Exported, tmp_path: Path) -> None:
    from pyannote.database.util import load_rttm

    turns = load_rttm(str(tmp_path / "out" / "two people.rttm"))["two_people"]
    read = [(round(turn.start, 3), round(turn.end, 3), name) for turn, _, name in turns.itertracks(yield_label=True)]
    assert read == [(0.5, 1.75, "S1"), (2.0, 4.0, "Ana_María"), (3.5, 5.0, "S1")]


def test_results_read_back_are_the_results(tmp_path: Path) -> None:
    facts = document(TWO_PEOPLE, "c0", "1")
    assert document(file_result(json.loads(json.dumps(facts))), "c0", "1") == facts
    sink = Sink(tmp_path, [TWO_PEOPLE.media], "c0", "1")
    sink.write(TWO_PEOPLE)
    sink.finish()
    (read,) = read_recordings(tmp_path)
    assert read.result == file_result(facts) and read.stem == "two people"


def test_without_the_store_files_are_incomplete_and_say_so(tmp_path: Path) -> None:
    done = export([Recording(TWO_PEOPLE, "two people")], list(FORMATS), tmp_path)
    left_out = {".frames.parquet", ".voice.parquet", ".frames.csv", ".openface.csv"}
    assert not [path for path in done.files if path.name.removeprefix("two people") in left_out]
    assert (tmp_path / "two people.eaf").exists()
    (why,) = done.incomplete.values()
    assert why.code == "not_in_store" and "face, voice, words" in why.what and ".eaf" in why.what and why.hint


def test_a_recording_without_face_or_voice_lacks_nothing(store: Store, tmp_path: Path) -> None:
    store.put("e" * 40, {"face_table": Absent("no_video_stream")}, {"stage": "face", "content": ""})
    silent = file_of([utterance(0, 1)], keys={"face": "e" * 40})
    done = export([Recording(silent, "clip", store)], ["parquet", "eaf"], tmp_path / "out")
    assert [path.name for path in done.files] == ["clip.utterances.parquet", "clip.eaf"] and not done.incomplete


def test_a_recording_without_utterances_exports(tmp_path: Path) -> None:
    empty = file_of([], people=[], turns=[], keys={"probe": "0"})
    done = export([Recording(empty, "clip")], list(FORMATS), tmp_path)
    assert len(done.files) == 8 and not done.incomplete


def hostile_file() -> FileResult:
    """Words, names and labels that other programs might take for something else."""
    told = utterance(0.5, 1.0, text=HOSTILE, speaker=HOSTILE, label=HOSTILE, probabilities={HOSTILE: 0.8, "joy": 0.2})
    people = [Person(0, HOSTILE, None, (), 1.0)]
    return file_of([told], people=people, turns=[TurnResult(0.5, 1.0, 0, False)], media=Path("a\udcff<b>.mp4"))


@pytest.mark.parametrize("name", FORMATS)
def test_hostile_words_and_names_do_nothing(name: str, tmp_path: Path) -> None:
    for path in export([Recording(hostile_file(), "clip")], [name], tmp_path).files:
        if path.suffix == ".xlsx":
            cells = [cell for sheet in openpyxl.load_workbook(path) for row in sheet for cell in row]
            assert not [cell for cell in cells if cell.data_type == "f" or cell.hyperlink]
        elif path.suffix == ".vtt":
            text = path.read_text("utf-8")
            assert text.count("-->") == 1 and "<script>" not in text and text.count("</v>") == 1
        elif path.suffix == ".eaf":
            assert not list(ElementTree.parse(path).getroot().iter("script"))
        elif path.suffix == ".rttm":
            (line,) = path.read_text("utf-8").splitlines()
            assert len(line.split()) == 10


TIMES = st.floats(0, 100, allow_nan=False)
ITEMS = st.lists(st.tuples(TIMES, TIMES, st.text(max_size=5)).map(lambda item: (min(item[:2]), max(item[:2]), item[2])))


@given(ITEMS)
def test_annotations_of_a_tier_never_overlap_and_none_is_lost(items: list[tuple[float, float, str]]) -> None:
    intervals = apart(items)
    assert len(intervals) == len(items) and all(one.start < one.end for one in intervals)
    assert all(one.end <= other.start for one, other in itertools.pairwise(intervals))
    texts = [one_line(text) for *_, text in sorted(items, key=lambda item: item[:2])]
    assert [one.text for one in intervals] == texts


@given(ITEMS, st.integers(0, 50_000), st.integers(1, 50_000))
def test_annotations_stay_within_their_parent(items: list[tuple[float, float, str]], start: int, length: int) -> None:
    intervals = apart(items, (start, start + length))
    assert all(start <= one.start < one.end <= start + length for one in intervals)
    assert all(one.end <= other.start for one, other in itertools.pairwise(intervals))


@given(ITEMS, ITEMS)
def test_a_word_is_of_one_utterance_at_most(
    spans: list[tuple[float, float, str]], words: list[tuple[float, float, str]]
) -> None:
    utterances = [utterance(start, end) for start, end, _ in sorted(spans)]
    shares = words_of(utterances, [Word(text, start, end, 1.0) for start, end, text in words])
    assert len(shares) == len(utterances) and sum(map(len, shares)) <= len(words)
    for one, heard in zip(utterances, shares, strict=True):
        assert all(word.start <= one.end and word.end >= one.start for word in heard)


@given(st.text(), st.text(min_size=1), st.text())
def test_any_words_make_subtitles_that_can_be_read(text: str, speaker: str, label: str) -> None:
    import tempfile

    import pysubs2
    import webvtt

    told = file_of([utterance(0.5, 1.0, text=text, speaker=speaker, label=label), utterance(1.0, 2.0)])
    with tempfile.TemporaryDirectory() as folder:
        cues = pysubs2.load(str(exported(told, None, "srt", Path(folder))), encoding="utf-8")
        assert [(cue.start, cue.end) for cue in cues] == [(500, 1000), (1000, 2000)]
        captions = webvtt.read(str(exported(told, None, "vtt", Path(folder)))).captions
        assert len(captions) == 2 and captions[1].text == "Good morning." and captions[1].voice == "S1"


def test_formats_are_named_with_commas_in_any_case() -> None:
    assert chosen_formats(" EAF, srt,eaf,") == ("eaf", "srt") and chosen_formats(["rttm"]) == ("rttm",)
    for wrong in ("", "docx", ["srt", "doc"]):
        with pytest.raises(UnknownName, match="parquet"):
            chosen_formats(wrong)


def test_the_help_names_the_formats() -> None:
    assert ", ".join(FORMATS) == NAMED


def test_formats_need_a_folder(tmp_path: Path) -> None:
    with pytest.raises(OptionConflict):
        emopipe.run("a.mp4", formats="srt", progress=False)


def test_what_cannot_be_read_or_written_says_so(tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["export", str(tmp_path), "--to", "srt"])
    assert run.exit_code == 2 and "EMO-101" in run.output
    sink = Sink(tmp_path, [TWO_PEOPLE.media], "c0", "1")
    sink.write(TWO_PEOPLE)
    sink.finish()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        export_folder(tmp_path, ["srt"], out=tmp_path / "file", store=tmp_path / "none")
    (tmp_path / "two people.json").write_text('{"utterances": 3}')
    with pytest.raises(EmopipeError, match="EMO-601"):
        export_folder(tmp_path, ["srt"], store=tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_run_exports_what_it_found(weight: Any, tmp_path: Path) -> None:
    for name in ("face-landmarker", "whisper-base", "minilm-l6-emotion", "silero-vad", "speaker-encoder"):
        weight(name)
    out, store = tmp_path / "out", tmp_path / "store"
    results = emopipe.run(
        SAMPLES / "conversation.mp4", out=out, store=store, formats="parquet,eaf,textgrid,vtt", progress=False
    )
    found = json.loads((out / "conversation.json").read_text())
    utterances = pd.read_parquet(out / "conversation.utterances.parquet")
    assert utterances["label"].tolist() == [row["label"] for row in found["utterances"]]
    frames = pd.read_parquet(out / "conversation.frames.parquet")
    assert len(frames) == len(results.faces.to_pandas()) and {"S1", "S2"} <= set(frames["person"].dropna())
    voice = pd.read_parquet(out / "conversation.voice.parquet")
    assert {"pitch_mean", "level_std", "whisper_6_511", "campplus_hidden_511", "campplus_vector_191"} <= set(
        voice.columns
    )
    words = [one.text for one in ElementTree.parse(out / "conversation.eaf").iter("ANNOTATION_VALUE")]
    assert {"Welcome", "library."} <= set(words)
    again = emopipe.export(out, "parquet,textgrid,vtt", out=tmp_path / "again", store=store, progress=False)
    assert not again.incomplete
    for path in (*again.files, *results.export("textgrid", tmp_path / "direct").files):
        assert path.read_bytes() == (out / path.name).read_bytes(), path.name


@pytest.mark.slow
def test_an_hour_of_two_people_is_exported_whole(tmp_path: Path) -> None:
    rng, count = np.random.default_rng(0), 36_000
    columns = {field.name: rng.random(count).astype(field.type.to_pandas_dtype()) for field in FACES.schema}
    columns |= {"time": np.sort(rng.random(count)) * 3600, "track": np.tile([0, 2], count // 2).astype(np.int32)}
    spoken = [utterance(2.4 * i, 2.4 * i + 2.2, speaker=("S1", "Ana María")[i % 2]) for i in range(1500)]
    words = [Word(" word", one.start + i / 4, one.start + i / 4 + 0.2, 0.9) for one in spoken for i in range(8)]
    voice = [
        FeatureSequence(np.array([one.start]), np.array([one.end]), rng.random((1, 3000), np.float32)) for one in spoken
    ]
    values = {
        "face": {"face_table": pa.table(columns, FACES.schema)},
        "voice": {"voice": voice},
        "words": {"words": words},
    }
    with Store(tmp_path / "store") as store:
        for stage, made in values.items():
            store.put(KEYS[stage], made, {"stage": stage, "content": ""})
        turns = [TurnResult(one.start, one.end, index % 2, False) for index, one in enumerate(spoken)]
        hour = Recording(file_of(spoken, turns=turns, duration=3600.0), "hour", store)
        done = export([hour], list(FORMATS), tmp_path / "out")
    assert len(pd.read_parquet(tmp_path / "out" / "hour.frames.parquet")) == count
    assert len(pd.read_parquet(tmp_path / "out" / "hour.utterances.parquet")) == len(spoken)
    assert len(done.files) == sum(map(len, FORMATS.values())) and not done.incomplete
