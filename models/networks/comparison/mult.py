"""MulT: every modality reads every other one by cross-attention (Tsai et al., ACL 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from emopipe.models.configs import Chance, Heads, Kernel, Layers, Width, check_kernel, check_width
from emopipe.models.data.dataset import Batch
from emopipe.models.networks.comparison.common import (
    Baseline,
    equal_shares,
    last_step,
    need_modalities,
    valid_steps,
    with_stand_in,
)
from emopipe.models.networks.emoe import Head
from emopipe.models.networks.layers import Layer, Transformer, sinusoids
from emopipe.models.networks.model import Output, Shape


@dataclass(frozen=True)
class MultConfig:
    """Settings of MulT. Published: width 50, 10 heads, 4 cross-modal and 3 memory layers, kernels 1 to 5.

    Attributes:
        width: d, channels of a modality; even, divisible by `heads`.
        heads: of all transformers.
        layers, memory_layers: of the cross-modal transformers, and of those that read their outputs.
        kernel: steps that the input convolutions see, odd.
        input_dropout: on whole feature channels of the standardised input.
        embed_dropout, attention_dropout, residual_dropout: inside the transformers.
        output_dropout: inside the head.
        label_smoothing: of the cross-entropy.
    """

    width: Width = 48
    heads: Heads = 4
    layers: Layers = 2
    memory_layers: Layers = 2
    kernel: Kernel = 1
    input_dropout: Chance = 0.1
    embed_dropout: Chance = 0.1
    attention_dropout: Chance = 0.1
    residual_dropout: Chance = 0.1
    output_dropout: Chance = 0.3
    label_smoothing: Chance = 0.0

    def __post_init__(self) -> None:
        check_width(self.width, self.heads)
        check_kernel(self.kernel)


def cross_mask(targets: Tensor, sources: Tensor, rows: int, columns: int) -> Tensor:
    """(B, 1, rows, columns) bool, whether a target step may see a source step: j <= i + |T_q - T_k|, and j < T_k.

    Args:
        targets, sources: (B,) lengths T_q and T_k of each utterance, so that padding changes nothing.
    """
    i = torch.arange(rows, device=targets.device).view(1, -1, 1)
    j = torch.arange(columns, device=targets.device).view(1, 1, -1)
    offset = (targets - sources).abs().view(-1, 1, 1)
    return ((j <= i + offset) & (j < sources.view(-1, 1, 1))).unsqueeze(1)


class CrossLayer(Layer):
    """A transformer layer whose queries are one modality's steps, and whose keys and values are another's."""

    def read(self, x: Tensor, source: Tensor, mask: Tensor) -> Tensor:
        """(B, T_q, width), (B, T_k, width), mask (B, 1, T_q, T_k) -> (B, T_q, width); the norm is shared."""
        width, inputs = x.shape[2], (x, source, source)
        parts = zip(inputs, self.qkv.weight.chunk(3), self.qkv.bias.chunk(3), strict=True)
        linear = [functional.linear(self.attention_norm(steps), weight, bias) for steps, weight, bias in parts]
        q, k, v = (y.view(len(y), -1, self.heads, width // self.heads).transpose(1, 2) for y in linear)
        p = self.attention_dropout if self.training else 0.0
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)
        x = x + self.residual_dropout(self.out(attended.transpose(1, 2).flatten(2)))
        hidden = self.relu_dropout(functional.relu(self.expand(self.feed_norm(x))))
        mixed: Tensor = x + self.residual_dropout(self.contract(hidden))
        return mixed


class CrossTransformer(nn.Module):
    """Target steps, each with what it read from the source modality, layer by layer."""

    def __init__(self, config: MultConfig) -> None:
        super().__init__()
        self.scale = config.width**0.5
        self.dropout = nn.Dropout(config.embed_dropout)
        self.layers = nn.ModuleList(
            CrossLayer(config.width, config.heads, config.attention_dropout, 0.0, config.residual_dropout)
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)

    def embed(self, x: Tensor) -> Tensor:
        """Scaled steps with their position code, (B, T, width) -> (B, T, width)."""
        positions = torch.arange(1, x.shape[1] + 1, device=x.device)
        embedded: Tensor = self.dropout(self.scale * x + sinusoids(positions, x.shape[2]))
        return embedded

    def forward(self, target: Tensor, source: Tensor, mask: Tensor) -> Tensor:
        """(B, T_q, width), (B, T_k, width), mask (B, 1, T_q, T_k) -> (B, T_q, width)."""
        x, memory = self.embed(target), self.embed(source)
        for layer in self.layers:
            assert isinstance(layer, CrossLayer)
            x = layer.read(x, memory, mask)
        normed: Tensor = self.norm(x)
        return normed


class Mult(Baseline):
    """The network. One learned step stands in for an absent modality, as target and as source."""

    Config = MultConfig
    config: MultConfig

    def __init__(self, shape: Shape, config: MultConfig) -> None:
        need_modalities(shape, 2, "mult")
        super().__init__(shape, config)
        names, width = shape.modalities, config.width
        self.dropout = nn.Dropout1d(config.input_dropout)
        self.convolutions = nn.ModuleDict(
            {
                name: nn.Conv1d(dim, width, config.kernel, padding=config.kernel // 2, bias=False)
                for name, dim in shape.dims.items()
            }
        )
        self.absent = nn.ParameterDict({name: nn.Parameter(torch.zeros(width)) for name in names})
        self.cross = nn.ModuleDict(
            {f"{target}_{source}": CrossTransformer(config) for target in names for source in names if target != source}
        )
        wide = (len(names) - 1) * width
        self.memory = nn.ModuleDict({name: self._memory(wide) for name in names})
        self.head = Head(len(names) * wide, shape.outputs, config.output_dropout)

    def _memory(self, width: int) -> Transformer:
        config = self.config
        return Transformer(
            width,
            config.memory_layers,
            config.heads,
            embed_dropout=config.embed_dropout,
            attention_dropout=config.attention_dropout,
            residual_dropout=config.residual_dropout,
        )

    def forward(self, batch: Batch) -> Output:
        """Predict a batch; each modality attends to every other."""
        steps = {name: self._convolved(name, batch) for name in self.shape.modalities}
        fused = torch.cat([self._read(name, steps) for name in self.shape.modalities], dim=1)
        fused_head, logits = self.head(fused)
        return Output(logits.float(), {}, equal_shares(batch.present), {"fused": fused_head})

    def _convolved(self, name: str, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B, T, width) and lengths (B,) of at least 1."""
        x, lengths = self.steps(name, batch)
        encoded = self.convolutions[name](self.dropout(x.transpose(1, 2))).transpose(1, 2)
        encoded = encoded.masked_fill(~valid_steps(x, lengths).unsqueeze(-1), 0.0)
        return with_stand_in(encoded, lengths, self.absent[name])

    def _read(self, target: str, steps: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
        """(B, (M - 1) width): a modality with what it read from all others, at its last step."""
        x, lengths = steps[target]
        parts = []
        for source, (memory, others) in steps.items():
            if source != target:
                mask = cross_mask(lengths, others, x.shape[1], memory.shape[1])
                parts.append(self.cross[f"{target}_{source}"](x, memory, mask))
        return last_step(self.memory[target](torch.cat(parts, dim=2)), lengths)
