"""Adapt the face branch of `emopipe-default-1` to the expression encoder, which makes `emopipe-default`.

    python benchmarks/default_face.py --data DATA --work WORK [--seeds 3] [STEP ...]

The steps are train and card. WORK holds the crops of `expression_encoder.py`, and for the card `generalisation.md`, the
table that `generalisation.py` prints. Voice, words, router and fused head stay as
`default_checkpoint.py` trained them. The face branch begins as the old one, which reads blendshapes and mesh, with new
inputs of weight 0. It is then trained on RAF-DB and FER+, both through its own head and through the frozen fused head,
so that what it says means the same there. A picture becomes one to six steps: the crop with other mouths, places and
light, the landmarks with a little noise. Seed 0 is shipped.
"""

from __future__ import annotations

import argparse
import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import expression_encoder as recipe
import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader
from torch.nn import functional

from emopipe.extractors.face.expression import ExpressionEncoder, network_input
from emopipe.extractors.face.table import EMOTIONS, EXPRESSION
from emopipe.models import checkpoint
from emopipe.models.predictor import Predictor

BEFORE: Final = "emopipe-default-1"
SHIPPED: Final = Path(__file__).parent.parent / "models" / "checkpoints" / "emopipe-default"
COLUMNS: Final = (*recipe.SHAPES, *EMOTIONS, *EXPRESSION)
GROUPS: Final = ["blendshapes", "mesh", "emotions", "expression"]
#: How `generalisation.py` was called for the card, and its limit of pictures of a class.
ARGUMENTS: Final = "--corpora rafdb,fer2013,sfew,javased"
MEASURED: Final = 100
#: Training pictures of a class of a corpus, at most, and how many changed forms each has.
MOST: Final = 400
VERSIONS: Final = 2
EPOCHS: Final = 8
BATCH: Final = 64
RATE: Final = 5e-4
STEPS: Final = 6
SMOOTHING: Final = 0.1
#: Noise of the landmarks' columns in changed forms, in standard deviations.
JITTER: Final = 0.3
Arrays = dict[str, np.ndarray]


def measured(data: Path, work: Path) -> Arrays:
    """Columns (n, 1 + VERSIONS, COLUMNS) of each picture and of its changed forms, labels and split."""
    path = work / "default-face.npz"
    if not path.exists():
        np.savez(path, **_measure(data, work))
    arrays = dict(np.load(path))
    shapes = np.repeat(arrays.pop("old")[:, None], 1 + VERSIONS, 1)
    spread = JITTER * shapes[:, 0].std(0)
    shapes[:, 1:] += (spread * np.random.default_rng(0).standard_normal(shapes[:, 1:].shape)).astype(np.float32)
    return {**arrays, "steps": np.concatenate([shapes, arrays.pop("new")], 2).astype(np.float32)}


