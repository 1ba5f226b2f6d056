"""Take weights of a trained model over into one of other classes, other modalities, or of numbers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: What an entry of an axis stands for, such as a class or a modality.
Label = Hashable


@dataclass(frozen=True)
class Inheritance:
    """What a model took over from a trained one.

    Attributes:
        weights: name -> tensor, those that are taken over whole or in part.
        whole: names of those that are taken over whole.
        classes: that both know, whose rows are kept.
        anew: classes, or `values`, that begin with random weights.
        modalities: whose parts are taken over.
    """

    weights: Mapping[str, Tensor]
    whole: frozenset[str]
    classes: tuple[str, ...]
    anew: tuple[str, ...]
    modalities: tuple[str, ...]

    def words(self) -> str:
        """What was taken over, in a sentence."""
        parts = [f"the parts for {', '.join(self.modalities)}"] if self.modalities else []
        parts += [f"what it knows of {', '.join(self.classes)}"] if self.classes else []
        anew = f"; new: {', '.join(self.anew)}" if self.anew else ""
        return f"taken over: {' and '.join(parts) or 'nothing'}{anew}"


def rows_of(own: Tensor, other: Tensor, labels: Sequence[Label], others: Sequence[Label]) -> Tensor:
    """A tensor with the rows of another one where both have the label of a row.

    Args:
        own: (R, ...) with rows as they begin.
        other: (S, ...).
        labels: of the R rows.
        others: of the S rows.
    """
    place = {label: index for index, label in enumerate(others)}
    rows = own.clone()
    for index, label in enumerate(labels):
        if label in place:
            rows[index] = other[place[label]]
    return rows


def columns_of(own: Tensor, other: Tensor, labels: Sequence[Label], others: Sequence[Label]) -> Tensor:
    """The same for columns (K, R) and (K, S); columns that the other one has not are 0, so that they change nothing."""
    begin = torch.zeros_like(own).T
    return rows_of(begin, other.T, labels, others).T.contiguous()
