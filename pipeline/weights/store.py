"""Store model weights in a cache folder: fetch, convert, verify by hash, and tell their state.

Each weight has a folder of its own below ``<cache>/weights``. It holds what the libraries load and
``weight.json``, which records the hashes of the upstream files, the converter, and the hash, size and
modification time of every ready file. A folder appears by one rename, whole or not at all.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from filelock import FileLock, Timeout

from emopipe.errors import (
    CacheUnwritable,
    EmopipeError,
    LibraryMissing,
    StageFailure,
    WeightChanged,
    WeightFolderMissing,
    WeightMissing,
    WeightUnreachable,
)
from emopipe.files import sync
from emopipe.pipeline.progress import Event, Hook, silent, timed
from emopipe.pipeline.weights import sources
from emopipe.pipeline.weights.catalogue import Entry, Source, Url, entry, hub_entry, names

_RECORD = "weight.json"
#: Before hashes of files that the hub names as git does: small ones, outside the catalogue.
GIT: Final = "git:"
#: A conversion that failed with less than this free failed for want of it: torch hides the reason.
_FULL_BYTES = 16 << 20
_UNKNOWN: Final = "no hash of {} is known; held against later is only what came"
_MORE_ROOM = "Free some space, or set EMOPIPE_CACHE to a folder on another disk"

State = Literal["given", "cached", "installed", "missing", "changed"]


@dataclass(frozen=True)
class Status:
    """The state of a weight on this machine: missing, cached, changed, installed or given by the user.

    Attributes:
        name: the weight.
        state: ``given`` (by the user), ``cached``, ``installed`` (in a pinned package that is installed, so
            ready without network), ``missing``, or ``changed`` (cached, but no longer what was stored).
        path: what libraries would load; None when it is not there yet.
        bytes: size on disk; 0 when it is not there yet.
        detail: words for a person.
        code: EMO-201 for missing, EMO-202 for changed, otherwise empty.
    """

    name: str
    state: State
    path: Path | None
    bytes: int
    detail: str
    code: str = ""


def cache_dir() -> Path:
    """Tell the cache folder: EMOPIPE_CACHE, else ``emopipe`` in the platform's folder for caches."""
    if chosen := os.environ.get("EMOPIPE_CACHE"):
        return Path(chosen).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("emopipe", appauthor=False)


def offline_by_environment() -> bool:
    """Whether EMOPIPE_OFFLINE forbids network use (set, and not to 0, false or no)."""
    return os.environ.get("EMOPIPE_OFFLINE", "").strip().lower() not in {"", "0", "false", "no"}


def resolve(
    name: str | Entry,
    *,
    offline: bool = False,
    hook: Hook = silent,
    cache: Path | None = None,
    override: Path | None = None,
) -> Path:
    """Find the file or folder that libraries load, fetched first when it is absent and network use is allowed.

    Looked for in this order: `override`, the folder named by EMOPIPE_WEIGHTS, the cache, the sources of the
    catalogue. What the user gives is taken as it is. In the cache, only sizes and modification times are
    compared with the record, so this is quick; a file is hashed only when they differ.

    Args:
        name: the weight's name.
        offline: forbid network use, as EMOPIPE_OFFLINE=1 does.
        hook: told about progress.
        cache: the cache folder; `cache_dir` by default.
        override: a file or folder to use for this weight.

    Raises:
        WeightMissing: it is missing and network use is forbidden.
        WeightChanged: it was changed, or is another file than the catalogue's.
        WeightUnreachable: no source can be reached.
        CacheUnwritable: the disk is full, or cannot be written.
        WeightUnknown: nothing has that name.
        WeightFolderMissing: a given path is absent.
        LibraryMissing: a library that converts is missing.
        StageFailure: the conversion failed otherwise.
    """
    weight = entry(name)
    if (path := _given(weight, override)) is not None:
        return path
    folder = _folder(weight, cache)
    state = _cached_state(weight, folder, thorough=False)
    if state == "changed":
        raise _changed(weight, folder)
    if state == "cached":
        return folder / weight.ready
    return fetch(weight, offline=offline, hook=hook, cache=cache)


def fetch(name: str | Entry, *, offline: bool = False, hook: Hook = silent, cache: Path | None = None) -> Path:
    """Download a weight into the cache, unless it is there and whole; a changed one is replaced.

    Processes that fetch the same weight wait for each other. Arguments, result and errors as in `resolve`.
    """
    weight = entry(name)
    folder = _folder(weight, cache)
    if _cached_state(weight, folder, thorough=True) == "cached":
        return folder / weight.ready
    offline = offline or offline_by_environment()
    if offline and not any(map(sources.installed, weight.sources)):
        raise _absent(weight)
    with _disk_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(weight, folder.parent, hook):
            if _cached_state(weight, folder, thorough=True) == "cached":  # another process was first
                return folder / weight.ready
            with timed(hook, _task(weight), f"{weight.title} ({weight.licence})"):
                _make(weight, folder, offline, hook)
    return folder / weight.ready


