"""Labels tables: which file, which stretch of it, who speaks, and what it is labelled; checked before any work."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PureWindowsPath
from typing import Final

from emopipe.constants import MODALITIES
from emopipe.errors import LabelsTableError, Reason, reason
from emopipe.models.data.label_values import EMPTY
from emopipe.models.data.split_names import HINT, split_name
from emopipe.pipeline.datasets.cells import existing, seconds, similar
from emopipe.pipeline.datasets.coders import CODER_COLUMNS, join_coders
from emopipe.pipeline.datasets.csv_input import Fault, Table, read_table, refuse
from emopipe.pipeline.datasets.label_columns import is_number, tidy
from emopipe.pipeline.media.duration import duration
from emopipe.pipeline.media.finding import IMAGE_SUFFIXES, RECORDING_SUFFIXES, find_media
from emopipe.pipeline.records import Source

NAME: Final = "labels table"
#: Names of files that can only be tables; spreadsheets are refused with a hint.
TABLE_SUFFIXES: Final = (".csv", ".tsv", ".tab", ".txt", ".xlsx", ".xlsm", ".xls", ".ods")
#: Columns of a labels table that say where signals are; the first two are synonyms.
PATH_COLUMNS: Final = ("file", "video", "audio", "image")
RESERVED: Final = ("id", "text", "start", "end", "speaker", "split")
#: Columns that the manifest has of its own.
MANIFEST_COLUMNS: Final = (
    *("media", "role", "overlap", "words", "face", "voice"),
    *(f"{modality}_{fact}" for modality in MODALITIES for fact in ("absent", "quality")),
)
#: Recordings, and folders, that are looked at where a table names none.
MOST_LISTED: Final = 1000
#: What others call the columns start and end, without blanks and units.
_TIME_NAMES: Final = frozenset(
    f"{edge}{of}"
    for edge in ("start", "end", "begin", "onset", "offset", "stop", "finish", "tmin", "tmax", "xmin", "xmax")
    for of in ("", "time", "s", "sec", "ms", "seconds")
)
#: A unit behind the name of a column: (s), [ms], in seconds, - ss.msec.
_UNIT: Final = re.compile(r"\s*(\(.*\)|\[.*\]|\bin \w+$|- [\w:.]+$)")
_SECONDS_HINT: Final = "Write seconds (6.15), hh:mm:ss, or the unit (6150 ms)"


@dataclass(frozen=True)
class LabelledSource:
    """A row of a labels table: its source, its split, and every column that is neither."""

    source: Source
    split: str | None
    labels: dict[str, str]


@dataclass(frozen=True)
class Labels:
    """A labels table that was read: its rows, and what is doubtful about it."""

    rows: list[LabelledSource]
    reasons: list[Reason] = field(default_factory=list)


def read_labels(path: Path, folder: Path | None = None) -> Labels:
    """Read a labels table (CSV with a header) and check all of it.

    A row names its signals in the columns `file` (or `video`: a video, sound or picture file), `audio`, `image` and
    `text`, alone or together; `start`, `end` (times), `speaker`, `split` and `id` are optional; all other columns
    are labels. Rows for the same signal that a column `coder` tells apart are joined; see
    :func:`~emopipe.pipeline.datasets.coders.join_coders`.

    Args:
        path: the table.
        folder: what relative paths in it are relative to; None: the table's own folder.

    Raises:
        InputNotFound: without the file; LabelsTableError when it is not such a table, naming the lines.
    """
    return check_labels(read_table(path, NAME, LabelsTableError), path, path.parent if folder is None else folder)


def check_labels(table: Table, path: Path, folder: Path) -> Labels:
    """Check all of a labels table that was read.

    Args:
        table: see :func:`read_labels`.
        path: where it comes from, for errors.
        folder: what relative paths in it are relative to.

    Raises:
        LabelsTableError: when it is not such a table, naming the lines.
    """
    table, emptied = _with_empty_cells(_with_plain_columns(table))
    _check_columns(table.columns, path, folder)
    table, joined, faults = join_coders(table, (*PATH_COLUMNS, *RESERVED))
    rows: dict[int, LabelledSource] = {}
    repeated = []
    seen: dict[tuple[str, ...], int] = {}
    for line, cells in table.rows.items():
        if seen.setdefault(tuple(cells.values()), line) != line:
            repeated.append(line)
            continue
        row, wrong = _labelled_source(cells, line, folder)
        faults += wrong
        if row is not None:
            rows[line] = row
    faults += _same_ids(rows)
    refuse(faults, NAME, LabelsTableError, path)
    unnamed = _unnamed(table, rows, path, folder)
    ignored, times = _ignored_splits(table, path), _ignored_times(table, path)
    rows, cut, beyond = _within_recordings(rows)
    refuse([*beyond, *_missing_files(rows, folder)], NAME, LabelsTableError, path)
    reasons = [
        *table.reasons,
        *emptied,
        *joined,
        *cut,
        *_file_forms(table, rows),
        *_splits(table),
        *times,
        *_overlaps(rows),
        *_dialogue_splits(rows),
        *ignored,
        *unnamed,
    ]
    if repeated:
        reasons.append(reason("rows_repeated", f"{len(repeated)} rows are repeated: {_lines(repeated)}"))
    tidied, doubts = _tidied(rows)
    return Labels(tidied, [*reasons, *doubts])


def _with_plain_columns(table: Table) -> Table:
    """The table with the columns that have a meaning in lower case."""
    known = (*PATH_COLUMNS, *RESERVED, *CODER_COLUMNS, "label")
    names = {name: name.casefold() if name.casefold() in known else name for name in table.columns}
    if len(set(names.values())) < len(names):
        return table
    return replace(table, rows={n: {names[k]: cell for k, cell in row.items()} for n, row in table.rows.items()})


def _with_empty_cells(table: Table) -> tuple[Table, list[Reason]]:
    """The table without the words that programs write into empty cells of columns that have a meaning, and the reason.

    Those of labels are told with the labels; a time that is not a number is refused.
    """
    meant = [name for name in table.columns if name in (*PATH_COLUMNS, *RESERVED) and name not in ("start", "end")]
    counts = {name: sum(row[name] in EMPTY for row in table.rows.values()) for name in meant}
    if not any(counts.values()):
        return table, []
    rows = {
        line: {name: "" if name in counts and cell in EMPTY else cell for name, cell in row.items()}
        for line, row in table.rows.items()
    }
    named = ", ".join(f"{name} ({count} cells)" for name, count in counts.items() if count)
    return replace(table, rows=rows), [reason("labels_missing", f"NA or nan count as empty in {named}")]


def _check_columns(columns: Sequence[str], path: Path, folder: Path) -> None:
    taken = [name for name in columns if name in MANIFEST_COLUMNS]
    if taken:
        what = f"the labels table has a column {taken[0]}, which is a name of the dataset's own columns"
        hint = "Call it file if it names the recordings" if taken[0] == "media" else "Give the column another name"
        raise LabelsTableError(what, path=path, hint=hint)
    if not {*PATH_COLUMNS, "text"} & set(columns):
        hint = "Name the signals in a column called file, video, audio, image or text"
        below = _media_below(folder)
        hint += f"; {below[0]} and other recordings lie in the folder" if below else ""
        hint = _corpus_hint(Table({0: dict.fromkeys(columns, "")}), folder) or hint
        what = f"the labels table has only the columns {', '.join(columns)[:200]}"
        raise LabelsTableError(what, path=path, hint=hint)


def _labelled_source(cells: Mapping[str, str], line: int, folder: Path) -> tuple[LabelledSource | None, list[Fault]]:
    """A row as a source, and what is wrong with it."""
    faults: list[Fault] = []
    paths = {name: existing(folder, cells[name]) for name in PATH_COLUMNS if cells.get(name)}
    media = paths.get("file") or paths.get("video")
    image = paths.get("image")
    if media is not None and media.suffix.lower() in IMAGE_SUFFIXES:
        media, image = None, media
    text = cells.get("text") or None
    if media is None and image is None and "audio" not in paths and text is None:
        hint = "Name a file in the column file, or give the words in the column text"
        faults.append(Fault(line, "it names no signal", hint))
    times: dict[str, float | None] = {name: _time(cells, name, line, faults) for name in ("start", "end")}
    start, end = times["start"], times["end"]
    if end is not None and end <= (start or 0):
        faults.append(
            Fault(line, f"its end ({end:g} s) is not after its start ({start or 0:g} s)", "Correct the times")
        )
    split = split_name(cells["split"]) if cells.get("split") else None
    if not _is_weight(cells.get("weight", "")):
        hint = "Write a number of 0 or more, or leave it empty for 1"
        faults.append(Fault(line, f"weight is {cells['weight'][:80]!r}", hint))
    if cells.get("split") and split is None:
        faults.append(Fault(line, f"split is {cells['split'][:80]!r}", HINT))
    if faults:
        return None, faults
    source = Source(
        id=cells.get("id") or _row_id(paths, cells, line),
        media=media,
        audio=paths.get("audio"),
        image=image,
        text=text,
        start=start,
        end=end,
        speaker=cells.get("speaker") or None,
    )
    labels = {name: value for name, value in cells.items() if name not in (*PATH_COLUMNS, *RESERVED)}
    return LabelledSource(source, split, labels), []


def _is_weight(cell: str) -> bool:
    number = cell.replace(",", ".")
    return not cell or (is_number(number) and 0 <= float(number) < float("inf"))


def _row_id(paths: Mapping[str, Path], cells: Mapping[str, str], line: int) -> str:
    """The file as the table names it, with the start time when the row is a stretch of it, else the line's number."""
    if not paths:
        return f"line{line}"
    name = cells[next(iter(paths))]
    return f"{name}@{cells['start']}" if cells.get("start") else name


