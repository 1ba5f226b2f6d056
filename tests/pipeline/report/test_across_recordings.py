"""What the page about many recordings tells: turn-taking, groups, questions, drift, and its tables."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import emopipe
from emopipe.extractors.windows import FeatureSequence
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.records import Absent
from emopipe.pipeline.report.batch import Batch
from emopipe.pipeline.report.batch_page import render_summary, write_summary
from emopipe.pipeline.report.drift import drift_across, drift_within, natural_order
from emopipe.pipeline.report.group_differences import contrasts
from emopipe.pipeline.report.intervals import Difference, difference, mean_over_persons
from emopipe.pipeline.report.participants import read_participants
from emopipe.pipeline.report.person_statistics import DISTANCE, LATENCY, TALK_SHARE, Person, compare
from emopipe.pipeline.report.questions import ALIKE, find_questions
from emopipe.pipeline.report.tables import Table
from emopipe.pipeline.report.turn_taking import turn_taking
from emopipe.pipeline.store.store import Store
from tests.pipeline.report.test_batch_page import HOSTILE, run_of, said, table
from tests.pipeline.report.test_clip_page import Page, judged, needs_browser, opened

__all__ = ["opened"]

FORMULA = '=HYPERLINK("http://example.org","click")'


def turn(start: float, end: float, person: int) -> dict[str, Any]:
    return {"start": start, "end": end, "person": person, "overlap": False}


def interview(*lines: tuple[float, float, str, str], label: str = "joy") -> list[dict[str, Any]]:
    """Utterances of an interviewer (S1) and an interviewee (S2)."""
    roles = {"S1": "interviewer", "S2": "interviewee"}
    return [said(start, end, label, who, role=roles[who], text=text) for start, end, who, text in lines]


def add(folder: Path, number: int, **facts: Any) -> None:
    """Put more into the document of a recording."""
    path = folder / f"clip{number}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


# Turn-taking


def test_gaps_overlaps_pauses_and_what_lies_inside_are_told_apart() -> None:
    talks, transfers = turn_taking(
        [turn(0, 2, 0), turn(2.5, 4, 0), turn(3, 3.4, 1), turn(5, 8, 1), turn(7.5, 9, 0), turn(9.2, 10, 1)]
    )
    one, two = talks[0], talks[1]
    assert one.pauses == [0.5] and two.inside == 1
    assert two.latencies == pytest.approx([1.0, 0.2]) and one.latencies == pytest.approx([-0.5])
    assert (one.turns, two.turns) == (2, 2)
    assert [(change.before, change.after) for change in transfers] == [(0, 1), (1, 0), (0, 1)]
    assert one.seconds == pytest.approx(5.0) and two.whole == pytest.approx(9.2)


STRETCHES = st.lists(
    st.builds(
        lambda start, length, person: turn(start, start + length, person),
        st.floats(0, 100),
        st.floats(0.01, 10),
        st.integers(0, 2),
    ),
    max_size=30,
)


@given(STRETCHES)
def test_nobody_is_heard_longer_than_they_speak_and_every_turn_but_the_first_answers(turns: list[Any]) -> None:
    talks, transfers = turn_taking(turns)
    assert sum(talk.seconds for talk in talks.values()) <= sum(one["end"] - one["start"] for one in turns) + 1e-6
    assert len(transfers) == max(sum(talk.turns for talk in talks.values()) - 1, 0)
    assert all(change.before != change.after for change in transfers)
    assert all(pause > 0 for talk in talks.values() for pause in talk.pauses)
    assert sorted(x.offset for x in transfers) == sorted(x for talk in talks.values() for x in talk.latencies)


# Groups


def test_a_person_counts_once_however_many_utterances_they_have(tmp_path: Path) -> None:
    files: dict[str, Any] = {f"x{n}.mp4": [said(t, t + 1, "joy") for t in range(n * n + 1)] for n in range(4)}
    files |= {f"y{n}.mp4": [said(0, 1, "anger"), said(1, 1 + n, "joy")] for n in range(1, 4)}
    folder = run_of(tmp_path / "out", files)
    lines = ["file,group", *(f"{name},{name[0]}" for name in files)]
    read = read_participants(table(tmp_path / "p.csv", *lines), map(Path, files))
    (comparison,) = compare(read, Batch(folder).appearances, {}).comparisons
    found = {one.measure: one for one in contrasts(comparison, ["anger", "joy", "neutral"])}
    assert set(found) == {"anger", "joy"}
    joy = found["joy"]
    assert joy.groups["x"] is not None and (joy.groups["x"].mean, joy.groups["x"].persons) == (1.0, 4)
    way = joy.differences["y"]
    assert way is not None and way.estimate.mean == pytest.approx(np.mean([1 / 2, 2 / 3, 3 / 4]) - 1)
    assert way.estimate.low is not None and way.estimate.high is not None
    assert -1.0 <= way.estimate.low < way.estimate.mean < way.estimate.high <= 1.0


def test_persons_in_both_groups_are_compared_with_themselves() -> None:
    before, after = {"a": 0.1, "b": 0.5, "c": 0.9}, {"a": 0.2, "b": 0.62, "c": 0.98}
    within = difference(before, after)
    assert within is not None and within.within and within.estimate.persons == 3
    assert within.estimate.mean == pytest.approx(0.1) and within.estimate.low is not None
    assert within.estimate.low > 0.04
    others = {f"p{n}": n / 10 for n in range(5)}
    apart = difference({**others, "a": 0.1}, {**{f"q{n}": n / 5 for n in range(5)}, "a": 0.9})
    assert isinstance(apart, Difference) and not apart.within and (apart.left_out, apart.estimate.persons) == (1, 10)
    assert difference({}, before) is None


def test_too_few_persons_have_no_interval() -> None:
    alone = mean_over_persons([0.3])
    assert alone is not None and (alone.low, alone.high) == (None, None)
    same = mean_over_persons([0.0, 0.0, 0.0])
    assert same is not None and same.low is None and mean_over_persons([]) is None


def test_intervals_of_few_persons_hold_the_true_difference_as_often_as_they_say() -> None:
    chance, held = np.random.default_rng(0), 0
    for _ in range(400):
        first, second = (chance.binomial(20, chance.beta(6 * mean, 6 - 6 * mean, 5)) / 20 for mean in (0.3, 0.2))
        found = difference(dict(enumerate(first)), {n + 10: share for n, share in enumerate(second)})
        assert found is not None and found.estimate.low is not None and found.estimate.high is not None
        held += found.estimate.low <= -0.1 <= found.estimate.high
    assert held / 400 >= 0.92


# Questions

QUESTIONS = {
    "a.mp4": interview(
        (0, 2, "S1", "How long have you been working here?"),
        (2.5, 5, "S2", "Eleven years."),
        (5, 5.4, "S1", "Mhm."),
        (5.5, 8, "S2", "Or twelve."),
        (8, 9, "S1", "That is a long time, I did not know that."),
        (9, 10, "S2", "Yes."),
        (10, 12, "S1", "What do you like about the maps?"),
        (13, 15, "S2", "Everything."),
    ),
    "b.mp4": interview(
        (0, 2, "S1", "How long have you worked here?"),
        (3, 5, "S2", "One year."),
        (6, 8, "S1", "What happened last winter?"),
        (8.5, 9, "S2", "Snow."),
        label="anger",
    ),
}
#: A direction for each thing that is asked.
TOPICS = {"How long": 0, "like about": 1, "last winter": 2}


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[tuple[Path, Store]]:
    """Results of two interviews, and a store with the vectors of their words."""
    folder = run_of(tmp_path / "out", dict(QUESTIONS))
    chance = np.random.default_rng(1)
    with Store(tmp_path / "store") as store:
        for number, rows in enumerate(QUESTIONS.values()):
            vectors: list[FeatureSequence | Absent] = []
            for row in rows:
                topic = next((place for words, place in TOPICS.items() if words in row["text"]), 3)
                tokens = np.eye(8)[topic] + chance.normal(0, 0.1, (4, 8))
                vectors.append(FeatureSequence(np.arange(4.0), np.arange(4.0) + 1, tokens.astype(np.float32)))
            store.put(str(number) * 40, {"text": vectors}, {"stage": "text", "content": "", "parameters": {}})
            add(folder, number, keys={"text": str(number) * 40})
        yield folder, store


def test_an_answer_lasts_until_the_interviewer_asks_or_tells_something_else() -> None:
    first, second = find_questions(Path("a.mp4"), QUESTIONS["a.mp4"])
    assert (first.text, first.index) == ("How long have you been working here?", 0)
    (answer,) = first.answers
    assert (answer.text, answer.latency) == ("Eleven years. Or twelve.", 0.5)
    assert second.text == "What do you like about the maps?" and second.answers[0].text == "Everything."


def test_answers_to_the_same_question_are_put_side_by_side(asked: tuple[Path, Store]) -> None:
    folder, store = asked
    write_summary(folder, store=store)
    aligned = Batch(folder, store).questions
    (same,) = aligned.same
    assert {question.media.name for question in same.asked} == {"a.mp4", "b.mp4"}
    assert aligned.threshold is not None and aligned.threshold >= ALIKE and aligned.number == aligned.compared == 4
    rows = list(csv.DictReader((folder / "tables" / "questions.csv").open(encoding="utf-8")))
    assert [(row["file"], row["latency_s"], row["share_joy"], row["answer"]) for row in rows] == [
        ("a.mp4", "0.5", "1.0", "Eleven years. Or twelve."),
        ("b.mp4", "1", "0.0", "One year."),
    ]


def test_without_the_store_questions_stay_as_the_page_has_them(asked: tuple[Path, Store], tmp_path: Path) -> None:
    folder, store = asked
    assert "store of the run" in Batch(folder).questions.why
    write_summary(folder, store=store)
    first = (folder / "summary.html").read_bytes()
    write_summary(folder)
    assert (folder / "summary.html").read_bytes() == first
    with Store(tmp_path / "another") as another:
        write_summary(folder, store=another)
    assert (folder / "summary.html").read_bytes() == first


def test_no_question_or_no_common_one_is_told(asked: tuple[Path, Store], tmp_path: Path) -> None:
    alone = run_of(tmp_path / "alone", {"a.mp4": QUESTIONS["a.mp4"], "b.mp4": [said(0, 1)]})
    assert "fewer than two recordings" in Batch(alone, asked[1]).questions.why
    different = run_of(tmp_path / "different", {"a.mp4": QUESTIONS["a.mp4"][6:], "b.mp4": QUESTIONS["b.mp4"][2:]})
    _, store = asked
    for number, first in ((0, 6), (1, 2)):
        vectors = (store.get(str(number) * 40) or {})["text"]
        key = str(number + 2) * 40
        store.put(key, {"text": list(vectors)[first:]}, {"stage": "text", "content": "", "parameters": {}})
        add(different, number, keys={"text": key})
    assert Batch(different, store).questions.why == "no two recordings ask the same question"
    write_summary(different, store=store)
    assert "no two recordings ask the same question" in (different / "summary.html").read_text("utf-8")


def test_an_encoder_whose_vectors_are_all_alike_has_a_higher_threshold(asked: tuple[Path, Store]) -> None:
    folder, store = asked
    for number in range(2):
        vectors = (store.get(str(number) * 40) or {})["text"]
        raised = [FeatureSequence(one.start, one.end, one.features + np.float32(2)) for one in vectors]
        key = str(number + 4) * 40
        store.put(key, {"text": raised}, {"stage": "text", "content": "", "parameters": {}})
        add(folder, number, keys={"text": key})
    aligned = Batch(folder, store).questions
    assert aligned.threshold is not None and aligned.threshold > 0.9
    assert [len(same.asked) for same in aligned.same] == [2]


# Drift


def test_drift_within_a_recording_is_a_mean_over_persons(tmp_path: Path) -> None:
    rows = [said(0, 10, "anger"), said(30, 40, "joy")]
    in_the_middle = rows[:1]
    files = {"a.mp4": rows, "b.mp4": [said(0, 10, "joy"), *rows[1:]], "c.mp4": in_the_middle}
    folder = run_of(tmp_path / "out", files)
    batch = Batch(folder)
    drift = {one.measure: one for one in drift_within(batch.interviewees, batch.outcomes)}
    parts = [None if part is None else round(part.mean, 2) for part in drift["joy"].parts]
    assert parts == [0.5, None, 0.0, 1.0]
    change = drift["joy"].change
    assert change is not None and (change.mean, change.persons) == (0.5, 2)


def test_drift_over_recordings_goes_by_the_order_of_their_names(tmp_path: Path) -> None:
    files = {f"week {n}.mp4": [said(0, 1, label, "anna")] for n, label in ((2, "anger"), (10, "joy"), (1, "joy"))}
    folder = run_of(tmp_path / "out", {**files, "other.mp4": [said(0, 1, "joy", "ben")]})
    batch = Batch(folder)
    anger = {one.measure: one for one in drift_across(batch.appearances, batch.outcomes)}.get("anger")
    assert anger is None, "the first and the last are joy"
    write_summary(folder)
    rows = list(csv.DictReader((folder / "tables" / "recordings_of_people.csv").open(encoding="utf-8")))
    assert [row["file"] for row in rows] == ["week 1.mp4", "week 2.mp4", "week 10.mp4"]
    assert sorted([Path("a10"), Path("a2"), Path("a")], key=natural_order) == [Path("a"), Path("a2"), Path("a10")]


# Tables


def conversation(folder: Path) -> Path:
    rows = [judged(0, 2, speaker="S1"), judged(2.5, 4, speaker="S2", text=FORMULA)]
    run_of(folder, {"a.mp4": rows, "b.mp4": [said(0, 1)]})
    people = [{"number": 0, "name": "S1", "tracks": []}, {"number": 1, "name": "S2", "tracks": []}]
    add(folder, 0, people=people, turns=[turn(0, 2, 0), turn(2.5, 4, 1)])
    return folder


def test_tables_are_the_same_from_python_and_on_disk(tmp_path: Path) -> None:
    folder = conversation(tmp_path / "out")
    write_summary(folder)
    read = emopipe.tables(folder, store=tmp_path / "no store")
    assert {name for name, frame in read.items() if len(frame)} == {path.stem for path in (folder / "tables").iterdir()}
    talk = read["turn_taking"].set_index("person")
    assert talk.loc["S2", "response_latency_median_s"] == 0.5 and talk.loc["S1", "responses"] == 0
    assert talk["share_of_talk"].sum() == pytest.approx(1, abs=1e-3)
    assert read["floor_transfers"].to_dict("records") == [
        {"file": "a.mp4", "time": 2.5, "from": "S1", "to": "S2", "offset_s": 0.5, "kind": "gap"}
    ]
    speaker = read["people"].set_index("person").loc["S2"]
    assert speaker["median_response_latency_s"] == 0.5 and speaker["difference_of_words_and_expression"] > 0
    measures = Batch(folder).appearances[1].tally.measures
    assert {LATENCY, TALK_SHARE, DISTANCE} <= set(measures)


def test_spreadsheets_find_no_formulas(tmp_path: Path) -> None:
    folder = conversation(tmp_path / "out")
    write_summary(folder)
    rows = list(csv.DictReader((folder / "tables" / "said_and_shown.csv").open(encoding="utf-8")))
    assert [row["text"] for row in rows] == ["words", f"'{FORMULA}"]
    for start in "=+-@\t\r\n":
        assert Table("x", [{f"{start}name": f"{start}1"}]).as_csv().count("'") == 2
    assert "-0.5" in Table("x", [{"number": -0.5}]).as_csv().splitlines()[1]


def test_a_table_that_is_empty_now_is_removed_and_others_stay(tmp_path: Path) -> None:
    folder = conversation(tmp_path / "out")
    write_summary(folder)
    (folder / "tables" / "mine.csv").write_text("x")
    add(folder, 0, turns=[])
    write_summary(folder)
    there = {path.name for path in (folder / "tables").iterdir()}
    assert "mine.csv" in there and "turn_taking.csv" not in there


def test_the_command_takes_the_store_of_the_run(asked: tuple[Path, Store]) -> None:
    folder, store = asked
    done = CliRunner().invoke(app, ["report", str(folder), "--store", str(store.folder)])
    assert done.exit_code == 0, done.output
    assert (folder / "tables" / "questions.csv").exists()


@pytest.mark.slow
def test_two_hundred_recordings_make_a_small_page(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    words = [f"word{number}" for number in range(2000)]
    rows = [
        judged(6.0 * n, 6.0 * n + 5, text=" ".join(chance.choice(words, 12)), confidence=0.5, without={})
        for n in range(150)
    ]
    folder = run_of(tmp_path / "out", {f"{n:03}.mp4": rows for n in range(200)})
    assert len(render_summary(Batch(folder))) < 5_000_000


# In the browser


@pytest.fixture
def page(opened: Any) -> Page:
    driver, folder = opened
    hostile = [
        judged(0, 2, text=f"Good morning, {HOSTILE}", speaker=HOSTILE, confidence=0.9),
        judged(3, 5, text="=1+1 it is Zoë", speaker="S2", label="joy", confidence=0.3),
        said(6, 7, None, "S2", text=""),
    ]
    run_of(folder, {f"in/{HOSTILE.replace('/', '')}.mp4": hostile, "in/b.mp4": [judged(1, 2, text="Good night")]})
    groups = table(folder / "p.csv", "file,group", "b,x")
    write_summary(folder, read_participants(groups, [Path("in/b.mp4")]))
    driver.get_log("browser")
    driver.get((folder / "summary.html").as_uri())
    shown = Page(driver, folder)
    shown.wait("document.getElementById('find-status').textContent.includes('moments')")
    return shown


def hits(page: Page) -> list[str]:
    texts: list[str] = page.do(
        "return [...document.querySelectorAll('#hits li > :nth-child(2)')].map(e => e.textContent)"
    )
    return texts


def expect(page: Page, *texts: str) -> None:
    """Wait until these are the hits."""
    until = time.monotonic() + 15
    while hits(page) != list(texts):
        assert time.monotonic() < until, hits(page)
        time.sleep(0.05)


@needs_browser
@pytest.mark.slow
def test_moments_are_found_by_words_person_group_emotion_and_what_is_shown(page: Page) -> None:
    morning, zoe, none, night = f"Good morning, {HOSTILE}", "=1+1 it is Zoë", "no words", "Good night"
    expect(page, morning, zoe, none, night)
    page.fill("find-words", "MORNING good")
    expect(page, morning)
    page.fill("find-words", "zoe")
    expect(page, zoe)
    page.fill("find-words", "")
    page.fill("find-group", "group: x")
    expect(page, night)
    page.fill("find-group", "")
    page.fill("find-outcome", page.do("return [...document.getElementById('find-outcome').options].at(-1).value"))
    expect(page, none)
    page.fill("find-outcome", "")
    page.fill("find-most", "30")
    expect(page, zoe)
    page.click("#find button[type=reset]")
    expect(page, morning, zoe, none, night)
    page.click("#find-differ")
    expect(page, morning, zoe, night)
    assert page.do("return window.broken") is None and page.driver.get_log("browser") == []


@needs_browser
@pytest.mark.slow
def test_a_hit_leads_to_the_page_of_the_file_at_that_time(page: Page) -> None:
    assert page.do("return document.querySelector('#hits li:nth-child(2) a').getAttribute('href')") == "clip0.html#t=3"


@needs_browser
@pytest.mark.slow
def test_hits_are_saved_without_formulas(page: Page) -> None:
    path = page.folder / "moments.csv"
    page.fill("find-words", "zoe")
    expect(page, "=1+1 it is Zoë")
    page.click("#find-save")
    until = time.monotonic() + 10
    while not (path.exists() and path.stat().st_size):
        assert time.monotonic() < until, "nothing was saved"
        time.sleep(0.05)
    (row,) = csv.DictReader(path.open(encoding="utf-8", newline=""))
    path.unlink()
    assert row["text"] == "'=1+1 it is Zoë" and row["outcome"] == "joy" and row["confidence"] == "0.3"


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page: Page, scheme: str, axe: Callable[[Page], list[Any]]) -> None:
    emulated = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", emulated)
    assert axe(page) == []


@pytest.fixture
def axe() -> Callable[[Page], list[Any]]:
    from importlib.util import find_spec

    package = find_spec("axe_core_python")
    if package is None or package.origin is None:
        pytest.skip("needs axe-core-python, which holds axe-core")
    script = (Path(package.origin).parent / "axe.min.js").read_text()

    def run(page: Page) -> list[Any]:
        page.driver.set_script_timeout(120)
        page.do(script)
        answer = page.driver.execute_async_script("axe.run().then(arguments[0])")
        return [
            (one["id"], one["nodes"][0]["html"][:200])
            for one in answer["violations"]
            if one["impact"] in ("serious", "critical")
        ]

    return run


@needs_browser
@pytest.mark.slow
def test_it_fits_narrow_and_wide_screens(page: Page) -> None:
    for width in (360, 768, 1280, 3840):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        page.wait(f"innerWidth === {width}")
        page.wait(f"document.documentElement.scrollWidth <= {width}")
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_named_person_is_one_whoever_else_speaks() -> None:
    alone, asked, asks = (Person.of(Path("a.mp4"), "anna", role) for role in (None, "interviewee", "interviewer"))
    assert alone == asked and len({alone, asked, asks}) == 2
    assert Person.of(Path("a.mp4"), "S1", None) != Person.of(Path("b.mp4"), "S1", None)
