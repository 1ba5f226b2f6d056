"""EMOE and EGMF compute their equations: every number again, by hand, utterance by utterance."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from emopipe.models.data.dataset import Batch
from emopipe.models.networks import losses
from emopipe.models.networks.egmf.encoder import (
    AudioVisualEncoder,
    CrossAttention,
    CrossModalFusion,
    SequenceEncoder,
    Steps,
)
from emopipe.models.networks.egmf.experts import Experts, Gate, PseudoTokens
from emopipe.models.networks.emoe import Emoe, EmoeConfig, Head, Mixture, Router
from emopipe.models.networks.emoe_paper import EmoePaper, EmoePaperConfig, FlatRouter
from emopipe.models.networks.layers import Transformer
from emopipe.models.networks.model import Output, Shape, mean_answer

DIMS = {"text": 5, "face": 3, "voice": 7}
SMALL = EmoeConfig(width=8, layers=1, heads=2, router_width=6)
PAPER = EmoePaperConfig(width=8, layers=1, heads=2, steps=6, kernel=3, text_encoder=False)
OUTPUTS = {"classification": 4, "regression": 1}
each_task = pytest.mark.parametrize("task", ["classification", "regression"])
each_fusion = pytest.mark.parametrize("fusion", ["sum", "concat"])


def shape(task: Any) -> Shape:
    return Shape(DIMS, OUTPUTS[task], task)


def batch(task: str, present: Tensor | None = None, rows: int = 5, steps: int = 6) -> Batch:
    torch.manual_seed(1)
    features = {name: torch.randn(rows, steps, dim) for name, dim in DIMS.items()}
    lengths = torch.randint(1, steps + 1, (rows, 3)).index_fill(0, torch.tensor([0]), 1)
    there = torch.ones(rows, 3, dtype=torch.bool) if present is None else present
    labels = torch.arange(rows) % 4 if task == "classification" else torch.linspace(-2, 2, rows)
    weights = torch.linspace(0.5, 1.5, rows)
    return Batch(tuple(DIMS), features, lengths, there, torch.rand(rows, 3) + 0.1, labels, weights=weights)


def stirred(net: nn.Module) -> nn.Module:
    """Nothing may be zero or one that could hide what it multiplies."""
    torch.manual_seed(2)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.4)
    for name, buffer in net.named_buffers():
        if name.endswith("standardise.mean"):
            nn.init.normal_(buffer)
        if name.endswith("standardise.scale"):
            nn.init.uniform_(buffer, 0.5, 1.5)
    return net.eval()


def emoe(task: str, config: EmoeConfig = SMALL) -> Emoe:
    net = stirred(Emoe(shape(task), config))
    assert isinstance(net, Emoe)
    return net


def linear(layer: Any, x: Tensor) -> Tensor:
    out: Tensor = x @ layer.weight.T + layer.bias
    return out


def head_of(head: Any, f: Tensor) -> tuple[Tensor, Tensor]:
    p = f + linear(head.second, linear(head.first, f).clamp(min=0))
    return p, linear(head.readout, p)


def softmax(x: Tensor) -> Tensor:
    return x.exp() / x.exp().sum()


# ---------------------------------------------------------------------------------------------------- EMOE, its forward


def convolved(x: Tensor, weight: Tensor, padding: int) -> Tensor:
    """(T, D) with a kernel (K, D, k) -> (T', K)."""
    padded = nn.functional.pad(x, (0, 0, padding, padding))
    size = weight.shape[2]
    return torch.stack(
        [sum(weight[:, :, k] @ padded[t + k] for k in range(size)) for t in range(len(padded) - size + 1)]  # type: ignore[misc]
    )


def encoded_by_hand(net: Emoe, name: str, x: Tensor, kernel: int, mean: Tensor | None = None) -> Tensor:
    branch = net.branches[name]
    centred = x - (branch.standardise.mean if mean is None else mean)  # type: ignore[union-attr, operator]
    standard = (centred * branch.standardise.scale).clamp(-8, 8)  # type: ignore[union-attr, operator]
    steps = convolved(standard, branch.convolution.weight, kernel // 2)  # type: ignore[union-attr, arg-type]
    return steps @ net.encoder.weight[:, :, 0].T


@each_task
@pytest.mark.parametrize("readout", ["last", "mean"])
@pytest.mark.parametrize("kernel", [1, 5])
def test_emoe_reads_each_modality_by_convolution_shared_encoder_and_transformer(
    task: str, readout: Any, kernel: int
) -> None:
    net, data = emoe(task, replace(SMALL, readout=readout, kernel=kernel)), batch(task)
    output = net(data)
    for column, name in enumerate(DIMS):
        for row in range(5):
            x = data.features[name][row, : data.lengths[row, column]]
            steps = net.branches[name].transformer(encoded_by_hand(net, name, x, kernel).unsqueeze(0))[0]  # type: ignore[union-attr, operator]
            f = steps[-1] if readout == "last" else steps.mean(0)
            p, logits = head_of(net.branches[name].head, f)  # type: ignore[union-attr]
            assert torch.allclose(output.features["f"][row, column], f, atol=1e-5)
            assert torch.allclose(output.features["p"][row, column], p, atol=1e-5)
            assert torch.allclose(output.unimodal[name][row], logits, atol=1e-5)


@pytest.mark.parametrize("readout", ["last", "mean"])
def test_a_modality_that_is_there_without_a_step_gives_numbers(readout: Any) -> None:
    net, data = emoe("regression", replace(SMALL, readout=readout)), batch("regression")
    data.lengths[0] = 0
    output = net(data)
    assert torch.isfinite(output.logits).all() and torch.isfinite(output.weights).all()


def test_the_transformer_is_of_the_configured_depth_and_decides() -> None:
    net, data = emoe("regression", replace(SMALL, layers=3)), batch("regression")
    for name in DIMS:
        transformer = net.branches[name].transformer  # type: ignore[union-attr]
        assert isinstance(transformer, Transformer) and len(transformer.layers) == 3
        before = net(data).unimodal[name]
        for layer in transformer.layers:
            layer.out.weight.data.mul_(-1)  # type: ignore[union-attr, operator]
            after = net(data).unimodal[name]
            assert not torch.allclose(before, after)
            before = after


def test_one_encoder_serves_every_modality() -> None:
    net, data = emoe("regression"), batch("regression")
    before = net(data).unimodal
    net.encoder.weight.data.mul_(1.5)
    after = net(data).unimodal
    assert all(not torch.allclose(before[name], after[name]) for name in DIMS)


def test_face_and_voice_are_read_relative_to_what_is_usual_for_the_speaker() -> None:
    net, data = emoe("regression", replace(SMALL, relative=True)), batch("regression")
    means = {name: torch.randn(5, dim) for name, dim in DIMS.items()}
    means["face"][2], means["voice"][3, 1] = torch.nan, torch.nan
    output = net(replace(data, speaker_means=means))
    for column, name in enumerate(DIMS):
        own = net.branches[name].standardise.mean  # type: ignore[union-attr]
        for row in range(5):
            usual = own if name == "text" else torch.where(means[name][row].isnan(), own, means[name][row])  # type: ignore[arg-type]
            x = data.features[name][row, : data.lengths[row, column]]
            steps = net.branches[name].transformer(encoded_by_hand(net, name, x, 1, usual).unsqueeze(0))[0]  # type: ignore[union-attr, operator, arg-type]
            assert torch.allclose(output.features["f"][row, column], steps[-1], atol=1e-5)
    without = emoe("regression")(replace(data, speaker_means=means))
    assert torch.equal(without.logits, emoe("regression")(data).logits)


def test_what_is_usual_is_withheld_from_a_share_of_the_rows_in_training_alone() -> None:
    rows = 2000
    data = replace(batch("regression", rows=rows), speaker_means={"face": torch.randn(rows, 3)})
    net, known = emoe("regression", replace(SMALL, relative=True, withheld=0.25)), data.speaker_means["face"]
    every = torch.arange(rows)
    told = net._usual("face", data, every)
    assert told is not None and torch.equal(told, known) and net._usual("voice", data, every) is None
    told = net.train()._usual("face", data, every)
    assert told is not None
    gone = told.isnan()
    assert torch.equal(gone.any(1), gone.all(1)) and torch.equal(told[~gone], known[~gone])
    assert gone.float().mean().item() == pytest.approx(0.25, abs=0.04)


def weights_by_hand(net: Emoe, data: Batch, row: int, task: str) -> Tensor:
    """The router's answer, from what each present modality's steps and predictions are."""
    output, there = net(data), data.present[row].tolist()
    config, blocks = net.config, []
    logits = [output.unimodal[name][row] for name in DIMS]
    said = [softmax(one) if task == "classification" else one for one in logits]
    for column, name in enumerate(DIMS):
        if not there[column]:
            blocks.append(net.router.absent[column])
            continue
        encoded = encoded_by_hand(net, name, data.features[name][row, : data.lengths[row, column]], 1)
        deviation = ((encoded - encoded.mean(0)).square().mean(0) + 1e-6).sqrt()
        block = [encoded.mean(0), deviation]
        if config.router_posteriors:
            others = [other for other in range(3) if other != column and there[other]]
            if task == "classification":
                agreement = [(said[column] * said[other]).sum() for other in others]
                direct = [said[column].square().sum()]
            else:
                agreement, direct = [-(said[column] - said[other]).abs().sum() for other in others], []
            direct.append(torch.stack(agreement).mean() if others else torch.zeros(()))
            block += [said[column], torch.stack(direct)]
        blocks.append(torch.cat(block))
    z = linear(net.router.hidden, torch.cat([*blocks, data.present[row].float()]))
    scores = linear(net.router.gate, (z / z.norm()).clamp(min=0))
    if config.router_posteriors:
        count = len(net.router.evidence)
        direct_scores = [block[-count:] @ net.router.evidence if there[m] else 0.0 for m, block in enumerate(blocks)]
        scores = scores + torch.stack([torch.as_tensor(one) for one in direct_scores])
    scores = scores / config.temperature
    if config.quality_prior:
        scores = scores + data.quality[row].log()
    shares = torch.where(data.present[row], (scores - scores[data.present[row]].max()).exp(), 0.0)
    return shares / shares.sum()


PRESENT = torch.tensor(
    [[True, True, True], [True, False, True], [False, True, True], [True, True, False], [True, True, True]]
)


@each_task
@pytest.mark.parametrize("options", [{}, {"router_posteriors": False}, {"quality_prior": True}, {"temperature": 3.0}])
def test_the_router_weighs_at_its_temperature(task: str, options: dict[str, Any]) -> None:
    net, data = emoe(task, replace(SMALL, **{"temperature": 2.0, **options})), batch(task, PRESENT)
    weights = net(data).weights
    for row in range(5):
        assert torch.allclose(weights[row], weights_by_hand(net, data, row, task), atol=1e-5)


@each_task
@each_fusion
def test_emoe_mixes_what_the_transformers_say_by_the_weights(task: str, fusion: Any) -> None:
    net, data = emoe(task, replace(SMALL, fusion=fusion, temperature=2.0)), batch(task, PRESENT)
    output = net(data)
    f, w = output.features["f"], output.weights
    for row in range(5):
        parts = [w[row, m] * f[row, m] for m in range(3)]
        fused = parts[0] + parts[1] + parts[2] if fusion == "sum" else torch.cat(parts) * PRESENT[row].sum()
        p, logits = head_of(net.head, fused)
        assert torch.allclose(output.features["fused"][row], fused, atol=1e-5)
        assert torch.allclose(output.features["fused_head"][row], p, atol=1e-5)
        assert torch.allclose(output.logits[row], logits, atol=1e-5)


def test_in_training_a_lone_modality_is_answered_by_what_is_fused_too() -> None:
    net, data = (
        emoe("regression").train(),
        batch("regression", torch.tensor([[True, False, False]] * 3 + [[True] * 3] * 2)),
    )
    output = net(data)
    assert torch.equal(output.logits, linear(net.head.readout, output.features["fused_head"]))
    output = net.eval()(data)
    assert torch.allclose(output.logits[:3], output.unimodal["text"][:3])


@pytest.mark.parametrize("form", [Emoe, EmoePaper])
def test_an_utterance_alone_is_answered_as_among_others(form: type[Mixture]) -> None:
    net, data = mixture("regression", form), batch("regression")
    features = {name: x[:1] for name, x in data.features.items()}
    one = Batch(data.modalities, features, data.lengths[:1], data.present[:1], data.quality[:1])
    assert torch.allclose(net(one).logits, net(data).logits[:1], atol=1e-5)


def test_a_router_hears_what_is_absent_as_a_learned_vector() -> None:
    torch.manual_seed(0)
    net = Router(2, 3, 1, 4, 0.5)
    stirred(net)
    blocks, present = torch.randn(1, 2, 3), torch.tensor([[True, True]])
    z = linear(net.hidden, torch.cat([blocks.flatten(1), present.float()], dim=1))
    scores = linear(net.gate, (z / z.norm()).clamp(min=0)) + blocks[..., 2] * net.evidence
    assert torch.allclose(net(blocks, present), (scores / 0.5).softmax(1), atol=1e-6)


def test_the_answer_with_linear_models_is_the_mean_of_both() -> None:
    one, two, share = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]]), torch.tensor(0.25)
    mixed = mean_answer(one, two, share, "classification").softmax(1)
    assert torch.allclose(mixed, 0.75 * one.softmax(1) + 0.25 * two.softmax(1), atol=1e-6)
    assert mean_answer(one, two, share, "regression").tolist() == [[0.75, 0.5]]


