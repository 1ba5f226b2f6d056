"""The base class of fusion models: a module from a batch to an output, with its own loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emopipe.errors import ConfigError
from emopipe.models.data.dataset import Batch, Dataset, Floats
from emopipe.models.networks.inheritance import Inheritance
from emopipe.models.networks.losses import Task


@dataclass(frozen=True)
class Output:
    """What a model says about B utterances.

    Attributes:
        logits: (B, C) fused class logits, or (B, 1) values; NaN for a value that the model failed to give.
        unimodal: modality -> (B, C) prediction from it alone, meaningless in rows without it; may be empty.
        weights: (B, M) share of each modality, 0 where absent, summing to one.
        features: what the losses and plots need, by name; `fused` is (B, K).
        members: what each network of an ensemble says.
    """

    logits: Tensor
    unimodal: dict[str, Tensor]
    weights: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)
    members: tuple[Output, ...] = ()


def mean_answer(one: Tensor, two: Tensor, share: Tensor, task: Task) -> Tensor:
    """Mean of two answers, in which the second has a share: of their probabilities (as logits), or of their values."""
    if task == "regression":
        return (1 - share) * one + share * two
    return torch.logaddexp(one.log_softmax(1) + (1 - share).log(), two.log_softmax(1) + share.log())


def mean_output(one: Output, two: Output, share: Tensor, task: Task) -> Output:
    """The mean of two outputs for the same utterances; the second has a share (B, 1), and its features stay."""
    unimodal = {name: mean_answer(answer, two.unimodal[name], share, task) for name, answer in one.unimodal.items()}
    weights = (1 - share) * one.weights + share * two.weights
    return Output(mean_answer(one.logits, two.logits, share, task), unimodal, weights, two.features)


@dataclass(frozen=True)
class Shape:
    """What a model is built for.

    Attributes:
        dims: modality -> feature width; its order is the order of M everywhere.
        outputs: C classes, or 1 for regression.
        task: classification or regression.
        classes: the C class names, for models that use them; empty where they are not told.
    """

    dims: Mapping[str, int]
    outputs: int
    task: Task
    classes: tuple[str, ...] = ()

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in order."""
        return tuple(self.dims)


class FusionModel(nn.Module):
    """Base class of all fusion models.

    A subclass takes `(shape, config)`, names its frozen configuration dataclass in `Config`, reads only present
    modalities of a batch, and returns weights that are exactly 0 where a modality is absent. `number` is its place in
    an ensemble.
    """

    Config: type[Any]
    #: Whether it is trained epoch by epoch; else :meth:`solve` sets all weights.
    by_gradient: ClassVar[bool] = True
    #: Whether :meth:`inherit` takes over what it can from a model of other classes.
    learns_other_classes: ClassVar[bool] = False

    def __init__(self, shape: Shape, config: Any) -> None:
        super().__init__()
        self.shape = shape
        self.config = config
        self.number = 0

    def forward(self, batch: Batch) -> Output:
        """Predict a batch."""
        raise NotImplementedError

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Scalar losses by name; `total` is the one to minimise."""
        raise NotImplementedError

    def fit_inputs(self, dataset: Dataset) -> None:
        """Take from the training data what is not learned by gradient (standardisation)."""

    @classmethod
    def suited(cls, config: Any, dataset: Dataset, label: str, classes: Sequence[str], values: Sequence[float]) -> Any:
        """Settle what a configuration leaves to the dataset, before the model is built; here nothing is left.

        Args:
            config: of the class's own kind.
            dataset: the rows to train on.
            label: the column that is predicted.
            classes: its class names; empty for values.
            values: its values in these rows and in those validated on; empty for classes.
        """
        return config

    @property
    def relative(self) -> bool:
        """Whether it reads the means of the speakers' other utterances, `speaker_means` of a batch."""
        return False

    def solve(
        self,
        dataset: Dataset,
        targets: NDArray[Any],
        weights: Floats,
        folds: int,
        seed: int,
        shares: Floats | None = None,
    ) -> dict[str, Any]:
        """Set the weights that are not learned by gradient, after the last epoch; here there are none.

        Args:
            dataset: N rows to train on.
            targets: (N,) indices of classes, or values.
            weights: (N,) of the rows.
            folds: parts that speakers are cut into where settings are chosen.
            seed: of the cut.
            shares: (N, C) of the classes in the votes of several coders, where these are learned.

        Returns:
            What was chosen, by name.
        """
        return {}

    def inherit(self, start: FusionModel) -> Inheritance:
        """What to take over from a trained model of the same kind; here all, so it must be of the same shape.

        Raises:
            ConfigError: it is of another shape.
        """
        mine, theirs = self.state_dict(), start.state_dict()
        same = (self.shape.task, self.shape.classes) == (start.shape.task, start.shape.classes)
        if not same or any(name not in mine or mine[name].shape != value.shape for name, value in theirs.items()):
            raise ConfigError(
                f"the checkpoint to start from is another model: it tells {', '.join(start.shape.classes) or 'values'}",
                hint="Train the same model with the same options, on the same classes",
            )
        return Inheritance(theirs, frozenset(theirs), self.shape.classes, (), start.shape.modalities)

    def groups(self, dataset: Dataset) -> NDArray[np.int64] | None:
        """(N,) numbers of the groups that rows belong to, where reading a group together costs less than apart.

        Training then keeps groups in one batch as far as they fit, and else puts rows of similar length together.
        """
        return None

    def sealed(self) -> Any:
        """The configuration that a checkpoint keeps: without what holds on one machine only."""
        return self.config

    def training_state(self) -> dict[str, Tensor]:
        """What training remembers of its rows and a checkpoint need not know; saved to go on after a kill."""
        return {}

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back a :meth:`training_state`."""


class Standardise(nn.Module):
    """(x - mean) / std per feature, clipped to +-limit; what could not be measured (NaN) is put at the mean.

    The statistics are buffers, so they travel with the checkpoint. Features that never vary become 0.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int, limit: float = 8.0) -> None:
        super().__init__()
        self.limit = limit
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def fit(self, steps: Tensor) -> None:
        """Set the statistics from (steps, D) training data."""
        if len(steps) == 0:
            return
        for block in range(0, steps.shape[1], 256):
            columns = slice(block, block + 256)
            self.mean[columns], self.scale[columns] = _moments(steps[:, columns].double())

    def keep(self, wanted: Tensor) -> None:
        """Make all features 0 but those that are wanted (D,)."""
        self.scale[~wanted] = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        z = (x - self.mean).mul_(self.scale)
        return z.nan_to_num_(nan=0.0, posinf=self.limit, neginf=-self.limit).clamp_(-self.limit, self.limit)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    finite = torch.isfinite(x)
    count = finite.sum(0).clamp(min=1)
    mean = torch.where(finite, x, 0.0).sum(0) / count
    std = (torch.where(finite, x - mean, 0.0).square().sum(0) / count).sqrt()
    varies = std > 1e-6 * mean.abs().clamp(min=1e-6)
    return mean, torch.where(varies, 1.0 / std.clamp(min=1e-12), 0.0)
