"""Three experts of different bottlenecks, and the two-stage gate that mixes them.

w     = softmax(Gate([f ; present]))
alpha = softmax(MLP([f ; w ; present]))            for ablations also alpha = w, w = 1/3, or alpha uniform
E_k(f) = W_up,k act_k(W_down,k f)                  widths d/8, d/4, d/2 with Mish, GELU, SiLU
f_enh = LN(f + sum_k alpha_k E_k(f))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from emopipe.models.networks.egmf.config import Gating
from emopipe.models.networks.emoe import masked_softmax

#: (bottleneck, activation) of each expert; a bottleneck b makes a width of d / b.
BRANCHES: Final[tuple[tuple[int, Callable[[], nn.Module]], ...]] = ((8, nn.Mish), (4, nn.GELU), (2, nn.SiLU))


@dataclass(frozen=True)
class Mixed:
    """What the experts made of B vectors.

    Attributes:
        f: (B, d) what was mixed into.
        enhanced: (B, d) f_enh.
        experts: (B, 3, d) E_k(f).
        gate: (B, 3) w of the first stage.
        alpha: (B, 3) of the second, summing to one.
    """

    f: Tensor
    enhanced: Tensor
    experts: Tensor
    gate: Tensor
    alpha: Tensor


class Gate(nn.Module):
    """w and alpha; see above.

    Args:
        width: d.
        modalities: M.
        stages: both, as published; the `first` alone (alpha = w), the `second` alone (of equal w), or neither.
        closed: numbers of experts, from 1, that are left out.

    Attributes:
        open: (3,) bool; an expert that is closed gets exactly 0, for ablations. No checkpoint keeps it.
    """

    open: Tensor

    def __init__(self, width: int, modalities: int, stages: Gating = "two-stage", closed: Sequence[int] = ()) -> None:
        super().__init__()
        count = len(BRANCHES)
        self.stages = stages
        self.first = _mlp(width + modalities, width // 4, count)
        self.second = _mlp(width + count + modalities, width // 4, count)
        opened = torch.tensor([number not in closed for number in range(1, count + 1)])
        self.register_buffer("open", opened, persistent=False)

    def forward(self, f: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """F (B, d) and present (B, M) bool -> w and alpha, both (B, 3) float32."""
        first = self.first(torch.cat([f, present], dim=1)).float()
        if self.stages in ("second", "uniform"):
            first = torch.zeros_like(first)
        w = first.softmax(1)
        if self.stages in ("first", "uniform"):
            return w, masked_softmax(first, self.open.expand(first.shape))
        logits = self.second(torch.cat([f, w, present], dim=1)).float()
        return w, masked_softmax(logits, self.open.expand(logits.shape))


class Experts(nn.Module):
    """The experts behind their gate."""

    def __init__(self, width: int, modalities: int, stages: Gating = "two-stage", closed: Sequence[int] = ()) -> None:
        super().__init__()
        self.gate = Gate(width, modalities, stages, closed)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width // narrow), act(), nn.Linear(width // narrow, width))
            for narrow, act in BRANCHES
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, f: Tensor, present: Tensor) -> Mixed:
        """F (B, d) and present (B, M) bool -> all of :class:`Mixed`."""
        w, alpha = self.gate(f, present)
        outputs = torch.stack([expert(f) for expert in self.experts], dim=1)
        enhanced = self.norm(f + (alpha.unsqueeze(-1) * outputs).sum(1))
        return Mixed(f, enhanced, outputs, w, alpha)


class PseudoTokens(nn.Module):
    """f_enh as K tokens of the language model: p = W_p f_enh, and token k is p, or s_k p + b_k (`affine`).

    Args:
        width: of f_enh.
        embedding: D, the width of the token embeddings.
        count: K.
        affine: which of the two.
        scale: root mean square of the token embeddings; p begins at the same size.
    """

    def __init__(self, width: int, embedding: int, count: int, affine: bool, scale: float) -> None:
        super().__init__()
        self.count = count
        self.project = nn.Linear(width, embedding)
        nn.init.normal_(self.project.weight, std=scale / width**0.5)
        nn.init.zeros_(self.project.bias)
        self.spread: nn.Linear | None = nn.Linear(1, count) if affine else None
        if self.spread is not None:
            nn.init.normal_(self.spread.weight, mean=1.0, std=0.1)
            nn.init.zeros_(self.spread.bias)

    def forward(self, enhanced: Tensor) -> Tensor:
        """(B, width) -> (B, K, D)."""
        p: Tensor = self.project(enhanced)
        if self.spread is None:
            return p.unsqueeze(1).expand(-1, self.count, -1)
        spread: Tensor = self.spread(p.unsqueeze(-1))
        return spread.transpose(1, 2)


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))
