"""Compare models on the same folds and seeds, with confidence intervals of their differences."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from emopipe.errors import StudyError
from emopipe.files import writing
from emopipe.models.checkpoint import identify
from emopipe.models.data.dataset import Dataset
from emopipe.models.data.labelled import labelled
from emopipe.models.evaluation.evaluate import evaluate, fold_datasets, split_datasets, summarise, train_fold
from emopipe.models.predictor import Predictor
from emopipe.models.registry import configure
from emopipe.models.training.calibration import Answers
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.events import Hook, silent

Numbers = NDArray[np.float64]

#: Of the bootstrap.
RESAMPLES: Final = 4000
#: How far the logit of a class that a model does not know is below its others.
UNKNOWN: Final = 20.0


@dataclass(frozen=True)
class Run:
    """One model trained once and tested once.

    Attributes:
        key: what was trained on what: configuration, data, folds.
        model, fold, seed: which run.
        parameters: of the network that are trained.
        seconds: of training.
        metrics: see :mod:`emopipe.models.metrics`.
        ids, truth, predicted: of the N utterances tested on: class names, or values.
        classes, logits: the C classes that it knows, and (N, C) what it says of each; empty for values.
    """

    key: str
    model: str
    fold: int
    seed: int
    parameters: int
    seconds: float
    metrics: dict[str, float]
    ids: list[str]
    truth: list[Any]
    predicted: list[Any]
    classes: list[str] = field(default_factory=list)
    logits: list[list[float]] = field(default_factory=list)


def compare(
    dataset: Dataset,
    configs: Mapping[str, TrainConfig],
    folds: int = 5,
    seeds: Sequence[int] = (0, 1, 2),
    requires: Sequence[str] = (),
    record: Path | None = None,
    hook: Hook = silent,
    starts: Mapping[str, Predictor] | None = None,
    split: str | None = None,
) -> list[Run]:
    """Train and test every model on every fold with every seed.

    Args:
        dataset: all labelled rows take part, whatever their split.
        configs: name -> what to train; its seed is replaced. Equal configurations are trained once.
        folds: how many parts the speakers are cut into; the same for all.
        seeds: of training.
        requires: validate and test only on rows that have all of these modalities.
        record: a file of JSON lines that each run is added to, and from which an interrupted call goes on. It knows
            configuration and data, not the code: remove it when a model was changed.
        hook: receives `{"event": "run", "model": ..., "fold": ..., "seed": ..., metrics}` beside those of training.
        starts: name -> a trained model that its trainings begin with.
        split: test on this split of the dataset, after training on its train and choosing on its valid; None: on folds.

    Raises:
        StudyError: the models are to predict different columns, or the dataset has no such split.
    """
    labels = {config.label for config in configs.values()}
    if len(labels) != 1:
        raise StudyError(f"models that are compared predict one column, not {', '.join(sorted(labels)) or 'none'}")
    recorded = {(run.key, run.fold, run.seed): run for run in read_runs(record)}
    first = next(iter(configs.values()))
    if split is None:
        parts = fold_datasets(dataset, first, folds, requires)
    else:
        parts = split_datasets(dataset, first, split, requires)
    begun = starts or {}
    how = split or folds
    keys = {name: _key(dataset, config, how, requires, begun.get(name)) for name, config in configs.items()}
    runs = []
    for fold, (inner, test) in enumerate(parts):
        for seed in seeds:
            for name, config in configs.items():
                place = (keys[name], fold, seed)
                if place not in recorded:
                    empty = Run(keys[name], name, fold, seed, 0, 0.0, {}, [], [], [])
                    seeded, start = replace(config, seed=seed), begun.get(name)
                    recorded[place] = train_and_test(empty, inner, test, seeded, requires, hook=hook, start=start)
                    append_run(record, recorded[place])
                runs.append(replace(recorded[place], model=name))
                hook({"event": "run", "model": name, "fold": fold, "seed": seed, **runs[-1].metrics})
    return runs


def train_and_test(
    empty: Run,
    inner: Dataset,
    test: Dataset,
    config: TrainConfig,
    requires: Sequence[str] = (),
    *,
    hook: Hook = silent,
    start: Predictor | None = None,
) -> Run:
    """Train a model on the rows of a fold and test it on others; fills in a run."""
    began = time.perf_counter()
    predictor = train_fold(inner, config, requires, hook, start=start).predictor
    seconds = time.perf_counter() - began
    measured = evaluate(predictor, test, None, by_subset=False).metrics
    rows = np.flatnonzero(labelled(test, config.label, modalities=predictor.spec.modalities))
    truth = test.labels(config.label)[rows].tolist()
    answers = predictor.scores(test, rows).logits
    classes = predictor.spec.classes
    if classes:
        best: list[Any] = [classes[column] for column in answers.argmax(axis=1)]
    else:
        best = predictor.scoring(test).cut(answers[:, 0].astype(float)).tolist()
    return replace(
        empty,
        parameters=sum(one.numel() for one in predictor.module.parameters() if one.requires_grad),
        seconds=seconds,
        metrics=measured,
        ids=test.ids[rows].tolist(),
        truth=truth,
        predicted=best,
        classes=list(classes),
        logits=np.round(answers.astype(float), 4).tolist() if classes else [],
    )


def _key(
    dataset: Dataset, config: TrainConfig, how: int | str, requires: Sequence[str], start: Predictor | None = None
) -> str:
    facts = facts_of(dataset, config, how, requires)
    facts += [] if start is None else [identify(start)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def facts_of(dataset: Dataset, config: TrainConfig, how: int | str, requires: Sequence[str]) -> list[Any]:
    """What runs depend on beside their fold and seed: configuration, data and folds."""
    options = asdict(configure(config.model, config.options))
    for place in ("backbone_path", "text_weights_path"):
        options.pop(place, None)
    plain = {name: value for name, value in asdict(config).items() if name not in ("seed", "device", "options")}
    facts = [plain, options, dataset.hash, list(dataset.modalities), len(dataset), how, list(requires)]
    return [*facts, list(dataset.corpora)] if dataset.corpora else facts


def read_runs(record: Path | None) -> list[Run]:
    """Read the runs of a record; a last line that a kill cut short is left out."""
    if record is None or not record.is_file():
        return []
    lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
    return [Run(**json.loads(line)) for line in lines if line.endswith("\n")]


def append_run(record: Path | None, run: Run) -> None:
    """Add a run to a record, in the place of a last line that a kill cut short."""
    if record is None:
        return
    with writing("the record of runs", record):
        record.parent.mkdir(parents=True, exist_ok=True)
        content = record.read_bytes() if record.is_file() else b""
        with record.open("r+b" if content else "wb") as file:
            file.truncate(content.rfind(b"\n") + 1)
            file.seek(0, 2)
            file.write((json.dumps(asdict(run)) + "\n").encode())


def answers_of(run: Run, classes: Sequence[str]) -> Answers:
    """What a run says of the rows whose class it knows, its logits in the order of `classes`.

    A class that it does not know is as good as impossible.
    """
    rows = [row for row, truth in enumerate(run.truth) if truth in run.classes]
    known = np.array([run.logits[row] for row in rows], dtype=np.float64).reshape(len(rows), len(run.classes))
    logits = np.repeat(known.min(axis=1, keepdims=True, initial=0.0) - UNKNOWN, len(classes), axis=1)
    logits[:, [classes.index(name) for name in run.classes]] = known
    return Answers(logits, np.array([classes.index(run.truth[row]) for row in rows], dtype=np.int64))


# ----------------------------------------------------------------------------------------------------------- the tables


def scores(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Tabulate a row per model: parameters, seconds per run, mean and standard deviation over runs of each metric."""
    rows = []
    for name in dict.fromkeys(run.model for run in runs):
        model_runs = [run for run in runs if run.model == name]
        summary = summarise([{"fold": run.fold, "seed": run.seed, **run.metrics} for run in model_runs])
        row: dict[str, Any] = {"model": name, "runs": len(model_runs), "parameters": model_runs[0].parameters}
        row["seconds"] = float(np.mean([run.seconds for run in model_runs]))
        for metric, value in summary.mean.items():
            row |= {metric: value, f"{metric}_sd": summary.sd[metric]}
        rows.append(row)
    return rows


