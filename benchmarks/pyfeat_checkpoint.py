"""Make the shipped checkpoint `emopipe-pyfeat`: EMOE on py-feat's faces, on voices and on words.

    python benchmarks/pyfeat_checkpoint.py --data DATA --work WORK [STEP ...]

DATA holds `ravdess_pyfeat.csv`; WORK is the work folder of `benchmarks/default_checkpoint.py`, whose
voices and words are used. The steps are combine, measure, train and card, all by default; what an interrupted call
finished is not done again.

The face of an utterance is one step: mean and standard deviation of 20 action units and 7 emotion scores over the whole
utterance, as `Detectorv1` gives them. 300 takes of RAVDESS have one; 900 more are voices alone. Their two sentences
tell nothing, so words come from MELD, as utterances without face and voice. Tested are the takes that have both face
and voice, on folds of actors.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w
from jinja2 import Environment, FileSystemLoader
from ravdess_face_voice import CORPUS, HELD_OUT

from emopipe.pipeline.config import FACE_DEFAULTS, ExtractionConfig, read_toml

CONFIG: Final = Path(__file__).with_suffix(".toml")
SHIPPED: Final = Path(__file__).parents[1] / "models" / "checkpoints" / "emopipe-pyfeat"
FACE: Final = replace(
    FACE_DEFAULTS["pyfeat"],
    detector="v1",
    rate=5.0,
    window=0.0,
    deviations=True,
    features=("action_units", "emotions"),
)
#: MELD's training lines of each emotion that are taken, and validation lines.
LINES: Final = {"train": 100, "valid": 20}
Row = dict[str, Any]


def columns() -> dict[str, str]:
    """Feature -> column of `ravdess_pyfeat.csv`."""
    from emopipe.extractors.face.pyfeat import MEASURED
    from emopipe.extractors.face.table import feature_columns

    names = feature_columns(FACE.features, MEASURED[FACE.detector])
    columns = {}
    for suffix, statistic in (("", "mean"), ("_sd", "std")):
        columns |= {f"{name}{suffix}": f"{name.replace('emotion_', 'face_')}_{statistic}" for name in names}
    return columns


def combine(data: Path, work: Path, out: Path) -> None:
    """The dataset."""
    with (data / "ravdess_pyfeat.csv").open(newline="", encoding="utf-8") as file:
        faces = {Path(row["file"]).name: row for row in csv.DictReader(file)}
    rows = [_take(row, faces) for row in pq.read_table(work / "voice" / "manifest.parquet").to_pylist()
            if CORPUS in row["id"]]  # fmt: skip
    rows += _lines(pq.read_table(work / "meld" / "manifest.parquet").to_pylist())
    out.mkdir(parents=True, exist_ok=True)
    kinds = {name: pa.string() for name in ("text", "face", "voice", "words", "text_absent", "face_absent")}
    table = {name: pa.array([row.get(name) for row in rows], kinds.get(name)) for name in rows[0]}
    pq.write_table(_faces([row for row in rows if row["face"]], faces), out / "face.parquet")
    for modality in ("text", "voice"):
        (out / f"{modality}.parquet").symlink_to((work / modality / f"{modality}.parquet").resolve())
    sealed = read_toml(work / "meld" / "config.toml")
    face = ExtractionConfig.from_dict({**sealed, "face": {"backend": "pyfeat"}})
    versions = {**sealed["versions"], "py-feat": version("py-feat")}
    del versions["mediapipe"]
    config = {**sealed, "face": replace(face, face=FACE).as_dict()["face"], "versions": versions}
    (out / "config.toml").write_text(tomli_w.dumps(config), encoding="utf-8")
    pq.write_table(pa.table(table), out / "manifest.parquet")


def _take(voice: Row, faces: dict[str, Row]) -> Row:
    face = faces.get(Path(voice["id"]).name)
    if face is not None and (face["emotion"], face["speaker"]) != (voice["label"], voice["speaker"]):
        raise SystemExit(f"{voice['id']}: face and voice disagree on label or speaker")
    shared = {
        name: voice[name] for name in ("id", "media", "start", "end", "speaker", "label", "voice", "voice_absent")
    }
    split = "valid" if voice["speaker"] in HELD_OUT else "train"
    absent = {"face_absent": None if face else "not_requested", "text_absent": "not_requested"}
    return {**shared, "split": split, "words": None, "face": voice["id"] if face else None, "text": None, **absent}


def _lines(rows: list[Row]) -> list[Row]:
    """As many lines of each emotion."""
    rng, chosen = np.random.default_rng(0), []
    for split, count in LINES.items():
        for label in sorted({row["label"] for row in rows}):
            candidates = [row for row in rows if (row["split"], row["label"]) == (split, label) and row["text"]]
            chosen += [candidates[index] for index in rng.permutation(len(candidates))[:count]]
    return chosen


def _faces(rows: list[Row], faces: dict[str, Row]) -> pa.Table:
    names = columns()
    table = [[float(faces[Path(row["id"]).name][column] or "nan") for column in names.values()] for row in rows]
    flat = pa.array(np.array(table, dtype=np.float32).ravel())
    steps = {
        "key": [row["face"] for row in rows],
        "start": [row["start"] for row in rows],
        "end": [row["end"] for row in rows],
        "features": pa.FixedSizeListArray.from_arrays(flat, len(names)),
    }
    facts = {"modality": "face", "names": list(names)}
    return pa.table(steps).replace_schema_metadata({b"emopipe": json.dumps(facts).encode()})


def measure(dataset: Path, out: Path) -> None:
    """EMOE on 5 folds of speakers x 3 seeds, tested where there is a face and a voice."""
    models = ["--models", "emoe", "--require", "face,voice"]
    _emopipe("compare", str(dataset), "--out", str(out), "--config", str(CONFIG), *models)


def ship(dataset: Path, out: Path) -> None:
    """Train, and put the checkpoint where the package ships it."""
    _emopipe("train", str(dataset), "--config", str(CONFIG), "--out", str(out))
    shutil.copytree(out, SHIPPED, dirs_exist_ok=True)


def card(work: Path) -> None:
    """Write the model card from the figures."""
    table = (work / "comparison" / "comparison.md").read_text("utf-8").split("\n\n")[2]
    facts = {"table": table.strip(), "config": CONFIG.read_text()}
    environment = Environment(loader=FileSystemLoader(CONFIG.parent), keep_trailing_newline=True)
    text = environment.get_template("pyfeat_checkpoint.card.md").render(facts)
    (SHIPPED / "README.md").write_text(text, "utf-8")


def _emopipe(*arguments: str) -> None:
    print("emopipe", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "emopipe.pipeline", *arguments], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("steps", nargs="*", metavar="STEP")
    options = parser.parse_args()
    work = options.work.resolve() / "pyfeat"
    dataset = work / "dataset"
    steps: dict[str, tuple[Path, Callable[[], None]]] = {
        "combine": (dataset / "manifest.parquet", lambda: combine(options.data, options.work.resolve(), dataset)),
        "measure": (work / "comparison" / "comparison.md", lambda: measure(dataset, work / "comparison")),
        "train": (SHIPPED / "config.json", lambda: ship(dataset, work / "checkpoint")),
        "card": (work / "no such file", lambda: card(work)),
    }
    for name, (made, step) in steps.items():
        if name in (options.steps or steps) and not made.exists():
            step()


if __name__ == "__main__":
    main()
