"""Extractors and models of other packages: found by name, told apart, kept from doing harm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emopipe.errors import BackendUnusable, ConfigError, EmopipeError
from emopipe.models.registry import configure, names
from emopipe.pipeline import doctor
from emopipe.pipeline.backends import registry as plugins
from emopipe.pipeline.backends.loading import Backends
from emopipe.pipeline.config import ExtractionConfig
from emopipe.pipeline.stages.table import ALL_STAGES
from tests.conftest import ROOT

PLUGIN = ROOT / "tests" / "plugin"


def distribution(folder: Path, name: str, points: dict[str, dict[str, str]], code: str = "") -> None:
    """An installed distribution, as importlib.metadata sees it, with one module."""
    info = folder / f"{name}-1.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    lines = [line for group, one in points.items() for line in (f"[{group}]", *(f"{k} = {v}" for k, v in one.items()))]
    (info / "entry_points.txt").write_text("\n".join(lines))
    (folder / f"{name}.py").write_text(code)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


CREATE = "def create(*told): return told"
TEXT, MODELS = "emopipe.extractors.text", "emopipe.models"


def test_a_plugin_is_made_from_its_table(site: Path) -> None:
    distribution(site, "vowels", {TEXT: {"vowels": "vowels:create"}}, "def create(*told): return told")
    settings = {"encoder": "x", "options": {"loud": True}}
    assert plugins.create("text", "vowels", settings, Path, "cuda") == (settings, Path, "cuda")
    (found,) = plugins.plugins()
    assert (found.kind, found.name, found.origin) == ("text", "vowels", "vowels 1.5")


def test_built_in_backends_are_found_by_the_same_look_up() -> None:
    assert [plugin.name for plugin in plugins.extractors("speech")] == ["whisper", "faster-whisper"]
    for kind in plugins.BUILT_IN:
        for plugin in plugins.extractors(kind):
            assert plugins.chosen(kind, plugin.name) == plugin and not plugin.foreign
            declared = plugins.declaration(plugin)
            assert declared.name == plugin.name and callable(declared.create) and declared.libraries


def test_what_a_built_in_backend_reads_is_declared_by_its_stage() -> None:
    """A result's key in the store knows every setting that decides it."""
    table = {"vad": "speech", "speakers": "people"}
    for stage in (stage for stage in ALL_STAGES if stage.backend in plugins.BUILT_IN):
        for plugin in plugins.extractors(stage.backend):
            prefix = table.get(stage.backend, stage.backend)
            read = {f"{prefix}.{name}" for name in plugins.declaration(plugin).settings} - {"people.offline"}
            assert read and read <= set(stage.settings), plugin.name


def test_a_backend_is_handed_the_settings_that_it_declares(site: Path) -> None:
    code = """
from emopipe.extractors.contracts import Backend
BACKEND = Backend("few", lambda settings, locate, device: settings, settings=("encoder",), gpu=False)
"""
    distribution(site, "few", {TEXT: {"few": "few:BACKEND"}}, code)
    settings = {"encoder": "one", "max_tokens": 3}
    assert plugins.create("text", "few", settings, Path, "cpu") == {"encoder": "one"}


def test_another_package_may_bring_a_diarizer(site: Path) -> None:
    distribution(site, "chimes", {"emopipe.extractors.diarizer": {"chimes": "chimes:create"}}, CREATE)
    config = ExtractionConfig.from_dict({"people": {"diarizer": "chimes"}})
    with Backends(config) as backends:
        settings, _, device = backends.diarizer
    assert settings["diarizer"] == "chimes" and device in ("cpu", "cuda")
    with pytest.raises(EmopipeError, match="unknown diarizer backend 'magic'"):
        Backends(ExtractionConfig.from_dict({"people": {"diarizer": "magic"}}))


def test_an_unknown_name_gets_its_neighbour() -> None:
    with pytest.raises(EmopipeError, match="Did you mean faster-whisper") as caught:
        plugins.chosen("speech", "fast-whisper")
    assert caught.value.code == "EMO-507"
    with pytest.raises(EmopipeError, match="Use transformers or glove, or install a plugin"):
        plugins.chosen("text", "zzz")


