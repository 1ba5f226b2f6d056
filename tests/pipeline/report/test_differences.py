"""What changed between two runs: each utterance once, whatever was cut or predicted otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import emopipe
from emopipe.errors import InputNotFound
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.report.differences import _same_recordings, matched
from tests.pipeline.corrections.results import SPOKEN, write_results


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return write_results(tmp_path / "first")


def second(tmp_path: Path, *spoken: Any) -> Path:
    return write_results(tmp_path / "second", spoken or SPOKEN)


def test_a_run_does_not_differ_from_itself(first: Path) -> None:
    found = emopipe.diff(first, first)
    assert found.changed == [] and found.kappa == 1 and found.counts == {"utterances": 2 * len(SPOKEN)}


def test_what_changed_is_told_utterance_by_utterance(first: Path, tmp_path: Path) -> None:
    one, two, three, four, _ = SPOKEN
    spoken = [
        (*one[:4], "sadness"),
        (two[0], two[1], "S1", "I am so tired.", two[4]),
        (three[0], three[1] + 0.25, *three[2:]),
        four,
        (9.5, 9.9, "S2", "Bye.", "neutral"),
    ]
    found = emopipe.diff(first, second(tmp_path, *spoken), out=tmp_path / "out")
    mine = [one.changed for one in found.utterances if one.recording == "interview"]
    assert mine == [("label",), ("person", "words"), ("bounds",), (), ("only in the first",), ("only in the second",)]
    table = pd.read_csv(tmp_path / "out" / "diff.csv")
    assert len(table) == 12 and table["label_before"][0] == "happiness" and table["label_after"][0] == "sadness"
    facts = json.loads((tmp_path / "out" / "diff.json").read_text("utf-8"))
    assert facts["counts"]["label"] == 2 and facts["utterances"][0]["after"]["label"] == "sadness"
    assert facts["runs"][0]["checkpoint"] == ["model"]


def test_the_command_prints_a_table_and_counts(first: Path, tmp_path: Path) -> None:
    other = second(tmp_path, (*SPOKEN[0][:4], "sadness"), *SPOKEN[1:])
    done = CliRunner().invoke(app, ["diff", str(first), str(other)], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "happiness 70%" in done.output and "2 of 10 utterances changed: label 2" in done.output


def test_recordings_of_one_run_alone_are_told(first: Path, tmp_path: Path) -> None:
    other = second(tmp_path)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["inputs"] = manifest["inputs"][:1]
    (other / "manifest.json").write_text(json.dumps(manifest))
    found = emopipe.diff(first, other)
    assert found.alone == {"second": "first"} and len(found.utterances) == len(SPOKEN)


def test_without_a_run_there_is_nothing_to_compare(first: Path, tmp_path: Path) -> None:
    with pytest.raises(InputNotFound):
        emopipe.diff(first, tmp_path)


STRETCHES = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 10)), max_size=8).map(
    lambda some: [{"start": start, "end": start + length} for start, length in some]
)


@given(STRETCHES, STRETCHES)
def test_each_utterance_is_matched_once_and_with_one_that_shares_time(before: Any, after: Any) -> None:
    pairs = matched(before, after)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    assert all(min(before[i]["end"], after[j]["end"]) > max(before[i]["start"], after[j]["start"]) for i, j in pairs)
    left = [j for j in range(len(after)) if j not in {j for _, j in pairs}]
    for i in set(range(len(before))) - {i for i, _ in pairs}:
        assert not any(
            min(before[i]["end"], after[j]["end"]) > max(before[i]["start"], after[j]["start"]) for j in left
        )


def test_recordings_are_the_same_by_name_or_by_path() -> None:
    first = {"clip": Path("a/clip.mp4"), "old": Path("old.mp4"), "x": Path("before/x.mp4")}
    second = {"clip-1": Path("a/clip.mp4"), "clip-2": Path("b/clip.mp4"), "x": Path("after/x.mp4")}
    assert _same_recordings(first, second) == [("clip", "clip-1"), ("old", None), ("x", "x"), (None, "clip-2")]
