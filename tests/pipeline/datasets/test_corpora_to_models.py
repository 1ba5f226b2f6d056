"""Every published corpus goes from its folder to a measured model, by the commands of docs/corpora.md."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emopipe.constants import MODALITIES
from emopipe.models.checkpoint import read_spec
from emopipe.models.data.dataset import Dataset
from emopipe.models.data.reading import read
from emopipe.pipeline.datasets.corpora import registry
from emopipe.pipeline.media.finding import IMAGE_SUFFIXES
from tests.pipeline.datasets.commands import emopipe
from tests.pipeline.datasets.trainable import TRAINABLE, Trainable

WEIGHTS = ("face-landmarker", "whisper-base", "minilm-l6-emotion", "multilingual-e5-small", "silero-vad", "campplus")
#: What may be said of a corpus that is whole but small; anything else would need a look.
USUAL = {"corpus_counts", "labels_numbers", "speakers_in_splits"}


def test_every_corpus_is_among_them() -> None:
    assert {one.corpus for one in TRAINABLE.values()} == set(registry.BUILT_IN)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINABLE)
def test_a_corpus_goes_from_its_folder_to_a_measured_model(
    name: str, tmp_path: Path, weight: Callable[[str], Path]
) -> None:
    for needed in WEIGHTS:
        weight(needed)
    known = TRAINABLE[name]
    folder, labels, features = known.lay(tmp_path / "corpus"), tmp_path / "labels.csv", tmp_path / "features"

    emopipe("corpus", known.corpus, folder, "--out", labels)
    rows = table(labels)
    check_table(rows, folder, known)

    pictures = (tmp_path / "labels-pictures").exists()  # were inside of a table
    source = ("--labels", labels) if pictures else ("--corpus", known.corpus)
    wanted = registry.corpus(known.corpus).modalities.replace(" ", "")
    emopipe("extract", folder, *source, "--modalities", wanted, *known.extract, "--out", features, "--debug")
    dataset = read(features)
    check_dataset(dataset, rows, folder)
    assert len(table(features / "failures.csv")) == 0
    lost = {"media_missing"} if known.missing else set()
    assert lost <= {row["code"] for row in table(features / "reasons.csv")} <= USUAL | lost

    emopipe("train", features, "--label", known.label, *known.train, "--out", tmp_path / "model")
    spec = read_spec(tmp_path / "model")
    assert (spec.label, spec.classes, spec.modalities) == (known.label, known.classes, dataset.modalities)
    counts = {**known.counts, "train": known.counts.get("train", known.counts.get(""))}
    assert spec.training["rows"] == {name: counts.get(name, 0) for name in ("train", "valid")}

    split = "test" if "test" in known.counts else "all"
    measured = figures("evaluate", features, "--model", tmp_path / "model", "--split", split)
    check_figures(measured, known.counts.get("test", known.counts.get("")), known)
    if split == "all":
        folds = figures("evaluate", features, "--model", "linear", "--label", known.label, "--folds", "2")
        assert {"uar", "accuracy"} <= {one["metric"] for one in folds if math.isfinite(float(one.get("mean", "nan")))}


def check_table(rows: list[dict[str, str]], folder: Path, known: Trainable) -> None:
    """All rows with their splits, and a medium in each that there is one of."""
    assert Counter(row.get("split", "") for row in rows if row[known.label]) == known.counts
    assert len(rows) == sum(known.counts.values()) + known.unlabelled
    assert all((folder / row["file"]).is_file() for row in rows if row["file"])
    assert sum(not row["file"] for row in rows) == len(known.missing)
    listed = folder.parent / "labels-missing.txt"
    assert (tuple(listed.read_text("utf-8").splitlines()) if known.missing else ()) == known.missing


def check_dataset(dataset: Dataset, rows: list[dict[str, str]], folder: Path) -> None:
    """The rows of the table in its order, as it has them, with everything that their media show and say."""
    assert dataset.ids.tolist() == [row["id"] for row in rows]
    for column in ("split", "speaker", "dialogue"):
        assert dataset.column(column).tolist() == [row.get(column) or None for row in rows], column
    if "text" in dataset.modalities:
        assert dataset.column("words").tolist() == [row["text"] for row in rows]
    media = [str(folder / row["file"]) if row["file"] else None for row in rows]
    assert dataset.column("media").tolist() == media
    assert dataset.present.tolist() == [[shown(name, row) for name in dataset.modalities] for row in rows]
    for place, name in enumerate(dataset.modalities):
        absent = dataset.column(f"{name}_absent")
        assert [why is None for why in absent] == dataset.present[:, place].tolist()


def shown(modality: str, row: dict[str, str]) -> bool:
    """Whether a row must have a modality: words by its table, the rest by its kind of file."""
    suffix = Path(row["file"]).suffix
    if modality == "text":
        return bool(row["text"])
    return bool(suffix) and (suffix != ".wav" if modality == "face" else suffix not in IMAGE_SUFFIXES)


def check_figures(measured: list[dict[str, Any]], count: int | None, known: Trainable) -> None:
    """Figures of every row, which are told apart by what the model may see."""
    (weights,) = (one for one in measured if "weights" in one)
    assert (weights["rows"], weights["no_evidence"]) == (count, 0)
    assert set(weights["weights"]) <= set(MODALITIES)
    subsets = {one["modalities"]: one for one in measured if "modalities" in one}
    if not known.classes:
        (scored,) = (one["scoring"] for one in measured if "scoring" in one)
        assert known.corpus in scored["why"]
    whole = subsets.get("all rows", subsets["+".join(weights["weights"])])
    assert int(whole["rows"]) == count
    assert math.isfinite(float(whole["uar" if known.classes else "mae"]))


def figures(*words: str | Path) -> list[dict[str, Any]]:
    """What a command tells programs."""
    return [json.loads(line) for line in emopipe(*words, "--json").stdout.splitlines()]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
