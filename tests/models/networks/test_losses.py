"""The losses have the published values, stop gradients where they should, and ignore absent modalities."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from emopipe.models.networks import losses

ALL = torch.ones(1, 3, dtype=torch.bool)


def test_importance_is_the_inverse_error_share() -> None:
    logits, label = torch.tensor([1.2, 0.0, -1.0]), torch.tensor([1.0])
    costs = torch.stack([losses.importance_costs(one.view(1, 1), label, "regression") for one in logits], dim=1)
    assert costs.tolist()[0] == pytest.approx([0.04, 1, 4])
    assert losses.importance(costs, ALL).tolist()[0] == pytest.approx([0.8610, 0.1096, 0.0294], abs=5e-5)


def test_similarity_and_entropy_have_their_published_values_at_uniform_weights() -> None:
    share = losses.importance(torch.tensor([[0.04, 1.0, 4.0]]), ALL)
    uniform = torch.full((1, 3), 1 / 3)
    assert losses.similarity(uniform, share, ALL).item() == pytest.approx(0.1403, abs=5e-5)
    assert losses.entropy(uniform, ALL).item() == pytest.approx(-3 * math.log(3), abs=1e-5)


def test_published_distillation_value() -> None:
    student, teacher = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 1.0, 1.0]])
    assert losses.distillation(student, teacher, "paper").item() == pytest.approx(0.0591, abs=5e-5)


def test_published_distillation_is_inert_at_the_published_width_and_the_others_are_not() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(16, 256, requires_grad=True), torch.randn(16, 256)
    norms = {}
    for mode in ("paper", "mse", "kl"):
        (gradient,) = torch.autograd.grad(losses.distillation(student, teacher, mode), student)
        norms[mode] = gradient.norm().item()
    assert norms["paper"] * 1000 < min(norms["mse"], norms["kl"])


@pytest.mark.parametrize("mode", ["paper", "mse", "kl"])
def test_the_teacher_gets_no_gradient(mode: losses.Distillation) -> None:
    student, teacher = torch.randn(4, 5, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    losses.distillation(student, teacher, mode).backward()
    assert student.grad is not None and student.grad.abs().sum() > 0
    assert teacher.grad is None


@pytest.mark.parametrize("mode", ["paper", "mse", "kl"])
def test_distillation_vanishes_when_student_and_teacher_agree(mode: losses.Distillation) -> None:
    same = torch.randn(4, 5)
    assert losses.distillation(same, same.clone(), mode).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_importance_gets_no_gradient(task: losses.Task) -> None:
    logits = torch.randn(4, 1 if task == "regression" else 3, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0]) if task == "classification" else torch.randn(4)
    costs = losses.importance_costs(logits, labels, task)
    assert not costs.requires_grad
    for form in ("inverse", "softmax"):
        assert not losses.importance(torch.rand(4, 3, requires_grad=True), ALL.expand(4, 3), form).requires_grad


def test_similarity_moves_the_weights_and_not_the_importance() -> None:
    weights, share = torch.rand(4, 3, requires_grad=True), torch.rand(4, 3, requires_grad=True)
    losses.similarity(weights, share, ALL.expand(4, 3)).backward()
    assert weights.grad is not None and share.grad is None


def test_sample_weights_scale_the_cost_of_their_rows() -> None:
    costs, weights = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.0])
    assert losses.mean(costs, weights).item() == pytest.approx(1.0)
    assert losses.mean(costs).item() == pytest.approx(1.5)


def test_absolute_error_and_smoothed_cross_entropy() -> None:
    assert losses.task_costs(torch.tensor([[2.5]]), torch.tensor([1.0]), "regression").tolist() == [1.5]
    logits, label = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    sharp = losses.task_costs(logits, label, "classification").item()
    smooth = losses.task_costs(logits, label, "classification", 0.2).item()
    assert sharp == pytest.approx(math.log(1 + math.exp(-2)))
    assert smooth == pytest.approx(sharp + 0.1 * 2)


patterns = st.lists(st.lists(st.booleans(), min_size=3, max_size=3).filter(any), min_size=1, max_size=6)


@settings(deadline=None, max_examples=50)
@given(patterns, st.integers(0, 1000))
def test_absent_modalities_change_no_loss(rows: list[list[bool]], seed: int) -> None:
    torch.manual_seed(seed)
    present = torch.tensor(rows)
    costs, other = torch.rand(present.shape), torch.rand(present.shape)
    changed = torch.where(present, costs, other)
    weights = torch.rand(present.shape).masked_fill(~present, 0)
    weights = weights / weights.sum(1, keepdim=True)
    for one, two in ((costs, changed), (changed, costs)):
        share = losses.importance(one, present)
        assert torch.equal(share, losses.importance(two, present))
        assert share.sum(1).tolist() == pytest.approx([1.0] * len(rows))
        assert losses.unimodal(list(one.unbind(1)), present) == losses.unimodal(list(two.unbind(1)), present)
    assert torch.isfinite(losses.entropy(weights, present))
    assert losses.similarity(weights, losses.importance(costs, present), present) >= 0


def test_with_all_present_the_masked_losses_are_the_plain_means() -> None:
    torch.manual_seed(0)
    costs, present = torch.rand(5, 3), torch.ones(5, 3, dtype=torch.bool)
    weights = torch.rand(5, 3).softmax(1)
    share = losses.importance(costs, present)
    assert losses.unimodal(list(costs.unbind(1)), present).item() == pytest.approx(costs.mean().item())
    assert losses.similarity(weights, share, present).item() == pytest.approx((share - weights).square().mean().item())
    plain = 3 * (weights * weights.log()).sum(1).mean().item()
    assert losses.entropy(weights, present).item() == pytest.approx(plain)


def test_a_single_present_modality_adds_no_router_loss() -> None:
    present, weights = torch.tensor([[False, True, False]]), torch.tensor([[0.0, 1.0, 0.0]])
    assert losses.entropy(weights, present).item() == 0
    assert losses.similarity(weights, weights, present).item() == 0


def test_equation_5_as_printed() -> None:
    """softmax(1 / (c + eps)) over the present modalities."""
    costs = torch.tensor([[2.0, 4.0, 4.0], [2.0, 4.0, 4.0], [0.0, 1.0, 9.0], [1.0, 1.0, 1.0]])
    present = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 1], [0, 0, 0]], dtype=torch.bool)
    shares = losses.importance(costs, present, "softmax")
    assert torch.allclose(shares[0], torch.tensor([0.5, 0.25, 0.25]).softmax(0))
    assert torch.allclose(shares[1], torch.tensor([*torch.tensor([0.5, 0.25]).softmax(0), 0.0]))
    assert shares[2].tolist() == [1.0, 0.0, 0.0]  # no error: one-hot, and finite
    assert shares[3].tolist() == [0.0, 0.0, 0.0]


def test_equation_6_as_printed_sums() -> None:
    weights, target = torch.tensor([[0.2, 0.3, 0.5]]), torch.tensor([[0.6, 0.1, 0.3]])
    present = torch.ones(1, 3, dtype=torch.bool)
    assert losses.similarity(weights, target, present, "sum").item() == pytest.approx(0.16 + 0.04 + 0.04)
    assert losses.similarity(weights, target, present).item() == pytest.approx(0.24 / 3)
