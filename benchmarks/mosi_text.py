"""Regression: the sentiment of CMU-MOSI's sentences from their words alone, beside two plain probes.

    python benchmarks/mosi_text.py --data DATA --work WORK [--seeds 3] [--model emoe]

DATA holds `mosi_text.csv`. Trained on the training part for a fixed number of epochs (`mosi_text.toml`) and measured on
the validation part, which chooses nothing. The probes are the training part's mean, and ridge regression (its penalty
chosen by leave-one-out on the training part) on the mean of the same token vectors.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from emopipe.models import metrics
from emopipe.models.data import read

CONFIG: Final = Path(__file__).with_suffix(".toml")
SHOWN: Final = ("mae", "corr", "acc2_has0", "acc2_non0", "acc7")


def extract(data: Path, work: Path) -> Path:
    """Token vectors of the sentences by `emopipe extract`."""
    work.mkdir(parents=True, exist_ok=True)
    table, out = work / "mosi.csv", work / "mosi"
    if not out.exists():
        with (data / "mosi_text.csv").open(newline="", encoding="utf-8-sig") as source:
            rows = [{"id": row["id"], "text": row["text"].lower(), "speaker": row["video"], "split": row["split"],
                     "sentiment": row["sentiment"]} for row in csv.DictReader(source)]  # fmt: skip
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        _emopipe("extract", str(table), "--out", str(out), "--modalities", "text")
    return out


def probes(folder: Path) -> None:
    """Print the metrics of the mean predictor and of ridge regression."""
    dataset = read(folder)
    labels = dataset.labels("sentiment")
    train, valid = (np.flatnonzero(dataset.split == name) for name in ("train", "valid"))
    pooled = np.array([dataset.sample(row).features["text"].mean(0) for row in range(len(dataset))])
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 21))).fit(pooled[train], labels[train])
    found = {
        "mean of the training part": np.full(len(valid), labels[train].mean()),
        "ridge": ridge.predict(pooled[valid]),
    }
    for name, predicted in found.items():
        scores = metrics.regression(labels[valid], predicted)
        print(f"{name}: " + ", ".join(f"{key} {scores[key]:.3f}" for key in SHOWN))


def _emopipe(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "emopipe.pipeline", *arguments], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model", default="emoe")
    options = parser.parse_args()
    folder = extract(options.data, options.work)
    probes(folder)
    measure = ["--label", "sentiment", "--seeds", str(options.seeds), "--config", str(CONFIG)]
    _emopipe("evaluate", str(folder), "--model", options.model, *measure)


if __name__ == "__main__":
    main()
