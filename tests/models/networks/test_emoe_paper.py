"""The published EMOE: its size, its causality, its padding, its text encoder, and training on MMSA's files."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from typer.testing import CliRunner

from emopipe.errors import ConfigError, DatasetError
from emopipe.models import checkpoint
from emopipe.models.data.dataset import Batch, Dataset
from emopipe.models.data.reading import read
from emopipe.models.evaluation.evaluate import evaluate
from emopipe.models.networks.emoe_paper import EmoePaper, EmoePaperConfig, FlatRouter, lay_out
from emopipe.models.networks.layers import sinusoids
from emopipe.models.networks.model import Shape
from emopipe.models.networks.text_encoder import TextEncoder
from emopipe.models.registry import build
from emopipe.models.sealed import SHIPPED
from emopipe.models.training import loop
from emopipe.models.training.config import TrainConfig, configuration, read_configuration
from emopipe.models.training.events import silent
from emopipe.models.training.plan import choose_split, make_plan
from emopipe.pipeline.cli.app import app
from tests.models.mmsa_files import DIMS as FILE_DIMS
from tests.models.mmsa_files import VOCABULARY, content, write

RECIPES = sorted((SHIPPED.parent / "recipes").glob("*.toml"))
MOSI, MOSEI = {"text": 768, "face": 20, "voice": 5}, {"text": 768, "face": 35, "voice": 74}
MOSEI_KERNELS = {"text": 5, "face": 3, "voice": 1}

BERT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
}
DIMS = {"text": FILE_DIMS["text"], "face": FILE_DIMS["vision"], "voice": FILE_DIMS["audio"]}
TINY: dict[str, Any] = {"width": 8, "heads": 2, "layers": 1, "steps": 12, "kernel": 3, "bert": BERT}
RANDOM_BERT = {"text_weights": "random"}


def model(**options: Any) -> EmoePaper:
    torch.manual_seed(0)
    net = build("emoe-paper", Shape(DIMS, 1, "regression"), {**TINY, **options}).eval()
    assert isinstance(net, EmoePaper)
    return net


def batch(rows: int = 4, steps: int = 12, seed: int = 0) -> Batch:
    torch.manual_seed(seed)
    features = {name: torch.randn(rows, steps, dim) for name, dim in DIMS.items()}
    lengths = torch.full((rows, 3), steps)
    tokens = torch.randint(1, VOCABULARY, (rows, steps))
    return Batch(tuple(DIMS), features, lengths, lengths > 0, torch.ones(rows, 3), torch.randn(rows), tokens=tokens)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return read(write(tmp_path_factory.mktemp("mmsa") / "aligned.pkl", content()))


@pytest.mark.parametrize(
    ("dims", "options", "count"),
    [
        (MOSI, {}, 317_094_063),
        (MOSI, {"steps": {"text": 50, "face": 500, "voice": 375}}, 317_137_913),
        (MOSI, {"fusion": "concat"}, 318_144_175),
        (MOSI, {"encoders": "separate"}, 317_094_063 + 2 * 65_536),
        (MOSI, {"text_encoder": False}, 317_094_063 - 109_482_240),
        (MOSEI, {"kernel": MOSEI_KERNELS}, 360_946_437),
        (MOSEI, {"kernel": MOSEI_KERNELS, "steps": {"text": 50, "face": 500, "voice": 500}}, 360_996_537),
    ],
)
def test_it_has_as_many_parameters_as_the_published_model(
    dims: dict[str, int], options: dict[str, Any], count: int
) -> None:
    """The published counts less 196,608 weights of convolutions and, aligned, 5,100 of linear layers never used."""
    with torch.device("meta"):
        net = build("emoe-paper", Shape(dims, 1, "regression"), options)
    assert sum(parameter.numel() for parameter in net.parameters()) == count


def test_only_what_bert_pools_for_other_uses_is_idle() -> None:
    net, one = model().train(), batch()
    net.loss(net(one), one)["total"].backward()
    idle = [name for name, parameter in net.named_parameters() if parameter.grad is None]
    assert idle == ["text.bert.pooler.dense.weight", "text.bert.pooler.dense.bias"]


def test_the_same_seed_gives_the_same_outputs() -> None:
    one, two, given = model(), model(), batch()
    for mode in (False, True):
        outputs = []
        for net in (one.train(mode), two.train(mode)):
            torch.manual_seed(3)
            outputs.append(net(given))
        assert torch.equal(outputs[0].logits, outputs[1].logits)
        assert torch.equal(outputs[0].weights, outputs[1].weights)
    assert torch.equal(one.eval()(given).logits, one(given).logits)


def transformed(net: EmoePaper, name: str, given: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """What goes into and comes out of a modality's transformer."""
    seen = []
    transformer = net.branches[name].transformer
    hook = transformer.register_forward_hook(lambda module, inputs, output: seen.extend((inputs[0], output)))  # type: ignore[operator]
    with torch.no_grad():
        net(given)
    hook.remove()
    return seen[0], seen[1]


