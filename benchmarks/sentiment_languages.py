"""Sentiment of the same sentences in English and in Chinese: EMOE and EGMF, with LoRA and without.

    python benchmarks/sentiment_languages.py --data DATA --work WORK [--train 100] [--valid 50] [--seeds 3]

DATA holds `mosi_text.csv` (English, -3 to 3) and `chsims_text.csv` (Chinese, -1 to 1); both have each sentence in the
other language, too. Of each corpus so many sentences are drawn, once. Models are trained on the training part in both
languages together, with the same number of steps with LoRA and without, and measured by language on the validation
part, which chooses nothing. WORK receives the datasets, the checkpoints of seed 0 and `figures.json`; what an
interrupted call finished is not done again, so another size needs another WORK.

EMOE without LoRA reads the frozen encoder's token vectors. EGMF without LoRA is the language model as it comes, asked
in full: with words alone there are no pseudo tokens, so that nothing but LoRA is trained.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from written_dataset import write_dataset

from emopipe.extractors.text.transformer import TextEncoder
from emopipe.models import checkpoint, metrics
from emopipe.models.data.dataset import Dataset
from emopipe.models.data.reading import read
from emopipe.models.predictor import Predictor, Spec
from emopipe.models.registry import configure
from emopipe.models.training.config import TrainConfig, configuration
from emopipe.models.training.loop import train
from emopipe.models.training.optimisation import multiplies_bfloat16
from emopipe.pipeline.backends.backbones import with_backbone
from emopipe.pipeline.weights import resolve

ENCODER: Final = "multilingual-e5-small"
#: Language -> column of its words.
LANGUAGES: Final[dict[str, str]] = {"en": "text", "zh": "text_zh"}
#: Corpus -> least and largest value.
RANGES: Final = {"mosi": (-3.0, 3.0), "chsims": (-1.0, 1.0)}
ZERO_SHOT: Final = "`egmf`, LoRA off"
#: Row of the table -> which model, and whether LoRA is on.
MODELS: Final = {
    "`emoe`, frozen vectors": ("emoe", False),
    "`emoe`, LoRA": ("emoe", True),
    ZERO_SHOT: ("egmf", False),
    "`egmf`, LoRA": ("egmf", True),
}
#: What differs from `sentiment_text.MODEL.toml`: a pass or two, smaller batches, and of the language model bfloat16 and
#: LoRA in the upper third, for a few minutes on a CPU.
MODEL: Final[dict[str, dict[str, Any]]] = {
    "emoe": {},
    "egmf": {"language": "en", "dtype": "bfloat16", "lora_layers": 10},
}
TRAIN: Final[dict[str, dict[str, Any]]] = {
    "emoe": {"epochs": 2, "batch_size": 16},
    "egmf": {"epochs": 1, "batch_size": 8, "lr": 1e-3},
}
SHOWN: Final = ("mae", "corr", "acc2", "parse_failure_rate")


def prepare(data: Path, work: Path, corpus: str, counts: Mapping[str, int]) -> None:
    """Each drawn sentence in both languages as a dataset, with the frozen encoder's token vectors."""
    if (work / corpus).exists():
        return
    with (data / f"{corpus}_text.csv").open(newline="", encoding="utf-8-sig") as source:
        drawn = _drawn(list(csv.DictReader(source)), counts)
    rows = [_row(row, language) for row in drawn for language in LANGUAGES]
    encoder = TextEncoder(resolve(ENCODER))
    vectors = encoder.encode([row["words"] for row in rows])
    write_dataset(work / corpus, rows, {"text": (encoder.feature_names(), vectors)}, {"text": {"encoder": ENCODER}})


def _drawn(rows: Sequence[dict[str, str]], counts: Mapping[str, int]) -> list[dict[str, str]]:
    """At most as many sentences of each split as are wanted, in the order of the table."""
    chosen: set[int] = set()
    for split, count in counts.items():
        pool = [index for index, row in enumerate(rows) if row["split"] == split]
        chosen |= set(np.random.default_rng(0).permutation(pool)[:count].tolist())
    return [rows[index] for index in sorted(chosen)]


def _row(row: Mapping[str, str], language: str) -> dict[str, str]:
    """A sentence in a language; MOSI's capitals are made small."""
    named = {"id": f"{row['id']}-{language}", "words": row[LANGUAGES[language]].lower(), "speaker": row["video"]}
    return {**named, "language": language, "split": row["split"], "sentiment": row["sentiment"]}


def recipe(corpus: str, model: str, lora: bool, seed: int) -> TrainConfig:
    """How a model is trained."""
    tables = tomllib.loads(Path(__file__).with_name(f"sentiment_text.{model}.toml").read_text(encoding="utf-8"))
    options = tables["model"] | MODEL[model]
    if model == "egmf":
        options |= {"value_range": list(RANGES[corpus])} | ({} if lora else {"lora_rank": 0, "task_prompt": ""})
    elif not lora:
        options = {name: value for name, value in options.items() if not name.startswith(("backbone", "lora"))}
    # CH-SIMS's published split cuts through its videos.
    facts = {"label": "sentiment", "seed": seed, "allow_speaker_overlap": corpus == "chsims"}
    return with_backbone(configuration({"model": options, "train": tables["train"] | TRAIN[model] | facts}))


