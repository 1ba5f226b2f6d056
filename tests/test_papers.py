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
SMALL: dict[str, Any] = {"width": 8, "heads": 2, "layers": 1, "steps": 12, "kernel": 3, "bert": BERT}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's commands run, one block after the other."""
    folder = tmp_path_factory.mktemp("papers")
    for name in ("mosi", "mosei"):
        mmsa_files.write(folder / f"{name}.pkl", mmsa_files.content())
    mintrec_files.write(folder / "MIntRec", mintrec_files.utterances({"text": 12, "face": 6, "voice": 8}))
    with_scenes(learnable(folder / "meld", count=120, words=True))
    recipes = folder / "models" / "recipes"
    recipes.mkdir(parents=True)
    for path in (ROOT / "models" / "recipes").glob("*.toml"):
        tables = tomllib.loads(path.read_text("utf-8"))
        tables["model"] |= SMALL | ({"text_weights": "random"} if tables["model"].get("text_encoder", True) else {})
        tables["train"] |= {"epochs": 1}
        (recipes / path.name).write_text(tomli_w.dumps(tables))
    write_backbone(folder / "weights" / "smollm2-135m")
    return folder


def with_scenes(folder: Path) -> Path:
    """Name a media file for each utterance."""
    manifest = pq.read_table(folder / "manifest.parquet")
    at = manifest.column_names.index("media")
    names = pa.array([f"{one}.mp4" for one in manifest["id"].to_pylist()])
    pq.write_table(manifest.set_column(at, "media", names), folder / "manifest.parquet")
    return folder


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
    ):
        assert f"\n| {what}" in text, what
    for name in re.findall(r"models/recipes/[\w-]+\.toml", text):
        assert (ROOT / name).is_file(), name
    assert all(block.marker == "not executed" and "test_papers" in block.detail for block in BLOCKS)
