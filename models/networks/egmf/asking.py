"""What to ask of a dataset: the language of the prompts, the range of the values, and what the classes are called."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from emopipe.models.networks.egmf.config import EgmfConfig, Question

#: Characters of text that the language is told from.
READ: Final = 20_000
#: The prompts are Chinese where at least this share of the letters is.
CHINESE: Final = 0.3
SENTIMENTS: Final = frozenset({"positive", "negative", "neutral", "mixed"})
EMOTIONS: Final = re.compile(
    "ang(er|ry)|happ|joy|sad|fear|disgust|surpris|calm|contempt|excite|frustrat|worr|amuse|grief|neutral"
    "|生气|愤怒|高兴|快乐|开心|悲伤|伤心|恐惧|害怕|厌恶|惊讶|平静",
    re.IGNORECASE,
)


def language_of(texts: Iterable[str]) -> str:
    """Tell `zh` from `en` by the letters of texts."""
    chinese = letters = 0
    for text in texts:
        chinese += sum("\u4e00" <= one <= "\u9fff" for one in text)
        letters += sum(one.isalpha() for one in text)
        if letters > READ:
            break
    return "zh" if letters and chinese / letters >= CHINESE else "en"


def range_of(values: Sequence[float]) -> tuple[float, float]:
    """The whole numbers that enclose values; of values on both sides of 0, the same on both sides.

    Values of one sign alone that lie within 1 of 0 could be of either scale: their range is taken for symmetric.
    """
    low, high = math.floor(min(values)), math.ceil(max(values))
    if low < 0 or high <= 1:
        most = max(-low, high, 1)
        return float(-most), float(most)
    return float(low), float(max(high, low + 1))


def question_of(label: str, classes: Sequence[str]) -> Question:
    """What classes are: by the name of their column where that says it, else by their own names."""
    for name in ("emotion", "sentiment", "intent"):
        if name in label.lower():
            return name  # type: ignore[return-value]
    names = {one.lower() for one in classes}
    if names <= SENTIMENTS:
        return "sentiment"
    return "emotion" if any(EMOTIONS.match(one) for one in names) else "class"


def suit_prompts(
    config: EgmfConfig, texts: Iterable[str], label: str, classes: Sequence[str], values: Sequence[float]
) -> EgmfConfig:
    """Settle what a configuration leaves to the dataset.

    Args:
        config: the settings; what they say stays.
        texts: words of utterances.
        label: the column that is predicted.
        classes: its class names; empty for values.
        values: its values; empty for classes.
    """
    if config.language == "auto":
        config = replace(config, language="zh" if language_of(texts) == "zh" else "en")
    if not config.value_range and len(values):
        config = replace(config, value_range=range_of(values))
    if config.question == "auto" and classes:
        config = replace(config, question=question_of(label, classes))
    return config
