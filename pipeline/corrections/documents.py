"""Read files of corrections (`corrections.json`), which anybody may have written: every value is validated."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from annotated_types import Interval, Len
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from emopipe.errors import CorrectionsError, InputNotFound, Reason, reason
from emopipe.pipeline.formatting import printable
from emopipe.pipeline.records import Correction

FORMAT: Final = "emopipe-corrections"
VERSION: Final = 1
#: A file with more bytes was not written by a page.
MOST_BYTES: Final = 64_000_000


@dataclass(frozen=True)
class Edit:
    """A correction of an utterance, which start, end and speaker identify as the results have them."""

    start: float
    end: float
    speaker: str | None
    correction: Correction


@dataclass(frozen=True)
class Outcome:
    """What became of a correction.

    Attributes:
        recording: name of the recording's files.
        start, end: of the utterance; None where the whole recording is meant.
        speaker: who speaks it in the results.
        by: who corrected.
        what: what was corrected, in words.
        reason: why it was refused; None when it was applied.
    """

    recording: str
    start: float | None
    end: float | None
    speaker: str | None
    by: str
    what: str
    reason: Reason | None = None


@dataclass(frozen=True)
class RecordingCorrections:
    """What one person corrected of one recording.

    Attributes:
        name: of the recording's files, without a suffix.
        media: name of the recording's own file.
        probe: which content was corrected.
        by: who corrected.
        saved: date and time.
        edits: one for each utterance, in order of time.
        refused: what cannot be used, whatever the results are.
    """

    name: str
    media: str
    probe: str
    by: str
    saved: str
    edits: Sequence[Edit] = ()
    refused: Sequence[Outcome] = ()


def _name(text: str) -> str:
    """A name in one line."""
    plain = unicodedata.normalize("NFC", text.strip())
    if not plain or not plain.isprintable():
        raise ValueError("it is empty or holds control characters")
    return plain


def _words(text: str) -> str:
    """Words without control characters but breaks of lines."""
    kept = "".join(mark for mark in text if mark in "\n\t" or unicodedata.category(mark) not in ("Cc", "Cs"))
    return unicodedata.normalize("NFC", kept.strip())


def _date(text: str) -> str:
    if text:
        datetime.fromisoformat(text)
    return text


Name = Annotated[str, Len(1, 200), AfterValidator(_name)]
Words = Annotated[str, Len(0, 20_000), AfterValidator(_words)]
Date = Annotated[str, Len(0, 40), AfterValidator(_date)]
Time = Annotated[float, Interval(ge=0, le=10_000_000)]
_STRICT: Final = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class _Utterance(BaseModel):
    model_config = _STRICT
    start: Time
    end: Time
    speaker: str | None = None
    when: Date = ""
    label: Name | None = None
    value: Annotated[float, Interval(ge=-1_000_000, le=1_000_000)] | None = None
    person: Name | None = None
    text: Words | None = None
    bounds: Annotated[list[Time], Len(2, 2)] | None = None
    note: Words | None = None
    confirmed: bool = False


class _Recording(BaseModel):
    model_config = _STRICT
    name: str
    media: str = ""
    probe: str = ""
    by: str = ""
    saved: str = ""
    utterances: list[Any]


class _Document(BaseModel):
    model_config = _STRICT
    format: Literal["emopipe-corrections"]
    version: int
    by: str = ""
    saved: str = ""
    recordings: list[_Recording]


def read_document(path: Path, by: str | None = None) -> list[RecordingCorrections]:
    """Read a file of corrections.

    Args:
        path: JSON, as the page of a clip saves it.
        by: who corrected, in place of what the file says.

    Raises:
        InputNotFound: without the file; CorrectionsError when it is not such a file, or nobody is named.
    """
    return parse_document(read_limited(path), path, by)


def read_limited(path: Path) -> bytes:
    """The bytes of a file of corrections.

    Raises:
        InputNotFound: without the file; CorrectionsError when it cannot be read, or is too large to be one.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise InputNotFound("there is no such file of corrections", path=path) from None
    except (OSError, ValueError) as error:
        raise CorrectionsError(f"the corrections cannot be read: {error}", path=path) from None
    if len(content) > MOST_BYTES:
        raise CorrectionsError(f"the file has more than {MOST_BYTES:,} bytes", path=path)
    return content


