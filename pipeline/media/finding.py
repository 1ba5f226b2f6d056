"""Find media files under paths, folders and patterns, and say what is wrong with files that cannot be read."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from emopipe.errors import (
    EmopipeError,
    InputEmpty,
    InputNotFound,
    InputUnreadable,
    NoMediaFound,
    NotMedia,
    Reason,
    reason,
)
from emopipe.pipeline.media.wav_header import understates_its_sound

#: Frames of more pixels are not decoded. Those of 8K have 35 million; in a few bytes may lie a frame of gigabytes.
MOST_PIXELS: Final = 40_000_000
#: FFmpeg's formats that name addresses or other files, or make something up: nothing but a file itself is read.
FOLLOWING_FORMATS: Final = frozenset(
    [
        "concat",
        "concatf",
        "dash",
        "hls",
        "image2",
        "imf",
        "lavfi",
        "rtp",
        "rtsp",
        "sap",
        "sdp",
        "tty",
        "webm_dash_manifest",
    ]
)
#: No file takes longer to open, or to give its next packet, in seconds.
PATIENCE: Final = 60.0

#: Files with these names are recordings, and are told of if they cannot be decoded; files with others are looked into.
RECORDING_SUFFIXES: Final = frozenset(
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
        ".3g2",
        ".mts",
        ".m2ts",
        ".ogv",
        ".vob",
        ".mxf",
        ".divx",
        ".wav",
        ".flac",
        ".mp3",
        ".mp2",
        ".m4a",
        ".aac",
        ".ogg",
        ".oga",
        ".opus",
        ".wma",
        ".aif",
        ".aiff",
        ".mka",
        ".caf",
    ]
)

IMAGE_SUFFIXES: Final = frozenset([".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"])
#: FFmpeg opens these as videos; they are images, or text drawn as images.
IMAGE_FORMATS: Final = frozenset(["gif", "apng", "ico"])
TEXT_FORMATS: Final = frozenset(["adf", "bin", "idf", "xbin"])
NO_STREAMS: Final = "FFmpeg finds no video or audio in it"


@dataclass(frozen=True)
class FoundMedia:
    """What paths, folders and patterns stand for.

    Attributes:
        files: recordings, each once.
        errors: for folders that cannot be listed or hold no recordings, and patterns that match none.
        skipped: files of folders and patterns that are not recordings, and why.
    """

    files: list[Path]
    errors: list[EmopipeError]
    skipped: dict[Path, Reason]


def find_media(paths: Sequence[Path]) -> FoundMedia:
    """Replace folders by the recordings below them and patterns by those that they match, in sorted order.

    A file that is named stays as it is given, whatever its name. A path with `*`, `?` or `[` is a pattern when there
    is not a file of that name; `**` stands for any folders. What FFmpeg decodes is a recording, whatever its suffix.
    """
    recordings: list[Path] = []
    errors: list[EmopipeError] = []
    skipped: dict[Path, Reason] = {}
    for path in paths:
        is_pattern = glob.has_magic(str(path)) and not os.path.lexists(path)
        matches = sorted(Path(name) for name in glob.glob(str(path), recursive=True)) if is_pattern else [path]  # noqa: PTH207
        if not matches:
            errors.append(NoMediaFound("the pattern matches no file", path=path))
        for match in matches:
            if os.path.isdir(match):  # noqa: PTH112 - Path.is_dir raises where the folder above may not be entered
                recordings += _recordings_below(match, errors, skipped)
            elif not is_pattern or _is_recording(match, skipped):
                recordings.append(match)
    real = {path: os.path.realpath(path) for path in recordings}
    unique: dict[str, Path] = {}
    for path in sorted(real, key=os.path.islink):
        unique.setdefault(real[path], path)
    same = {path: unique[target] for path, target in real.items()}
    skipped |= {path: reason("not_a_recording", f"the same file as {one}") for path, one in same.items() if one != path}
    return FoundMedia([path for path, one in same.items() if one == path], errors, skipped)


def _recordings_below(folder: Path, errors: list[EmopipeError], skipped: dict[Path, Reason]) -> list[Path]:
    def refuse(error: OSError) -> None:
        what = "the folder cannot be listed"
        errors.append(InputUnreadable(what, path=error.filename, hint="Check its permissions"))

    recordings, before = [], len(errors)
    seen = {str(one) for one in Path(os.path.realpath(folder)).parents}
    waiting = [folder]  # links wait until all that lies below a folder itself is known
    while waiting:
        top = waiting.pop(0)
        for root, folders, names in os.walk(top, onerror=refuse):
            real = os.path.realpath(root)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            recordings += [path for name in names if _is_recording(path := Path(root, name), skipped)]
            waiting += sorted(path for name in folders if (path := Path(root, name)).is_symlink())
    if not recordings and len(errors) == before:
        hint = f"{len(skipped)} files in it are not recordings" if skipped else ""
        errors.append(NoMediaFound("the folder holds no video or audio files", path=folder, hint=hint))
    return sorted(recordings)


def _is_recording(path: Path, skipped: dict[Path, Reason]) -> bool:
    """Whether a file is a recording; if not, it is noted why."""
    why = _other_kind(path)
    if why:
        skipped[path] = reason("not_a_recording", why)
    return not why


def _other_kind(path: Path) -> str:
    """What a file is that is not a recording, in words; "" for a recording."""
    suffix = path.suffix.lower()
    if path.name.startswith("."):
        return "hidden file"
    if suffix in RECORDING_SUFFIXES:
        return ""
    if suffix in IMAGE_SUFFIXES:
        return "image"
    return _unlike_a_recording(path)


def _unlike_a_recording(path: Path) -> str:
    """What FFmpeg finds in a file that is not a recording, in words; "" where it decodes what is seen or heard."""
    try:
        with open_av(path) as container:
            formats = container.format.name.split(",")
            if IMAGE_FORMATS.intersection(formats) or "_pipe" in container.format.name:
                return "image"
            streams = [*container.streams.video[:1], *container.streams.audio[:1]]
            if not streams or TEXT_FORMATS.intersection(formats) or next(container.decode(streams), None) is None:
                return NO_STREAMS
    except (OSError, ValueError, EOFError, OverflowError):
        return NO_STREAMS
    return ""


def open_av(path: Path) -> Any:
    """Open a file, and nothing that it may name, with PyAV."""
    import av

    options = {
        "protocol_whitelist": "file",
        "format_whitelist": _plain_formats(),
        "max_pixels": str(MOST_PIXELS),  # of the frames that FFmpeg decodes to learn what a stream is like
    }
    if understates_its_sound(path):
        options["ignore_length"] = "1"
    return av.open(
        str(path.absolute()),  # else "a:b.mp4" would be an address
        metadata_errors="replace",
        options=options,
        timeout=(PATIENCE, PATIENCE),
    )


@cache
def _plain_formats() -> str:
    import av

    return ",".join(
        name for name in sorted(av.formats_available) if not FOLLOWING_FORMATS.intersection(name.split(","))
    )


def checked(path: Path, read: Callable[[], Any]) -> Any:
    """Run `read` on a file that exists, may be read and is not empty; turn the failures into coded errors."""
    try:
        if not path.exists():
            raise InputNotFound("there is no such file", path=path, hint="Check the spelling")
        if not path.is_file():
            raise NotMedia("it is not a regular file", path=path)
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