def in_whole_channels(dropped: Tensor, x: Tensor) -> bool:
    """Whether (B, T, K) are x, each channel of a row either doubled or 0."""
    kept = (dropped != 0).any(1, keepdim=True)
    some = bool(kept.any()) and not bool(kept.all())
    return some and torch.allclose(dropped, torch.where(kept, 2 * x, 0.0))


def test_input_dropout_takes_whole_channels_of_the_standardised_input() -> None:
    data = batch("regression")
    net = emoe("regression", replace(SMALL, input_dropout={"text": 0.0, "face": 0.5, "voice": 0.5})).train()
    sequences = SequenceEncoder(3, 8, 0.0, 0.5)
    stirred(sequences).train()
    seen: list[Tensor] = []
    for reader in (net.branches["face"].convolution, sequences.project):  # type: ignore[union-attr]
        reader.register_forward_pre_hook(lambda _, given: seen.append(given[0]))  # type: ignore[union-attr, operator]
    net(data)
    sequences(data.features["face"], data.lengths[:, 1])
    valid = torch.arange(seen[0].shape[2]) < data.lengths[:, 1:2]
    standard = net.branches["face"].standardise(data.features["face"])[:, : seen[0].shape[2]]  # type: ignore[union-attr, operator]
    assert in_whole_channels(seen[0].transpose(1, 2), standard * valid.unsqueeze(2))
    assert in_whole_channels(seen[1], sequences.standardise(data.features["face"]))
    assert net.branches["text"].dropout.p == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("form", [Emoe, EmoePaper])
