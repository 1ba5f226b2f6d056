"""Replace stretches of texts, and of lists of words so that the times of all other words stay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from emopipe.extractors.contracts import Word


@dataclass(frozen=True)
class Replacement:
    """What stands in the place of the characters from `start` to `end`."""

    start: int
    end: int
    text: str


#: Finds what is replaced in a text.
Finder = Callable[[str], Sequence[Replacement]]


def apart(candidates: Iterable[Replacement]) -> list[Replacement]:
    """Replacements that do not overlap, in order: of those that do, the longest, and of equal ones the first."""
    chosen: list[Replacement] = []
    for one in sorted(candidates, key=lambda one: (one.start - one.end, one.start)):
        if all(one.end <= other.start or one.start >= other.end for other in chosen):
            chosen.append(one)
    return sorted(chosen, key=lambda one: one.start)


def replaced(text: str, replacements: Sequence[Replacement]) -> str:
    """The text with replacements, which are in order and do not overlap."""
    parts, at = [], 0
    for one in replacements:
        parts += [text[at : one.start], one.text]
        at = one.end
    return "".join([*parts, text[at:]])


def replaced_words(words: Sequence[Word], find: Finder) -> list[Word]:
    """Words with replacements in what they say together.

    Words that a replacement spans become one, from the start of the first to the end of the last; the others stay as
    they are.

    Args:
        words: in order, as they are spoken one after the other.
        find: finds what is replaced.
    """
    text, bounds = "", []
    for word in words:
        blank = " " if text and not word.text[:1].isspace() and not text[-1:].isspace() and _spaced(words) else ""
        text += blank
        bounds.append((len(text), len(text) + len(word.text)))
        text += word.text
    found = list(find(text))
    result: list[Word] = []
    index = 0
    while index < len(words):
        last = _last_touched(index, bounds, found)
        start, end = bounds[index][0], bounds[last][1]
        inside = [
            Replacement(max(one.start, start) - start, min(one.end, end) - start, one.text)
            for one in found
            if one.start < end and one.end > start
        ]
        first = words[index]
        if inside:
            first = replace(
                first,
                text=replaced(text[start:end], inside),
                end=max(word.end for word in words[index : last + 1]),
                probability=min(word.probability for word in words[index : last + 1]),
            )
        result.append(first)
        index = last + 1
    return result


def _spaced(words: Sequence[Word]) -> bool:
    """Whether words bring no blanks of their own, and are parted by one."""
    return not any(word.text[:1].isspace() for word in words)


def _last_touched(index: int, bounds: Sequence[tuple[int, int]], found: Sequence[Replacement]) -> int:
    """The last word that hangs together with the one at `index` through replacements."""
    last = index
    while last + 1 < len(bounds) and any(
        one.start < bounds[last][1] and one.end > bounds[last + 1][0] for one in found
    ):
        last += 1
    return last