def _time(cells: Mapping[str, str], name: str, line: int, faults: list[Fault]) -> float | None:
    if not cells.get(name):
        return None
    try:
        return seconds(cells[name])
    except ValueError:
        faults.append(Fault(line, f"{name} is {cells[name][:80]!r}, not a time", _SECONDS_HINT))
        return None


def _same_ids(rows: Mapping[int, LabelledSource]) -> Iterator[Fault]:
    seen: dict[str, int] = {}
    for line, row in rows.items():
        first = seen.setdefault(row.source.id, line)
        if first != line:
            hint = "Give the rows an id column, start times if they are stretches of one file, or a column coder"
            hint += " if several people labelled them"
            yield Fault(line, f"there are two rows for {row.source.id[:80]!r}, the other in line {first}", hint)


def _within_recordings(
    rows: Mapping[int, LabelledSource],
) -> tuple[dict[int, LabelledSource], list[Reason], list[Fault]]:
    """Compare the times of rows with the durations of their recordings.

    Returns:
        The rows, those that end a little late cut; the reason when some were; and rows that lie beyond.
    """
    kept: dict[int, LabelledSource] = {}
    late: list[int] = []
    faults: list[Fault] = []
    lengths: dict[Path, float | None] = {}
    for line, row in rows.items():
        kept[line] = row
        path, start, end = row.source.media or row.source.audio, row.source.start or 0.0, row.source.end
        if path is None or (row.source.start is None and end is None):
            continue
        if path not in lengths or (lengths[path] or end or start) < (end or start):
            lengths[path] = duration(path, end or start)
        length = lengths[path]
        if length is None or (start < length and (end is None or end <= length)):
            continue
        if start >= length or (end is not None and end - length > (end - start) / 2):
            until = "" if end is None else f" to {end:g} s"
            guess = _guess(start, end, length)
            what = f"it lies at {start:g} s{until}, {path.name} has {length:.2f} s"
            faults.append(Fault(line, what, f"{guess}{_SECONDS_HINT}"))
        elif end is not None and end - length > 0.5:
            late.append(line)
            kept[line] = replace(row, source=replace(row.source, end=length))
    cut = [reason("row_cut", f"{len(late)} rows end after their recording: {_lines(late)}")] if late else []
    return kept, cut, faults


