"""The network of CAM++ (Wang et al., 2023); the names of its parts are those of the published checkpoint.

After the head, channels lie side by side, (pieces, frames, channels), so that each convolution over time is one product
of matrices: torch's own convolutions of so few frames take twice as long.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu
from torch.nn.utils.fusion import fuse_conv_bn_eval

from emopipe.extractors.onednn import linear_in_blocks

#: Mel bands that go in, and numbers that come out.
MELS: Final = 80
WIDTH: Final = 192
#: Channels of the first layers, and how many each densely connected layer adds.
HEAD_CHANNELS: Final = 32
FIRST_CHANNELS: Final = 128
GROWTH: Final = 32
#: Layers and dilation of each block.
BLOCKS: Final = ((12, 1), (24, 2), (16, 2))
#: Layers before the third block.
HIDDEN_LAYERS: Final = 5
#: Steps of pieces that are multiplied at once: 6.4 s of speech, see `BATCH_SECONDS` of :mod:`.campplus`.
ROWS: Final = 320
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
        return self.heard(bands)[1]

    def heard(self, bands: Tensor) -> tuple[Tensor, Tensor]:
        """What lies between the second and the third block (pieces, frames / 2, 512), and the vectors."""
        hidden: Tensor = self.xvector[:HIDDEN_LAYERS](self.head(bands))
        vectors: Tensor = self.xvector[HIDDEN_LAYERS:](hidden)
        return hidden, vectors


def folded(network: CampPlusNetwork) -> CampPlusNetwork:
    """A network with its final weights as it runs in evaluation: what normalisation computes is folded into weights."""
    network.eval()
    for module in network.modules():
        for convolution, norm in (("conv1", "bn1"), ("conv2", "bn2"), ("0", "1")):
            layer = getattr(module, norm, None)
            if isinstance(layer, nn.BatchNorm2d):
                setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), layer))
                setattr(module, norm, nn.Identity())
    for module in network.modules():
        if isinstance(module, Normed | Convolution):
            module.fold()
    return network


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
        inner: Tensor = self.bn2(self.conv2(self.bn1(self.conv1(steps)).relu_()))
        return inner.add_(self.shortcut(steps)).relu_()


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
        """Channels over time (batch, frames, channels * bands / 8) of bands (batch, bands, frames)."""
        image = bands[:, None].contiguous(memory_format=torch.channels_last)
        steps: Tensor = self.layer2(self.layer1(self.bn1(self.conv1(image)).relu_()))
        channels: Tensor = self.bn2(self.conv2(steps)).relu_()
        return channels.flatten(1, 2).transpose(1, 2)


class Convolution(nn.Conv1d):
    """A convolution over time of (batch, frames, channels), to be folded before it is used."""

    _matrix: Tensor

    def fold(self) -> None:
        """Lay the weights out as a matrix (outputs, kernel * inputs)."""
        self._matrix = self.weight.detach().transpose(1, 2).flatten(1).contiguous()

    def forward(self, steps: Tensor) -> Tensor:
        """(batch, frames / stride, channels)."""
        (size,), (stride,), (dilation,), around = self.kernel_size, self.stride, self.dilation, int(self.padding[0])
        if size > 1:
            padded = pad(steps, (0, 0, around, around))
            frames = padded.shape[1] - dilation * (size - 1)
            taps = [padded[:, first : first + frames : stride] for first in range(0, dilation * size, dilation)]
            steps = torch.cat(taps, -1)
        return linear_in_blocks(steps, self._matrix, self.bias, ROWS)


class Normed(nn.Module):
    """Batch normalisation in evaluation, then no values below zero, of (batch, frames, channels); to be folded."""

    _scale: Tensor
    _shift: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.batchnorm = nn.BatchNorm1d(channels)

    def fold(self) -> None:
        """Turn statistics and weights into a factor and a summand."""
        norm = self.batchnorm
        assert norm.running_mean is not None and norm.running_var is not None
        self._scale = norm.weight.detach() * (norm.running_var + norm.eps).rsqrt()
        self._shift = norm.bias.detach() - norm.running_mean * self._scale

    def forward(self, steps: Tensor) -> Tensor:
        """Of the same shape."""
        return torch.addcmul(self._shift, steps, self._scale).relu_()


class ContextMask(nn.Module):
    """A convolution whose channels are weighed by the mean of their surroundings."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.linear_local = Convolution(4 * GROWTH, GROWTH, 3, padding=dilation, dilation=dilation, bias=False)
        self.linear1 = Convolution(4 * GROWTH, 2 * GROWTH, 1)
        self.linear2 = Convolution(2 * GROWTH, GROWTH, 1)

    def forward(self, steps: Tensor) -> Tensor:
        """Channels over time, weighed: (batch, frames, GROWTH)."""
        near = torch.stack([part.mean(1) for part in torch.split(steps, CONTEXT, 1)], 1)
        weights = self.linear2(relu(self.linear1(steps.mean(1, keepdim=True) + near))).sigmoid()
        of_frames = weights[:, :, None].expand(-1, -1, CONTEXT, -1).flatten(1, 2)[:, : steps.shape[1]]
        masked: Tensor = self.linear_local(steps) * of_frames
        return masked