def test_a_frame_reaches_its_convolutions_and_later_steps_only() -> None:
    net, given = model(kernel=4), batch()
    changed = {**given.features, "face": given.features["face"].clone()}
    changed["face"][:, 8] += 1
    (before, out), (after, other) = (transformed(net, "face", one) for one in (given, replace(given, features=changed)))
    assert before.shape[1] == 12 - 4 + 1
    touched = (before != after).any(dim=2).any(dim=0)
    assert touched.tolist() == [False] * 5 + [True] * 4
    assert torch.equal(out[:, :5], other[:, :5])
    assert (out[:, 5:] != other[:, 5:]).any(dim=2).all()


def test_frames_of_zeros_get_no_position_and_the_others_their_own() -> None:
    net, given = model(layers=1), batch()
    lengths = given.lengths.clone()
    lengths[0, 1] = 7
    given = replace(given, lengths=lengths)
    seen: list[torch.Tensor] = []
    transformer = net.branches["face"].transformer
    hook = transformer.embed_dropout.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))  # type: ignore[union-attr]
    x, _ = transformed(net, "face", given)
    hook.remove()
    assert (x[0, 7:] == 0).all() and (seen[0][0, 7:] == 0).all()
    code = sinusoids(torch.arange(1, 11), 8)
    assert torch.allclose(seen[0][0, :7], 8**0.5 * x[0, :7] + code[:7])
    assert torch.allclose(seen[0][1], 8**0.5 * x[1] + code)


def test_the_last_step_is_read_out() -> None:
    net, given = model(), batch()
    _, out = transformed(net, "voice", given)
    with torch.no_grad():
        assert torch.equal(net(given).features["f"][:, 2], out[:, -1])


def test_sequences_are_laid_out_on_either_side() -> None:
    x = torch.arange(1.0, 9).view(2, 4, 1)
    lengths = torch.tensor([2, 4])
    assert lay_out(x, lengths, 3, "end")[..., 0].tolist() == [[1, 2, 0], [5, 6, 7]]
    assert lay_out(x, lengths, 6, "end")[..., 0].tolist() == [[1, 2, 0, 0, 0, 0], [5, 6, 7, 8, 0, 0]]
    assert lay_out(x, lengths, 3, "start")[..., 0].tolist() == [[0, 1, 2], [5, 6, 7]]
    assert lay_out(x, lengths, 6, "start")[..., 0].tolist() == [[0, 0, 0, 0, 1, 2], [0, 0, 5, 6, 7, 8]]


@pytest.mark.parametrize("side", ["start", "end"])
def test_the_network_sees_the_arrays_of_the_file(tmp_path: Path, side: str) -> None:
    tables = content({"audio": 30}, side)
    dataset = read(write(tmp_path / "file.pkl", tables))
    net = model(steps={"text": 12, "face": 12, "voice": 30}, padding=side, text_encoder=False)
    given = dataset.batch(np.arange(24))
    for column, (name, key) in enumerate({"text": "text", "face": "vision", "voice": "audio"}.items()):
        assert np.array_equal(net._sequences(name, column, given).numpy(), tables["train"][key])