def _guess(start: float, end: float | None, length: float) -> str:
    """What times that lie beyond a recording of a length may be; "" without a guess."""
    last = end or start
    if start % 60 == 0 and last % 60 == 0 and last / 60 <= length:
        return "Has a spreadsheet taken minutes and seconds for hours and minutes? "
    if last > 20 * length:
        return "Are the times milliseconds? "
    return "Are the times numbers of frames? " if start.is_integer() and last.is_integer() else ""


def _missing_files(rows: Mapping[int, LabelledSource], folder: Path) -> list[Fault]:
    """Rows whose file is not there, when none is there at all; single ones fail by themselves, the others are used."""
    paths = {line: row.source.path for line, row in rows.items() if row.source.path is not None}
    missing = {line: path for line, path in paths.items() if not os.path.exists(path)}  # noqa: PTH110
    if not missing or len(missing) < len(paths):
        return []
    hint = f"File names are relative to {folder}; name another folder with emopipe extract FOLDER --labels TABLE"
    names = {folder / PureWindowsPath(path).name for path in missing.values()}
    there = (path.name for path in sorted(names) if os.path.exists(path))  # noqa: PTH110
    other = next(filter(None, [*map(similar, missing.values()), *there]), "")
    hint = f"Did you mean {other}? {hint}" if other else hint
    return [Fault(line, f"there is no file {path.name[:80]!r}", hint) for line, path in missing.items()]


