"""EGMF: experts behind gates, pseudo tokens in prompts, a backbone that is never trained, saved or exchanged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from emopipe.errors import BackboneError, ConfigError, DatasetError
from emopipe.models import checkpoint
from emopipe.models.data.dataset import Batch, Dataset
from emopipe.models.data.reading import read
from emopipe.models.evaluation.evaluate import evaluate
from emopipe.models.networks.backbone import digest
from emopipe.models.networks.egmf.asking import language_of, question_of, range_of, suit_prompts
from emopipe.models.networks.egmf.config import EgmfConfig
from emopipe.models.networks.egmf.encoder import Steps
from emopipe.models.networks.egmf.experts import Experts, Gate, PseudoTokens
from emopipe.models.networks.egmf.graphs import States, padded
from emopipe.models.networks.egmf.language_model import LanguageModel, projections
from emopipe.models.networks.egmf.model import Egmf
from emopipe.models.networks.egmf.prompt import WORDINGS, Prompt, Prompter, grow, pad_left
from emopipe.models.networks.model import Output, Shape
from emopipe.models.registry import configure
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.loop import train
from tests.models.conftest import CLASSES, DIMS, write_dataset
from tests.models.tiny_backbone import write_backbone

PATTERNS = [pattern for pattern in product([False, True], repeat=3) if any(pattern)]
LINES = ("you are good", "so bad!", "well", "", "the end", "hm hm")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def small(backbone: Path) -> EgmfConfig:
    return EgmfConfig(backbone="tiny", backbone_path=str(backbone), width=16, heads=2, pseudo_tokens=2)


def model(config: EgmfConfig, task: Any = "classification", classes: tuple[str, ...] = CLASSES) -> Egmf:
    torch.manual_seed(0)
    if task == "regression":
        return Egmf(Shape(DIMS, 1, task), config).eval()
    return Egmf(Shape(DIMS, len(classes), task, classes), config).eval()


def stirred(net: Egmf) -> Egmf:
    """LoRA begins as no change at all; here it does change something."""
    torch.manual_seed(1)
    for name, parameter in net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return net


def batch(rows: int = 6, present: torch.Tensor | None = None, seed: int = 0, task: str = "classification") -> Batch:
    torch.manual_seed(seed)
    features = {name: torch.randn(rows, 5, dim) for name, dim in DIMS.items()}
    lengths = torch.randint(1, 6, (rows, 3))
    there = torch.ones(rows, 3, dtype=torch.bool) if present is None else present
    labels = torch.arange(rows) % 4 if task == "classification" else torch.linspace(-2, 2, rows)
    words = tuple(LINES[row % 6] for row in range(rows))
    earlier = tuple(LINES[: row % 4] for row in range(rows))
    said = {"words": words, "lines": words, "earlier": earlier}
    return Batch(tuple(DIMS), features, lengths, there, torch.ones(rows, 3), labels, **said)  # type: ignore[arg-type]


def everything(output: Output) -> Iterator[torch.Tensor]:
    yield from (output.logits, output.weights, *output.features.values())


def prompter(net: Egmf, **changes: Any) -> Prompter:
    settings = {"question": "?", "context": 2, "most": 8, "pseudo": 2, **changes}
    return Prompter(net.language_model.tokenizer, WORDINGS["en"], **settings)


# ------------------------------------------------------------------------------------------------- experts and gates


def test_alphas_and_gates_sum_to_one_where_there_is_a_face_or_a_voice(small: EgmfConfig) -> None:
    output = model(small)(batch(7, torch.tensor(PATTERNS)))
    for name in ("alpha", "gate"):
        sums = output.features[name].sum(1).tolist()
        assert sums == pytest.approx([float(face or voice) for _, face, voice in PATTERNS])


@pytest.mark.parametrize("expert", range(3))
def test_a_closed_gate_removes_its_expert(expert: int) -> None:
    torch.manual_seed(0)
    experts, f, present = Experts(16, 3), torch.randn(5, 16), torch.ones(5, 3, dtype=torch.bool)
    open_before = experts(f, present)
    experts.gate.open[expert] = False
    closed = experts(f, present)
    assert (closed.alpha[:, expert] == 0).all() and closed.alpha.sum(1).tolist() == pytest.approx([1.0] * 5)
    assert not torch.allclose(open_before.enhanced, closed.enhanced)
    for parameter in experts.experts[expert].parameters():
        torch.nn.init.normal_(parameter, std=100)
    assert torch.equal(experts(f, present).enhanced, closed.enhanced)


def test_experts_mix_as_the_equation_says() -> None:
    torch.manual_seed(0)
    experts, f = Experts(16, 3), torch.randn(2, 16)
    mixed = experts(f, torch.ones(2, 3, dtype=torch.bool))
    widths = [expert[0].out_features for expert in experts.experts]  # type: ignore[index]
    assert widths == [2, 4, 8]
    mish, gelu, silu = (expert[1](torch.tensor(1.0)).item() for expert in experts.experts)  # type: ignore[index]
    assert (mish, gelu, silu) == pytest.approx((0.865098, 0.841345, 0.731059), abs=1e-5)
    summed = sum(mixed.alpha[:, k : k + 1] * mixed.experts[:, k] for k in range(3))
    assert torch.allclose(mixed.enhanced, experts.norm(f + summed), atol=1e-6)


def test_presence_reaches_the_gates() -> None:
    torch.manual_seed(0)
    experts, f = Experts(16, 3), torch.randn(1, 16)
    alphas = {tuple(experts(f, torch.tensor([pattern])).alpha[0].tolist()) for pattern in PATTERNS}
    assert len(alphas) == len(PATTERNS)


def test_pseudo_tokens_repeat_or_vary() -> None:
    torch.manual_seed(0)
    f = torch.randn(3, 16)
    repeated, affine = PseudoTokens(16, 32, 4, False, 0.5)(f), PseudoTokens(16, 32, 4, True, 0.5)(f)
    assert repeated.shape == affine.shape == (3, 4, 32)
    assert torch.equal(repeated[:, 0], repeated[:, 3]) and not torch.allclose(affine[:, 0], affine[:, 3])
    assert PseudoTokens(64, 256, 1, False, 0.5)(torch.randn(99, 64)).std().item() == pytest.approx(0.5, rel=0.1)


def test_pseudo_tokens_are_made_of_what_the_experts_enhanced(small: EgmfConfig) -> None:
    net, data = model(small), batch()
    assert net.adapter is not None
    f = net(data).features
    mixed = (f["alpha"].unsqueeze(2) * f["experts"]).sum(1)
    assert torch.allclose(f["enhanced"], net.adapter.experts.norm(f["f"] + mixed), atol=1e-5)
    assert torch.allclose(f["pseudo"], net.adapter.pseudo(f["enhanced"]), atol=1e-5)
    assert not torch.allclose(f["pseudo"], net.adapter.pseudo(f["f"]), atol=1e-2)
    before = f["pseudo"]
    for expert in net.adapter.experts.experts:
        torch.nn.init.normal_(expert[2].weight, std=1.0)  # type: ignore[index]
        after = net(data).features["pseudo"]
        assert not torch.allclose(before, after, atol=1e-3)
        before = after


def test_the_gates_may_be_kept_open(small: EgmfConfig) -> None:
    data = batch()
    plain, kept = model(small), model(replace(small, entropy=0.5))
    terms = kept.loss(kept(data), data)
    assert terms["total"].item() == pytest.approx((terms["task"] + 0.5 * terms["entropy"]).item())
    assert plain.loss(plain(data), data)["total"].item() == pytest.approx(terms["task"].item())


def test_an_echo_shows_the_words_twice_and_their_silence_once(small: EgmfConfig) -> None:
    net = model(small)
    tokens = net.language_model.tokenizer
    said = prompter(net, echo=True)
    for signals, shown in ((False, "before\nyes\nyes\n?"), (True, "before\n[yes]\nyes\n?")):
        prompt = said.prompt(said.words("yes"), ["before"], signals)
        ids = prompt.ids[: prompt.slot] + prompt.ids[prompt.slot + prompt.count :]
        assert tokens.decode(ids).replace(" ", "") == shown
    assert said.prompt([], ["before"], False) == prompter(net).prompt([], ["before"], False)


# --------------------------------------------------------------------------------------------- prompts and injection


def test_real_embeddings_in_the_slots_equal_their_token_ids(small: EgmfConfig) -> None:
    lm = stirred(model(small)).language_model
    ids = [5, 9, 11, 40, 41, 7, 30]
    slotted = grow([Prompt([5, 9, 0, 0, 0, 7, 30], 2, 3)], [()], torch.device("cpu"))
    with torch.no_grad():
        read = lm.read(slotted, lm.embed(torch.tensor([[11, 40, 41]])))
        whole = lm.causal(input_ids=torch.tensor([ids])).logits[:, -1]
    assert torch.allclose(lm.logits(read.hidden), whole, atol=1e-5)


def test_slots_are_filled_row_by_row(small: EgmfConfig) -> None:
    lm = model(small).language_model
    prompts = [Prompt([3, 0, 0, 4], 1, 2), Prompt([5, 6]), Prompt([0, 0], 0, 2)]
    pseudo = torch.arange(4.0).view(2, 2, 1).expand(2, 2, 32)
    filled = lm.inject(pad_left(prompts, torch.device("cpu")), pseudo)
    assert filled[0, 1:3, 0].tolist() == [0, 1] and filled[2, 2:, 0].tolist() == [2, 3]
    assert torch.equal(filled[1, 2:], lm.embed(torch.tensor([5, 6])))
    tree = grow(prompts, [(), (), ()], torch.device("cpu"))
    assert lm.inject(tree, pseudo)[tree.slots][:, 0].tolist() == [0, 1, 2, 3]


def test_only_the_answer_is_learned_and_only_what_leads_to_a_token_is_seen() -> None:
    prompts = [Prompt([5, 6, 7, 8]), Prompt([5, 6, 9], 2, 1), Prompt([5, 6, 9]), Prompt([5, 6])]
    tree = grow(prompts, [(11, 12), (13,), (), (7,)], torch.device("cpu"))
    assert tree.ids[0].tolist() == [5, 6, 7, 8, 11, 12, 9, 13, 9]
    assert tree.positions[0].tolist() == [0, 1, 2, 3, 4, 5, 2, 3, 2]
    assert tree.slots[0].nonzero().flatten().tolist() == [6]
    assert tree.ends.tolist() == [3, 6, 8, 1]
    assert list(zip(*(x.tolist() for x in (tree.rows, tree.before, tree.targets)), strict=True)) == [
        (0, 3, 11),
        (0, 4, 12),
        (1, 6, 13),
        (3, 1, 7),
    ]
    seen = [row.nonzero().flatten().tolist() for row in tree.mask[0, 0]]
    assert seen[5] == [0, 1, 2, 3, 4, 5] and seen[7] == [0, 1, 6, 7] and seen[8] == [0, 1, 8]


def test_prompts_are_padded_on_the_left() -> None:
    tokens = pad_left([Prompt([5, 6, 7, 8]), Prompt([9], 0, 1)], torch.device("cpu"))
    assert tokens.ids.tolist() == [[5, 6, 7, 8], [0, 0, 0, 9]]
    assert tokens.mask.tolist() == [[1] * 4, [0] * 3 + [1]]
    assert tokens.positions.tolist() == [[0, 1, 2, 3], [0, 0, 0, 0]]
    assert tokens.slots.nonzero().tolist() == [[1, 3]]


def test_a_long_conversation_is_cut_so_that_its_prompts_begin_alike(small: EgmfConfig) -> None:
    made, lines = prompter(model(small), context=4), tuple("abcdefgh")
    shown = [made.prompt([], lines[:count], False).ids for count in range(9)]
    decode = model(small).language_model.tokenizer.decode
    heads = [decode(ids).split(WORDINGS["en"].silent)[0].replace("\n", "") for ids in shown]
    assert heads == ["", "a", "ab", "abc", "abcd", "cde", "cdef", "efg", "efgh"]


def test_the_cost_of_an_answer_is_that_of_the_language_model(small: EgmfConfig) -> None:
    lm = stirred(model(small)).language_model
    prompts, answers = [Prompt([5, 6, 7, 8]), Prompt([9, 20])], [(11, 12, 1), (13,)]
    with torch.no_grad():
        costs = lm.read(grow(prompts, answers, torch.device("cpu"))).costs
        for prompt, answer, cost in zip(prompts, answers, costs, strict=True):
            labels = torch.tensor([[-100] * len(prompt.ids) + list(answer)])
            loss = lm.causal(input_ids=torch.tensor([[*prompt.ids, *answer]]), labels=labels).loss
            assert cost.item() == pytest.approx(loss.item() * len(answer), rel=1e-4)


def test_answers_are_those_of_greedy_generation(small: EgmfConfig) -> None:
    lm = stirred(model(small)).language_model
    tokens = pad_left([Prompt([5, 6, 7, 8, 30]), Prompt([9, 20])], torch.device("cpu"))
    found: list[list[int]] = []
    lm._text = found.append  # type: ignore[method-assign, assignment]
    lm.answer(tokens, None, 5)
    expected = lm.causal.generate(
        input_ids=tokens.ids, attention_mask=tokens.mask, max_new_tokens=5, do_sample=False, eos_token_id=None
    )
    assert found == expected[:, tokens.ids.shape[1] :].tolist()


def test_generation_ends_with_the_last_answer(small: EgmfConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = model(small).language_model
    one, end = lm.tokenizer("1")["input_ids"][0], lm.tokenizer.eos_token_id
    said = iter([[one, one], [end, one], [one, end]])

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor(next(said)), lm.causal.config.vocab_size).float()

    monkeypatch.setattr(lm, "logits", logits)
    answers, _ = lm.answer(pad_left([Prompt([5, 6]), Prompt([9])], torch.device("cpu")), None, 9)
    assert answers == ["1", "11"] and next(said, None) is None


def test_an_answer_that_does_not_end_is_none(small: EgmfConfig) -> None:
    lm = model(small).language_model
    one, five = lm.tokenizer("1")["input_ids"][0], lm.tokenizer("5")["input_ids"][0]
    assert lm._text([one, five, 1, 77]) == "15"
    assert lm._text([one, five]) is None


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_prompt_reads_in_order(small: EgmfConfig, language: Any) -> None:
    net = model(replace(small, language=language, context=1))
    wording, decode = WORDINGS[language], net.language_model.tokenizer.decode
    both = net.prompter.prompt(net.prompter.words("so bad"), ("not shown", "shown"), True)
    before, after = decode(both.ids[: both.slot]), decode(both.ids[both.slot + 2 :])
    assert before == f"shown\n{wording.opening}"
    lead = wording.choose.split("\n")[-1].format(question=wording.questions["emotion"])
    assert after.startswith(f"so bad{wording.closing}\n") and after.endswith(lead)
    assert wording.comma.join(CLASSES) in after
    bare = net.prompter.prompt(net.prompter.words("so bad"), (), False)
    assert bare.count == 0 and wording.opening not in decode(bare.ids) and wording.closing not in decode(bare.ids)
    silent = net.prompter.prompt([], (), True)
    assert wording.silent in decode(silent.ids)
    unread = Egmf(Shape({"face": 3, "voice": 3}, len(CLASSES), "classification", CLASSES), small)
    assert wording.silent not in decode(unread.prompter.prompt([], (), True).ids)


def test_long_words_are_cut(small: EgmfConfig) -> None:
    made = prompter(model(small))
    assert len(made.words("x" * 100)) == 8
    long = made.prompt([], ("y" * 100,) * 5, False)
    short = made.prompt([], ("y" * 8,) * 2, False)
    assert long.ids == short.ids


def test_what_the_tokenizer_begins_with_comes_first(tmp_path: Path, small: EgmfConfig) -> None:
    net = model(replace(small, backbone_path=str(write_backbone(tmp_path, bos=True))))
    prompt = net.prompter.prompt(net.prompter.words("so bad"), (), True)
    assert prompt.ids[0] == 0 and prompt.ids.count(0) == 1 + prompt.count


def test_a_task_prompt_of_ones_own(small: EgmfConfig) -> None:
    net = model(replace(small, task_prompt="Pick {classes}:"))
    ids = net.prompter.prompt([], (), False).ids
    assert net.language_model.tokenizer.decode(ids).endswith(f"Pick {', '.join(CLASSES)}:")
    with pytest.raises(ConfigError, match="task_prompt"):
        model(replace(small, task_prompt="Pick {nothing}"))


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_batched_with_others_or_alone_is_the_same(small: EgmfConfig, task: str) -> None:
    net = stirred(model(replace(small, context=3), task))
    data = replace(batch(7, torch.tensor(PATTERNS), task=task), labels=None)
    with torch.no_grad():
        together = net(data)
        for row in range(7):
            one = slice(row, row + 1)
            alone = net(
                Batch(
                    data.modalities,
                    {name: x[one] for name, x in data.features.items()},
                    data.lengths[one],
                    data.present[one],
                    data.quality[one],
                    words=data.words[one],
                    lines=data.lines[one],
                    earlier=data.earlier[one],
                )
            )
            for a, b in zip(everything(together), everything(alone), strict=True):
                assert torch.allclose(a[one], b, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_chunks_of_a_large_batch_come_back_in_order(
    small: EgmfConfig, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = stirred(model(replace(small, context=3), task))
    data = batch(14, torch.tensor(PATTERNS * 2), task=task)
    with torch.no_grad():
        whole = net(data)
        monkeypatch.setattr("emopipe.models.networks.egmf.model.CHUNK", 3)
        for a, b in zip(everything(whole), everything(net(data)), strict=True):
            assert torch.allclose(a, b, atol=1e-4, equal_nan=True)


def test_context_and_words_reach_the_answer(small: EgmfConfig) -> None:
    net, data = stirred(model(replace(small, context=1))), batch(2)
    with torch.no_grad():
        base = net(replace(data, lines=("good", "good"), earlier=(("well",), ("bad",)))).logits
        other = net(replace(data, lines=("good", "bad"), earlier=(("well",), ("well",)))).logits
        forgetful = stirred(model(small))(replace(data, words=("good", "good"), earlier=(("well",), ("bad",)))).logits
        same = stirred(model(small))(replace(data, words=("good", "good"), earlier=((), ()))).logits
    assert not torch.allclose(base[1], other[1])
    assert torch.equal(forgetful, same)


# --------------------------------------------------------------------------------------------------- absent modalities


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("seed", range(3))
def test_content_of_an_absent_modality_changes_no_bit(small: EgmfConfig, task: str, seed: int) -> None:
    net = stirred(model(replace(small, context=2), task))
    one = batch(7, torch.tensor(PATTERNS), seed, task)
    gone = ~one.present
    features = {
        name: torch.where(gone[:, column].view(-1, 1, 1), torch.nan, steps)
        for column, (name, steps) in enumerate(one.features.items())
    }
    silent = gone[:, 0].tolist()
    two = replace(
        one,
        features=features,
        lengths=one.lengths + 3 * gone,
        lines=tuple("other words, and more of them" if s else w for s, w in zip(silent, one.lines, strict=True)),
        earlier=tuple(("gone",) if s else e for s, e in zip(silent, one.earlier, strict=True)),
    )
    with torch.no_grad():
        for a, b in zip(everything(net(one)), everything(net(two)), strict=True):
            assert torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("pattern", [*PATTERNS, None])
def test_every_subset_trains_a_step_without_nan(small: EgmfConfig, task: str, pattern: tuple[bool, ...] | None) -> None:
    net = model(replace(small, pseudo="affine", entropy=0.1), task).train()
    data = batch(7, torch.tensor([pattern] * 7 if pattern else PATTERNS), task=task)
    optimiser = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    terms = net.loss(net(data), data)
    terms["total"].backward()
    optimiser.step()
    assert all(torch.isfinite(term) for term in terms.values())
    assert all(torch.isfinite(parameter).all() for parameter in net.parameters())


def test_nothing_present_gives_finite_logits_and_no_weights(small: EgmfConfig) -> None:
    output = model(small)(batch(2, torch.zeros(2, 3, dtype=torch.bool)))
    assert torch.isfinite(output.logits).all() and (output.weights == 0).all()


def test_words_alone_bring_no_pseudo_tokens_and_teach_the_adapter_nothing(small: EgmfConfig) -> None:
    net = model(small).train()
    data = batch(3, torch.tensor([[True, False, False]] * 3))
    assert all(prompt.count == 0 for prompt in net._prompts(data, net._words(data)))
    net.loss(net(data), data)["total"].backward()
    assert net.adapter is not None and all(p.grad is None for p in net.adapter.parameters())


def test_missing_words_query_with_the_learned_vector(small: EgmfConfig) -> None:
    net = model(small)
    assert net.adapter is not None
    said = net.adapter.fusion._words(Steps(torch.randn(2, 3, 32), torch.tensor([[False] * 3, [False, True, True]])))
    assert said.valid.tolist() == [[True, False, False, False], [False, False, True, True]]


# -------------------------------------------------------------------------------------------- classes, values, failure


def test_class_logits_are_those_of_the_label_tokens(small: EgmfConfig) -> None:
    net, data = stirred(model(small)), batch(3)
    assert net.labels is not None and net.labels.first is not None
    with torch.no_grad():
        output = net(data)
        vocabulary = net.language_model.logits(output.features["fused"])
    assert torch.equal(output.logits, vocabulary[:, list(net.labels.first)])


def test_classes_that_begin_alike_are_scored_by_their_whole_names(small: EgmfConfig) -> None:
    net, data = stirred(model(small, classes=("xa", "xb", "xab"))), replace(batch(3), labels=torch.tensor([0, 1, 2]))
    assert net.labels is not None and net.labels.first is None
    with torch.no_grad():
        words = net._words(data)
        pseudo, _ = net._adapt(data, words)
        tree = grow(net._prompts(data, words), [net.labels.answers[2]] * 3, torch.device("cpu"))
        assert torch.allclose(net(data).logits[:, 2], -net.language_model.read(tree, pseudo).costs, atol=1e-5)
    net.train()
    net.loss(net(data), data)["total"].backward()


@pytest.mark.parametrize("classes", [CLASSES, ("xa", "xb", "xab", "xc")])
def test_the_language_objective_is_the_mean_cost_of_the_right_answers_tokens(
    small: EgmfConfig, classes: tuple[str, ...]
) -> None:
    net, data = stirred(model(replace(small, objective="language"), classes=classes)), batch(4)
    assert net.labels is not None and data.labels is not None
    with torch.no_grad():
        words = net._words(data)
        pseudo, _ = net._adapt(data, words)
        answers = [net.labels.answers[int(label)] for label in data.labels]
        tree = grow(net._prompts(data, words), answers, torch.device("cpu"))
        costs = net.language_model.read(tree, pseudo).costs / torch.tensor([len(answer) for answer in answers])
        output = net(data)
        assert net.loss(output, data)["task"].item() == pytest.approx(costs.mean().item(), rel=1e-4)
        assert torch.allclose(output.logits, net(replace(data, labels=None)).logits, atol=1e-4)


def test_a_failure_to_say_a_number_is_a_failure(small: EgmfConfig, words_only: Dataset) -> None:
    options = {**vars(small), "lora_rank": 1}
    trained = train(words_only, TrainConfig("egmf", options, "sentiment", ("text",), epochs=1, lr=1e-6))
    sample = words_only.select(["text"]).sample(0)
    (prediction,) = trained.predictor.predict([sample])
    assert prediction.value is None and prediction.abstained and prediction.label is None
    measured = evaluate(trained.predictor, words_only, "valid").metrics
    assert measured["parse_failure_rate"] == 1 and np.isnan(measured["mae"])


def test_labels_out_of_range_are_refused(small: EgmfConfig) -> None:
    net = model(replace(small, value_range=(-1.0, 1.0)), "regression").train()
    with pytest.raises(ConfigError, match="value_range"):
        net(batch(task="regression"))


# ------------------------------------------------------------------------------------------------------------ learning


def dataset(folder: Path, count: int = 240, signals: bool = True) -> Dataset:
    """Words and signals that tell the class, each with noise; the sentiment is -1.5, -0.5, 0.5 or 1.5 by class."""
    rng = np.random.default_rng(0)
    directions = {name: rng.normal(size=(len(CLASSES), dim)) for name, dim in DIMS.items()}
    told = ("good the", "bad the", "good good", "bad bad")
    rows: list[dict[str, Any]] = []
    features: dict[str, dict[str, np.ndarray]] = {name: {} for name in DIMS}
    for number in range(count):
        label, key = number % 4, f"k{number}"
        row = {"id": f"u{number}", "speaker": f"s{number % 10}", "split": "valid" if number % 5 == 0 else "train",
               "label": CLASSES[label], "sentiment": label - 1.5, "words": told[label]}  # fmt: skip
        for name, dim in DIMS.items():
            if signals or name == "text":
                features[name][key] = directions[name][label] + 0.5 * rng.normal(size=(3, dim))
                row[name] = key
        if signals and number % 3 == 0:
            row["text"] = None
        rows.append(row)
    return read(write_dataset(folder, rows, features))


@pytest.fixture(scope="module")
def words_only(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return dataset(tmp_path_factory.mktemp("words"), signals=False)


@pytest.fixture(scope="module")
def signals(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return dataset(tmp_path_factory.mktemp("signals"))


@pytest.mark.parametrize("objective", ["labels", "language"])
def test_it_learns_classes_from_words(small: EgmfConfig, words_only: Dataset, objective: str) -> None:
    options = {**vars(small), "objective": objective, "task_prompt": "Is it {classes}?"}
    config = TrainConfig("egmf", options, modalities=("text",), epochs=8, lr=2e-2, batch_size=16)
    assert train(words_only, config).best["valid"]["uar"] > 0.9


def test_it_learns_classes_from_face_and_voice(small: EgmfConfig, signals: Dataset) -> None:
    options = {**vars(small), "lora_rank": 0, "task_prompt": "Is it {classes}?"}
    config = TrainConfig("egmf", options, modalities=("face", "voice"), epochs=8, lr=1e-2, batch_size=16)
    assert train(signals, config).best["valid"]["uar"] > 0.9


def test_a_model_of_words_learns_to_see_and_to_hear(small: EgmfConfig, words_only: Dataset, signals: Dataset) -> None:
    config = TrainConfig("egmf", {**vars(small), "task_prompt": "?"}, modalities=("text",), epochs=1, batch_size=16)
    first = train(words_only, config).predictor
    grown = train(signals, replace(config, modalities=(), lr=1e-9), start=first).predictor.module.state_dict()
    assert any(name.startswith("adapter.") for name in grown)
    assert all(torch.allclose(grown[name], value, atol=1e-6) for name, value in first.module.state_dict().items())


@pytest.mark.slow
def test_a_model_of_words_that_learns_to_see_reads_words_as_before(
    small: EgmfConfig, words_only: Dataset, signals: Dataset
) -> None:
    config = TrainConfig("egmf", {**vars(small), "task_prompt": "?"}, modalities=("text",), epochs=1, batch_size=16)
    first = train(words_only, config).predictor
    options = {**config.options, "freeze_lora": True}
    # Batches of one: in some of them both face and voice are hidden, and there is nothing to learn.
    changes = {"options": options, "modalities": (), "batch_size": 1, "modality_dropout": 0.5, "lr": 1e-2}
    seen = train(signals, replace(config, **changes), start=first).predictor  # type: ignore[arg-type]
    again = train(signals, replace(config, **{**changes, "lr": 1e-9}), start=first).predictor  # type: ignore[arg-type]
    known, before = seen.module.state_dict(), first.module.state_dict()
    assert all(torch.equal(known[name], value) for name, value in before.items())
    assert any(not torch.equal(known[name], value) for name, value in again.module.state_dict().items())
    assert np.allclose(seen.scores(words_only).logits, first.scores(words_only).logits, atol=1e-5)


def test_an_epoch_that_answers_little_is_not_the_best(small: EgmfConfig, words_only: Dataset) -> None:
    options = {**vars(small), "lora_rank": 1}
    silent = train(words_only, TrainConfig("egmf", options, "sentiment", ("text",), epochs=1, lr=1e-6)).best
    assert silent["valid"]["parse_failure_rate"] == 1 and 0.9 < silent["score"] < 1.1


def test_it_learns_to_say_values(small: EgmfConfig, signals: Dataset) -> None:
    options = {**vars(small), "task_prompt": "From {low} to {high}?"}
    config = TrainConfig("egmf", options, "sentiment", epochs=10, lr=2e-2, batch_size=16)
    trained = train(signals, config)
    assert trained.best["valid"]["mae"] < 0.4 and trained.best["valid"]["parse_failure_rate"] < 0.1
    (prediction, *_) = trained.predictor.predict([signals.sample(1)])
    assert prediction.value in {round(tenth / 10, 1) for tenth in range(-30, 31)}


@pytest.mark.slow
def test_only_adapter_and_lora_are_trained(small: EgmfConfig, signals: Dataset) -> None:
    before = LanguageModel(replace(small, lora_rank=0)).causal.state_dict()
    net = train(signals, TrainConfig("egmf", vars(small), epochs=1, lr=1e-2)).predictor.module
    assert isinstance(net, Egmf)
    after = {
        name.replace(".base_layer", ""): value
        for name, value in net.language_model.causal.state_dict().items()
        if ".lora_" not in name
    }
    assert before.keys() == after.keys() and all(torch.equal(value, after[name]) for name, value in before.items())


def test_gradients_of_words_stop_below_the_changed_layers(small: EgmfConfig) -> None:
    net = model(replace(small, lora_layers=1)).train()
    assert {name.split("layers.")[1][0] for name, p in net.named_parameters() if "lora_" in name} == {"1"}
    reached: list[bool] = []
    layers = net.language_model.causal.get_decoder().layers
    layers[0].register_forward_hook(lambda _, __, states: reached.append(states.requires_grad))
    net(batch(2, torch.tensor([[True, False, False]] * 2)))
    assert reached == [False]


@pytest.mark.parametrize("pattern", [*PATTERNS, None])
def test_half_precision_and_checkpointing_train_too(small: EgmfConfig, pattern: tuple[bool, ...] | None) -> None:
    net = model(replace(small, dtype="bfloat16", gradient_checkpointing=True)).train()
    data = batch(7, torch.tensor([pattern] * 7 if pattern else PATTERNS))
    with torch.autocast("cpu", torch.bfloat16):
        total = net.loss(net(data), data)["total"]
    total.backward()
    assert torch.isfinite(total) and total.dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in net.parameters() if p.requires_grad)


@pytest.mark.parametrize("length", [1, 20, 128, 130])
def test_padding_to_the_length_of_a_graph_changes_no_state(small: EgmfConfig, length: int) -> None:
    decoder = States(stirred(model(small)).language_model.causal.get_decoder())
    torch.manual_seed(0)
    lowest = torch.finfo(torch.float32).min
    mask = torch.full((1, 1, length, length), lowest).triu(1)
    given = torch.randn(1, length, 32), mask, torch.arange(length).unsqueeze(0)
    wide = padded(*given)
    assert wide[0].shape[1] % 128 == 0 and wide[0].shape[1] - length < 128
    assert torch.allclose(decoder(*wide)[:, :length], decoder(*given), atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("words_alone", [True, False])
@pytest.mark.parametrize("objective", ["labels", "language"])
def test_cuda_graphs_change_no_gradient(small: EgmfConfig, words_alone: bool, objective: Any) -> None:
    config = replace(small, dtype="float32", lora_dropout=0.0, dropout=0.0, objective=objective)
    plain, graphed = (stirred(model(replace(config, cuda_graphs=graphs))).train().cuda() for graphs in (False, True))
    present = torch.tensor([[True, not words_alone, not words_alone]])
    batches = [batch(rows, present.expand(rows, 3), seed=rows).to(torch.device("cuda")) for rows in (6, 20, 6, 3)]
    for batches_to_a_step in (batches[:1], batches[1:2], batches, batches):
        for net in (plain, graphed):
            net.zero_grad(set_to_none=True)
            for one in batches_to_a_step:
                net.loss(net(one), one)["total"].backward()
        for (name, expected), found in zip(plain.named_parameters(), graphed.parameters(), strict=True):
            if expected.grad is not None:
                assert found.grad is not None and torch.allclose(found.grad, expected.grad, atol=1e-5, rtol=1e-3), name
    assert graphed.language_model._graphs is not None and graphed.language_model._graphs._graphs


def test_without_words_or_anything_to_train_training_is_refused(small: EgmfConfig, shared: Dataset) -> None:
    with pytest.raises(DatasetError, match="no words"):
        train(shared, TrainConfig("egmf", vars(small), epochs=1))
    with pytest.raises(ConfigError, match="nothing to train"):
        train(dataset_of_words(shared), TrainConfig("egmf", {**vars(small), "lora_rank": 0}, modalities=("text",)))
    with pytest.raises(ConfigError, match="nothing to train"):
        train(dataset_of_words(shared), TrainConfig("egmf", {**vars(small), "freeze_lora": True}, modalities=("text",)))


def dataset_of_words(plain: Dataset) -> Dataset:
    manifest = plain.manifest.append_column("words", [["good"] * len(plain)])
    return Dataset(manifest, plain._stores, plain.extraction, plain.hash)


# --------------------------------------------------------------------------------------------------------- checkpoints


@pytest.fixture(scope="module")
def saved(small: EgmfConfig, signals: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    trained = train(signals, TrainConfig("egmf", {**vars(small), "context": 1}, epochs=2, lr=1e-2))
    checkpoint.save(folder, trained.predictor, "card")
    np.save(folder.with_name("logits.npy"), trained.predictor.scores(signals).logits)
    return folder


def test_a_checkpoint_holds_no_backbone_and_says_the_same(saved: Path, backbone: Path, signals: Dataset) -> None:
    again = checkpoint.load(saved, options={"backbone_path": str(backbone)})
    assert np.array_equal(again.scores(signals).logits, np.load(saved.with_name("logits.npy")))
    names = load_file(saved / "model.safetensors").keys()
    assert names and all(name.startswith("adapter.") or ".lora_" in name for name in names)
    assert (saved / "model.safetensors").stat().st_size < (backbone / "model.safetensors").stat().st_size
    assert checkpoint.identify(again) == json.loads((saved / "config.json").read_text())["id"]


def test_a_checkpoint_names_its_backbone_but_no_place_on_this_machine(saved: Path, backbone: Path) -> None:
    options = checkpoint.read_spec(saved).options
    assert options["backbone"] == "tiny" and options["backbone_sha256"] == digest(backbone)
    assert options["backbone_path"] == "" and str(backbone) not in (saved / "config.json").read_text()


def test_another_backbone_is_refused_naming_both(saved: Path, backbone: Path, tmp_path: Path) -> None:
    other = write_backbone(tmp_path, seed=1)
    with pytest.raises(BackboneError) as error:
        checkpoint.load(saved, options={"backbone_path": str(other)})
    assert digest(backbone) in str(error.value) and digest(other) in str(error.value)


@pytest.mark.parametrize("path", ["", "/nowhere", "nobody/nothing"])
def test_a_missing_backbone_is_told(saved: Path, path: str) -> None:
    with pytest.raises(BackboneError, match="tiny is not here"):
        checkpoint.load(saved, options={"backbone_path": path})


def test_a_default_checkpoint_is_small() -> None:
    """Sizes of SmolLM2-135M: 30 layers of width 576 with three heads of 64 for keys and values."""
    from emopipe.models.networks.egmf.model import Adapter

    shape = Shape({"text": 384, "face": 1500, "voice": 600}, 7, "classification", CLASSES)
    adapter = Adapter(shape, ("face", "voice"), 576, 0.1, EgmfConfig())
    lora = 30 * 8 * (2 * (576 + 576) + 2 * (576 + 192))
    assert 4 * (sum(p.numel() for p in adapter.parameters()) + lora) < 20e6


@pytest.mark.slow
def test_training_goes_on_after_a_kill(small: EgmfConfig, signals: Dataset, tmp_path: Path) -> None:
    config = TrainConfig("egmf", vars(small), epochs=2, lr=1e-2, batch_size=64)
    whole = train(signals, config)

    def stop(event: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(signals, config, state=tmp_path, hook=stop)
    resumed = train(signals, config, state=tmp_path)
    assert resumed.history == whole.history
    assert (tmp_path / "state.safetensors").stat().st_size < 2e6


def test_damaged_backbones_are_told(backbone: Path, tmp_path: Path, small: EgmfConfig) -> None:
    shutil.copytree(backbone, tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BackboneError, match="cannot be read"):
        model(replace(small, backbone_path=str(tmp_path)))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match="no safetensors"):
        model(replace(small, backbone_path=str(tmp_path)))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj"), ("q_proj", "k_proj", "v_proj", "o_proj")),
        (("qkv_proj", "o_proj"), ("qkv_proj", "o_proj")),
        (("query_key_value", "dense", "dense_h_to_4h"), ("query_key_value", "dense")),
    ],
)
def test_lora_goes_to_the_attention_of_each_family(names: tuple[str, ...], expected: tuple[str, ...]) -> None:
    layer = torch.nn.ModuleDict({name: torch.nn.Linear(2, 2) for name in names})
    assert projections(torch.nn.ModuleList([layer])) == expected


SEPARATE, PHI = ("q_proj", "k_proj", "v_proj", "o_proj"), ("q_proj", "k_proj", "v_proj", "dense")
FAMILIES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("llama", "qwen2", "qwen3", "glm", "glm4", "mistral", "gemma", "gemma2", "gemma3_text"), SEPARATE),
    "phi": PHI,
    "phi3": ("qkv_proj", "o_proj"),
    "gpt_neox": ("query_key_value", "dense"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_backbone_of_each_family_is_changed_read_and_trained(family: str, tmp_path: Path, small: EgmfConfig) -> None:
    folder = write_backbone(tmp_path, family=family)
    net = model(replace(small, backbone_path=str(folder), lora_dropout=0.0, dropout=0.0))
    changed = {name.split(".lora_")[0].rpartition(".")[2] for name, _ in net.named_parameters() if ".lora_" in name}
    assert changed == set(FAMILIES[family])
    given = batch()
    net.loss(net.train()(given), given)["total"].backward()
    lora = {name: parameter for name, parameter in net.named_parameters() if ".lora_B" in name}
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in lora.values()), family
    pseudo = net.adapter.pseudo.project.weight  # type: ignore[union-attr]
    assert pseudo.grad is not None and pseudo.grad.abs().sum() > 0
    with torch.no_grad():
        together = stirred(net).eval()(given).logits
        alone = torch.cat([net(given_row(given, row)).logits for row in range(len(given))])
    assert torch.allclose(together, alone, atol=1e-4)


def given_row(whole: Batch, row: int) -> Batch:
    """A batch of one of its rows."""
    features = {name: x[row : row + 1] for name, x in whole.features.items()}
    at = slice(row, row + 1)
    return replace(
        whole,
        features=features,
        lengths=whole.lengths[at],
        present=whole.present[at],
        quality=whole.quality[at],
        labels=None if whole.labels is None else whole.labels[at],
        words=whole.words[at],
        lines=whole.lines[at],
        earlier=whole.earlier[at],
    )


@pytest.mark.parametrize(("kind", "words"), [("chatglm", "ChatGLM"), ("own-thing", "own-thing")])
def test_code_of_a_backbone_is_never_run(
    kind: str, words: str, backbone: Path, tmp_path: Path, small: EgmfConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is anybody asked on the terminal whether it may be."""
    shutil.copytree(backbone, tmp_path, dirs_exist_ok=True)
    (tmp_path / "own.py").write_text("raise SystemExit('this code was run')")
    names = {"AutoConfig": "own.C", "AutoModel": "own.M", "AutoModelForCausalLM": "own.M"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "auto_map": names}))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    with pytest.raises(BackboneError, match=words) as refused:
        model(replace(small, backbone_path=str(tmp_path)))
    assert "GLM-4" in (refused.value.hint or "")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([-2.4, 1.0, 3.0], (-3.0, 3.0)),
        ([-0.8, 0.2, 1.0], (-1.0, 1.0)),
        ([0.2, 0.8], (-1.0, 1.0)),
        ([1.0, 9.0], (1.0, 9.0)),
        ([4.0, 4.0], (4.0, 5.0)),
    ],
)
def test_the_range_is_that_of_the_labels(labels: list[float], expected: tuple[float, float]) -> None:
    assert range_of(labels) == expected