def test_every_dropout_has_its_own_rate(form: type[Mixture]) -> None:
    rates = {"embed_dropout": 0.11, "relu_dropout": 0.12, "residual_dropout": 0.13, "output_dropout": 0.14}
    attention: Any = 0.15 if form is Emoe else {"text": 0.15, "face": 0.25, "voice": 0.35}
    net = form(shape("regression"), replace(SMALL if form is Emoe else PAPER, **rates, attention_dropout=attention))  # type: ignore[arg-type]
    for name in DIMS:
        branch: Any = net.get_submodule(f"branches.{name}")
        layer = branch.transformer.layers[0]
        found = [
            branch.transformer.embed_dropout.p,
            layer.relu_dropout.p,
            layer.residual_dropout.p,
            branch.head.dropout.p,
        ]
        assert found == list(rates.values())
        assert layer.attention_dropout == (attention if form is Emoe else attention[name])
    assert net.head.dropout.p == 0.14
    assert not isinstance(net, EmoePaper) or net.text_dropout.p == PAPER.text_dropout


def test_batch_norm_of_the_printed_router_goes_by_its_past_where_a_batch_has_no_spread() -> None:
    torch.manual_seed(0)
    router = FlatRouter({"text": 4, "face": 4}, {"text": 4, "face": 4}, 0.5, batch_norm=True, scaled=True)
    stirred(router)
    norm = router.norm
    assert norm is not None and norm.running_mean is not None and norm.running_var is not None
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    before = norm.running_mean.clone(), norm.running_var.clone()
    features, present = {name: torch.randn(1, 4, 4) for name in ("text", "face")}, torch.ones(1, 2, dtype=torch.bool)
    z = linear(router.hidden, torch.cat(list(features.values()), dim=2).flatten(1))
    normal = (z - before[0]) / (before[1] + norm.eps).sqrt() * norm.weight + norm.bias
    expected = (router.scale * linear(router.gate, normal.relu()) / 0.5).softmax(1)
    for training in (False, True):
        assert torch.allclose(router.train(training)(features, present), expected, atol=1e-5)
    assert torch.equal(norm.running_mean, before[0]) and torch.equal(norm.running_var, before[1])


