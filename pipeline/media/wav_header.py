"""WAV files whose header counts less sound than there is, as recorders leave them that lost their power."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Final

#: Bytes of the name and the size of a chunk.
CHUNK_HEAD: Final = 8
#: Fewer bytes after the sound are tags that other programs appended.
LEAST_SOUND: Final = 4096
#: The count of a recorder that had not finished; FFmpeg then reads to the end by itself.
UNFINISHED: Final = frozenset([0, 0xFFFFFFFF])


def understates_its_sound(path: Path) -> bool:
    """Whether a WAV file's sound ends, by its header, where neither the file ends nor another chunk begins."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return False
        return _sound_goes_on(file, path.stat().st_size)


def _sound_goes_on(file: BinaryIO, length: int) -> bool:
    """The same, from the first chunk on."""
    while True:
        name, size = _chunk(file)
        if not name or (name == b"data" and size in UNFINISHED):
            return False
        end = file.tell() + size
        if name == b"data":
            # Some programs leave out the byte that makes sizes even.
            return length - end >= LEAST_SOUND and not any(_is_chunk(file, at, length) for at in {end, end + size % 2})
        file.seek(end + size % 2)


def _is_chunk(file: BinaryIO, place: int, length: int) -> bool:
    """Whether another chunk, or an appended tag, begins at a place."""
    file.seek(place)
    name, size = _chunk(file)
    return name[:3] == b"ID3" or (
        name.isascii() and name.decode("ascii").isprintable() and file.tell() + size <= length
    )


def _chunk(file: BinaryIO) -> tuple[bytes, int]:
    """Name and size of the chunk that begins here; no name at the end of the file."""
    head = file.read(CHUNK_HEAD)
    return (head[:4], int.from_bytes(head[4:], "little")) if len(head) == CHUNK_HEAD else (b"", 0)
