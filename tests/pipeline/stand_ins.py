"""Backends without heavy models, for tests of everything around them: what they say follows from what they are given.

The face is "seen" in the brightness of the frame, speech is heard where it is loud, people are told apart by the pitch
of their tone, and the voice is listened to by a Whisper of random weights with one narrow layer. Worker processes
import this module, too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from emopipe.extractors.face.table import BLENDSHAPES, BOX, EMOTIONS, EXPRESSION, MESH_COMPONENTS, face_table
from emopipe.extractors.speech.diarize import VoiceClusters
from emopipe.extractors.speech.speakers import GE2E
from emopipe.pipeline.backends.loading import Backends
from emopipe.pipeline.config import ExtractionConfig

#: Frames of this shade of grey kill the process that looks at them; of this, they make it take up 1 GiB.
DEADLY, GREEDY = 251, 241
#: What it measures of a face.
COLUMNS = (*BLENDSHAPES, *MESH_COMPONENTS, *EMOTIONS, *EXPRESSION)


class StandIns(Backends):
    """Backends that load nothing heavy."""

    def prepare(self, *kinds: str) -> None:
        """There is nothing to fetch."""

    @cached_property
    def face(self) -> Any:
        return _Face()

    @cached_property
    def vad(self) -> Any:
        return _Loud(self.config.speech.vad_threshold)

    @cached_property
    def voice(self) -> Any:
        import torch
        from whisper.model import ModelDimensions, Whisper

        from emopipe.extractors.voice.features import VoiceExtractor

        torch.manual_seed(0)
        sizes = {"n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": 8, "n_audio_head": 1, "n_audio_layer": 1}
        texts = {"n_vocab": 10, "n_text_ctx": 4, "n_text_state": 8, "n_text_head": 1, "n_text_layer": 1}
        return VoiceExtractor(Whisper(ModelDimensions(**sizes, **texts)).eval())

    @cached_property
    def speakers(self) -> Any:
        return _Pitch()

    @cached_property
    def diarizer(self) -> Any:
        return VoiceClusters(self.speakers)


class SlowStandIns(StandIns):
    """Stand-ins that take their time, so that there is something to interrupt."""

    @cached_property
    def face(self) -> Any:
        return _Face(pause=0.05)


class _Face:
    """A face whose every measure is a function of the picture's brightness."""

    measured = frozenset({*COLUMNS, "pitch", "yaw", "roll"})

    def __init__(self, pause: float = 0.0) -> None:
        self._pause = pause
        self._hoard: np.ndarray | None = None

    def track(self, frames: Iterable[Any]) -> pa.Table:
        rows, count = [], 0
        for frame in frames:
            rows.append(self._row(frame.time, frame.rgb))
            count += 1
            time.sleep(self._pause)
        return face_table(rows, backend="stand-in", version="1", frames=count)

    def still(self, rgb: np.ndarray) -> pa.Table:
        return face_table([self._row(0.0, rgb)], backend="stand-in", version="1", frames=1)

    def close(self) -> None:
        pass

    def _row(self, at: float, rgb: np.ndarray) -> dict[str, float | int | None]:
        light = float(rgb.mean())
        if abs(light - DEADLY) < 2:
            time.sleep(0.5)  # no network dies within the first milliseconds of its stage, before that is told
            os.kill(os.getpid(), 9)
        if abs(light - GREEDY) < 2 and self._hoard is None:
            self._hoard = np.ones(1 << 27)
            time.sleep(5)
        names = [*COLUMNS, "pitch", "yaw", "roll", "quality"]
        sides = dict(zip(BOX, (0.2, 0.2, 0.6, 0.8), strict=True))
        return {"time": at, "track": 0, **sides, **{name: light / 255 + 0.001 * i for i, name in enumerate(names)}}


class _Loud:
    """Speech is where a tenth of a second is louder than the threshold."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold / 10

    def segments(self, samples: Any) -> list[tuple[float, float]]:
        loud = [np.abs(samples[at : at + 1600]).max() > self._threshold for at in range(0, len(samples) - 1600, 1600)]
        edges = np.flatnonzero(np.diff([False, *loud, False])).reshape(-1, 2)
        return [(float(start) / 10, float(end) / 10) for start, end in edges]


class _Pitch:
    """Voices are alike when their tones cross zero equally often."""

    likeness = GE2E

    def embed(self, samples: Any, pieces: Any) -> np.ndarray:
        sounds = [samples[round(start * 16_000) : round(end * 16_000)] for start, end in pieces]
        crossings = np.array([np.count_nonzero(np.diff(np.signbit(sound))) / max(1, len(sound)) for sound in sounds])
        return np.stack([np.cos(20 * crossings), np.sin(20 * crossings)], axis=1).astype(np.float32)


def write_checkpoint(folder: Path, seed: int = 0, *, relative: bool = False, **tables: Any) -> Path:
    """A tiny untrained checkpoint that looks at face and voice as the stand-ins measure them."""
    import torch

    from emopipe.models import checkpoint
    from emopipe.models.predictor import Predictor, Spec
    from emopipe.models.registry import configure

    config = ExtractionConfig.from_dict(tables)
    names = {m: tuple(columns) for m, columns in StandIns(config).feature_names(("face", "voice")).items()}
    options = asdict(configure("emoe", {"width": 16, "layers": 1, "heads": 2, "relative": relative}))
    spec = Spec("emoe", options, "classification", "label", ("anger", "happiness"), names, config.as_dict())
    torch.manual_seed(seed)
    checkpoint.save(folder, Predictor(spec, spec.build()), "A checkpoint of tests.")
    return folder
