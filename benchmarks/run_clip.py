"""How fast a clip is: real-time factor of each stage and in total, peak memory, faces per CPU-second.

    python benchmarks/run_clip.py [--seconds 60] [--model emopipe-default] [--clip FILE]

Without --clip, a talking head of 1280x720 at 30 frames per second is made first (`pip install 'emopipe[samples]'`).
Models are loaded before the clock starts. A real-time factor of 0.5 means half a minute of work per minute of video.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import mediapipe
from mediapipe.tasks.python import vision
from mediapipe.tasks.python.core.base_options import BaseOptions

from emopipe.pipeline import weights
from emopipe.pipeline.backends.loading import pick_device
from emopipe.pipeline.execution.batch import find_inputs, run_files
from emopipe.pipeline.execution.engine import Here
from emopipe.pipeline.execution.jobs import prediction_job
from emopipe.pipeline.execution.plan import Job
from emopipe.pipeline.media.decoding import Media
from emopipe.pipeline.progress import Event, Hook
from emopipe.pipeline.store.store import temporary_store

SAMPLES = Path(__file__).parent.parent / "samples"


def talking_clip(folder: Path, seconds: float) -> Path:
    """A generated talking head."""
    sys.path.insert(0, str(SAMPLES / "make"))
    from synthetic import write_talking_clip

    path = folder / "talking.mp4"
    write_talking_clip(path, seconds)
    return path


def stage_seconds(engine: Here, job: Job, clip: Path, hook: Hook, spent: Counter[str]) -> float:
    """Run once; seconds of each stage are added to `spent`. Returns the wall time of all."""
    spent.clear()
    began = time.perf_counter()
    (result,) = run_files(find_inputs([clip]), job, None, engine, hook=hook)
    total = time.perf_counter() - began
    if result.state == "failed":
        raise SystemExit(str(result.reasons[0]))
    print(f"{clip.name}: {len(result.utterances)} utterances, {result.state}")
    return total


def faces_per_cpu_second(job: Job, clip: Path, most: int = 300) -> tuple[float, float]:
    """Frames per CPU-second of the face extractor, and of MediaPipe's bare landmarker at its cheapest.

    The latter (one face, no blendshapes) bounds the former on this machine; both see frames decoded beforehand.
    """
    with Media(clip) as media:
        frames = [frame for frame, _ in zip(media.frames(job.config.face.rate), range(most), strict=False)]
    with job.backends(job.config) as backends:
        face = backends.face
        began = time.process_time()
        face.track(frames)
        ours = time.process_time() - began
    images = [mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=frame.rgb) for frame in frames]
    path = weights.resolve(job.config.face.weights)
    bare = vision.FaceLandmarkerOptions(BaseOptions(model_asset_path=str(path)), vision.RunningMode.VIDEO)
    with vision.FaceLandmarker.create_from_options(bare) as landmarker:
        began = time.process_time()
        for frame, image in zip(frames, images, strict=True):
            landmarker.detect_for_video(image, round(1000 * frame.time))
        return len(frames) / ours, len(frames) / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--model", default="emopipe-default")
    parser.add_argument("--clip", type=Path)
    options = parser.parse_args()
    spent: Counter[str] = Counter()

    def hook(event: Event) -> None:
        if event.kind == "end":
            spent[event.name] += event.seconds or 0.0

    engine = Here()
    with tempfile.TemporaryDirectory() as folder, temporary_store() as store, closing(engine):
        clip = options.clip or talking_clip(Path(folder), options.seconds)
        job = prediction_job(options.model, store, hook=hook)
        stage_seconds(engine, job, SAMPLES / "happy.mp4", hook, spent)  # loads the models
        total = stage_seconds(engine, job, clip, hook, spent)
        with Media(clip) as media:
            seconds, _ = media.examine()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        faces, bare = faces_per_cpu_second(job, clip)
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {pick_device(job.device)}"
    )
    print(f"{'stage':<12}{'seconds':>9}{'real-time factor':>18}")
    for name, value in spent.items():
        print(f"{name:<12}{value:>9.2f}{value / seconds:>18.3f}")
    print(f"{'total':<12}{total:>9.2f}{total / seconds:>18.3f}")
    print(f"peak memory {peak:.0f} MiB; face {faces:.0f} frames per CPU-second (MediaPipe alone, one face: {bare:.0f})")


if __name__ == "__main__":
    main()
