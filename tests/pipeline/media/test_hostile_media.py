"""Media that nobody should have: what they claim is believed within bounds, and what cannot be decoded is told."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emopipe.errors import InputError, NoStreams, NotMedia
from emopipe.pipeline.media.audio_track import AudioTrack
from emopipe.pipeline.media.clock import LONGEST_ITEM, LONGEST_PAUSE, MOST_PAUSES, Stamped, StreamClock, Timeline
from emopipe.pipeline.media.decoding import Media
from emopipe.pipeline.media.streams import open_container
from tests.conftest import blank, tone, write_media

HOUR = 3600.0


def written(path: Path, samples: np.ndarray, rate: int) -> Path:
    """A WAV file that claims a sample rate."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 20_000).astype("<i2").tobytes())
    return path


def sound_frame(layout: str, start: float, seconds: float = 0.5, rate: int = 16_000) -> av.AudioFrame:
    frame = av.AudioFrame(format="fltp", layout=layout, samples=round(seconds * rate))
    frame.sample_rate = rate
    frame.time_base, frame.pts = Fraction(1, rate), round(start * rate)
    for plane in frame.planes if layout == "mono" else ():
        plane.update(np.full(frame.samples, 0.5, np.float32).tobytes())
    return frame


def test_channels_that_nothing_can_mix_are_silent_and_told() -> None:
    track = AudioTrack(Timeline(0.0))
    for start, layout in ((0.0, "mono"), (0.5, "57C"), (1.0, "mono")):
        list(track.add(sound_frame(layout, start)))
    list(track.close())
    (sound,) = track.sounds
    loud = np.abs(sound[:]) > 0.1
    assert len(sound) == pytest.approx(1.5 * 16_000, abs=50)
    assert loud[500:7500].all() and not loud[8500:15500].any() and loud[16500:23500].all()
    (fault,) = track.faults()
    assert fault.code == "data_damaged" and "57 channels that cannot be mixed" in fault.what


@pytest.mark.parametrize("rate", [1, 10, 999, 1_000_000])
def test_sound_at_a_rate_that_nobody_can_be_heard_at_is_told_and_not_stretched(tmp_path: Path, rate: int) -> None:
    with Media(written(tmp_path / "a.wav", tone(2.0), rate)) as media:
        assert len(media.audio or ()) == 0
        assert [one.code for one in media.audio_faults] == ["data_damaged"]
        assert f"{rate} samples a second" in media.audio_faults[0].what


@given(st.lists(st.floats(0.0, 30 * HOUR), min_size=1, max_size=60), st.floats(0.0, 1e9))
def test_a_stream_lasts_no_longer_than_its_items_and_the_pauses_that_are_believed(
    steps: list[float], duration: float
) -> None:
    clock: StreamClock[int] = StreamClock(Timeline(0.0))
    stamps = np.cumsum(steps)
    placed = list(clock.placed(Stamped(float(stamp), duration, n) for n, stamp in enumerate(stamps)))
    assert [item for _, item in placed] == list(range(len(steps)))
    lasts = len(steps) * (min(duration, LONGEST_ITEM) + 1.0)
    assert clock.end <= LONGEST_PAUSE + (1 + MOST_PAUSES) * lasts


def test_a_pause_of_an_hour_is_believed_and_a_second_one_of_a_clip_of_seconds_is_not() -> None:
    clock: StreamClock[int] = StreamClock(Timeline(0.0))
    stamps = [*np.arange(0, 5, 0.1), *np.arange(HOUR, HOUR + 5, 0.1), *np.arange(2 * HOUR, 2 * HOUR + 5, 0.1)]
    times = [time for time, _ in clock.placed(Stamped(float(stamp), 0.1, 0) for stamp in stamps)]
    assert times[50] == pytest.approx(HOUR) and times[100] == pytest.approx(HOUR + 5)
    assert clock.joined == 1 and [one.code for one in clock.faults()] == ["timestamps_joined"]


def test_a_container_without_its_packets_lasts_for_no_time(tmp_path: Path) -> None:
    data = write_media(tmp_path / "a.mp4", blank(1.0), tone(1.0)).read_bytes()
    at = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    path = tmp_path / "b.mp4"
    path.write_bytes(data[:at] + bytes(end - at) + data[end:])
    with Media(path) as media:
        assert media.examine().duration < 2.0
    path.write_bytes(data[:at] + data[end:])
    try:
        with Media(path) as media:
            assert media.examine().duration == 0.0
    except InputError:
        pass  # FFmpeg refuses it


def test_streams_of_a_codec_that_nobody_knows_are_left_out(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", blank(1.0), tone(1.0))
    data = path.read_bytes()
    video = data.replace(b"avc1", b"zzzz").replace(b"mp4v", b"zzzz")
    path.write_bytes(video)
    with Media(path) as media:
        assert not media.info.has_video and media.audio is not None
    data = write_media(path, blank(1.0)).read_bytes()
    path.write_bytes(data.replace(b"avc1", b"zzzz").replace(b"mp4v", b"zzzz"))
    with pytest.raises(NoStreams, match="that can be decoded"):
        Media(path)


def test_permission_is_blamed_only_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> Any:
        raise av.error.PermissionError(13, "Permission denied", str(path))

    (tmp_path / "a.wmv").write_bytes(b"locked")
    monkeypatch.setattr("emopipe.pipeline.media.streams.open_av", refused)
    with pytest.raises(NotMedia):
        open_container(tmp_path / "a.wmv")


def test_streams_that_appear_within_a_file_end_nothing_but_themselves(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", blank(1.0), tone(1.0))

    class Container:
        """PyAV's, which stumbles at the end over a stream that was not there when it opened the file."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def demux(self, streams: Any) -> Iterator[Any]:
            yield from self._inner.demux(streams)
            raise IndexError("list index out of range")

    with Media(path) as media:
        media._container = Container(media._container)
        assert len(list(media.frames(25))) == 25
        assert [one.code for one in media.video_faults] == ["data_damaged"]
        assert "does not name" in media.video_faults[0].what
