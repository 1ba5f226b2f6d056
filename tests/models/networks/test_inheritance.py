"""What EMOE takes over from another EMOE, tensor by tensor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from emopipe.errors import ConfigError
from emopipe.models.networks.emoe import Emoe, EmoeConfig
from emopipe.models.networks.emoe_paper import EmoePaper, EmoePaperConfig
from emopipe.models.networks.model import Shape

SMALL = EmoeConfig(width=4, layers=1, heads=2, router_width=6)
OLD = Shape({"text": 5, "face": 3, "voice": 7}, 3, "classification", ("anger", "calm", "joy"))
NEW = Shape({"voice": 7, "text": 5}, 3, "classification", ("joy", "fear", "anger"))
VALUES = Shape({"text": 5, "face": 3, "voice": 7}, 1, "regression")
Label = tuple[str, ...]


def emoe(shape: Shape, seed: int, **options: Any) -> Emoe:
    torch.manual_seed(seed)
    net = Emoe(shape, replace(SMALL, **options))
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    return net


def axes(shape: Shape) -> dict[str, tuple[list[Label], list[Label]]]:
    """What rows and columns of the tensors that may be taken over in part stand for."""
    evidence = [("surety",), ("agreement",)] if shape.classes else [("agreement",)]
    classes: list[Label] = [("class", name) for name in shape.classes or ("a value",)]
    block: list[Label] = [*(("pooled", str(k)) for k in range(8)), *classes, *evidence]
    inputs: list[Label] = [(name, *label) for name in shape.modalities for label in block]
    inputs += [(name, "is there") for name in shape.modalities]
    modalities: list[Label] = [(name,) for name in shape.modalities]
    hidden: list[Label] = [(str(k),) for k in range(6)]
    readouts = {f"branches.{name}.head": classes for name in shape.modalities} | {"head": classes}
    width: list[Label] = [(str(k),) for k in range(4)]
    return {
        "router.evidence": (evidence, [()]),
        "router.absent": (modalities, block),
        "router.hidden.weight": (hidden, inputs),
        "router.gate.weight": (modalities, hidden),
        "router.gate.bias": (modalities, [()]),
        **{f"{name}.readout.weight": (rows, width) for name, rows in readouts.items()},
        **{f"{name}.readout.bias": (rows, [()]) for name, rows in readouts.items()},
    }


@pytest.mark.parametrize(("old", "new"), [(OLD, NEW), (NEW, OLD), (OLD, VALUES), (VALUES, OLD), (OLD, OLD)])
def test_each_entry_comes_from_the_one_of_the_same_meaning(old: Shape, new: Shape) -> None:
    start, net = emoe(old, 0), emoe(new, 1)
    taken = net.inherit(start)
    before, own = start.state_dict(), net.state_dict()
    mine, theirs = axes(new), axes(old)
    assert set(mine) & set(before) <= set(taken.weights)
    for name, value in taken.weights.items():
        if name not in mine:
            assert torch.equal(value, before[name])
            continue
        table, source, begin = (x if x.dim() > 1 else x.unsqueeze(1) for x in (value, before[name], own[name]))
        for i, row in enumerate(mine[name][0]):
            for j, column in enumerate(mine[name][1]):
                expected = 0.0 if name in ("router.hidden.weight", "router.absent") else begin[i, j]
                if row in theirs[name][0] and column in theirs[name][1]:
                    expected = source[theirs[name][0].index(row), theirs[name][1].index(column)]
                assert table[i, j] == expected, (name, row, column)
    whole = set(taken.weights) - (set() if old == new else set(mine))
    assert taken.whole == whole
    skipped = {name for name in own if name not in taken.weights}
    alien = [name for name in new.modalities if name not in old.modalities]
    assert skipped == {name for name in own if any(f".{modality}." in name for modality in alien)}


def test_what_is_told_of_it() -> None:
    taken = emoe(NEW, 1).inherit(emoe(OLD, 0))
    assert (taken.classes, taken.anew, taken.modalities) == (("joy", "anger"), ("fear",), ("voice", "text"))
    assert emoe(OLD, 1).inherit(emoe(NEW, 0)).modalities == ("text", "voice")
    to_values, among_values = emoe(VALUES, 1).inherit(emoe(OLD, 0)), emoe(VALUES, 1).inherit(emoe(VALUES, 0))
    assert (to_values.classes, to_values.anew) == ((), ("values",))
    assert (among_values.classes, among_values.anew) == ((), ())
    again = emoe(VALUES, 2).inherit(emoe(VALUES, 0))
    assert torch.equal(again.weights["head.readout.weight"], emoe(VALUES, 0).state_dict()["head.readout.weight"])


def test_a_fused_head_of_another_width_begins_anew() -> None:
    three, two = emoe(OLD, 0, fusion="concat"), emoe(NEW, 1, fusion="concat")
    taken = two.inherit(three).weights
    assert "head.first.weight" not in taken and "head.second.weight" not in taken
    assert torch.equal(taken["head.readout.weight"], two.head.readout.weight)
    assert torch.equal(taken["branches.text.head.first.weight"], three.state_dict()["branches.text.head.first.weight"])


def test_linear_models_are_not_taken_over() -> None:
    taken = emoe(OLD, 1, linear=True).inherit(emoe(OLD, 0, linear=True))
    assert taken.weights and not any(name.startswith("linear") for name in taken.weights)


@pytest.mark.parametrize(
    "options",
    [
        {"width": 8},
        {"layers": 2},
        {"heads": 1},
        {"kernel": 3},
        {"router_width": 7},
        {"router_posteriors": False},
        {"backbone": "another"},
        {"backbone_tuning": "full"},
        {"lora_rank": 4},
    ],
)
def test_options_that_shape_the_weights_must_agree(options: dict[str, Any]) -> None:
    net, start = emoe(OLD, 0), emoe(OLD, 1)
    start.config = replace(start.config, **options)
    with pytest.raises(ConfigError, match="another model"):
        net.inherit(start)


def test_options_that_shape_no_weights_may_differ() -> None:
    losses: dict[str, Any] = {"lambda1": 0.5, "temperature": 3.0, "output_dropout": 0.0, "relative": True}
    assert len(emoe(OLD, 1, **losses).inherit(emoe(OLD, 0)).weights) == len(emoe(OLD, 0).state_dict())


def test_another_kind_of_model_is_refused() -> None:
    paper = EmoePaper(VALUES, EmoePaperConfig(width=4, layers=1, heads=2, steps=6, text_encoder=False))
    with pytest.raises(ConfigError, match="another model"):
        emoe(VALUES, 0).inherit(paper)


def test_without_posteriors_the_router_has_no_evidence_to_take_over() -> None:
    net, start = emoe(NEW, 1, router_posteriors=False), emoe(OLD, 0, router_posteriors=False)
    taken = net.inherit(start).weights
    assert taken["router.evidence"].numel() == 0
    blocks: Tensor = start.state_dict()["router.hidden.weight"]
    voice, text = blocks[:, 16:24], blocks[:, 0:8]
    bits = blocks[:, [26, 24]]
    assert torch.equal(taken["router.hidden.weight"], torch.cat([voice, text, bits], dim=1))
