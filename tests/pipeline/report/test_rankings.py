"""What the page of a clip asks people to look at: disagreements of words and expression, and uncertain answers."""

from __future__ import annotations

from typing import Any

import pytest

from emopipe.pipeline.report.outputs import render_page
from emopipe.pipeline.report.rankings import changed_without, least_certain, said_and_shown
from tests.pipeline.report.test_batch_page import said


def opinions(**joy: float) -> dict[str, Any]:
    return {"unimodal": {name: {"joy": share, "anger": round(1 - share, 2)} for name, share in joy.items()}}


def test_words_against_face_and_voice_are_ranked_by_their_distance() -> None:
    rows = [
        said(0, 1, **opinions(text=0.9, face=0.8)),
        said(1, 2, **opinions(text=0.6, face=0.4, voice=0.4)),
        said(2, 3, **opinions(text=0.9, face=0.2, voice=0.0)),
        said(3, 4, **opinions(text=0.9)),
        said(4, 5, unimodal={"text": {"value": 0.4}, "face": {"value": -0.4}}),
        said(5, 6, label=None),
    ]
    ranked = said_and_shown(rows)
    assert [(one.row["start"], one.words, one.shown) for one in ranked] == [(2, "joy", "anger"), (1, "joy", "anger")]
    assert ranked[0].distance == pytest.approx(0.8) and said_and_shown(rows, most=1) == ranked[:1]


def test_the_least_certain_come_first() -> None:
    rows = [
        said(0, 1, confidence=0.9),
        said(1, 2, confidence=0.45),
        said(2, 3, confidence=0.3),
        said(3, 4, confidence=0.7, abstained=True),
        said(4, 5, label=None),
    ]
    assert [row["start"] for row in least_certain(rows)] == [2, 1, 3]


def test_an_answer_that_one_modality_alone_carries_is_told() -> None:
    row = said(0, 1, without={"face": {"anger": 0.4, "joy": 0.6}, "text": {"anger": 0.9, "joy": 0.1}})
    assert changed_without(row) == {"face": ("joy", 0.6)} and changed_without(said(0, 1)) == {}


def test_the_page_lists_them_and_escapes_their_words() -> None:
    rows = [
        said(0, 1, **opinions(text=0.9, face=0.1), text="<b>fine</b>", confidence=0.4),
        said(1, 2, without={"face": {"anger": 0.4, "joy": 0.6}}, confidence=0.9),
    ]
    facts = {
        "media": "a.mp4",
        "duration": 2.0,
        "info": {},
        "checkpoint": "",
        "config_hash": "",
        "emopipe": "",
        "reasons": [],
    }
    page = render_page({**facts, "notice": "", "utterances": rows}, "a.mp4")
    assert "Said and shown" in page and "Least certain" in page and "without face: joy 60 %" in page
    assert "<b>fine</b>" not in page and page.count("&lt;b&gt;fine&lt;/b&gt;") >= 3
    calm = render_page({**facts, "notice": "", "utterances": [said(0, 1, confidence=0.9)]}, "a.mp4")
    assert "Said and shown" not in calm and "Least certain" not in calm
