"""Agreement of people with the model, and of people with each other: Cohen's kappa, Krippendorff's alpha."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

import numpy as np

from emopipe.pipeline.corrections.review import votes


@dataclass(frozen=True)
class Agreement:
    """How far those named agree on the same utterances.

    Attributes:
        measure: "Cohen's kappa" or "Krippendorff's alpha".
        who: whose answers are compared; "model" is the prediction.
        utterances: that two or more of them judged.
        value: 1 when they agree always, 0 when as often as by chance; None where that is not defined, as when all
            answers are the same.
    """

    measure: str
    who: tuple[str, ...]
    utterances: int
    value: float | None


KAPPA: Final = "Cohen's kappa"
ALPHA: Final = "Krippendorff's alpha"


def agreements(rows: Iterable[Mapping[str, Any]]) -> list[Agreement]:
    """Agreement of each corrector with the model, then of the correctors with each other where there are several.

    Labels are compared as classes, values of regressions by their distance.

    Args:
        rows: corrected utterances, as they are written to JSON.
    """
    corrected = list(rows)
    labels, values = ([(row[field], votes(row, field)) for row in corrected] for field in ("label", "value"))
    return [
        *_with_model(labels, cohens_kappa, KAPPA),
        *_with_model(values, alpha_of_values, ALPHA),
        *_between(labels, alpha_of_labels),
        *_between(values, alpha_of_values),
    ]


#: What the model says of each utterance, and who says what of it.
Judged = Sequence[tuple[Any, Mapping[str, Any]]]


def _with_model(
    judged: Judged, measure: Callable[[Sequence[tuple[Any, Any]]], float | None], name: str
) -> Iterator[Agreement]:
    for who in _people(judged):
        pairs = [(answers[who], model) for model, answers in judged if who in answers and model is not None]
        if pairs:
            yield Agreement(name, (who, "model"), len(pairs), measure(pairs))


def _between(judged: Judged, measure: Callable[[Sequence[Sequence[Any]]], float | None]) -> Iterator[Agreement]:
    several = [(model, answers) for model, answers in judged if len(answers) > 1]
    if several:
        units = [tuple(answers.values()) for _, answers in several]
        yield Agreement(ALPHA, tuple(_people(several)), len(units), measure(units))


def _people(judged: Judged) -> list[str]:
    return sorted({who for _, answers in judged for who in answers})


def cohens_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Cohen's kappa of two who label the same things; None where both give one and the same label to all."""
    from sklearn.metrics import cohen_kappa_score

    first, second = zip(*pairs, strict=True)
    if len({*first, *second}) < 2:
        return None
    return _defined(float(cohen_kappa_score(first, second)))


def alpha_of_labels(units: Sequence[Sequence[str]]) -> float | None:
    """Krippendorff's alpha of the labels that people gave each thing; None where it is not defined."""
    from emopipe.models.metrics import nominal_alpha

    labels = sorted({label for unit in units for label in unit})
    counts = [[unit.count(label) for label in labels] for unit in units]
    return _defined(nominal_alpha(np.array(counts, dtype=float).reshape(len(units), len(labels))))


def alpha_of_values(units: Sequence[Sequence[float]]) -> float | None:
    """Krippendorff's alpha of the values that people gave each thing; None where it is not defined."""
    from emopipe.models.metrics import interval_alpha

    values = list(zip_longest(*units, fillvalue=np.nan))
    return _defined(interval_alpha(np.array(values, dtype=float).reshape(len(values), len(units)).T))


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
