"""Diagnose a mixture of experts: what gates choose, whether experts differ, what pseudo tokens and parts are worth.

One look serves all models that mix branches by weights of each utterance: EGMF's experts behind their gate, and the
modalities of EMOE behind its router.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from emopipe.errors import StudyError
from emopipe.models import metrics
from emopipe.models.data.dataset import Batch, Dataset, Floats, Indices, Mask
from emopipe.models.evaluation.compare import Run, differences, score_interval
from emopipe.models.evaluation.explain import labelled_rows
from emopipe.models.networks.egmf.experts import BRANCHES, Gate
from emopipe.models.networks.model import Output
from emopipe.models.predictor import Predictor

Numbers = NDArray[np.float64]

#: A weight above it leaves nothing to the others; a correlation above it makes one of two outputs redundant.
HIGH: Final = 0.9
#: Weights that vary less (standard deviation, among utterances with the same branches) do not depend on the utterance.
STILL: Final = 0.02
#: Weights whose normalised entropy exceeds it on average are those of no gate at all (an alarm of EGMF's paper).
UNIFORM: Final = 0.99
#: Pseudo tokens whose geometry agrees less with that of a modality's features have lost what these say.
LOST: Final = 0.1
#: Groups with fewer utterances are not diagnosed by themselves.
LEAST: Final = 5
#: Utterances whose pairs are compared.
MOST_PAIRED: Final = 1000


@dataclass(frozen=True)
class Inside:
    """N labelled utterances inside a model that mixes K branches.

    Attributes:
        kind: what the branches are.
        branches: their K names.
        rows: (N,) of the dataset.
        present: (N, M) bool, modalities.
        there: (N, K) bool, branches that take part in the mixture.
        weights: stage -> (N, K), 0 where a branch takes no part; the last stage is the one that mixes.
        outputs: (N, K, D), what each branch says.
        logits: (N, C), or (N, 1) values.
        tokens: EGMF's `pseudo` (N, D) (mean of the K), `words` (N, D), `f` and `enhanced` (N, d), see
            :class:`~emopipe.models.networks.egmf.model.Egmf`; empty for others.
        inputs: modality -> (N, D_m) mean features over the steps; empty without tokens.
    """

    kind: Literal["expert", "modality"]
    branches: tuple[str, ...]
    rows: Indices
    present: Mask
    there: Mask
    weights: dict[str, Floats]
    outputs: Floats
    logits: Floats
    tokens: dict[str, Floats] = field(default_factory=dict)
    inputs: dict[str, Floats] = field(default_factory=dict)

    @property
    def mixing(self) -> Floats:
        """(N, K) the weights of the last stage."""
        return list(self.weights.values())[-1]

    @property
    def mixed(self) -> Mask:
        """(N,) bool, utterances in which a branch takes part at all."""
        some: Mask = self.there.sum(axis=1) > 0
        return some


def look_inside(predictor: Predictor, dataset: Dataset, split: str | None = None, batch_size: int = 256) -> Inside:
    """Run a model over labelled rows and keep what its mixture does.

    Args:
        predictor: of EGMF, EMOE or a form of it.
        dataset: labelled rows.
        split: rows of this split only; None for all.
        batch_size: rows at a time.

    Raises:
        DatasetError: fewer than three rows have a known label and a modality that the model knows.
        FeatureMismatch: the features are not those of the predictor.
        ConfigError: the model mixes nothing.
    """
    predictor.check_features(dataset.schema, dataset.extraction)
    rows, _ = labelled_rows(predictor, dataset, split)
    looks = [_look(predictor, batch) for batch in predictor.batches(dataset, rows, batch_size)]
    joined = {name: np.concatenate([look[name] for look in looks]) for name in looks[0]}

    def under(kind: str) -> dict[str, Floats]:
        return {name.removeprefix(kind): table for name, table in joined.items() if name.startswith(kind)}

    experts = "tokens/pseudo" in joined
    return Inside(
        "expert" if experts else "modality",
        tuple(f"d/{narrow}" for narrow, _ in BRANCHES) if experts else predictor.spec.modalities,
        rows,
        joined["present"].astype(bool),
        joined["there"].astype(bool),
        under("weights/"),
        joined["outputs"],
        joined["logits"],
        under("tokens/"),
        under("inputs/"),
    )


@torch.inference_mode()
def _look(predictor: Predictor, batch: Batch) -> dict[str, Floats]:
    batch = batch.to(predictor.device)
    output = predictor.module(batch)
    if "alpha" in output.features:
        tables = _experts(output) | _input_means(batch)
    elif "f" in output.features:
        tables = {"there": batch.present, "weights/router": output.weights, "outputs": output.features["f"]}
    else:
        raise StudyError(f"model {predictor.spec.model} mixes nothing", hint="Diagnose egmf, emoe or a form of it")
    tables |= {"logits": predictor.answer(output, batch.present).logits, "present": batch.present}
    return {name: table.float().cpu().numpy() for name, table in tables.items()}


def _experts(output: Output) -> dict[str, torch.Tensor]:
    features = output.features
    mixed = features["alpha"].sum(1, keepdim=True) > 0
    tokens = {name: features[name] for name in ("words", "f", "enhanced")} | {"pseudo": features["pseudo"].mean(1)}
    return {
        "there": mixed.expand(features["alpha"].shape),
        "weights/first stage": features["gate"],
        "weights/second stage": features["alpha"],
        "outputs": features["experts"],
        **{f"tokens/{name}": table for name, table in tokens.items()},
    }


def _input_means(batch: Batch) -> dict[str, torch.Tensor]:
    """Mean of each modality's features over the valid steps, zeros where it is absent."""
    means = {}
    for column, name in enumerate(batch.modalities):
        x, lengths = batch.features[name].nan_to_num(), batch.lengths[:, column] * batch.present[:, column]
        valid = torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1)
        means[f"inputs/{name}"] = (x * valid.unsqueeze(2)).sum(1) / lengths.clamp(min=1).unsqueeze(1)
    return means


