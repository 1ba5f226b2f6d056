"""Learning curve: how good a model becomes with so many speakers and clips, and what more of them would bring.

The speakers are cut into folds; for each, models are trained on parts of the training speakers with all of their clips,
and on parts of the clips of all of them, and tested on the same people. The error is extrapolated by a power law.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from emopipe.models import metrics
from emopipe.models.checkpoint import identify
from emopipe.models.data.dataset import Dataset, Indices
from emopipe.models.data.labelled import labelled
from emopipe.models.data.splits import strata
from emopipe.models.evaluation.compare import (
    Run,
    answered,
    append_run,
    default_metric,
    facts_of,
    pooled,
    read_runs,
    resampled_groups,
    train_and_test,
)
from emopipe.models.evaluation.evaluate import fold_datasets
from emopipe.models.predictor import Predictor
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.events import Hook, silent

Numbers = NDArray[np.float64]
#: What settings suit a part of a dataset.
Suit = Callable[[TrainConfig, Dataset], TrainConfig]

#: What there is more of along a curve, and the training on all there is, where both curves end.
SPEAKERS, CLIPS, ALL = "speakers", "clips", "all"
#: Exponents of the power law that are tried.
EXPONENTS: Final = np.geomspace(0.05, 2.0, 40)
RESAMPLES: Final = 2000
#: With fewer people, clips are resampled in their place.
LEAST_GROUPS: Final = 3
#: A gain below this is hardly one.
WORTHWHILE: Final = 0.01


@dataclass(frozen=True)
class Part:
    """A part of the training rows of a fold: so many speakers with all their clips, or so many clips of all of them."""

    axis: str
    count: int

    @property
    def name(self) -> str:
        """Its name in a record."""
        return self.axis if self.axis == ALL else f"{self.axis} {self.count}"

    def rows(self, data: Dataset, labels: NDArray[Any], seed: int) -> Indices:
        """The rows that belong to it; larger parts of the same seed hold smaller ones."""
        rng = np.random.default_rng(seed)
        if self.axis == SPEAKERS:
            chosen = rng.permutation(sorted(set(data.groups)))[: self.count]
            return np.flatnonzero(np.isin(data.groups.astype(str), chosen))
        order = in_proportion(strata(labels), rng)
        return np.sort(order[: self.count] if self.axis == CLIPS else order)


def in_proportion(kinds: NDArray[Any], rng: np.random.Generator) -> Indices:
    """A random order of rows in which every class has about its share of each beginning."""
    order = rng.permutation(len(kinds))
    place = np.zeros(len(kinds))
    for kind in np.unique(kinds):
        inside = order[kinds[order] == kind]
        place[inside] = (np.arange(len(inside)) + rng.random()) / len(inside)
    return np.argsort(place, kind="stable").astype(np.int64)


def parts_of(folds: Sequence[Dataset], shares: Sequence[float]) -> list[Part]:
    """The parts that are trained on: shares of the fewest training speakers and clips of a fold, and all."""
    speakers = min(len(set(data.groups)) for data in folds)
    clips = min(map(len, folds))
    fewer = [share for share in sorted(shares) if share < 1]
    counts = {
        SPEAKERS: {max(1, round(share * speakers)) for share in fewer} if speakers > 1 else set(),
        CLIPS: {max(2, round(share * clips)) for share in fewer},
    }
    most = {SPEAKERS: speakers, CLIPS: clips}
    parts = [Part(axis, count) for axis, found in counts.items() for count in sorted(found) if count < most[axis]]
    return [*parts, Part(ALL, 0)]


@dataclass(frozen=True)
class Measured:
    """The trainings of a learning curve.

    Attributes:
        runs: of all parts, folds and seeds.
        parts: what was trained on.
        sizes: part -> training clips and speakers, in the mean over folds and seeds.
        clips, speakers: of the whole dataset.
    """

    runs: list[Run]
    parts: list[Part]
    sizes: Mapping[str, tuple[float, float]]
    clips: int
    speakers: int


def measure(
    dataset: Dataset,
    config: TrainConfig,
    *,
    shares: Sequence[float] = (0.1, 0.2, 0.5, 1.0),
    folds: int = 5,
    seeds: Sequence[int] = (0,),
    suit: Suit = lambda config, dataset: config,
    start: Predictor | None = None,
    record: Path | None = None,
    hook: Hook = silent,
) -> Measured:
    """Train on parts of a dataset, and test on the same people each time.

    Args:
        dataset: all labelled rows take part, whatever their split.
        config: what to train; the last epoch is kept, so that small parts need hold nothing out.
        shares: of speakers and of clips.
        folds: how many parts the speakers are cut into, each of which is tested once.
        seeds: of training, and of what is drawn.
        suit: chooses the settings for a part.
        start: a trained model that every training begins with.
        record: a file of JSON lines from which an interrupted call goes on.
        hook: receives `{"event": "training", "done": ..., "total": ..., "message": ...}`.

    Raises:
        TrainingError: there are fewer than two speakers, and overlap is not allowed.
    """
    fair = replace(config, select="last")
    pairs = fold_datasets(dataset, fair, folds)
    parts = parts_of([inner for inner, _ in pairs], shares)
    recorded = {(run.key, run.model, run.fold, run.seed): run for run in read_runs(record)}
    facts = [*facts_of(dataset, fair, folds, ()), *([] if start is None else [identify(start)])]
    key = hashlib.sha256(json.dumps(["curve", *facts], sort_keys=True).encode()).hexdigest()[:16]
    runs: list[Run] = []
    sizes: dict[str, list[tuple[float, float]]] = {part.name: [] for part in parts}
    jobs = list(_jobs(pairs, parts, seeds, config.label))
    for done, (fold, seed, part, inner, test) in enumerate(jobs, start=1):
        sizes[part.name].append((float(len(inner)), float(len(set(inner.groups)))))
        place = (key, part.name, fold, seed)
        if place not in recorded:
            empty = Run(key, part.name, fold, seed, 0, 0.0, {}, [], [], [])
            recorded[place] = _trained(empty, inner, test, replace(suit(fair, inner), select="last", seed=seed), start)
            append_run(record, recorded[place])
        runs.append(recorded[place])
        hook({"event": "training", "done": done, "total": len(jobs), "message": f"{part.name}, fold {fold}"})
    means = {name: tuple(np.mean(found, axis=0).tolist()) for name, found in sizes.items()}
    usable_rows = {name for inner, test in pairs for name in [*inner.ids, *test.ids]}
    rows = dataset.subset(np.isin(dataset.ids.astype(str), sorted(map(str, usable_rows))))
    return Measured(runs, parts, means, len(rows), len(set(rows.groups)))


def _jobs(
    pairs: Sequence[tuple[Dataset, Dataset]], parts: Sequence[Part], seeds: Sequence[int], label: str
) -> Iterator[tuple[int, int, Part, Dataset, Dataset]]:
    """What is trained and tested, small parts first."""
    for seed in seeds:
        for fold, (inner, test) in enumerate(pairs):
            for part in parts:
                rows = part.rows(inner, inner.labels(label), 1000 * seed + fold)
                yield fold, seed, part, inner.subset(rows), test


def _trained(empty: Run, inner: Dataset, test: Dataset, config: TrainConfig, start: Predictor | None) -> Run:
    """A run; where a part holds one class alone, every row is taken for that."""
    labels = inner.labels(config.label)
    if labels.dtype != object or len(set(labels)) > 1:
        return train_and_test(empty, inner, test, config, start=start)
    rows = np.flatnonzero(labelled(test, config.label, modalities=test.modalities))
    truth = test.labels(config.label)[rows].tolist()
    predicted = [labels[0]] * len(rows)
    figures = metrics.classification(np.array(truth), np.array(predicted))
    return replace(empty, metrics=figures, ids=test.ids[rows].tolist(), truth=truth, predicted=predicted)


# ---------------------------------------------------------------------------------------------------------- the curve


@dataclass(frozen=True)
class Point:
    """A point of a curve: a metric of models trained on so much.

    Attributes:
        axis: speakers, clips, or all.
        clips, speakers: trained on, in the mean over folds.
        value, low, high: the metric over all tested rows, and its 95 % bootstrap interval over the tested speakers.
    """

    axis: str
    clips: float
    speakers: float
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Forecast:
    """What more recordings would bring, by a power law.

    Attributes:
        axis: clips of the same people, or other speakers with as many clips each.
        more: clips.
        speakers: how many more people that is; 0 for the same ones.
        now, value: the metric with all clips that there are, and with more.
        low, high: 95 % interval of the latter.
        gain, gain_low, gain_high: the difference of the two, positive where it is better, and its interval.
        chance: that the gain is worthwhile, 0.01 or more.
        far: so much more than there is that the power law is a guess.
    """

    axis: str
    more: int
    speakers: float
    now: float
    value: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    chance: float
    far: bool


@dataclass(frozen=True)
class LearningCurve:
    """A learning curve.

    Attributes:
        metric: uar, or mae of values.
        points: what was measured.
        forecasts: what is expected of more.
        lines: axis -> rows of clips, the metric, and the ends of its 95 % interval, to draw.
    """

    metric: str
    points: list[Point]
    forecasts: list[Forecast]
    lines: Mapping[str, list[tuple[float, float, float, float]]]


def learning_curve(
    measured: Measured, dataset: Dataset, more: Sequence[int], resamples: int = RESAMPLES
) -> LearningCurve:
    """Compute points with their intervals, and extrapolate them.

    Args:
        measured: the trainings.
        dataset: what they were made of.
        more: clips.
        resamples: of the bootstrap over the tested speakers, alike for all points.
    """
    metric = default_metric(measured.runs)
    apart = dataset.groups if len(set(dataset.groups)) >= LEAST_GROUPS else dataset.ids
    groups = dict(zip(dataset.ids, apart, strict=True))
    common = set.intersection(*(answered(_runs_of(measured, part)) for part in measured.parts))
    members = sorted({groups[name] for name in common})
    classes = sorted({str(one) for run in measured.runs for one in [*run.truth, *run.predicted]})
    weights = resampled_groups(len(members), resamples)
    values = {}
    for part in measured.parts:
        values[part.name] = pooled(_runs_of(measured, part), common, groups, members, classes, metric, weights)
    points = [_point(part, measured.sizes[part.name], values[part.name]) for part in measured.parts]
    forecasts: list[Forecast] = []
    lines: dict[str, list[tuple[float, float, float, float]]] = {}
    for axis in (SPEAKERS, CLIPS):
        names = [part.name for part in measured.parts if part.axis in (axis, ALL)]
        if len(names) < 3:
            continue
        x = np.array([measured.sizes[name][0] for name in names])
        law = PowerLaw.fit(x, _errors(metric, np.stack([values[name] for name in names], axis=1)))
        forecasts += [_forecast(law, axis, extra, measured, metric) for extra in more]
        lines[axis] = _line(law, metric, float(x.min()), float(measured.clips + max(more, default=0)))
    return LearningCurve(metric, points, forecasts, lines)


def _runs_of(measured: Measured, part: Part) -> list[Run]:
    return [run for run in measured.runs if run.model == part.name]


def _point(part: Part, size: tuple[float, float], values: Numbers) -> Point:
    low, high = interval(values[1:])
    return Point(part.axis, size[0], size[1], float(values[0]), low, high)


def interval(values: Numbers) -> tuple[float, float]:
    """The 95 % percentile interval."""
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return float(low), float(high)


def _errors(metric: str, values: Numbers) -> Numbers:
    """What is less where a model is better; its own inverse."""
    return values if metric in metrics.SMALLER_IS_BETTER else 1 - values


@dataclass(frozen=True)
class PowerLaw:
    """Error = floor + slope * (clips / scale) ** -exponent, once for each resample; none falls below 0 or rises.

    How well the exponent is known is part of the doubt: each resample draws one of :data:`EXPONENTS`, by how well they
    fit.
    """

    scale: float
    floor: Numbers
    slope: Numbers
    exponent: Numbers

    @classmethod
    def fit(cls, x: Numbers, errors: Numbers) -> PowerLaw:
        """Fit to errors (R, P) at P numbers of clips; each point counts as much as it has clips."""
        scale = float(x.max())
        fits = [_nonnegative((x / scale) ** -exponent, errors, x) for exponent in EXPONENTS]
        floor, slope, cost = (np.stack(parts) for parts in zip(*fits, strict=True))
        shape = errors - errors.mean(axis=1, keepdims=True)  # what all points have in common says nothing of the shape
        variance = max(float(shape.var(axis=0).mean()), 1e-8)
        likelihood = np.exp(-(cost - cost.min(axis=0)) / (2 * variance))
        total = np.cumsum(likelihood / likelihood.sum(axis=0), axis=0)
        drawn = (total < np.random.default_rng(0).random(errors.shape[0])).sum(axis=0).clip(max=len(EXPONENTS) - 1)
        row = np.arange(errors.shape[0])
        return cls(scale, floor[drawn, row], slope[drawn, row], EXPONENTS[drawn])

    def at(self, clips: float) -> Numbers:
        """(R,) errors with so many clips."""
        error: Numbers = self.floor + self.slope * (clips / self.scale) ** -self.exponent
        return error


def _nonnegative(basis: Numbers, errors: Numbers, weights: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Weighted least squares of errors (R, P) on 1 and a basis (P,).

    Returns:
        Both coefficients, at least 0, and the cost, each (R,).
    """
    share = weights / weights.sum()
    centred = basis - share @ basis
    slope = np.maximum(errors @ (share * centred) / max(float(share @ centred**2), 1e-12), 0.0)
    floor = errors @ share - slope * (share @ basis)
    alone = errors @ (share * basis) / (share @ basis**2)
    slope = np.where(floor < 0, np.maximum(alone, 0.0), slope)
    floor = np.maximum(floor, 0.0)
    rest = errors - floor[:, None] - slope[:, None] * basis
    return floor, slope, (rest**2) @ (share * len(basis))


def _forecast(law: PowerLaw, axis: str, more: int, measured: Measured, metric: str) -> Forecast:
    now, then = law.at(measured.clips), law.at(measured.clips + more)
    value, gain = _errors(metric, then), now - then
    people = more / (measured.clips / measured.speakers) if axis == SPEAKERS else 0.0
    low, high = interval(value)
    gain_low, gain_high = interval(gain)
    return Forecast(
        axis,
        more,
        people,
        float(np.median(_errors(metric, now))),
        float(np.median(value)),
        low,
        high,
        float(np.median(gain)),
        gain_low,
        gain_high,
        float((gain >= WORTHWHILE).mean()),
        more > measured.clips,
    )


def _line(law: PowerLaw, metric: str, least: float, most: float) -> list[tuple[float, float, float, float]]:
    rows = []
    for clips in np.geomspace(least, most, 40).tolist():
        values = _errors(metric, law.at(clips))
        rows.append((clips, float(np.median(values)), *interval(values)))
    return rows
