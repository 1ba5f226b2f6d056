"""Linear layers, attention and convolutions by oneDNN, which uses a CPU's widest registers.

torch multiplies matrices of single precision by MKL, which on CPUs that Intel did not make keeps to registers of half
the width: 105 instead of 245 GFLOP/s on one core of an AMD EPYC of the fifth generation. Results differ by rounding.

oneDNN compiles a product anew for every shape and keeps it, which takes 1.3 ms and 0.7 MiB, so few shapes are handed
over, and few of those that it has met are kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Final, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

Network = TypeVar("Network", bound=nn.Module)
Layer = TypeVar("Layer", bound=nn.Module)

#: So many products and convolutions are kept compiled, where the environment does not say; oneDNN reads it when it
#: compiles the first. By itself it keeps 1,024, in which voices of any length would fill 700 MiB.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")

#: Fewer rows are left to torch's own routine, and more are filled up to a multiple of the second.
LEAST_ROWS: Final = 128
ROWS_AT_ONCE: Final = 64
#: So many queries are weighed at once: the scores of more leave a core's cache. Numbers of queries or of keys that are
#: not multiples of it are left to torch.
QUERIES_AT_ONCE: Final = 500


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What :func:`torch.nn.functional.linear` gives, (..., outputs) of `rows` (..., inputs).

    Where gradients are kept, on other devices, in other precision and for a few rows it is that function.
    """
    count = rows.shape[:-1].numel()
    if count < LEAST_ROWS or not _suits(rows, weight):
        return functional.linear(rows, weight, bias)
    made = _filled_product(rows.reshape(count, -1), weight, bias, ROWS_AT_ONCE)
    return made.view(*rows.shape[:-1], -1)


def linear_in_blocks(rows: Tensor, weight: Tensor, bias: Tensor | None, block: int) -> Tensor:
    """What :func:`linear` gives, by products that all have `block` rows: one shape of each matrix is compiled.

    The last block is filled up, or left to torch's own routine where less than half of it is used.
    """
    if not _suits(rows, weight):
        return functional.linear(rows, weight, bias)
    made = [
        functional.linear(part, weight, bias) if 2 * len(part) < block else _filled_product(part, weight, bias, block)
        for part in torch.split(rows.reshape(-1, rows.shape[-1]), block)
    ]
    return torch.cat(made).view(*rows.shape[:-1], len(weight))


def attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """What :func:`torch.nn.functional.scaled_dot_product_attention` gives without a mask.

    Args:
        queries, keys, values: (batch, heads, steps, width); there may be more keys, with their values, than queries.

    Returns:
        (batch, heads, steps, width).
    """
    odd = queries.shape[-2] % QUERIES_AT_ONCE or keys.shape[-2] % QUERIES_AT_ONCE
    if odd or not _suits(queries, keys):
        return functional.scaled_dot_product_attention(queries, keys, values)
    heard = torch.empty_like(queries, memory_format=torch.contiguous_format)
    for place in product(*map(range, queries.shape[:2])):
        scaled, by_width = keys[place] * queries.shape[-1] ** -0.5, values[place].T.contiguous()
        parts = zip(*(torch.split(whole[place], QUERIES_AT_ONCE) for whole in (queries, heard)), strict=True)
        for asked, answer in parts:
            weights = _product(asked.contiguous(), scaled, None).softmax(-1)
            answer.copy_(_product(weights, by_width, None))
    return heard


class Linear(nn.Linear):
    """A linear layer that computes by :func:`linear`."""

    def forward(self, rows: Tensor) -> Tensor:
        """(..., outputs) of (..., inputs)."""
        return linear(rows, self.weight, self.bias)


def with_onednn(network: Network) -> Network:
    """The network, whose linear layers compute by :func:`linear` from now on; their weights are the same tensors."""
    return _with_layers(network, nn.Linear, _replaced)


class Convolution(nn.Module):
    """A convolution with its final weights, laid out as oneDNN wants them, and what comes after it in the same call.

    Args:
        convolution: over pictures (batch, channels, height, width).
        clamped: whether values are clamped to 0..6.
    """

    def __init__(self, convolution: nn.Conv2d, *, clamped: bool = False) -> None:
        super().__init__()
        self._bias = convolution.bias
        self._shape = (convolution.padding, convolution.stride, convolution.dilation, convolution.groups)
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(convolution.weight.detach(), *self._shape, None)
        self._then = ("hardtanh", [0.0, 6.0], "") if clamped else ("none", [], "")

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """What the convolution gives, with `added` on top, which is not clamped."""
        given = (self._weight, self._bias, *self._shape)
        run = torch.ops.mkldnn._convolution_pointwise
        y: Tensor = (
            run(x, *given, *self._then) if added is None else run.binary(x, added, *given, "add", 1.0, None, [], None)
        )
        return y


def with_convolutions(network: Network) -> Network:
    """The network, whose convolutions over pictures are :class:`Convolution` from now on, where torch has oneDNN."""
    return _with_layers(network, nn.Conv2d, Convolution) if has_onednn() else network


def _with_layers(network: Network, kind: type[Layer], replaced: Callable[[Layer], nn.Module]) -> Network:
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, kind):
                setattr(parent, name, replaced(layer))
    return network


def _replaced(layer: nn.Linear) -> Linear:
    made = Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
    made.weight, made.bias = layer.weight, layer.bias
    return made.train(layer.training)


def _suits(one: Tensor, other: Tensor) -> bool:
    """Whether oneDNN multiplies these: in single precision, on a CPU, without gradients."""
    plain = one.dtype == other.dtype == torch.float32 and one.device.type == "cpu"
    return plain and not torch.is_grad_enabled() and has_onednn()


def _filled_product(rows: Tensor, weight: Tensor, bias: Tensor | None, multiple: int) -> Tensor:
    """The product of rows (count, inputs), which are filled up to a multiple."""
    count = len(rows)
    return _product(functional.pad(rows, (0, 0, 0, -count % multiple)), weight, bias)[:count]


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """By the operator with which torch's compiler calls oneDNN."""
    made: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return made


@cache
def has_onednn() -> bool:
    """Whether torch comes with oneDNN and the operators that this module calls."""
    built_in: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return built_in and hasattr(torch.ops.mkldnn, "_linear_pointwise")
