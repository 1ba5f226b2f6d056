"""Names become pseudonyms wherever they stand, and nothing else does."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emopipe.errors import InputNotFound, PseudonymsTableError
from emopipe.extractors.contracts import Word
from emopipe.pipeline.privacy.pseudonyms import Pseudonyms, read_pseudonyms
from emopipe.pipeline.privacy.replacing import replaced, replaced_words

NAMES = Pseudonyms(
    {"Anna": "P01", "Anna Müller": "P01", "Jürgen": "P02", "participant 7": "P03", "王小明": "P04", "O'Brien": "P05"}
)


def hidden(text: str, names: Pseudonyms = NAMES) -> str:
    return replaced(text, names.find(text))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Anna's here, ANNA too", "P01's here, P01 too"),
        ("Annas Buch", "P01s Buch"),
        ("Hannah and Annabel", "Hannah and Annabel"),
        ("Anna Müller", "P01"),
        ("anna mu\u0308ller", "P01"),
        ("Anna\u00a0Muller's", "P01's"),
        ("anna_muller-2.mp4", "P01-2.mp4"),
        ("AnnaMüller2.mp4", "P01-2.mp4"),
        ("interviewAnna", "interviewP01"),
        ("jurgen", "P02"),
        ("participant 77, participant_7", "participant 77, P03"),
        ("我叫王小明。", "我叫P04。"),
        ("O’Brien, OBrien", "P05, P05"),
        ("An\u00adna", "P01"),
        ("Groß", "Groß"),
    ],
)
def test_names_are_replaced_as_whole_words_whatever_their_case_and_accents(text: str, shown: str) -> None:
    assert hidden(text) == shown


def test_a_name_that_ends_within_a_letter_is_another_name() -> None:
    assert hidden("Groß", Pseudonyms({"Gros": "P1"})) == "Groß"
    assert hidden("GROSS", Pseudonyms({"Groß": "P1"})) == "P1"


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_name_between_blanks_is_always_found_and_what_is_around_it_stays(before: str, after: str) -> None:
    kept = Pseudonyms({"Anna": "P01"})
    text = f"{before} ANNA {after}"
    assert "P01" in hidden(text, kept)
    assert hidden(hidden(text, kept), kept) == hidden(text, kept)
    if "a" not in unicodedata.normalize("NFKD", before + after).casefold():
        assert hidden(text, kept) == f"{before} P01 {after}"


@given(st.lists(st.sampled_from([" Hi", " Anna", " Müller,", " Jürgen's", " ok."]), max_size=8))
def test_words_say_together_what_the_text_says_and_keep_their_times(texts: list[str]) -> None:
    words = [Word(text, float(at), at + 0.5, 0.9) for at, text in enumerate(texts)]
    shown = replaced_words(words, NAMES.find)
    assert "".join(word.text for word in shown) == hidden("".join(texts))
    times = {word.start: word for word in words}
    for word in shown:
        assert word.start in times
        assert word.text != times[word.start].text or word == times[word.start]


def table(folder: Path, text: str) -> Path:
    path = folder / "names.csv"
    path.write_text(text, "utf-8")
    return path


def test_a_table_may_give_several_names_one_pseudonym(tmp_path: Path) -> None:
    names = read_pseudonyms(table(tmp_path, "name;pseudonym;note\nAnna;P 1;x\nAnnie;P 1;\n"))
    assert hidden("Annie and Anna", names) == "P 1 and P 1"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("person,code\nAnna,P1\n", "the columns person, code"),
        ("name,pseudonym\n,P1\n", "line 2 of the pseudonyms table: name is empty"),
        ("name,pseudonym\nAnna,\n", "pseudonym is empty"),
        ("name,pseudonym\nA,P1\n", "fewer than two letters"),
        ("name,pseudonym\nAnna,P1\nÄNNA,P2\n", "another pseudonym in line 2"),
        ("name,pseudonym\nAnna,Max\nMax,P2\n", "the pseudonym holds a name of the table"),
        ("name,pseudonym\nAnna,../../etc\n", "cannot be part of a file name"),
        ("name,pseudonym\nAnna,=1+1\n", "cannot be part of a file name"),
        ("name,pseudonym\nAnna,<b>x</b>\n", "cannot be part of a file name"),
        ("name,pseudonym\nAnna,con\n", "cannot be part of a file name"),
        ("name,pseudonym\nAnna,a..b\n", "cannot be part of a file name"),
        ("name,pseudonym\n", "has no rows"),
    ],
)
def test_a_bad_table_is_refused_with_its_line(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(PseudonymsTableError, match="EMO-513") as caught:
        read_pseudonyms(table(tmp_path, text))
    assert what in str(caught.value)


def test_a_missing_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputNotFound):
        read_pseudonyms(tmp_path / "none.csv")


@given(st.text(min_size=2, max_size=12))
def test_any_name_that_a_table_may_hold_is_found_in_its_own_text(name: str) -> None:
    names = Pseudonyms({name: "P1"})
    if any(character.isalnum() and character.isascii() for character in name) and name.isprintable():
        assert names.find(f"( {name} )") or not names.find(name)
