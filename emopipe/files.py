"""Files and folders that appear whole or not at all, also when the process or the machine dies."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from emopipe.errors import OutputError

_PARTIAL = ".partial-"


@contextmanager
def writing(what: str, path: Path) -> Iterator[None]:
    """Where a file or folder is written.

    Raises:
        OutputError: when it cannot be, as on a full disk.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"{what} cannot be written: {error.strerror or error}", path=path) from error


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk (Windows cannot open folders for this)."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_file(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A path to write to that takes the place of `path` when the block ends well, and vanishes when it does not.

    Args:
        path: the file.
        durable: wait until the disk has it.

    Raises:
        OSError: it cannot be written.
    """
    partial = _partial(path)
    try:
        yield partial
        if durable:
            sync(partial)
        partial.replace(path)
        if durable:
            sync(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes | str, *, durable: bool = False) -> None:
    """Write a file whole or not at all. Names of files that are not Unicode are written with escapes.

    Raises:
        OSError: it cannot be written.
    """
    with atomic_file(path, durable=durable) as partial:
        partial.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "backslashreplace"))


@contextmanager
def atomic_folder(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A fresh folder that takes the place of `path` when the block ends well, and vanishes when it does not.

    Args:
        path: the folder; one that is there is replaced, and stays where the fresh one cannot take its place.
        durable: wait until the disk has every file in it.

    Raises:
        OSError: it cannot be written.
    """
    fresh, old = _partial(path), path.with_name(f".{path.name}.old-{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, path.name)
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        yield fresh
        if durable:
            for file in fresh.rglob("*"):
                sync(file)
        _replace_folder(fresh, path, old)
        if durable:
            sync(path.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _replace_folder(fresh: Path, path: Path, old: Path) -> None:
    """Rename `fresh` to `path`; what was there goes by way of `old`, and comes back where that fails."""
    if not path.exists():
        fresh.rename(path)
        return
    path.rename(old)
    try:
        fresh.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name[:180]}{_PARTIAL}{os.getpid()}")


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Remove what processes that were killed had half written into a folder: all of it, or of one name."""
    import psutil

    for path in folder.glob(f".{glob.escape(name[:180]) or '*'}{_PARTIAL}*"):
        number = path.name.rpartition(_PARTIAL)[2]
        if number.isdecimal() and not psutil.pid_exists(int(number)):
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
