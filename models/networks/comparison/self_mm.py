"""Self-MM: unimodal labels that training makes for itself (Yu et al., AAAI 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from emopipe.models.configs import Chance, Limit, Width
from emopipe.models.data.dataset import Batch
from emopipe.models.networks import losses
from emopipe.models.networks.comparison.common import (
    TextEncoderBaseline,
    TextEncoderConfig,
    equal_shares,
    last_step,
)
from emopipe.models.networks.losses import Task
from emopipe.models.networks.model import Output, Shape

EPSILON: Final = 1e-8


@dataclass(frozen=True)
class SelfMmConfig(TextEncoderConfig):
    """Settings of Self-MM. Published: BERT for the text, fused width 128, unimodal widths 16 and 32, LSTMs 16 to 64.

    Attributes:
        width, unimodal_width: of the fused and the unimodal representations.
        recurrent: width of the LSTMs of face and voice; of the text the state of BERT's first token is read, or the
            mean of its features over time where there is no BERT.
        dropout: in front of every representation.
        label_smoothing: of the fused cross-entropy.
        limit: generated values lie within +-limit; classes do not use it.
    """

    width: Width = 128
    unimodal_width: Width = 32
    recurrent: Width = 64
    dropout: Chance = 0.2
    label_smoothing: Chance = 0.0
    limit: Limit = 3.0


# ----------------------------------------------------------------------------------------------- the label generator


def centres(features: Tensor, members: Tensor) -> Tensor:
    """Mean feature of each group: (N, K), (N, G) bool -> (G, K); infinite for a group without members."""
    count = members.sum(0).unsqueeze(1)
    total = members.to(features.dtype).T @ features
    return torch.where(count > 0, total / count.clamp(min=1), torch.inf)


def relative_distance(features: Tensor, middle: Tensor, task: Task) -> Tensor:
    """delta: on which side of the group centres a feature lies.

    Values: (d(C-) - d(C+)) / (d(C+) + 1e-8), as published, with `middle` holding C+ and C-. Classes (ours): the share
    of each class in the inverse distances, (1 / d(C_c)) / sum_k (1 / d(C_k)).

    Args:
        features: (B, K).
        middle: (G, K), G = 2 for values and C for classes.

    Returns:
        (B, 1) or (B, C).
    """
    distance: Tensor = torch.linalg.vector_norm(features.unsqueeze(1) - middle, dim=2)
    if task == "regression":
        positive, negative = distance[:, :1], distance[:, 1:]
        return (negative - positive) / (positive + EPSILON)
    inverse = 1.0 / (distance + EPSILON)
    return inverse / inverse.sum(1, keepdim=True)


def proposed_labels(alone: Tensor, fused: Tensor, target: Tensor, task: Task, limit: float) -> Tensor:
    """0.5 (delta_s / (delta_M + 1e-8)) y_M + 0.5 (y_M + delta_s - delta_M), clipped to what a label may be.

    Args:
        alone, fused: delta_s and delta_M, (B, L).
        target: y_M, (B, 1) values or (B, C) one-hot.
        task: classes are clipped to [0, 1] and sum to one, values to +-limit.
    """
    ratio, shift = alone / (fused + EPSILON) * target, target + alone - fused
    mixed = 0.5 * ratio + 0.5 * shift
    if task == "regression":
        return mixed.clamp(-limit, limit)
    shares = mixed.clamp(0.0, 1.0)
    return shares / shares.sum(1, keepdim=True).clamp(min=EPSILON)


def moved_labels(old: Tensor, new: Tensor, epoch: Tensor) -> Tensor:
    """y_s at epoch n: (n - 1) / (n + 1) y_s + 2 / (n + 1) new; old and new (B, L), epoch (B,)."""
    n = epoch.to(old.dtype).unsqueeze(1)
    return (n - 1) / (n + 1) * old + 2 / (n + 1) * new


class Memory:
    """What is known of the N training utterances: their features when last seen, and their labels per modality.

    Attributes:
        tables: `epoch` (N,), how often each row was seen; `target` (N, L); `labels` (N, M, L); the representations
            `fused` (N, K) and `alone` (N, M, K'), and `seen` (N, M) bool, which of the latter there are.
    """

    def __init__(self, task: Task, limit: float) -> None:
        self.task: Task = task
        self.limit = limit
        self.tables: dict[str, Tensor] = {}

    def labels(self, rows: Tensor, target: Tensor, modalities: int) -> Tensor:
        """(B, M, L) labels of some rows; the multimodal one for rows not seen before."""
        fresh = target.unsqueeze(1).expand(-1, modalities, -1)
        if not self.tables:
            return fresh
        self._grow(int(rows.max()) + 1)
        remembered = self.tables["epoch"][rows] > 0
        return torch.where(remembered.view(-1, 1, 1), self.tables["labels"][rows], fresh)

    def learn(self, rows: Tensor, target: Tensor, fused: Tensor, alone: Tensor, present: Tensor) -> None:
        """Move the labels of rows that were seen before, then remember their representations.

        Args:
            rows: (B,).
            target: y_M, (B, L).
            fused, alone: (B, K) and (B, M, K').
            present: (B, M).
        """
        labels = self.labels(rows, target, alone.shape[1])
        parts = {"target": target, "labels": labels, "seen": present, "fused": fused, "alone": alone}
        if not self.tables:
            empty = {name: part.new_zeros(0, *part.shape[1:]) for name, part in parts.items()}
            self.tables = {"epoch": rows.new_zeros(0), **empty}
        self._grow(int(rows.max()) + 1)
        epoch = self.tables["epoch"][rows] + 1
        parts["labels"] = self._updated(labels, epoch, target, fused, alone, present)
        parts["seen"] = present | self.tables["seen"][rows]
        parts["alone"] = torch.where(present.unsqueeze(-1), alone, self.tables["alone"][rows])
        for name, part in {"epoch": epoch, **parts}.items():
            self.tables[name][rows] = part

    def _updated(
        self, labels: Tensor, epoch: Tensor, target: Tensor, fused: Tensor, alone: Tensor, present: Tensor
    ) -> Tensor:
        """(B, M, L) labels from the second epoch on, where the modality is there and its groups have centres."""
        members, seen = self._members(self.tables["target"]), self.tables["seen"]
        fused_distance = relative_distance(fused, centres(self.tables["fused"], members), self.task)
        moved = []
        for m in range(labels.shape[1]):
            middle = centres(self.tables["alone"][:, m], members & seen[:, m : m + 1])
            delta = relative_distance(alone[:, m], middle, self.task)
            new = proposed_labels(delta, fused_distance, target, self.task, self.limit)
            usable = (epoch > 1) & present[:, m] & torch.isfinite(new).all(1)
            new = torch.where(usable.unsqueeze(1), new, 0.0)
            moved.append(torch.where(usable.unsqueeze(1), moved_labels(labels[:, m], new, epoch), labels[:, m]))
        return torch.stack(moved, dim=1)

    def _members(self, target: Tensor) -> Tensor:
        """(N, G) bool: positive and negative values, or the classes."""
        return torch.cat([target > 0, target < 0], dim=1) if self.task == "regression" else target > 0.5

    def _grow(self, size: int) -> None:
        for name, table in self.tables.items():
            if len(table) < size:
                self.tables[name] = torch.cat([table, table.new_zeros(size - len(table), *table.shape[1:])])

    def to(self, device: torch.device) -> None:
        """Move the tables to a device."""
        self.tables = {name: table.to(device) for name, table in self.tables.items()}


# --------------------------------------------------------------------------------------------------------- the network


class Tail(nn.Module):
    """Dropout, linear, ReLU (the representation); linear, ReLU, linear (the prediction)."""

    def __init__(self, inputs: int, width: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.represent = nn.Linear(inputs, width)
        self.hidden = nn.Linear(width, width)
        self.readout = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, inputs) -> (B, width), (B, outputs)."""
        h = functional.relu(self.represent(self.dropout(x)))
        return h, self.readout(functional.relu(self.hidden(h)))


class SelfMm(TextEncoderBaseline):
    """The network. A learned vector stands in for an absent modality.

    In training, :meth:`loss` also moves the generated labels: each utterance is to be seen once per epoch.
    """

    Config = SelfMmConfig
    config: SelfMmConfig

    def __init__(self, shape: Shape, config: SelfMmConfig) -> None:
        super().__init__(shape, config)
        self.recurrent = nn.ModuleDict(
            {
                name: nn.LSTM(dim, config.recurrent, batch_first=True)
                for name, dim in shape.dims.items()
                if name != "text"
            }
        )
        widths = {name: dim if name == "text" else config.recurrent for name, dim in self.dims.items()}
        self.absent = nn.ParameterDict({name: nn.Parameter(torch.zeros(width)) for name, width in widths.items()})
        self.fused = Tail(sum(widths.values()), config.width, shape.outputs, config.dropout)
        self.alone = nn.ModuleDict(
            {name: Tail(width, config.unimodal_width, shape.outputs, config.dropout) for name, width in widths.items()}
        )
        self.memory = Memory(shape.task, config.limit)

    def forward(self, batch: Batch) -> Output:
        """Predict; `features` of the output holds fused (B, K) and alone (B, M, K')."""
        vectors = [self._vector(name, column, batch) for column, name in enumerate(self.shape.modalities)]
        fused, logits = self.fused(torch.cat(vectors, dim=1))
        tails = [self.alone[name](x) for name, x in zip(self.shape.modalities, vectors, strict=True)]
        unimodal = {
            name: prediction.float() for name, (_, prediction) in zip(self.shape.modalities, tails, strict=True)
        }
        features = {"fused": fused, "alone": torch.stack([h for h, _ in tails], dim=1)}
        return Output(logits.float(), unimodal, equal_shares(batch.present), features)

    def _vector(self, name: str, column: int, batch: Batch) -> Tensor:
        h = self.summary(batch) if name == "text" else self._last(name, batch)
        return torch.where(batch.present[:, column : column + 1], h, self.absent[name].to(h.dtype))

    def _last(self, name: str, batch: Batch) -> Tensor:
        x, lengths = self.steps(name, batch)
        return last_step(self.recurrent[name](x)[0], lengths)

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """L = L_M + sum_s mean(tanh|y_s - y_M| L_s); without generated labels (validation) L_M alone."""
        task, present = self.shape.task, batch.present
        costs = losses.task_costs(output.logits, batch.targets, task, self.config.label_smoothing)
        terms = {"task": losses.mean(costs, batch.weights)}
        if self.training and batch.rows is not None:
            target = self._target(batch)
            self.memory.to(target.device)
            labels = self.memory.labels(batch.rows, target, len(self.shape.modalities))
            terms["unimodal"] = self._unimodal(output, labels, target, batch)
            parts = [output.features[name].detach().float() for name in ("fused", "alone")]
            self.memory.learn(batch.rows, target, parts[0], parts[1], present)
        terms["total"] = sum(terms.values(), torch.zeros((), device=present.device))
        return terms

    def _target(self, batch: Batch) -> Tensor:
        """y_M as (B, 1) values, or (B, C) classes, one-hot or shares."""
        if self.shape.task == "regression":
            return batch.targets.unsqueeze(1)
        return functional.one_hot(batch.targets, self.shape.outputs).float() if batch.shares is None else batch.shares

    def _unimodal(self, output: Output, labels: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """Summed over the modalities: generated labels (B, M, L) weigh by how far they are from the given (B, L)."""
        total = torch.zeros((), device=target.device)
        for column, name in enumerate(self.shape.modalities):
            prediction, generated = output.unimodal[name], labels[:, column]
            if self.shape.task == "regression":
                costs = (prediction - generated).abs().squeeze(1)
            else:
                costs = functional.cross_entropy(prediction, generated, reduction="none")
            distance = (generated - target).abs().sum(1).tanh()
            total = total + losses.mean((distance * costs).masked_fill(~batch.present[:, column], 0.0), batch.weights)
        return total

    def training_state(self) -> dict[str, Tensor]:
        """The labels that were generated for each modality, for a training that goes on."""
        return dict(self.memory.tables)

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on with labels of :meth:`training_state`."""
        self.memory.tables = dict(state)
