"""The losses of EMOE, masked for missing modalities.

Notation: B utterances, M modalities, C outputs; `present` (B, M) bool says which modalities an utterance has and
`weights` (B, M) are the router's w, zero where absent. With every modality present each loss equals the published one.

    L = L_task + L_uni + lambda1 * (L_ent + alpha * L_sim) + lambda2 * L_ud
"""

from __future__ import annotations

from typing import Final, Literal

import torch
from torch import Tensor
from torch.nn import functional

Task = Literal["classification", "regression"]
Distillation = Literal["paper", "kl", "mse"]
Importance = Literal["inverse", "softmax"]
Similarity = Literal["mean", "sum"]

#: eps of the importance: keeps the share of a modality without error finite.
EPSILON: Final = 0.1
#: The same in equation 5 as printed, which says only that it is very small.
PRINTED_EPSILON: Final = 1e-8


def task_costs(logits: Tensor, labels: Tensor, task: Task, smoothing: float = 0.0) -> Tensor:
    """(B,) cost of each prediction: cross-entropy of classes, |logit - y| of values (L_multi and L_m before the mean).

    Args:
        logits: (B, C), or (B, 1) for regression.
        labels: (B,) class indices or values, or shares of classes (B, C) in the votes of several coders.
        task: which of the two.
        smoothing: label smoothing in [0, 1), classes only.
    """
    if task == "classification":
        return functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    return (logits[:, 0] - labels).abs()


def importance_costs(logits: Tensor, labels: Tensor, task: Task) -> Tensor:
    """(B,) c_m, the error behind the importance: cross-entropy of classes, squared error of values; no gradient."""
    logits = logits.detach()
    if task == "classification":
        return functional.cross_entropy(logits, labels, reduction="none")
    return (logits[:, 0] - labels).square()


def mean(costs: Tensor, sample_weights: Tensor | None = None) -> Tensor:
    """Mean over the batch of (B,) costs, each times its sample weight when there are weights (class balance)."""
    return (costs if sample_weights is None else costs * sample_weights).mean()


def unimodal(costs: list[Tensor], present: Tensor, sample_weights: Tensor | None = None) -> Tensor:
    """L_uni = mean_B (sum over present m of L_m) / number present; the published (L_l + L_v + L_a) / 3.

    Args:
        costs: M tensors (B,), finite where present.
    """
    table = torch.stack(costs, dim=1).masked_fill(~present, 0.0)
    return mean(table.sum(1) / present.sum(1).clamp(min=1), sample_weights)


def importance(costs: Tensor, present: Tensor, form: Importance = "inverse") -> Tensor:
    """I_m of the present modalities, 0 where absent; no gradient.

    - `inverse`: (1 / (c_m + 0.1)) / sum_j (1 / (c_j + 0.1)), as the published code has it, which made the results.
    - `softmax`: softmax_m(1 / (c_m + eps)) with a tiny eps, equation 5 as printed: nearly all goes to the modality that
      errs least as soon as one errs little.

    Args:
        costs: (B, M) c_m >= 0.
        form: which of the two.
    """
    if form == "softmax":
        shares = (costs.detach() + PRINTED_EPSILON).reciprocal().masked_fill(~present, -torch.inf)
        return shares.softmax(1).nan_to_num()
    inverse = (costs.detach() + EPSILON).reciprocal().masked_fill(~present, 0.0)
    return inverse / inverse.sum(1, keepdim=True).clamp(min=1e-12)


def similarity(weights: Tensor, target: Tensor, present: Tensor, form: Similarity = "mean") -> Tensor:
    """L_sim = mean_B mean_m (sg[I_m] - w_m)^2 over present modalities; utterances with fewer than two count 0.

    With the form `sum` the sum over m stands in the place of the mean, equation 6 as printed. The paper calls what is
    summed a similarity and minimises it; both forms take it for the squared difference that the published code has.
    """
    count = present.sum(1)
    error = (target.detach() - weights).square().masked_fill(~present, 0.0).sum(1)
    error = error if form == "sum" else error / count
    return error.masked_fill(count < 2, 0.0).mean()


def entropy(weights: Tensor, present: Tensor) -> Tensor:
    """L_ent = mean_B N * sum_m w_m ln w_m over the N present modalities, 0 for N = 1; least for uniform weights."""
    count = present.sum(1)
    logs = weights.clamp(min=1e-9).log()
    total = (weights * logs).masked_fill(~present, 0.0).sum(1)
    return (count * total).masked_fill(count < 2, 0.0).mean()


def distillation(student: Tensor, teacher: Tensor, mode: Distillation, temperature: float = 2.0) -> Tensor:
    """L_ud: the fused prediction learns from the router-weighted unimodal ones; the teacher gets no gradient.

    - `paper`: mean_B mean_k (softmax(student)_k - softmax(teacher)_k)^2 over features, as the published code runs it.
      At its published width of 256 both softmaxes are nearly uniform and the term is numerically inert.
    - `mse`: mean squared difference of the raw features.
    - `kl`: T^2 KL(softmax(teacher / T) || softmax(student / T)), the form of Hinton et al. 2015.

    Args:
        student, teacher: (B, K), features or class logits.
        temperature: T of `kl`.
    """
    teacher = teacher.detach()
    if mode == "mse":
        return (student - teacher).square().mean()
    if mode == "paper":
        return (student.softmax(1) - teacher.softmax(1)).square().mean()
    log_student, log_teacher = ((logits / temperature).log_softmax(1) for logits in (student, teacher))
    return temperature**2 * functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
