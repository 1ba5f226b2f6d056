"""Datasets are read as written, and damage is reported in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from emopipe.errors import DatasetError
from emopipe.models.data.dataset import Dataset, Sample, collate
from emopipe.models.data.reading import read
from emopipe.models.data.splits import folds, manifest_split
from tests.models.conftest import DIMS, learnable, write_dataset


def steps(length: int, modality: str, first: float = 0.0) -> np.ndarray:
    return (first + np.arange(length * DIMS[modality]).reshape(length, -1)).astype(np.float32)


@pytest.fixture
def small(tmp_path: Path) -> Dataset:
    rows = [
        {"id": "a", "speaker": "x", "split": "train", "label": "joy", "face": "f1", "text": "t1", "weight": 2.0},
        {"id": "b", "speaker": "", "split": "train", "label": None, "face": "f1", "media": "b.mp4", "weight": None},
        {"id": "c", "speaker": None, "split": "test", "label": "joy", "face": "f2", "text": None, "weight": None},
        {"id": "d", "speaker": None, "split": None, "label": "joy", "face": None, "text": None, "weight": None},
    ]
    faces = {"f1": steps(3, "face"), "f2": steps(1, "face", 100)}
    return read(write_dataset(tmp_path / "small", rows, {"face": faces, "text": {"t1": steps(2, "text")}}))


def test_what_is_there_is_exposed(small: Dataset) -> None:
    assert small.modalities == ("text", "face")
    assert small.dims == {"text": 12, "face": 6}
    assert small.schema["face"][:2] == ("face_0", "face_1")
    assert small.extraction["face"]["backend"] == "mediapipe"
    assert small.present.tolist() == [[True, True], [False, True], [False, True], [False, False]]
    assert small.weights.tolist() == [2, 1, 1, 1]
    assert small.speakers.tolist() == ["x", None, None, None]
    assert small.groups.tolist() == ["speaker:x", "media:b.mp4", "id:c", "id:d"]
    assert (
        small.grouped_by == "speakers and recordings and clips"
        and small.subset(np.array([1])).grouped_by == "recordings"
    )
    assert small.labels("label").tolist() == ["joy", None, "joy", "joy"]


def test_a_conversation_without_speakers_stays_on_one_side(small: Dataset) -> None:
    dialogues = pa.array(["train/0", "train/0", "", None])
    groups = small.with_manifest(small.manifest.append_column("dialogue", dialogues)).groups
    assert groups.tolist() == ["speaker:x", "dialogue:train/0", "id:c", "id:d"]


def test_several_rows_may_share_one_sequence(small: Dataset) -> None:
    one, two = small.sample(0).features["face"], small.sample(1).features["face"]
    assert one is not None and two is not None
    assert np.array_equal(one, two)
    assert len(small.subset(np.array([0, 1])).steps("face")) == 3


def test_batches_are_padded_to_their_longest(small: Dataset) -> None:
    batch = small.batch(np.array([2, 0, 3]))
    assert batch.features["face"].shape == (3, 3, 6)
    assert batch.lengths.tolist() == [[0, 1], [2, 3], [0, 0]]
    assert batch.present.tolist() == [[False, True], [True, True], [False, False]]
    assert batch.features["face"][0, 0].tolist() == steps(1, "face", 100)[0].tolist()
    assert batch.features["face"][0, 1:].abs().sum() == 0
    assert batch.quality[1, 1].item() == pytest.approx(0.9)
    assert small.batch(np.array([2])).features["face"].shape == (1, 1, 6)


def test_a_modality_that_the_dataset_lacks_is_absent_from_a_batch(small: Dataset) -> None:
    batch = small.batch(np.array([0, 1]), ("voice", "face"))
    assert batch.present.tolist() == [[False, True], [False, True]]


def test_subset_and_select_keep_rows_and_features_together(small: Dataset) -> None:
    chosen = small.subset(small.split == "test").select(["face"])
    assert chosen.ids.tolist() == ["c"]
    assert chosen.modalities == ("face",)
    features = chosen.sample(0).features["face"]
    assert features is not None and features[0, 0] == 100


def test_collated_samples_equal_the_dataset_batch(partial: Dataset) -> None:
    rows = np.arange(7)
    one, two = collate([partial.sample(int(row)) for row in rows], partial.schema), partial.batch(rows)
    assert torch.equal(one.present, two.present) and torch.equal(one.lengths, two.lengths)
    assert all(torch.equal(one.features[name], two.features[name]) for name in partial.modalities)
    assert torch.allclose(one.quality, two.quality)


def test_a_sample_of_another_width_is_refused(small: Dataset) -> None:
    with pytest.raises(ValueError, match=r"face features have shape \(2, 5\), expected \(steps, 6\)"):
        collate([Sample({"face": np.zeros((2, 5), np.float32)})], small.schema)


def test_features_are_read_when_first_used(tmp_path: Path) -> None:
    data = read(learnable(tmp_path / "lazy", count=8))
    (tmp_path / "lazy" / "voice.parquet").unlink()
    assert data.select(["text"]).sample(0).has("text")
    with pytest.raises(DatasetError, match="cannot be read"):
        data.steps("voice")


def test_asking_for_what_is_not_there_names_what_is(small: Dataset) -> None:
    with pytest.raises(DatasetError, match=r"no voice features.*It has: text, face"):
        small.select(["voice"])
    with pytest.raises(DatasetError, match=r"no column .valence.*label"):
        small.labels("valence")


def damage_manifest(folder: Path) -> None:
    (folder / "manifest.parquet").write_bytes(b"PAR1 not really")


def damage_features(folder: Path) -> None:
    (folder / "voice.parquet").write_bytes((folder / "voice.parquet").read_bytes()[:200])


def remove_features(folder: Path) -> None:
    (folder / "voice.parquet").unlink()


def damage_config(folder: Path) -> None:
    (folder / "config.toml").write_text("[face\n")


def change_manifest(folder: Path, **columns: object) -> None:
    table = pq.read_table(folder / "manifest.parquet")
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    pq.write_table(table, folder / "manifest.parquet")


def repeat_ids(folder: Path) -> None:
    change_manifest(folder, id=["same"] * 8)


def dangling_key(folder: Path) -> None:
    change_manifest(folder, voice=["nowhere"] * 8)


def drop_metadata(folder: Path) -> None:
    pq.write_table(pq.read_table(folder / "voice.parquet").replace_schema_metadata({}), folder / "voice.parquet")


def scatter(folder: Path) -> None:
    table = pq.read_table(folder / "voice.parquet")
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), folder / "voice.parquet")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_manifest, "cannot be read"),
        (damage_features, "voice features cannot be read"),
        (remove_features, "voice.parquet is missing"),
        (damage_config, "cannot be read"),
        (repeat_ids, "same id"),
        (dangling_key, "name voice features that are not there.*nowhere"),
        (drop_metadata, "voice features cannot be read"),
        (scatter, "rows of a key of the voice features are scattered"),
    ],
)
def test_damage_is_reported_with_a_hint(tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    folder = learnable(tmp_path / "data", count=8)
    damage(folder)
    with pytest.raises(DatasetError, match=words) as caught:
        read(folder)
    assert "emopipe extract" in caught.value.hint


def test_an_empty_folder_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no dataset here"):
        read(tmp_path)


def test_splits_of_a_manifest_go_by_their_usual_names(tmp_path: Path) -> None:
    folder = learnable(tmp_path / "data", count=8)
    change_manifest(folder, split=["Train", "dev", "val", "TESTING", "train", "valid", "test", ""])
    names = ["train", "valid", "valid", "test", "train", "valid", "test", None]
    assert read(folder).split.tolist() == names
    change_manifest(folder, split=["holdout"] * 8)
    with pytest.raises(DatasetError, match="unknown split 'holdout'"):
        read(folder)


@pytest.mark.parametrize("cells", [[[1]] * 8, [{"a": 1}] * 8, [b"\xff"] * 8])
def test_columns_of_other_types_are_refused(tmp_path: Path, cells: list[object]) -> None:
    folder = learnable(tmp_path / "data", count=8)
    change_manifest(folder, media=cells)
    with pytest.raises(DatasetError, match="column 'media'"):
        read(folder)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=40), st.integers(2, 5), st.integers(0, 3))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_fold_is_empty(shared: Dataset, people: list[int], count: int, seed: int) -> None:
    assume(len(set(people)) > 1)
    data = shared.subset(np.arange(len(people)))
    names = pa.array([f"p{person}" for person in people])
    data = data.with_manifest(data.manifest.set_column(data.manifest.column_names.index("speaker"), "speaker", names))
    labels = np.array([(-0.8, 0.2, 0.5, -0.1, 0.9, 1.4)[person] for person in people])
    pairs = folds(data, labels, count, seed)
    assert all(len(train) and len(test) for train, test in pairs)
    assert sorted(np.concatenate([test for _, test in pairs]).tolist()) == list(range(len(people)))


def test_rows_without_a_split_are_trained_on(shared: Dataset) -> None:
    splits = ["train", None, "valid", "test"] * (len(shared) // 4)
    at = shared.manifest.column_names.index("split")
    data = shared.with_manifest(shared.manifest.set_column(at, "split", [pa.array(splits)]))
    found = manifest_split(data, allow_overlap=True)
    assert found is not None
    assert [set(rows % 4) for rows in found] == [{0, 1}, {2}]
