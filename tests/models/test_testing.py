"""The conformance suite of fusion models: the built-in ones pass it, and breaches are found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from emopipe.errors import ConfigError
from emopipe.models import registry, testing
from emopipe.models.data.dataset import Batch
from emopipe.models.networks.model import FusionModel, Output
from emopipe.models.registry import MODELS, Entry
from tests.models.networks.test_comparison import NAMES
from tests.models.tiny_backbone import write_backbone

SMALL: dict[str, dict[str, Any]] = {
    **NAMES,
    "linear": {},
    "emoe": {"width": 16, "layers": 1, "heads": 2, "router_width": 8},
    "emoe-paper": {"width": 8, "layers": 1, "heads": 2, "steps": 4, "kernel": 1, "text_encoder": False},
}


@pytest.mark.parametrize("name", SMALL)
def test_built_in_models_pass(name: str) -> None:
    testing.check_model(name, SMALL[name], {"face": 3} if name == "unimodal" else testing.DIMS)


def test_a_model_on_a_language_model_passes(tmp_path: Path) -> None:
    path = write_backbone(tmp_path / "tiny")
    testing.check_model("egmf", {"backbone": "tiny", "backbone_path": str(path), "width": 16, "heads": 2})


def test_every_built_in_model_is_checked() -> None:
    assert set(MODELS) == {*SMALL, "egmf"}


class Careless(FusionModel):
    """A good model with one fault."""

    fault = ""

    def __init__(self, shape: Any, config: Any) -> None:
        super().__init__(shape, config)
        self.inner = registry.build("lf-dnn", shape, NAMES["lf-dnn"])

    def forward(self, batch: Batch) -> Output:
        said: Output = self.inner(batch)
        if self.fault == "weights":
            return replace(said, weights=torch.full_like(said.weights, 1 / 3))
        if self.fault == "absent":
            return replace(said, logits=said.logits + batch.features["face"].mean((1, 2), keepdim=False)[:, None])
        if self.fault == "rows":
            return replace(said, logits=said.logits + said.logits.mean(0))
        if self.fault == "chance":
            return replace(said, logits=said.logits + torch.randn_like(said.logits))
        return said

    def loss(self, output: Output, batch: Batch) -> dict[str, torch.Tensor]:
        terms = self.inner.loss(output, batch)
        return {"total": terms["total"] * torch.nan} if self.fault == "loss" else terms


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("weights", "absent modality has a weight"),
        ("absent", "absent modality is looked at"),
        ("rows", "a row is judged otherwise alone"),
        ("chance", "gives another output"),
        ("loss", "loss is not finite"),
    ],
)
def test_a_breach_is_found_and_named(fault: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    careless = type("Faulty", (Careless,), {"fault": fault})
    monkeypatch.setitem(MODELS, "careless", Entry(careless, MODELS["lf-dnn"].preset))
    with pytest.raises(AssertionError, match=words):
        testing.check_model("careless")


def test_an_unknown_model_is_told() -> None:
    with pytest.raises(ConfigError, match="there is no model 'nothing'"):
        testing.check_model("nothing")
