"""Settings of training: what to train and how, from a TOML file or in code."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Interval

from emopipe.errors import ConfigError, ConfigFileError
from emopipe.models.configs import Chance, Count, CountOrNone, Share, change, check
from emopipe.models.registry import configure


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training: what to train and how.

    Attributes:
        model, options: a registered model and what to change in its preset.
        label: the manifest column to predict; text makes a classification, numbers a regression.
        modalities: which to train on; empty for all that the dataset has.
        epochs, batch_size: as usual; the last, smaller batch is trained on too.
        order: batches of rows of similar `length`, so that little is padding, or `random` ones, as most papers have.
        accumulate: batches to a step; left-over batches make a step of their own.
        accumulate_mode: `mean` of their gradients, or `sum`.
        lr, weight_decay: of AdamW; norms and biases do not decay.
        start_rate: what is taken over from a checkpoint that training starts from learns with so much of `lr`.
        start_frozen: epochs in which that stays as it is, while new parts find their way.
        schedule: `cosine` after a linear warm-up, `plateau` (half after `plateau` epochs without progress) or `none`.
        schedule_epochs: the cosine is planned for so many epochs, so that the rate is not yet 0 at the end where there
            are fewer, which suits averaged weights; 0 for as many as there are.
        warmup: share of all steps.
        clip: largest gradient norm; 0 for no clipping.
        average: decay per step of a moving average of the weights, which then is what is validated and kept (Polyak
            and Juditsky 1992); 0 for none.
        select: keep the `best` epoch by the validation metric, or the `last`, so that validation rows choose nothing; a
            dataset without a validation split is then trained on whole.
        patience: stop after so many epochs without progress.
        metric: of validation; `auto` is uar for classes and mae for values. Also any other name in
            :mod:`emopipe.models.metrics`, or `loss`.
        soft_labels: where several coders gave labels, learn the shares of their votes; else the class that most voted
            for. Of values, the mean is learned either way.
        balance: `balanced` weights rows so that all classes count the same, `patterns` does so within each set of
            present modalities, `none` leaves rows as they are. Weights rather than a sampler: an epoch sees each row
            once, and the weights multiply those of the manifest.
        balance_limit: the largest such weight.
        balance_strength: exponent of these weights; between 0 and 1 rare classes count more, but not as much as others.
        modality_dropout: chance that a present modality is hidden in half of the training batches, never the last one.
        folds: the automatic split holds one of so many parts out.
        allow_speaker_overlap: accept a speaker on both sides of the split.
        abstain_accuracy: accuracy that answers above the abstain threshold reach on validation; 0 never abstains.
        seed: of initial weights, order, dropout and the automatic split.
        device: `auto` takes CUDA when there is one.
        amp: bfloat16 autocast on CUDA.
        cpu_amp: the same on CPUs that multiply bfloat16 (AVX512-BF16, AMX), where it suits large networks; on others it
            would take many times as long, and changes nothing.
    """

    model: str = "emoe"
    options: Mapping[str, Any] = field(default_factory=dict)
    label: str = "label"
    modalities: tuple[str, ...] = ()
    epochs: Count = 40
    batch_size: Count = 64
    order: Literal["length", "random"] = "length"
    accumulate: Count = 1
    accumulate_mode: Literal["mean", "sum"] = "mean"
    lr: Annotated[float, Interval(gt=0, le=100)] = 1e-3
    weight_decay: Annotated[float, Interval(ge=0, le=100)] = 0.01
    start_rate: Share = 0.3
    start_frozen: CountOrNone = 0
    schedule: Literal["cosine", "plateau", "none"] = "cosine"
    schedule_epochs: CountOrNone = 0
    warmup: Share = 0.05
    plateau: Count = 5
    clip: Annotated[float, Interval(ge=0, le=1e12)] = 1.0
    average: Chance = 0.0
    select: Literal["best", "last"] = "best"
    patience: Count = 10
    metric: str = "auto"
    soft_labels: bool = True
    balance: Literal["none", "balanced", "patterns"] = "balanced"
    balance_limit: Annotated[float, Interval(ge=0.01, le=10_000)] = 20.0
    balance_strength: Annotated[float, Interval(ge=0, le=4)] = 1.0
    modality_dropout: Chance = 0.15
    folds: Annotated[int, Interval(ge=2, le=10_000)] = 5
    allow_speaker_overlap: bool = False
    abstain_accuracy: Share = 0.0
    seed: Annotated[int, Interval(ge=0, le=2**32 - 1)] = 0
    device: str = "auto"
    amp: bool = True
    cpu_amp: bool = False

    def __post_init__(self) -> None:
        check(self, "[train]")
        if 0 < self.schedule_epochs < self.epochs:
            raise ConfigError(f"[train] schedule_epochs = {self.schedule_epochs} is below epochs = {self.epochs}")


def configuration(tables: Mapping[str, Any]) -> TrainConfig:
    """Read the settings of a training from the tables `[model]` (`name` and the model's options) and `[train]`.

    `[models]`, what is compared with it, is for `emopipe compare`.

    Raises:
        ConfigError: an unknown table or option, or a value that does not fit.
    """
    unknown = sorted(tables.keys() - {"model", "train", "models"})
    if unknown:
        raise ConfigError(f"there is no table [{unknown[0]}]", hint="Use [model] and [train]")
    model = dict(tables.get("model", {}))
    name = model.pop("name", TrainConfig.model)
    configure(name, model)
    reserved = {"model", "options"} & tables.get("train", {}).keys()
    if reserved:
        raise ConfigError(f"[train] has no option {min(reserved)!r}", hint="Name the model and its options in [model]")
    return change(TrainConfig(model=name, options=model), tables.get("train", {}), "[train]")


def read_configuration(path: str | Path) -> TrainConfig:
    """Read the settings of a training from a TOML file; see :func:`configuration`."""
    try:
        return configuration(tomllib.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:  # of TOML, of UTF-8, or of a number with 5,000 digits
        raise ConfigFileError(f"the configuration cannot be read: {error}", path=path) from error
