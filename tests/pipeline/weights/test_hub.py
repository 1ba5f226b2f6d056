"""Weights from their makers and from the hub, for which a server on this machine stands.

And what is said where there is no network.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from typer.testing import CliRunner

from emopipe.errors import EmopipeError
from emopipe.pipeline import weights
from emopipe.pipeline.backends.loading import Backends
from emopipe.pipeline.backends.registry import speech_option, text_option
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.config import ExtractionConfig
from emopipe.pipeline.progress import Event
from emopipe.pipeline.weights import catalogue, sources
from emopipe.pipeline.weights.catalogue import Url
from tests.hub_server import Hub, serve

REVISION = "86b5e0934494bd15c9632b12f734a8a67f723594"
LARGE = bytes(range(256)) * 2000
#: The bytes that a download keeps or loses together when it breaks off.
CHUNK = 1 << 14


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("EMOPIPE_WEIGHTS", "EMOPIPE_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EMOPIPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "_CHUNK", CHUNK)
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", CHUNK)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the tries of huggingface_hub
    huggingface_hub.close_session()  # its client knows the proxies of when it was made


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address + "/")
        yield server


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(params=["maker", "hub"])
def whisper_small(hub: Hub, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The catalogue's entry with another content, which its maker's server or the hub has; returns its path there."""
    base = f"{sources.HUB if request.param == 'hub' else hub.address}/whisper/models/"
    entry = replace(weights.entry("whisper-small"), files={"small.pt": sha256(LARGE)}, sources=(Url(base),))
    monkeypatch.setitem(catalogue._entries(), "whisper-small", entry)
    hub.files["/whisper/models/small.pt"] = LARGE
    return "/whisper/models/small.pt"


# Downloads


def test_a_weight_is_fetched_from_its_makers_and_told_as_it_comes(hub: Hub, whisper_small: str) -> None:
    events: list[Event] = []
    found = weights.locate("whisper-small", hook=events.append)
    assert found.path.read_bytes() == LARGE and found.verified
    done = [event.done for event in events if event.kind == "progress"]
    assert done == sorted(done) and len(done) > 10
    assert weights.verify("whisper-small").state == "cached"


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_a_broken_download_goes_on_where_it_stopped(hub: Hub, whisper_small: str, ranges: bool) -> None:
    hub.ranges = ranges
    hub.cut[whisper_small] = [12 * CHUNK + 5, 18 * CHUNK]
    assert weights.resolve("whisper-small").read_bytes() == LARGE
    asked = [wanted for _, wanted, _ in hub.asked]
    assert asked == [None, f"bytes={12 * CHUNK}-", f"bytes={18 * CHUNK}-"]


def test_the_next_fetch_goes_on_where_a_failed_one_stopped(hub: Hub, whisper_small: str) -> None:
    hub.cut[whisper_small] = [12 * CHUNK] * 20
    with pytest.raises(EmopipeError, match=r"Connection broken|closed connection") as caught:
        weights.resolve("whisper-small")
    assert caught.value.code == "EMO-203"
    assert len(hub.asked) <= 15
    hub.asked.clear()
    hub.cut.clear()
    assert weights.resolve("whisper-small").read_bytes() == LARGE
    assert hub.asked == [(whisper_small, f"bytes={12 * CHUNK}-", None)]
    assert [path.name for path in (weights.cache_dir() / "weights").iterdir() if path.suffix != ".lock"] == [
        "whisper-small"
    ]


def test_a_part_that_is_whole_is_not_fetched_again(hub: Hub, whisper_small: str) -> None:
    parts = weights.cache_dir() / "weights" / ".whisper-small.parts"
    parts.mkdir(parents=True)
    (parts / f"{sha256(LARGE)[-16:]}.part").write_bytes(LARGE)
    assert weights.resolve("whisper-small").read_bytes() == LARGE
    assert hub.asked == [(whisper_small, f"bytes={len(LARGE)}-", None)]


