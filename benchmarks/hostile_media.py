"""Media files that nobody should have: recordings damaged, mislabelled or forged in every way that is thought of here.

Each kind of :data:`KINDS` makes one file from a random generator and the :class:`Recordings`, which are short stretches
of the samples in many containers and codecs.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any, Final

import av
import numpy as np

SAMPLES: Final = Path(__file__).parent.parent / "samples"
SECONDS: Final = 2.5
FPS: Final = 25
RATE: Final = 48_000
#: Numbers that break arithmetic.
EXTREMES: Final = (0, 1, 2, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
#: Suffix -> container, video codec and audio codec ("" for none) of a recording that is mutated.
FORMATS: Final[dict[str, tuple[str, str, str]]] = {
    ".mp4": ("mp4", "libx264", "aac"),
    ".mov": ("mov", "mpeg4", "pcm_s16le"),
    ".mkv": ("matroska", "libx264", "libopus"),
    ".webm": ("webm", "libvpx", "libopus"),
    ".ts": ("mpegts", "libx264", "aac"),
    ".mpg": ("mpeg", "mpeg2video", "mp2"),
    ".avi": ("avi", "mpeg4", "libmp3lame"),
    ".mjpeg.avi": ("avi", "mjpeg", "pcm_s16le"),
    ".flv": ("flv", "flv", "libmp3lame"),
    ".wmv": ("asf", "wmv2", "wmav2"),
    ".h264": ("h264", "libx264", ""),
    ".wav": ("wav", "", "pcm_s16le"),
    ".flac": ("flac", "", "flac"),
    ".mp3": ("mp3", "", "libmp3lame"),
    ".ogg": ("ogg", "", "libopus"),
    ".m4a": ("ipod", "", "aac"),
    ".aac": ("adts", "", "aac"),
}
#: Suffix -> what is wrong: containers of text that name other files or addresses, which must not be followed.
PLAYLISTS: Final[dict[str, str]] = {
    ".m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nhappy.mp4\n#EXT-X-ENDLIST\n",
    ".ffconcat": "ffconcat version 1.0\nfile happy.mp4\n",
    ".sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    ".mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>',
    ".srt": "1\n00:00:00,000 --> 99:59:59,999\nHello\n",
    ".svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/hostname"/></svg>',
}


@dataclass(frozen=True)
class Made:
    """A hostile file: how its name ends, its bytes, whether it shows or lets hear anybody, seconds that it lasts."""

    suffix: str
    data: bytes
    evidence: bool = True
    lasts: float = SECONDS


@dataclass(frozen=True)
class Images:
    """A stretch of a recording: frames (height, width, 3) uint8 at :data:`FPS`, sound float32 at :data:`RATE`."""

    frames: Sequence[np.ndarray]
    sound: np.ndarray


class Recordings:
    """Short stretches of the samples, coded in every format on demand."""

    def __init__(self) -> None:
        self._stretches = [_stretch(SAMPLES / "happy.mp4", 0.0), _stretch(SAMPLES / "conversation.mp4", 1.0)]
        self._coded: dict[tuple[str, int], bytes] = {}

    def draw(self, rng: Random, *suffixes: str) -> Made:
        """A whole recording in one of the formats, or in any."""
        suffix = rng.choice(suffixes or tuple(FORMATS))
        number = rng.randrange(len(self._stretches))
        if (suffix, number) not in self._coded:
            self._coded[suffix, number] = coded(self._stretches[number], *FORMATS[suffix])
        return Made(suffix, self._coded[suffix, number])

    def stretch(self, rng: Random) -> Images:
        """Frames and sound of one of them."""
        return rng.choice(self._stretches)


def _stretch(path: Path, start: float) -> Images:
    frames, sounds = [], []
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    with av.open(str(path)) as source:
        for frame in source.decode(*source.streams.video[:1], *source.streams.audio[:1]):
            inside = start <= frame.time < start + SECONDS
            if inside and isinstance(frame, av.VideoFrame):
                frames.append(frame.to_ndarray(width=240, height=240, format="rgb24"))
            elif inside:
                frame.pts = None
                sounds += [out.to_ndarray().reshape(-1) for out in resampler.resample(frame)]
    return Images(frames, np.concatenate(sounds))


def coded(
    stretch: Images,
    container: str,
    video: str,
    audio: str,
    *,
    fps: Fraction = Fraction(FPS),
    retime: Callable[[Any], None] = lambda packet: None,
) -> bytes:
    """A stretch in a container.

    Args:
        stretch: what is seen and heard.
        container, video, audio: FFmpeg's names; "" for no such stream.
        fps: that the video claims.
        retime: may change a packet before it is written.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        images = _video_stream(out, video, stretch.frames[0].shape, fps) if video else None
        sound = _audio_stream(out, audio) if audio else None

        def write(packets: Sequence[Any]) -> None:
            for packet in packets:
                retime(packet)
                out.mux(packet)

        if images is not None:
            for number, rgb in enumerate(stretch.frames):
                frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=images.pix_fmt)
                frame.pts, frame.time_base = number, 1 / fps
                write(images.encode(frame))
            write(images.encode(None))
        if sound is not None:
            for frame in _audio_frames(stretch.sound, sound):
                write(sound.encode(frame))
            write(sound.encode(None))
    return file.getvalue()


