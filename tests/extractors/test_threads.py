"""Work in a second thread: in order, whole, and gone when it is left."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emopipe.extractors.face.mediapipe import FaceLandmarker
from emopipe.extractors.threads import MOST_WAITING, InOrder, one_thread, side_by_side
from emopipe.pipeline.media.decoding import Media
from tests.conftest import SAMPLES


@given(items=st.lists(st.integers()), beside=st.booleans())
def test_calls_are_made_in_order_and_none_is_lost(items: list[int], beside: bool) -> None:
    done: list[int] = []
    with InOrder(beside=beside) as afterwards:
        for item in items:
            afterwards.call(done.append, item)
    assert done == items


@pytest.mark.parametrize("beside", [False, True])
def test_the_error_of_a_call_is_raised(beside: bool) -> None:
    with pytest.raises(ZeroDivisionError), InOrder(beside=beside) as afterwards:
        afterwards.call(divmod, 1, 0)


def test_calls_that_have_not_begun_are_dropped_when_the_context_is_left_by_an_error() -> None:
    may_end, done = threading.Event(), list[int]()

    def slow() -> None:
        may_end.wait(10)
        done.append(0)

    with pytest.raises(ValueError, match="broken"), InOrder(beside=True) as afterwards:
        afterwards.call(slow)
        afterwards.call(done.append, 1)
        threading.Timer(0.05, may_end.set).start()
        raise ValueError("broken")
    assert done == [0]


@pytest.mark.usefixtures("two_threads")
def test_calls_side_by_side_overlap_have_one_thread_each_and_no_gradients() -> None:
    both = threading.Barrier(2, timeout=30)

    def call(item: int) -> tuple[int, int, bool]:
        both.wait()
        return item, torch.get_num_threads(), torch.is_grad_enabled()

    assert list(side_by_side(call, range(4))) == [(item, 1, False) for item in range(4)]
    assert torch.get_num_threads() == 2 and torch.is_grad_enabled()


@pytest.mark.usefixtures("two_threads")
def test_a_single_call_has_all_threads() -> None:
    assert list(side_by_side(lambda item: (item, torch.get_num_threads()), ["one"])) == [("one", 2)]


def test_where_torch_has_one_thread_calls_are_made_here() -> None:
    with one_thread():
        assert list(side_by_side(lambda item: threading.current_thread(), [1, 2])) == [threading.current_thread()] * 2


@pytest.mark.usefixtures("two_threads")
def test_the_error_of_a_call_beside_others_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        list(side_by_side(lambda item: 1 // item, [1, 0, 2, 3]))
    assert torch.get_num_threads() == 2


def test_few_calls_wait() -> None:
    may_end = threading.Event()
    made = 0
    with InOrder(beside=True) as afterwards:
        threading.Timer(0.2, may_end.set).start()
        while not may_end.is_set():
            afterwards.call(may_end.wait, 10)
            made += 1
    assert made <= MOST_WAITING + 2


def test_torch_has_one_thread_for_a_while() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with one_thread() as threads:
            assert (threads, torch.get_num_threads()) == (3, 1)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_faces_are_the_same_with_and_without_a_second_thread(weight: Callable[[str], Path]) -> None:
    landmarker, tables, before = FaceLandmarker(weight("face-landmarker")), [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with Media(SAMPLES / "happy.mp4") as media:
                tables.append(landmarker.track(media.frames(5)))
    finally:
        torch.set_num_threads(before)
        landmarker.close()
    assert tables[0].num_rows > 5
    assert tables[0].equals(tables[1], check_metadata=True)


def threads_of_numpy() -> int:
    from threadpoolctl import threadpool_info

    return next(
        int(one["num_threads"])
        for one in threadpool_info()
        if one["internal_api"] == "openblas" and "numpy" in one["filepath"]
    )


def test_products_of_numpy_have_one_thread_where_torch_has() -> None:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(2, user_api="blas"):
        before = threads_of_numpy()
        with one_thread():
            assert threads_of_numpy() == 1
        assert threads_of_numpy() == before


def test_threads_that_leave_in_the_order_in_which_they_came_leave_products_as_they_were() -> None:
    from threadpoolctl import threadpool_limits

    first_is_in, second_is_in = threading.Event(), threading.Event()

    def first() -> None:
        with one_thread():
            first_is_in.set()
            assert second_is_in.wait(60)

    with threadpool_limits(2, user_api="blas"):
        before = threads_of_numpy()
        thread = threading.Thread(target=first)
        thread.start()
        assert first_is_in.wait(60)
        with one_thread():
            second_is_in.set()
            thread.join()
        assert threads_of_numpy() == before
