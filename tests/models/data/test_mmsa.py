"""MMSA's files open as datasets, and a pickle gets nothing run."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emopipe.errors import DatasetError
from emopipe.models.data import known_corpora, unpickle
from emopipe.models.data.reading import read
from tests.models.mmsa_files import COUNTS, DIMS, content, write


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_file_opens_as_a_dataset(tmp_path: Path, protocol: int) -> None:
    tables = content()
    data = read(write(tmp_path / "aligned.pkl", tables, protocol))
    assert data.modalities == ("text", "face", "voice")
    assert data.dims == {"text": 16, "face": 7, "voice": 5}
    assert {split: int((data.split == split).sum()) for split in COUNTS} == COUNTS
    assert data.labels("sentiment")[:24] == pytest.approx(tables["train"]["regression_labels"])
    assert set(data.labels("label")) == {"positive", "negative"}
    assert data.column("words")[1] == "words 1"
    assert data.ids[24] == "valid0$_$0" and data.groups[24] == "media:valid0"
    vision = tables["valid"]["vision"][0]
    assert np.array_equal(data.sample(24).features["face"], vision[vision.any(axis=1)])


@pytest.mark.parametrize("side", ["start", "end"])
@pytest.mark.parametrize("aligned", [True, False])
def test_the_side_of_the_padding_is_found(tmp_path: Path, side: str, aligned: bool) -> None:
    tables = content({"audio": 30, "vision": 20}, side, aligned)
    data = read(write(tmp_path / "file.pkl", tables))
    assert data.extraction["voice"] == {"source": "mmsa", "steps": 30, "padding": side}
    assert data.extraction["face"] == {"source": "mmsa", "steps": 20, "padding": side}
    audio = tables["train"]["audio"][3]
    assert np.array_equal(data.sample(3).features["voice"], audio[audio.any(axis=1)])


def test_steps_that_are_zero_but_not_padding_stay(tmp_path: Path) -> None:
    tables = content(aligned=False)
    audio, length = tables["train"]["audio"], tables["train"]["audio_lengths"]
    audio[0, 2] = 0
    audio[1, length[1] - 1] = 0
    audio[2] = 0
    length[2] = 0
    data = read(write(tmp_path / "file.pkl", tables))
    sizes = [len(data.sample(row).features["voice"]) for row in range(3)]  # type: ignore[arg-type]
    assert sizes == [length[0], length[1], 1]
    assert data.present.all()


def test_what_is_not_finite_becomes_zero(tmp_path: Path) -> None:
    tables = content()
    tables["train"]["audio"][0, 0, 1] = -np.inf
    tables["train"]["vision"][0, 0, 1] = np.nan
    sample = read(write(tmp_path / "file.pkl", tables)).sample(0)
    assert sample.features["voice"][0, 1] == 0 and sample.features["face"][0, 1] == 0  # type: ignore[index]


def test_token_ids_travel_with_batches(tmp_path: Path) -> None:
    tables = content()
    data = read(write(tmp_path / "file.pkl", tables))
    batch = data.subset(np.arange(24, 32)).batch(np.array([0, 1]))
    ids = tables["valid"]["text_bert"][:2, 0].astype(int)
    assert batch.tokens is not None
    assert batch.tokens.tolist() == ids[:, : int(batch.lengths[:, 0].max())].tolist()
    assert data.select(["face"]).batch(np.array([0])).tokens is None
    for table in tables.values():
        del table["text_bert"]
    assert read(write(tmp_path / "file.pkl", tables)).batch(np.array([0])).tokens is None


def test_chinese_files_have_a_label_for_each_modality(tmp_path: Path) -> None:
    tables = content()
    for table in tables.values():
        for letter in "TAV":
            table[f"regression_labels_{letter}"] = table["regression_labels"][:, None] / 3
    data = read(write(tmp_path / "file.pkl", tables))
    assert data.labels("sentiment_voice") == pytest.approx(data.labels("sentiment") / 3)


def test_modalities_may_be_missing(tmp_path: Path) -> None:
    tables = {split: {k: v for k, v in table.items() if k != "vision"} for split, table in content().items()}
    assert read(write(tmp_path / "file.pkl", tables)).modalities == ("text", "voice")


def drop(split: str, key: str) -> Callable[[Any], None]:
    return lambda tables: tables[split].pop(key)


def put(split: str, key: str, value: Any) -> Callable[[Any], None]:
    return lambda tables: tables[split].update({key: value})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (drop("valid", "regression_labels"), "valid has no regression_labels"),
        (drop("test", "id"), "test has no id"),
        (drop("test", "audio"), "test has no audio, other splits have"),
        (put("valid", "audio", np.zeros((8, 5))), r"audio of valid has shape \(8, 5\), expected \(utterances, 12, 5\)"),
        (put("valid", "audio", np.zeros((8, 12, 6))), r"audio of valid has shape \(8, 12, 6\), expected"),
        (put("valid", "audio", np.zeros((9, 12, 5))), r"shape \(9, 12, 5\) for 8 utterances"),
        (put("train", "text_bert", np.zeros((24, 2, 12))), r"text_bert of train has shape \(24, 2, 12\)"),
        (put("train", "regression_labels", np.array(["a"] * 24)), "regression_labels of train is not made of numbers"),
        (put("train", "regression_labels", [[1.0]] * 24), "regression_labels of train is neither an array"),
        (put("train", "vision", "none"), "vision of train is neither an array"),
        (put("train", "vision", np.array(3.0)), "vision of train has shape"),
        (put("train", "id", np.arange(24)), "id is not one text per utterance"),
        (put("test", "id", [f"train0$_${number}" for number in range(6)]), "two utterances are called"),
        (lambda tables: [tables.pop(split) for split in COUNTS], "no split train, valid or test"),
        (lambda tables: [table.pop(key) for table in tables.values() for key in DIMS], "no text, audio or vision"),
    ],
)
def test_another_layout_is_told(tmp_path: Path, damage: Callable[[Any], None], words: str) -> None:
    tables = content()
    damage(tables)
    with pytest.raises(DatasetError, match=words):
        read(write(tmp_path / "file.pkl", tables))


def test_text_and_its_tokens_must_have_the_same_steps(tmp_path: Path) -> None:
    tables = content()
    for table in tables.values():
        table["text_bert"] = table["text_bert"][:, :, :9]
    with pytest.raises(DatasetError, match="text_bert has 9 steps, text has 12"):
        read(write(tmp_path / "file.pkl", tables))


class Runs:
    """Runs something when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("function", [os.mkdir, eval, exec, getattr, np.load, np.fromfile, pickle.loads])
