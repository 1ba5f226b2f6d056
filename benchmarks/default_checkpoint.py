"""Make the shipped checkpoint `emopipe-default` from public corpora, from raw files to model card.

    python benchmarks/default_checkpoint.py --data DATA --work WORK [--jobs 2] [prepare extract combine train measure]

DATA holds the archives and tables named in :data:`CORPORA`; WORK receives what lies between. Steps already done are
skipped, so an interrupted call goes on. No corpus labels one person's face, voice and words in quantity, so faces,
voices and sentences of one label are joined into *label-matched triples* of different people. These are artificial:
figures on them say how well the model weighs evidence, not how well it reads people.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

MODALITIES: Final = ("text", "face", "voice")
ARCHIVES: Final = ("fer2013", "faces350", "ravdess_speech", "emodb", "urdu")
#: Speakers who validate and never train: four of RAVDESS's twenty actors, and a fifth of the others.
HELD_OUT: Final = frozenset(
    "ravdess_17 ravdess_18 ravdess_19 ravdess_20 emodb_15 emodb_16 urdu_SM1 urdu_SM2 urdu_SF1 urdu_SF2".split()
)
Row = dict[str, Any]


def prepare(data: Path, work: Path) -> None:
    """Unpack the archives and write one labels table per modality."""
    for name in ARCHIVES:
        with zipfile.ZipFile(data / f"{name}.zip") as archive:
            archive.extractall(work / "raw" / name)
    _write_table(work / "face.csv", [*_fer2013(data), *_faces350(data)])
    _write_table(work / "voice.csv", [row for name in ARCHIVES[2:] for row in _voices(data, name)])
    _write_table(work / "text.csv", list(_meld(data)))


def _fer2013(data: Path) -> Iterator[Row]:
    for row in _read_table(data / "fer2013.csv"):
        file = f"raw/fer2013/{row['file']}"
        yield {"file": file, "speaker": file, "label": row["emotion"], "split": row["split"], "corpus": "fer2013"}


def _faces350(data: Path) -> Iterator[Row]:
    """The set has no split: a picture validates when its name's hash says so, one in eight."""
    for row in _read_table(data / "faces350.csv"):
        file = f"raw/faces350/{row['file']}"
        split = "valid" if hashlib.sha256(row["file"].encode()).digest()[0] < 32 else "train"
        yield {"file": file, "speaker": file, "label": row["emotion"], "split": split, "corpus": "faces350"}


def _voices(data: Path, corpus: str) -> Iterator[Row]:
    for row in _read_table(data / f"{corpus}.csv"):
        split = "valid" if row["speaker"] in HELD_OUT else "train"
        file = f"raw/{corpus}/{row['file']}"
        yield {"file": file, "speaker": row["speaker"], "label": row["emotion"], "split": split, "corpus": corpus}


def _meld(data: Path) -> Iterator[Row]:
    """A scene's characters recur throughout the series; the published split is by dialogue."""
    for row in _read_table(data / "meld_text.csv"):
        speaker = f"meld_{row['split']}_{row['dialogue']}"
        name = f"{row['split']}_{row['id']}"
        yield {"id": name, "text": row["text"], "speaker": speaker, "label": row["emotion"], "split": row["split"],
               "corpus": "meld"}  # fmt: skip


def extract(work: Path, jobs: int) -> None:
    """Features of each modality's corpora by `emopipe extract`."""
    for modality in MODALITIES:
        out = work / modality
        if not out.exists():
            table = str(work / f"{modality}.csv")
            _emopipe("extract", table, "--out", str(out), "--modalities", modality, "--jobs", str(jobs), accept=(0, 1))


def _emopipe(*arguments: str, accept: tuple[int, ...] = (0,)) -> None:
    command = [sys.executable, "-m", "emopipe.pipeline", *arguments]
    print("emopipe", *arguments, flush=True)
    code = subprocess.run(command, check=False).returncode
    if code not in accept:
        raise SystemExit(code)


def _read_table(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write_table(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
