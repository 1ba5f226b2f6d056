"""The list of what there is to choose from, as people see it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from emopipe.pipeline import weights
from emopipe.pipeline.cli import console
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.cli.catalogue_tables import tables


@pytest.mark.parametrize("width", [80, 120])
def test_every_weight_is_listed_whole_with_licence_and_use(
    width: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(console, "FILE_WIDTH", width)
    monkeypatch.setenv("EMOPIPE_CACHE", str(tmp_path))
    monkeypatch.delenv("EMOPIPE_WEIGHTS", raising=False)
    lines = CliRunner().invoke(app, ["models", "list"]).output.splitlines()
    assert max(map(len, lines)) <= width
    words = " ".join(" ".join(lines).split())
    for entry in map(weights.entry, weights.names()):
        (row,) = [line for line in lines if line.split() and line.split()[0] == entry.name]
        assert entry.licence.split()[0].removeprefix("LicenseRef-").split("-")[0] in row.split("│")[4]
        assert entry.intended_use in words and entry.purpose in words
        assert all(alias in words for alias in entry.aliases)


def test_uses_stand_once_below_a_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMOPIPE_CACHE", str(tmp_path))
    found = {table.title: table for table in tables()}
    speech = found["Speech to text with word times, by openai-whisper"]
    assert speech.header[-1] == "use" and len(speech.notes) == 3
    numbers = {row[0]: row[-1] for row in speech.rows}
    assert speech.notes[int(numbers["whisper-tiny.en"]) - 1].endswith(weights.entry("whisper-tiny.en").intended_use)
    faces = found[weights.entry("pyfeat-l2cs").purpose]
    assert "use" not in faces.header and faces.notes[-1].startswith("No hash is known of pyfeat-face-multitask-v2")
    assert f"pyfeat-l2cs: {weights.entry('pyfeat-l2cs').intended_use}" in faces.notes
