"""BERT inside a model: token ids in, one vector per token out, tuned wholly, through LoRA, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from emopipe.errors import ConfigError

Tuning = Literal["full", "lora", "frozen"]

#: What `text_weights` says where BERT is to begin with random ones.
RANDOM: Final = "random"
#: What may be said of BERT's size, and its published size (Devlin et al. 2019, base, uncased).
SIZES: Final[dict[str, int]] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
}


class TextEncoder(nn.Module):
    """BERT with random weights until :meth:`load`.

    Args:
        sizes: those of :data:`SIZES` that differ.
        tuning: train `full`y, by low-rank changes of the attention's queries and values (`lora`, Hu et al. 2022), or
            `frozen`, which also keeps its dropout off.
        rank: of the changes; they are scaled by 2.

    Raises:
        ConfigError: a size that BERT does not have or cannot have.
    """

    def __init__(self, sizes: Mapping[str, int], tuning: Tuning = "full", rank: int = 8) -> None:
        from transformers import BertConfig, BertModel

        super().__init__()
        unknown = sorted(sizes.keys() - SIZES)
        if unknown:
            raise ConfigError(f"BERT has no size {unknown[0]!r}", hint=f"Choose among: {', '.join(SIZES)}")
        self.sizes: dict[str, Any] = {**SIZES, **sizes}
        self.tuning = tuning
        try:
            self.bert: nn.Module = BertModel(BertConfig(**self.sizes))
        except ValueError as error:
            raise ConfigError(f"BERT cannot have these sizes: {error}") from error
        if tuning == "lora":
            self._add_lora(rank)
        if tuning == "frozen":
            self.bert.requires_grad_(False)

    def _add_lora(self, rank: int) -> None:
        from peft import LoraConfig, inject_adapter_in_model

        changes = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["query", "value"], lora_dropout=0.05)
        inject_adapter_in_model(changes, self.bert)

    @property
    def width(self) -> int:
        """Size of its token embeddings."""
        return int(self.sizes["hidden_size"])

    def train(self, mode: bool = True) -> TextEncoder:
        """Change to training or evaluation; a frozen encoder stays in evaluation."""
        super().train(mode)
        if self.tuning == "frozen":
            self.bert.eval()
        return self

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T) token ids, 0 for padding -> (B, T, width), padding included; attention does not see padding."""
        states: Tensor = self.bert(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state
        return states

    def read(self, name: str, path: str) -> None:
        """Take the weights that a configuration names.

        Args:
            name: of the catalogue's weights, or a folder; `random` keeps random ones.
            path: where named weights lie on this machine.

        Raises:
            ConfigError: no weights are named, or they cannot be read.
        """
        if not name:
            hint = 'Set [model] text_weights to "bert-base-uncased", a folder of one, or "random"'
            raise ConfigError("the weights of BERT are not named", hint=hint)
        if name != RANDOM:
            self.load(path or name)

    def load(self, path: str | Path) -> None:
        """Take the weights of a BERT of the same sizes from a folder in transformers' format.

        Raises:
            ConfigError: the folder is not there, or holds something else.
        """
        from transformers import BertModel

        if not Path(path).is_dir():
            raise ConfigError("there is no folder with the weights of a BERT", path=path)
        try:
            pretrained = BertModel.from_pretrained(str(path), local_files_only=True).state_dict()
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(f"the weights of BERT cannot be read: {error}", path=path) from error
        with torch.no_grad():
            for name, parameter in self.bert.named_parameters():
                if ".lora_" in name:
                    continue
                weights = pretrained[name.replace(".base_layer.", ".")]
                if weights.shape != parameter.shape:
                    raise ConfigError(
                        f"{name} has the shape {tuple(weights.shape)}, expected {tuple(parameter.shape)}",
                        hint="Tell the sizes of this BERT in [model.bert]",
                        path=path,
                    )
                parameter.copy_(weights)
