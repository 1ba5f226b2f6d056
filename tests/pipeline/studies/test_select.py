"""`emopipe select`: uncertain utterances, unlike each other and what is labelled, as a labels table and as a page."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from emopipe.pipeline.cli.app import app
from emopipe.pipeline.datasets.labels import read_labels
from emopipe.pipeline.records import FileResult, UtteranceResult
from emopipe.pipeline.report.outputs import Sink
from emopipe.pipeline.studies.select import Candidate, choose, select_utterances, uncertainty


def utterance(start: float = 0.0, sure: float = 0.5, **rest: Any) -> UtteranceResult:
    probabilities = {"calm": sure, "stress": 1 - sure}
    facts: dict[str, Any] = {
        "start": start,
        "end": start + 2,
        "speaker": "S1",
        "role": None,
        "overlap": 0.0,
        "text": "<b>Well</b>",
        "label": "calm",
        "value": None,
        "probabilities": probabilities,
        "weights": {"face": 1.0},
        "unimodal": {"face": probabilities},
        "absent": {"voice": "too_short", "text": "no_words"},
        "quality": {"face": 0.9},
        "confidence": sure,
        "abstained": False,
    }
    return UtteranceResult(**{**facts, **rest})


def candidate(features: Any, doubt: float = 1.0) -> Candidate:
    return Candidate(Path("a.mp4"), utterance(), doubt, {"face": np.asarray(features, dtype=float)})


def test_uncertainty_is_the_entropy_or_how_far_modalities_disagree() -> None:
    assert uncertainty(utterance(sure=0.5)) == pytest.approx(1) and uncertainty(utterance(sure=1.0)) == 0
    value = {"label": None, "probabilities": {}, "value": 0.1}
    agree = utterance(**value, unimodal={"face": {"value": 0.1}, "voice": {"value": 0.1}})
    differ = utterance(**value, unimodal={"face": {"value": -1.0}, "voice": {"value": 1.0}})
    assert uncertainty(agree) == 0 and (uncertainty(differ) or 0) > 0.4
    assert uncertainty(utterance(**{**value, "value": None})) is None


def test_each_group_is_chosen_once_the_uncertain_ones_first() -> None:
    rng = np.random.default_rng(0)
    centres = 10 * rng.normal(size=(4, 8))
    found = [candidate(centres[n % 4] + 0.1 * rng.normal(size=8), 0.2 + 0.2 * (n % 4)) for n in range(40)]
    order, represents = choose(found, 4)
    assert sorted(at % 4 for at in order) == [0, 1, 2, 3] and order[0] % 4 == 3
    assert sum(represents) == 40 and set(represents) == {10}


def test_near_duplicates_are_not_chosen_twice_nor_what_is_labelled_already() -> None:
    rng = np.random.default_rng(1)
    distinct = rng.normal(size=(6, 5))
    found = [candidate(distinct[n % 6] + 1e-6 * n) for n in range(18)]
    order, _ = choose(found, 10)
    assert sorted(at % 6 for at in order) == list(range(6))
    order, _ = choose(found, 10, [{"face": distinct[2]}, {"face": distinct[3]}])
    assert sorted(at % 6 for at in order) == [0, 1, 4, 5]


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from([(), (0,), (1,), (0, 1)])), min_size=1, max_size=12))
def test_any_candidates_are_chosen_from_without_repeats(rows: list[tuple[float, tuple[int, ...]]]) -> None:
    rng = np.random.default_rng(2)
    names = ("face", "voice")
    found = [
        Candidate(Path("a.mp4"), utterance(), doubt, {names[one]: rng.normal(size=3 + one) for one in there})
        for doubt, there in rows
    ]
    order, represents = choose(found, 5)
    assert 1 <= len(order) <= 5 and len(set(order)) == len(order) and sum(represents) == len(found)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """What a run left: three utterances and a short one."""
    media = tmp_path / "two people.mp4"
    media.touch()
    utterances = [utterance(0.0, 0.5), utterance(3.0, 0.9), utterance(6.0, 0.6, speaker="anna"), utterance(9, end=9.2)]
    result = FileResult(media, "ok", [], 12.0, {}, "emopipe-default", [], [], utterances, {})
    sink = Sink(tmp_path / "results", [media], "c0", "1")
    sink.write(result)
    sink.finish()
    return tmp_path / "results"


def test_the_table_can_be_labelled_and_extracted(results: Path, tmp_path: Path) -> None:
    found = select_utterances(results, tmp_path / "next", 2, store=tmp_path / "no store")
    assert (found.candidates, found.without_features, found.passed_over) == (3, 3, {"too_short": 1})
    path = tmp_path / "next" / "select.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["", ""] and float(rows[0]["uncertainty"]) > 0.9
    assert {row["speaker"] for row in rows} <= {"two people/S1", "anna"}
    labelled = read_labels(path)
    assert labelled.rows[0].source.start == float(rows[0]["start"])


def test_the_command_writes_a_page_that_plays_the_recordings(results: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["select", str(results), "--count", "2", "--store", str(tmp_path / "no store")])
    assert done.exit_code == 0, done.output
    assert "2 of 3 utterances" in done.output
    page = (results / "select.html").read_text("utf-8")
    assert "../two%20people.mp4#t=" in page and "&lt;b&gt;Well" in page and "<b>Well" not in page


def test_results_without_anything_to_label_are_an_error_with_a_code(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["select", str(tmp_path)])
    assert done.exit_code == 2 and "EMO-" in done.output
