"""When words are spoken: the same times as openai-whisper's own alignment, which numba compiles in every process."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from whisper.model import ModelDimensions, Whisper
from whisper.timing import dtw_cpu, find_alignment, merge_punctuations
from whisper.tokenizer import get_tokenizer

from emopipe.extractors.speech.whisper_decoder import Encoded
from emopipe.extractors.speech.word_times import AFTER_WORDS, BEFORE_WORDS, cheapest_path, timed_words

SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 30))
#: Few values make many paths of one cost.
COSTS = SHAPES.flatmap(lambda shape: arrays(np.float64, shape, elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0])))


@settings(deadline=None)
@given(COSTS | SHAPES.flatmap(lambda shape: arrays(np.float64, shape, elements=st.floats(-9, 9))))
def test_the_path_is_whispers_own_where_costs_are_equal_too(costs: np.ndarray) -> None:
    assert np.array_equal(cheapest_path(costs), dtw_cpu(costs))


class Listening:
    """Whisper with a sound that is encoded already."""

    def __init__(self, model: Whisper, features: torch.Tensor) -> None:
        self._model, self._features = model, features

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, mel: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._model.decoder(tokens, self._features[None])
        return logits


def test_words_have_the_times_and_the_probabilities_that_whisper_gives_them() -> None:
    torch.manual_seed(0)
    model = Whisper(ModelDimensions(80, 1500, 16, 2, 2, 51865, 64, 16, 2, 2)).eval()
    torch.nn.init.normal_(model.decoder.positional_embedding, std=0.5)
    tokenizer = get_tokenizer(True, num_languages=model.num_languages, language="en", task="transcribe")
    tokens = tokenizer.encode(' Well, "she" said (twice): go home - now!')
    features, frames = torch.randn(1500, 16), 437
    expected = find_alignment(Listening(model, features), tokenizer, tokens, torch.zeros(80, frames), frames)  # type: ignore[arg-type]
    merge_punctuations(expected, BEFORE_WORDS, AFTER_WORDS)
    words = timed_words(Encoded(model, features[None]), tokenizer, [*tokens, tokenizer.eot], frames)
    assert [(word.text, word.start, word.end) for word in words] == [
        (one.word, one.start, one.end) for one in expected if one.word
    ]
    assert [word.probability for word in words] == pytest.approx([one.probability for one in expected if one.word])
    assert timed_words(Encoded(model, features[None]), tokenizer, [tokenizer.eot], frames) == []
