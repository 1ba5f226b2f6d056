"""Measure what training makes of a hundred clips of one's own: leave one speaker out, several ways to train.

    emopipe extract CLIPS --labels labels.csv --out features
    python benchmarks/own_clips.py features --folds 7 --seeds 3

Means and standard deviations over speakers and seeds of the UAR (of numbers: the MAE), and for each way the difference
to the linear model with a 95 % bootstrap interval over speakers. `--speakers` keeps only some, so that settings can be
looked at on people that are not reported; `--share` keeps a part of each speaker's clips of each class.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from emopipe.models import checkpoint
from emopipe.models.data.dataset import Dataset
from emopipe.models.data.reading import read
from emopipe.models.evaluation.compare import Run, differences, summarise
from emopipe.models.evaluation.evaluate import evaluate, fold_datasets, train_fold
from emopipe.models.predictor import Predictor
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.loop import Trained
from emopipe.models.training.suitable import suit

#: What the linear model is called in the tables, with which others are compared.
REFERENCE = "linear"


def ways(arguments: argparse.Namespace, dataset: Dataset) -> Iterator[tuple[str, TrainConfig, Predictor | None]]:
    """The ways to train: name, configuration, what it begins with."""
    label = arguments.label
    start = checkpoint.load(arguments.start)
    yield REFERENCE, TrainConfig("linear", label=label), None
    yield "linear, as it is", TrainConfig("linear", {"relative": False}, label=label), None
    for name in arguments.modalities.split(","):
        if name:
            yield f"linear, {name}", TrainConfig("linear", label=label, modalities=(name,)), None
    begun = TrainConfig("emoe", dict(start.spec.options), label=label)
    yield "emoe", suit(begun, dataset, start, ())[0], start
    yield "emoe --start none", suit(TrainConfig("emoe", label=label), dataset, None, ())[0], None
    yield "emoe, fixed settings", TrainConfig("emoe", label=label), None


def main() -> None:
    """Print a row per way to train."""
    parser = argparse.ArgumentParser()
    parser.add_argument("features", type=Path)
    parser.add_argument("--label", default="label")
    parser.add_argument("--start", default="emopipe-default")
    parser.add_argument("--modalities", default="")
    parser.add_argument("--folds", type=int, default=7)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--speakers", default="", help="comma-separated; all")
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--only", default="", help="comma-separated beginnings of names")
    arguments = parser.parse_args()
    dataset = thinned(chosen(read(arguments.features), arguments.speakers), arguments.label, arguments.share)
    groups = dict(zip(dataset.ids, dataset.groups, strict=True))
    runs: list[Run] = []
    for name, config, start in ways(arguments, dataset):
        if arguments.only and not any(name.startswith(one) for one in [REFERENCE, *arguments.only.split(",")]):
            continue
        fresh = list(measured(name, dataset, config, start, arguments.folds, arguments.seeds))
        runs += fresh
        metric = "uar" if "uar" in fresh[0].metrics else "mae"
        told = summarise([{"fold": run.fold, "seed": run.seed, metric: run.metrics[metric]} for run in fresh])
        gap = next(one for one in differences(runs, REFERENCE, groups, metric) if one.model == name)
        seconds = np.mean([run.seconds for run in fresh])
        print(
            f"| {name} | {told.mean[metric]:.3f} ± {told.sd[metric]:.3f} | "
            f"{gap.difference:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}] | {seconds:.0f} s |",
            flush=True,
        )


def chosen(dataset: Dataset, speakers: str) -> Dataset:
    """The rows of some speakers."""
    names = [name for name in speakers.split(",") if name]
    return dataset.subset(np.isin(dataset.speakers.astype(str), names)) if names else dataset


def thinned(dataset: Dataset, label: str, share: float) -> Dataset:
    """A share of the rows of every speaker and class, the same ones every time."""
    if share >= 1:
        return dataset
    rng, kept = np.random.default_rng(0), []
    cells: dict[tuple[Any, Any], list[int]] = {}
    for row, cell in enumerate(zip(dataset.speakers, dataset.labels(label), strict=True)):
        cells.setdefault(cell, []).append(row)
    for rows in cells.values():
        kept += rng.permutation(rows)[: max(1, round(share * len(rows)))].tolist()
    return dataset.subset(np.array(sorted(kept)))


def measured(
    name: str, dataset: Dataset, config: TrainConfig, start: Predictor | None, folds: int, seeds: int
) -> Iterator[Run]:
    """Train and test on every fold with every seed."""
    for fold, (inner, test) in enumerate(fold_datasets(dataset, config, folds)):
        for seed in range(seeds):
            began = time.perf_counter()
            trained = train_fold(inner, replace(config, seed=seed, device="cpu"), start=start)
            yield tested(Run("", name, fold, seed, 0, time.perf_counter() - began, {}, [], [], []), trained, test)


def tested(empty: Run, trained: Trained, test: Dataset) -> Run:
    """What became of a training, on the people whom it did not see."""
    predictor, label = trained.predictor, trained.predictor.spec.label
    scores = predictor.scores(test)
    answers = predictor.spec.classes
    predicted = [answers[one] for one in scores.logits.argmax(1)] if answers else scores.logits[:, 0].tolist()
    return replace(
        empty,
        metrics=evaluate(predictor, test, None).metrics,
        ids=test.ids.tolist(),
        truth=test.labels(label).tolist(),
        predicted=predicted,
    )


if __name__ == "__main__":
    main()
