"""EfficientNet-Lite0 (Liu, 2020; Tan and Le, 2019) as plain torch modules, for expression on 96 px crops."""

from __future__ import annotations

from typing import Final

import torch
from torch import nn

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
