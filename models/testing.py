"""Test a fusion model for all that it must do, as one call for its own tests: ``check_model("name", {"width": 16})``.

The model is found by its name, as training finds it: built in, or declared by an installed package under the group of
entry points `emopipe.models`. A breach raises AssertionError, in words.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from emopipe.errors import ConfigError
from emopipe.models import checkpoint
from emopipe.models.data.dataset import Batch, Dataset, FeatureStore, Sample
from emopipe.models.networks.losses import Task, task_costs
from emopipe.models.networks.model import FusionModel, Output, Shape
from emopipe.models.registry import build, configure
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.loop import train

TASKS: Final[tuple[Task, ...]] = ("classification", "regression")
CLASSES: Final = ("anger", "happiness", "neutral", "sadness")
DIMS: Final = {"text": 5, "face": 3, "voice": 7}
WORDS: Final = ("you are good", "so bad!", "well", "", "the end", "hm hm")
#: Numbers that are computed in another order may differ by this much.
TOLERANCE: Final = 1e-4


def check_model(name: str, options: Mapping[str, Any] | None = None, dims: Mapping[str, int] = DIMS) -> None:
    """Check everything that a fusion model must do.

    Args:
        name: the registered model.
        options: what makes it small.
        dims: modality -> feature width to test with.
    """
    check_configuration(name, options)
    for task in TASKS:
        model = _built(name, options, dims, task)
        check_outputs(model)
        check_absence(model)
        check_padding(model)
        check_rows(model)
        check_learning(model)
        check_checkpoint(name, options, dims, task)


def require(condition: bool, words: str) -> None:
    """Raise AssertionError with these words unless the condition holds."""
    if not condition:
        raise AssertionError(words)


def check_configuration(name: str, options: Mapping[str, Any] | None = None) -> None:
    """The configuration is a frozen dataclass; options that it does not have are refused."""
    config = configure(name, options)
    frozen = is_dataclass(config) and getattr(config, "__dataclass_params__").frozen  # noqa: B009
    require(frozen, f"the configuration of {name} is not a frozen dataclass")
    try:
        configure(name, {"no such option": 1})
    except ConfigError:
        return
    raise AssertionError(f"{name} takes an option that it does not have")


def check_outputs(model: FusionModel) -> None:
    """Shapes, and weights that are shares of the modalities that are there; nothing depends on labels."""
    modalities, outputs = model.shape.modalities, model.shape.outputs
    patterns = list(product([False, True], repeat=len(modalities)))
    data = batch(model.shape, len(patterns), present=patterns)
    output = _run(model, data)
    rows, some = len(patterns), data.present.any(1)
    require(output.logits.shape == (rows, outputs), f"logits are {tuple(output.logits.shape)}, not {(rows, outputs)}")
    require(output.logits.dtype == torch.float32, f"logits are {output.logits.dtype}, not float32")
    require(output.weights.shape == data.present.shape, f"weights are {tuple(output.weights.shape)}")
    require(bool((output.weights[~data.present] == 0).all()), "an absent modality has a weight")
    require(bool((output.weights >= 0).all()), "a weight is negative")
    require(_close(output.weights[some].sum(1), torch.ones(int(some.sum()))), "weights do not sum to one")
    finite = torch.isfinite(output.logits[some]).all() or model.shape.task == "regression"  # NaN: it failed to give one
    require(bool(finite), "class logits are not finite")
    require(set(output.unimodal) <= set(modalities), f"unimodal predictions of {sorted(output.unimodal)}")
    for modality, logits in output.unimodal.items():
        require(logits.shape == (rows, outputs), f"unimodal logits of {modality} are {tuple(logits.shape)}")
    require(
        "fused" in output.features and len(output.features["fused"]) == rows, "there are no fused features, a row each"
    )
    _same(output, _run(model, data), data.present, modalities, "the same input gives another output")
    _same(output, _run(model, replace(data, labels=None, rows=None)), data.present, modalities, "labels change outputs")


def check_absence(model: FusionModel) -> None:
    """What an absent modality holds, even NaN, changes nothing; nor does its quality."""
    modalities = model.shape.modalities
    patterns = [one for one in product([False, True], repeat=len(modalities)) if any(one)]
    data = batch(model.shape, len(patterns), present=patterns)
    gone = ~data.present
    features = {
        name: torch.where(gone[:, column].view(-1, 1, 1), torch.nan, steps)
        for column, (name, steps) in enumerate(data.features.items())
    }
    other = replace(data, features=features, quality=data.quality.masked_fill(gone, 1e-3))
    _same(_run(model, data), _run(model, other), data.present, modalities, "an absent modality is looked at")


def check_padding(model: FusionModel) -> None:
    """What lies behind the end of a sequence changes nothing."""
    data = batch(model.shape, 6)
    longer = {name: torch.cat([steps, 9 * torch.ones_like(steps)], dim=1) for name, steps in data.features.items()}
    for column, name in enumerate(data.modalities):
        behind = torch.arange(longer[name].shape[1])[None] >= data.lengths[:, column, None]
        longer[name] = longer[name].masked_fill(behind[..., None], 9.0)
    shown = _run(model, replace(data, features=longer))
    _same(_run(model, data), shown, data.present, data.modalities, "padding is looked at")


def check_rows(model: FusionModel) -> None:
    """Each row is judged by itself: alone, in a batch, and in another order."""
    data = batch(model.shape, 5)
    output = _run(model, data)
    for row in range(5):
        alone, there = _run(model, _rows(data, [row])), data.present[row : row + 1]
        _same(_pick(output, [row]), alone, there, data.modalities, "a row is judged otherwise alone than in a batch")
    order = [3, 1, 4, 0, 2]
    turned = _run(model, _rows(data, order))
    _same(_pick(output, order), turned, data.present[order], data.modalities, "the order of rows matters")


def check_learning(model: FusionModel, steps: int = 12) -> None:
    """The loss has a finite `total`, its gradients are finite, and following them betters it or the predictions."""
    data = batch(model.shape, 8)
    before = _cost(model, data)
    model.train()
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    require(bool(learned), "there is nothing to learn")
    optimiser = torch.optim.AdamW(learned, lr=3e-3)
    totals = []
    for _ in range(steps):
        terms = model.loss(model(data), data)
        require("total" in terms and terms["total"].ndim == 0, "the loss has no scalar `total`")
        require(all(bool(torch.isfinite(term)) for term in terms.values()), "a loss is not finite")
        optimiser.zero_grad()
        terms["total"].backward()  # type: ignore[no-untyped-call]
        gradients = [parameter.grad for parameter in learned if parameter.grad is not None]
        finite = all(bool(torch.isfinite(one).all()) for one in gradients)
        require(bool(gradients) and finite, "gradients are not finite")
        optimiser.step()
        totals.append(float(terms["total"].detach()))
    model.eval()
    learns = min(totals[steps // 2 :]) < totals[0] or _cost(model, data) < before
    require(learns, f"it does not learn: the loss went from {totals[0]:.3f} to {totals[-1]:.3f}")


def check_checkpoint(name: str, options: Mapping[str, Any] | None, dims: Mapping[str, int], task: Task) -> None:
    """It trains on a dataset with gaps, and predicts the same from its checkpoint."""
    torch.manual_seed(0)
    label = "label" if task == "classification" else "value"
    settings = TrainConfig(name, dict(options or {}), label=label, epochs=1, batch_size=8, device="cpu")
    predictor = train(_dataset(dims), settings).predictor
    samples = [Sample(features, words=words) for features, words in zip(_features(dims, 6), WORDS, strict=True)]
    before = predictor.predict(samples)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder) / "model", predictor, "card")
        sealed = checkpoint.read_spec(Path(folder) / "model").options
        local = {key: value for key, value in (options or {}).items() if key in sealed and sealed[key] != value}
        after = checkpoint.load(Path(folder) / "model", options=local).predict(samples)
    require(before == after, "a checkpoint predicts otherwise than the model that it was made of")


def batch(shape: Shape, rows: int, present: Sequence[Sequence[bool]] | None = None, steps: int = 4) -> Batch:
    """Random features of random lengths, the same every time."""
    chance = torch.Generator().manual_seed(0)
    features = {name: torch.randn(rows, steps, dim, generator=chance) for name, dim in shape.dims.items()}
    there = torch.tensor(present) if present is not None else torch.ones(rows, len(shape.dims), dtype=torch.bool)
    lengths = torch.randint(1, steps + 1, (rows, len(shape.dims)), generator=chance) * there
    labels = torch.arange(rows) % shape.outputs if shape.task == "classification" else torch.linspace(-2, 2, rows)
    words = tuple(WORDS[row % len(WORDS)] for row in range(rows))
    quality = torch.rand(rows, len(shape.dims), generator=chance) * 0.9 + 0.1
    spoken_words = {"words": words, "lines": words, "earlier": ((),) * rows}
    plain = (tuple(shape.dims), features, lengths, there, quality, labels)
    return Batch(*plain, rows=torch.arange(rows), **spoken_words)  # type: ignore[arg-type]


def _built(name: str, options: Mapping[str, Any] | None, dims: Mapping[str, int], task: Task) -> FusionModel:
    torch.manual_seed(0)
    classes = CLASSES if task == "classification" else ()
    return build(name, Shape(dims, len(classes) or 1, task, classes), options).eval()


@torch.no_grad()
def _run(model: FusionModel, data: Batch) -> Output:
    output: Output = model(data)
    return output


def _cost(model: FusionModel, data: Batch) -> float:
    assert data.labels is not None
    return float(task_costs(_run(model, data).logits, data.labels, model.shape.task).mean())


def _everything(output: Output, present: Tensor, modalities: Sequence[str]) -> Iterator[Tensor]:
    """All that is said of rows with a modality at all, the unimodal predictions where they mean something."""
    some = present.any(1)
    yield from (output.logits[some], output.weights[some], output.features["fused"][some])
    yield from (logits[present[:, list(modalities).index(name)]] for name, logits in output.unimodal.items())


def _same(one: Output, two: Output, present: Tensor, modalities: Sequence[str], words: str) -> None:
    pairs = zip(_everything(one, present, modalities), _everything(two, present, modalities), strict=True)
    require(all(_close(a, b) for a, b in pairs), words)


def _close(one: Tensor, two: Tensor) -> bool:
    return torch.allclose(one.float(), two.float(), rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)


def _rows(data: Batch, rows: list[int]) -> Batch:
    return replace(
        data,
        features={name: steps[rows] for name, steps in data.features.items()},
        lengths=data.lengths[rows],
        present=data.present[rows],
        quality=data.quality[rows],
        labels=None if data.labels is None else data.labels[rows],
        rows=None if data.rows is None else data.rows[rows],
        words=tuple(data.words[row] for row in rows),
        earlier=tuple(data.earlier[row] for row in rows),
    )


def _pick(output: Output, rows: list[int]) -> Output:
    unimodal = {name: logits[rows] for name, logits in output.unimodal.items()}
    features = {"fused": output.features["fused"][rows]}
    return Output(output.logits[rows], unimodal, output.weights[rows], features)


def _features(dims: Mapping[str, int], rows: int) -> list[dict[str, Any]]:
    """Sequences of 1 to 4 steps; every third row lacks the first modality, every fourth the last."""
    chance = np.random.default_rng(0)
    utterances = []
    for row in range(rows):
        features: dict[str, Any] = {}
        for name, dim in dims.items():
            steps = chance.normal(row % len(CLASSES), 1.0, (1 + row % 4, dim)).astype(np.float32)
            lacking = (row % 3 == 2 and name == next(iter(dims))) or (row % 4 == 3 and name == list(dims)[-1])
            features[name] = None if lacking and len(dims) > 1 else steps
        utterances.append(features)
    return utterances


def _dataset(dims: Mapping[str, int], rows: int = 24) -> Dataset:
    """A dataset in memory: classes and values that the features tell, four speakers, a third for validation."""
    features = _features(dims, rows)
    columns: dict[str, list[Any]] = {
        "id": [f"u{row}" for row in range(rows)],
        "speaker": [f"s{row % 4}" for row in range(rows)],
        "split": ["valid" if row % 4 == 3 else "train" for row in range(rows)],
        "label": [CLASSES[row // 4 % len(CLASSES)] for row in range(rows)],
        "value": [row / rows for row in range(rows)],
        "words": [WORDS[row % len(WORDS)] or None for row in range(rows)],
        **{name: [f"u{row}" if one[name] is not None else None for row, one in enumerate(features)] for name in dims},
    }
    stores = {name: _store(name, dim, features) for name, dim in dims.items()}
    return Dataset(pa.table(columns), stores, {}, "0" * 64)


def _store(name: str, dim: int, features: Sequence[Mapping[str, Any]]) -> FeatureStore:
    there = {f"u{row}": one[name] for row, one in enumerate(features) if one[name] is not None}
    lengths = np.array([len(steps) for steps in there.values()], dtype=np.int64)
    names = tuple(f"{name}_{number}" for number in range(dim))
    return FeatureStore(Path(name), name, names, list(there), lengths, lambda: np.concatenate(list(there.values())))
