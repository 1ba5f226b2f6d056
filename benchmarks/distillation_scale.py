"""How much the forms of EMOE's unimodal distillation pull, beside the task: gradient norms on a dataset of classes.

    python benchmarks/distillation_scale.py DATASET [--width 256] [--steps 60]

Prints |grad lambda2 L_ud| / |grad L_task| over all parameters, lambda2 = 0.1 as published, before training and after
some steps of it. DATASET is for example the `face-voice` that `ravdess_face_voice.py` makes.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Final, get_args

import numpy as np
import torch
from torch import Tensor

from emopipe.models.data.dataset import Dataset
from emopipe.models.data.reading import read
from emopipe.models.networks.losses import Distillation
from emopipe.models.networks.model import FusionModel, Shape
from emopipe.models.registry import build

LAMBDA2: Final = 0.1
BATCH: Final = 32


def norm(term: Tensor, model: FusionModel) -> float:
    """Of the gradient of one loss over all parameters."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    return float(torch.stack([one.norm() for one in gradients if one is not None]).norm())


def ratios(dataset: Dataset, form: Distillation, width: int, steps: int) -> tuple[float, float]:
    """Of distillation to task, before the first step and after the last."""
    labels = dataset.labels("label")
    classes = sorted(set(labels))
    targets = torch.tensor([classes.index(label) for label in labels])
    torch.manual_seed(0)
    shape = Shape(dataset.dims, len(classes), "classification")
    model = build("emoe", shape, {"width": width, "distillation": form, "lambda2": LAMBDA2})
    model.fit_inputs(dataset)
    optimiser, rng, measured = torch.optim.AdamW(model.parameters(), lr=5e-4), np.random.default_rng(0), []
    for step in range(steps + 1):
        rows = rng.permutation(len(dataset))[:BATCH]
        batch = replace(dataset.batch(rows), labels=targets[rows])
        terms = model.loss(model(batch), batch)
        if step in (0, steps):
            measured.append(LAMBDA2 * norm(terms["distillation"], model) / norm(terms["task"], model))
        optimiser.zero_grad()
        terms["total"].backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return measured[0], measured[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    dataset = read(options.dataset)
    for form in get_args(Distillation):
        before, after = ratios(dataset, form, options.width, options.steps)
        print(f"{form}: {before:.1e} before training, {after:.1e} after {options.steps} steps")


if __name__ == "__main__":
    main()