def default_metric(runs: Sequence[Run]) -> str:
    """Uar for classes, mae for values."""
    return "mae" if "mae" in runs[0].metrics else "uar"


@dataclass(frozen=True)
class Difference:
    """The difference between a model and the reference, with its confidence intervals.

    Attributes:
        model: whose.
        pooled, reference: the metric over the test utterances of all folds together, averaged over the seeds.
        difference, low, high: pooled - reference and its 95 % bootstrap interval. Each of the resamples draws the
            speakers (or media files) of the test utterances with replacement, the same for both models; NaN for a
            single one.
        run_difference, run_low, run_high: the mean of the differences of runs that share fold and seed, and its 95 %
            t interval, the variance corrected for overlapping training sets (Nadeau and Bengio 2003).
    """

    model: str
    pooled: float
    reference: float
    difference: float
    low: float
    high: float
    run_difference: float
    run_low: float
    run_high: float


def differences(
    runs: Sequence[Run], reference: str, groups: Mapping[str, str], metric: str, resamples: int = RESAMPLES
) -> list[Difference]:
    """Compare every model, itself too, with the reference, on the utterances that both gave an answer for.

    Args:
        runs: of :func:`compare`.
        reference: a model's name.
        groups: utterance -> what is resampled together.
        metric: one of :data:`SCORES`.
        resamples: how many.

    Raises:
        ConfigError: no such model, or a metric that cannot be resampled.
    """
    names = list(dict.fromkeys(run.model for run in runs))
    if reference not in names:
        raise StudyError(f"the reference {reference!r} is not compared", hint=f"Choose one of: {', '.join(names)}")
    if metric not in SCORES or metric not in runs[0].metrics:
        usable = ", ".join(name for name in SCORES if name in runs[0].metrics)
        raise StudyError(f"differences of {metric!r} have no interval", hint=f"Choose one of: {usable}")
    each = {name: [run for run in runs if run.model == name] for name in names}
    return [_difference(each[name], each[reference], groups, metric, resamples) for name in names]


