"""Vectors of an utterance's words from any encoder of transformers: BERT, RoBERTa, their multilingual relatives."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from emopipe.extractors.contracts import Backend, Locate, TextBackend
from emopipe.extractors.text.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

BATCH: Final = 32
#: Weights of a part that is not used, which many files lack.
POOLER: Final = "pooler."
#: What becomes of the tokens of a text -> the name of a feature column.
POOLING: Final = {"tokens": "token", "mean": "mean", "first": "first"}


def create(settings: Mapping[str, Any], locate: Locate, device: str) -> TextBackend:
    """The encoder, or the pair of encoders, that a table `text` of a configuration describes."""

    def encoder(name: str) -> TextEncoder:
        layers = tuple(settings["layers"])
        return TextEncoder(locate(name), device, settings["max_tokens"], layers=layers, pooling=settings["pooling"])

    if not settings["multilingual"]:
        return encoder(settings["encoder"])
    if not settings["languages"]:
        raise ValueError("text.multilingual takes the languages that text.encoder does not read: tell text.languages")
    return ByLanguage(encoder(settings["encoder"]), settings["languages"], encoder(settings["multilingual"]))


BACKEND: Final = Backend(
    "transformers",
    create,
    weights=lambda settings: [name for name in (settings["encoder"], settings["multilingual"]) if name],
    libraries=("transformers", "torch"),
    settings=("encoder", "multilingual", "languages", "max_tokens", "layers", "pooling"),
)


class Network(Protocol):
    """A network that reads tokens.

    Attributes:
        depth: number of layers.
        width: length of a vector.
        places: the longest text in tokens.
    """

    depth: int
    width: int
    places: float

    def states(self, batch: Mapping[str, Tensor]) -> Sequence[Tensor]:
        """The embeddings and the output of each layer, each (texts, tokens, width), of what the tokenizer gives."""


class TextEncoder:
    """A frozen transformers encoder.

    Args:
        model: a local directory, or a hub id that transformers understands.
        device: "cpu" or "cuda".
        max_tokens: longer texts are cut; also at the encoder's own limit.
        layers: outputs of these layers are averaged; 0 are the embeddings, 1 the first layer, -1 the last.
        pooling: "tokens" keeps a vector per token, special ones too, which carry the sentence as a whole; "mean"
            averages them and "first" takes the first (BERT's [CLS]), one vector per text.

    Raises:
        OSError, ValueError: there is no such encoder, layer or pooling, or its file lacks weights.
    """

    def __init__(
        self,
        model: str | Path,
        device: str = "cpu",
        max_tokens: int = 64,
        *,
        layers: tuple[int, ...] = (-1,),
        pooling: str = "tokens",
    ) -> None:
        if pooling not in POOLING:
            raise ValueError(f"unknown pooling {pooling!r} of text: use {', '.join(POOLING)}")
        self._tokenizer = load_tokenizer(model)
        self._network: Network = _load(model, device)
        self._device = device
        self._max_tokens = int(min(max_tokens, self._tokenizer.longest, self._network.places))
        self._layers, self._pooling = layers, pooling
        depth = self._network.depth
        if not layers or not all(-depth - 1 <= layer <= depth for layer in layers):
            raise ValueError(f"the text encoder has the layers 0 to {depth} (-1 is the last), not {list(layers)}")

    @property
    def width(self) -> int:
        """Length of a vector."""
        return self._network.width

    def feature_names(self) -> list[str]:
        """Names of the feature columns, in order."""
        return [f"{POOLING[self._pooling]}_{index:03d}" for index in range(self.width)]

    def encode(self, texts: Sequence[str], language: str | None = None) -> list[np.ndarray]:
        """Vectors of each text, float32 (tokens, width), or (1, width) when pooled."""
        vectors: list[np.ndarray] = []
        for first in range(0, len(texts), BATCH):
            vectors += self._encode_batch(texts[first : first + BATCH])
        return vectors

    def _encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        import torch

        read = self._tokenizer.batch(texts, self._max_tokens)
        batch = {name: values.to(self._device) for name, values in read.items()}
        with torch.inference_mode():
            states = self._network.states(batch)
            mixed = torch.stack([states[layer] for layer in self._layers]).mean(0).float().cpu().numpy()
        masks = read["attention_mask"].bool().numpy()
        return [self._pooled(tokens[mask]) for tokens, mask in zip(mixed, masks, strict=True)]

    def _pooled(self, tokens: np.ndarray) -> np.ndarray:
        if self._pooling == "mean":
            return np.asarray(tokens.mean(0, keepdims=True))
        return tokens[:1] if self._pooling == "first" else tokens


def _load(model: str | Path, device: str) -> Network:
    """The network of an encoder, which computes in single precision, with the weights of its file and no others."""
    from emopipe.extractors.text.bert import read_bert

    return read_bert(model, device) or _Transformer(model, device)


class _Transformer:
    """A network of transformers; see :class:`Network`."""

    def __init__(self, model: str | Path, device: str) -> None:
        from transformers import AutoModel
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        told = logging.get_verbosity()
        logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # what is missing is checked here
        try:
            encoder, found = AutoModel.from_pretrained(
                str(model), dtype="auto", trust_remote_code=False, output_loading_info=True
            )
        finally:
            logging.set_verbosity(told)
        missing = sorted(name for name in found["missing_keys"] if not name.startswith(POOLER))
        if missing:
            raise ValueError(f"the text encoder's file lacks {len(missing)} weights, of them {missing[0]}")
        _widen(encoder)
        self._model: Any = encoder.eval().to(device)
        self.depth = int(encoder.config.num_hidden_layers)
        self.width = int(encoder.config.hidden_size)
        self.places = _positions(encoder)

    def states(self, batch: Mapping[str, Tensor]) -> Sequence[Tensor]:
        """See :class:`Network`."""
        output = self._model(**batch, output_hidden_states=True)
        return [*output.hidden_states[:-1], output.last_hidden_state]


def _widen(encoder: Any) -> None:
    """Let an encoder compute in single precision, whatever it is stored in.

    The table of word vectors, which is most of a multilingual encoder, stays as it is stored: its rows are widened when
    they are read.
    """
    words = encoder.get_input_embeddings()
    for module in encoder.modules():
        if module is not words:
            for value in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                if value.is_floating_point():
                    value.data = value.data.float()
    words.register_forward_hook(lambda module, inputs, vectors: vectors.float())


def _positions(model: Any) -> float:
    """How many tokens an encoder has learned places for; no limit where it learns none. Not every tokenizer tells."""
    table: Any = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    if not hasattr(table, "num_embeddings"):
        return math.inf
    first = 0 if table.padding_idx is None else table.padding_idx + 1  # RoBERTa counts from behind the padding's place
    return int(table.num_embeddings - first)


class ByLanguage:
    """Two encoders with columns of their own: which of them reads a text depends on its language.

    The columns of the other one are NaN, so that a fusion model can tell vectors of different meaning apart.

    Args:
        encoder: reads the languages named, and texts in an unknown language.
        languages: ISO 639-1 codes.
        multilingual: reads all others.
    """

    def __init__(self, encoder: TextBackend, languages: Collection[str], multilingual: TextBackend) -> None:
        self._encoder, self._multilingual = encoder, multilingual
        self._languages = frozenset(languages)

    def feature_names(self) -> list[str]:
        """Names of the columns of the one, then of the other."""
        return self._encoder.feature_names() + [f"multilingual_{name}" for name in self._multilingual.feature_names()]

    def encode(self, texts: Sequence[str], language: str | None = None) -> list[np.ndarray]:
        """Vectors of each text, float32 (steps, width of both), NaN in the columns of the encoder that did not read."""
        known = language is None or language in self._languages
        own, other = len(self._encoder.feature_names()), len(self._multilingual.feature_names())
        if known:
            return [np.hstack([one, _blank(len(one), other)]) for one in self._encoder.encode(texts, language)]
        return [np.hstack([_blank(len(one), own), one]) for one in self._multilingual.encode(texts, language)]


def _blank(rows: int, columns: int) -> np.ndarray:
    return np.full((rows, columns), np.nan, np.float32)
