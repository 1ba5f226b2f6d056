"""MMIM: mutual information between modalities, and between them and their fusion (Han et al., EMNLP 2021)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from emopipe.models.configs import Chance, CountOrNone, Factor, Width
from emopipe.models.data.dataset import Batch
from emopipe.models.networks import losses
from emopipe.models.networks.comparison.common import (
    RecurrentSubnet,
    SubnetConfig,
    TextEncoderBaseline,
    TextEncoderConfig,
    equal_shares,
    need_modalities,
)
from emopipe.models.networks.model import Output, Shape

#: Added to the variances behind an entropy, so that it is finite for fewer samples than dimensions.
RIDGE: Final = 1e-3
#: Bounds of the logarithm of a predicted variance.
LOG_VARIANCE: Final = 8.0


@dataclass(frozen=True)
class MmimConfig(TextEncoderConfig):
    """Settings of MMIM. Published for MOSI: BERT for the text.

    Attributes:
        recurrent, unimodal_width: of the LSTMs of face and voice, and of what is made of their last states.
        width: of the fused vector Z.
        history: rows of earlier batches from which entropies are estimated, too.
        dropout: in front of every layer that makes a representation.
        label_smoothing: of the cross-entropy.
        alpha, beta: weights of L_CPC and L_BA.
    """

    recurrent: Width = 32
    unimodal_width: Width = 16
    width: Width = 64
    history: CountOrNone = 256
    dropout: Chance = 0.1
    label_smoothing: Chance = 0.0
    alpha: Factor = 0.1
    beta: Factor = 0.1


def entropy(y: Tensor, groups: Tensor) -> Tensor:
    """H(Y) of a mixture of Gaussians, one for each group, all of the same weight and without what is constant.

    H(Y) = 1 / (2 G) sum_g ln det Sigma_g, which is 1/4 [ln det Sigma_1 + ln det Sigma_2] for positive and negative
    labels; Sigma_g = mean(y y^T) - mean(y) mean(y)^T over the group. Groups of one sample are left out.

    Args:
        y: (N, K).
        groups: (N,) numbers.
    """
    determinants = []
    for group in set(groups.tolist()):
        members = y[groups == group]
        if len(members) < 2:
            continue
        centred = members - members.mean(0)
        covariance = centred.T @ centred / len(members)
        determinants.append(torch.linalg.slogdet(covariance + RIDGE * torch.eye(y.shape[1], device=y.device))[1])
    return torch.stack(determinants).mean() / 2 if determinants else y.sum() * 0.0


def contrast(z: Tensor, h: Tensor) -> Tensor:
    """L_N of a modality: -mean_i [ln s(h_i, Z_i) - ln sum_j s(h_j, Z_i)].

    s(h, Z) = exp(h G(Z)^T) with both scaled to length one.

    Args:
        z: (B, K) the prediction G(Z) of each utterance.
        h: (B, K) its representation.
    """
    scores = functional.normalize(z, dim=1) @ functional.normalize(h, dim=1).T
    return functional.cross_entropy(scores, torch.arange(len(h), device=h.device))


class Likelihood(nn.Module):
    """q(y | x) = N(y | mu(x), sigma^2(x) I), by two small networks."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mean = nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(), nn.Linear(outputs, outputs))
        self.log_variance = nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(), nn.Linear(outputs, outputs))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(B, inputs), (B, outputs) -> (B,) ln q(y | x)."""
        log_variance = self.log_variance(x).clamp(-LOG_VARIANCE, LOG_VARIANCE)
        squares = (y - self.mean(x)).square() / log_variance.exp()
        costs: Tensor = squares + log_variance + math.log(2 * math.pi)
        return -0.5 * costs.sum(1)

    def fixed(self, x: Tensor, y: Tensor) -> Tensor:
        """The same, its own weights taken as constants: they get no gradient."""
        weights = {name: parameter.detach() for name, parameter in self.named_parameters()}
        value: Tensor = functional_call(self, weights, (x, y))
        return value


class Mmim(TextEncoderBaseline):
    """The network. A learned vector stands in for an absent modality, which counts in no term.

    The first modality, the text, is x of the bounds and each other one is y. The paper's two stages, the likelihood
    first and then all else, are taken at once in every step: L_lld reaches nothing but q, and L_BA all but q, so that
    neither changes what the other learns.
    """

    Config = MmimConfig
    config: MmimConfig

    def __init__(self, shape: Shape, config: MmimConfig) -> None:
        need_modalities(shape, 2, "mmim")
        super().__init__(shape, config)
        names = shape.modalities
        widths = {name: self.dims[name] if name == "text" else config.unimodal_width for name in names}
        subnet = SubnetConfig(
            text_hidden=config.recurrent, text_width=config.unimodal_width, input_dropout=config.dropout
        )
        self.encoders = nn.ModuleDict(
            {name: RecurrentSubnet(dim, subnet) for name, dim in shape.dims.items() if name != "text"}
        )
        self.absent = nn.ParameterDict({name: nn.Parameter(torch.zeros(width)) for name, width in widths.items()})
        self.likelihoods = nn.ModuleDict({name: Likelihood(widths[names[0]], widths[name]) for name in names[1:]})
        self.dropout = nn.Dropout(config.dropout)
        self.first = nn.Linear(sum(widths.values()), config.width)
        self.second = nn.Linear(config.width, config.width)
        self.readout = nn.Linear(config.width, shape.outputs)
        self.predictors = nn.ModuleDict({name: nn.Linear(config.width, width) for name, width in widths.items()})
        self.history: dict[str, Tensor] = {}

    def forward(self, batch: Batch) -> Output:
        """Predict; `features` of the output holds `fused` Z and the representation of every modality."""
        vectors = {name: self._vector(name, batch) for name in self.shape.modalities}
        z = self.first(self.dropout(torch.cat(list(vectors.values()), dim=1))).tanh()
        fused = self.second(z).tanh()
        return Output(self.readout(fused).float(), {}, equal_shares(batch.present), {"fused": fused, **vectors})

    def _vector(self, name: str, batch: Batch) -> Tensor:
        h = self.summary(batch) if name == "text" else self.encoders[name](*self.steps(name, batch))
        column = self.shape.modalities.index(name)
        return torch.where(batch.present[:, column : column + 1], h, self.absent[name].to(h.dtype))

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """L = L_task + alpha L_CPC + beta L_BA, and L_lld for q alone.

        L_CPC sums :func:`contrast` over the modalities. L_BA = -sum_y [mean ln q(y | x) + H(Y)], and
        L_lld = -sum_y mean ln q(y | x), each over the utterances that have both.
        """
        features = {name: one.float() for name, one in output.features.items()}
        costs = losses.task_costs(output.logits, batch.targets, self.shape.task, self.config.label_smoothing)
        likelihood, bound = self._bounds(features, batch)
        terms = {
            "task": losses.mean(costs, batch.weights),
            "contrast": self._contrasts(features, batch),
            "bound": bound,
            "likelihood": likelihood,
        }
        parts = self.config.alpha * terms["contrast"] + self.config.beta * bound
        terms["total"] = terms["task"] + parts + likelihood
        return terms

    def _contrasts(self, features: Mapping[str, Tensor], batch: Batch) -> Tensor:
        total = batch.quality.new_zeros(())
        for column, name in enumerate(self.shape.modalities):
            rows = batch.present[:, column]
            if rows.any():
                total = total + contrast(self.predictors[name](features["fused"][rows]), features[name][rows])
        return total

    def _bounds(self, features: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """L_lld and L_BA."""
        likelihood, bound = batch.quality.new_zeros(()), batch.quality.new_zeros(())
        x, groups = features[self.shape.modalities[0]], self._groups(batch)
        for column, name in enumerate(self.shape.modalities[1:], start=1):
            rows, q = batch.present[:, 0] & batch.present[:, column], self.likelihoods[name]
            assert isinstance(q, Likelihood)
            if not rows.any():
                continue
            y = features[name][rows]
            likelihood = likelihood - q(x[rows].detach(), y.detach()).mean()
            bound = bound - q.fixed(x[rows], y).mean() - entropy(*self._remembered(name, y, groups[rows]))
        return likelihood, bound

    def _groups(self, batch: Batch) -> Tensor:
        """(B,) numbers of what the labels say: positive or not, or the classes."""
        if batch.labels is None:
            raise ValueError("the batch has no labels")
        return (batch.labels > 0).long() if self.shape.task == "regression" else batch.labels

    def _remembered(self, name: str, y: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Representations with those of earlier batches, and their groups; in training they are remembered in turn."""
        size, keys = self.config.history, (f"{name}.values", f"{name}.groups")
        old = [self.history[key].to(y.device) for key in keys if key in self.history]
        values, numbers = (torch.cat([old[0], y]), torch.cat([old[1], groups])) if old else (y, groups)
        if self.training and size:
            self.history[keys[0]], self.history[keys[1]] = values.detach()[-size:], numbers[-size:]
        return values, numbers

    def training_state(self) -> dict[str, Tensor]:
        """Representations of the last rows, for a training that goes on."""
        return dict(self.history)

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on with rows of :meth:`training_state`."""
        self.history = dict(state)
