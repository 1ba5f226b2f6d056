"""Make the checkpoint `emopipe-default-1` from public corpora, from raw files to model card.

    python benchmarks/default_checkpoint.py --data DATA --work WORK [--jobs 2] [STEP ...]

DATA holds the archives and tables of the corpora and a folder `clips`; WORK receives what lies between. The steps are
prepare, extract, combine, train, measure and card, all by default; what an interrupted call finished is not done again.
`--most` and `--config` are for other recipes that read these datasets (`egmf_meld.py`): fewer faces and voices, and
other settings of extraction.

No corpus labels one person's face, voice and words in quantity, so faces, voices and sentences of one label are joined
into *label-matched triples* of different people. These are artificial: figures on them say how well the model weighs
evidence, not how well it reads people.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader

from emopipe.constants import MODALITIES
from emopipe.extractors.windows import FeatureSequence
from emopipe.pipeline.datasets.writing import FeatureWriter

ARCHIVES: Final = ("fer2013", "faces350", "ravdess_speech", "emodb", "urdu")
SEEDS: Final = (0, 1, 2)
SUBSETS: Final = (*combinations(MODALITIES, 1), *combinations(MODALITIES, 2))
CONFIG: Final = Path(__file__).with_suffix(".toml")
SHIPPED: Final = Path(__file__).parent.parent / "models" / "checkpoints" / "emopipe-default-1"
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
TRAINING_TRIPLES: Final = 2000
VALIDATION_TRIPLES: Final = 300
INTACT_SHARE: Final = 0.7
#: What the key of a picture's moving form ends in, and its noise in standard deviations of each feature.
MOVING: Final = "~moving"
JITTER: Final = 0.3
#: Training faces taken of one emotion of FER2013; classes are balanced anyway, and extraction takes time.
MOST_FACES: Final = 3500
Row = dict[str, Any]


def prepare(data: Path, work: Path, most: int) -> None:
    """Unpack the archives and write one labels table per modality."""
    for name in ARCHIVES:
        with zipfile.ZipFile(data / f"{name}.zip") as archive:
            archive.extractall(work / "raw" / name)
    _write_table(work / "face.csv", _drawn([*_fer2013(data), *_faces350(data)], most))
    _write_table(work / "voice.csv", _drawn([row for name in ARCHIVES[2:] for row in _voices(data, name)], most))
    _write_table(work / "text.csv", list(_meld(data)))


def _drawn(rows: list[Row], most: int) -> list[Row]:
    """Choose at random so many rows of each emotion and split at most; 0 for all."""
    order = np.random.default_rng(0).permutation(len(rows)).tolist() if most else []
    taken: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number in order:
        taken[rows[number]["split"], rows[number]["label"]].append(number)
    return [rows[number] for number in sorted(n for numbers in taken.values() for n in numbers[:most])] or rows


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


def extract(work: Path, jobs: int, config: Path | None) -> None:
    """Features of each modality's corpora by `emopipe extract`."""
    settings = ["--config", str(config)] if config else []
    for modality in MODALITIES:
        out = work / modality
        if not out.exists():
            table = str(work / f"{modality}.csv")
            arguments = [table, "--out", str(out), "--modalities", modality, "--jobs", str(jobs), *settings]
            _emopipe("extract", *arguments, accept=(0, 1))


def combine(work: Path) -> None:
    """Datasets over the extracted features: one per corpus to measure on, and the mixture that trains the checkpoint.

    A dataset's manifest names feature sequences by key, so triples copy no features.
    """
    rows = {modality: pq.read_table(work / modality / "manifest.parquet").to_pylist() for modality in MODALITIES}
    if not (work / "moving").exists():
        _write_moving_faces(work)
    for corpus, modality in (("fer2013", "face"), ("ravdess_speech", "voice"), ("meld", "text")):
        _derive(work, corpus, [row for row in rows[modality] if row["corpus"] == corpus])
    _derive(work, "faces", rows["face"])
    mixture = [
        *(row for modality in MODALITIES for row in _moving_in_training(rows[modality])),
        *_triples(rows, "train", TRAINING_TRIPLES, INTACT_SHARE),
        *_triples(rows, "valid", VALIDATION_TRIPLES, INTACT_SHARE),
    ]
    _derive(work, "mixture", mixture)
    intact = [*_triples(rows, "train", TRAINING_TRIPLES, 1.0), *_triples(rows, "valid", VALIDATION_TRIPLES, 1.0)]
    _derive(work, "triples", intact)
    for modality in MODALITIES:
        replaced = _triples(rows, "valid", VALIDATION_TRIPLES, 0.0, only=modality)
        _derive(work, f"triples-{modality}-replaced", list(replaced))


