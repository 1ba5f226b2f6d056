"""EMOE: modality-specific transformers whose outputs a router mixes per utterance (Fang et al., CVPR 2025).

Written from the paper's equations. Two things are ours: missing modalities (a router that renormalises over what is
there and never reads what is not) and classes beside values.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Final, Literal

import torch
from annotated_types import Interval, MinLen
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from emopipe.errors import ConfigError, DatasetError
from emopipe.models.configs import (
    Chance,
    Factor,
    Heads,
    Kernel,
    Layers,
    Members,
    Rank,
    Share,
    Tokens,
    Width,
    check_kernel,
    check_width,
    of_modality,
)
from emopipe.models.data.dataset import Batch, Dataset, Floats
from emopipe.models.networks import losses
from emopipe.models.networks.inheritance import Inheritance, columns_of, rows_of
from emopipe.models.networks.layers import Transformer
from emopipe.models.networks.linear import LINEAR_SHARE, Linear, LinearConfig, mean_features
from emopipe.models.networks.losses import Distillation, Importance, Similarity, Task
from emopipe.models.networks.model import FusionModel, Output, Shape, Standardise, mean_answer, mean_output
from emopipe.models.networks.relative_expert import RelativeExpert
from emopipe.models.networks.variation import Variation
from emopipe.models.networks.words import Tuning, WordsEncoder, chosen

#: What is read relative to the speaker where that is wanted: not words, whose mean is what was talked about.
RELATIVE: Final = ("face", "voice")
#: Where the share of the answer relative to the speaker goes by how far the speaker varies, neither answer has less.
LEAST_SHARE: Final = 0.25


@dataclass(frozen=True)
class MixtureConfig:
    """Settings of all forms of EMOE.

    Attributes:
        width: channels of everything behind the convolutions; even, divisible by `heads`.
        layers, heads: of each modality's transformer.
        fusion: `sum` or `concat` of the weighted modality features.
        routing: `learned`, or `uniform` to give every present modality the same weight (the paper's ablation of MoME).
        temperature: t; a smaller one makes the router's choice harder.
        embed_dropout, relu_dropout, residual_dropout: inside the transformers.
        output_dropout: inside the heads.
        label_smoothing: of the cross-entropies.
        unimodal: weight of L_uni.
        lambda1, entropy, alpha: weight of the router losses entropy L_ent + alpha L_sim; published with entropy = 1.
        lambda2, distillation: weight and form of L_ud.
        importance: form of I, the paper's equation 5: the `inverse` errors' shares, as in the published code, or their
            `softmax`, as printed.
        similarity: form of L_sim, equation 6: the `mean` over the modalities, as in the code, or the `sum`, as printed.
    """

    width: Width = 96
    layers: Layers = 2
    heads: Heads = 4
    fusion: Literal["sum", "concat"] = "sum"
    routing: Literal["learned", "uniform"] = "learned"
    temperature: Annotated[float, Interval(ge=0.001, le=1000)] = 0.1
    embed_dropout: Chance = 0.1
    relu_dropout: Chance = 0.0
    residual_dropout: Chance = 0.1
    output_dropout: Chance = 0.3
    label_smoothing: Chance = 0.0
    unimodal: Factor = 1.0
    lambda1: Factor = 0.1
    entropy: Factor = 1.0
    alpha: Factor = 0.1
    lambda2: Factor = 0.1
    distillation: Distillation = "kl"
    importance: Importance = "inverse"
    similarity: Similarity = "mean"

    def __post_init__(self) -> None:
        check_width(self.width, self.heads)


@dataclass(frozen=True)
class EmoeConfig(MixtureConfig):
    """Settings of our EMOE.

    Attributes:
        kernel: steps that a convolution sees, odd; one number, or modality -> number. 1 sees each step alone;
            the paper's convolutions are temporal, as those of `emoe-paper`, which see 5.
        readout: the `last` valid step of the causal transformer, as published, or the `mean` of the valid steps.
        router_width: hidden width of the router.
        router_posteriors: let the router also see what each modality predicts by itself, how surely, and how well it
            agrees with the others. A modality that contradicts the others shows most plainly there.
        quality_prior: add ln(quality) of each modality to the router's logits.
        input_dropout: on whole feature channels of the standardised input; one number, or modality -> number: one with
            few recordings and many features wants more.
        attention_dropout: inside the transformers.
        relative: read face and voice relative to the speaker's other utterances, where these are known: the speaker's
            mean takes the place of that of the training rows. In training it is withheld from some of the rows, so
            that lone clips are learned, too.
        withheld: the share of these training rows.
        relative_share: how much the answer relative to the speaker counts beside the answer to the features as they
            are, where both can be given. Below 1 it also serves people who show the same emotion all the time, whose
            mean hides it; `varied` is from 0.25 to 0.75 by how surely the speaker shows several, which is told by how
            much the utterances differ, see :class:`~emopipe.models.networks.variation.Variation`.
        relative_linear: modalities, of those that are read relative to the speaker, of which a linear model fitted
            after the last epoch also says what it makes of that; where the modality is alone, the answer relative to
            the speaker is the mean of both. See :class:`~emopipe.models.networks.relative_expert.RelativeExpert`.
        linear: after the last epoch also fit the regularised linear models of mean features, see
            :class:`~emopipe.models.networks.linear.Linear`; the answer is the mean of both. With few recordings that is
            better than either.
        backbone: name of a pretrained text encoder that reads the words, in the place of the text's features; empty
            for none.
        backbone_path: where that lies on this machine, a folder in transformers' format or the hub id of one that the
            hub's cache holds; empty: `backbone` is itself one of these. No checkpoint keeps it.
        backbone_sha256: of its weights; empty accepts any, and a checkpoint keeps what it was trained with.
        backbone_tuning, lora_rank: see :class:`~emopipe.models.networks.words.WordsEncoder`.
        text_tokens: of the words that the backbone reads.
        members: networks that begin with other random weights and are trained side by side; the answer is the mean of
            theirs, see :class:`~emopipe.models.networks.ensemble.Ensemble`.
        views: modality -> regular expressions, one for each network in turn: it reads the features alone whose whole
            names match, and a lone network those of the first. Networks that read different features err differently.
    """

    kernel: Kernel | Mapping[str, Kernel] = 1
    readout: Literal["last", "mean"] = "last"
    router_width: Width = 64
    router_posteriors: bool = True
    quality_prior: bool = False
    input_dropout: Chance | Mapping[str, Chance] = 0.1
    attention_dropout: Chance = 0.0
    relative: bool = False
    withheld: Chance = 0.2
    relative_share: Share | Literal["varied"] = 1.0
    relative_linear: tuple[Literal["face", "voice"], ...] = ()
    linear: bool = False
    backbone: str = ""
    backbone_path: str = ""
    backbone_sha256: str = ""
    backbone_tuning: Tuning = "lora"
    lora_rank: Rank = 8
    text_tokens: Tokens = 64
    members: Members = 1
    views: Mapping[str, Annotated[list[str], MinLen(1)]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kernel(self.kernel)
        for pattern in (one for patterns in self.views.values() for one in patterns):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(f"views: {pattern!r} is not a regular expression: {error}") from error


class Head(nn.Module):
    """p = f + W2 dropout(ReLU(W1 f)), logits = W p: a residual MLP and its linear read-out."""

    def __init__(self, width: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(width, outputs)

    def forward(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """(B, width) -> head features (B, width) and logits (B, outputs)."""
        p = f + self.second(self.dropout(functional.relu(self.first(f))))
        return p, self.readout(p)


class Router(nn.Module):
    """w = softmax((W2 ReLU(z / |z|) + e v) / t) with z = W1 [blocks; presence bits], over the present modalities only.

    One block per modality describes it; a learned vector takes its place where the modality is absent. Its last
    `evidence` entries also reach its own logit directly, by weights v that all modalities share. The softmax runs in
    float32; an absent modality gets exactly 0 and passes no gradient.
    """

    def __init__(self, blocks: int, block: int, evidence: int, width: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.evidence = nn.Parameter(torch.zeros(evidence))
        self.absent = nn.Parameter(torch.zeros(blocks, block))
        self.hidden = nn.Linear(blocks * (block + 1), width)
        self.gate = nn.Linear(width, blocks)

    def forward(self, blocks: Tensor, present: Tensor, prior: Tensor | None = None) -> Tensor:
        """Blocks (B, M, K), present (B, M) and an optional (B, M) added to the logits -> weights (B, M) float32."""
        filled = torch.where(present.unsqueeze(-1), blocks, self.absent)
        z = self.hidden(torch.cat([filled.flatten(1), present], dim=1))
        direct = blocks[..., blocks.shape[2] - len(self.evidence) :] @ self.evidence
        logits = (choose(z, self.gate) + direct).float() / self.temperature
        return masked_softmax(logits if prior is None else logits + prior, present)


def choose(z: Tensor, gate: nn.Linear) -> Tensor:
    """Router logits W2 ReLU(z / |z|): (B, K) -> (B, M)."""
    logits: Tensor = gate(functional.relu(functional.normalize(z, dim=1)))
    return logits


def masked_softmax(logits: Tensor, present: Tensor) -> Tensor:
    """(B, M) softmax over the present entries; exactly 0 elsewhere, and all 0 in a row with none present."""
    some = present.any(1, keepdim=True)
    safe = logits.masked_fill(~present & some, -torch.inf)
    return safe.softmax(1).masked_fill(~present, 0.0)


def pooled_statistics(x: Tensor, valid: Tensor) -> Tensor:
    """(B, T, K) with (B, T) bool -> (B, 2K): mean and deviation over the valid steps."""
    weight = valid.unsqueeze(-1)
    count = weight.sum(1).clamp(min=1)
    mean = (x * weight).sum(1) / count
    variance = ((x - mean.unsqueeze(1)).square() * weight).sum(1) / count
    return torch.cat([mean, (variance + 1e-6).sqrt()], dim=1)


class Branch(nn.Module):
    """One modality from raw features to one vector: standardise, convolve, encode, transform, read out, predict."""

    def __init__(self, modality: str, dim: int, outputs: int, config: EmoeConfig) -> None:
        super().__init__()
        kernel = of_modality(config.kernel, modality)
        self.readout = config.readout
        self.views = config.views.get(modality, [])
        self.words = WordsEncoder(config) if modality == "text" and config.backbone else None
        dim = dim if self.words is None else self.words.width
        self.standardise = Standardise(dim)
        self.dropout = nn.Dropout1d(of_modality(config.input_dropout, modality))
        self.convolution = nn.Conv1d(dim, config.width, kernel, padding=kernel // 2, bias=False)
        self.transformer = Transformer(
            config.width,
            config.layers,
            config.heads,
            embed_dropout=config.embed_dropout,
            attention_dropout=config.attention_dropout,
            relu_dropout=config.relu_dropout,
            residual_dropout=config.residual_dropout,
        )
        self.head = Head(config.width, outputs, config.output_dropout)

    def fit(self, modality: str, dataset: Dataset, number: int = 0) -> None:
        """Standardise the features that the network with this number reads; a backbone's vectors are taken as they are.

        Raises:
            ConfigError: it reads none, DatasetError: there is a backbone and nothing for it to read.
        """
        if self.words is None:
            self.standardise.fit(torch.from_numpy(dataset.steps(modality)))
            if self.views:
                self.standardise.keep(_viewed(self.views[number % len(self.views)], modality, dataset))
        elif not any(dataset.transcript.words(name) for name in dataset.ids):
            raise DatasetError("the dataset has no words", hint="A backbone reads the manifest's column `words`")

    def embed(
        self, x: Tensor, lengths: Tensor, encoder: nn.Module, words: Sequence[str], usual: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, T, D) features, or B texts -> encoded steps (B, T, width) and which of them are valid (B, T).

        `usual` (B, D) is what is usual for each speaker, NaN where it is not known.
        """
        if self.words is not None:
            x, lengths = self.words(words)
        elif usual is not None:
            x = x + (self.standardise.mean - usual).nan_to_num(nan=0.0).unsqueeze(1)
        valid = torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1)
        x = self.standardise(x).masked_fill_(~valid.unsqueeze(-1), 0.0)
        channels = self.dropout(x.transpose(1, 2))
        encoded = encoder(self.convolution(channels)).transpose(1, 2)
        return encoded.masked_fill(~valid.unsqueeze(-1), 0.0), valid

    def read(self, encoded: Tensor, valid: Tensor) -> Tensor:
        """Encoded steps -> f' (B, width)."""
        steps: Tensor = self.transformer(encoded)
        if self.readout == "mean":
            weight = valid.unsqueeze(-1)
            return (steps * weight).sum(1) / weight.sum(1).clamp(min=1)
        last = (valid.sum(1) - 1).clamp(min=0)
        return steps[torch.arange(len(steps), device=steps.device), last]


