"""Look up a model of the Hugging Face hub by its name there, "owner/model": its files, hashes and licence."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from emopipe.errors import WeightUnknown, WeightUnreachable
from emopipe.pipeline.weights.catalogue import Entry, hub_entry
from emopipe.pipeline.weights.sources import (
    HUB,
    TIMEOUT_SECONDS,
    Unavailable,
    check_connection,
    hub_endpoint,
    hub_headers,
    network_errors,
)
from emopipe.pipeline.weights.store import GIT

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

#: Names of what transformers and CTranslate2 read of a model's folder, beside its weights, end so.
_SMALL: Final = (".json", ".txt", ".model")


def is_name(text: str) -> bool:
    """Whether a text can be the name of a model of the hub, "owner/model", rather than a path."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", text) is not None


def look_up(name: str) -> Entry:
    """Ask the hub for a model's files, their hashes, its revision and its licence.

    Raises:
        WeightUnreachable: when the hub cannot be reached or refuses, WeightUnknown when it has no such model.
    """
    try:
        return _entry(name, _model_info(name))
    except Unavailable as failure:
        if failure.status in _NOT_FOUND:
            raise _unknown(name) from failure
        what = f"there is no file or folder {name} here, and the hub could not be asked: {failure}"
        raise WeightUnreachable(what, hint=_HINT) from failure
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightUnreachable(f"the hub's answer about {name} cannot be read: {error!r}") from error


#: The hub says "unauthorized" of models that do not exist, and of those that want a token.
_NOT_FOUND: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.UNAUTHORIZED)
_HINT: Final = (
    "Give a path that exists, or set EMOPIPE_WEIGHTS to a folder that holds it under its name, "
    "or use a weight of the catalogue (`emopipe models list`); HF_TOKEN opens models that want a token"
)


def _unknown(name: str) -> WeightUnknown:
    return WeightUnknown(f"there is neither a file or folder {name} here nor such a model on the hub", hint=_HINT)


def _model_info(name: str) -> ModelInfo:
    endpoint = hub_endpoint()
    check_connection(endpoint)
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    # As HF_HUB_DISABLE_TELEMETRY=1 does, which is read only when the library is first imported.
    constants.HF_HUB_DISABLE_TELEMETRY = True
    api = HfApi(endpoint, token=False, headers=hub_headers())
    try:
        with network_errors(endpoint, httpx.HTTPError, httpx.InvalidURL):
            return api.model_info(name, files_metadata=True, timeout=TIMEOUT_SECONDS)
    except HFValidationError as error:
        raise _unknown(name) from error


def _entry(name: str, model: ModelInfo) -> Entry:
    siblings = {sibling.rfilename: sibling for sibling in model.siblings or ()}
    files = {file: _hash(siblings[file]) for file in _needed(siblings)}
    if not files:
        raise WeightUnknown(f"the hub's model {name} has no weights that transformers or CTranslate2 read")
    if not model.sha:
        raise ValueError("no revision")
    licences = [tag.removeprefix("license:") for tag in model.tags or () if tag.startswith("license:")]
    base = f"{HUB}/{name}/resolve/{model.sha}/"
    size = sum(siblings[file].size or 0 for file in files)
    title, licence = f"{name} at {model.sha[:12]}", ", ".join(licences) or "unknown"
    return hub_entry(name, title, licence, files, base, download=size)


def _needed(names: Iterable[str]) -> list[str]:
    """The files of a model's folder: weights in the safest format that it offers, configuration and vocabulary."""
    root = sorted(name for name in names if "/" not in name and "\\" not in name)
    for pattern in ("*.safetensors", "model.bin", "pytorch_model*.bin"):
        if weights := [name for name in root if PurePosixPath(name).match(pattern)]:
            return [name for name in root if name in weights or name.endswith(_SMALL)]
    return []


def _hash(sibling: RepoSibling) -> str:
    if sibling.lfs is not None:
        return sibling.lfs.sha256
    if not sibling.blob_id:
        raise ValueError(f"no hash of {sibling.rfilename}")
    return GIT + sibling.blob_id
