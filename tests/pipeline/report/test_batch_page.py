"""The page about a batch: shares, groups, failures, hostile names, the same bytes each time."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from emopipe.errors import EmopipeError, InputChanged, InputEmpty, NotMedia, reason
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.report.batch import MOST_SPANS, Batch
from emopipe.pipeline.report.batch_page import render_summary, write_summary
from emopipe.pipeline.report.outputs import DISCLAIMER, reason_as_json, render_page
from emopipe.pipeline.report.pages import PALETTE, SPARE, ink
from emopipe.pipeline.report.participants import read_participants
from emopipe.pipeline.report.person_statistics import NO_EVIDENCE, UNCERTAIN, VALUE, Tally, compare, per_person, spread

HOSTILE = "\"><script>alert(1)</script><img src=x onerror='alert(2)'>&amp;{{ 7*7 }}"


def said(
    start: float, end: float, label: str | None = "anger", speaker: str | None = None, **rest: Any
) -> dict[str, Any]:
    """An utterance as it is written to JSON."""
    row = {
        "start": start,
        "end": end,
        "speaker": speaker,
        "text": "words",
        "label": label,
        "value": None,
        "probabilities": {} if label is None else {"anger": 0.5, "joy": 0.3, "neutral": 0.2},
        "weights": {},
        "unimodal": {},
        "absent": {},
        "quality": {},
        "confidence": 0.0 if label is None else 0.5,
        "abstained": label is None,
    }
    return row | rest


def run_of(folder: Path, files: dict[str, list[dict[str, Any]] | EmopipeError], **info: Any) -> Path:
    """What a run leaves: rows of each file, or why it failed."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, (media, rows) in enumerate(files.items()):
        entry = {"media": media, "state": "ok", "reasons": [], "outputs": f"clip{number}", "language": "en"}
        if isinstance(rows, EmopipeError):
            entry |= {"state": "failed", "reasons": [reason_as_json(rows.reason())], "outputs": None}
        else:
            document = {"emopipe": "0.1.0", "checkpoint": "one", "config_hash": "c0", "duration": None, "info": info}
            (folder / f"clip{number}.json").write_text(json.dumps(document | {"utterances": rows}))
        entries.append(entry)
    (folder / "manifest.json").write_text(json.dumps({"inputs": entries}))
    return folder


