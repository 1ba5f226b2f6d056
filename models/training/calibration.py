"""Calibrate probabilities by a temperature, and find the confidence below which a model abstains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, logsumexp, softmax

from emopipe.models.data.dataset import Dataset, Indices
from emopipe.models.data.labelled import labelled, targets
from emopipe.models.metrics import expected_calibration_error
from emopipe.models.predictor import Predictor


def fit_temperature(
    logits: NDArray[Any], labels: NDArray[Any], weights: NDArray[Any] | None = None, doubt: float = 0.0
) -> float:
    """Fit the temperature T whose softmax(logits / T) has the least negative log-likelihood (Guo et al. 2017).

    Args:
        logits: (N, C) of validation data.
        labels: (N,) class indices.
        weights: (N,) sample weights.
        doubt: share of each label that is spread evenly over the classes, so that a few answers that are all right do
            not ask for certainty.

    Returns:
        T in [0.05, 20]; 1 without data.
    """
    if len(logits) == 0:
        return 1.0
    z = np.asarray(logits, dtype=np.float64)
    share = np.ones(len(z)) if weights is None else np.asarray(weights, dtype=np.float64)
    rows = np.arange(len(z))

    def loss(log_t: float) -> float:
        scaled = z / np.exp(log_t)
        said = (1 - doubt) * scaled[rows, labels] + doubt * scaled.mean(axis=1)
        return float((share * (logsumexp(scaled, axis=1) - said)).sum())

    minimum = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return float(np.exp(minimum.x))


def fit_product(
    logits: Mapping[str, NDArray[Any]], labels: NDArray[Any], weights: NDArray[Any] | None = None
) -> dict[str, float]:
    """Fit the temperatures T_m whose product prod_m softmax(logits_m / T_m) has the least Brier score (Brier 1950).

    On corpora that training did not see a few answers are wrong and very sure. The log-likelihood would let these
    decide; in the Brier score a wrong answer counts 2 at most.

    Args:
        logits: modality -> (N, C) of what it says alone; of one modality its temperature is fitted.
        labels: (N,) class indices.
        weights: (N,) sample weights.

    Returns:
        Modality -> T_m in [0.05, 20].
    """
    z = np.stack([log_softmax(np.asarray(one, dtype=np.float64), axis=1) for one in logits.values()])
    truth = np.eye(z.shape[2])[labels]
    share = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)

    def score(powers: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        p = softmax(np.tensordot(powers, z, 1), axis=1)
        error = p - truth
        slope = 2 * p * (error - (p * error).sum(axis=1, keepdims=True))
        each = (slope * z).sum(axis=2)
        return float(np.average((error**2).sum(axis=1), weights=share)), np.average(each, axis=1, weights=share)

    minimum = minimize(score, np.full(len(z), 1 / len(z)), jac=True, method="L-BFGS-B", bounds=[(0.05, 20.0)] * len(z))
    return dict(zip(logits, (1 / minimum.x).tolist(), strict=True))


@dataclass(frozen=True)
class RiskCoverage:
    """What answering only the most confident utterances would cost (El-Yaniv and Wiener 2010).

    Attributes:
        coverage: (N,) share answered, rising to 1.
        risk: (N,) error rate among those answered.
        threshold: (N,) least confidence answered.
        area: mean risk over all coverages.
    """

    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]
    threshold: NDArray[np.float64]
    area: float


def risk_coverage(confidence: NDArray[Any], correct: NDArray[Any]) -> RiskCoverage:
    """Compute the risk-coverage curve of (N,) confidences and whether each prediction was right."""
    order = np.argsort(-np.asarray(confidence), kind="stable")
    count = np.arange(1, len(order) + 1)
    risk = np.cumsum(~np.asarray(correct, dtype=bool)[order]) / count
    area = float(risk.mean()) if len(order) else float("nan")
    return RiskCoverage(count / max(1, len(order)), risk, np.asarray(confidence, float)[order], area)


def abstain_threshold(confidence: NDArray[Any], correct: NDArray[Any], accuracy: float) -> float:
    """Find the least confidence at and above which at least `accuracy` of the answers were right.

    Returns:
        0 when all answers together already reach it; above 1 (never answer) when no part does.
    """
    curve = risk_coverage(confidence, correct)
    last_of_ties = np.r_[curve.threshold[1:] != curve.threshold[:-1], True] if len(curve.risk) else np.zeros(0, bool)
    good = np.flatnonzero((1.0 - curve.risk >= accuracy) & last_of_ties)
    if len(good) == 0:
        return float(np.nextafter(1.0, 2.0))
    return 0.0 if good[-1] == len(curve.risk) - 1 else float(curve.threshold[good[-1]])


def calibrate(
    predictor: Predictor, dataset: Dataset, accuracy: float = 0.0, *, rows: Indices | None = None
) -> Predictor:
    """Calibrate a classifier: fit its temperature and abstain threshold on labelled validation rows.

    Args:
        predictor: a classifier; a regression is returned as it is.
        dataset: validation rows; those without a known label or any modality are left out.
        accuracy: what the answers that are not abstentions should reach; 0 never abstains.
        rows: these alone; what is usual for their speakers is still that in the whole dataset. None for all.
    """
    if predictor.spec.task == "regression":
        return predictor
    spec = predictor.spec
    known = np.flatnonzero(labelled(dataset, spec.label, spec.classes))
    rows = known if rows is None else np.intersect1d(known, rows)
    scores = predictor.scores(dataset, rows)
    seen = scores.present.any(axis=1)
    truth = targets(dataset, spec.label, spec.classes)[rows][seen]
    return calibrated(predictor, Answers(scores.logits[seen], truth), dataset.weights[rows][seen], accuracy)


@dataclass(frozen=True)
class Answers:
    """What a model says of rows that it was not trained on.

    Attributes:
        logits: (N, C).
        truth: (N,) class indices.
    """

    logits: NDArray[Any]
    truth: NDArray[np.int64]

    @classmethod
    def join(cls, parts: Sequence[Answers]) -> Answers:
        """The answers of several models of the same classes to different rows."""
        return cls(np.concatenate([one.logits for one in parts]), np.concatenate([one.truth for one in parts]))

    @property
    def doubt(self) -> float:
        """How much of a label so few answers leave open: 1 / (N + 2), as Platt (1999) has it."""
        return 1 / (len(self.truth) + 2)

    def probabilities(self, temperature: float) -> NDArray[np.float64]:
        """(N, C) at a temperature."""
        shares: NDArray[np.float64] = softmax(np.asarray(self.logits, dtype=np.float64) / temperature, axis=1)
        return shares

    def error(self, temperature: float = 1.0) -> float:
        """The expected calibration error at a temperature."""
        shares = self.probabilities(temperature)
        return expected_calibration_error(shares.max(axis=1), shares.argmax(axis=1) == self.truth)

    def log_loss(self) -> float:
        """The mean negative log-likelihood of the truth."""
        shares = self.probabilities(1.0)
        return float(-np.log(np.maximum(shares[np.arange(len(shares)), self.truth], 1e-12)).mean())


def calibrated(
    predictor: Predictor,
    answers: Answers,
    weights: NDArray[Any] | None = None,
    accuracy: float = 0.0,
    doubt: float = 0.0,
) -> Predictor:
    """Fit temperature and abstain threshold of a classifier to answers of it, or of models like it."""
    temperature = fit_temperature(answers.logits, answers.truth, weights, doubt)
    probabilities = answers.probabilities(temperature)
    correct = probabilities.argmax(axis=1) == answers.truth
    threshold = abstain_threshold(probabilities.max(axis=1, initial=0), correct, accuracy) if accuracy > 0 else 0.0
    spec = replace(predictor.spec, temperature=temperature, threshold=threshold)
    return Predictor(spec, predictor.module, predictor.device)


def tempered_across_folds(folds: Sequence[Answers]) -> list[Answers]:
    """Divide the logits of each fold by the temperature that the answers in the other folds choose.

    Args:
        folds: two or more, each with the answers of a model that was trained on the others.
    """
    tempered = []
    for number, fold in enumerate(folds):
        others = Answers.join([one for other, one in enumerate(folds) if other != number])
        temperature = fit_temperature(others.logits, others.truth, doubt=others.doubt)
        tempered.append(replace(fold, logits=fold.logits / temperature))
    return tempered


def helps(folds: Sequence[Answers], tempered: Sequence[Answers]) -> bool:
    """Whether temperatures that others chose make the truth likelier; with few clips they may not, and 1 is kept."""
    return Answers.join(tempered).log_loss() < Answers.join(folds).log_loss()
