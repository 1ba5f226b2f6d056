"""Labels tables: which file, which stretch of it, who speaks, and what it is labelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from emopipe.errors import LabelsTableError
from emopipe.pipeline.datasets.csv_input import read_table
from emopipe.pipeline.media.finding import IMAGE_SUFFIXES, find_media
from emopipe.pipeline.records import Source

#: Columns of a labels table that say where signals are; the first two are synonyms.
PATH_COLUMNS: Final = ("file", "video", "audio", "image")


RESERVED: Final = ("id", "text", "start", "end", "speaker", "split")


@dataclass(frozen=True)
class LabelledSource:
    """A row of a labels table: its source, its split, and every column that is neither."""

    source: Source
    split: str | None
    labels: dict[str, str]


def read_labels(path: Path, folder: Path | None = None) -> list[LabelledSource]:
    """Read a labels table (CSV with a header).

    A row names its signals in the columns `file` (or `video`: a video, sound or picture file), `audio`, `image` and
    `text`, alone or together; `start`, `end` (seconds), `speaker`, `split` and `id` are optional; all other columns
    are labels.

    Args:
        path: the table.
        folder: what relative paths in it are relative to; None: the table's own folder.

    Raises:
        InputNotFound: without the file; LabelsTableError when it is no such table, naming the line.
    """
    folder = path.parent if folder is None else folder
    rows = read_table(path, "labels table", LabelsTableError)
    columns = next(iter(rows.values()))
    if not {*PATH_COLUMNS, "text"} & set(columns):
        hint = "Name the signals in a column called file, video, audio, image or text"
        what = f"the labels table has only the columns {', '.join(columns)}"
        raise LabelsTableError(what, path=path, hint=hint)
    sources = [_labelled_source(row, line, path, folder) for line, row in rows.items()]
    _refuse_repeated([row.source.id for row in sources], path)
    return sources


def _labelled_source(cells: dict[str, str], line: int, table: Path, folder: Path) -> LabelledSource:
    paths = {name: folder / cells[name] for name in PATH_COLUMNS if cells.get(name)}
    media = paths.get("file") or paths.get("video")
    image = paths.get("image")
    if media is not None and media.suffix.lower() in IMAGE_SUFFIXES:
        media, image = None, media
    text = cells.get("text") or None
    if media is None and image is None and "audio" not in paths and text is None:
        raise LabelsTableError(f"line {line} of the labels table names no signal", path=table)
    name = cells.get("id") or _row_id(paths, cells, line)
    source = Source(
        id=name,
        media=media,
        audio=paths.get("audio"),
        image=image,
        text=text,
        start=_seconds(cells, "start", line, table),
        end=_seconds(cells, "end", line, table),
        speaker=cells.get("speaker") or None,
    )
    labels = {name: value for name, value in cells.items() if name not in (*PATH_COLUMNS, *RESERVED)}
    return LabelledSource(source, cells.get("split") or None, labels)


def _row_id(paths: dict[str, Path], cells: dict[str, str], line: int) -> str:
    """The file as the table names it, with the start time when the row is a stretch of it, else the line's number."""
    if not paths:
        return f"line{line}"
    name = cells[next(iter(paths))]
    return f"{name}@{cells['start']}" if cells.get("start") else name


def _seconds(cells: dict[str, str], name: str, line: int, table: Path) -> float | None:
    if not cells.get(name):
        return None
    try:
        return float(cells[name])
    except ValueError:
        what = f"line {line} of the labels table: {name} is {cells[name]!r}, not seconds"
        raise LabelsTableError(what, path=table) from None


def _refuse_repeated(ids: Sequence[str], path: Path) -> None:
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            hint = "Give the rows an id column, or start times if they are stretches of one file"
            raise LabelsTableError(f"the labels table has two rows for {name!r}", path=path, hint=hint)
        seen.add(name)


def unlabelled_sources(paths: Sequence[Path]) -> list[LabelledSource]:
    """Sources for media files and folders that have no labels; these are cut into utterances.

    Raises:
        InputUnreadable: or NoMediaFound for an unusable folder.
    """
    media = find_media(paths)
    if media.errors:
        raise media.errors[0]
    return [LabelledSource(Source(id=str(path), media=path), None, {}) for path in media.files]