def status(name: str | Entry, *, cache: Path | None = None) -> Status:
    """Tell the state of a weight by sizes and modification times (quick)."""
    return _status(entry(name), cache, thorough=False)


def verify(name: str | Entry, *, cache: Path | None = None) -> Status:
    """Tell the state of a weight by hashing every file of it.

    Upstream files are compared with the catalogue, converted ones with the record made at conversion.
    """
    return _status(entry(name), cache, thorough=True)


def _status(weight: Entry, cache: Path | None, *, thorough: bool) -> Status:
    if (path := _given(weight, None)) is not None:
        detail = _compare_given(weight, path) if thorough else "from EMOPIPE_WEIGHTS"
        return Status(weight.name, "given", path, _bytes(path), detail)
    folder = _folder(weight, cache)
    state = _cached_state(weight, folder, thorough=thorough)
    ready = folder / weight.ready
    if state == "cached":
        detail = "hashes agree" if thorough else "in the cache"
        if weight.unhashed:
            detail += f"; {_UNKNOWN.format(' and '.join(weight.unhashed))} first"
        return Status(weight.name, state, ready, _bytes(ready), detail)
    if state == "changed":
        return Status(weight.name, state, ready, _bytes(ready), _changed(weight, folder).hint, WeightChanged.code)
    if any(_installed_is_whole(weight, source, thorough) for source in weight.sources):
        return Status(weight.name, "installed", None, 0, "in an installed package; needs no network")
    return Status(weight.name, "missing", None, 0, f"emopipe models fetch {weight.name}", WeightMissing.code)


def _given(weight: Entry, override: Path | None) -> Path | None:
    """Find what the user gave for this weight: `override`, or ``NAME`` or the ready file in EMOPIPE_WEIGHTS."""
    if override is not None:
        if not override.exists():
            raise WeightFolderMissing(f"what is given for weight {weight.name} does not exist", path=override)
        return override
    if weight.ready == ".":
        return given(weight.name) or given(Path(weight.name).name)
    return given(f"{weight.name}/{weight.ready}") or given(weight.ready)


def recorded(name: str, cache: Path | None = None) -> Entry | None:
    """Read the entry of a hub model in the cache from its record; None when it is not there."""
    record = _read_record((cache or cache_dir()) / "weights" / name.replace("/", "--"))
    if record is None or record.get("name") != name or "source" not in record:
        return None
    return hub_entry(name, record["title"], record["licence"], record["upstream"], record["source"])


def given(name: str) -> Path | None:
    """Find a relative path in the folder that EMOPIPE_WEIGHTS names, for weights outside the catalogue too.

    Raises:
        ConfigError: when EMOPIPE_WEIGHTS does not name a folder.
    """
    if not (chosen := os.environ.get("EMOPIPE_WEIGHTS")):
        return None
    root = Path(chosen).expanduser()
    if not root.is_dir():
        raise WeightFolderMissing("EMOPIPE_WEIGHTS does not name a folder", path=root)
    return root / name if (root / name).exists() else None


def unlisted(cache: Path | None = None) -> list[Entry]:
    """List the hub models in the cache that are not in the catalogue."""
    folders = sorted((cache or cache_dir()).glob("weights/*--*"))
    entries = (recorded(folder.name.replace("--", "/", 1), cache) for folder in folders)
    return [weight for weight in entries if weight is not None]


def here(cache: Path | None = None) -> list[Entry]:
    """List the weights that are on this machine, and the embedded ones, which ought to be."""
    catalogue = map(entry, names())
    present = [weight for weight in catalogue if weight.embedded or status(weight, cache=cache).path is not None]
    return present + unlisted(cache)


def _folder(weight: Entry, cache: Path | None) -> Path:
    return (cache or cache_dir()) / "weights" / weight.folder


# The record and the hashes


def sha256(path: Path) -> str:
    """The sha256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest(path: Path, like: str) -> str:
    """Hash a file: its sha256, or (where `like` is one) the identifier that git gives it."""
    if not like.startswith(GIT):
        return sha256(path)
    data = path.read_bytes()
    return GIT + hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _stamp(path: Path) -> dict[str, int]:
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def files(folder: Path) -> list[str]:
    """The files of a weight's folder, relative to it and sorted, without our record."""
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(file for file in files if file != _RECORD)