def parse_document(content: bytes, path: Path, by: str | None = None) -> list[RecordingCorrections]:
    """The corrections in the bytes of a file; a recording's own `by` and `saved` win over the document's.

    Args:
        content: JSON.
        path: of the file, for errors.
        by: who corrected, in place of what the file says.

    Raises:
        CorrectionsError: it is not such a file, or nobody is named.
    """
    try:
        document = _Document.model_validate_json(content)
    except ValidationError as error:
        raise CorrectionsError(f"the file holds no corrections: {_fault(error)}", path=path) from None
    if document.version > VERSION:
        what = f"the corrections have the format's version {document.version}, known is {VERSION}"
        raise CorrectionsError(what, path=path, hint="Install the emopipe that wrote the results")
    return [
        _recording(one, corrector(by or one.by or document.by, path), one.saved or document.saved)
        for one in document.recordings
    ]


def corrector(by: str, path: Path) -> str:
    """The name of who corrected.

    Raises:
        CorrectionsError: nobody is named, or it is not a name.
    """
    if not by.strip():
        raise CorrectionsError("nothing says who corrected", path=path, hint="Say it with --by NAME")
    try:
        name = _name(by)
    except ValueError:
        name = ""
    if not name or len(name) > 200:
        what = f"who corrected is {printable(by[:40])!r}, which is not a name"
        raise CorrectionsError(what, path=path, hint="Give one of up to 200 characters in one line with --by NAME")
    return name


def _recording(facts: _Recording, by: str, saved: str) -> RecordingCorrections:
    edits: dict[tuple[float, float, str | None], Edit] = {}
    refused = []
    for one in facts.utterances:
        edit = _edit(one, by, saved)
        if isinstance(edit, Edit):
            edits[edit.start, edit.end, edit.speaker] = edit
        else:
            refused.append(replace(edit, recording=facts.name))
    ordered = sorted(edits.values(), key=lambda edit: (edit.start, edit.end, edit.speaker or ""))
    return RecordingCorrections(facts.name, facts.media, facts.probe, by, saved, ordered, refused)


def _edit(facts: Any, by: str, saved: str) -> Edit | Outcome:
    """A correction, or why it cannot be used."""
    try:
        given = _Utterance.model_validate(facts)
        when = given.when or _date(saved[:40])
    except (ValidationError, ValueError) as error:
        fault = _fault(error) if isinstance(error, ValidationError) else "saved: it is not a date and time"
        return _refused(facts, by, reason("correction_unusable", fault))
    correction = Correction(
        by,
        when,
        given.label,
        given.value,
        given.person,
        given.text,
        (given.bounds[0], given.bounds[1]) if given.bounds else None,
        given.note or None,
        given.confirmed,
    )
    if summary(correction):
        return Edit(given.start, given.end, given.speaker, correction)
    return _refused(facts, by, reason("correction_unusable", "nothing is corrected or confirmed"))


def _refused(facts: Any, by: str, why: Reason) -> Outcome:
    times = [facts.get(name) if isinstance(facts, dict) else None for name in ("start", "end")]
    start, end = (time if isinstance(time, int | float) and 0 <= time <= 1e7 else None for time in times)
    return Outcome("", start, end, None, by, "", why)


def summary(correction: Correction) -> str:
    """What was corrected, in words."""
    parts = [
        None if correction.label is None else f"label {correction.label}",
        None if correction.value is None else f"value {correction.value:g}",
        None if correction.person is None else f"person {correction.person}",
        None if correction.text is None else f"words {correction.text!r}",
        None if correction.bounds is None else f"bounds {correction.bounds[0]:g}-{correction.bounds[1]:g}",
        "confirmed" if correction.confirmed else None,
        "note" if correction.note else None,
    ]
    return ", ".join(part for part in parts if part is not None)


def _fault(error: ValidationError) -> str:
    """The first fault of a document: where it is, and what it is."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return printable(f"{where}: {first['msg']}" if where else first["msg"])[:200]


def as_document(recordings: Sequence[RecordingCorrections]) -> dict[str, Any]:
    """Corrections of several people as a document, each recording with its `by` and `saved`."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "by": "",
        "saved": "",
        "recordings": [
            {
                "name": one.name,
                "media": one.media,
                "probe": one.probe,
                "by": one.by,
                "saved": one.saved,
                "utterances": [
                    {"start": edit.start, "end": edit.end, "speaker": edit.speaker, **_without_by(edit.correction)}
                    for edit in one.edits
                ],
            }
            for one in recordings
        ],
    }


def _without_by(correction: Correction) -> dict[str, object]:
    return {name: value for name, value in correction.as_json().items() if name != "by"}
