"""Validate a model after an epoch, and select the epoch whose weights are kept."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emopipe.errors import ConfigError
from emopipe.models import metrics
from emopipe.models.networks.model import FusionModel
from emopipe.models.training.batches import Batches
from emopipe.models.training.plan import Plan


class Validation:
    """Measures a model on the validation rows of a plan.

    Args:
        plan: the rows, and the metric that chooses an epoch.
        batches: loads them.
        size: rows at a time.
    """

    def __init__(self, plan: Plan, batches: Batches, size: int) -> None:
        self._plan, self._batches, self._size = plan, batches, size

    @torch.inference_mode()
    def measure(self, model: FusionModel) -> tuple[dict[str, float], float]:
        """Compute the metrics over the validation rows, and the one that chooses an epoch; {} and NaN without rows.

        The latter takes the training rows' mean for values that were not said: a model that answers only what is easy
        must not win.

        Raises:
            ConfigError: there is no such metric.
        """
        rows = self._plan.valid
        if len(rows) == 0:
            return {}, math.nan
        scores, loss = self._answers(model)
        truth = self._plan.targets.numpy()[rows]
        if self._plan.task == "classification":
            figures = complete = {"loss": loss, **metrics.classification(truth, scores.argmax(axis=1))}
        else:
            kind = self._plan.scoring.kind
            mean = float(self._plan.targets[torch.from_numpy(self._plan.train)].mean())
            figures = {"loss": loss, **metrics.regression(truth, scores[:, 0], kind=kind)}
            said = np.nan_to_num(scores[:, 0], nan=mean)
            complete = {"loss": loss, **metrics.regression(truth, said, kind=kind)}
        if self._plan.metric not in complete:
            raise ConfigError(f"[train] metric = {self._plan.metric!r}", hint=f"Choose among: {', '.join(complete)}")
        return figures, complete[self._plan.metric]

    def _answers(self, model: FusionModel) -> tuple[np.ndarray, float]:
        """The logits of the validation rows, and their mean loss, every row counting the same."""
        rows = self._plan.valid
        model.eval()
        logits, total = [], 0.0
        for at in range(0, len(rows), self._size):
            batch = replace(self._batches.load(rows[at : at + self._size]), weights=None)
            output = model(batch)
            total += float(model.loss(output, batch)["total"]) * len(batch)
            logits.append(output.logits.float().cpu())
        return torch.cat(logits).numpy(), total / len(rows)


class Selection:
    """The epoch that is kept: the best one so far by a metric, or the last one.

    Args:
        model: whose weights are kept.
        metric: that epochs are judged by.
        last: keep the last epoch whatever its score is.

    Attributes:
        best: the record of the epoch that is kept; {} before the first.
        weights: of the model in that epoch.
        stale: epochs since then. All three are part of the state of training.
    """

    def __init__(self, model: FusionModel, metric: str, last: bool) -> None:
        self._model, self._metric, self._last = model, metric, last
        self.best: dict[str, Any] = {}
        self.weights = snapshot(model)
        self.stale = 0

    def judge(self, record: dict[str, Any]) -> None:
        """Keep an epoch, whose weights the model has now, when it is the best so far."""
        last = self._last or not record["valid"]
        if last or not self.best or better(self._metric, record["score"], self.best["score"]):
            self.best, self.weights, self.stale = record, snapshot(self._model), 0
        else:
            self.stale += 1


def snapshot(model: FusionModel) -> dict[str, Tensor]:
    """Copy all weights of a model."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def better(metric: str, new: float, old: float) -> bool:
    """Whether a score is better than another; NaN never is."""
    if math.isnan(new):
        return False
    if math.isnan(old):
        return True
    return new < old if metric in metrics.SMALLER_IS_BETTER else new > old