def _difference(
    model_runs: Sequence[Run], reference_runs: Sequence[Run], groups: Mapping[str, str], metric: str, resamples: int
) -> Difference:
    common = answered(model_runs) & answered(reference_runs)
    if not common:
        return Difference(model_runs[0].model, *[float("nan")] * 8)
    classes = sorted({str(label) for run in [*model_runs, *reference_runs] for label in [*run.truth, *run.predicted]})
    members = sorted({groups[name] for name in common})
    weights = resampled_groups(len(members), resamples)
    both = [pooled(runs, common, groups, members, classes, metric, weights) for runs in (model_runs, reference_runs)]
    gaps = both[0] - both[1]
    low, high = np.nanpercentile(gaps[1:], (2.5, 97.5)) if len(members) > 1 else (np.nan, np.nan)
    per_run = _run_gaps(model_runs, reference_runs, metric)
    half = _half_width(per_run, len({run.fold for run in model_runs}))
    middle = float(per_run.mean())
    return Difference(
        model_runs[0].model,
        float(both[0][0]),
        float(both[1][0]),
        float(gaps[0]),
        float(low),
        float(high),
        middle,
        middle - half,
        middle + half,
    )


def score_interval(
    run: Run, groups: Mapping[str, str], metric: str, resamples: int = RESAMPLES
) -> tuple[float, float, float]:
    """Compute a metric of one run and the ends of its 95 % bootstrap interval; NaN ends for a single group.

    Args:
        run: of :func:`compare`.
        groups: utterance -> what is resampled together.
        metric: one of :data:`SCORES`.
        resamples: how many.
    """
    common = answered([run])
    if not common:
        return math.nan, math.nan, math.nan
    members = sorted({groups[name] for name in common})
    classes = sorted({str(label) for label in [*run.truth, *run.predicted]})
    weights = resampled_groups(len(members), resamples)
    values = pooled([run], common, groups, members, classes, metric, weights)
    low, high = np.nanpercentile(values[1:], (2.5, 97.5)) if len(members) > 1 else (math.nan, math.nan)
    return float(values[0]), float(low), float(high)


def answered(runs: Sequence[Run]) -> set[str]:
    """The utterances for which no run failed to give a value."""
    failed = {
        name
        for run in runs
        for name, predicted in zip(run.ids, run.predicted, strict=True)
        if isinstance(predicted, float) and math.isnan(predicted)
    }
    return {name for run in runs for name in run.ids} - failed


def resampled_groups(count: int, resamples: int) -> Numbers:
    """How often each of some groups is drawn (1 + resamples, count); the first row is the data themselves."""
    drawn = np.random.default_rng(0).multinomial(count, [1 / count] * count, resamples)
    return np.concatenate([np.ones((1, count)), drawn])


