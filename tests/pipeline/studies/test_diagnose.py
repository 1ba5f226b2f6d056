"""`emopipe diagnose` writes one page with its findings on top, tables and pictures."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from emopipe.models.evaluation.diagnose import Ablation, gate_use
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.studies.diagnose import _ablation_findings, _correlation_findings, _gate_findings
from tests.pipeline.conftest import SMALL

EMOE = """
[train]
epochs = 1
batch_size = 16
[model]
width = 16
layers = 1
heads = 2
"""


@pytest.fixture(autouse=True)
def given(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOPIPE_WEIGHTS", str(tiny_weights))


def invoke(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == code, result.output
    return result.output


def diagnosed(dataset: Path, folder: Path, config: str, *options: str, label: str = "label") -> tuple[Path, str]:
    """Train and diagnose: the folder of the results, and what was printed."""
    (folder / "config.toml").write_text(config)
    invoke("train", dataset, "--out", folder / "model", "--config", folder / "config.toml", "--label", label)
    shown = invoke("diagnose", folder / "model", dataset, "--out", folder / "out", "--split", "all", *options)
    return folder / "out", shown


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_egmf_is_diagnosed_and_its_backbones_compared(conversations: Path, tmp_path: Path) -> None:
    out, shown = diagnosed(
        conversations, tmp_path, SMALL, "--backbones", "own,smollm2-135m", "--by", "language", "--json"
    )
    told = json.loads(shown.splitlines()[-1])
    page = (out / "diagnosis.md").read_text()
    assert any("6 speakers" in finding for finding in told["findings"])
    assert all(f"- {finding}\n" in page for finding in told["findings"]) and "The gate" in told["findings"][0]
    names = ("gate", "correlation", "similarity", "ablation", "backbones")
    expected = {str(out / f"{name}.{kind}") for name in names for kind in ("csv", "png", "svg")}
    assert set(told["files"]) == expected | {str(out / "diagnosis.md"), str(out / "groups.csv")}
    groups = table(out / "groups.csv")
    assert {row["language"] for row in groups} == {"en"} and groups[0]["part"] == "whole model"
    assert {"without text", "without face", "without voice", "without LoRA"} <= {row["part"] for row in groups}
    assert float(groups[0]["low"]) <= float(groups[0]["uar"]) <= float(groups[0]["high"])
    assert "\n## Alarms\n" in page and "\n## By language\n" in page
    assert all(f"({name}.png)" in page and (out / f"{name}.png").stat().st_size > 5_000 for name in names)
    stages = [(row["stage"], row["branch"]) for row in table(out / "gate.csv")]
    assert stages == [(stage, f"d/{n}") for stage in ("first stage", "second stage") for n in (8, 4, 2)]
    assert len(table(out / "correlation.csv")) == 3 and len(table(out / "similarity.csv")) == 6
    assert [row["part"] for row in table(out / "ablation.csv")][3:] == [
        *("expert d/8", "expert d/4", "expert d/2", "all experts", "LoRA")
    ]
    same, own, again = table(out / "backbones.csv")
    assert same["backbone"] == "smollm2-135m (checkpoint)" and own["backbone"] == "own"
    assert again["uar"] == same["uar"] and float(again["difference"]) == 0


@pytest.mark.parametrize("config", [SMALL, EMOE])
def test_values_are_diagnosed_even_where_none_was_said(conversations: Path, tmp_path: Path, config: str) -> None:
    out, _ = diagnosed(conversations, tmp_path, config, "--by", "language", label="sentiment")
    assert {row["metric"] for row in table(out / "ablation.csv")} == {"mae"}
    failed = float(table(out / "ablation.csv")[0]["failed"])
    whole, part, *_ = table(out / "groups.csv")
    assert (float(whole["failed"]), float(part["failed"])) == (failed, failed)
    unsaid = "Language en: what text is worth cannot be said" in (out / "diagnosis.md").read_text()
    assert unsaid == (failed == 1)
    assert (out / "ablation.png").exists() == (failed < 1)
    assert ("no value was given" in (out / "diagnosis.md").read_text()) == (failed == 1)


def test_emoe_is_asked_the_same_where_it_has_the_same(conversations: Path, tmp_path: Path) -> None:
    out, shown = diagnosed(conversations, tmp_path, EMOE)
    assert "The router" in shown and not (out / "similarity.csv").exists()
    assert {row["branch"] for row in table(out / "gate.csv")} == {"text", "face", "voice"}
    assert [row["part"] for row in table(out / "ablation.csv")] == ["text", "face", "voice"]
    arguments = ("diagnose", tmp_path / "model", conversations, "--out", out)
    assert "stands on no backbone" in invoke(*arguments, "--backbones", "own", code=2).replace("\n", " ")
    assert "EMO-503" in invoke(*arguments, "--split", "nowhere", code=2)
    shown = invoke(*arguments, "--split", "all", "--by", "speaker").replace("\n", " ")
    groups = {row["speaker"] for row in table(out / "groups.csv")}
    assert len(groups) > 1 or "are left out" in shown
    assert "does not tell a corpus" in invoke(*arguments, "--split", "all", "--by", "corpus", code=2).replace("\n", " ")
    assert "EMO-509" in invoke(*arguments, "--metric", "corr", code=2)


def test_words_alone_leave_the_gate_unasked(conversations: Path, tmp_path: Path) -> None:
    out, shown = diagnosed(conversations, tmp_path, SMALL.replace("[train]", '[train]\nmodalities = ["text"]'))
    assert "no utterance did the gate have a choice" in shown.replace("\n", " ")
    ablation = {f"ablation.{kind}" for kind in ("csv", "png", "svg")}
    assert {path.name for path in out.iterdir()} == {"diagnosis.md", *ablation}


def test_findings_name_what_is_wrong() -> None:
    there = np.ones((4, 2), dtype=bool)
    collapsed = gate_use(np.array([[0.99, 0.01]] * 4, np.float32), there, ("d/8", "d/4"))
    still = gate_use(np.full((4, 2), 0.5, np.float32), there, ("d/8", "d/4"))
    assert collapsed is not None and still is not None
    assert "collapsed onto expert d/8 (mean weight 0.99)" in next(_gate_findings(collapsed, "gate", "expert"))
    assert "hardly vary" in next(_gate_findings(still, "gate", "expert"))
    weights = np.array([[1, 0, 0], [0, 1, 0]] * 100 + [[0, 0, 1]], np.float32)
    idle = gate_use(weights, weights >= 0, ("d/8", "d/4", "d/2"))
    assert idle is not None
    assert [*_gate_findings(idle, "gate", "expert")][1:] == [
        "Expert d/2 is idle: it gets the largest weight in 0.5% of them (mean 0.00)."
    ]
    pair = {"one": "d/8", "two": "d/4", "r": 0.97, "geometry": 0.99}
    said = [*_correlation_findings([pair, {**pair, "two": "d/2", "r": 0.2, "geometry": 0.95}], "expert", 0.9)]
    assert said[0] == "Experts d/8 and d/4 say the same: r = 0.97."
    assert said[1:] == ["Experts d/8 and d/2 know the same and say it in different directions: geometry 0.95."]
    apart = {**pair, "r": 0.2, "geometry": 0.3}
    assert next(_correlation_findings([apart], "expert", 0.9)).startswith("No two experts say the same")
    loss = Ablation("text", 9, 0.8, 0.6, -0.2, -0.3, -0.1, 0.0)
    unclear = Ablation("face", 9, 0.8, 0.79, -0.01, -0.1, 0.1, 0.0)
    assert list(_ablation_findings([loss, unclear], "uar")) == [
        "Without text UAR falls by 0.200 [0.100, 0.300], on 9 utterances.",
        "No difference can be shown without face: no interval excludes 0.",
    ]
    assert "(better)" in next(_ablation_findings([loss], "mae"))
    unsaid = replace(loss, without=np.nan, difference=np.nan, low=np.nan, high=np.nan, failed=1.0)
    assert [*_ablation_findings([unsaid], "mae")] == ["What text is worth cannot be said: no value was given."]