def trained(data: Dataset, config: TrainConfig) -> Predictor:
    """The model after training on the training part; without anything to train as it comes."""
    if config.options.get("lora_rank", 1):
        return train(data.subset(data.split == "train"), config, hook=_told).predictor
    options = asdict(configure(config.model, config.options))
    largest = {"largest_label": max(map(abs, config.options["value_range"]))}
    spec = Spec(config.model, options, "regression", config.label, (), data.schema, data.extraction, training=largest)
    return Predictor(spec, spec.build())


def _told(event: dict[str, Any]) -> None:
    print(json.dumps(event), flush=True)


def measured(predictor: Predictor, data: Dataset) -> dict[str, dict[str, float]]:
    """Language -> figures on the validation part."""
    rows = np.flatnonzero(data.split == "valid")
    truth, language = data.labels("sentiment")[rows], data.column("language")[rows]
    with torch.autocast("cpu", torch.bfloat16, enabled=predictor.spec.model == "egmf" and multiplies_bfloat16()):
        values = predictor.scores(data, rows).logits[:, 0]
    return {
        name: figures(truth[language == name], values[language == name], predictor.largest_label) for name in LANGUAGES
    }


def figures(truth: NDArray[Any], values: NDArray[Any], largest: float) -> dict[str, float]:
    """Those of the table; Acc-2 is MOSI's with zeros, or CH-SIMS's."""
    scores = metrics.regression(truth, values, largest)
    scores["acc2"] = scores.get("acc2", scores.get("acc2_has0", float("nan")))
    return {name: scores[name] for name in SHOWN}


def runs(seeds: int) -> Iterator[tuple[int, str, str]]:
    """Seed, corpus and model of every run; what trains nothing has no seeds."""
    for seed in range(seeds):
        yield from ((seed, corpus, name) for corpus in RANGES for name in MODELS if seed == 0 or name != ZERO_SHOT)


def run(work: Path, corpus: str, name: str, seed: int) -> list[dict[str, Any]]:
    """The figures of one training, a record for each language."""
    data, (model, lora) = read(work / corpus), MODELS[name]
    began = time.process_time()
    predictor = trained(data, recipe(corpus, model, lora, seed))
    if seed == 0 and name != ZERO_SHOT:
        checkpoint.save(work / f"{corpus}-{model}-{'lora' if lora else 'frozen'}", predictor, f"# {name}, {corpus}\n")
    told = {"corpus": corpus, "model": name, "seed": seed}
    records = [{**told, "language": one, **scores} for one, scores in measured(predictor, data).items()]
    print(f"{corpus}, {name}, seed {seed}: {time.process_time() - began:.0f} s of CPU", flush=True)
    return records


def rows(work: Path, records: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """The table's rows: of each corpus the mean of the training part, then mean and deviation over seeds."""
    for corpus in RANGES:
        data = read(work / corpus)
        labels, train = data.labels("sentiment"), data.split == "train"
        constant = np.full(int((data.split == "valid").sum()), labels[train].mean())
        scores = figures(labels[data.split == "valid"], constant, max(map(abs, RANGES[corpus])))
        yield [corpus, "mean of the training part"] + 2 * [*(f"{scores[name]:.3f}" for name in SHOWN)]
        for name in MODELS:
            mine = [one for one in records if (one["corpus"], one["model"]) == (corpus, name)]
            cells = [
                _spread([one[key] for one in mine if one["language"] == which]) for which in LANGUAGES for key in SHOWN
            ]
            yield [corpus, name, *cells]


def _spread(values: Sequence[float]) -> str:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return ""
    mean = f"{np.mean(known):.3f}"
    return f"{mean} ± {np.std(known, ddof=1):.3f}" if len(known) > 1 else mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--train", type=int, default=100, help="training sentences of a corpus")
    parser.add_argument("--valid", type=int, default=50, help="validation sentences of a corpus")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    for corpus in RANGES:
        prepare(options.data, options.work, corpus, {"train": options.train, "valid": options.valid})
    report = options.work / "figures.json"
    records = json.loads(report.read_text("utf-8")) if report.exists() else []
    done = {(one["seed"], one["corpus"], one["model"]) for one in records}
    for seed, corpus, name in runs(options.seeds):
        if (seed, corpus, name) not in done:
            records += run(options.work, corpus, name, seed)
            report.write_text(json.dumps(records, indent=1) + "\n", "utf-8")
    heads = [
        f"{key}, {language}" for language in ("English", "Chinese") for key in ("MAE", "Corr", "Acc-2", "no number")
    ]
    table = [["", "", *heads], (2 + len(heads)) * ["---"], *rows(options.work, records)]
    print("\n".join(f"| {' | '.join(row)} |" for row in table))


if __name__ == "__main__":
    main()