# ------------------------------------------------------------------------------------------------------------ the gate


@dataclass(frozen=True)
class Usage:
    """What a branch gets, over the utterances in which it has company.

    Attributes:
        branch: its name.
        rows: how many utterances.
        mean, sd: of its weight.
        largest: share of them in which no other branch gets more.
        alone: share of them in which it gets more than :data:`HIGH`.
    """

    branch: str
    rows: int
    mean: float
    sd: float
    largest: float
    alone: float


@dataclass(frozen=True)
class GateUse:
    """How a gate mixes the R utterances in which it has a choice.

    Attributes:
        usage: of the K branches.
        entropies: (R,) entropy of the weights, divided by that of equal ones: 0 for a single branch, 1 for all alike.
        hard: share of them whose largest weight exceeds :data:`HIGH`.
        state: `collapsed` when one branch gets more than :data:`HIGH` on average, `still` when the weights do not
            depend on the utterance (:data:`STILL`), else `alive`.
    """

    usage: tuple[Usage, ...]
    entropies: Numbers
    hard: float
    state: Literal["alive", "still", "collapsed"]


def gate_use(weights: Floats, there: Mask, branches: Sequence[str]) -> GateUse | None:
    """Statistics of weights (N, K) of the branches that are there (N, K); None where no utterance leaves a choice."""
    choice = there.sum(axis=1) > 1
    if not choice.any():
        return None
    w, inside = weights[choice].astype(np.float64), there[choice]
    usage = tuple(_usage(name, w, inside, column) for column, name in enumerate(branches))
    plogp = np.where(w > 0, w * np.log(np.maximum(w, 1e-300)), 0.0)
    entropies = -plogp.sum(axis=1) / np.log(inside.sum(axis=1))
    if max(one.mean for one in usage if one.rows) > HIGH:
        state: Literal["alive", "still", "collapsed"] = "collapsed"
    else:
        state = "still" if _movement(w, inside) < STILL else "alive"
    return GateUse(usage, entropies, float((w.max(axis=1) > HIGH).mean()), state)


def _usage(name: str, w: Numbers, there: Mask, column: int) -> Usage:
    weights = w[there[:, column]]
    if len(weights) == 0:
        return Usage(name, 0, *[float("nan")] * 4)
    x = weights[:, column]
    return Usage(
        name,
        len(weights),
        float(x.mean()),
        float(x.std()),
        float((weights.argmax(axis=1) == column).mean()),
        float((x > HIGH).mean()),
    )


def _movement(w: Numbers, there: Mask) -> float:
    """The largest standard deviation of a branch's weight around its mean for the same set of branches."""
    rest = w.copy()
    for pattern in np.unique(there, axis=0):
        same = (there == pattern).all(axis=1)
        rest[same] -= w[same].mean(axis=0)
    return float(rest.std(axis=0).max())


# ---------------------------------------------------------------------------------------------- experts, pseudo tokens


