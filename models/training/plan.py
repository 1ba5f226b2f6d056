"""Plan a training: which rows to train and validate on, their targets, and how much each counts."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emopipe.errors import TrainingError
from emopipe.models.data.dataset import Dataset, Floats, Indices
from emopipe.models.data.labelled import even_weights, label_doubts, soft_targets, targets, usable
from emopipe.models.data.splits import holdout, manifest_split, refuse_overlap
from emopipe.models.data.votes import votes_in_words
from emopipe.models.networks.losses import Task
from emopipe.models.predictor import Spec, pattern_name
from emopipe.models.registry import configure, entry
from emopipe.models.scoring import Scoring, scoring
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.events import Hook

Split = tuple[Indices, Indices]


@dataclass(frozen=True)
class Plan:
    """What is trained on what: rows, targets (N,) of every dataset row, and sample weights (N,).

    `shares` (N, C) are those of the classes in the votes of several coders, where they are learned; else None.
    """

    data: Dataset
    train: Indices
    valid: Indices
    task: Task
    classes: tuple[str, ...]
    targets: Tensor
    weights: Floats
    metric: str
    label: str
    shares: Tensor | None = None

    @cached_property
    def largest(self) -> float:
        """The largest absolute value of the labels of the dataset, which all its folds share; of values alone."""
        return self.data.largest(self.label)

    @property
    def scoring(self) -> Scoring:
        """How values are scored; of values alone."""
        return scoring(self.data.corpora, self.label, self.largest)


def choose_split(data: Dataset, config: TrainConfig) -> Split:
    """Choose rows to train and validate on: the manifest's split, or one of our own by speaker.

    Raises:
        TrainingError: too few rows, classes or speakers, or a speaker on both sides.
    """
    good = usable(data, config.label)
    pool = np.flatnonzero(good & (data.split != "test"))
    if not config.allow_speaker_overlap:
        refuse_overlap(data, pool, np.flatnonzero(data.split == "test"), "training and test")
    rest = data.subset(pool)
    given = manifest_split(rest, config.allow_speaker_overlap)
    if given is None and not needs_validation(config):
        return pool, np.zeros(0, dtype=np.int64)
    if given is None:
        _check_classes(data.labels(config.label)[pool])
        labels = rest.labels(config.label)
        given = holdout(rest, labels, config.folds, config.seed, not config.allow_speaker_overlap)
    return pool[given[0]], pool[given[1]]


def needs_validation(config: TrainConfig) -> bool:
    """Whether rows must be held out of training, to choose the epoch."""
    return config.select == "best" and entry(config.model).model.by_gradient


def _check_classes(labels: NDArray[Any]) -> None:
    """Raise a TrainingError when there is nothing to learn from the labels of the training rows."""
    if len(labels) == 0:
        raise TrainingError("no row has a label and a modality", hint="Check the label column and the modalities")
    if labels.dtype == object and len(set(labels)) < 2:
        raise TrainingError(
            f"all rows to train on are labelled {labels[0]!r}", hint="Training needs two classes or more"
        )


def make_plan(data: Dataset, config: TrainConfig, split: Split, hook: Hook) -> Plan:
    """Plan a training on a split, without the rows that cannot be used; the hook is told how many these are.

    Raises:
        TrainingError: too few rows or classes.
    """
    good = usable(data, config.label)
    train_rows, valid_rows = (rows[good[rows]] for rows in split)
    dropped = len(split[0]) + len(split[1]) - len(train_rows) - len(valid_rows)
    if dropped:
        hook({"event": "warning", "message": f"{dropped} rows without label or modality are left out"})
    for doubt in label_doubts(data, config.label):
        hook({"event": "warning", "message": doubt})
    labels = data.labels(config.label)
    _check_classes(labels[train_rows])
    if needs_validation(config) and len(valid_rows) == 0:
        raise TrainingError(
            "there are no rows to validate on", hint='Mark some as split "valid", or set select = "last"'
        )
    task: Task = "classification" if labels.dtype == object else "regression"
    classes = _classes(labels, train_rows, valid_rows) if task == "classification" else ()
    numbers = targets(data, config.label, classes)
    if not (data.weights[train_rows] > 0).any():
        raise TrainingError("all rows to train on have the weight 0", hint="Correct the column weight")
    even = even_weights(data.weights, train_rows).astype(np.float32)
    weights = balanced_weights(data, numbers, train_rows, config) if classes else even
    metric = ("uar" if classes else "mae") if config.metric == "auto" else config.metric
    truth = torch.from_numpy(numbers if classes else numbers.astype(np.float32))
    shares = soft_targets(data, config.label, classes) if config.soft_labels else None
    if (votes := data.votes(config.label)) is not None:
        learned = "the shares" if shares is not None else "the means" if not votes.classes else "the majority"
        hook({"event": "start", "message": f"learns {learned} of {votes_in_words(votes)}"})
    soft = None if shares is None else torch.from_numpy(shares)
    return Plan(data, train_rows, valid_rows, task, classes, truth, weights, metric, config.label, soft)


def _classes(labels: NDArray[Any], train_rows: Indices, valid_rows: Indices) -> tuple[str, ...]:
    """The classes that there are to learn, in the order of their names."""
    classes = tuple(sorted(set(labels[train_rows])))
    unseen = sorted(set(labels[valid_rows]) - set(classes))
    if unseen:
        raise TrainingError(
            f"class {unseen[0]!r} is validated on but never trained on",
            hint="Record it from two speakers or more, or leave it out",
        )
    return classes


def _patterns(data: Dataset) -> NDArray[np.int64]:
    """Number the sets of present modalities: (N,)."""
    number: NDArray[np.int64] = data.present.astype(np.int64) @ (1 << np.arange(data.present.shape[1], dtype=np.int64))
    return number


def balanced_weights(data: Dataset, numbers: Indices, rows: Indices, config: TrainConfig) -> Floats:
    """Balance classes by sample weights (N,); see `balance` of :class:`TrainConfig`.

    Args:
        data: N rows.
        numbers: (N,) indices of their classes.
        rows: those trained on, whose weights have a mean of 1; others keep their own.
        config: how.
    """
    weights = data.weights.astype(np.float64)
    if config.balance != "none":
        cell = _patterns(data) if config.balance == "patterns" else np.zeros(len(data), dtype=np.int64)
        for one in np.unique(cell[rows]):
            inside = rows[cell[rows] == one]
            mass = np.bincount(numbers[inside], weights[inside])
            share = mass.sum() / (np.count_nonzero(mass) * np.maximum(mass, 1e-12))
            factors = np.minimum(share, config.balance_limit) ** config.balance_strength
            weights[inside] *= factors[numbers[inside]]
    return even_weights(weights.astype(np.float32), rows).astype(np.float32)


def _priors(plan: Plan) -> dict[str, dict[str, list[float]]]:
    """Class shares of the training rows per presence pattern, as found and as weighted, plus one row per class."""
    numbers, count = plan.targets.numpy()[plan.train], len(plan.classes)
    names = np.array([pattern_name(row, plan.data.modalities) for row in plan.data.present[plan.train]])
    found: dict[str, dict[str, list[float]]] = {}
    for name in ["", *sorted(set(names))]:
        inside = names == name if name else np.ones(len(names), dtype=bool)
        natural = np.bincount(numbers[inside], minlength=count) + 1.0
        trained = np.bincount(numbers[inside], plan.weights[plan.train][inside], count) + 1.0
        found[name] = {"natural": (natural / natural.sum()).tolist(), "trained": (trained / trained.sum()).tolist()}
    return found


def make_spec(plan: Plan, config: TrainConfig, best: Mapping[str, Any] | None = None) -> Spec:
    """Describe the model to train, or that was trained: what its checkpoint says of it.

    Args:
        plan: what it is trained on.
        config: how.
        best: the record of the epoch that was kept.
    """
    training: dict[str, Any] = {
        "dataset": plan.data.hash,
        "rows": {"train": len(plan.train), "valid": len(plan.valid)},
        "config": {key: value for key, value in asdict(config).items() if key not in ("model", "options")},
        "best": dict(best or {}),
        "versions": {"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()},
    }
    if plan.task == "regression":
        training["largest_label"] = plan.largest
        if plan.data.corpora:
            training["corpora"] = list(plan.data.corpora)
    return Spec(
        model=config.model,
        options=asdict(configure(config.model, config.options)),
        task=plan.task,
        label=config.label,
        classes=plan.classes,
        schema=plan.data.schema,
        extraction=plan.data.extraction,
        priors=_priors(plan) if plan.task == "classification" else {},
        training=training,
    )
