"""Which part people have in an interview: who talks much and asks little is interviewed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from emopipe.extractors.contracts import Span
from emopipe.extractors.speech.utterances import GREEK_MARK, SENTENCE_ENDS
from emopipe.pipeline.records import Role

#: Who asks only questions is as much an interviewer as somebody who talks this share less.
QUESTION_WORTH: Final = 0.4
#: Question marks: Latin, full-width, Arabic, Ethiopic, Armenian (within the word), and Greek.
QUESTION: Final = re.compile(r"[?？؟፧՞\u037e⁇⁈⁉﹖]|" + GREEK_MARK.pattern)
_ENDS: Final = re.escape("".join(SENTENCE_ENDS))
SENTENCE: Final = re.compile(rf"[^{_ENDS}]+[{_ENDS}]*")


def find_subject(
    names: Mapping[int, str], talk: Mapping[int, float], spans: Sequence[Span], wanted: str
) -> tuple[int | None, str]:
    """Find who is interviewed: as asked for, else who talks much and asks little.

    Args:
        names: number of a person -> name.
        talk: number of a person -> seconds of speech.
        spans: the utterances.
        wanted: a name, a number in the order of first words (from "1"), "longest" for who talks most, or "".

    Returns:
        The person's number, None when nobody speaks; and why a wish could not be fulfilled, in words, else "".
    """
    if not talk:
        return None, ""
    if wanted == "longest":
        return max(talk, key=lambda number: talk[number]), ""
    by_name = {name: number for number, name in names.items()}
    by_index = {str(place): number for place, number in enumerate(sorted(names), start=1)}
    if wanted in by_name:
        return by_name[wanted], ""
    if wanted in by_index:
        return by_index[wanted], ""
    unfulfilled = f"the subject {wanted} was not found among {', '.join(names.values())}" if wanted else ""
    whole = sum(talk.values()) or 1.0
    asks = question_shares(spans)
    subject = max(talk, key=lambda number: talk[number] / whole - QUESTION_WORTH * asks.get(number, 0.0))
    return subject, unfulfilled


def question_shares(spans: Sequence[Span]) -> dict[int, float]:
    """Number of a person -> share of questions among their sentences, 0 to 1."""
    sentences: dict[int, list[str]] = {}
    for span in spans:
        if span.person is not None:
            sentences.setdefault(span.person, []).extend(SENTENCE.findall(GREEK_MARK.sub("\u037e", span.text)))
    return {
        number: sum(bool(QUESTION.search(one)) for one in own) / len(own) for number, own in sentences.items() if own
    }


def role(number: int, subject: int | None, people: int) -> Role | None:
    """The role of a person among so many; None when nobody else speaks."""
    if people < 2:
        return None
    return "interviewee" if number == subject else "interviewer"
