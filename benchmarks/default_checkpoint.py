"""Make the shipped checkpoint `emopipe-default` from public corpora, from raw files to model card.

    python benchmarks/default_checkpoint.py --data DATA --work WORK [--jobs 2] [prepare extract combine train measure]

DATA holds the archives and tables named in :data:`CORPORA`; WORK receives what lies between. Steps already done are
skipped, so an interrupted call goes on. No corpus labels one person's face, voice and words in quantity, so faces,
voices and sentences of one label are joined into *label-matched triples* of different people. These are artificial:
figures on them say how well the model weighs evidence, not how well it reads people.
"""

from __future__ import annotations

import csv
import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

MODALITIES: Final = ("text", "face", "voice")
ARCHIVES: Final = ("fer2013", "faces350", "ravdess_speech", "emodb", "urdu")
#: Speakers who validate and never train: four of RAVDESS's twenty actors, and a fifth of the others.
HELD_OUT: Final = frozenset(
    [
        "ravdess_17",
        "ravdess_18",
        "ravdess_19",
        "ravdess_20",
        "emodb_15",
        "emodb_16",
        "urdu_SM1",
        "urdu_SM2",
        "urdu_SF1",
        "urdu_SF2",
    ]
)
#: Triples per emotion, and the share of them in which no modality is replaced.
TRAINING_TRIPLES: Final = 2500
VALIDATION_TRIPLES: Final = 300
INTACT_SHARE: Final = 0.7
#: Training faces taken of one emotion of FER2013; classes are balanced anyway, and extraction takes time.
MOST_FACES: Final = 3500
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
    taken: Counter[str] = Counter()
    for row in _read_table(data / "fer2013.csv"):
        taken[row["emotion"]] += row["split"] == "train"
        if row["split"] == "train" and taken[row["emotion"]] > MOST_FACES:
            continue
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


def combine(work: Path) -> None:
    """Datasets over the extracted features: one per corpus to measure on, and the mixture that trains the checkpoint.

    A dataset's manifest names feature sequences by key, so triples copy no features.
    """
    rows = {modality: pq.read_table(work / modality / "manifest.parquet").to_pylist() for modality in MODALITIES}
    for corpus, modality in (("fer2013", "face"), ("ravdess_speech", "voice"), ("meld", "text")):
        _derive(work, corpus, [row for row in rows[modality] if row["corpus"] == corpus])
    _derive(work, "faces", rows["face"])
    mixture = [
        *(row for modality in MODALITIES for row in rows[modality]),
        *_triples(rows, "train", TRAINING_TRIPLES, INTACT_SHARE),
        *_triples(rows, "valid", VALIDATION_TRIPLES, INTACT_SHARE),
    ]
    _derive(work, "mixture", mixture)
    intact = [*_triples(rows, "train", TRAINING_TRIPLES, 1.0), *_triples(rows, "valid", VALIDATION_TRIPLES, 1.0)]
    _derive(work, "triples", intact)
    for modality in MODALITIES:
        replaced = _triples(rows, "valid", VALIDATION_TRIPLES, 0.0, only=modality)
        _derive(work, f"triples-{modality}-replaced", list(replaced))


def _triples(
    rows: dict[str, list[Row]], split: str, count: int, intact: float, only: str | None = None
) -> Iterator[Row]:
    """Label-matched triples: for each emotion, `count` random joins of a face, a voice and a sentence that show it.

    Args:
        rows: modality -> manifest rows.
        split: of the parts.
        count: triples per emotion.
        intact: share of triples left as they are; in the others one modality is replaced by that of another emotion,
            every second time by a neutral one.
        only: replace this modality; None: a random one.
    """
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{split} {intact} {only}".encode()).digest()[:4]))
    pools = {m: _by_label([r for r in rows[m] if r["split"] == split and r[m]]) for m in MODALITIES}
    labels = sorted(set.intersection(*(set(pool) for pool in pools.values())))
    for label in labels:
        for number in range(count):
            shown = dict.fromkeys(MODALITIES, label)
            if rng.random() >= intact:
                others = [other for other in labels if other != label]
                neutral = label != "neutral" and only is None and rng.random() < 0.5
                shown[only or rng.choice(MODALITIES)] = "neutral" if neutral else str(rng.choice(others))
            parts = {m: pools[m][shown[m]][rng.integers(len(pools[m][shown[m]]))] for m in MODALITIES}
            yield _joined(f"triple_{split}_{label}_{number}", split, label, parts)


def _joined(name: str, split: str, label: str, parts: dict[str, Row]) -> Row:
    """One manifest row from the rows of its parts; the voice's speaker stands for the triple."""
    row: Row = {"id": name, "media": None, "start": 0.0, "end": parts["voice"]["end"], "words": parts["text"]["words"]}
    row |= {"speaker": f"triple_{parts['voice']['speaker']}", "split": split, "label": label, "corpus": "triples"}
    for modality, part in parts.items():
        row |= {
            modality: part[modality],
            f"{modality}_absent": None,
            f"{modality}_quality": part[f"{modality}_quality"],
        }
    return row


def _by_label(rows: list[Row]) -> dict[str, list[Row]]:
    pools: dict[str, list[Row]] = {}
    for row in rows:
        pools.setdefault(row["label"], []).append(row)
    return pools


def _derive(work: Path, name: str, rows: list[Row]) -> None:
    """A dataset of these manifest rows over the feature files of the extracted ones, which are linked, not copied."""
    folder = work / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    schema = pq.read_schema(work / "face" / "manifest.parquet")
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "manifest.parquet", compression="zstd")
    for modality in MODALITIES:
        (folder / f"{modality}.parquet").hardlink_to(work / modality / f"{modality}.parquet")
    shutil.copy(work / "face" / "config.toml", folder / "config.toml")


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
