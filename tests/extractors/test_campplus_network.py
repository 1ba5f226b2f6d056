"""The network of CAM++ computes what its layers say, written out by torch's own convolutions and normalisation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import avg_pool1d, batch_norm, conv1d, conv2d, relu

from emopipe.extractors.speech.campplus_network import BLOCKS, CONTEXT, CampPlusNetwork, folded

Weights = dict[str, Tensor]


def _normed(weights: Weights, name: str, steps: Tensor) -> Tensor:
    parts = [weights.get(f"{name}.{part}") for part in ("running_mean", "running_var", "weight", "bias")]
    return batch_norm(steps, *parts)


def _residual(weights: Weights, name: str, steps: Tensor, stride: int) -> Tensor:
    inner = conv2d(steps, weights[f"{name}.conv1.weight"], stride=(stride, 1), padding=1)
    inner = conv2d(relu(_normed(weights, f"{name}.bn1", inner)), weights[f"{name}.conv2.weight"], padding=1)
    if stride > 1:
        steps = conv2d(steps, weights[f"{name}.shortcut.0.weight"], stride=(stride, 1))
        steps = _normed(weights, f"{name}.shortcut.1", steps)
    return relu(_normed(weights, f"{name}.bn2", inner) + steps)


def _dense(weights: Weights, name: str, steps: Tensor, dilation: int) -> Tensor:
    inner = relu(_normed(weights, f"{name}.nonlinear1.batchnorm", steps))
    inner = conv1d(inner, weights[f"{name}.linear1.weight"])
    inner = relu(_normed(weights, f"{name}.nonlinear2.batchnorm", inner))
    name += ".cam_layer"
    near = avg_pool1d(inner, CONTEXT, CONTEXT, ceil_mode=True).repeat_interleave(CONTEXT, -1)
    context = inner.mean(-1, keepdim=True) + near[..., : inner.shape[-1]]
    context = relu(conv1d(context, weights[f"{name}.linear1.weight"], weights[f"{name}.linear1.bias"]))
    mask = conv1d(context, weights[f"{name}.linear2.weight"], weights[f"{name}.linear2.bias"]).sigmoid()
    local = conv1d(inner, weights[f"{name}.linear_local.weight"], padding=dilation, dilation=dilation)
    return torch.cat([steps, local * mask], 1)


def _heard(weights: Weights, bands: Tensor) -> tuple[Tensor, Tensor]:
    steps = conv2d(bands[:, None], weights["head.conv1.weight"], padding=1)
    steps = relu(_normed(weights, "head.bn1", steps))
    for name, stride in (("layer1.0", 2), ("layer1.1", 1), ("layer2.0", 2), ("layer2.1", 1)):
        steps = _residual(weights, f"head.{name}", steps, stride)
    steps = conv2d(steps, weights["head.conv2.weight"], stride=(2, 1), padding=1)
    steps = relu(_normed(weights, "head.bn2", steps)).flatten(1, 2)
    steps = conv1d(steps, weights["xvector.tdnn.linear.weight"], stride=2, padding=2)
    steps = relu(_normed(weights, "xvector.tdnn.nonlinear.batchnorm", steps))
    hidden = steps
    for number, (depth, dilation) in enumerate(BLOCKS, start=1):
        for layer in range(1, depth + 1):
            steps = _dense(weights, f"xvector.block{number}.tdnnd{layer}", steps, dilation)
        steps = relu(_normed(weights, f"xvector.transit{number}.nonlinear.batchnorm", steps))
        steps = conv1d(steps, weights[f"xvector.transit{number}.linear.weight"])
        hidden = steps.transpose(1, 2) if number == 2 else hidden
    steps = relu(_normed(weights, "xvector.out_nonlinear.batchnorm", steps))
    statistics = torch.cat([steps.mean(-1), steps.std(-1)], -1)[..., None]
    vectors = conv1d(statistics, weights["xvector.dense.linear.weight"])
    return hidden, _normed(weights, "xvector.dense.nonlinear.batchnorm", vectors)[..., 0]


@pytest.mark.parametrize(("pieces", "frames"), [(1, 18), (8, 73), (2, 158), (2, 451)])
def test_folded_layers_give_what_the_network_hears(weight: Callable[[str], Path], pieces: int, frames: int) -> None:
    path = weight("campplus")
    network = CampPlusNetwork()
    network.load_state_dict(load_file(path))
    bands = 3 * torch.randn(pieces, 80, frames, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        hidden, vectors = folded(network).heard(bands)
        steps, expected = _heard(load_file(path), bands)
        assert torch.allclose(hidden, steps, atol=1e-4) and torch.allclose(vectors, expected, atol=1e-4)
        assert torch.equal(network(bands), vectors)
