"""Decode a language model's answers into predictions, without ever making one up."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

#: A number as the model is taught to say it: ASCII digits, a sign, a point; nothing else around it.
NUMBER: Final = re.compile(r"\s*([-+]?[0-9]+(?:\.[0-9]+)?)\s*")


def parse_number(answer: str | None, low: float, high: float) -> float:
    """Parse the number that an answer is, clamped to [low, high].

    Returns:
        NaN when it is not a number and nothing but a number, or (None) was never finished: a failure, not a zero.
    """
    match = None if answer is None else NUMBER.fullmatch(answer)
    return math.nan if match is None else min(max(float(match.group(1)), low), high)


def say_number(value: float, decimals: int) -> str:
    """A value as the model is taught to say it, for example `-1.5`; never `-0.0`."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}"


@dataclass(frozen=True)
class Labels:
    """The answers that stand for C classes.

    Attributes:
        answers: C token id sequences, the class names behind the prompt's lead, with the end of sequence.
        first: the C first ids, when these tell the classes apart; one look at the next token then scores them all.
            None when some are alike, and whole answers must be scored.
    """

    answers: tuple[tuple[int, ...], ...]
    first: tuple[int, ...] | None


def label_answers(classes: Sequence[str], lead: str, tokens: Callable[[str], list[int]], end: int) -> Labels:
    """The answers for class names.

    Args:
        classes: C different names.
        lead: what stands between prompt and answer.
        tokens: text -> token ids.
        end: id of the end of sequence.
    """
    answers = tuple((*tokens(lead + name), end) for name in classes)
    first = tuple(answer[0] for answer in answers)
    return Labels(answers, first if len(set(first)) == len(first) else None)
