"""Find media files under paths, folders and patterns, and say what is wrong with files that cannot be read."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from emopipe.errors import (
    EmopipeError,
    InputEmpty,
    InputNotFound,
    InputUnreadable,
    NoMediaFound,
    NotMedia,
)

VIDEO_SUFFIXES: Final = frozenset(
    [
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".avi",
        ".mpg",
        ".mpeg",
        ".wmv",
        ".flv",
        ".3gp",
        ".ts",
        ".mts",
        ".m2ts",
        ".ogv",
    ]
)


AUDIO_SUFFIXES: Final = frozenset(
    [".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".oga", ".opus", ".wma", ".aif", ".aiff"]
)


IMAGE_SUFFIXES: Final = frozenset([".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"])


def find_media(paths: Sequence[Path]) -> tuple[list[Path], list[EmopipeError]]:
    """Replace folders by the video and sound files below them and patterns by what they match, in sorted order.

    Files stay as they are given, whatever their names; each file is listed once. A path with `*`, `?` or `[` is a
    pattern when there is no file of that very name; `**` stands for any folders.

    Returns:
        The files, and an error for every folder that cannot be listed (InputUnreadable), holds no media, or
        pattern that matches nothing (NoMediaFound).
    """
    found: list[Path] = []
    errors: list[EmopipeError] = []
    for path in paths:
        for match in _matches(path, errors):
            found += _media_below(match, errors) if match.is_dir() else [match]
    unique: dict[str, Path] = {}
    for path in found:
        unique.setdefault(os.path.realpath(path), path)
    return list(unique.values()), errors


def _matches(path: Path, errors: list[EmopipeError]) -> list[Path]:
    if os.path.lexists(path) or not glob.has_magic(str(path)):
        return [path]
    matches = sorted(Path(name) for name in glob.glob(str(path), recursive=True))  # noqa: PTH207
    if not matches:
        errors.append(NoMediaFound("the pattern matches no file", path=path))
    return matches


def _media_below(folder: Path, errors: list[EmopipeError]) -> list[Path]:
    def refuse(error: OSError) -> None:
        what = "the folder cannot be listed"
        errors.append(InputUnreadable(what, path=error.filename, hint="Check its permissions"))

    wanted, before = VIDEO_SUFFIXES | AUDIO_SUFFIXES, len(errors)
    files = sorted(
        Path(root) / name
        for root, _, names in os.walk(folder, onerror=refuse)
        for name in names
        if Path(name).suffix.lower() in wanted and not name.startswith(".")
    )
    if not files and len(errors) == before:
        errors.append(NoMediaFound("the folder holds no video or audio files", path=folder))
    return files


def checked(path: Path, read: Callable[[], Any]) -> Any:
    """Run `read` on a file that exists, may be read and is not empty; turn the failures into coded errors."""
    try:
        if not path.exists():
            raise InputNotFound("there is no such file", path=path, hint="Check the spelling")
        if not path.is_file():
            raise NotMedia("it is no regular file", path=path)
        if path.stat().st_size == 0:
            raise InputEmpty("the file is empty", path=path, hint="Copy or download it again")
        return read()
    except PermissionError:
        what = "no permission to read the file"
        raise InputUnreadable(what, path=path, hint="Check its permissions") from None
    except OSError as error:
        raise InputUnreadable(f"the file cannot be read: {words_of(error)}", path=path) from None


def words_of(error: BaseException) -> str:
    """What the operating system or FFmpeg says of an error."""
    return getattr(error, "strerror", None) or str(error)
