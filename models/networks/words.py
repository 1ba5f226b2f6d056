"""A pretrained text encoder inside a model: it reads the words themselves and is tuned together with the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from emopipe.errors import BackboneError
from emopipe.models.networks.backbone import find_backbone, keep_changes_only, refuse_foreign_code

Tuning = Literal["frozen", "lora", "full"]


class BackboneSettings(Protocol):
    """What a configuration says of the encoder of the words; see :class:`emopipe.models.networks.emoe.EmoeConfig`."""

    @property
    def backbone(self) -> str:
        """Catalogue name, path or hub id of a transformers encoder."""

    @property
    def backbone_path(self) -> str:
        """Where its weights lie; "" until they are found."""

    @property
    def backbone_sha256(self) -> str:
        """Hash of its weights."""

    @property
    def backbone_tuning(self) -> Tuning:
        """Which of its weights are trained."""

    @property
    def lora_rank(self) -> int:
        """Rank of the low-rank updates."""

    @property
    def text_tokens(self) -> int:
        """Longer texts are cut."""


class WordsEncoder(nn.Module):
    """Any encoder or causal language model of transformers. Its own weights are saved only when they are tuned `full`y.

    Args:
        config: which backbone, and how it is tuned: `lora` puts low-rank changes (Hu et al. 2022), scaled by 2, on all
            of its linear layers.

    Attributes:
        sha256: of the backbone's weights as they were found.

    Raises:
        BackboneError: it is not there, cannot be read, or is not the one that `config` names.
    """

    def __init__(self, config: BackboneSettings) -> None:
        from transformers import AutoTokenizer

        super().__init__()
        folder, self.sha256 = find_backbone(config.backbone, config.backbone_path, config.backbone_sha256)
        self.tuning = config.backbone_tuning
        refuse_foreign_code(folder)
        try:
            self.encoder = _load(folder)
            self.tokenizer: Any = AutoTokenizer.from_pretrained(
                str(folder), padding_side="right", local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise BackboneError(f"the backbone cannot be read: {error}", path=folder) from error
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.longest = min(config.text_tokens, int(self.tokenizer.model_max_length))
        if self.tuning != "full":
            self.encoder.requires_grad_(False)
        if self.tuning == "lora":
            self._add_lora(config.lora_rank)
        if self.tuning != "full":
            keep_changes_only(self)

    def _add_lora(self, rank: int) -> None:
        from peft import LoraConfig, inject_adapter_in_model

        linear = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.05, target_modules="all-linear")
        inject_adapter_in_model(linear, self.encoder)

    @property
    def width(self) -> int:
        """D, of a token's vector."""
        return int(self.encoder.config.hidden_size)

    def train(self, mode: bool = True) -> WordsEncoder:
        """Change to training or evaluation; a frozen encoder stays in evaluation."""
        super().train(mode)
        if self.tuning == "frozen":
            self.encoder.eval()
        return self

    def forward(self, words: Sequence[str]) -> tuple[Tensor, Tensor]:
        """R texts -> their tokens' vectors (R, T, D), padding included, and how many tokens each has (R,)."""
        device = next(self.encoder.parameters()).device
        nothing = self.tokenizer.eos_token or ""  # Some tokenizers make no token at all of an empty text.
        tokens = self.tokenizer(
            [text or nothing for text in words],
            padding=True,
            truncation=True,
            max_length=self.longest,
            return_tensors="pt",
        ).to(device)
        states: Tensor = self.encoder(**tokens).last_hidden_state
        return states, tokens["attention_mask"].sum(1)


def _load(folder: Path) -> Any:
    """The network of a backbone, with the weights of its file and no random ones but those that nothing here uses.

    Raises:
        ValueError: the file lacks weights.
    """
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # what is missing is checked here
    try:
        encoder, report = AutoModel.from_pretrained(
            str(folder), dtype=torch.float32, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    finally:
        logging.set_verbosity(verbosity)
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise ValueError(f"its file lacks {len(missing)} weights, of them {missing[0]}")
    return encoder


def chosen(words: Sequence[str], rows: Tensor) -> list[str]:
    """The words of some rows of a batch; a batch that was made without words has none to give."""
    return [words[row] for row in rows.tolist()] if words else [""] * len(rows)
