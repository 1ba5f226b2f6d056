"""EGMF with SmolLM2-135M on the words of MELD: training, and what its parts are worth.

    python benchmarks/egmf_meld.py --table meld_text.csv --features FEATURES --work WORK [STEP ...]

FEATURES is the work folder of `benchmarks/default_checkpoint.py`, of which the datasets `meld` and `triples` are read;
the table is MELD's, and tells which lines make a dialogue. WORK receives the datasets with dialogues, the checkpoints
and `figures.json`. The steps are prepare, time, train, seeds, measure and ship, all by default; what an interrupted
call finished is not done again, and a killed training goes on after its last epoch. `seeds` trains `context` from two
other seeds. `ship` makes `triples` the checkpoint `emopipe-egmf`, with its card.

On two cores `context` takes one to two hours, by the CPU; `triples` takes 13 minutes an epoch, so its 16 are for a GPU,
where they take minutes.

Variants, all measured on the published validation split: `context` reads the dialogue so far; `no-context` is trained
without, and `context, lines withheld` is the former shown none; `zero-shot` is not trained at all. With words alone
there are no pseudo tokens, so LoRA is all that is trained: zero-shot is also what is left with LoRA off.

`triples` trains the adapter of `context` with a twelfth of the dialogues, which now have faces and voices that other
people showed and spoke with the same emotion, and with such faces and voices alone. These triples are ARTIFICIAL:
figures on them say that the pseudo tokens are read, not how well real recordings are. Neutral triples, lines of any
emotion with neutral faces and voices, say what becomes of words that those say nothing about.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
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
    epochs=16,
    lr=1e-3,
    schedule_epochs=0,
    balance_strength=0.25,
    modality_dropout=0.25,
    seed=0,
)
#: Seeds that show how far the figures of a training spread.
SEEDS: Final = (1, 2)
#: One dialogue of so many has faces and voices, by split; the others take no part.
TRIPLES_SHARE: Final = {"train": 12, "valid": 3}
#: Utterances of each emotion that are faces and voices without words: where there are words, a model that can read has
#: little reason to look up from them.
SILENT: Final = 430
#: Name of figures on triples -> the dataset.
ARTIFICIAL: Final = {"triples (ARTIFICIAL)": "triples-dataset", "neutral triples (ARTIFICIAL)": "neutral-dataset"}
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


def _chosen(rows: Sequence[Mapping[str, Any]], rng: np.random.Generator) -> set[str]:
    """The dialogues that triples are made of."""
    selection: set[str] = set()
    for split, share in TRIPLES_SHARE.items():
        dialogues = sorted({row["dialogue"] for row in rows if row["split"] == split})
        selection |= set(rng.permutation(dialogues)[::share].tolist())
    return selection


def _silent(like: Mapping[str, Any], label: str, number: int) -> dict[str, Any]:
    """A manifest row without words, to train on."""
    name = f"silent_{label}_{number}"
    values = {"id": name, "dialogue": name, "split": "train", "label": label, "text_absent": "no_speech"}
    return {**dict.fromkeys(like), "start": 0.0, "end": 0.0, "utterance": 0.0, **values}


def prepare_triples(features: Path, work: Path) -> None:
    """Make the artificial triples.

    WORK/triples-dataset: some of the dialogues, each line with a random face and voice of its emotion and split; and
    such faces and voices without words. WORK/neutral-dataset: the validation lines among them, all with neutral ones.
    """
    if (work / "neutral-dataset" / "manifest.parquet").exists():
        return
    rng, parts = np.random.default_rng(0), defaultdict(list)
    for row in pq.read_table(features / "triples" / "manifest.parquet").to_pylist():
        parts[row["split"], row["label"]].append({name: row[name] for name in PARTS})
    rows = pq.read_table(work / "dataset" / "manifest.parquet").to_pylist()
    chosen = _chosen(rows, rng)
    rows = [row for row in rows if row["dialogue"] in chosen]
    rows += [
        _silent(rows[0], label, number) for label in sorted({row["label"] for row in rows}) for number in range(SILENT)
    ]
    triples = [_shown(row, parts[row["split"], row["label"]], rng) for row in rows]
    neutral = [_shown(row, parts["valid", "neutral"], rng) for row in triples if row["split"] == "valid"]
    for folder, rows in (("triples-dataset", triples), ("neutral-dataset", neutral)):
        _write(work / folder, features / "triples", rows)


def _shown(row: Mapping[str, Any], parts: Sequence[Mapping[str, Any]], rng: np.random.Generator) -> dict[str, Any]:
    """The row with a face and a voice out of the parts."""
    shown = dict(row)
    for modality in ("face", "voice"):
        part = parts[rng.integers(len(parts))]
        shown |= {name: part[name] for name in PARTS if name.startswith(modality)}
        shown[f"{modality}_absent"] = None
    return shown


def _write(folder: Path, features: Path, rows: Sequence[dict[str, Any]]) -> None:
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


def train_variants(work: Path, variants: Sequence[str], backbone: Path) -> None:
    """WORK/<variant>: a checkpoint of each."""
    for variant in variants:
        data, config = _dataset(work, variant), recipe(variant, backbone)
        drawn = partial(untrained, data, replace(config, seed=INITIAL))
        earlier = partial(_load, work / "context", backbone)
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
    if (name := "context, lines withheld") not in measured:
        yield name, _figures(_load(work / "context", backbone, context=0), words)


def measure_triples(work: Path, backbone: Path, dataset: str) -> dict[str, dict[str, float]]:
    """Figures of `triples` on the validation split of artificial triples, by modalities that are shown."""
    measured = evaluate(_load(work / "triples", backbone), read(work / dataset), "valid")
    return {name: _chosen_figures(row["rows"], row) for name, row in measured.subsets.items()}


def _figures(predictor: Predictor, data: Dataset) -> dict[str, float]:
    measured = evaluate(predictor, data, "valid")
    return _chosen_figures(measured.rows, measured.metrics)


def _chosen_figures(rows: float, metrics: Mapping[str, float]) -> dict[str, float]:
    return {"rows": int(rows), **{name: metrics[name] for name in FIGURES}}


def ship(data: Path, work: Path) -> None:
    """Copy `triples` to where the package ships it, look into it, and write its card."""
    shutil.copytree(work / "triples", SHIPPED, dirs_exist_ok=True)
    facts = {
        "figures": json.loads((work / "figures.json").read_text()),
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
        for name, dataset in ARTIFICIAL.items():
            if (work / "triples" / "config.json").exists() and name not in known():
                write(name, measure_triples(work, backbone, dataset))

    steps: dict[str, Callable[[], None]] = {
        "prepare": lambda: None,
        "time": lambda: write("time", time_steps(_dataset(work, "context"), backbone)),
        "train": lambda: train_variants(work, options.variants, backbone),
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
