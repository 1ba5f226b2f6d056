"""Several labels of one row: read in three forms, joined into one label, learned as shares, agreement measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emopipe.errors import DatasetError
from emopipe.models.data.dataset import Dataset
from emopipe.models.data.labelled import soft_targets
from emopipe.models.data.votes import read_votes
from emopipe.models.evaluation.agreement import coder_agreement, of_counts, of_values
from emopipe.models.evaluation.evaluate import cross_validate, evaluate
from emopipe.models.networks.losses import task_costs
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.loop import train

Make = Callable[..., Dataset]


def table(**columns: list[Any]) -> pa.Table:
    return pa.table({"id": [str(n) for n in range(len(next(iter(columns.values()))))], **columns})


def with_columns(data: Dataset, drop: str = "label", **columns: list[Any]) -> Dataset:
    manifest = data.manifest.drop_columns([drop])
    for name, values in columns.items():
        manifest = manifest.append_column(name, pa.array(values))
    return data.with_manifest(manifest)


FORMS = {
    "coders": table(label_1=["calm", "Stress"], label_2=["calm", "calm"], label_3=[None, "stress"]),
    "counts": table(votes_calm=[2, 1], votes_stress=[None, 2]),
    "shares": table(label_votes_calm=[1.0, 0.333333], label_votes_stress=[0.0, 0.666667]),
    "cells": table(label=["calm", "stress; calm|stress"]),
}


@pytest.mark.parametrize("form", FORMS)
def test_votes_stand_in_any_of_the_forms(form: str) -> None:
    votes = read_votes(FORMS[form], "label")
    assert votes is not None and votes.labels.tolist() == ["calm", "stress"]
    shares = votes.shares(("Calm", "other", "stress"))
    assert shares == pytest.approx(np.array([[1, 0, 0], [1 / 3, 0, 2 / 3]]), abs=1e-5)


def test_values_of_coders_are_averaged() -> None:
    votes = read_votes(table(valence_1=[1.0, None], valence_2=[0.0, None], valence_10=[-1, None]), "valence")
    assert votes is not None and votes.classes == () and votes.columns[-1] == "valence_10"
    assert votes.labels[0] == 0 and np.isnan(votes.labels[1])


def test_of_tied_classes_the_first_named_counts() -> None:
    votes = read_votes(table(label_1=["stress", "calm"], label_2=["calm", "calm"]), "label")
    assert votes is not None and votes.labels.tolist() == ["stress", "calm"] and votes.tied.tolist() == [True, False]


def test_a_label_beside_votes_is_the_one_that_is_measured() -> None:
    manifest = table(emotion=["calm", "stress"], votes_calm=[1, 3], votes_stress=[2, 0], mood=["good", "bad"])
    assert read_votes(manifest, "emotion") is not None and read_votes(manifest, "mood") is None
    assert read_votes(table(label=["calm", "stress"]), "label") is None
    assert read_votes(table(label=["calm", "stress"], label_1=["calm", "calm"]), "label") is None


@pytest.mark.parametrize("cells", [["x", "y"], [-1.0, 2.0]])
def test_what_is_not_a_count_is_refused(cells: list[Any]) -> None:
    with pytest.raises(DatasetError):
        read_votes(table(votes_calm=[1.0, 1.0], votes_stress=cells), "label")


@given(st.lists(st.lists(st.sampled_from(["a", "B", "b;c", "", "nan", "d | a", None]), min_size=3, max_size=3)))
def test_any_cells_give_shares_that_sum_to_one_or_none(rows: list[list[str | None]]) -> None:
    columns = {f"label_{n + 1}": pa.array([row[n] for row in rows], pa.string()) for n in range(3)}
    votes = read_votes(pa.table(columns), "label")
    assert votes is not None
    sums = votes.shares(votes.classes).sum(1)
    assert np.isclose(sums, 1).tolist() == [label is not None for label in votes.labels]


#: Three coders of 15 units, from the literature on Krippendorff's alpha: nominal 0.691, interval 0.811.
UNITS = [
    *(
        [None, 1, None],
        [None, None, None],
        [None, 2, 2],
        [None, 1, 1],
        [None, 3, 3],
        [3, 3, 4],
        [4, 4, 4],
        [1, 3, None],
    ),
    *([2, None, 2], [1, None, 1], [1, None, 1], [3, None, 3], [3, None, 3], [None, None, None], [3, None, 4]),
]


def test_alpha_is_that_of_the_literature() -> None:
    values = np.array(UNITS, dtype=float)
    counts = np.stack([(values == value).sum(1) for value in (1, 2, 3, 4)], axis=1).astype(float)
    nominal, interval = of_counts(counts), of_values(values)
    assert nominal is not None and nominal.alpha == pytest.approx(0.691, abs=5e-4)
    assert interval is not None and interval.alpha == pytest.approx(0.811, abs=5e-4)
    assert nominal.rows == interval.rows == 12


def test_one_coder_against_the_others() -> None:
    agreement = of_counts(np.array([[3.0, 0], [2, 1], [0, 3]]))
    # second row: the two for the first class see the others tied, the one for the second sees them against it
    assert agreement is not None and agreement.figures["accuracy"] == pytest.approx((3 + 2 * 0.5 + 0 + 3) / 9)
    assert of_counts(np.array([[0.5, 0.5]])) is None and of_counts(np.array([[1.0, 0]])) is None
    perfect = of_values(np.array([[1.0, 1.0], [2.0, 2.0]]))
    assert perfect is not None and perfect.alpha == 1 and perfect.figures == {"mae": 0.0, "corr": pytest.approx(1.0)}


def coders(data: Dataset, wrong: float, seed: int = 0) -> dict[str, list[Any]]:
    """Three coders, each of whom takes another class for the true one so often."""
    rng = np.random.default_rng(seed)
    truth = ["stress" if one in ("anger", "sadness") else "calm" for one in data.column("label")]
    other = {"stress": "calm", "calm": "stress"}
    return {f"label_{n}": [other[one] if rng.random() < wrong else one for one in truth] for n in (1, 2, 3)}


def test_shares_cost_what_probabilities_cost() -> None:
    logits, shares = torch.randn(5, 3), torch.softmax(torch.randn(5, 3), 1)
    expected = -(shares * logits.log_softmax(1)).sum(1)
    assert torch.allclose(task_costs(logits, shares, "classification"), expected, atol=1e-6)


@pytest.mark.parametrize("model", ["linear", "emoe", "late-fusion", "self-mm"])
def test_models_learn_shares_and_are_measured_by_the_majority(make: Make, model: str) -> None:
    data = make(count=160, noise=0.6)
    voted = with_columns(data, **coders(data, 0.2))
    config = TrainConfig(model, label="label", epochs=4, device="cpu", select="last")
    events: list[dict[str, Any]] = []
    trained = train(voted, config, hook=events.append)
    assert any(
        "learns the shares of votes of label_1, label_2, label_3" in event.get("message", "") for event in events
    )
    assert trained.predictor.spec.classes == ("calm", "stress")
    measured = evaluate(trained.predictor, voted, None)
    assert measured.agreement is not None and 0.1 < measured.agreement.alpha < 0.7
    assert 0.6 < measured.agreement.figures["uar"] < 0.95
    hard = train(voted, TrainConfig(model, epochs=4, device="cpu", select="last", soft_labels=False)).predictor
    pairs = zip(hard.module.parameters(), trained.predictor.module.parameters(), strict=True)
    different = [not torch.equal(one, other) for one, other in pairs]
    assert any(different)


def test_linear_shares_are_those_of_the_votes(make: Make) -> None:
    """Where every clip is voted for alike, that is what the model says."""
    data = make(count=120)
    voted = with_columns(data, votes_calm=[3.0] * 120, votes_stress=[1.0] * 60 + [5.0] * 60)
    config = TrainConfig("linear", {"strengths": (1e-6,)}, device="cpu", balance="none", select="last")
    predictor = train(voted, config).predictor
    shares = soft_targets(voted, "label", predictor.spec.classes)
    assert shares is not None
    rows = np.flatnonzero(voted.split != "test")
    said = predictor.probabilities(predictor.scores(voted))
    assert said.mean(0) == pytest.approx(shares[rows].mean(0), abs=0.1)


def test_values_of_coders_are_trained_and_their_agreement_is_the_ceiling(make: Make) -> None:
    data = make(count=160)
    rng = np.random.default_rng(1)
    truth = np.clip(np.array(data.column("sentiment"), dtype=float) / 3, -1, 1)
    cells = {f"sentiment_{n}": (truth + rng.normal(0, 0.1, len(truth))).tolist() for n in (1, 2, 3)}
    voted = with_columns(data, drop="sentiment", **cells)
    summary = cross_validate(voted, TrainConfig("linear", label="sentiment", device="cpu"), folds=3)
    assert summary.agreement is not None and summary.agreement.alpha > 0.8
    assert summary.mean["mae"] > summary.agreement.figures["mae"] / 2


def test_single_labels_have_no_agreement(shared: Dataset) -> None:
    assert coder_agreement(shared, "label") is None and shared.votes("label") is None
