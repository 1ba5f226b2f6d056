"""Contextual token vectors of an utterance's words from any BERT-class encoder of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

BATCH: Final = 32


@dataclass(frozen=True)
class TextFeatures:
    """Of one text: token vectors float32 (tokens, width) and their mean (width,)."""

    tokens: np.ndarray
    pooled: np.ndarray


class TextEncoder:
    """A frozen transformers encoder.

    Args:
        model: a local directory, or a hub id that transformers understands.
        device: "cpu" or "cuda".
        max_tokens: longer texts are cut.
    """

    def __init__(self, model: str | Path, device: str = "cpu", max_tokens: int = 64) -> None:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self._tokenizer: Any = AutoTokenizer.from_pretrained(str(model))
        self._model: Any = AutoModel.from_pretrained(str(model)).eval().to(device)
        self._device = device
        self._max_tokens = max_tokens

    @property
    def width(self) -> int:
        """Length of a token vector."""
        return int(self._model.config.hidden_size)

    def feature_names(self) -> list[str]:
        """Names of the feature columns, in order."""
        return [f"token_{index:03d}" for index in range(self.width)]

    def encode(self, texts: Sequence[str]) -> list[TextFeatures]:
        """Features of each text, in order. Special tokens are kept: they carry the sentence as a whole."""
        features: list[TextFeatures] = []
        for first in range(0, len(texts), BATCH):
            features += self._encode_batch(texts[first : first + BATCH])
        return features

    def _encode_batch(self, texts: Sequence[str]) -> list[TextFeatures]:
        import torch

        batch = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        ).to(self._device)
        with torch.inference_mode():
            hidden = self._model(**batch).last_hidden_state.float().cpu().numpy()
        masks = batch["attention_mask"].bool().cpu().numpy()
        tokens = [states[mask] for states, mask in zip(hidden, masks, strict=True)]
        return [TextFeatures(states, states.mean(0)) for states in tokens]
