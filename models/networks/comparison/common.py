"""Shared parts of the comparison models: clean inputs, subnets that make one vector of a modality, the task loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from emopipe.errors import ConfigError
from emopipe.models.configs import Chance, Width
from emopipe.models.data.dataset import Batch, Dataset
from emopipe.models.networks import losses
from emopipe.models.networks.model import FusionModel, Output, Shape, Standardise


class Baseline(FusionModel):
    """A model that mixes by itself: its modality shares are equal, and its loss is that of the task alone."""

    def __init__(self, shape: Shape, config: Any) -> None:
        super().__init__(shape, config)
        self.standardise = nn.ModuleDict({name: Standardise(dim) for name, dim in shape.dims.items()})

    def fit_inputs(self, dataset: Dataset) -> None:
        """Learn mean and spread of every feature from the training rows."""
        for name, layer in self.standardise.items():
            assert isinstance(layer, Standardise)
            layer.fit(torch.from_numpy(dataset.steps(name)))

    def steps(self, name: str, batch: Batch) -> tuple[Tensor, Tensor]:
        """Standardised steps of a modality (B, T, D) and lengths (B,), all 0 past the end and where it is absent."""
        column = self.shape.modalities.index(name)
        lengths = batch.lengths[:, column].masked_fill(~batch.present[:, column], 0)
        longest = int(lengths.max()) if len(lengths) else 0
        if longest == 0:
            return batch.quality.new_zeros(len(batch), 1, self.shape.dims[name]), lengths
        x: Tensor = self.standardise[name](batch.features[name][:, :longest])
        return x.masked_fill_(~valid_steps(x, lengths).unsqueeze(-1), 0.0), lengths

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The `task` loss, which is the `total`."""
        costs = losses.task_costs(output.logits, batch.targets, self.shape.task, self.config.label_smoothing)
        task = losses.mean(costs, batch.weights)
        return {"task": task, "total": task}


def need_modalities(shape: Shape, least: int, model: str) -> None:
    """Raise a ConfigError when there are too few modalities to fuse."""
    if len(shape.modalities) < least:
        have = ", ".join(shape.modalities)
        raise ConfigError(f"{model} needs {least} modalities, there is {have}", hint="Use the model `unimodal`")


def valid_steps(x: Tensor, lengths: Tensor) -> Tensor:
    """(B, T) bool: which steps of (B, T, ...) lie within their (B,) lengths."""
    return torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1)


def equal_shares(present: Tensor) -> Tensor:
    """(B, M) float32: one share for each present modality, summing to one; 0 where absent."""
    return present.float() / present.sum(1, keepdim=True).clamp(min=1)


def mean_step(x: Tensor, lengths: Tensor) -> Tensor:
    """(B, T, D) zero-padded -> (B, D), the mean over the valid steps; 0 without any."""
    return x.sum(1) / lengths.clamp(min=1).unsqueeze(1)


def last_step(x: Tensor, lengths: Tensor) -> Tensor:
    """(B, T, K) -> (B, K), the last valid step."""
    return x[torch.arange(len(x), device=x.device), (lengths - 1).clamp(min=0)]


@dataclass(frozen=True)
class SubnetConfig:
    """Settings of the subnets of LF-DNN, TFN and LMF.

    Attributes:
        hidden: width of the face and voice subnets.
        text_hidden, text_width: of the text's LSTM and of its projection.
        input_dropout: on the standardised input.
        dropout: behind the fusion.
        post: width of the layers behind the fusion.
        label_smoothing: of the cross-entropy.
    """

    hidden: Width = 64
    text_hidden: Width = 128
    text_width: Width = 64
    input_dropout: Chance = 0.2
    dropout: Chance = 0.2
    post: Width = 64
    label_smoothing: Chance = 0.0

    def width_of(self, modality: str) -> int:
        """K, the width of a modality's vector."""
        return self.text_width if modality == "text" else self.hidden


class PooledSubnet(nn.Module):
    """Mean over time, dropout, three times (linear, ReLU)."""

    def __init__(self, dim: int, config: SubnetConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.input_dropout)
        self.layers = nn.ModuleList(nn.Linear(dim if i == 0 else config.hidden, config.hidden) for i in range(3))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, D) zero-padded, (B,) -> (B, hidden)."""
        h: Tensor = self.dropout(mean_step(x, lengths))
        for layer in self.layers:
            h = functional.relu(layer(h))
        return h


class RecurrentSubnet(nn.Module):
    """LSTM, its last state, dropout, linear."""

    def __init__(self, dim: int, config: SubnetConfig) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, config.text_hidden, batch_first=True)
        self.dropout = nn.Dropout(config.input_dropout)
        self.project = nn.Linear(config.text_hidden, config.text_width)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, D) zero-padded, (B,) -> (B, text_width)."""
        projected: Tensor = self.project(self.dropout(last_step(self.lstm(x)[0], lengths)))
        return projected


class SubnetModel(Baseline):
    """A model over one vector per modality, made as in Zadeh et al. (EMNLP 2017): text by an LSTM, others by an MLP.

    Where they normalise each batch we standardise by the training data, so that a single utterance has an answer.
    """

    config: SubnetConfig

    def __init__(self, shape: Shape, config: SubnetConfig) -> None:
        super().__init__(shape, config)
        kinds = {name: RecurrentSubnet if name == "text" else PooledSubnet for name in shape.modalities}
        self.subnets = nn.ModuleDict({name: kinds[name](dim, config) for name, dim in shape.dims.items()})

    def vectors(self, batch: Batch) -> list[Tensor]:
        """M tensors (B, K_m), zero where the modality is absent."""
        vectors = []
        for column, name in enumerate(self.shape.modalities):
            h = self.subnets[name](*self.steps(name, batch))
            vectors.append(h.masked_fill(~batch.present[:, column : column + 1], 0.0))
        return vectors