def test_the_router_reads_all_steps_and_equal_lengths_are_learned() -> None:
    net = FlatRouter({"text": 4, "face": 3}, {"text": 6, "face": 10}, 0.1)
    assert net.hidden.weight.shape == (42 // 8, 42) and list(net.time) == ["face"]
    features = {"text": torch.randn(5, 6, 4), "face": torch.randn(5, 10, 3)}
    weights = net(features, torch.ones(5, 2, dtype=torch.bool))
    aligned = net.time["face"](features["face"].transpose(1, 2)).transpose(1, 2)
    flat = torch.cat([features["text"], aligned], dim=2).flatten(1)
    z = net.hidden(flat)
    expected = (net.gate(torch.relu(z / z.norm(dim=1, keepdim=True))) / 0.1).softmax(1)
    assert torch.allclose(weights, expected, atol=1e-6)


def test_text_dropout_does_not_reach_the_router() -> None:
    net, given = model(text_dropout=0.9).train(), batch()
    net.text.eval()  # type: ignore[union-attr]
    with torch.no_grad():
        one, two = net(given), net(given)
    assert torch.equal(one.weights, two.weights)
    assert not torch.equal(one.features["f"][:, 0], two.features["f"][:, 0])


@pytest.mark.parametrize("rows", [3, 1])
def test_the_text_encoder_reads_tokens_laid_out_as_features_are(rows: int) -> None:
    net, given = model(padding="start"), batch(rows)
    given.lengths[0, 0] = 5
    seen: list[torch.Tensor] = []
    assert net.text is not None and given.tokens is not None
    net.text.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(given)
    assert seen[0].tolist() == [[0] * 7 + given.tokens[0, :5].tolist(), *given.tokens[1:].tolist()]


def test_options_of_the_text_encoder_reach_it() -> None:
    net = model(text_tuning="lora", lora_rank=3)
    assert net.text is not None and net.text.tuning == "lora"
    assert {one.shape[0] for name, one in net.named_parameters() if "lora_A" in name} == {3}
    with torch.autocast("cpu", torch.bfloat16):
        assert net(batch()).logits.dtype == torch.float32


def test_features_of_other_extractors_say_nothing_of_steps(data: Dataset) -> None:
    rows: Any = SimpleNamespace(extraction={"text": {"backend": "minilm"}, "face": "unknown"})
    model(text_encoder=False).fit_inputs(rows)
    assert data.tokens is not None
    largest = int(data.tokens.values.max())
    model(bert={**BERT, "vocab_size": largest + 1}, **RANDOM_BERT).fit_inputs(data)
    with pytest.raises(DatasetError, match="a token id is beyond"):
        model(bert={**BERT, "vocab_size": largest}, **RANDOM_BERT).fit_inputs(data)


def test_features_as_wide_as_the_network_pass_the_convolution() -> None:
    net = model(width=16, text_encoder=False)
    assert isinstance(net.branches["text"].convolution, torch.nn.Identity)


def test_separate_encoders_differ() -> None:
    net, given = model(encoders="separate"), batch()
    assert list(net.encoders) == list(DIMS)
    before = net(given).unimodal
    with torch.no_grad():
        net.encoders["face"].weight.mul_(2)  # type: ignore[union-attr]
    after = net(given).unimodal
    assert torch.equal(before["text"], after["text"]) and not torch.equal(before["face"], after["face"])


@pytest.mark.parametrize("fusion", ["sum", "concat"])
@pytest.mark.parametrize("text_encoder", [True, False])
def test_content_of_an_absent_modality_changes_no_bit(fusion: str, text_encoder: bool) -> None:
    net, one = model(fusion=fusion, text_encoder=text_encoder), batch(6)
    present = torch.tensor([[True, True, False], [True, False, True], [False, True, True]] * 2)
    gone = ~present
    features = {
        name: torch.where(gone[:, column].view(-1, 1, 1), torch.nan, x)
        for column, (name, x) in enumerate(one.features.items())
    }
    tokens = torch.where(gone[:, :1], 10**6, one.tokens)  # type: ignore[arg-type]
    one = replace(one, present=present)
    with torch.no_grad():
        first, second = net(one), net(replace(one, features=features, tokens=tokens))
    assert torch.equal(first.logits, second.logits) and torch.equal(first.weights, second.weights)
    assert (first.weights[gone] == 0).all() and first.weights.sum(1).tolist() == pytest.approx([1.0] * 6)
    terms = net.train().loss(net(one), one)
    terms["total"].backward()
    assert all(torch.isfinite(term) for term in terms.values())


def test_nothing_present_gives_finite_logits_and_no_weights() -> None:
    output = model()(batch().masked(torch.zeros(3, dtype=torch.bool)))
    assert torch.isfinite(output.logits).all() and (output.weights == 0).all()


class TestTextEncoder:
    def test_padding_changes_no_vector(self) -> None:
        net = TextEncoder(BERT).eval()
        ids = torch.randint(1, VOCABULARY, (2, 5))
        padded = torch.cat([ids, torch.zeros(2, 4, dtype=torch.long)], dim=1)
        with torch.no_grad():
            assert torch.allclose(net(ids), net(padded)[:, :5], atol=1e-6)

    @pytest.mark.parametrize(("tuning", "trained"), [("full", None), ("lora", 2 * 2 * 2 * 4 * 16), ("frozen", 0)])
    def test_tuning_says_what_is_trained(self, tuning: Any, trained: int | None) -> None:
        net = TextEncoder(BERT, tuning, rank=4).train()
        found = sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
        assert found == (sum(p.numel() for p in net.parameters()) if trained is None else trained)
        assert net.bert.training == (tuning != "frozen")

    def test_lora_changes_nothing_at_first(self) -> None:
        torch.manual_seed(0)
        plain = TextEncoder(BERT).eval()
        torch.manual_seed(0)
        changed = TextEncoder(BERT, "lora").eval()
        ids = torch.randint(1, VOCABULARY, (2, 5))
        with torch.no_grad():
            assert torch.allclose(plain(ids), changed(ids), atol=1e-6)

    @pytest.mark.parametrize("tuning", ["full", "lora", "frozen"])
    def test_weights_come_from_a_folder(self, tmp_path: Path, tuning: Any) -> None:
        source, target = TextEncoder(BERT).eval(), TextEncoder(BERT, tuning).eval()
        source.bert.save_pretrained(tmp_path)  # type: ignore[operator]
        ids = torch.randint(1, VOCABULARY, (2, 5))
        target.load(tmp_path)
        with torch.no_grad():
            assert torch.allclose(source(ids), target(ids), atol=1e-6)

    def test_other_weights_are_told(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no folder"):
            TextEncoder(BERT).load(tmp_path / "missing")
        with pytest.raises(ConfigError, match="cannot be read"):
            TextEncoder(BERT).load(tmp_path)
        TextEncoder({**BERT, "hidden_size": 8}).bert.save_pretrained(tmp_path)  # type: ignore[operator]
        with pytest.raises(ConfigError, match="expected"):
            TextEncoder(BERT).load(tmp_path)

    @pytest.mark.parametrize("sizes", [{"depth": 3}, {"hidden_size": 10, "num_attention_heads": 3}])
    def test_sizes_it_cannot_have_are_told(self, sizes: dict[str, int]) -> None:
        with pytest.raises(ConfigError):
            TextEncoder(sizes)


@pytest.mark.parametrize(
    "options",
    [{"kernel": 13}, {"kernel": 0}, {"steps": {"text": 12}}, {"attention_dropout": {"face": 0.1}}, {"width": 9}],
)
def test_unusable_configurations_are_told(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        model(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 14}, "steps of text is 14, but 12 in the file"),
        ({"padding": "start"}, "padding of text is 'start', but 'end' in the file"),
        ({"bert": {**BERT, "vocab_size": 20}}, "a token id is beyond the 20 that BERT knows"),
    ],
)
def test_a_dataset_of_another_form_is_told(data: Dataset, options: dict[str, Any], words: str) -> None:
    with pytest.raises((ConfigError, DatasetError), match=words):
        model(**options).fit_inputs(data)


