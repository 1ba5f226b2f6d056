"""Every comparison model keeps the interface, never looks at what is absent, learns, and has its equations."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emopipe.errors import ConfigError, DatasetError
from emopipe.models.data.dataset import Batch, Dataset
from emopipe.models.data.mmsa import read as read_mmsa
from emopipe.models.evaluation.evaluate import evaluate
from emopipe.models.networks.comparison import self_mm
from emopipe.models.networks.comparison.common import equal_shares
from emopipe.models.networks.comparison.dmd import Dmd, GraphDistillation, margin_loss
from emopipe.models.networks.comparison.early import Lmf, LmfConfig, Tfn, TfnConfig, outer_product
from emopipe.models.networks.comparison.late import LateFusion, LateFusionConfig
from emopipe.models.networks.comparison.mfn import MemoryFusion, Mfn, MfnConfig, resampled
from emopipe.models.networks.comparison.misa import Misa, difference, moment_discrepancy
from emopipe.models.networks.comparison.mmim import RIDGE, Likelihood, Mmim, contrast, entropy
from emopipe.models.networks.comparison.mult import cross_mask
from emopipe.models.networks.comparison.self_mm import SelfMm, SelfMmConfig
from emopipe.models.networks.model import FusionModel, Output, Shape
from emopipe.models.registry import MODELS, build, configure
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.loop import train
from tests.models import mmsa_files
from tests.models.conftest import CLASSES

DIMS = {"text": 5, "face": 3, "voice": 7}
PATTERNS = [pattern for pattern in product([False, True], repeat=3) if any(pattern)]
#: Model -> options that make it small.
NAMES: dict[str, dict[str, Any]] = {
    "unimodal": {"width": 16, "layers": 1, "heads": 2, "modality": "face"},
    "late-fusion": {"width": 16, "layers": 1, "heads": 2},
    "lf-dnn": {"hidden": 8, "text_hidden": 8, "text_width": 8, "post": 16},
    "tfn": {"hidden": 4, "text_hidden": 8, "text_width": 4, "post": 16, "dropout": 0.1},
    "lmf": {"hidden": 8, "text_hidden": 8, "text_width": 8},
    "mult": {"width": 8, "heads": 2, "layers": 1, "memory_layers": 1},
    "self-mm": {"width": 16, "unimodal_width": 8, "recurrent": 8},
    "misa": {"width": 16, "heads": 2, "recurrent": 8},
    "mfn": {"text_hidden": 8, "hidden": 4, "memory": 8, "width": 16},
    "mmim": {"width": 16, "recurrent": 8, "unimodal_width": 4},
    "dmd": {"width": 8, "heads": 2, "layers": 1, "memory_layers": 1},
}
#: Models whose papers tune BERT, and a BERT for them.
WITH_BERT = ("self-mm", "mmim", "dmd")
TINY_BERT = {
    "vocab_size": 40,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
}
each_model = pytest.mark.parametrize("name", NAMES)
each_task = pytest.mark.parametrize("task", ["classification", "regression"])


def model(name: str, task: str = "classification", **options: Any) -> FusionModel:
    torch.manual_seed(0)
    shape = Shape(DIMS, 4 if task == "classification" else 1, task)  # type: ignore[arg-type]
    return build(name, shape, {**NAMES[name], **options}).eval()


def batch(rows: int = 6, steps: int = 4, present: torch.Tensor | None = None, task: str = "classification") -> Batch:
    torch.manual_seed(1)
    features = {name: torch.randn(rows, steps, dim) for name, dim in DIMS.items()}
    lengths = torch.randint(1, steps + 1, (rows, 3))
    there = torch.ones(rows, 3, dtype=torch.bool) if present is None else present
    labels = torch.arange(rows) % 4 if task == "classification" else torch.linspace(-2, 2, rows)
    return Batch(tuple(DIMS), features, lengths, there, torch.ones(rows, 3), labels, rows=torch.arange(rows))


def everything(output: Output, present: torch.Tensor) -> list[torch.Tensor]:
    """All that a model says, the unimodal predictions where they mean something."""
    alone = [logits[present[:, tuple(DIMS).index(name)]] for name, logits in output.unimodal.items()]
    return [output.logits, output.weights, output.features["fused"], *alone]


def test_all_baselines_are_tested() -> None:
    assert set(NAMES) == {name for name, entry in MODELS.items() if "comparison" in entry.model.__module__}


@each_model
@each_task
def test_shapes(name: str, task: str) -> None:
    output = model(name, task)(batch())
    outputs = 4 if task == "classification" else 1
    assert output.logits.shape == (6, outputs) and output.logits.dtype == torch.float32
    assert output.weights.shape == (6, 3) and output.weights.sum(1).tolist() == pytest.approx([1.0] * 6)
    assert output.features["fused"].ndim == 2 and len(output.features["fused"]) == 6
    assert all(logits.shape == (6, outputs) for logits in output.unimodal.values())


@each_model
@each_task
@pytest.mark.parametrize("pattern", [*PATTERNS, None])
def test_every_subset_trains_steps_without_nan(name: str, task: str, pattern: tuple[bool, ...] | None) -> None:
    net = model(name, task).train()
    data = batch(7, present=torch.tensor([pattern] * 7 if pattern else PATTERNS), task=task)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01)
    for _ in range(3):
        optimiser.zero_grad()
        terms = net.loss(net(data), data)
        if terms["total"].requires_grad:  # a single modality that no utterance has leaves nothing to learn
            terms["total"].backward()
        optimiser.step()
        assert all(torch.isfinite(term) for term in terms.values())
    assert all(torch.isfinite(parameter).all() for parameter in net.parameters())


@each_model
@each_task
def test_content_of_an_absent_modality_changes_no_bit(name: str, task: str) -> None:
    net, one = model(name, task), batch(7, present=torch.tensor(PATTERNS), task=task)
    gone = ~one.present
    features = {
        modality: torch.where(gone[:, column].view(-1, 1, 1), torch.nan, steps)
        for column, (modality, steps) in enumerate(one.features.items())
    }
    two = replace(one, features=features, lengths=one.lengths + 3 * gone)
    with torch.no_grad():
        pairs = zip(everything(net(one), one.present), everything(net(two), two.present), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
        assert net.loss(net(one), one)["total"] == net.loss(net(two), two)["total"]


@each_model
@pytest.mark.parametrize("pattern", PATTERNS)
def test_weights_are_zero_where_absent(name: str, pattern: tuple[bool, ...]) -> None:
    data = batch(present=torch.tensor([pattern] * 6))
    weights = model(name)(data).weights
    assert (weights[~data.present] == 0).all()
    if name != "unimodal":
        assert weights.sum(1).tolist() == pytest.approx([1.0] * 6)


@each_model
def test_nothing_present_gives_finite_logits_and_no_weights(name: str) -> None:
    output = model(name)(batch(2, present=torch.zeros(2, 3, dtype=torch.bool)))
    assert torch.isfinite(output.logits).all() and (output.weights == 0).all()


@each_model
def test_padding_does_not_matter(name: str) -> None:
    net, short = model(name), batch()
    longer = {m: torch.cat([x, 9 * torch.ones(6, 5, x.shape[2])], dim=1) for m, x in short.features.items()}
    alone = {m: x[:1, : int(short.lengths[0].max())] for m, x in longer.items()}
    with torch.no_grad():
        one, two = net(short), net(replace(short, features=longer))
        single = net(Batch(short.modalities, alone, short.lengths[:1], short.present[:1], short.quality[:1]))
    assert torch.equal(one.logits, two.logits)
    assert torch.allclose(one.logits[:1], single.logits, atol=1e-5)


@each_model
def test_two_modalities_are_enough(name: str) -> None:
    shape = Shape({"face": 3, "voice": 7}, 4, "classification")
    net, data = build(name, shape, NAMES[name]), batch()
    pair = Batch(("face", "voice"), data.features, data.lengths[:, 1:], data.present[:, 1:], data.quality[:, 1:])
    assert torch.isfinite(net(pair).logits).all()


@each_model
def test_it_learns(name: str, shared: Dataset) -> None:
    config = TrainConfig(model=name, options=NAMES[name], epochs=8, batch_size=16, lr=5e-3, modality_dropout=0.1)
    found = evaluate(train(shared, config).predictor, shared, "test", ["face"] if name == "unimodal" else None)
    assert found.metrics["uar"] > 1.5 / len(CLASSES)


@each_model
def test_it_learns_values(name: str, shared: Dataset) -> None:
    config = TrainConfig(
        model=name, options=NAMES[name], label="sentiment", epochs=12, batch_size=16, lr=5e-3, modality_dropout=0.1
    )
    found = evaluate(train(shared, config).predictor, shared, "test", ["face"] if name == "unimodal" else None)
    truth, test = shared.labels("sentiment"), shared.split == "test"
    assert found.metrics["mae"] < 0.95 * np.abs(truth[test] - np.median(truth[~test])).mean()


@each_model
@each_task
def test_the_gradient_reaches_every_weight(name: str, task: str) -> None:
    net = model(name, task, dropout=0.0) if "dropout" in configure(name).__dataclass_fields__ else model(name, task)
    data = batch(14, present=torch.tensor(PATTERNS * 2), task=task)
    net.train()
    for _ in range(2 if name == "self-mm" else 1):  # its own labels first differ when rows are seen again
        net.loss(net(data), data)
    net.zero_grad()
    net.loss(net(data), data)["total"].backward()
    out_of_use = {"unimodal": ("branches.text", "branches.voice"), "late-fusion": ()}.get(name, ())
    unreached = {one for one, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert not {one for one in unreached if not one.startswith(tuple(out_of_use) or "-")}


@pytest.mark.parametrize("name", ["mfn", "mmim", "dmd"])
def test_models_run_at_the_sizes_of_mosi(name: str) -> None:
    shape = Shape({"text": 768, "face": 20, "voice": 5}, 1, "regression")
    published = {"mfn": {}, "mmim": {}, "dmd": {"width": 50, "heads": 10, "layers": 4, "memory_layers": 4, "kernel": 5}}
    torch.manual_seed(0)
    net = build(name, shape, published[name])
    features = {one: torch.randn(4, 50, dim) for one, dim in shape.dims.items()}
    lengths = torch.full((4, 3), 50)
    labels = torch.tensor([-2.0, -1.0, 1.0, 2.0])
    data = Batch(shape.modalities, features, lengths, lengths > 0, torch.ones(4, 3), labels)
    net.loss(net(data), data)["total"].backward()
    size = sum(parameter.numel() for parameter in net.parameters())
    assert 0.1e6 < size < 6e6
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


# ----------------------------------------------------------------------------------------------------------- with BERT


def with_tokens(data: Batch) -> Batch:
    torch.manual_seed(2)
    return replace(data, tokens=torch.randint(1, 40, data.features["text"].shape[:2]))


@pytest.mark.parametrize("name", WITH_BERT)
def test_bert_reads_the_words_of_those_who_said_some(name: str) -> None:
    net = model(name, "regression", text_encoder=True, bert=TINY_BERT)
    data = with_tokens(batch(7, present=torch.tensor(PATTERNS), task="regression"))
    assert data.tokens is not None
    net.loss(net(data), data)["total"].backward()
    embeddings = net.get_submodule("text.bert.embeddings.word_embeddings").weight.grad
    assert embeddings is not None and embeddings.abs().sum() > 0
    silent = replace(data, tokens=torch.where(data.present[:, :1], data.tokens, 7))
    other = replace(data, features={**data.features, "text": torch.full_like(data.features["text"], torch.nan)})
    beyond = torch.arange(data.tokens.shape[1]) >= data.lengths[:, :1]
    with torch.no_grad():
        for same in (silent, other, replace(data, tokens=data.tokens.masked_fill(beyond, 3))):
            assert torch.equal(net(data).logits, net(same).logits)
        assert not torch.equal(net(data).logits, net(replace(data, tokens=data.tokens.flip(0))).logits)
    with pytest.raises(DatasetError, match="token ids"):
        net(batch())


def test_self_mm_reads_the_first_state_of_bert() -> None:
    net, data = model("self-mm", text_encoder=True, bert=TINY_BERT), with_tokens(batch())
    assert isinstance(net, SelfMm) and net.text is not None and data.tokens is not None
    ids = data.tokens.masked_fill(torch.arange(4) >= data.lengths[:, :1], 0)
    with torch.no_grad():
        assert torch.allclose(net.summary(data), net.text(ids)[:, 0], atol=1e-6)
        first, _ = model("self-mm").steps("text", data)  # type: ignore[operator]
        mean = model("self-mm").summary(data)  # type: ignore[operator]
    assert torch.allclose(mean, first.sum(1) / data.lengths[:, :1], atol=1e-6)


@pytest.mark.parametrize("name", WITH_BERT)
def test_a_model_with_bert_trains_on_a_file_of_mmsa(name: str, tmp_path: Path) -> None:
    data = read_mmsa(mmsa_files.write(tmp_path / "a.pkl", mmsa_files.content()))
    options = {
        **NAMES[name],
        "text_encoder": True,
        "text_weights": "random",
        "bert": {**TINY_BERT, "vocab_size": 30522},
    }
    options["bert"]["max_position_embeddings"] = 64
    trained = train(data, TrainConfig(model=name, options=options, label="sentiment", epochs=1, batch_size=8))
    assert np.isfinite(trained.history[0]["train"]["total"])
    options["bert"]["vocab_size"] = 2
    with pytest.raises(DatasetError, match="beyond the 2"):
        train(data, TrainConfig(model=name, options=options, label="sentiment", epochs=1))


# ---------------------------------------------------------------------------------------------------------------- MFN


def test_sequences_are_averaged_over_the_steps_of_another() -> None:
    x = torch.arange(1.0, 7.0).view(1, 6, 1).repeat(4, 1, 1)
    lengths, targets = torch.tensor([6, 6, 2, 5]), torch.tensor([6, 3, 4, 2])
    steps = resampled(x, lengths, targets).squeeze(2)
    assert steps[0].tolist() == [1, 2, 3, 4, 5, 6]
    assert steps[1, :3].tolist() == [1.5, 3.5, 5.5]
    assert steps[2, :4].tolist() == [1, 1, 2, 2]
    assert steps[3, :2].tolist() == [2, 4]  # steps 1 to 3 and 3 to 5: the middle one lies in both


def test_memory_fusion_has_its_equations() -> None:
    torch.manual_seed(0)
    fusion = MemoryFusion(3, MfnConfig(memory=2, width=4)).eval()
    before, now, u = torch.randn(2, 3), torch.randn(2, 3), torch.randn(2, 2)

    def network(net: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        w = dict(net.named_parameters())
        hidden = (x @ w["first.weight"].T + w["first.bias"]).clamp(min=0)
        return hidden @ w["second.weight"].T + w["second.bias"]

    pair = torch.cat([before, now], dim=1)
    scores = network(fusion.attention, pair).exp()
    attended = scores / scores.sum(1, keepdim=True) * pair
    proposed = network(fusion.proposal, attended)
    gates = [1 / (1 + (-network(net, attended)).exp()) for net in (fusion.retain, fusion.update)]
    expected = gates[0] * u + gates[1] * torch.tanh(proposed)
    assert torch.allclose(fusion(before, now, u), expected, atol=1e-6)


def test_mfn_goes_step_by_step_to_the_last_word() -> None:
    net = Mfn(Shape(DIMS, 1, "regression"), MfnConfig(text_hidden=3, hidden=2, memory=4, width=5)).eval()
    data = batch(2, 3, task="regression")
    data = replace(data, lengths=torch.tensor([[3, 3, 3], [2, 2, 2]]))
    fused = net(data).features["fused"]
    for row, steps in enumerate((3, 2)):
        states = {name: (torch.zeros(1, c.hidden_size), torch.zeros(1, c.hidden_size)) for name, c in net.cells.items()}
        u = torch.zeros(1, 4)
        for t in range(steps):
            before = torch.cat([c for _, c in states.values()], dim=1)
            for name, cell in net.cells.items():
                states[name] = cell(net.standardise[name](data.features[name][row : row + 1, t]), states[name])
            u = net.fusion(before, torch.cat([c for _, c in states.values()], dim=1), u)
        expected = torch.cat([*(h for h, _ in states.values()), u], dim=1)
        assert torch.allclose(fused[row : row + 1], expected, atol=1e-6)


def test_mfn_moves_in_the_steps_of_the_first_modality_that_is_there() -> None:
    net = Mfn(Shape(DIMS, 1, "regression"), MfnConfig(text_hidden=3, hidden=2, steps=3)).eval()
    data = batch(3, 6, torch.tensor([[True, True, True], [False, True, True], [False, False, True]]))
    data = replace(data, lengths=torch.tensor([[2, 6, 5], [2, 4, 6], [2, 4, 1]]))
    _, lengths = net._aligned(data)
    assert lengths.tolist() == [2, 3, 1]


# --------------------------------------------------------------------------------------------------------------- MMIM


def test_entropy_of_a_mixture_of_gaussians() -> None:
    one, two = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 2.0], [0.0, -2.0]]), torch.randn(5, 2)
    groups = torch.tensor([1] * 4 + [0] * 5 + [7])
    # Variances of the first group: (1 + 1) / 4 and (4 + 4) / 4, without covariance.
    first = np.log((0.5 + RIDGE) * (2.0 + RIDGE))
    second = np.linalg.slogdet(np.cov(two.T.numpy(), bias=True) + RIDGE * np.eye(2))[1]
    value = entropy(torch.cat([one, two, torch.ones(1, 2)]), groups)
    assert value.item() == pytest.approx((first + second) / 4, rel=1e-4)
    assert entropy(torch.ones(1, 2), torch.zeros(1)).item() == 0


def test_contrast_is_lower_where_each_predicts_itself() -> None:
    z, h = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[3.0, 0.0], [0.0, 0.5]])
    # Scores of 1 for itself and of 0 for the other.
    assert contrast(z, h).item() == pytest.approx(np.log(1 + np.exp(-1)))
    assert contrast(z, h.flip(0)).item() == pytest.approx(np.log(1 + np.exp(1)))


def test_contrast_chooses_among_representations_not_among_predictions() -> None:
    torch.manual_seed(0)
    z, h = torch.randn(4, 3), torch.randn(4, 3)
    unit = [x / x.norm(dim=1, keepdim=True) for x in (z, h)]
    terms = [(unit[0][i] @ unit[1][i]) - (unit[1] @ unit[0][i]).exp().sum().log() for i in range(4)]
    assert contrast(z, h).item() == pytest.approx(-torch.stack(terms).mean().item(), rel=1e-5)


def test_likelihood_is_that_of_a_gaussian() -> None:
    torch.manual_seed(0)
    q, x, y = Likelihood(3, 2), torch.randn(4, 3), torch.randn(4, 2)
    normal = torch.distributions.Normal(q.mean(x), q.log_variance(x).exp().sqrt())
    assert torch.allclose(q(x, y), normal.log_prob(y).sum(1), atol=1e-5)
    assert torch.equal(q(x, y), q.fixed(x, y))


def test_mmim_terms_as_their_equations() -> None:
    net, data = model("mmim", "regression", dropout=0.0, history=0), batch(8, task="regression")
    assert isinstance(net, Mmim)
    output = net(data)
    terms, f = net.loss(output, data), output.features
    positive = (torch.linspace(-2, 2, 8) > 0).long()
    q = {name: net.likelihoods[name](f["text"], f[name]).mean() for name in ("face", "voice")}
    assert terms["likelihood"].item() == pytest.approx(-sum(q.values()).item(), rel=1e-5)  # type: ignore[union-attr]
    h = sum(entropy(f[name], positive) for name in ("face", "voice"))
    assert terms["bound"].item() == pytest.approx((terms["likelihood"] - h).item(), rel=1e-5)
    nce = sum(contrast(net.predictors[name](f["fused"]), f[name]) for name in DIMS)
    assert terms["contrast"].item() == pytest.approx(nce.item(), rel=1e-5)  # type: ignore[union-attr]
    weighed = terms["task"] + 0.1 * terms["contrast"] + 0.1 * terms["bound"] + terms["likelihood"]
    assert terms["total"].item() == pytest.approx(weighed.item(), rel=1e-5)


def test_mmim_stages_do_not_reach_into_each_other() -> None:
    net, data = model("mmim", "regression").train(), batch(8, task="regression")
    net.loss(net(data), data)["likelihood"].backward()
    assert {name.split(".")[0] for name, p in net.named_parameters() if p.grad is not None} == {"likelihoods"}
    net.zero_grad()
    net.loss(net(data), data)["bound"].backward()
    reached = {name.split(".")[0] for name, p in net.named_parameters() if p.grad is not None}
    assert "likelihoods" not in reached and "encoders" in reached


def test_mmim_remembers_representations_in_training_only() -> None:
    net, data = model("mmim", "regression", history=10), batch(8, task="regression")
    net.eval().loss(net(data), data)
    assert not net.training_state()
    net.train()
    for _ in range(2):
        net.loss(net(data), data)
    state = net.training_state()
    assert state["face.values"].shape == (10, 4) and not state["face.values"].requires_grad
    assert state["face.groups"].tolist() == [1, 1] + [0] * 4 + [1] * 4
    other = model("mmim", "regression")
    other.load_training_state(state)
    assert all(torch.equal(other.training_state()[name], table) for name, table in state.items())


# ---------------------------------------------------------------------------------------------------------------- DMD


def test_margin_loss_of_hand_checked_numbers() -> None:
    # Two utterances of two classes and two modalities; the last has only the first modality.
    x = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[1.0, 0.0], [9.0, 9.0]]])
    present = torch.tensor([[True, True], [True, False]])
    # i = (0, first): j = (0, second) with cosine 0, k = (1, first) with cosine 1: 0.2 - 0 + 1. No other i has both.
    assert margin_loss(x, torch.tensor([0, 1]), present, 0.2).item() == pytest.approx(1.2)
    assert margin_loss(x, torch.tensor([0, 0]), present, 0.2).item() == 0
    apart = torch.tensor([[[1.0, 0.0], [3.0, 0.0]], [[-1.0, 0.0], [9.0, 9.0]]])
    assert margin_loss(apart, torch.tensor([0, 1]), present, 0.2).item() == 0


def test_margin_loss_is_the_mean_over_all_triples() -> None:
    torch.manual_seed(0)
    x, groups, present = torch.randn(4, 3, 2), torch.tensor([0, 1, 0, 1]), torch.ones(4, 3, dtype=torch.bool)
    flat, classes, kinds = x.flatten(0, 1), groups.repeat_interleave(3), torch.arange(3).repeat(4)
    cos = torch.nn.functional.cosine_similarity(flat.unsqueeze(1), flat.unsqueeze(0), dim=2)
    triples = [
        max(0.0, (0.3 - cos[i, j] + cos[i, k]).item())
        for i, j, k in product(range(12), repeat=3)
        if kinds[i] != kinds[j] and kinds[i] == kinds[k] and classes[i] == classes[j] and classes[i] != classes[k]
    ]
    assert margin_loss(x, groups, present, 0.3).item() == pytest.approx(np.mean(triples), rel=1e-5)


def test_graph_distillation_as_its_equations() -> None:
    torch.manual_seed(0)
    unit, x = GraphDistillation(3, 2), torch.randn(2, 3, 3)
    present = torch.tensor([[True, True, True], [True, False, True]])
    logits, loss = unit(x, present)
    total = 0.0
    for row in range(2):
        there = present[row].nonzero().squeeze(1).tolist()
        for j in there:
            sources = [i for i in there if i != j]
            vertex = {i: torch.cat([unit.predict(x[row, i]), x[row, i]]) for i in there}
            scores = torch.stack([unit.edge(torch.cat([vertex[i], vertex[j]])) for i in sources])
            gaps = torch.stack([(unit.predict(x[row, i]) - unit.predict(x[row, j])).abs().mean() for i in sources])
            total += (scores.squeeze(1).softmax(0) * gaps).sum().item() / 2
    assert loss.item() == pytest.approx(total, rel=1e-5)
    assert torch.allclose(logits, unit.predict(x))
    weights = unit.weights(x, logits, present)
    assert torch.allclose(weights.sum(1), present.float()) and (weights[1, 1] == 0).all()


def test_graph_distillation_teaches_the_target_of_an_edge_alone() -> None:
    unit = GraphDistillation(2, 1)
    x = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]], requires_grad=True)
    with torch.no_grad():
        unit.predict.weight.copy_(torch.tensor([[1.0, 0.0]]))
        unit.predict.bias.zero_()
        unit.edge.weight.zero_()
    logits, loss = unit(x, torch.ones(1, 2, dtype=torch.bool))
    # Logits of 1 and 0, each the other's only source: the gap counts twice, once for each as a student.
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(2.0) and gradient.flatten().tolist() == [1.0, -1.0]


def test_dmd_terms_as_their_equations() -> None:
    net, data = model("dmd", "regression", input_dropout=0.0), batch(6, task="regression")
    assert isinstance(net, Dmd) and data.labels is not None
    output = net(data)
    terms = net.loss(output, data)
    reconstruction, cycle, orthogonality = 0.0, 0.0, 0.0
    for column, name in enumerate(DIMS):
        x, lengths = net._convolved(name, data)
        valid = torch.arange(x.shape[1]) < lengths.unsqueeze(1)
        assert torch.equal(lengths, data.lengths[:, column])
        x = x[valid]
        common, own = net.shared(x), net.private[name](x)
        rebuilt = net.decoders[name](torch.cat([common, own], dim=1))
        reconstruction += (x - rebuilt).square().mean().item()
        cycle += (own - net.private[name](rebuilt)).square().mean().item()
        orthogonality += ((common * own).sum(1) / (common.norm(dim=1) * own.norm(dim=1))).mean().item()
    assert terms["reconstruction"].item() == pytest.approx(reconstruction, rel=1e-4)
    assert terms["cycle"].item() == pytest.approx(cycle, rel=1e-4)
    assert terms["orthogonality"].item() == pytest.approx(orthogonality, rel=1e-3, abs=1e-5)
    vertices, f = output.features["vertices"].squeeze(2), output.features
    each = (vertices - data.labels.unsqueeze(1)).abs().mean(0)
    assert terms["vertices"].item() == pytest.approx((each[:3].mean() + each[3:].mean()).item(), rel=1e-5)
    margin = margin_loss(f["shared"], data.labels.round(), data.present, 0.2)
    assert terms["margin"].item() == pytest.approx(margin.item(), rel=1e-5)
    graphs = [net.homogeneous(f["shared"], data.present)[1], net.heterogeneous(f["private"], data.present)[1]]
    assert terms["distillation"].item() == pytest.approx(sum(graphs).item(), rel=1e-5)  # type: ignore[union-attr]
    decoupling = terms["reconstruction"] + terms["cycle"] + 0.1 * (terms["margin"] + terms["orthogonality"])
    total = terms["task"] + terms["vertices"] + 0.1 * decoupling + 0.05 * terms["distillation"]
    assert terms["total"].item() == pytest.approx(total.item(), rel=1e-5)


# ------------------------------------------------------------------------------------------------------- late fusion


def test_late_fusion_averages_posteriors_over_what_is_present() -> None:
    net, data = model("late-fusion"), batch(7, present=torch.tensor(PATTERNS))
    output = net(data)
    for row in range(7):
        said = [output.unimodal[m][row].softmax(0) for m, there in zip(DIMS, data.present[row], strict=True) if there]
        assert torch.allclose(output.logits[row].softmax(0), torch.stack(said).mean(0), atol=1e-6)


def test_late_fusion_may_multiply_posteriors() -> None:
    net = LateFusion(Shape(DIMS, 4, "classification"), LateFusionConfig(width=16, heads=2, average="product"))
    output = net.eval()(batch())
    each = torch.stack([logits.softmax(1) for logits in output.unimodal.values()]).prod(0)
    assert torch.allclose(output.logits.softmax(1), each / each.sum(1, keepdim=True), atol=1e-6)


def test_a_single_modality_is_to_be_named_when_there_are_several() -> None:
    with pytest.raises(ConfigError, match="modality"):
        build("unimodal", Shape(DIMS, 4, "classification"))
    assert build("unimodal", Shape({"voice": 7}, 4, "classification")) is not None
    with pytest.raises(ConfigError, match="needs 2 modalities"):
        build("mult", Shape({"voice": 7}, 4, "classification"))


def test_shares_are_equal() -> None:
    shares = equal_shares(torch.tensor([[True, True, False], [False, False, False]]))
    assert shares.tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]


# --------------------------------------------------------------------------------------------------------- TFN, LMF


def test_outer_product_has_every_product_once() -> None:
    a, b, c = torch.tensor([[2.0, 3.0]]), torch.tensor([[5.0]]), torch.tensor([[7.0]])
    expected = [1, 7, 5, 35, 2, 14, 10, 70, 3, 21, 15, 105]
    assert outer_product([a, b, c]).tolist() == [expected]


def test_tfn_of_an_absent_modality_keeps_the_products_of_the_others() -> None:
    a, none = torch.tensor([[2.0, 3.0]]), torch.zeros(1, 2)
    product_of_both = outer_product([a, none]).view(3, 3)
    assert product_of_both[:, 0].tolist() == [1, 2, 3] and (product_of_both[:, 1:] == 0).all()


def test_tfn_values_are_bounded() -> None:
    net = Tfn(Shape(DIMS, 1, "regression"), TfnConfig(hidden=4, text_width=4, limit=1.5)).eval()
    torch.nn.init.constant_(net.mlp.readout.bias, 100.0)
    assert net(batch()).logits.tolist() == [[pytest.approx(1.5)]] * 6


def test_lmf_is_a_sum_of_products_of_linear_maps() -> None:
    net = Lmf(Shape(DIMS, 4, "classification"), LmfConfig(hidden=3, text_hidden=4, text_width=2)).eval()
    torch.nn.init.normal_(net.bias)
    data = batch()
    output, vectors = net(data), net.vectors(data)
    for row in range(6):
        y = net.bias.clone()
        for r in range(3):
            term = torch.ones(4)
            for name, h in zip(DIMS, vectors, strict=True):
                term = term * (torch.cat([torch.ones(1), h[row]]) @ net.factors[name][r])
            y = y + net.mix[0, r] * term
        assert torch.allclose(output.logits[row], y, atol=1e-5)


def test_lmf_is_tfn_with_a_low_rank_weight() -> None:
    """The weight tensor that the factors stand for, applied to the full outer product, says the same."""
    net = Lmf(Shape(DIMS, 4, "classification"), LmfConfig(hidden=3, text_hidden=4, text_width=2, rank=2)).eval()
    data = batch()
    vectors, factors = net.vectors(data), [net.factors[name] for name in DIMS]
    weight = torch.einsum("r,ric,rjc,rkc->ijkc", net.mix[0], *factors).flatten(0, 2)
    assert torch.allclose(net(data).logits, outer_product(vectors) @ weight + net.bias, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [("lf-dnn", {"hidden": 0}), ("lmf", {"rank": 0}), ("mult", {"width": 9}), ("mult", {"kernel": 2})],
)
def test_unusable_configurations_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        configure(name, options)


# --------------------------------------------------------------------------------------------------------------- MulT


def test_a_target_step_sees_sources_up_to_its_own_place_counted_from_the_end() -> None:
    mask = cross_mask(torch.tensor([2, 3]), torch.tensor([4, 1]), 3, 4)[:, 0].int()
    assert mask[0, :2].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert mask[1].tolist() == [[1, 0, 0, 0]] * 3


# --------------------------------------------------------------------------------------------------------------- MISA


def test_moment_discrepancy_of_hand_checked_numbers() -> None:
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [3.0]])
    # Means 1 and 3; central moments of a: 1, 0, 1, 0 for k = 2 .. 5, all 0 for b.
    assert moment_discrepancy(a, b).item() == pytest.approx(2 + 1 + 0 + 1 + 0)
    assert moment_discrepancy(a, b, 2).item() == pytest.approx(3)
    assert moment_discrepancy(a, a).item() == 0


def test_difference_of_hand_checked_numbers() -> None:
    a, b = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([[0.0, 5.0], [0.0, 1.0]])
    # Centred and scaled: rows (1, 0), (-1, 0) and (0, 1), (0, -1); A^T B = [[0, 2], [0, 0]].
    assert difference(a, b).item() == pytest.approx(1.0, abs=1e-5)
    assert difference(a, torch.ones(2, 2)).item() == pytest.approx(0.0, abs=1e-6)


def test_misa_terms_are_sums_and_means_over_pairs() -> None:
    net, data = model("misa", dropout=0.0), batch()
    output = net(data)
    terms, f = net.loss(output, data), output.features
    private, shared = f["private"], f["shared"]
    own = sum(difference(private[:, m], shared[:, m]) for m in range(3))
    across = sum(difference(private[:, m], private[:, n]) for m, n in ((0, 1), (0, 2), (1, 2)))
    assert terms["difference"].item() == pytest.approx((own + across).item(), rel=1e-5)
    moments = [moment_discrepancy(shared[:, m], shared[:, n]).item() for m, n in ((0, 1), (0, 2), (1, 2))]
    assert terms["similarity"].item() == pytest.approx(np.mean(moments), rel=1e-5)
    rebuilt = (f["rebuilt"] - f["utterance"]).square().mean()
    assert terms["reconstruction"].item() == pytest.approx(rebuilt.item(), rel=1e-5)
    weighed = 0.1 * terms["difference"] + 0.3 * terms["similarity"] + terms["reconstruction"]
    assert terms["total"].item() == pytest.approx((terms["task"] + weighed).item(), rel=1e-5)


def test_misa_values_cost_their_squared_error() -> None:
    net, data = model("misa", "regression"), batch(task="regression")
    assert isinstance(net, Misa)
    output = net(data)
    assert data.labels is not None
    expected = (output.logits[:, 0] - data.labels).square().mean()
    assert net.loss(output, data)["task"].item() == pytest.approx(expected.item())


# ------------------------------------------------------------------------------------------------------------ Self-MM


def test_relative_distance_of_values() -> None:
    middle = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])  # C+, C-
    found = self_mm.relative_distance(torch.tensor([[0.5, 0.0], [-0.5, 0.0], [0.0, 1.0]]), middle, "regression")
    assert found[:, 0].tolist() == pytest.approx([(1.5 - 0.5) / 0.5, (0.5 - 1.5) / 1.5, 0.0])


def test_proposed_and_moved_labels_of_values() -> None:
    alone, fused, target = torch.tensor([[1.0], [4.0]]), torch.tensor([[2.0], [0.5]]), torch.tensor([[1.6], [2.0]])
    new = self_mm.proposed_labels(alone, fused, target, "regression", 3.0)
    # 0.5 * (1/2 * 1.6) + 0.5 * (1.6 + 1 - 2) = 0.7, and 0.5 * 16 + 0.5 * 5.5 clipped to 3.
    assert new[:, 0].tolist() == pytest.approx([0.7, 3.0])
    moved = self_mm.moved_labels(target, new, torch.tensor([2, 3]))
    assert moved[:, 0].tolist() == pytest.approx([1.6 / 3 + 2 / 3 * 0.7, 0.5 * 2.0 + 0.5 * 3.0])


def test_labels_of_classes_stay_shares() -> None:
    target = torch.tensor([[0.0, 1.0, 0.0]])
    alone, fused = torch.tensor([[0.6, 0.3, 0.1]]), torch.tensor([[0.1, 0.6, 0.3]])
    new = self_mm.proposed_labels(alone, fused, target, "classification", 3.0)
    # 0.5 * (0, 0.5, 0) + 0.5 * (0.5, 0.7, -0.2) = (0.25, 0.6, -0.1), clipped and scaled.
    assert new[0].tolist() == pytest.approx([0.25 / 0.85, 0.6 / 0.85, 0.0])
    same = self_mm.proposed_labels(fused, fused, target, "classification", 3.0)
    assert same[0].tolist() == pytest.approx(target[0].tolist(), abs=1e-6)


def test_a_memory_moves_labels_from_the_second_epoch_on() -> None:
    memory = self_mm.Memory("regression", 3.0)
    rows, target = torch.tensor([4, 1]), torch.tensor([[2.0], [-2.0]])
    fused, alone = torch.tensor([[1.0], [-1.0]]), torch.tensor([[[1.0]], [[-1.0]]])
    there = torch.ones(2, 1, dtype=torch.bool)
    memory.learn(rows, target, fused, alone, there)
    assert memory.labels(rows, target, 1)[:, 0, 0].tolist() == [2.0, -2.0]
    # Epoch 2: row 4 lies half-way to C- in the modality, and where it was in the fusion.
    memory.learn(rows[:1], target[:1], torch.tensor([[0.5]]), torch.tensor([[[0.0]]]), there[:1])
    delta_s, delta_m = 0.0, (1.5 - 0.5) / 0.5
    new = 0.5 * delta_s * 2.0 + 0.5 * (2.0 + delta_s - delta_m)
    assert memory.labels(rows, target, 1)[:, 0, 0].tolist() == pytest.approx([2.0 / 3 + 2 / 3 * new, -2.0])
    assert memory.tables["epoch"].tolist() == [0, 1, 0, 0, 2]


def test_an_absent_modality_moves_no_label() -> None:
    memory = self_mm.Memory("classification", 3.0)
    rows, target = torch.arange(4), torch.eye(2).repeat(2, 1)
    there = torch.tensor([[True, False], [True, True], [True, True], [True, True]])
    torch.manual_seed(0)
    for _ in range(3):
        memory.learn(rows, target, torch.randn(4, 3), torch.randn(4, 2, 3), there)
    labels = memory.labels(rows, target, 2)
    assert labels[0, 1].tolist() == [1.0, 0.0]
    assert not torch.equal(labels[1:, 1], target[1:])


def test_self_mm_goes_on_where_it_was() -> None:
    net, data = model("self-mm").train(), batch()
    for _ in range(2):
        net.loss(net(data), data)
    other = model("self-mm").train()
    other.load_training_state(net.training_state())
    assert isinstance(net, SelfMm) and isinstance(other, SelfMm)
    assert all(torch.equal(table, net.memory.tables[name]) for name, table in other.memory.tables.items())
    assert net.training_state() and not model("lf-dnn").training_state()


def test_self_mm_learns_unimodal_tasks_only_once_labels_differ() -> None:
    net = SelfMm(Shape(DIMS, 4, "classification"), SelfMmConfig(width=8, recurrent=8, dropout=0.0)).train()
    data = batch()
    first = net.loss(net(data), data)
    net.loss(net(data), data)
    third = net.loss(net(data), data)
    assert first["unimodal"] == 0 and third["unimodal"] > 0
    assert "unimodal" not in net.eval().loss(net(data), data)


def test_an_interrupted_training_of_self_mm_ends_the_same(shared: Dataset, tmp_path: Path) -> None:
    config = TrainConfig(model="self-mm", options=NAMES["self-mm"], epochs=4, batch_size=64)

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and event["epoch"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(shared, config, state=tmp_path, hook=stop)
    resumed, whole = train(shared, config, state=tmp_path), train(shared, config)
    assert resumed.history == whole.history and whole.history[-1]["train"]["unimodal"] > 0
