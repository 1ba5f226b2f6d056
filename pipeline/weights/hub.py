"""Models of the hub by their name there, "owner/model": which files they have, and what the hub says of them."""

from __future__ import annotations

import json
import re
import urllib.error
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Any, Final

from emopipe.errors import WeightUnknown, WeightUnreachable
from emopipe.pipeline.weights.catalogue import Entry, hub_entry
from emopipe.pipeline.weights.sources import HUB, Unavailable, ask
from emopipe.pipeline.weights.store import GIT

#: What transformers and CTranslate2 read of a model's folder, beside its weights.
_SMALL: Final = (".json", ".txt", ".model")


def is_name(text: str) -> bool:
    """Whether this can be the name of a model of the hub rather than a path."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", text) is not None


def look_up(name: str) -> Entry:
    """What the hub has under that name now.

    Raises:
        WeightUnreachable: when the hub cannot be reached or refuses, WeightUnknown when it has no such model.
    """
    try:
        with ask(f"{HUB}/api/models/{name}?blobs=true") as response:
            facts = json.load(response)
        return _entry(name, facts)
    except Unavailable as failure:
        if isinstance(failure.__cause__, urllib.error.HTTPError) and failure.__cause__.code in _NO_SUCH:
            what = f"there is neither a file or folder {name} here nor such a model on the hub"
            raise WeightUnknown(what, hint=_HINT) from failure
        what = f"there is no file or folder {name} here, and the hub could not be asked: {failure}"
        raise WeightUnreachable(what, hint=_HINT) from failure
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightUnreachable(f"the hub's answer about {name} cannot be read: {error!r}") from error


#: The hub says "unauthorized" of models that do not exist, and of those that want a token.
_NO_SUCH: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.UNAUTHORIZED)
_HINT: Final = (
    "Give a path that exists, or set EMOPIPE_WEIGHTS to a folder that holds it under its name, "
    "or use a weight of the catalogue (`emopipe models list`); HF_TOKEN opens models that want a token"
)


def _entry(name: str, facts: Mapping[str, Any]) -> Entry:
    siblings = {one["rfilename"]: one for one in facts["siblings"]}
    files = {file: _hash(siblings[file]) for file in _needed(siblings)}
    if not files:
        raise WeightUnknown(f"the hub's model {name} has no weights that transformers or CTranslate2 read")
    licences = [tag.removeprefix("license:") for tag in facts.get("tags", ()) if tag.startswith("license:")]
    base = f"{HUB}/{name}/resolve/{facts['sha']}/"
    size = sum(int(siblings[file].get("size") or 0) for file in files)
    title, licence = f"{name} at {facts['sha'][:12]}", ", ".join(licences) or "unknown"
    return hub_entry(name, title, licence, files, base, download=size)


def _needed(names: Iterable[str]) -> list[str]:
    """The files of a model's folder: weights in the safest format that it offers, configuration and vocabulary."""
    root = sorted(name for name in names if "/" not in name and "\\" not in name)
    for weights in ("*.safetensors", "model.bin", "pytorch_model*.bin"):
        if found := [name for name in root if PurePosixPath(name).match(weights)]:
            return [name for name in root if name in found or name.endswith(_SMALL)]
    return []


def _hash(facts: Mapping[str, Any]) -> str:
    lfs = facts.get("lfs")
    return str(lfs["sha256"]) if lfs else GIT + str(facts["blobId"])
