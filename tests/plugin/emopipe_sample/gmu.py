"""Gated multimodal unit (Arevalo et al. 2017), with gates that share what is there among the modalities present."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from emopipe.models.data.dataset import Batch, Dataset
from emopipe.models.networks.losses import task_costs
from emopipe.models.networks.model import FusionModel, Output, Shape, Standardise


@dataclass(frozen=True)
class GmuConfig:
    """Options.

    Attributes:
        width: of the hidden features.
        dropout: of the hidden features.
    """

    width: int = 32
    dropout: float = 0.1


class Gmu(FusionModel):
    """h = sum over m of z_m * tanh(W_m x_m), z = softmax over m of V_m x_m, x_m the mean of the modality's steps."""

    Config = GmuConfig

    def __init__(self, shape: Shape, config: GmuConfig) -> None:
        super().__init__(shape, config)
        self.inputs = nn.ModuleDict({name: Standardise(dim) for name, dim in shape.dims.items()})
        self.hidden = nn.ModuleDict({name: nn.Linear(dim, config.width) for name, dim in shape.dims.items()})
        self.gates = nn.ModuleDict({name: nn.Linear(dim, config.width) for name, dim in shape.dims.items()})
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.width, shape.outputs)

    def fit_inputs(self, dataset: Dataset) -> None:
        for name, standardise in self.inputs.items():
            standardise.fit(torch.from_numpy(dataset.steps(name)))

    def forward(self, batch: Batch) -> Output:
        hidden, gates = [], []
        for column, name in enumerate(batch.modalities):
            means = _means(self.inputs[name](batch.features[name]), batch.lengths[:, column])
            means = means * batch.present[:, column, None]
            hidden.append(torch.tanh(self.hidden[name](means)))
            gates.append(self.gates[name](means))
        features = self.dropout(torch.stack(hidden, dim=1))
        shares = _shares(torch.stack(gates, dim=1), batch.present)
        fused = (shares * features).sum(1)
        unimodal = {name: self.head(features[:, column]) for column, name in enumerate(batch.modalities)}
        return Output(self.head(fused), unimodal, shares.mean(2), {"fused": fused})

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        assert batch.labels is not None
        costs = task_costs(output.logits, batch.labels, self.shape.task)
        if batch.weights is not None:
            costs = costs * batch.weights
        return {"total": costs.mean()}


def _means(steps: Tensor, lengths: Tensor) -> Tensor:
    """(B, T, D) -> (B, D), of the first `lengths` steps."""
    valid = torch.arange(steps.shape[1], device=steps.device)[None] < lengths[:, None]
    return (steps * valid[..., None]).sum(1) / lengths.clamp(min=1)[:, None]


def _shares(gates: Tensor, present: Tensor) -> Tensor:
    """(B, M, K) softmax over the modalities that are there; zeros where there is none."""
    there = present[..., None]
    shares = gates.masked_fill(~there, -torch.inf).softmax(1)
    return torch.where(there, shares, 0.0).nan_to_num(0.0)
