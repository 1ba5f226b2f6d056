"""The floor plan holds: arrows point one way, no two files import each other, folders stay small."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("pipeline", "extractors", "models")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as an installation lays it out: the three folders lie inside `emopipe`."""
    site = tmp_path_factory.mktemp("site")
    only_python = shutil.ignore_patterns("__pycache__", "checkpoints", "*.safetensors")
    shutil.copytree(ROOT / "emopipe", site / "emopipe", ignore=only_python)
    for folder in PACKAGES:
        shutil.copytree(ROOT / folder, site / "emopipe" / folder, ignore=only_python)
    return site


def test_arrows_point_one_way(installed: Path) -> None:
    command = [Path(sys.executable).with_name("lint-imports"), ROOT / "pyproject.toml", "--no-cache"]
    done = subprocess.run(
        command, cwd=installed, env={**os.environ, "PYTHONPATH": str(installed)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


CIRCLE = """
import graphlib, grimp
graph = grimp.build_graph("emopipe", cache_dir=None)
edges = {one: graph.find_modules_directly_imported_by(one) for one in graph.modules}
try:
    graphlib.TopologicalSorter(edges).prepare()
except graphlib.CycleError as error:
    print(" -> ".join(error.args[1]))
"""


def test_no_two_files_import_each_other(installed: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, "-c", CIRCLE], cwd=installed, env=env, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0), done.stdout + done.stderr


def test_the_wheel_ships_every_package() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {
        ".".join(("emopipe", *init.parent.relative_to(ROOT).parts))
        for folder in PACKAGES
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert set(listed) == {"emopipe", "emopipe.samples", *there}


def test_few_files_lie_directly_in_the_pipeline() -> None:
    assert len(list((ROOT / "pipeline").glob("*.py"))) <= 12


def test_no_function_has_many_parameters() -> None:
    long = []
    for folder in ("emopipe", *PACKAGES):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    inputs = node.args
                    names = [one.arg for one in (*inputs.posonlyargs, *inputs.args, *inputs.kwonlyargs)]
                    if len([name for name in names if name not in ("self", "cls")]) > 12:
                        long.append(f"{path.relative_to(ROOT)}:{node.name}")
    assert not long


def test_importing_the_front_door_is_quick_and_light() -> None:
    code = "import sys; before = set(sys.modules); import emopipe; print(*sorted(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    foreign = {name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names}
    assert foreign == {"emopipe"} and not {"asyncio", "importlib.metadata"} & set(loaded)