def _viewed(pattern: str, modality: str, dataset: Dataset) -> Tensor:
    """Which features of a modality have names that match (D,)."""
    names = dataset.schema[modality]
    seen = torch.tensor([re.fullmatch(pattern, name) is not None for name in names])
    if not seen.any():
        hint = f"They are called {names[0]} to {names[-1]}"
        raise ConfigError(f"views: the name of no feature of {modality} matches {pattern!r}", hint=hint)
    return seen


class Mixture(FusionModel):
    """What all forms of EMOE share: weighted fusion of modality features, the fused head, and the losses."""

    config: MixtureConfig
    head: Head

    def fused_head(self) -> Head:
        """A new head for the fused features."""
        width = self.config.width * (1 if self.config.fusion == "sum" else len(self.shape.modalities))
        return Head(width, self.shape.outputs, self.config.output_dropout)

    def fuse(self, f: Tensor, p: Tensor, logits: Tensor, weights: Tensor, present: Tensor) -> Output:
        """Mix and predict.

        Args:
            f, p: (B, M, width) features of each modality and of its head.
            logits: (B, M, C) of its head.
            weights: (B, M) of the router.
            present: (B, M).
        """
        if self.config.routing == "uniform":
            weights = present / present.sum(1, keepdim=True).clamp(min=1)
        fused = self._mix(weights.unsqueeze(-1) * f, present)
        fused_head, fused_logits = self.head(fused)
        unimodal = {name: logits[:, column].float() for column, name in enumerate(self.shape.modalities)}
        features = {"f": f, "p": p, "fused": fused, "fused_head": fused_head}
        return Output(fused_logits.float(), unimodal, weights, features)

    def _mix(self, weighted: Tensor, present: Tensor) -> Tensor:
        """Weighted features (B, M, width) -> fused (B, K); `concat` is scaled by the number present, as published."""
        if self.config.fusion == "sum":
            return weighted.sum(1)
        return weighted.flatten(1) * present.sum(1, keepdim=True)

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """All terms by name and their `total`; see :mod:`emopipe.models.networks.losses`."""
        config, task, labels, present = self.config, self.shape.task, batch.targets, batch.present
        each = [output.unimodal[name] for name in self.shape.modalities]
        fused_costs = losses.task_costs(output.logits, labels, task, config.label_smoothing)
        costs = [losses.task_costs(logits, labels, task, config.label_smoothing) for logits in each]
        errors = torch.stack([losses.importance_costs(logits, labels, task) for logits in each], dim=1)
        target = losses.importance(errors, present, config.importance)
        terms = {
            "task": losses.mean(fused_costs, batch.weights),
            "unimodal": losses.unimodal(costs, present, batch.weights),
            "entropy": losses.entropy(output.weights, present),
            "similarity": losses.similarity(output.weights, target, present, config.similarity),
            "distillation": self._distil(output, each),
        }
        router = config.entropy * terms["entropy"] + config.alpha * terms["similarity"]
        total = terms["task"] + config.unimodal * terms["unimodal"]
        terms["total"] = total + config.lambda1 * router + config.lambda2 * terms["distillation"]
        return terms

    def _distil(self, output: Output, each: list[Tensor]) -> Tensor:
        """L_ud: on class logits for `kl`, otherwise on the heads' features."""
        weights = output.weights.unsqueeze(-1)
        if self.config.distillation == "kl" and self.shape.task == "classification":
            student, teacher = output.logits, (weights * torch.stack(each, dim=1)).sum(1)
        else:
            student, shares = output.features["fused_head"].float(), weights * output.features["p"]
            teacher = shares.sum(1) if self.config.fusion == "sum" else shares.flatten(1)
        return losses.distillation(student, teacher, self.config.distillation)


