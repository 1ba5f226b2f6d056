"""Metrics follow their definitions, also where they are undefined."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import numpy as np
import pytest

from emopipe.models import metrics
from emopipe.models.scoring import scoring

TRUTH = np.array([0.0, 0.5, -0.5, 3.5, -3.5, 1.5, 2.5, 0.0])
GUESS = np.array([0.0, 0.4, -1.5, 2.9, -2.0, 1.4, -0.1, -0.2])


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    """What is undefined is NaN or 0 because we say so, not because a library gave up."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_clipped_accuracies_round_half_to_even() -> None:
    found = metrics.regression(TRUTH, GUESS)
    # clipped to 3 and rounded: truth 0 0 0 3 -3 2 2 0, guess 0 0 -2 3 -2 1 0 0
    assert found["acc7"] == pytest.approx(4 / 8)
    # clipped to 2: truth 0 0 0 2 -2 2 2 0, guess 0 0 -2 2 -2 1 0 0
    assert found["acc5"] == pytest.approx(5 / 8)
    # clipped to 1: truth 0 0 0 1 -1 1 1 0, guess 0 0 -1 1 -1 1 0 0
    assert found["acc3"] == pytest.approx(6 / 8)


def test_the_two_zero_variants_differ_as_defined() -> None:
    found = metrics.regression(TRUTH, GUESS)
    assert found["acc2_non0"] == pytest.approx(5 / 6)  # zeros dropped; only 2.5 against -0.1 is wrong
    assert found["acc2_has0"] == pytest.approx(6 / 8)  # a true zero counts as positive
    assert found["mae"] == pytest.approx(np.abs(TRUTH - GUESS).mean())
    assert found["corr"] == pytest.approx(np.corrcoef(TRUTH, GUESS)[0, 1])


@pytest.mark.parametrize("guess", [np.zeros(3), np.full(3, np.nan), np.array([np.inf, 1.0, 2.0])])
def test_correlation_of_a_constant_or_of_no_numbers_is_nan(guess: np.ndarray) -> None:
    assert math.isnan(metrics.regression(np.array([1.0, 2.0, 3.0]), guess)["corr"])


def test_labels_between_minus_one_and_one_are_scored_as_ch_sims_does() -> None:
    truth = np.array([-1.0, -0.8, -0.6, -0.2, 0.0, 0.0, 0.2, 0.6, 0.8, 1.0], dtype=np.float32)
    guess = np.array([-0.9, -0.6, -0.7, -0.1, 0.05, -0.05, 0.1, 0.9, 0.71, 0.3], dtype=np.float32)
    found = metrics.regression(truth, guess, largest=1.0)
    # truth 0 0 1 1 2 2 3 3 4 4, guess 0 1 0 1 2 2 2 4 4 3: a value on an edge is of the class below it
    assert found["acc5"] == pytest.approx(5 / 10)
    assert found["acc3"] == pytest.approx(9 / 10)  # only 0.2 against 0.1 is wrong
    assert found["acc2"] == pytest.approx(9 / 10)  # zero is not positive, so only 0 against 0.05 is wrong
    assert found["f1"] == pytest.approx(0.6 * 10 / 11 + 0.4 * 8 / 9)
    assert found["mae"] == pytest.approx(np.abs(truth - guess).mean())
    assert set(metrics.mmsa(found)) == {"Mult_acc_2", "Mult_acc_3", "Mult_acc_5", "F1_score", "MAE", "Corr"}
    assert all(math.isnan(value) for value in metrics.regression(np.zeros(0), np.zeros(0), 1.0).values())
    alone = metrics.regression(np.append(truth, 0.5), np.append(guess, np.nan), 1.0)
    assert alone["acc5"] == found["acc5"] and alone["parse_failure_rate"] == pytest.approx(1 / 11)


def test_the_edges_of_ch_sims_divide_the_multiples_of_a_tenth() -> None:
    grid = np.arange(-10, 11) / 10
    shares = {-0.9: (4, 10, 11), -0.4: (6, 10, 11), 0.05: (2, 2, 10), 0.4: (6, 9, 10), 0.9: (3, 9, 10)}
    for value, expected in shares.items():
        found = metrics.regression(grid, np.full(21, value), 1.0)
        assert tuple(found[name] * 21 for name in ("acc5", "acc3", "acc2")) == pytest.approx(expected)
    assert list(found) == ["acc5", "acc3", "acc2", "f1", "mae", "corr", "parse_failure_rate"]


