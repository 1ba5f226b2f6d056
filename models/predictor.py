"""A trained model with everything it takes to use it: features in, predictions out."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from emopipe.models.data import Batch, Dataset, Floats, Indices, Mask, Sample, Schema, collate
from emopipe.models.errors import FeatureMismatch
from emopipe.models.losses import Task
from emopipe.models.model import FusionModel, Shape
from emopipe.models.registry import build

Prior = Literal["uniform", "train"]

#: Entries of an extraction table that do not change the meaning of features.
_IGNORED = frozenset({"version", "versions", "device", "threads"})


@dataclass(frozen=True)
class Spec:
    """What a checkpoint knows beside its weights.

    Attributes:
        model, options: the registered model and its whole configuration.
        task: classification or regression.
        label: the manifest column it was trained to predict.
        classes: the C class names; empty for regression.
        schema: modality -> feature names.
        extraction: the sealed extraction configuration of the training features.
        temperature: calibrated probabilities are softmax(logits / temperature).
        threshold: a confidence below it is an abstention.
        priors: presence pattern (such as `text+voice`, and `` for all) -> class shares of the training rows as found
            (`natural`) and as weighted in training (`trained`).
        training: where it comes from: data hash, seed, library versions, metrics.
    """

    model: str
    options: Mapping[str, Any]
    task: Task
    label: str
    classes: tuple[str, ...]
    schema: Schema
    extraction: Mapping[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    threshold: float = 0.0
    priors: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.schema)

    @property
    def shape(self) -> Shape:
        dims = {name: len(names) for name, names in self.schema.items()}
        return Shape(dims, len(self.classes) or 1, self.task, self.classes)

    def build(self, options: Mapping[str, Any] | None = None) -> FusionModel:
        """The model with random weights; `options` are changed for this machine and stay out of the spec."""
        return build(self.model, self.shape, {**self.options, **(options or {})})

    def to_json(self) -> str:
        """JSON in the order of the fields; the order of `schema` is the order of M."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)


@dataclass(frozen=True)
class Prediction:
    """What is predicted for one utterance.

    Attributes:
        label: the likeliest class; None for regression, or when there was no evidence.
        probabilities: class -> calibrated probability.
        weights: present modality -> the router's share, summing to one.
        unimodal: present modality -> what it alone says, class -> probability (regression: `value` -> number).
        confidence: probability of `label`; None for regression, 0 when there was no evidence.
        abstained: the confidence is below the checkpoint's threshold, there was no evidence, or no value was given.
        value: the predicted value of a regression; None otherwise, and where the model failed to give one.
    """

    label: str | None
    probabilities: dict[str, float]
    weights: dict[str, float]
    unimodal: dict[str, dict[str, float]]
    confidence: float | None
    abstained: bool
    value: float | None = None


def no_evidence() -> Prediction:
    """What is said of an utterance without any modality."""
    return Prediction(None, {}, {}, {}, 0.0, True)


@dataclass(frozen=True)
class Scores:
    """Raw outputs for N utterances.

    Attributes:
        logits: (N, C).
        unimodal: modality -> (N, C); rows without it are meaningless.
        weights: (N, M), 0 where absent.
        present: (N, M) bool.
    """

    logits: Floats
    unimodal: dict[str, Floats]
    weights: Floats
    present: Mask


