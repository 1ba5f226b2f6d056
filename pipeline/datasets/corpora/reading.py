"""Read a corpus by name and check it: complete, unique, with its files; and write it as a labels table."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from emopipe.errors import CorpusError, EmopipeError, OutputError, Reason, reason
from emopipe.files import write_atomic
from emopipe.pipeline.datasets.corpora.corpus import Corpus, CorpusFolder, Row, some
from emopipe.pipeline.datasets.corpora.registry import corpus
from emopipe.pipeline.datasets.csv_input import Table
from emopipe.pipeline.datasets.labels import Labels, check_labels

#: Files of features that hold whole corpora.
FEATURE_SUFFIXES: Final = (".pkl", ".pickle")


@dataclass(frozen=True)
class CorpusTable:
    """A corpus as a labels table.

    Attributes:
        corpus: what is known of it.
        folder: what relative paths in the table are relative to.
        table: line -> column -> cell.
        counts: split -> rows, as the corpus has them here; "" where it has no splits.
        missing: recordings that are not in the folder.
        reasons: what is doubtful about it.
    """

    corpus: Corpus
    folder: Path
    table: Table
    counts: Mapping[str, int]
    missing: Sequence[str] = ()
    reasons: Sequence[Reason] = ()

    def labels(self) -> Labels:
        """The rows for extraction, checked as any labels table.

        Raises:
            LabelsTableError: the corpus names something that cannot be.
        """
        checked = check_labels(self.table, self.folder, self.folder)
        return replace(checked, reasons=[*self.reasons, *checked.reasons])


def read_corpus(name: str, folder: Path, pictures: Path | None = None) -> CorpusTable:
    """Read a corpus from its own files.

    Args:
        name: see :mod:`emopipe.pipeline.datasets.corpora.registry`.
        folder: where it lies.
        pictures: folder for pictures that it holds inside a table; None: such a corpus is refused.

    Raises:
        UnknownName: no corpus has that name.
        InputNotFound: without the folder.
        CorpusError: the folder does not hold the corpus as its authors hand it out.
    """
    known = corpus(name)
    if folder.is_file() and folder.suffix.lower() in FEATURE_SUFFIXES:
        hint = f"Train on the file itself: emopipe train {folder} --label sentiment --out my_model"
        raise CorpusError("it is a file of features, which needs no extraction", path=folder, hint=hint)
    files = CorpusFolder(folder, pictures)
    rows = _rows(known, files)
    counts = Counter(row.split for row in rows)
    reasons = [*files.reasons, *_counted(known, counts), *_shared_speakers(rows)]
    _check_ids(rows, folder)
    rows, missing, lacking = _with_files(known, _unique(rows), files)
    return CorpusTable(known, folder, _table(known.name, rows), counts, missing, [*reasons, *lacking])


@dataclass(frozen=True)
class CheckedFeatures:
    """Features of a corpus that its authors, or MMSA's, hand out.

    Attributes:
        counts: split -> rows.
        sizes: modality -> numbers a step.
        missing: modality and utterance, `face/S04_E01_12`, where a file of features has none of it.
        reasons: what is doubtful.
    """

    counts: Mapping[str, int]
    sizes: Mapping[str, int]
    missing: Sequence[str] = ()
    reasons: Sequence[Reason] = ()


def has_features(name: str, path: Path) -> bool:
    """Whether a path is features of a corpus, which need no extraction: a file of MMSA's, or MIntRec's folder."""
    from emopipe.models.data import mintrec

    if path.is_file():
        return path.suffix.lower() in FEATURE_SUFFIXES
    return name == mintrec.NAME and mintrec.holds(path)


def check_features(name: str, path: Path) -> CheckedFeatures:
    """Compare features with the corpus that they should be of.

    Raises:
        UnknownName: no corpus has that name.
        DatasetError: they cannot be read.
    """
    from emopipe.models.data import mintrec
    from emopipe.models.data.reading import read

    known, data = corpus(name), read(path)
    counts = Counter(str(split) for split in data.split)
    missing = [
        f"{modality}/{utterance}"
        for modality, there in zip(data.modalities, data.present.T, strict=True)
        for utterance in data.ids[~there]
    ]
    reasons = _counted(known, counts)
    if missing:
        what = f"{len(missing)} features are missing: {some(missing)}"
        reasons.append(reason("features_missing", what))
    published = mintrec.SIZES if path.is_dir() else {}
    other = {one: size for one, size in data.dims.items() if published.get(one, size) != size}
    if other:
        words = ", ".join(f"{one} has {size} numbers a step, not {published[one]}" for one, size in other.items())
        reasons.append(reason("feature_sizes", words))
    return CheckedFeatures(counts, data.dims, missing, reasons)


def write_labels(table: Table, path: Path) -> None:
    """Write a labels table.

    Raises:
        OutputError: it cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, table.columns)
    writer.writeheader()
    writer.writerows(table.rows.values())
    _write(path, text.getvalue())