def test_zero_is_not_positive_where_only_positive_counts() -> None:
    found = metrics.regression(np.array([0.0, 0.5, 0.5]), np.array([0.5, 0.0, 0.5]), 1.0)
    assert found["f1"] == pytest.approx(2 / 3 * 0.5)  # of the positive ones, one of two is found and one guess is wrong
    assert metrics.regression(np.array([1.0, 2.0, -1.0]), np.zeros(3))["acc2_non0"] == pytest.approx(1 / 3)


def test_less_is_better_of_errors_and_more_of_all_else() -> None:
    for largest in (1.0, 3.0):
        truth = TRUTH * largest / 3.5
        right = metrics.regression(truth, truth, largest)
        wrong = metrics.regression(truth, np.append(-truth[:-1], np.nan), largest)
        for name in right:
            assert (right[name] < wrong[name]) == (name in metrics.SMALLER_IS_BETTER)
    assert {"loss", "ece"} <= metrics.SMALLER_IS_BETTER


def test_figures_are_plain_numbers_in_double_precision() -> None:
    large, half = np.array([2048.0, 1.0], np.float16), np.array([0.5, 1.0], np.float16)
    assert metrics.regression(large, half)["mae"] == metrics.regression(half, large)["mae"] == 2047.5 / 2
    names, votes = np.array(list("ab")), np.array([[2.0, 0.0], [1.0, 1.0]])
    figures = [metrics.expected_calibration_error(np.ones(2), np.ones(2))]
    figures += [metrics.nominal_alpha(votes), metrics.interval_alpha(votes)]
    for found in (metrics.classification(names, names), *(metrics.regression(TRUTH, GUESS, one) for one in (1.0, 3.0))):
        figures += found.values()
    assert {type(value) for value in figures} == {float}


def test_one_row_is_enough_for_all_but_correlation() -> None:
    one = np.array([1.0])
    for largest in (1.0, 3.0):
        found = metrics.regression(one, one, largest)
        assert [name for name, value in found.items() if math.isnan(value)] == ["corr"]
    assert not any(math.isnan(value) for value in metrics.classification(one, one).values())
    assert metrics.expected_calibration_error(np.array([0.75]), one) == 0.25


def test_a_failed_prediction_counts_as_failed_and_in_nothing_else() -> None:
    found = metrics.regression(np.append(TRUTH, [1.0, -2.0]), np.append(GUESS, [np.nan, np.nan]))
    assert found["parse_failure_rate"] == pytest.approx(2 / 10)
    whole = metrics.regression(TRUTH, GUESS)
    assert whole.pop("parse_failure_rate") == 0
    assert {name: found[name] for name in whole} == whole


def test_without_non_zero_labels_only_the_non_zero_variants_are_nan() -> None:
    found = metrics.regression(np.zeros(3), np.array([1.0, -1.0, 0.0]))
    assert math.isnan(found["acc2_non0"]) and math.isnan(found["f1_non0"])
    assert found["acc2_has0"] == pytest.approx(2 / 3)


def test_no_rows_give_nan_and_no_error() -> None:
    empty = np.zeros(0)
    assert all(math.isnan(value) for value in metrics.regression(empty, empty).values())
    assert all(math.isnan(value) for value in metrics.classification(empty, empty).values())
    assert math.isnan(metrics.expected_calibration_error(empty, empty))


