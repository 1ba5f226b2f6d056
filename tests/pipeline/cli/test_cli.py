"""The command line itself: quick to answer, and documented."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import emopipe
from emopipe.pipeline.cli.app import app
from tests.conftest import ROOT

HEAVY = ("torch", "numpy", "transformers", "mediapipe", "whisper", "librosa", "pyarrow", "feat", "cv2", "pandas")


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["train", "--help"], ["models", "--help"]])
def test_help_imports_no_heavy_library(arguments: list[str]) -> None:
    code = (
        "import sys; from emopipe.pipeline.cli.app import app\n"
        f"try: app({arguments!r})\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage:" in done.stdout
    assert done.stderr.strip().splitlines()[-1] == "[]"


def test_every_command_and_option_has_help() -> None:
    def check(command: object, name: str) -> None:
        assert getattr(command, "help", None), name
        for parameter in getattr(command, "params", []):
            assert getattr(parameter, "help", "") or parameter.name == "help", f"{name} {parameter.name}"
        for child, inner in getattr(command, "commands", {}).items():
            check(inner, f"{name} {child}")

    check(get_command(app), "emopipe")


def test_commands_are_grouped_and_say_which_version_they_are_of() -> None:
    shown = CliRunner().invoke(app, ["--help"]).output
    order = [shown.index(title) for title in ("Use", "Train", "Study", "Maintain")]
    assert order == sorted(order)
    assert CliRunner().invoke(app, ["--version"]).output.strip() == f"emopipe {emopipe.__version__}"
    assert "emopipe[ray]" in CliRunner().invoke(app, ["run", "--help"], terminal_width=200).output


def test_commands_of_readme_and_docs_exist() -> None:
    known = set(getattr(get_command(app), "commands", {}))
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    lines = [line for page in pages for line in page.read_text("utf-8").splitlines()]
    named = {line.split()[1] for line in lines if line.startswith("emopipe ")}
    assert named == known


def test_models_and_doctor_and_config_answer() -> None:
    listed = CliRunner().invoke(app, ["models", "list", "--json"])
    rows = [json.loads(line) for line in listed.stdout.splitlines()]
    names = {row["name"] for row in rows if "name" in row}
    assert {
        "face-landmarker",
        "whisper-base",
        "minilm-l6-emotion",
        "silero-vad",
        "smollm2-135m",
        "emopipe-default",
    } <= names
    assert all(row["licence"] and row["intended use"] for row in rows if "licence" in row)
    doctor = CliRunner().invoke(app, ["doctor", "--json"])
    assert {"python", "torch", "disk"} <= {json.loads(line)["check"] for line in doctor.stdout.splitlines()}
    shown = CliRunner().invoke(app, ["config", "show", "--fps", "3"])
    assert shown.exit_code == 2
    shown = CliRunner().invoke(app, ["config", "show"])
    assert 'backend = "mediapipe"' in shown.stdout


def test_unknown_names_are_told() -> None:
    result = CliRunner().invoke(app, ["models", "fetch", "whisper-bass"])
    assert result.exit_code == 3 and "EMO-205" in result.output and "whisper-base" in result.output
