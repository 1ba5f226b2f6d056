"""Single modalities, and the plainest fusion of them: the average of what each one says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from emopipe.errors import ConfigError
from emopipe.models.data.dataset import Batch, Dataset
from emopipe.models.networks import losses
from emopipe.models.networks.comparison.common import equal_shares
from emopipe.models.networks.emoe import Branch, EmoeConfig, sealed
from emopipe.models.networks.model import FusionModel, Output, Shape
from emopipe.models.networks.words import chosen


@dataclass(frozen=True)
class UnimodalConfig(EmoeConfig):
    """A modality's branch as in EMOE; what concerns routing and fusion is not used.

    Attributes:
        modality: which; empty for the only one there is.
    """

    modality: str = ""


@dataclass(frozen=True)
class LateFusionConfig(EmoeConfig):
    """Branches as in EMOE; what concerns routing is not used.

    Attributes:
        average: `mean` of the posteriors, or their normalised `product` (values: the mean either way).
    """

    average: Literal["mean", "product"] = "mean"


class Tower(nn.Module):
    """EMOE's branch of one modality with an encoder of its own: raw features to a vector and logits."""

    def __init__(self, modality: str, dim: int, outputs: int, config: EmoeConfig) -> None:
        super().__init__()
        self.branch = Branch(modality, dim, outputs, config)
        self.encoder = nn.Conv1d(config.width, config.width, 1, bias=False)

    def forward(self, x: Tensor, lengths: Tensor, words: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(R, T, D), (R,) and R texts -> features (R, width) and logits (R, C) of rows that have the modality."""
        p, logits = self.branch.head(self.branch.read(*self.branch.embed(x, lengths, self.encoder, words)))
        return p, logits


class Towers(FusionModel):
    """One tower per modality, each trained by its own loss alone."""

    config: EmoeConfig

    def __init__(self, shape: Shape, config: EmoeConfig, names: tuple[str, ...]) -> None:
        super().__init__(shape, config)
        self.names = names
        self.towers = nn.ModuleDict({name: Tower(name, shape.dims[name], shape.outputs, config) for name in names})

    def fit_inputs(self, dataset: Dataset) -> None:
        """Learn mean and spread of every feature from the training rows."""
        for name, tower in self.towers.items():
            assert isinstance(tower, Tower)
            tower.branch.fit(name, dataset)

    def sealed(self) -> EmoeConfig:
        """The configuration that a checkpoint of the model keeps."""
        return sealed(self.config, self)

    def tower(self, name: str, batch: Batch) -> tuple[Tensor, Tensor]:
        """Features (B, width) and logits (B, C) of one modality, zero where it is absent."""
        column = self.shape.modalities.index(name)
        rows = batch.present[:, column].nonzero().squeeze(1)
        if len(rows) == 0:
            widths = (self.config.width, self.shape.outputs)
            return batch.quality.new_zeros(len(batch), widths[0]), batch.quality.new_zeros(len(batch), widths[1])
        lengths = batch.lengths[rows, column]
        x = batch.features[name][rows, : int(lengths.max())]
        parts = self.towers[name](x, lengths, chosen(batch.words, rows))
        p, logits = (part.new_zeros(len(batch), part.shape[1]).index_copy(0, rows, part) for part in parts)
        return p, logits.float()

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """L_uni, the mean loss of the towers that an utterance has (the `total`)."""
        labels, smoothing = batch.targets, self.config.label_smoothing
        columns = [self.shape.modalities.index(name) for name in self.names]
        costs = [losses.task_costs(output.unimodal[name], labels, self.shape.task, smoothing) for name in self.names]
        total = losses.unimodal(costs, batch.present[:, columns], batch.weights)
        return {"unimodal": total, "total": total}


class Unimodal(Towers):
    """What one modality says by itself. An utterance without it gets logits of zero and no weight."""

    Config = UnimodalConfig
    config: UnimodalConfig

    def __init__(self, shape: Shape, config: UnimodalConfig) -> None:
        name = config.modality or shape.modalities[0]
        if name not in shape.modalities or (not config.modality and len(shape.modalities) > 1):
            have = ", ".join(shape.modalities)
            raise ConfigError(f"model unimodal: modality = {config.modality!r}", hint=f"Choose one of: {have}")
        super().__init__(shape, config, (name,))

    def forward(self, batch: Batch) -> Output:
        """Predict a batch from one modality."""
        (name,) = self.names
        p, logits = self.tower(name, batch)
        chosen = torch.tensor([one == name for one in self.shape.modalities], device=batch.present.device)
        return Output(logits, {name: logits}, (batch.present & chosen).float(), {"fused": p})


class LateFusion(Towers):
    """The average over the present modalities of what each one says; nothing about the fusion is learned.

    Classes: the mean of the posteriors, p = mean_m softmax(logit_m), or their product p ~ prod_m softmax(logit_m)
    (Kittler et al., TPAMI 1998); the logits are ln p. Values: the mean.
    """

    Config = LateFusionConfig
    config: LateFusionConfig

    def __init__(self, shape: Shape, config: LateFusionConfig) -> None:
        super().__init__(shape, config, shape.modalities)

    def forward(self, batch: Batch) -> Output:
        """Predict a batch by the mean of the modalities' own predictions."""
        p, logits = (torch.stack(part, dim=1) for part in zip(*(self.tower(n, batch) for n in self.names), strict=True))
        weights = equal_shares(batch.present)
        unimodal = {name: logits[:, column] for column, name in enumerate(self.names)}
        fused = (weights.to(p.dtype).unsqueeze(-1) * p).sum(1)
        return Output(self._average(logits, batch.present), unimodal, weights, {"fused": fused})

    def _average(self, logits: Tensor, present: Tensor) -> Tensor:
        """(B, M, C) -> (B, C); zeros where nothing is present."""
        shares = equal_shares(present).unsqueeze(-1)
        if self.shape.task == "regression":
            return (shares * logits).sum(1)
        logs = logits.log_softmax(-1)
        if self.config.average == "product":
            return (logs * present.unsqueeze(-1)).sum(1)
        some = present.any(1, keepdim=True)
        return (shares * logs.exp()).sum(1).masked_fill(~some, 1.0).log()
