"""Models that several extractors use are loaded once."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import TypeVar

Model = TypeVar("Model")


def shared(
    loaded: MutableMapping[tuple[Path, int, str], Model],
    load: Callable[[Path, str], Model],
    path: str | Path,
    device: str,
) -> Model:
    """The model of a file on a device; one that is loaded already is shared, as long as the file is the same.

    Args:
        loaded: what is loaded, by file, time of its last change and device; weak values, so that it goes with its last
            user.
        load: loads a file on a device.
        path: the file.
        device: "cpu" or "cuda".
    """
    file = Path(path).resolve()
    key = (file, file.stat().st_mtime_ns, device)
    if (model := loaded.get(key)) is None:
        model = loaded[key] = load(file, device)
    return model