def test_language_and_question_are_those_of_the_dataset() -> None:
    assert [language_of(one) for one in (["so bad"], ["今天我很高兴 OK"], [""], ["well 好", "very well indeed"])] == [
        "en",
        "zh",
        "en",
        "en",
    ]
    assert question_of("label", ("anger", "other")) == "emotion"
    assert question_of("label", ("positive", "neutral", "negative")) == "sentiment"
    assert question_of("intent", ("anger", "joy")) == "intent"
    assert question_of("label", ("Complain", "Praise", "Thank")) == "class"
    kept = EgmfConfig(language="en", question="emotion", value_range=(-5.0, 5.0))
    assert suit_prompts(kept, ["今天我很高兴"], "intent", ("a", "b"), (0.5,)) == kept
    with_all = suit_prompts(EgmfConfig(), ["今天我很高兴"], "label", (), (0.5, -0.2))
    assert (with_all.language, with_all.value_range) == ("zh", (-1.0, 1.0))


def test_training_takes_range_and_question_from_its_rows(small: EgmfConfig, signals: Dataset) -> None:
    options = {name: getattr(small, name) for name in ("backbone", "backbone_path", "width", "heads", "pseudo_tokens")}
    trained = train(signals, TrainConfig("egmf", options, epochs=1, batch_size=64))
    spec = trained.predictor.spec
    assert (spec.options["language"], spec.options["question"]) == ("en", "emotion")
    net = trained.predictor.module
    assert isinstance(net, Egmf)
    ids = net.prompter.prompt(net.prompter.words("well"), (), True).ids
    assert "Which emotion does the last line express?" in net.language_model.tokenizer.decode(ids)