def test_a_router_of_few_inputs_has_one_hidden_channel() -> None:
    assert FlatRouter({"text": 2, "face": 1}, {"text": 2, "face": 2}, 0.5).hidden.out_features == 1


def test_the_router_of_encoded_features_is_as_long_as_these_are() -> None:
    shape_of_one_wide = Shape({"text": 8, "face": 3, "voice": 7}, 1, "regression")  # the text is not convolved
    net = stirred(EmoePaper(shape_of_one_wide, replace(PAPER, router_input="encoded", kernel=3)))
    assert isinstance(net, EmoePaper)
    assert net.router.hidden.in_features == 3 * 6 * 8 and list(net.router.time) == ["face", "voice"]
    data = batch("regression")
    data.features["text"] = torch.randn(5, 6, 8)  # type: ignore[index]
    assert net(data).weights.sum(1).tolist() == pytest.approx([1] * 5)


def test_the_fusion_of_egmf_drops_where_its_rates_say() -> None:
    torch.manual_seed(0)
    sequences, fusion = SequenceEncoder(3, 8, 0.11, 0.12), CrossModalFusion(6, 8, 2, 0.13)
    assert (sequences.dropout.p, sequences.channels.p, fusion.dropout.p) == (0.11, 0.12, 0.13)
    assert fusion.words_look.attention.dropout == fusion.signals_look.attention.dropout == 0.13
    x, lengths = torch.randn(2, 4, 3), torch.tensor([4, 4])
    sequences.dropout.p = fusion.dropout.p = 0.999_999  # nothing is left of what is dropped
    stirred(sequences).train()
    assert torch.equal(sequences(x, lengths), sequences.lstm(torch.zeros(2, 4, 8))[0] + sequences.modality)
    one = torch.ones(2, 4, dtype=torch.bool)
    assert (fusion.train()(Steps(torch.randn(2, 4, 6), one), Steps(torch.randn(2, 4, 8), one)) == 0).all()


def test_what_is_learned_is_a_parameter() -> None:
    """And so is trained and saved."""
    audiovisual = dict(AudioVisualEncoder({"face": 3}, 4, 0.0, {"face": 0.0}).named_parameters())
    assert {"encoders.face.modality", "encoders.face.project.weight"} <= audiovisual.keys()
    assert "unsaid" in dict(CrossModalFusion(6, 8, 2, 0.0).named_parameters())
    assert "time.face.weight" in dict(
        FlatRouter({"text": 2, "face": 2}, {"text": 3, "face": 4}, 0.5).named_parameters()
    )
    assert {"absent", "evidence"} <= dict(Router(2, 3, 1, 4, 0.5).named_parameters()).keys()


# ----------------------------------------------------------------------------------------------------- EMOE, its losses


def mixture(task: str, form: type[Mixture], **options: Any) -> Mixture:
    config = replace(SMALL if form is Emoe else PAPER, **{"temperature": 2.0, **options})
    net = stirred(form(shape(task), config))
    assert isinstance(net, Mixture)
    return net


def leaves(output: Output) -> Output:
    """The same numbers, none of them made from another."""

    def leaf(x: Tensor) -> Tensor:
        return x.detach().clone().requires_grad_()

    unimodal, features = ({name: leaf(x) for name, x in part.items()} for part in (output.unimodal, output.features))
    return Output(leaf(output.logits), unimodal, leaf(output.weights), features)


def student_and_teacher(net: Mixture, output: Output, row: int) -> tuple[Tensor, Tensor]:
    """Student and teacher of an utterance, eq. 10: the fused head and z_uni."""
    config, w = net.config, output.weights[row]
    if config.distillation == "kl" and net.shape.task == "classification":
        student = output.logits[row]
        parts = [w[m] * output.unimodal[name][row] for m, name in enumerate(DIMS)]
        return student, parts[0] + parts[1] + parts[2]
    parts = [w[m] * output.features["p"][row, m] for m in range(3)]
    return output.features["fused_head"][row], sum(parts) if config.fusion == "sum" else torch.cat(parts)  # type: ignore[return-value]


def distance(student: Tensor, teacher: Tensor, mode: str) -> Tensor:
    if mode == "mse":
        return (student - teacher).square().mean()
    if mode == "paper":
        return (softmax(student) - softmax(teacher)).square().mean()
    q, p = softmax(student / 2), softmax(teacher / 2)
    return 4 * (p * (p.log() - q.log())).sum()


