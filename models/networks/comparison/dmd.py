"""DMD: what modalities share and what is their own, each distilled along a learned graph (Li et al., CVPR 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from emopipe.models.configs import Chance, Factor, Heads, Kernel, Layers, Width, check_kernel, check_width
from emopipe.models.data.dataset import Batch
from emopipe.models.networks import losses
from emopipe.models.networks.comparison.common import (
    TextEncoderBaseline,
    TextEncoderConfig,
    equal_shares,
    last_step,
    mean_step,
    need_modalities,
    valid_steps,
    with_stand_in,
)
from emopipe.models.networks.comparison.mult import CrossTransformer, MultConfig, cross_mask
from emopipe.models.networks.emoe import Head
from emopipe.models.networks.layers import Transformer
from emopipe.models.networks.model import Output, Shape


@dataclass(frozen=True)
class DmdConfig(TextEncoderConfig):
    """Settings of DMD. Published for MOSI: BERT for the text, width 50, 10 heads.

    Attributes:
        width: d, channels of a modality; even, divisible by `heads`.
        heads: of all transformers.
        layers, memory_layers: of the cross-modal transformers, and of those that read their outputs.
        kernel: steps that the input convolutions see, odd.
        input_dropout: on whole feature channels of the input.
        dropout: inside the transformers.
        output_dropout: inside the heads.
        label_smoothing: of the cross-entropies.
        lambda1, gamma: weights of L_dec, and within it of L_mar + L_ort.
        lambda2: weight of L_dtl.
        margin: alpha of L_mar.
    """

    width: Width = 48
    heads: Heads = 4
    layers: Layers = 2
    memory_layers: Layers = 2
    kernel: Kernel = 1
    input_dropout: Chance = 0.1
    dropout: Chance = 0.1
    output_dropout: Chance = 0.3
    label_smoothing: Chance = 0.0
    lambda1: Factor = 0.1
    lambda2: Factor = 0.05
    gamma: Factor = 0.1
    margin: Factor = 0.2

    def __post_init__(self) -> None:
        check_width(self.width, self.heads)
        check_kernel(self.kernel)


def margin_loss(shared: Tensor, groups: Tensor, present: Tensor, margin: float) -> Tensor:
    """L_mar: what is shared is closer across modalities of a class than within a modality across classes.

    Mean over the triples of max(0, margin - cos(x_i, x_j) + cos(x_i, x_k)), where j is of another modality and the same
    class as i, and k is of the same modality and another class.

    Args:
        shared: (B, M, K).
        groups: (B,) numbers of classes.
        present: (B, M).
        margin: alpha.
    """
    rows, columns = present.nonzero(as_tuple=True)
    x, classes = functional.normalize(shared[rows, columns], dim=1), groups[rows]
    cosines = x @ x.T
    same_class, same_modality = classes.unsqueeze(1) == classes, columns.unsqueeze(1) == columns
    excess = [
        functional.relu(
            margin - cosines[i, same_class[i] & ~same_modality[i]].unsqueeze(1) + cosines[i, others]
        ).ravel()
        for i, others in enumerate(~same_class & same_modality)
    ]
    triples = torch.cat(excess) if excess else cosines.new_zeros(0)
    return triples.mean() if len(triples) else shared.sum() * 0.0


class GraphDistillation(nn.Module):
    """A graph distillation unit: modalities are vertices, and edges say from which one another learns.

    - Vertices: logits f(X_i), a linear map that they share.
    - w_{i->j} = g([[f(X_i), X_i], [f(X_j), X_j]]), g a linear map; a softmax over the sources i of each j.
    - e_{i->j} = |f(X_i) - f(X_j)|, the mean over the outputs. Only j learns from it; i is its teacher.
    - L_dtl = || W * E ||_1: summed over the edges, and the mean over the batch.
    """

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.predict = nn.Linear(width, outputs)
        self.edge = nn.Linear(2 * (width + outputs), 1)

    def weights(self, x: Tensor, logits: Tensor, present: Tensor) -> Tensor:
        """(B, M, K), (B, M, C), (B, M) -> (B, M sources, M targets), 0 without an edge."""
        vertices, count = torch.cat([logits, x], dim=2), x.shape[1]
        sources, targets = (
            vertices.unsqueeze(2).expand(-1, -1, count, -1),
            vertices.unsqueeze(1).expand(-1, count, -1, -1),
        )
        scores = self.edge(torch.cat([sources, targets], dim=3)).squeeze(3).float()
        edges = present.unsqueeze(2) & present.unsqueeze(1) & ~torch.eye(count, dtype=torch.bool, device=x.device)
        some = edges.any(1, keepdim=True)
        shares: Tensor = scores.masked_fill(~edges & some, -torch.inf).softmax(1)
        return shares.masked_fill(~edges, 0.0)

    def forward(self, x: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """(B, M, K) and present (B, M) -> logits (B, M, C) and L_dtl."""
        logits = self.predict(x).float()
        gaps = (logits.detach().unsqueeze(2) - logits.unsqueeze(1)).abs().mean(3)
        return logits, (self.weights(x, logits, present) * gaps).sum((1, 2)).mean()


class Dmd(TextEncoderBaseline):
    """The network. One learned step stands in for an absent modality, which counts in no loss."""

    Config = DmdConfig
    config: DmdConfig

    def __init__(self, shape: Shape, config: DmdConfig) -> None:
        need_modalities(shape, 2, "dmd")
        super().__init__(shape, config)
        names, width, count = shape.modalities, config.width, len(shape.modalities)
        self.dropout = nn.Dropout1d(config.input_dropout)
        self.convolutions = nn.ModuleDict(
            {
                name: nn.Conv1d(dim, width, config.kernel, padding=config.kernel // 2, bias=False)
                for name, dim in self.dims.items()
            }
        )
        self.absent = nn.ParameterDict({name: nn.Parameter(torch.zeros(width)) for name in names})
        self.shared = nn.Linear(width, width, bias=False)
        self.private = nn.ModuleDict({name: nn.Linear(width, width, bias=False) for name in names})
        self.decoders = nn.ModuleDict({name: nn.Linear(2 * width, width, bias=False) for name in names})
        dropouts = dict.fromkeys(("embed_dropout", "attention_dropout", "residual_dropout"), config.dropout)
        cross = MultConfig(width, config.heads, config.layers, **dropouts)  # type: ignore[arg-type]
        self.cross = nn.ModuleDict(
            {f"{target}_{source}": CrossTransformer(cross) for target in names for source in names if target != source}
        )
        wide = (count - 1) * width
        self.memory = nn.ModuleDict(
            {
                name: Transformer(wide, config.memory_layers, config.heads, **dropouts)  # type: ignore[arg-type]
                for name in names
            }
        )
        self.homogeneous = GraphDistillation(width, shape.outputs)
        self.heterogeneous = GraphDistillation(wide, shape.outputs)
        self.head = Head(count * (width + wide), shape.outputs, config.output_dropout)

    def forward(self, batch: Batch) -> Output:
        """Predict; `features` holds shared (B, M, d), private (B, M, (M - 1) d), fused, and the terms of the loss.

        Steps X~ of each modality are convolved features; X^com = E^com(X~) with an encoder that all share, and
        X^prt = E_m^prt(X~). Shared parts are averaged over time. Private parts read those of all others by
        cross-attention, as in MulT. The prediction is made of all of them side by side.
        """
        names = self.shape.modalities
        steps = {name: self._convolved(name, batch) for name in names}
        shared = {name: self.shared(x) for name, (x, _) in steps.items()}
        private = {name: (self.private[name](x), lengths) for name, (x, lengths) in steps.items()}
        decoupling = [self._decoupling(name, steps[name], shared[name], private[name][0], batch) for name in names]
        pooled = torch.stack([mean_step(shared[name], steps[name][1]) for name in names], dim=1)
        read = torch.stack([self._read(name, private) for name in names], dim=1)
        fused, logits = self.head(torch.cat([pooled.flatten(1), read.flatten(1)], dim=1))
        vertices, distilled = zip(
            self.homogeneous(pooled, batch.present), self.heterogeneous(read, batch.present), strict=True
        )
        terms = torch.stack([torch.stack(parts).sum() for parts in zip(*decoupling, strict=True)])
        features = {
            "fused": fused,
            "shared": pooled,
            "private": read,
            "vertices": torch.cat(vertices, dim=1),
            "decoupling": terms,
            "distillation": torch.stack(distilled).sum(),
        }
        return Output(logits.float(), {}, equal_shares(batch.present), features)

    def _convolved(self, name: str, batch: Batch) -> tuple[Tensor, Tensor]:
        """X~ (B, T, d) and lengths (B,) of at least 1."""
        x, lengths = self.steps(name, batch)
        encoded = self.convolutions[name](self.dropout(x.transpose(1, 2))).transpose(1, 2)
        encoded = encoded.masked_fill(~valid_steps(x, lengths).unsqueeze(-1), 0.0)  # encoders without bias keep zeros
        return with_stand_in(encoded, lengths, self.absent[name])

    def _decoupling(
        self, name: str, steps: tuple[Tensor, Tensor], shared: Tensor, private: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor, Tensor]:
        """L_rec, L_cyc and L_ort of a modality: means over the valid steps of the utterances that have it.

        - L_rec = |X~ - D_m([X^com, X^prt])|^2
        - L_cyc = |X^prt - E_m^prt(D_m([X^com, X^prt]))|^2
        - L_ort = cos(X^com, X^prt)
        """
        x, lengths = steps
        there = batch.present[:, self.shape.modalities.index(name)]
        valid = valid_steps(x, lengths) & there.unsqueeze(1)
        if not valid.any():
            zero = x.new_zeros(())
            return zero, zero, zero
        x, shared, private = (one[valid].float() for one in (x, shared, private))
        rebuilt = self.decoders[name](torch.cat([shared, private], dim=1))
        cycled = self.private[name](rebuilt)
        cosine = functional.cosine_similarity(shared, private, dim=1).mean()
        return functional.mse_loss(rebuilt, x), functional.mse_loss(cycled, private), cosine

    def _read(self, target: str, private: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
        """(B, (M - 1) d): the private part of a modality with what it read from all others, at its last step."""
        x, lengths = private[target]
        parts = []
        for source, (memory, others) in private.items():
            if source != target:
                mask = cross_mask(lengths, others, x.shape[1], memory.shape[1])
                parts.append(self.cross[f"{target}_{source}"](x, memory, mask))
        return last_step(self.memory[target](torch.cat(parts, dim=2)), lengths)

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """L = L_task + lambda1 L_dec + lambda2 L_dtl, where L_dec = L_rec + L_cyc + gamma (L_mar + L_ort).

        L_task is the cost of the fused prediction and, as only logits that know the task are worth learning from, the
        mean cost of the logits of each graph's vertices.
        """
        config, f = self.config, output.features
        rec, cyc, ort = f["decoupling"].unbind()
        costs = losses.task_costs(output.logits, batch.targets, self.shape.task, config.label_smoothing)
        terms = {
            "task": losses.mean(costs, batch.weights),
            "vertices": self._vertex_costs(f["vertices"].unbind(1), batch),
            "reconstruction": rec,
            "cycle": cyc,
            "margin": margin_loss(f["shared"].float(), self._groups(batch), batch.present, config.margin),
            "orthogonality": ort,
            "distillation": f["distillation"],
        }
        decoupling = rec + cyc + config.gamma * (terms["margin"] + ort)
        task = terms["task"] + terms["vertices"]
        terms["total"] = task + config.lambda1 * decoupling + config.lambda2 * terms["distillation"]
        return terms

    def _vertex_costs(self, logits: Sequence[Tensor], batch: Batch) -> Tensor:
        """Summed over the two graphs: the mean over the present modalities."""
        task, smoothing, count = self.shape.task, self.config.label_smoothing, len(self.shape.modalities)
        costs = [losses.task_costs(one, batch.targets, task, smoothing) for one in logits]
        graphs = (costs[:count], costs[count:])
        return sum((losses.unimodal(one, batch.present, batch.weights) for one in graphs), batch.quality.new_zeros(()))

    def _groups(self, batch: Batch) -> Tensor:
        """(B,) classes; values count as one class where they round to the same whole number."""
        if batch.labels is None:
            raise ValueError("the batch has no labels")
        return batch.labels.round().long() if self.shape.task == "regression" else batch.labels
