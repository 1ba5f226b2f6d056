"""Where results of stages are kept, so that nothing is computed twice.

A result is a Parquet file named by its key: the hash of everything that decides it (see
:mod:`emopipe.pipeline.execution.plan`). The file's existence is the truth; it appears by one rename, whole or not at
all. Beside the files, an SQLite index remembers what is convenient to know and can be lost: hashes of media by path,
size and time of change, what each result was made from, and how long work took.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import sqlite3
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from emopipe.errors import EmopipeError, InputChanged, StoreError
from emopipe.files import sync
from emopipe.pipeline import weights
from emopipe.pipeline.store import serialization

_INDEX: Final = "index.sqlite"
#: Its presence tells that several machines use the store: SQLite's write-ahead log works on one machine only.
_SHARED: Final = "shared"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, content TEXT);
CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, stage TEXT, content TEXT, facts TEXT, made REAL);
CREATE TABLE IF NOT EXISTS work (id INTEGER PRIMARY KEY, key TEXT, stage TEXT, began REAL, seconds REAL, footage REAL);
CREATE INDEX IF NOT EXISTS results_of ON results (content, stage);
CREATE INDEX IF NOT EXISTS work_of ON work (stage);
"""
#: Results that took longer than this are on the disk before work goes on, in seconds. Of others, the crash of a machine
#: (not of a process) may cost some: what it leaves of their files is not complete Parquet, and is computed again.
WORTH_WAITING: Final = 1.0
#: How long to wait for another process that writes to the index, in seconds.
_PATIENCE: Final = 30.0
#: A file changed more recently than this may change again within the resolution of its time stamp, in nanoseconds.
_FRESH_NS: Final = 2_000_000_000
#: Temporary files older than this were left by processes that were killed, in seconds.
_STALE: Final = 2 * 86_400
_DAY: Final = 86_400.0
#: Past timings that an estimate rests on.
_RECENT: Final = 50


@dataclass(frozen=True)
class Content:
    """The bytes of a file at one moment: their hash, and the size and time of change by which to notice a change."""

    hash: str
    size: int
    mtime_ns: int

    def still(self, path: Path) -> bool:
        """Whether the file is as it was."""
        try:
            return _stamp(path) == (self.size, self.mtime_ns)
        except OSError:
            return False


@dataclass(frozen=True)
class Usage:
    """What the results of one stage take: how many there are, bytes, and when the last one was used (Unix time)."""

    stage: str
    results: int
    bytes: int
    used: float


def store_dir() -> Path:
    """Where results are kept by default: EMOPIPE_STORE, else ``store`` in emopipe's cache folder."""
    chosen = os.environ.get("EMOPIPE_STORE")
    return Path(chosen).expanduser() if chosen else weights.cache_dir() / "store"


