"""Results as an archive to hand on, without pictures, sound, words and paths but those asked for."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final

from emopipe.errors import ConfigError, OutputError, PrivacyError
from emopipe.files import atomic_file
from emopipe.options import listed
from emopipe.pipeline.report.clip_page import curves_on
from emopipe.pipeline.report.corrected import ClipDocuments
from emopipe.pipeline.report.outputs import columns_of, flat_row, render_page

#: Part -> what it adds.
PARTS: Final = {
    "words": "what was said",
    "corrections": "what people corrected, with their names and notes",
    "pages": "a page per recording, with curves of faces and voices; it plays a recording only with the blurred copies",
    "blurred": "copies of the recordings in which faces are blurred, with sound",
}
LISTING: Final = "CONTENTS.json"
#: The first time that an archive can tell: the bytes do not depend on when it was made.
_NO_TIME: Final = (1980, 1, 1, 0, 0, 0)
#: A cell that begins so is a formula to a spreadsheet.
_FORMULA: Final = tuple("=+-@\t\r")
#: Of a document; all else stays behind: paths, keys of the store, titles of streams.
_KEPT: Final = ("emopipe", "state", "duration", "checkpoint", "config_hash", "notice", "people", "turns", "privacy")
_MEDIUM: Final = ("language", "languages", "width", "height", "frame_rate", "pixel_aspect", "unverified_weights")


@dataclass(frozen=True)
class SharedFile:
    """A file in an archive: its name, what it holds in words, its size in bytes and its hash."""

    name: str
    holds: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Shared:
    """An archive that was made.

    Attributes:
        path: of the archive.
        files: what is in it.
        notes: what is in it, and what is not, in words.
    """

    path: Path
    files: Sequence[SharedFile]
    notes: Sequence[str]


def chosen_parts(names: str | Sequence[str]) -> tuple[str, ...]:
    """What else an archive shall hold, by name or of a list with commas.

    Raises:
        ConfigError: for an unknown name.
    """
    chosen = listed(names) if isinstance(names, str) else tuple(names)
    for name in chosen:
        if name not in PARTS:
            hint = f"Choose among {', '.join(PARTS)}"
            raise ConfigError(f"{name!r} is not part of what can be shared", hint=hint)
    return tuple(part for part in PARTS if part in chosen)


def share(results: Path, out: Path, parts: Sequence[str]) -> Shared:
    """Make an archive of a run's results. The same results give the same bytes.

    Args:
        results: the run's folder.
        out: the archive.
        parts: of :data:`PARTS`.

    Raises:
        InputNotFound: when there was no run, OutputError when its results cannot be used or the archive not be
            written, PrivacyError when what is to be shared tells where a recording lies.
    """
    clips = ClipDocuments(results)
    for name in clips.media:
        _check_name(name, results)
    secrets = {secret for media in clips.media.values() for secret in _secrets(media)}
    contents: list[SharedFile] = []
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with (
            atomic_file(out) as partial,
            zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        ):
            for name, holds, data in _files(clips, parts):
                _check_paths(name, data, secrets)
                _add(archive, name, data)
                contents.append(SharedFile(name, holds, len(data), hashlib.sha256(data).hexdigest()))
            notes = _notes(clips, parts)
            listing = {"files": [asdict(file) for file in contents], "notes": notes}
            _add(archive, LISTING, (json.dumps(listing, indent=1, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        raise OutputError(f"the archive cannot be written: {error.strerror or error}", path=out) from None
    return Shared(out, contents, notes)


def _files(clips: ClipDocuments, parts: Sequence[str]) -> Iterator[tuple[str, str, bytes]]:
    """Name, meaning in words and bytes of each file."""
    said = " and words" if "words" in parts else ""
    rows: list[dict[str, Any]] = []
    for name in sorted(clips.media):
        facts = _shown(clips.read(name), name, parts)
        table = [{"recording": name, **flat_row(row)} for row in facts["utterances"]]
        rows += table
        yield f"{name}.json", f"predictions{said} of a recording", _json(facts)
        yield f"{name}.csv", f"predictions{said} as a table", _csv(table, ["recording", *columns_of(facts)])
        if "pages" in parts:
            page = clips.folder / f"{name}.html"
            link = facts.get("privacy", {}).get("media") or ""
            text = render_page(facts, link, name=name, curves=curves_on(page))
            yield f"{name}.html", f"page with predictions{said} and curves", text.encode("utf-8", "backslashreplace")
        if (copy := _copy(clips, name, parts)) is not None:
            yield copy.name, "pictures with blurred faces, and sound", copy.read_bytes()
    columns = list(dict.fromkeys(column for row in rows for column in row))
    yield "utterances.csv", f"predictions{said} of all recordings", _csv(rows, columns or ["recording"])


def _copy(clips: ClipDocuments, name: str, parts: Sequence[str]) -> Path | None:
    """The blurred copy of a recording that is to be in the archive.

    Raises:
        PrivacyError: what the results call a copy is another file.
    """
    media = clips.read(name).get("privacy", {}).get("media")
    if "blurred" not in parts or not media:
        return None
    path = clips.folder / f"{name}.blurred.mp4"
    if media != path.name or path.is_symlink() or not path.is_file():
        hint = "Run again with --blurred, or share without blurred"
        raise PrivacyError("the blurred copy is not where the run left it", path=clips.folder / path.name, hint=hint)
    return path


def _shown(facts: Mapping[str, Any], name: str, parts: Sequence[str]) -> dict[str, Any]:
    """A document with what may be told."""
    privacy = dict(facts.get("privacy") or {"pseudonyms": False, "redacted": [], "media": None, "pitch": 0.0})
    privacy["media"] = f"{name}.blurred.mp4" if "blurred" in parts and privacy["media"] else ""
    shown = {key: facts[key] for key in _KEPT if key in facts}
    return {
        **shown,
        "media": name,
        "reasons": [{**reason, "what": _meaning(reason), "hint": "", "where": None} for reason in facts["reasons"]],
        "info": {key: facts["info"][key] for key in _MEDIUM if key in facts["info"]},
        "utterances": [_row(row, parts) for row in facts["utterances"]],
        "keys": {},
        "privacy": privacy,
    }


def _meaning(reason: Mapping[str, Any]) -> str:
    """What a code stands for: the words of a reason may name files."""
    from emopipe.errors import REASONS

    kind = REASONS.get(reason["code"])
    return kind.meaning if kind is not None else str(reason["code"])


def _row(row: Mapping[str, Any], parts: Sequence[str]) -> dict[str, Any]:
    shown = {key: value for key, value in row.items() if key != "corrections"}
    if "words" not in parts:
        shown["text"] = ""
    if "corrections" in parts and row.get("corrections"):
        hidden = () if "words" in parts else ("text",)
        shown["corrections"] = [{k: v for k, v in one.items() if k not in hidden} for one in row["corrections"]]
    return shown


def _json(facts: Mapping[str, Any]) -> bytes:
    return (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def _csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    """A table; text that a spreadsheet would take for a formula begins with an apostrophe."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {
                key: f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
                for key, value in row.items()
            }
        )
    return text.getvalue().encode("utf-8", "backslashreplace")


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, _NO_TIME)
    entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
    archive.writestr(entry, data)


