"""Agreement of people with the model, and of people with each other: Cohen's kappa, Krippendorff's alpha."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

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
        *_with_model(values, _alpha_of_values, ALPHA),
        *_between(labels, nominal),
        *_between(values, interval),
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


def _between(judged: Judged, distance: Callable[[Any, Any], float]) -> Iterator[Agreement]:
    several = [(model, answers) for model, answers in judged if len(answers) > 1]
    if several:
        units = [tuple(answers.values()) for _, answers in several]
        yield Agreement(ALPHA, tuple(_people(several)), len(units), krippendorffs_alpha(units, distance))


def _people(judged: Judged) -> list[str]:
    return sorted({who for _, answers in judged for who in answers})


def _alpha_of_values(pairs: Sequence[tuple[float, float]]) -> float | None:
    return krippendorffs_alpha(pairs, interval)


def cohens_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Cohen's kappa of two who label the same things; None where both give one and the same label to all."""
    from sklearn.metrics import cohen_kappa_score

    first, second = zip(*pairs, strict=True)
    if len({*first, *second}) < 2:
        return None
    value = float(cohen_kappa_score(first, second))
    return None if math.isnan(value) else value


def nominal(one: Any, other: Any) -> float:
    """The distance of two classes."""
    return float(one != other)


def interval(one: float, other: float) -> float:
    """The distance of two values."""
    return (one - other) ** 2


def krippendorffs_alpha(units: Iterable[Sequence[Any]], distance: Callable[[Any, Any], float]) -> float | None:
    """Krippendorff's alpha: one less the disagreement within units by that to be expected between all answers.

    As in K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011). Not everybody need judge every unit.

    Args:
        units: the answers to each thing that was judged; those with fewer than two count for nothing.
        distance: of two answers.

    Returns:
        None where all answers are the same, or there are none.
    """
    paired = [unit for unit in units if len(unit) > 1]
    counts = Counter(answer for unit in paired for answer in unit)
    total = counts.total()
    expected = sum(n * m * distance(one, other) for one, n in counts.items() for other, m in counts.items())
    if not expected:
        return None
    observed = sum(sum(distance(one, other) for one in unit for other in unit) / (len(unit) - 1) for unit in paired)
    return 1 - (total - 1) * observed / expected
