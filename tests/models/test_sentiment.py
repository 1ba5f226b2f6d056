"""The shipped checkpoints that read words in English and Chinese: of valence, and of emotions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from emopipe.extractors.text.transformer import TextEncoder
from emopipe.models import checkpoint
from emopipe.models.data.dataset import Sample

pytestmark = pytest.mark.slow

#: From the most unhappy to the happiest.
IN_ORDER = {
    "en": ("this is terrible, i hate it", "the bus leaves at nine", "i love it, this is wonderful!"),
    "zh": ("太糟糕了，我讨厌这样。", "公交车九点出发。", "我非常喜欢，太棒了！"),
}


@pytest.mark.parametrize("language", sorted(IN_ORDER))
def test_valence_follows_the_words(weight: Callable[[str], Path], language: str) -> None:
    predictor = checkpoint.load("emopipe-sentiment")
    sealed = predictor.spec.extraction["text"]
    encoder = TextEncoder(weight(sealed["encoder"]), max_tokens=sealed["max_tokens"])
    assert tuple(encoder.feature_names()) == predictor.spec.schema["text"]
    samples = [Sample({"text": vectors}) for vectors in encoder.encode(IN_ORDER[language], language)]
    worst, middle, best = (prediction.value or 0.0 for prediction in predictor.predict(samples))
    assert -1.2 < worst < middle - 0.1 and middle + 0.1 < best < 1.2


SAID = {
    "en": {"sadness": "i miss her so much", "anger": "get out, i hate you!", "happiness": "i am so happy for you!"},
    "zh": {"sadness": "我好难过，好想她。", "anger": "滚出去，气死我了！", "happiness": "太开心了，真为你高兴！"},
}


@pytest.mark.parametrize("language", sorted(SAID))
def test_emotions_are_read_in_both_languages(weight: Callable[[str], Path], language: str) -> None:
    predictor = checkpoint.load("emopipe-multilingual")
    sealed = predictor.spec.extraction["text"]
    encoder = TextEncoder(weight(sealed["encoder"]), max_tokens=sealed["max_tokens"])
    vectors = encoder.encode(list(SAID[language].values()), language)
    answers = [one.label for one in predictor.predict([Sample({"text": tokens}) for tokens in vectors])]
    assert answers == list(SAID[language])
