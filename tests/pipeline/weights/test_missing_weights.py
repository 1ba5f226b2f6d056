"""Commands without weights and without network: each is told at once what lacks, before anything heavy is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT, SAMPLES

CLIP = str(SAMPLES / "happy.mp4")
#: Command -> the weight that it names, where that one shall be put, and what does without it.
COMMANDS = {
    "run CLIP --model emopipe-default": ("face-landmarker", "face-landmarker/face_landmarker.task", ""),
    "run CLIP --model emopipe-pyfeat": (
        "pyfeat-retinaface-r34",
        "pyfeat-retinaface-r34/model.safetensors",
        "--model emopipe-default",
    ),
    "run CLIP --model emopipe-egmf": ("smollm2-135m", "smollm2-135m", ""),
    "run CLIP --asr whisper:tiny": ("whisper-tiny", "whisper-tiny/tiny.pt", "--asr whisper:base"),
    "run CLIP --asr faster-whisper:small": (
        "faster-whisper-small",
        "faster-whisper-small/model.bin",
        "--asr whisper:base",
    ),
    "extract CLIP --face pyfeat": ("pyfeat-retinaface-r34", "pyfeat-retinaface-r34/model.safetensors", "mediapipe"),
    "extract CLIP --face pyfeat:v1": ("pyfeat-retinaface-r34", "pyfeat-retinaface-r34/model.safetensors", "mediapipe"),
    "extract CLIP --asr whisper:turbo": (
        "whisper-large-v3-turbo",
        "whisper-large-v3-turbo/large-v3-turbo.pt",
        "--asr whisper:base",
    ),
    "extract CLIP --asr faster-whisper:medium": (
        "faster-whisper-medium",
        "faster-whisper-medium/model.bin",
        "--asr faster-whisper:base",
    ),
    "extract CLIP --text bert-base-uncased": (
        "bert-base-uncased",
        "bert-base-uncased/model.safetensors",
        "--text minilm-l6",
    ),
    "extract CLIP --text bert-base-chinese": (
        "bert-base-chinese",
        "bert-base-chinese/model.safetensors",
        "--text multilingual-e5-small",
    ),
    "extract CLIP --text lab/own-bert": ("lab/own-bert", "lab/own-bert", "emopipe models list"),
    "extract CLIP --modalities voice": ("whisper-base", "whisper-base/base.pt", ""),
    "compare-extractors CLIP --face pyfeat": (
        "pyfeat-retinaface-r34",
        "pyfeat-retinaface-r34/model.safetensors",
        "--face mediapipe",
    ),
    "compare-extractors CLIP --face pyfeat:v1": (
        "pyfeat-retinaface-r34",
        "pyfeat-retinaface-r34/model.safetensors",
        "--face mediapipe",
    ),
}
#: Of those, commands that are tried without --offline too: they must ask somebody, and give up at once.
ASKING = [command for command in COMMANDS if "pyfeat" in command or "bert" in command or "whisper:t" in command]
#: Libraries that take seconds to import.
HEAVY = ("torch", "transformers", "mediapipe", "feat", "whisper", "faster_whisper", "librosa", "peft")
SCRIPT = f"""
import json, socket, sys
from typer.testing import CliRunner
from emopipe.pipeline.cli.app import app

asked = []
def refuse(*place, **more):
    asked.append(str(place))
    raise OSError(101, "Network is unreachable")
for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
for name in ("create_connection", "getaddrinfo", "gethostbyname"):
    setattr(socket, name, refuse)
for line in sys.stdin:
    command = json.loads(line)
    heavy = {{name for name in {HEAVY} if name in sys.modules}}
    asked.clear()
    done = CliRunner().invoke(app, command)
    heavy ^= {{name for name in {HEAVY} if name in sys.modules}}
    print(json.dumps({{"exit": done.exit_code, "output": done.output, "asked": len(asked), "heavy": sorted(heavy)}}))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What comes of every command in a process that has neither weights nor network."""
    folder = tmp_path_factory.mktemp("bare")
    lines = [f"{command} --offline" for command in COMMANDS] + ASKING
    commands = [
        [*line.replace("CLIP", CLIP, 1).split(), "--out", str(folder / str(number))]
        for number, line in enumerate(lines)
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("EMOPIPE_", "HF_"))}
    environment |= {"EMOPIPE_CACHE": str(folder / "cache")}
    given = "".join(json.dumps(command) + "\n" for command in commands)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=given, capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(lines, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("command", COMMANDS)
def test_offline_every_command_names_what_lacks_before_anything_is_imported(told: dict[str, Any], command: str) -> None:
    name, place, instead = COMMANDS[command]
    found = told[f"{command} --offline"]
    words = " ".join(found["output"].split())
    assert found["exit"] == 3 and words.startswith("EMO-201: "), words
    assert name in words.partition(". ")[0] and "network use is forbidden" in words
    assert f"emopipe models fetch {name}" in words and "set EMOPIPE_WEIGHTS to a folder that holds" in words
    assert place in words and instead in words
    assert not found["asked"] and not found["heavy"]


@pytest.mark.parametrize("command", ASKING)
def test_without_network_the_hub_is_asked_once_and_nothing_is_imported(told: dict[str, Any], command: str) -> None:
    name, _, instead = COMMANDS[command]
    words = " ".join(told[command]["output"].split())
    assert told[command]["exit"] == 3 and words.startswith("EMO-203: "), words
    assert name in words and "set EMOPIPE_WEIGHTS to a folder" in words and instead in words
    assert told[command]["asked"] == 1 and not told[command]["heavy"]


def test_all_that_lack_are_named(told: dict[str, Any]) -> None:
    words = " ".join(told["run CLIP --model emopipe-pyfeat --offline"]["output"].split())
    for part in ("mobilefacenet", "xgb-au", "resmasknet", "l2cs", "pose-mlp-v2"):
        assert f"pyfeat-{part}" in words
    assert "minilm-l6" in words and "whisper-base" in words
