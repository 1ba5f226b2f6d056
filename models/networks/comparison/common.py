"""Shared parts of the comparison models: clean inputs, subnets that make one vector of a modality, the task loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from emopipe.errors import ConfigError, DatasetError
from emopipe.models.configs import Chance, Count, Rank, Width
from emopipe.models.data.dataset import Batch, Dataset
from emopipe.models.networks import losses
from emopipe.models.networks.model import FusionModel, Output, Shape, Standardise
from emopipe.models.networks.text_encoder import TextEncoder, Tuning


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


@dataclass(frozen=True)
class TextEncoderConfig:
    """Settings of models whose papers tune BERT on the words.

    Attributes:
        text_encoder: BERT reads the dataset's token ids, as published; False: the text features are read as they are.
        text_weights: BERT's weights, read when training starts: a name of the weight catalogue, such as
            `bert-base-uncased`, or a folder in transformers' format. Random ones only where this says `random`.
        text_weights_path: where that lies on this machine; no checkpoint keeps it.
        text_tuning, lora_rank: see :class:`~emopipe.models.networks.text_encoder.TextEncoder`.
        bert: sizes of BERT that differ from the published ones.
    """

    text_encoder: bool = False
    text_weights: str = "bert-base-uncased"
    text_weights_path: str = ""
    text_tuning: Tuning = "full"
    lora_rank: Rank = 8
    bert: Mapping[str, Count] = field(default_factory=dict)


class TextEncoderBaseline(Baseline):
    """A comparison model that reads the text features or, with `text_encoder`, has BERT read the token ids.

    Attributes:
        dims: modality -> width of what :meth:`steps` gives of it.
    """

    config: TextEncoderConfig

    def __init__(self, shape: Shape, config: Any) -> None:
        super().__init__(shape, config)
        self.dims = dict(shape.dims)
        self.text: TextEncoder | None = None
        if config.text_encoder and "text" in shape.dims:
            self.text = TextEncoder(config.bert, config.text_tuning, config.lora_rank)
            self.dims["text"] = self.text.width
            self.standardise.pop("text")

    def fit_inputs(self, dataset: Dataset) -> None:
        """Learn mean and spread of every feature from the training rows, and read BERT's weights.

        Raises:
            ConfigError: the weights cannot be read.
            DatasetError: there are no token ids, or they are not of this BERT's vocabulary.
        """
        super().fit_inputs(dataset)
        if self.text is None:
            return
        if dataset.tokens is None:
            raise DatasetError("the dataset has no token ids", hint=NO_TOKENS)
        if dataset.tokens.values.max(initial=0) >= self.text.sizes["vocab_size"]:
            raise DatasetError(f"a token id is beyond the {self.text.sizes['vocab_size']} that BERT knows")
        self.text.read(self.config.text_weights, self.config.text_weights_path)

    def sealed(self) -> Any:
        """The configuration that a checkpoint of the model keeps: BERT's weights by name, not by path."""
        return replace(self.config, text_weights_path="")

    def steps(self, name: str, batch: Batch) -> tuple[Tensor, Tensor]:
        """Steps of a modality (B, T, D) and lengths (B,), all 0 past the end and where it is absent.

        Raises:
            DatasetError: BERT is part of the model and the batch has no token ids.
        """
        if name != "text" or self.text is None:
            return super().steps(name, batch)
        if batch.tokens is None:
            raise DatasetError("the text has no token ids", hint=NO_TOKENS)
        column = self.shape.modalities.index(name)
        lengths = batch.lengths[:, column].masked_fill(~batch.present[:, column], 0)
        rows, longest = lengths.nonzero().squeeze(1), max(1, int(lengths.max()) if len(lengths) else 0)
        full = batch.quality.new_zeros(len(batch), longest, self.dims[name])
        if len(rows) == 0:
            return full, lengths
        tokens = batch.tokens[rows, :longest]
        valid = valid_steps(tokens, lengths[rows])
        states = self.text(tokens.masked_fill(~valid, 0)).to(full.dtype)
        return full.index_copy(0, rows, states.masked_fill(~valid.unsqueeze(-1), 0.0)), lengths

    def summary(self, batch: Batch) -> Tensor:
        """(B, D) of the text: BERT's state of its first token, [CLS]; the mean of text features, which have none."""
        x, lengths = self.steps("text", batch)
        return mean_step(x, lengths) if self.text is None else x[:, 0]


NO_TOKENS: Final = "Use an MMSA file with text_bert, or set text_encoder = false to read the text features"


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


def with_stand_in(x: Tensor, lengths: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T, K) and lengths (B,) with one step (K,) in rows without any, and lengths of at least 1."""
    stand_in = functional.pad(step.to(x.dtype).unsqueeze(0), (0, 0, 0, x.shape[1] - 1))
    return torch.where((lengths == 0).view(-1, 1, 1), stand_in, x), lengths.clamp(min=1)


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
