"""Save the corrections of pages that a server shows, in a file beside the results that `emopipe correct` reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Final

from emopipe.errors import CorrectionsError
from emopipe.pipeline.corrections.documents import (
    Outcome,
    RecordingCorrections,
    as_document,
    parse_document,
)
from emopipe.pipeline.corrections.kept import Kept, read_kept, write_kept

#: In the folder of a run: what everybody saved from pages, in the format of `corrections.json`.
SAVED: Final = "corrections.json"
#: Threads of one server save one after the other.
_LOCK: Final = Lock()


def read_saved(folder: Path, name: str) -> list[RecordingCorrections]:
    """What was saved of a recording, the latest last.

    Raises:
        CorrectionsError: the file that holds it is damaged, or a link to another place.
    """
    entries = [one for (recording, _), one in _read(folder).items() if recording == name]
    return sorted(entries, key=lambda one: (one.saved, one.by))


def save(folder: Path, given: RecordingCorrections, version: str) -> RecordingCorrections | None:
    """Save what one person corrected of a recording, in place of what they saved before.

    Args:
        folder: of the run.
        given: all that they corrected; without edits, what they saved before is taken back.
        version: of what they saved before, as the page has seen it (:func:`version_of`).

    Returns:
        None when it is saved; else what is there in another version, and stays.

    Raises:
        CorrectionsError: the file of corrections is damaged; OutputError when it cannot be written.
    """
    key = (given.name, given.by)
    with _LOCK:
        saved = _read(folder)
        earlier = saved.get(key, RecordingCorrections(given.name, given.media, given.probe, given.by, ""))
        if version_of(earlier) not in (version, version_of(given)):
            return earlier
        write_kept(folder, saved | {key: given}, SAVED)
    return None


def version_of(corrections: RecordingCorrections) -> str:
    """Tells whether corrections are the same, whenever they were saved; "" where there are none."""
    if not corrections.edits:
        return ""
    content = [corrections.probe, _recording(corrections)["utterances"]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:40]


def parse_recording(content: bytes, name: str) -> RecordingCorrections:
    """What a page sends of its recording.

    Args:
        content: the document, as the page would save it as a file.
        name: of the recording's files.

    Raises:
        CorrectionsError: it is not that, or a correction in it cannot be used.
    """
    recordings = parse_document(content, Path(f"{name}.html"))
    if [one.name for one in recordings] != [name]:
        raise CorrectionsError(f"the corrections are not of {name}", hint="Load the page again")
    (recording,) = recordings
    refused: Sequence[Outcome] = recording.refused
    if refused:
        reason = refused[0].reason
        raise CorrectionsError(f"a correction cannot be used: {reason}", hint="Correct the utterance once more")
    return recording


def as_saved(corrections: RecordingCorrections) -> Mapping[str, Any]:
    """Corrections as a page reads them: a document of one recording, and its version."""
    document = as_document([corrections])
    return {**document, "by": corrections.by, "saved": corrections.saved, "etag": version_of(corrections)}


def _recording(corrections: RecordingCorrections) -> dict[str, Any]:
    (recording,) = as_document([corrections])["recordings"]
    return dict(recording)


def _read(folder: Path) -> Kept:
    path = folder / SAVED
    if path.is_symlink():
        raise CorrectionsError("the file of corrections is a link to another place", path=path, hint="Remove the link")
    return read_kept(folder, SAVED)