def _check_name(name: str, results: Path) -> None:
    """Refuse results whose names of files lead out of their folder, or out of where the archive is unpacked."""
    plain = PurePosixPath(name).name == name == PureWindowsPath(name).name and name not in ("", ".", "..")
    if not plain or any(ord(character) < 32 for character in name) or name == Path(LISTING).stem:
        raise OutputError(f"the manifest names results {name!r}, which is not a name of a file", path=results)


def _secrets(media: Path) -> Iterator[bytes]:
    """What tells where a recording lies: its path, its folder, and its name with the suffix."""
    folder = media.parent
    names = [str(media), media.name if media.suffix else ""]
    names += [str(folder)] if len(folder.parts) > 1 else []
    for name in names:
        for form in {name, json.dumps(name, ensure_ascii=False)[1:-1]} - {""}:
            yield form.encode("utf-8", "backslashreplace")


def _check_paths(name: str, data: bytes, secrets: Iterable[bytes]) -> None:
    for secret in secrets:
        if secret in data:
            hint = "Somebody wrote it into words or notes: leave out words or corrections, or take it out there"
            raise PrivacyError(f"{name} would tell where a recording lies", hint=hint)


def _notes(clips: ClipDocuments, parts: Sequence[str]) -> list[str]:
    """What is in an archive, and what is not, in words."""
    notes = [f"With {part}: {PARTS[part]}." for part in parts]
    left = [part for part in PARTS if part not in parts]
    notes += [f"Without {', '.join(left)}, the recordings, their paths, and what was measured of faces and voices."]
    documents = [clips.read(name) for name in clips.media]
    if not all(facts.get("privacy", {}).get("pseudonyms") for facts in documents):
        notes.append("Names of files and speakers are as in the results: run with --pseudonyms to hide them.")
    return notes
