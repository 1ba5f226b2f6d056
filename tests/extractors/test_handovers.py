"""The moment at which one speaker follows another without a pause: on made-up cosines, whose moment is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emopipe.extractors.contracts import Interval
from emopipe.extractors.speech.diarize import step_times
from emopipe.extractors.speech.handovers import with_handovers_placed


def cosines_of(moments: Sequence[float], spread: float = 0.1) -> Callable[[Sequence[Interval]], np.ndarray]:
    """Cosines of pieces with two voices that take turns at the moments; noisy, and in between where both are heard."""
    rng, known = np.random.default_rng(0), dict[Interval, np.ndarray]()

    def noise(piece: Interval) -> np.ndarray:
        return known.setdefault(piece, rng.normal(0, spread, 2))

    def cosines(pieces: Sequence[Interval]) -> np.ndarray:
        edges = [-np.inf, *moments, np.inf]
        second = np.array(
            [sum(max(0.0, min(b, high) - max(a, low)) for low, high in zip(edges[1::2], edges[2::2], strict=False))
             / (b - a) for a, b in pieces]
        )  # fmt: skip
        return 0.2 + 0.4 * np.stack([1 - second, second], 1) + np.stack([noise(piece) for piece in pieces])

    return cosines


def labels_of(times: np.ndarray, moments: Sequence[float]) -> np.ndarray:
    return np.searchsorted(moments, times) % 2


@pytest.mark.parametrize("found", [4.4, 5.0, 5.6, 6.2])
def test_a_handover_that_was_found_early_or_late_is_put_right(found: float) -> None:
    speech = [(1.0, 9.0)]
    times = step_times(speech)
    placed = with_handovers_placed(labels_of(times, [found]), times, speech, cosines_of([5.3]))
    assert placed.tolist() == labels_of(times, [times[placed.argmax()] - 0.05]).tolist()
    assert times[placed.argmax()] == pytest.approx(5.35, abs=0.15)


PAUSED = [(0.0, 4.0), (4.5, 8.0), (8.2, 12.0)]


def test_changes_at_pauses_stay_where_the_voice_changes_there() -> None:
    times = step_times(PAUSED)
    labels = labels_of(times, [4.2, 8.1])
    assert with_handovers_placed(labels, times, PAUSED, cosines_of([4.2, 8.1])).tolist() == labels.tolist()


@pytest.mark.parametrize("real", [3.3, 5.1])
def test_a_change_that_was_found_at_a_pause_moves_to_where_the_voice_changes(real: float) -> None:
    times = step_times(PAUSED)
    placed = with_handovers_placed(labels_of(times, [4.2]), times, PAUSED, cosines_of([real]))
    assert times[placed.argmax()] == pytest.approx(real + 0.05, abs=0.15)


@pytest.mark.parametrize("found", [3.6, 4.9])
def test_a_change_that_was_found_beside_a_pause_moves_to_it(found: float) -> None:
    times = step_times(PAUSED)
    placed = with_handovers_placed(labels_of(times, [found]), times, PAUSED, cosines_of([4.2]))
    assert placed.tolist() == labels_of(times, [4.2]).tolist()


@pytest.mark.parametrize("speech", [[(2.0, 2.8)], [(2.0, 2.15), (2.3, 2.45), (2.6, 2.75)]])
def test_what_is_too_short_for_pieces_stays(speech: list[Interval]) -> None:
    times = step_times(speech)
    labels = labels_of(times, [2.3])
    assert with_handovers_placed(labels, times, speech, cosines_of([2.6])).tolist() == labels.tolist()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.1, 11.9), max_size=8), st.lists(st.floats(0.1, 11.9), max_size=8))
def test_nobody_loses_a_turn(found: list[float], real: list[float]) -> None:
    speech = [(0.0, 7.0), (7.4, 12.0)]
    times = step_times(speech)
    labels = labels_of(times, sorted(found))
    placed = with_handovers_placed(labels, times, speech, cosines_of(sorted(real)))
    assert placed[np.flatnonzero(np.diff(placed, prepend=-1))].tolist() == (
        labels[np.flatnonzero(np.diff(labels, prepend=-1))].tolist()
    )
