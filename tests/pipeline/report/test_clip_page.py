"""The page of a clip in a real browser: it loads alone, moves, filters, takes corrections, saves and reloads them."""

from __future__ import annotations

import base64
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from emopipe.extractors.face.table import face_table
from emopipe.extractors.voice.acoustic import COLUMNS
from emopipe.extractors.windows import FeatureSequence
from emopipe.pipeline.records import Absent
from emopipe.pipeline.report.clip_page import curves_on, page_data
from emopipe.pipeline.report.curves import MISSING, MOST_PEAKS, MOST_POINTS, coded, curves, sampled
from emopipe.pipeline.report.outputs import DISCLAIMER, render_page, write_clip
from emopipe.pipeline.stages.waveform import PEAK_RATE
from emopipe.pipeline.store.store import Store
from tests.conftest import SAMPLES
from tests.pipeline.report.browser import Page, browser, needs_browser, serious_findings
from tests.pipeline.report.test_batch_page import said

HOSTILE = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 1'>{{ 7*7 }} & \"'"
KEYS = {"probe": "a" * 40, "face": "f" * 40, "voice": "b" * 40}
VOICE_BACKEND = {"voice.backend": "whisper-encoder"}


def record(rows: list[dict[str, Any]], **rest: Any) -> dict[str, Any]:
    facts = {
        "media": "folder/interview.mp4",
        "duration": 32.64,
        "info": {"width": 640, "height": 480},
        "checkpoint": "one",
        "config_hash": "c0",
        "emopipe": "0.1.0",
        "notice": DISCLAIMER,
        "reasons": [],
        "people": [{"name": "S1", "tracks": [0]}, {"name": HOSTILE, "tracks": [1]}],
        "utterances": rows,
        "keys": KEYS,
    }
    return facts | rest


def judged(start: float, end: float, **rest: Any) -> dict[str, Any]:
    opinions = {"text": {"anger": 0.7, "joy": 0.2, "neutral": 0.1}, "face": {"anger": 0.1, "joy": 0.8, "neutral": 0.1}}
    facts = {"unimodal": opinions, "without": opinions, "weights": {"text": 0.4, "face": 0.6}, "speaker": "S1"}
    return said(
        start, end, **{**facts, "quality": {"text": 0.9, "face": 1.0}, "absent": {"voice": "too_short"}, **rest}
    )


ROWS = [
    judged(1.0, 2.0, text="Good morning.", confidence=0.9),
    judged(2.0, 5.0, text=HOSTILE, speaker=HOSTILE, confidence=0.8),
    judged(6.0, 7.5, text="I am so happy today.", label="joy", confidence=0.3),
    judged(8.0, 9.5, text="Good night.", label="joy", confidence=0.6, absent={}),
    said(10.0, 11.0, None, "S1", text=""),
]