@each_task
@each_fusion
@pytest.mark.parametrize("mode", ["paper", "mse", "kl"])
@pytest.mark.parametrize("form", [Emoe, EmoePaper])
def test_the_weighted_unimodal_features_teach_the_fused_ones(
    task: str, fusion: str, mode: str, form: type[Mixture]
) -> None:
    net, data = mixture(task, form, fusion=fusion, distillation=mode), batch(task, PRESENT)
    output = leaves(net(data))
    pairs = [student_and_teacher(net, output, row) for row in range(5)]
    expected = torch.stack([distance(student, teacher, mode) for student, teacher in pairs]).mean()
    term = net.loss(output, data)["distillation"]
    assert term.item() == pytest.approx(expected.item(), rel=1e-4)
    term.backward()
    taught = output.logits if mode == "kl" and task == "classification" else output.features["fused_head"]
    assert taught.grad is not None and taught.grad.abs().sum() > 0
    others = [output.logits, output.weights, *output.unimodal.values(), *output.features.values()]
    assert all(one.grad is None for one in others if one is not taught)


@each_task
@pytest.mark.parametrize("form", [Emoe, EmoePaper])
def test_the_total_weighs_every_term(task: str, form: type[Mixture]) -> None:
    weights = {"unimodal": 0.7, "lambda1": 0.3, "entropy": 0.6, "alpha": 0.8, "lambda2": 0.9, "label_smoothing": 0.2}
    net, data = mixture(task, form, **weights), batch(task, PRESENT)
    output = net(data)
    terms = net.loss(output, data)
    assert set(terms) == {"task", "unimodal", "entropy", "similarity", "distillation", "total"}
    router = 0.6 * terms["entropy"] + 0.8 * terms["similarity"]
    total = terms["task"] + 0.7 * terms["unimodal"] + 0.3 * router + 0.9 * terms["distillation"]
    assert terms["total"].item() == pytest.approx(total.item(), rel=1e-5)
    assert data.labels is not None and data.weights is not None

    def cost(logits: Tensor, row: int) -> Tensor:
        assert data.labels is not None
        if task == "regression":
            return (logits[0] - data.labels[row]).abs()
        target = torch.full((4,), 0.2 / 4)
        target[data.labels[row]] += 0.8
        return -(target * softmax(logits).log()).sum()

    def error(logits: Tensor, row: int) -> Tensor:
        assert data.labels is not None
        if task == "regression":
            return (logits[0] - data.labels[row]).square()
        return -softmax(logits)[data.labels[row]].log()

    fused, alone, entropies, similarities = [], [], [], []
    for row in range(5):
        there = [m for m in range(3) if PRESENT[row, m]]
        said = [output.unimodal[name][row] for name in DIMS]
        fused.append(data.weights[row] * cost(output.logits[row], row))
        alone.append(data.weights[row] * torch.stack([cost(said[m], row) for m in there]).mean())
        w = output.weights[row]
        entropies.append(len(there) * torch.stack([w[m] * w[m].log() for m in there]).sum())
        shares = torch.stack([1 / (error(said[m], row) + 0.1) for m in there])
        shares = shares / shares.sum()
        similarities.append((shares - w[there]).square().mean())
    expected = {"task": fused, "unimodal": alone, "entropy": entropies, "similarity": similarities}
    for name, rows in expected.items():
        assert terms[name].item() == pytest.approx(torch.stack(rows).mean().item(), rel=1e-4), name


@pytest.mark.parametrize("form", [Emoe, EmoePaper])
def test_the_printed_forms_of_equations_5_and_6_are_options(form: type[Mixture]) -> None:
    nets = [
        mixture("regression", form, importance=i, similarity=s) for i in ("inverse", "softmax") for s in ("mean", "sum")
    ]
    data = batch("regression", PRESENT)
    output, found = nets[0](data), []
    assert data.labels is not None
    errors = torch.stack([(output.unimodal[name][:, 0] - data.labels).square() for name in DIMS], dim=1)
    inverse = torch.where(PRESENT, 1 / (errors + 0.1), 0.0)
    softened = torch.where(PRESENT, 1 / (errors + 1e-8), -torch.inf).softmax(1)
    for share in (inverse / inverse.sum(1, keepdim=True), softened):
        gaps = torch.where(PRESENT, share - output.weights, 0.0).square().sum(1)
        found += [(gaps / PRESENT.sum(1)).mean().item(), gaps.mean().item()]
    assert [net.loss(output, data)["similarity"].item() for net in nets] == pytest.approx(found, rel=1e-4)


@pytest.mark.parametrize("form", [Emoe, EmoePaper])
def test_what_the_loss_reads_is_in_full_precision(form: type[Mixture]) -> None:
    net, data = mixture("regression", form, distillation="paper"), batch("regression")
    with torch.autocast("cpu", torch.bfloat16):
        output = net(data)
    assert {one.dtype for one in (output.logits, output.weights, *output.unimodal.values())} == {torch.float32}
    halves = replace(output, features={name: one.bfloat16() for name, one in output.features.items()})
    floats = replace(halves, features={name: one.float() for name, one in halves.features.items()})
    terms, expected = net.loss(halves, data), net.loss(floats, data)
    assert terms["total"].dtype == torch.float32 and torch.equal(terms["distillation"], expected["distillation"])