def _video_stream(out: Any, codec: str, shape: tuple[int, ...], fps: Fraction) -> Any:
    options = {"deadline": "realtime", "preset": "ultrafast"} if codec.startswith("lib") else {}
    stream = out.add_stream(codec, rate=fps, options=options)
    stream.height, stream.width = shape[:2]
    stream.pix_fmt = {"mjpeg": "yuvj420p", "png": "rgb24", "rawvideo": "yuv420p"}.get(codec, "yuv420p")
    stream.bit_rate = 400_000
    return stream


def _audio_stream(out: Any, codec: str) -> Any:
    stream = out.add_stream(codec, rate=44_100 if codec in ("libmp3lame", "wmav2") else RATE, layout="mono")
    stream.bit_rate = 64_000
    return stream


def _audio_frames(samples: np.ndarray, stream: Any) -> Sequence[Any]:
    size = stream.codec_context.frame_size or 1024
    resampler = av.AudioResampler(stream.codec_context.format, "mono", stream.rate, size)
    whole = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), "flt", "mono")
    whole.sample_rate, whole.pts, whole.time_base = RATE, 0, Fraction(1, RATE)
    return [*resampler.resample(whole), *resampler.resample(None)]


# Damage that every file can take


def bit_flips(rng: Random, recordings: Recordings) -> Made:
    """Up to 2,000 bits turned round, anywhere."""
    return _flipped(rng, recordings.draw(rng), 0.0, 1.0, rng.choice([1, 10, 100, 2000]))


def header_flips(rng: Random, recordings: Recordings) -> Made:
    """Bits turned round where containers keep their tables: the first or the last kilobytes."""
    made = recordings.draw(rng)
    share = min(1.0, 2000 / len(made.data))
    low, high = rng.choice([(0.0, share), (1 - share, 1.0)])
    return _flipped(rng, made, low, high, rng.choice([1, 5, 30]))


def _flipped(rng: Random, made: Made, low: float, high: float, bits: int) -> Made:
    data = bytearray(made.data)
    for _ in range(bits):
        at = min(len(data) - 1, int(rng.uniform(low, high) * len(data)))
        data[at] ^= 1 << rng.randrange(8)
    return Made(made.suffix, bytes(data))


def cut(rng: Random, recordings: Recordings) -> Made:
    """The end, or the beginning, is missing."""
    made = recordings.draw(rng)
    at = rng.randrange(len(made.data)) if rng.random() < 0.8 else rng.randrange(64)
    return Made(made.suffix, made.data[:at] if rng.random() < 0.7 else made.data[at:])


