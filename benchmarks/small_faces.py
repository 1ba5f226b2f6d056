"""How small a face may be: real clips of people who talk, scaled down and laid into frames of 1920x1080.

    python benchmarks/small_faces.py --data DATA [--heights 40,50,...] [--seconds 12]

For each height of the face in pixels: the share of frames in which it is found, when it is found first, how far its
mouth and brows are from where they are in the clip as it is (mean difference of action-unit proxies, 0 to 1), and
milliseconds per frame. Places are drawn by chance, three per clip; the rest of the frame is a blurred photograph, and
noise lies over everything.
"""

from __future__ import annotations

import argparse
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from emopipe.extractors.face.mediapipe import ACTION_UNIT_SOURCES, FaceLandmarker
from emopipe.pipeline import weights
from emopipe.pipeline.media.decoding import Media

CLIPS = ("ravdess_01_neutral", "mead_W036_happiness", "mead_M030_anger")
HEIGHTS = (40, 50, 60, 75, 90, 110, 130, 160, 200)
SIZE, RATE, NOISE, PLACES = (1920, 1080), 5, 2.0, 3


@dataclass(frozen=True)
class Picture:
    """A frame."""

    time: float
    rgb: np.ndarray


def background(data: Path, chance: np.random.Generator) -> np.ndarray:
    """A photograph that fills the frame and shows nothing."""
    with zipfile.ZipFile(data / "faces350.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        data_of = archive.read(str(chance.choice(names)))
    rgb = cv2.imdecode(np.frombuffer(data_of, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    return cv2.GaussianBlur(cv2.resize(rgb, SIZE), (0, 0), 60)


def frames(
    clip: list[np.ndarray], face: np.ndarray, height: float, back: np.ndarray, chance: np.random.Generator, count: int
) -> Iterator[Picture]:
    """The clip again and again, forwards and backwards, its face (x0, y0, x1, y1) so tall, somewhere in the frame."""
    scale = height / (face[3] - face[1])
    small = [cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for rgb in clip]
    tall, wide = small[0].shape[:2]
    middle = (face[:2] + face[2:]) / 2 * scale
    place = chance.uniform([height, height], [SIZE[0] - height, SIZE[1] - height])
    left, top = np.round(place - middle).astype(int)
    x0, y0, x1, y1 = max(0, left), max(0, top), min(SIZE[0], left + wide), min(SIZE[1], top + tall)
    order = [*range(len(small)), *range(len(small) - 2, 0, -1)]
    for index in range(count):
        canvas = back.copy()
        canvas[y0:y1, x0:x1] = small[order[index % len(order)]][y0 - top : y1 - top, x0 - left : x1 - left]
        noise = chance.normal(0, NOISE, (SIZE[1] // 2, SIZE[0] // 2)).astype(np.float32)
        canvas = canvas + cv2.resize(noise, SIZE, interpolation=cv2.INTER_NEAREST)[:, :, None]
        yield Picture(index / RATE, np.clip(canvas, 0, 255).astype(np.uint8))


def units(table: pa.Table, steps: int) -> np.ndarray:
    """Mean action-unit proxies by step of the clip's order."""
    index = np.round(table["time"].to_numpy() * RATE).astype(int) % steps
    values = np.column_stack([table[name].to_numpy() for name in ACTION_UNIT_SOURCES])
    return np.array(
        [values[index == step].mean(0) if (index == step).any() else [np.nan] * 15 for step in range(steps)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--heights", type=lambda text: [int(one) for one in text.split(",")], default=HEIGHTS)
    parser.add_argument("--seconds", type=float, default=12.0)
    options = parser.parse_args()
    landmarker = FaceLandmarker(weights.resolve("face-landmarker"))
    count = round(options.seconds * RATE)
    print("height  found  first after  difference  ms per frame")
    for height in options.heights:
        found, first, apart, spent = [], [], [], 0.0
        for name in CLIPS:
            with Media(options.data / "clips" / f"{name}.mp4") as media:
                clip = [frame.rgb for frame in media.frames(RATE)]
            steps = 2 * len(clip) - 2
            rgb = [Picture(i / RATE, one) for i, one in enumerate([*clip, *clip[-2:0:-1]])]
            whole = landmarker.track(iter(rgb))
            size = np.tile([clip[0].shape[1], clip[0].shape[0]], 2)
            face = np.median([[row[side] for side in ("x0", "y0", "x1", "y1")] for row in whole.to_pylist()], 0) * size
            for place in range(PLACES):
                chance = np.random.default_rng([height, place])
                pictures = list(frames(clip, face, height, background(options.data, chance), chance, count))
                start = time.process_time()
                table = landmarker.track(iter(pictures))
                spent += time.process_time() - start
                found.append(len(set(table["time"].to_pylist())) / count)
                first.append(min(table["time"].to_pylist(), default=options.seconds))
                if table.num_rows:
                    apart.append(np.nanmean(np.abs(units(table, steps) - units(whole, steps))))
        took = 1000 * spent / count / len(found)
        gap = np.mean(apart) if apart else np.nan
        print(
            f"{height:6d}  {100 * np.mean(found):4.0f} %  {np.mean(first):9.1f} s  {gap:10.3f}  {took:12.1f}",
            flush=True,
        )
    landmarker.close()


if __name__ == "__main__":
    main()