def _file_forms(table: Table, rows: Mapping[int, LabelledSource]) -> list[Reason]:
    changed = [
        line
        for line, row in rows.items()
        if row.source.path is not None and unicodedata.normalize("NFC", row.source.path.name) != row.source.path.name
    ]
    return [reason("file_name_form", f"{len(changed)} file names: {_lines(changed)}")] if changed else []


def _splits(table: Table) -> list[Reason]:
    given = dict.fromkeys(row["split"] for row in table.rows.values() if row.get("split"))
    renamed = [f"{name} as {split_name(name)}" for name in given if split_name(name) != name]
    return [reason("split_renamed", f"splits: {', '.join(renamed)}")] if renamed else []


def _overlaps(rows: Mapping[int, LabelledSource]) -> list[Reason]:
    """Rows of one recording and one speaker that share more than half a second."""
    files: dict[tuple[Path, str | None], list[tuple[float, float, int]]] = {}
    for line, row in rows.items():
        path = row.source.media or row.source.audio
        if path is not None:
            end = float("inf") if row.source.end is None else row.source.end
            files.setdefault((path, row.source.speaker), []).append((row.source.start or 0.0, end, line))
    overlapping = []
    for stretches in files.values():
        until = float("-inf")
        for start, end, line in sorted(stretches):
            if start < until - 0.5:
                overlapping.append(line)
            until = max(until, end)
    if not overlapping:
        return []
    return [reason("rows_overlap", f"{len(overlapping)} rows overlap others of their recording: {_lines(overlapping)}")]


def _ignored_splits(table: Table, path: Path) -> list[Reason]:
    """Columns that look like a split and are not the one that is read: refused where there is no other.

    Raises:
        LabelsTableError: the table has no column split.
    """
    ignored = {}
    for name in table.columns:
        values = list(dict.fromkeys(row[name] for row in table.rows.values() if row[name]))
        if name not in (*PATH_COLUMNS, *RESERVED) and len(values) > 1 and all(map(split_name, values)):
            ignored[name] = values
    if not ignored:
        return []
    name, values = next(iter(ignored.items()))
    what = f"the column {name} holds {', '.join(values[:4])}"
    if any(row.get("split") for row in table.rows.values()):
        return [reason("split_ignored", f"{what}; the column split is used")]
    hint = "Call it split, so that its parts stay apart; if it is something else, write other words into it"
    raise LabelsTableError(f"{what} and is not called split", path=path, hint=_corpus_hint(table, path.parent) or hint)


