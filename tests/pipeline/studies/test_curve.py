"""`emopipe curve`: parts of the speakers and clips, intervals, a power law with its doubt, killed and resumed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from emopipe.models.data.reading import read
from emopipe.models.evaluation import curve
from emopipe.models.evaluation.curve import Part, PowerLaw, in_proportion, learning_curve, measure, parts_of
from emopipe.models.training.config import TrainConfig
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.studies.curve import CurveOptions, percents, whole_numbers, write_curve
from tests.models.conftest import learnable

QUICK = TrainConfig("linear", {"strengths": (10.0,)}, device="cpu")


def test_parts_are_nested_and_keep_the_classes_in_proportion(tmp_path: Path) -> None:
    data = read(learnable(tmp_path / "data", count=120, speakers=10, splits=False))
    labels = data.labels("label")
    for axis, counts in ((curve.SPEAKERS, (1, 4, 10)), (curve.CLIPS, (12, 60, 120))):
        rows = [set(Part(axis, count).rows(data, labels, seed=3).tolist()) for count in counts]
        assert rows[0] < rows[1] < rows[2] == set(range(120))
    few = Part(curve.CLIPS, 12).rows(data, labels, seed=3)
    assert set(np.unique(labels[few].astype(str), return_counts=True)[1]) == {3}
    assert len(set(data.speakers[Part(curve.SPEAKERS, 4).rows(data, labels, seed=3)])) == 4


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=40), st.integers(0, 99))
def test_an_order_in_proportion_holds_every_row_once(kinds: list[str], seed: int) -> None:
    order = in_proportion(np.array(kinds), np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(kinds)))


def test_parts_that_are_alike_are_trained_once(tmp_path: Path) -> None:
    data = read(learnable(tmp_path / "data", count=48, speakers=4, splits=False))
    parts = parts_of([data], (0.1, 0.2, 0.5, 1.0))
    assert [part.name for part in parts] == ["speakers 1", "speakers 2", "clips 5", "clips 10", "clips 24", "all"]


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 0.5), st.floats(0.01, 0.4), st.floats(0.1, 1.5))
def test_a_power_law_is_fitted_where_there_is_one_and_never_rises(floor: float, slope: float, exponent: float) -> None:
    x = np.array([20.0, 40, 80, 160, 320])
    error = floor + slope * (x / 320) ** -exponent
    assume(error[0] <= 1)  # as errors of classes are
    law = PowerLaw.fit(x, np.tile(error, (50, 1)))
    assert law.at(160) == pytest.approx(np.full(50, error[3]), abs=0.05)
    assert (law.at(1000) <= law.at(320) + 1e-12).all() and (law.at(1e6) >= 0).all()


@pytest.mark.slow
def test_more_clips_help_where_the_curve_rises_and_not_where_it_is_flat(tmp_path: Path) -> None:
    data = read(learnable(tmp_path / "data", count=240, speakers=12, noise=2.5, splits=False))
    measured = measure(data, QUICK, shares=(0.1, 0.25, 0.5, 1.0), folds=3)
    found = learning_curve(measured, data, (100, 1000), resamples=300)
    assert found.metric == "uar" and (measured.clips, measured.speakers) == (240, 12)
    clips = [point for point in found.points if point.axis in (curve.CLIPS, curve.ALL)]
    assert clips[0].value < clips[-1].value
    assert all(point.low <= point.value <= point.high for point in found.points)
    near, far = (one for one in found.forecasts if one.axis == curve.CLIPS)
    assert 0 <= near.gain <= far.gain and near.gain_low <= near.gain_high and not near.far and far.far
    people = [one for one in found.forecasts if one.axis == curve.SPEAKERS]
    assert people[0].speakers == pytest.approx(5)


def test_a_killed_curve_goes_on_where_it_was(tmp_path: Path) -> None:
    data, record = read(learnable(tmp_path / "data", count=60, speakers=5, splits=False)), tmp_path / "runs.jsonl"
    whole = measure(data, QUICK, folds=2, shares=(0.3, 1.0))

    class Killed(Exception):
        """In the place of a kill."""

    def stop(event: dict[str, object]) -> None:
        if event["done"] == 3:
            raise Killed

    with pytest.raises(Killed):
        measure(data, QUICK, folds=2, shares=(0.3, 1.0), record=record, hook=stop)
    before = record.read_text("utf-8").splitlines()
    assert len(before) == 3
    record.write_text("\n".join(before) + '\n{"key": "cut sh', "utf-8")
    again = measure(data, QUICK, folds=2, shares=(0.3, 1.0), record=record)
    assert record.read_text("utf-8").splitlines()[:3] == before
    assert [run.predicted for run in again.runs] == [run.predicted for run in whole.runs]


@pytest.mark.parametrize("speakers", [1, 2])
def test_one_speaker_and_two_are_measured_by_clips(tmp_path: Path, speakers: int) -> None:
    folder = learnable(tmp_path / "data", count=48, speakers=speakers, splits=False)
    events: list[str] = []
    found = write_curve(
        folder,
        tmp_path / "out",
        QUICK,
        CurveOptions((0.25, 0.5, 1.0), (50,), folds=3),
        hook=lambda event: events.append(event.message),
    )
    assert {row["more of"] for row in found.points} == {"clips", "all"}
    assert any("there is one speaker" in event or "there are two speakers" in event for event in events)


def test_values_have_a_curve_of_their_error(tmp_path: Path) -> None:
    folder = learnable(tmp_path / "data", count=80, speakers=5, splits=False)
    config = TrainConfig("linear", {"strengths": (10.0,)}, label="sentiment", device="cpu")
    found = write_curve(folder, tmp_path / "out", config, CurveOptions((0.2, 0.5, 1.0), (80,), folds=3))
    assert "mae" in found.points[0] and "mae" in found.verdicts[0]


def test_the_command_writes_tables_json_and_a_plot(tmp_path: Path) -> None:
    folder = learnable(tmp_path / "data", count=72, speakers=6, splits=False)
    config = tmp_path / "train.toml"
    config.write_text('[model]\nname = "linear"\nstrengths = [10.0]\n')
    command = ["curve", str(folder), "--out", str(tmp_path / "out"), "--model", "linear", "--folds", "2"]
    done = CliRunner().invoke(app, [*command, "--more", "100", "--shares", "20,50", "--config", str(config)])
    assert done.exit_code == 0, done.output
    assert "What more would bring" in done.output and "100 more clips of the same 6 people" in done.output
    facts = json.loads((tmp_path / "out" / "curve.json").read_text("utf-8"))
    assert facts["clips"] == 72 and {one["axis"] for one in facts["forecasts"]} == {"speakers", "clips"}
    assert {"curve.md", "curve.csv", "curve.png", "curve.svg", "runs.jsonl"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


@pytest.mark.parametrize(
    ("option", "value"), [("--shares", "0,50"), ("--shares", "a"), ("--more", "1.5"), ("--more", "0"), ("--more", "")]
)
def test_unusable_numbers_are_refused_with_a_code(tmp_path: Path, option: str, value: str) -> None:
    done = CliRunner().invoke(app, ["curve", str(tmp_path), "--out", str(tmp_path / "out"), option, value])
    assert done.exit_code == 2 and "EMO-" in done.output


def test_lists_of_numbers_are_read() -> None:
    assert percents("10, 50") == (0.1, 0.5) and whole_numbers("50,200") == (50, 200)