def table(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


class Page(HTMLParser):
    """The tags and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def values(self, name: str) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.tags if name in attributes]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


def page(folder: Path) -> Page:
    return Page((folder / "summary.html").read_text("utf-8"))


# Shares


def test_shares_are_of_time_and_keep_uncertain_and_no_evidence_apart() -> None:
    tally = Tally()
    for row in [
        said(0, 6, "anger"),
        said(6, 7, "neutral"),
        said(7, 9, "neutral", abstained=True),
        said(9, 10, None, absent={"text": "no_speech"}),
    ]:
        tally.add(row)
    shares = {name: tally.share(name) for name in ("anger", "neutral", UNCERTAIN, NO_EVIDENCE)}
    assert shares == pytest.approx({"anger": 0.6, "neutral": 0.1, UNCERTAIN: 0.2, NO_EVIDENCE: 0.1})
    assert (tally.total, tally.utterances, tally.silent, tally.mean) == (10, 4, 1, None)


def test_values_are_averaged_over_time() -> None:
    tally = Tally()
    for row in (said(0, 3, None, value=1.0, abstained=False), said(3, 4, None, value=-1.0, abstained=False)):
        tally.add(row)
    tally.add(said(4, 9, None))
    assert tally.mean == pytest.approx(0.5) and tally.share(VALUE) == pytest.approx(4 / 9)


def test_a_name_is_one_person_in_all_files_and_a_number_one_in_each(tmp_path: Path) -> None:
    rows = [said(0, 1, speaker="anna"), said(1, 3, speaker="S1")]
    folder = run_of(tmp_path / "out", {"/in/1.mp4": rows, "/in/2.mp4": rows, "/in/3.mp4": [said(0, 5)]})
    people = per_person(Batch(folder).appearances)
    found = {(person.speaker, person.media and person.media.name): tally.total for person, tally in people.items()}
    assert found == {("anna", None): 2, ("S1", "1.mp4"): 2, ("S1", "2.mp4"): 2, (None, "3.mp4"): 5}
    write_summary(folder)
    assert "1.mp4 / S1" in page(folder).texts and "anna" in page(folder).texts


def test_interviewers_are_told_apart(tmp_path: Path) -> None:
    rows = [said(0, 1, "joy", "S1", role="interviewer"), said(1, 3, "anger", "S2", role="interviewee")]
    folder = run_of(tmp_path / "out", {"a.mp4": rows})
    write_summary(folder)
    regions = [
        attributes.get("aria-label") for _, attributes in page(folder).tags if attributes.get("role") == "region"
    ]
    assert [name for name in regions if name and name.startswith("Shares")] == [
        "Shares per person",
        "Shares per interviewer",
    ]
    read = read_participants(table(tmp_path / "p.csv", "file,group", "a.mp4,x"), [Path("a.mp4")])
    (comparison,) = compare(read, Batch(folder).appearances, {Path("a.mp4"): "ok"}).comparisons
    assert [person.speaker for group in comparison.groups for person in group.tallies] == ["S2"]


# Groups


def test_groups_are_compared_over_persons_however_long_they_speak(tmp_path: Path) -> None:
    files: dict[str, list[dict[str, Any]] | str] = {
        "in/1.mp4": [said(0, 100, "anger", "anna")],
        "in/2.mp4": [said(0, 1, "joy", "ben"), said(1, 2, "anger", "ben")],
        "in/3.mp4": [said(0, 1, "joy", "S1")],
        "in/4.mp4": NotMedia("the file cannot be decoded", path="in/4.mp4", hint="Play it"),
        "in/5.mp4": [said(0, 1, "joy", "S1")],
    }
    folder = run_of(tmp_path / "out", files)
    lines = ["person,file,group", "anna,,x", "ben,,x", ",3,y", ",4.mp4,y", ",6.mp4,y", "carl,,y"]
    participants = read_participants(table(tmp_path / "p.csv", *lines), map(Path, files))
    batch = Batch(folder)
    states = {media: entry["state"] for media, entry in batch.entries.items()}
    cohort = compare(participants, batch.appearances, states)
    x, y = cohort.comparisons[0].groups
    assert (x.value, len(x.tallies), y.value, len(y.tallies)) == ("x", 2, "y", 1)
    assert spread(x.shares("anger")) == pytest.approx((0.75, 0.3535534))
    assert spread(y.shares("joy")) == (1.0, None)
    assert [person.media for person in cohort.unlisted] == [Path("in/5.mp4")]
    assert [(row.line, why) for row, why in cohort.unheard] == [
        (5, "the file failed"),
        (6, "no input has that name"),
        (7, "nobody of that name was heard"),
    ]
    write_summary(folder, participants)
    text = page(folder).text
    assert "never over utterances" in text
    assert re.search(r"75\s%\s±\s35\s%\s+n = 2", text) and "one person" in text
    assert "line 6, 6.mp4: no input has that name" in text and "5.mp4 / S1" in text


def test_a_person_may_belong_to_two_groups_by_file(tmp_path: Path) -> None:
    before, after = [said(0, 1, "anger", "anna")], [said(0, 1, "joy", "anna")]
    folder = run_of(tmp_path / "out", {"before.mp4": before, "after.mp4": after})
    lines = ["file,time", "before,pre", "after,post"]
    participants = read_participants(table(tmp_path / "p.csv", *lines), [Path("before.mp4"), Path("after.mp4")])
    (comparison,) = compare(participants, Batch(folder).appearances, {}).comparisons
    assert [group.shares("joy") for group in comparison.groups] == [[0.0], [1.0]]
    assert [person.speaker for person in comparison.several] == ["anna"]


def test_templates_are_compiled_once_for_all_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_of(tmp_path / "out", {"a.mp4": [said(0, 1)]})
    first = render_summary(Batch(folder))
    monkeypatch.setattr("jinja2.Environment.compile", lambda *args, **kwargs: pytest.fail("compiled again"))
    assert render_summary(Batch(folder)) == first


def test_groups_of_a_person_of_several_rows_are_shown_once(tmp_path: Path) -> None:
    files = {f"{number}.mp4": [said(0.0, 2.0, speaker="anna")] for number in range(3)}
    folder = run_of(tmp_path / "out", dict(files))
    lines = ["file,person,group,site", "0,anna,x,north", "1,anna,x,south", "2,anna,x,"]
    participants = read_participants(table(tmp_path / "p.csv", *lines), map(Path, files))
    cohort = compare(participants, Batch(folder).appearances, {})
    (person,) = cohort.rows
    assert cohort.groups_of(person) == {"group": ["x"], "site": ["north", "south"]}
    write_summary(folder, participants)
    page = (folder / "summary.html").read_text("utf-8")
    assert page.count("<small>group: x</small>") == page.count("<small>site: north, south</small>") == 1


def test_a_row_of_a_file_with_several_people_is_told(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "out", {"a.mp4": [said(0, 1, speaker="S1"), said(1, 2, speaker="S2")]})
    read = read_participants(table(tmp_path / "p.csv", "file,person,group", "a,S1,x", "a,,y"), [Path("a.mp4")])
    assert compare(read, Batch(folder).appearances, {}).shared == []
    read = read_participants(table(tmp_path / "q.csv", "file,group", "a,x"), [Path("a.mp4")])
    write_summary(folder, read)
    assert "line 2, a: a.mp4 / S1, a.mp4 / S2" in page(folder).text


def test_a_column_of_ages_makes_no_groups(tmp_path: Path) -> None:
    files: dict[str, list[dict[str, Any]] | str] = {f"{n}.mp4": [said(0, 1)] for n in range(4)}
    folder = run_of(tmp_path / "out", files)
    lines = ["file,age", *(f"{n}.mp4,{20 + n}" for n in range(4))]
    write_summary(folder, read_participants(table(tmp_path / "p.csv", *lines), map(Path, files)))
    assert "4 values: no groups that could be compared" in page(folder).text


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["name,group", "anna,x"], "only the columns name, group"),
        (["person", "anna"], "no column of groups"),
        (["person,group"], "no rows"),
        (["person,group,group", "anna,x,y"], "column group twice"),
        (["person,group", "anna,x", ",y"], "line 3 of the participants table: person is empty"),
        (["person,group", "", "anna,x,y"], "line 3 of the participants table: there are 3 cells"),
        (["person,group", "anna,x", "ben,x", "anna,y"], "line 4 of the participants table: anna is in line 2"),
        (["person,group", "S1,x"], "line 2 of the participants table: person is S1"),
        (
            ["file,group", "a.mp4,x", "in/a,y"],
            "line 2 of the participants table: file is 'a.mp4', which may be in/a.mp4",
        ),
        (["file,group", '"a.mp4,x'], "cannot be read as CSV"),
    ],
)
def test_an_unusable_participants_table_is_refused_by_line_or_column(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    with pytest.raises(EmopipeError) as caught:
        read_participants(table(tmp_path / "p.csv", *lines), [Path("in/a.mp4"), Path("in/deep/a.mp4")])
    assert caught.value.code == "EMO-505" and message in str(caught.value)


def test_files_are_found_by_name_stem_or_the_end_of_their_path(tmp_path: Path) -> None:
    files = [Path("in/b/Zo\u00eb.mp4"), Path("in/c/Zo\u00eb.mp4"), Path("a.mp4"), Path("in/a.mp4")]
    lines = ["file,group", "b/Zoe\u0308,x", ".\\in\\c\\Zo\u00eb.mp4,x", "a.mp4,x", "in/a,x"]
    rows = read_participants(table(tmp_path / "p.csv", *lines), files).rows
    assert [row.media for row in rows] == files


def test_a_bad_table_stops_a_run_before_any_work(tmp_path: Path) -> None:
    clip = tmp_path / "a.mp4"
    clip.write_bytes(b"none")
    bad = table(tmp_path / "p.csv", "person,group", ",x")
    arguments = ["run", str(clip), "--participants", str(bad), "--out", str(tmp_path / "out"), "--no-store"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2 and "EMO-505" in done.output and "line 2" in done.output
    assert not (tmp_path / "out").exists()


# The page


def test_names_and_words_are_never_markup(tmp_path: Path) -> None:
    rows = [
        said(0, 9, HOSTILE, HOSTILE, text=HOSTILE, probabilities={HOSTILE: 1.0}),
        said(9, 10, HOSTILE, abstained=True),
    ]
    media = [f"/in/{HOSTILE.replace('/', '')}.mp4", os.fsdecode(b"/in/latin\xe9\n.mp4"), "/in/b.mp4"]
    folder = run_of(
        tmp_path / "out", {media[0]: rows, media[1]: [], media[2]: InputEmpty(HOSTILE)}, unverified_weights=[HOSTILE]
    )
    cell = HOSTILE.replace('"', '""')
    lines = [f'person,"{cell}"', f'"{cell}","{cell}"', f'"{cell} 2","{cell}"']
    write_summary(folder, read_participants(table(tmp_path / "p.csv", *lines), map(Path, media)))
    found = page(folder)
    tags = [tag for tag, _ in found.tags]
    assert tags.count("script") == 3 and "img" not in tags
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
    text = (folder / "summary.html").read_text("utf-8")
    assert text.count("</style>") == 1
    assert HOSTILE in found.texts and "latin\\udce9\\n.mp4" in found.texts


def test_nothing_is_loaded_from_anywhere(tmp_path: Path) -> None:
    folder = run_of(
        tmp_path / "out",
        {"a.mp4": [said(0, 1)], "b.mp4": InputEmpty("the file is empty", path="b.mp4", hint="Copy it again")},
    )
    write_summary(folder)
    found = page(folder)
    assert not {"link", "iframe", "object", "embed", "video", "audio"} & {tag for tag, _ in found.tags}
    assert found.values("src") == [] and all(
        link.startswith(("#", "clip0.html", "tables/")) for link in found.values("href")
    )
    text = (folder / "summary.html").read_text("utf-8")
    assert "url(" not in text and "@import" not in text and "default-src 'none'" in text


def test_failures_come_with_reason_and_remedy(tmp_path: Path) -> None:
    files: dict[str, list[dict[str, Any]] | EmopipeError] = {
        "in/a.mp4": InputEmpty("the file is empty", path="in/a.mp4", hint="Copy or download it again"),
        "in/b.mp4": InputChanged("the file changed while it was read", path="in/b.mp4"),
        "in/c.mp4": [said(0, 1)],
        "in/d.mp4": [said(0, 1)],
        "in/e.mp4": [said(0, 1)],
    }
    folder = run_of(tmp_path / "out", files)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["inputs"][2] |= {
        "state": "degraded",
        "reasons": [reason_as_json(reason("no_face", modality="face")), "something else"],
    }
    manifest["inputs"][4] |= {"state": "pending", "outputs": None}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "clip3.json").write_text("{")
    batch = Batch(folder)
    told = [(trouble.media.name, trouble.state, trouble.reason, trouble.todo[:20]) for trouble in batch.troubles]
    assert told == [
        ("a.mp4", "failed", "EMO-103: the file is empty", "Copy or download it "),
        ("b.mp4", "failed", "EMO-107: the file changed while it was read", "Wait until it is wri"),
        ("c.mp4", "degraded", "face: no face was found in the utterance (no_face)", "Check that a face is"),
        ("c.mp4", "degraded", "something else", "Read the results on "),
        ("d.mp4", "missing", "clip3.json is not in the folder any more, or damaged", "Repeat the command; "),
        ("e.mp4", "pending", "the run ended before this file was done", "Repeat the command: "),
    ]
    write_summary(folder)
    text = page(folder).text
    assert re.search(r"1\s+ok\s+1\s+degraded\s+2\s+failed\s+1\s+not finished", text) and DISCLAIMER in text


def test_codes_lead_to_what_they_mean_on_the_same_page(tmp_path: Path) -> None:
    files: dict[str, list[dict[str, Any]] | EmopipeError] = {
        "in/EMO-104.mp4": NotMedia("the file cannot be decoded", path="in/EMO-104.mp4"),
        "in/b.mp4": [said(0, 1)],
    }
    folder = run_of(tmp_path / "out", files)
    manifest = json.loads((folder / "manifest.json").read_text())
    later = {"code": "EMO-999", "what": "of a later version", "hint": "", "modality": None, "where": None}
    found = [reason_as_json(reason("no_face", modality="face")), later, "in words alone"]
    manifest["inputs"][1] |= {"state": "degraded", "reasons": found}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    write_summary(folder)
    shown = page(folder)
    links = [link for link in shown.values("href") if link.startswith(("#emo", "#EMO", "#no_"))]
    assert links == ["#emo-104", "#no_face"] and set(links) <= {f"#{name}" for name in shown.values("id")}
    assert "A file is not media that can be decoded. Play it in a media player to check" in shown.text
    assert "EMO-999: of a later version" in shown.text and "in words alone" in shown.text


def test_without_trouble_no_codes_are_explained(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "out", {"a.mp4": [said(0, 1)]})
    write_summary(folder)
    assert "codes" not in page(folder).values("id") and "What the codes mean" not in page(folder).text


def test_a_clips_own_page_explains_its_codes() -> None:
    facts = {
        "media": "a.mp4",
        "reasons": [reason_as_json(reason("file_truncated"))],
        "duration": 2.0,
        "info": {},
        "utterances": [said(0, 1, absent={"face": "no_face"}, overlap=0.0, role=None)],
        "checkpoint": "one",
        "config_hash": "c0",
        "emopipe": "0.1.0",
        "notice": DISCLAIMER,
    }
    shown = Page(render_page(facts, "a.mp4"))
    assert [link for link in shown.values("href")] == ["#file_truncated", "#no_face"]
    assert {"file_truncated", "no_face"} <= set(shown.values("id"))
    assert "No face was found in the utterance." in shown.text
    assert "codes" not in Page(render_page(facts | {"reasons": [], "utterances": []}, "a.mp4")).values("id")


def test_an_emotion_is_told_by_name_and_not_by_colour_alone(tmp_path: Path) -> None:
    rows = [said(0, 5, "joy"), said(5, 5.1, "anger"), said(6, 7, "neutral", abstained=True), said(8, 9, None)]
    folder = run_of(tmp_path / "out", {"a.mp4": rows})
    write_summary(folder)
    found = page(folder)
    titles = [
        attributes["title"] for tag, attributes in found.tags if tag == "i" and "left" in (attributes["style"] or "")
    ]
    assert titles == [
        "0:00.0–0:05.0 joy 50%",
        "0:05.0–0:05.1 anger 50%",
        "0:06.0–0:07.0 uncertain, perhaps neutral 50%",
        "0:08.0–0:09.0 no evidence",
    ]
    (timeline,) = [attributes for _, attributes in found.tags if attributes.get("class") == "line"]
    assert timeline["tabindex"] == "0" and re.search(
        r"a\.mp4: anger 1\s%, joy 70\s%, uncertain 14", timeline["aria-label"] or ""
    )


def test_names_can_be_read_on_every_colour() -> None:
    assert {ink(colour) for colour in (*PALETTE.values(), *SPARE)} == {"#ffffff", "#000000"}
    assert ink("#d99a10") == "#000000" and ink("#6c4f9e") == "#ffffff"


def test_long_files_are_shown_in_steps(tmp_path: Path) -> None:
    rows = [said(3 * n, 3 * n + 2, "anger" if n % 10 else "joy") for n in range(MOST_SPANS * 10)]
    (clip,) = Batch(run_of(tmp_path / "out", {"a.mp4": rows})).clips
    ((_, spans),) = clip.lanes
    assert clip.step == pytest.approx(30, abs=0.1) and len(spans) <= MOST_SPANS
    assert {span.outcome for span in spans} == {"anger"} and spans[0].note.endswith("mostly anger")
    assert spans[-1].end == pytest.approx(clip.duration)


def test_steps_without_speech_stay_empty(tmp_path: Path) -> None:
    early, late = ([said(at + n, at + n + 1) for n in range(MOST_SPANS)] for at in (0, 900))
    (clip,) = Batch(run_of(tmp_path / "out", {"a.mp4": early + late})).clips
    ((_, (one, two)),) = clip.lanes
    assert one.start == 0 and one.end == pytest.approx(100) and two.start == pytest.approx(900)


def test_a_thousand_files_make_a_page_that_a_browser_can_open(tmp_path: Path) -> None:
    rows = [said(n, n + 1, ("anger", "joy", "neutral")[n % 3]) for n in range(60)]
    folder = run_of(tmp_path / "out", {f"{n:04}.mp4": rows for n in range(1000)})
    assert len(render_summary(Batch(folder))) < 4_000_000
    assert len(render_summary(Batch(run_of(tmp_path / "few", {f"{n}.mp4": rows for n in range(10)})))) < 100_000


def test_different_models_in_one_folder_are_told(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "out", {"a.mp4": [said(0, 1)], "b.mp4": [said(0, 1)]})
    document = json.loads((folder / "clip0.json").read_text())
    (folder / "clip0.json").write_text(json.dumps(document | {"checkpoint": "two"}))
    write_summary(folder)
    assert "not all predicted by the same model" in page(folder).text


# The command


def test_the_page_is_written_again_from_the_results_alone(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "out", {"/gone/a.mp4": [said(0, 1)], "/gone/b.mp4": [said(0, 1)]})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = CliRunner().invoke(app, ["report", str(folder)])
    assert done.exit_code == 0, done.output
    first = (folder / "summary.html").read_bytes()
    assert CliRunner().invoke(app, ["report", str(folder)]).exit_code == 0
    tables = {path.name for path in (folder / "tables").iterdir()}
    assert tables == {"people.csv", "drift_within_recordings.csv"}
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert after == before | {"summary.html": first}
    participants = table(tmp_path / "p.csv", "file,group", "a,x", "b,y")
    done = CliRunner().invoke(app, ["report", str(folder), "--participants", str(participants)])
    assert done.exit_code == 0 and "one person" in page(folder).text


def test_without_a_run_there_is_nothing_to_report(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert done.exit_code == 2 and "EMO-101" in done.output


def test_what_was_passed_over_is_listed_with_the_reason(tmp_path: Path) -> None:
    run_of(tmp_path, {"a.mp4": [said(0, 1)]})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    why = reason_as_json(reason("not_a_recording", "FFmpeg finds no video or audio in it"))
    manifest["skipped"] = [{"media": f"notes{HOSTILE}.txt", "reasons": [why]}]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    page = render_summary(Batch(tmp_path))
    assert "1 file passed over" in page and "FFmpeg finds no video or audio in it" in page
    assert "<script>alert(1)" not in page and "notes&#34;" in page
