"""A causal language model small enough for tests, in a folder as transformers writes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

#: Words that become one token each, with a space before them.
KNOWN = ("anger", "happiness", "neutral", "sadness", "good", "bad", "the", "emotion", "utterance", "sentiment")


#: Sizes of a random backbone that all families know by these names.
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
    "initializer_range": 0.2,
}


def write_backbone(
    folder: Path, seed: int = 0, bos: bool = False, known: Sequence[str] = KNOWN, family: str = "llama"
) -> Path:
    """A random two-layer language model of width 32 and a byte-level tokenizer.

    Args:
        folder: where.
        family: its architecture, as transformers calls it.
        seed: of the weights.
        bos: the tokenizer puts `<s>` before every text, as Llama's does.
        known: words that the tokenizer merges.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f" {word}" for word in known] * 20, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    heads = {"head_dim": 8} if family not in ("phi", "phi3", "gpt_neox") else {}
    sizes = AutoConfig.for_model(family, vocab_size=len(fast), **SIZES, **heads)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(sizes).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
