"""Linear layers and attention by oneDNN give what torch's own give."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from emopipe.extractors import onednn
from emopipe.extractors.onednn import (
    LEAST_ROWS,
    QUERIES_AT_ONCE,
    ROWS_AT_ONCE,
    attention,
    linear,
    linear_in_blocks,
    with_convolutions,
    with_onednn,
)


@settings(deadline=None)
@given(
    shape=st.lists(st.integers(1, 7), max_size=2).map(lambda sizes: [*sizes, 64]) | st.tuples(st.integers(1, 300)),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 40),
    has_bias=st.booleans(),
)
def test_products_are_those_of_torch(shape: Sequence[int], inputs: int, outputs: int, has_bias: bool) -> None:
    rows, weight = torch.randn(*shape, inputs), torch.randn(outputs, inputs)
    bias = torch.randn(outputs) if has_bias else None
    with torch.inference_mode():
        made = linear(rows, weight, bias)
    torch.testing.assert_close(made, functional.linear(rows, weight, bias), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("count", [0, 1, 31, 32, 64, 65, 100, 300])
def test_products_in_blocks_are_those_of_torch(count: int) -> None:
    rows, weight, bias = torch.randn(count, 1, 6), torch.randn(5, 6), torch.randn(5)
    with torch.inference_mode():
        made = linear_in_blocks(rows, weight, bias, 64)
    torch.testing.assert_close(made, functional.linear(rows, weight, bias), atol=1e-4, rtol=1e-4)


def test_convolutions_are_those_of_torch() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, (2, 1), 1), nn.ReLU(), nn.Sequential(nn.Conv2d(8, 4, 1, bias=False)))
    pictures = torch.randn(2, 3, 9, 7).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = network(pictures)
        torch.testing.assert_close(with_convolutions(network)(pictures), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("queries", [1, QUERIES_AT_ONCE, 2 * QUERIES_AT_ONCE])
@pytest.mark.parametrize("keys", [47, QUERIES_AT_ONCE])
def test_attention_is_that_of_torch(queries: int, keys: int) -> None:
    whole = torch.randn(2, queries + 2 * keys, 3, 8).transpose(1, 2)
    asked, known, told = torch.split(whole, [queries, keys, keys], 2)
    with torch.inference_mode():
        heard = attention(asked, known, told)
    expected = functional.scaled_dot_product_attention(asked, known, told)
    torch.testing.assert_close(heard, expected, atol=1e-5, rtol=1e-5)


def test_few_shapes_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes memory until the process ends."""
    shapes: set[tuple[int, ...]] = set()
    product = onednn._product

    def noted(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        shapes.add((*rows.shape, *weight.shape))
        return product(rows, weight, bias)

    monkeypatch.setattr(onednn, "_product", noted)
    with torch.inference_mode():
        for steps in range(1, 1500, 7):
            linear(torch.randn(1, steps, 8), torch.randn(8, 8))
            attention(*torch.randn(3, 1, 1, steps, 8))
    assert len(shapes) <= 1500 / ROWS_AT_ONCE + 4


def test_what_is_trained_keeps_its_gradients() -> None:
    layer = with_onednn(nn.Sequential(nn.Linear(6, 5)))
    layer(torch.randn(2 * LEAST_ROWS, 6)).sum().backward()
    assert layer[0].weight.grad is not None and bool(layer[0].weight.grad.abs().sum() > 0)


def test_other_precision_is_left_to_torch() -> None:
    rows, weight = torch.randn(200, 6, dtype=torch.float64), torch.randn(5, 6, dtype=torch.float64)
    with torch.inference_mode():
        assert torch.equal(linear(rows, weight), functional.linear(rows, weight))
        assert attention(*torch.randn(3, 1, 2, 9, 4, dtype=torch.float64)).dtype == torch.float64


def test_without_onednn_torch_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "has_onednn", lambda: False)
    rows, weight = torch.randn(200, 6), torch.randn(5, 6)
    with torch.inference_mode():
        assert torch.equal(linear(rows, weight), functional.linear(rows, weight))


def test_layers_of_a_network_are_replaced_and_keep_their_weights() -> None:
    network = nn.ModuleDict({"inner": nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU()), "outer": nn.Linear(5, 4)})
    weights = {name: parameter.data_ptr() for name, parameter in network.named_parameters()}
    changed = with_onednn(network.eval())
    assert {name: parameter.data_ptr() for name, parameter in changed.named_parameters()} == weights
    assert [type(layer) for layer in changed.modules() if isinstance(layer, nn.Linear)] == [onednn.Linear] * 2
    assert not any(layer.training for layer in changed.modules())