def test_a_part_that_is_longer_than_the_file_is_thrown_away(hub: Hub, whisper_small: str) -> None:
    parts = weights.cache_dir() / "weights" / ".whisper-small.parts"
    parts.mkdir(parents=True)
    (parts / f"{sha256(LARGE)[-16:]}.part").write_bytes(LARGE + b"more")
    assert weights.resolve("whisper-small").read_bytes() == LARGE


def test_other_bytes_than_the_catalogues_are_refused_and_forgotten(hub: Hub, whisper_small: str) -> None:
    hub.files[whisper_small] = LARGE[:-1] + b"!"
    with pytest.raises(EmopipeError, match="was refused") as caught:
        weights.resolve("whisper-small")
    assert caught.value.code == "EMO-202"
    hub.files[whisper_small] = LARGE
    assert weights.resolve("whisper-small").read_bytes() == LARGE


def test_a_full_disk_is_told_from_a_broken_network(whisper_small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sources._PartialFile, "write", full)
    with pytest.raises(EmopipeError, match="No space left") as caught:
        weights.resolve("whisper-small")
    assert caught.value.code == "EMO-204"


def test_bert_is_fetched_from_the_hub_or_its_mirror(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {name: name.encode() * 100 for name in weights.entry("bert-base-uncased").files}
    hashes = {name: sha256(data) for name, data in files.items()}
    monkeypatch.setitem(
        catalogue._entries(), "bert-base-uncased", replace(weights.entry("bert-base-uncased"), files=hashes)
    )
    hub.publish("google-bert/bert-base-uncased", REVISION, files)
    shown = CliRunner().invoke(app, ["models", "fetch", "bert-base-uncased"])
    assert shown.exit_code == 0, shown.output
    path = weights.resolve("bert-base-uncased", offline=True)
    assert {file.name for file in path.iterdir()} == {*files, "weight.json"}
    assert CliRunner().invoke(app, ["models", "verify", "bert-base-uncased"]).exit_code == 0


def test_a_weight_without_a_known_hash_says_so_and_is_held_to_what_came_first(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, file = "pyfeat-l2cs", "l2cs_gaze360_resnet50.safetensors"
    hub.files[f"/py-feat/l2cs/resolve/main/{file}"] = LARGE
    shown = CliRunner().invoke(app, ["models", "fetch", name])
    assert shown.exit_code == 0 and f"no hash of {file} is known" in shown.output and sha256(LARGE) in shown.output
    found = weights.locate(name, offline=True)
    assert not found.verified and found.path.joinpath(file).read_bytes() == LARGE
    shown = CliRunner().invoke(app, ["models", "verify", name])
    words = " ".join(shown.output.split())
    assert shown.exit_code == 0 and f"no hash of {file} is known; held against later is only what came first" in words
    rows = map(json.loads, CliRunner().invoke(app, ["models", "list", "--json"]).stdout.splitlines())
    assert next(row for row in rows if row.get("name") == name)["verified"] == "no"
    found.path.joinpath(file).write_bytes(LARGE[1:])
    shown = CliRunner().invoke(app, ["models", "verify", name])
    assert shown.exit_code == 3 and "changed" in shown.output
    with pytest.raises(EmopipeError) as caught:
        weights.locate(name, offline=True)
    assert caught.value.code == "EMO-202"


# Models of the hub that the catalogue does not know

OTHER = {
    "config.json": b'{"model_type": "bert"}',
    "vocab.txt": b"[PAD]\n[UNK]\n",
    "model.safetensors": LARGE,
    "pytorch_model.bin": b"not this one",
    "README.md": b"nor this",
    "onnx/model.onnx": b"nor this",
}


def test_any_model_of_the_hub_is_fetched_and_stays_unverified(hub: Hub) -> None:
    hub.publish("lab/own-bert", REVISION, OTHER)
    found = weights.locate("lab/own-bert")
    assert not found.verified
    names = {path.name for path in found.path.iterdir()}
    assert names == {"config.json", "vocab.txt", "model.safetensors", "weight.json"}
    hub.asked.clear()
    assert weights.locate("lab/own-bert", offline=True).path == found.path and not hub.asked
    (entry,) = weights.unlisted()
    assert (entry.name, entry.licence, weights.verify(entry).state) == ("lab/own-bert", "mit", "cached")
    rows = [json.loads(line) for line in CliRunner().invoke(app, ["models", "list", "--json"]).stdout.splitlines()]
    (row,) = [row for row in rows if row.get("name") == "lab/own-bert"]
    assert (row["verified"], row["state"], row["licence"]) == ("no", "cached", "mit")
    assert next(row for row in rows if row.get("name") == "minilm-l6")["verified"] == "yes"


@pytest.mark.parametrize("file", ["model.safetensors", "vocab.txt"])
def test_what_the_hub_itself_does_not_vouch_for_is_refused(hub: Hub, file: str) -> None:
    hub.publish("lab/own-bert", REVISION, OTHER)
    hub.files[f"/lab/own-bert/resolve/{REVISION}/{file}"] = b"something else"
    with pytest.raises(EmopipeError, match=f"{file} of weight lab/own-bert was refused") as caught:
        weights.locate("lab/own-bert")
    assert caught.value.code == "EMO-202"


def test_a_changed_file_of_the_hubs_is_found(hub: Hub) -> None:
    hub.publish("lab/own-bert", REVISION, OTHER)
    path = weights.locate("lab/own-bert").path
    (path / "vocab.txt").write_text("other")
    with pytest.raises(EmopipeError, match="not what was stored") as caught:
        weights.locate("lab/own-bert")
    assert caught.value.code == "EMO-202"


def test_the_token_goes_to_the_hub_and_no_further(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    with serve() as elsewhere:
        hub.publish("lab/own-bert", REVISION, OTHER)
        place = f"/lab/own-bert/resolve/{REVISION}/model.safetensors"
        hub.moved[place], elsewhere.files["/cdn/model"] = f"{elsewhere.address}/cdn/model", LARGE
        assert (weights.locate("lab/own-bert").path / "model.safetensors").read_bytes() == LARGE
        assert {told for _, _, told in hub.asked} == {"Bearer secret"}
        assert [told for _, _, told in elsewhere.asked] == [None]


def test_the_hub_is_told_nothing_but_what_is_wanted(hub: Hub, tmp_path: Path) -> None:
    """Not of tools that surround the process, nor a token kept elsewhere; no second copy, and no progress bars."""
    hub.publish("lab/own-bert", REVISION, OTHER)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text("kept")
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_TELEMETRY"}
    environment |= {"HF_HOME": str(tmp_path / "home"), "AGENT": "tool"}
    code = "import huggingface_hub; from emopipe.pipeline import weights; weights.locate('lab/own-bert')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    files = [f"/lab/own-bert/resolve/{REVISION}/{file}" for file in ("config.json", "model.safetensors", "vocab.txt")]
    assert hub.asked == [(path, None, None) for path in ("/api/models/lab/own-bert", *files)]
    assert set(hub.agents) == {"emopipe"}
    assert [path.name for path in (tmp_path / "home").rglob("*")] == ["token"]
    left = {path.name for path in (weights.cache_dir() / "weights").iterdir() if path.suffix != ".lock"}
    assert left == {"lab--own-bert"}


def test_two_files_without_a_known_hash_are_kept_apart(hub: Hub) -> None:
    base = "/py-feat/pose_mlp_v2/resolve/main/"
    contents = {file: file.encode() * 100 for file in weights.entry("pyfeat-pose-mlp-v2").files}
    assert len(contents) == 2
    hub.files |= {base + file: data for file, data in contents.items()}
    folder = weights.locate("pyfeat-pose-mlp-v2").path
    assert {file: (folder / file).read_bytes() for file in contents} == contents


def test_names_that_the_hub_does_not_allow_are_unknown(hub: Hub) -> None:
    with pytest.raises(EmopipeError, match="such a model") as caught:
        weights.locate("lab/own--bert")
    assert caught.value.code == "EMO-205" and not hub.asked


def test_a_model_without_weights_and_one_that_does_not_exist(hub: Hub) -> None:
    hub.publish("lab/empty", REVISION, {"README.md": b"soon"})
    with pytest.raises(EmopipeError, match="no weights that") as caught:
        weights.locate("lab/empty")
    assert caught.value.code == "EMO-205"
    with pytest.raises(EmopipeError, match="neither a file or folder lab/nothing here nor such a model") as caught:
        weights.locate("lab/nothing")
    assert caught.value.code == "EMO-205" and "EMOPIPE_WEIGHTS" in caught.value.hint
    hub.files["/api/models/lab/odd"] = b"<html>"
    with pytest.raises(EmopipeError, match="cannot be read") as caught:
        weights.locate("lab/odd")
    assert caught.value.code == "EMO-203"


# What the user gives


def test_the_catalogues_own_files_are_known_wherever_they_lie(whisper_small: str, tmp_path: Path) -> None:
    (tmp_path / "small.pt").write_bytes(LARGE)
    assert weights.locate(str(tmp_path / "small.pt")).verified
    (tmp_path / "small.pt").write_bytes(LARGE[1:])
    found = weights.locate(str(tmp_path / "small.pt"))
    assert not found.verified and found.sha256() == sha256(LARGE[1:])


def test_a_name_or_a_lost_path_is_found_in_the_users_folder(
    whisper_small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "given" / "own").mkdir(parents=True)
    (tmp_path / "given" / "own" / "config.json").write_text("{}")
    (tmp_path / "given" / "whisper-small").mkdir()
    (tmp_path / "given" / "whisper-small" / "small.pt").write_bytes(LARGE)
    monkeypatch.setenv("EMOPIPE_WEIGHTS", str(tmp_path / "given"))
    for name in ("own", "/not/here/own", "lab/own"):
        found = weights.locate(name, offline=True)
        assert found.path == tmp_path / "given" / "own" and not found.verified
    assert weights.locate("whisper-small", offline=True).verified
    (tmp_path / "given" / "whisper-small" / "small.pt").write_bytes(b"other")
    assert not weights.locate("whisper-small", offline=True).verified


def test_a_folders_hash_is_that_of_names_and_contents(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "b").write_text("b")
        (tmp_path / name / "a").write_text("a")
    one, two = (weights.locate(str(tmp_path / name)) for name in ("one", "two"))
    assert one.sha256() == two.sha256()
    (tmp_path / "two" / "a").rename(tmp_path / "two" / "c")
    assert one.sha256() != two.sha256()


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("whisper:small", {"backend": "whisper", "asr": "whisper-small"}),
        ("whisper:turbo", {"backend": "whisper", "asr": "whisper-turbo"}),
        ("small.en", {"backend": "whisper", "asr": "whisper-small.en"}),
        ("whisper-base", {"backend": "whisper", "asr": "whisper-base"}),
        ("faster-whisper", {"backend": "faster-whisper", "asr": "faster-whisper-base"}),
        ("faster-whisper:large", {"backend": "faster-whisper", "asr": "faster-whisper-large"}),
        ("faster-whisper:lab/own", {"backend": "faster-whisper", "asr": "lab/own"}),
        ("whisper:/models/own.pt", {"backend": "whisper", "asr": "/models/own.pt"}),
        ("/models/own.pt", {"backend": "whisper", "asr": "/models/own.pt"}),
        (None, {}),
    ],
)
def test_the_recogniser_on_the_command_line(text: str | None, table: dict[str, str]) -> None:
    assert speech_option(text) == table


def test_paths_on_the_command_line_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.pt").touch()
    (tmp_path / "bert").mkdir()
    assert speech_option("whisper:own.pt")["asr"] == str(tmp_path / "own.pt")
    assert text_option("./bert") == {"encoder": str(tmp_path / "bert")}
    assert text_option("transformers:bert") == {"encoder": str(tmp_path / "bert"), "backend": "transformers"}
    assert text_option("roberta-base") == {"encoder": "roberta-base"}
    with pytest.raises(EmopipeError, match="Did you mean whisper"):
        speech_option("wisper:base")


# No network

#: What names the weight, and what else can be used.
ABSENT = {
    "whisper:small": ("whisper-small/small.pt", "whisper:base"),
    "whisper:turbo": ("whisper-large-v3-turbo/large-v3-turbo.pt", "whisper:base"),
    "faster-whisper:medium": ("faster-whisper-medium", "faster-whisper:base"),
    "text bert-base-uncased": ("bert-base-uncased", "minilm-l6"),
    "text bert-base-chinese": ("bert-base-chinese", "multilingual-e5-small"),
    "text roberta-base": ("roberta-base", "minilm-l6"),
    "text xlm-roberta-base": ("xlm-roberta-base", "multilingual-e5-small"),
    "text lab/own-bert": ("lab/own-bert", "catalogue"),
    "text multilingual-e5-small": ("multilingual-e5-small", ""),
    "text minilm-l6": ("minilm-l6", ""),
}


def backends(what: str, **options: Any) -> Backends:
    """Backends of a configuration, of which the weight is looked for."""
    kind, _, name = what.partition(" ")
    tables = {"text": text_option(name)} if kind == "text" else {"speech": speech_option(what)}
    return Backends(ExtractionConfig.from_dict(tables), **options)


def look_for(what: str, **options: Any) -> EmopipeError:
    with backends(what, **options) as found, pytest.raises(EmopipeError) as caught:
        _ = found.text if what.startswith("text") else found.asr
    return caught.value


class Blocked(OSError):
    """No network."""


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Whatever would leave this process for a network fails; returns what was tried."""
    tried: list[Any] = []

    def refuse(*place: Any, **options: Any) -> Any:
        tried.append(place)
        raise Blocked(101, "Network is unreachable")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    # pip runs in a process of its own, for which this is an index that nobody answers.
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    return tried


@pytest.mark.parametrize("what", ABSENT)
def test_offline_nothing_is_tried_and_the_error_says_what_to_do(what: str, no_network: list[Any]) -> None:
    error = look_for(what, offline=True)
    weight, instead = ABSENT[what]
    assert error.code == "EMO-201" and not no_network
    assert "EMOPIPE_WEIGHTS" in error.hint and weight in error.hint and instead in error.hint
    assert f"emopipe models fetch {weight.split('/small')[0].split('/large')[0]}" in error.hint


@pytest.mark.parametrize("what", ABSENT)
def test_without_a_network_the_error_says_the_same(what: str, no_network: list[Any]) -> None:
    error = look_for(what)
    weight, instead = ABSENT[what]
    assert error.code == "EMO-203"
    assert "EMOPIPE_WEIGHTS" in error.hint and instead in error.hint
    assert "unreachable" in error.what or "pip" in error.what
    assert weight.split("/")[0] in str(error)


def test_a_network_that_is_silent_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver never answers; had it been waited for, this test would not end."""
    forever = threading.Event()

    def wait(*told: Any, **more: Any) -> Any:
        forever.wait()
        raise Blocked(101, "Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", wait)
    monkeypatch.setattr(sources, "_CONNECT_SECONDS", 0.05)
    try:
        for what in ("whisper:small", "text lab/own-bert"):
            assert "no answer within 0.05 s" in look_for(what).what
    finally:
        forever.set()


def test_the_proxy_is_asked_where_there_is_one(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[Any] = []
    real = socket.create_connection

    def connect(place: Any, *told: Any, **more: Any) -> Any:
        places.append(place)
        return real(place, *told, **more)

    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setenv("http_proxy", hub.address)
    sources.check_connection("http://far.example/file")
    assert places == [("127.0.0.1", int(hub.address.rsplit(":", 1)[1]))]
