"""Regularised linear models of each modality's mean features, and the product of what they say: a plain baseline.

Classes are told apart by logistic regression, values are predicted by ridge regression. Each modality is read in two
ways: as it is, and, where enough other utterances of the speaker are known, relative to their mean. How strongly each
is regularised, and how much each counts, is chosen by an inner cross-validation over the training speakers. Nothing is
learned by gradient, so training takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

import numpy as np
import torch
from annotated_types import Interval
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor, nn

from emopipe.models.configs import Count
from emopipe.models.data.dataset import Batch, Dataset, Floats
from emopipe.models.data.splits import folds as cut_folds
from emopipe.models.networks import losses
from emopipe.models.networks.losses import Task
from emopipe.models.networks.model import FusionModel, Output, Shape, Standardise

Numbers = NDArray[np.float64]
Indices = NDArray[np.int64]

#: How a modality is read: as it is, and relative to the speaker's other utterances.
VIEWS: Final = ("plain", "relative")
#: Two to a decade: with one, the best lay between two of them.
STRENGTHS: Final = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
#: The least and the most that an expert counts.
BOUNDS: Final = (0.02, 4.0)
#: Fewer rows whose speaker's other utterances are known do not make a model of relative features.
LEAST_ROWS: Final = 10
#: At most so many speakers are left out one at a time.
FEW_SPEAKERS: Final = 10
#: How much linear models count in an answer beside a network's.
LINEAR_SHARE: Final = 0.5
#: Rows whose features are held in memory at once.
ROWS_AT_ONCE: Final = 256
#: Log probability of a class that an expert never saw, below that of the others.
UNSEEN: Final = -4.0


@dataclass(frozen=True)
class LinearConfig:
    """Settings of the linear model.

    Attributes:
        relative: also read features relative to the speaker's other utterances.
        strengths: one or several; the inner cross-validation chooses. Larger ones fit the training rows more closely.
        components: principal components that more features are reduced to.
    """

    relative: bool = True
    strengths: tuple[Annotated[float, Interval(gt=0, le=1e9)], ...] = STRENGTHS
    components: Count = 256


class Expert(nn.Module):
    """A linear model of one modality's mean features: (B, D) -> log probabilities, or values, (B, C)."""

    def __init__(self, dim: int, outputs: int, task: Task) -> None:
        super().__init__()
        self.task = task
        self.standardise = Standardise(dim)
        self.readout = nn.Linear(dim, outputs)
        nn.init.zeros_(self.readout.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Mean features (B, D), NaN where one was not measured -> (B, C)."""
        said: Tensor = self.readout(self.standardise(x))
        return said.log_softmax(1) if self.task == "classification" else said

    def fit(self, x: Tensor, rows: Indices, problem: Problem, config: LinearConfig, seed: int) -> tuple[Numbers, float]:
        """Fit to some rows of mean features (N, D).

        A scale of one over the root of the number of features makes strengths mean the same for all modalities.

        Returns:
            What it says of each row when that is not fitted to (N, C), NaN of other rows, and the strength chosen.
        """
        self.standardise.fit(x[rows])
        z = self.standardise(x[rows].clone()).double().numpy() / np.sqrt(x.shape[1])
        basis = principal_axes(z, config.components, seed)
        z = z @ basis
        strength, held = problem.choose(z, rows, config.strengths)
        coefficients, bias = problem.fit(z, rows, strength)
        with torch.no_grad():
            self.readout.weight.copy_(torch.from_numpy(coefficients @ basis.T / np.sqrt(x.shape[1])))
            self.readout.bias.copy_(torch.from_numpy(bias))
        said = np.full((len(problem.targets), problem.outputs), np.nan)
        said[rows] = held
        return said, strength


class Linear(FusionModel):
    """One expert for each modality and way to read it; their weighted product (of values: their weighted mean)."""

    Config = LinearConfig
    config: LinearConfig
    by_gradient: ClassVar[bool] = False
    alone: Tensor
    known: Tensor

    def __init__(self, shape: Shape, config: LinearConfig) -> None:
        super().__init__(shape, config)
        self.views = VIEWS if config.relative else VIEWS[:1]
        self.experts = nn.ModuleDict(
            {
                f"{name}_{view}": Expert(dim, shape.outputs, shape.task)
                for name, dim in shape.dims.items()
                for view in self.views
            }
        )
        count = len(shape.modalities)
        self.register_buffer("alone", torch.ones(count))
        self.register_buffer("known", torch.tensor([[0.5, 0.5] if config.relative else [1.0, 0.0]]).repeat(count, 1))

    @property
    def relative(self) -> bool:
        """Whether it reads the means of the speakers' other utterances."""
        return self.config.relative

    def forward(self, batch: Batch) -> Output:
        """Predict a batch by what the experts of the present modalities say."""
        parts = [self._modality(name, column, batch) for column, name in enumerate(self.shape.modalities)]
        said, counts = torch.stack([one for one, _ in parts], 1), torch.stack([count for _, count in parts], 1)
        total = counts.sum(1, keepdim=True).clamp(min=1e-12)
        scale = 1.0 if self.shape.task == "classification" else 1 / total
        each = said if self.shape.task == "classification" else said / counts.clamp(min=1e-12).unsqueeze(2)
        unimodal = {name: each[:, column].float() for column, name in enumerate(self.shape.modalities)}
        return Output((said.sum(1) * scale).float(), unimodal, (counts / total).float(), {"fused": said.flatten(1)})

    def _modality(self, name: str, column: int, batch: Batch) -> tuple[Tensor, Tensor]:
        """What a modality's experts say, each times how much it counts (B, C), and the sum of the latter (B,)."""
        present = batch.present[:, column]
        if not present.any():
            return batch.quality.new_zeros(len(batch), self.shape.outputs), batch.quality.new_zeros(len(batch))
        mean = mean_features(batch, name, column)
        counts = torch.where(present, self.alone[column], 0.0)
        usual = batch.speaker_means.get(name)
        said = self.experts[f"{name}_plain"](mean)
        if usual is None or not self.config.relative:
            return torch.where(present.unsqueeze(1), said * self.alone[column], 0.0), counts
        known = torch.isfinite(usual).any(1)
        both = self.known[column, 0] * said + self.known[column, 1] * self.experts[f"{name}_relative"](mean - usual)
        mixed = torch.where(known.unsqueeze(1), both, said * self.alone[column])
        counts = torch.where(present & known, self.known[column].sum(), counts)
        return torch.where(present.unsqueeze(1), mixed, 0.0), counts

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The `task` loss, which is the `total`; training does not use it."""
        task = losses.mean(losses.task_costs(output.logits, batch.targets, self.shape.task), batch.weights)
        return {"task": task, "total": task}

    def solve(
        self,
        dataset: Dataset,
        targets: NDArray[Any],
        weights: Floats,
        folds: int,
        seed: int,
        shares: Floats | None = None,
    ) -> dict[str, Any]:
        """Fit every expert, and choose how strongly it is regularised and how much it counts."""
        inner = inner_folds(dataset, targets, folds, seed)
        soft = None if shares is None else shares.astype(np.float64)
        problem = Problem(self.shape.task, self.shape.outputs, targets, weights.astype(np.float64), inner, soft)
        said: dict[str, Numbers] = {}
        chosen: dict[str, Any] = {}
        for name in self.shape.modalities:
            for view in self.views:
                x = mean_inputs(dataset, name, view)
                rows = np.flatnonzero(torch.isfinite(x).any(1).numpy())
                if enough(problem, rows, view):
                    key = f"{name}_{view}"
                    expert = self.experts[key]
                    assert isinstance(expert, Expert)
                    said[key], strength = expert.fit(x, rows, problem, self.config, seed)
                    chosen[key] = {"strength": strength}
        plain = {key: one for key, one in said.items() if key.endswith("_plain")}
        self._set_counts(balance(plain, problem), balance(said, problem))
        for key, facts in chosen.items():
            facts["counts"] = float(self.known[self._place(key)])
        return chosen

    def _place(self, key: str) -> tuple[int, int]:
        name, _, view = key.rpartition("_")
        return self.shape.modalities.index(name), VIEWS.index(view)

    @torch.no_grad()
    def _set_counts(self, alone: Mapping[str, float], known: Mapping[str, float]) -> None:
        """Set how much experts count: those of features as they are by themselves, and all together."""
        self.alone.fill_(BOUNDS[0])
        self.known.zero_()
        self.known[:, 0] = BOUNDS[0]
        for key, count in alone.items():
            self.alone[self._place(key)[0]] = count
        for key, count in known.items():
            self.known[self._place(key)] = count


def mean_inputs(dataset: Dataset, name: str, view: str) -> Tensor:
    """Mean features of a modality (N, D) as the experts of a view read them, NaN where they are not known."""
    parts = []
    for at in range(0, len(dataset), ROWS_AT_ONCE):
        rows = np.arange(at, min(at + ROWS_AT_ONCE, len(dataset)))
        batch = dataset.batch(rows, (name,), relative=view == "relative")
        mean = mean_features(batch, name, 0).masked_fill(~batch.present, torch.nan)
        usual = batch.speaker_means.get(name, torch.full_like(mean, torch.nan))
        parts.append(mean - usual if view == "relative" else mean)
    return torch.cat(parts)


def mean_features(batch: Batch, name: str, column: int) -> Tensor:
    """Mean (B, D) over the steps of a modality in which a feature was measured; NaN where it never was."""
    x = batch.features[name]
    valid = torch.arange(x.shape[1], device=x.device) < batch.lengths[:, column, None]
    measured = torch.isfinite(x) & valid.unsqueeze(2)
    count = measured.sum(1)
    mean = torch.where(measured, x, 0.0).sum(1) / count.clamp(min=1)
    return torch.where(count > 0, mean, torch.nan)


def inner_folds(dataset: Dataset, targets: NDArray[Any], folds: int, seed: int) -> list[tuple[Indices, Indices]]:
    """Folds over the training speakers, each by itself where they are few; over rows where fewer than three."""
    if len(dataset) < 2:
        return []
    labels = targets.astype(str).astype(object) if targets.dtype.kind == "i" else targets
    speakers = len(set(dataset.groups))
    count = speakers if 2 < speakers <= FEW_SPEAKERS else folds
    return cut_folds(dataset, labels, count, seed, by_speaker=speakers > 2)


def enough(problem: Problem, rows: Indices, view: str) -> bool:
    """Whether there is enough to fit an expert to: any rows as they are, and of relative ones some of every class."""
    if view == "plain":
        return len(rows) > 0
    classes = set(problem.targets[rows].tolist()) == set(problem.targets.tolist())
    return len(rows) >= LEAST_ROWS and (problem.task == "regression" or classes)


def principal_axes(z: Numbers, most: int, seed: int) -> Numbers:
    """(D, K) orthonormal axes that span rows (N, D), or that span most of them where K would be above `most`."""
    if min(z.shape) <= 2 * most:
        return np.asarray(np.linalg.svd(z, full_matrices=False)[2].T[:, : max(1, most)])
    from sklearn.utils.extmath import randomized_svd

    return np.asarray(randomized_svd(z, most, random_state=seed)[2].T)


@dataclass(frozen=True)
class Problem:
    """What experts are fitted to.

    Attributes:
        task, outputs: classes, or values; and how many.
        targets: (N,) of all rows.
        weights: (N,) of all rows.
        inner: folds over them: pairs of rows to fit to and to judge by.
        soft: (N, C) shares of the classes in votes on all rows, where these are learned; else None.
    """

    task: Task
    outputs: int
    targets: NDArray[Any]
    weights: Numbers
    inner: list[tuple[Indices, Indices]]
    soft: Numbers | None = None

    @property
    def shares(self) -> Numbers:
        """(N, C) shares of the classes in what each row is labelled."""
        return np.eye(self.outputs)[self.targets] if self.soft is None else self.soft

    def fit(self, z: Numbers, rows: Indices, strength: float) -> tuple[Numbers, Numbers]:
        """Coefficients (C, K) and bias (C,) of features (R, K) of rows (R,)."""
        if self.task == "regression":
            return fit_values(z, self.targets[rows], self.weights[rows], strength)
        if self.soft is not None:
            at, classes = np.nonzero(self.soft[rows])
            weights = self.weights[rows][at] * self.soft[rows][at, classes]
            return fit_classes(z[at], classes, weights, self.outputs, strength)
        return fit_classes(z, self.targets[rows], self.weights[rows], self.outputs, strength)

    def choose(self, z: Numbers, rows: Indices, strengths: tuple[float, ...]) -> tuple[float, Numbers]:
        """The strength that predicts rows of other speakers best, and what it says (R, C) of each of them."""
        place = np.full(len(self.targets), -1)
        place[rows] = np.arange(len(rows))
        found = []
        for strength in strengths:
            said = np.full((len(rows), self.outputs), np.nan)
            for rest, held in self.inner:
                fitted, judged = place[rest][place[rest] >= 0], place[held][place[held] >= 0]
                if len(fitted) and len(judged):
                    coefficients, bias = self.fit(z[fitted], rows[fitted], strength)
                    said[judged] = self.speak(z[judged] @ coefficients.T + bias)
            found.append((self.cost(said, rows), strength, said))
        _, strength, said = min(found, key=lambda one: one[:2])
        return strength, said

    def speak(self, logits: Numbers) -> Numbers:
        """Log probabilities, or the values themselves."""
        return np.asarray(log_softmax(logits, axis=1)) if self.task == "classification" else logits

    def cost(self, said: Numbers, rows: Indices) -> float:
        """Mean negative log-likelihood, or mean squared error, of rows (R,) of which something is said (R, C)."""
        told = np.flatnonzero(np.isfinite(said).all(1))
        if len(told) == 0:
            return 0.0
        truth, weights = self.targets[rows[told]], self.weights[rows[told]]
        logs = self.speak(said[told])
        costs = (logs[:, 0] - truth) ** 2 if self.task == "regression" else -(logs * self.shares[rows[told]]).sum(1)
        return float(np.average(costs, weights=weights + 1e-12))


def fit_values(z: Numbers, truth: Numbers, weights: Numbers, strength: float) -> tuple[Numbers, Numbers]:
    """Ridge regression."""
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=1 / strength).fit(z, truth, sample_weight=weights)
    return np.asarray(model.coef_).reshape(1, -1), np.asarray(model.intercept_).reshape(1)


def fit_classes(z: Numbers, truth: Indices, weights: Numbers, count: int, strength: float) -> tuple[Numbers, Numbers]:
    """Logistic regression; classes that do not occur get a low constant."""
    from sklearn.linear_model import LogisticRegression

    coefficients, bias = np.zeros((count, z.shape[1])), np.full(count, UNSEEN)
    classes = np.unique(truth)
    bias[classes] = 0.0
    if len(classes) > 1:
        model = LogisticRegression(C=strength, max_iter=1000).fit(z, truth, sample_weight=weights)
        two = len(classes) == 2
        coefficients[classes] = np.concatenate([-model.coef_, model.coef_]) / 2 if two else model.coef_
        bias[classes] = np.concatenate([-model.intercept_, model.intercept_]) / 2 if two else model.intercept_
    return coefficients, bias


def balance(said: Mapping[str, Numbers], problem: Problem) -> dict[str, float]:
    """How much each expert counts, so that together they predict rows of other speakers best.

    Args:
        said: expert -> log probabilities, or values, (N, C) of rows that it was not fitted to; NaN where it is absent.
        problem: the truth.
    """
    from scipy.optimize import minimize

    rows = np.arange(len(problem.targets))
    if problem.task == "regression":
        errors = {key: problem.cost(one, rows) for key, one in said.items()}
        least = max(min(errors.values(), default=1.0), 1e-12)
        return {key: max(least / max(error, least), BOUNDS[0]) for key, error in errors.items()}
    stacked = np.stack([np.nan_to_num(one) for one in said.values()])
    even = np.full(len(said), 1 / len(said))

    def cost(counts: Numbers) -> tuple[float, Numbers]:
        logs = log_softmax(np.tensordot(counts, stacked, 1), axis=1)
        truth, share = problem.shares, problem.weights / problem.weights.sum()
        expected = (np.exp(logs) * stacked).sum(2)
        slope = (share * (expected - (stacked * truth).sum(2))).sum(1)
        pull = counts - even
        return float(-(share * (logs * truth).sum(1)).sum() + 0.01 * (pull**2).sum()), slope + 0.02 * pull

    found = minimize(cost, even, jac=True, method="L-BFGS-B", bounds=[BOUNDS] * len(said))
    return dict(zip(said, found.x.tolist(), strict=True))
