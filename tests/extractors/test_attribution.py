"""Whose words: utterances of one person each, which cover all detected speech."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emopipe.extractors.contracts import Span, Turn, Word
from emopipe.extractors.speech.attribution import speaker_utterances, turn_utterances

PAUSE, LONGEST = 0.6, 15.0
CLOSE = 1e-6


def said(text: str, start: float, each: float = 0.4) -> list[Word]:
    words = text.split()
    return [Word(f" {w}", start + i * each, start + (i + 1) * each, 0.9) for i, w in enumerate(words)]


def test_utterances_end_where_the_speaker_changes() -> None:
    turns = [Turn(0.0, 2.0, 0), Turn(2.0, 4.0, 1), Turn(4.5, 5.3, 0)]
    words = said("so what did you do", 0.0) + said("I went home again yes", 2.0) + said("I see", 4.5)
    utterances = speaker_utterances(words, turns, pause=PAUSE, longest=LONGEST)
    assert [(span.text, span.person) for span in utterances] == [
        ("so what did you do", 0),
        ("I went home again yes", 1),
        ("I see", 0),
    ]


def test_speech_without_words_is_cut_by_turns() -> None:
    turns = [Turn(0.0, 4.0, 0), Turn(4.2, 8.0, 0), Turn(8.1, 10.0, 1), Turn(12.0, 14.0, 1)]
    utterances = turn_utterances(turns, pause=PAUSE, longest=5.0)
    assert [(s.start, s.end, s.person) for s in utterances] == [(0, 4, 0), (4, 8, 0), (8.1, 10, 1), (12, 14, 1)]


def test_the_second_person_has_utterances_though_no_word_of_theirs_was_recognised() -> None:
    turns = [Turn(0.0, 2.0, 0), Turn(2.5, 6.0, 1), Turn(6.2, 9.0, 1), Turn(10.0, 12.0, 0)]
    words = said("so what did you do", 0.0) + said("that is good to hear", 10.0)
    utterances = speaker_utterances(words, turns, pause=PAUSE, longest=LONGEST)
    assert [(span.start, span.end, span.text, span.person) for span in utterances] == [
        (0.0, 2.0, "so what did you do", 0),
        (2.5, 9.0, "", 1),
        (10.0, 12.0, "that is good to hear", 0),
    ]


def test_a_short_gap_between_words_belongs_to_the_utterance_before_and_a_long_one_is_one_without_words() -> None:
    words = said("I came.", 0.0) + said("We left.", 1.1) + said("It rained.", 6.0)
    utterances = speaker_utterances(words, [Turn(0.0, 6.8, 0)], pause=PAUSE, longest=LONGEST)
    assert [(span.start, span.end, span.text) for span in utterances] == [
        (0.0, pytest.approx(1.1), "I came."),
        (pytest.approx(1.1), pytest.approx(1.9), "We left."),
        (pytest.approx(1.9), 6.0, ""),
        (6.0, 6.8, "It rained."),
    ]


def test_chinese_words_of_no_length_are_joined_without_a_blank() -> None:
    words = [Word("我。", 0.0, 1.0, 0.9), Word("好。", 1.0, 1.0, 0.9), Word("你", 1.0, 2.0, 0.9)]
    utterances = speaker_utterances(words, [Turn(0.0, 2.0, 0)], pause=PAUSE, longest=LONGEST)
    assert [span.text for span in utterances] == ["我。好。", "你"]


def test_a_word_of_a_known_person_is_theirs_though_somebody_else_speaks_then_too() -> None:
    turns = [Turn(0.0, 6.0, 0), Turn(2.0, 3.0, 1)]
    words = [*said("I was saying that", 0.0), Word(" mhm", 2.1, 2.9, 0.9, 1), Word(" yes", 2.2, 2.6, 0.9, 0)]
    words = [Word(w.text, w.start, w.end, w.probability, w.person or 0) for w in words]
    utterances = speaker_utterances(words, turns, pause=PAUSE, longest=LONGEST)
    assert {(span.text, span.person) for span in utterances if span.person == 1} == {("mhm", 1)}


def conversation(steps: Sequence[tuple[float, float, int]]) -> list[Turn]:
    """Turns from gaps before them, lengths and people."""
    turns, now = [], 0.0
    for gap, length, person in steps:
        turns.append(Turn(now + gap, now + gap + length, person))
        now += gap + length
    return turns


def words_of(turns: Sequence[Turn], seed: int, silent: float) -> list[Word]:
    """Random words within turns, in order, some without any length; some turns have none."""
    chance = np.random.default_rng(seed)
    words: list[Word] = []
    for turn in turns:
        count = 0 if chance.random() < silent else int(chance.integers(0, 8))
        edges = np.sort(chance.uniform(turn.start, turn.end, 2 * count))
        edges[1::2] = np.where(chance.random(count) < 0.2, edges[::2], edges[1::2])
        texts = chance.choice([" ja", " so.", " hm?", "好"], count) if count else []
        words += [Word(str(t), float(a), float(b), 0.9) for t, a, b in zip(texts, edges[::2], edges[1::2], strict=True)]
    return words


steps = st.lists(
    st.tuples(st.sampled_from([0.0, 0.05, 0.3, 2.0]), st.floats(0.05, 40.0), st.integers(0, 2)), min_size=1
)


@settings(max_examples=300)
@given(steps, st.integers(0, 1000), st.sampled_from([0.0, 0.4, 1.0]))
def test_every_stretch_of_speech_belongs_to_one_utterance_of_its_speaker(
    talk: list[tuple[float, float, int]], seed: int, silent: float
) -> None:
    turns = conversation(talk)
    words = words_of(turns, seed, silent)
    utterances = speaker_utterances(words, turns, pause=PAUSE, longest=LONGEST)
    check_cover(utterances, turns)
    overlapping = [(a, b) for a, b in pairwise(utterances) if a.end > b.start + CLOSE]
    assert not overlapping, "no two overlap, as no two turns do"
    assert [word for span in utterances for word in span.words] == words
    assert all(bool(span.text) == bool(span.words) for span in utterances)


@settings(max_examples=300)
@given(steps, st.integers(0, 1000))
def test_utterances_of_people_who_talk_over_each_other_overlap_where_their_turns_do(
    talk: list[tuple[float, float, int]], seed: int
) -> None:
    turns = sorted(
        (turn for person in range(3) for turn in conversation([s for s in talk if s[2] == person])),
        key=lambda turn: turn.start,
    )
    words = [
        Word(word.text, word.start, word.end, word.probability, person)
        for person in range(3)
        for word in words_of([turn for turn in turns if turn.person == person], seed + person, 0.3)
    ]
    utterances = speaker_utterances(sorted(words, key=lambda word: word.start), turns, pause=PAUSE, longest=LONGEST)
    check_cover(utterances, turns)
    for person in range(3):
        own = [span for span in utterances if span.person == person]
        assert all(a.end <= b.start + CLOSE for a, b in pairwise(own))
        assert sum(len(span.words) for span in own) == sum(word.person == person for word in words)


def check_cover(utterances: Sequence[Span], turns: Sequence[Turn]) -> None:
    """Utterances are in order, have a length, and those of a turn's speaker cover it."""
    assert all(span.end > span.start for span in utterances)
    assert all(a.start <= b.start for a, b in pairwise(utterances))
    for turn in turns:
        reached = turn.start
        for span in utterances:
            if span.person == turn.person and span.start <= reached + CLOSE:
                reached = max(reached, span.end)
        assert reached >= turn.end - CLOSE, f"{turn} is covered up to {reached}"
