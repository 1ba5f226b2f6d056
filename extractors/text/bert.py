"""BERT (Devlin et al. 2019) in evaluation, from its file of weights alone.

transformers has the same network, but to import it takes 200 MiB and seconds, since torch's compiler comes along.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from torch import Tensor
from torch.nn.functional import embedding, gelu, layer_norm, linear, scaled_dot_product_attention

CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
WORDS: Final = "embeddings.word_embeddings.weight"
#: What a configuration must tell, and what it may only say of what is computed here in one way.
TOLD: Final = frozenset(
    [
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
        "type_vocab_size",
        "layer_norm_eps",
    ]
)
ONLY: Final = {
    "model_type": ("bert",),
    "hidden_act": ("gelu",),
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "quantization_config": (),
}


class Bert:
    """A BERT that computes in single precision.

    Args:
        weights: by the names that transformers gives them.
        heads: of attention.
        epsilon: of layer normalisation.

    Attributes:
        depth: number of layers.
        width: length of a vector.
        words: the table of word vectors (vocabulary, width).
        places: the longest text in tokens.
    """

    def __init__(self, weights: Mapping[str, Tensor], heads: int, epsilon: float) -> None:
        self._weights, self._heads, self._epsilon = weights, heads, epsilon
        self.depth = sum(name.endswith("attention.self.query.weight") for name in weights)
        self.width = weights[WORDS].shape[1]
        self.places: float = len(weights["embeddings.position_embeddings.weight"])
        self.words = weights[WORDS]

    def states(self, batch: Mapping[str, Tensor]) -> list[Tensor]:
        """The embeddings and the output of each layer, each (texts, tokens, width).

        Args:
            batch: `input_ids` (texts, tokens), and `attention_mask`, 1 where there is a token, 0 for padding.
        """
        ids, mask = batch["input_ids"], batch["attention_mask"]
        steps = embedding(ids, self.words).float() + self._weights["embeddings.token_type_embeddings.weight"][0]
        steps = steps + self._weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
        states = [self._normal(steps, "embeddings.")]
        seen = None if bool(mask.all()) else mask.bool()[:, None, None].expand(-1, -1, ids.shape[1], -1)
        for layer in range(self.depth):
            states.append(self._layer(states[-1], seen, f"encoder.layer.{layer}."))
        return states

    def _layer(self, steps: Tensor, seen: Tensor | None, name: str) -> Tensor:
        parts = [self._linear(steps, f"{name}attention.self.{part}.") for part in ("query", "key", "value")]
        query, key, value = (part.view(*part.shape[:2], self._heads, -1).transpose(1, 2) for part in parts)
        heard = scaled_dot_product_attention(query, key, value, attn_mask=seen).transpose(1, 2).flatten(2)
        heard = self._linear(heard, f"{name}attention.output.dense.") + steps
        steps = self._normal(heard, f"{name}attention.output.")
        wide = gelu(self._linear(steps, f"{name}intermediate.dense."))
        return self._normal(self._linear(wide, f"{name}output.dense.") + steps, f"{name}output.")

    def _linear(self, steps: Tensor, name: str) -> Tensor:
        return linear(steps, self._weights[f"{name}weight"], self._weights[f"{name}bias"])

    def _normal(self, steps: Tensor, name: str) -> Tensor:
        name += "LayerNorm."
        scale, shift = self._weights[f"{name}weight"], self._weights[f"{name}bias"]
        return layer_norm(steps, scale.shape, scale, shift, self._epsilon)


def read_bert(folder: str | Path, device: str) -> Bert | None:
    """The BERT of a folder in transformers' format; None when it holds anything else, or not all of one.

    The table of word vectors, which is most of a multilingual encoder, stays as it is stored: its rows are widened when
    they are read.
    """
    from safetensors import safe_open

    config, file = _config(Path(folder)), Path(folder) / WEIGHTS
    if config is None or not file.is_file():
        return None
    shapes = _shapes(config)
    with safe_open(file, "pt") as stored:
        if not shapes.keys() <= set(stored.keys()) or any(
            tuple(stored.get_slice(name).get_shape()) != shape for name, shape in shapes.items()
        ):
            return None
        weights = {name: stored.get_tensor(name).to(device) for name in shapes}
    weights = {name: weight if name == WORDS else weight.float() for name, weight in weights.items()}
    return Bert(weights, config["num_attention_heads"], config["layer_norm_eps"])


def _config(folder: Path) -> dict[str, Any] | None:
    """A configuration with all sizes; None when it is not of a network as it is computed here."""
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    as_here = config.get("model_type") == "bert" and all(config[name] in ONLY[name] for name in ONLY.keys() & config)
    if not as_here or not config.keys() >= TOLD:
        return None
    return config if config["hidden_size"] % config["num_attention_heads"] == 0 else None


def _shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name of a weight -> its shape."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        WORDS: (config["vocab_size"], width),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], width),
    }
    normal = ["embeddings.LayerNorm"]
    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{layer}."
        square = [f"{name}attention.self.{part}" for part in ("query", "key", "value")]
        for dense in [*square, f"{name}attention.output.dense"]:
            shapes |= {f"{dense}.weight": (width, width), f"{dense}.bias": (width,)}
        shapes |= {f"{name}intermediate.dense.weight": (inner, width), f"{name}intermediate.dense.bias": (inner,)}
        shapes |= {f"{name}output.dense.weight": (width, inner), f"{name}output.dense.bias": (width,)}
        normal += [f"{name}attention.output.LayerNorm", f"{name}output.LayerNorm"]
    return shapes | {f"{one}.{part}": (width,) for one in normal for part in ("weight", "bias")}
