"""Train a model, epoch by epoch: any registered model, on any dataset, resumable after a kill."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from emopipe.errors import ConfigError, TrainingError
from emopipe.models.checkpoint import identify
from emopipe.models.data.dataset import Dataset, Indices
from emopipe.models.networks.ensemble import Ensemble, alone
from emopipe.models.networks.inheritance import Inheritance
from emopipe.models.networks.model import FusionModel
from emopipe.models.predictor import Predictor
from emopipe.models.registry import configure, entry
from emopipe.models.training.batches import Batches, drop_modalities
from emopipe.models.training.calibration import calibrate
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.events import Hook, silent
from emopipe.models.training.optimisation import (
    Schedule,
    WeightAverage,
    choose_device,
    make_optimiser,
    mixes_precision,
)
from emopipe.models.training.plan import Plan, Split, choose_split, make_plan, make_spec
from emopipe.models.training.state import TrainingState, state_key
from emopipe.models.training.validation import Selection, Validation


@dataclass(frozen=True)
class Trained:
    """The result of a training.

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
    """Train a model on a dataset, and calibrate it.

    Args:
        dataset: rows without a label or without any of the modalities are left out, those of split `test` too.
        config: what to train and how.
        state: a folder for `metrics.jsonl` and the state from which the same call goes on after a kill, with the same
            result to the last bit.
        split: rows to train and validate on; else the manifest's train and valid, else one is made by speaker.
        start: a trained model of the same kind whose weights to begin with; what it lacks begins anew, such as the part
            for a modality that it never saw, or (where the kind allows for it) a class.
        hook: receives `{"event": "epoch" | "warning", ...}`.

    Raises:
        TrainingError: too few rows, classes or speakers; a speaker on both sides; a loss that is not finite.
        ConfigError, DatasetError: an unusable option or start, or a modality or label that is not there.
    """
    data = dataset.select(config.modalities) if config.modalities else dataset
    chosen = choose_split(data, config) if split is None else split
    plan = make_plan(data, config, chosen, hook)
    run = Run(plan, config, None if state is None else Path(state), hook, start)
    best = run.go()
    options = asdict(run.model.sealed())
    spec = make_spec(plan, config, best)
    if run.origin is not None:
        spec = replace(spec, training={**spec.training, "start": run.origin})
    predictor = Predictor(replace(spec, options=options), run.model, run.device)
    if len(plan.valid):
        predictor = calibrate(predictor, data, config.abstain_accuracy, rows=plan.valid)
    return Trained(predictor, run.state.history, best, (plan.train, plan.valid))


