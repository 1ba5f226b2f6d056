"""Evaluate a predictor: metrics on a split, on every subset of the modalities, and over folds and seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sklearn.metrics import confusion_matrix

from emopipe.errors import DatasetError, StudyError
from emopipe.models import metrics
from emopipe.models.data.dataset import Dataset, Indices
from emopipe.models.data.labelled import labelled, no_rows_hint, presence, targets, usable
from emopipe.models.data.splits import folds as make_folds
from emopipe.models.data.splits import holdout, manifest_split, refuse_overlap
from emopipe.models.evaluation.agreement import Agreement, coder_agreement
from emopipe.models.predictor import Predictor, Prior
from emopipe.models.scoring import Scoring
from emopipe.models.training.calibration import Answers, helps, tempered_across_folds
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.events import Hook, silent
from emopipe.models.training.loop import Trained, train
from emopipe.models.training.plan import needs_validation

if TYPE_CHECKING:
    import pandas as pd


#: Fewer folds do not choose a temperature for each other.
LEAST_FOLDS: Final = 2
#: What stands in the place of a subset of the modalities for rows with whatever they have.
ALL_ROWS: Final = "all rows"


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        rows: utterances with a known label and at least one of the modalities.
        no_evidence: labelled utterances left out because they have none of the modalities.
        metrics: see :mod:`emopipe.models.metrics`; classes also have `ece`.
        weights: modality -> mean router weight where it is present.
        subsets: such as `text+face` -> rows having all of these, and the metrics with everything else hidden; empty
            where that was not asked for.
        confusion: rows true, columns predicted, in the order of `classes`; empty for regression.
        classes: the class names.
        agreement: how far the coders of these rows agree, where several labelled them; a ceiling of the metrics.
        scoring: how values are scored, and why so; None for classes.
    """

    rows: int
    no_evidence: int
    metrics: dict[str, float]
    weights: dict[str, float]
    subsets: dict[str, dict[str, float]]
    confusion: list[list[int]]
    classes: tuple[str, ...]
    agreement: Agreement | None = None
    scoring: Scoring | None = None

    def by_modalities(self) -> dict[str, dict[str, float]]:
        """`subsets` and, where rows lack modalities, under `all rows` the figures of every row as it is."""
        names = {name for subset in self.subsets for name in subset.split("+")}
        complete = [figures for subset, figures in self.subsets.items() if len(subset.split("+")) == len(names)]
        if [figures["rows"] for figures in complete] == [self.rows]:
            return self.subsets
        return {**self.subsets, ALL_ROWS: {"rows": float(self.rows), **self.metrics}}

    def to_pandas(self) -> pd.DataFrame:
        """What :meth:`by_modalities` tells, with the index `modalities` and a column per figure."""
        import pandas as pd

        return pd.DataFrame.from_dict(self.by_modalities(), orient="index").rename_axis("modalities")