def _ignored_times(table: Table, path: Path) -> list[Reason]:
    """Columns that look like times and are not the ones that are read.

    Raises:
        LabelsTableError: rows have a start and a duration, and no end.
    """
    names = {name: "".join(_UNIT.sub("", name).casefold().split()).replace("_", "") for name in table.columns}
    lengths = [name for name, plain in names.items() if plain in ("duration", "length", "dur")]
    if "start" in table.columns and "end" not in table.columns and lengths:
        what = f"the {NAME} has a start and a {lengths[0]} for each row, and no end"
        raise LabelsTableError(what, path=path, hint="Write the end of each row (start + duration) into a column end")
    ignored = [name for name, plain in names.items() if name not in RESERVED and plain in _TIME_NAMES]
    if not ignored or "start" in table.columns:
        return []
    return [reason("times_ignored", f"the columns {', '.join(ignored)} look like times and are not read")]


def _dialogue_splits(rows: Mapping[int, LabelledSource]) -> list[Reason]:
    """Conversations that have rows in several splits."""
    splits: dict[str, set[str]] = {}
    for row in rows.values():
        if row.labels.get("dialogue") and row.split:
            splits.setdefault(row.labels["dialogue"], set()).add(row.split)
    crossing = [name for name, parts in splits.items() if len(parts) > 1]
    if not crossing:
        return []
    what = f"{len(crossing)} conversations have rows in several splits, such as {crossing[0]!r}"
    return [reason("dialogue_splits", what)]


def _unnamed(table: Table, rows: Mapping[int, LabelledSource], path: Path, folder: Path) -> list[Reason]:
    """Recordings below the folder although no row names one.

    Raises:
        LabelsTableError: the table is one that a corpus brings, whose recordings have names of their own.
    """
    below = [] if any(row.source.path for row in rows.values()) else _media_below(folder)
    if not below:
        return []
    number = f"{len(below)}{' or more' if len(below) == MOST_LISTED else ''}"
    what = f"no row names a recording, although {number} lie in the folder, such as {below[0]}"
    if hint := _corpus_hint(table, folder):
        raise LabelsTableError(what, path=path, hint=hint)
    return [reason("media_not_named", what)]


def _corpus_hint(table: Table, folder: Path) -> str:
    """How to read a table that a corpus brings; "" for other tables."""
    from emopipe.pipeline.datasets.corpora.registry import recognised

    names = recognised(table.columns)
    commands = " or ".join(f"emopipe corpus {name}" for name in names)
    return f"It is the table of a corpus: make one of labels with {commands} {folder} --out labels.csv" if names else ""


def _media_below(folder: Path) -> list[str]:
    """Recordings below a folder; at most :data:`MOST_LISTED`, and of as many folders."""
    found: list[str] = []
    for visited, (root, folders, names) in enumerate(os.walk(folder)):
        if len(found) >= MOST_LISTED or visited >= MOST_LISTED:
            break
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(root).relative_to(folder)
        media = (name for name in names if Path(name).suffix.lower() in RECORDING_SUFFIXES and name[0] != ".")
        found += [(below / name).as_posix() for name in sorted(media)]
    return found[:MOST_LISTED]


def _tidied(rows: Mapping[int, LabelledSource]) -> tuple[list[LabelledSource], list[Reason]]:
    """The rows with labels as they are used, and what was changed or is doubtful."""
    listed = list(rows.values())
    reasons: list[Reason] = []
    columns: dict[str, list[str]] = {}
    for name in listed[0].labels if listed else ():
        columns[name], doubts = tidy(name, [row.labels[name] for row in listed])
        reasons += doubts
    return [replace(row, labels={k: columns[k][at] for k in columns}) for at, row in enumerate(listed)], reasons


def _lines(lines: Sequence[int]) -> str:
    some = ", ".join(str(line) for line in sorted(lines)[:5])
    return f"line {some}" + (", ..." if len(lines) > 5 else "")


def unlabelled_sources(paths: Sequence[Path]) -> list[LabelledSource]:
    """Sources for media files and folders that have no labels; these are cut into utterances.

    Raises:
        InputUnreadable: or NoMediaFound for an unusable folder.
    """
    media = find_media(paths)
    if media.errors:
        raise media.errors[0]
    return [LabelledSource(Source(id=str(path), media=path), None, {}) for path in media.files]