def correlations(outputs: Floats, there: Mask) -> Numbers:
    """(K, K) correlation of what K branches say (N, K, D), over all dimensions, each centred over the utterances.

    What a branch says of every utterance alike therefore counts for nothing. NaN for a pair of branches that share
    fewer than three utterances, or one of which never varies.
    """
    count = outputs.shape[1]
    matrix = np.eye(count)
    for one, two in combinations(range(count), 2):
        both = there[:, one] & there[:, two]
        x, y = (outputs[both, branch].astype(np.float64) for branch in (one, two))
        matrix[one, two] = matrix[two, one] = _pearson(x - x.mean(0), y - y.mean(0)) if both.sum() > 2 else np.nan
    return matrix


def cosines(outputs: Floats, there: Mask) -> Numbers:
    """(K, K) mean cosine of what K branches say of an utterance (N, K, D), as EGMF's paper measures them.

    Unlike :func:`correlations` it counts what is said of every utterance alike. NaN for branches that share none.
    """
    count = outputs.shape[1]
    matrix = np.eye(count)
    for one, two in combinations(range(count), 2):
        both = there[:, one] & there[:, two]
        pairs = (_unit(outputs[both, one]) * _unit(outputs[both, two])).sum(axis=1)
        matrix[one, two] = matrix[two, one] = pairs.mean() if len(pairs) else np.nan
    return matrix


def alarms(inside: Inside, modalities: Sequence[str]) -> list[str]:
    """What EGMF's paper takes for a failure, in sentences: a uniform gate, experts alike, information that is lost.

    Args:
        inside: the model at work.
        modalities: of the model.
    """
    called, many = ("gate", "experts") if inside.kind == "expert" else ("router", "modalities")
    sentences = []
    use = gate_use(inside.mixing, inside.there, inside.branches)
    if use is not None and use.entropies.mean() > UNIFORM:
        mean = use.entropies.mean()
        sentences.append(f"Alarm: the {called} is uniform, its normalised entropy is {mean:.3f} on average.")
    table = cosines(inside.outputs, inside.there) if inside.kind == "expert" else np.eye(1)
    for one, two in zip(*np.nonzero(np.triu(np.abs(table) > HIGH, 1)), strict=True):
        both = f"{inside.branches[one]} and {inside.branches[two]}"
        how = "the same" if table[one, two] > 0 else "the opposite"
        sentences.append(f"Alarm: {many} {both} say {how}, their mean cosine is {table[one, two]:.2f}.")
    for measure in similarities(inside, modalities):
        value = float(measure.values.mean())
        if measure.measure == "geometry" and value < LOST:
            name = measure.compared.removeprefix("pseudo token and ").removesuffix(" features")
            sentences.append(f"Alarm: pseudo tokens have lost what {name} says, their geometries agree at {value:.2f}.")
    return sentences


@dataclass(frozen=True)
class Similarity:
    """How alike pseudo tokens, or vectors on the way to them, are to something else.

    Attributes:
        compared: the two sides, in words.
        measure: `cosine` of two vectors of an utterance, one value for each of the R utterances that have both; or
            `geometry`, one value for all: the correlation of the cosines between utterances in two spaces
            (representational similarity analysis, Kriegeskorte et al. 2008).
        values: (R,), or (1,).
        rows: R.
    """

    compared: str
    measure: Literal["cosine", "geometry"]
    values: Numbers
    rows: int


def similarities(inside: Inside, modalities: Sequence[str]) -> list[Similarity]:
    """Pseudo tokens beside what they are made of; empty for models without them.

    Cosines where two vectors live in one space: f before and after the experts; pseudo token and mean embedding of the
    words it stands beside; pseudo tokens of one utterance and of all others. Geometry where they do not: pseudo token
    and features of each modality.
    """
    mixed = inside.mixed
    if not inside.tokens or mixed.sum() < 3:
        return []
    pseudo = inside.tokens["pseudo"]
    with_words: Mask = mixed & (np.abs(inside.tokens["words"]).sum(axis=1) > 0)
    measures = [
        _cosine("f before and after the experts", inside.tokens["f"], inside.tokens["enhanced"], mixed),
        _cosine("pseudo token and words", pseudo, inside.tokens["words"], with_words),
        Similarity("pseudo token and those of others", "cosine", _among(pseudo[mixed]), int(mixed.sum())),
    ]
    for column, name in enumerate(modalities):
        rows = mixed & inside.present[:, column]
        value = geometry(pseudo[rows], inside.inputs[name][rows])
        measures.append(Similarity(f"pseudo token and {name} features", "geometry", np.array([value]), int(rows.sum())))
    return [one for one in measures if one.rows > 2]


