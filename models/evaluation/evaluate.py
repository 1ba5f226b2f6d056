"""Evaluate a predictor: metrics on a split, on every subset of the modalities, and over folds and seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import confusion_matrix

from emopipe.errors import DatasetError
from emopipe.models import metrics
from emopipe.models.data.dataset import Dataset, Indices
from emopipe.models.data.labelled import labelled, presence, usable
from emopipe.models.data.splits import folds as make_folds
from emopipe.models.data.splits import holdout
from emopipe.models.predictor import Predictor, Prior
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.events import Hook, silent
from emopipe.models.training.loop import Trained, train

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        rows: utterances with a known label and at least one of the modalities.
        no_evidence: labelled utterances left out because they have none of the modalities.
        metrics: see :mod:`emopipe.models.metrics`; classes also have `ece`.
        weights: modality -> mean router weight where it is present.
        subsets: such as `text+face` -> rows having all of these, and the metrics with everything else hidden.
        confusion: rows true, columns predicted, in the order of `classes`; empty for regression.
        classes: the class names.
    """

    rows: int
    no_evidence: int
    metrics: dict[str, float]
    weights: dict[str, float]
    subsets: dict[str, dict[str, float]]
    confusion: list[list[int]]
    classes: tuple[str, ...]

    def to_pandas(self) -> pd.DataFrame:
        """One row per subset of the modalities, with the index `modalities` and a column per figure."""
        import pandas as pd

        return pd.DataFrame.from_dict(self.subsets, orient="index").rename_axis("modalities")


def evaluate(
    predictor: Predictor,
    dataset: Dataset,
    split: str | None = "test",
    modalities: Sequence[str] | None = None,
    prior: Prior | Mapping[str, float] = "uniform",
) -> Evaluation:
    """Evaluate a predictor: compute its metrics on labelled rows.

    Args:
        predictor: what to measure.
        dataset: labelled rows.
        split: rows of this split only; None for all.
        modalities: hide all others.
        prior: see :meth:`emopipe.models.predictor.Predictor.probabilities`.

    Raises:
        DatasetError: there is no row to measure on.
        FeatureMismatch: the dataset's features are not those of the predictor.
    """
    predictor.check_features(dataset.schema, dataset.extraction)
    available = [name for name in predictor.spec.modalities if name in dataset.modalities]
    chosen = [name for name in available if modalities is None or name in modalities]
    known_label = labelled(dataset, predictor.spec.label, predictor.spec.classes, split=split)
    rows = np.flatnonzero(known_label & presence(dataset, chosen).any(axis=1))
    if len(rows) == 0:
        where = "" if split is None else f" of split {split!r}"
        raise DatasetError(f"no row{where} has a label and a modality that the model knows")
    figures, weights, confusion = _measure(predictor, dataset, rows, chosen, prior)
    subsets = {}
    for names in _subsets(chosen):
        inside = rows[presence(dataset, names)[rows].all(axis=1)]
        if len(inside):
            is_all = len(names) == len(chosen) and len(inside) == len(rows)
            subset_figures = figures if is_all else _measure(predictor, dataset, inside, names, prior)[0]
            subsets["+".join(names)] = {"rows": float(len(inside)), **subset_figures}
    return Evaluation(
        len(rows), int(known_label.sum()) - len(rows), figures, weights, subsets, confusion, predictor.spec.classes
    )


def _subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    return [subset for size in range(1, len(names) + 1) for subset in combinations(names, size)]


