"""Regression: the sentiment of CMU-MOSI's or CH-SIMS's sentences from their words alone, beside two plain probes.

    python benchmarks/sentiment_text.py --data DATA --work WORK [--corpus mosi|chsims] [--model emoe|egmf] [--seeds 3]

DATA holds `mosi_text.csv` (English, -3 to 3) and `chsims_text.csv` (Chinese, -1 to 1). Trained on the training part for
a fixed number of epochs (`sentiment_text.MODEL.toml`) and measured on the validation part, which chooses nothing. The
probes are the training part's mean, and ridge regression (its penalty chosen by leave-one-out on the training part) on
the mean of an encoder's token vectors: MiniLM's, and those of the encoder that `emoe` tunes.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import numpy as np
import tomli_w
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from emopipe.models import metrics
from emopipe.models.data.reading import read

SHOWN: Final = ("mae", "corr", "acc2_has0", "acc2_non0", "acc7")
#: Text encoders that the probe stands on; the models read the words themselves.
ENCODERS: Final = ("minilm-l6", "multilingual-e5-small")
#: Corpus -> column of the words, and what a prompt must be told.
CORPORA: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "mosi": ("text", {}),
    "chsims": ("text_zh", {"language": "zh", "value_range": [-1.0, 1.0], "task_prompt": "情感强度是："}),
}


def extract(data: Path, work: Path, corpus: str, encoder: str) -> Path:
    """Token vectors of the sentences by `emopipe extract`; MOSI's capitals are made small."""
    work.mkdir(parents=True, exist_ok=True)
    table, out = work / f"{corpus}.csv", work / f"{corpus}-{encoder}"
    if not out.exists():
        with (data / f"{corpus}_text.csv").open(newline="", encoding="utf-8-sig") as source:
            column, _ = CORPORA[corpus]
            rows = [
                {"id": row["id"], "text": row[column].lower(), "speaker": row["video"]}
                | {name: row[name] for name in ("split", "sentiment")}
                for row in csv.DictReader(source)
            ]
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        _emopipe("extract", str(table), "--out", str(out), "--modalities", "text", "--text", encoder)
    return out


def configure(work: Path, corpus: str, model: str) -> Path:
    """The model's configuration, with what the corpus needs where the model asks in words."""
    tables = tomllib.loads(Path(__file__).with_suffix(f".{model}.toml").read_text(encoding="utf-8"))
    if model == "egmf":
        tables["model"] |= CORPORA[corpus][1]
    # CH-SIMS's published split cuts through its videos.
    tables["train"]["allow_speaker_overlap"] = corpus == "chsims"
    path = work / f"{corpus}.{model}.toml"
    path.write_text(tomli_w.dumps(tables), encoding="utf-8")
    return path


def probes(folder: Path, encoder: str) -> None:
    """Print the metrics of the mean predictor and of ridge regression on an encoder's vectors."""
    dataset = read(folder)
    labels = dataset.labels("sentiment")
    train, valid = (np.flatnonzero(dataset.split == name) for name in ("train", "valid"))
    pooled = np.array([dataset.sample(row).features["text"].mean(0) for row in range(len(dataset))])
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 21))).fit(pooled[train], labels[train])
    predictions = {
        "mean of the training part": np.full(len(valid), labels[train].mean()),
        f"ridge on {encoder}": ridge.predict(pooled[valid]),
    }
    for name, predicted in predictions.items():
        scores = metrics.regression(labels[valid], predicted)
        print(f"{name}: " + ", ".join(f"{key} {scores[key]:.3f}" for key in SHOWN))


def _emopipe(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "emopipe.pipeline", *arguments], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--corpus", choices=list(CORPORA), default="mosi")
    parser.add_argument("--model", choices=["emoe", "egmf"], default="emoe")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    for encoder in ENCODERS:
        folder = extract(options.data, options.work, options.corpus, encoder)
        probes(folder, encoder)
    config = configure(options.work, options.corpus, options.model)
    measure = ["--label", "sentiment", "--seeds", str(options.seeds), "--config", str(config)]
    _emopipe("evaluate", str(folder), "--model", options.model, *measure)


if __name__ == "__main__":
    main()
