"""How fast the face backends are on one clip: frames per second of the embedded one, and of py-feat by batch size.

    python benchmarks/face_backends.py [--clip FILE] [--frames 16] [--detector v2] [--test-weights]

Frames are decoded beforehand and one face is measured in each. Besides the whole backend, py-feat's Detectorv2 is
timed without its search for faces: its network alone, on faces cut out beforehand. With --test-weights its weights have
random values, which changes what it says but not how fast.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch

from emopipe.extractors.face.mediapipe import FaceLandmarker
from emopipe.extractors.face.pyfeat import REPOSITORIES, PyFeat, weight_names
from emopipe.pipeline import weights
from emopipe.pipeline.media.decoding import Frame, Media

ROOT = Path(__file__).parent.parent
BATCHES = (1, 4, 16)


def show(name: str, frames: int, work: Callable[[], object]) -> None:
    """Frames per second of wall time, and of CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = frames / (time.perf_counter() - wall), frames / (time.process_time() - cpu)
    print(f"{name:34}  {wall:8.2f}  {cpu:14.2f}", flush=True)


def network(backend: PyFeat, frames: Sequence[Frame], batch: int) -> Callable[[], object]:
    """A forward pass of Detectorv2's network over one face for each frame, after one to warm up."""
    detector: Any = backend._detector
    pictures = torch.stack([torch.from_numpy(frame.rgb).permute(2, 0, 1) for frame in frames])
    faces = torch.cat([faces_of_image["faces"][:1] for faces_of_image in detector.detect_faces(pictures)])
    detector.multitask(faces[:batch])
    return lambda: [detector.multitask(faces[start : start + batch]) for start in range(0, len(faces), batch)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, default=ROOT / "samples" / "happy.mp4")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--detector", choices=tuple(REPOSITORIES), default="v2")
    parser.add_argument("--test-weights", action="store_true")
    options = parser.parse_args()
    with Media(options.clip) as media:
        frames = [frame for frame, _ in zip(media.frames(25), range(options.frames), strict=False)]
    height, width = frames[0].rgb.shape[:2]
    print(f"{options.clip.name}: {len(frames)} frames of {width}x{height}; {torch.get_num_threads()} threads on")
    print(f"{platform.processor() or platform.machine()} with {os.cpu_count()} cores; py-feat weights: ", end="")
    print("random" if options.test_weights else "real")

    with ExitStack() as stack:
        if options.test_weights:
            sys.path.insert(0, str(ROOT))
            from tests.pyfeat_weights import write_weights

            folder = stack.enter_context(tempfile.TemporaryDirectory())
            write_weights(Path(folder), options.detector)
            os.environ["EMOPIPE_WEIGHTS"] = folder
        folders = {name: weights.resolve(weight) for name, weight in weight_names(options.detector).items()}

        print(f"\n{'':34}  frames/s  per CPU-second")
        landmarker = FaceLandmarker(weights.resolve("face-landmarker"), max_faces=1)
        landmarker.track(frames[:1])
        show("embedded (MediaPipe)", len(frames), partial(landmarker.track, frames))
        for batch in BATCHES:
            backend = PyFeat(folders, options.detector, "cpu", max_faces=1, batch=batch)
            backend.track(frames[:batch])
            show(f"py-feat {options.detector}, batch {batch}", len(frames), partial(backend.track, frames))
            if options.detector == "v2":
                show(f"  its network alone, batch {batch}", len(frames), network(backend, frames, batch))


if __name__ == "__main__":
    main()
