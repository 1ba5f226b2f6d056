"""Names of emotions: each corpus's own words for the classes that all share."""

from __future__ import annotations

from typing import Final

#: Class -> what corpora call it.
WORDS: Final = {
    "anger": ("angry", "ang"),
    "disgust": ("disgusted", "dis"),
    "fear": ("fearful", "fea"),
    "happiness": ("happy", "joy", "hap"),
    "neutral": ("neu",),
    "sadness": ("sad",),
    "surprise": ("surprised", "sur"),
}
_CLASSES: Final = {word: name for name, words in WORDS.items() for word in words}


def emotion(word: str) -> str:
    """The class that a word means, in lower case; other words stay."""
    word = word.strip().lower()
    return _CLASSES.get(word, word)
