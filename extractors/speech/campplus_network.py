"""The network of CAM++ (Wang et al., 2023); the names of its parts are those of the published checkpoint."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, relu

#: Mel bands that go in, and numbers that come out.
MELS: Final = 80
WIDTH: Final = 192
#: Channels of the first layers, and how many each densely connected layer adds.
HEAD_CHANNELS: Final = 32
FIRST_CHANNELS: Final = 128
GROWTH: Final = 32
#: Layers and dilation of each block.
BLOCKS: Final = ((12, 1), (24, 2), (16, 2))
#: Frames whose mean is the context of a layer, beside that of the whole piece.
CONTEXT: Final = 100


class CampPlusNetwork(nn.Module):
    """Bands (pieces, 80, frames) to vectors (pieces, 192)."""

    def __init__(self) -> None:
        super().__init__()
        self.head = Head()
        self.xvector = nn.Sequential(OrderedDict(_layers()))

    def forward(self, bands: Tensor) -> Tensor:
        """Vectors of pieces of equal length."""
        vectors: Tensor = self.xvector(self.head(bands))[..., 0]
        return vectors


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(HEAD_CHANNELS, HEAD_CHANNELS, 3, (stride, 1), 1, bias=False)
        self.bn1 = nn.BatchNorm2d(HEAD_CHANNELS)
        self.conv2 = nn.Conv2d(HEAD_CHANNELS, HEAD_CHANNELS, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(HEAD_CHANNELS)
        shortcut = nn.Conv2d(HEAD_CHANNELS, HEAD_CHANNELS, 1, (stride, 1), bias=False)
        self.shortcut = nn.Sequential(*((shortcut, nn.BatchNorm2d(HEAD_CHANNELS)) if stride > 1 else ()))

    def forward(self, steps: Tensor) -> Tensor:
        """The sum of both ways."""
        inner = self.bn2(self.conv2(relu(self.bn1(self.conv1(steps)))))
        return relu(inner + self.shortcut(steps))


class Head(nn.Module):
    """Convolutions over time and frequency."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, HEAD_CHANNELS, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(HEAD_CHANNELS)
        self.layer1 = nn.Sequential(Residual(2), Residual(1))
        self.layer2 = nn.Sequential(Residual(2), Residual(1))
        self.conv2 = nn.Conv2d(HEAD_CHANNELS, HEAD_CHANNELS, 3, (2, 1), 1, bias=False)
        self.bn2 = nn.BatchNorm2d(HEAD_CHANNELS)

    def forward(self, bands: Tensor) -> Tensor:
        """Channels over time (batch, channels * bands / 8, frames) of bands (batch, bands, frames)."""
        steps: Tensor = self.layer2(self.layer1(relu(self.bn1(self.conv1(bands[:, None])))))
        return relu(self.bn2(self.conv2(steps))).flatten(1, 2)


class ContextMask(nn.Module):
    """A convolution whose channels are weighed by the mean of their surroundings."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.linear_local = nn.Conv1d(4 * GROWTH, GROWTH, 3, padding=dilation, dilation=dilation, bias=False)
        self.linear1 = nn.Conv1d(4 * GROWTH, 2 * GROWTH, 1)
        self.linear2 = nn.Conv1d(2 * GROWTH, GROWTH, 1)

    def forward(self, steps: Tensor) -> Tensor:
        """Channels over time, weighed: (batch, GROWTH, frames)."""
        near = avg_pool1d(steps, CONTEXT, CONTEXT, ceil_mode=True).repeat_interleave(CONTEXT, -1)
        context = steps.mean(-1, keepdim=True) + near[..., : steps.shape[-1]]
        masked: Tensor = self.linear_local(steps) * self.linear2(relu(self.linear1(context))).sigmoid()
        return masked


class Dense(nn.Module):
    """A layer whose output is added to its input as further channels."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.nonlinear1 = _normed(channels)
        self.linear1 = nn.Conv1d(channels, 4 * GROWTH, 1, bias=False)
        self.nonlinear2 = _normed(4 * GROWTH)
        self.cam_layer = ContextMask(dilation)

    def forward(self, steps: Tensor) -> Tensor:
        """The input with GROWTH further channels: (batch, channels, frames)."""
        return torch.cat([steps, self.cam_layer(self.nonlinear2(self.linear1(self.nonlinear1(steps))))], 1)


class Statistics(nn.Module):
    """Mean and standard deviation over time."""

    def forward(self, steps: Tensor) -> Tensor:
        """Statistics of channels over time (batch, channels, frames): (batch, 2 * channels, 1)."""
        return torch.cat([steps.mean(-1), steps.std(-1)], -1)[..., None]


def _normed(channels: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(batchnorm=nn.BatchNorm1d(channels), relu=nn.ReLU()))


def _layers() -> dict[str, nn.Module]:
    """What follows the head: densely connected blocks, each followed by one that halves the channels, and pooling."""
    first = nn.Conv1d(HEAD_CHANNELS * MELS // 8, FIRST_CHANNELS, 5, 2, 2, bias=False)
    layers: dict[str, nn.Module] = {"tdnn": nn.Sequential(OrderedDict(linear=first, nonlinear=_normed(FIRST_CHANNELS)))}
    channels = FIRST_CHANNELS
    for number, (depth, dilation) in enumerate(BLOCKS, start=1):
        dense = {f"tdnnd{at + 1}": Dense(channels + at * GROWTH, dilation) for at in range(depth)}
        layers[f"block{number}"] = nn.Sequential(OrderedDict(dense))
        channels += depth * GROWTH
        half = nn.Conv1d(channels, channels // 2, 1, bias=False)
        layers[f"transit{number}"] = nn.Sequential(OrderedDict(nonlinear=_normed(channels), linear=half))
        channels //= 2
    last = nn.Sequential(OrderedDict(batchnorm=nn.BatchNorm1d(WIDTH, affine=False)))
    layers["out_nonlinear"] = _normed(channels)
    layers["stats"] = Statistics()
    layers["dense"] = nn.Sequential(OrderedDict(linear=nn.Conv1d(2 * channels, WIDTH, 1, bias=False), nonlinear=last))
    return layers
