"""EMOE routes over what is there and never looks at what is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from emopipe.errors import ConfigError, DatasetError
from emopipe.models.data.dataset import Batch
from emopipe.models.networks import emoe
from emopipe.models.networks.emoe import Emoe, EmoeConfig, Head, evidence, masked_softmax, pooled_statistics
from emopipe.models.networks.layers import Transformer, sinusoids
from emopipe.models.networks.model import Output, Shape, Standardise
from emopipe.models.registry import configure

DIMS = {"text": 5, "face": 3, "voice": 7}
SMALL = EmoeConfig(width=16, layers=1, heads=2, router_width=8)
PATTERNS = [pattern for pattern in product([False, True], repeat=3) if any(pattern)]


def model(config: EmoeConfig = SMALL, task: str = "classification", outputs: int = 4) -> Emoe:
    torch.manual_seed(0)
    return Emoe(Shape(DIMS, outputs if task == "classification" else 1, task), config).eval()  # type: ignore[arg-type]


def batch(rows: int = 6, steps: int = 4, present: torch.Tensor | None = None, seed: int = 0) -> Batch:
    torch.manual_seed(seed)
    features = {name: torch.randn(rows, steps, dim) for name, dim in DIMS.items()}
    lengths = torch.randint(1, steps + 1, (rows, 3))
    there = torch.ones(rows, 3, dtype=torch.bool) if present is None else present
    return Batch(tuple(DIMS), features, lengths, there, torch.rand(rows, 3) + 0.1, torch.arange(rows) % 4)


def everything(output: object) -> Iterator[torch.Tensor]:
    yield from (output.logits, output.weights, output.features["fused"])  # type: ignore[attr-defined]


@pytest.mark.parametrize("fusion", ["sum", "concat"])
@pytest.mark.parametrize("readout", ["last", "mean"])
@pytest.mark.parametrize("kernel", [1, 3])
@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pattern=st.lists(st.sampled_from(PATTERNS), min_size=4, max_size=4), seed=st.integers(0, 99))
def test_content_of_an_absent_modality_changes_no_bit(
    fusion: str, readout: str, kernel: int, pattern: list[tuple[bool, ...]], seed: int
) -> None:
    net = model(replace(SMALL, fusion=fusion, readout=readout, kernel=kernel, quality_prior=True))
    one = batch(4, present=torch.tensor(pattern), seed=seed)
    gone = ~one.present
    features = {
        name: torch.where(gone[:, column].view(-1, 1, 1), torch.nan, steps)
        for column, (name, steps) in enumerate(one.features.items())
    }
    two = replace(one, features=features, lengths=one.lengths + 3 * gone, quality=one.quality.masked_fill(gone, 1e-3))
    with torch.no_grad():
        for a, b in zip(everything(net(one)), everything(net(two)), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_weights_sum_to_one_over_what_is_present(pattern: tuple[bool, ...]) -> None:
    given_batch = batch(present=torch.tensor([pattern] * 6))
    weights = model()(given_batch).weights
    assert weights.sum(1).tolist() == pytest.approx([1.0] * 6)
    assert (weights[~given_batch.present] == 0).all()
    if sum(pattern) == 1:
        assert (weights[given_batch.present] == 1).all()


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("fusion", ["sum", "concat"])
@pytest.mark.parametrize("distillation", ["paper", "kl", "mse"])
@pytest.mark.parametrize("pattern", [*PATTERNS, None])
def test_every_subset_trains_a_step_without_nan(
    task: str, fusion: str, distillation: str, pattern: tuple[bool, ...] | None
) -> None:
    net = model(replace(SMALL, fusion=fusion, distillation=distillation), task).train()
    present = torch.tensor([pattern] * 7 if pattern else PATTERNS)
    data = batch(7, present=present)
    if task == "regression":
        data = replace(data, labels=torch.randn(7))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    terms = net.loss(net(data), data)
    terms["total"].backward()
    optimiser.step()
    assert all(torch.isfinite(term) for term in terms.values())
    assert all(torch.isfinite(parameter).all() for parameter in net.parameters())


@pytest.mark.parametrize("fusion", ["sum", "concat"])
def test_a_single_modality_is_answered_by_its_own_head(fusion: str) -> None:
    present = torch.tensor(PATTERNS)
    with torch.no_grad():
        output = model(replace(SMALL, fusion=fusion))(batch(len(PATTERNS), present=present))
    for row, there in enumerate(present):
        own = [output.unimodal[name][row] for name, one in zip(DIMS, there, strict=True) if one]
        assert torch.equal(output.logits[row], own[0]) == (len(own) == 1)


def test_nothing_present_gives_finite_logits_and_no_weights() -> None:
    output = model()(batch(2, present=torch.zeros(2, 3, dtype=torch.bool)))
    assert torch.isfinite(output.logits).all()
    assert (output.weights == 0).all()


def test_an_absent_modality_passes_no_gradient() -> None:
    net = model().train()
    data = batch(present=torch.tensor([[True, False, True]] * 6))
    net.loss(net(data), data)["total"].backward()
    assert all(p.grad is None or (p.grad == 0).all() for p in net.branches["face"].parameters())
    assert any((p.grad != 0).any() for p in net.branches["text"].parameters() if p.grad is not None)


@pytest.mark.parametrize("readout", ["last", "mean"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_padding_does_not_matter(readout: str, kernel: int) -> None:
    net, short = model(replace(SMALL, readout=readout, kernel=kernel)), batch()
    longer = {name: torch.cat([x, 9 * torch.ones(6, 5, x.shape[2])], dim=1) for name, x in short.features.items()}
    with torch.no_grad():
        one, two = net(short), net(replace(short, features=longer))
        alone = net(
            Batch(
                short.modalities,
                {n: x[:1] for n, x in longer.items()},
                short.lengths[:1],
                short.present[:1],
                short.quality[:1],
            )
        )
    assert torch.equal(one.logits, two.logits)
    assert torch.allclose(one.logits[:1], alone.logits, atol=1e-5)


def test_a_later_step_changes_no_earlier_one() -> None:
    torch.manual_seed(0)
    net = Transformer(16, 2, 2).eval()
    x = torch.randn(2, 6, 16)
    changed = x.clone()
    changed[:, 4] += torch.randn(16)
    with torch.no_grad():
        one, two = net(x), net(changed)
    assert torch.equal(one[:, :4], two[:, :4])
    assert not torch.allclose(one[:, 4:], two[:, 4:])


def test_position_code_is_sines_then_cosines_of_geometric_rates() -> None:
    code = sinusoids(torch.tensor([1, 2]), 8)
    assert code.shape == (2, 8)
    assert code[0, 0].item() == pytest.approx(0.841471)
    assert code[1, 4].item() == pytest.approx(-0.416147)
    assert code[1, 3].item() == pytest.approx(2e-4, abs=1e-8)


def test_the_router_hears_every_modality_and_the_task_teaches_it() -> None:
    net = model(replace(SMALL, lambda1=0.0, lambda2=0.0, unimodal=0.0)).train()
    data = batch()
    net.loss(net(data), data)["total"].backward()
    assert net.router.gate.weight.grad is not None
    assert (net.router.gate.weight.grad != 0).any()


def test_concatenation_is_scaled_by_the_number_present() -> None:
    net = model(replace(SMALL, fusion="concat"))
    output = net(batch(present=torch.tensor([[True, True, True], [True, False, False]] * 3)))
    f, weights = output.features["f"], output.weights
    assert torch.allclose(output.features["fused"][0, :16], 3 * weights[0, 0] * f[0, 0])
    assert torch.allclose(output.features["fused"][1, :16], f[1, 0])
    assert (output.features["fused"][1, 16:] == 0).all()


def test_quality_lowers_a_weight() -> None:
    net = model(replace(SMALL, quality_prior=True))
    good = batch()
    poor = replace(good, quality=good.quality * torch.tensor([1.0, 0.1, 1.0]))
    assert (net(poor).weights[:, 1] < net(good).weights[:, 1]).all()


def test_head_is_a_residual_mlp() -> None:
    head = Head(4, 2, 0.0)
    f = torch.randn(3, 4)
    p, logits = head(f)
    assert torch.allclose(p, f + head.second(torch.relu(head.first(f))))
    assert torch.allclose(logits, head.readout(p))


def test_masked_softmax_of_all_present_is_softmax() -> None:
    logits = torch.randn(4, 3)
    assert torch.allclose(masked_softmax(logits, torch.ones(4, 3, dtype=torch.bool)), logits.softmax(1))


def test_pooled_statistics_see_valid_steps_only() -> None:
    x = torch.tensor([[[1.0], [3.0], [100.0]]])
    mean, deviation = pooled_statistics(x, torch.tensor([[True, True, False]]))[0]
    assert mean.item() == pytest.approx(2) and deviation.item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    "options", [{"width": 15}, {"width": 18, "heads": 4}, {"kernel": 2}, {"temperature": 0.0}, {"kernel": {"text": 4}}]
)
def test_unusable_configurations_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        configure("emoe", options)


def test_kernels_may_differ_by_modality() -> None:
    net = model(replace(SMALL, kernel={"text": 5, "face": 1, "voice": 3}))
    assert net.branches["text"].convolution.weight.shape == (16, 5, 5)  # type: ignore[union-attr]


def test_evidence_shows_who_contradicts_the_others() -> None:
    said = torch.tensor([[[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]]])
    sure, agrees = evidence(said, torch.ones(1, 3, dtype=torch.bool), "classification")[0].unbind(1)
    assert sure.tolist() == pytest.approx([0.82, 0.68, 0.82])
    assert agrees[2] < min(agrees[0], agrees[1])
    pair = evidence(said, torch.tensor([[True, True, False]]), "classification")[0, :, 1]
    assert pair[:2].tolist() == pytest.approx([0.74, 0.74])
    values = evidence(torch.tensor([[[1.0], [1.5], [-2.0]]]), torch.ones(1, 3, dtype=torch.bool), "regression")
    assert values[0, :, 0].tolist() == pytest.approx([-1.75, -2.0, -3.25])
    alone = evidence(said, torch.tensor([[False, True, False]]), "classification")
    assert alone[0, 1, 1] == 0


@pytest.mark.parametrize("pattern", [*PATTERNS, None])
def test_half_precision_trains_too(pattern: tuple[bool, ...] | None) -> None:
    net, data = model().train(), batch(7, present=torch.tensor([pattern] * 7 if pattern else PATTERNS))
    with torch.autocast("cpu", torch.bfloat16):
        total = net.loss(net(data), data)["total"]
    total.backward()
    assert torch.isfinite(total) and total.dtype == torch.float32


class StubLinear(torch.nn.Module):
    """Linear models that were fitted elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.fitted: tuple[object, ...] = ()

    def forward(self, given: Batch) -> Output:
        ones = torch.ones(len(given), 1)
        return Output(3 * ones, {name: number * ones for number, name in enumerate(DIMS)}, ones, {})

    def solve(self, *arguments: object) -> dict[str, Any]:
        self.fitted = arguments
        return {"strength": 1.0}


