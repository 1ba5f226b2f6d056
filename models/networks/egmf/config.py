"""Settings of EGMF: its configuration dataclass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from emopipe.errors import ConfigError
from emopipe.models.configs import Chance, Count, Factor, Heads, Layers

Question = Literal["auto", "emotion", "sentiment", "intent", "class"]
Gating = Literal["two-stage", "first", "second", "uniform"]
#: The number of an expert: 1 of width d/8, 2 of d/4, 3 of d/2.
Expert = Annotated[int, Interval(ge=1, le=3)]
#: A value that may be predicted.
Value = Annotated[float, Interval(ge=-1_000_000, le=1_000_000)]


@dataclass(frozen=True)
class EgmfConfig:
    """Settings of EGMF; published values where there are any (LoRA of rank 8 and alpha 16, the experts' widths).

    Attributes:
        backbone: name of the causal language model.
        backbone_path: where that lies on this machine, a folder in transformers' format or the hub id of one that the
            hub's cache holds; empty: `backbone` is itself one of these. No checkpoint keeps it.
        backbone_sha256: of its weights; empty accepts any, and a checkpoint keeps what it was trained with.
        dtype: of its weights; `auto` is bfloat16 where there is CUDA and float32 elsewhere.
        gradient_checkpointing: compute the backbone's activations twice rather than keep them.
        cuda_graphs: train the backbone by CUDA graphs, which suits small ones, whose kernels take longer to start than
            to run; nothing changes without CUDA, or with gradient_checkpointing.
        lora_rank, lora_alpha, lora_dropout: of the low-rank changes (Hu et al. 2022); rank 0 leaves the backbone as it
            is.
        lora_layers: change only so many of the last layers, so that gradients of the text need not go further down; 0
            for all.
        lora_targets: names of the layers to change, all of which the backbone must have; empty for the attention's
            projections, as its family names them.
        freeze_lora: leave LoRA as the training's `start` brings it and train the adapter alone, so that words alone are
            read as before.
        language: of the prompts; `auto` is that of most of the words of the training rows.
        question: what the classes are called in the question; `auto` tells it from the label's column and the classes.
        task_prompt: what is asked, instead of the sentence that the language brings; `{classes}`, or `{low}` and
            `{high}`, stand for what may be answered.
        context: the most lines said before in the same conversation that the prompt shows.
        echo: show the words a second time before the question, so that what stands for them has seen all of them
            (Springer et al. 2024).
        text_tokens: of the words, and of each line of context, that are read.
        objective: classes are learned by cross-entropy over the allowed `labels`, or as `language`: over the whole
            vocabulary, as values always are and as published.
        label_smoothing: of the cross-entropy over labels.
        value_range: least and largest value; empty for the whole numbers that enclose the labels of the training.
        decimals: of the values that the model learns to say.
        width: d_h of everything before the language model; a multiple of 8, and of `heads`.
        heads: of the cross-attention.
        input_dropout: on whole feature channels of a standardised face or voice; one number, or modality -> number.
        dropout: inside the encoder and on f.
        pseudo_tokens: K.
        pseudo: token k is p itself, as published (`repeat`), or s_k p + b_k (`affine`).
        gate: the paper's `two-stage` gate, or for ablations its `first` or `second` stage alone, or `uniform` weights.
        closed_experts: numbers of experts that are left out, for ablations.
        entropy: weight of the gate's negative entropy; above 0 it keeps the gate from closing experts.
    """

    backbone: str = "smollm2-135m"
    backbone_path: str = ""
    backbone_sha256: str = ""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    gradient_checkpointing: bool = False
    cuda_graphs: bool = False
    lora_rank: Annotated[int, Interval(ge=0, le=4096)] = 8
    lora_alpha: Count = 16
    lora_dropout: Chance = 0.05
    lora_layers: Layers = 0
    lora_targets: tuple[str, ...] = ()
    freeze_lora: bool = False
    language: Literal["auto", "en", "zh"] = "auto"
    question: Question = "auto"
    task_prompt: str = ""
    context: Annotated[int, Interval(ge=0, le=10_000)] = 0
    echo: bool = False
    text_tokens: Count = 96
    objective: Literal["labels", "language"] = "labels"
    label_smoothing: Chance = 0.0
    value_range: tuple[Value, ...] = ()
    decimals: Annotated[int, Interval(ge=0, le=10)] = 1
    width: Annotated[int, Interval(ge=8, le=65_536)] = 256
    heads: Heads = 4
    input_dropout: Chance | Mapping[str, Chance] = 0.0
    dropout: Chance = 0.1
    pseudo_tokens: Annotated[int, Interval(ge=1, le=1000)] = 4
    pseudo: Literal["repeat", "affine"] = "repeat"
    gate: Gating = "two-stage"
    closed_experts: tuple[Expert, ...] = ()
    entropy: Factor = 0.0

    def __post_init__(self) -> None:
        if self.width % 8 or self.width % self.heads:
            raise ConfigError(f"width {self.width} is not a multiple of 8 and of {self.heads} heads")
        if self.value_range and (len(self.value_range) != 2 or self.value_range[0] >= self.value_range[1]):
            raise ConfigError(f"value_range {self.value_range} is not a least and a largest value")
