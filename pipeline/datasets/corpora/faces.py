"""FER2013 with the votes of FER+: as a table of grey values, or as pictures."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from emopipe.errors import CorpusError
from emopipe.files import write_atomic
from emopipe.pipeline.datasets.corpora.corpus import Corpus, CorpusFolder, Row
from emopipe.pipeline.datasets.corpora.named_files import FileNames
from emopipe.pipeline.media.finding import IMAGE_SUFFIXES

CLASSES: Final = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
_USAGE: Final = {"Training": "train", "PublicTest": "valid", "PrivateTest": "test"}
#: Votes of FER+ -> the class that they are for; the last two are for none.
VOTES: Final = {
    "neutral": "neutral",
    "happiness": "happiness",
    "surprise": "surprise",
    "sadness": "sadness",
    "anger": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "contempt": "contempt",
    "unknown": "",
    "NF": "",
}
_FOLDERS: Final = FileNames(
    r"(?P<label>[A-Za-z]+)/(?P<split>Training|PublicTest|PrivateTest)_(?P<number>\d+)",
    {
        "label": {
            word: name
            for name, words in {
                "anger": ("angry", "anger"),
                "disgust": ("disgust",),
                "fear": ("fear",),
                "happiness": ("happy", "happiness"),
                "neutral": ("neutral",),
                "sadness": ("sad", "sadness"),
                "surprise": ("surprise",),
            }.items()
            for word in words
        },
        "split": _USAGE,
    },
    IMAGE_SUFFIXES,
)


def fer_rows(folder: CorpusFolder) -> Iterator[Row]:
    """Rows of FER2013: `fer2013.csv`, whose pictures are written, or pictures; with the votes of `fer2013new.csv`."""
    table = folder.first("fer2013.csv", "icml_face_data.csv")
    votes = _votes(folder)
    if table is not None:
        yield from _written_rows(folder, table, votes)
    elif votes:
        for number, cells in votes.items():
            name = f"fer{number:07d}.png"
            file = next(iter(folder.by_name.get(name, ())), f"FER2013/{name}")
            yield Row(name, _voted(cells), file, split=_USAGE.get(cells["Usage"], ""))
    else:
        yield from _FOLDERS(folder)


def _votes(folder: CorpusFolder) -> Mapping[int, Mapping[str, str]]:
    """Number of a picture -> its votes."""
    file = folder.first("fer2013new.csv")
    if file is None:
        return {}
    return dict(enumerate(folder.table(file, "Usage", *VOTES).rows.values()))


def _voted(cells: Mapping[str, str]) -> dict[str, str | float]:
    """The class that most of the ten chose, "" where two share the place or there is no face; and the votes."""
    counts = {name: int(cells[name] or 0) for name in VOTES}
    most = max(counts.values())
    chosen = [VOTES[name] for name, count in counts.items() if count == most]
    return {"label": chosen[0] if len(chosen) == 1 else "", **{f"votes_{k.lower()}": v for k, v in counts.items()}}


def _written_rows(folder: CorpusFolder, table: str, votes: Mapping[int, Mapping[str, str]]) -> Iterator[Row]:
    if folder.pictures is None:
        hint = f"Write them with emopipe corpus fer2013 {folder.path} --out labels.csv, then extract that table"
        raise CorpusError(f"{table} holds grey values, not pictures", path=folder.path, hint=hint)
    folder.pictures.mkdir(parents=True, exist_ok=True)
    with (folder.path / table).open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file)
        header = [name.strip() for name in next(lines, [])]
        if not {"emotion", "pixels", "Usage"} <= set(header):
            raise CorpusError(f"{table} has no columns emotion, pixels and Usage", path=folder.path / table)
        for number, line in enumerate(lines):
            cells = dict(zip(header, line, strict=False))
            name = f"fer{number:07d}"
            picture = folder.pictures / f"{name}.png"
            _write_picture(picture, cells["pixels"], f"{table}, picture {number + 1}")
            code = int(cells["emotion"]) if cells["emotion"].isdecimal() else -1
            label = CLASSES[code] if 0 <= code < len(CLASSES) else ""
            labels: dict[str, str | float] = {"label": label}
            if number in votes:
                labels = {**_voted(votes[number]), "label_fer2013": label}
            yield Row(name, labels, str(picture.absolute()), split=_USAGE.get(cells["Usage"].strip(), ""))


def _write_picture(path: Path, values: str, place: str) -> None:
    import cv2

    try:
        grey = np.array(values.split(), dtype=np.uint8).reshape(48, 48)
    except (ValueError, OverflowError) as error:
        raise CorpusError(f"{place} is not 48 x 48 grey values", path=path) from error
    if not path.exists():
        write_atomic(path, cv2.imencode(".png", grey)[1].tobytes())


FER2013: Final = Corpus(
    name="fer2013",
    title="FER2013, with the votes of FER+ where they are beside it",
    language="none (pictures)",
    modalities="face",
    labels="7 emotions; FER+: contempt, and ten votes a picture",
    licence="research; FER+ MIT",
    source="https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge; "
    "FER+: https://github.com/microsoft/FERPlus",
    layout="fer2013.csv (emotion, pixels, Usage), fer2013new.csv of FER+; or train/happy/Training_123.jpg",
    rows=fer_rows,
    counts={"train": 28709, "valid": 3589, "test": 3589},
)