def _write_moving_faces(work: Path) -> None:
    """Face features in which every picture also stands as a short clip of two to six windows.

    A picture is one window, a video has many: the clip repeats the picture's features with a little noise, so that the
    model meets longer sequences that hold no more evidence than one look.
    """
    names = json.loads(pq.read_schema(work / "face" / "face.parquet").metadata[b"emopipe"])["names"]
    table = pq.read_table(work / "face" / "face.parquet", columns=["key", "features"])
    features = np.array(table["features"].combine_chunks().flatten()).reshape(table.num_rows, len(names))
    rng, spread = np.random.default_rng(0), JITTER * features.std(0)
    (work / "moving").mkdir()
    with FeatureWriter(work / "moving", "face", names) as writer:
        for key, picture in zip(table["key"].to_pylist(), features, strict=True):
            steps = int(rng.integers(2, 7))
            noise = spread * rng.standard_normal((steps, len(names)))
            writer.add(key, FeatureSequence(np.zeros(1), np.zeros(1), picture[None]))
            writer.add(key + MOVING, FeatureSequence(np.arange(steps), np.arange(steps) + 1, picture + noise))


def _moving_in_training(rows: list[Row]) -> Iterator[Row]:
    """The rows; every second training picture as its moving form."""
    for number, row in enumerate(rows):
        moving = row["face"] and row["split"] == "train" and number % 2
        yield {**row, "face": row["face"] + MOVING} if moving else row


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
            if split == "train":
                parts["face"] = {**parts["face"], "face": parts["face"]["face"] + MOVING}
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
        origin = "moving" if modality == "face" else modality
        (folder / f"{modality}.parquet").hardlink_to(work / origin / f"{modality}.parquet")
    shutil.copy(work / "face" / "config.toml", folder / "config.toml")


def train(work: Path) -> None:
    """Three seeds of the model on the mixture, the first of which is shipped, and of one for each lesser subset."""
    for seed in SEEDS:
        _train(work, f"seed-{seed}", "--seed", str(seed))
        for names in SUBSETS:
            _train(work, _alone(names, seed), "--seed", str(seed), "--modalities", ",".join(names))
    SHIPPED.mkdir(parents=True, exist_ok=True)
    for name in ("model.safetensors", "config.json"):
        shutil.copy(work / "seed-0" / name, SHIPPED / name)


def _alone(names: tuple[str, ...], seed: int) -> str:
    """Folder of the model that was trained with these modalities only."""
    return f"only-{'-'.join(names)}-{seed}"


def _train(work: Path, name: str, *options: str) -> None:
    out = work / name
    if not (out / "config.json").exists():
        _emopipe("train", str(work / "mixture"), "--config", str(CONFIG), "--out", str(out), *options)


def measure(work: Path) -> None:
    """Every figure of the card by `emopipe evaluate`, kept in WORK/figures.json; figures already there are kept."""
    path = work / "figures.json"
    figures: dict[str, list[Row]] = json.loads(path.read_text()) if path.exists() else {}
    for name, arguments in _measurements(work):
        if name not in figures:
            figures[name] = _emopipe_rows("evaluate", *arguments)
            path.write_text(json.dumps(figures, indent=1) + "\n")


def _measurements(work: Path) -> Iterator[tuple[str, list[str]]]:
    """Name and arguments of each call of `emopipe evaluate`."""
    seeds = ["--seeds", str(len(SEEDS)), "--config"]
    yield "face", [str(work / "fer2013"), "--modalities", "face", *seeds, str(CONFIG)]
    yield "text", [str(work / "meld"), "--modalities", "text", *seeds, str(CONFIG.with_suffix(".text.toml"))]
    voice = [*seeds, str(CONFIG.with_suffix(".voice.toml"))]
    yield "voice", [str(work / "ravdess_speech"), "--modalities", "voice", "--folds", "5", *voice]
    for seed in SEEDS:
        checkpoint = ["--model", str(work / f"seed-{seed}")]
        yield f"triples seed {seed}", [str(work / "triples"), *checkpoint]
        yield f"fer2013 seed {seed}", [str(work / "fer2013"), *checkpoint]
        yield f"meld seed {seed}", [str(work / "meld"), "--prior", "train", *checkpoint]
        yield f"ravdess_speech seed {seed}", [str(work / "ravdess_speech"), *checkpoint]
        for modality in MODALITIES:
            yield f"{modality} replaced seed {seed}", [str(work / f"triples-{modality}-replaced"), *checkpoint]
        for names in SUBSETS:
            alone = str(work / _alone(names, seed))
            yield f"only {'+'.join(names)} seed {seed}", [str(work / "triples"), "--model", alone]


