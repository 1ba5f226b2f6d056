"""MFN, the Memory Fusion Network: what several LSTMs remember meets in a gated memory (Zadeh et al., AAAI 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from emopipe.models.configs import Chance, Count, Width
from emopipe.models.data.dataset import Batch
from emopipe.models.networks.comparison.common import Baseline, equal_shares, with_stand_in
from emopipe.models.networks.model import Output, Shape


@dataclass(frozen=True)
class MfnConfig:
    """Settings of MFN. Published for MOSI: features aligned to 50 words.

    Attributes:
        text_hidden, hidden: widths of the LSTMs of the text, and of face and voice.
        memory: width of the gated memory u.
        width: hidden width of the networks D.
        steps: time steps at most; longer sequences are averaged over as many equal stretches.
        dropout: inside the networks D and in front of the prediction.
        label_smoothing: of the cross-entropy.
    """

    text_hidden: Width = 128
    hidden: Width = 32
    memory: Width = 128
    width: Width = 128
    steps: Count = 50
    dropout: Chance = 0.2
    label_smoothing: Chance = 0.0


def resampled(x: Tensor, lengths: Tensor, targets: Tensor) -> Tensor:
    """(B, T, D) of (B,) lengths -> (B, max target, D): means over as many equal stretches of each row as its target.

    Sequences that are as long as they shall be stay as they are; what is behind the end is arbitrary.
    """
    sums = functional.pad(x.double().cumsum(1), (0, 0, 1, 0))
    long, wanted = lengths.unsqueeze(1), targets.unsqueeze(1)
    t = torch.arange(int(targets.max()), device=x.device).unsqueeze(0)
    t = torch.minimum(t, wanted - 1)
    begin = t * long // wanted
    end = torch.maximum(begin + 1, ((t + 1) * long + wanted - 1) // wanted)
    rows = torch.arange(len(x), device=x.device).unsqueeze(1)
    means = (sums[rows, end] - sums[rows, begin]) / (end - begin).unsqueeze(-1)
    return means.to(x.dtype)


class Network(nn.Module):
    """A network D of the paper: linear, ReLU, dropout, linear."""

    def __init__(self, inputs: int, outputs: int, config: MfnConfig) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.second = nn.Linear(config.width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs) -> (B, outputs)."""
        y: Tensor = self.second(self.dropout(functional.relu(self.first(x))))
        return y


class MemoryFusion(nn.Module):
    """Delta-memory attention and the multi-view gated memory.

    With c the memories of all LSTMs side by side, at this step and the one before:

    - a = softmax(D_a([c_{t-1}; c_t]))
    - c^ = a * [c_{t-1}; c_t]
    - u^ = D_u(c^)
    - gamma_k = sigmoid(D_gamma_k(c^)) for k = 1, 2
    - u_t = gamma_1 * u_{t-1} + gamma_2 * tanh(u^)
    """

    def __init__(self, total: int, config: MfnConfig) -> None:
        super().__init__()
        self.attention = Network(2 * total, 2 * total, config)
        self.proposal = Network(2 * total, config.memory, config)
        self.retain = Network(2 * total, config.memory, config)
        self.update = Network(2 * total, config.memory, config)

    def forward(self, before: Tensor, now: Tensor, memory: Tensor) -> Tensor:
        """LSTM memories (B, K) of two steps and u (B, memory) -> the new u (B, memory)."""
        pair = torch.cat([before, now], dim=1)
        attended = self.attention(pair).softmax(1) * pair
        proposed = self.proposal(attended).tanh()
        mixed: Tensor = self.retain(attended).sigmoid() * memory + self.update(attended).sigmoid() * proposed
        return mixed


class Mfn(Baseline):
    """The network: one LSTM cell for each modality, the fused memory, and a prediction from [h_T; u_T].

    All modalities move in the steps of the first one that is there, text before face before voice; other sequences are
    averaged over its steps, which changes nothing where they are aligned. A learned step, again and again, stands in
    for an absent modality.
    """

    Config = MfnConfig
    config: MfnConfig

    def __init__(self, shape: Shape, config: MfnConfig) -> None:
        super().__init__(shape, config)
        widths = {name: config.text_hidden if name == "text" else config.hidden for name in shape.modalities}
        self.absent = nn.ParameterDict({name: nn.Parameter(torch.zeros(dim)) for name, dim in shape.dims.items()})
        self.cells = nn.ModuleDict({name: nn.LSTMCell(dim, widths[name]) for name, dim in shape.dims.items()})
        total = sum(widths.values())
        self.fusion = MemoryFusion(total, config)
        self.readout = Network(total + config.memory, shape.outputs, config)

    def forward(self, batch: Batch) -> Output:
        """Predict a batch, step by step."""
        steps, lengths = self._aligned(batch)
        hidden = [self._zeros(batch, name) for name in self.shape.modalities]
        cells = [self._zeros(batch, name) for name in self.shape.modalities]
        memory = batch.quality.new_zeros(len(batch), self.config.memory)
        for t in range(int(lengths.max()) if len(lengths) else 0):
            goes_on = (t < lengths).unsqueeze(1)
            moved = [
                self.cells[name](x[:, t], (h, c))
                for name, x, h, c in zip(self.shape.modalities, steps, hidden, cells, strict=True)
            ]
            fused = self.fusion(torch.cat(cells, dim=1), torch.cat([c for _, c in moved], dim=1), memory)
            memory = torch.where(goes_on, fused, memory)
            hidden = [torch.where(goes_on, new, old) for (new, _), old in zip(moved, hidden, strict=True)]
            cells = [torch.where(goes_on, new, old) for (_, new), old in zip(moved, cells, strict=True)]
        state = torch.cat([*hidden, memory], dim=1)
        return Output(self.readout(state).float(), {}, equal_shares(batch.present), {"fused": state})

    def _zeros(self, batch: Batch, name: str) -> Tensor:
        cell = self.cells[name]
        assert isinstance(cell, nn.LSTMCell)
        return batch.quality.new_zeros(len(batch), cell.hidden_size)

    def _aligned(self, batch: Batch) -> tuple[list[Tensor], Tensor]:
        """Steps (B, T, D_m) of every modality, equally many (B,) in each."""
        pairs = [
            with_stand_in(*self.steps(name, batch), self.absent[name].to(batch.quality.dtype))
            for name in self.shape.modalities
        ]
        lengths = torch.stack([length for _, length in pairs], dim=1)
        leading = batch.present.long().argmax(1)  # the first that is there
        targets = lengths[torch.arange(len(batch), device=lengths.device), leading].clamp(max=self.config.steps)
        return [resampled(x, length, targets) for x, length in pairs], targets
