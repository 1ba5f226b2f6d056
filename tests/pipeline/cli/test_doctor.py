"""The doctor's checks, on this machine and on one made ill."""

from __future__ import annotations

import shutil
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest

from emopipe.pipeline import doctor, weights
from emopipe.pipeline.doctor import Check

REQUIRES = ["pip>=1", "pytest==0.0.1", "no-such-library>=2", "ruff>=99; extra == 'test'"]


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EMOPIPE_WEIGHTS", "EMOPIPE_OFFLINE", "EMOPIPE_CACHE"):
        monkeypatch.delenv(name, raising=False)


def look(cache: Path, *, offline: bool = False) -> dict[str, Check]:
    return {check.name: check for check in doctor.checks(cache=cache, offline=offline)}


def test_every_check_that_is_not_ok_says_what_to_do(tmp_path: Path) -> None:
    found = look(tmp_path)
    assert {"python", "torch", "device", "cores", "cache", "disk", "network"} <= found.keys()
    embedded = {name for name in weights.names() if weights.entry(name).embedded}
    assert "whisper-base" in embedded and {f"weight {name}" for name in embedded} <= found.keys()
    assert all(check.hint for check in found.values() if check.state != "ok")
    assert found["python"].state == "ok"


def test_libraries_are_held_against_the_projects_own_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: REQUIRES)
    found = look(tmp_path)
    assert found["pip"].state == "ok"
    assert (found["pytest"].state, found["pytest"].hint) == ("fail", 'pip install "pytest==0.0.1"')
    assert found["no-such-library"].detail == "not installed"
    assert "ruff" not in found


def test_another_opencv_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name != "opencv-python-headless":
            raise metadata.PackageNotFoundError(name)
        return "5.0"

    monkeypatch.setattr(metadata, "requires", lambda name: ["opencv-python>=4.14"])
    monkeypatch.setattr(metadata, "version", version)
    assert look(tmp_path)["opencv-python"] == Check("opencv-python", "ok", "5.0")


def test_missing_weights_matter_more_without_network(tmp_path: Path) -> None:
    online, offline = look(tmp_path), look(tmp_path, offline=True)
    assert online["weight whisper-base"].state == "warn"
    assert offline["weight whisper-base"].state == "fail"
    assert "emopipe models fetch whisper-base" in offline["weight whisper-base"].hint
    assert offline["network"].detail == "forbidden"


def test_a_changed_weight_fails(tmp_path: Path) -> None:
    (tmp_path / "weights" / "minilm-l6").mkdir(parents=True)
    assert look(tmp_path)["weight minilm-l6"].state == "fail"


def test_a_cache_that_cannot_be_written_and_a_small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1))
    (tmp_path / "file").write_text("")
    found = look(tmp_path / "file" / "cache")
    assert found["cache"].state == "fail"
    assert "EMOPIPE_CACHE" in found["cache"].hint
    assert found["disk"].state == "warn"


def test_weights_given_from_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOPIPE_WEIGHTS", str(tmp_path / "none"))
    assert "EMOPIPE_WEIGHTS" in look(tmp_path)["weight whisper-base"].detail


def test_weights_that_the_default_does_without_are_no_trouble(tmp_path: Path) -> None:
    assert "weight pyfeat-face-multitask-v2" not in look(tmp_path, offline=True)
