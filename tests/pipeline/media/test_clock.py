"""The clock of streams: stray stamps, steps back, pauses, parts that are joined."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emopipe.pipeline.media.clock import Stamped, StreamClock, Timeline

PERIOD = 0.04


def times(stamps: list[float | None], timeline: Timeline | None = None, period: float = PERIOD) -> list[float]:
    clock: StreamClock[None] = StreamClock(timeline or Timeline(stamps[0] or 0.0))
    return [time for time, _ in clock.placed(Stamped(stamp, period, None) for stamp in stamps)]


def regular(start: float, count: int, period: float = PERIOD) -> list[float]:
    return [start + number * period for number in range(count)]


@given(st.integers(1, 98), st.floats(-1e5, 1e5))
def test_a_lone_stray_stamp_moves_no_other(place: int, stray: float) -> None:
    stamps: list[float | None] = [*regular(10.0, 100)]
    stamps[place] = stray
    got = times(stamps)
    others = [number for number in range(100) if number != place]
    assert [got[number] for number in others] == pytest.approx([number * PERIOD for number in others])


@given(st.lists(st.integers(2, 90), min_size=1, max_size=6, unique=True), st.data())
def test_some_stray_stamps_move_no_other(places: list[int], data: st.DataObject) -> None:
    apart = [place for place in sorted(places) if not {place - 1, place - 2, place - 3} & set(places)]
    stamps: list[float | None] = [*regular(10.0, 100)]
    for place in apart:
        stamps[place] = data.draw(st.floats(-1e4, 1e4))
    got = times(stamps)
    others = [number for number in range(100) if number not in apart]
    assert [got[number] for number in others] == pytest.approx([number * PERIOD for number in others])


def test_a_pause_is_kept() -> None:
    stamps = [*regular(0.0, 50), *regular(62.0, 50)]
    assert times([*stamps]) == pytest.approx(stamps)


def test_slides_that_change_rarely_keep_their_times() -> None:
    stamps = [0.0, 4.0, 9.0, 30.0, 31.0, 60.0, 75.0, 76.0, 90.0, 140.0]
    assert times([*stamps], period=0.1) == pytest.approx(stamps)


def test_parts_whose_stamps_start_anew_are_joined() -> None:
    assert times([*regular(5.0, 100), *regular(0.0, 100)]) == pytest.approx(regular(0.0, 200))


def test_a_step_of_hours_is_a_fault_of_the_clock() -> None:
    assert times([*regular(0.0, 100), *regular(95_000.0, 100)]) == pytest.approx(regular(0.0, 200))


def test_streams_of_joined_parts_stay_in_step() -> None:
    timeline = Timeline(0.0)
    video, audio = StreamClock[None](timeline), StreamClock[None](timeline)
    got: dict[str, list[float]] = {"video": [], "audio": []}
    for part in (0.0, 1000.0):
        for number in range(150):
            for name, clock, late in (("video", video, 0.0), ("audio", audio, 0.3)):
                stamp = 7.0 + late + number * PERIOD - (part and 3.0)
                got[name] += [time for time, _ in clock.push(Stamped(stamp, PERIOD, None))]
    got["video"] += [time for time, _ in video.flush()]
    got["audio"] += [time for time, _ in audio.flush()]
    second = slice(150, None)
    assert [a - v for a, v in zip(got["audio"][second], got["video"][second], strict=True)] == pytest.approx(
        [0.3] * 150
    )


def test_a_run_of_wrong_stamps_does_not_last() -> None:
    stamps = [*regular(0.0, 50), *regular(-6.0, 12), *regular(62 * PERIOD, 100)]
    assert times([*stamps])[62:] == pytest.approx(regular(62 * PERIOD, 100))


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=1, max_size=60))
def test_no_item_is_lost_and_times_are_finite(stamps: list[float | None]) -> None:
    got = times(stamps)
    assert len(got) == len(stamps) and all(abs(time) < 1e9 for time in got)


def test_items_without_stamps_follow_each_other() -> None:
    assert times([None] * 50) == pytest.approx(regular(0.0, 50))