def _measure(
    predictor: Predictor,
    dataset: Dataset,
    rows: Indices,
    names: Sequence[str],
    prior: Prior | Mapping[str, float],
) -> tuple[dict[str, float], dict[str, float], list[list[int]]]:
    scores = predictor.scores(dataset, rows, names)
    weights = {}
    for column, name in enumerate(predictor.spec.modalities):
        if scores.present[:, column].any():
            weights[name] = float(scores.weights[scores.present[:, column], column].mean())
    truth = dataset.labels(predictor.spec.label)[rows]
    if predictor.spec.task == "regression":
        return metrics.regression(truth.astype(np.float64), scores.logits[:, 0]), weights, []
    classes = np.array(predictor.spec.classes)
    probabilities = predictor.probabilities(scores, prior)
    predicted, truth = classes[probabilities.argmax(axis=1)], truth.astype(str)
    figures = metrics.classification(truth, predicted)
    figures["ece"] = metrics.expected_calibration_error(probabilities.max(axis=1), predicted == truth)
    return figures, weights, confusion_matrix(truth, predicted, labels=classes).tolist()


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation of figures over several runs.

    Attributes:
        runs: one record per run: `fold`, `seed` and its metrics.
        mean, sd: per metric, over the runs in which it is defined; sd with n - 1, NaN for one run.
    """

    runs: list[dict[str, Any]]
    mean: dict[str, float]
    sd: dict[str, float]

    def to_pandas(self) -> pd.DataFrame:
        """One row per run, with the index (fold, seed) and a column per metric."""
        import pandas as pd

        return pd.DataFrame(self.runs).set_index(["fold", "seed"])


def summarise(runs: list[dict[str, Any]]) -> Summary:
    """Compute mean and standard deviation of every metric of the runs."""
    names = [name for name in runs[0] if name not in ("fold", "seed")]
    values = {name: np.array([run[name] for run in runs if not math.isnan(run[name])]) for name in names}
    mean = {name: float(numbers.mean()) if len(numbers) else math.nan for name, numbers in values.items()}
    sd = {name: float(numbers.std(ddof=1)) if len(numbers) > 1 else math.nan for name, numbers in values.items()}
    return Summary(runs, mean, sd)


def cross_validate(
    dataset: Dataset,
    config: TrainConfig,
    folds: int = 5,
    seeds: Sequence[int] = (0,),
    modalities: Sequence[str] | None = None,
    prior: Prior | Mapping[str, float] = "uniform",
    hook: Hook = silent,
    requires: Sequence[str] = (),
) -> Summary:
    """Cross-validate: train and test on speaker-grouped folds, with several seeds.

    The epoch is selected on a part of the training speakers, never on the fold that is tested. The folds are the same
    for every seed, so that runs of different models pair up.

    Args:
        dataset: all labelled rows take part, whatever their split.
        config: what to train; its seed is replaced.
        folds: how many.
        seeds: of training.
        modalities: train and test on these only.
        prior: see :func:`evaluate`.
        hook: receives `{"event": "run", "fold": ..., "seed": ..., metrics}` beside the events of training.
        requires: validate and test only on rows that have all of these; others may still be trained on.
    """
    data = dataset.select(modalities) if modalities else dataset
    runs = []
    for fold, (inner, test) in enumerate(fold_datasets(data, config, folds, requires)):
        for seed in seeds:
            trained = train_fold(inner, replace(config, seed=seed), requires, hook)
            figures = evaluate(trained.predictor, test, None, prior=prior).metrics
            runs.append({"fold": fold, "seed": seed, **figures})
            hook({"event": "run", **runs[-1]})
    return summarise(runs)


def fold_datasets(
    dataset: Dataset, config: TrainConfig, folds: int, requires: Sequence[str] = ()
) -> list[tuple[Dataset, Dataset]]:
    """Cut the folds of :func:`cross_validate`: rows to train on, and rows to test on that have all of `requires`."""
    data = dataset.subset(usable(dataset, config.label))
    pairs = make_folds(data, data.labels(config.label), folds, 0, not config.allow_speaker_overlap)
    return [
        (_without_split(data.subset(rest)), data.subset(test[presence(data, requires)[test].all(axis=1)]))
        for rest, test in pairs
    ]


def train_fold(inner: Dataset, config: TrainConfig, requires: Sequence[str] = (), hook: Hook = silent) -> Trained:
    """Train on the training part of a fold; the rows it validates on have all of `requires`."""
    if not requires or config.select == "last":
        return train(inner, config, hook=hook)
    labels, by_speaker = inner.labels(config.label), not config.allow_speaker_overlap
    rest, held = holdout(inner, labels, config.folds, config.seed, by_speaker)
    return train(inner, config, split=(rest, held[presence(inner, requires)[held].all(axis=1)]), hook=hook)


def _without_split(dataset: Dataset) -> Dataset:
    """The same rows, all of split train, so that training makes a split of its own."""
    manifest = dataset.manifest
    at = manifest.column_names.index("split")
    return dataset.with_manifest(manifest.set_column(at, "split", [["train"] * len(dataset)]))


def evaluate_seeds(
    dataset: Dataset,
    config: TrainConfig,
    seeds: Sequence[int],
    split: str = "valid",
    modalities: Sequence[str] | None = None,
    prior: Prior | Mapping[str, float] = "uniform",
    hook: Hook = silent,
) -> Summary:
    """Train on the manifest's split with several seeds and measure on `split`."""
    data = dataset.select(modalities) if modalities else dataset
    runs = []
    for seed in seeds:
        trained = train(data, replace(config, seed=seed), hook=hook)
        runs.append({"fold": 0, "seed": seed, **evaluate(trained.predictor, data, split, prior=prior).metrics})
        hook({"event": "run", **runs[-1]})
    return summarise(runs)
