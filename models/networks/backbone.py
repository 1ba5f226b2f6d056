"""Find pretrained networks that a model stands on (backbones), tell them by hash, keep them out of checkpoints."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from emopipe.errors import BackboneError


def find_backbone(name: str, path: str, sha256: str) -> tuple[Path, str]:
    """Find the folder of a backbone and the sha256 of its weights; nothing is fetched.

    Args:
        name: what it is called; where `path` is empty, itself a folder or a hub id.
        path: a folder in transformers' format, or the hub id of one that the hub's cache holds.
        sha256: which weights are wanted; empty for any.

    Raises:
        BackboneError: it is not on this machine, or it is another one.
    """
    folder = _locate(name, path)
    actual = digest(folder)
    if sha256 not in ("", actual):
        raise BackboneError(
            f"the model was trained with the backbone {name} of sha256 {sha256}, this one has {actual}",
            hint="Give the folder of the right one as backbone_path",
            path=folder,
        )
    return folder, actual


def _locate(name: str, path: str) -> Path:
    named = path or name
    if Path(named).is_dir():
        return Path(named)
    if "/" in named and not Path(named).is_absolute():
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(named, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError):
            pass
    raise BackboneError(
        f"the backbone {name} is not here",
        hint="Give its folder, or a hub id that was downloaded, as backbone_path, or set EMOPIPE_WEIGHTS to a folder "
        "that holds it under its name",
        path=path or None,
    )


def digest(folder: Path) -> str:
    """Hash a backbone's weights: of its safetensors file, or of the digests of several in the order of names.

    Raises:
        BackboneError: there are none.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BackboneError("the backbone has no safetensors file", path=folder)
    digests = [_file_digest(path, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


@lru_cache(maxsize=64)
def _file_digest(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_foreign_code(folder: Path) -> None:
    """Refuse a backbone that only code of its own can read; such code is never run, and nobody is asked to allow it.

    Raises:
        BackboneError: `config.json` names an architecture that transformers does not have.
    """
    from transformers import CONFIG_MAPPING

    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return  # transformers says what is wrong with it
    kind = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(kind, str) or kind in CONFIG_MAPPING:
        return
    if kind.startswith("chatglm"):
        raise BackboneError(
            "ChatGLM is read by code of its own, which is never run",
            hint="Its successors run: GLM-4 in transformers' format (THUDM/glm-4-9b-hf, glm-4-9b-chat-hf, GLM-Edge and "
            "GLM-4-0414); so do Qwen, Llama, Mistral, Phi and Gemma",
            path=folder,
        )
    raise BackboneError(
        f"the architecture {kind[:80]!r} is not in transformers, and code of its own is never run",
        hint="Use a model of the family Llama, Qwen, GLM-4, Mistral, Phi or Gemma, or a newer transformers",
        path=folder,
    )


def keep_changes_only(module: nn.Module) -> None:
    """Leave a module's pretrained weights out of its state: only low-rank changes (peft's `.lora_`) are kept."""
    pretrained = tuple(name for name in module.state_dict() if ".lora_" not in name)

    def forget(_: nn.Module, state: dict[str, Tensor], prefix: str, __: Any) -> None:
        for name in pretrained:
            del state[prefix + name]

    def forgive(_: nn.Module, keys: Any) -> None:
        keys.missing_keys[:] = [name for name in keys.missing_keys if not name.endswith(pretrained)]

    module.register_state_dict_post_hook(forget)  # type: ignore[no-untyped-call]
    module.register_load_state_dict_post_hook(forgive)  # type: ignore[no-untyped-call]