class Store:
    """A folder of results that any number of processes may use at once.

    Args:
        folder: created when missing.
        shared: let other machines use it, too, from now on; each must see it under the same path.

    Raises:
        StoreError: when the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, *, shared: bool = False) -> None:
        self.folder = folder
        self._results, self._temporary, self._locks = (folder / name for name in ("results", "temporary", "locks"))
        try:
            for part in (self._results, self._temporary, self._locks):
                part.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self._temporary).close()
            shared_as = self.shared_as
            self._index = _open_index(folder / _INDEX, "DELETE" if shared or shared_as else "WAL")
            if shared and not shared_as:
                (folder / _SHARED).write_text(uuid.uuid4().hex)
        except (OSError, sqlite3.Error) as error:
            raise _unusable(folder, error) from None
        if self._empty_index():
            self._reindex()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc: object) -> None:
        self._index.close()

    @property
    def shared_as(self) -> str | None:
        """What tells the store from any other, when several machines may use it."""
        try:
            return (self.folder / _SHARED).read_text()
        except FileNotFoundError:
            return None

    # Results

    def has(self, key: str) -> bool:
        """Whether there is a result under the key."""
        return self._path(key).exists()

    def get(self, key: str) -> dict[str, Any] | None:
        """The result under the key; None when there is none, or a damaged one (which is removed)."""
        path = self._path(key)
        try:
            values = serialization.read(path)
        except FileNotFoundError:
            return None
        except OSError:
            path.unlink(missing_ok=True)
            return None
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _DAY:
                os.utime(path)
        return values

    def facts(self, key: str) -> dict[str, Any]:
        """What the result under the key was made from; {} when there is none."""
        try:
            return serialization.read_facts(self._path(key))
        except OSError:
            return {}

    def put(self, key: str, values: Mapping[str, Any], facts: Mapping[str, Any], began: float = 0.0) -> dict[str, Any]:
        """Keep a result.

        Args:
            key: its name.
            values: see :mod:`emopipe.pipeline.store.serialization`; iterators in it are used up.
            facts: what it was made from; `stage` and `content` among them.
            began: when the work on it began, of `time.perf_counter`: the disk is waited for only after long work.

        Returns:
            The result as it is read back.

        Raises:
            StoreError: when it cannot be written.
        """
        path, partial = self._path(key), self._temporary / uuid.uuid4().hex
        try:
            serialization.write(partial, values, facts)
            path.parent.mkdir(parents=True, exist_ok=True)
            if time.perf_counter() - began > WORTH_WAITING:
                sync(partial)
                partial.replace(path)
                sync(path.parent)
            else:
                partial.replace(path)
        except OSError as error:
            raise _unusable(self.folder, error) from error
        finally:
            partial.unlink(missing_ok=True)
        self._remember(key, facts)
        return serialization.read(path)

    @contextmanager
    def claim(self, key: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Keep other processes from computing the same result meanwhile.

        Whoever comes second waits (after calling `waiting`), and should look for the result again. The claim of a
        process that dies is void. Where the file system knows no locks there is no claim: the result may be computed
        twice, to no harm.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self._locks / key)
        try:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                waiting()
                lock.acquire()
        except (OSError, NotImplementedError):
            yield
            return
        try:
            yield
            if self.has(key):
                with suppress(OSError):
                    (self._locks / key).unlink()
        finally:
            lock.release()

    # Media

    def content(self, path: Path) -> Content:
        """The bytes of a file, hashed unless the file is known by path, size and time of change.

        Raises:
            InputError: when it cannot be read, InputChanged when it changes meanwhile.
        """
        from emopipe.pipeline.media.finding import checked

        content: Content = checked(path, lambda: self._content(path))
        return content

    def known(self, path: Path) -> Content | None:
        """The bytes of a file that was hashed before and has not changed; None for any other."""
        try:
            stamp = _stamp(path)
        except OSError:
            return None
        sql = "SELECT content FROM files WHERE path = ? AND size = ? AND mtime_ns = ?"
        rows = self._ask(sql, os.fsencode(os.path.realpath(path)), *stamp)
        return Content(rows[0][0], *stamp) if rows and _is_sha256(rows[0][0]) else None

    def _content(self, path: Path) -> Content:
        if (remembered := self.known(path)) is not None:
            return remembered
        before = _stamp(path)
        with path.open("rb") as stream:
            content = Content(hashlib.file_digest(stream, "sha256").hexdigest(), *before)
        if not content.still(path):
            raise changed(path)
        if time.time_ns() - before[1] > _FRESH_NS:
            name = os.fsencode(os.path.realpath(path))
            self._ask("REPLACE INTO files VALUES (?, ?, ?, ?)", name, *before, content.hash)
        return content

    # What is known of past work

    def began(self, key: str, stage: str, footage: float) -> int:
        """Note that a stage starts on so many seconds of footage; returns the number to call :meth:`ended` with."""
        sql = "INSERT INTO work (key, stage, began, footage) VALUES (?, ?, ?, ?) RETURNING id"
        rows = self._ask(sql, key, stage, time.time(), footage)
        return int(rows[0][0]) if rows else 0

    def ended(self, number: int, seconds: float) -> None:
        """Note that a stage has ended."""
        self._ask("UPDATE work SET seconds = ? WHERE id = ?", seconds, number)

    def work(self) -> list[tuple[str, str, float | None]]:
        """Key, stage and seconds of every time that a stage was started; None for those that never ended."""
        return self._ask("SELECT key, stage, seconds FROM work ORDER BY id")

    def rate(self, stage: str) -> float | None:
        """Seconds of work per second of footage, the median of recent times; None when it was never done."""
        sql = (
            "SELECT seconds / footage FROM work WHERE stage = ? AND seconds IS NOT NULL AND footage > 0 "
            "ORDER BY id DESC LIMIT ?"
        )
        rates = [
            row[0] for row in self._ask(sql, stage, _RECENT) if isinstance(row[0], float) and 0 <= row[0] < math.inf
        ]
        return statistics.median(rates) if rates else None

    def made(self, content: str, stage: str) -> list[dict[str, Any]]:
        """The facts of results that a stage has made of a file, newest first."""
        sql = "SELECT facts FROM results WHERE content = ? AND stage = ? ORDER BY made DESC LIMIT ?"
        rows = self._ask(sql, content, stage, _RECENT)
        return [facts for (text,) in rows if (facts := _facts_of(text)) is not None]

    def knows(self, content: str, beside: str) -> bool:
        """Whether any result was made of a file, beside those of one stage."""
        return bool(self._ask("SELECT 1 FROM results WHERE content = ? AND stage <> ? LIMIT 1", content, beside))

    # Size

    def usage(self) -> list[Usage]:
        """What each stage's results take, the largest first."""
        stages = {key: str(stage) for key, stage in self._ask("SELECT key, stage FROM results")}
        groups: dict[str, list[os.stat_result]] = {}
        for path, stat in self._files():
            groups.setdefault(stages.get(path.stem, "unknown"), []).append(stat)
        usages = [
            Usage(stage, len(stats), sum(s.st_size for s in stats), max(s.st_mtime for s in stats))
            for stage, stats in groups.items()
        ]
        return sorted(usages, key=lambda usage: -usage.bytes)

    def prune(
        self,
        superseded: Callable[[Mapping[str, Any]], bool],
        *,
        unused_for: float | None = None,
        down_to: int | None = None,
    ) -> tuple[int, int]:
        """Remove results that no run will ask for again, and on request more.

        Args:
            superseded: told a result's facts, says whether it is out of date.
            unused_for: remove also what was not used for so many seconds.
            down_to: remove also the longest unused until the rest takes at most so many bytes.

        Returns:
            How many results were removed, and their bytes.
        """
        noted = ((key, _facts_of(text)) for key, text in self._ask("SELECT key, facts FROM results"))
        old = {key for key, facts in noted if facts is not None and superseded(facts)}
        files = sorted(self._files(), key=lambda item: item[1].st_mtime)
        left, now, gone = sum(stat.st_size for _, stat in files), time.time(), []
        for path, stat in files:
            unused = unused_for is not None and now - stat.st_mtime >= unused_for
            if path.stem in old or unused or (down_to is not None and left > down_to):
                with suppress(OSError):
                    path.unlink()
                    gone.append((path.stem, stat.st_size))
                    left -= stat.st_size
        for key, _ in gone:
            self._ask("DELETE FROM results WHERE key = ?", key)
        self._ask("DELETE FROM work WHERE began < ?", now - 365 * _DAY)
        for path in (*self._temporary.iterdir(), *self._locks.iterdir()):
            with suppress(OSError):
                if now - path.stat().st_mtime > _STALE:
                    path.unlink()
        return len(gone), sum(size for _, size in gone)

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self._results.glob("*/*.parquet"):
            with suppress(OSError):
                yield path, path.stat()

    def _path(self, key: str) -> Path:
        return self._results / key[:2] / f"{key}.parquet"

    # The index

    def _ask(self, sql: str, *values: Any) -> list[Any]:
        """Rows of a statement; none when the index cannot be used just now (a full disk, a broken share)."""
        try:
            return self._index.execute(sql, values).fetchall()
        except sqlite3.Error:
            return []

    def _remember(self, key: str, facts: Mapping[str, Any]) -> None:
        sql = "REPLACE INTO results VALUES (?, ?, ?, ?, ?)"
        self._ask(sql, key, facts["stage"], facts["content"], json.dumps(facts), time.time())

    def _empty_index(self) -> bool:
        return not self._ask("SELECT 1 FROM results LIMIT 1") and any(self._results.iterdir())

    def _reindex(self) -> None:
        """Read what the results say of themselves, after the index was lost."""
        for path, _ in self._files():
            with suppress(OSError):
                self._remember(path.stem, serialization.read_facts(path))


