"""A decoder's training steps as CUDA graphs: thousands of small kernels start together, not each by itself."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Sequences are padded to a multiple of so many tokens, and each such length becomes a graph.
STEP: Final = 128
#: Longer sequences are computed kernel by kernel: they are rare, and keep the device busy anyway.
LONGEST: Final = 1024


class GraphedDecoder:
    """Computes what the decoder computes, forward and backward, by replaying recorded kernels.

    A graph writes its states and gradients to the same place each time. So it is replayed only where those of the last
    one are used up: after its backward pass, and with no gradients kept. Elsewhere the decoder is computed as usual,
    which makes no difference but for time.

    Args:
        decoder: a transformers decoder on CUDA whose weights stay where they are.
    """

    def __init__(self, decoder: nn.Module) -> None:
        self._decoder = States(decoder)
        self._changed = [one for one in decoder.parameters() if one.requires_grad]
        self._graphs: dict[tuple[int, bool], Any] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._pending = False

    def __call__(self, embeddings: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Embeddings (1, N, D), what to add to the attention (1, 1, N, N), positions (1, N) -> states (1, N, D)."""
        length = embeddings.shape[1]
        has_gradients = any(one.grad is not None for one in self._changed)
        learns = bool(self._changed) or embeddings.requires_grad
        if length > LONGEST or has_gradients or self._pending or not learns:
            states: Tensor = self._decoder(embeddings, mask, positions)
            return states
        states = self._graph(*padded(embeddings, mask, positions))[:, :length]
        self._pending = True
        states.register_hook(self._used)  # type: ignore[no-untyped-call]
        return states

    def _used(self, _: Tensor) -> None:
        self._pending = False

    def _graph(self, *inputs: Tensor) -> Tensor:
        """Replay the graph of inputs of this size, which is recorded where there is none yet."""
        key = inputs[0].shape[1], inputs[0].requires_grad
        if key not in self._graphs:
            samples = tuple(one.detach().clone().requires_grad_(one.requires_grad) for one in inputs)
            mixed = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
            with torch.autocast("cuda", mixed[1], enabled=mixed[0], cache_enabled=False):
                module = States(self._decoder.decoder)
                self._graphs[key] = torch.cuda.make_graphed_callables(module, samples, pool=self._pool)
        states: Tensor = self._graphs[key](*inputs)
        return states


class States(nn.Module):
    """A decoder as a function of tensors alone."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, embeddings: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Last hidden states (batch, tokens, width) of input embeddings of that shape."""
        read = self.decoder(inputs_embeds=embeddings, attention_mask=mask, position_ids=positions, use_cache=False)
        states: Tensor = read.last_hidden_state
        return states


def padded(embeddings: Tensor, mask: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """To a multiple of :data:`STEP` tokens; those added see themselves alone, and nothing sees them."""
    length = embeddings.shape[1]
    more = -length % STEP
    lowest = torch.finfo(mask.dtype).min
    wide = functional.pad(mask, (0, more, 0, more), value=lowest)
    added = torch.arange(length, length + more, device=mask.device)
    wide[..., added, added] = 0
    return functional.pad(embeddings, (0, 0, 0, more)), wide, functional.pad(positions, (0, more))
