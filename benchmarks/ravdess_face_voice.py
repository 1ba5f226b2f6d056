"""EMOE and its rivals on RAVDESS faces and voices: from the archives to the table of `emopipe compare`.

    python benchmarks/ravdess_face_voice.py --data DATA --work WORK [--jobs 2] [STEP ...]

DATA holds `ravdess_speech.zip`, `ravdess_speech.csv` and `ravdess_pyfeat.csv`; WORK receives the datasets and tables.
Steps already done are skipped, so an interrupted call goes on. The work folder of `default_checkpoint.py` will do:
its voices are used.

The face of an utterance is one window: mean and deviation of 20 action units and of the mouth's openness, and py-feat's
emotion scores, over the whole take. Only 300 takes have one. The other 900 are voices alone; with `--takes all` (the
default) they are trained on as utterances without a face, never validated or tested on, and an actor's takes all lie
in the same fold, so the voice branch learns from the training actors only.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CORPUS: Final = "ravdess_speech"
#: Columns of the face table that are not features.
FACTS: Final = ("file", "speaker", "emotion", "original_emotion", "intensity")
#: Actors put aside for the pictures.
HELD_OUT: Final = frozenset(["ravdess_17", "ravdess_18", "ravdess_19", "ravdess_20"])
Row = dict[str, Any]


def prepare(data: Path, work: Path) -> None:
    """Unpack the sound files and write their labels table."""
    with zipfile.ZipFile(data / f"{CORPUS}.zip") as archive:
        archive.extractall(work / "raw" / CORPUS)
    rows = [{"file": f"raw/{CORPUS}/{row['file']}", "speaker": row["speaker"], "label": row["emotion"]}
            for row in _read(data / f"{CORPUS}.csv")]  # fmt: skip
    with (work / "voice.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def extract(work: Path, jobs: int) -> None:
    """Voice features of all takes by `emopipe extract`."""
    table, out = str(work / "voice.csv"), str(work / "voice")
    _emopipe("extract", table, "--out", out, "--modalities", "voice", "--jobs", str(jobs))


def combine(data: Path, work: Path) -> None:
    """Make the datasets.

    `face-voice`, the takes that have both; `face-voice-all`, with the voices of the others; and
    `face-voice-split`, the same with actors 17 to 20 put aside for validation.
    """
    faces = {Path(row["file"]).name: row for row in _read(data / "ravdess_pyfeat.csv")}
    voices = [row for row in pq.read_table(work / "voice" / "manifest.parquet").to_pylist() if CORPUS in row["id"]]
    rows = [_joined(voice, faces.get(Path(voice["id"]).name)) for voice in voices]
    paired = [row for row in rows if row["face"]]
    if len(paired) != len(faces):
        raise SystemExit(f"{len(faces)} takes have a face, {len(paired)} of them a voice")
    split = [{**row, "split": "valid" if row["speaker"] in HELD_OUT else "train"} for row in rows]
    for name, chosen in (("face-voice", paired), ("face-voice-all", rows), ("face-voice-split", split)):
        if not (work / name).exists():
            _write_dataset(work / name, chosen, faces, work / "voice")


def _joined(voice: Row, face: Row | None) -> Row:
    """A manifest row of a take, without a split: folds are made by speaker."""
    if face is not None and (face["emotion"], face["speaker"]) != (voice["label"], voice["speaker"]):
        raise SystemExit(f"{voice['id']}: face and voice disagree on label or speaker")
    key = voice["id"] if face else None
    quality = {"face_quality": 1.0 if face else None, "voice_quality": voice["voice_quality"]}
    absent = {"text_absent": "not_requested", "face_absent": None if face else "not_requested",
              "voice_absent": voice["voice_absent"]}  # fmt: skip
    shared = {name: voice[name] for name in ("id", "media", "start", "end", "speaker", "label", "voice")}
    return {**shared, "split": None, "text": None, "face": key, "text_quality": None, **quality, **absent}


def _write_dataset(out: Path, rows: list[Row], faces: dict[str, Row], voice: Path) -> None:
    fresh = out.with_name(f".{out.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    names = [name for name in next(iter(faces.values())) if name not in FACTS]
    shown = [row for row in rows if row["face"]]
    features = [[float(faces[Path(row["id"]).name][name] or "nan") for name in names] for row in shown]
    flat = pa.array(np.array(features, dtype=np.float32).ravel())
    table = pa.table(
        {
            "key": pa.array([row["face"] for row in shown], pa.string()),
            "start": pa.array([row["start"] for row in shown], pa.float64()),
            "end": pa.array([row["end"] for row in shown], pa.float64()),
            "features": pa.FixedSizeListArray.from_arrays(flat, len(names)),
        }
    )
    facts = {"modality": "face", "names": names}
    pq.write_table(table.replace_schema_metadata({b"emopipe": json.dumps(facts).encode()}), fresh / "face.parquet")
    text = {name: pa.string() for name in ("split", "text", "face", "face_absent", "voice_absent")}
    kinds = {**text, "text_quality": pa.float64(), "face_quality": pa.float64()}
    columns = {name: pa.array([row[name] for row in rows], kinds.get(name)) for name in rows[0]}
    pq.write_table(pa.table(columns), fresh / "manifest.parquet")
    (fresh / "voice.parquet").symlink_to((voice / "voice.parquet").resolve())
    config = (voice / "config.toml").read_text(encoding="utf-8")
    (fresh / "config.toml").write_text(_without_face(config) + '\n[face]\nbackend = "py-feat, per take"\n', "utf-8")
    fresh.rename(out)


def _without_face(config: str) -> str:
    """The extraction's configuration but for its table on faces, which come from elsewhere."""
    tables = ("\n" + config).split("\n[")
    return tables[0] + "".join(f"\n[{table}" for table in tables[1:] if not table.startswith("face]"))


