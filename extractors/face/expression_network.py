"""EfficientNet-Lite0 (Liu, 2020; Tan and Le, 2019) as plain torch modules, for expression on crops of a face."""

from __future__ import annotations

from typing import Final

import torch
from torch import nn

from emopipe.extractors.onednn import Convolution, has_onednn

#: Per stage: expansion, channels, blocks, stride, kernel.
STAGES: Final = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
STEM: Final = 32
#: Size of the pooled features.
WIDTH: Final = 1280


def _convolution(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    padding = kernel // 2
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)]


class Block(nn.Module):
    """Inverted residual: widen, filter each channel, narrow."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        inner = inputs * expansion
        layers = [*_convolution(inputs, inner), nn.ReLU6()] if expansion > 1 else []
        layers += [*_convolution(inner, inner, kernel, stride, inner), nn.ReLU6(), *_convolution(inner, outputs)]
        self.layers = nn.Sequential(*layers)
        self.skip = inputs == outputs and stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        y: torch.Tensor = self.layers(x)
        return x + y if self.skip else y


class ExpressionNetwork(nn.Module):
    """From crops with values about -1 to 1, (batch, 3, side, side), to pooled features (batch, WIDTH)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [*_convolution(3, STEM, 3, 2), nn.ReLU6()]
        inputs = STEM
        for expansion, outputs, blocks, stride, kernel in STAGES:
            for index in range(blocks):
                layers.append(Block(inputs, outputs, expansion, stride if index == 0 else 1, kernel))
                inputs = outputs
        self.layers = nn.Sequential(*layers, *_convolution(inputs, WIDTH), nn.ReLU6())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pooled features."""
        y: torch.Tensor = self.layers(x)
        return y.mean((2, 3))


def folded(network: ExpressionNetwork) -> ExpressionNetwork:
    """The same function in evaluation, without batch normalisation: it is folded into the convolutions, in place."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    network.eval()
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            layers: list[nn.Module] = []
            for layer in module:
                if isinstance(layer, nn.BatchNorm2d):
                    convolution = layers[-1]
                    assert isinstance(convolution, nn.Conv2d)
                    layers[-1] = fuse_conv_bn_eval(convolution, layer)
                else:
                    layers.append(layer)
            module._modules.clear()
            module.extend(layers)
    return network


def fused(network: ExpressionNetwork) -> ExpressionNetwork:
    """A folded network with its final weights, whose convolutions clamp and add by themselves, in place.

    Its values are the same to the last bit, in little more than half the time. It changes nothing where torch comes
    without oneDNN.
    """
    if has_onednn():
        network.layers = nn.Sequential(*_fused(network.layers))
    return network


class _FusedBlock(nn.Module):
    """A :class:`Block` of fused convolutions."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        *first, self.last = _fused(block.layers)
        self.first = nn.Sequential(*first)
        self.skip = block.skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the block."""
        y: torch.Tensor = self.last(self.first(x), x if self.skip else None)
        return y


def _fused(layers: nn.Sequential) -> list[nn.Module]:
    """The layers of a folded network, fused."""
    modules = list(layers)
    return [
        _FusedBlock(layer) if isinstance(layer, Block) else Convolution(layer, clamped=isinstance(after, nn.ReLU6))
        for layer, after in zip(modules, [*modules[1:], None], strict=True)
        if isinstance(layer, Block | nn.Conv2d)
    ]
