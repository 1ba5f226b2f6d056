"""Answers become predictions or failures, and never something made up."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from emopipe.models.networks.egmf.decoding import label_answers, parse_number, say_number


@pytest.mark.parametrize(
    ("answer", "value"),
    [("1.5", 1.5), (" -0.4", -0.4), ("+2", 2.0), ("0.0", 0.0), ("9.9", 3.0), ("-17", -3.0), ("\n1.0 ", 1.0)],
)
def test_numbers_are_read_and_clamped(answer: str, value: float) -> None:
    assert parse_number(answer, -3, 3) == value


@pytest.mark.parametrize(
    "answer",
    [None, "", " ", "neutral", "1.5.2", "1,5", "-", "--1", "1 2", "1.5 stars", "about 1", "1.", ".5", "nan", "inf",
     "1e2", "−1.5", "１", "٣", "0x1"],
)  # fmt: skip
def test_everything_else_is_a_failure_and_no_zero(answer: str | None) -> None:
    assert math.isnan(parse_number(answer, -3, 3))


@given(st.text())
def test_any_text_gives_a_number_in_range_or_a_failure(answer: str) -> None:
    value = parse_number(answer, -1, 1)
    assert math.isnan(value) or -1 <= value <= 1


@given(st.floats(-3, 3), st.integers(0, 3))
def test_what_is_said_is_read_again(value: float, decimals: int) -> None:
    said = say_number(value, decimals)
    assert parse_number(said, -3, 3) == pytest.approx(value, abs=0.5 * 10**-decimals + 1e-9)
    assert not said.startswith("-0") or float(said) != 0


def characters(text: str) -> list[int]:
    return [ord(one) for one in text]


def test_one_token_scores_classes_that_it_tells_apart() -> None:
    labels = label_answers(("anger", "joy"), "", characters, 0)
    assert labels.first == (ord("a"), ord("j"))
    assert labels.answers[1] == (*characters("joy"), 0)


def test_whole_answers_are_scored_where_first_tokens_are_alike() -> None:
    assert label_answers(("sad", "surprised"), "", characters, 0).first is None
    assert label_answers(("anger", "joy"), " ", characters, 0).first is None
