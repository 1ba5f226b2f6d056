"""Find the path of a weight that a configuration names: in the catalogue, by its path, or on the hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from emopipe.errors import WeightMissing, WeightUnknown
from emopipe.pipeline.progress import Hook, silent
from emopipe.pipeline.weights import hub, store
from emopipe.pipeline.weights.catalogue import Entry, entry, known, names


@dataclass(frozen=True)
class Located:
    """A weight on this machine: its path, and whether it is verified.

    Attributes:
        name: as it was asked for.
        path: what libraries load.
        verified: whether it is a weight of the catalogue, byte for byte; never where the catalogue knows no hash.
        weight: its entry, when it has one.
    """

    name: str
    path: Path
    verified: bool
    weight: Entry | None = None

    def sha256(self, digest: Callable[[Path], str] = store.sha256) -> str:
        """Hash the file, or the names and hashes of the files of a folder; `digest` tells the sha256 of a file."""
        if self.path.is_file():
            return digest(self.path)
        lines = "".join(f"{file} {digest(self.path / file)}\n" for file in store.files(self.path))
        return hashlib.sha256(lines.encode()).hexdigest()


@dataclass(frozen=True)
class Identity:
    """A hash that identifies the bytes of a weight.

    Attributes:
        hash: of a weight of the catalogue, over what the catalogue says of it; else over its files.
        verified: whether it is a weight of the catalogue, byte for byte.
    """

    hash: str
    verified: bool


def locate(name: str, *, offline: bool = False, hook: Hook = silent, cache: Path | None = None) -> Located:
    """Find a weight, fetching it first when it is not here and network use is allowed.

    Args:
        name: of the catalogue; a path, anything with a slash in it; what EMOPIPE_WEIGHTS holds under that name (of a
            path: under its last part); or "owner/model" of the hub.
        offline, hook, cache: as for :func:`resolve`.

    Raises:
        WeightError: and others of :func:`resolve`; WeightUnknown also when there is nothing of that name.
    """
    path = Path(name).expanduser()
    if _is_path(name):
        return Located(name, path, _recognised(path))
    if (weight := known(name)) is None:
        if (local := store.given(name) or store.given(path.name)) is not None:
            return Located(name, local, _recognised(local))
        if path.name != name and not hub.is_name(name):
            hint = f"Give a path that exists, or set EMOPIPE_WEIGHTS to a folder that holds {path.name}"
            raise WeightUnknown("there is no such file or folder of weights", path=path, hint=hint)
        weight = find(name, offline=offline, cache=cache)
    ready = store.resolve(weight, offline=offline, hook=hook, cache=cache)
    hashed = weight.name in names() and not weight.unhashed
    given_by_user = store.status(weight, cache=cache).state == "given"
    return Located(name, ready, hashed and (not given_by_user or store.is_same(weight, ready) is True), weight)


def identify(
    name: str,
    *,
    digest: Callable[[Path], str] = store.sha256,
    offline: bool = False,
    hook: Hook = silent,
    cache: Path | None = None,
) -> Identity:
    """Identify a weight by a hash: of the catalogue's facts, without its files; any other is fetched and hashed.

    Args:
        name, offline, hook, cache: as for :func:`locate`.
        digest: tells the sha256 of a file.

    Raises:
        EmopipeError: as :func:`locate`.
    """
    weight = _hashed_entry(name, cache)
    if weight is None:
        located = locate(name, offline=offline, hook=hook, cache=cache)
        return Identity(located.sha256(digest), located.verified)
    facts = [dict(weight.files), weight.convert, weight.languages]
    return Identity(hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest(), True)


def needs_file(name: str, *, cache: Path | None = None) -> bool:
    """Whether a weight is identified only by its files: the catalogue lacks their hashes, or the user gave them."""
    return _hashed_entry(name, cache) is None


def _hashed_entry(name: str, cache: Path | None) -> Entry | None:
    """Look up a weight of which the catalogue has every hash, unless the user gave other files for it."""
    weight = None if _is_path(name) else known(name)
    if weight is None or not all(weight.files.values()) or store.status(weight, cache=cache).state == "given":
        return None
    return weight


def _is_path(name: str) -> bool:
    path = Path(name).expanduser()
    return path.name != name and path.exists()


def find(name: str, *, offline: bool = False, cache: Path | None = None) -> Entry:
    """Look up the entry of a weight: in the catalogue, among hub models in the cache, or on the hub.

    Raises:
        WeightMissing: when only the hub could tell and network use is forbidden, WeightUnreachable when it does not
            answer, WeightUnknown when nothing has that name.
    """
    if (weight := known(name)) is not None or not hub.is_name(name):
        return weight or entry(name)
    if (weight := store.recorded(name, cache)) is not None:
        return weight
    if offline or store.offline_by_environment():
        raise WeightMissing(
            f"there is no file or folder {name} here, no such weight in the catalogue, and network use is forbidden",
            hint=f"Run `emopipe models fetch {name}` once with network, or set EMOPIPE_WEIGHTS to a folder that holds "
            f"{name}, or use a weight of the catalogue (`emopipe models list`)",
        )
    return hub.look_up(name)


def _recognised(path: Path) -> bool:
    """Whether a file or folder is a weight of the catalogue, byte for byte."""

    def same_kind(weight: Entry) -> bool:
        return path.is_dir() if weight.ready == "." else path.name == weight.ready

    return any(store.is_same(weight, path) for weight in map(entry, names()) if same_kind(weight))
