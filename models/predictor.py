"""Predict with a trained model and everything that belongs to it: features in, predictions out."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from emopipe.errors import ConfigError
from emopipe.models.data.dataset import Batch, Dataset, Floats, Indices, Mask, Sample, Schema, collate
from emopipe.models.networks.losses import Task
from emopipe.models.networks.model import FusionModel, Output, Shape
from emopipe.models.prediction import Prediction, no_evidence
from emopipe.models.registry import build
from emopipe.models.scoring import Scoring, scoring
from emopipe.models.sealed import check_features

Prior = Literal["uniform", "train"]
#: Added to how strongly each modality speaks, so that their shares are known where none says anything.
LEAST_STRENGTH: Final = 1e-6


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
        temperature: calibrated probabilities are softmax(logits / temperature); one, or one for each presence pattern
            (such as `voice`, and `` for those that are not named). A pattern of several modalities may have one for
            each of them (such as `face+voice` -> `face`, `voice`): what is there is then answered by the product of
            what each says alone, p ~ prod_m p_m^(1 / temperature_m), in the place of the fused head (a logarithmic
            opinion pool, Heskes 1998).
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
    temperature: float | Mapping[str, float | Mapping[str, float]] = 1.0
    threshold: float = 0.0
    priors: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in order."""
        return tuple(self.schema)

    @property
    def shape(self) -> Shape:
        """What a network needs to know of inputs and outputs."""
        dims = {name: len(names) for name, names in self.schema.items()}
        return Shape(dims, len(self.classes) or 1, self.task, self.classes)

    def build(self, options: Mapping[str, Any] | None = None) -> FusionModel:
        """The model with random weights; `options` are changed for this machine and stay out of the spec."""
        return build(self.model, self.shape, {**self.options, **(options or {})})

    def to_json(self) -> str:
        """JSON in the order of the fields; the order of `schema` is the order of M."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)


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


def known_prior(name: str | Mapping[str, float]) -> Prior | Mapping[str, float]:
    """A prior by its name; shares of classes as they are.

    Raises:
        ConfigError: there is none of that name.
    """
    if isinstance(name, Mapping):
        return name
    if name not in get_args(Prior):
        raise ConfigError(f"unknown prior {name!r}", hint=f"Use {' or '.join(get_args(Prior))}")
    return cast(Prior, name)


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

    @property
    def largest_label(self) -> float:
        """The largest absolute value of the labels that it learnt; 3 where it is not sealed."""
        return float(self.spec.training.get("largest_label", 3.0))

    def scoring(self, dataset: Dataset) -> Scoring:
        """How its values are scored on a dataset: by the dataset's corpus, the one that it learnt, or their range."""
        corpora = dataset.corpora or tuple(map(str, self.spec.training.get("corpora", ())))
        return scoring(corpora, self.spec.label, self.largest_label)

    def predict(
        self, samples: Sequence[Sample], batch_size: int = 64, *, leave_one_out: bool = False
    ) -> list[Prediction]:
        """Predict each sample; one without any of the model's modalities yields "no evidence", never a guess.

        Args:
            samples: what to predict.
            batch_size: how many are predicted together.
            leave_one_out: tell of each modality what the answer would be without it. Not done by models with a
                language model inside, which would read all words once more for each modality.
        """
        schema = self.spec.schema
        chunks = [samples[start : start + batch_size] for start in range(0, len(samples), batch_size)]
        batches = [collate(chunk, schema) for chunk in chunks]
        predictions = self.describe(self._run(batches))
        again = leave_one_out and not self.spec.options.get("backbone")
        return self._with_each_left_out(batches, predictions) if again else predictions

    def _with_each_left_out(self, batches: Sequence[Batch], predictions: Sequence[Prediction]) -> list[Prediction]:
        without: list[dict[str, dict[str, float]]] = [{} for _ in predictions]
        for left_out in self.spec.modalities:
            keep = torch.tensor([name != left_out for name in self.spec.modalities])
            others = self.describe(self._run(batch.masked(keep) for batch in batches))
            for answers, whole, other in zip(without, predictions, others, strict=True):
                value = {} if other.value is None else {"value": other.value}
                if left_out in whole.weights and (other.probabilities or value):
                    answers[left_out] = other.probabilities or value
        return [replace(one, without=answers) for one, answers in zip(predictions, without, strict=True)]

    def scores(
        self,
        dataset: Dataset,
        rows: Indices | None = None,
        modalities: Sequence[str] | None = None,
        batch_size: int = 256,
    ) -> Scores:
        """Raw outputs for rows of a dataset, hiding all modalities outside `modalities`."""
        keep = torch.tensor([modalities is None or name in modalities for name in self.spec.modalities])
        return self._run(batch.masked(keep) for batch in self.batches(dataset, rows, batch_size))

    def batches(self, dataset: Dataset, rows: Indices | None = None, batch_size: int = 256) -> Iterator[Batch]:
        """Rows of a dataset as the model reads them: with what is usual for their speakers where it asks for that."""
        chosen = np.arange(len(dataset)) if rows is None else rows
        for at in range(0, len(chosen), batch_size):
            some = chosen[at : at + batch_size]
            yield dataset.batch(some, self.spec.modalities, relative=self.module.relative)

    def answer(self, output: Output, present: Tensor) -> Output:
        """What a checkpoint makes of its network's output: answers of products in the place of the fused head's.

        The logits of a product are calibrated already. The share of a modality in it is how strongly it speaks: the
        standard deviation over the classes of its log probabilities / temperature.

        Args:
            output: of B utterances.
            present: (B, M).
        """
        logits, weights = output.logits.clone(), output.weights.clone()
        for names, temperatures in self._products():
            wanted = torch.tensor([name in names for name in self.spec.modalities], device=present.device)
            rows = (present == wanted).all(1)
            if not rows.any():
                continue
            spoken = [output.unimodal[name][rows].log_softmax(1) / temperatures[name] for name in names]
            logits[rows] = torch.stack(spoken).sum(0)
            strength = torch.stack([one.std(1) for one in spoken], 1) + LEAST_STRENGTH
            weights[rows.nonzero(), wanted.nonzero().T] = strength / strength.sum(1, keepdim=True)
        return replace(output, logits=logits, weights=weights)

    def _products(self) -> list[tuple[list[str], Mapping[str, float]]]:
        """The modalities of each pattern that a product answers, in order, and their temperatures."""
        known = self.spec.temperature
        pools = known.values() if isinstance(known, Mapping) else ()
        found = [one for one in pools if isinstance(one, Mapping)]
        return [([name for name in self.spec.modalities if name in one], one) for one in found]

    @torch.inference_mode()
    def _run(self, batches: Iterable[Batch]) -> Scores:
        names, width = self.spec.modalities, self.spec.shape.outputs
        logits, weights, present = [np.zeros((0, width), np.float32)], [], []
        unimodal: dict[str, list[Floats]] = {name: [] for name in names}
        for batch in (one.to(self.device) for one in batches):
            output = self.answer(self.module(batch), batch.present)
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
        tempered = scores.logits.astype(np.float64) / self._temperatures(scores.present)
        return np.asarray(softmax(tempered + self._prior_logits(scores.present, prior), axis=1))

    def _temperatures(self, present: Mask) -> NDArray[np.float64]:
        """The temperature of each row (N, 1)."""
        each = [self._temperature(name) for name in self._patterns(present)]
        return np.array(each, np.float64).reshape(-1, 1)

    def _temperature(self, pattern: str) -> float:
        """The temperature of logits of a presence pattern; those of a product have theirs already."""
        known = self.spec.temperature
        value = known.get(pattern, known[""]) if isinstance(known, Mapping) else known
        return 1.0 if isinstance(value, Mapping) else value

    def _patterns(self, present: Mask) -> list[str]:
        """The name of each row's presence pattern."""
        return [pattern_name(row, self.spec.modalities) for row in present]

    def _prior_logits(self, present: Mask, prior: Prior | Mapping[str, float]) -> NDArray[np.float64]:
        shifts = np.zeros((len(present), len(self.spec.classes)))
        if prior == "uniform" or not self.spec.priors:
            return shifts
        patterns = self._patterns(present)
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
        alone = {
            name: softmax(scores.unimodal[name][row].astype(np.float64) / self._temperature(name)).tolist()
            for name in self._present(scores, row)
            if name in scores.unimodal
        }
        unimodal = {name: dict(zip(classes, one, strict=True)) for name, one in alone.items()}
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
        """Refuse features that this model was not trained on; see :func:`emopipe.models.sealed.check_features`."""
        check_features(self.spec.schema, self.spec.extraction, schema, extraction)


def pattern_name(present: NDArray[Any], modalities: Sequence[str]) -> str:
    """A presence pattern in words, such as `text+voice`."""
    return "+".join(name for name, there in zip(modalities, present, strict=True) if there)