def test_missing_token_ids_are_told(tmp_path: Path) -> None:
    tables = content()
    for table in tables.values():
        del table["text_bert"]
    without = read(write(tmp_path / "file.pkl", tables))
    net = model()
    with pytest.raises(DatasetError, match="no token ids"):
        net.fit_inputs(without)
    with pytest.raises(DatasetError, match="no token ids"):
        net(without.batch(np.arange(2)))
    model(text_encoder=False).fit_inputs(without)


def recipe(name: str, **train_options: Any) -> dict[str, Any]:
    """A shipped recipe with tiny sizes."""
    tables = tomllib.loads(next(path for path in RECIPES if path.stem == name).read_text())
    steps = tables["model"]["steps"]
    small = {**TINY, "steps": {**steps, "text": 12, "face": 20, "voice": 30} if isinstance(steps, Mapping) else 12}
    return {
        "model": {**tables["model"], **small, **RANDOM_BERT},
        "train": {**tables["train"], "epochs": 2, **train_options},
    }


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_configurations(path: Path) -> None:
    config = read_configuration(path)
    label, accumulate = "label" if "mintrec" in path.stem else "sentiment", 1 if "printed" in path.stem else 10
    assert (config.model, config.label, config.batch_size, config.accumulate) == ("emoe-paper", label, 16, accumulate)
    assert config.order == "random"
    assert config.lr == 1e-4 and config.weight_decay == 0 and config.clip == 0


