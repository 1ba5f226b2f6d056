"""How far a speaker varies: whether somebody shows several emotions, or one throughout.

What is usual for a speaker can be taken off where the speaker shows several emotions; where it is always the same one,
it is that emotion which would be taken off. How much somebody's utterances differ tells the two apart without knowing
what they show: utterances of one emotion differ less than those of several.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emopipe.models.data.dataset import Dataset
from emopipe.models.data.speakers import LEAST_OTHERS, utterance_mean

Numbers = NDArray[np.float64]

#: Of a modality's features those are read that tell most: this share of them, and no more than so many.
SHARE_READ: Final = 0.25
MOST_READ: Final = 200
#: A speaker with so many classes or more shows how utterances of several classes differ.
SEVERAL: Final = 3
#: Utterances that are drawn of such a speaker, besides all: few of them vary less surely than many.
DRAWN: Final = (6, 8, 12)
#: Added to variances, so that a feature that never moves says nothing.
LEAST_VARIANCE: Final = 1e-8


class Variation(nn.Module):
    """p = sigmoid(a v + b) that a speaker shows several classes.

    v is the mean, over the features that tell most, of ln(variance over the speaker's utterances / variance over
    utterances of one speaker and class). Until it is fitted, nothing is told.
    """

    read: Tensor
    noise: Tensor
    line: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        count = max(1, min(MOST_READ, int(SHARE_READ * dim)))
        self.register_buffer("read", torch.arange(count))
        self.register_buffer("noise", torch.ones(count))
        self.register_buffer("line", torch.full((2,), torch.nan))

    def forward(self, variances: Tensor) -> Tensor:
        """Variances (B, D) over the other utterances of each speaker, NaN where not known -> p (B,), there NaN, too."""
        return torch.sigmoid(self.line[0] * self._difference(variances) + self.line[1])

    def _difference(self, variances: Tensor) -> Tensor:
        """How much the utterances differ, v (B,), NaN where no feature that is read has a variance."""
        return ((variances[:, self.read] + LEAST_VARIANCE) / self.noise).log().nanmean(1)

    def fit(self, name: str, dataset: Dataset, targets: NDArray[np.int64], seed: int) -> dict[str, float]:
        """Learn from the named speakers of a dataset of N rows, whose classes are `targets` (N,).

        Returns:
            Slope and offset; nothing where no speaker shows several classes, or none has enough utterances of one.
        """
        speakers, classes, means = _utterances(name, dataset, targets)
        varied = [one for one in np.unique(speakers) if len(np.unique(classes[speakers == one])) >= SEVERAL]
        groups = [
            np.flatnonzero((speakers == who) & (classes == one))
            for who in np.unique(speakers)
            for one in np.unique(classes[speakers == who])
        ]
        single = [group for group in groups if len(group) > LEAST_OTHERS]
        if not varied or not single:
            return {}
        whole = [np.flatnonzero(speakers == who) for who in varied]
        noise = _pooled(means, [group for group in groups if speakers[group[0]] in varied]) + LEAST_VARIANCE
        told = _pooled(means, whole) / noise
        read = np.argsort(-told, kind="stable")[: len(self.read)]
        self.read.copy_(torch.from_numpy(read))
        self.noise.copy_(torch.from_numpy(noise[read]))
        rng = np.random.default_rng(seed)
        several = [part for one in whole for part in _parts(one, rng)]
        variances = np.stack([means[rows].var(0, ddof=1) for rows in [*single, *several]])
        v = self._difference(torch.from_numpy(variances)).numpy()
        slope, offset = _line(v, np.repeat([0, 1], [len(single), len(several)]))
        self.line.copy_(torch.tensor([slope, offset]))
        return {"slope": slope, "offset": offset}


def _utterances(
    name: str, dataset: Dataset, targets: NDArray[np.int64]
) -> tuple[NDArray[np.str_], NDArray[np.int64], Numbers]:
    """Speakers (U,), classes (U,) and mean features (U, D) of the utterances whose speaker is named."""
    rows: list[int] = []
    means: list[Numbers] = []
    for row, speaker in enumerate(dataset.speakers):
        steps = None if speaker is None else dataset.sample(row).features.get(name)
        if steps is not None and len(steps):
            rows.append(row)
            means.append(utterance_mean(steps))
    table = np.nan_to_num(np.array(means, np.float64))
    return np.array([str(dataset.speakers[row]) for row in rows], np.str_), targets[rows], table


def _pooled(means: Numbers, groups: list[NDArray[np.int64]]) -> Numbers:
    """Variance (D,) within groups of rows."""
    sums = sum(((means[rows] - means[rows].mean(0)) ** 2).sum(0) for rows in groups)
    return np.asarray(sums / max(1, sum(len(rows) - 1 for rows in groups)))


def _parts(rows: NDArray[np.int64], rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """All rows of a speaker, and fewer of them."""
    yield rows
    for count in DRAWN:
        if count < len(rows):
            yield rng.choice(rows, count, replace=False)


def _line(v: Numbers, several: NDArray[Any]) -> tuple[float, float]:
    """Slope and offset of a logistic regression in which both kinds of speakers count the same."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(class_weight="balanced").fit(v.reshape(-1, 1), several)
    return float(model.coef_[0, 0]), float(model.intercept_[0])
