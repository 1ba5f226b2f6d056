"""Token vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from emopipe.extractors.text.transformer import TextEncoder


def test_a_text_gives_the_same_vectors_alone_and_in_a_batch(weight: Callable[[str], Path]) -> None:
    encoder = TextEncoder(weight("minilm-l6"), max_tokens=16)
    short, long = "I am happy.", "word " * 100
    alone, batch = encoder.encode([short]), encoder.encode([long, short])
    assert alone[0].shape == (6, encoder.width) and encoder.width == 384
    assert batch[0].shape == (16, 384)
    assert np.allclose(alone[0], batch[1], atol=1e-4)
    assert len(encoder.feature_names()) == 384


def test_meaning_is_nearer_than_wording(weight: Callable[[str], Path]) -> None:
    encoder = TextEncoder(weight("minilm-l6"), pooling="mean")
    vectors = [rows[0] for rows in encoder.encode(["I am so glad!", "What a joy!", "The bus is late."])]
    glad, joy, bus = (vector / np.linalg.norm(vector) for vector in vectors)
    assert glad @ joy > glad @ bus