def test_a_plugin_that_cannot_be_imported_harms_nobody_else(site: Path) -> None:
    distribution(
        site, "broken", {TEXT: {"broken": "broken:create"}, MODELS: {"broken": "broken:Model"}}, "import nowhere"
    )
    with pytest.raises(EmopipeError, match="No module named 'nowhere'") as caught:
        plugins.create("text", "broken", {}, Path, "cpu")
    assert caught.value.code == "EMO-301" and "broken 1.5" in caught.value.hint
    with pytest.raises(BackendUnusable, match=r"broken.*cannot be imported"):
        configure("broken")
    assert configure("emoe").width
    found = {check.name: check for check in doctor.checks()}
    assert found["plugin text broken"].state == found["plugin model broken"].state == "fail"
    assert "nowhere" in found["plugin text broken"].detail


def test_a_plugin_that_refuses_its_settings_is_told_with_its_words(site: Path) -> None:
    code = "def create(settings, locate, device): raise ValueError('the moon is not full')"
    distribution(site, "picky", {TEXT: {"picky": "picky:create"}}, code)
    with pytest.raises(EmopipeError, match="picky cannot be loaded: the moon is not full") as caught:
        plugins.create("text", "picky", {}, Path, "cpu")
    assert caught.value.code == "EMO-304"


def test_two_packages_with_one_name_are_both_named(site: Path) -> None:
    for name in ("first", "second"):
        points = {TEXT: {"same": f"{name}:create"}, MODELS: {"same": f"{name}:Model"}}
        distribution(site, name, points, "def create(*told): return told")
    with pytest.raises(EmopipeError, match=r"first 1\.5 and second 1\.5"):
        plugins.chosen("text", "same")
    with pytest.raises(ConfigError, match="first and second"):
        configure("same")


def test_a_name_of_emopipes_own_stays_its_own(site: Path) -> None:
    distribution(site, "thief", {TEXT: {"transformers": "thief:create"}}, "def create(*told): raise SystemExit")
    assert plugins.chosen("text", "transformers").origin == "emopipe"
    found = {check.name: check for check in doctor.checks()}
    assert found["plugin text transformers"].state == "warn"


def test_what_is_no_model_is_refused(site: Path) -> None:
    distribution(site, "nomodel", {MODELS: {"nomodel": "nomodel:number"}}, "number = 3")
    assert "nomodel" in names()
    with pytest.raises(BackendUnusable, match=r"nomodel.*is not a model"):
        configure("nomodel")


# The sample plugin, as its users have it

