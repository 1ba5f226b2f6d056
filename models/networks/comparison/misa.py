"""MISA: a shared and a private part of every modality (Hazarika et al., ACM Multimedia 2020)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from emopipe.errors import ConfigError
from emopipe.models.configs import Chance, Factor, Heads, Width
from emopipe.models.data.dataset import Batch
from emopipe.models.networks import losses
from emopipe.models.networks.comparison.common import Baseline, equal_shares, mean_step
from emopipe.models.networks.model import Output, Shape

Pair = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class MisaConfig:
    """Settings of MISA. Published: width 128, 2 heads, LSTMs as wide as their input.

    Attributes:
        width: of the private and shared parts; divisible by `heads`.
        heads: of the transformer layer over the parts.
        recurrent: width of the LSTMs of face and voice in each direction; 0 averages over time as for the text.
        dropout: on the input, in the transformer and behind it.
        label_smoothing: of the cross-entropy.
        difference, similarity, reconstruction: weights of L_diff, L_sim and L_recon.
        moments: how many L_sim compares.
    """

    width: Width = 64
    heads: Heads = 2
    recurrent: Annotated[int, Interval(ge=0, le=65_536)] = 64
    dropout: Chance = 0.2
    label_smoothing: Chance = 0.0
    difference: Factor = 0.1
    similarity: Factor = 0.3
    reconstruction: Factor = 1.0
    moments: Annotated[int, Interval(ge=1, le=100)] = 5

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ConfigError(f"width {self.width} is not divisible by {self.heads} heads")


def difference(a: Tensor, b: Tensor) -> Tensor:
    """L_diff of a pair: mean squared entry of A^T B, columns centred over the batch, then rows scaled to length one.

    Args:
        a, b: (B, K). The lengths get no gradient.
    """
    unit = [_unit_rows(x - x.mean(0, keepdim=True)) for x in (a, b)]
    squares: Tensor = (unit[0].T @ unit[1]).square()
    return squares.mean()


def _unit_rows(x: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(x.detach(), dim=1, keepdim=True)
    return x / (lengths + 1e-6)


def moment_discrepancy(a: Tensor, b: Tensor, moments: int = 5) -> Tensor:
    """L_sim of a pair (central moment discrepancy, Zellinger et al. 2017).

    |E[a] - E[b]| + sum over k = 2 .. moments of |E[(a - E[a])^k] - E[(b - E[b])^k]|, Euclidean norms over K.

    Args:
        a, b: (B, K).
    """
    means = a.mean(0), b.mean(0)
    total: Tensor = torch.linalg.vector_norm(means[0] - means[1])
    for order in range(2, moments + 1):
        central = [(x - mean).pow(order).mean(0) for x, mean in zip((a, b), means, strict=True)]
        total = total + torch.linalg.vector_norm(central[0] - central[1])
    return total


class RecurrentEncoder(nn.Module):
    """Two bidirectional LSTMs with a layer norm between; the final states of both, (B, 4 x recurrent)."""

    def __init__(self, dim: int, recurrent: int) -> None:
        super().__init__()
        self.first = nn.LSTM(dim, recurrent, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(2 * recurrent)
        self.second = nn.LSTM(2 * recurrent, recurrent, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, D), (B,) -> (B, 4 recurrent)."""
        sizes = lengths.clamp(min=1).cpu()
        packed, (one, _) = self.first(pack_padded_sequence(x, sizes, batch_first=True, enforce_sorted=False))
        steps = self.norm(pad_packed_sequence(packed, batch_first=True)[0])
        _, (two, _) = self.second(pack_padded_sequence(steps, sizes, batch_first=True, enforce_sorted=False))
        return torch.cat([*one, *two], dim=1)


