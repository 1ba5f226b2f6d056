"""Which streams are seen and heard, and how images and sound come out of uncommon ones."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from emopipe.constants import SAMPLE_RATE
from emopipe.errors import NoStreams
from emopipe.pipeline.media.decoding import Media
from tests.conftest import SAMPLES, SHARED, blank, tone, write_media

SOUND_RATE = 48_000


def sine(seconds: float, hertz: float, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * SOUND_RATE)) / SOUND_RATE)).astype(np.float32)


def write_tracks(
    path: Path, tracks: Sequence[np.ndarray], facts: Sequence[dict[str, str]] = (), defaults: Sequence[bool] = ()
) -> Path:
    """Write audio tracks (samples,) or (channels, samples) of float32 at 48 kHz."""
    with av.open(str(path), "w") as container:
        streams = []
        for number, track in enumerate(tracks):
            channels = len(np.atleast_2d(track))
            layout = {1: "mono", 2: "stereo"}.get(channels, f"{channels} channels")
            stream = container.add_stream("pcm_s16le", rate=SOUND_RATE, layout=layout)
            stream.metadata.update(facts[number] if facts else {})
            if defaults:
                stream.disposition = Disposition.default if defaults[number] else Disposition(0)
            streams.append(stream)
        for stream, track in zip(streams, tracks, strict=True):
            samples = (np.atleast_2d(track) * 32767).astype(np.int16).T.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "s16", stream.layout.name)
            frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, 0, Fraction(1, SOUND_RATE)
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


def strength(sound: np.ndarray, hertz: float) -> float:
    """Amplitude of a tone in a sound."""
    spectrum = np.abs(np.fft.rfft(sound)) / len(sound) * 2
    return float(spectrum[round(hertz * len(sound) / SAMPLE_RATE) - 1 :][:3].max())


class TestAudioTracks:
    def test_tracks_of_one_length_are_mixed(self, tmp_path: Path) -> None:
        path = write_tracks(tmp_path / "a.mkv", [sine(2, 440), sine(2, 1000), np.zeros(2 * SOUND_RATE, np.float32)])
        with Media(path) as media:
            sound = np.asarray(media.audio)
            assert [facts.used for facts in media.info.streams] == [True, True, True]
        assert strength(sound, 440) == pytest.approx(0.15, abs=0.02) and strength(sound, 1000) == pytest.approx(
            0.15, abs=0.02
        )

    def test_of_several_languages_the_default_one_is_heard(self, tmp_path: Path) -> None:
        facts = [{"language": "eng"}, {"language": "ger"}]
        path = write_tracks(tmp_path / "a.mkv", [sine(2, 440), sine(2, 1000)], facts, [False, True])
        with Media(path) as media:
            assert strength(np.asarray(media.audio), 440) < 0.01
            assert [(one.language, one.used) for one in media.info.streams] == [("eng", False), ("ger", True)]

    def test_a_short_track_is_not_another_microphone(self, tmp_path: Path) -> None:
        with Media(write_tracks(tmp_path / "a.mkv", [sine(4, 440), sine(1, 1000)])) as media:
            assert [facts.used for facts in media.info.streams] == [True, False]

    @pytest.mark.parametrize(("tracks", "heard"), [("first", 440), ("1", 440), ("2", 1000)])
    def test_a_track_can_be_chosen(self, tmp_path: Path, tracks: str, heard: float) -> None:
        with Media(write_tracks(tmp_path / "a.mkv", [sine(2, 440), sine(2, 1000)]), tracks=tracks) as media:
            sound = np.asarray(media.audio)
        assert strength(sound, heard) == pytest.approx(0.3, abs=0.02)
        assert strength(sound, 1440 - heard) < 0.01

    def test_a_track_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        path = write_tracks(tmp_path / "a.mkv", [sine(1, 440)])
        with pytest.raises(NoStreams, match="no audio track 3; the file has 1"):
            Media(path, tracks="3")

    def test_tracks_are_kept_apart_where_each_is_a_person(self, tmp_path: Path) -> None:
        with Media(write_tracks(tmp_path / "a.mkv", [sine(2, 440), sine(2, 1000)]), tracks="speakers") as media:
            first, second = (np.asarray(sound) for sound in media.tracks)
        assert strength(first, 1000) < 0.01 and strength(second, 440) < 0.01


class TestChannels:
    def test_channels_that_cancel_are_noticed_and_can_be_had_apart(self, tmp_path: Path) -> None:
        voice = sine(3, 440)
        with Media(write_tracks(tmp_path / "a.wav", [np.stack([voice, -voice])])) as media:
            assert media.mixes_lose == [True]
            ((left, right),) = media.channels()
        assert strength(np.asarray(left), 440) == pytest.approx(0.3, abs=0.02)
        assert np.asarray(left) == pytest.approx(-np.asarray(right), abs=1e-4)

    @pytest.mark.parametrize("right", [np.zeros_like(sine(3, 440)), sine(3, 440), sine(3, 1000)])
    def test_channels_that_do_not_cancel_are_mixed(self, tmp_path: Path, right: np.ndarray) -> None:
        with Media(write_tracks(tmp_path / "a.wav", [np.stack([sine(3, 440), right])])) as media:
            assert media.mixes_lose == [False]

    def test_many_channels_of_no_known_layout(self, tmp_path: Path) -> None:
        channels = np.stack(
            [sine(2, 440) if number == 7 else np.zeros(2 * SOUND_RATE, np.float32) for number in range(12)]
        )
        with Media(write_tracks(tmp_path / "a.mka", [channels])) as media:
            assert media.mixes_lose == [True]
            ((*apart,),) = media.channels()
        assert len(apart) == 12 and strength(np.asarray(apart[7]), 440) == pytest.approx(0.3, abs=0.02)

    def test_planes_of_many_channels_are_decoded(self, tmp_path: Path) -> None:
        """PyAV reads beyond the planes of such frames when they are asked for one by one."""
        with av.open(str(tmp_path / "a.mka"), "w") as container:
            stream = container.add_stream("libopus", rate=SOUND_RATE, layout="12 channels")
            stream.options = {"mapping_family": "255"}
            samples = np.tile((sine(1, 440)[:, None] * 32767).astype(np.int16), (1, 12)).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(samples, "s16", "12 channels")
            frame.sample_rate = SOUND_RATE
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        with Media(tmp_path / "a.mka") as media:
            assert media.mixes_lose == [True] and len(media.channels()[0]) == 12

    def test_a_stream_may_change_its_rate_and_channels(self, tmp_path: Path) -> None:
        parts = []
        for rate, layout, name in ((44_100, "stereo", "a"), (22_050, "mono", "b")):
            with av.open(str(tmp_path / f"{name}.mp3"), "w") as container:
                stream = container.add_stream("mp3", rate=rate, layout=layout)
                wave = (0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)).astype(np.float32)
                frame = av.AudioFrame.from_ndarray(np.tile(wave, (2 if layout == "stereo" else 1, 1)), "fltp", layout)
                frame.sample_rate = rate
                container.mux(stream.encode(frame))
                container.mux(stream.encode(None))
            parts.append((tmp_path / f"{name}.mp3").read_bytes())
        (tmp_path / "joined.mp3").write_bytes(b"".join(parts))
        with Media(tmp_path / "joined.mp3") as media:
            sound = np.asarray(media.audio)
        assert len(sound) / SAMPLE_RATE == pytest.approx(4.0, abs=0.2)
        assert strength(sound[-SAMPLE_RATE:], 440) == pytest.approx(0.3, abs=0.1)


class TestVideo:
    def write(self, path: Path, streams: Sequence[tuple[int, bool]], longer: int = 0) -> Path:
        """Write video streams of one grey level each, and whether each is the default.

        The first one has so many more frames than the 25 of the others.
        """
        with av.open(str(path), "w") as container:
            made = []
            for _, default in streams:
                video = container.add_stream("libx264", rate=25)
                video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
                video.disposition = Disposition.default if default else Disposition(0)
                made.append(video)
            for video, (level, _) in zip(made, streams, strict=True):
                for number in range(25 + (longer if video is made[0] else 0)):
                    frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), "rgb24")
                    frame.pts, frame.time_base = number, Fraction(1, 25)
                    container.mux(video.encode(frame))
                container.mux(video.encode(None))
        return path

    def test_the_default_stream_is_seen(self, tmp_path: Path) -> None:
        with Media(self.write(tmp_path / "a.mkv", [(40, False), (200, True)])) as media:
            assert next(iter(media.frames(5))).rgb.mean() == pytest.approx(200, abs=5)
            assert [(facts.default, facts.used) for facts in media.info.streams] == [(False, False), (True, True)]

    @pytest.mark.parametrize("suffix", [".mkv", ".mov"])
    def test_a_longer_stream_that_is_not_seen_is_no_damage(self, tmp_path: Path, suffix: str) -> None:
        with Media(self.write(tmp_path / f"a{suffix}", [(40, False), (200, True)], longer=75)) as media:
            assert next(iter(media.frames(5))).rgb.mean() == pytest.approx(200, abs=5)
            examined = media.examine()
        assert examined.duration == pytest.approx(1.0, abs=0.1) and not examined.faults

    def test_pixels_are_made_square(self, tmp_path: Path) -> None:
        with av.open(str(tmp_path / "wide.mp4"), "w") as container:
            video = container.add_stream("libx264", rate=25)
            video.width, video.height, video.pix_fmt = 180, 144, "yuv420p"
            video.sample_aspect_ratio = Fraction(64, 45)
            for number in range(25):
                image = np.zeros((144, 180, 3), np.uint8)
                yy, xx = np.mgrid[:144, :180]
                image[((xx - 90) * 64 / 45) ** 2 + (yy - 72) ** 2 < 50**2] = 255
                frame = av.VideoFrame.from_ndarray(image, "rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        with Media(tmp_path / "wide.mp4") as media:
            assert media.info.pixel_aspect == pytest.approx(64 / 45)
            rgb = next(iter(media.frames(5))).rgb
        lit = rgb[:, :, 0] > 128
        assert rgb.shape == (144, 256, 3)
        assert lit.any(axis=0).sum() == pytest.approx(lit.any(axis=1).sum(), abs=2)

    def test_interlaced_frames_do_not_comb(self, tmp_path: Path) -> None:
        with av.open(str(tmp_path / "fields.mpg"), "w") as container:
            video = container.add_stream("mpeg2video", rate=25)
            video.width, video.height, video.pix_fmt, video.bit_rate = 160, 96, "yuv420p", 4_000_000
            video.options = {"flags": "+ildct+ilme", "alternate_scan": "1"}
            for number in range(25):
                image = np.zeros((96, 160, 3), np.uint8)
                image[0::2, 40:80], image[1::2, 60:100] = 255, 255  # the object moves between the fields
                frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p", interpolation="POINT")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        with Media(tmp_path / "fields.mpg") as media:
            rgb = next(iter(media.frames(5))).rgb[:, :, 0].astype(int)
        combing = np.abs(rgb[1:-1] - (rgb[:-2] + rgb[2:]) // 2)[10:-10].mean()
        assert rgb.shape == (96, 160) and combing < 3


@pytest.mark.parametrize("name", ["interview.mp4", "conversation.mp4", "silent.mp4"])
def test_samples_have_one_stream_of_a_kind(name: str) -> None:
    with Media(SAMPLES / name) as media:
        assert all(facts.used for facts in media.info.streams) and media.info.pixel_aspect == 1


def test_sound_and_video_without_tags_are_used(tmp_path: Path) -> None:
    with Media(write_media(tmp_path / "a.mp4", blank(1.0), tone(1.0))) as media:
        assert [(facts.kind, facts.used) for facts in media.info.streams] == [("video", True), ("audio", True)]


def test_slides_do_not_take_the_place_of_the_camera() -> None:
    path = SHARED / "odd" / "24_slides_and_camera.mkv"
    if not path.is_file():
        pytest.skip("no such file beside the checkout")
    with Media(path) as media:
        assert [facts.title for facts in media.info.streams if facts.used and facts.kind == "video"] == ["Camera"]
