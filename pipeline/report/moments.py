"""Moments of all recordings for the search of the page about them: every utterance, packed small."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emopipe.pipeline.report.person_statistics import Appearance, predicted
from emopipe.pipeline.report.rankings import words_and_expression


@dataclass(frozen=True, slots=True)
class Moment:
    """An utterance of one of many recordings.

    Attributes:
        appearance: the place of its speaker in the appearances of the batch.
        start, end: in seconds.
        outcome: what was predicted, as :func:`~emopipe.pipeline.report.person_statistics.predicted` calls it.
        label: the likeliest class, if the model is unsure too; None without one.
        confidence: of the label, or None.
        value: of a regression.
        words, shown: what the words say, and what face and voice say; None where one of the two is absent.
        distance: between the two, 0 to 1.
        text: the words.
    """

    appearance: int
    start: float
    end: float
    outcome: str
    label: str | None
    confidence: float | None
    value: float | None
    words: str | None
    shown: str | None
    distance: float | None
    text: str


def moment_of(row: Mapping[str, Any], appearance: int) -> Moment:
    """The moment of an utterance as written to JSON."""
    opinions = words_and_expression(row)
    words, shown, distance = (opinions.words, opinions.shown, opinions.distance) if opinions else (None, None, None)
    return Moment(
        appearance,
        row["start"],
        row["end"],
        predicted(row),
        row["label"],
        row["confidence"],
        row["value"],
        words,
        shown,
        distance,
        row["text"],
    )


def said_and_shown_everywhere(moments: Sequence[Moment]) -> list[Moment]:
    """The moments in which words say something else than face and voice, the greatest difference first."""
    ranked = [(one.distance, one) for one in moments if one.distance is not None and one.words != one.shown]
    return [one for _, one in sorted(ranked, key=lambda pair: -pair[0])]


def packed_moments(
    moments: Sequence[Moment], appearances: Sequence[Appearance], outcomes: Sequence[str], labels: Sequence[str]
) -> dict[str, list[Any]]:
    """Moments by column, as the page's script reads them: classes as places in their lists, shares in percent."""
    of_outcome = {name: place for place, name in enumerate(outcomes)}
    of_label: dict[str | None, int] = {name: place for place, name in enumerate(labels)}
    media = {path: place for place, path in enumerate(dict.fromkeys(one.media for one in appearances))}
    columns: dict[str, Callable[[Moment], Any]] = {
        "who": lambda one: one.appearance,
        "file": lambda one: media[appearances[one.appearance].media],
        "start": lambda one: round(one.start, 2),
        "end": lambda one: round(one.end, 2),
        "outcome": lambda one: of_outcome[one.outcome],
        "label": lambda one: of_label.get(one.label, -1),
        "confidence": lambda one: -1 if one.label is None or one.confidence is None else round(100 * one.confidence),
        "value": lambda one: None if one.value is None else round(one.value, 2),
        "words": lambda one: of_label.get(one.words, -1),
        "shown": lambda one: of_label.get(one.shown, -1),
        "distance": lambda one: -1 if one.distance is None else round(100 * one.distance),
        "text": lambda one: one.text,
    }
    return {name: [take(one) for one in moments] for name, take in columns.items()}


def compressed(facts: Mapping[str, Any]) -> str:
    """Facts as JSON, gzip and base64; the same bytes for the same facts."""
    text = json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
    return base64.b64encode(gzip.compress(text, 9, mtime=0)).decode("ascii")
