"""The training loop: any registered model, on any dataset, resumable after a kill."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Interval
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from emopipe.errors import ConfigError, ConfigFileError, DeviceUnavailable, TrainingError
from emopipe.models import metrics
from emopipe.models.checkpoint import identify, write_synced
from emopipe.models.configs import Chance, Count, CountOrNone, Share, change, check
from emopipe.models.data.dataset import Batch, Dataset, Floats, Indices
from emopipe.models.data.labelled import usable
from emopipe.models.data.splits import holdout, manifest_split, refuse_overlap
from emopipe.models.networks.losses import Task
from emopipe.models.networks.model import FusionModel
from emopipe.models.predictor import Predictor, Spec, pattern_name
from emopipe.models.registry import configure
from emopipe.models.training.calibration import calibrate

#: Batches among which rows are sorted by length.
POOL = 16

Hook = Callable[[dict[str, Any]], None]
Split = tuple[Indices, Indices]


def silent(event: dict[str, Any]) -> None:
    """The hook that tells nobody."""


@dataclass(frozen=True)
class TrainConfig:
    """What to train and how.

    Attributes:
        model, options: a registered model and what to change in its preset.
        label: the manifest column to predict; text makes a classification, numbers a regression.
        modalities: which to train on; empty for all that the dataset has.
        epochs, batch_size: as usual; the last, smaller batch is trained on too.
        accumulate: batches to a step; left-over batches make a step of their own.
        accumulate_mode: `mean` of their gradients, or `sum`.
        lr, weight_decay: of AdamW; norms and biases do not decay.
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
    accumulate: Count = 1
    accumulate_mode: Literal["mean", "sum"] = "mean"
    lr: Annotated[float, Interval(gt=0, le=100)] = 1e-3
    weight_decay: Annotated[float, Interval(ge=0, le=100)] = 0.01
    schedule: Literal["cosine", "plateau", "none"] = "cosine"
    schedule_epochs: CountOrNone = 0
    warmup: Share = 0.05
    plateau: Count = 5
    clip: Annotated[float, Interval(ge=0, le=1e12)] = 1.0
    average: Chance = 0.0
    select: Literal["best", "last"] = "best"
    patience: Count = 10
    metric: str = "auto"
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
    """A configuration from the tables `[model]` (`name` and the model's options) and `[train]`.

    Raises:
        ConfigError: an unknown table or option, or a value that does not fit.
    """
    unknown = sorted(tables.keys() - {"model", "train"})
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
    """A configuration from a TOML file; see :func:`configuration`."""
    try:
        return configuration(tomllib.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigFileError(f"the configuration cannot be read: {error}", path=path) from error


@dataclass(frozen=True)
class Trained:
    """What training returns.

    Attributes:
        predictor: the selected model, calibrated when there was validation data; on the device that it was trained on.
        history: one record per epoch, as in `metrics.jsonl`.
        best: the record of the selected epoch.
        split: rows trained and validated on.
    """

    predictor: Predictor
    history: list[dict[str, Any]]
    best: dict[str, Any]
    split: Split


def train(
    dataset: Dataset,
    config: TrainConfig,
    *,
    state: str | Path | None = None,
    split: Split | None = None,
    start: Predictor | None = None,
    hook: Hook = silent,
) -> Trained:
    """Train a model.

    Args:
        dataset: rows without a label or without any of the modalities are left out, those of split `test` too.
        config: what to train and how.
        state: a folder for `metrics.jsonl` and the state from which the same call goes on after a kill, with the same
            result to the last bit.
        split: rows to train and validate on; else the manifest's train and valid, else one is made by speaker.
        start: a trained model of the same kind and classes whose weights to begin with; what it lacks begins anew, such
            as the part for a modality that it never saw.
        hook: receives `{"event": "epoch" | "warning", ...}`.

    Raises:
        TrainingError: too few rows, classes or speakers; a speaker on both sides; a loss that is not finite.
        ConfigError, DatasetError: an unusable option or start, or a modality or label that is not there.
    """
    data = dataset.select(config.modalities) if config.modalities else dataset
    chosen = _split(data, config) if split is None else split
    plan = _plan(data, config, chosen, hook)
    run = _Run(plan, config, None if state is None else Path(state), hook, start)
    best = run.go()
    predictor = Predictor(replace(_spec(plan, config, best), options=asdict(run.model.sealed())), run.model, run.device)
    if len(plan.valid):
        predictor = calibrate(predictor, data.subset(plan.valid), config.abstain_accuracy)
    return Trained(predictor, run.history, best, (plan.train, plan.valid))


# ---------------------------------------------------------------------------------------------------------- the plan


@dataclass(frozen=True)
class _Plan:
    """What is trained on what: rows, targets (N,) of every dataset row, and sample weights (N,)."""

    data: Dataset
    train: Indices
    valid: Indices
    task: Task
    classes: tuple[str, ...]
    targets: Tensor
    weights: Floats
    metric: str


def _split(data: Dataset, config: TrainConfig) -> Split:
    """The manifest's split, or one of our own; see :func:`train`."""
    good = usable(data, config.label)
    pool = np.flatnonzero(good & (data.split != "test"))
    if not config.allow_speaker_overlap:
        refuse_overlap(data, pool, np.flatnonzero(data.split == "test"), "training and test")
    rest = data.subset(pool)
    given = manifest_split(rest, config.allow_speaker_overlap)
    if given is None and config.select == "last":
        return pool, np.zeros(0, dtype=np.int64)
    if given is None:
        _check_classes(data.labels(config.label)[pool])
        labels = rest.labels(config.label)
        given = holdout(rest, labels, config.folds, config.seed, not config.allow_speaker_overlap)
    return pool[given[0]], pool[given[1]]


def _check_classes(labels: NDArray[Any]) -> None:
    if len(labels) == 0:
        raise TrainingError("no row has a label and a modality", hint="Check the label column and the modalities")
    if labels.dtype == object and len(set(labels)) < 2:
        raise TrainingError(
            f"all rows to train on are labelled {labels[0]!r}", hint="Training needs two classes or more"
        )


def _plan(data: Dataset, config: TrainConfig, split: Split, hook: Hook) -> _Plan:
    good = usable(data, config.label)
    train_rows, valid_rows = (rows[good[rows]] for rows in split)
    dropped = len(split[0]) + len(split[1]) - len(train_rows) - len(valid_rows)
    if dropped:
        hook({"event": "warning", "message": f"{dropped} rows without label or modality are left out"})
    labels = data.labels(config.label)
    _check_classes(labels[train_rows])
    if config.select == "best" and len(valid_rows) == 0:
        raise TrainingError(
            "there are no rows to validate on", hint='Mark some as split "valid", or set select = "last"'
        )
    if labels.dtype != object:
        targets = torch.from_numpy(labels.astype(np.float32))
        metric = "mae" if config.metric == "auto" else config.metric
        return _Plan(data, train_rows, valid_rows, "regression", (), targets, _normal(data.weights, train_rows), metric)
    classes = tuple(sorted(set(labels[train_rows])))
    unseen = sorted(set(labels[valid_rows]) - set(classes))
    if unseen:
        raise TrainingError(
            f"class {unseen[0]!r} is validated on but never trained on",
            hint="Record it from two speakers or more, or leave it out",
        )
    index = {name: number for number, name in enumerate(classes)}
    numbers = np.array([index.get(one, -1) for one in labels], dtype=np.int64)
    weights = _balance(data, numbers, train_rows, config)
    metric = "uar" if config.metric == "auto" else config.metric
    return _Plan(data, train_rows, valid_rows, "classification", classes, torch.from_numpy(numbers), weights, metric)


def _normal(weights: Floats, rows: Indices) -> Floats:
    """Weights with mean 1 over `rows`."""
    return (weights / max(float(weights[rows].mean()), 1e-12)).astype(np.float32)


def _patterns(data: Dataset) -> NDArray[np.int64]:
    """(N,) a number for the set of present modalities."""
    number: NDArray[np.int64] = data.present.astype(np.int64) @ (1 << np.arange(data.present.shape[1], dtype=np.int64))
    return number


def _balance(data: Dataset, targets: Indices, rows: Indices, config: TrainConfig) -> Floats:
    """(N,) sample weights; see `balance` of :class:`TrainConfig`. Rows outside `rows` keep their own."""
    weights = data.weights.astype(np.float64)
    if config.balance != "none":
        cell = _patterns(data) if config.balance == "patterns" else np.zeros(len(data), dtype=np.int64)
        for one in np.unique(cell[rows]):
            inside = rows[cell[rows] == one]
            mass = np.bincount(targets[inside], weights[inside])
            share = mass.sum() / (np.count_nonzero(mass) * np.maximum(mass, 1e-12))
            factors = np.minimum(share, config.balance_limit) ** config.balance_strength
            weights[inside] *= factors[targets[inside]]
    return _normal(weights.astype(np.float32), rows)


def _priors(plan: _Plan) -> dict[str, dict[str, list[float]]]:
    """Class shares of the training rows per presence pattern, as found and as weighted, plus one row per class."""
    numbers, count = plan.targets.numpy()[plan.train], len(plan.classes)
    names = np.array([pattern_name(row, plan.data.modalities) for row in plan.data.present[plan.train]])
    found: dict[str, dict[str, list[float]]] = {}
    for name in ["", *sorted(set(names))]:
        inside = names == name if name else np.ones(len(names), dtype=bool)
        natural = np.bincount(numbers[inside], minlength=count) + 1.0
        trained = np.bincount(numbers[inside], plan.weights[plan.train][inside], count) + 1.0
        found[name] = {"natural": (natural / natural.sum()).tolist(), "trained": (trained / trained.sum()).tolist()}
    return found


def _spec(plan: _Plan, config: TrainConfig, best: Mapping[str, Any] | None = None) -> Spec:
    training = {
        "dataset": plan.data.hash,
        "rows": {"train": len(plan.train), "valid": len(plan.valid)},
        "config": {key: value for key, value in asdict(config).items() if key not in ("model", "options")},
        "best": dict(best or {}),
        "versions": {"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()},
    }
    return Spec(
        model=config.model,
        options=asdict(configure(config.model, config.options)),
        task=plan.task,
        label=config.label,
        classes=plan.classes,
        schema=plan.data.schema,
        extraction=plan.data.extraction,
        priors=_priors(plan) if plan.task == "classification" else {},
        training=training,
    )


# ------------------------------------------------------------------------------------------------------------ the run


class _Run:
    """One training run, epoch by epoch; everything that the next epoch depends on is in the state file."""

    def __init__(
        self, plan: _Plan, config: TrainConfig, folder: Path | None, hook: Hook, start: Predictor | None = None
    ) -> None:
        self.plan, self.config, self.folder, self.hook = plan, config, folder, hook
        self.start = "" if start is None else identify(start)
        self.device = choose_device(config.device)
        self.history: list[dict[str, Any]] = []
        self.scale, self.stale = 1.0, 0
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.model = _spec(plan, config).build()
        self.model.fit_inputs(plan.data.subset(plan.train))
        if start is not None:
            self._begin_with(start)
        self.model.to(self.device)
        self.groups = self.model.groups(plan.data)
        self.optimiser = _optimiser(self.model, config)
        self.averages = self._trained() if config.average else {}
        self.steps = 0
        self.best_weights = self._snapshot()
        self.best: dict[str, Any] = {}

    def _begin_with(self, start: Predictor) -> None:
        spec, own, known = start.spec, self.model.state_dict(), start.module.state_dict()
        fits = (spec.model, spec.task, spec.classes) == (self.config.model, self.plan.task, self.plan.classes)
        if not fits or any(name not in own or own[name].shape != value.shape for name, value in known.items()):
            raise ConfigError(
                f"the checkpoint to start from is another model: {spec.model} of {', '.join(spec.classes) or 'values'}",
                hint="Train the same model with the same options, on the same classes",
            )
        self.model.load_state_dict({**own, **known})

    def go(self) -> dict[str, Any]:
        """Train to the end; the model then holds the selected weights. Returns the selected epoch's record."""
        self._resume()
        while not self._finished():
            began = time.perf_counter()
            record = self._epoch(len(self.history) + 1)
            with self._averaged():
                record["valid"], record["score"] = self._validate()
                self._judge(record)
            self._save()
            self.hook(
                {"event": "epoch", "epochs": self.config.epochs, "seconds": time.perf_counter() - began, **record}
            )
        self.model.load_state_dict(self.best_weights)
        return self.best

    def _finished(self) -> bool:
        early = self.config.select == "best" and self.stale >= self.config.patience
        return early or len(self.history) >= self.config.epochs

    def _epoch(self, number: int) -> dict[str, Any]:
        seeds = np.random.SeedSequence([self.config.seed, number])
        rng = np.random.default_rng(seeds)
        order = rng.permutation(self.plan.train)
        batches = self._batches(order, rng)
        groups = [batches[at : at + self.config.accumulate] for at in range(0, len(batches), self.config.accumulate)]
        planned = (self.config.schedule_epochs or self.config.epochs) * len(groups)
        sums: dict[str, Tensor] = {}
        lr = 0.0
        self.model.train()
        with torch.random.fork_rng():
            torch.manual_seed(int(seeds.generate_state(1)[0]))
            for index, group in enumerate(groups):
                lr = self._set_rate((number - 1) * len(groups) + index, planned)
                self._step(group, rng, sums)
        losses = {name: float(value) / len(order) for name, value in sums.items()}
        if not math.isfinite(losses["total"]):
            raise TrainingError("the loss is no longer finite", hint="Lower lr, and check the features for huge values")
        return {"epoch": number, "lr": lr, "train": losses}

    def _batches(self, order: Indices, rng: np.random.Generator) -> list[Indices]:
        """Cut shuffled rows into batches: of the model's groups, else of similar length, so that little is padding.

        For the latter rows are sorted by length within pools of :data:`POOL` batches; the batches are then shuffled.
        """
        size = self.config.batch_size
        if self.groups is None:
            lengths = self.plan.data.lengths
            pools = [order[at : at + POOL * size] for at in range(0, len(order), POOL * size)]
            ordered = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
            batches = [ordered[at : at + size] for at in range(0, len(ordered), size)]
        else:
            batches = _whole_groups(order, self.groups[order], size)
        return [batches[index] for index in rng.permutation(len(batches))]

    def _step(self, group: Sequence[Indices], rng: np.random.Generator, sums: dict[str, Tensor]) -> None:
        """Gather the gradients of some batches and move."""
        share = 1 / len(group) if self.config.accumulate_mode == "mean" else 1.0
        self.optimiser.zero_grad(set_to_none=True)
        for rows in group:
            batch = drop_modalities(self._batch(rows), self.config.modality_dropout, rng)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._amp()):
                terms = self.model.loss(self.model(batch), batch)
            if terms["total"].requires_grad:  # else nothing that the rows go through is trained
                (terms["total"] * share).backward()  # type: ignore[no-untyped-call]
            for name, value in terms.items():
                sums[name] = sums.get(name, torch.zeros((), device=self.device)) + value.detach() * len(rows)
        if self.config.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimiser.step()
        self._average()

    def _trained(self) -> dict[str, Tensor]:
        """A copy of the weights that are trained."""
        return {name: one.detach().clone() for name, one in self.model.named_parameters() if one.requires_grad}

    @torch.no_grad()
    def _average(self) -> None:
        """Move the averages towards the weights, at first faster, so that they forget those of the start."""
        self.steps += 1
        if self.averages:
            decay = min(self.config.average, (1 + self.steps) / (10 + self.steps))
            now = dict(self.model.named_parameters())
            move = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
            move(list(self.averages.values()), [now[name] for name in self.averages], self.steps)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model has the averages as its weights, where there are any."""
        live = self._trained() if self.averages else {}
        self._put(self.averages)
        try:
            yield
        finally:
            self._put(live)

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor]) -> None:
        now = dict(self.model.named_parameters())
        for name, value in weights.items():
            now[name].copy_(value)

    def _amp(self) -> bool:
        if self.device.type == "cpu":
            return self.config.cpu_amp and multiplies_bfloat16()
        return self.config.amp and torch.cuda.is_bf16_supported()

    def _batch(self, rows: Indices) -> Batch:
        batch = self.plan.data.batch(rows)
        index = torch.from_numpy(rows)
        labels, weights = self.plan.targets[index], torch.from_numpy(self.plan.weights[rows])
        return replace(batch, labels=labels, weights=weights, rows=index).to(self.device)

    def _set_rate(self, step: int, steps: int) -> float:
        warm = max(1.0, self.config.warmup * steps)
        factor = min(1.0, (step + 1) / warm) * self.scale
        if self.config.schedule == "cosine" and step >= warm:
            factor *= 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, steps - warm)))
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.lr * factor
        return self.config.lr * factor

    @torch.inference_mode()
    def _validate(self) -> tuple[dict[str, float], float]:
        """Metrics over the validation rows, and the one that chooses an epoch; none and NaN without any rows.

        The latter takes the training rows' mean for values that were not said: a model that answers only what is easy
        must not win.
        """
        rows, size = self.plan.valid, 4 * self.config.batch_size
        if len(rows) == 0:
            return {}, math.nan
        self.model.eval()
        logits, total = [], 0.0
        for at in range(0, len(rows), size):
            batch = replace(self._batch(rows[at : at + size]), weights=None)
            output = self.model(batch)
            total += float(self.model.loss(output, batch)["total"]) * len(batch)
            logits.append(output.logits.float().cpu())
        scores, truth = torch.cat(logits).numpy(), self.plan.targets.numpy()[rows]
        loss = {"loss": total / len(rows)}
        if self.plan.task == "classification":
            found = complete = {**loss, **metrics.classification(truth, scores.argmax(axis=1))}
        else:
            mean = float(self.plan.targets[torch.from_numpy(self.plan.train)].mean())
            found = {**loss, **metrics.regression(truth, scores[:, 0])}
            complete = {**loss, **metrics.regression(truth, np.nan_to_num(scores[:, 0], nan=mean))}
        if self.plan.metric not in complete:
            raise ConfigError(f"[train] metric = {self.plan.metric!r}", hint=f"Choose among: {', '.join(complete)}")
        return found, complete[self.plan.metric]

    def _judge(self, record: dict[str, Any]) -> None:
        """Append the record; remember the weights when they are the best so far."""
        self.history.append(record)
        last = self.config.select == "last" or not record["valid"]
        if last or not self.best or _better(self.plan.metric, record["score"], self.best["score"]):
            self.best, self.best_weights, self.stale = record, self._snapshot(), 0
            return
        self.stale += 1
        if self.config.schedule == "plateau" and self.stale % self.config.plateau == 0:
            self.scale *= 0.5

    def _snapshot(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}

    # ------------------------------------------------------------------------------------------------------ the state

    def _key(self) -> str:
        """What the state belongs to: configuration, data and split."""
        config = {key: value for key, value in asdict(self.config).items() if key != "device"}
        parts = [json.dumps(config, sort_keys=True), self.plan.data.hash, self.start]
        parts += [json.dumps(self.plan.data.ids[rows].tolist()) for rows in (self.plan.train, self.plan.valid)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _save(self) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"model/{name}": value for name, value in self._snapshot().items()}
        tensors |= {f"best/{name}": value for name, value in self.best_weights.items()}
        tensors |= {f"average/{name}": value.cpu().clone() for name, value in self.averages.items()}
        tensors |= {f"memory/{name}": value.cpu().clone() for name, value in self.model.training_state().items()}
        for number, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam/{number}/{name}": value.cpu().clone() for name, value in moments.items()}
        facts = {
            "key": self._key(),
            "history": self.history,
            "best": self.best,
            "scale": self.scale,
            "stale": self.stale,
            "steps": self.steps,
        }
        write_atomic(self.folder / "state.safetensors", save_tensors(tensors, {"emopipe": json.dumps(facts)}))
        lines = "".join(json.dumps(record) + "\n" for record in self.history)
        write_atomic(self.folder / "metrics.jsonl", lines.encode())

    def _resume(self) -> None:
        path = None if self.folder is None else self.folder / "state.safetensors"
        if path is None or not path.is_file():
            return
        try:
            with safe_open(path, framework="pt") as file:
                facts = json.loads(file.metadata()["emopipe"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise TrainingError(f"the state of training is damaged: {error}", hint="Remove it", path=path) from error
        if facts["key"] != self._key():
            raise TrainingError(
                "the folder holds the state of another training (other data, split or configuration)",
                hint="Choose another folder, or remove the state",
                path=path,
            )
        self.history, self.best = facts["history"], facts["best"]
        self.scale, self.stale, self.steps = facts["scale"], facts["stale"], facts["steps"]
        parts = {kind: _under(tensors, kind) for kind in ("model", "best", "average", "adam", "memory")}
        self.model.load_state_dict(parts["model"])
        self.model.load_training_state(parts["memory"])
        self.best_weights = parts["best"]
        for name, value in parts["average"].items():
            self.averages[name].copy_(value)
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["adam"].items():
            number, what = name.split("/")
            moments.setdefault(int(number), {})[what] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})


def _under(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{kind}/"): value for name, value in tensors.items() if name.startswith(f"{kind}/")}


def _whole_groups(order: Indices, groups: Indices, size: int) -> list[Indices]:
    """Batches of at most `size` rows that hold groups whole, in the order of their first rows; larger ones are cut."""
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


def _better(metric: str, new: float, old: float) -> bool:
    if math.isnan(new):
        return False
    if math.isnan(old):
        return True
    return new < old if metric in metrics.SMALLER_IS_BETTER else new > old


def _optimiser(model: FusionModel, config: TrainConfig) -> torch.optim.AdamW:
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.lr, fused=True)


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA when there is one, else the CPU.

    Raises:
        ConfigError: CUDA is asked for and not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceUnavailable("there is no CUDA device", hint='Use device = "cpu" or "auto"')
    return torch.device(name)


def multiplies_bfloat16() -> bool:
    """The CPU has instructions for it: AVX512-BF16, AMX or Arm's."""
    return any(found is True for name, found in torch.cpu.get_capabilities().items() if name.endswith("bf16"))


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


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a kill leaves the old content or the new, never a part."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    write_synced(fresh, data)
    fresh.replace(path)
