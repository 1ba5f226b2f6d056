"""Fusion of one vector per modality: by concatenation (LF-DNN), outer product (TFN) and its low-rank form (LMF)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional

from emopipe.models.configs import Chance, Limit, Rank, Width
from emopipe.models.data.dataset import Batch
from emopipe.models.networks.comparison.common import SubnetConfig, SubnetModel, equal_shares
from emopipe.models.networks.model import Output, Shape


class Mlp(nn.Module):
    """Dropout, two times (linear, ReLU), linear."""

    def __init__(self, inputs: int, width: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.first = nn.Linear(inputs, width)
        self.second = nn.Linear(width, width)
        self.readout = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, inputs) -> the last hidden layer (B, width) and logits (B, outputs)."""
        h = functional.relu(self.second(functional.relu(self.first(self.dropout(x)))))
        return h, self.readout(h)


@dataclass(frozen=True)
class LfDnnConfig(SubnetConfig):
    """See :class:`SubnetConfig`."""

    post: Width = 128


class LfDnn(SubnetModel):
    """LF-DNN: the vectors side by side into an MLP (Cambria et al., CICLing 2017, as in MMSA, Mao et al., ACL 2022).

    A learned vector stands in for an absent modality.
    """

    Config = LfDnnConfig

    def __init__(self, shape: Shape, config: LfDnnConfig) -> None:
        super().__init__(shape, config)
        widths = {name: config.width_of(name) for name in shape.modalities}
        self.absent = nn.ParameterDict({name: nn.Parameter(torch.zeros(width)) for name, width in widths.items()})
        self.mlp = Mlp(sum(widths.values()), config.post, shape.outputs, config.dropout)

    def forward(self, batch: Batch) -> Output:
        """Predict a batch from the concatenated modalities."""
        there = batch.present.unsqueeze(-1).unbind(1)
        pairs = zip(self.shape.modalities, self.vectors(batch), there, strict=True)
        filled = [torch.where(present, h, self.absent[name].to(h.dtype)) for name, h, present in pairs]
        fused, logits = self.mlp(torch.cat(filled, dim=1))
        return Output(logits.float(), {}, equal_shares(batch.present), {"fused": fused})


@dataclass(frozen=True)
class TfnConfig(SubnetConfig):
    """See :class:`SubnetConfig`. The outer product has prod(K_m + 1) entries, so widths are small.

    Attributes:
        limit: predicted values lie within +-limit; classes do not use it.
    """

    hidden: Width = 32
    text_width: Width = 32
    dropout: Chance = 0.5
    limit: Limit = 3.0


def with_one(h: Tensor) -> Tensor:
    """(B, K) -> (B, 1 + K), a 1 in front."""
    return functional.pad(h, (1, 0), value=1.0)


def outer_product(vectors: Sequence[Tensor]) -> Tensor:
    """vec([1; h_1] x ... x [1; h_M]): M tensors (B, K_m) -> (B, prod(K_m + 1)), the last index running fastest."""
    return reduce(lambda z, h: (z.unsqueeze(2) * h.unsqueeze(1)).flatten(1), map(with_one, vectors))


class Tfn(SubnetModel):
    """Tensor Fusion Network (Zadeh et al., EMNLP 2017): all products of entries of one, two ... M modalities.

    An absent modality's vector is zero, which leaves exactly the products of the others. Values come out of
    2 limit sigmoid(x) - limit, as published.
    """

    Config = TfnConfig
    config: TfnConfig

    def __init__(self, shape: Shape, config: TfnConfig) -> None:
        super().__init__(shape, config)
        inputs = reduce(lambda size, name: size * (config.width_of(name) + 1), shape.modalities, 1)
        self.mlp = Mlp(inputs, config.post, shape.outputs, config.dropout)

    def forward(self, batch: Batch) -> Output:
        """Predict a batch from the outer product of the modalities."""
        fused, logits = self.mlp(outer_product(self.vectors(batch)))
        logits = logits.float()
        if self.shape.task == "regression":
            logits = 2 * self.config.limit * logits.sigmoid() - self.config.limit
        return Output(logits, {}, equal_shares(batch.present), {"fused": fused})


@dataclass(frozen=True)
class LmfConfig(SubnetConfig):
    """See :class:`SubnetConfig`; `dropout` and `post` are not used.

    Attributes:
        rank: R, how many products of linear maps are summed.
    """

    rank: Rank = 3


class Lmf(SubnetModel):
    """Low-rank Multimodal Fusion (Liu et al., ACL 2018): TFN with a weight tensor of rank R.

    y = sum_r q_r prod_m ([1; h_m] A_{m,r}) + b, the product taken entry by entry. A zero vector stands for an absent
    modality, so of its factor only the row of the 1 acts.
    """

    Config = LmfConfig
    config: LmfConfig

    def __init__(self, shape: Shape, config: LmfConfig) -> None:
        super().__init__(shape, config)
        sizes = {name: (config.rank, config.width_of(name) + 1, shape.outputs) for name in shape.modalities}
        self.factors = nn.ParameterDict({name: nn.Parameter(torch.zeros(size)) for name, size in sizes.items()})
        self.mix = nn.Parameter(torch.zeros(1, config.rank))
        self.bias = nn.Parameter(torch.zeros(shape.outputs))
        for matrix in [self.mix, *(matrix for factor in self.factors.values() for matrix in factor)]:
            nn.init.xavier_normal_(matrix)

    def products(self, vectors: Sequence[Tensor]) -> Tensor:
        """M tensors (B, K_m) -> (B, R, C), the product of the modalities' maps for each r."""
        pairs = zip(self.shape.modalities, vectors, strict=True)
        maps = [torch.einsum("bk,rkc->brc", with_one(h), self.factors[name].to(h.dtype)) for name, h in pairs]
        return torch.stack(maps).prod(0)

    def forward(self, batch: Batch) -> Output:
        """Predict a batch from low-rank products of the modalities."""
        products = self.products(self.vectors(batch)).float()
        logits = torch.einsum("br,brc->bc", self.mix.expand(len(batch), -1), products) + self.bias
        return Output(logits, {}, equal_shares(batch.present), {"fused": products.flatten(1)})
