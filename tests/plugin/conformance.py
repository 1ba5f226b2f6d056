"""The plugin's own tests: it keeps to emopipe's contracts."""

from __future__ import annotations

import numpy as np
import pytest
from emopipe_sample.ngrams import create

from emopipe.extractors.testing import check_text
from emopipe.models.testing import check_model
from emopipe.pipeline.backends import registry as plugins


def test_the_extractor_conforms() -> None:
    settings = {"options": {"width": 48}, "max_tokens": 16}
    check_text(plugins.create("text", "ngrams", settings, lambda name: pytest.fail("it needs no weights"), "cpu"))


def test_like_words_have_like_vectors() -> None:
    encoder = create({"options": {"width": 256}, "max_tokens": 16}, lambda name: pytest.fail(name), "cpu")
    happy, happily, train = (rows[0] for rows in encoder.encode(["happy", "happily", "train"]))
    assert happy @ happily > 0.4 > abs(happy @ train) + 0.2
    assert np.linalg.norm(happy) == pytest.approx(1)


def test_an_impossible_width_is_refused() -> None:
    with pytest.raises(ValueError, match="whole number"):
        create({"options": {"width": "wide"}, "max_tokens": 16}, lambda name: pytest.fail(name), "cpu")


def test_the_model_conforms() -> None:
    check_model("gmu", {"width": 16})
