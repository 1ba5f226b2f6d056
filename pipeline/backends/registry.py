"""Extractors by name: those of this package and those of others, found by one look-up.

Another package declares its own under the groups `emopipe.extractors.face`, `.voice`, `.speech`, `.text` and
`.diarizer` (see `emopipe.extractors.contracts`) and its fusion models under `emopipe.models` (see
`emopipe.models.registry`).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Final

from emopipe.errors import BackendUnusable, EmopipeError, LibraryMissing, UnknownName, WeightMissing
from emopipe.extractors.contracts import Backend, Locate
from emopipe.pipeline import weights
from emopipe.plugins import entry_points, origin

#: Kind of backend -> name -> its declaration. "people" compares voices with the encoder of "speakers".
BUILT_IN: Final = {
    "face": {
        "mediapipe": "emopipe.extractors.face.mediapipe:BACKEND",
        "pyfeat": "emopipe.extractors.face.pyfeat:BACKEND",
    },
    "voice": {"whisper-encoder": "emopipe.extractors.voice.features:BACKEND"},
    "vad": {"silero-vad": "emopipe.extractors.speech.vad:BACKEND"},
    "speech": {
        "whisper": "emopipe.extractors.speech.whisper:BACKEND",
        "faster-whisper": "emopipe.extractors.speech.faster_whisper:BACKEND",
    },
    "text": {
        "transformers": "emopipe.extractors.text.transformer:BACKEND",
        "glove": "emopipe.extractors.text.glove:BACKEND",
    },
    "speakers": {
        "campplus": "emopipe.extractors.speech.campplus:BACKEND",
        "ge2e": "emopipe.extractors.speech.diarize:BACKEND",
        "pyannote": "emopipe.extractors.speech.pyannote:BACKEND",
    },
}
#: Kind of backend -> group of entry points by which other packages bring one; the others cannot be brought.
GROUPS: Final = {
    "face": "emopipe.extractors.face",
    "voice": "emopipe.extractors.voice",
    "speech": "emopipe.extractors.speech",
    "text": "emopipe.extractors.text",
    "speakers": "emopipe.extractors.diarizer",
}
#: How people call a kind of backend.
TITLES: Final = {"speakers": "diarizer", "vad": "voice activity"}
MODELS_GROUP: Final = "emopipe.models"


@dataclass(frozen=True)
class Plugin:
    """A backend or a fusion model.

    Attributes:
        kind: one of :data:`BUILT_IN`, or "model".
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
    """All backends of a kind, this package's first. Imports none."""
    group = GROUPS.get(kind, "")
    built_in = [Plugin(kind, name, "emopipe", EntryPoint(name, value, group)) for name, value in BUILT_IN[kind].items()]
    return built_in + (foreign(kind, group) if group else [])


def foreign(kind: str, group: str) -> list[Plugin]:
    """What other packages declare under a group of entry points."""
    return [Plugin(kind, entry.name, origin(entry), entry) for entry in entry_points(group)]


def plugins() -> list[Plugin]:
    """Everything that other packages bring."""
    brought = [plugin for kind in BUILT_IN for plugin in extractors(kind) if plugin.foreign]
    return brought + foreign("model", MODELS_GROUP)


def declaration(plugin: Plugin) -> Backend:
    """What a backend declares. Imports it.

    Raises:
        LibraryMissing: it cannot be imported, BackendUnusable: its code fails meanwhile.
    """
    try:
        loaded = plugin.entry.load()
    except ImportError as error:
        hint = f"Install what {plugin.origin} asks for"
        what = f"the {title(plugin.kind)} backend {plugin.name} cannot be loaded: {error}"
        raise LibraryMissing(what, hint=hint) from error
    except (Exception, SystemExit) as error:  # whatever another package's code raises
        what = f"the {title(plugin.kind)} backend {plugin.name} of {plugin.origin} cannot be loaded: {error!r}"
        raise BackendUnusable(what, hint="Repair or uninstall it") from error
    return loaded if isinstance(loaded, Backend) else Backend(plugin.name, loaded)


def create(kind: str, name: str, settings: Mapping[str, Any], locate: Locate, device: str) -> Any:
    """Make the backend of that name; one of this package is handed the settings that it declares, and no others.

    Raises:
        UnknownName: there is no such backend, or there are two.
        LibraryMissing: a library is missing, or the plugin cannot be imported.
        WeightMissing: a file of weights is missing.
        BackendUnusable: it refuses its settings or weights.
    """
    plugin = chosen(kind, name)
    backend = declaration(plugin)
    if backend.settings:
        settings = {name: settings[name] for name in backend.settings}
    what = f"the {title(kind)} backend {name} cannot be loaded"
    try:
        return backend.create(settings, locate, device)
    except EmopipeError:
        raise
    except ImportError as error:
        hint = backend.install or f"Install what {plugin.origin} asks for"
        raise LibraryMissing(f"{what}: {error}", hint=hint) from error
    except FileNotFoundError as error:
        raise WeightMissing(f"{what}: {error}", hint=backend.obtain or BackendUnusable.advice) from error
    except (ValueError, OSError, KeyError, AttributeError, RuntimeError) as error:
        raise BackendUnusable(f"{what}: {error}", hint=BackendUnusable.advice) from error
    except (Exception, SystemExit) as error:
        if not plugin.foreign:
            raise
        raise BackendUnusable(f"{what}: {error!r}", hint="Repair or uninstall it") from error


def chosen(kind: str, name: str) -> Plugin:
    """The backend of that name. Imports none.

    Raises:
        UnknownName: there is none, or more than one.
    """
    candidates = [plugin for plugin in extractors(kind) if plugin.name == name]
    if not candidates:
        names = list(dict.fromkeys(plugin.name for plugin in extractors(kind)))
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"Use {' or '.join(names)}, or install a plugin that brings it"
        raise UnknownName(f"unknown {title(kind)} backend {name!r}", hint=hint)
    if candidates[0].foreign and len(candidates) > 1:
        both = " and ".join(plugin.origin for plugin in candidates)
        what = f"the {title(kind)} backend {name!r} is brought by {both}"
        raise UnknownName(what, hint="Uninstall one of them")
    return candidates[0]


def title(kind: str) -> str:
    """How people call a kind of backend."""
    return TITLES.get(kind, kind)


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
