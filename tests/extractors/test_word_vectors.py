"""Word vectors from a table that a person gives: GloVe's and word2vec's text files, read as text only."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from emopipe.extractors.text.glove import WordVectors
from emopipe.pipeline.backends.registry import text_option

TABLE = "so 1 0 0\nbad 0 1 0\ndo 0.5 0 0.5\nn't 0 0 -1\n. . . 9 9 9\nOK 2 2 2\n! 1e-1 0 3\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "glove.txt"
    path.write_text(TABLE, "utf-8")
    return path


def test_words_are_looked_up_as_written_or_in_lower_case(table: Path) -> None:
    vectors = WordVectors(table)
    assert vectors.width == 3 and vectors.feature_names() == ["word_000", "word_001", "word_002"]
    (found,) = vectors.encode(["So BAD!"])
    assert found.dtype == np.float32 and np.allclose(found, [[1, 0, 0], [0, 1, 0], [0.1, 0, 3]])


def test_contractions_are_parted_and_unknown_words_left_out(table: Path) -> None:
    one, two, three = WordVectors(table).encode(["don’t", "so what", "what?"])
    assert np.allclose(one, [[0.5, 0, 0.5], [0, 0, -1]]) and np.allclose(two, [[1, 0, 0]])
    assert three.shape == (1, 3) and np.isnan(three).all()


def test_long_texts_are_cut(table: Path) -> None:
    assert WordVectors(table, max_tokens=2).encode(["so bad so bad"])[0].shape == (2, 3)


def test_a_header_of_word2vec_is_no_word(tmp_path: Path) -> None:
    (tmp_path / "w2v.txt").write_text("2 3\nso 1 0 0\nbad 0 1 0\n")
    vectors = WordVectors(tmp_path / "w2v.txt")
    assert vectors.width == 3 and np.allclose(vectors.encode(["bad"])[0], [[0, 1, 0]])


@pytest.mark.parametrize(
    "content",
    [b"", b"just words here\n", b"so 1 0 0\nbad 0\n", pickle.dumps({"so": [1.0, 2.0]}), b"\x00\x01\x02"],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="not a table of word vectors"):
        WordVectors(tmp_path / "file")


def test_numbers_that_are_none_are_refused_when_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("so 1 0 0\nbad 0 x 0\nworse nan 1 1\n")
    for word in ("bad", "worse"):
        with pytest.raises(ValueError, match="table of word vectors has a line"):
            WordVectors(tmp_path / "file").encode([word])


def test_the_command_line_names_it(table: Path) -> None:
    assert text_option(f"glove:{table}") == {"encoder": str(table), "backend": "glove"}