def write_missing(files: Sequence[str], path: Path) -> None:
    """List recordings or features that are missing, one a line.

    Raises:
        OutputError: the list cannot be written.
    """
    _write(path, "".join(f"{file}\n" for file in files))


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
    except OSError as error:
        raise OutputError(f"it cannot be written: {error.strerror}", path=path) from error


def _rows(known: Corpus, files: CorpusFolder) -> list[Row]:
    try:
        rows = list(known.rows(files))
    except EmopipeError as error:
        if isinstance(error, CorpusError) and not error.hint:
            raise error.changed(hint=_expected(known)) from error
        raise
    except Exception as error:  # whatever an adapter of another package raises
        what = f"the adapter of {known.name} fails: {error!r}"
        raise CorpusError(what, path=files.path, hint=_expected(known)) from error
    if not rows:
        raise CorpusError(f"there is nothing of {known.title}", path=files.path, hint=_expected(known))
    return rows


def _expected(known: Corpus) -> str:
    return f"Expected: {known.layout}"


def _check_ids(rows: Sequence[Row], folder: Path) -> None:
    repeated = [name for (_, name), count in Counter((row.split, row.id) for row in rows).items() if count > 1]
    if repeated:
        what = f"{len(repeated)} rows of one split have the same id: {some(repeated)}"
        raise CorpusError(what, path=folder, hint="Check that the folder holds the corpus once")


def _unique(rows: Sequence[Row]) -> list[Row]:
    """The rows with ids and conversations that no other split has: the split is put before those that restart."""
    ids = _restart((row.split, row.id) for row in rows)
    dialogues = _restart((row.split, row.dialogue) for row in rows if row.dialogue)

    def name(row: Row, value: str, restart: bool) -> str:
        return f"{row.split}/{value}" if restart and value else value

    return [replace(row, id=name(row, row.id, ids), dialogue=name(row, row.dialogue, dialogues)) for row in rows]


def _restart(names: Iterable[tuple[str, str]]) -> bool:
    """Whether a name occurs in several splits."""
    return max(Counter(name for _, name in set(names)).values(), default=0) > 1


def _counted(known: Corpus, counts: Mapping[str, int]) -> list[Reason]:
    expected = known.counts
    differing = [split for split in dict.fromkeys([*expected, *counts]) if counts.get(split) != expected.get(split)]
    if not expected or not differing:
        return []
    words = ", ".join(
        f"{split + ' has ' if split else ''}{counts.get(split, 0)} rows of {expected.get(split, 0)}"
        for split in differing
    )
    return [reason("corpus_counts", f"{known.name}: {words}")]


def _shared_speakers(rows: Sequence[Row]) -> list[Reason]:
    splits: dict[str, set[str]] = {}
    for row in rows:
        if row.speaker and row.split:
            splits.setdefault(row.speaker, set()).add(row.split)
    shared = sorted(name for name, parts in splits.items() if len(parts) > 1)
    what = f"{len(shared)} speakers are in several of the corpus's own splits: {some(shared)}"
    return [reason("speakers_in_splits", what)] if shared else []


def _with_files(known: Corpus, rows: Sequence[Row], files: CorpusFolder) -> tuple[list[Row], list[str], list[Reason]]:
    """Rows whose recording is there, others with their words alone or not at all; and which recordings are missing."""
    missing = [row.file for row in rows if row.file and not _is_there(row.file, files)]
    lost = set(missing)
    kept = [replace(row, file="", start=None, end=None) if row.file in lost else row for row in rows]
    kept = [row for row in kept if row.file or row.text]
    if not kept:
        what = f"none of {len(missing)} recordings of {known.name} is in the folder, such as {missing[0]}"
        raise CorpusError(what, path=files.path, hint=_expected(known))
    if not missing:
        return kept, [], []
    what = f"{len(missing)} of {sum(bool(row.file) for row in rows)} recordings are not in the folder: {some(missing)}"
    return kept, missing, [reason("media_missing", what)]


def _is_there(file: str, files: CorpusFolder) -> bool:
    return file in files.existing or (Path(file).is_absolute() and Path(file).is_file())


def _table(corpus: str, rows: Sequence[Row]) -> Table:
    """Rows as cells, with the corpus that they are of; columns in which no row has anything are left out."""
    lines = [{**_cells(row), "corpus": corpus} for row in rows]
    columns = [name for name in dict.fromkeys(name for line in lines for name in line)]
    used = [name for name in columns if any(line.get(name) for line in lines)]
    return Table({number: {name: line.get(name, "") for name in used} for number, line in enumerate(lines, start=2)})


def _cells(row: Row) -> dict[str, str]:
    times = {"start": row.start, "end": row.end}
    return {
        "id": row.id,
        "file": row.file,
        **{name: "" if time is None else f"{time:.12g}" for name, time in times.items()},
        "text": row.text,
        "speaker": row.speaker,
        "split": row.split,
        "dialogue": row.dialogue,
        "utterance": "" if row.utterance is None else str(row.utterance),
        **{name: value if isinstance(value, str) else f"{value:.12g}" for name, value in row.labels.items()},
    }