@pytest.mark.parametrize("stages", ["two-stage", "first", "second", "uniform"])
def test_stages_of_the_gate_are_taken_away(stages: Any) -> None:
    torch.manual_seed(0)
    gate, f, present = Gate(16, 3, stages, (2,)), torch.randn(5, 16), torch.ones(5, 3, dtype=torch.bool)
    w, alpha = gate(f, present)
    assert torch.allclose(alpha.sum(1), torch.ones(5)) and (alpha[:, 1] == 0).all()
    before = [one.clone() for one in gate.first.parameters()]
    with torch.no_grad():
        for one in gate.first.parameters():
            one.add_(torch.randn_like(one))
    moved = not torch.allclose(gate(f, present)[1], alpha)
    assert moved == (stages in ("two-stage", "first"))
    with torch.no_grad():
        for one, old in zip(gate.first.parameters(), before, strict=True):
            one.copy_(old)
        for one in gate.second.parameters():
            one.add_(torch.randn_like(one))
    assert (not torch.allclose(gate(f, present)[1], alpha)) == (stages in ("two-stage", "second"))
    if stages == "first":
        open_ones = w[:, [0, 2]]
        assert torch.allclose(alpha[:, [0, 2]], open_ones / open_ones.sum(1, keepdim=True))
    if stages == "uniform":
        assert torch.allclose(alpha[:, [0, 2]], torch.full((5, 2), 0.5))


def test_an_unknown_attention_wants_its_names(small: EgmfConfig) -> None:
    with pytest.raises(ConfigError, match="lora_targets"):
        projections(torch.nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="LoRA"):
        model(replace(small, lora_targets=("no_such_layer",)))
    with pytest.raises(ConfigError, match="no layer query_key_value"):
        model(replace(small, lora_targets=("up_proj", "query_key_value")))
    names = {n for n, _ in model(replace(small, lora_targets=("up_proj",))).named_parameters() if "lora_" in n}
    assert names and all("up_proj" in name for name in names)


@pytest.mark.parametrize(
    "options",
    [{"width": 12}, {"width": 16, "heads": 3}, {"value_range": (1.0, -1.0)}, {"context": -1}, {"pseudo_tokens": 0}],
)
def test_unusable_configurations_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        configure("egmf", options)


def test_classes_need_names(small: EgmfConfig) -> None:
    with pytest.raises(ConfigError, match="names of the classes"):
        Egmf(Shape(DIMS, 4, "classification"), small)
