"""Whisper's decoder over encoded sounds, whose keys and values are made once: for language, words and their times."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from whisper.model import Whisper


@dataclass(frozen=True)
class Encoded:
    """Sounds as the decoder attends to them.

    Attributes:
        model: whose encoder and decoder.
        states: from the encoder (sounds, steps, width).
    """

    model: Whisper
    states: Tensor

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, index: int) -> Encoded:
        """One of the sounds, by itself."""
        one = Encoded(self.model, self.states[index : index + 1])
        one.__dict__["attended"] = {part: made[index : index + 1] for part, made in self.attended.items()}
        return one

    @cached_property
    def attended(self) -> dict[Any, Tensor]:
        """Part of the decoder that makes keys, or values, for cross-attention -> what it makes of the states."""
        layers = [block.cross_attn for block in self.model.decoder.blocks]
        return {part: part(self.states) for layer in layers for part in (layer.key, layer.value)}


def hidden_states(
    encoded: Encoded, tokens: Tensor, past: dict[Any, Tensor] | None = None, asked: list[Tensor] | None = None
) -> Tensor:
    """The decoder's last states (sounds, tokens, width), from which the next tokens follow.

    Args:
        encoded: what is listened to.
        tokens: those that are new (sounds, tokens).
        past: keys and values of the tokens before, by the part of the decoder that made them; takes in the new ones.
        asked: takes in what each layer asks in cross-attention (sounds, tokens, width).
    """
    decoder, attended = encoded.model.decoder, encoded.attended
    past = {} if past is None else past
    before = past.get(decoder.blocks[0].attn.key)
    places = decoder.positional_embedding[0 if before is None else before.shape[1] :]
    steps = decoder.token_embedding(tokens) + places[: tokens.shape[-1]]
    for block in decoder.blocks:
        steps = steps + _self_attention(block.attn, block.attn_ln(steps), decoder.mask, past)
        cross = block.cross_attn
        queries = cross.query(block.cross_attn_ln(steps))
        heard, _ = cross.qkv_attention(queries, attended[cross.key], attended[cross.value])
        steps = steps + cross.out(heard)
        steps = steps + block.mlp(block.mlp_ln(steps))
        if asked is not None:
            asked.append(queries)
    states: Tensor = decoder.ln(steps)
    return states


def _self_attention(layer: Any, steps: Tensor, mask: Tensor, past: dict[Any, Tensor]) -> Tensor:
    """What a layer's self-attention makes of new tokens, each of which sees itself and those before."""
    import torch

    for part in (layer.key, layer.value):
        made = part(steps)
        past[part] = torch.cat([past[part], made], 1) if part in past else made
    heard, _ = layer.qkv_attention(layer.query(steps), past[layer.key], past[layer.value], mask)
    answer: Tensor = layer.out(heard)
    return answer


class NextTokens:
    """How Whisper's decoding asks for likelihoods of the next token; on a CPU they take half the time or less.

    Args:
        encoded: what is listened to.
        begin: how many tokens there are before the first that is decoded.
    """

    def __init__(self, encoded: Encoded, begin: int) -> None:
        self._encoded, self._begin = encoded, begin
        self._past: dict[Any, Tensor] = {}

    def logits(self, tokens: Tensor, audio_features: Tensor) -> Tensor:
        """Likelihoods of the token after each that is new."""
        new = tokens[:, -1:] if tokens.shape[-1] > self._begin else tokens
        states = hidden_states(self._encoded, new, self._past)
        return products(states, self._encoded.model.decoder.token_embedding.weight)

    def cleanup_caching(self) -> None:
        """Forget the tokens so far."""
        self._past = {}


def products(vectors: Tensor, weight: Tensor) -> Tensor:
    """`vectors` (..., width) times the transpose of `weight` (many, width).

    On a CPU, a few vectors times a wide matrix are slow; the matrix times the vectors is not.
    """
    few = vectors.flatten(0, -2)
    # With a single column, a slower routine would be chosen.
    columns = few.repeat(2, 1) if len(few) == 1 else few
    made: Tensor = (weight @ columns.T)[:, : len(few)].T.reshape(*vectors.shape[:-1], len(weight))
    return made.contiguous()