def voice_of(start: float, end: float, pitch: float, voiced: float = 1.0) -> FeatureSequence:
    step = dict.fromkeys(COLUMNS, 0.0) | {"pitch": pitch, "level": -6.0, "voiced": voiced}
    features = np.array([[*step.values(), *[0.0] * len(COLUMNS)]], np.float32)
    return FeatureSequence(np.array([start]), np.array([end]), features)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with what was measured of faces and voices."""
    box = {"x0": 0.1, "y0": 0.1, "x1": 0.3, "y1": 0.3, "quality": 0.9}
    faces = [
        {"time": number / 5, "track": track, "AU12": (number % 5) / 5, "AU25": number % 2, **box}
        for number in range(160)
        for track in (0, 1)
        if track == 0 or number < 80
    ]
    table = face_table(faces, backend="pyfeat", version="2", frames=160)
    voice = [voice_of(1.0, 2.0, 12.0), Absent("too_short"), voice_of(6.0, 7.5, 0.0, voiced=0.0)]
    with Store(tmp_path_factory.mktemp("store")) as store:
        store.put(KEYS["face"], {"face_table": table}, {"stage": "face", "content": "", "parameters": {}})
        store.put(KEYS["voice"], {"voice": voice}, {"stage": "voice", "content": "", "parameters": VOICE_BACKEND})
        yield store


def test_curves_are_what_the_stages_measured(store: Store) -> None:
    drawn = {(one["name"], one["person"]): one for one in curves(record(ROWS), store)}
    assert set(drawn) == {
        *((name, person) for name in ("AU12", "AU25", "mouth") for person in ("S1", HOSTILE)),
        ("pitch", ""),
        ("level", ""),
    }
    assert drawn["pitch", ""]["low"] == pytest.approx(130, abs=1)
    assert drawn["AU12", "S1"]["step"] == pytest.approx(0.1, abs=0.01)
    assert curves(record(ROWS, keys={}), store) == [] and curves(record([], duration=None), store) == []


def test_a_waveform_is_as_fine_as_it_was_measured_until_it_is_two_hours_long(tmp_path: Path) -> None:
    keys = {"probe": "a" * 40, "waveform": "d" * 40}
    for seconds, together in ((3600, 1), (7201, 2)):
        swing = np.linspace(0, 0.5, seconds * PEAK_RATE, dtype=np.float32)
        with Store(tmp_path / str(seconds)) as store:
            table = pa.table({"peak": swing})
            store.put(keys["waveform"], {"waveform": table}, {"stage": "waveform", "content": "", "parameters": {}})
            (drawn,) = curves(record(ROWS, keys=keys, duration=float(seconds)), store)
        assert drawn["name"] == "waveform" and drawn["step"] == pytest.approx(together / PEAK_RATE)
        codes = base64.b64decode(drawn["points"])
        assert len(codes) == -(-len(swing) // together) <= MOST_PEAKS and (codes[0], codes[-1]) == (0, 254)
        assert codes[len(codes) // 2] == pytest.approx(254 / 2 / 0.99, abs=1) and len(drawn["points"]) < 200_000


def test_an_hour_has_no_more_points_than_can_be_drawn() -> None:
    times = np.arange(0, 3600, 0.2)
    points = sampled(times, np.where(times < 1800, 0.25, np.nan), 3600)
    assert len(points) == MOST_POINTS and np.isnan(points[1001:]).all()
    assert points[:1000] == pytest.approx(0.25)
    assert len(coded(points, 0, 1)) < 1.4 * MOST_POINTS


def test_a_curve_is_broken_where_nothing_was_measured() -> None:
    points = sampled(np.array([0.0, 0.2, 0.4, 3.0]), np.array([0.0, 1.0, np.nan, 0.5]), 4.0)
    assert np.isnan(points[[6, 15, 25, 35]]).all() and not np.isnan(points[[0, 2, 30]]).any()
    assert np.isnan(sampled(np.array([]), np.array([]), 1.0)).all()
    assert coded(np.array([0.0, 1.0, np.nan]), 0, 1) == "AP7/" and MISSING == 255


def test_the_script_gets_numbers_in_the_order_of_the_labels() -> None:
    data = page_data(record(ROWS), ["anger", "joy", "neutral"], {}, 32.64)
    assert data["rows"][0]["probabilities"] == [0.5, 0.3, 0.2] and data["signs"] == [-1, 1, 0]
    assert data["rows"][0]["unimodal"]["face"] == [0.1, 0.8, 0.1] and data["rows"][4]["probabilities"] == []
    assert (data["name"], data["media"], data["probe"]) == ("interview", "interview.mp4", KEYS["probe"])
    values = [judged(0, 1, label=None, value=0.4, probabilities={}, unimodal={"text": {"value": 0.2}}, without={})]
    assert page_data(record(values), [], {}, 1.0)["rows"][0]["unimodal"] == {"text": [0.2]}


def test_a_page_that_is_written_anew_keeps_its_curves(store: Store, tmp_path: Path) -> None:
    drawn = curves(record(ROWS), store)
    write_clip(tmp_path, "clip", record(ROWS), "a.mp4", drawn)
    before = (tmp_path / "clip.html").read_text()
    write_clip(tmp_path, "clip", record(ROWS), "a.mp4")
    assert (tmp_path / "clip.html").read_text() == before and curves_on(tmp_path / "clip.html") == drawn
    (tmp_path / "clip.html").write_text("of an earlier version")
    assert curves_on(tmp_path / "clip.html") == [] and curves_on(tmp_path / "gone.html") == []


def test_nothing_in_words_or_names_ends_the_script_or_begins_an_element() -> None:
    page = render_page(record(ROWS, media=f"a/{HOSTILE}.mp4"), "a.mp4")
    assert "<img" not in page and "window.broken = 1</" not in page
    assert page.count("<script") == 2 and page.count("</script>") == 2


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser, and the folder of its downloads."""
    folder = tmp_path_factory.mktemp("browser")
    with browser(folder) as driver:
        yield driver, folder


