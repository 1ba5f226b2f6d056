"""Pooling frames into windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emopipe.extractors.windows import window_deviations, window_edges, window_means


@given(start=st.floats(0, 1e4), span=st.floats(0, 60), length=st.floats(0.1, 10))
def test_edges_fill_the_span_with_equal_windows_near_the_asked_length(start: float, span: float, length: float) -> None:
    edges = window_edges(start, start + span, length)
    assert edges[0] == start and edges[-1] == pytest.approx(start + span)
    widths = np.diff(edges)
    assert np.allclose(widths, widths[0], atol=1e-6)
    if span >= length:
        assert 0.65 * length <= widths[0] <= 1.5 * length + 1e-6


def test_means_and_deviations_per_window_ignore_what_was_not_measured() -> None:
    times = np.array([0.0, 0.4, 1.0, 1.9, 2.0])
    values = np.array([[1.0, np.nan], [3.0, 5.0], [10.0, np.nan], [20.0, np.nan], [30.0, 1.0]])
    means, rows = window_means(times, values, np.array([0.0, 1.0, 2.0]))
    assert rows.tolist() == [2, 3]
    assert means[0].tolist() == [2.0, 5.0]
    assert means[1].tolist() == [20.0, 1.0]
    deviations = window_deviations(times, values, np.array([0.0, 1.0, 2.0]))
    assert deviations[0].tolist() == [1.0, 0.0]
    assert deviations[1, 0] == pytest.approx(np.std([10, 20, 30]))


def test_a_window_without_rows_is_nan() -> None:
    means, rows = window_means(np.array([0.1, 2.5]), np.array([[1.0], [2.0]]), np.array([0.0, 1.0, 2.0, 3.0]))
    assert rows.tolist() == [1, 0, 1]
    assert np.isnan(means[1, 0]) and means[2, 0] == 2.0


@given(st.lists(st.floats(0, 9.99), min_size=1, max_size=50), st.integers(1, 12))
def test_every_row_falls_into_exactly_one_window(times: list[float], count: int) -> None:
    ordered = np.sort(times)
    _, rows = window_means(ordered, np.ones((len(times), 1)), np.linspace(0, 10, count + 1))
    assert rows.sum() == len(times) and len(rows) == count
