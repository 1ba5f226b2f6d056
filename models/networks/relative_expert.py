"""A linear model of what is unusual for the speaker, beside what a network says of the same.

Utterances whose speakers are known are few where most training rows are single pictures or takes, and a linear model
makes more of few.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emopipe.models.data.dataset import Dataset, Floats
from emopipe.models.data.labelled import even_weights
from emopipe.models.networks.linear import (
    LEAST_ROWS,
    LINEAR_SHARE,
    Expert,
    LinearConfig,
    Problem,
    inner_folds,
    mean_inputs,
)
from emopipe.models.networks.losses import Task
from emopipe.models.networks.model import mean_answer


class RelativeExpert(nn.Module):
    """Joins a network's answer and that of a linear model; until this is fitted, the network's stays as it is.

    Of classes that the fitted utterances do not have, the network alone tells how likely they are.
    """

    fitted: Tensor

    def __init__(self, dim: int, outputs: int, task: Task) -> None:
        super().__init__()
        self.expert = Expert(dim, outputs, task)
        self.register_buffer("fitted", torch.zeros(outputs, dtype=torch.bool))

    def forward(self, unusual: Tensor, answer: Tensor) -> Tensor:
        """The mean of both answers (B, C), as logits or values.

        Args:
            unusual: (B, D) mean features less the speaker's mean.
            answer: (B, C) of the network, likewise.
        """
        said, share = self.expert(unusual), answer.new_full((), LINEAR_SHARE)
        if self.expert.task == "classification":
            answer = answer.log_softmax(1)
            left = torch.where(self.fitted, answer, -torch.inf).logsumexp(1, keepdim=True)
            among = torch.where(self.fitted, said, -torch.inf).log_softmax(1)
            said = left + among
        return mean_answer(answer, torch.where(self.fitted, said, answer), share, self.expert.task)

    def fit(
        self,
        name: str,
        dataset: Dataset,
        targets: NDArray[Any],
        weights: Floats,
        folds: int,
        seed: int,
        shares: Floats | None = None,
    ) -> dict[str, float]:
        """Fit to the utterances of a dataset of N rows whose speakers are known; rows that repeat one count once.

        Args:
            name: the modality.
            dataset, targets, weights, folds, seed, shares: as of :meth:`FusionModel.solve`.

        Returns:
            The strength that was chosen; nothing where there is too little to fit to.
        """
        unusual = mean_inputs(dataset, name, "relative")
        known = np.flatnonzero(torch.isfinite(unusual).any(1).numpy())
        _, first = np.unique(unusual[known].nan_to_num().numpy(), axis=0, return_index=True)
        rows = known[np.sort(first)]
        task = self.expert.task
        if len(rows) < LEAST_ROWS or (task == "classification" and len(np.unique(targets[rows])) < 2):
            return {}
        inner = inner_folds(dataset.subset(rows), targets[rows], folds, seed)
        soft = None if shares is None else shares[rows].astype(np.float64)
        even = even_weights(weights, rows)[rows]
        problem = Problem(task, len(self.fitted), targets[rows], even, inner, soft)
        _, strength = self.expert.fit(unusual[rows], np.arange(len(rows)), problem, LinearConfig(), seed)
        shown = problem.shares.any(0) if task == "classification" else np.array([True])
        self.fitted.copy_(torch.from_numpy(shown))
        return {"strength": strength}
