"""What those who corrected an utterance say together, and what they have looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final, Literal

#: What can be corrected -> what the prediction says of it.
_PREDICTED: Final = {"label": "label", "value": "value", "person": "speaker", "text": "text"}

Kind = Literal["corrected", "confirmed", "noted"]


@dataclass(frozen=True)
class Review:
    """An utterance after correction: what most of those who corrected it say.

    Attributes:
        kind: "corrected" when somebody changed something, else "confirmed" when somebody confirmed it, else "noted".
        label, value: None where nobody judged it, or no answer has a majority; of values the median.
        person, text, start, end: as most say, else as in the results.
        by: who corrected.
        undecided: of what no answer has a majority.
    """

    kind: Kind
    label: str | None
    value: float | None
    person: str | None
    text: str
    start: float
    end: float
    by: tuple[str, ...]
    undecided: tuple[str, ...] = ()


def review_of(row: Mapping[str, Any]) -> Review | None:
    """What is said of an utterance, as it is written to JSON; None where nobody corrected it."""
    corrections = row.get("corrections") or ()
    if not corrections:
        return None
    undecided: list[str] = []

    def most(field: str) -> Any:
        answer, decided = majority(list(votes(row, field).values()))
        if not decided:
            undecided.append(field)
        return answer

    values = list(votes(row, "value").values())
    label, person, text, bounds = most("label"), most("person"), most("text"), most("bounds")
    start, end = bounds or (row["start"], row["end"])
    return Review(
        _kind(row, corrections),
        label,
        median(values) if values else None,
        row["speaker"] if person is None else person,
        row["text"] if text is None else text,
        start,
        end,
        tuple(one["by"] for one in corrections),
        tuple(undecided),
    )


def votes(row: Mapping[str, Any], field: str) -> dict[str, Any]:
    """Who corrected -> what they say of a field; who confirmed an utterance says what the prediction says."""
    answers = {}
    for one in row.get("corrections") or ():
        answer = one.get(field)
        if answer is None and one.get("confirmed"):
            answer = _predicted(row, field)
        if answer is not None:
            answers[one["by"]] = tuple(answer) if field == "bounds" else answer
    return answers


def _predicted(row: Mapping[str, Any], field: str) -> Any:
    return (row["start"], row["end"]) if field == "bounds" else row[_PREDICTED[field]]


def majority(answers: Sequence[Any]) -> tuple[Any, bool]:
    """The answer that more give than any other; None without one, and whether that is not for want of agreement."""
    ranked = Counter(answers).most_common(2)
    if len(ranked) == 2 and ranked[0][1] == ranked[1][1]:
        return None, False
    return (ranked[0][0] if ranked else None), True


def _kind(row: Mapping[str, Any], corrections: Sequence[Mapping[str, Any]]) -> Kind:
    for one in corrections:
        for field in (*_PREDICTED, "bounds"):
            answer, predicted = one.get(field), _predicted(row, field)
            if answer is not None and (tuple(answer) if field == "bounds" else answer) != predicted:
                return "corrected"
    judged = any(one.get("confirmed") or votes({**row, "corrections": [one]}, "label") for one in corrections)
    return "confirmed" if judged else "noted"


def corrected_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that a table has of a corrected utterance; none of one that nobody corrected."""
    review = review_of(row)
    if review is None:
        return {}
    return {
        "correction": review.kind,
        "corrected_label": review.label,
        "corrected_value": review.value,
        "corrected_speaker": review.person,
        "corrected_text": review.text,
        "corrected_start": review.start,
        "corrected_end": review.end,
        "corrected_by": "; ".join(review.by),
    }
