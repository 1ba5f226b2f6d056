"""How fast the compact EMOE trains on cached features, and how much of an epoch is not the network.

    python benchmarks/training_throughput.py [--utterances 10000] [--epochs 1] [--threads 2]

The features are generated, in the default extraction's sizes: 8 to 24 tokens of text, 2 to 6 windows of face and voice.
An epoch reads the rows from disk, makes batches, hides modalities, runs the network forward and backward, and moves
the weights. The share outside the network is what forward, loss and backward do not take.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w
import torch

from emopipe.extractors.windows import FeatureSequence
from emopipe.models.data.reading import read
from emopipe.models.networks.emoe import Emoe
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.loop import train
from emopipe.pipeline.config import ExtractionConfig
from emopipe.pipeline.datasets.writing import FeatureWriter

#: Modality -> width of a step, fewest and most steps.
SIZES: Final = {"text": (384, 8, 24), "face": (126, 2, 6), "voice": (3936, 2, 6)}
LABELS: Final = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")


def write_dataset(folder: Path, utterances: int) -> None:
    """Random features and labels in the format that `emopipe extract` writes."""
    rng = np.random.default_rng(0)
    keys = [str(number) for number in range(utterances)]
    for modality, (width, least, most) in SIZES.items():
        with FeatureWriter(folder, modality, [f"{modality}_{index}" for index in range(width)]) as writer:
            for key in keys:
                times = np.arange(rng.integers(least, most + 1), dtype=np.float64)
                writer.add(key, FeatureSequence(times, times + 1, rng.standard_normal((len(times), width), np.float32)))
    columns: dict[str, Any] = {"id": keys, "media": keys, "speaker": keys, "label": rng.choice(LABELS, utterances)}
    columns |= {"start": np.zeros(utterances), "end": np.full(utterances, 5.0), "split": ["train"] * utterances}
    for modality in SIZES:
        columns |= {modality: keys, f"{modality}_quality": np.ones(utterances)}
        columns |= {f"{modality}_absent": pa.nulls(utterances, pa.string())}
    pq.write_table(pa.table(columns), folder / "manifest.parquet")
    (folder / "config.toml").write_text(tomli_w.dumps(ExtractionConfig().as_dict()), "utf-8")


class Stopwatch:
    """Adds up the seconds that wrapped functions take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Time a function's calls."""

        @wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds += time.perf_counter() - began

        return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network, epochs = Stopwatch(), []
    Emoe.forward = network(Emoe.forward)  # type: ignore[method-assign]
    Emoe.loss = network(Emoe.loss)  # type: ignore[method-assign]
    torch.Tensor.backward = network(torch.Tensor.backward)  # type: ignore[method-assign]

    def hook(event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            epochs.append(event["seconds"])

    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder), options.utterances)
        config = TrainConfig(epochs=options.epochs, select="last", device="cpu")
        train(read(Path(folder)), config, hook=hook)
    total = sum(epochs)
    rate = options.utterances * len(epochs) / total
    description = f"{len(epochs)} epochs, batches of {config.batch_size}, {options.threads} threads"
    print(f"{options.utterances} utterances, {description}")
    print(f"{total / len(epochs):.1f} s an epoch, {rate:.0f} utterances per second")
    print(f"outside the network's forward, loss and backward: {100 * (1 - network.seconds / total):.1f} %")


if __name__ == "__main__":
    main()
