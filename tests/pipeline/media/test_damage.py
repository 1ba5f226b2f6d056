"""Damaged files: what is left stays where it belongs, and the damage is told with its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emopipe.constants import SAMPLE_RATE
from emopipe.pipeline.media.decoding import Media
from tests.conftest import SHARED, blank, tone, write_media
from tests.pipeline.media.coded_media import FPS, SECONDS, decode, packets_of, sound_offset, with_holes, write_coded

ODD = SHARED / "odd"
#: Holes are made at random with each of these.
SEEDS = range(50)


def odd(name: str) -> Path:
    if not (ODD / name).is_file():
        pytest.skip(f"no file {name} beside the checkout")
    return ODD / name


@pytest.mark.slow
@pytest.mark.parametrize(("video", "audio"), [("libx264", "aac"), ("mpeg2video", "mp2"), ("libx265", "ac3")])
def test_video_and_audio_stay_in_step_around_random_holes(tmp_path: Path, video: str, audio: str) -> None:
    clean = tmp_path / "clean.ts"
    write_coded(clean, video, audio)
    whole, packets, data = decode(clean), packets_of(clean), clean.read_bytes()
    first = whole.frames[0][0]
    assert len(whole.frames) == SECONDS * FPS and not whole.faults
    told = 0
    for seed in SEEDS:
        damaged, zones = with_holes(data, packets, seed)
        (tmp_path / "damaged.ts").write_bytes(damaged)
        result = decode(tmp_path / "damaged.ts")

        def is_whole(time: float, zones: list[tuple[float, float]] = zones) -> bool:
            return not any(low <= time <= high for low, high in zones)

        for time, number in result.frames:
            if is_whole(time) and is_whole(number / FPS):
                assert time - first == pytest.approx(number / FPS, abs=0.1), seed
        shown = {number for _, number in result.frames}
        missing = [number for number in range(SECONDS * FPS) if is_whole(number / FPS) and number not in shown]
        assert len(missing) <= 5, seed
        for at in range(0, len(result.sound), SAMPLE_RATE):
            if is_whole(at / SAMPLE_RATE) and is_whole(at / SAMPLE_RATE + 0.25):
                offset = sound_offset(whole.sound, result.sound, at)
                assert offset is None or abs(offset) <= 0.1, seed
        told += bool(result.faults)
    assert told >= 0.9 * len(SEEDS)  # bytes that are changed and not lost may decode to something else unnoticed


def test_a_stray_time_stamp_moves_nothing_and_is_told_with_its_place() -> None:
    with Media(odd("19_ts_hole.ts")) as media:
        times = [frame.time for frame in media.frames(5)]
    (fault,) = media.video_faults
    assert fault.code == "data_damaged" and fault.where is not None
    assert fault.where.start == pytest.approx(13.1, abs=0.1) and fault.where.end == pytest.approx(17.2, abs=0.1)
    assert times[-1] == pytest.approx(32.6, abs=0.05)


def test_what_a_container_promises_and_does_not_hold_is_told() -> None:
    with Media(odd("19b_avi_hole_noindex.avi")) as media:
        (fault,) = media.examine().faults
    assert fault.code == "data_missing" and "3.3 s of 32.7 s of video" in fault.what


def test_a_video_without_time_stamps_is_played_at_its_rate_and_that_is_told() -> None:
    with Media(odd("17_raspi.h264")) as media:
        assert media.examine().duration == pytest.approx(32.64)
        times = [frame.time for frame in media.frames(5)]
    assert [fault.code for fault in media.video_faults] == ["no_timestamps"] and "25 frames" in media.video_faults[
        0
    ].what
    assert times[0] == 0 and times[-1] == pytest.approx(32.6)


def test_damage_in_the_middle_keeps_what_could_be_decoded(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (100, 64, 64, 3), np.uint8)
    whole = write_media(tmp_path / "whole.mkv", list(noise), tone(4.0)).read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole[: len(whole) * 6 // 10])
    with Media(cut) as media:
        taken = list(media.frames(5))
        (fault,) = media.examine().faults
    assert 5 <= len(taken) < 20
    assert fault.code in ("file_truncated", "data_missing")


def test_a_whole_file_has_no_faults(tmp_path: Path) -> None:
    for suffix in (".mp4", ".mkv", ".avi", ".ts"):
        with Media(write_media(tmp_path / f"whole{suffix}", blank(4.0), tone(4.0))) as media:
            assert not media.examine().faults
            assert 20 <= len(list(media.frames(5))) <= 21 and media.audio is not None
            assert not media.video_faults and not media.audio_faults
