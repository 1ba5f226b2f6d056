"""Optimise weights: AdamW, the schedule of its learning rate, averaged weights, and the device to work on."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from emopipe.errors import DeviceUnavailable
from emopipe.models.networks.model import FusionModel
from emopipe.models.training.config import TrainConfig


def make_optimiser(model: FusionModel, config: TrainConfig, taken: Collection[str] = ()) -> torch.optim.AdamW:
    """Make an AdamW over the weights that are trained; norms and biases do not decay.

    Args:
        model: whose weights.
        config: rates and decay.
        taken: names of those that come from a checkpoint, which learn more slowly.
    """
    groups: list[dict[str, Any]] = []
    for old in (False, True):
        trained = [p for name, p in model.named_parameters() if p.requires_grad and (name in taken) == old]
        decayed, plain = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
        groups.append({"params": decayed, "weight_decay": config.weight_decay, "taken": old})
        groups.append({"params": plain, "weight_decay": 0.0, "taken": old})
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.lr, fused=True)


class Schedule:
    """The learning rate over time: a linear warm-up, then what `schedule` of :class:`TrainConfig` says.

    Args:
        optimiser: whose rate it is.
        config: how.

    Attributes:
        scale: what plateaus have made of the rate; part of the state of training.
    """

    def __init__(self, optimiser: torch.optim.Optimizer, config: TrainConfig) -> None:
        self._optimiser, self._config = optimiser, config
        self.scale = 1.0

    def set_rate(self, epoch: int, index: int, steps: int) -> float:
        """Set the learning rate of a step, and return it.

        Args:
            epoch: counted from 1.
            index: of the step within the epoch.
            steps: of an epoch.
        """
        step, planned = (epoch - 1) * steps + index, (self._config.schedule_epochs or self._config.epochs) * steps
        warm = max(1.0, self._config.warmup * planned)
        factor = min(1.0, (step + 1) / warm) * self.scale
        if self._config.schedule == "cosine" and step >= warm:
            factor *= 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, planned - warm)))
        for group in self._optimiser.param_groups:
            group["lr"] = self._config.lr * factor * (self._slower(epoch) if group["taken"] else 1.0)
        return self._config.lr * factor

    def _slower(self, epoch: int) -> float:
        """The share of the rate with which weights learn that come from a checkpoint."""
        return 0.0 if epoch <= self._config.start_frozen else self._config.start_rate

    def notice(self, stale: int) -> None:
        """Halve the rate on a plateau, which so many epochs without progress may be."""
        if self._config.schedule == "plateau" and stale and stale % self._config.plateau == 0:
            self.scale *= 0.5


class WeightAverage:
    """A moving average of the weights that are trained (Polyak and Juditsky 1992).

    Args:
        model: whose weights.
        decay: per step; 0 for no average.

    Attributes:
        values: name -> average; empty without any.
        steps: how many there were; part of the state of training, as the averages are.
    """

    def __init__(self, model: FusionModel, decay: float) -> None:
        self._model, self._decay = model, decay
        self.values = self._trained() if decay else {}
        self.steps = 0

    @torch.no_grad()
    def move(self) -> None:
        """Move the averages towards the weights, at first faster, so that they forget those of the start."""
        self.steps += 1
        if self.values:
            decay = min(self._decay, (1 + self.steps) / (10 + self.steps))
            now = dict(self._model.named_parameters())
            move = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
            move(list(self.values.values()), [now[name] for name in self.values], self.steps)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the averages as its weights for a while, where there are any."""
        live = self._trained() if self.values else {}
        self._put(self.values)
        try:
            yield
        finally:
            self._put(live)

    def _trained(self) -> dict[str, Tensor]:
        """A copy of the weights that are trained."""
        return {name: one.detach().clone() for name, one in self._model.named_parameters() if one.requires_grad}

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor]) -> None:
        now = dict(self._model.named_parameters())
        for name, value in weights.items():
            now[name].copy_(value)


def choose_device(name: str) -> torch.device:
    """Choose where to train: `auto` is CUDA when there is one, else the CPU.

    Raises:
        DeviceUnavailable: CUDA is asked for and not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceUnavailable("there is no CUDA device", hint='Use device = "cpu" or "auto"')
    return torch.device(name)


def mixes_precision(device: torch.device, config: TrainConfig) -> bool:
    """Whether to compute in bfloat16 where that is precise enough (autocast)."""
    if device.type == "cpu":
        return config.cpu_amp and multiplies_bfloat16()
    return config.amp and torch.cuda.is_bf16_supported()


def multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16: AVX512-BF16, AMX or Arm's."""
    return any(found is True for name, found in torch.cpu.get_capabilities().items() if name.endswith("bf16"))