def _measure(data: Path, work: Path) -> Arrays:
    """What landmarks (`old`) and the encoder (`new`) tell of each picture."""
    torch.manual_seed(0)
    encoder, parts = ExpressionEncoder(), []
    for corpus in recipe.CORPORA:
        labels, valid = recipe.targets(data, corpus)
        shapes, faces = (np.load(work / f"{corpus}{end}.npy", mmap_mode="r") for end in ("-shapes", ""))
        rows = _chosen(labels, valid, np.isfinite(shapes[:, 0]))
        chunks = np.array_split(rows, len(rows) // 64)
        new = np.concatenate([_columns(encoder, faces[part], valid[part]) for part in chunks])
        parts.append({"new": new, "old": shapes[rows], "labels": labels[rows], "valid": valid[rows]})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _chosen(labels: np.ndarray, valid: np.ndarray, present: np.ndarray) -> np.ndarray:
    rng, rows = np.random.default_rng(0), [np.flatnonzero(valid & present)]
    for one in range(labels.shape[1]):
        pool = np.flatnonzero(~valid & present & (labels.argmax(1) == one))
        rows.append(rng.permutation(pool)[:MOST])
    return np.concatenate(rows)


def _columns(encoder: ExpressionEncoder, faces: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Columns of the pictures and of their changed forms; of those that validate, only of the former."""
    plain = encoder.columns(network_input(recipe.inner(faces))).numpy()
    columns = np.stack([plain] * (1 + VERSIONS), 1)
    images = torch.from_numpy(faces[~valid]).permute(0, 3, 1, 2).float()
    for version in range(1, 1 + VERSIONS if len(images) else 1):
        columns[~valid, version] = encoder.columns(recipe.changed(images.clone(), recipe.SIDE)).numpy()
    return columns


def begin(before: Predictor, arrays: Arrays) -> Predictor:
    """The new model, not yet trained: the old one, which does not heed the new columns."""
    spec = before.spec
    extraction = copy.deepcopy(dict(spec.extraction))
    extraction["face"]["features"] = GROUPS
    spec = replace(spec, schema={**spec.schema, "face": COLUMNS}, extraction=extraction)
    module = spec.build()
    state = before.module.state_dict()
    inputs = {f"branches.face.{name}" for name in ("standardise.mean", "standardise.scale", "convolution.weight")}
    module.load_state_dict({name: value for name, value in state.items() if name not in inputs}, strict=False)
    old, new, count = before.module.branches["face"], module.branches["face"], len(recipe.SHAPES)
    new.standardise.fit(torch.from_numpy(arrays["steps"][~arrays["valid"]]).flatten(0, 1))
    with torch.no_grad():
        new.standardise.mean[:count], new.standardise.scale[:count] = old.standardise.mean, old.standardise.scale
        new.convolution.weight.zero_()
        new.convolution.weight[:, :count] = old.convolution.weight
    return Predictor(spec, module)


def adapt(predictor: Predictor, arrays: Arrays, seed: int) -> None:
    """Train the face branch in place; the rest is frozen."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    module = predictor.module
    branch = module.branches["face"]
    module.requires_grad_(False)
    parameters = list(branch.requires_grad_(True).parameters())
    rows = np.flatnonzero(~arrays["valid"])
    labels = arrays["labels"] * (1 - SMOOTHING) + SMOOTHING / arrays["labels"].shape[1]
    weights = 1 / np.bincount(arrays["labels"][rows].argmax(1))[arrays["labels"].argmax(1)]
    weights /= weights[rows].mean()
    steps = EPOCHS * (len(rows) // BATCH)
    optimizer = torch.optim.AdamW(parameters, RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    for _ in range(EPOCHS):
        order = rng.permutation(rows)
        for index in range(len(rows) // BATCH):
            part = order[index * BATCH : (index + 1) * BATCH]
            branch.train()
            single, fused = _answers(module, *_sequences(arrays["steps"][part], rng))
            goal = torch.from_numpy(labels[part]).float()
            costs = [functional.cross_entropy(logits, goal, reduction="none") for logits in (single, fused)]
            loss = (sum(costs) * torch.from_numpy(weights[part]).float()).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
    module.eval()


def _sequences(versions: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns (batch, STEPS, COLUMNS), of which so many steps count: half are pictures as they are, of one step."""
    count = len(versions)
    lengths = np.where(rng.random(count) < 0.5, 1, rng.integers(2, STEPS + 1, count))
    pick = rng.integers(0, versions.shape[1], (count, STEPS, 2))
    steps = versions[np.arange(count)[:, None, None], pick].mean(2)
    alone = (lengths == 1) & (rng.random(count) < 0.5)
    steps[alone, 0] = versions[alone, 0]
    return torch.from_numpy(steps).float(), torch.from_numpy(lengths)


def _answers(module: Any, steps: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the face's own head, and of the fused head that sees the face alone."""
    branch = module.branches["face"]
    encoded, valid = branch.embed(steps, lengths, module.encoder, [""] * len(steps))
    features = branch.read(encoded, valid)
    return branch.head(features)[1], module.head(features)[1]


def calibrate(predictor: Predictor, arrays: Arrays) -> dict[str, float]:
    """Scale the face's logits so that they are sure as often as right on pictures that trained nothing."""
    module, valid = predictor.module, arrays["valid"]
    truth = torch.from_numpy(arrays["labels"][valid].argmax(1))
    with torch.inference_mode():
        steps = torch.from_numpy(arrays["steps"][valid, :1])
        logits = _answers(module, steps, torch.ones(len(steps), dtype=torch.int64))[0] / predictor.spec.temperature
    scales = np.exp(np.linspace(-1, 1, 81))
    best = float(min(scales, key=lambda scale: functional.cross_entropy(logits * scale, truth).item()))
    with torch.no_grad():
        readout = module.branches["face"].head.readout
        readout.weight.mul_(best)
        readout.bias.mul_(best)
    same = (logits.argmax(1) == truth).numpy()
    recalls = [same[truth.numpy() == one].mean() for one in range(logits.shape[1])]
    return {"scale": round(best, 3), "accuracy": round(float(same.mean()), 4), "uar": round(float(np.mean(recalls)), 4)}


def train(data: Path, work: Path, seeds: int) -> None:
    """One checkpoint per seed, and their figures on pictures that trained nothing."""
    arrays, before, figures = measured(data, work), checkpoint.load(BEFORE), []
    for seed in range(seeds):
        predictor = begin(before, arrays)
        adapt(predictor, arrays, seed)
        figures.append(calibrate(predictor, arrays))
        print(seed, figures[-1], flush=True)
        checkpoint.save(work / f"default-{seed}", predictor, "")
    (work / "default-face.json").write_text(json.dumps(figures) + "\n")


def card(work: Path) -> None:
    """Ship seed 0 with its card."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), keep_trailing_newline=True)
    environment.globals.update(mean=_mean)
    table = (work / "generalisation.md").read_text("utf-8")
    facts: dict[str, Any] = {"most": MOST, "measured": MEASURED, "arguments": ARGUMENTS, "table": table}
    facts["seeds"] = json.loads((work / "default-face.json").read_text())
    text = environment.get_template("default_face.card.md").render(facts)
    predictor = checkpoint.load(work / "default-0")
    made = {"recipe": "benchmarks/default_face.py", "start": BEFORE, "seed": 0, "valid": facts["seeds"][0]}
    spec = replace(predictor.spec, training={**predictor.spec.training, "face": made})
    checkpoint.save(SHIPPED, Predictor(spec, predictor.module), text)


def _mean(rows: list[dict[str, float]], name: str) -> str:
    values = [row[name] for row in rows]
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("steps", nargs="*", metavar="STEP")
    options = parser.parse_args()
    steps = {
        "train": lambda: train(options.data, options.work, options.seeds),
        "card": lambda: card(options.work),
    }
    for name in options.steps or steps:
        steps[name]()


if __name__ == "__main__":
    main()
