"""Cut a stream of words into utterances, and a clip without speech into fixed windows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from emopipe.extractors.contracts import Span, Word

#: Of Latin, Greek, Chinese, Japanese, Arabic, Urdu, Ethiopic, Armenian, Devanagari and its kin, Burmese and Khmer.
SENTENCE_ENDS: Final = tuple(".?!…\u037e。？！؟፧።։⁇⁈⁉﹖।॥۔။។")
#: Greek question marks are mostly typed as a semicolon.
GREEK_MARK: Final = re.compile(r"(?<=[\u0370-\u03ff\u1f00-\u1fff]);")


def split_utterances(words: Sequence[Word], *, pause: float, longest: float) -> list[Span]:
    """Utterances end at sentence ends, at pauses, and before they grow too long.

    Args:
        words: in order of time.
        pause: a silence between words that ends an utterance, in seconds.
        longest: an utterance is cut before it exceeds this, in seconds.
    """
    groups: list[list[Word]] = []
    for word in words:
        if groups and not _ends(groups[-1], word, pause, longest):
            groups[-1].append(word)
        else:
            groups.append([word])
    return [_span(group) for group in groups]


def fixed_windows(duration: float, length: float) -> list[Span]:
    """Cut [0, duration] into equal windows as near to `length` seconds as can be; none for an empty clip."""
    if duration <= 0:
        return []
    count = max(1, round(duration / length))
    edges = [duration * index / count for index in range(count + 1)]
    return [Span(start, end) for start, end in pairwise(edges)]


def _ends(group: Sequence[Word], following: Word, pause: float, longest: float) -> bool:
    last = group[-1]
    return (
        following.start - last.end >= pause
        or GREEK_MARK.sub("\u037e", last.text.rstrip()).endswith(SENTENCE_ENDS)
        or following.end - group[0].start > longest
    )


def _span(words: Sequence[Word]) -> Span:
    text = "".join(word.text for word in words).strip()
    return Span(words[0].start, max(word.end for word in words), text, tuple(words))
