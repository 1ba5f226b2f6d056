"""The extraction config, the plan of stages, and the one way arrows point."""

from __future__ import annotations

import ast
import dataclasses
import pickle
from pathlib import Path

import pytest
import tomli_w

from emopipe.errors import CODES, EmopipeError
from emopipe.pipeline.config import ExtractionConfig, load_config
from emopipe.pipeline.stages.table import STAGES, check_plan
from tests.conftest import ROOT


def test_a_config_survives_toml(tmp_path: Path) -> None:
    config = dataclasses.replace(
        ExtractionConfig(), face=dataclasses.replace(ExtractionConfig().face, rate=10.0, features=("mesh",))
    )
    path = tmp_path / "config.toml"
    path.write_text(tomli_w.dumps(config.as_dict()))
    assert load_config(path) == config


def test_left_out_entries_keep_their_defaults_and_training_tables_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[voice]\nwindow = 2\n[train]\nepochs = 3\n")
    config = load_config(path)
    assert config.voice.window == 2 and config.face == ExtractionConfig().face


@pytest.mark.parametrize(
    "text", ["[face]\nfps = 3\n", "[faces]\nrate = 3\n", "[face]\nrate = 'fast'\n", "face = 3\n", "[face\n"]
)
def test_mistakes_are_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(EmopipeError) as caught:
        load_config(path)
    assert caught.value.code == "EMO-503"


def test_a_plan_that_lacks_a_requirement_names_both_sides() -> None:
    check_plan()
    without_speech = [stage for stage in STAGES if stage.name != "speech"]
    with pytest.raises(EmopipeError, match="'speakers' requires 'speech'"):
        check_plan(without_speech)


def test_every_error_code_in_use_is_in_the_catalogue() -> None:
    used = set()
    for path in (ROOT / "pipeline").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("EMO-"):
                used.add(node.value)
    assert {code for code in used if len(code) == 7} <= set(CODES)
    with pytest.raises(KeyError):
        EmopipeError("EMO-999", "nothing")


def imports(folder: str) -> set[str]:
    """Top-level parts of emopipe that the modules of a folder import."""
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {name.split(".")[1] for name in names if name.startswith("emopipe.")}
    return found


def test_arrows_point_one_way() -> None:
    assert imports("extractors") <= {"extractors"}
    assert imports("models") <= {"models"}
    assert imports("pipeline") == {"pipeline", "extractors", "models"}


def test_an_error_survives_the_way_back_from_a_worker() -> None:
    error = EmopipeError("EMO-104", "it is no media", path="a.mp4", hint="Play it")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.code, copy.path, copy.hint) == (str(error), "EMO-104", "a.mp4", "Play it")
