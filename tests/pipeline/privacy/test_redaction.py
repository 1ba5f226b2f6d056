"""Names and numbers are left out of words; what is neither stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emopipe.errors import ConfigError
from emopipe.pipeline.privacy.redaction import chosen_kinds, find_names, find_numbers, introduced_names
from emopipe.pipeline.privacy.replacing import replaced


@pytest.mark.parametrize(
    ("language", "text", "shown"),
    [
        ("en", "Call 555-1234, please.", "Call [number], please."),
        ("en", "It is plus four four seven nine one two.", "It is plus [number]."),
        ("en", "+49 30 123 456!", "[number]!"),
        ("en", "On the fifth of May nineteen ninety I left.", "On the [number] I left."),
        ("en", "March 5th, 2020.", "[number]."),
        ("en", "May I? In March we go.", "May I? In March we go."),
        (
            "en",
            "That one is the first. One moment, wait a second.",
            "That one is the first. One moment, wait a second.",
        ),
        ("en", "twenty-one cats at 3pm", "[number] cats at [number]"),
        ("de", "Das ist ein Haus am fünften Mai neunzehnhundertneunzig.", "Das ist ein Haus am [number]."),
        ("de", "einundzwanzig Katzen", "[number] Katzen"),
        ("fr", "J'ai vingt et un ans, né le quatre mars.", "J'ai [number] ans, né le [number]."),
        (None, "abc 12 twelve", "abc [number] twelve"),
        ("xx", "abc 12 twelve", "abc [number] twelve"),
    ],
)
def test_numbers_are_left_out(language: str | None, text: str, shown: str) -> None:
    assert replaced(text, find_numbers(language)(text)) == shown


@given(st.text(max_size=60))
def test_no_digit_is_left(text: str) -> None:
    shown = replaced(text, find_numbers("en")(text))
    assert not any(character.isdecimal() for character in shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Hello, my name is Anna van Dyke. Anna it is.", "Hello, my name is [name]. [name] it is."),
        ("This is Mr. Brown's house; Brown knows.", "This is Mr. [name]'s house; [name] knows."),
        ("Ich heiße Jürgen, Frau Schmidt.", "Ich heiße [name], Frau [name]."),
        ("Call me tomorrow, mr president.", "Call me tomorrow, mr president."),
    ],
)
def test_names_that_people_introduce_are_left_out(text: str, shown: str) -> None:
    assert replaced(text, find_names(introduced_names(text))(text)) == shown


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="names, numbers"):
        chosen_kinds("names,faces")
    assert chosen_kinds("numbers, names") == ("names", "numbers")
