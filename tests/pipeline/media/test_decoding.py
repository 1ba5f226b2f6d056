"""Decoding: times, rotation, gaps, damage."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from fractions import Fraction
from itertools import count, pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emopipe.constants import SAMPLE_RATE
from emopipe.errors import EmopipeError
from emopipe.pipeline.media.decoding import Media, ahead
from tests.conftest import blank, tone, turn_by_metadata, write_media
from tests.pipeline.media.coded_media import FPS, numbered_image


def code_of(path: Path) -> str:
    with pytest.raises(EmopipeError) as caught:
        Media(path)
    assert caught.value.path == str(path)
    return caught.value.code


def test_frames_are_sampled_at_the_asked_rate_and_sound_comes_from_the_same_pass(tmp_path: Path) -> None:
    clip = write_media(tmp_path / "a.mp4", blank(2.0), tone(2.0))
    with Media(clip) as media:
        times = [frame.time for frame in media.frames(5)]
        sound = media.audio
    assert times == pytest.approx([i / 5 for i in range(10)], abs=0.041)
    assert sound is not None and sound[:10].dtype == np.float32
    assert len(sound) / SAMPLE_RATE == pytest.approx(2.0, abs=0.1)
    assert np.abs(sound[3200:-3200]).max() == pytest.approx(0.3, abs=0.05)
    peak = np.abs(np.fft.rfft(sound[:SAMPLE_RATE])).argmax()
    assert peak == pytest.approx(220, abs=2)


def test_sound_that_another_decodes_is_left_alone(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mp4", blank(2.0), tone(2.0))
    with Media(path) as both, Media(path, keeps_sound=False) as pictures, Media(path) as sound:
        frames = list(both.frames(5.0))
        assert [frame.time for frame in pictures.frames(5.0)] == [frame.time for frame in frames]
        assert pictures._tracks is None
        assert both.audio is not None and sound.audio is not None and pictures.audio is not None
        assert np.array_equal(np.asarray(both.audio), np.asarray(sound.audio))
        assert np.array_equal(np.asarray(both.audio), np.asarray(pictures.audio))


def test_sound_alone_needs_no_pictures(tmp_path: Path) -> None:
    clip = write_media(tmp_path / "a.mp4", blank(1.0), tone(1.0))
    with Media(clip) as media:
        assert media.audio is not None and len(media.audio) / SAMPLE_RATE == pytest.approx(1.0, abs=0.1)


def test_variable_frame_rate_keeps_time(tmp_path: Path) -> None:
    """Frames thin out in the middle, as a phone does in the dark; grey level tells which frame was taken."""
    times = [*np.arange(0, 1, 0.04), 1.5, 2.0, *np.arange(2.5, 3.5, 0.04)]
    frames = [np.full((64, 64, 3), round(40 + 50 * t), np.uint8) for t in times]
    clip = write_media(tmp_path / "vfr.mp4", frames, times=times)
    with Media(clip) as media:
        taken = list(media.frames(2))
    assert [f.time for f in taken] == pytest.approx([0, 0.52, 1.5, 2.0, 2.5, 3.02], abs=0.03)
    for frame in taken:
        assert frame.rgb.mean() == pytest.approx(40 + 50 * frame.time, abs=6)


def test_rotation_of_phone_videos_is_applied(tmp_path: Path) -> None:
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[:, :32] = 250
    clip = turn_by_metadata(write_media(tmp_path / "phone.mp4", [picture] * 10))
    with Media(clip) as media:
        upright = next(iter(media.frames(5))).rgb
    assert upright.shape == (128, 64, 3)
    assert upright[:20].mean() > 200 and upright[60:].mean() < 40


def test_late_sound_is_put_in_its_place(tmp_path: Path) -> None:
    clip = write_media(tmp_path / "late.mkv", blank(2.0), tone(1.0), sound_start=0.5)
    with Media(clip) as media:
        sound = media.audio
    assert sound is not None
    assert np.abs(sound[: int(0.4 * SAMPLE_RATE)]).max() < 0.01
    assert np.abs(sound[int(0.6 * SAMPLE_RATE) : int(1.4 * SAMPLE_RATE)]).max() > 0.2


def test_large_frames_are_scaled_down(tmp_path: Path) -> None:
    clip = write_media(tmp_path / "big.mp4", blank(0.2, size=(2160, 3840)))
    with Media(clip) as media:
        assert next(iter(media.frames(5))).rgb.shape == (1080, 1920, 3)
        assert (media.info.width, media.info.height) == (3840, 2160)


@given(st.lists(st.integers()), st.integers(1, 5))
def test_fetching_ahead_changes_nothing(items: list[int], depth: int) -> None:
    assert list(ahead(items, depth)) == items


def test_fetching_ahead_hands_on_errors_and_may_be_left_early() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(ahead(failing()))
    numbers = count()
    assert next(item for item in ahead(numbers) if item == 3) == 3
    assert next(numbers) < 20


@settings(max_examples=25, deadline=None)
@given(rate=st.floats(0.5, 30), fps=st.integers(5, 30))
def test_sampling_never_exceeds_the_rate_and_times_ascend(
    tmp_path_factory: pytest.TempPathFactory, rate: float, fps: int
) -> None:
    path = tmp_path_factory.mktemp("clip") / "a.mp4"
    write_media(path, [np.zeros((32, 32, 3), np.uint8)] * fps, fps=fps)
    with Media(path) as media:
        times = [frame.time for frame in media.frames(rate)]
    assert times[0] == 0
    assert all(b > a for a, b in pairwise(times))
    assert len(times) <= rate + 1


def test_unusable_files_have_codes(tmp_path: Path) -> None:
    assert code_of(tmp_path / "missing.mp4") == "EMO-101"
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert code_of(empty) == "EMO-103"
    text = tmp_path / "text.mp4"
    text.write_text("Dear diary,\n" * 200)
    assert code_of(text) == "EMO-104"
    whole = write_media(tmp_path / "whole.mp4", blank(2.0), tone(2.0)).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) // 2])
    assert code_of(cut) == "EMO-104"


def test_a_file_that_may_not_be_read_has_a_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_media(tmp_path / "a.mp4", blank(0.2))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("av.open", refuse)
    assert code_of(clip) == "EMO-102"


def test_frames_without_a_size_that_is_decoded_are_told_and_take_no_memory(tmp_path: Path) -> None:
    """A frame of 144 MB lies in 300 kB."""
    with av.open(str(tmp_path / "huge.avi"), "w") as container:
        stream = container.add_stream("png", rate=5)
        stream.width, stream.height, stream.pix_fmt = 8000, 6000, "rgb24"
        frame = av.VideoFrame(8000, 6000, "rgb24")
        frame.planes[0].update(bytes(frame.planes[0].buffer_size))
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Media(tmp_path / "huge.avi") as media:
        assert list(media.frames(5)) == []
        assert [fault.code for fault in media.video_faults][:1] == ["frame_size"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10


@pytest.mark.parametrize("threads", [0, 1])
@pytest.mark.parametrize("rate", [2, 5, 12.5])
def test_sampling_leaves_frames_undecoded_and_takes_the_same_ones(tmp_path: Path, rate: float, threads: int) -> None:
    clip = tmp_path / "b_frames.mp4"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"bf": "3", "b-pyramid": "normal"})
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for number in range(4 * FPS):
            frame = av.VideoFrame.from_ndarray(numbered_image(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with Media(clip, threads) as media:
        every = {round(frame.time * FPS): frame.rgb for frame in media.frames(FPS)}
        taken = {round(frame.time * FPS): frame.rgb for frame in media.frames(rate)}
        assert media.video_faults == []
        timeline = media._rewind()
        decoded = sum(1 for _ in media._decode([media._selection.video], timeline, rate))
    assert len(every) == 4 * FPS and decoded < (0.7 if rate <= 5 else 1.0) * len(every)
    slots = [int(number * rate / FPS + 1e-6) for number in every]
    assert list(taken) == [number for number in every if slots.index(slots[number]) == number]
    assert all(np.array_equal(rgb, every[number]) for number, rgb in taken.items())