class TestLinearModelsBeside:
    def test_the_answer_is_the_mean_in_evaluation_alone(self) -> None:
        net, plain = model(replace(SMALL, linear=True), "regression"), model(task="regression")
        plain.load_state_dict(net.state_dict(), strict=False)
        net.linear, given = StubLinear(), batch()
        alone, unfitted = plain(given), net(given)
        assert torch.equal(unfitted.logits, alone.logits)
        net.linear_share.fill_(0.25)
        both = net(given)
        assert torch.allclose(both.logits, 0.75 * alone.logits + 0.25 * 3)
        for number, name in enumerate(DIMS):
            assert torch.allclose(both.unimodal[name], 0.75 * alone.unimodal[name] + 0.25 * number)
        assert torch.equal(both.weights, alone.weights) and both.features.keys() == alone.features.keys()
        torch.manual_seed(1)
        learning = net.train()(given).logits
        torch.manual_seed(1)
        assert torch.equal(learning, plain.train()(given).logits)

    def test_they_are_fitted_once_and_count_half(self) -> None:
        net = model(replace(SMALL, linear=True))
        net.linear = StubLinear()
        assert net.solve("rows", "targets", "weights", 4, 7, "shares") == {"strength": 1.0}  # type: ignore[arg-type]
        assert net.linear.fitted == ("rows", "targets", "weights", 4, 7, "shares") and net.linear_share == 0.5
        assert model().solve("rows", "targets", "weights", 4, 7) == {}  # type: ignore[arg-type]

    @pytest.mark.parametrize("relative", [True, False])
    def test_no_gradient_changes_them(self, relative: bool) -> None:
        net = model(replace(SMALL, linear=True, relative=relative))
        assert not any(parameter.requires_grad for parameter in net.linear.parameters())
        assert net.linear.config.relative == net.relative == relative
        assert "linear_share" in net.state_dict() and not hasattr(model(), "linear")


