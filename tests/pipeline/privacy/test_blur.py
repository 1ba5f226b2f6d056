"""A blurred copy shows no faces, stays in step, and tells nothing of the recording that it is made from."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from emopipe.errors import ConfigError, NotMedia, OutputError
from emopipe.pipeline.media.decoding import Media
from emopipe.pipeline.privacy.blur import blur
from emopipe.pipeline.privacy.face_boxes import BlurSettings
from tests.pipeline.privacy.test_face_boxes import faces

RATE = 16_000
#: When a flash is seen and a tone begins, in seconds.
BEATS = (0.5, 1.3, 2.1)


def recording(path: Path, *, delay: float = 0.0, picture: bool = True) -> Path:
    """Noise with white flashes and beeps of 440 Hz, frames of changing length, and metadata that name somebody."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as file:
        file.metadata["title"] = "Anna Muster at home"
        file.metadata["location"] = "+52.5+013.4/"
        video = file.add_stream("libx264", rate=25) if picture else None
        sound = file.add_stream("aac", rate=RATE, layout="mono")
        sound.metadata["title"] = "Annas microphone"
        if video is not None:
            video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
            video.codec_context.time_base = Fraction(1, 1000)
            noise = rng.integers(0, 200, (120, 160, 3), dtype=np.uint8)
            for index in range(75):
                time = delay + index / 25 + (0.012 if index % 3 else 0)
                image = np.full_like(noise, 255) if any(0 <= time - beat < 0.2 for beat in BEATS) else noise
                frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
                frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
                file.mux(video.encode(frame))
            file.mux(video.encode(None))
        times = np.arange(3 * RATE) / RATE
        on = np.any([(times >= beat) & (times < beat + 0.2) for beat in BEATS], axis=0)
        wave = (0.5 * np.sin(2 * np.pi * 440 * times) * on).astype(np.float32)
        for start in range(0, len(wave), 1024):
            part = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="fltp", layout="mono")
            part.sample_rate, part.pts, part.time_base = RATE, start, Fraction(1, RATE)
            file.mux(sound.encode(part))
        file.mux(sound.encode(None))
    return path


def onsets(path: Path) -> tuple[list[float], list[float], np.ndarray]:
    """When flashes and tones begin, and the sound."""
    with Media(path) as media:
        bright = [(frame.time, frame.rgb.mean() > 220) for frame in media.frames(1000)]
        sound = media.audio
    assert sound is not None
    wave = np.asarray(sound[0 : len(sound)])
    flashes = [t for (_, before), (t, now) in zip([(0.0, False), *bright], bright, strict=False) if now and not before]
    level = np.sqrt(np.convolve(wave**2, np.ones(160) / 160, "same")) > 0.1
    tones = [float(i / RATE) for i in np.flatnonzero(level[1:] & ~level[:-1])]
    return flashes, tones, wave


@pytest.mark.parametrize("pitch", [0.0, -4.0])
def test_picture_and_sound_stay_in_step(tmp_path: Path, pitch: float) -> None:
    source = recording(tmp_path / "source.mp4")
    copy = blur(source, tmp_path / "copy.mp4", None, BlurSettings(pitch=pitch))
    flashes, tones, wave = onsets(copy.path)
    before = onsets(source)
    assert flashes == pytest.approx(before[0], abs=0.002)
    assert len(tones) == len(before[1]) and tones == pytest.approx(before[1], abs=0.03)
    part = wave[int(1.35 * RATE) : int(1.45 * RATE)]
    peak = np.argmax(np.abs(np.fft.rfft(part * np.hanning(len(part)), 65536))) * RATE / 65536
    assert peak == pytest.approx(440 * 2 ** (pitch / 12), rel=0.03)
    assert copy.frames == 75 == copy.without_face


def test_pictures_that_begin_after_the_sound_stay_late(tmp_path: Path) -> None:
    source = recording(tmp_path / "source.mp4", delay=0.4)
    copy = blur(source, tmp_path / "copy.mp4", None, BlurSettings())
    assert onsets(copy.path)[0] == pytest.approx(onsets(source)[0], abs=0.002)


def test_nothing_of_the_source_is_told(tmp_path: Path) -> None:
    source = recording(tmp_path / "Anna.mp4")
    assert b"Muster" in source.read_bytes()
    data = blur(source, tmp_path / "copy.mp4", None, BlurSettings()).path.read_bytes()
    assert not any(word in data for word in (b"Muster", b"Anna", b"+52.5", b"microphone"))


def test_faces_lose_their_detail_in_every_frame_and_nothing_else_does(tmp_path: Path) -> None:
    source = recording(tmp_path / "source.mp4")
    table = faces(*((t, 0, 0.4) for t in (0.0, 1.0, 3.0)))
    copy = blur(source, tmp_path / "copy.mp4", table, BlurSettings(margin=0.2))
    assert copy.without_face == 0
    with Media(source) as first, Media(copy.path) as second:
        for before, after in zip(first.frames(1000), second.frames(1000), strict=True):
            inside = (slice(25, 47), slice(65, 79))
            if before.rgb.mean() < 200:
                assert np.diff(after.rgb[inside].astype(int), axis=1).std() < 8
                assert np.diff(before.rgb[inside].astype(int), axis=1).std() > 15
                assert np.abs(after.rgb[60:].astype(int) - before.rgb[60:]).mean() < 12


def test_without_a_known_face_the_whole_picture_may_be_blurred(tmp_path: Path) -> None:
    source = recording(tmp_path / "source.mp4")
    copy = blur(source, tmp_path / "copy.mp4", None, BlurSettings(whole=True))
    with Media(copy.path) as media:
        assert all(np.diff(frame.rgb.astype(int), axis=1).std() < 8 for frame in media.frames(1000))


def test_sound_alone_is_copied(tmp_path: Path) -> None:
    copy = blur(recording(tmp_path / "source.mp4", picture=False), tmp_path / "copy.mp4", None, BlurSettings(pitch=3))
    with Media(copy.path) as media:
        assert not media.info.has_video and media.audio is not None
    assert copy.frames == 0


def test_errors_leave_no_copy(tmp_path: Path) -> None:
    source = recording(tmp_path / "source.mp4")
    with pytest.raises(OutputError, match="place of the recording"):
        blur(source, source, None, BlurSettings())
    with pytest.raises(ConfigError, match="semitones"):
        blur(source, tmp_path / "copy.mp4", None, BlurSettings(pitch=40))
    (tmp_path / "text.mp4").write_text("no media")
    with pytest.raises(NotMedia):
        blur(tmp_path / "text.mp4", tmp_path / "copy.mp4", None, BlurSettings())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source.mp4", "text.mp4"]
