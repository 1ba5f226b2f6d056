"""The prediction of one utterance; apart from the networks, so that stored predictions are read without torch."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Prediction:
    """What is predicted for one utterance.

    Attributes:
        label: the likeliest class; None for regression, or when there was no evidence.
        probabilities: class -> calibrated probability.
        weights: present modality -> how much it counts, summing to one: the router's share; where a product of what
            each says alone answers, how strongly it speaks, see :meth:`~emopipe.models.predictor.Predictor.answer`.
        unimodal: present modality -> what it alone says, as sure as if it were the only one: class -> probability
            (regression: `value` -> number).
        confidence: probability of `label`; None for regression, 0 when there was no evidence.
        abstained: the confidence is below the checkpoint's threshold, there was no evidence, or no value was given.
        value: the predicted value of a regression; None otherwise, and where the model failed to give one.
        without: present modality -> the answer without it, class -> probability (regression: `value` -> number);
            {} where that was not asked for. A modality that is the only one has none.
    """

    label: str | None
    probabilities: dict[str, float]
    weights: dict[str, float]
    unimodal: dict[str, dict[str, float]]
    confidence: float | None
    abstained: bool
    value: float | None = None
    without: dict[str, dict[str, float]] = field(default_factory=dict)


def no_evidence() -> Prediction:
    """What is said of an utterance without any modality."""
    return Prediction(None, {}, {}, {}, 0.0, True)