def test_recall_is_averaged_over_the_classes_that_occur() -> None:
    truth, guess = np.array(["a", "a", "a", "b"]), np.array(["a", "a", "c", "b"])
    found = metrics.classification(truth, guess)
    assert found["uar"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["accuracy"] == pytest.approx(3 / 4)
    assert found["weighted_f1"] == pytest.approx(0.75 * 0.8 + 0.25)
    assert found["macro_f1"] == pytest.approx((0.8 + 1 + 0) / 3)


def test_precision_and_recall_are_averaged_over_classes_not_rows() -> None:
    truth, guess = np.array(list("aaaab")), np.array(list("aabbb"))
    found = metrics.classification(truth, guess)
    # Precision 2/2 of a and 1/3 of b; recall 2/4 and 1/1; F1 2/3 and 1/2.
    assert found == pytest.approx(
        {
            "accuracy": 3 / 5,
            "uar": 3 / 4,
            "macro_f1": 7 / 12,
            "weighted_f1": (4 * 2 / 3 + 1 / 2) / 5,
            "macro_precision": 2 / 3,
            "macro_recall": 3 / 4,
        }
    )


def test_a_class_that_is_only_guessed_or_only_true_counts_as_zero() -> None:
    found = metrics.classification(np.array(list("ab")), np.array(list("ac")))
    expected = {"accuracy": 1 / 2, "uar": 1 / 2, "macro_f1": 1 / 3, "weighted_f1": 1 / 2}
    assert found == pytest.approx({**expected, "macro_precision": 1 / 3, "macro_recall": 1 / 3})
    figures = metrics.regression(np.array([1.0, 2.0]), np.array([-1.0, -2.0]))
    assert figures["f1_non0"] == 0


def test_f1_of_values_is_weighted_by_how_many_are_positive() -> None:
    truth, guess = np.array([1.0, 2.0, 3.0, -1.0]), np.array([1.0, -2.0, 3.0, 1.0])
    found = metrics.regression(truth, guess)
    # Positive: precision 2/3, recall 2/3; negative: none right.
    assert found["f1_non0"] == found["f1_has0"] == pytest.approx(0.75 * 2 / 3)


def test_which_range_of_labels_is_which_literature() -> None:
    truth, guess = np.array([0.5, -0.5]), np.array([0.4, -0.4])
    assert "acc7" not in metrics.regression(truth, guess, 1.0)
    assert "acc7" in metrics.regression(truth, guess, 1.5) and "acc7" in metrics.regression(truth, guess)


def test_figures_of_no_rows_have_the_same_names_as_figures_of_some() -> None:
    none, some = np.zeros(0), np.array([0.0, 1.0, 1.0])
    assert metrics.classification(none, none).keys() == metrics.classification(some, some).keys()
    for largest in (1.0, 3.0):
        assert metrics.regression(none, none, largest).keys() == metrics.regression(some, some, largest).keys()


def test_correlation_of_two_rows_is_defined_and_of_one_is_not() -> None:
    for high in (1.0, 3.0):
        assert metrics.regression(np.array([1.0, 2.0]), np.array([0.0, high]))["corr"] == pytest.approx(1)
    assert metrics.regression(np.array([1.0, 2.0]), np.array([3.0, 0.0]))["corr"] == pytest.approx(-1)
    assert math.isnan(metrics.regression(np.array([1.0]), np.array([0.0]))["corr"])
    assert math.isnan(metrics.regression(np.array([2.0, 2.0]), np.array([0.0, 1.0]))["corr"])


def test_rows_may_lie_in_columns() -> None:
    column = np.array([[1.0], [2.0], [-1.0]])
    assert metrics.regression(column, column)["acc7"] == 1
    assert metrics.regression([1, 2, -1], [1, 2, -1])["acc7"] == 1  # type: ignore[arg-type]


def test_nominal_alpha_of_krippendorffs_example() -> None:
    # Krippendorff (2011), example C: four coders, twelve units, nominal data: alpha = 0.743.
    coders = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
    votes = np.array([[unit.count(value) for value in range(1, 6)] for unit in zip(*coders, strict=True)], dtype=float)
    assert metrics.nominal_alpha(votes) == pytest.approx(0.743, abs=5e-4)
    values = np.array(coders, dtype=float).T
    values[values == 0] = np.nan
    assert metrics.interval_alpha(values) == pytest.approx(0.849, abs=5e-4)  # the same with the interval metric


def test_alpha_of_no_variation_or_of_no_pairs_is_nan() -> None:
    assert math.isnan(metrics.nominal_alpha(np.array([[3.0, 0.0], [2.0, 0.0]])))
    assert math.isnan(metrics.nominal_alpha(np.array([[1.0, 0.0], [0.0, 1.0]])))
    assert math.isnan(metrics.interval_alpha(np.array([[1.0, 1.0], [1.0, np.nan]])))
    assert math.isnan(metrics.interval_alpha(np.array([[1.0, np.nan], [2.0, np.nan]])))
    # Two units of two coders: the second disagrees. Observed 1/2 of the pairs, expected 4/6.
    assert metrics.nominal_alpha(np.array([[2.0, 0.0], [1.0, 1.0]])) == pytest.approx(1 - (2 / 1) / (6 / 3))
    assert metrics.interval_alpha(np.array([[0.0, 0.0], [1.0, 1.0]])) == 1
    assert metrics.interval_alpha(np.array([[0.0, 0.0], [1.0, 2.0]])) == pytest.approx(1 - 1.0 / (2.75 * 4 / 3))


def test_mmsa_names() -> None:
    found = metrics.mmsa(metrics.regression(TRUTH, GUESS))
    assert set(found) == {
        "Has0_acc_2",
        "Has0_F1_score",
        "Non0_acc_2",
        "Non0_F1_score",
        "Mult_acc_3",
        "Mult_acc_5",
        "Mult_acc_7",
        "MAE",
        "Corr",
    }


def test_calibration_error_is_the_weighted_gap() -> None:
    confidence = np.array([0.95, 0.95, 0.55, 0.55])
    assert metrics.expected_calibration_error(confidence, np.array([1, 1, 1, 0])) == pytest.approx(0.05)
    assert metrics.expected_calibration_error(np.ones(4), np.ones(4)) == 0
    # Fifteen bins by default: 0.47 and 0.53 share one, in which half are right; with fourteen or sixteen they do not.
    confidence, correct = np.array([0.47, 0.47, 0.53, 0.53]), np.array([0, 0, 1, 1])
    assert metrics.expected_calibration_error(confidence, correct) == pytest.approx(0)
    for bins in (14, 16, 200):
        assert metrics.expected_calibration_error(confidence, correct, bins) == pytest.approx(0.47)
    # One is in the last bin, and 0.9 in the one before.
    confidence, correct = np.array([1.0, 0.95, 0.9]), np.array([0, 1, 1])
    assert metrics.expected_calibration_error(confidence, correct) == pytest.approx((1.95 - 1 + 0.1) / 3)
    assert metrics.expected_calibration_error(np.array([0.2, 0.9]), np.array([0, 1])) == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("corpora", "label", "largest", "kind", "why"),
    [
        (["mosi"], "sentiment", 1.0, "mosi", "the corpus is mosi"),
        (["mosei", "mosi"], "sentiment", 0.8, "mosi", "the corpus is mosei and mosi"),
        (["ch-sims"], "sentiment_voice", 3.0, "ch-sims", "the corpus is ch-sims"),
        (["ch-sims-v2"], "sentiment", 3.0, "ch-sims-v2", "the corpus is ch-sims-v2"),
        (["ch-sims", "mosi"], "sentiment", 3.0, "mosi", "labels reach 3"),
        (["ch-sims", "other"], "sentiment", 3.0, "mosi", "labels reach 3"),
        (["mosi"], "arousal", 1.0, "ch-sims", "labels reach 1"),
        (["iemocap"], "sentiment", 0.9, "ch-sims", "labels reach 0.9"),
        ([], "sentiment", 2.4, "mosi", "labels reach 2.4"),
    ],
)
def test_values_are_scored_as_their_corpus_is_else_by_their_range(
    corpora: list[str], label: str, largest: float, kind: str, why: str
) -> None:
    chosen = scoring(corpora, label, largest)
    assert chosen.kind == kind and why in chosen.words()


