"""The store of results: whole or not at all, for many processes, and nothing lost with its index."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from emopipe.errors import EmopipeError
from emopipe.extractors.windows import FeatureSequence
from emopipe.models.prediction import Prediction
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.records import Absent
from emopipe.pipeline.stages.table import PROBE
from emopipe.pipeline.store import serialization
from emopipe.pipeline.store.store import Store

FACTS = {"stage": "probe", "content": "c", "version": PROBE.version, "libraries": {}}


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store(tmp_path / "store") as opened:
        yield opened


def steps(count: int, width: int = 3) -> FeatureSequence:
    times = np.arange(count, dtype=float)
    return FeatureSequence(times, times + 1, np.full((count, width), count, np.float32))


def test_results_come_back_as_they_were(store: Store) -> None:
    table = pa.table({"time": [0.0, 1.5]}).replace_schema_metadata({"frames": "2"})
    prediction = Prediction("anger", {"anger": 1.0}, {"face": 1.0}, {}, 1.0, False)
    kept = {"faces": table, "speech": [(0.1, 0.2)], "said": [prediction], "none": None, "gone": Absent("no_face")}
    for key, value in kept.items():
        found = store.put(key, {key: value, "note": "é\n"}, FACTS)
        assert found[key] == value and found == store.get(key)
    assert found["note"] == "é\n" and store.get("faces")["faces"].schema.metadata == {b"frames": b"2"}  # type: ignore[index]


def test_sequences_are_written_as_they_come_and_read_a_group_at_a_time(store: Store) -> None:
    lengths = [1 + index % 3 for index in range(2 * serialization.GROUP + 5)]
    written = (steps(n) if n < 3 else Absent("too_short") for n in lengths)
    found = store.put("voice", {"voice": written}, FACTS)["voice"]
    assert len(found) == len(lengths)
    for index, length in enumerate(lengths):
        assert serialization.absence(found, index) == (None if length < 3 else "too_short")
        assert found[index] == Absent("too_short") if length == 3 else len(found[index].start) == length
    assert serialization.absence([Absent("no_face"), steps(1)], 0) == "no_face"


def test_a_stage_that_breaks_while_it_is_written_leaves_nothing(store: Store) -> None:
    def broken() -> Any:
        yield steps(2)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        store.put("voice", {"voice": broken()}, FACTS)
    assert not store.has("voice") and not any((store.folder / "temporary").iterdir())


def test_a_lost_or_damaged_index_costs_nothing_but_its_memory(store: Store) -> None:
    store.put("one", {"value": 1}, FACTS)
    for path in store.folder.glob("index.sqlite*"):
        path.unlink()
    with Store(store.folder) as again:
        assert again.get("one") == {"value": 1} and again.made("c", "probe") == [FACTS]
    for path in store.folder.glob("index.sqlite-*"):
        path.unlink()
    (store.folder / "index.sqlite").write_bytes(b"no database" * 1000)
    with Store(store.folder) as again:
        assert again.get("one") == {"value": 1} and again.usage()[0].stage == "probe"


def test_an_index_that_others_hold_does_not_stop_work(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emopipe.pipeline.store.store._PATIENCE", 0.01)
    with Store(store.folder) as second:
        holder = sqlite3.connect(store.folder / "index.sqlite", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        assert second.put("one", {"value": 1}, FACTS) == {"value": 1} and second.began("one", "probe", 1.0) == 0
        holder.close()


def test_a_file_is_hashed_once_until_it_changes(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"one")
    os.utime(path, (1, 1))
    first = store.content(path)
    assert store.known(path) == first and first.still(path)
    path.write_bytes(b"two")
    assert store.known(path) is None and store.content(path).hash != first.hash and not first.still(path)


def test_pruning_removes_what_is_outdated_unused_or_too_much(store: Store) -> None:
    for key, version in (("old", 0), ("new", 1), ("unused", 1)):
        store.put(key, {"value": key}, {**FACTS, "version": version})
    path = next((store.folder / "results").glob("*/unused.parquet"))
    os.utime(path, (time.time() - 30 * 86_400,) * 2)
    outdated = lambda facts: facts["version"] == 0  # noqa: E731
    assert store.prune(outdated)[0] == 1 and not store.has("old")
    assert store.prune(outdated, unused_for=86_400)[0] == 1 and not store.has("unused") and store.has("new")
    assert store.prune(outdated, down_to=0)[0] == 1 and store.usage() == []


def test_the_command_shows_and_prunes(store: Store) -> None:
    store.put("old", {"value": 1}, {**FACTS, "version": 0})
    store.put("new", {"value": 1}, FACTS)
    shown = CliRunner().invoke(app, ["store", "--store", str(store.folder)])
    assert shown.exit_code == 0 and "2 results" in shown.output
    pruned = CliRunner().invoke(app, ["store", "--store", str(store.folder), "--prune"])
    assert pruned.exit_code == 0 and "1 results were removed" in pruned.output and store.has("new")
    assert (
        CliRunner().invoke(app, ["store", "--store", str(store.folder), "--prune", "--down-to", "much"]).exit_code == 2
    )


def test_a_place_that_cannot_be_a_store_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmopipeError, match="EMO-602"):
        Store(tmp_path / "file")


@pytest.mark.parametrize("value", ["NULL", "'no JSON'", "'[]'", "'{}'", "x'ff00'", "7"])
def test_facts_in_the_index_that_cannot_be_read_are_passed_over(store: Store, value: str) -> None:
    store.put("one", {"value": 1}, FACTS)
    with sqlite3.connect(store.folder / "index.sqlite") as index:
        index.execute(f"UPDATE results SET facts = {value}, stage = CAST({value} AS BLOB)")
    assert store.made("c", "probe") == [] and store.prune(lambda facts: True) == (0, 0)
    assert store.get("one") == {"value": 1} and len(store.usage()) == 1


@pytest.mark.parametrize("value", ["NULL", "7", "''", "'g'"])
def test_a_hash_in_the_index_that_cannot_be_one_is_not_believed(store: Store, tmp_path: Path, value: str) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"one")
    os.utime(path, (1, 1))
    right = store.content(path)
    with sqlite3.connect(store.folder / "index.sqlite") as index:
        index.execute(f"UPDATE files SET content = {value}")
    assert store.known(path) is None and store.content(path) == right


def test_a_rate_that_cannot_be_one_is_not_believed(store: Store) -> None:
    for seconds in (9e999, -1.0, 2.0):
        store.ended(store.began("one", "probe", 1.0), seconds)
    assert store.rate("probe") == 2.0