def pooled(
    runs: Sequence[Run],
    common: set[str],
    groups: Mapping[str, str],
    members: Sequence[str],
    classes: Sequence[str],
    metric: str,
    weights: Numbers,
) -> Numbers:
    """Compute (R,) the metric over all folds, averaged over seeds, for each row of group weights (R, G)."""
    place, index = ({name: i for i, name in enumerate(names)} for names in (members, classes))
    seeds = sorted({run.seed for run in runs})
    size = 1 if metric == "mae" else len(classes)
    seed_scores = []
    for seed in seeds:
        table = np.zeros((len(members), size, size + (metric == "mae")))
        for run in (run for run in runs if run.seed == seed):
            for name, true, predicted in zip(run.ids, run.truth, run.predicted, strict=True):
                if name not in common:
                    continue
                group = table[place[groups[name]]]
                if metric == "mae":
                    group[0] += (abs(predicted - true), 1.0)
                else:
                    group[index[true], index[predicted]] += 1
        seed_scores.append(SCORES[metric](np.tensordot(weights, table, 1)))
    mean: Numbers = np.mean(seed_scores, axis=0)
    return mean


def _run_gaps(model_runs: Sequence[Run], reference_runs: Sequence[Run], metric: str) -> Numbers:
    """The differences of runs with the same fold and seed."""
    there = {(run.fold, run.seed): run.metrics[metric] for run in reference_runs}
    return np.array([run.metrics[metric] - there[run.fold, run.seed] for run in model_runs])


def _half_width(gaps: Numbers, folds: int) -> float:
    """Half of the corrected 95 % t interval of a mean over folds x seeds; NaN for a single run.

    Seeds on one split share all of their training rows, so that only they are what is drawn anew.
    """
    if len(gaps) < 2:
        return float("nan")
    share = 1 / (folds - 1) if folds > 1 else 0.0  # test rows per training row
    deviation = float(gaps.std(ddof=1)) * np.sqrt(1 / len(gaps) + share)
    return float(student.ppf(0.975, len(gaps) - 1) * deviation)


def _recalls(table: Numbers) -> Numbers:
    """(..., C, C) counts, rows true -> (...,): mean recall over the classes that occur."""
    truth = table.sum(-1)
    recall = np.diagonal(table, axis1=-2, axis2=-1) / np.maximum(truth, 1e-12)
    mean: Numbers = np.where(truth > 0, recall, 0).sum(-1) / np.maximum((truth > 0).sum(-1), 1)
    return mean


def _f1(table: Numbers) -> tuple[Numbers, Numbers, NDArray[np.bool_]]:
    """F1 of each class (..., C), its true count, and whether it occurs at all."""
    truth, predicted = table.sum(-1), table.sum(-2)
    f1 = 2 * np.diagonal(table, axis1=-2, axis2=-1) / np.maximum(truth + predicted, 1e-12)
    return f1, truth, truth + predicted > 0


def _macro_f1(table: Numbers) -> Numbers:
    f1, _, occurs = _f1(table)
    mean: Numbers = f1.sum(-1) / np.maximum(occurs.sum(-1), 1)
    return mean


def _weighted_f1(table: Numbers) -> Numbers:
    f1, truth, _ = _f1(table)
    mean: Numbers = (f1 * truth).sum(-1) / np.maximum(truth.sum(-1), 1e-12)
    return mean


def _accuracy(table: Numbers) -> Numbers:
    hits: Numbers = np.trace(table, axis1=-2, axis2=-1) / np.maximum(table.sum((-2, -1)), 1e-12)
    return hits


def _mean_error(table: Numbers) -> Numbers:
    """(..., 1, 2) summed errors and counts -> (...,)."""
    mean: Numbers = table[..., 0, 0] / np.maximum(table[..., 0, 1], 1e-12)
    return mean


#: Metrics that can be had from counts, (..., C, C) or (..., 1, 2), and so be resampled fast.
SCORES: Final[dict[str, Callable[[Numbers], Numbers]]] = {
    "uar": _recalls,
    "accuracy": _accuracy,
    "macro_f1": _macro_f1,
    "weighted_f1": _weighted_f1,
    "mae": _mean_error,
}