def compare(work: Path, takes: str, options: list[str]) -> None:
    """All models on both datasets' common utterances; `options` go to `emopipe compare`."""
    dataset = work / ("face-voice-all" if takes == "all" else "face-voice")
    out, config = work / f"comparison-{takes}", str(Path(__file__).with_suffix(".toml"))
    _emopipe("compare", str(dataset), "--out", str(out), "--require", "face,voice", "--config", config, *options)


def ablate(work: Path, takes: str, options: list[str]) -> None:
    """EMOE without its parts; `options` go to `emopipe ablate`."""
    dataset = work / ("face-voice-all" if takes == "all" else "face-voice")
    out, config = work / f"ablation-{takes}", str(Path(__file__).with_suffix(".toml"))
    _emopipe("ablate", str(dataset), "--out", str(out), "--require", "face,voice", "--config", config, *options)


def visualize(work: Path) -> None:
    """Pictures of an EMOE that never saw actors 17 to 20, on their takes."""
    dataset, model = str(work / "face-voice-split"), str(work / "emoe")
    _emopipe("train", dataset, "--out", model, "--config", str(Path(__file__).with_suffix(".toml")))
    _emopipe("visualize", model, dataset, "--out", str(work / "pictures"))


def _emopipe(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "emopipe.pipeline", *arguments], check=True)


def _read(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the archives and tables")
    parser.add_argument("--work", type=Path, required=True, help="folder for everything made")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes of the extraction")
    parser.add_argument("--takes", choices=("all", "paired"), default="all", help="train on voices without a face too")
    parser.add_argument(
        "steps", nargs="*", help="prepare, extract, combine, compare, ablate, visualize; all when left out"
    )
    arguments, options = parser.parse_known_args()
    data, work = arguments.data, arguments.work
    work.mkdir(parents=True, exist_ok=True)
    steps: dict[str, tuple[Path, Callable[[], None]]] = {
        "prepare": (work / "voice.csv", lambda: prepare(data, work)),
        "extract": (work / "voice", lambda: extract(work, arguments.jobs)),
        "combine": (work / "face-voice-split", lambda: combine(data, work)),
        "compare": (work / "no such file", lambda: compare(work, arguments.takes, options)),
        "ablate": (work / "no such file", lambda: ablate(work, arguments.takes, options)),
        "visualize": (work / "pictures", lambda: visualize(work)),
    }
    for name, (made, step) in steps.items():
        if name in (arguments.steps or steps) and not made.exists():
            step()


if __name__ == "__main__":
    main()
