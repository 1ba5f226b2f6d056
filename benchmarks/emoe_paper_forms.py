"""EMOE as its code runs it beside EMOE as its paper prints it, on one person's face and voice (RAVDESS).

    python benchmarks/emoe_paper_forms.py --data DATA --work WORK [--folds 5] [--seeds 3]

DATA holds `ravdess_speech.zip` and `ravdess_pyfeat.csv`. The takes that have both are trained and tested on, in folds
of actors. The face of a take is one step, of py-feat's means and deviations over the take; the voice 20 steps, of means
of the acoustic measures in equal parts of it. All are standardised over all takes, without their labels.

The forms are the options of the network and of its losses in `models/recipes/emoe-paper-mosi.toml` and
`emoe-printed-mosi.toml`. What the recipes have in common is made small for 300 takes, and both forms are trained alike:
20 epochs of random batches of 16, a step each, the last of which is kept.
"""

from __future__ import annotations

import argparse
import csv
import io
import tomllib
import zipfile
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from written_dataset import write_dataset

from emopipe.extractors.voice.acoustic import COLUMNS, acoustic_features
from emopipe.extractors.windows import window_means
from emopipe.models.data.reading import read
from emopipe.models.evaluation import compare
from emopipe.models.training.config import TrainConfig, configuration

RECIPES: Final = Path(__file__).parent.parent / "models" / "recipes"
#: Columns of the face table that are not features.
FACTS: Final = ("file", "speaker", "emotion", "original_emotion", "intensity")
STEPS: Final = 20
#: Options of the network and of its losses in which the forms differ.
DIFFERENT: Final = ("encoders", "router_input", "router_norm", "router_scale", "importance", "similarity")
#: In the place of the recipes', for all forms.
MODEL: Final[dict[str, Any]] = {"width": 64, "layers": 2, "heads": 4, "steps": {"face": 1, "voice": STEPS}}
KERNELS: Final = {"face": 1, "voice": 5}
TRAIN: Final[dict[str, Any]] = {
    "label": "label",
    "epochs": 20,
    "accumulate": 1,
    "lr": 1e-3,
    "schedule": "none",
    "select": "last",
    "metric": "auto",
    "balance": "none",
}


def prepare(data: Path, out: Path) -> None:
    """Write the dataset of takes that have a face and a voice."""
    with (data / "ravdess_pyfeat.csv").open(newline="", encoding="utf-8-sig") as file:
        takes = list(csv.DictReader(file))
    with zipfile.ZipFile(data / "ravdess_speech.zip") as archive:
        names = {Path(name).name: name for name in archive.namelist()}
        takes = [take for take in takes if take["file"] in names]
        voices = [voice(archive.read(names[take["file"]])) for take in takes]
    columns = [name for name in takes[0] if name not in FACTS]
    faces = [np.array([[float(take[name] or "nan") for name in columns]]) for take in takes]
    rows = [{"id": take["file"], "speaker": take["speaker"], "split": None, "label": take["emotion"]} for take in takes]
    features = {"face": (columns, standardised(faces)), "voice": (COLUMNS, standardised(voices))}
    write_dataset(out, rows, features, {"face": {"backend": "py-feat, per take"}})


def voice(flac: bytes) -> np.ndarray:
    """Means of the acoustic measures in equal parts of a take (STEPS, measures)."""
    with av.open(io.BytesIO(flac)) as sound:
        samples = np.concatenate([frame.to_ndarray()[0] for frame in sound.decode(audio=0)]).astype(np.float32) / 32768
    table = acoustic_features(samples)
    times = table["time"].to_numpy()
    frames = np.column_stack([table[name].to_numpy() for name in COLUMNS]).astype(np.float64)
    return window_means(times, frames, np.linspace(0.0, times[-1], STEPS + 1))[0]


def standardised(features: list[np.ndarray]) -> list[np.ndarray]:
    """(T, D) of each take, every column with mean 0 and deviation 1 over all; what was not measured is the mean."""
    steps = np.concatenate(features)
    mean, deviation = np.nanmean(steps, 0), np.nanstd(steps, 0)
    return [np.nan_to_num((x - mean) / np.maximum(deviation, 1e-6)).astype(np.float32) for x in features]


def configurations() -> dict[str, TrainConfig]:
    """Row of the table -> configuration."""
    code, printed = (
        tomllib.loads((RECIPES / f"emoe-{name}-mosi.toml").read_text("utf-8")) for name in ("paper", "printed")
    )
    base, train = {**code["model"], **MODEL, "kernel": KERNELS}, {**code["train"], **TRAIN}
    forms = {"code form": {}, "printed form": {option: printed["model"][option] for option in DIFFERENT}}
    return {name: configuration({"model": base | changes, "train": train}) for name, changes in forms.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    folder = options.work / "paper-forms"
    if not folder.exists():
        prepare(options.data, folder)
    data = read(folder)
    runs = compare.compare(
        data,
        configurations(),
        options.folds,
        range(options.seeds),
        record=options.work / "paper-forms.jsonl",
        hook=print,
    )
    gaps = compare.differences(runs, "code form", dict(zip(data.ids, data.groups, strict=True)), "uar")
    print("| | parameters | UAR | macro F1 | UAR less the code form's |\n|---|---|---|---|---|")
    for row, gap in zip(compare.scores(runs), gaps, strict=True):
        figures = [f"{row[name]:.3f} ± {row[f'{name}_sd']:.3f}" for name in ("uar", "macro_f1")]
        gained = f"{gap.difference:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]" if row["model"] != "code form" else ""
        print(f"| {row['model']} | {row['parameters']:,} | {' | '.join(figures)} | {gained} |")


if __name__ == "__main__":
    main()