def listed(page: Page) -> list[int]:
    """Numbers of the utterances that are listed, by their starts."""
    starts = page.do("return [...document.querySelectorAll('.row:not([hidden])')].map(e => +e.dataset.start)")
    return [[row["start"] for row in ROWS].index(start) for start in starts]


@pytest.fixture
def page(opened: Any, store: Store) -> Page:
    """The page of a recording, opened from a folder, with nothing kept from before."""
    driver, folder = opened
    (folder / "interview.html").write_text(
        render_page(record(ROWS), "interview.mp4", curves=curves(record(ROWS), store))
    )
    if not (folder / "interview.mp4").exists():
        shutil.copy(SAMPLES / "interview.mp4", folder)
    driver.get((folder / "interview.html").as_uri())
    driver.execute_script("localStorage.clear()")
    driver.get((folder / "interview.html").as_uri())
    shown = Page(driver, folder)
    shown.wait("document.getElementById('media').readyState > 0")
    return shown


@needs_browser
@pytest.mark.slow
def test_it_loads_without_errors_and_asks_no_host(page: Page) -> None:
    assert page.driver.get_log("browser") == []
    asked = page.requests()
    assert asked and {url.split(":")[0] for url in asked} <= {"file", "data", "blob"}
    assert page.do("return window.broken") is None and page.do("return document.images.length") == 0
    assert page.do("return document.documentElement.scrollWidth <= innerWidth")


@needs_browser
@pytest.mark.slow
def test_clicks_and_keys_move_by_utterance(page: Page) -> None:
    page.click(".row .time", 2)
    page.wait("document.getElementById('media').currentTime === 6")
    assert "too_short" in page.do("return document.getElementById('reasons').innerText")
    page.keys("j")
    page.wait("document.getElementById('media').currentTime === 8")
    page.keys("k", "ArrowLeft")
    page.wait("document.getElementById('media').currentTime === 4")
    page.keys("u")
    page.wait("document.querySelector('.selected').dataset.start === '10.0'")
    page.do(
        "const c = document.getElementById('overview'), box = c.getBoundingClientRect();"
        "c.dispatchEvent(new MouseEvent('click', {clientX: box.left + box.width / 2,"
        " clientY: box.top + 5, bubbles: true}))"
    )
    page.wait("Math.abs(document.getElementById('media').currentTime - 16.32) < 0.1")
    page.keys("?")
    assert page.do("return document.getElementById('help').open")


@needs_browser
@pytest.mark.slow
def test_it_plays_in_step(page: Page) -> None:
    page.click(".row .time", 2)
    page.click("#play-one")
    page.wait("document.querySelector('.row.now')?.dataset.start === '6.0'")
    page.wait("document.getElementById('media').paused && document.getElementById('media').currentTime >= 7.4", 15)