def test_a_pickle_that_asks_to_run_code_is_refused(tmp_path: Path, function: Any, protocol: int) -> None:
    target = tmp_path / "ran"
    argument = f"__import__('os').mkdir({str(target)!r})" if function in (eval, exec) else str(target)
    with pytest.raises(DatasetError, match="refused: only arrays, tensors and builtins are read"):
        read(write(tmp_path / "file.pkl", {"train": Runs(function, argument)}, protocol))
    assert not target.exists()


@pytest.mark.parametrize(
    "attack",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"(S'1'\nios\nsystem\n.",
        b"\x80\x04\x8c\x0enumpy.core\x8c\x03abc\x93.",
        b"\x80\x04\x8c\x05numpy\x8c\x0ddtype.mro.call\x93.",
        b"cnumpy\ndtype.__init__.__globals__\n.",
        b"Pabc\n.",
        b"\x82\x01.",
    ],
)
def test_handwritten_attacks_are_refused(tmp_path: Path, attack: bytes) -> None:
    path = tmp_path / "file.pkl"
    path.write_bytes(attack)
    with pytest.raises(DatasetError):
        read(path)


def test_a_pickle_cannot_change_what_reads_it(tmp_path: Path) -> None:
    """Opcodes that build an object from a state, aimed at the stand-ins: `(None, {"numpy": 1})` sets attributes."""
    for name in ("cnumpy\nndarray\n", "cnumpy\ndtype\n", "cnumpy.core.multiarray\n_reconstruct\n"):
        path = tmp_path / "file.pkl"
        path.write_bytes(name.encode() + b"(N(S'numpy'\nI1\ndtb.")
        with pytest.raises(DatasetError):
            read(path)
    assert callable(unpickle.Array.numpy)
    assert not hasattr(unpickle._reconstruct, "numpy")


@pytest.mark.parametrize(
    "state",
    [
        (1, (2, 2), np.dtype("f4"), False, b"too short"),
        (1, (1,), np.dtype("O"), False, 5),
        (1, (1,), "f4", False, b"1234"),
        (1, (1,), np.dtype("M8[s]"), False, bytes(8)),
        (1, (1,), np.dtype("V4"), False, bytes(4)),
        (),
    ],
)
def test_arrays_that_are_none_are_told(tmp_path: Path, state: Any) -> None:
    class Forged:
        def __reduce__(self) -> Any:
            return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), state

    tables = content()
    tables["train"]["audio"] = Forged()
    with pytest.raises(DatasetError):
        read(write(tmp_path / "file.pkl", tables))


