"""Explain predictions: fused features of each utterance, and whom the model trusts compared with who is right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.manifold import TSNE

from emopipe.errors import DatasetError, StudyError
from emopipe.models.data.dataset import Batch, Dataset, Indices
from emopipe.models.data.labelled import labelled, no_rows_hint, targets
from emopipe.models.networks import losses
from emopipe.models.predictor import Predictor

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Explanation:
    """N labelled utterances as the model sees them.

    Attributes:
        modalities: the M modalities.
        ids, labels, predicted: (N,) objects; class names, or values.
        fused: (N, K) features behind the fusion.
        present: (N, M) bool.
        weights: (N, M), the network's share of each modality.
        importance: (N, M), I_m: the share of each modality in the inverse errors of the unimodal predictions, so the
            larger the less it errs; 0 where absent. NaN for a model without unimodal predictions.
    """

    modalities: tuple[str, ...]
    ids: NDArray[np.object_]
    labels: NDArray[np.object_]
    predicted: NDArray[np.object_]
    fused: Numbers
    present: NDArray[np.bool_]
    weights: Numbers
    importance: Numbers


@torch.inference_mode()
def explain(predictor: Predictor, dataset: Dataset, split: str | None = None, batch_size: int = 256) -> Explanation:
    """Run a model over the labelled rows of a dataset.

    Args:
        predictor: the model.
        dataset: labelled rows.
        split: rows of this split only; None for all.
        batch_size: rows at a time.

    Raises:
        DatasetError: fewer than three rows have a known label and a modality that the model knows.
        FeatureMismatch: the features are not those of the predictor.
        ConfigError: the model tells no fused features.
    """
    predictor.check_features(dataset.schema, dataset.extraction)
    rows, truth = labelled_rows(predictor, dataset, split)
    parts = [
        _look(predictor, batch, truth[number * batch_size :][: len(batch)])
        for number, batch in enumerate(predictor.batches(dataset, rows, batch_size))
    ]
    fused, present, weights, importance, logits = (np.concatenate(part) for part in zip(*parts, strict=True))
    labels = dataset.labels(predictor.spec.label)[rows].astype(object)
    predicted: NDArray[np.object_] = np.empty(len(rows), dtype=object)
    regression = predictor.spec.task == "regression"
    predicted[:] = logits[:, 0].tolist() if regression else [predictor.spec.classes[i] for i in logits.argmax(axis=1)]
    modalities = predictor.spec.modalities
    return Explanation(modalities, dataset.ids[rows], labels, predicted, fused, present, weights, importance)


def labelled_rows(predictor: Predictor, dataset: Dataset, split: str | None = None) -> tuple[Indices, torch.Tensor]:
    """Choose the rows (N,) of a split with a known label and a modality of the model, and tell their targets (N,).

    Raises:
        DatasetError: there are fewer than three.
    """
    spec = predictor.spec
    modalities = [name for name in spec.modalities if name in dataset.modalities]
    rows = np.flatnonzero(labelled(dataset, spec.label, spec.classes, modalities=modalities, split=split))
    if len(rows) < 3:
        where = "" if split is None else f" of split {split!r}"
        raise DatasetError(
            f"{len(rows)} rows{where} have a known label and a modality that the model knows, 3 are needed",
            hint=no_rows_hint(dataset, split),
        )
    truth = torch.from_numpy(targets(dataset, spec.label, spec.classes)[rows])
    return rows, truth.float() if spec.task == "regression" else truth


def _look(predictor: Predictor, batch: Batch, targets: torch.Tensor) -> tuple[NDArray[Any], ...]:
    """Fused features, presence, weights, importance and logits of some rows."""
    batch = batch.to(predictor.device)
    output, targets = predictor.module(batch), targets.to(predictor.device)
    if "fused" not in output.features:
        raise StudyError(f"model {predictor.spec.model} tells no fused features", hint="Use another model")
    names = predictor.spec.modalities
    if all(name in output.unimodal for name in names):
        task = predictor.spec.task
        costs = [losses.importance_costs(output.unimodal[name].float(), targets, task) for name in names]
        importance = losses.importance(torch.stack(costs, dim=1), batch.present)
    else:
        importance = torch.full(batch.present.shape, torch.nan)
    logits = predictor.answer(output, batch.present).logits
    parts = (output.features["fused"], batch.present, output.weights, importance, logits)
    return tuple(part.float().cpu().numpy() if part.is_floating_point() else part.cpu().numpy() for part in parts)


def agreement(explanation: Explanation) -> dict[str, float]:
    """Modality -> Spearman correlation of importance and weight over the utterances that have two modalities or more.

    NaN where either is constant or there are fewer than three such utterances.
    """
    ranks = {}
    for column, name in enumerate(explanation.modalities):
        rows = explanation.present[:, column] & (explanation.present.sum(axis=1) > 1)
        one, two = explanation.importance[rows, column], explanation.weights[rows, column]
        varies = len(one) > 2 and np.isfinite(one).all() and np.ptp(one) > 0 and np.ptp(two) > 0
        ranks[name] = float(spearmanr(one, two).statistic) if varies else float("nan")
    return ranks


def project_together(features: Mapping[str, Numbers], seed: int = 0) -> dict[str, Numbers]:
    """Model -> (N, K) features -> (N, 2), all in one t-SNE embedding.

    Each model's features are standardised by themselves; zeros fill up those that are narrower than others.
    """
    widest = max(one.shape[1] for one in features.values())
    parts = []
    for one in features.values():
        scale = one.std(axis=0)
        z = (one - one.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
        parts.append(np.pad(z, ((0, 0), (0, widest - one.shape[1]))))
    placed = project(np.concatenate(parts), seed)
    ends = np.cumsum([len(one) for one in parts])[:-1]
    return dict(zip(features, np.split(placed, ends), strict=True))


def agree_on_largest(explanation: Explanation) -> float:
    """Share of the utterances with two modalities or more in which the router gives most to the one that errs least."""
    rows = explanation.present.sum(axis=1) > 1
    same = explanation.importance[rows].argmax(axis=1) == explanation.weights[rows].argmax(axis=1)
    return float(same.mean()) if rows.any() else float("nan")


def project(features: Numbers, seed: int = 0) -> Numbers:
    """(N, K) -> (N, 2) by t-SNE (van der Maaten and Hinton 2008) of the standardised features, N > 2."""
    scale = features.std(axis=0)
    z = (features - features.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    perplexity = min(30.0, (len(z) - 1) / 3)
    init = "pca" if z.shape[1] > 1 else "random"
    placed: Numbers = TSNE(2, perplexity=perplexity, init=init, random_state=seed).fit_transform(z)
    return placed