class TestLossesOfHandCheckedNumbers:
    """With a modality missing, where each still has a value that a pencil finds."""

    present = torch.tensor([[True, False, True]])

    def test_importance(self) -> None:
        share = losses.importance(torch.tensor([[0.4, 5.0, 0.9]]), self.present)
        assert share[0].tolist() == pytest.approx([2 / 3, 0, 1 / 3])
        assert losses.importance(torch.ones(1, 3), ~torch.ones(1, 3, dtype=torch.bool)).tolist() == [[0, 0, 0]]

    def test_importance_costs(self) -> None:
        costs = losses.importance_costs(torch.tensor([[3.0], [-1.0]]), torch.tensor([1.0, 1.0]), "regression")
        assert costs.tolist() == [4, 4]
        logits = torch.tensor([[0.0, math.log(3)]])
        assert losses.importance_costs(logits, torch.tensor([0]), "classification").item() == pytest.approx(math.log(4))

    def test_unimodal(self) -> None:
        costs = [torch.tensor([value, 2 * value, 3 * value]) for value in (1.0, 5.0, 3.0)]
        present = torch.cat([self.present, torch.tensor([[False] * 3, [False, True, False]])])
        assert losses.unimodal(costs, present).item() == pytest.approx((2 + 0 + 15) / 3)
        weights = torch.tensor([3.0, 7.0, 2.0])
        assert losses.unimodal(costs, present, weights).item() == pytest.approx((6 + 0 + 30) / 3)

    def test_similarity_and_entropy(self) -> None:
        weights, share = torch.tensor([[0.5, 0.3, 0.5]] * 2), torch.tensor([[2 / 3, 0.9, 1 / 3]] * 2)
        present = torch.cat([self.present, torch.tensor([[False, False, True]])])
        assert losses.similarity(weights, share, present).item() == pytest.approx(1 / 36 / 2)
        assert losses.entropy(weights, present).item() == pytest.approx(2 * math.log(0.5) / 2)
        sure = losses.entropy(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[True, True, False]]))
        assert sure.item() == 0
        pair = torch.tensor([[True, True, False]])
        assert losses.entropy(torch.tensor([[0.5, 0.5, 0.0]]), pair).item() == pytest.approx(-2 * math.log(2))
        assert losses.similarity(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]]), pair).item() == 1

    @pytest.mark.parametrize("form", ["mean", "sum"])
    def test_a_row_of_nothing_sends_no_gradient_to_the_router(self, form: Any) -> None:
        weights = torch.zeros(2, 3, requires_grad=True)
        present = torch.cat([self.present, ~torch.ones(1, 3, dtype=torch.bool)])
        total = losses.similarity(weights, torch.ones(2, 3), present, form) + losses.entropy(weights, present)
        total.backward()
        assert weights.grad is not None and torch.isfinite(weights.grad).all()
        assert weights.grad[0].tolist()[1] == 0 and weights.grad[1].tolist() == [0, 0, 0]

    def test_distillation(self) -> None:
        student, teacher = torch.tensor([[0.0, 0.0], [1.0, 3.0]]), torch.tensor([[0.0, math.log(9)], [1.0, 3.0]])
        p = torch.tensor([0.25, 0.75])  # at temperature 2
        divergence = (p * (p / 0.5).log()).sum().item()
        assert losses.distillation(student, teacher, "kl").item() == pytest.approx(4 * divergence / 2)
        at_one = 0.1 * math.log(0.2) + 0.9 * math.log(1.8)
        assert losses.distillation(student, teacher, "kl", 1.0).item() == pytest.approx(at_one / 2)
        assert losses.distillation(student, teacher, "mse").item() == pytest.approx(math.log(9) ** 2 / 4)
        assert losses.distillation(student, teacher, "paper").item() == pytest.approx(2 * 0.4**2 / 4)


def test_a_head_drops_inside_and_adds_what_it_was_given() -> None:
    torch.manual_seed(0)
    head, f = Head(6, 2, 0.999), torch.randn(4, 6)
    p, logits = head.train()(f)
    assert torch.allclose(p, f + head.second.bias, atol=1e-6) and torch.allclose(logits, linear(head.readout, p))


# ----------------------------------------------------------------------------------------------- EMOE, the paper's form


@each_fusion
@pytest.mark.parametrize("encoders", ["shared", "separate"])
def test_the_paper_form_by_hand(fusion: Any, encoders: Any) -> None:
    config = replace(
        PAPER, fusion=fusion, encoders=encoders, temperature=2.0, kernel={"text": 3, "face": 1, "voice": 2}
    )
    net = stirred(EmoePaper(shape("regression"), config))
    assert isinstance(net, EmoePaper)
    data = batch("regression", PRESENT)
    data.features["voice"][0, 0, 1] = torch.nan  # not measured: 0
    output = net(data)
    for row in range(5):
        laid = []
        for column, name in enumerate(DIMS):
            x = torch.zeros(6, DIMS[name])
            length = int(data.lengths[row, column])
            if PRESENT[row, column]:
                x[:length] = data.features[name][row, :length].nan_to_num()
            laid.append(x)
        z = linear(net.router.hidden, torch.cat(laid, dim=1).flatten())
        scores = linear(net.router.gate, (z / z.norm()).clamp(min=0)) / 2.0
        w = torch.where(PRESENT[row], scores.exp(), 0.0)
        w = w / w.sum()
        assert torch.allclose(output.weights[row], w, atol=1e-5)
        parts = []
        for column, name in enumerate(DIMS):
            branch = net.branches[name]
            encoder = net.encoders["shared" if encoders == "shared" else name]
            steps = convolved(laid[column], branch.convolution.weight, 0) @ encoder.weight[:, :, 0].T  # type: ignore[union-attr, arg-type, index, operator]
            f = branch.transformer(steps.unsqueeze(0))[0, -1]  # type: ignore[union-attr, operator]
            p, logits = head_of(branch.head, f)  # type: ignore[union-attr]
            there = PRESENT[row, column].float()
            assert torch.allclose(output.features["f"][row, column], there * f, atol=1e-5)
            assert torch.allclose(output.features["p"][row, column], there * p, atol=1e-5)
            assert torch.allclose(output.unimodal[name][row], there * logits, atol=1e-5)
            parts.append(w[column] * there * f)
        fused = parts[0] + parts[1] + parts[2] if fusion == "sum" else PRESENT[row].sum() * torch.cat(parts)
        assert torch.allclose(output.features["fused"][row], fused, atol=1e-5)
        assert torch.allclose(output.logits[row], head_of(net.head, fused)[1], atol=1e-5)


