"""Save the state of training after every epoch, and resume from it after a kill with the same result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from emopipe.errors import TrainingError
from emopipe.files import write_atomic, writing
from emopipe.models.networks.model import FusionModel
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.optimisation import Schedule, WeightAverage
from emopipe.models.training.plan import Plan
from emopipe.models.training.validation import Selection, snapshot

#: In the folder of a training: its state, and a line of JSON per epoch.
STATE: Final = "state.safetensors"
METRICS: Final = "metrics.jsonl"


@dataclass
class TrainingState:
    """Everything that the next epoch depends on.

    Attributes:
        model: with the weights of the last epoch.
        optimiser: its moments.
        schedule: of the learning rate.
        average: of the weights.
        selection: of the epoch that is kept.
        history: one record per epoch.
    """

    model: FusionModel
    optimiser: torch.optim.AdamW
    schedule: Schedule
    average: WeightAverage
    selection: Selection
    history: list[dict[str, Any]] = field(default_factory=list)

    def save(self, folder: Path, key: str) -> None:
        """Write the state and the metrics of all epochs; a kill leaves the old files or the new.

        Args:
            folder: that holds nothing but this training.
            key: of :func:`state_key`.
        """
        facts = {
            "key": key,
            "history": self.history,
            "best": self.selection.best,
            "scale": self.schedule.scale,
            "stale": self.selection.stale,
            "steps": self.average.steps,
        }
        lines = "".join(json.dumps(record) + "\n" for record in self.history)
        with writing("the state of the training", folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / STATE, save_tensors(self._tensors(), {"emopipe": json.dumps(facts)}), durable=True)
            write_atomic(folder / METRICS, lines, durable=True)

    def resume(self, folder: Path, key: str) -> None:
        """Take up the state that a folder holds, if it holds any.

        Raises:
            TrainingError: the state is damaged, or of another training.
        """
        path = folder / STATE
        if not path.is_file():
            return
        facts, tensors = _read(path)
        if facts["key"] != key:
            raise TrainingError(
                "the folder holds the state of another training (other data, split or configuration)",
                hint="Choose another folder, or remove the state",
                path=path,
            )
        self.history, self.schedule.scale, self.average.steps = facts["history"], facts["scale"], facts["steps"]
        self.selection.best, self.selection.stale = facts["best"], facts["stale"]
        self._take(tensors)

    def _tensors(self) -> dict[str, Tensor]:
        """Weights, averages and moments, under names that tell which they are."""
        tensors = {f"model/{name}": value for name, value in snapshot(self.model).items()}
        tensors |= {f"best/{name}": value for name, value in self.selection.weights.items()}
        tensors |= {f"average/{name}": value.cpu().clone() for name, value in self.average.values.items()}
        tensors |= {f"memory/{name}": value.cpu().clone() for name, value in self.model.training_state().items()}
        for number, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam/{number}/{name}": value.cpu().clone() for name, value in moments.items()}
        return tensors

    def _take(self, tensors: Mapping[str, Tensor]) -> None:
        """Put saved tensors in their places."""
        parts = {kind: _under(tensors, kind) for kind in ("model", "best", "average", "adam", "memory")}
        self.model.load_state_dict(parts["model"])
        self.model.load_training_state(parts["memory"])
        self.selection.weights = parts["best"]
        for name, value in parts["average"].items():
            self.average.values[name].copy_(value)
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["adam"].items():
            number, what = name.split("/")
            moments.setdefault(int(number), {})[what] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})


def state_key(plan: Plan, config: TrainConfig, start: str) -> str:
    """Hash what a state belongs to: configuration, data, split, and the id of the checkpoint that training began with.

    The device is not part of it.
    """
    settings = {key: value for key, value in asdict(config).items() if key != "device"}
    parts = [json.dumps(settings, sort_keys=True), plan.data.hash, start]
    parts += [json.dumps(plan.data.ids[rows].tolist()) for rows in (plan.train, plan.valid)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The facts and the tensors of a saved state."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["emopipe"])
            return facts, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"the state of training is damaged: {error}", hint="Remove it", path=path) from error


def _under(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a kind, under the rest of their names."""
    return {name.removeprefix(f"{kind}/"): value for name, value in tensors.items() if name.startswith(f"{kind}/")}
