"""Corrections stand beside the predictions, are counted, kept by person, and do nothing else."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import emopipe
from emopipe.errors import CorrectionsError, EmopipeError, InputNotFound
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.corrections.documents import FORMAT, VERSION, as_document, parse_document
from emopipe.pipeline.corrections.kept import KEPT, attach, read_kept, write_kept
from emopipe.pipeline.corrections.review import majority, review_of
from emopipe.pipeline.report.corrected import apply_corrections
from emopipe.pipeline.report.outputs import Sink, write_clip
from tests.pipeline.corrections.results import (
    LABELS,
    PROBE,
    SPOKEN,
    contents,
    document,
    edit,
    result_of,
    rows,
    save,
    utterance,
    write_results,
)

HOSTILE = '=HYPERLINK("http://x")<script>alert(1)</script> --> {{ 7*7 }} "\' \u202e'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_results(tmp_path / "results")


def apply(folder: Path, *documents: Any, by: str | None = None) -> Any:
    files = [save(folder.parent / f"given-{index}.json", facts) for index, facts in enumerate(documents)]
    return emopipe.correct(folder, files, by=by)


ANA = document(
    "Ana",
    edit(0, label="neutral"),
    edit(1, label="sadness", text="I am so tired.", person="S1", bounds=[2.1, 4.2], note="quiet"),
    edit(2, confirmed=True),
    edit(4, note="unclear"),
)
BEN = document("Ben", edit(0, label="neutral"), edit(1, label="anger"), edit(2, label="happiness"))


# Applied


def test_corrections_stand_beside_predictions_that_stay_as_they_are(folder: Path) -> None:
    before = rows(folder)
    corrected = apply(folder, ANA)
    after = rows(folder)
    assert [one.what for one in corrected.applied][1].startswith("label sadness, person S1, words 'I am so tired.'")
    assert after[1]["corrections"] == [
        {
            "by": "Ana",
            "when": "2026-11-28T11:59:00Z",
            "label": "sadness",
            "person": "S1",
            "text": "I am so tired.",
            "bounds": [2.1, 4.2],
            "note": "quiet",
        }
    ]
    assert "corrections" not in after[3]
    for row in after:
        row.pop("corrections", None)
    assert after == before


def test_tables_have_what_most_say(folder: Path) -> None:
    apply(folder, ANA, BEN)
    table = pd.read_csv(folder / "interview.csv", keep_default_na=False)
    assert table["label"].tolist() == [one[4] for one in SPOKEN]
    assert table["correction"].tolist() == ["corrected", "corrected", "corrected", "", "noted"]
    assert table["corrected_label"].tolist() == ["neutral", "", "", "", ""]
    assert table["corrected_by"].tolist()[0] == "Ana; Ben"
    assert (
        table["corrected_start"].tolist()[1] in (2.1, "2.1") and table["corrected_text"].tolist()[1] == "I am so tired."
    )
    whole = pd.read_csv(folder / "utterances.csv")
    assert len(whole) == 2 * len(SPOKEN) and whole["correction"].notna().sum() == 4


def test_pages_show_and_count_them(folder: Path) -> None:
    apply(folder, ANA)
    assert "Ana: sadness" in (folder / "interview.html").read_text("utf-8")
    summary = (folder / "summary.html").read_text("utf-8")
    assert "<b>2</b>corrected" in summary and "<b>1</b>confirmed" in summary and "<b>1</b>noted" in summary
    assert "2 corrected" in summary.partition('id="files"')[2]


def test_exports_have_them(folder: Path, tmp_path: Path) -> None:
    apply(folder, ANA)
    emopipe.export(folder, "parquet,jsonl,xlsx", out=tmp_path / "forms", progress=False)
    table = pd.read_parquet(tmp_path / "forms" / "interview.utterances.parquet")
    lines = (tmp_path / "forms" / "interview.jsonl").read_text("utf-8").splitlines()
    sheet = openpyxl.load_workbook(tmp_path / "forms" / "interview.xlsx")["utterances"]
    assert table["corrected_label"][1] == "sadness" and json.loads(lines[1])["corrections"][0]["by"] == "Ana"
    assert "corrected_label" in [cell.value for cell in next(sheet.iter_rows())]


def test_the_same_file_twice_changes_nothing(folder: Path) -> None:
    assert apply(folder, ANA).files
    once = contents(folder)
    again = apply(folder, ANA)
    assert contents(folder) == once and not again.files and len(again.applied) == 4


def test_a_second_file_of_the_same_person_replaces_theirs(folder: Path) -> None:
    apply(folder, ANA, BEN)
    apply(folder, document("Ana", edit(3, label="anger")))
    who = [[one["by"] for one in row.get("corrections", ())] for row in rows(folder)]
    assert who == [["Ben"], ["Ben"], ["Ben"], ["Ana"], []]


def test_a_file_with_nothing_takes_a_persons_corrections_back(folder: Path) -> None:
    before = contents(folder)
    apply(folder, ANA)
    apply(folder, document("Ana"))
    assert contents(folder) == before


def test_corrections_of_one_recording_leave_those_of_another(folder: Path) -> None:
    apply(folder, ANA, document("Ana", edit(0, confirmed=True), name="second"))
    assert rows(folder)[1]["corrections"] and rows(folder, "second")[0]["corrections"][0]["confirmed"]


def test_what_was_applied_can_be_applied_to_a_copy_of_the_results(folder: Path, tmp_path: Path) -> None:
    apply(folder, ANA, BEN)
    copy = write_results(tmp_path / "copy")
    emopipe.correct(copy, folder / KEPT)
    assert contents(copy)["interview.json"] == contents(folder)["interview.json"]


def test_a_new_run_into_the_folder_keeps_them(folder: Path) -> None:
    apply(folder, ANA, BEN)
    before = contents(folder)
    write_results(folder)
    assert {name: text for name, text in contents(folder).items() if name != "timings.csv"} == {
        name: text for name, text in before.items() if name != "timings.csv"
    }


def test_what_was_confirmed_stays_confirmed_when_a_later_model_predicts_something_else(folder: Path) -> None:
    apply(folder, document("Ana", edit(0, confirmed=True)))
    write_results(folder, [(*one[:4], "anger") for one in SPOKEN])
    row = rows(folder)[0]
    review = review_of(row)
    assert row["label"] == "anger" and review is not None
    assert (review.label, review.kind) == ("happiness", "corrected")


def test_those_that_fit_no_utterance_any_more_are_told_and_kept(folder: Path) -> None:
    apply(folder, ANA)
    write_results(folder, [(start + 0.1, *rest) for start, *rest in SPOKEN])
    told = emopipe.correct(folder)
    assert {one.reason.code for one in told.refused if one.reason} == {"utterance_not_in_results"}
    assert len(told.refused) == 4 and (folder / KEPT).exists()
    write_results(folder)
    assert rows(folder)[0]["corrections"]


def test_pages_still_play_the_recording_when_applied_from_elsewhere(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (folder / "interview.html").read_text("utf-8")
    link = before.partition('src="')[2].partition('"')[0]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    apply(folder, ANA)
    assert f'src="{link}"' in (folder / "interview.html").read_text("utf-8")


def test_pages_keep_their_curves(folder: Path) -> None:
    """Curves are drawn of what the store holds, which is not read again."""
    facts = json.loads((folder / "interview.json").read_text("utf-8"))
    curves = [{"name": "pitch </script>", "values": [1, None, 2]}]
    write_clip(folder, "interview", facts, "interview.mp4", curves)
    apply(folder, ANA)
    page = (folder / "interview.html").read_text("utf-8")
    data = page.partition('id="data">')[2].partition("</script>")[0]
    assert json.loads(data)["curves"] == curves and "Ana: sadness" in page


def test_in_python_a_result_read_back_has_them(folder: Path) -> None:
    from emopipe.pipeline.export.recording import read_recordings

    apply(folder, ANA)
    recording = next(read_recordings(folder))
    assert recording.result.utterances[1].corrections[0].bounds == (2.1, 4.2)
    frame = emopipe.Results([recording.result], folder).to_pandas()
    assert frame["corrected_label"].tolist()[:2] == ["neutral", "sadness"]


# Refused


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"label": "joyful"}, "there is no label 'joyful'; choose of anger, happiness"),
        ({"label": ""}, "label"),
        ({"label": "a\nb"}, "label"),
        ({"label": "x" * 201}, "label"),
        ({"label": 3}, "label"),
        ({"value": 0.5}, "a value, but the model chooses between labels"),
        ({"value": 1e300}, "value"),
        ({"person": "\x1b[31m"}, "person"),
        ({"text": "x" * 20_001}, "text"),
        ({"bounds": [3, 2]}, "not after its start"),
        ({"bounds": [0.5, 1e6]}, "the recording at 10 s"),
        ({"bounds": [-1, 1]}, "bounds"),
        ({"bounds": [1, 2, 3]}, "bounds"),
        ({"bounds": [8, 9]}, "apart from the utterance"),
        ({"confirmed": "yes"}, "confirmed"),
        ({"when": "yesterday", "confirmed": True}, "when"),
        ({}, "nothing is corrected"),
        ({"start": 77.0, "confirmed": True}, "not in the results"),
        ({"speaker": "S9", "confirmed": True}, "not in the results"),
        ({"start": "0.5", "confirmed": True}, "start"),
        ({"start": 10**30, "confirmed": True}, "start"),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_refused_with_a_reason_and_the_rest_applied(
    folder: Path, change: dict[str, Any], told: str
) -> None:
    corrected = apply(folder, document("Ana", edit(0, **change), edit(2, confirmed=True)))
    (refused,) = corrected.refused
    assert refused.reason is not None and told in refused.reason.what and refused.reason.hint
    assert len(corrected.applied) == 1 and "corrections" not in rows(folder)[0]


@pytest.mark.parametrize("junk", [None, 3, "text", [], {"start": {}}, {"start": 0.5}, [[[]]]])
def test_entries_that_are_no_corrections_are_refused(folder: Path, junk: Any) -> None:
    assert len(apply(folder, document("Ana", junk)).refused) == 1


@pytest.mark.parametrize(
    "name", ["../results/interview", "/etc/passwd", "..", "", "nobody", "interview.json", "manifest"]
)
def test_a_name_that_is_no_recording_of_the_results_touches_no_file(folder: Path, name: str) -> None:
    before = contents(folder.parent)
    corrected = apply(folder, document("Ana", edit(0, label="neutral"), name=name))
    assert [one.reason.code for one in corrected.refused if one.reason] == ["recording_not_in_results"]
    assert {k: v for k, v in contents(folder.parent).items() if not k.startswith("given")} == before


def test_a_record_of_other_content_is_refused(folder: Path) -> None:
    corrected = apply(folder, document("Ana", edit(0, label="neutral"), probe="f" * 40))
    assert [one.reason.code for one in corrected.refused if one.reason] == ["other_content"]
    assert not (folder / KEPT).exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{",
        b'{"format": "other", "version": 1, "recordings": []}',
        b'{"format": "emopipe-corrections", "version": 2, "by": "A", "recordings": []}',
        b'{"format": "emopipe-corrections", "version": true, "by": "A", "recordings": []}',
        b'{"format": "emopipe-corrections", "version": 1, "by": "A", "recordings": [{"name": 1, "utterances": []}]}',
        b'{"format": "emopipe-corrections", "version": 1, "by": "", "recordings": [{"name": "x", "utterances": []}]}',
        b'{"format": "emopipe-corrections", "version": 1, "by": "\\n", "recordings": [{"name": "", "utterances": []}]}',
        b"[" * 100_000,
        b'{"version": ' + b"9" * 10_000 + b"}",
    ],
    ids=range(12),
)
def test_other_files_are_told_with_a_code(folder: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    before = contents(folder)
    with pytest.raises(CorrectionsError) as told:
        emopipe.correct(folder, path)
    assert (told.value.hint or told.value.advice) and contents(folder) == before


def test_a_missing_file_and_missing_results_are_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputNotFound):
        emopipe.correct(folder, tmp_path / "none.json")
    with pytest.raises(InputNotFound):
        emopipe.correct(tmp_path, ())


def test_damaged_applied_corrections_are_told_and_not_overwritten(folder: Path) -> None:
    apply(folder, ANA)
    (folder / KEPT).write_text("{", "utf-8")
    for do in (lambda: apply(folder, BEN), lambda: Sink(folder, [], "c0", "1")):
        with pytest.raises(CorrectionsError):
            do()
    assert (folder / KEPT).read_text("utf-8") == "{"


def test_hostile_text_does_nothing(folder: Path) -> None:
    corrections = edit(0, person=HOSTILE[:-2], text=HOSTILE, note=HOSTILE)
    assert apply(folder, document(HOSTILE[:40], corrections)).applied
    for page in folder.glob("*.html"):
        assert "<script>alert" not in page.read_text("utf-8") and 'http://x"' not in page.read_text("utf-8")
    table = pd.read_csv(folder / "interview.csv")
    assert table["corrected_text"][0].startswith("'=") and table["corrected_by"][0].startswith("'=")
    assert table["corrected_speaker"][0].startswith("'=")


def test_values_of_a_regression_are_corrected(tmp_path: Path) -> None:
    spoken = [(*one[:4], None, 0.1 * place) for place, one in enumerate(SPOKEN)]
    folder = write_results(tmp_path / "results", spoken)
    corrected = apply(folder, document("Ana", edit(0, value=0.5), edit(1, label="anger"), edit(2, confirmed=True)))
    assert len(corrected.applied) == 2 and "the model gives values" in str(corrected.refused[0].reason)
    assert pd.read_csv(folder / "interview.csv")["corrected_value"].tolist()[:3:2] == [0.5, 0.2]
    assert corrected.agreement[0].measure == "Krippendorff's alpha"


# Whatever is in a file


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ENTRY = st.fixed_dictionaries(
    {"start": st.sampled_from([one[0] for one in SPOKEN]) | JSON, "end": st.floats(0, 10) | JSON},
    optional={
        "speaker": JSON,
        "label": st.sampled_from(LABELS) | JSON,
        "person": st.text(max_size=5) | JSON,
        "text": st.text(max_size=5) | JSON,
        "bounds": st.lists(st.floats(0, 10), min_size=2, max_size=2) | JSON,
        "note": JSON,
        "confirmed": st.booleans() | JSON,
        "when": JSON,
    },
)


@given(st.lists(ENTRY | JSON, max_size=4), st.text(max_size=5))
def test_any_document_is_read_or_refused_with_a_code(entries: list[Any], by: str) -> None:
    facts = json.dumps(document(by, *entries)).encode()
    try:
        (read,) = parse_document(facts, Path("a.json"))
    except EmopipeError as error:
        assert error.code
        return
    assert len(read.edits) + len(read.refused) <= len(entries)
    again = parse_document(json.dumps(as_document([read])).encode(), Path("a.json"))
    assert [(one.edits, one.by, one.probe) for one in again] == [(read.edits, read.by, read.probe)]


EDIT = st.builds(
    lambda number, changes: edit(number, **changes),
    st.integers(0, len(SPOKEN) - 1),
    st.fixed_dictionaries(
        {},
        optional={
            "label": st.sampled_from(LABELS),
            "text": st.text(max_size=5),
            "person": st.sampled_from(["S1", "S2", "Cy"]),
            "confirmed": st.just(True),
            "note": st.text(max_size=5),
        },
    ),
)


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(EDIT, max_size=4), st.lists(EDIT, max_size=4))
def test_applying_again_and_in_another_order_leaves_the_same_bytes(
    folder: Path, one: list[Any], other: list[Any]
) -> None:
    copy = folder.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    documents = [document("Ana", *one), document("Ben", *other)]
    apply(copy, *documents)
    first = contents(copy)
    apply(copy, *documents)
    assert contents(copy) == first
    shutil.rmtree(copy)
    shutil.copytree(folder, copy)
    apply(copy, *reversed(documents))
    assert contents(copy) == first


@given(st.lists(st.sampled_from(LABELS), max_size=6))
def test_a_majority_has_more_votes_than_any_other(answers: list[str]) -> None:
    answer, decided = majority(answers)
    counts = sorted((answers.count(name) for name in LABELS), reverse=True)
    assert decided == (not answers or counts[0] > counts[1])
    assert answer is None or answers.count(answer) == counts[0]


def test_who_confirms_votes_for_the_prediction() -> None:
    row = rows_of_one(
        [{"by": "Ana", "confirmed": True}, {"by": "Ben", "label": "anger"}, {"by": "Cy", "confirmed": True}]
    )
    review = review_of(row)
    assert review is not None and review.label == "happiness" and review.kind == "corrected"
    noted = review_of(rows_of_one([{"by": "Ana", "text": "Good evening."}]))
    assert noted is not None and noted.label is None and noted.text == "Good evening."


def rows_of_one(corrections: list[dict[str, Any]]) -> dict[str, Any]:
    from emopipe.pipeline.report.outputs import document as document_of

    (row,) = document_of(result_of("interview", [utterance(*SPOKEN[0])]), "", "")["utterances"]
    return {**row, "corrections": corrections}


# The command line


def test_the_command_prints_what_was_applied_and_refused_and_the_agreement(folder: Path, tmp_path: Path) -> None:
    ana, ben = save(tmp_path / "ana.json", ANA), save(tmp_path / "ben.json", BEN)
    done = CliRunner().invoke(app, ["correct", str(folder), str(ana), str(ben)], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "7 applied, 0 refused" in done.output and "Cohen's kappa" in done.output and "Ana, Ben" in done.output
    bad = save(tmp_path / "bad.json", document("Cy", edit(0, label="joyful\u202e")))
    done = CliRunner().invoke(app, ["correct", str(folder), str(bad), "--json"])
    assert done.exit_code == 1 and "\u202e" not in done.output
    (first, *_) = [json.loads(line) for line in done.output.splitlines()]
    assert first["by"] == "Cy" and first["what to do"]


def test_by_names_who_corrected(folder: Path) -> None:
    apply(folder, document("", edit(0, label="neutral")), by="Dora")
    assert rows(folder)[0]["corrections"][0]["by"] == "Dora"


def test_corrections_stay_with_a_recording_whose_files_get_another_name(tmp_path: Path) -> None:
    facts = {
        "media": "a/clip.mp4",
        "keys": {"probe": "1" * 40},
        "utterances": [{"start": 0.0, "end": 1.0, "speaker": None}],
    }
    correction = {"start": 0.0, "end": 1.0, "speaker": None, "label": "anger"}
    document = {
        "format": FORMAT,
        "version": VERSION,
        "by": "Ana",
        "saved": "",
        "recordings": [{"name": "clip", "media": "clip.mp4", "probe": "1" * 40, "utterances": [correction]}],
    }
    (one,) = parse_document(json.dumps(document).encode(), tmp_path, None)
    kept = {(one.name, one.by): one}
    assert attach(facts, "clip-4426e7ef", kept, ["clip-4426e7ef"]) == []
    assert [row["corrections"][0]["label"] for row in facts["utterances"]] == ["anger"]
    assert attach(facts, "other", kept, ["clip", "other"]) == [] and "corrections" not in facts["utterances"][0]


def test_new_corrections_replace_those_of_the_name_before(folder: Path) -> None:
    (before,) = parse_document(json.dumps(one_correction("anger")).encode(), folder, None)
    write_kept(folder, {("interview-1234abcd", "Ana"): replace(before, name="interview-1234abcd")})
    (after,) = parse_document(json.dumps(one_correction("sadness")).encode(), folder, None)
    apply_corrections(folder, [after])
    assert [name for name, _ in read_kept(folder)] == ["interview"]
    rows = json.loads((folder / "interview.json").read_text("utf-8"))["utterances"]
    assert [one["label"] for row in rows for one in row.get("corrections", ())] == ["sadness"]


def one_correction(label: str) -> dict[str, Any]:
    start, end, speaker, *_ = SPOKEN[0]
    utterance = {"start": start, "end": end, "speaker": speaker, "label": label}
    recording = {"name": "interview", "media": "interview.mp4", "probe": PROBE["interview"], "utterances": [utterance]}
    return {"format": FORMAT, "version": VERSION, "by": "Ana", "saved": "", "recordings": [recording]}
