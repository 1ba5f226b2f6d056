"""The extraction config, the plan of stages, and the one way arrows point."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import pytest
import tomli_w

from emopipe.errors import ConfigError, ConfigFileError, EmopipeError, NotMedia
from emopipe.pipeline.config import ExtractionConfig, load_config
from emopipe.pipeline.stages.stage import check_plan
from emopipe.pipeline.stages.table import ALL_STAGES, STAGES, Given


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


@pytest.mark.parametrize("text", ["[face]\nfps = 3\n", "[faces]\nrate = 3\n", "[face]\nrate = 'fast'\n", "face = 3\n"])
def test_mistakes_are_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.code == "EMO-503"


def test_a_file_that_is_not_toml_is_told(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[face\n")
    with pytest.raises(ConfigFileError, match="not TOML"):
        load_config(path)


def test_a_plan_that_lacks_a_requirement_names_both_sides() -> None:
    check_plan(ALL_STAGES, Given)
    without_speech = [stage for stage in STAGES if stage.name != "speech"]
    with pytest.raises(EmopipeError, match="'speakers' requires 'gain'"):
        check_plan(without_speech, Given)


def test_an_error_survives_the_way_back_from_a_worker() -> None:
    error = NotMedia("it is no media", path="a.mp4", hint="Play it")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.code, copy.path, copy.hint) == (str(error), "EMO-104", "a.mp4", "Play it")


@pytest.mark.parametrize("value", ["1" * 6000, "[" * 5000, "0x" + "f" * 6000])
def test_endless_values_are_refused_with_a_code(tmp_path: Path, value: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"[face]\nrate = {value}\n")
    with pytest.raises(ConfigError, match="EMO-50"):
        load_config(path)


def test_a_folder_is_not_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigFileError, match="cannot be read"):
        load_config(tmp_path)