def _cosine(compared: str, one: Floats, two: Floats, rows: Mask) -> Similarity:
    return Similarity(compared, "cosine", (_unit(one[rows]) * _unit(two[rows])).sum(axis=1), int(rows.sum()))


def _among(x: Floats) -> Numbers:
    """(N,) mean cosine of each row with all others."""
    unit = _unit(x)
    alike: Numbers = (unit @ unit.sum(axis=0) - 1) / (len(unit) - 1)
    return alike


def geometry(one: Floats, two: Floats) -> float:
    """Do utterances that are alike in one space (N, D) look alike in another (N, E)? See :class:`Similarity`.

    Columns are standardised first; of many utterances an even choice is compared. NaN for fewer than three.
    """
    if len(one) < 3:
        return float("nan")
    some = np.unique(np.linspace(0, len(one) - 1, min(len(one), MOST_PAIRED)).round().astype(int))
    above = np.triu_indices(len(some), 1)
    pairs = []
    for x in (one[some].astype(np.float64), two[some].astype(np.float64)):
        scale = x.std(axis=0)
        unit = _unit((x - x.mean(axis=0)) / np.where(scale > 0, scale, 1.0))
        pairs.append((unit @ unit.T)[above])
    return _pearson(*(cosines - cosines.mean() for cosines in pairs))


def _unit(x: NDArray[Any]) -> Numbers:
    long = x.astype(np.float64)
    scaled: Numbers = long / np.maximum(np.linalg.norm(long, axis=1, keepdims=True), 1e-12)
    return scaled


def _pearson(x: Numbers, y: Numbers) -> float:
    """Of centred numbers."""
    scale = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return float((x * y).sum() / scale) if scale > 0 else float("nan")


# ------------------------------------------------------------------------------------------------------------ ablation


@dataclass(frozen=True)
class Ablation:
    """What a trained model loses without one of its parts; nothing is trained anew.

    Attributes:
        part: what is taken away.
        rows: utterances measured on: those that have the part and something else.
        whole, without: the metric with and without it.
        difference, low, high: without - whole and its 95 % bootstrap interval; speakers (or media files) are resampled.
        failed: share of the utterances that dropped out since no value was given, with the part or without.
    """

    part: str
    rows: int
    whole: float
    without: float
    difference: float
    low: float
    high: float
    failed: float


def ablations(
    predictor: Predictor, dataset: Dataset, inside: Inside, metric: str, groups: Mapping[str, str] | None = None
) -> list[Ablation]:
    """Hide each modality from the rows that have another one, close each expert and all of them, and take LoRA away.

    Args:
        predictor, dataset: as given to :func:`look_inside`.
        inside: what that returned.
        metric: one of :data:`emopipe.models.evaluation.compare.SCORES`.
        groups: utterance -> what is resampled together; None: speakers, or conversations or media files.

    Raises:
        ConfigError: a metric that does not fit the task.
    """
    together = _groups(dataset) if groups is None else groups

    def ablation(part: str, rows: Mask, logits: Floats) -> Ablation:
        chosen = inside.rows[rows]
        complete = as_run("whole", predictor, dataset, chosen, inside.logits[rows])
        without = as_run(part, predictor, dataset, chosen, logits)
        gap = differences([complete, without], "whole", together, metric)[1]
        failed = float((np.isnan(inside.logits[rows]).any(axis=1) | np.isnan(logits).any(axis=1)).mean())
        return Ablation(part, len(chosen), gap.reference, gap.pooled, gap.difference, gap.low, gap.high, failed)

    names = predictor.spec.modalities
    available = [name for name in names if name in dataset.modalities]
    results = []
    for column, name in enumerate(names):
        rows = inside.present[:, column] & (inside.present.sum(axis=1) > 1)
        if rows.any():
            logits = predictor.scores(dataset, inside.rows[rows], [one for one in available if one != name]).logits
            results.append(ablation(name, rows, logits))
    gate, mixed = find_gate(predictor), inside.mixed
    if gate is not None and mixed.any():
        results += [ablation(part, mixed, logits) for part, logits in _closings(predictor, dataset, inside, gate)]
    if has_lora(predictor):
        with without_lora(predictor):
            logits = predictor.scores(dataset, inside.rows).logits
        results.append(ablation("LoRA", np.ones(len(inside.rows), dtype=bool), logits))
    return results