def test_answers_beyond_ch_sims_range_are_cut_before_all_figures() -> None:
    truth, guess = np.array([1.0, -1.0, 0.5, -0.4]), np.array([1.8, -3.0, 0.1, 0.2])
    found = metrics.regression(truth, guess, kind="ch-sims")
    assert found["mae"] == pytest.approx((0 + 0 + 0.4 + 0.6) / 4)
    assert found["corr"] == pytest.approx(np.corrcoef(truth, [1, -1, 0.1, 0.2])[0, 1])
    assert metrics.regression(truth, guess, largest=1.0) == found and "acc2_weak" not in found
    assert metrics.regression(truth, guess, kind="mosi")["mae"] == pytest.approx((0.8 + 2 + 0.4 + 0.6) / 4)


def test_ch_sims_v2_scores_weak_labels_and_explained_variance_too() -> None:
    truth = np.array([0.4, -0.4, 0.2, 0.6, -1.0, 0.0], dtype=np.float32)
    guess = np.array([0.3, 0.3, 0.1, -0.2, -0.9, -0.1], dtype=np.float32)
    found = metrics.regression(truth, guess, kind="ch-sims-v2")
    assert found["acc2_weak"] == pytest.approx(3 / 4)  # of 0.4, -0.4, 0.2 and 0.0 only -0.4 is wrong
    assert found["acc2"] == pytest.approx(4 / 6)
    assert found["r2"] == pytest.approx(1 - ((truth - guess) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())
    assert {"Mult_acc_2_weak", "R_squre"} <= set(metrics.mmsa(found))
    constant = metrics.regression(np.ones(3), np.zeros(3), kind="ch-sims-v2")
    assert math.isnan(constant["r2"]) and math.isnan(constant["acc2_weak"])
    assert all(math.isnan(value) for value in metrics.regression(np.zeros(0), np.zeros(0), kind="ch-sims-v2").values())