class Predictor:
    """A model ready for use.

    Args:
        spec: what it is.
        module: the trained network.
        device: where to run it.
    """

    def __init__(self, spec: Spec, module: FusionModel, device: str | torch.device = "cpu") -> None:
        self.spec = spec
        self.device = torch.device(device)
        self.module = module.to(self.device).eval()

    def predict(self, samples: Sequence[Sample], batch_size: int = 64) -> list[Prediction]:
        """Predict each sample; one without any of the model's modalities yields "no evidence", never a guess."""
        schema = self.spec.schema
        chunks = [samples[start : start + batch_size] for start in range(0, len(samples), batch_size)]
        return self.describe(self._run(collate(chunk, schema) for chunk in chunks))

    def scores(
        self,
        dataset: Dataset,
        rows: Indices | None = None,
        modalities: Sequence[str] | None = None,
        batch_size: int = 256,
    ) -> Scores:
        """Raw outputs for rows of a dataset, hiding all modalities outside `modalities`."""
        chosen = np.arange(len(dataset)) if rows is None else rows
        names = self.spec.modalities
        keep = torch.tensor([modalities is None or name in modalities for name in names])
        starts = range(0, len(chosen), batch_size)
        return self._run(dataset.batch(chosen[s : s + batch_size], names).masked(keep) for s in starts)

    @torch.inference_mode()
    def _run(self, batches: Iterable[Batch]) -> Scores:
        names, width = self.spec.modalities, self.spec.shape.outputs
        logits, weights, present = [np.zeros((0, width), np.float32)], [], []
        unimodal: dict[str, list[Floats]] = {name: [] for name in names}
        for batch in batches:
            output = self.module(batch.to(self.device))
            logits.append(output.logits.float().cpu().numpy())
            weights.append(output.weights.float().cpu().numpy())
            present.append(batch.present.cpu().numpy())
            for name, values in output.unimodal.items():
                unimodal[name].append(values.float().cpu().numpy())
        none = np.zeros((0, len(names)))
        return Scores(
            np.concatenate(logits),
            {name: np.concatenate(parts) for name, parts in unimodal.items() if parts},
            np.concatenate([none.astype(np.float32), *weights]),
            np.concatenate([none.astype(bool), *present]),
        )

    def probabilities(self, scores: Scores, prior: Prior | Mapping[str, float] = "uniform") -> NDArray[np.float64]:
        """(N, C) calibrated class probabilities.

        Args:
            scores: of :meth:`scores`.
            prior: `uniform` leaves the posterior as it is. `train`, or given class shares, re-weight it
                by p'(c) ~ p(c) new(c) / trained(c) (Saerens et al. 2002); `train` takes the shares found among the
                training rows with the same modalities. For data as skewed as the training data were.
        """
        tempered = scores.logits.astype(np.float64) / self.spec.temperature
        tempered += self._prior_logits(scores.present, prior)
        tempered -= tempered.max(axis=1, keepdims=True, initial=-np.inf)
        exp = np.exp(tempered)
        shares: NDArray[np.float64] = exp / exp.sum(axis=1, keepdims=True)
        return shares

    def _prior_logits(self, present: Mask, prior: Prior | Mapping[str, float]) -> NDArray[np.float64]:
        shifts = np.zeros((len(present), len(self.spec.classes)))
        if prior == "uniform" or not self.spec.priors:
            return shifts
        patterns = [pattern_name(row, self.spec.modalities) for row in present]
        for pattern in set(patterns):
            known = self.spec.priors.get(pattern, self.spec.priors[""])
            wanted = known["natural"] if isinstance(prior, str) else [prior[name] for name in self.spec.classes]
            shift = np.log(np.asarray(wanted) + 1e-9) - np.log(np.asarray(known["trained"]) + 1e-9)
            shifts[[i for i, name in enumerate(patterns) if name == pattern]] = shift
        return shifts

    def describe(self, scores: Scores) -> list[Prediction]:
        """Turn raw outputs into predictions."""
        if self.spec.task == "regression":
            return [self._describe_value(scores, row) for row in range(len(scores.logits))]
        probabilities = self.probabilities(scores)
        return [self._describe_class(scores, probabilities, row) for row in range(len(scores.logits))]

    def _describe_class(self, scores: Scores, probabilities: NDArray[np.float64], row: int) -> Prediction:
        if not scores.present[row].any():
            return no_evidence()
        classes, shares = self.spec.classes, probabilities[row]
        best = int(shares.argmax())
        unimodal = {}
        for name in self._present(scores, row):
            if name in scores.unimodal:
                exp = np.exp(scores.unimodal[name][row].astype(np.float64) - scores.unimodal[name][row].max())
                unimodal[name] = dict(zip(classes, (exp / exp.sum()).tolist(), strict=True))
        confidence = float(shares[best])
        return Prediction(
            classes[best],
            dict(zip(classes, shares.tolist(), strict=True)),
            self._weights(scores, row),
            unimodal,
            confidence,
            confidence < self.spec.threshold,
        )

    def _describe_value(self, scores: Scores, row: int) -> Prediction:
        if not scores.present[row].any():
            return no_evidence()
        names = [name for name in self._present(scores, row) if name in scores.unimodal]
        unimodal = {name: {"value": float(scores.unimodal[name][row, 0])} for name in names}
        value = float(scores.logits[row, 0])
        failed = math.isnan(value)
        weights = self._weights(scores, row)
        return Prediction(None, {}, weights, unimodal, None, failed, None if failed else value)

    def _present(self, scores: Scores, row: int) -> list[str]:
        return [name for name, there in zip(self.spec.modalities, scores.present[row], strict=True) if there]

    def _weights(self, scores: Scores, row: int) -> dict[str, float]:
        column = {name: index for index, name in enumerate(self.spec.modalities)}
        return {name: float(scores.weights[row, column[name]]) for name in self._present(scores, row)}

    def check_features(self, schema: Mapping[str, Sequence[str]], extraction: Mapping[str, Any] | None = None) -> None:
        """Refuse features that this model was not trained on.

        Args:
            schema: modality -> feature names offered; modalities that are not offered count as absent and pass.
            extraction: the extraction configuration offered; its tables `face`, `voice`, `text` are compared with the
                sealed ones except for library versions and device, and so is whether `people` takes features relative
                to a person's baseline (whichever that is).

        Raises:
            FeatureMismatch: the message names both sides of every difference.
        """
        faults: list[str] = []
        for name in self.spec.modalities:
            if name in schema:
                faults += _name_faults(name, tuple(self.spec.schema[name]), tuple(schema[name]))
                faults += _table_faults(name, self.spec.extraction.get(name), (extraction or {}).get(name))
                faults += _baseline_faults(name, self.spec.extraction, extraction)
        if not set(self.spec.modalities) & set(schema):
            faults.append(f"trained on {', '.join(self.spec.modalities)}, offered {', '.join(schema) or 'nothing'}")
        if faults:
            raise FeatureMismatch(
                "the features offered are not those the checkpoint was trained on: " + "; ".join(faults),
                hint="Extract with the checkpoint's own configuration, or train a new checkpoint on these features",
            )


