"""The causal pre-norm transformer encoder that EMOE and MulT share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """(..., width) code [sin | cos] of integer positions (...), frequencies exp(-j ln(10000) / (width/2 - 1))."""
    half = width // 2
    rates = torch.exp(torch.arange(half, device=positions.device) * (-math.log(10000.0) / max(1, half - 1)))
    angles = positions.unsqueeze(-1) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Layer(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)), with a hidden width of four times the width."""

    def __init__(
        self, width: int, heads: int, attention_dropout: float, relu_dropout: float, residual_dropout: float
    ) -> None:
        super().__init__()
        self.heads = heads
        self.attention_dropout = attention_dropout
        self.relu_dropout = nn.Dropout(relu_dropout)
        self.residual_dropout = nn.Dropout(residual_dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = _linear(width, 3 * width)
        self.out = _linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.expand = _linear(width, 4 * width)
        self.contract = _linear(4 * width, width)

    def attend(self, x: Tensor) -> Tensor:
        """(B, T, width) -> (B, T, width); step t sees steps up to t."""
        batch, steps, width = x.shape
        q, k, v = self.qkv(x).view(batch, steps, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        p = self.attention_dropout if self.training else 0.0
        attended = functional.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        mixed: Tensor = self.out(attended.transpose(1, 2).reshape(batch, steps, width))
        return mixed

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) -> (B, T, width)."""
        x = x + self.residual_dropout(self.attend(self.attention_norm(x)))
        hidden = self.relu_dropout(functional.relu(self.expand(self.feed_norm(x))))
        mixed: Tensor = x + self.residual_dropout(self.contract(hidden))
        return mixed


class Transformer(nn.Module):
    """Scaled input plus position code, then pre-norm layers and a last norm.

    Attention is causal: the last step is the one that has seen all, and steps that pad the end disturb none before
    them, so no padding mask is needed.

    Args:
        width: channels, even and divisible by `heads`.
        skip_zeros: steps whose first channel is exactly 0 get no position code, as in fairseq, which takes them for
            padding.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        *,
        skip_zeros: bool = False,
        embed_dropout: float = 0.0,
        attention_dropout: float = 0.0,
        relu_dropout: float = 0.0,
        residual_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.scale = math.sqrt(width)
        self.skip_zeros = skip_zeros
        self.embed_dropout = nn.Dropout(embed_dropout)
        self.layers = nn.ModuleList(
            Layer(width, heads, attention_dropout, relu_dropout, residual_dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) -> (B, T, width)."""
        positions = torch.arange(1, x.shape[1] + 1, device=x.device)
        code = sinusoids(positions, x.shape[2])
        if self.skip_zeros:
            code = code * (x[..., :1] != 0)
        x = self.embed_dropout(self.scale * x + code)
        for layer in self.layers:
            x = layer(x)
        normed: Tensor = self.norm(x)
        return normed
