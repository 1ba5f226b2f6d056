"""What a library does to the process while it is imported does not stay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from emopipe.extractors.import_isolation import contained, numba_later


def test_the_process_is_put_back_even_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("KEPT", "as it was")
    before = dict(os.environ), torch.get_num_threads(), list(warnings.filters), set(vars(sys.modules["__main__"]))
    with pytest.raises(ZeroDivisionError), contained():
        assert int(os.environ["OMP_NUM_THREADS"]) == os.cpu_count()
        os.environ.update(OMP_NUM_THREADS="1", KEPT="changed", NEW="1")
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.set_grad_enabled(False)
        warnings.filterwarnings("ignore", category=FutureWarning)
        vars(sys.modules["__main__"])["left_behind"] = 1
        raise ZeroDivisionError
    after = dict(os.environ), torch.get_num_threads(), list(warnings.filters), set(vars(sys.modules["__main__"]))
    assert after == before
    assert torch.is_grad_enabled()


def test_what_the_user_set_is_left_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with contained():
        assert os.environ["OMP_NUM_THREADS"] == "3"
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_gradients_that_were_off_stay_off() -> None:
    with torch.no_grad():
        with contained():
            torch.set_grad_enabled(True)
        assert not torch.is_grad_enabled()


PROBE = """
import json, os, sys, warnings
import torch
from pathlib import Path
from threadpoolctl import threadpool_info
from emopipe.extractors.face.pyfeat import PyFeat

def state():
    pools = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp"}
    return {
        "environment": {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"},  # cv2's
        "threads": [torch.get_num_threads(), *pools],
        "gradients": torch.is_grad_enabled(),
        "filters": [str(entry) for entry in warnings.filters],
        "main": sorted(name for name in vars(sys.modules["__main__"]) if name != "backend"),
    }

folders = {name: Path(path) for name, path in json.loads(sys.argv[1]).items()}
before = after = None
before = state()
backend = PyFeat(folders)
after = state()
print(json.dumps([before, after]))
"""


@pytest.mark.slow
def test_py_feat_leaves_threads_gradients_warnings_and_environment_as_they_were(
    pyfeat_cache: Callable[[str], Path],
) -> None:
    from tests.pyfeat_weights import folders

    places = {name: str(path) for name, path in folders(pyfeat_cache("v2") / "weights").items()}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_"))}
    ran = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(places)], env=environment, capture_output=True, text=True, check=True
    )
    before, after = json.loads(ran.stdout)
    assert "OMP_NUM_THREADS" not in after["environment"]
    assert after == before
    assert after["threads"] == [torch_default(), torch_default()]


def torch_default() -> int:
    """What torch takes in a fresh process: the cores."""
    code = "import torch; print(torch.get_num_threads())"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_"))}
    return int(subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout)


def test_voice_activity_leaves_torchs_threads_alone(weight: Callable[[str], Path]) -> None:
    code = (
        "import sys, torch; from emopipe.extractors.speech.vad import VoiceActivity\n"
        "torch.set_num_threads(3); VoiceActivity(sys.argv[1]); print(torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(weight("silero-vad"))], capture_output=True, text=True)
    assert done.stdout.split() == ["3"], done.stderr


LATE = """
import sys
from emopipe.extractors.import_isolation import numba_later
with numba_later():
    import compiled
assert "numba" not in sys.modules
print(compiled.doubled(21), compiled.doubled(1), "numba" in sys.modules, compiled.doubled.__name__)
"""


def test_what_numba_compiles_is_compiled_when_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "compiled.py").write_text(
        "import numba\n\n@numba.jit(nopython=True)\ndef doubled(value):\n    return 2 * value\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", LATE], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["42", "2", "True", "doubled"], done.stderr


def test_numba_itself_is_the_one_that_is_there_already(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = ModuleType("numba")
    monkeypatch.setitem(sys.modules, "numba", loaded)
    with numba_later():
        assert sys.modules["numba"] is loaded
    assert sys.modules["numba"] is loaded