def _name_faults(modality: str, trained: tuple[str, ...], offered: tuple[str, ...]) -> list[str]:
    if trained == offered:
        return []
    if len(trained) != len(offered):
        return [f"{modality}: trained on {len(trained)} features, offered {len(offered)}"]
    where = next(index for index in range(len(trained)) if trained[index] != offered[index])
    return [f"{modality}: feature {where} was {trained[where]!r} in training, offered {offered[where]!r}"]


def _table_faults(modality: str, trained: Any, offered: Any) -> list[str]:
    """An option that one side does not know is as good as off (false, empty or 0) there: it came up later."""
    if not isinstance(trained, Mapping) or not isinstance(offered, Mapping):
        return []
    keys = sorted((trained.keys() | offered.keys()) - _IGNORED)
    plain = [(key, json.dumps(trained.get(key) or None), json.dumps(offered.get(key) or None)) for key in keys]
    return [f"{modality}.{key}: trained on {old}, offered {new}" for key, old, new in plain if old != new]


def _baseline_faults(modality: str, trained: Mapping[str, Any], offered: Mapping[str, Any] | None) -> list[str]:
    if offered is None or _is_relative(modality, trained) == _is_relative(modality, offered):
        return []
    told = [
        "relative to a baseline" if _is_relative(modality, one) else "without a baseline" for one in (trained, offered)
    ]
    return [f"{modality}: trained on features {told[0]}, offered {told[1]}"]


def _is_relative(modality: str, extraction: Mapping[str, Any]) -> bool:
    people = extraction.get("people", {})
    return people.get("baseline", "none") != "none" and modality in people.get("baseline_of", ())


def pattern_name(present: NDArray[Any], modalities: Sequence[str]) -> str:
    """A presence pattern in words, such as `text+voice`."""
    return "+".join(name for name, there in zip(modalities, present, strict=True) if there)
