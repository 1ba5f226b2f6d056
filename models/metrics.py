"""Metrics of predictions: classification, regression and calibration figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, precision_score, r2_score, recall_score

from emopipe.models.scoring import Kind, Scoring, by_range

#: Our name -> the name that MMSA's result tables use.
MMSA_NAMES: Final[dict[str, str]] = {
    "acc2_has0": "Has0_acc_2",
    "f1_has0": "Has0_F1_score",
    "acc2": "Mult_acc_2",
    "acc2_weak": "Mult_acc_2_weak",
    "f1": "F1_score",
    "acc2_non0": "Non0_acc_2",
    "f1_non0": "Non0_F1_score",
    "acc3": "Mult_acc_3",
    "acc5": "Mult_acc_5",
    "acc7": "Mult_acc_7",
    "mae": "MAE",
    "corr": "Corr",
    "r2": "R_squre",
    "accuracy": "Acc",
    "weighted_f1": "F1_score",
}

#: Metrics of which less is better.
SMALLER_IS_BETTER: Final = frozenset({"loss", "mae", "ece", "parse_failure_rate"})


def mmsa(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that MMSA knows, under its names."""
    return {MMSA_NAMES[name]: value for name, value in metrics.items() if name in MMSA_NAMES}


def classification(truth: NDArray[Any], predicted: NDArray[Any]) -> dict[str, float]:
    """Accuracy, unweighted average recall (UAR), macro and weighted F1, macro precision and recall.

    Averages run over the classes that occur in `truth` or, for F1 and precision, in either.

    Args:
        truth, predicted: (N,) class indices or names.
    """
    if len(truth) == 0:
        names = ("accuracy", "uar", "macro_f1", "weighted_f1", "macro_precision", "macro_recall")
        return dict.fromkeys(names, float("nan"))
    uar = recall_score(truth, predicted, labels=np.unique(truth), average="macro")
    return {
        "accuracy": accuracy_score(truth, predicted),
        "uar": uar,
        "macro_f1": f1_score(truth, predicted, average="macro"),
        "weighted_f1": f1_score(truth, predicted, average="weighted"),
        "macro_precision": precision_score(truth, predicted, average="macro", zero_division=0),
        "macro_recall": recall_score(truth, predicted, average="macro", zero_division=0),
    }


#: Edges of CH-SIMS's classes of values between -1 and 1; a value on an edge is of the class below it.
CH_SIMS_EDGES: Final = {"acc5": (-0.7, -0.1, 0.1, 0.7), "acc3": (-0.1, 0.1), "acc2": (0.0,)}
#: CH-SIMS v2 scores positive and negative also among the labels up to this.
WEAK: Final = 0.4


def regression(
    truth: NDArray[Any], predicted: NDArray[Any], largest: float = 3.0, kind: Kind | None = None
) -> dict[str, float]:
    """Sentiment regression as the literature of MOSI, of CH-SIMS or of CH-SIMS v2 scores it.

    MOSI: Acc_7, Acc_5 and Acc_3 compare values clipped to +-3, +-2, +-1 and rounded half to even. Acc_2 and (weighted)
    F1 come in two variants: `non0` drops true zeros and compares p > 0 with y > 0, `has0` compares p >= 0 with y >= 0.
    CH-SIMS: values are cut to +-1; Acc_5, Acc_3 and Acc_2 compare the classes between :data:`CH_SIMS_EDGES`; (weighted)
    F1 is that of Acc_2. CH-SIMS v2 has also Acc_2 of the labels up to :data:`WEAK`, and R2, the share of the labels'
    variance that is explained.

    Args:
        truth, predicted: (N,) numbers; a prediction that failed is NaN. It counts in no figure but
            `parse_failure_rate`, the share of such rows, by which all others must be read.
        largest: absolute value of the labels of the data set; up to 1, and without a `kind`, CH-SIMS is meant.
        kind: whose literature; see :mod:`emopipe.models.scoring`.

    Returns:
        acc7, acc5, acc3, acc2_non0, f1_non0, acc2_has0, f1_has0 or acc5, acc3, acc2, f1 (and acc2_weak, r2); and mae,
        corr, parse_failure_rate. NaN where undefined: the correlation of a constant, the non-zero variants without a
        non-zero label, everything without a row.
    """
    chosen = Scoring(kind or by_range(largest), "")
    y, p = np.asarray(truth, dtype=np.float64).ravel(), np.asarray(predicted, dtype=np.float64).ravel()
    failed = np.isnan(p)
    y, p = chosen.cut(y[~failed]), chosen.cut(p[~failed])
    metrics = _mosi(y, p) if chosen.kind == "mosi" else _ch_sims(y, p)
    if chosen.kind == "ch-sims-v2":
        metrics |= _ch_sims_v2(y, p)
    metrics["mae"] = float(np.abs(p - y).mean()) if len(y) else float("nan")
    metrics["corr"] = _correlation(y, p)
    metrics["parse_failure_rate"] = float(failed.mean()) if len(failed) else float("nan")
    return metrics


