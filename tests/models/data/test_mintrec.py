"""MIntRec's features open as a dataset with the splits of its tables, and a pickle gets nothing run."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emopipe.errors import DatasetError
from emopipe.models.data import unpickle
from emopipe.models.data.reading import read
from emopipe.models.evaluation.evaluate import evaluate
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.loop import train
from tests.models.conftest import write_dataset
from tests.models.data.test_mmsa import Runs
from tests.models.mintrec_files import COUNTS, DIMS, INTENTS, pickled, utterances, write

FACES = "video_data/video_feats.pkl"
VOICES = "audio_data/audio_feats.pkl"


def test_a_folder_opens_as_a_dataset_with_its_own_splits(tmp_path: Path) -> None:
    rows = utterances()
    data = read(write(tmp_path, rows))
    assert data.dims == DIMS and data.modalities == ("text", "face", "voice")
    assert {split: int((data.split == split).sum()) for split in COUNTS} == COUNTS
    assert data.ids[24] == "S04_E02_0" and data.column("words")[1] == "words 1"
    assert list(data.labels("label")[:4]) == list(INTENTS) and data.corpora == ("mintrec",)
    assert data.present.all() and data.extraction["face"] == {"source": "mintrec"}
    for at in (0, 25, 39):
        for name in DIMS:
            assert np.array_equal(data.sample(at).features[name], rows[at][name])


def test_training_and_measuring_take_the_folder(tmp_path: Path) -> None:
    data = read(write(tmp_path))
    found = evaluate(train(data, TrainConfig(model="linear")).predictor, data, "test")
    assert found.rows == COUNTS["test"] and found.metrics["accuracy"] > 0.8


def test_utterances_without_features_lack_the_modality(tmp_path: Path) -> None:
    rows = utterances()
    folder = write(tmp_path, rows)
    pickled(folder / FACES, {row["id"]: [step for step in row["face"]] for row in rows[1:]} | {"S09_E01_1": []})
    data = read(folder)
    assert list(data.present[0]) == [True, False, True] and data.present[1:].all()
    assert data.column("face")[0] is None


def test_text_is_read_from_a_dataset_that_extraction_made(tmp_path: Path) -> None:
    folder = write(tmp_path, text=False)
    assert read(folder).modalities == ("face", "voice")
    table = [{"id": "S04_E02_0", "split": "valid", "text": "k0"}, {"id": "other", "split": None, "text": "k1"}]
    words = np.ones((3, 12), np.float32)
    write_dataset(folder / "text_data", table, {"text": {"k0": words, "k1": 2 * words}})
    data = read(folder)
    assert data.dims["text"] == 12 and data.present[:, 0].sum() == 1
    assert np.array_equal(data.sample(24).features["text"], words)
    assert data.extraction["text"] == {"backend": "minilm", "layer": 6}


def test_other_features_are_read_where_there_is_one_file_of_them(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / FACES).rename(folder / "video_data" / "swin_feats.pkl")
    assert read(folder).dims["face"] == 256
    pickled(folder / "video_data" / "second.pkl", {})
    with pytest.raises(DatasetError, match=r"video_data holds second\.pkl, swin_feats\.pkl.*video_feats\.pkl"):
        read(folder)


def change(name: str, value: Any) -> Callable[[Path], Any]:
    return lambda folder: pickled(folder / name, value)


ROWS = utterances()
SHORT = {row["id"]: row["voice"] for row in ROWS} | {"S04_E01_3": np.ones((2, 5), np.float32)}


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (change(VOICES, SHORT), "S04_E01_3 have 5 numbers a step, others 768"),
        (change(VOICES, {"S04_E01_0": np.ones(768)}), r"S04_E01_0 have the shape \(768,\)"),
        (change(VOICES, {"S04_E01_0": np.ones((0, 768))}), r"the shape \(0, 768\)"),
        (change(VOICES, {"S04_E01_0": "words"}), "S04_E01_0 are not numbers"),
        (change(VOICES, {"S04_E01_0": [np.ones(3), np.ones(4)]}), "S04_E01_0 are not numbers"),
        (change(VOICES, {"train": {}, "dev": {}}), r"none of the 40 utterances, but of 'train', 'dev'"),
        (lambda folder: (folder / VOICES).write_bytes(pickle.dumps([1])), "does not hold features by utterance"),
        (lambda folder: (folder / VOICES).write_bytes(b"\x80"), "cannot be read as a pickle"),
        (lambda folder: (folder / "dev.tsv").write_text("season\tepisode\tclip\ttext\n"), "has no column label"),
        (lambda folder: (folder / "dev.tsv").write_bytes(b"\xff\xfe\x00"), "the table cannot be read"),
        (
            lambda folder: (folder / "dev.tsv").write_text((folder / "test.tsv").read_text()),
            "two utterances are called 'S05_E01_0'",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_told(tmp_path: Path, damage: Callable[[Path], Any], what: str) -> None:
    folder = write(tmp_path)
    damage(folder)
    with pytest.raises(DatasetError, match=what):
        read(folder)


# Tensors in pickles


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int64, torch.int32])
def test_tensors_are_read_whatever_their_layout(tmp_path: Path, dtype: torch.dtype, protocol: int) -> None:
    whole = (10 * torch.randn(5, 7, generator=torch.Generator().manual_seed(0))).to(dtype)
    tensors = {"whole": whole, "turned": whole.T, "part": whole[1:3, ::2], "one": whole[2, 3], "none": whole[:0]}
    path = tmp_path / "tensors.pkl"
    path.write_bytes(pickle.dumps(tensors, protocol))
    for name, value in unpickle.load(path).items():
        assert np.array_equal(value.numpy(), tensors[name].numpy()) and value.numpy().dtype == whole.numpy().dtype


@pytest.mark.parametrize("function", [os.mkdir, torch.load, torch.save, torch.nn.Linear])
def test_a_pickle_of_features_that_asks_to_run_code_is_refused(tmp_path: Path, function: Any) -> None:
    target = tmp_path / "ran"
    folder = write(tmp_path / "data")
    pickled(folder / VOICES, {"S04_E01_0": Runs(function, str(target))})
    with pytest.raises(DatasetError, match="refused: only arrays, tensors and builtins are read"):
        read(folder)
    assert not target.exists()


def inside(content: bytes) -> Runs:
    """A tensor whose numbers are what somebody wrote by hand."""
    storage = Runs(torch.storage._load_from_bytes, content)  # type: ignore[no-untyped-call]
    return Runs(torch._utils._rebuild_tensor_v2, storage, 0, (2, 2), (2, 1), False, {})


def forged(*arguments: Any) -> Any:
    """A tensor with another offset, shape or strides."""
    numbers = torch.zeros(4).__reduce_ex__(2)[1][0]
    return Runs(torch._utils._rebuild_tensor_v2, numbers, *arguments, False, {})


@pytest.mark.parametrize(
    "tensor",
    [
        inside(b""),
        inside(pickle.dumps(Runs(os.mkdir, "ran"))),
        inside(pickle.dumps(1)),
        forged(3, (2, 2), (2, 1)),
        forged(-1, (2, 2), (2, 1)),
        forged(3, (2, 2), (-1, -2)),
        forged(0, (10**12, 10), (0, 0)),
        forged(0, (2, 2), (2,)),
        forged("x", (2, 2), (2, 1)),
    ],
)
def test_tensors_that_are_none_are_told_and_run_nothing(
    tmp_path: Path, tensor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write(tmp_path / "data")
    pickled(folder / VOICES, {"S04_E01_0": tensor})
    with pytest.raises(DatasetError, match="S04_E01_0 are not numbers"):
        read(folder)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_cannot_change_how_tensors_are_read(tmp_path: Path) -> None:
    for name in ("ctorch.storage\n_load_from_bytes\n", "ctorch._utils\n_rebuild_tensor_v2\n"):
        path = tmp_path / "file.pkl"
        path.write_bytes(name.encode() + b"(N(S'numbers'\nI1\ndtb.")
        unpickle.load(path)
    assert callable(unpickle.Storage.numbers) and not hasattr(unpickle._tensor, "numbers")
