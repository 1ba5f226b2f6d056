"""Words and the lines before them, by conversation."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from emopipe.models.data.conversation import Transcript


def transcript(**columns: list[Any]) -> Transcript:
    count = len(next(iter(columns.values())))
    return Transcript(pa.table({"id": [f"u{row}" for row in range(count)], **columns}))


def test_lines_before_are_those_of_the_same_dialogue_in_its_order() -> None:
    found = transcript(dialogue=["a", "b", "a", "a"], utterance=[2.0, 0.0, 0.0, 1.0], words=["C", "x", "A", " B "])
    assert found.earlier("u0") == ("A", "B")
    assert found.earlier("u1") == found.earlier("u2") == ()
    assert found.words("u3") == "B"


def test_a_media_file_is_a_conversation_ordered_by_start() -> None:
    found = transcript(media=["m", "m", None, None], start=[5.0, 1.0, 0.0, 0.0], words=["later", "first", "x", "y"])
    assert found.earlier("u0") == ("first",)
    assert found.earlier("u3") == ()


def test_lines_of_another_split_are_never_in_a_conversation() -> None:
    split = ["train", "test", "train", "test", None]
    for column in ("dialogue", "media"):
        found = transcript(**{column: ["m"] * 5}, split=split, words=list("abcde"))
        assert [found.earlier(f"u{row}") for row in range(5)] == [(), (), ("a",), ("b",), ()]
        assert found.conversations([f"u{row}" for row in range(5)]).tolist() == [0, 1, 0, 1, 2]


def test_the_manifest_order_is_the_last_resort() -> None:
    found = transcript(dialogue=[1.0, 1.0, 1.0], utterance=[0.0, None, 1.0], words=["a", "b", "c"])
    assert found.earlier("u2") == ("a", "b")


def test_lines_without_words_are_left_out() -> None:
    found = transcript(media=["m"] * 3, words=["a", None, "c"])
    assert found.earlier("u2") == ("a",)
    assert found.words("u1") == ""
    assert transcript(media=["m"]).words("u0") == ""


def test_speakers_are_told_apart_where_there_are_two() -> None:
    found = transcript(dialogue=["a"] * 4, speaker=["Ross", "Joey", None, "Ross"], words=["Hi", "Yo", "Hm", "So"])
    assert found.earlier("u3") == ("A: Hi", "B: Yo", "Hm") and found.line("u3") == "A: So"
    assert found.words("u3") == "So"
    alone = transcript(media=["m", "m"], speaker=["Ross", "Ross"], words=["Hi", "So"])
    assert alone.earlier("u1") == ("Hi",) and alone.line("u1") == "So"


def test_conversations_are_numbered() -> None:
    found = transcript(dialogue=["a", "b", "a", None], words=["w"] * 4)
    assert found.conversations(["u0", "u1", "u2", "u3"]).tolist() == [0, 1, 0, 2]
