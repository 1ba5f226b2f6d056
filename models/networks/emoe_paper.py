"""EMOE as its authors' code runs it (Fang et al., CVPR 2025), for data like MOSI's: the preset `emoe-paper`.

Where it differs from :mod:`emopipe.models.networks.emoe`: BERT is part of the model; sequences have fixed lengths,
padding and all; the router reads the raw features of all steps at once, and its first layer holds most of the weights;
convolutions do not pad; the last step is read out whether it is padding or not; distillation has the `paper` form.
Paper and code differ in places; the preset follows the code, because the published results come from it. What the
paper prints instead are options: `encoders = "separate"`, `router_input = "encoded"`, `router_norm = "batch"`,
`router_scale = "learned"`, `importance = "softmax"` and `similarity = "sum"`; the recipes `emoe-printed-*` have all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from emopipe.errors import ConfigError, DatasetError
from emopipe.models.configs import Chance, Count, Heads, Kernel, Layers, Rank, Width
from emopipe.models.data.dataset import Batch, Dataset
from emopipe.models.networks.emoe import Head, Mixture, MixtureConfig, choose, masked_softmax
from emopipe.models.networks.layers import Transformer
from emopipe.models.networks.losses import Distillation
from emopipe.models.networks.model import Output, Shape
from emopipe.models.networks.text_encoder import TextEncoder, Tuning

Side = Literal["start", "end"]
V = TypeVar("V")

#: The router's hidden layer is this many times narrower than its input.
SHRINK: Final = 8


@dataclass(frozen=True)
class EmoePaperConfig(MixtureConfig):
    """Settings of EMOE as published; the defaults are those published for MOSI, aligned.

    Options that take one value or modality -> value say so with "each".

    Attributes:
        steps: length of each modality's sequences; shorter ones are padded with zeros, longer ones end there. Where a
            length differs from the text's, a learned linear layer over time makes the router's sequences equally long.
        padding: side of each modality's padding.
        kernel: steps that each convolution sees; it makes sequences kernel - 1 shorter.
        attention_dropout: of each transformer.
        text_dropout: on the text features, but not on those the router sees.
        encoders: one 1x1 convolution `shared` by all modalities, as in the code, or `separate` ones, as in the paper.
        router_input: the router reads the `raw` features, as in the code, or the `encoded` ones, as in the paper.
        router_norm: its hidden layer is divided by its `l2` norm, as in the code, or normalised over the `batch`, as in
            the paper's equation 1.
        router_scale: `learned` multiplies the router's logits by a learned alpha_m of each modality, which begins at 1;
            equation 1 has such a factor and does not say what it is. `none` as in the code.
        text_encoder: BERT reads the dataset's token ids; False: the text features are read as they are.
        text_weights: BERT's weights, read when training starts: a name of the weight catalogue, such as
            `bert-base-uncased`, or a folder in transformers' format. Random ones only where this says `random`.
        text_weights_path: where that lies on this machine; no checkpoint keeps it.
        text_tuning, lora_rank: see :class:`~emopipe.models.networks.text_encoder.TextEncoder`.
        bert: sizes of BERT that differ from the published ones.
    """

    width: Width = 256
    layers: Layers = 4
    heads: Heads = 8
    embed_dropout: Chance = 0.2
    residual_dropout: Chance = 0.0
    output_dropout: Chance = 0.5
    distillation: Distillation = "paper"
    steps: Count | Mapping[str, Count] = 50
    padding: Side | Mapping[str, Side] = "end"
    kernel: Kernel | Mapping[str, Kernel] = 5
    attention_dropout: Chance | Mapping[str, Chance] = field(
        default_factory=lambda: {"text": 0.3, "face": 0.0, "voice": 0.2}
    )
    text_dropout: Chance = 0.5
    encoders: Literal["shared", "separate"] = "shared"
    router_input: Literal["raw", "encoded"] = "raw"
    router_norm: Literal["l2", "batch"] = "l2"
    router_scale: Literal["none", "learned"] = "none"
    text_encoder: bool = True
    text_weights: str = "bert-base-uncased"
    text_weights_path: str = ""
    text_tuning: Tuning = "full"
    lora_rank: Rank = 8
    bert: Mapping[str, Count] = field(default_factory=dict)


def each(value: V | Mapping[str, V], names: tuple[str, ...], what: str) -> dict[str, V]:
    """Spread an option over the modalities.

    Raises:
        ConfigError: the mapping lacks a modality.
    """
    if not isinstance(value, Mapping):
        return dict.fromkeys(names, value)
    missing = [name for name in names if name not in value]
    if missing:
        raise ConfigError(f"{what} is not given for {missing[0]}", hint=f"Give it for {', '.join(names)}")
    return {name: value[name] for name in names}


def lay_out(x: Tensor, lengths: Tensor, steps: int, side: Side) -> Tensor:
    """(B, T, D) sequences of (B,) lengths, padded at the end -> (B, steps, D), zeros on the given side.

    What is behind a length does not count, whatever it holds; of longer sequences the first steps are kept.
    """
    kept_steps = lengths.clamp(max=steps).unsqueeze(1)
    source = torch.arange(steps, device=x.device) - (steps - kept_steps if side == "start" else 0)
    valid = (source >= 0) & (source < kept_steps)
    rows = torch.arange(len(x), device=x.device).unsqueeze(1)
    return x[rows, source.clamp(0, x.shape[1] - 1)].masked_fill(~valid.unsqueeze(-1), 0)


class FlatRouter(nn.Module):
    """w = softmax(W2 ReLU(z / |z|) / t) with z = W1 x, x all features of all steps; see `masked_softmax`.

    As printed: w = softmax(alpha * (W2 ReLU(BN(z))) / t), BN over the batch, alpha one factor for each modality.

    Args:
        dims, steps: width and length of each modality's sequences; the first length is the common one.
        temperature: t.
        batch_norm: normalise z over the batch rather than divide it by its norm.
        scaled: multiply the logits by alpha.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        steps: Mapping[str, int],
        temperature: float,
        *,
        batch_norm: bool = False,
        scaled: bool = False,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        common = next(iter(steps.values()))
        self.time = nn.ModuleDict({name: nn.Linear(long, common) for name, long in steps.items() if long != common})
        inputs = common * sum(dims.values())
        self.hidden = nn.Linear(inputs, max(1, inputs // SHRINK))
        self.gate = nn.Linear(self.hidden.out_features, len(dims))
        self.norm = nn.BatchNorm1d(self.hidden.out_features) if batch_norm else None
        self.scale = nn.Parameter(torch.ones(len(dims))) if scaled else None

    def forward(self, features: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Modality -> (B, T, D), zeros where absent, and present (B, M) -> weights (B, M) float32."""
        equal = [self._align(name, x) for name, x in features.items()]
        z = self.hidden(torch.cat(equal, dim=2).flatten(1))
        logits = choose(z, self.gate) if self.norm is None else self.gate(functional.relu(self._normalise(z)))
        logits = logits if self.scale is None else self.scale * logits
        return masked_softmax(logits.float() / self.temperature, present)

    def _normalise(self, z: Tensor) -> Tensor:
        """Batch norm; of a batch of one, which has no spread, by what was seen before."""
        assert self.norm is not None
        if self.training and len(z) == 1:
            norm = self.norm
            return functional.batch_norm(z, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        normal: Tensor = self.norm(z)
        return normal

    def _align(self, name: str, x: Tensor) -> Tensor:
        return self.time[name](x.transpose(1, 2)).transpose(1, 2) if name in self.time else x


class PaperBranch(nn.Module):
    """One modality from features to one vector: convolve (unless as wide as needed), encode, transform, predict."""

    def __init__(self, dim: int, outputs: int, kernel: int, attention_dropout: float, config: EmoePaperConfig) -> None:
        super().__init__()
        wide = dim == config.width
        self.convolution = nn.Identity() if wide else nn.Conv1d(dim, config.width, kernel, bias=False)
        self.transformer = Transformer(
            config.width,
            config.layers,
            config.heads,
            skip_zeros=True,
            embed_dropout=config.embed_dropout,
            attention_dropout=attention_dropout,
            relu_dropout=config.relu_dropout,
            residual_dropout=config.residual_dropout,
        )
        self.head = Head(config.width, outputs, config.output_dropout)

    def encode(self, x: Tensor, encoder: nn.Module) -> Tensor:
        """(B, T, D) -> the low-level features (B, T', width)."""
        encoded: Tensor = encoder(self.convolution(x.transpose(1, 2)))
        return encoded.transpose(1, 2)

    def forward(self, encoded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T', width) -> f' and p, both (B, width), and logits (B, C)."""
        f = self.transformer(encoded)[:, -1]
        p, logits = self.head(f)
        return f, p, logits


class EmoePaper(Mixture):
    """The published network.

    Published figures need every modality. Where one is absent all the same, zeros take its place, its share is 0 and
    its branch counts in no loss.
    """

    Config = EmoePaperConfig
    config: EmoePaperConfig

    def __init__(self, shape: Shape, config: EmoePaperConfig) -> None:
        super().__init__(shape, config)
        names = shape.modalities
        self.steps = each(config.steps, names, "steps")
        self.padding: dict[str, Side] = each(config.padding, names, "padding")
        kernels = each(config.kernel, names, "kernel")
        dropouts = each(config.attention_dropout, names, "attention_dropout")
        for name in names:
            if not 1 <= kernels[name] <= self.steps[name]:
                raise ConfigError(f"kernel {kernels[name]} does not fit into the {self.steps[name]} steps of {name}")
        self.text: TextEncoder | None = None
        self.dims = dict(shape.dims)
        if config.text_encoder and "text" in names:
            self.text = TextEncoder(config.bert, config.text_tuning, config.lora_rank)
            self.dims["text"] = self.text.width
        self.text_dropout = nn.Dropout(config.text_dropout)
        self.router = self._router(kernels)
        self.encoders = nn.ModuleDict({name: self._encoder() for name in self._encoder_names()})
        self.branches = nn.ModuleDict(
            {
                name: PaperBranch(dim, shape.outputs, kernels[name], dropouts[name], config)
                for name, dim in self.dims.items()
            }
        )
        self.head = self.fused_head()

    def _router(self, kernels: Mapping[str, int]) -> FlatRouter:
        config, dims, steps = self.config, self.dims, self.steps
        if config.router_input == "encoded":
            steps = {name: steps[name] - (0 if dims[name] == config.width else kernels[name] - 1) for name in dims}
            dims = dict.fromkeys(dims, config.width)
        batch_norm, scaled = config.router_norm == "batch", config.router_scale == "learned"
        return FlatRouter(dims, steps, config.temperature, batch_norm=batch_norm, scaled=scaled)

    def _encoder(self) -> nn.Module:
        return nn.Conv1d(self.config.width, self.config.width, 1, bias=False)

    def _encoder_names(self) -> tuple[str, ...]:
        return ("shared",) if self.config.encoders == "shared" else self.shape.modalities

    def fit_inputs(self, dataset: Dataset) -> None:
        """Read BERT's weights, and see that the dataset is one this model can be trained on.

        Raises:
            ConfigError: the weights are not named or cannot be read, or `steps` or `padding` are not those of the
                dataset's file.
            DatasetError: there are no token ids, or they are not of this BERT's vocabulary.
        """
        for name in self.shape.modalities:
            extraction = dataset.extraction.get(name)
            for option, value in (("steps", self.steps[name]), ("padding", self.padding[name])):
                if isinstance(extraction, Mapping) and extraction.get(option, value) != value:
                    raise ConfigError(
                        f"{option} of {name} is {value!r}, but {extraction[option]!r} in the file",
                        hint=f"Give [model.{option}] for each of {', '.join(self.shape.modalities)}",
                    )
        if self.text is None:
            return
        if dataset.tokens is None:
            raise DatasetError("the dataset has no token ids", hint=_NO_TOKENS)
        if dataset.tokens.values.max(initial=0) >= self.text.sizes["vocab_size"]:
            raise DatasetError(f"a token id is beyond the {self.text.sizes['vocab_size']} that BERT knows")
        self.text.read(self.config.text_weights, self.config.text_weights_path)

    def sealed(self) -> EmoePaperConfig:
        """The configuration that a checkpoint of the model keeps: BERT's weights by name, not by path."""
        return replace(self.config, text_weights_path="")

    def forward(self, batch: Batch) -> Output:
        """Predict; `features` of the output holds f and p (B, M, width), fused and fused_head (B, K).

        Raises:
            DatasetError: BERT is part of the model and the batch has no token ids.
        """
        raw = {name: self._sequences(name, column, batch) for column, name in enumerate(self.shape.modalities)}
        encoded = {name: self._encode(name, x) for name, x in raw.items()}
        absent = ~batch.present.unsqueeze(-1)
        weights = self.router(raw if self.config.router_input == "raw" else encoded, batch.present)
        columns = [self.branches[name](x) for name, x in encoded.items()]
        f, p, logits = (torch.stack(parts, dim=1).masked_fill(absent, 0.0) for parts in zip(*columns, strict=True))
        return self.fuse(f, p, logits, weights, batch.present)

    def _encode(self, name: str, x: Tensor) -> Tensor:
        branch = self.branches[name]
        assert isinstance(branch, PaperBranch)
        encoder = self.encoders["shared" if self.config.encoders == "shared" else name]
        return branch.encode(self.text_dropout(x) if name == "text" else x, encoder)

    def _sequences(self, name: str, column: int, batch: Batch) -> Tensor:
        """(B, T, D) of one modality, zeros where it is absent."""
        steps, side = self.steps[name], self.padding[name]
        rows = batch.present[:, column].nonzero().squeeze(1)
        full = batch.quality.new_zeros(len(batch), steps, self.dims[name])
        if len(rows) == 0:
            return full
        lengths = batch.lengths[rows, column]
        if name != "text" or self.text is None:
            return full.index_copy(0, rows, lay_out(batch.features[name][rows].nan_to_num(), lengths, steps, side))
        if batch.tokens is None:
            raise DatasetError("the text has no token ids", hint=_NO_TOKENS)
        ids = lay_out(batch.tokens[rows].unsqueeze(2), lengths, steps, side).squeeze(2)
        return full.index_copy(0, rows, self.text(ids).to(full.dtype))


_NO_TOKENS: Final = "Use an MMSA file with text_bert, or set text_encoder = false to read the text features"
