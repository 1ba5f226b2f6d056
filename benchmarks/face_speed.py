"""What the face stage takes per frame, and how much of that is the closer look at small faces.

    python benchmarks/face_speed.py CLIP... [--rounds 5]

Frames are decoded beforehand. For each clip: milliseconds of processor time per sampled frame (median of the rounds),
those spent on choosing close views and looking at them, views per frame, and faces per frame.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from emopipe.extractors.face.close_views import CloseViews
from emopipe.extractors.face.mediapipe import FaceLandmarker
from emopipe.extractors.face.mediapipe_models import DetectionModel
from emopipe.pipeline import weights
from emopipe.pipeline.media.decoding import Media

spent: dict[str, float] = {}


def timed(kind: Any, name: str) -> None:
    """Have calls of a method counted, and their processor time summed up."""
    method: Callable[..., Any] = getattr(kind, name)

    def wrapped(*arguments: Any) -> Any:
        start = time.process_time()
        result = method(*arguments)
        spent[name] = spent.get(name, 0.0) + time.process_time() - start
        spent[f"{name} calls"] = spent.get(f"{name} calls", 0.0) + 1
        return result

    setattr(kind, name, wrapped)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    timed(CloseViews, "see")
    timed(DetectionModel, "boxes")
    landmarker = FaceLandmarker(weights.resolve("face-landmarker"))
    for clip in options.clips:
        with Media(clip) as media:
            frames = list(media.frames(5))
        rounds = []
        for _ in range(options.rounds):
            spent.clear()
            start = time.process_time()
            rows = landmarker.track(iter(frames)).num_rows
            whole, closer = time.process_time() - start, spent.get("see", 0.0) + spent.get("boxes", 0.0)
            rounds.append([1000 * whole, 1000 * closer, spent.get("boxes calls", 0.0), rows])
        whole, closer, views, faces = np.median(rounds, axis=0) / len(frames)
        print(
            f"{clip.name}: {whole:.2f} ms per frame, closer look {closer:.2f} ms = {100 * closer / whole:.1f} %, "
            f"{views:.2f} views and {faces:.1f} faces per frame",
            flush=True,
        )
    landmarker.close()


if __name__ == "__main__":
    main()
