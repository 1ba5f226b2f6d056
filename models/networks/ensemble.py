"""Several networks of one kind that are trained side by side, and whose mean answer counts.

Networks that begin with other random weights err differently where training tells little, so that their mean is right
more often, and sure less often where they disagree (Lakshminarayanan et al. 2017, deep ensembles).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emopipe.models.data.dataset import Batch, Dataset, Floats
from emopipe.models.networks.inheritance import Inheritance
from emopipe.models.networks.losses import Task
from emopipe.models.networks.model import FusionModel, Output, mean_output


class Ensemble(FusionModel):
    """Networks of the same shape and configuration; its answer is the mean of theirs.

    Args:
        members: two or more.
    """

    def __init__(self, members: Sequence[FusionModel]) -> None:
        first = members[0]
        super().__init__(first.shape, first.config)
        self.members = nn.ModuleList(members)
        for number, one in enumerate(self):
            one.number = number

    def __iter__(self) -> Iterator[FusionModel]:
        """The networks."""
        return (cast(FusionModel, one) for one in self.members)

    @property
    def first(self) -> FusionModel:
        """One of the networks."""
        return next(iter(self))

    @property
    def relative(self) -> bool:
        """Whether they read the means of the speakers' other utterances."""
        return self.first.relative

    def forward(self, batch: Batch) -> Output:
        """Predict a batch; the features are those of all networks, one behind the other."""
        return mean_of([one(batch) for one in self], self.shape.task)

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The mean of the networks' losses."""
        terms = [one.loss(said, batch) for one, said in zip(self, output.members, strict=True)]
        return {name: torch.stack([one[name] for one in terms]).mean() for name in terms[0]}

    def fit_inputs(self, dataset: Dataset) -> None:
        """Fit the inputs of each network, which may read other features than the others."""
        for one in self:
            one.fit_inputs(dataset)

    def solve(
        self,
        dataset: Dataset,
        targets: NDArray[Any],
        weights: Floats,
        folds: int,
        seed: int,
        shares: Floats | None = None,
    ) -> dict[str, Any]:
        """Set what is not learned by gradient in one network, and the same in the others."""
        before = {name: value.clone() for name, value in self.first.state_dict().items()}
        chosen = self.first.solve(dataset, targets, weights, folds, seed, shares)
        after = self.first.state_dict()
        solved = {name: value for name, value in after.items() if not torch.equal(value, before[name])}
        for one in self:
            one.load_state_dict(solved, strict=False)
        return chosen

    def inherit(self, start: FusionModel) -> Inheritance:
        """Each takes over from the network in its place; all from the same one where that is alone."""
        others = list(start) if isinstance(start, Ensemble) else [start]
        parts = [one.inherit(others[place % len(others)]) for place, one in enumerate(self)]
        weights = {f"members.{n}.{name}": value for n, part in enumerate(parts) for name, value in part.weights.items()}
        whole = frozenset(f"members.{number}.{name}" for number, part in enumerate(parts) for name in part.whole)
        return Inheritance(weights, whole, parts[0].classes, parts[0].anew, parts[0].modalities)

    def groups(self, dataset: Dataset) -> NDArray[np.int64] | None:
        """Rows that the networks read together for less."""
        return self.first.groups(dataset)

    def sealed(self) -> Any:
        """The configuration that a checkpoint keeps."""
        return self.first.sealed()

    def training_state(self) -> dict[str, Tensor]:
        """What the networks remember of their training rows."""
        return {
            f"{number}.{name}": value for number, one in enumerate(self) for name, value in one.training_state().items()
        }

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back a :meth:`training_state`."""
        for number, one in enumerate(self):
            start = f"{number}."
            own = {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
            one.load_training_state(own)


def alone(model: FusionModel) -> FusionModel:
    """A network by itself: the first of an ensemble."""
    return model.first if isinstance(model, Ensemble) else model


def mean_of(outputs: Sequence[Output], task: Task) -> Output:
    """The mean of what several networks say; `members` keeps what each says."""
    mean = outputs[0]
    for number, other in enumerate(outputs[1:], 2):
        share = other.logits.new_full((len(other.logits), 1), 1 / number)
        mean = mean_output(mean, other, share, task)
    features = {name: torch.cat([one.features[name] for one in outputs], -1) for name in mean.features}
    return replace(mean, features=features, members=tuple(outputs))