class StubWords(torch.nn.Module):
    """An encoder of words whose vectors tell the number of letters."""

    width, sha256 = 4, "abc"

    def __init__(self, config: EmoeConfig) -> None:
        super().__init__()
        self.backbone = config.backbone

    def forward(self, words: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        lengths = torch.tensor([len(text.split()) for text in words])
        steps = torch.zeros(len(words), 3, 4)
        for row, text in enumerate(words):
            for step, word in enumerate(text.split()):
                steps[row, step] = len(word)
        return steps, lengths


class TestWordsEncoder:
    @pytest.fixture
    def net(self, monkeypatch: pytest.MonkeyPatch) -> Emoe:
        monkeypatch.setattr(emoe, "WordsEncoder", StubWords)
        return model(replace(SMALL, backbone="tiny", backbone_path="here"))

    def test_the_text_is_what_it_makes_of_the_words_of_rows_that_have_some(self, net: Emoe) -> None:
        present = torch.tensor([[True, True, True], [False, True, True], [True, True, True]])
        given = replace(batch(3, present=present), words=("one two", "not there", "three"))
        f = net(given).features["f"]
        text = net.branches["text"]
        for row, lengths in ((0, [3, 3]), (2, [5])):
            steps = torch.tensor(lengths).view(1, -1, 1).expand(1, -1, 4).float()
            encoded = net.encoder(text.convolution(steps.transpose(1, 2))).transpose(1, 2)  # type: ignore[operator, union-attr]
            assert torch.allclose(f[row, 0], text.transformer(encoded)[0, -1], atol=1e-5)  # type: ignore[operator, union-attr]
        assert (f[1, 0] == 0).all()
        assert [net.branches[name].words is None for name in DIMS] == [False, True, True]
        assert model().branches["text"].words is None

    def test_its_vectors_are_not_standardised_and_there_must_be_words(self, net: Emoe) -> None:
        said = {"a": "hello", "b": ""}
        steps = {name: 5 + 3 * torch.randn(40, dim).numpy() for name, dim in DIMS.items()}
        rows: Any = SimpleNamespace(ids=list("ab"), steps=steps.__getitem__, transcript=SimpleNamespace(words=said.get))
        net.fit_inputs(rows)
        scales = {name: net.branches[name].standardise.scale for name in DIMS}
        assert (scales["text"] == 1).all() and (scales["face"] < 0.6).all() and (scales["voice"] < 0.6).all()
        said["a"] = ""
        with pytest.raises(DatasetError, match="no words"):
            net.fit_inputs(rows)
        plain = model()
        plain.fit_inputs(rows)
        assert (plain.branches["text"].standardise.scale < 0.6).all()  # type: ignore[union-attr, operator]

    def test_what_is_sealed_names_it_by_its_hash(self, net: Emoe) -> None:
        assert (net.sealed().backbone_path, net.sealed().backbone_sha256) == ("", "abc")
        assert net.sealed().backbone == "tiny"
        assert model().sealed() == SMALL


class TestStandardise:
    def test_fits_mean_and_deviation(self) -> None:
        steps = torch.randn(500, 3) * torch.tensor([1.0, 10.0, 0.1]) + torch.tensor([5.0, -3.0, 1000.0])
        layer = Standardise(3)
        layer.fit(steps)
        out = layer(steps)
        assert torch.allclose(out.mean(0), torch.zeros(3), atol=1e-2)
        assert torch.allclose(out.std(0), torch.ones(3), atol=1e-2)

    def test_constant_features_become_zero(self) -> None:
        layer = Standardise(2)
        layer.fit(torch.tensor([[1.0, 7.3], [2.0, 7.3], [3.0, 7.3]]))
        assert (layer(torch.tensor([[2.0, 7.3], [2.0, 99.0]]))[:, 1] == 0).all()

    def test_what_is_not_measured_stands_at_the_mean(self) -> None:
        layer = Standardise(2)
        layer.fit(torch.tensor([[1.0, torch.nan], [3.0, 2.0], [torch.inf, 4.0]]))
        assert layer.mean.tolist() == pytest.approx([2.0, 3.0])
        assert layer(torch.tensor([[torch.nan, 3.0]])).tolist() == [[0.0, 0.0]]

    def test_far_outliers_are_clipped(self) -> None:
        layer = Standardise(1)
        layer.fit(torch.tensor([[0.0], [1.0]]))
        assert layer(torch.tensor([[1e9], [-torch.inf]])).tolist() == [[8.0], [-8.0]]

    def test_input_is_left_alone(self) -> None:
        layer, x = Standardise(2), torch.ones(3, 2)
        layer.fit(torch.randn(10, 2))
        layer(x)
        assert (x == 1).all()


def test_uniform_routing_gives_every_present_modality_the_same_weight() -> None:
    net = model(replace(SMALL, routing="uniform"))
    patterns = [[True, True, True], [True, False, True], [False, True, False], [False, False, False]]
    output = net(batch(4, present=torch.tensor(patterns)))
    assert output.weights[2:].tolist() == [[0, 1, 0], [0, 0, 0]]
    assert output.weights[0].tolist() == pytest.approx([1 / 3] * 3)
    assert output.weights[1].tolist() == pytest.approx([0.5, 0, 0.5])
    assert torch.allclose(output.features["fused"], (output.weights.unsqueeze(-1) * output.features["f"]).sum(1))


def test_the_entropy_loss_can_be_left_out() -> None:
    data = batch()
    net = model(replace(SMALL, entropy=0.0, lambda1=1.0, alpha=2.0))
    terms = net.loss(net(data), data)
    expected = terms["task"] + terms["unimodal"] + 2 * terms["similarity"] + 0.1 * terms["distillation"]
    assert terms["total"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_answer_is_the_mean_of_what_is_said_as_they_are_and_relative_to_the_speaker() -> None:
    one = batch()
    means = {"face": torch.randn(6, 3).index_fill(0, torch.tensor([0]), torch.nan), "voice": torch.randn(6, 7)}
    known = replace(one, speaker_means=means)
    whole = model(replace(SMALL, relative=True))
    half = model(replace(SMALL, relative=True, relative_share=0.25))
    with torch.no_grad():
        plain, relative, mixed = whole(one), whole(known), half(known)
    expected = 0.75 * plain.logits.softmax(1) + 0.25 * relative.logits.softmax(1)
    torch.testing.assert_close(mixed.logits.softmax(1), expected)
    assert (plain.logits - relative.logits).abs().max() > 1e-3
    assert torch.equal(relative.logits, whole._network(known).logits)
    voices = [one.unimodal["voice"].softmax(1) for one in (plain, relative, mixed)]
    torch.testing.assert_close(voices[2], 0.75 * voices[0] + 0.25 * voices[1])
    torch.testing.assert_close(mixed.weights, 0.75 * plain.weights + 0.25 * relative.weights)
    assert mixed.features.keys() == relative.features.keys()
    torch.testing.assert_close(mixed.unimodal["face"][0].softmax(0), plain.unimodal["face"][0].softmax(0))
    torch.testing.assert_close(half(one).logits, plain.logits)
