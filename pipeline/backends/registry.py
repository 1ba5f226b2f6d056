"""Extractors by name: those of this package and those of others, found by one look-up.

Another package declares its own under the groups `emopipe.extractors.face`, `.voice`, `.speech` and `.text`
(see `emopipe.extractors.contracts`) and its fusion models under `emopipe.models` (see `emopipe.models.registry`).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emopipe.errors import BackendUnusable, EmopipeError, LibraryMissing, UnknownName
from emopipe.pipeline import weights

if TYPE_CHECKING:
    from emopipe.extractors.contracts import Locate

#: Modality -> name -> what makes the backend.
BUILT_IN: Final = {
    "face": {
        "mediapipe": "emopipe.extractors.face.mediapipe:create",
        "pyfeat": "emopipe.extractors.face.pyfeat:create",
    },
    "voice": {"whisper-encoder": "emopipe.extractors.voice.features:create"},
    "speech": {
        "whisper": "emopipe.extractors.speech.whisper:create",
        "faster-whisper": "emopipe.extractors.speech.faster_whisper:create",
    },
    "text": {"transformers": "emopipe.extractors.text.transformer:create"},
}
#: Backend -> the option of `pip install emopipe[...]` that brings its library.
EXTRAS: Final = {"faster-whisper": "faster-whisper"}
MODELS_GROUP: Final = "emopipe.models"


@dataclass(frozen=True)
class Plugin:
    """A backend or a fusion model.

    Attributes:
        kind: "face", "voice", "speech", "text", or "model".
        name: what configurations and commands call it.
        origin: name and version of the distribution that brings it; "emopipe" for those of this package.
        entry: loads it.
    """

    kind: str
    name: str
    origin: str
    entry: EntryPoint

    @property
    def foreign(self) -> bool:
        """Whether another package brings it."""
        return self.origin != "emopipe"

    @property
    def shadowed(self) -> bool:
        """Whether emopipe has an own one of that name, which is chosen instead."""
        return self.foreign and self.name in BUILT_IN.get(self.kind, ())


def extractors(kind: str) -> list[Plugin]:
    """All backends of a modality, this package's first. Imports none."""
    group = f"emopipe.extractors.{kind}"
    own = [Plugin(kind, name, "emopipe", EntryPoint(name, value, group)) for name, value in BUILT_IN[kind].items()]
    return own + foreign(kind, group)


def foreign(kind: str, group: str) -> list[Plugin]:
    """What other packages declare under a group of entry points."""
    return [
        Plugin(kind, entry.name, f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown", entry)
        for entry in sorted(entry_points(group=group), key=lambda entry: entry.name)
    ]


def plugins() -> list[Plugin]:
    """Everything that other packages bring."""
    found = [plugin for kind in BUILT_IN for plugin in extractors(kind) if plugin.foreign]
    return found + foreign("model", MODELS_GROUP)


def create(kind: str, name: str, settings: Mapping[str, Any], locate: Locate, device: str) -> Any:
    """Make the backend of that name.

    Raises:
        ConfigError: for an unknown name, or settings or weights that it refuses; LibraryMissing when a library is
            missing or the plugin cannot be imported; what `locate` raises.
    """
    plugin = chosen(kind, name)
    try:
        return plugin.entry.load()(settings, locate, device)
    except EmopipeError:
        raise
    except ImportError as error:
        hint = f'pip install "emopipe[{EXTRAS[name]}]"' if name in EXTRAS else f"Install what {plugin.origin} asks for"
        raise LibraryMissing(f"the {kind} backend {name} cannot be loaded: {error}", hint=hint) from error
    except (ValueError, OSError, KeyError, AttributeError, RuntimeError) as error:
        hint = "Check the weights and options that the configuration names (`emopipe config show`)"
        raise BackendUnusable(f"the {kind} backend {name} cannot be loaded: {error}", hint=hint) from error


def chosen(kind: str, name: str) -> Plugin:
    """The backend of that name. Imports none.

    Raises:
        ConfigError: when there is none, or more than one.
    """
    found = [plugin for plugin in extractors(kind) if plugin.name == name]
    if not found:
        known = list(dict.fromkeys(plugin.name for plugin in extractors(kind)))
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"Use {' or '.join(known)}, or install a plugin that brings it"
        raise UnknownName(f"unknown {kind} backend {name!r}", hint=hint)
    if found[0].foreign and len(found) > 1:
        both = " and ".join(plugin.origin for plugin in found)
        raise UnknownName(f"the {kind} backend {name!r} is brought by {both}", hint="Uninstall one of them")
    return found[0]


def speech_option(text: str | None) -> dict[str, str]:
    """What `--asr BACKEND:SIZE`, `BACKEND:PATH`, `BACKEND`, `SIZE` or `PATH` says in a table `speech`.

    Raises:
        ConfigError: for an unknown backend.
    """
    if not text:
        return {}
    backend, weight = _parted("speech", text)
    backend = backend or "whisper"
    if backend in BUILT_IN["speech"]:
        weight = weight or "base"
        sized = f"{backend}-{weight}"
        weight = weight if weights.known(weight) or _is_place(weight) else sized
    return {"backend": backend, "asr": _absolute(weight)}


def text_option(text: str | None) -> dict[str, str]:
    """What `--text NAME`, `PATH`, `BACKEND:NAME` or `BACKEND` says in a table `text`.

    Raises:
        ConfigError: for an unknown backend.
    """
    if not text:
        return {}
    backend, weight = _parted("text", text)
    return {"encoder": _absolute(weight), **({"backend": backend} if backend else {})}


def _parted(kind: str, text: str) -> tuple[str, str]:
    """The backend ("" when none is named) and the rest; the colon after a drive's letter parts nothing."""
    head, colon, rest = text.partition(":")
    if not colon:
        return (text, "") if text in {plugin.name for plugin in extractors(kind)} else ("", text)
    if len(head) == 1 or "/" in head:
        return "", text
    return chosen(kind, head).name, rest


def _is_place(weight: str) -> bool:
    return "/" in weight or Path(weight).exists() or weights.given(weight) is not None


def _absolute(weight: str) -> str:
    """A path that exists is sealed as it is seen from everywhere."""
    path = Path(weight).expanduser()
    return str(path.resolve()) if weight and weights.known(weight) is None and path.exists() else weight