def test_the_preset_is_the_recipe_for_mosi() -> None:
    path = next(path for path in RECIPES if path.stem == "emoe-paper-mosi")
    options = read_configuration(path).options
    default = EmoePaperConfig()
    assert {name: getattr(default, name) for name in options} == options


@pytest.mark.parametrize("name", [path.stem for path in RECIPES if "mintrec" not in path.stem])
def test_recipes_train_on_files_from_the_command_line(tmp_path: Path, name: str) -> None:
    aligned = "unaligned" not in name
    sizes = None if aligned else {"audio": 30, "vision": 20}
    source = write(tmp_path / "file.pkl", content(sizes, aligned=aligned))
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(recipe(name)))
    arguments = [str(source), "--out", str(tmp_path / "out"), "--config", str(tmp_path / "recipe.toml")]
    result = CliRunner().invoke(app, ["train", *arguments, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    predictor = checkpoint.load(tmp_path / "out")
    assert predictor.spec.training["config"]["seed"] == 1111
    assert np.isfinite(evaluate(predictor, read(source), "test").metrics["mae"])


def test_the_weights_of_bert_are_never_random_silently(data: Dataset, tmp_path: Path) -> None:
    for options in ({}, {"text_weights": ""}):
        with pytest.raises(ConfigError, match=r"no folder with the weights|not named"):
            model(**options).fit_inputs(data)
    model(text_weights="random").fit_inputs(data)
    named = model(text_weights="bert-base-uncased", text_weights_path=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="no folder with the weights"):
        named.fit_inputs(data)
    assert named.sealed().text_weights_path == ""


PRINTED: dict[str, Any] = {
    "encoders": "separate",
    "router_input": "encoded",
    "router_norm": "batch",
    "router_scale": "learned",
    "importance": "softmax",
    "similarity": "sum",
}


def test_the_printed_router_is_equation_1() -> None:
    """W = softmax(alpha * (W2 ReLU(BN(W1 x))) / t)."""
    torch.manual_seed(0)
    router = FlatRouter({"text": 4, "face": 4}, {"text": 3, "face": 3}, 0.5, batch_norm=True, scaled=True)
    features = {name: torch.randn(6, 3, 4) for name in ("text", "face")}
    assert router.scale is not None and router.norm is not None
    with torch.no_grad():
        router.scale.copy_(torch.tensor([2.0, -0.5]))
    z = router.hidden(torch.cat([features["text"], features["face"]], dim=2).flatten(1))
    normal = (z - z.mean(0)) / (z.var(0, unbiased=False) + router.norm.eps).sqrt()
    expected = (torch.tensor([2.0, -0.5]) * router.gate(normal.relu()) / 0.5).softmax(1)
    present = torch.ones(6, 2, dtype=torch.bool)
    assert torch.allclose(router.train()(features, present), expected, atol=1e-6)
    one = {name: x[:1] for name, x in features.items()}
    assert torch.allclose(router(one, present[:1]), router.eval()(one, present[:1]))  # a batch of one has no spread


def test_the_printed_router_reads_what_the_encoders_of_each_modality_make() -> None:
    printed, coded, given = model(**PRINTED), model(encoders="separate"), batch()
    assert printed.router.norm is not None and coded.router.norm is None and coded.router.scale is None
    assert {f"encoders.{name}.weight" for name in DIMS} <= dict(printed.named_parameters()).keys()
    assert printed.router.hidden.in_features == 3 * TINY["width"] * (12 - TINY["kernel"] + 1)
    for net, seen in ((printed, True), (coded, False)):
        for name in DIMS:
            before = net(given).weights
            with torch.no_grad():
                net.encoders[name].weight.add_(1.0)  # type: ignore[operator,union-attr]
            assert torch.equal(before, net(given).weights) != seen
    net = model(**PRINTED).train()
    net.loss(net(given), given)["total"].backward()
    assert net.router.scale is not None and net.router.scale.grad is not None and net.router.scale.grad.abs().sum() > 0


def test_the_printed_loss_is_its_equations_term_by_term() -> None:
    net, given = model(**PRINTED), batch()
    out, y = net(given), given.targets.unsqueeze(1)
    each = torch.cat([out.unimodal[name] for name in DIMS], dim=1)
    share = (1 / ((each - y).square().double() + 1e-8)).softmax(1).float()
    terms = net.loss(out, given)
    assert torch.allclose(terms["similarity"], (share - out.weights).square().sum(1).mean())
    entropy = (3 * (out.weights * out.weights.log()).sum(1)).mean()
    assert torch.allclose(terms["entropy"], entropy)
    student = out.features["fused_head"].softmax(1)
    teacher = (out.weights.unsqueeze(2) * out.features["p"]).sum(1).softmax(1)
    total = (out.logits - y).abs().mean() + (each - y).abs().mean() + 0.1 * (entropy + 0.1 * terms["similarity"])
    assert torch.allclose(terms["total"], total + 0.1 * (student - teacher).square().mean())


class Killed(Exception):
    pass


def killed(event: dict[str, Any]) -> None:
    if event["event"] == "epoch":
        raise Killed


@pytest.mark.parametrize("tuning", ["full", "lora", "frozen"])
def test_training_goes_on_after_a_kill_and_its_checkpoint_loads(data: Dataset, tmp_path: Path, tuning: str) -> None:
    tables = recipe("emoe-paper-mosi")
    tables["model"]["text_tuning"] = tuning
    config = configuration(tables)
    with pytest.raises(Killed):
        loop.train(data, config, state=tmp_path / "state", hook=killed)
    resumed, whole = loop.train(data, config, state=tmp_path / "state"), loop.train(data, config)
    assert checkpoint.identify(resumed.predictor) == checkpoint.identify(whole.predictor)
    checkpoint.save(tmp_path / "out", whole.predictor, "")
    loaded = checkpoint.load(tmp_path / "out")
    assert np.array_equal(loaded.scores(data).logits, whole.predictor.scores(data).logits)


def test_it_learns(data: Dataset) -> None:
    options = {**recipe("emoe-paper-mosi")["model"], "text_dropout": 0.0, "output_dropout": 0.0, "embed_dropout": 0.0}
    options.pop("name")
    config = TrainConfig("emoe-paper", options, "sentiment", epochs=30, batch_size=8, lr=3e-3, modality_dropout=0.0)
    trained = loop.train(data, config)
    assert evaluate(trained.predictor, data, "test").metrics["corr"] > 0.7


@pytest.mark.parametrize(("mode", "factor"), [("sum", 1.0), ("mean", 10.0)])
def test_gradients_of_ten_batches_make_a_step_and_those_left_over_too(
    data: Dataset, monkeypatch: pytest.MonkeyPatch, mode: Any, factor: float
) -> None:
    tables = recipe("emoe-paper-mosi", batch_size=2, epochs=1, accumulate_mode=mode)
    quiet = {name: 0.0 for name in ("text_dropout", "output_dropout", "embed_dropout", "attention_dropout")}
    tables["model"] |= {**quiet, "text_tuning": "frozen"}
    config = configuration(tables)
    steps: list[dict[str, torch.Tensor]] = []
    seen: list[Batch] = []
    forward = EmoePaper.forward

    def watched(net: EmoePaper, given: Batch) -> Any:
        if net.training:
            seen.append(given)
        return forward(net, given)

    def kept(optimiser: torch.optim.AdamW) -> None:
        steps.append(
            {str(n): p.grad.clone() for n, p in enumerate(optimiser.param_groups[0]["params"]) if p.grad is not None}
        )

    monkeypatch.setattr(EmoePaper, "forward", watched)
    monkeypatch.setattr(torch.optim.AdamW, "step", kept)
    run = loop.Run(make_plan(data, config, choose_split(data, config), silent), config, None, silent)
    run.epoch(1)
    assert len(seen) == 12 and len(steps) == 2  # 24 rows: ten batches, then the two that are left
    run.model.train()
    run.state.optimiser.zero_grad()
    for given in seen[:10]:
        (run.model.loss(forward(run.model, given), given)["total"] / factor).backward()  # type: ignore[arg-type]
    weights = [p for p in run.state.optimiser.param_groups[0]["params"] if p.grad is not None]
    assert len(weights) == len(steps[0])
    for weight, gradient in zip(weights, steps[0].values(), strict=True):
        assert torch.allclose(weight.grad, gradient, rtol=1e-4, atol=1e-6)