def _write_record(weight: Entry, folder: Path) -> None:
    record = {
        "name": weight.name,
        "title": weight.title,
        "licence": weight.licence,
        "source": next((source.base for source in weight.sources if isinstance(source, Url)), ""),
        "upstream": dict(weight.files),
        "convert": weight.convert,
        "files": _described(folder, {file: sha256(folder / file) for file in files(folder)}),
    }
    (folder / _RECORD).write_text(json.dumps(record, indent=2) + "\n")


def _described(folder: Path, hashes: Mapping[str, str]) -> dict[str, dict[str, str | int]]:
    return {file: {"sha256": digest, **_stamp(folder / file)} for file, digest in hashes.items()}


def _read_record(folder: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((folder / _RECORD).read_text())
        return record if isinstance(record["files"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _cached_state(weight: Entry, folder: Path, *, thorough: bool) -> State:
    """Compare a folder with its record: cached, changed, or missing (also when other upstream files made it)."""
    if not folder.is_dir():
        return "missing"
    if (record := _read_record(folder)) is None:
        return "changed"
    if record.get("upstream") != weight.files or record.get("convert") != weight.convert:
        return "missing"
    expected = _expected(weight, record)
    touched = False
    for file, digest in expected.items():
        try:
            stamp, recorded = _stamp(folder / file), record["files"][file]
            unchanged = stamp == {"size": recorded["size"], "mtime_ns": recorded["mtime_ns"]}
            if (thorough or not unchanged) and sha256(folder / file) != digest:
                return "changed"
        except (OSError, KeyError, TypeError):
            return "changed"
        touched |= not unchanged
    if touched:
        _refresh(folder, record, expected)
    return "cached"


def _expected(weight: Entry, record: dict[str, Any]) -> dict[str, str]:
    """Map each ready file to the sha256 it must have: the catalogue's, or the recorded one where it has none."""
    recorded = {file: stored.get("sha256", "") for file, stored in record.get("files", {}).items()}
    if weight.convert:
        return recorded
    catalogued = {file: hash for file, hash in weight.files.items() if hash and not hash.startswith(GIT)}
    return {file: catalogued.get(file, recorded.get(file, "")) for file in weight.files}


def _refresh(folder: Path, record: dict[str, Any], expected: dict[str, str]) -> None:
    """Record new modification times (of a copied cache), so that the next look is quick again."""
    record["files"] = _described(folder, expected)
    try:
        with tempfile.NamedTemporaryFile("w", dir=folder.parent, prefix=".record-", delete=False) as stream:
            stream.write(json.dumps(record, indent=2) + "\n")
        Path(stream.name).replace(folder / _RECORD)
    except OSError:  # a cache that cannot be written is still good to read
        return


def is_same(weight: Entry, path: Path) -> bool | None:
    """Whether a file or folder holds the weight, byte for byte; None when there is nothing to compare it with."""
    folder = path if path.is_dir() else path.parent
    record = _read_record(folder) or {}
    unknown = weight.convert or not all(weight.files.values())
    if unknown and record.get("upstream") != weight.files:
        return None
    expected = _expected(weight, record)
    return all((folder / file).is_file() and sha256(folder / file) == digest for file, digest in expected.items())


def _compare_given(weight: Entry, path: Path) -> str:
    words = {True: "same as the catalogue's", False: "differs from the catalogue's", None: "nothing to compare it with"}
    return f"from EMOPIPE_WEIGHTS; {words[is_same(weight, path)]}"


def _installed_is_whole(weight: Entry, source: Source, thorough: bool) -> bool:
    if (parts_by_file := sources.installed(source)) is None:
        return False
    if not thorough:
        return True
    for file, parts in parts_by_file.items():
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part.read_bytes())
        if digest.hexdigest() != weight.files[file]:
            return False
    return True


def _bytes(path: Path) -> int:
    return sum(p.stat().st_size for p in (path.rglob("*") if path.is_dir() else [path]) if p.is_file())


def _changed(weight: Entry, folder: Path) -> EmopipeError:
    return WeightChanged(
        f"weight {weight.name} in the cache is not what was stored there",
        path=folder,
        hint=f"Run `emopipe models fetch {weight.name}` to replace it",
    )


# Making a weight


def _task(weight: Entry) -> str:
    return f"fetch {weight.name}"


def _make(weight: Entry, folder: Path, offline: bool, hook: Hook) -> None:
    """Build the weight in a temporary folder of the same disk, then rename it into place."""
    for stale in folder.parent.glob(f".{weight.folder}~*.partial"):  # of a process that was killed
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        dir=folder.parent, prefix=f".{weight.folder}~", suffix=".partial", ignore_cleanup_errors=True
    ) as name:
        work = Path(name)
        upstream, ready = work / "upstream", work / "ready"
        upstream.mkdir()
        keep = folder.parent / f".{weight.folder}.parts"
        _obtain(weight, upstream, work, keep, offline, hook)
        _check(weight, upstream)
        for file in weight.unhashed:
            hook(Event("warning", _task(weight), f"{_UNKNOWN.format(file)} now, of sha256 {sha256(upstream / file)}"))
        if weight.convert:
            hook(Event("info", _task(weight), "converting"))
            ready.mkdir()
            _convert(weight, upstream, ready)
        else:
            upstream.rename(ready)
        for file in files(ready):
            (ready / file).chmod(0o644)  # some libraries write for the owner alone, but a cache may be shared
        _write_record(weight, ready)
        _put_in_place(ready, folder, work / "old")
        shutil.rmtree(keep, ignore_errors=True)


def _obtain(weight: Entry, upstream: Path, work: Path, keep: Path, offline: bool, hook: Hook) -> None:
    """Download the upstream files from the first source that has them; installed packages come first."""
    for source in weight.sources:
        if (parts_by_file := sources.installed(source)) is not None:
            return sources.copy_installed(parts_by_file, upstream)
    if offline:
        raise _absent(weight)
    total = weight.download or None

    def tell(done: int) -> None:
        hook(Event("progress", _task(weight), "bytes", done=min(done, total or done), total=total))

    failures = []
    for source in weight.sources:
        try:
            return sources.download(weight, source, upstream, work, keep, tell)
        except sources.Unavailable as failure:
            failures.append(str(failure))
    raise WeightUnreachable(
        f"weight {weight.name} could not be fetched: {'; '.join(failures)}",
        hint=f"Check the network and pip's index settings, or {_by_hand(weight)}",
    )


def _absent(weight: Entry) -> EmopipeError:
    return WeightMissing(
        f"weight {weight.name} is not here, and network use is forbidden",
        hint=f"Run `emopipe models fetch {weight.name}` once with network, or {_by_hand(weight)}",
    )


def _by_hand(weight: Entry) -> str:
    files = weight.files if weight.ready == "." and not weight.convert else [weight.ready.strip(".")]
    paths = " and ".join(f"{weight.name}/{file}" for file in files)
    urls = [sources.at_endpoint(source.base) for source in weight.sources if isinstance(source, Url)]
    origin = f"from {urls[0]}" if urls and not weight.convert else "from the cache of another machine"
    instead = f", or use {weight.instead}" if weight.instead else ""
    return f"set EMOPIPE_WEIGHTS to a folder that holds {paths} ({origin}){instead}"


def _check(weight: Entry, upstream: Path) -> None:
    for file, expected in weight.files.items():
        digest = _digest(upstream / file, expected)
        if expected and digest != expected:
            raise WeightChanged(
                f"{file} of weight {weight.name} was refused: hash {digest} instead of {expected}",
                hint="The source offers another file than the one this release was tested with",
            )


def _convert(weight: Entry, upstream: Path, ready: Path) -> None:
    from emopipe.pipeline.weights.convert import CONVERTERS  # imports numpy, which looking up does not need

    source = upstream if len(weight.files) > 1 else upstream / next(iter(weight.files))
    try:
        CONVERTERS[weight.convert](source, ready / weight.ready)
    except ImportError as error:
        raise LibraryMissing(f"weight {weight.name} cannot be converted: {error}") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        full = os.strerror(errno.ENOSPC) in str(error) or shutil.disk_usage(ready).free < _FULL_BYTES
        failure = CacheUnwritable if full else StageFailure
        raise failure(
            f"weight {weight.name} cannot be converted: {error}",
            hint=_MORE_ROOM if full else "Please report this with the versions that `emopipe doctor` lists",
        ) from error


def _put_in_place(ready: Path, folder: Path, old: Path) -> None:
    for file in [*files(ready), _RECORD]:
        sync(ready / file)
    if folder.exists():
        folder.rename(old)
    ready.replace(folder)
    sync(folder.parent)


@contextmanager
def _lock(weight: Entry, root: Path, hook: Hook) -> Iterator[None]:
    lock = FileLock(root / f".{weight.folder}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        hook(Event("info", _task(weight), "another process is fetching it; waiting"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CacheUnwritable(
            f"the weight could not be stored: {error.strerror or error}",
            path=root,
            hint=_MORE_ROOM,
        ) from error
