"""What on this machine could keep emopipe from working, found before a run does."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from emopipe.errors import EmopipeError
from emopipe.pipeline import weights
from emopipe.pipeline.backends import registry
from emopipe.plugins import unreadable

#: All weights of the catalogue fit into this, with what is temporary while they are made and room to spare.
_ROOM_BYTES = 2 << 30

#: Distributions that install the same `cv2`; py-feat and others choose one of them.
_OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        name: what was looked at.
        state: ``ok``; ``warn``: works, but not in every case; ``fail``: must be mended first.
        detail: what was found.
        hint: what to do; empty when all is well.
    """

    name: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    hint: str = ""


def checks(*, cache: Path | None = None, offline: bool = False) -> list[Check]:
    """Look at Python, libraries, device, cache, weights and network use.

    Only torch is imported, to ask it for a GPU, and plugins, to see whether they can be.

    Args:
        cache: the cache folder; `weights.cache_dir` by default.
        offline: as if EMOPIPE_OFFLINE were set: a missing weight is then a failure.
    """
    cache = cache or weights.cache_dir()
    offline = offline or weights.offline_by_environment()
    return [
        *_software(),
        _device(),
        Check("cores", "ok", f"{_cores()} to use"),
        _writable(cache),
        _room(cache),
        *(_weight(weight, cache, offline) for weight in _weights(cache)),
        *map(_plugin, registry.plugins()),
        *_unreadable_packages(),
        Check("network", "ok", "forbidden" if offline else "used only to fetch missing weights"),
    ]


def _software() -> list[Check]:
    """Python and the libraries against what emopipe's own metadata ask for."""
    try:
        package = metadata.metadata("emopipe")
    except metadata.PackageNotFoundError:
        return [Check("emopipe", "fail", "not installed", "pip install emopipe")]
    requirements = [Requirement(text) for text in metadata.requires("emopipe") or []]
    needed = [need for need in requirements if need.marker is None or need.marker.evaluate({"extra": ""})]
    return [_python(package["Requires-Python"] or ""), *(_library(need) for need in needed)]


def _python(required: str) -> Check:
    installed = platform.python_version()
    if SpecifierSet(required).contains(installed, prereleases=True):
        return Check("python", "ok", installed)
    return Check("python", "fail", f"{installed} instead of {required}", f"Install Python {required}")


def _library(need: Requirement) -> Check:
    command = f'pip install "{need.name}{need.specifier}"'
    if (version := _version(need.name)) is None:
        return Check(need.name, "fail", "not installed", command)
    if need.specifier.contains(version, prereleases=True):
        return Check(need.name, "ok", version)
    return Check(need.name, "fail", f"{version} instead of {need.specifier}", command)


def _version(name: str) -> str | None:
    for candidate in _OPENCV if name in _OPENCV else (name,):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(candidate)
    return None


def _device() -> Check:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library of torch does not load
        return Check("device", "fail", f"torch does not load: {error}", "Install the versions named above")
    if torch.cuda.is_available():
        return Check("device", "ok", f"cuda: {torch.cuda.get_device_name()}")
    return Check("device", "ok", "cpu; no CUDA device is available")


def _cores() -> int:
    """Cores this process may use, which a container or a scheduler can make fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _writable(cache: Path) -> Check:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            return Check("cache", "ok", str(cache))
    except OSError as error:
        hint = "Set EMOPIPE_CACHE to a folder that can be written"
        return Check("cache", "fail", f"{cache}: {error.strerror or error}", hint)


def _room(cache: Path) -> Check:
    existing = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    detail = f"{free / 1e9:.1f} GB free"
    if free < _ROOM_BYTES:
        hint = "Fetching every weight may need more; EMOPIPE_CACHE moves the cache"
        return Check("disk", "warn", detail, hint)
    return Check("disk", "ok", detail)


def _unreadable_packages() -> list[Check]:
    """Installed packages whose entry points cannot be read, and which therefore bring nothing."""
    hint = "Install it again, or remove the folder"
    return [Check("package", "warn", f"its metadata cannot be read: {path}", hint) for path in unreadable()]


def _plugin(plugin: registry.Plugin) -> Check:
    """Whether another package's extractor or model can be imported."""
    label = f"plugin {plugin.kind} {plugin.name}"
    if plugin.shadowed:
        return Check(label, "warn", f"{plugin.origin} uses a name of emopipe's own", "It is never chosen; rename it")
    try:
        plugin.entry.load()
    except (Exception, SystemExit) as error:  # whatever another package's code raises
        return Check(label, "fail", f"{plugin.origin} cannot be imported: {error}", "Repair or uninstall it")
    return Check(label, "ok", plugin.origin)


def _weights(cache: Path) -> list[weights.Entry]:
    """Those that are here or ought to be; only the latter when what the user gives cannot be looked into."""
    try:
        return weights.here(cache)
    except EmopipeError:
        return [one for name in weights.names() if (one := weights.entry(name)).embedded]


@cache
def default_weights() -> frozenset[str]:
    """Names of the weights without which the default configuration cannot run."""
    from emopipe.pipeline.backends.loading import weight_names
    from emopipe.pipeline.config import ExtractionConfig

    config = ExtractionConfig()
    return frozenset(name for kind in registry.BUILT_IN for name in weight_names(config, kind))


def _weight(weight: weights.Entry, cache: Path, offline: bool) -> Check:
    name = weight.name
    label = f"weight {name}"
    try:
        status = weights.status(weight, cache=cache)
    except EmopipeError as error:
        return Check(label, "fail", error.what, error.hint or str(error.path))
    if status.state == "missing":
        hint = f"emopipe models fetch {name}"
        if offline and name in default_weights():
            return Check(label, "fail", "not here", hint)
        return Check(label, "warn", "not here" if offline else "not here; fetched at first use", hint)
    if status.state == "changed":
        return Check(label, "fail", "not what was stored", status.detail)
    return Check(label, "ok", status.detail)
