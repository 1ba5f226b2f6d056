"""Every command of docs/papers.md runs, on generated data of the layout that it names and with networks made small."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tomli_w

from tests.conftest import ROOT
from tests.models import mintrec_files, mmsa_files
from tests.models.conftest import learnable
from tests.models.tiny_backbone import write_backbone
from tests.test_docs import blocks, run_line

PAGE = "docs/papers.md"
BLOCKS = [block for block in blocks(PAGE) if block.language in ("sh", "python")]
BERT = {
    "vocab_size": mmsa_files.VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
}
#: What makes networks large, made small.
SMALL = {"width": 8, "heads": 2, "layers": 1, "memory_layers": 1, "kernel": 3, "steps": 12}
#: Utterances of an extracted corpus.
COUNT = 40


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's commands run, one block after the other."""
    folder = tmp_path_factory.mktemp("papers")
    for name in ("mosi", "mosei"):
        mmsa_files.write(folder / f"{name}.pkl", mmsa_files.content())
        mmsa_files.write(folder / f"{name}_unaligned.pkl", mmsa_files.content(aligned=False))
    mintrec_files.write(folder / "MIntRec", mintrec_files.utterances({"text": 12, "face": 6, "voice": 8}))
    for name in ("cherma", "mosei", "sims2"):
        extracted(folder / name)
    replaced(extracted(folder / "meld"), "speaker", [("Ross", "Monica")[n // 4 % 2] for n in range(COUNT)])
    recipes = folder / "models" / "recipes"
    recipes.mkdir(parents=True)
    for path in (ROOT / "models" / "recipes").glob("*.toml"):
        (recipes / path.name).write_text(tomli_w.dumps(small(tomllib.loads(path.read_text("utf-8")))))
    write_backbone(folder / "weights" / "smollm2-135m")
    return folder


def extracted(folder: Path) -> Path:
    """A corpus as `emopipe extract` leaves it: with words, and a media file of each utterance."""
    learnable(folder, count=COUNT, words=True)
    return replaced(folder, "media", [f"{n}.mp4" for n in range(COUNT)])


def replaced(folder: Path, column: str, cells: list[str]) -> Path:
    """The dataset with other cells in a column of its manifest."""
    manifest = pq.read_table(folder / "manifest.parquet")
    at = manifest.column_names.index(column)
    pq.write_table(manifest.set_column(at, column, pa.array(cells)), folder / "manifest.parquet")
    return folder


def small(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe for one epoch of small networks with random BERTs."""
    models = {name: tiny(options) for name, options in recipe.get("models", {}).items()}
    model = tiny({"text_encoder": True, "width": 256, "heads": 8, "layers": 4, **recipe["model"]})
    return {"model": model, "models": models, "train": recipe["train"] | {"epochs": 1}}


def tiny(options: dict[str, Any]) -> dict[str, Any]:
    """Options of a small network."""
    bert = {"bert": BERT, "text_weights": "random"} if options.get("text_encoder") else {}
    return {name: SMALL.get(name, value) for name, value in options.items()} | bert


@pytest.mark.slow
def test_the_commands_run_in_order(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("EMOPIPE_WEIGHTS", str(place / "weights"))
    for block in BLOCKS:
        if block.language == "python":
            exec(compile(block.text, block.place, "exec"), {"__name__": "example"})
        else:
            for line in block.text.splitlines():
                run_line(quick(line), block.place)
    for name in re.findall(r"--out (\w+)", "\n".join(block.text for block in BLOCKS)):
        assert any(Path(name).iterdir()), name
    for name in ("figure4/sweep-acc7.png", "figures56/compared.png", "figures56/importance.png"):
        assert Path(name).is_file(), name
    for name, columns in (("table1", "ACC7 | ACC2 | F1 | MAE"), ("table3", "ACC | F1 | P | R | WF1")):
        table = Path(name, "comparison.md").read_text("utf-8").partition("papers' columns")[2]
        assert f"| model | {columns} |" in table
        (line,) = (line for block in BLOCKS for line in block.text.splitlines() if line.endswith(f"--out {name}"))
        for model in line.partition("--models ")[2].split()[0].split(","):
            assert f"\n| {model} | " in table


def quick(line: str) -> str:
    """A command with one seed, and one epoch where the recipe does not say so."""
    line = re.sub(r"--seeds \d+", "--seeds 1", line)
    trains = line.split()[1] in ("train", "compare", "ablate") and "--config" not in line
    return f"{line} --epochs 1" if trains else line


def test_each_table_and_figure_has_a_row() -> None:
    text = (ROOT / PAGE).read_text("utf-8")
    for what in (
        "1, 2: MOSI",
        "3: MIntRec",
        "4: MoME",
        "5: router losses; 6: fusion",
        "figure 4",
        "figure 5",
        "figure 6",
        "main results: MELD, CHERMA, MOSEI, CH-SIMS v2",
        "other backbones",
        "ablations: A, V, T, A+V; each expert; gate stages; LoRA",
        "gate, experts, pseudo tokens",
        "modality dependency and LoRA by language",
    ):
        assert f"\n| {what}" in text, what
    for name in re.findall(r"models/recipes/[\w-]+\.toml", text):
        assert (ROOT / name).is_file(), name
    assert all(block.marker == "not executed" and "test_papers" in block.detail for block in BLOCKS)
