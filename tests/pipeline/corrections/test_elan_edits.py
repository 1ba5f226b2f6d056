"""An exported ELAN file that is edited by another program gives exactly what was edited."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from speach import elan

import emopipe
from emopipe.errors import CorrectionsError
from emopipe.pipeline.corrections.kept import KEPT
from emopipe.pipeline.export.elan_edits import read_elan
from tests.pipeline.corrections.results import SPOKEN, contents, rows, write_results


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_results(tmp_path / "results")


@pytest.fixture
def file(folder: Path, tmp_path: Path) -> Path:
    """The exported ELAN file of the first recording."""
    emopipe.export(folder, "eaf", out=tmp_path / "elan", store=tmp_path / "no store", progress=False)
    return tmp_path / "elan" / "interview.eaf"


def edited(file: Path, change: Callable[[Any], object]) -> Path:
    """The file as an independent library reads it, after a change, and writes it."""
    document = elan.read_eaf(str(file))
    change(document)
    document.save(str(file))
    return file


def words(document: Any, person: str, place: int) -> Any:
    return document[f"utterance@{person}"].annotations[place]


def emotion(document: Any, person: str, place: int) -> Any:
    return document[f"emotion@{person}"].annotations[place]


def change_label(document: Any) -> None:
    emotion(document, "S1", 0).value = "neutral"


def change_words(document: Any) -> None:
    words(document, "S2", 0).value = "I am so tired <now> & then."


def change_bounds(document: Any) -> None:
    slot = words(document, "S1", 1).to_ts
    slot._TimeSlot__xml_node.set("TIME_VALUE", "5900")  # the library does not write a slot's value back


def change_person(document: Any) -> None:
    for kind in ("utterance", "emotion", "confidence", "words"):
        document[f"{kind}@S2"].participant = "Anna Müller"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda document: None, {}),
        (change_label, {0: {"label": "neutral"}}),
        (change_words, {1: {"text": "I am so tired <now> & then."}}),
        (change_bounds, {2: {"bounds": [4.5, 5.9]}}),
        (change_person, {1: {"person": "Anna Müller"}, 3: {"person": "Anna Müller"}}),
    ],
    ids=["nothing", "label", "words", "bounds", "person"],
)
def test_exactly_what_was_edited_is_corrected(
    folder: Path, file: Path, change: Callable[[Any], object], expected: dict[int, Any]
) -> None:
    corrected = emopipe.correct(folder, edited(file, change), by="Ana")
    assert not corrected.refused
    for number, row in enumerate(rows(folder)):
        given = row.get("corrections", [])
        assert given == ([{"by": "Ana", "when": "", **expected[number]}] if number in expected else []), number
    assert not any(row.get("corrections") for row in rows(folder, "second"))


def test_all_edits_at_once_twice(folder: Path, file: Path) -> None:
    def change(document: Any) -> None:
        for one in (change_label, change_words, change_bounds, change_person):
            one(document)

    edited(file, change)
    corrected = emopipe.correct(folder, file, by="Ana")
    assert len(corrected.applied) == 4 and not corrected.refused
    before = contents(folder)
    assert not emopipe.correct(folder, file, by="Ana").files and contents(folder) == before


def test_what_annotations_are_called_does_not_depend_on_the_store(folder: Path, file: Path, tmp_path: Path) -> None:
    """Words come from the store; the ids of utterances are the same with and without them."""
    from emopipe.extractors.contracts import Word
    from emopipe.pipeline.export.elan_praat import write_eaf
    from emopipe.pipeline.export.recording import read_recordings
    from emopipe.pipeline.store.store import Store

    recording = next(read_recordings(folder))
    keys = {**recording.result.keys, "words": "b" * 40}
    with Store(tmp_path / "store") as store:
        heard = {"words": [Word("Good", 0.5, 1.0, 0.9)], "language": "en"}
        store.put(keys["words"], heard, {"stage": "words", "content": "", "parameters": {}})
        from dataclasses import replace

        write_eaf(replace(recording, result=replace(recording.result, keys=keys), store=store), tmp_path / "words.eaf")
    with_words, without = read_elan(tmp_path / "words.eaf"), read_elan(file)
    assert "Good" in (tmp_path / "words.eaf").read_text("utf-8")
    assert [one.id for one in with_words.utterances] == [one.id for one in without.utterances]


def test_an_annotation_moved_to_another_persons_tier_is_of_that_person(folder: Path, file: Path) -> None:
    text = file.read_text("utf-8")
    moved = text[text.index("<ANNOTATION>") : text.index("</ANNOTATION>") + len("</ANNOTATION>")]
    assert "Good morning." in moved
    rest = text.replace(moved, "", 1)
    at = rest.index(">", rest.index('TIER_ID="utterance@S2"')) + 1
    file.write_text(rest[:at] + moved.replace('"a2"', '"a99"') + rest[at:], "utf-8")
    corrected = emopipe.correct(folder, file, by="Ana")
    assert [one.what for one in corrected.applied] == ["person S2"] and not corrected.refused


def test_new_and_deleted_annotations_are_told(folder: Path, file: Path) -> None:
    text = file.read_text("utf-8")
    first = text[text.index("<ANNOTATION>") : text.index("</ANNOTATION>") + len("</ANNOTATION>")]
    file.write_text(text.replace(first, "", 1), "utf-8")
    (refused,) = emopipe.correct(folder, file, by="Ana").refused
    assert refused.reason is not None and "deleted" in refused.reason.what and refused.start == SPOKEN[0][0]


def test_the_author_is_who_corrected_unless_named(folder: Path, file: Path) -> None:
    with pytest.raises(CorrectionsError, match="--by"):
        emopipe.correct(folder, edited(file, change_label))
    file.write_text(file.read_text("utf-8").replace('AUTHOR="emopipe"', 'AUTHOR="Ben"'), "utf-8")
    emopipe.correct(folder, file)
    assert rows(folder)[0]["corrections"][0]["by"] == "Ben"


def test_a_file_of_other_content_is_refused(folder: Path, file: Path) -> None:
    file.write_text(file.read_text("utf-8").replace("1" * 40, "9" * 40), "utf-8")
    (refused,) = emopipe.correct(folder, file, by="Ana").refused
    assert refused.reason is not None and refused.reason.code == "other_content"


def test_a_recording_named_like_a_path_touches_no_file(folder: Path, file: Path) -> None:
    file.write_text(file.read_text("utf-8").replace(">interview<", ">../../interview<"), "utf-8")
    before = contents(folder)
    (refused,) = emopipe.correct(folder, file, by="Ana").refused
    assert refused.reason is not None and refused.reason.code == "recording_not_in_results"
    assert contents(folder) == before


BOMB = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>
<ANNOTATION_DOCUMENT AUTHOR="&c;"/>"""
READER = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>
<ANNOTATION_DOCUMENT><HEADER><PROPERTY NAME="emopipe.recording">&b;</PROPERTY></HEADER></ANNOTATION_DOCUMENT>"""
HEAD = "<ANNOTATION_DOCUMENT><TIME_ORDER>"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no xml",
        "<html/>",
        "<ANNOTATION_DOCUMENT/>",
        BOMB,
        READER,
        f"{HEAD}<TIME_SLOT/></TIME_ORDER></ANNOTATION_DOCUMENT>",
        "<a>" * 50_000 + "</a>" * 50_000,
        '<ANNOTATION_DOCUMENT><TIER TIER_ID="x" LINGUISTIC_TYPE_REF="utterance"><ANNOTATION><ALIGNABLE_ANNOTATION '
        'ANNOTATION_ID="a1" TIME_SLOT_REF1="t1" TIME_SLOT_REF2="t2"/></ANNOTATION></TIER></ANNOTATION_DOCUMENT>',
    ],
    ids=range(9),
)
def test_other_files_and_hostile_ones_are_told_with_a_code(folder: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.eaf"
    path.write_text(text, "utf-8")
    with pytest.raises(CorrectionsError):
        emopipe.correct(folder, path, by="Ana")
    assert not (folder / KEPT).exists()


def test_hostile_words_in_elan_do_nothing(folder: Path, file: Path) -> None:
    def change(document: Any) -> None:
        words(document, "S1", 0).value = "=cmd()<script>alert(1)</script>"

    emopipe.correct(folder, edited(file, change), by="Ana")
    assert rows(folder)[0]["corrections"][0]["text"] == "=cmd()<script>alert(1)</script>"
    assert "<script>alert" not in (folder / "interview.html").read_text("utf-8")
    assert "'=cmd()" in (folder / "interview.csv").read_text("utf-8")