def _closings(predictor: Predictor, dataset: Dataset, inside: Inside, gate: Gate) -> Iterator[tuple[str, Floats]]:
    """What is answered without each expert, and without all."""
    closings = {f"expert {name}": [number] for number, name in enumerate(inside.branches)}
    for part, experts in (closings | {"all experts": list(range(len(inside.branches)))}).items():
        with closed(gate, experts):
            logits = predictor.scores(dataset, inside.rows[inside.mixed]).logits
        yield part, logits


@dataclass(frozen=True)
class Group:
    """A part of the utterances, such as those of a language, and what each part of a model is worth there.

    Attributes:
        name: of the group.
        rows: its utterances.
        value, low, high: the metric and its 95 % bootstrap interval.
        failed: share of the utterances that dropped out since no value was given.
        parts: see :func:`ablations`.
    """

    name: str
    rows: int
    value: float
    low: float
    high: float
    failed: float
    parts: list[Ablation]


def by_group(
    predictor: Predictor, dataset: Dataset, inside: Inside, metric: str, names: NDArray[np.object_], apart: bool
) -> list[Group]:
    """Diagnose groups of utterances one by one, those with fewer than :data:`LEAST` left out.

    Args:
        predictor, dataset: as given to :func:`look_inside`.
        inside: what that returned.
        metric: as for :func:`ablations`.
        names: (N,) the group of each utterance of `inside`; None for one that is left out.
        apart: utterances are resampled one by one, since a group is a single speaker.

    Raises:
        ConfigError: a metric that does not fit the task.
    """
    together = {str(one): str(one) for one in dataset.ids} if apart else _groups(dataset)
    groups = []
    for name in sorted({one for one in names if one is not None}):
        mine: Mask = names == name
        if mine.sum() < LEAST:
            continue
        part = _part(inside, mine)
        run = as_run("whole", predictor, dataset, part.rows, part.logits)
        value, low, high = score_interval(run, together, metric)
        parts = ablations(predictor, dataset, part, metric, together)
        failed = float(np.isnan(part.logits).any(axis=1).mean())
        groups.append(Group(str(name), int(mine.sum()), value, low, high, failed, parts))
    return groups


def _part(inside: Inside, rows: Mask) -> Inside:
    """Some of the utterances."""
    tables: dict[str, Any] = {
        name: getattr(inside, name)[rows] for name in ("rows", "present", "there", "outputs", "logits")
    }
    dicts: dict[str, Any] = {
        name: {key: table[rows] for key, table in getattr(inside, name).items()}
        for name in ("weights", "tokens", "inputs")
    }
    return replace(inside, **tables, **dicts)


def as_run(name: str, predictor: Predictor, dataset: Dataset, rows: Indices, logits: Floats) -> Run:
    """Outputs (N, C) for rows of a dataset as a run; see :func:`emopipe.models.evaluation.compare.differences`."""
    truth = dataset.labels(predictor.spec.label)[rows].tolist()
    if predictor.spec.task == "regression":
        scoring = predictor.scoring(dataset)
        predicted: list[Any] = scoring.cut(logits[:, 0].astype(float)).tolist()
        figures = metrics.regression(np.array(truth), np.array(predicted), kind=scoring.kind)
    else:
        predicted = [predictor.spec.classes[best] for best in logits.argmax(axis=1)]
        figures = metrics.classification(np.array(truth), np.array(predicted))
    return Run("", name, 0, 0, 0, 0.0, figures, dataset.ids[rows].tolist(), truth, predicted)


def has_lora(predictor: Predictor) -> bool:
    """Whether a model has low-rank changes that can be taken away."""
    return any(".lora_" in name for name, _ in predictor.module.named_parameters())


@contextmanager
def without_lora(predictor: Predictor) -> Iterator[None]:
    """A model without its low-rank changes, for the time of the block."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [part for part in predictor.module.modules() if isinstance(part, BaseTunerLayer)]
    trained = {name: one.requires_grad for name, one in predictor.module.named_parameters()}
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for name, parameter in predictor.module.named_parameters():
            parameter.requires_grad_(trained[name])


def _groups(dataset: Dataset) -> Mapping[str, str]:
    return dict(zip(dataset.ids, dataset.groups, strict=True))


def find_gate(predictor: Predictor) -> Gate | None:
    """The gate of EGMF's experts."""
    return next((part for part in predictor.module.modules() if isinstance(part, Gate)), None)


@contextmanager
def closed(gate: Gate, experts: Sequence[int]) -> Iterator[None]:
    """A gate that lets none of these experts pass, for the time of the block."""
    before = gate.open.clone()
    gate.open[list(experts)] = False
    try:
        yield
    finally:
        gate.open.copy_(before)