def _mosi(y: NDArray[np.float64], p: NDArray[np.float64]) -> dict[str, float]:
    figures = {f"acc{2 * limit + 1}": _clipped_accuracy(y, p, limit) for limit in (3, 2, 1)}
    kept = y != 0
    figures["acc2_non0"], figures["f1_non0"] = _binary(y[kept] > 0, p[kept] > 0)
    figures["acc2_has0"], figures["f1_has0"] = _binary(y >= 0, p >= 0)
    return figures


def _ch_sims(y: NDArray[np.float64], p: NDArray[np.float64]) -> dict[str, float]:
    values = [one.astype(np.float32) for one in (y, p)]  # labels are multiples of 0.1 in single precision
    figures = {}
    for name, edges in CH_SIMS_EDGES.items():
        true, guessed = (np.digitize(one, np.array(edges, dtype=np.float32), right=True) for one in values)
        figures[name] = float(np.mean(true == guessed)) if len(y) else float("nan")
    figures["f1"] = _binary(values[0] > 0, values[1] > 0)[1]
    return figures


def _ch_sims_v2(y: NDArray[np.float64], p: NDArray[np.float64]) -> dict[str, float]:
    weak = np.abs(y.astype(np.float32)) <= np.float32(WEAK)
    defined = len(y) > 1 and np.ptp(y) > 0
    return {
        "acc2_weak": float(np.mean((y[weak] > 0) == (p[weak] > 0))) if weak.any() else float("nan"),
        "r2": float(r2_score(y, p)) if defined else float("nan"),
    }


def _clipped_accuracy(y: NDArray[np.float64], p: NDArray[np.float64], limit: int) -> float:
    if len(y) == 0:
        return float("nan")
    return float(np.mean(np.round(np.clip(p, -limit, limit)) == np.round(np.clip(y, -limit, limit))))


def _binary(y: NDArray[np.bool_], p: NDArray[np.bool_]) -> tuple[float, float]:
    if len(y) == 0:
        return float("nan"), float("nan")
    return accuracy_score(y, p), f1_score(y, p, average="weighted")


def _correlation(y: NDArray[np.float64], p: NDArray[np.float64]) -> float:
    if len(y) == 0 or np.ptp(y) == 0 or np.ptp(p) == 0 or not np.isfinite(p).all():
        return float("nan")
    return float(np.corrcoef(y, p)[0, 1])


def expected_calibration_error(confidence: NDArray[Any], correct: NDArray[Any], bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width bins, weighted by their share (Naeini et al. 2015).

    Args:
        confidence: (N,) in [0, 1].
        correct: (N,) bool.
        bins: how many.
    """
    if len(confidence) == 0:
        return float("nan")
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.abs(np.bincount(which, confidence, bins) - np.bincount(which, correct, bins))
    return float(gaps.sum() / len(confidence))


def nominal_alpha(counts: NDArray[np.float64]) -> float:
    """Krippendorff's alpha of classes: 1 for perfect agreement, 0 for chance.

    As in K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011). Not everybody need judge every row.

    Args:
        counts: (N, K) votes for each class; rows with fewer than two votes count for nothing.

    Returns:
        NaN where all votes are the same, or there are none.
    """
    counts = counts[counts.sum(1) >= 2]
    each, marginal = counts.sum(1), counts.sum(0)
    observed = (counts * (each[:, None] - counts)).sum(1) / (each - 1)
    total = marginal.sum()
    expected = (marginal * (total - marginal)).sum() / (total - 1)
    return float(1 - observed.sum() / expected) if expected else float("nan")


def interval_alpha(values: NDArray[np.float64]) -> float:
    """Krippendorff's alpha of (N, coders) values, NaN where one gave none; else as :func:`nominal_alpha`."""
    values = values[np.isfinite(values).sum(1) >= 2]
    every = values[np.isfinite(values)]
    if len(every) == 0 or np.ptp(every) == 0:
        return float("nan")
    each = np.isfinite(values).sum(1)
    squares = np.nansum((values - np.nanmean(values, axis=1, keepdims=True)) ** 2, axis=1)
    expected = ((every - every.mean()) ** 2).sum() * len(every) / (len(every) - 1)
    return float(1 - (each * squares / (each - 1)).sum() / expected)
