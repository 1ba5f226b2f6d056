"""What every part of emopipe agrees on."""

from __future__ import annotations

from typing import Final

#: The modalities, in the order in which every table and checkpoint lists them.
MODALITIES: Final = ("text", "face", "voice")
#: Of all sound inside emopipe, in samples per second (mono, float32).
SAMPLE_RATE: Final = 16_000
#: What a sealed extraction's `versions` call the network that measures the face's `emotion_*` and `expression_*`.
EXPRESSION_ENCODER: Final = "expression-encoder"