class Run:
    """One training run, epoch by epoch; everything that the next epoch depends on is in its state.

    Args:
        plan: what is trained on what.
        config: how.
        folder: for the state; None to keep none.
        hook: told after every epoch.
        start: a trained model to begin with.
    """

    def __init__(
        self, plan: Plan, config: TrainConfig, folder: Path | None, hook: Hook, start: Predictor | None = None
    ) -> None:
        self._plan, self._config, self._folder, self._hook = plan, config, folder, hook
        self._key = state_key(plan, config, "" if start is None else identify(start))
        self.device = choose_device(config.device)
        self.model, inherited = new_model(plan, config, start)
        self.model.to(self.device)
        groups = self.model.groups(plan.data)
        by_length = config.order == "length"
        self._batches = Batches(
            plan, config.batch_size, groups, self.device, relative=self.model.relative, by_length=by_length
        )
        self._validation = Validation(plan, self._batches, 4 * config.batch_size)
        optimiser = make_optimiser(self.model, config, inherited.whole if inherited else ())
        average = WeightAverage(self.model, config.average)
        selection = Selection(self.model, plan.metric, last=config.select == "last")
        self.origin = None if start is None or inherited is None else origin(start, inherited)
        if inherited is not None:
            hook({"event": "start", "message": inherited.words()})
        self.state = TrainingState(self.model, optimiser, Schedule(optimiser, config), average, selection)

    def go(self) -> dict[str, Any]:
        """Train to the end; the model then holds the selected weights. Returns the selected epoch's record."""
        return self._solve(self._descend() if self.model.by_gradient else {"epoch": 1, "train": {}})

    def _descend(self) -> dict[str, Any]:
        """Train epoch by epoch; returns the selected epoch's record."""
        state = self.state
        if self._folder is not None:
            state.resume(self._folder, self._key)
        while not self._finished():
            began = time.perf_counter()
            record = self.epoch(len(state.history) + 1)
            with state.average.applied():
                record["valid"], record["score"] = self._validation.measure(self.model)
                state.history.append(record)
                state.selection.judge(record)
            state.schedule.notice(state.selection.stale)
            if self._folder is not None:
                state.save(self._folder, self._key)
            seconds = time.perf_counter() - began
            self._hook({"event": "epoch", "epochs": self._config.epochs, "seconds": seconds, **record})
        self.model.load_state_dict(state.selection.weights)
        return state.selection.best

    def _solve(self, record: dict[str, Any]) -> dict[str, Any]:
        """Let the model set the weights that are not learned by gradient; adds what it chose to the record."""
        plan, config = self._plan, self._config
        rows = plan.train
        shares = None if plan.shares is None else plan.shares.numpy()[rows]
        self.model.to("cpu")
        chosen = self.model.solve(
            plan.data.subset(rows), plan.targets.numpy()[rows], plan.weights[rows], config.folds, config.seed, shares
        )
        self.model.to(self.device)
        if not chosen and self.model.by_gradient:
            return record
        record = {**record, "chosen": chosen}
        record["valid"], record["score"] = self._validation.measure(self.model)
        if not self.model.by_gradient:
            self.state.history.append(record)
        return record

    def _finished(self) -> bool:
        early = self._config.select == "best" and self.state.selection.stale >= self._config.patience
        return early or len(self.state.history) >= self._config.epochs

    def epoch(self, number: int) -> dict[str, Any]:
        """Train on every row once; the epoch's number, from 1, and the configured seed decide all that is random."""
        seeds = np.random.SeedSequence([self._config.seed, number])
        rng = np.random.default_rng(seeds)
        order, size = rng.permutation(self._plan.train), self._config.accumulate
        batches = self._batches.cut(order, rng)
        groups = [batches[at : at + size] for at in range(0, len(batches), size)]
        sums: dict[str, Tensor] = {}
        lr = 0.0
        self.model.train()
        with torch.random.fork_rng():
            torch.manual_seed(int(seeds.generate_state(1)[0]))
            for index, group in enumerate(groups):
                lr = self.state.schedule.set_rate(number, index, len(groups))
                self._step(group, rng, sums)
        losses = {name: float(value) / len(order) for name, value in sums.items()}
        if not math.isfinite(losses["total"]):
            raise TrainingError("the loss is no longer finite", hint="Lower lr, and check the features for huge values")
        return {"epoch": number, "lr": lr, "train": losses}

    def _step(self, group: Sequence[Indices], rng: np.random.Generator, sums: dict[str, Tensor]) -> None:
        """Gather the gradients of some batches and move; the losses are added to `sums`."""
        share = 1 / len(group) if self._config.accumulate_mode == "mean" else 1.0
        self.state.optimiser.zero_grad(set_to_none=True)
        for rows in group:
            batch = drop_modalities(self._batches.load(rows), self._config.modality_dropout, rng)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=mixes_precision(self.device, self._config)):
                terms = self.model.loss(self.model(batch), batch)
            if terms["total"].requires_grad:  # else nothing that the rows go through is trained
                (terms["total"] * share).backward()  # type: ignore[no-untyped-call]
            for name, value in terms.items():
                sums[name] = sums.get(name, torch.zeros((), device=self.device)) + value.detach() * len(rows)
        if self._config.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self._config.clip)
        self.state.optimiser.step()
        self.state.average.move()


def new_model(
    plan: Plan, config: TrainConfig, start: Predictor | None = None
) -> tuple[FusionModel, Inheritance | None]:
    """Build a model with random weights, fit its inputs to the training rows, and take over weights to start from.

    Raises:
        ConfigError: an unusable option, or a start that is another model.
        FeatureMismatch: the start was trained on other features.
    """
    rows, settings = plan.data.subset(plan.train), configure(config.model, config.options)
    values = () if plan.classes else plan.targets[np.concatenate([plan.train, plan.valid])].tolist()
    settings = entry(config.model).model.suited(settings, rows, config.label, plan.classes, values)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = replace(make_spec(plan, config), options=asdict(settings)).build()
    model.fit_inputs(rows)
    if start is None:
        return model, None
    start.check_features(plan.data.schema, plan.data.extraction)
    if start.spec.model != config.model:
        raise ConfigError(
            f"the checkpoint to start from is another model: {start.spec.model}", hint=f"Train --model {config.model}"
        )
    inherited = model.inherit(start.module if isinstance(model, Ensemble) else alone(start.module))
    model.load_state_dict({**model.state_dict(), **inherited.weights})
    return model, inherited


def origin(start: Predictor, inherited: Inheritance) -> dict[str, Any]:
    """What a checkpoint says of the one that its training started from."""
    spec = start.spec
    return {
        "id": identify(start),
        "model": spec.model,
        "label": spec.label,
        "classes": list(spec.classes),
        "kept": {"classes": list(inherited.classes), "modalities": list(inherited.modalities)},
        "training": dict(spec.training),
    }