@needs_browser
@pytest.mark.slow
def test_filters_and_order(page: Page) -> None:
    cases: list[tuple[str, Any, list[int]]] = [
        ("filter-words", "GOOD", [0, 3]),
        ("filter-person", "S1", [0, 2, 3, 4]),
        ("filter-label", "joy", [2, 3]),
        ("filter-confidence", "0.6", [2, 3, 4]),
        ("filter-absent", "voice", [0, 1, 2]),
        ("filter-state", "done", []),
        ("order", "doubt", [4, 2, 3, 1, 0]),
    ]
    for name, value, left in cases:
        page.fill(name, value)
        assert listed(page) == left, name
        page.fill(name, "time" if name == "order" else "")
    assert listed(page) == [0, 1, 2, 3, 4]


def correct(page: Page) -> None:
    page.click(".row .time", 0)
    page.keys("c")
    page.click(".row .time", 1)
    page.fill("edit-label", "joy")
    page.fill("edit-text", f"{HOSTILE}!")
    page.fill("edit-note", HOSTILE)
    page.fill("edit-person", "S1")
    page.fill("edit-start", "2.25")
    page.click(".row .time", 2)
    page.fill("edit-end", "5")  # before its start: not kept
    page.click(".row .time", 3)
    page.fill("edit-label", "anger")
    page.click("#revert")


@needs_browser
@pytest.mark.slow
def test_corrections_are_saved_and_come_back(page: Page) -> None:
    correct(page)
    page.click("#save")
    assert "Who corrects?" in page.do("return document.getElementById('status').innerText")
    page.fill("by", HOSTILE)
    saved = page.saved()
    assert (saved["format"], saved["version"], saved["by"]) == ("emopipe-corrections", 1, HOSTILE)
    (own,) = saved["recordings"]
    assert (own["name"], own["media"], own["probe"]) == ("interview", "interview.mp4", KEYS["probe"])
    first, second = own["utterances"]
    confirmed = {"label": ROWS[0]["label"], "confirmed": True, "when": first["when"]}
    assert first == {"start": 1.0, "end": 2.0, "speaker": "S1", **confirmed}
    changed = {"label": "joy", "text": f"{HOSTILE}!", "note": HOSTILE, "person": "S1", "bounds": [2.25, 5]}
    assert second == {"start": 2.0, "end": 5.0, "speaker": HOSTILE, "when": second["when"], **changed}
    page.driver.refresh()
    page.wait("document.querySelectorAll('.mark').length === 2")
    assert page.saved()["recordings"] == saved["recordings"]
    page.do("localStorage.clear()")
    page.driver.refresh()
    assert page.do("return document.querySelectorAll('.mark').length") == 0
    (page.folder / "again.json").write_text(json.dumps(saved))
    page.driver.find_element("id", "load").send_keys(str(page.folder / "again.json"))
    page.wait("document.querySelectorAll('.mark').length === 2")
    assert page.saved()["recordings"] == saved["recordings"] and page.do("return window.broken") is None
    assert page.driver.get_log("browser") == []


FILES: dict[str, Callable[[dict[str, Any]], object]] = {
    "not JSON": lambda _: "no",
    "another version": lambda _: {"format": "emopipe-corrections", "version": 9, "recordings": []},
    "another recording": lambda row: document(row, probe="0" * 40),
    "unknown class": lambda row: document({**row, "label": HOSTILE}),
    "bounds that are not numbers": lambda row: document({**row, "bounds": ["1", None]}),
    "an utterance that is not there": lambda row: document({**row, "start": 1.5, "note": "x"}),
    "recordings are not a list": lambda _: {"format": "emopipe-corrections", "version": 1, "recordings": 7},
}


def document(row: dict[str, Any], probe: str = KEYS["probe"]) -> dict[str, Any]:
    recordings = [{"name": "interview", "probe": probe, "utterances": [row]}]
    return {"format": "emopipe-corrections", "version": 1, "by": "", "recordings": recordings}


