"""Encoders of the BERT family with random weights, in folders as transformers writes them, with real vocabularies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel

#: A WordPiece vocabulary: what every BERT has, letters, pieces, and some words.
VOCABULARY = (
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    + [chr(code) for code in range(33, 127)]
    + [f"##{chr(code)}" for code in range(97, 123)]
    + ["the", "i", "am", "so", "happy", "sad", "we", "are", "today", "##ing", "##er", "我", "很", "高", "兴", "。"]
)


def write_bert(folder: Path, seed: int = 0, **sizes: Any) -> Path:
    """A random BertModel and its vocabulary, read by BERT's own tokenizer; bert-base but for what `sizes` changes.

    The files are those of bert-base-uncased on the hub: `vocab.txt` and no `tokenizer.json`.
    """
    folder.mkdir(parents=True)
    config = BertConfig(**{"vocab_size": len(VOCABULARY), **sizes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config).half().save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", "utf-8")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true, "model_max_length": 512}')
    return folder


#: Small enough for quick tests.
SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
