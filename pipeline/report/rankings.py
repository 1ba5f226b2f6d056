"""Utterances that are worth a look: where words and expression disagree, and where the answer is uncertain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

#: A list shows so many utterances.
MOST: Final = 10
#: Below this confidence the other answers together are likelier.
UNCERTAIN: Final = 0.5


@dataclass(frozen=True)
class Disagreement:
    """An utterance whose words can say something else than the speaker's face and voice.

    Attributes:
        row: the utterance, as in JSON.
        words, shown: what the words say, and face and voice together.
        distance: between the two opinions, 0..1: half the sum of the differences of their probabilities.
    """

    row: Mapping[str, Any]
    words: str
    shown: str
    distance: float


def said_and_shown(rows: Sequence[Mapping[str, Any]], most: int = MOST) -> list[Disagreement]:
    """The utterances in which words and expression disagree, the greatest disagreement first."""
    compared = [one for row in rows if (one := words_and_expression(row)) is not None and one.words != one.shown]
    return sorted(compared, key=lambda one: -one.distance)[:most]


def words_and_expression(row: Mapping[str, Any]) -> Disagreement | None:
    """What words, and face and voice together, say of an utterance; None where one of the two is absent."""
    opinions = {name: shares for name, shares in row["unimodal"].items() if shares and "value" not in shares}
    words, shown = opinions.get("text"), [opinions[name] for name in ("face", "voice") if name in opinions]
    if words is None or not shown:
        return None
    expression = {label: sum(one[label] for one in shown) / len(shown) for label in words}
    distance = sum(abs(words[label] - expression[label]) for label in words) / 2
    said, seen = (max(one, key=lambda label: one[label]) for one in (words, expression))
    return Disagreement(row, said, seen, distance)


def least_certain(rows: Sequence[Mapping[str, Any]], most: int = MOST) -> list[Mapping[str, Any]]:
    """The utterances whose answer is uncertain, the least certain first."""
    doubtful = [row for row in rows if row["label"] and (row["abstained"] or row["confidence"] < UNCERTAIN)]
    return sorted(doubtful, key=lambda row: row["confidence"])[:most]


def changed_without(row: Mapping[str, Any]) -> dict[str, tuple[str, float]]:
    """Modality -> the other answer that there would be without it, and its probability."""
    changed = {}
    for modality, shares in row.get("without", {}).items():
        label = max(shares, key=lambda name: shares[name])
        if row["label"] is not None and label != row["label"]:
            changed[modality] = (label, shares[label])
    return changed