LABELS = """id,text,label,speaker,split
a,I am so glad today,happiness,anna,train
b,what a wonderful happy day,happiness,ben,train
c,we are all so happy and glad,happiness,carl,valid
d,I am so sad and alone,sadness,anna,train
e,what a terrible lonely day,sadness,ben,train
f,we are all so sad and lonely,sadness,carl,valid
"""
CONFIG = """[text]
backend = "ngrams"
encoder = ""
[text.options]
width = 96
[train]
epochs = 8
batch_size = 4
[model]
name = "gmu"
width = 16
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample plugin, installed by pip into a folder of its own without network."""
    target = tmp_path_factory.mktemp("target")
    source = tmp_path_factory.mktemp("source") / "plugin"
    subprocess.run(["cp", "-r", str(PLUGIN), str(source)], check=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "--target", str(target), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def run_in(installed: Path, tmp_path: Path) -> Any:
    """Runs a Python module with the plugin installed; returns its output."""
    path = os.pathsep.join(filter(None, [str(installed), os.environ.get("PYTHONPATH", "")]))

    def run(*arguments: object, code: int = 0) -> str:
        command = [sys.executable, "-m", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.mark.slow
def test_the_sample_plugin_passes_the_conformance_suites(run_in: Any) -> None:
    assert "4 passed" in run_in("pytest", "-q", "-p", "no:cacheprovider", PLUGIN / "conformance.py")


@pytest.mark.slow
def test_the_sample_plugin_is_listed_and_looked_at(run_in: Any) -> None:
    rows = [json.loads(line) for line in run_in("emopipe.pipeline", "models", "list", "--json").splitlines()]
    assert {"modality": "text", "backend": "ngrams", "from": "emopipe-sample 0.3.0"} in rows
    assert {"model": "gmu", "from": "emopipe-sample 0.3.0"} in rows
    shown = run_in("emopipe.pipeline", "models", "list")
    assert "ngrams" in shown and "gmu" in shown and "emopipe-sample 0.3.0" in shown
    lines = run_in("emopipe.pipeline", "doctor", "--json").splitlines()
    checks = {row["check"]: row for row in map(json.loads, lines)}
    assert checks["plugin text ngrams"]["state"] == checks["plugin model gmu"]["state"] == "ok"
    assert checks["plugin text ngrams"]["found"] == "emopipe-sample 0.3.0"


@pytest.mark.slow
def test_features_and_model_of_the_sample_plugin_go_all_the_way(run_in: Any, tmp_path: Path) -> None:
    from emopipe.models import checkpoint
    from emopipe.models.data import reading

    (tmp_path / "labels.csv").write_text(LABELS)
    (tmp_path / "config.toml").write_text(CONFIG)
    options = ["--config", "config.toml", "--offline"]
    run_in("emopipe.pipeline", "extract", "labels.csv", "--out", "data", "--modalities", "text", *options)
    dataset = reading.read(tmp_path / "data")
    assert dataset.schema["text"][-1] == "ngram_095"
    assert dataset.extraction["text"]["backend"] == "ngrams"
    assert dataset.extraction["versions"]["emopipe-sample"] == "0.3.0"
    run_in("emopipe.pipeline", "train", "data", "--out", "model", *options)
    spec = checkpoint.read_spec(tmp_path / "model")
    assert spec.model == "gmu" and spec.options == {"width": 16, "dropout": 0.1}
    assert spec.extraction["text"]["options"] == {"width": 96}
    assert "All rows: 2" in run_in("emopipe.pipeline", "evaluate", "data", "--model", "model")
    for row in dataset.sample(0).features.values():
        assert row is None or np.allclose(np.linalg.norm(row, axis=1), 1, atol=1e-5)
    with pytest.raises(Exception, match="there is no model 'gmu'"):
        checkpoint.load(tmp_path / "model")


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "raise RuntimeError('no')", "def f(): f()\nf()", "def f(:"])
def test_whatever_a_plugin_raises_is_told_with_a_code(site: Path, code: str) -> None:
    distribution(site, "rude", {TEXT: {"rude": "rude:create"}, MODELS: {"rude": "rude:Model"}}, code)
    with pytest.raises(BackendUnusable, match="rude"):
        plugins.create("text", "rude", {}, Path, "cpu")
    with pytest.raises(BackendUnusable, match="rude"):
        configure("rude")
    assert {check.name: check.state for check in doctor.checks()}["plugin text rude"] == "fail"


def test_a_plugin_that_ends_the_process_when_it_is_made_is_told_with_a_code(site: Path) -> None:
    distribution(site, "exits", {TEXT: {"exits": "exits:create"}}, "def create(*_): raise SystemExit(1)")
    with pytest.raises(BackendUnusable, match="exits"):
        plugins.create("text", "exits", {}, Path, "cpu")


@pytest.mark.parametrize("points", [b"[emopipe.extractors.text]\nlone\n", b"[\xff]\na = b:c\n"])
def test_damaged_metadata_of_a_package_hide_that_package_alone(site: Path, points: bytes) -> None:
    distribution(site, "vowels", {TEXT: {"vowels": "vowels:create"}}, CREATE)
    distribution(site, "torn", {TEXT: {"torn": "torn:create"}}, CREATE)
    (site / "torn-1.5.dist-info" / "entry_points.txt").write_bytes(points)
    assert [plugin.name for plugin in plugins.plugins()] == ["vowels"]
    told = [check for check in doctor.checks() if check.name == "package"]
    assert len(told) == 1 and "torn" in told[0].detail


def test_a_plugin_without_metadata_is_listed_as_of_unknown_origin(site: Path) -> None:
    distribution(site, "vowels", {TEXT: {"vowels": "vowels:create"}}, CREATE)
    (site / "vowels-1.5.dist-info" / "METADATA").write_text("")
    assert [plugin.origin for plugin in plugins.plugins()] == ["unknown"]