def holes(rng: Random, recordings: Recordings) -> Made:
    """Stretches are missing, or are zeros, or noise."""
    made = recordings.draw(rng)
    data = made.data
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(data))
        size = rng.randrange(1, max(2, len(data) // 4))
        filling = rng.choice([b"", bytes(size), rng.randbytes(size)])
        data = data[:start] + filling + data[start + size :]
    return Made(made.suffix, data)


def swapped_blocks(rng: Random, recordings: Recordings) -> Made:
    """Two stretches have changed places."""
    made = recordings.draw(rng)
    first, second, third, fourth = sorted(rng.randrange(len(made.data)) for _ in range(4))
    data = made.data
    return Made(
        made.suffix,
        data[:first] + data[third:fourth] + data[second:third] + data[first:second] + data[fourth:],
    )


def renamed(rng: Random, recordings: Recordings) -> Made:
    """A file under the name of another format."""
    return Made(rng.choice([*FORMATS, ".jpg", ".txt", ".csv", ".pdf", ""]), recordings.draw(rng).data)


def glued(rng: Random, recordings: Recordings) -> Made:
    """Two files of different formats, one after the other."""
    first, second = recordings.draw(rng), recordings.draw(rng)
    return Made(first.suffix, first.data + second.data)


def foreign_header(rng: Random, recordings: Recordings) -> Made:
    """The beginning of one format before the rest of another."""
    first, second = recordings.draw(rng), recordings.draw(rng)
    size = rng.choice([4, 12, 64, 1000])
    return Made(rng.choice([first.suffix, second.suffix]), first.data[:size] + second.data[size:])


def random_bytes(rng: Random, recordings: Recordings) -> Made:
    """Noise, by itself or behind the beginning of a format."""
    made = recordings.draw(rng)
    head = made.data[: rng.choice([0, 4, 16, 100])]
    return Made(made.suffix, head + rng.randbytes(rng.choice([1, 100, 10_000, 300_000])), evidence=False)


def playlists(rng: Random, recordings: Recordings) -> Made:
    """Text that names other files."""
    suffix = rng.choice(tuple(PLAYLISTS))
    name = rng.choice([suffix, ".mp4", ".mkv"])
    return Made(name, PLAYLISTS[suffix].replace("happy.mp4", str(SAMPLES / "happy.mp4")).encode(), evidence=False)


# Boxes of MP4


@dataclass(frozen=True)
class _Box:
    start: int
    end: int
    name: bytes


_CONTAINERS: Final = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf", b"edts", b"udta")


def _boxes(data: bytes, start: int = 0, end: int | None = None) -> list[_Box]:
    """All boxes of an MP4, outer ones first."""
    end = len(data) if end is None else end
    found = []
    while start + 8 <= end:
        size, name = struct.unpack_from(">I4s", data, start)
        if size < 8:
            break
        box = _Box(start, min(start + size, end), name)
        found.append(box)
        if name in _CONTAINERS:
            found += _boxes(data, start + 8, box.end)
        start = box.end
    return found


def swapped_boxes(rng: Random, recordings: Recordings) -> Made:
    """Boxes of an MP4 have changed places or names, are there twice, or not at all."""
    made = recordings.draw(rng, ".mp4", ".mov", ".m4a")
    data, boxes = made.data, _boxes(made.data)
    for _ in range(rng.randint(1, 3)):
        one, other = rng.choice(boxes), rng.choice(boxes)
        how = rng.choice(["swap", "rename", "double", "drop"])
        if how == "swap" and one.end <= other.start:
            between = data[one.end : other.start]
            data = data[: one.start] + data[other.start : other.end] + between + data[one.start : one.end]
            data += made.data[len(data) :]
        elif how == "rename":
            data = data[: one.start + 4] + other.name + data[one.start + 8 :]
        else:
            copy = data[one.start : one.end] * (2 if how == "double" else 0)
            data = data[: one.start] + copy + data[one.end :]
    return Made(made.suffix, data)


def wrong_sizes(rng: Random, recordings: Recordings) -> Made:
    """A box of an MP4 claims another size."""
    made = recordings.draw(rng, ".mp4", ".mov", ".m4a")
    data = bytearray(made.data)
    for box in rng.sample(_boxes(made.data), rng.randint(1, 3)):
        size = box.end - box.start
        claimed = rng.choice([*EXTREMES, 7, 8, size - 1, size + 1, size * 2, size // 2])
        struct.pack_into(">I", data, box.start, claimed & 0xFFFFFFFF)
    return Made(made.suffix, bytes(data))


def absurd_fields(rng: Random, recordings: Recordings) -> Made:
    """Numbers in the tables of an MP4 are extreme: durations, time scales, sizes, counts, offsets, rates."""
    made = recordings.draw(rng, ".mp4", ".mov", ".m4a")
    data = bytearray(made.data)
    plain = [box for box in _boxes(made.data) if box.name not in (*_CONTAINERS, b"mdat", b"ftyp", b"free")]
    for box in rng.sample(plain, rng.randint(1, 3)):
        for _ in range(rng.randint(1, 3)):
            at = box.start + 8 + rng.choice([1, 2, 4]) * rng.randrange(max(1, min(60, box.end - box.start - 12)))
            if at + 4 <= box.end:
                struct.pack_into(">I", data, at, rng.choice(EXTREMES))
    return Made(made.suffix, bytes(data))


def absurd_chunks(rng: Random, recordings: Recordings) -> Made:
    """Numbers in the headers of a RIFF, FLAC, FLV or ASF file are extreme."""
    made = recordings.draw(rng, ".wav", ".avi", ".mjpeg.avi", ".flac", ".flv", ".wmv", ".aac")
    data = bytearray(made.data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(4, min(400, len(data) - 4))
        struct.pack_into(rng.choice(["<I", ">I"]), data, at, rng.choice(EXTREMES))
    return Made(made.suffix, bytes(data))


def absurd_elements(rng: Random, recordings: Recordings) -> Made:
    """Elements of a Matroska file hold extreme numbers: scale of time, duration, sizes, rates, tracks."""
    made = recordings.draw(rng, ".mkv", ".webm")
    data = bytearray(made.data)
    elements = (b"\x2a\xd7\xb1", b"\x44\x89", b"\xb0", b"\xba", b"\xb5", b"\x9f", b"\x23\xe3\x83", b"\xd7", b"\xe7")
    for element in rng.sample(elements, 4):
        at = data.find(element, 0, 2000)
        if at > 0:
            size = data[at + len(element)] & 0x0F
            start = at + len(element) + 1
            data[start : start + size] = rng.choice(
                [bytes(size), b"\xff" * size, b"\x7f".ljust(size, b"\xff"), b"\x01".rjust(size, b"\0")]
            )[:size]
    return Made(made.suffix, bytes(data))


# Things that could be, and should not


def wave(samples: bytes, rate: int, channels: int = 1, bits: int = 16, claimed: int | None = None) -> bytes:
    """A WAV file that claims anything."""
    align = channels * bits // 8
    fields = (0x10, 1, channels & 0xFFFF, rate & 0xFFFFFFFF, rate * align & 0xFFFFFFFF, align & 0xFFFF, bits)
    size = len(samples) if claimed is None else claimed
    head = struct.pack("<IHHIIHH", *fields)
    return (
        b"RIFF"
        + struct.pack("<I", (size + 36) & 0xFFFFFFFF)
        + b"WAVEfmt "
        + head
        + b"data"
        + struct.pack("<I", size)
        + samples
    )


def absurd_sample_rates(rng: Random, recordings: Recordings) -> Made:
    """Sound that claims one sample a second, or four thousand million, or no channels, or 65,535."""
    speech = (recordings.stretch(rng).sound * 20_000).astype("<i2").tobytes()
    rate = rng.choice([0, 1, 2, 10, 100, 999, 3_000_000, 0x7FFFFFFF, 0xFFFFFFFF])
    channels, bits = rng.choice([1, 1, 1, 0, 2, 255, 65_535]), rng.choice([16, 16, 16, 0, 1, 8, 24, 64, 255])
    return Made(".wav", wave(speech, rate, channels, bits, rng.choice([None, None, 0, 0xFFFFFFFF])))


def absurd_frame_rates(rng: Random, recordings: Recordings) -> Made:
    """Video of a frame a day, or of a million frames a second."""
    suffix = rng.choice([".mp4", ".mkv", ".avi", ".mov"])
    container, video, audio = FORMATS[suffix]
    fps = rng.choice([Fraction(1, 86_400), Fraction(1, 1000), Fraction(1, 10), Fraction(1000), Fraction(60_000)])
    try:
        return Made(suffix, coded(recordings.stretch(rng), container, video, rng.choice([audio, ""]), fps=fps))
    except (av.FFmpegError, OverflowError, ValueError):  # FFmpeg does not write it so
        return absurd_fields(rng, recordings)


def distant_stamps(rng: Random, recordings: Recordings) -> Made:
    """Time stamps that step by minutes or days, go back, or jump about: a few packets claim years."""
    suffix = rng.choice([".mkv", ".mp4", ".ts", ".flv", ".mov"])
    step = rng.choice([0.5, 60.0, 3500.0, 90_000.0])
    chosen, turn = rng.choice(["steady", "jumps", "back"]), 0

    def retime(packet: Any) -> None:
        nonlocal turn
        if packet.dts is None or packet.pts is None:
            return
        turn += 1
        away = step * (turn if chosen == "steady" else rng.random() < 0.1 if chosen == "jumps" else -turn / 100)
        ticks = int(away / packet.time_base)
        packet.pts += ticks
        packet.dts += ticks

    try:
        return Made(suffix, coded(recordings.stretch(rng), *FORMATS[suffix], retime=retime))
    except (av.FFmpegError, OverflowError, ValueError):  # FFmpeg does not write it so
        return absurd_fields(rng, recordings)


def silence(rng: Random, recordings: Recordings) -> Made:
    """Up to ten minutes of nothing, in kilobytes."""
    seconds = rng.choice([60, 120, 600])
    file = io.BytesIO()
    with av.open(file, "w", format="flac") as out:
        stream = out.add_stream("flac", rate=8000, layout="mono")
        for _ in range(seconds):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
            frame.sample_rate = 8000
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return Made(".flac", file.getvalue(), evidence=False, lasts=seconds)


def image_sizes(rng: Random, recordings: Recordings) -> Made:
    """Images of one pixel, a line of pixels, or of hundreds of millions that compress to nothing."""
    height, width = rng.choice([(1, 1), (2, 2), (1, 4000), (4000, 1), (16, 16), (4320, 7680), (12_000, 12_000)])
    codec = "png" if rng.random() < 0.6 or min(height, width) < 16 else "mjpeg"
    blank = Images([np.zeros((height, width, 3), np.uint8)] * 2, np.zeros(RATE, np.float32))
    suffix, container = rng.choice([(".avi", "avi"), (".mov", "mov")])
    return Made(suffix, coded(blank, container, codec, rng.choice(["", "pcm_s16le"])), evidence=False)


def no_pixels(rng: Random, recordings: Recordings) -> Made:
    """A container says that its images are 0 by 0, or have another size than they have."""
    made = recordings.draw(rng, ".mp4", ".mov", ".avi", ".mjpeg.avi", ".wmv", ".mkv", ".webm")
    data = bytearray(made.data)
    patterns = [struct.pack(form, 240, 240) for form in (">HH", "<HH", ">II", "<II", ">II")]
    patterns.append(struct.pack(">II", 240 << 16, 240 << 16))
    size = rng.choice([0, 0, 0, 1, 3, 0xFFFF])
    for pattern in patterns:
        at = data.find(pattern)
        while at >= 0:
            data[at : at + len(pattern)] = struct.pack(f">{len(pattern) // 4}I", *[size] * (len(pattern) // 4))
            at = data.find(pattern, at + 1)
    for element in (b"\xb0\x81\xf0", b"\xba\x81\xf0"):
        at = data.find(element)
        if at >= 0:
            data[at + 2] = size & 0xFF
    return Made(made.suffix, bytes(data))


def empty_promises(rng: Random, recordings: Recordings) -> Made:
    """The tables of a recording without the recording; they may claim that it lasts for years."""
    made = recordings.draw(rng, ".mp4", ".m4a", ".mov")
    data = bytearray(made.data)
    for name in (b"mvhd", b"mdhd", b"tkhd"):
        at = data.find(name)
        while at >= 0:
            struct.pack_into(">I", data, at + (24 if name == b"tkhd" else 20), rng.choice(EXTREMES))
            at = data.find(name, at + 4)
    media = next(box for box in _boxes(made.data) if box.name == b"mdat")
    if rng.random() < 0.5:
        data[media.start + 8 : media.end] = bytes(media.end - media.start - 8)
    else:
        del data[media.start + 8 : media.end]
    return Made(made.suffix, bytes(data), evidence=False)


def many_streams(rng: Random, recordings: Recordings) -> Made:
    """A container of dozens of streams, hardly any of which holds anything."""
    stretch, file = recordings.stretch(rng), io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        tracks = [_audio_stream(out, "pcm_s16le") for _ in range(rng.choice([12, 40]))]
        images = _video_stream(out, "mjpeg", stretch.frames[0].shape, Fraction(FPS))
        frame = av.VideoFrame.from_ndarray(stretch.frames[0], format="rgb24").reformat(format=images.pix_fmt)
        frame.pts, frame.time_base = 0, Fraction(1, FPS)
        out.mux(images.encode(frame))
        for track in tracks[: rng.choice([0, 1, 3])]:
            for sound in _audio_frames(stretch.sound, track):
                out.mux(track.encode(sound))
    return Made(".mkv", file.getvalue())


KINDS: Final[dict[str, Callable[[Random, Recordings], Made]]] = {
    kind.__name__: kind
    for kind in (
        bit_flips,
        header_flips,
        cut,
        holes,
        swapped_blocks,
        renamed,
        glued,
        foreign_header,
        random_bytes,
        playlists,
        swapped_boxes,
        wrong_sizes,
        absurd_fields,
        absurd_chunks,
        absurd_elements,
        absurd_sample_rates,
        absurd_frame_rates,
        distant_stamps,
        silence,
        image_sizes,
        no_pixels,
        empty_promises,
        many_streams,
    )
}