@pytest.mark.parametrize("cut", [0, 1, 100, 5000])
def test_a_part_of_a_file_is_told(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "file.pkl", content())
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DatasetError, match="cannot be read as a pickle"):
        read(path)


def test_arrays_of_all_kinds_come_back_as_they_were(tmp_path: Path) -> None:
    arrays = [
        np.arange(6, dtype=np.float64).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        np.arange(3, dtype=">f4"),
        np.arange(12).reshape(3, 4)[:, ::2],
        np.array(["a", "äß"]),
        np.array([b"a", b"bc"]),
        np.array([True, False]),
        np.array(["a", None, 3], dtype=object),
        np.zeros((0, 3), dtype=np.float32),
    ]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        found = unpickle.load(write(tmp_path / "file.pkl", [*arrays, np.float32(1.5), {"a": (1, None)}], protocol))
        for array, one in zip(arrays, found, strict=False):
            assert np.array_equal(one.numpy(), array)
        assert found[-2:] == [1.5, {"a": (1, None)}]


@pytest.mark.parametrize("name", ["dev", "Val", "validation"])
def test_splits_go_by_their_usual_names(tmp_path: Path, name: str) -> None:
    tables = content()
    tables[name] = tables.pop("valid")
    data = read(write(tmp_path / "file.pkl", tables))
    assert {split: int((data.split == split).sum()) for split in COUNTS} == COUNTS


@pytest.mark.parametrize(("name", "part"), [("holdout", "unknown split 'holdout'"), ("dev", "two splits mean valid")])
def test_unknown_and_doubled_splits_are_refused(tmp_path: Path, name: str, part: str) -> None:
    tables = content()
    tables[name] = tables["valid"]
    with pytest.raises(DatasetError, match=part):
        read(write(tmp_path / "file.pkl", tables))


@pytest.mark.parametrize("name", [name for name in known_corpora.COUNTS if name not in ("mosei", "mintrec")])
def test_a_file_with_as_many_rows_as_a_corpus_is_known_as_it(tmp_path: Path, name: str) -> None:
    tables: dict[str, dict[str, Any]] = {}
    for split, count in known_corpora.COUNTS[name].items():
        steps = np.ones((count, 1, 1), np.float32)
        ids = [f"{split}{number}$_$1" for number in range(count)]
        tables[split] = {"id": ids, "text": steps, "regression_labels": np.zeros(count, np.float32)}
    data = read(write(tmp_path / "file.pkl", tables))
    assert data.corpora == (name,) and None not in data.column("corpus")
    for key in ("id", "text", "regression_labels"):
        tables["test"][key] = tables["test"][key][:-1]
    assert read(write(tmp_path / "less.pkl", tables)).corpora == ()


@pytest.mark.parametrize("text", [str, bytes])
def test_the_files_that_mult_was_published_with(tmp_path: Path, text: type) -> None:
    """GloVe, Facet and COVAREP, values as (N, 1, 1), and ids of three parts, as text or as bytes."""
    rng, tables = np.random.default_rng(0), {}
    for split, count in (("train", 6), ("valid", 3), ("test", 4)):
        ids = np.array([[f"v{split}{n // 2}", f"{n}.5", f"{n + 1}.25"] for n in range(count)])
        tables[split] = {
            "text": rng.normal(size=(count, 50, 300)),
            "vision": rng.normal(size=(count, 50, 35)),
            "audio": np.where(rng.random((count, 50, 74)) < 0.01, -np.inf, 1.0),
            "labels": np.linspace(-3, 3, count).reshape(count, 1, 1),
            "id": ids if text is str else ids.astype("S"),
        }
    dataset = read(write(tmp_path / "mosi_data.pkl", tables))
    assert dataset.ids[1] == "vtrain0$_$1.5-2.25" and dataset.column("media")[1] == "vtrain0"
    assert dataset.split.tolist() == ["train"] * 6 + ["valid"] * 3 + ["test"] * 4
    assert dataset.labels("sentiment")[:6] == pytest.approx(np.linspace(-3, 3, 6))
    assert {name: len(columns) for name, columns in dataset.schema.items()} == {"text": 300, "face": 35, "voice": 74}