# ----------------------------------------------------------------------------------------------------------------- EGMF


def normed(layer: Any, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled: Tensor = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.weight + layer.bias
    return scaled


def attended(net: Any, x: Tensor, y: Tensor) -> Tensor:
    """X + MHA(q=LN(x), kv=LN(y)) for one utterance without padding, two heads."""
    width = x.shape[1]
    weights, biases = net.attention.in_proj_weight.chunk(3), net.attention.in_proj_bias.chunk(3)
    query, key = normed(net.query_norm, x), normed(net.key_norm, y)
    q, k, v = (one @ w.T + b for one, w, b in zip((query, key, key), weights, biases, strict=True))
    heads = []
    for part in (slice(0, width // 2), slice(width // 2, width)):
        shares = (q[:, part] @ k[:, part].T / math.sqrt(width // 2)).softmax(1)
        heads.append(shares @ v[:, part])
    return x + linear(net.attention.out_proj, torch.cat(heads, dim=1))


def fusion_of(rows: int = 3) -> tuple[CrossModalFusion, Steps, Steps]:
    torch.manual_seed(0)
    net = stirred(CrossModalFusion(6, 8, 2, 0.0))
    assert isinstance(net, CrossModalFusion)
    text = Steps(torch.randn(rows, 4, 6), torch.arange(4) < torch.tensor([[4], [2], [0]]))
    signals = Steps(torch.randn(rows, 5, 8), torch.arange(5) < torch.tensor([[3], [5], [1]]))
    return net, text, signals


def test_words_and_signals_look_at_each_other() -> None:
    net, text, signals = fusion_of()
    fused = net(text, signals)
    for row in range(3):
        words = normed(net.norm, linear(net.project, text.x[row][text.valid[row]]))
        words = words if len(words) else net.unsaid.unsqueeze(0)
        seen = signals.x[row][signals.valid[row]]
        u, v = attended(net.words_look, words, seen), attended(net.signals_look, seen, words)
        expected = linear(net.pool, torch.cat([u.mean(0), v.mean(0)]))
        assert torch.allclose(fused[row], expected, atol=1e-5)


def test_the_mean_of_no_steps_is_zero() -> None:
    steps = Steps(torch.ones(2, 3, 4), torch.tensor([[False] * 3, [True, True, False]]))
    assert steps.mean().tolist() == [[0.0] * 4, [1.0] * 4]


def test_cross_attention_is_residual() -> None:
    torch.manual_seed(0)
    net = stirred(CrossAttention(8, 2, 0.0))
    x, y = torch.randn(1, 3, 8), torch.randn(1, 2, 8)
    result = net(Steps(x, torch.ones(1, 3, dtype=torch.bool)), Steps(y, torch.ones(1, 2, dtype=torch.bool)))
    assert torch.allclose(result.x[0], attended(net, x[0], y[0]), atol=1e-5) and result.valid.all()


def test_a_sequence_is_standardised_projected_read_both_ways_and_marked() -> None:
    torch.manual_seed(0)
    net = stirred(SequenceEncoder(3, 4, 0.0, 0.0))
    assert isinstance(net, SequenceEncoder)
    x, lengths = torch.randn(2, 5, 3), torch.tensor([3, 5])
    states = net(x, lengths)
    for row, length in enumerate(lengths.tolist()):
        standard = (x[row, :length] - net.standardise.mean) * net.standardise.scale
        expected = net.lstm(linear(net.project, standard).unsqueeze(0))[0][0] + net.modality
        assert torch.allclose(states[row, :length], expected, atol=1e-6)


def test_face_and_voice_stand_one_behind_the_other() -> None:
    torch.manual_seed(0)
    net = stirred(AudioVisualEncoder({"face": 3, "voice": 2}, 4, 0.0, {"face": 0.0, "voice": 0.0}))
    assert isinstance(net, AudioVisualEncoder)
    features = {"face": torch.randn(3, 4, 3), "voice": torch.randn(3, 5, 2)}
    lengths = {"face": torch.tensor([2, 0, 3]), "voice": torch.tensor([4, 5, 0])}
    steps = net(features, lengths)
    assert steps.x.shape == (3, 3 + 5, 4)
    assert steps.valid.int().tolist() == [[1, 1, 0, 1, 1, 1, 1, 0], [0, 0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0, 0]]
    for name, begin in (("face", 0), ("voice", 3)):
        for row, length in enumerate(lengths[name].tolist()):
            if length:
                alone = net.encoders[name](features[name][row : row + 1, :length], torch.tensor([length]))[0]
                assert torch.allclose(steps.x[row, begin : begin + length], alone, atol=1e-6)
    nobody = net(features, {"face": torch.zeros(3, dtype=torch.long), "voice": lengths["voice"]})
    assert torch.equal(nobody.x, steps.x[:, 3:]) and torch.equal(nobody.valid, steps.valid[:, 3:])
    assert nobody.valid.dtype == steps.valid.dtype == torch.bool
    one = net(features, {"face": torch.tensor([0, 3, 0]), "voice": lengths["voice"]})
    assert one.valid[:, :3].tolist() == [[False] * 3, [True] * 3, [False] * 3] and (one.x[::2, :3] == 0).all()


def mlp(net: Any, x: Tensor) -> Tensor:
    hidden = linear(net[0], x)
    gelu = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
    return linear(net[2], gelu)


def test_the_second_gate_hears_the_first() -> None:
    torch.manual_seed(0)
    net = stirred(Gate(24, 3))
    assert isinstance(net, Gate)
    f, present = torch.randn(4, 24), torch.tensor([[True, False, True]] * 2 + [[True, True, True]] * 2)
    w, alpha = net(f, present)
    bits = present.float()
    first = mlp(net.first, torch.cat([f, bits], dim=1)).softmax(1)
    second = mlp(net.second, torch.cat([f, first, bits], dim=1)).softmax(1)
    assert torch.allclose(w, first, atol=1e-6) and torch.allclose(alpha, second, atol=1e-6)
    assert net.first[0].out_features == net.second[0].out_features == 6
    with torch.no_grad():
        net.first[2].bias.add_(torch.tensor([2.0, 0.0, -2.0]))  # type: ignore[union-attr, operator, arg-type]
    assert not torch.allclose(net(f, present)[1], alpha)


def test_experts_by_hand() -> None:
    torch.manual_seed(0)
    net = stirred(Experts(16, 3))
    assert isinstance(net, Experts)
    f, present = torch.randn(3, 16), torch.ones(3, 3, dtype=torch.bool)
    mixed = net(f, present)
    activations = (
        lambda x: x * torch.tanh((1 + x.exp()).log()),
        lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))),
        lambda x: x / (1 + (-x).exp()),
    )
    assert [expert[0].out_features for expert in Experts(64, 1).experts] == [8, 16, 32]  # type: ignore[index]
    total = f
    for k, (expert, act) in enumerate(zip(net.experts, activations, strict=True)):
        said = linear(expert[2], act(linear(expert[0], f)))  # type: ignore[index]
        assert torch.allclose(mixed.experts[:, k], said, atol=1e-5)
        total = total + mixed.alpha[:, k : k + 1] * said
    assert torch.equal(mixed.f, f) and torch.allclose(mixed.enhanced, normed(net.norm, total), atol=1e-5)
    w, alpha = net.gate(f, present)
    assert torch.equal(mixed.gate, w) and torch.equal(mixed.alpha, alpha)


def test_settings_of_the_gate_reach_it_and_no_checkpoint() -> None:
    experts = Experts(16, 3, "first", (2,))
    assert experts.gate.stages == "first" and experts.gate.open.tolist() == [True, False, True]
    assert not any(name.endswith("open") for name in experts.state_dict())


def test_gates_and_routers_decide_in_full_precision() -> None:
    present, x = torch.ones(2, 3, dtype=torch.bool), torch.randn(2, 3, 4)
    experts, router = Experts(16, 3), Router(3, 4, 1, 6, 0.5)
    flat = FlatRouter({"text": 4}, {"text": 3}, 0.5)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = experts(torch.randn(2, 16), present)
        weights = router(x, present), router(x.bfloat16(), present), flat({"text": x}, present[:, :1])
    assert {one.dtype for one in (mixed.gate, mixed.alpha, *weights)} == {torch.float32}
    assert torch.allclose(mixed.alpha.sum(1), torch.ones(2), atol=1e-6)


def test_pseudo_tokens_by_hand() -> None:
    torch.manual_seed(0)
    f = torch.randn(3, 8)
    plain, affine = stirred(PseudoTokens(8, 6, 4, False, 0.5)), stirred(PseudoTokens(8, 6, 4, True, 0.5))
    p = linear(plain.project, f)
    assert torch.allclose(plain(f), torch.stack([p] * 4, dim=1), atol=1e-6)
    p = linear(affine.project, f)
    tokens = [affine.spread.weight[k, 0] * p + affine.spread.bias[k] for k in range(4)]  # type: ignore[union-attr, index]
    assert torch.allclose(affine(f), torch.stack(tokens, dim=1), atol=1e-6)


def test_pseudo_tokens_begin_at_the_size_of_real_ones() -> None:
    torch.manual_seed(0)
    tokens = PseudoTokens(64, 256, 3, True, 0.5)
    assert tokens.project.weight.std().item() == pytest.approx(0.5 / 8, rel=0.05)
    assert (tokens.project.bias == 0).all() and tokens.spread is not None and (tokens.spread.bias == 0).all()
    wide = PseudoTokens(4, 4, 2000, True, 0.5).spread
    assert wide is not None
    assert wide.weight.mean().item() == pytest.approx(1, abs=0.02) and wide.weight.std().item() == pytest.approx(
        0.1, rel=0.1
    )
