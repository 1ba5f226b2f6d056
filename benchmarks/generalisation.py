"""How right checkpoints and recipes are on corpora that they have not seen, by modality, as a table in Markdown.

    python benchmarks/generalisation.py --data DATA --work WORK --model emopipe-default [--model FOLDER ...]
    python benchmarks/generalisation.py --data DATA --work WORK --recipe RECIPE.toml [--seeds 3]

Each `--model` is measured on every corpus. Each `--recipe` (tables `model` and `train`, as for `emopipe train`, and
tables of the extraction) is trained on all corpora but one, and measured on that one. WORK keeps what was extracted, so
that another call with the same features only measures. Rows in which nothing was found count as wrong. Intervals are
of 95 %, by 2,000 bootstrap resamples of the speakers; pictures of one film have one speaker, other pictures their own.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

import emopipe
from emopipe.models import checkpoint
from emopipe.models.data import reading
from emopipe.models.data.dataset import Dataset
from emopipe.models.predictor import Predictor
from emopipe.models.sealed import read_sealed
from emopipe.models.training.config import configuration
from emopipe.models.training.loop import train
from emopipe.pipeline.backends.loading import libraries
from emopipe.pipeline.config import ExtractionConfig, extraction_tables, read_toml

CLASSES: Final = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
#: Corpus -> what its recordings hold.
CORPORA: Final = {
    "rafdb": ("face",),
    "fer2013": ("face",),
    "sfew": ("face",),
    "javased": ("face", "voice"),
    "ravdess_speech": ("voice",),
    "emodb": ("voice",),
    "urdu": ("voice",),
}
#: Measured recordings of a class of a corpus, at most.
MOST: Final = 100
#: Tables of a sealed extraction that say how, not by which versions.
TABLES: Final = ("face", "voice", "speech", "text", "people")
Row = dict[str, str]


def corpus_rows(data: Path, name: str, most: int = MOST) -> list[Row]:
    """The labelled recordings of a corpus that are measured, of each class at most so many (0: all)."""
    rows = _read(data / f"{name}.csv")
    if name == "fer2013":
        rows = [row for row in rows if row["split"] == "valid"]
        rows = [{**row, "emotion": label} for row in rows if (label := _majority(row))]
    elif name == "rafdb":
        rows = [row for row in rows if hashlib.sha256(row["file"].encode()).digest()[0] < 26]
    elif name == "javased":
        rows = [row for row in rows if row["file"].endswith(".mp4")]
    taken: Counter[str] = Counter()
    chosen = []
    for row in sorted(rows, key=lambda row: hashlib.sha256(row["file"].encode()).digest()):
        taken[row["emotion"]] += 1
        if row["emotion"] and (not most or taken[row["emotion"]] <= most):
            speaker = row.get("speaker") or row.get("film") or row["file"]
            chosen.append({"file": row["file"], "speaker": f"{name}/{speaker}", "emotion": row["emotion"]})
    return chosen


def _read(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _majority(row: Row) -> str:
    """The label with the most of FER+'s votes; none where another answer, or two, have as many."""
    votes = {name.removeprefix("votes_"): float(row[name] or 0) for name in row if name.startswith("votes_")}
    best = max(votes, key=lambda name: votes[name])
    return best if best in CLASSES and list(votes.values()).count(votes[best]) == 1 else ""


def unpacked(data: Path, work: Path, name: str) -> Path:
    """The folder in which the recordings of a corpus lie."""
    if not (work / name).exists():
        with zipfile.ZipFile(data / f"{name}.zip") as archive:
            archive.extractall(work / name)
    return work / name


