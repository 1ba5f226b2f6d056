"""A frozen causal language model with low-rank changes: embeddings in, hidden states and answers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from emopipe.errors import BackboneError, ConfigError
from emopipe.models.networks.backbone import find_backbone, keep_changes_only, refuse_foreign_code
from emopipe.models.networks.egmf.config import EgmfConfig
from emopipe.models.networks.egmf.graphs import GraphedDecoder
from emopipe.models.networks.egmf.prompt import Tokens, Tree

#: The attention's projections as model families name them: Llama, Qwen, GLM-4, Mistral and Gemma; Phi; Phi-3; GPT-NeoX.
PROJECTIONS: Final = (
    ("q_proj", "k_proj", "v_proj", "o_proj"),
    ("q_proj", "k_proj", "v_proj", "dense"),
    ("qkv_proj", "o_proj"),
    ("query_key_value", "dense"),
)


@dataclass(frozen=True)
class Reading:
    """What the model made of B prompts.

    Attributes:
        hidden: (B, D) state at the end of the prompt.
        costs: (B,) -ln p of the answers, summed over their tokens; 0 for an empty answer.
    """

    hidden: Tensor
    costs: Tensor


class LanguageModel(nn.Module):
    """Any causal language model of transformers. Only its low-rank changes are trained, and saved.

    Args:
        config: which backbone, and how it is changed.

    Attributes:
        sha256: of the backbone's weights.

    Raises:
        BackboneError: it is not there, cannot be read, or is not the one that `config` names.
        ConfigError: its attention is not known and `lora_targets` does not tell.
    """

    def __init__(self, config: EgmfConfig) -> None:
        super().__init__()
        folder, self.sha256 = find_backbone(config.backbone, config.backbone_path, config.backbone_sha256)
        self.causal, self.tokenizer = _read(folder, _dtype(config))
        self.causal.requires_grad_(False)
        if config.lora_rank:
            _add_lora(self.causal, config)
        if config.gradient_checkpointing:
            self.causal.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        self._graphs_wanted = config.cuda_graphs and not config.gradient_checkpointing
        self._graphs: GraphedDecoder | None = None
        keep_changes_only(self)

    @property
    def width(self) -> int:
        """D, of the token embeddings."""
        return int(self.causal.get_input_embeddings().weight.shape[1])

    @property
    def scale(self) -> float:
        """Root mean square of the token embeddings."""
        return float(self.causal.get_input_embeddings().weight.float().square().mean().sqrt())

    def embed(self, ids: Tensor) -> Tensor:
        """(B, L) -> (B, L, D)."""
        embeddings: Tensor = self.causal.get_input_embeddings()(ids)
        return embeddings

    def inject(self, tokens: Tokens | Tree, pseudo: Tensor | None) -> Tensor:
        """Embeddings (B, L, D) of prompts, pseudo tokens (R, K, D) in the slots of the R prompts that have some."""
        embeddings = self.embed(tokens.ids)
        if pseudo is None or len(pseudo) == 0:
            return embeddings
        return embeddings.masked_scatter(tokens.slots.unsqueeze(-1), pseudo.to(embeddings.dtype))

    def read(self, tree: Tree, pseudo: Tensor | None = None) -> Reading:
        """Read prompts with their answers; see :meth:`inject`."""
        states = self._states(tree, self.inject(tree, pseudo))[0]
        hidden = states[tree.ends]
        costs = functional.cross_entropy(self.logits(states[tree.before]), tree.targets, reduction="none")
        return Reading(hidden, costs.new_zeros(len(hidden)).index_add(0, tree.rows, costs))

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., vocabulary) float32, of the next token."""
        logits: Tensor = self.causal.get_output_embeddings()(hidden)
        return logits.float()

    @torch.no_grad()
    def answer(self, tokens: Tokens, pseudo: Tensor | None, most: int) -> tuple[list[str | None], Tensor]:
        """Greedy answers of at most `most` tokens, as long as one has not ended; None for one that did not end.

        Returns:
            B answers, and the states (B, D) at the end of the prompts.
        """
        read = self._decode(tokens, self.inject(tokens, pseudo), use_cache=True)
        hidden = state = read.last_hidden_state[:, -1]
        mask, chosen = tokens.mask, []
        ended = torch.zeros(len(mask), dtype=torch.bool, device=mask.device)
        for step in range(most):
            chosen.append(self.logits(state).argmax(1))
            ended |= chosen[-1] == self.tokenizer.eos_token_id
            if step == most - 1 or ended.all():
                break
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            read = self.causal.get_decoder()(
                input_ids=chosen[-1].unsqueeze(1),
                attention_mask=mask,
                position_ids=mask.sum(1, keepdim=True) - 1,
                past_key_values=read.past_key_values,
                use_cache=True,
            )
            state = read.last_hidden_state[:, -1]
        return [self._text(row) for row in torch.stack(chosen, dim=1).tolist()], hidden

    def _text(self, ids: list[int]) -> str | None:
        end = self.tokenizer.eos_token_id
        return self.tokenizer.decode(ids[: ids.index(end)]) if end in ids else None

    def _states(self, tree: Tree, embeddings: Tensor) -> Tensor:
        """(1, N, D) of a tree; in training by CUDA graphs where that is asked for."""
        if not (self._graphs_wanted and self.training and torch.is_grad_enabled() and embeddings.is_cuda):
            states: Tensor = self._decode(tree, embeddings).last_hidden_state
            return states
        if self._graphs is None:
            self._graphs = GraphedDecoder(self.causal.get_decoder())
        return self._graphs(embeddings, self._mask(tree), tree.positions)

    def _decode(self, tokens: Tokens | Tree, embeddings: Tensor, use_cache: bool = False) -> Any:
        return self.causal.get_decoder()(
            inputs_embeds=embeddings,
            attention_mask=self._mask(tokens),
            position_ids=tokens.positions,
            use_cache=use_cache,
        )

    def _mask(self, tokens: Tokens | Tree) -> Tensor:
        """As transformers wants it: of a tree what to add to the attention, of padded prompts 1 and 0."""
        if isinstance(tokens, Tokens):
            return tokens.mask
        dtype = self.causal.dtype
        return torch.zeros_like(tokens.mask, dtype=dtype).masked_fill(~tokens.mask, torch.finfo(dtype).min)


