"""What EGMF can be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from emopipe.errors import ConfigError


@dataclass(frozen=True)
class EgmfConfig:
    """How it is built; published values where there are any (LoRA of rank 8 and alpha 16, the experts' widths).

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
        lora_targets: names of the layers to change; empty for the attention's projections.
        freeze_lora: leave LoRA as the training's `start` brings it and train the adapter alone, so that words alone are
            read as before.
        language: of the prompts.
        task_prompt: what is asked, instead of the sentence that the language brings; `{classes}`, or `{low}` and
            `{high}`, stand for what may be answered.
        context: the most lines said before in the same conversation that the prompt shows.
        echo: show the words a second time before the question, so that what stands for them has seen all of them
            (Springer et al. 2024).
        text_tokens: of the words, and of each line of context, that are read.
        objective: classes are learned by cross-entropy over the allowed `labels`, or as `language`: over the whole
            vocabulary, as values always are and as published.
        label_smoothing: of the cross-entropy over labels.
        value_range: least and largest value.
        decimals: of the values that the model learns to say.
        width: d_h of everything before the language model; a multiple of 8, and of `heads`.
        heads: of the cross-attention.
        input_dropout: on whole feature channels of a standardised face or voice; one number, or modality -> number.
        dropout: inside the encoder and on f.
        pseudo_tokens: K.
        pseudo: token k is p itself, as published (`repeat`), or s_k p + b_k (`affine`).
        entropy: weight of the gate's negative entropy; above 0 it keeps the gate from closing experts.
    """

    backbone: str = "smollm2-135m"
    backbone_path: str = ""
    backbone_sha256: str = ""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    gradient_checkpointing: bool = False
    cuda_graphs: bool = False
    lora_rank: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.05
    lora_layers: int = 0
    lora_targets: tuple[str, ...] = ()
    freeze_lora: bool = False
    language: Literal["en", "zh"] = "en"
    task_prompt: str = ""
    context: int = 0
    echo: bool = False
    text_tokens: int = 96
    objective: Literal["labels", "language"] = "labels"
    label_smoothing: float = 0.0
    value_range: tuple[float, ...] = (-3.0, 3.0)
    decimals: int = 1
    width: int = 256
    heads: int = 4
    input_dropout: float | Mapping[str, float] = 0.0
    dropout: float = 0.1
    pseudo_tokens: int = 4
    pseudo: Literal["repeat", "affine"] = "repeat"
    entropy: float = 0.0

    def __post_init__(self) -> None:
        if self.width < 8 or self.width % 8 or self.width % self.heads:
            raise ConfigError(f"width {self.width} is not a multiple of 8 and of {self.heads} heads")
        if len(self.value_range) != 2 or self.value_range[0] >= self.value_range[1]:
            raise ConfigError(f"value_range {self.value_range} is not a least and a largest value")
        if min(self.lora_rank, self.lora_layers, self.context, self.decimals) < 0:
            raise ConfigError("lora_rank, lora_layers, context and decimals are at least 0")
        if self.pseudo_tokens < 1 or self.text_tokens < 1:
            raise ConfigError("pseudo_tokens and text_tokens are at least 1")