@contextmanager
def store_of_run(folder: Path | None = None) -> Iterator[Store | None]:
    """A store that is there already, opened; None where there is none.

    Args:
        folder: None: the default one.
    """
    folder = folder or store_dir()
    if not folder.is_dir():
        yield None
        return
    with Store(folder) as store:
        yield store


@contextmanager
def temporary_store() -> Iterator[Store]:
    """A store in a temporary folder, for runs that shall keep nothing."""
    with (
        tempfile.TemporaryDirectory(prefix="emopipe-", ignore_cleanup_errors=True) as folder,
        Store(Path(folder)) as store,
    ):
        yield store


def changed(path: Path) -> EmopipeError:
    """The error for a file that is written to while it is read."""
    hint = "Run again when its recording or copying has ended"
    return InputChanged("the file changed while it was being read", path=path, hint=hint)


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _facts_of(text: object) -> dict[str, Any] | None:
    """The facts of a result as the index has them; None where it is damaged: the file of the result has them, too."""
    try:
        facts = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return facts if isinstance(facts, dict) and {"stage", "content", "version", "libraries"} <= facts.keys() else None


def _is_sha256(text: object) -> bool:
    return isinstance(text, str) and len(text) == 64 and set(text) <= set("0123456789abcdef")


def _open_index(path: Path, journal: str) -> sqlite3.Connection:
    """The index; one that is damaged is put aside."""
    try:
        return _connect(path, journal)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        path.replace(path.with_suffix(".damaged"))
        return _connect(path, journal)


def _connect(path: Path, journal: str) -> sqlite3.Connection:
    index = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)
    index.execute(f"PRAGMA journal_mode = {journal}")
    index.execute("PRAGMA synchronous = NORMAL")
    index.executescript(_SCHEMA)
    return index


def _unusable(folder: Path, error: OSError | sqlite3.Error) -> EmopipeError:
    full = getattr(error, "errno", None) == errno.ENOSPC or shutil.disk_usage(_existing(folder)).free == 0
    what = "the disk is full" if full else str(getattr(error, "strerror", None) or error)
    hint = "Free some space (`emopipe store --prune`), name another folder with --store, or give --no-store"
    return StoreError(f"results cannot be stored: {what}", path=folder, hint=hint)


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())