@needs_browser
@pytest.mark.slow
def test_files_that_are_not_its_corrections_change_nothing(page: Page) -> None:
    for name, make in FILES.items():
        made = make({"start": 1.0, "end": 2.0, "speaker": "S1", "when": "2026-11-28T12:00:00Z"})
        (page.folder / "odd.json").write_text(made if isinstance(made, str) else json.dumps(made))
        page.do("document.getElementById('status').textContent = ''")
        page.driver.find_element("id", "load").send_keys(str(page.folder / "odd.json"))
        text = page.wait("document.getElementById('status').textContent")
        assert "cannot be used" in text or "0 corrections" in text, name
        assert page.do("return document.querySelectorAll('.mark').length") == 0, name


@needs_browser
@pytest.mark.slow
def test_without_its_recording_it_can_still_be_read_and_corrected(page: Page) -> None:
    page.driver.get((page.folder / "interview.html").as_uri())
    (page.folder / "alone.html").write_text(render_page(record(ROWS), "gone.mp4"))
    page.driver.get((page.folder / "alone.html").as_uri())
    page.wait("!document.getElementById('unplayable').hidden")
    page.click(".row .time", 2)
    page.keys("c")
    assert page.do("return document.querySelectorAll('.mark').length") == 1


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page: Page, scheme: str) -> None:
    emulated = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", emulated)
    correct(page)
    assert serious_findings(page) == []


@needs_browser
@pytest.mark.slow
def test_it_fits_narrow_and_wide_screens(page: Page) -> None:
    for width in (360, 768, 1280, 3840):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        page.wait(f"innerWidth === {width}")
        time.sleep(0.2)
        assert page.do("return document.documentElement.scrollWidth") <= width
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def hour() -> dict[str, Any]:
    """Two people who talk for an hour, one utterance after the other."""
    rows = [
        judged(
            2.0 * number,
            2.0 * number + 1.9,
            speaker=("S1", HOSTILE)[number % 2],
            text=f"Number {number}: {ROWS[number % 4]['text'][:60]} and some more words",
            probabilities={name: 1 / 7 for name in "abcdefg"},
            unimodal={modality: {name: 1 / 7 for name in "abcdefg"} for modality in ("face", "text", "voice")},
            without={modality: {name: 1 / 7 for name in "abcdefg"} for modality in ("face", "text", "voice")},
        )
        for number in range(1800)
    ]
    return record(rows, duration=3600.0)


@needs_browser
@pytest.mark.slow
def test_an_hour_of_two_people_plays_and_stays_small(
    page: Page, record_property: Callable[[str, object], None]
) -> None:
    points = coded(np.linspace(0, 1, MOST_POINTS), 0, 1)
    line = {"low": 0, "high": 1, "step": 3600 / MOST_POINTS, "shown": True, "points": points}
    drawn = [
        {**line, "name": f"AU{number:02d}", "title": f"AU{number:02d}", "person": person}
        for number in range(20)
        for person in ("S1", HOSTILE)
    ]
    peaks = coded(np.abs(np.sin(np.arange(3600 * PEAK_RATE))), 0, 1)
    drawn.append(
        {**line, "name": "waveform", "title": "Waveform", "person": "", "step": 1 / PEAK_RATE, "points": peaks}
    )
    path = page.folder / "hour.html"
    path.write_text(render_page(hour(), "interview.mp4", curves=drawn))
    assert path.stat().st_size < 5_000_000
    page.driver.get(path.as_uri())
    paint = page.wait("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
    page.wait("document.getElementById('media').readyState > 0")
    page.click("#zoom-in")
    page.do(
        "window.tasks = []; document.getElementById('media').play();"
        "new PerformanceObserver(l => tasks.push(...l.getEntries())).observe({type: 'longtask'})"
    )
    page.wait("document.getElementById('media').currentTime > 9", 60)
    tasks = page.do("return tasks.map(task => task.duration)")
    record_property("milliseconds to first paint, and scripting tasks of 50 ms or more while playing", [paint, *tasks])
    assert page.do("return document.querySelectorAll('.row').length") == len(hour()["utterances"])