def clips(data: Path, work: Path, model: str) -> list[Row]:
    """What a shipped checkpoint says of the real clips: one row per clip, by its most confident utterance."""
    out = work / "clips"
    _emopipe("run", str(data / "clips"), "--model", model, "--out", str(out), accept=(0, 1))
    rows = []
    for truth in _read_table(data / "clips" / "labels.csv"):
        document = json.loads((out / f"{Path(truth['file']).stem}.json").read_text("utf-8"))
        best = max(document["utterances"], key=lambda row: row["confidence"] or 0)
        words = " ".join(row["text"] for row in document["utterances"]).strip()
        rows.append({"clip": truth["file"], "truth": truth["emotion"], "words": words, **best})
    return rows


def card(data: Path, work: Path) -> None:
    """Write the model card from the figures."""
    figures = json.loads((work / "figures.json").read_text())
    facts = {"config": CONFIG.read_text(), "figures": figures, "clips": clips(data, work, SHIPPED.name), "seeds": SEEDS}
    environment = Environment(loader=FileSystemLoader(CONFIG.parent), keep_trailing_newline=True)
    environment.globals.update(mean=_mean, metric=_metric, weight=_weight)
    (SHIPPED / "README.md").write_text(environment.get_template("default_checkpoint.card.md").render(facts), "utf-8")


def _metric(rows: list[Row], name: str) -> str:
    """Mean and spread of a metric in the table that `emopipe evaluate` prints for several runs."""
    row = next(row for row in rows if row.get("metric") == name)
    return f"{float(row['mean']):.3f} ± {float(row['sd']):.3f}"


def _single(rows: list[Row], subset: str, name: str = "uar") -> float:
    """A metric of one subset of the modalities, of one checkpoint."""
    return float(next(row[name] for row in rows if row.get("modalities") == subset))


def _mean(figures: dict[str, list[Row]], kind: str, subset: str, name: str = "uar") -> str:
    """The same over the seeds: mean and spread."""
    return _spread([_single(figures[f"{kind} seed {seed}"], subset, name) for seed in SEEDS])


def _weight(figures: dict[str, list[Row]], kind: str, modality: str) -> str:
    """Mean router weight of a modality over the seeds, and spread."""
    runs = [next(row["weights"] for row in figures[f"{kind} seed {seed}"] if "weights" in row) for seed in SEEDS]
    return _spread([weights[modality] for weights in runs])


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def _emopipe(*arguments: str, accept: tuple[int, ...] = (0,)) -> str:
    """Run the command line; returns what it printed on standard output."""
    print("emopipe", *arguments, flush=True)
    command = [sys.executable, "-m", "emopipe.pipeline", *arguments]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode not in accept:
        raise SystemExit(done.returncode)
    return done.stdout


def _emopipe_rows(*arguments: str) -> list[Row]:
    """The rows that a command prints as JSON lines, without its events."""
    lines = [json.loads(line) for line in _emopipe(*arguments, "--json").splitlines()]
    return [line for line in lines if "event" not in line]


def _read_table(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write_table(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--most", type=int, default=0, help="take only so many faces and voices of an emotion and split"
    )
    parser.add_argument("--config", type=Path, help="settings of extraction; else the default ones")
    parser.add_argument("steps", nargs="*", metavar="STEP")
    options = parser.parse_args()
    data, work = options.data.resolve(), options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    steps: dict[str, Callable[[], None]] = {
        "prepare": lambda: prepare(data, work, options.most),
        "extract": lambda: extract(work, options.jobs, options.config),
        "combine": lambda: combine(work),
        "train": lambda: train(work),
        "measure": lambda: measure(work),
        "card": lambda: card(data, work),
    }
    for name in options.steps or steps:
        if name not in steps:
            parser.error(f"unknown step {name}; known are {', '.join(steps)}")
        steps[name]()


if __name__ == "__main__":
    main()
