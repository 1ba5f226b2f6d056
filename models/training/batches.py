"""Cut rows into batches for an epoch of training, load them, and hide modalities at random."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import torch

from emopipe.models.data.dataset import Batch, Indices
from emopipe.models.training.plan import Plan

#: Batches among which rows are sorted by length.
POOL: Final = 16


class Batches:
    """Batches of the rows of a plan.

    Args:
        plan: the rows, their targets and weights.
        size: rows of a batch at most.
        groups: (N,) what a model wants together in one batch; None where rows of similar length should be.
        device: that batches are loaded to.
        relative: the model reads the means of the speakers' other utterances.
        by_length: put rows of similar length together; else they stay in their random order.
    """

    def __init__(
        self,
        plan: Plan,
        size: int,
        groups: Indices | None,
        device: torch.device,
        *,
        relative: bool = False,
        by_length: bool = True,
    ) -> None:
        self._plan, self._size, self._groups, self._device, self._relative = plan, size, groups, device, relative
        self._by_length = by_length

    def cut(self, order: Indices, rng: np.random.Generator) -> list[Indices]:
        """Cut shuffled rows into batches: of the model's groups, else of similar length, so that little is padding.

        For the latter rows are sorted by length within pools of :data:`POOL` batches; the batches are then shuffled.
        With neither they are cut as they come.
        """
        size = self._size
        if self._groups is None and not self._by_length:
            return [order[at : at + size] for at in range(0, len(order), size)]
        if self._groups is None:
            lengths = self._plan.data.lengths
            pools = [order[at : at + POOL * size] for at in range(0, len(order), POOL * size)]
            ordered = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
            batches = [ordered[at : at + size] for at in range(0, len(ordered), size)]
        else:
            batches = whole_groups(order, self._groups[order], size)
        return [batches[index] for index in rng.permutation(len(batches))]

    def load(self, rows: Indices) -> Batch:
        """Read rows with their targets and weights."""
        batch = self._plan.data.batch(rows, relative=self._relative)
        index = torch.from_numpy(rows)
        labels, weights = self._plan.targets[index], torch.from_numpy(self._plan.weights[rows])
        shares = None if self._plan.shares is None else self._plan.shares[index]
        return replace(batch, labels=labels, shares=shares, weights=weights, rows=index).to(self._device)


def whole_groups(order: Indices, groups: Indices, size: int) -> list[Indices]:
    """Cut rows into batches that hold groups whole, in the order of their first rows; larger groups are cut.

    Args:
        order: the rows.
        groups: of which group each of them is.
        size: rows of a batch at most.
    """
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    batches: list[list[Indices]] = []
    room = 0
    for one in np.argsort(first):
        rows = order[group == one]
        for part in (rows[at : at + size] for at in range(0, len(rows), size)):
            if len(part) > room:
                batches, room = [*batches, []], size
            batches[-1].append(part)
            room -= len(part)
    return [np.concatenate(batch) for batch in batches]


def drop_modalities(batch: Batch, chance: float, rng: np.random.Generator) -> Batch:
    """Hide each present modality with `chance`, never an utterance's last; half of the batches stay untouched."""
    if chance == 0 or rng.random() < 0.5:
        return batch
    present = batch.present.cpu().numpy()
    keep = rng.random(present.shape) >= chance
    bare = ~(present & keep).any(axis=1)
    spared = np.where(present, rng.random(present.shape), -1.0).argmax(axis=1)
    keep[bare, spared[bare]] = True
    return batch.masked(torch.from_numpy(keep))