class Projection(nn.Module):
    """The utterance vector of a modality: mean of the text's steps or LSTM states, linear, ReLU, layer norm."""

    def __init__(self, dim: int, recurrent: int, width: int) -> None:
        super().__init__()
        self.encoder = RecurrentEncoder(dim, recurrent) if recurrent else None
        self.project = nn.Linear(4 * recurrent if recurrent else dim, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, D) zero-padded, (B,) -> (B, width)."""
        pooled = mean_step(x, lengths) if self.encoder is None else self.encoder(x, lengths)
        vector: Tensor = self.norm(functional.relu(self.project(pooled)))
        return vector


class Misa(Baseline):
    """The network. Absent modalities have no part in the attention, the fused vector and the losses."""

    Config = MisaConfig
    config: MisaConfig

    def __init__(self, shape: Shape, config: MisaConfig) -> None:
        super().__init__(shape, config)
        names, width, count = shape.modalities, config.width, len(shape.modalities)
        self.dropout = nn.Dropout(config.dropout)
        recurrent = {name: 0 if name == "text" else config.recurrent for name in names}
        self.project = nn.ModuleDict(
            {name: Projection(dim, recurrent[name], width) for name, dim in shape.dims.items()}
        )
        self.private = nn.ModuleDict({name: nn.Linear(width, width) for name in names})
        self.shared = nn.Linear(width, width)
        self.reconstruct = nn.ModuleDict({name: nn.Linear(width, width) for name in names})
        self.attention = nn.TransformerEncoderLayer(
            width, config.heads, dim_feedforward=4 * width, dropout=config.dropout, batch_first=True
        )
        self.hidden = nn.Linear(2 * count * width, count * width)
        self.readout = nn.Linear(count * width, shape.outputs)

    def forward(self, batch: Batch) -> Output:
        """Predict; `features` of the output holds utterance, private, shared and rebuilt, each (B, M, width)."""
        names, there = self.shape.modalities, batch.present.unsqueeze(-1)
        utterance = torch.stack([self._utterance(name, batch) for name in names], dim=1)
        private = self._each(self.private, utterance).sigmoid()
        shared = self.shared(utterance).sigmoid()
        rebuilt = self._each(self.reconstruct, private + shared)
        fused = self._fuse(torch.cat([private * there, shared * there], dim=1), torch.cat([batch.present] * 2, dim=1))
        logits = self.readout(functional.relu(self.dropout(self.hidden(fused))))
        parts = {"utterance": utterance, "private": private, "shared": shared, "rebuilt": rebuilt, "fused": fused}
        return Output(logits.float(), {}, equal_shares(batch.present), parts)

    def _each(self, layers: nn.ModuleDict, x: Tensor) -> Tensor:
        """Each modality's own layer on its part of (B, M, width)."""
        return torch.stack([layers[name](x[:, m]) for m, name in enumerate(self.shape.modalities)], dim=1)

    def _utterance(self, name: str, batch: Batch) -> Tensor:
        x, lengths = self.steps(name, batch)
        vector: Tensor = self.project[name](self.dropout(x), lengths)
        return vector

    def _fuse(self, parts: Tensor, present: Tensor) -> Tensor:
        """(B, 2M, width) -> (B, 2M width): one layer of self-attention over the present parts."""
        hidden = ~present & present.any(1, keepdim=True)  # a row without any would divide by zero
        attended: Tensor = self.attention(parts, src_key_padding_mask=hidden)
        return (attended * present.unsqueeze(-1)).flatten(1)

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """L = L_task + 0.1 L_diff + 0.3 L_sim + L_recon; L_task is cross-entropy, or the squared error of values."""
        config, f, present = self.config, output.features, batch.present
        terms = {
            "task": losses.mean(self._costs(output.logits, batch.targets), batch.weights),
            "difference": self._differences(f["private"].float(), f["shared"].float(), present),
            "similarity": self._similarities(f["shared"].float(), present),
            "reconstruction": self._reconstructions(f["rebuilt"].float(), f["utterance"].float(), present),
        }
        parts = config.difference * terms["difference"] + config.similarity * terms["similarity"]
        terms["total"] = terms["task"] + parts + config.reconstruction * terms["reconstruction"]
        return terms

    def _costs(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.shape.task == "regression":
            return (logits.squeeze(-1) - labels).square()
        return losses.task_costs(logits, labels, self.shape.task, self.config.label_smoothing)

    def _differences(self, private: Tensor, shared: Tensor, present: Tensor) -> Tensor:
        """Summed over M pairs of private and shared, and all pairs of private parts."""
        private_and_shared = [(private[:, m], shared[:, m], present[:, m]) for m in range(present.shape[1])]
        return torch.stack(_over(difference, [*private_and_shared, *_pairs(private, present)], present)).sum()

    def _similarities(self, shared: Tensor, present: Tensor) -> Tensor:
        """Mean over all pairs of shared parts."""
        moments = self.config.moments
        discrepancies = _over(lambda a, b: moment_discrepancy(a, b, moments), _pairs(shared, present), present)
        return torch.stack(discrepancies).mean()

    def _reconstructions(self, rebuilt: Tensor, utterance: Tensor, present: Tensor) -> Tensor:
        """Mean over the modalities of the mean squared error."""
        triples = [(rebuilt[:, m], utterance[:, m], present[:, m]) for m in range(present.shape[1])]
        return torch.stack(_over(functional.mse_loss, triples, present)).mean()


def _pairs(parts: Tensor, present: Tensor) -> list[Pair]:
    """(B, M, K) -> for each two modalities their parts and the (B,) utterances that have both."""
    indices = combinations(range(parts.shape[1]), 2)
    return [(parts[:, m], parts[:, n], present[:, m] & present[:, n]) for m, n in indices]


def _over(term: Callable[[Tensor, Tensor], Tensor], pairs: list[Pair], like: Tensor) -> list[Tensor]:
    """The term of each pair over the utterances that have both; a zero where none has, and for no pairs at all."""
    zero = torch.zeros((), device=like.device)
    return [term(a[rows], b[rows]) if rows.any() else zero for a, b, rows in pairs] or [zero]
