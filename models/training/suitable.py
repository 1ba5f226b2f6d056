"""Settings that suit a dataset: chosen from its counts of clips, speakers and classes, unless they are given."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from emopipe.models.data.dataset import Dataset
from emopipe.models.data.labelled import labelled, usable
from emopipe.models.predictor import Predictor
from emopipe.models.registry import configure, entry
from emopipe.models.training.config import TrainConfig

#: With fewer clips, settings are those for few.
FEW: Final = 1000
#: Relative to the speaker nothing is read where fewer clips are of speakers who show several classes: where each shows
#: one, what is usual for the speaker is what the class looks like.
VARIED: Final = 0.5
#: A class with fewer clips, or of fewer speakers, is warned of.
LEAST_CLIPS, LEAST_SPEAKERS = 10, 2


@dataclass(frozen=True)
class Counts:
    """What there is to learn from.

    Attributes:
        clips: rows with a label and a modality, those of split `test` left out.
        speakers: different ones among them; 0 where none is named.
        classes: class -> clips and speakers; empty for values.
        varied: share of the clips whose speaker has clips of another class, too; of values 1 where speakers are named.
        validated: the dataset names rows to validate on.
    """

    clips: int
    speakers: int
    classes: Mapping[str, tuple[int, int]]
    varied: float
    validated: bool

    @classmethod
    def of(cls, dataset: Dataset, config: TrainConfig) -> Counts:
        """Count what a configuration trains on."""
        data = dataset.select(config.modalities) if config.modalities else dataset
        rows = np.flatnonzero(usable(data, config.label) & (data.split != "test"))
        labels, speakers = data.labels(config.label)[rows], data.speakers[rows]
        classes = {}
        for name in sorted(set(labels)) if labels.dtype == object else ():
            own = speakers[labels == name]
            classes[str(name)] = (len(own), len({one for one in own if one is not None}))
        named = len({one for one in speakers if one is not None})
        varied = _varied(speakers, labels) if classes else float(named > 0)
        return cls(len(rows), named, classes, varied, bool((data.split[rows] == "valid").any()))

    def words(self) -> str:
        """The counts, in words."""
        parts = [f"{self.clips} clips"]
        parts += [f"{self.speakers} speaker{'s' * (self.speakers != 1)}"] if self.speakers else ["no speaker named"]
        return ", ".join([*parts, *([f"{len(self.classes)} classes"] if self.classes else [])])


def _varied(speakers: NDArray[Any], labels: NDArray[Any]) -> float:
    """Share of the rows whose speaker has rows of another class, too."""
    classes: dict[Any, set[Any]] = {}
    for speaker, label in zip(speakers, labels, strict=True):
        classes.setdefault(speaker, set()).add(label)
    return float(np.mean([one is not None and len(classes[one]) > 1 for one in speakers])) if len(speakers) else 0.0


def suit(
    config: TrainConfig, dataset: Dataset, start: Predictor | None, given: Collection[str]
) -> tuple[TrainConfig, list[str]]:
    """Change settings that were not given into those that suit a dataset.

    Args:
        config: the settings, given ones and defaults.
        dataset: what is trained on.
        start: what training begins with.
        given: names of the settings that were given, and of the model's options.

    Returns:
        The settings, and what was chosen, in words.
    """
    counts = Counts.of(dataset, config)
    if not entry(config.model).model.by_gradient or counts.clips >= FEW or counts.clips == 0:
        return config, []
    if getattr(configure(config.model, config.options), "backbone", ""):  # folds of a language model take hours
        return config, []
    train = {name: value for name, value in few(counts, start is not None).items() if name not in given}
    options: dict[str, Any] = {}
    if config.model == "emoe":
        features = {
            name: width for name, width in dataset.dims.items() if not config.modalities or name in config.modalities
        }
        options = small(counts, features, start is not None)
        options = {name: value for name, value in options.items() if name not in given}
    if "schedule_epochs" in given:
        train.pop("epochs", None)
    changed = replace(config, **train, options={**config.options, **options})
    chosen = ", ".join(f"{name} = {_plain(value)}" for name, value in {**train, **options}.items())
    return changed, [f"{counts.words()}: {chosen}"] if chosen else []


def few(counts: Counts, starts: bool) -> dict[str, Any]:
    """Settings of training for few clips. Nothing is held out to choose an epoch: folds measure, all is trained on."""
    settings: dict[str, Any] = {
        "epochs": 30 if starts else 40,
        "batch_size": 16 if counts.clips < FEW / 2 else 32,
        "weight_decay": 0.05,
        "average": 0.98,
    }
    return settings if counts.validated else {**settings, "select": "last"}


def small(counts: Counts, features: Mapping[str, int], starts: bool) -> dict[str, Any]:
    """Options of EMOE for few clips; where it begins with a checkpoint, the size of the network is that one's."""
    dropout = {
        name: round(float(np.clip(1 - counts.clips / max(width, 1), 0.1, 0.7)), 2) for name, width in features.items()
    }
    options: dict[str, Any] = {
        "relative": counts.varied >= VARIED,
        "linear": True,
        "label_smoothing": 0.1,
        "input_dropout": dropout,
        "members": 1,
    }
    return options if starts else {**options, "width": 32, "layers": 1}


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} = {one}" for name, one in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _left_out(dataset: Dataset, config: TrainConfig) -> list[str]:
    """Rows that are neither trained nor measured on, in words."""
    data = dataset.select(config.modalities) if config.modalities else dataset
    known = labelled(data, config.label)
    lacking = {config.label: ~known, " or ".join(data.modalities): known & ~usable(data, config.label)}
    return [f"{rows.sum()} rows have no {what} and are left out" for what, rows in lacking.items() if rows.any()]


def remarks(dataset: Dataset, config: TrainConfig) -> list[str]:
    """What to know of a dataset before believing what is trained on it, in words, with what to do."""
    counts = Counts.of(dataset, config)
    told = _left_out(dataset, config)
    if counts.speakers == 0 and counts.clips:
        told.append("no speakers are named: one person may be in training and test at once; add a column `speaker`")
    if counts.speakers == 1:
        told.append("there is one speaker: how well other people are read cannot be told; record others, two at least")
    if counts.speakers == 2:
        told.append("there are two speakers: each is tested on a model of the other alone; figures are rough")
    for name, (clips, speakers) in counts.classes.items():
        if clips < LEAST_CLIPS:
            told.append(f"class {name!r} has {clips} clips: hardly enough to learn; record more, or leave it out")
        if counts.speakers >= LEAST_SPEAKERS and speakers == 1:
            told.append(f"class {name!r} is of one speaker alone: the speaker may be learned in its place")
    return told