class Emoe(Mixture):
    """The network. Rows without a modality never enter that modality's branch, so its content cannot matter."""

    Config = EmoeConfig
    config: EmoeConfig
    learns_other_classes: ClassVar[bool] = True
    linear_share: Tensor

    def __init__(self, shape: Shape, config: EmoeConfig) -> None:
        super().__init__(shape, config)
        width, count = config.width, len(shape.modalities)
        self.encoder = nn.Conv1d(width, width, 1, bias=False)
        self.branches = nn.ModuleDict(
            {name: Branch(name, dim, shape.outputs, config) for name, dim in shape.dims.items()}
        )
        direct = _EVIDENCE[shape.task] if config.router_posteriors else 0
        block = 2 * width + (shape.outputs + direct if config.router_posteriors else 0)
        self.router = Router(count, block, direct, config.router_width, config.temperature)
        self.head = self.fused_head()
        if config.linear:
            self.linear = Linear(shape, LinearConfig(relative=config.relative)).requires_grad_(False)
            self.register_buffer("linear_share", torch.zeros(()))
        if config.relative and config.relative_share == "varied":
            self.variation = nn.ModuleDict({name: Variation(shape.dims[name]) for name in self._relative_modalities})
        self.linear_relative = nn.ModuleDict(
            {
                name: RelativeExpert(shape.dims[name], shape.outputs, shape.task).requires_grad_(False)
                for name in self._relative_modalities
                if name in config.relative_linear
            }
        )

    def fit_inputs(self, dataset: Dataset) -> None:
        """Learn mean and spread of every feature from the training rows."""
        for name in self.shape.modalities:
            branch = self.branches[name]
            assert isinstance(branch, Branch)
            branch.fit(name, dataset, self.number)

    def solve(
        self,
        dataset: Dataset,
        targets: NDArray[Any],
        weights: Floats,
        folds: int,
        seed: int,
        shares: Floats | None = None,
    ) -> dict[str, Any]:
        """Fit the linear models, and what tells how far a speaker varies, if there are to be any."""
        chosen: dict[str, Any] = {}
        if self.config.linear:
            chosen |= self.linear.solve(dataset, targets, weights, folds, seed, shares)
            self.linear_share.fill_(LINEAR_SHARE)
        if hasattr(self, "variation") and self.shape.task == "classification":
            for name, one in self.variation.items():
                assert isinstance(one, Variation)
                chosen[f"{name}_variation"] = one.fit(name, dataset, targets, seed)
        for name, expert in self.linear_relative.items():
            assert isinstance(expert, RelativeExpert)
            chosen[f"{name}_relative_linear"] = expert.fit(name, dataset, targets, weights, folds, seed, shares)
        return chosen

    def sealed(self) -> EmoeConfig:
        """The configuration that a checkpoint of the model keeps."""
        return sealed(self.config, self)

    @property
    def relative(self) -> bool:
        """Whether it reads the means of the speakers' other utterances."""
        return self.config.relative

    @property
    def _relative_modalities(self) -> list[str]:
        """What is read relative to the speaker."""
        return [name for name in self.shape.modalities if self.config.relative and name in RELATIVE]

    def inherit(self, start: FusionModel) -> Inheritance:
        """Take over branches and router; of the read-outs the rows of classes that both know.

        Raises:
            ConfigError: it is another model, or one of other options.
        """
        if not isinstance(start, Emoe) or _fixed(start.config) != _fixed(self.config):
            raise ConfigError(
                "the checkpoint to start from is another model, or one with other options",
                hint="Train the same model with the same options",
            )
        mine, theirs = (
            {name: value for name, value in one.state_dict().items() if not name.startswith("linear")}
            for one in (self, start)
        )
        both_have = {name: value for name, value in theirs.items() if name in mine}
        weights = {name: value for name, value in both_have.items() if mine[name].shape == value.shape}
        for name in filter(_is_partial, both_have):
            weights[name] = self._inherited(name, mine[name], both_have[name], start)
        both = tuple(one for one in self.shape.classes if one in start.shape.classes)
        anew = tuple(one for one in self.shape.classes or ("values",) if one not in start.shape.classes)
        anew = () if self.shape.task == start.shape.task == "regression" else anew
        partly = set() if self.shape == start.shape else {name for name in weights if _is_partial(name)}
        modalities = tuple(one for one in self.shape.modalities if one in start.shape.modalities)
        return Inheritance(weights, frozenset(weights.keys() - partly), both, anew, modalities)

    def _inherited(self, name: str, own: Tensor, other: Tensor, start: Emoe) -> Tensor:
        """A tensor of the router or a read-out, with what another model's says of the same modalities and classes."""
        mine, theirs = (one.shape.modalities for one in (self, start))
        if ".readout." in name:
            labels = [one.shape.classes or ("value",) for one in (self, start)]
            fits = own.shape[1:] == other.shape[1:]  # not so for the concatenation of other modalities
            return rows_of(own, other, *labels) if fits else own
        if name == "router.evidence":
            return rows_of(own, other, *(_evidence_labels(one) for one in (self, start)))
        if name == "router.hidden.weight":
            return columns_of(own, other, *(_router_labels(one) for one in (self, start)))
        if name == "router.absent":
            wide = rows_of(own.new_zeros(len(mine), other.shape[1]), other, mine, theirs)
            return columns_of(own, wide, *(_block_labels(one) for one in (self, start)))
        return rows_of(own, other, mine, theirs)

    def forward(self, batch: Batch) -> Output:
        """Predict; `features` of the output holds f and p (B, M, width), fused and fused_head (B, K).

        In evaluation an utterance with a single modality is answered by that modality's own head: there is nothing to
        fuse, and what the modality says by itself and what the model says are the same.
        """
        if self.training:
            return self._network(batch)
        output = self._with_relative_linear(self._network(batch), batch)
        if self.config.relative and self.config.relative_share != 1 and batch.speaker_means:
            output = self._with_plain(self._network(replace(batch, speaker_means={})), output, batch)
        return self._with_linear(output, batch) if self.config.linear else output

    def _with_plain(self, plain: Output, relative: Output, batch: Batch) -> Output:
        """The mean of the answers to features as they are and relative to the speaker.

        What a modality says alone does not depend on the others, nor how much of it is relative to the speaker.
        """
        task, names = self.shape.task, self._relative_modalities
        alone = {
            name: mean_answer(plain.unimodal[name], relative.unimodal[name], self._relative_share(batch, [name]), task)
            for name in names
        }
        together = mean_output(plain, relative, self._relative_share(batch, names), task)
        return replace(together, unimodal=together.unimodal | alone)

    def _relative_share(self, batch: Batch, names: Sequence[str]) -> Tensor:
        """How much the answer relative to the speaker counts (B, 1) in what some modalities say.

        Where it goes by how far the speaker varies, it is between LEAST_SHARE and 1 - LEAST_SHARE by the mean of what
        those of them tell of that, which are there.
        """
        share = self.config.relative_share
        if share != "varied":
            return batch.quality.new_full((len(batch), 1), share)
        told = batch.quality.new_full((len(batch), 1), torch.nan)
        for name, one in self.variation.items():
            if name in names and name in batch.speaker_variances:
                there = batch.present[:, self.shape.modalities.index(name), None]
                varies = one(batch.speaker_variances[name]).unsqueeze(1)
                told = torch.cat([told, torch.where(there, varies, torch.nan)], 1)
        return LEAST_SHARE + (1 - 2 * LEAST_SHARE) * told.nanmean(1, keepdim=True).nan_to_num(nan=0.5)

    def _network(self, batch: Batch) -> Output:
        """What the network answers; in evaluation that of its head where an utterance has a single modality."""
        present = batch.present
        columns = [self._branch(name, column, batch) for column, name in enumerate(self.shape.modalities)]
        f, p, logits, pooled = (torch.stack(parts, dim=1) for parts in zip(*columns, strict=True))
        prior = batch.quality.log() if self.config.quality_prior else None
        weights = self.router(self._router_blocks(pooled, logits, present), present, prior)
        output = self.fuse(f, p, logits, weights, present)
        if self.training:
            return output
        single = present.sum(1, keepdim=True) == 1
        return replace(output, logits=torch.where(single, logits.sum(1), output.logits))

    def _with_linear(self, output: Output, batch: Batch) -> Output:
        """The mean of what the network and the linear models answer, together and by each modality alone."""
        linear, share, task = self.linear(batch), self.linear_share, self.shape.task
        unimodal = {name: mean_answer(one, linear.unimodal[name], share, task) for name, one in output.unimodal.items()}
        return replace(output, logits=mean_answer(output.logits, linear.logits, share, task), unimodal=unimodal)

    def _with_relative_linear(self, output: Output, batch: Batch) -> Output:
        """With what linear models say of features relative to the speaker, of modalities alone."""
        unimodal, logits = dict(output.unimodal), output.logits
        for name, expert in self.linear_relative.items():
            usual = batch.speaker_means.get(name)
            if usual is None:
                continue
            column = self.shape.modalities.index(name)
            known = (batch.present[:, column] & torch.isfinite(usual).any(1)).unsqueeze(1)
            said = expert(mean_features(batch, name, column) - usual, unimodal[name])
            unimodal[name] = torch.where(known, said, unimodal[name])
            alone = known & (batch.present.sum(1, keepdim=True) == 1)
            logits = torch.where(alone, said, logits)
        return replace(output, logits=logits, unimodal=unimodal)

    def _branch(self, name: str, column: int, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """f', p, logits and pooled statistics of one modality, each (B, ...) with zeros where it is absent."""
        branch = self.branches[name]
        assert isinstance(branch, Branch)
        rows = batch.present[:, column].nonzero().squeeze(1)
        lengths = batch.lengths[rows, column]
        if len(rows) == 0:
            widths = (self.config.width, self.config.width, self.shape.outputs, 2 * self.config.width)
            f, p, logits, pooled = (batch.quality.new_zeros(len(batch), width) for width in widths)
            return f, p, logits, pooled
        x = batch.features[name][rows, : int(lengths.max())]
        usual = self._usual(name, batch, rows)
        encoded, valid = branch.embed(x, lengths, self.encoder, chosen(batch.words, rows), usual)
        f = branch.read(encoded, valid)
        p, logits = branch.head(f)
        parts = [f, p, logits, pooled_statistics(encoded, valid)]
        full = [part.new_zeros(len(batch), part.shape[1]).index_copy(0, rows, part) for part in parts]
        return full[0], full[1], full[2], full[3]

    def _usual(self, name: str, batch: Batch, rows: Tensor) -> Tensor | None:
        """What is usual for the speakers of some rows (R, D), NaN where it is not known or, in training, withheld."""
        if not self.config.relative or name not in RELATIVE or name not in batch.speaker_means:
            return None
        usual = batch.speaker_means[name][rows]
        if not self.training:
            return usual
        withheld = torch.rand(len(rows), 1, device=usual.device) < self.config.withheld
        return usual.masked_fill(withheld, torch.nan)

    def _router_blocks(self, pooled: Tensor, logits: Tensor, present: Tensor) -> Tensor:
        """(B, M, K) what the router is told of each modality."""
        if not self.config.router_posteriors:
            return pooled
        logits = logits.detach()
        predictions = logits.softmax(-1) if self.shape.task == "classification" else logits
        return torch.cat([pooled, predictions, evidence(predictions, present, self.shape.task)], dim=2)


def _evidence_labels(model: Emoe) -> list[str]:
    """What each entry of :func:`evidence` says."""
    if not model.config.router_posteriors:
        return []
    return ["agreement"] if model.shape.task == "regression" else ["surety", "agreement"]


def _block_labels(model: Emoe) -> list[tuple[str, Hashable]]:
    """What each entry of a router's block of a modality is."""
    pooled: list[tuple[str, Hashable]] = [("pooled", index) for index in range(2 * model.config.width)]
    if not model.config.router_posteriors:
        return pooled
    classes = [("class", name) for name in model.shape.classes or ("value",)]
    return [*pooled, *classes, *(("evidence", name) for name in _evidence_labels(model))]


def _router_labels(model: Emoe) -> list[tuple[str, Hashable]]:
    """What each input of the router is: a block of every modality, and whether each is there."""
    blocks = [(name, label) for name in model.shape.modalities for label in _block_labels(model)]
    return [*blocks, *((name, "present") for name in model.shape.modalities)]


def _is_partial(name: str) -> bool:
    """Whether a tensor has entries for classes or modalities, and so may be taken over in part."""
    return ".readout." in name or (name.startswith("router.") and name != "router.hidden.bias")


def _fixed(config: EmoeConfig) -> EmoeConfig:
    """What two models must agree on for the weights of one to fit the other."""
    return EmoeConfig(
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        kernel=config.kernel,
        router_width=config.router_width,
        router_posteriors=config.router_posteriors,
        backbone=config.backbone,
        backbone_tuning=config.backbone_tuning,
        lora_rank=config.lora_rank,
    )


def evidence(predictions: Tensor, present: Tensor, task: Task) -> Tensor:
    """What each modality's own prediction tells about its worth.

    Args:
        predictions: (B, M, C) class probabilities, or (B, M, 1) values.
        present: (B, M).
        task: which of the two.

    Returns:
        (B, M, E): how well it agrees with the other present modalities, as the mean inner product of probabilities or
        minus the mean distance of values (0 when alone); for classes also how sure it is, the sum of its squares.
    """
    apart = task == "regression"
    pairs = -(predictions - predictions.transpose(1, 2)).abs() if apart else predictions @ predictions.transpose(1, 2)
    others = present.unsqueeze(1) & ~torch.eye(present.shape[1], dtype=torch.bool, device=present.device)
    agreement = pairs.masked_fill(~others, 0.0).sum(2, keepdim=True) / others.sum(2, keepdim=True).clamp(min=1)
    return agreement if apart else torch.cat([predictions.square().sum(2, keepdim=True), agreement], dim=2)


#: E of :func:`evidence`.
_EVIDENCE: Final[dict[Task, int]] = {"classification": 2, "regression": 1}


def sealed(config: EmoeConfig, model: nn.Module) -> EmoeConfig:
    """The configuration that a checkpoint keeps: which backbone it needs, not where that lay."""
    sha256 = next((part.sha256 for part in model.modules() if isinstance(part, WordsEncoder)), None)
    return config if sha256 is None else replace(config, backbone_path="", backbone_sha256=sha256)