class Dense(nn.Module):
    """What a layer of a block adds."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.nonlinear1 = Normed(channels)
        self.linear1 = Convolution(channels, 4 * GROWTH, 1, bias=False)
        self.nonlinear2 = Normed(4 * GROWTH)
        self.cam_layer = ContextMask(dilation)

    def forward(self, steps: Tensor) -> Tensor:
        """GROWTH further channels (batch, frames, GROWTH) of (batch, frames, channels)."""
        further: Tensor = self.cam_layer(self.nonlinear2(self.linear1(self.nonlinear1(steps))))
        return further


class Block(nn.Sequential):
    """Densely connected layers: each adds channels to those that it reads."""

    def forward(self, steps: Tensor) -> Tensor:
        """(batch, frames, channels) with GROWTH further channels a layer."""
        channels = steps.shape[-1]
        all_steps = pad(steps, (0, GROWTH * len(self)))
        for layer in self:
            all_steps[..., channels : channels + GROWTH] = layer(all_steps[..., :channels])
            channels += GROWTH
        return all_steps


class Statistics(nn.Module):
    """Mean and standard deviation over time."""

    def forward(self, steps: Tensor) -> Tensor:
        """Statistics of channels over time (batch, frames, channels): (batch, 1, 2 * channels)."""
        mean = steps.mean(1, keepdim=True)
        variance = (steps - mean).square_().sum(1, keepdim=True) / (steps.shape[1] - 1)
        return torch.cat([mean, variance.sqrt()], -1)


class Normalised(nn.Module):
    """Batch normalisation of the vectors, without weights: (batch, 1, WIDTH) to (batch, WIDTH)."""

    def __init__(self) -> None:
        super().__init__()
        self.batchnorm = nn.BatchNorm1d(WIDTH, affine=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """The vectors, normalised."""
        normalised: Tensor = self.batchnorm(vectors[:, 0])
        return normalised


def _layers() -> dict[str, nn.Module]:
    """What follows the head: densely connected blocks, each followed by one that halves the channels, and pooling."""
    first = Convolution(HEAD_CHANNELS * MELS // 8, FIRST_CHANNELS, 5, 2, 2, bias=False)
    layers: dict[str, nn.Module] = {"tdnn": nn.Sequential(OrderedDict(linear=first, nonlinear=Normed(FIRST_CHANNELS)))}
    channels = FIRST_CHANNELS
    for number, (depth, dilation) in enumerate(BLOCKS, start=1):
        dense = {f"tdnnd{at + 1}": Dense(channels + at * GROWTH, dilation) for at in range(depth)}
        layers[f"block{number}"] = Block(OrderedDict(dense))
        channels += depth * GROWTH
        half = Convolution(channels, channels // 2, 1, bias=False)
        layers[f"transit{number}"] = nn.Sequential(OrderedDict(nonlinear=Normed(channels), linear=half))
        channels //= 2
    layers["out_nonlinear"] = Normed(channels)
    layers["stats"] = Statistics()
    last = Convolution(2 * channels, WIDTH, 1, bias=False)
    layers["dense"] = nn.Sequential(OrderedDict(linear=last, nonlinear=Normalised()))
    return layers
