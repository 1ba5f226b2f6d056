"""The tokens of a text as a pretrained encoder's own tokenizer cuts them.

transformers reads every kind of tokenizer, but to import what it needs for that takes a second and 35 MiB, most of it
for the hub. A tokenizer that is whole in its file `tokenizer.json` is read from there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    import tokenizers
    from torch import Tensor

FILE: Final = "tokenizer.json"
CONFIG: Final = "tokenizer_config.json"
#: Classes of transformers that take the file as it is, and those that normalise as the configuration says.
AS_IT_IS: Final = ("PreTrainedTokenizerFast", "TokenizersBackend")
OF_BERT: Final = ("BertTokenizer", "BertTokenizerFast")
#: What a configuration of the latter says -> what the file calls it, and what holds where it says nothing.
NORMALISED: Final = {
    "do_lower_case": ("lowercase", True),
    "tokenize_chinese_chars": ("handle_chinese_chars", True),
    "strip_accents": ("strip_accents", None),
}


class Tokenizer(Protocol):
    """Cuts texts into tokens.

    Attributes:
        longest: the longest text in tokens that it is made for.
    """

    longest: float

    def batch(self, texts: Sequence[str], most: int) -> Mapping[str, Tensor]:
        """What a network reads of texts: `input_ids` and `attention_mask`, 0 for padding, each (texts, tokens).

        Args:
            texts: one or several.
            most: longer texts are cut to so many tokens, special ones included.
        """


def load_tokenizer(model: str | Path) -> Tokenizer:
    """The tokenizer of an encoder: a folder in transformers' format, or a hub id.

    Raises:
        OSError, ValueError: there is none.
    """
    return read_tokenizer(Path(model)) or _OfTransformers(model)


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer of a folder; None where its file alone does not tell how it cuts texts.

    Raises:
        ValueError: the file is not of a tokenizer.
    """
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
        kind = config.get("tokenizer_class")
        whole = kind in AS_IT_IS or (kind in OF_BERT and _normalised_alike(folder / FILE, config))
    except (OSError, ValueError):
        return None
    if not whole or not (folder / FILE).is_file():
        return None
    from tokenizers import Tokenizer as Read

    try:
        tokenizer = Read.from_file(str(folder / FILE))
    except Exception as error:  # the library has no class of its own for it
        raise ValueError(f"{folder / FILE} is not a tokenizer: {error}") from error
    padding = config.get("pad_token")
    name = padding["content"] if isinstance(padding, dict) else padding
    tokenizer.enable_padding(pad_id=(name and tokenizer.token_to_id(name)) or 0)
    return _OfFile(tokenizer, config.get("model_max_length", float("inf")))


def _normalised_alike(file: Path, config: Mapping[str, Any]) -> bool:
    """Whether the file normalises texts as the configuration says."""
    normalizer = json.loads(file.read_text("utf-8")).get("normalizer")
    if not isinstance(normalizer, dict) or normalizer.get("type") != "BertNormalizer":
        return False
    return all(normalizer.get(name) == config.get(told, usual) for told, (name, usual) in NORMALISED.items())


class _OfFile:
    """See :class:`Tokenizer`."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, longest: float) -> None:
        self._tokenizer, self.longest = tokenizer, longest

    def batch(self, texts: Sequence[str], most: int) -> Mapping[str, Tensor]:
        import torch

        self._tokenizer.enable_truncation(most)
        read = self._tokenizer.encode_batch(list(texts))
        return {
            "input_ids": torch.tensor([one.ids for one in read]),
            "attention_mask": torch.tensor([one.attention_mask for one in read]),
        }


class _OfTransformers:
    """See :class:`Tokenizer`."""

    def __init__(self, model: str | Path) -> None:
        from transformers import AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(str(model), trust_remote_code=False)
        self.longest: float = self._tokenizer.model_max_length

    def batch(self, texts: Sequence[str], most: int) -> Mapping[str, Tensor]:
        read: Mapping[str, Tensor] = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=most, return_tensors="pt"
        )
        return read