def evaluate(
    predictor: Predictor,
    dataset: Dataset,
    split: str | None = "test",
    modalities: Sequence[str] | None = None,
    prior: Prior | Mapping[str, float] = "uniform",
    *,
    by_subset: bool = True,
    rows: Indices | None = None,
) -> Evaluation:
    """Evaluate a predictor: compute its metrics on labelled rows.

    Args:
        predictor: what to measure.
        dataset: labelled rows.
        split: rows of this split only; None for all.
        modalities: hide all others.
        prior: see :meth:`emopipe.models.predictor.Predictor.probabilities`.
        by_subset: also measure what every subset of the modalities tells, which takes most of the time.
        rows: these alone; what is usual for their speakers is still that in the whole dataset. None for all.

    Raises:
        DatasetError: there is no row to measure on.
        FeatureMismatch: the dataset's features are not those of the predictor.
    """
    predictor.check_features(dataset.schema, dataset.extraction)
    available = [name for name in predictor.spec.modalities if name in dataset.modalities]
    chosen = [name for name in available if modalities is None or name in modalities]
    known_label = labelled(dataset, predictor.spec.label, predictor.spec.classes, split=split)
    if rows is not None:
        known_label &= np.isin(np.arange(len(dataset)), rows)
    rows = np.flatnonzero(known_label & presence(dataset, chosen).any(axis=1))
    if len(rows) == 0:
        where = "" if split is None else f" of split {split!r}"
        hint = no_rows_hint(dataset, split)
        raise DatasetError(f"no row{where} has a label and a modality that the model knows", hint=hint)
    figures, weights, confusion = _measure(predictor, dataset, rows, chosen, prior)
    subsets = {}
    for names in _subsets(chosen) if by_subset else ():
        inside = rows[presence(dataset, names)[rows].all(axis=1)]
        if len(inside):
            is_all = len(names) == len(chosen) and len(inside) == len(rows)
            subset_figures = figures if is_all else _measure(predictor, dataset, inside, names, prior)[0]
            subsets["+".join(names)] = {"rows": float(len(inside)), **subset_figures}
    unseen = int(known_label.sum()) - len(rows)
    agreement = coder_agreement(dataset, predictor.spec.label, rows)
    scoring = predictor.scoring(dataset) if predictor.spec.task == "regression" else None
    classes = predictor.spec.classes
    return Evaluation(len(rows), unseen, figures, weights, subsets, confusion, classes, agreement, scoring)


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
    truth = targets(dataset, predictor.spec.label, predictor.spec.classes)[rows]
    if predictor.spec.task == "regression":
        values = truth.astype(np.float64)
        kind = predictor.scoring(dataset).kind
        return metrics.regression(values, scores.logits[:, 0], kind=kind), weights, []
    classes = np.array(predictor.spec.classes)
    probabilities = predictor.probabilities(scores, prior)
    predicted, truth = classes[probabilities.argmax(axis=1)], classes[truth]
    figures = metrics.classification(truth, predicted)
    figures["ece"] = metrics.expected_calibration_error(probabilities.max(axis=1), predicted == truth)
    return figures, weights, confusion_matrix(truth, predicted, labels=classes).tolist()


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation of figures over several runs.

    Attributes:
        runs: one record per run: `fold`, `seed` and its metrics.
        mean, sd: per metric, over the runs in which it is defined; sd with n - 1, NaN for one run.
        agreement: how far the coders of all rows agree, where several labelled them; a ceiling of the metrics.
        scoring: how values are scored, and why so; None for classes.
    """

    runs: list[dict[str, Any]]
    mean: dict[str, float]
    sd: dict[str, float]
    agreement: Agreement | None = None
    scoring: Scoring | None = None

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
    start: Predictor | None = None,
) -> Summary:
    """Cross-validate: train and test on speaker-grouped folds, with several seeds.

    The epoch is selected on a part of the training speakers, never on the fold that is tested. The folds are the same
    for every seed, so that runs of different models pair up. Where training holds nothing out, the calibration error of
    a fold is that at the temperature which the answers in the other folds choose, if it helps, as `emopipe train` does.

    Args:
        dataset: all labelled rows take part, whatever their split.
        config: what to train; its seed is replaced.
        folds: how many.
        seeds: of training.
        modalities: train and test on these only.
        prior: see :func:`evaluate`.
        hook: receives `{"event": "run", "fold": ..., "seed": ..., metrics}` beside the events of training.
        requires: validate and test only on rows that have all of these; others may still be trained on.
        start: a trained model that every training begins with.
    """
    data = dataset.select(modalities) if modalities else dataset
    runs: list[dict[str, Any]] = []
    scoring: Scoring | None = None
    answers: dict[tuple[int, int], Answers] = {}
    for fold, (inner, test) in enumerate(fold_datasets(data, config, folds, requires)):
        for seed in seeds:
            trained = train_fold(inner, replace(config, seed=seed), requires, hook, start=start)
            measured = evaluate(trained.predictor, test, None, prior=prior, by_subset=False)
            figures, scoring = measured.metrics, measured.scoring
            runs.append({"fold": fold, "seed": seed, **figures})
            hook({"event": "run", **runs[-1]})
            if "ece" in figures and not len(trained.split[1]) and prior == "uniform":
                answers[fold, seed] = _answers(trained.predictor, test)
    _calibrate_across_folds(runs, answers)
    return replace(summarise(runs), agreement=coder_agreement(data, config.label), scoring=scoring)


def _answers(predictor: Predictor, test: Dataset) -> Answers:
    spec = predictor.spec
    rows = np.flatnonzero(labelled(test, spec.label, spec.classes, modalities=spec.modalities))
    return Answers(predictor.scores(test, rows).logits, targets(test, spec.label, spec.classes)[rows])


def _calibrate_across_folds(runs: list[dict[str, Any]], answers: Mapping[tuple[int, int], Answers]) -> None:
    """Replace the calibration errors of uncalibrated models by those at the temperature that other folds choose."""
    for seed in {seed for _, seed in answers}:
        folds = sorted(fold for fold, one in answers if one == seed)
        if len({answers[fold, seed].logits.shape[1] for fold in folds}) != 1 or len(folds) < LEAST_FOLDS:
            continue
        each = [answers[fold, seed] for fold in folds]
        chosen = tempered_across_folds(each)
        tempered = dict(zip(folds, chosen if helps(each, chosen) else each, strict=True))
        for run in runs:
            if run["seed"] == seed and run["fold"] in tempered:
                run["ece"] = tempered[run["fold"]].error()


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


def split_datasets(
    dataset: Dataset, config: TrainConfig, split: str, requires: Sequence[str] = ()
) -> list[tuple[Dataset, Dataset]]:
    """Take the dataset's own split as the only fold: rows to train and to validate on, and rows of `split` to test on.

    Raises:
        StudyError: the dataset has no such split, or nothing beside it.
        TrainingError: a speaker is on both sides, and the configuration does not allow it.
    """
    data = dataset.subset(usable(dataset, config.label))
    tested = data.split == split
    if not tested.any() or tested.all():
        what = f"no labelled row has the split {split!r}" if not tested.any() else f"all labelled rows are of {split!r}"
        raise StudyError(what, hint=no_rows_hint(dataset, split))
    rest, test = np.flatnonzero(~tested & (data.split != "test")), np.flatnonzero(tested)
    if not config.allow_speaker_overlap:
        refuse_overlap(data, rest, test, f"training and {split}")
    return [(data.subset(rest), data.subset(test[presence(data, requires)[test].all(axis=1)]))]


def train_fold(
    inner: Dataset,
    config: TrainConfig,
    requires: Sequence[str] = (),
    hook: Hook = silent,
    *,
    start: Predictor | None = None,
) -> Trained:
    """Train on the training part of a fold; the rows it validates on have all of `requires`."""
    if not requires or not needs_validation(config):
        return train(inner, config, start=start, hook=hook)
    labels, by_speaker = inner.labels(config.label), not config.allow_speaker_overlap
    given = manifest_split(inner, config.allow_speaker_overlap)
    rest, held = given or holdout(inner, labels, config.folds, config.seed, by_speaker)
    there = presence(inner, requires)[held].all(axis=1)
    return train(inner, config, split=(rest, held[there]), start=start, hook=hook)


def _without_split(dataset: Dataset) -> Dataset:
    """The same rows, all of split train, so that training makes a split of its own."""
    manifest = dataset.manifest
    at = manifest.column_names.index("split")
    return dataset.with_manifest(manifest.set_column(at, "split", [["train"] * len(dataset)]))


def evaluate_seeds(
    dataset: Dataset,
    config: TrainConfig,
    seeds: Sequence[int],
    split: str | None = "valid",
    modalities: Sequence[str] | None = None,
    prior: Prior | Mapping[str, float] = "uniform",
    hook: Hook = silent,
    start: Predictor | None = None,
) -> Summary:
    """Train on the manifest's split with several seeds and measure on `split`.

    Where the manifest has no row of split "valid", that is the rows that training held out by speaker.
    """
    data = dataset.select(modalities) if modalities else dataset
    runs, scoring = [], None
    for seed in seeds:
        trained = train(data, replace(config, seed=seed), start=start, hook=hook)
        is_held_out = split == "valid" and not (data.split == split).any() and len(trained.split[1])
        name, rows = (None, trained.split[1]) if is_held_out else (split, None)
        evaluation = evaluate(trained.predictor, data, name, prior=prior, by_subset=False, rows=rows)
        runs.append({"fold": 0, "seed": seed, **evaluation.metrics})
        scoring = evaluation.scoring
        hook({"event": "run", **runs[-1]})
    return replace(summarise(runs), agreement=coder_agreement(data, config.label), scoring=scoring)
