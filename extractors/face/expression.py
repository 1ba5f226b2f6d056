"""Expression on pixels: probabilities of seven emotions and an embedding, from a small network on the aligned face.

The network is EfficientNet-Lite0 on RAF-DB and FER2013 with the votes of FER+; `benchmarks/expression_encoder.py`
trains it so that a mouth which talks does not decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from emopipe.extractors.face.alignment import similarity, warped
from emopipe.extractors.face.table import EMOTIONS, EXPRESSION

if TYPE_CHECKING:
    import torch

    from emopipe.extractors.face.expression_network import ExpressionNetwork

#: The weights, in half precision.
WEIGHTS_FILE: Final = Path(__file__).with_name("expression.safetensors")
#: Pixels of the side of the crop.
SIDE: Final = 112
#: Landmarks of the face mesh that neither speech nor expression moves much, and where they lie in a crop of side 1:
#: outer and inner corners of the eyes, bridge, base and wings of the nose.
ANCHORS: Final = (33, 133, 362, 263, 168, 2, 98, 327)
PLACES: Final = (
    (0.222, 0.293),
    (0.388, 0.318),
    (0.612, 0.318),
    (0.778, 0.293),
    (0.500, 0.335),
    (0.500, 0.613),
    (0.401, 0.580),
    (0.599, 0.580),
)


def face_crop(rgb: np.ndarray, mesh: np.ndarray, margin: int = 0) -> np.ndarray:
    """The face upright and at one scale, uint8 (SIDE + 2 margin, SIDE + 2 margin, 3).

    Args:
        rgb: uint8 (height, width, 3).
        mesh: landmarks (478, 2 or 3) in pixels.
        margin: pixels of the crop's surroundings to add on each side.
    """
    places = np.array(PLACES) * SIDE + margin
    return warped(rgb, similarity(mesh[list(ANCHORS), :2], places), SIDE + 2 * margin)


class ExpressionEncoder:
    """Measures the expression of aligned faces; the network is loaded when it is first used, and runs on the CPU."""

    def measure(self, crop: np.ndarray) -> dict[str, float]:
        """Columns of the face table: `emotion_*`, which sum to 1, and `expression_*`.

        Args:
            crop: of :func:`face_crop`, without margin.
        """
        return self.measure_all([crop])[0]

    def measure_all(self, crops: Sequence[np.ndarray]) -> list[dict[str, float]]:
        """The same of several faces, which takes half the time per face that one takes by itself."""
        import torch

        if not crops:
            return []
        rows = self.columns(network_input(torch.from_numpy(np.stack(crops)))).tolist()
        return [dict(zip(EMOTIONS + EXPRESSION, row, strict=True)) for row in rows]

    def columns(self, images: torch.Tensor) -> torch.Tensor:
        """The same columns, (batch, 39), of what :func:`network_input` gives."""
        import torch

        network, weights = self._loaded
        with torch.inference_mode():
            features = network(images)
            probabilities = (features @ weights["head.weight"].T + weights["head.bias"]).softmax(1)
            embedding = (features - weights["embedding.centre"]) @ weights["embedding.weight"].T
        return torch.cat([probabilities, embedding], 1)

    @cached_property
    def _loaded(self) -> tuple[ExpressionNetwork, dict[str, torch.Tensor]]:
        from emopipe.extractors.face.expression_network import fused

        network, weights = read_encoder(WEIGHTS_FILE)
        return fused(network), weights


def read_encoder(path: Path) -> tuple[ExpressionNetwork, dict[str, torch.Tensor]]:
    """The folded network of an encoder's file, and all of the file in single precision."""
    from safetensors.torch import load_file

    from emopipe.extractors.face.expression_network import ExpressionNetwork, folded

    weights = {name: value.float() for name, value in load_file(path).items()}
    network = folded(ExpressionNetwork())
    prefix = "network."
    network.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    return network, weights


def network_input(crops: torch.Tensor) -> torch.Tensor:
    """Crops uint8 (batch, side, side, 3) as the network reads them."""
    import torch

    images = (crops.permute(0, 3, 1, 2).float() - 127) / 128
    return images.contiguous(memory_format=torch.channels_last)
