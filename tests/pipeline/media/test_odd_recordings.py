"""Recordings that phones, recorders and studios make: clocks, shapes and channels other than the usual."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from emopipe.constants import SAMPLE_RATE
from emopipe.pipeline.media.decoding import MISCOUNTED, Media
from emopipe.pipeline.media.duration import duration
from tests.conftest import turn_by_metadata
from tests.pipeline.media.test_streams import SOUND_RATE, sine, strength

FPS = 25
SECONDS = 4
#: The light goes on and the tone begins at this time, in seconds.
EVENT = 2.0
#: Times of MPEG transport streams begin again from 0 here, in seconds.
WRAP = 2**33 / 90_000


def write(
    path: Path,
    *,
    start: float = 0.0,
    video: str = "libx264",
    audio: str = "",
    video_late: float = 0.0,
    left_out: tuple[float, float] = (0.0, 0.0),
    options: Mapping[str, str] | None = None,
    b_frames: int = 0,
    size: tuple[int, int] = (96, 64),
    aspect: Fraction | None = None,
) -> Path:
    """A recording in which a light goes on and a tone begins at EVENT.

    Args:
        start: time stamp of its beginning.
        video_late: frames before this time are left out.
        left_out: sound in this stretch is left out.
        size, aspect: width and height in pixels, and width of a pixel by its height.
    """
    with av.open(str(path), "w", options=dict(options or {})) as container:
        images = container.add_stream(video, rate=FPS)
        images.width, images.height = size
        images.pix_fmt = "yuvj420p" if video == "mjpeg" else "yuv420p"
        images.codec_context.gop_size = FPS
        images.codec_context.max_b_frames = b_frames
        if aspect:
            images.sample_aspect_ratio = aspect
        sound = container.add_stream(audio, rate=SOUND_RATE, layout="mono") if audio else None
        for number in range(round(video_late * FPS), SECONDS * FPS):
            level = 220 if number >= EVENT * FPS else 20
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), level, np.uint8), "rgb24")
            frame.pts, frame.time_base = round((start + number / FPS) * 90_000), Fraction(1, 90_000)
            container.mux(images.encode(frame))
        container.mux(images.encode(None))
        if sound is not None:
            samples = sine(SECONDS, 440) * (np.arange(SECONDS * SOUND_RATE) >= EVENT * SOUND_RATE)
            step = sound.codec_context.frame_size or 1024
            resampler = av.AudioResampler(sound.codec_context.format.name, "mono", SOUND_RATE, frame_size=step)
            for first in range(0, len(samples) - step, step):
                if left_out[0] * SOUND_RATE <= first < left_out[1] * SOUND_RATE:
                    continue
                chunk = av.AudioFrame.from_ndarray(
                    samples[None, first : first + step].astype(np.float32), "fltp", "mono"
                )
                chunk.sample_rate, chunk.time_base = SOUND_RATE, Fraction(1, SOUND_RATE)
                chunk.pts = first + round(start * SOUND_RATE)
                for part in resampler.resample(chunk):
                    container.mux(sound.encode(part))
            container.mux(sound.encode(None))
    return path


def light(media: Media) -> tuple[float, float, int]:
    """When the light goes on, the time of the first frame, and how many frames there are."""
    shown = [(frame.time, float(frame.rgb.mean())) for frame in media.frames(FPS)]
    return next(time for time, level in shown if level > 128), shown[0][0], len(shown)


def beep(media: Media) -> float:
    """When the tone begins."""
    loud = np.flatnonzero(np.abs(np.asarray(media.audio)) > 0.1)
    return float(loud[0]) / SAMPLE_RATE


@pytest.mark.parametrize("start", [0.0, 5.0, 3600.0 * 20])
@pytest.mark.parametrize(
    ("suffix", "audio"),
    [
        *((".mkv", audio) for audio in ("aac", "libmp3lame", "libopus", "flac", "pcm_s16le")),
        *((suffix, "aac") for suffix in (".flv", ".ts", ".mov", ".mp4")),
    ],
)
def test_a_clock_that_begins_anywhere_begins_at_nought(tmp_path: Path, suffix: str, audio: str, start: float) -> None:
    path = write(tmp_path / f"a{suffix}", start=start, audio=audio)
    with Media(path) as media:
        on, first, count = light(media)
        assert on == pytest.approx(EVENT, abs=0.05) and first == pytest.approx(0, abs=0.05)
        assert count == SECONDS * FPS and beep(media) == pytest.approx(EVENT, abs=0.06)
        assert media.info.duration == pytest.approx(SECONDS, abs=0.15)
        examined = media.examine()
        assert examined.duration == pytest.approx(SECONDS, abs=0.15)
        assert not [*media.video_faults, *media.audio_faults, *examined.faults]
    assert duration(path, SECONDS) == pytest.approx(SECONDS, abs=0.15)


@pytest.mark.parametrize("start", [5.0, 3600.0])
def test_a_recording_that_begins_late_and_was_cut_off_is_told(tmp_path: Path, start: float) -> None:
    path = write(tmp_path / "a.mkv", start=start, audio="pcm_s16le")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with Media(path) as media:
        assert {fault.code for fault in media.examine().faults} == {"file_truncated"}


@pytest.mark.parametrize("start", [WRAP - 2.7, WRAP - 2.0, WRAP - 0.5, WRAP - 3.98])
def test_a_transport_stream_whose_clock_begins_again_is_one_recording(tmp_path: Path, start: float) -> None:
    with Media(write(tmp_path / "a.ts", start=start, audio="aac")) as media:
        on, _, count = light(media)
        assert on == pytest.approx(EVENT, abs=0.1) and beep(media) == pytest.approx(on, abs=0.1)
        assert count >= SECONDS * FPS - 2


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_video_that_begins_late_and_is_reordered_stays_in_step(tmp_path: Path, suffix: str, b_frames: int) -> None:
    path = write(tmp_path / f"a{suffix}", audio="aac", video_late=1.0, b_frames=b_frames)
    with Media(path) as media:
        on, first, _ = light(media)
        assert first == pytest.approx(1.0, abs=0.08)
        assert on == pytest.approx(EVENT, abs=0.08) and beep(media) == pytest.approx(EVENT, abs=0.08)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_gap_in_the_sound_is_silent_and_moves_nothing(tmp_path: Path, suffix: str) -> None:
    with Media(write(tmp_path / f"a{suffix}", audio="aac", left_out=(0.5, 1.5))) as media:
        assert light(media)[0] == pytest.approx(EVENT, abs=0.05)
        assert beep(media) == pytest.approx(EVENT, abs=0.08)


@pytest.mark.parametrize(
    ("name", "codec", "form"),
    [
        ("a.h264", "libx264", "h264"),
        ("a.h265", "libx265", "hevc"),
        ("a.m4v", "mpeg4", "m4v"),
        ("a.mjpeg", "mjpeg", "mjpeg"),
    ],
)
def test_videos_without_time_stamps_are_played_at_their_rate(tmp_path: Path, name: str, codec: str, form: str) -> None:
    path = tmp_path / name
    with av.open(str(path), "w", format=form) as container:
        options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        video = container.add_stream(codec, rate=FPS, options=options)
        video.width, video.height, video.pix_fmt = 96, 64, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in range(SECONDS * FPS):
            image = np.full((64, 96, 3), 220 if number >= EVENT * FPS else 20, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    with Media(path) as media:
        on, _, count = light(media)
        faults = [fault.code for fault in media.video_faults]
    assert count >= SECONDS * FPS - 3
    assert on == pytest.approx(EVENT, abs=0.1)
    assert faults == ["no_timestamps"]


@pytest.mark.parametrize(("aspect", "shape"), [(Fraction(2), (192, 64)), (Fraction(1, 2), (96, 128))])
def test_pixels_are_made_square_before_the_image_is_turned(
    tmp_path: Path, aspect: Fraction, shape: tuple[int, int]
) -> None:
    with Media(turn_by_metadata(write(tmp_path / "a.mp4", aspect=aspect))) as media:
        assert next(iter(media.frames(5))).rgb.shape[:2] == shape


def write_channels(path: Path, layout: str, tones: Sequence[float], codec: str = "flac") -> Path:
    """Sound whose channels hold a tone each; 0 for none, and a negative one for the tone upside down."""
    samples = np.stack([np.sign(hertz) * sine(2, abs(hertz)) if hertz else 0 * sine(2, 1) for hertz in tones])
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=SOUND_RATE, layout=layout)
        step = stream.codec_context.frame_size or 1024
        resampler = av.AudioResampler(stream.codec_context.format.name, layout, SOUND_RATE, frame_size=step)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples, np.float32), "fltp", layout)
        frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, 0, Fraction(1, SOUND_RATE)
        for part in resampler.resample(frame):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("layout", "tones", "codec"),
    [
        ("stereo", (440, 0), "flac"),
        ("stereo", (0, 440), "aac"),
        ("stereo", (440, -440), "pcm_s16le"),
        ("quad", (0, 0, 440, 0), "flac"),
        ("5.1", (0, 0, 440, 0, 0, 0), "flac"),
        ("5.1", (440, 0, 0, 0, 0, 0), "ac3"),
        ("5.1", (0, 0, 440, 0, 0, 0), "aac"),
        ("5.1", (0, 0, 0, 0, 440, -440), "flac"),
        ("5.1", (440, -440, 0, 0, 0, 0), "flac"),
    ],
)
def test_what_a_single_channel_holds_is_heard(tmp_path: Path, layout: str, tones: Sequence[float], codec: str) -> None:
    suffix = {"flac": ".flac", "ac3": ".mkv", "aac": ".m4a", "pcm_s16le": ".wav"}[codec]
    with Media(write_channels(tmp_path / f"a{suffix}", layout, tones, codec)) as media:
        assert media.mixes_lose == [min(tones) < 0]
        (channels,) = media.channels() if min(tones) < 0 else (media.tracks,)
        sounds = [np.asarray(sound)[SAMPLE_RATE // 2 : 3 * SAMPLE_RATE // 2] for sound in channels]
    assert max(strength(sound, 440) for sound in sounds) > 0.05


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".mov"])
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_recording_that_was_cut_off_is_told_or_refused(tmp_path: Path, suffix: str, share: float) -> None:
    """Phones that run out of power leave files without an index, or with one that promises more."""
    options = {"movflags": "faststart"} if suffix in (".mp4", ".mov") else {}
    path = write(tmp_path / f"a{suffix}", audio="pcm_s16le" if suffix == ".avi" else "aac", options=options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with Media(path) as media:
        frames = list(media.frames(FPS))
        sound = media.audio
        faults = [*media.video_faults, *media.audio_faults, *media.examine().faults]
    assert len(frames) < SECONDS * FPS or (sound is not None and len(sound) < SECONDS * SAMPLE_RATE)
    assert {fault.code for fault in faults} & {"file_truncated", "data_missing", "data_damaged"}


@pytest.mark.parametrize("suffix", [".mp3", ".flac"])
def test_sound_with_a_picture_of_its_cover_is_sound_alone(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    codec = {".mp3": "libmp3lame", ".flac": "flac"}[suffix]
    with av.open(str(path), "w") as container:
        sound = container.add_stream(codec, rate=SOUND_RATE, layout="mono")
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 96, 64, "rgb24"
        cover.disposition = Disposition.attached_pic
        image = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 90, np.uint8), "rgb24")
        pictures = [*cover.encode(image), *cover.encode(None)]
        container.start_encoding()
        container.mux(pictures)
        step = sound.codec_context.frame_size or 1024
        resampler = av.AudioResampler(sound.codec_context.format.name, "mono", SOUND_RATE, frame_size=step)
        frame = av.AudioFrame.from_ndarray(sine(2, 440)[None], "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, 0, Fraction(1, SOUND_RATE)
        for part in resampler.resample(frame):
            container.mux(sound.encode(part))
        container.mux(sound.encode(None))
    with Media(path) as media:
        assert not media.info.has_video
        assert strength(np.asarray(media.audio)[SAMPLE_RATE // 2 : 3 * SAMPLE_RATE // 2], 440) > 0.2


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".mp4", ".mpg"])
@pytest.mark.parametrize("b_frames", [0, 1, 2])
def test_reordered_frames_of_old_codecs_are_in_time(tmp_path: Path, suffix: str, b_frames: int) -> None:
    codec = "mpeg2video" if suffix == ".mpg" else "mpeg4"
    sound = {".avi": "libmp3lame", ".mpg": "mp2"}.get(suffix, "aac")
    path = write(tmp_path / f"a{suffix}", video=codec, audio=sound, b_frames=b_frames)
    with Media(path) as media:
        on, _, count = light(media)
        assert on == pytest.approx(beep(media), abs=0.09)
        assert count >= SECONDS * FPS - 2


@pytest.mark.parametrize("rates", [(30.0, 5.0), (5.0, 30.0), (60.0, 1.0)])
def test_frame_rates_that_change_on_the_way_keep_time(tmp_path: Path, rates: tuple[float, float]) -> None:
    """Screen recorders and phones in the dark give frames as they come."""
    times = [*np.arange(0, EVENT, 1 / rates[0]), *np.arange(EVENT, SECONDS, 1 / rates[1])]
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        images = container.add_stream("libx264", rate=30)
        images.width, images.height, images.pix_fmt = 96, 64, "yuv420p"
        for time in times:
            level = 220 if time >= EVENT else 20
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), level, np.uint8), "rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(images.encode(frame))
        container.mux(images.encode(None))
    with Media(path) as media:
        shown = [(frame.time, frame.rgb.mean()) for frame in media.frames(10)]
        assert not media.examine().faults
    assert next(time for time, level in shown if level > 128) == pytest.approx(EVENT, abs=0.04)
    assert shown[-1][0] == pytest.approx(times[-1], abs=0.11)


def write_wav(path: Path, counted: float, after: bytes = b"") -> Path:
    """Two seconds of a tone in 8 bits, of which the header counts a share, and what follows."""
    sound = (128 + 40 * np.sin(2 * np.pi * 300 * np.arange(16_000) / 8_000)).astype(np.uint8).tobytes()
    form = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8_000, 8_000, 1, 8)
    data = b"data" + struct.pack("<I", round(counted * len(sound))) + sound
    body = b"WAVE" + form + data + after
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


@pytest.mark.parametrize("counted", [0.25, 0.5001])
def test_sound_that_a_header_does_not_count_is_read_and_that_is_told(tmp_path: Path, counted: float) -> None:
    with Media(write_wav(tmp_path / "a.wav", counted)) as media:
        examined = media.examine()
        assert media.audio is not None and len(media.audio) == pytest.approx(2 * SAMPLE_RATE, abs=200)
    assert examined.duration == pytest.approx(2.0, abs=0.02)
    assert [fault.what for fault in examined.faults] == [MISCOUNTED]


@pytest.mark.parametrize("after", [b"LIST" + struct.pack("<I", 5000) + bytes(5000), b"ID3" + bytes(5000), bytes(300)])
def test_what_follows_the_sound_is_not_heard(tmp_path: Path, after: bytes) -> None:
    with Media(write_wav(tmp_path / "a.wav", 1.0, after)) as media:
        assert not media.examine().faults
        assert media.audio is not None and len(media.audio) == pytest.approx(2 * SAMPLE_RATE, abs=20)


def test_what_an_edit_list_cuts_away_does_not_count(tmp_path: Path) -> None:
    with (
        av.open(str(write(tmp_path / "whole.mp4", audio="aac"))) as whole,
        av.open(str(tmp_path / "cut.mp4"), "w") as out,
    ):
        streams = {stream.index: out.add_stream_from_template(stream) for stream in whole.streams}
        for packet in whole.demux():
            if packet.dts is not None and packet.pts is not None:
                before = round(1.6 / packet.time_base)
                packet.pts, packet.dts, packet.stream = (
                    packet.pts - before,
                    packet.dts - before,
                    streams[packet.stream.index],
                )
                out.mux(packet)
    with Media(tmp_path / "cut.mp4") as media:
        examined = media.examine()
        on, first, _ = light(media)
        assert examined.duration == pytest.approx(2.4, abs=0.1) and not examined.faults
        assert (on, first, beep(media)) == pytest.approx((EVENT - 1.6, 0.0, EVENT - 1.6), abs=0.06)
