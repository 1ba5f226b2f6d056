"""EGMF with SmolLM2-135M on the words of MELD: training, and what its parts are worth.

    python benchmarks/egmf_meld.py --table meld_text.csv --features FEATURES --work WORK [STEP ...]

FEATURES is the work folder of `benchmarks/default_checkpoint.py`, of which the datasets `meld` and `triples` are read;
the table is MELD's, and tells which lines make a dialogue. WORK receives the datasets with dialogues, the checkpoints
and `figures.json`. The steps are prepare, time, train, choose, seeds, measure and ship, all by default; what an
interrupted call finished is not done again, and a killed training goes on after its last epoch. `choose` measures lines
that are kept out of training, `seeds` trains `context` from two other seeds. `ship` makes `triples` the checkpoint
`emopipe-egmf`, with its card.

`--start CHECKPOINT` lets `triples` begin with the shipped `emopipe-egmf`, or an earlier one, in the place of
WORK/context: LoRA stays, and the adapter goes on (`--start CHECKPOINT --variants triples -- train measure ship`).
FEATURES with the columns that it seals, and with some of the faces and voices, come from

    emopipe config show --model emopipe-egmf > extraction.toml
    python benchmarks/default_checkpoint.py --data DATA --work FEATURES --config extraction.toml --most 250 STEPS

where STEPS are prepare, extract and combine.

On two cores `context` takes one to two hours, by the CPU; `triples` takes some 20 minutes of two cores that multiply
bfloat16. From WORK/context, whose adapter begins anew, more epochs are wanted.

Variants, all measured on the published validation split: `context` reads the dialogue so far; `no-context` is trained
without, and `context, lines withheld` is the former shown none; `zero-shot` is not trained at all. With words alone
there are no pseudo tokens, so LoRA is all that is trained: zero-shot is also what is left with LoRA off.

`triples` trains the adapter alone, with a third of the dialogues, which now have faces and voices of other people, and
with such faces and voices without words. These show the emotion of the words, or are neutral, or one of them is, or
they contradict the words, so that the model learns when not to look. These triples are ARTIFICIAL: figures on them say
that the pseudo tokens are read, not how well real recordings are. Neutral triples, lines of any emotion with neutral
faces and voices, say what becomes of words that those say nothing about.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from default_checkpoint import clips
from jinja2 import Environment, FileSystemLoader

from emopipe.models import checkpoint
from emopipe.models.data.dataset import Dataset
from emopipe.models.data.reading import read
from emopipe.models.evaluation.evaluate import evaluate
from emopipe.models.predictor import Predictor, Spec
from emopipe.models.registry import configure
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.loop import train
from emopipe.models.training.optimisation import multiplies_bfloat16
from emopipe.pipeline.weights import resolve

#: What a face or a voice shows: the line's emotion, nothing, an emotion at random that is not the line's; None: it is
#: absent.
Shown = Literal["own", "neutral", "other"] | None
SHIPPED: Final = Path(__file__).parents[1] / "models" / "checkpoints" / "emopipe-egmf"
BACKBONE: Final = "smollm2-135m"
#: No dialogue of MELD has more lines than this.
CONTEXT: Final = {"context": 24, "no-context": 0, "triples": 24}
#: The question that is trained with: naming the classes in every prompt takes as long as reading the lines does, and
#: training teaches them anyway. Without training they must be named.
QUESTION: Final = "The emotion is"
#: What LoRA changes: all linear layers of a block.
LAYERS: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
#: No modality can be hidden where there is one. The published splits share the series' cast, whose names the model does
#: not see.
RECIPE: Final = TrainConfig(
    model="egmf",
    modalities=("text",),
    epochs=2,
    batch_size=24,
    lr=8e-4,
    schedule="cosine",
    schedule_epochs=3,
    average=0.99,
    select="last",
    balance="balanced",
    balance_strength=0.5,
    allow_speaker_overlap=True,
    modality_dropout=0.0,
    cpu_amp=True,
    seed=5,
)
#: Initial weights of the models of words are drawn from this seed; the recipe's is that of order and dropout. Of the
#: trainings in `models/README.md` the one from these two seeds was the best on the validation lines.
INITIAL: Final = 20
#: Of the adapter that reads triples: with LoRA it is to stay below 20 MB.
WIDTH: Final = 224
#: What a triple takes from its face and its voice.
PARTS: Final = ("face", "face_quality", "voice", "voice_quality")
TRIPLES_RECIPE: Final = replace(
    RECIPE,
    modalities=("text", "face", "voice"),
    epochs=2,
    lr=1e-3,
    start_rate=0.5,
    schedule_epochs=0,
    seed=0,
)
#: Seeds that show how far the figures of a training spread.
SEEDS: Final = (1, 2)
#: One dialogue of so many has faces and voices: of the training split to learn from, of the validation split to measure
#: on, and half as many of its others to choose the temperature by.
TRAINED: Final = 3
MEASURED: Final = 3
#: One of so many of these training dialogues is kept out of training, and so are these voices and one of so many faces.
KEPT: Final = 10
KEPT_SPEAKERS: Final = frozenset({"ravdess_15", "ravdess_16", "emodb_14", "urdu_SM3", "urdu_SF3"})
#: How often the face and the voice of a line to train on are of its own emotion, neutral, of any `other` one each, or
#: absent.
SHOWN: Final[Mapping[tuple[Shown, Shown], float]] = {
    ("own", "own"): 0.36,
    ("neutral", "neutral"): 0.25,
    ("neutral", "own"): 0.06,
    ("own", "neutral"): 0.06,
    ("other", "other"): 0.07,
    ("own", None): 0.05,
    (None, "own"): 0.05,
    ("neutral", None): 0.05,
    (None, "neutral"): 0.05,
}
#: The same of utterances without words: where there are words, a model that can read has little reason to look up from
#: them.
SHOWN_SILENT: Final[Mapping[tuple[Shown, Shown], float]] = {
    ("own", "own"): 0.5,
    ("own", None): 0.25,
    (None, "own"): 0.25,
}
#: So many of these of each emotion.
SILENT: Final = 100
#: How faces and voices are in the datasets to measure on.
MATCHED: Final[Mapping[tuple[Shown, Shown], float]] = {("own", "own"): 1.0}
NEUTRAL: Final[Mapping[tuple[Shown, Shown], float]] = {("neutral", "neutral"): 1.0}
OTHER: Final[Mapping[tuple[Shown, Shown], float]] = {("other", "other"): 1.0}
Subset = tuple[str, ...]
ALL: Final[Subset] = ("text", "face", "voice")
Measured = tuple[str, Sequence[Subset]]
SUBSETS: Final = tuple(subset for size in (3, 2, 1) for subset in combinations(ALL, size))
#: Name of figures on triples -> the dataset, and what of it is shown.
ARTIFICIAL: Final[Mapping[str, Measured]] = {
    "triples (ARTIFICIAL)": ("matched-dataset", SUBSETS),
    "neutral triples (ARTIFICIAL)": ("neutral-dataset", (ALL, ("text", "face"), ("text", "voice"))),
    "contradicting triples (ARTIFICIAL)": ("other-dataset", (ALL,)),
}
#: The same of the checkpoint that training began with.
BEFORE: Final[Mapping[str, Measured]] = {f"{name} before": (ARTIFICIAL[name][0], (ALL,)) for name in ARTIFICIAL}
#: The same of the lines that are kept out of training.
CHOSEN_BY: Final[Mapping[str, Measured]] = {
    "kept triples (ARTIFICIAL)": ("kept-matched-dataset", (ALL, ("text",))),
    "kept neutral triples (ARTIFICIAL)": ("kept-neutral-dataset", (ALL,)),
}
Row = dict[str, Any]
FIGURES: Final = ("weighted_f1", "macro_f1", "uar", "accuracy", "ece")


def prepare(table: Path, dataset: Path, work: Path, rows: int) -> None:
    """WORK/dataset: the extracted dataset with columns `dialogue`, `utterance` and `speaker`, and with text alone."""
    folder = work / "dataset"
    if (folder / "manifest.parquet").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with table.open(newline="", encoding="utf-8") as file:
        lines = {f"{line['split']}_{line['id']}": line for line in csv.DictReader(file)}
    manifest = pq.read_table(dataset / "manifest.parquet")
    csv_rows = [lines[name] for name in manifest["id"].to_pylist()]
    dialogues = [f"{line['split']}_{line['dialogue']}" for line in csv_rows]
    manifest = manifest.append_column("dialogue", pa.array(dialogues))
    manifest = manifest.append_column("utterance", pa.array([float(line["utterance"]) for line in csv_rows]))
    speakers = pa.array([line["speaker"] for line in csv_rows])
    manifest = manifest.set_column(manifest.column_names.index("speaker"), "speaker", speakers)
    if rows:
        manifest = _first(manifest, rows)
    (folder / "text.parquet").symlink_to((dataset / "text.parquet").resolve())
    (folder / "config.toml").write_bytes((dataset / "config.toml").read_bytes())
    pq.write_table(manifest.drop_columns(["face", "voice"]), folder / "manifest.parquet")


def _chosen(rows: Sequence[Row]) -> dict[str, set[str]]:
    """The dialogues that triples are made of, by part."""
    rng = np.random.default_rng(0)
    mixed = {
        split: rng.permutation(sorted({row["dialogue"] for row in rows if row["split"] == split})).tolist()
        for split in ("train", "valid")
    }
    chosen = mixed["train"][::TRAINED]
    kept = set(chosen[::KEPT])
    parts = {"train": set(chosen) - kept, "kept": kept, "measured": set(mixed["valid"][::MEASURED])}
    return {**parts, "calibrated": set(mixed["valid"][1 :: 2 * MEASURED])}


def _silent(like: Row, label: str, number: int) -> Row:
    """A manifest row without words, to train on."""
    name = f"silent_{label}_{number}"
    values = {"id": name, "dialogue": name, "split": "train", "label": label, "text_absent": "no_speech"}
    return {**dict.fromkeys(like), "start": 0.0, "end": 0.0, "utterance": 0.0, **values}


def prepare_triples(features: Path, work: Path) -> None:
    """Make the artificial triples.

    WORK/triples-dataset: some of the dialogues, each line with a face and a voice as SHOWN says, and utterances without
    words to train on. Of the validation lines among them, WORK/matched-dataset, neutral-dataset and other-dataset: with
    faces and voices of their emotion, neutral, and of another one. WORK/kept-matched-dataset and so on: the same of the
    lines that are kept out of training.
    """
    if (work / "kept-other-dataset" / "manifest.parquet").exists():
        return
    parts = _parts(features)
    rows = pq.read_table(work / "dataset" / "manifest.parquet").to_pylist()
    chosen = _chosen(rows)
    silent = [
        _silent(rows[0], label, number) for label in sorted({row["label"] for row in rows}) for number in range(SILENT)
    ]
    lines = {part: [row for row in rows if row["dialogue"] in dialogues] for part, dialogues in chosen.items()}
    rng = np.random.default_rng(1)
    triples = [_shown(row, parts["train"], SHOWN, rng) for row in lines["train"]]
    triples += [_shown(row, parts["train"], SHOWN_SILENT, rng) for row in silent]
    triples += [_shown(row, parts["valid"], SHOWN, rng) for row in lines["calibrated"]]
    _write(work / "triples-dataset", features / "triples", triples)
    for part, split, prefix in (("measured", "valid", ""), ("kept", "kept", "kept-")):
        for name, shown in (("matched", MATCHED), ("neutral", NEUTRAL), ("other", OTHER)):
            rng = np.random.default_rng(2)
            measured = [{**_shown(row, parts[split], shown, rng), "split": "valid"} for row in lines[part]]
            _write(work / f"{prefix}{name}-dataset", features / "triples", measured)


def _parts(features: Path) -> dict[str, dict[str, dict[str, list[Row]]]]:
    """Split (`kept` is one) -> modality -> emotion -> the faces or voices that there are."""
    parts: dict[str, dict[str, dict[str, list[Row]]]] = {}
    taken = set()
    for row in pq.read_table(features / "triples" / "manifest.parquet").to_pylist():
        for modality in ("face", "voice"):
            if row[modality] in taken:
                continue
            taken.add(row[modality])
            kept = row["split"] == "train" and _kept(row, modality)
            split = parts.setdefault("kept" if kept else row["split"], {"face": {}, "voice": {}})
            part = {name: row[name] for name in PARTS if name.startswith(modality)}
            split[modality].setdefault(row["label"], []).append(part)
    return parts


def _kept(row: Row, modality: str) -> bool:
    """Whether the face or the voice is kept out of training."""
    if modality == "voice":
        return row["speaker"].removeprefix("triple_") in KEPT_SPEAKERS
    return hashlib.sha256(row["face"].encode()).digest()[0] % KEPT == 0


def _shown(
    row: Row,
    parts: Mapping[str, Mapping[str, Sequence[Row]]],
    shares: Mapping[tuple[Shown, Shown], float],
    rng: np.random.Generator,
) -> Row:
    """The row with a face and a voice out of the parts: modality -> emotion -> those that there are."""
    shown = dict(row)
    kinds = list(shares)[rng.choice(len(shares), p=list(shares.values()))]
    for modality, kind in zip(("face", "voice"), kinds, strict=True):
        others = [label for label in parts[modality] if label != row["label"]]
        label = {"own": row["label"], "neutral": "neutral", "other": others[rng.integers(len(others))]}.get(kind or "")
        part = parts[modality][label][rng.integers(len(parts[modality][label]))] if label else {}
        shown |= {name: part.get(name) for name in PARTS if name.startswith(modality)}
        shown[f"{modality}_absent"] = None if part else "not_requested"
    return shown


def _write(folder: Path, features: Path, rows: Sequence[Row]) -> None:
    """A dataset of these rows, whose features lie in another."""
    folder.mkdir(parents=True, exist_ok=True)
    for modality in ("text", "face", "voice"):
        if not (folder / f"{modality}.parquet").exists():
            (folder / f"{modality}.parquet").symlink_to((features / f"{modality}.parquet").resolve())
    (folder / "config.toml").write_bytes((features / "config.toml").read_bytes())
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / "manifest.parquet")


def _first(manifest: pa.Table, rows: int) -> pa.Table:
    """The first rows to train on, and the first to validate on of the same classes."""
    split, label = (np.array(manifest[name].to_pylist()) for name in ("split", "label"))
    train_rows = np.flatnonzero(split == "train")[:rows]
    valid_rows = np.flatnonzero((split == "valid") & np.isin(label, label[train_rows]))[:rows]
    return manifest.take(pa.array(np.concatenate([train_rows, valid_rows])))


def recipe(variant: str, backbone: Path, question: str = QUESTION) -> TrainConfig:
    options = {
        "backbone": BACKBONE,
        "backbone_path": str(backbone),
        "context": CONTEXT[variant],
        "task_prompt": question,
        "lora_targets": LAYERS,
        "freeze_lora": variant == "triples",
        "width": WIDTH,
        "echo": True,
        "lora_dropout": 0.1,
        "label_smoothing": 0.1,
        "cuda_graphs": True,
    }
    return replace(TRIPLES_RECIPE if variant == "triples" else RECIPE, options=options)


def time_steps(data: Dataset, backbone: Path, steps: int = 5) -> dict[str, float]:
    """Measure how long training and prediction take.

    Seconds of a training step, the mean over batches of whole dialogues; of one prediction for one and eight utterances
    in the middle of a dialogue; and peak memory.
    """
    config = recipe("context", backbone)
    predictor = untrained(data, config)
    model = predictor.module.train()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=config.lr)
    index = {name: number for number, name in enumerate(predictor.spec.classes)}
    targets = torch.tensor([index[label] for label in data.labels("label")])
    size, seconds = config.batch_size, []
    for start in np.linspace(0, max(0, len(data) - size), steps + 1).astype(int):
        chosen = np.arange(start, min(start + size, len(data)))
        batch = replace(data.batch(chosen), labels=targets[torch.from_numpy(chosen)])
        began = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.cpu_amp and multiplies_bfloat16()):
            loss = model.loss(model(batch), batch)["total"]
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        seconds.append(time.perf_counter() - began)
    figures = {
        "step_seconds": float(np.mean(seconds[1:])),
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    model.eval()
    for count in (1, 8):
        samples = [data.sample(row) for row in range(count)]
        predictor.predict(samples)
        began = time.perf_counter()
        predictor.predict(samples)
        figures[f"predict_{count}_seconds"] = time.perf_counter() - began
    return figures


def untrained(data: Dataset, config: TrainConfig) -> Predictor:
    """The model as it is built."""
    torch.manual_seed(config.seed)
    classes = tuple(sorted(set(data.labels("label"))))
    spec = Spec("egmf", asdict(configure("egmf", config.options)), "classification", "label", classes, data.schema)
    return Predictor(spec, spec.build())


def train_variants(work: Path, variants: Sequence[str], backbone: Path, start: Path | None) -> None:
    """WORK/<variant>: a checkpoint of each; `triples` begins with `start`, or with WORK/context."""
    for variant in variants:
        data, config = _dataset(work, variant), recipe(variant, backbone)
        drawn = partial(untrained, data, replace(config, seed=INITIAL))
        earlier = partial(_load, start or work / "context", backbone)
        _train(work, variant, data, config, earlier if variant == "triples" else drawn)


def train_seeds(work: Path, backbone: Path) -> None:
    """WORK/context-seed-<seed>: one training of `context` from other initial weights."""
    data, config = _dataset(work, "context"), recipe("context", backbone)
    for seed in SEEDS:
        _train(work, f"context-seed-{seed}", data, replace(config, seed=seed))


def _train(
    work: Path, name: str, data: Dataset, config: TrainConfig, start: Callable[[], Predictor] | None = None
) -> None:
    if not (work / name / "config.json").exists():
        trained = train(data, config, state=work / f"{name}.training", start=start() if start else None, hook=_told)
        checkpoint.save(work / name, trained.predictor, f"# {name} of egmf_meld.py\n")


def _told(event: dict[str, Any]) -> None:
    print(json.dumps(event), flush=True)


def _dataset(work: Path, variant: str) -> Dataset:
    return read(work / ("triples-dataset" if variant == "triples" else "dataset"))


def _load(path: Path, backbone: Path, **options: Any) -> Predictor:
    return checkpoint.load(path, options={"backbone_path": str(backbone), **options})


def measure(work: Path, backbone: Path, measured: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
    """Name -> figures on the validation split of what is not `measured`."""
    words = _dataset(work, "context")
    if "zero-shot" not in measured:
        yield "zero-shot", _figures(untrained(words, recipe("context", backbone, question="")), words)
    for name in (*CONTEXT, *(f"context-seed-{seed}" for seed in SEEDS)):
        if (work / name / "config.json").exists() and name not in measured:
            yield name, _figures(_load(work / name, backbone), words)
    for variant in ("context", "triples"):
        name, there = f"{variant}, lines withheld", (work / variant / "config.json").exists()
        if there and name not in measured:
            yield name, _figures(_load(work / variant, backbone, context=0), words)


def measure_triples(
    work: Path, path: Path, backbone: Path, datasets: Mapping[str, Measured], known: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, dict[str, float]]]]:
    """Name -> figures of a checkpoint by what is shown of artificial triples, after each that is not `known`."""
    if not (path / "config.json").exists():
        return
    predictor = _load(path, backbone)
    for name, (dataset, subsets) in datasets.items():
        figures = dict(known.get(name, {}))
        for subset in subsets:
            if (shown := "+".join(subset)) not in figures:
                figures[shown] = _figures(predictor, read(work / dataset), subset)
                yield name, dict(figures)


def _figures(predictor: Predictor, data: Dataset, shown: Subset | None = None) -> dict[str, float]:
    measured = evaluate(predictor, data, "valid", shown, by_subset=False)
    return _chosen_figures(measured.rows, measured.metrics)


def _chosen_figures(rows: float, metrics: Mapping[str, float]) -> dict[str, float]:
    return {"rows": int(rows), **{name: metrics[name] for name in FIGURES}}


def ship(data: Path, work: Path) -> None:
    """Copy `triples` to where the package ships it, look into it, and write its card."""
    shutil.copytree(work / "triples", SHIPPED, dirs_exist_ok=True)
    figures = json.loads((work / "figures.json").read_text())

    def before(name: str, shown: str) -> str:
        known = figures.get(f"{name} before", {}).get(shown)
        return f"{known['weighted_f1']:.3f}" if known else ""

    rows = pq.read_table(work / "triples-dataset" / "manifest.parquet").filter(pc.field("split") == "train")
    silent = len(rows) - rows.filter(pc.field("words").is_valid()).num_rows
    facts = {
        "figures": figures,
        "before": before,
        "training": json.loads((SHIPPED / "config.json").read_text("utf-8"))["training"],
        "trained": {"lines": len(rows) - silent, "silent": silent, "shares": SHOWN},
        "clips": clips(data, work, SHIPPED.name),
        **_looked_into(work),
    }
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), keep_trailing_newline=True)
    (SHIPPED / "README.md").write_text(environment.get_template("egmf_meld.card.md").render(facts), "utf-8")


def _looked_into(work: Path) -> dict[str, str]:
    """What `emopipe diagnose` finds in `triples`, in words, and on what."""
    out = work / "diagnosis"
    if not (out / "diagnosis.md").exists():
        diagnose = ["diagnose", str(work / "triples"), str(work / "triples-dataset"), "--out", str(out)]
        subprocess.run([sys.executable, "-m", "emopipe.pipeline", *diagnose], check=True)
    looked, _, rest = (out / "diagnosis.md").read_text("utf-8").partition("\n\n## Findings\n\n")
    return {
        "findings": rest.partition("\n\n## ")[0],
        "looked": looked.splitlines()[-1].removeprefix("Looked at on ").rstrip("."),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="folder of the real clips, for the card")
    parser.add_argument("--backbone", type=Path, help="its folder; else the weight catalogue's")
    parser.add_argument("--start", type=Path, help="a checkpoint that `triples` begins with; else WORK/context")
    parser.add_argument("--variants", nargs="*", choices=list(CONTEXT), default=list(CONTEXT))
    parser.add_argument("--rows", type=int, default=0, help="take only so many of each split, to try the recipe out")
    parser.add_argument("steps", nargs="*", metavar="STEP")
    options = parser.parse_args()
    work = options.work.resolve()
    prepare(options.table, options.features.resolve() / "meld", work, options.rows)
    prepare_triples(options.features.resolve(), work)
    backbone = resolve(BACKBONE, override=options.backbone)
    report = work / "figures.json"

    def known() -> dict[str, Any]:
        return json.loads(report.read_text()) if report.exists() else {}

    def write(name: str, value: Any) -> None:
        report.write_text(json.dumps({**known(), name: value}, indent=1) + "\n")
        print(json.dumps({name: value}, indent=1), flush=True)

    def write_measured() -> None:
        for name, value in measure(work, backbone, known().get("valid", {})):
            write("valid", {**known().get("valid", {}), name: value})
        write_triples(ARTIFICIAL, work / "triples")
        if options.start:
            write_triples(BEFORE, options.start)

    def write_triples(datasets: Mapping[str, Measured], path: Path) -> None:
        for name, value in measure_triples(work, path, backbone, datasets, known()):
            write(name, value)

    steps: dict[str, Callable[[], None]] = {
        "prepare": lambda: None,
        "time": lambda: write("time", time_steps(_dataset(work, "context"), backbone)),
        "train": lambda: train_variants(work, options.variants, backbone, options.start),
        "choose": lambda: write_triples(CHOSEN_BY, work / "triples"),
        "seeds": lambda: train_seeds(work, backbone),
        "measure": write_measured,
        "ship": lambda: ship(options.data, work),
    }
    for name in options.steps or steps:
        if name not in steps:
            parser.error(f"unknown step {name}; known are {', '.join(steps)}")
        steps[name]()


if __name__ == "__main__":
    main()