def _dtype(config: EgmfConfig) -> torch.dtype:
    if config.dtype == "auto":
        return torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return torch.bfloat16 if config.dtype == "bfloat16" else torch.float32


def _read(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """The model and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    refuse_foreign_code(folder)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            # On CPUs, torch's fused attention takes longer than the plain one where there is a mask.
            attn_implementation="sdpa" if torch.cuda.is_available() else "eager",
        )
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise BackboneError(f"the backbone cannot be read: {error}", path=folder) from error
    if tokenizer.eos_token_id is None:
        raise BackboneError("the backbone's tokenizer has no end of sequence", path=folder)
    return model, tokenizer


def _add_lora(model: Any, config: EgmfConfig) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    layers = int(model.config.num_hidden_layers)
    targets = list(config.lora_targets or projections(model))
    _refuse_missing(model, targets)
    changes = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets,
        layers_to_transform=list(range(max(0, layers - config.lora_layers), layers)) if config.lora_layers else None,
    )
    try:
        inject_adapter_in_model(changes, model)
    except ValueError as error:
        raise ConfigError(
            f"LoRA cannot be added: {error}", hint="Name layers of the backbone in lora_targets"
        ) from error
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(not config.freeze_lora)


def _refuse_missing(model: nn.Module, targets: Sequence[str]) -> None:
    """Raise a ConfigError for a target that the model lacks; peft leaves it out and says nothing."""
    names = _layer_names(model)
    missing = [target for target in targets if target.rpartition(".")[2] not in names]
    if missing:
        raise ConfigError(
            f"LoRA cannot be added: {type(model).__name__} has no layer {missing[0]}",
            hint="Leave lora_targets empty for the attention's projections, or name layers of this backbone in it",
        )


def _layer_names(model: nn.Module) -> set[str]:
    return {name.rpartition(".")[2] for name, _ in model.named_modules()}


def projections(model: nn.Module) -> tuple[str, ...]:
    """The names of the attention's projections.

    Raises:
        ConfigError: the model has none of the known ones.
    """
    names = _layer_names(model)
    for layer_names in PROJECTIONS:
        if names.issuperset(layer_names):
            return layer_names
    raise ConfigError(f"the attention of {type(model).__name__} is not known", hint="Name its layers in lora_targets")
