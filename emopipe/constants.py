"""What every part of emopipe agrees on."""

from __future__ import annotations

from typing import Final

#: The modalities, in the order in which every table and checkpoint lists them.
MODALITIES: Final = ("text", "face", "voice")
#: Of all sound inside emopipe, in samples per second (mono, float32).
SAMPLE_RATE: Final = 16_000