def extract(
    data: Path, work: Path, corpora: list[str], modalities: list[str], tables: Mapping[str, Any], most: int = MOST
) -> Dataset:
    """The features of the corpora under an extraction configuration, made once by each expression encoder."""
    chosen = {name: corpus_rows(data, name, most) for name in corpora}
    versions = libraries(ExtractionConfig.from_dict(tables), "face")
    facts = json.dumps([chosen, modalities, tables, versions], sort_keys=True)
    key = hashlib.sha256(facts.encode()).hexdigest()[:12]
    folder = work / f"features-{key}"
    if not folder.exists():
        rows = []
        for name in corpora:
            unpacked(data, work, name)
            rows += [{**row, "corpus": name, "file": f"{name}/{row['file']}"} for row in chosen[name]]
        with (work / f"labels-{key}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        labels = work / f"labels-{key}.csv"
        emopipe.extract(labels, folder, modalities=modalities, config=tables, store=work / "store", jobs=1)
    return reading.read(folder)


def figures(
    predictor: Predictor, dataset: Dataset, corpus: str, modalities: tuple[str, ...]
) -> tuple[int, int, float, float, tuple[float, float]]:
    """Rows, rows in which something was found, accuracy, UAR and its interval."""
    rows = np.flatnonzero(dataset.column("corpus") == corpus)
    scores = predictor.scores(dataset, rows, modalities)
    answers = np.array(predictor.spec.classes)[predictor.probabilities(scores).argmax(1)]
    present = scores.present.any(1)
    truth = dataset.column("emotion")[rows].astype(str)
    right = (answers == truth) & present
    speakers = dataset.column("speaker")[rows].astype(str)
    return len(rows), int(present.sum()), float(right.mean()), uar(truth, right), interval(truth, right, speakers)


def uar(truth: np.ndarray, right: np.ndarray) -> float:
    """The mean over the classes of the share that is right."""
    return float(np.mean([right[truth == name].mean() for name in np.unique(truth)]))


def interval(truth: np.ndarray, right: np.ndarray, speakers: np.ndarray, resamples: int = 2000) -> tuple[float, float]:
    """The 95 % interval of the UAR over resampled speakers."""
    _, who = np.unique(speakers, return_inverse=True)
    names, label = np.unique(truth, return_inverse=True)
    shape = (who.max() + 1, len(names))
    total, hits = np.zeros(shape), np.zeros(shape)
    np.add.at(total, (who, label), 1)
    np.add.at(hits, (who, label), right)
    drawn = np.random.default_rng(0).multinomial(len(total), np.full(len(total), 1 / len(total)), resamples)
    with np.errstate(invalid="ignore"):
        recalls = (drawn @ hits) / (drawn @ total)
    low, high = np.quantile(np.nanmean(recalls, 1), [0.025, 0.975])
    return float(low), float(high)


def sealed_tables(model: str) -> dict[str, Any]:
    """The extraction tables that a checkpoint seals."""
    return {name: dict(table) for name, table in read_sealed(model).extraction.items() if name in TABLES}


def without(dataset: Dataset, corpus: str) -> Dataset:
    """The rows of all other corpora, to train on."""
    return dataset.subset(np.flatnonzero(dataset.column("corpus") != corpus))


def subsets(corpus: str, modalities: list[str]) -> Iterator[tuple[str, ...]]:
    """The modalities of a corpus one by one, and together."""
    there = tuple(name for name in CORPORA[corpus] if name in modalities)
    yield from ((name,) for name in there)
    if len(there) > 1:
        yield there


def row(what: str, corpus: str, names: tuple[str, ...], runs: list[Any]) -> str:
    """A line of the table: means over the runs, with the spread where there are several."""
    count, present = runs[0][:2]
    accuracy, uar = (np.array([run[place] for run in runs]) for place in (2, 3))
    low, high = np.mean([run[4] for run in runs], axis=0)
    spread = f" ± {uar.std(ddof=1):.3f}" if len(runs) > 1 else ""
    numbers = f"{accuracy.mean():.3f} | {uar.mean():.3f}{spread} | [{low:.3f}, {high:.3f}]"
    return f"| {what} | {corpus} | {'+'.join(names)} | {count} | {present} | {numbers} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="keeps the extracted features")
    parser.add_argument("--model", action="append", default=[], help="checkpoint to measure; may be repeated")
    parser.add_argument(
        "--recipe", type=Path, action="append", default=[], help="what to train with one corpus left out"
    )
    parser.add_argument("--corpora", default=",".join(CORPORA))
    parser.add_argument("--modalities", default="face,voice")
    parser.add_argument("--most", type=int, default=MOST, help="recordings of a class of a corpus, at most; 0 for all")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    corpora, modalities = options.corpora.split(","), options.modalities.split(",")
    corpora = [name for name in corpora if set(CORPORA[name]) & set(modalities)]
    options.work.mkdir(parents=True, exist_ok=True)
    print("| model | corpus | modalities | n | found | accuracy | UAR | 95 % interval |\n" + "|---" * 8 + "|")
    for name in options.model:
        predictor = checkpoint.load(name)
        dataset = extract(options.data, options.work, corpora, modalities, sealed_tables(name), options.most)
        for corpus in corpora:
            for names in subsets(corpus, modalities):
                label = Path(name).name
                print(row(label, corpus, names, [figures(predictor, dataset, corpus, names)]), flush=True)
    for recipe in options.recipe:
        tables = read_toml(recipe)
        config = replace(
            configuration({name: tables[name] for name in ("model", "train")}), label="emotion", select="last"
        )
        dataset = extract(options.data, options.work, corpora, modalities, extraction_tables(tables), options.most)
        for corpus in corpora:
            rest = without(dataset, corpus)
            predictors = [train(rest, replace(config, seed=seed)).predictor for seed in range(options.seeds)]
            for names in subsets(corpus, modalities):
                runs = [figures(predictor, dataset, corpus, names) for predictor in predictors]
                print(row(recipe.stem, corpus, names, runs), flush=True)


if __name__ == "__main__":
    main()
