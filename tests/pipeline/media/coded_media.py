"""Transport streams whose every frame shows its number and whose sound is unlike itself anywhere else."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from scipy.signal import correlate

from emopipe.constants import SAMPLE_RATE
from emopipe.errors import Reason
from emopipe.pipeline.media.decoding import Media

FPS = 25
SECONDS = 20
BITS = 10
SOUND_RATE = 48_000
#: A hole reaches at most so many bytes.
LONGEST_HOLE = 60_000
#: Bytes of a transport packet.
PACKET = 188


def numbered_image(number: int) -> np.ndarray:
    """A frame (96, 160, 3) that shows a number in white and black blocks, one for each bit."""
    image = np.full((96, 160, 3), 128, np.uint8)
    for bit in range(BITS):
        row, column = divmod(bit, 5)
        image[8 + row * 40 : 48 + row * 40, column * 32 : column * 32 + 32] = 235 if (number >> bit) & 1 else 20
    return image


def shown_number(image: np.ndarray) -> int | None:
    """The number that a frame shows; None where it cannot be read."""
    number = 0
    for bit in range(BITS):
        row, column = divmod(bit, 5)
        level = image[18 + row * 40 : 38 + row * 40, column * 32 + 8 : column * 32 + 24].mean()
        if 90 < level < 165:
            return None
        number |= int(level > 128) << bit
    return number


def write_coded(path: Path, video_codec: str, audio_codec: str) -> None:
    """Write SECONDS of numbered frames and noise, a key frame every second."""
    noise = np.random.default_rng(0).standard_normal(SECONDS * SOUND_RATE) * 0.2
    noise = np.convolve(noise, np.hanning(9) / np.hanning(9).sum(), "same").astype(np.float32)
    step = SOUND_RATE // FPS
    with av.open(str(path), "w", format="mpegts") as container:
        options = {"x265-params": "log-level=none"} if video_codec == "libx265" else {}
        video = container.add_stream(video_codec, rate=FPS, options=options)
        video.width, video.height, video.pix_fmt, video.gop_size, video.bit_rate = 160, 96, "yuv420p", FPS, 600_000
        audio = container.add_stream(audio_codec, rate=SOUND_RATE, layout="mono")
        audio.bit_rate = 128_000
        format_name, size = audio.codec_context.format.name, audio.codec_context.frame_size or 1024
        resampler = av.AudioResampler(format=format_name, layout="mono", rate=SOUND_RATE, frame_size=size)
        for number in range(SECONDS * FPS):
            frame = av.VideoFrame.from_ndarray(numbered_image(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(video.encode(frame))
            chunk = av.AudioFrame.from_ndarray(noise[None, number * step : (number + 1) * step], "fltp", "mono")
            chunk.sample_rate, chunk.pts, chunk.time_base = SOUND_RATE, number * step, Fraction(1, SOUND_RATE)
            for part in resampler.resample(chunk):
                container.mux(audio.encode(part))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


@dataclass(frozen=True)
class Decoded:
    """Times and numbers of the frames that can be read, the sound, and what was told of damage."""

    frames: list[tuple[float, int]]
    sound: np.ndarray
    faults: list[Reason]


def decode(path: Path) -> Decoded:
    """Decode every frame of a coded file."""
    with Media(path, 1) as media:
        shown = [(frame.time, shown_number(frame.rgb)) for frame in media.frames(FPS)]
        sound = np.asarray(media.audio)
        return Decoded([(t, n) for t, n in shown if n is not None], sound, media.video_faults + media.audio_faults)


@dataclass(frozen=True)
class Packets:
    """Where the packets of a coded file lie: position in bytes and time in seconds, and times of key frames."""

    places: list[tuple[int, float]]
    key_frames: list[float]


def packets_of(path: Path) -> Packets:
    """Look up the packets of a coded file."""
    with av.open(str(path)) as container:
        packets = [
            (packet.pos, float(packet.pts * packet.time_base), packet.is_keyframe and packet.stream.type == "video")
            for packet in container.demux()
            if packet.pts is not None and packet.pos
        ]
    keys = [time for _, time, key in packets if key]
    return Packets([(pos, time - keys[0]) for pos, time, _ in packets], [time - keys[0] for time in keys])


def with_holes(data: bytes, packets: Packets, seed: int) -> tuple[bytes, list[tuple[float, float]]]:
    """Data with one to three holes, and the stretches in seconds that these damage, each up to the next key frame.

    A hole is bytes that are gone, whole transport packets that are gone, or random bytes in place of others.
    """
    rng = np.random.default_rng(seed)
    left, end, zones = b"", 0, []
    for at in sorted(int(one) for one in rng.integers(2000, len(data) - 2000, int(rng.integers(1, 4)))):
        start = max(at, end)
        size = int(min(rng.integers(200, LONGEST_HOLE), len(data) - start))
        kind = rng.integers(3)
        if kind == 1:
            start += -start % PACKET
            size -= size % PACKET
        random = rng.integers(0, 256, min(size, 3000), dtype=np.uint8).tobytes() if kind == 2 else b""
        size = len(random) or size
        left += data[end:start] + random
        end = min(start + size, len(data))
        inside = [time for pos, time in packets.places if start - 30_000 <= pos <= end + 5000] or [0.0]
        later = [time for time in packets.key_frames if time > max(inside) + 0.05]
        zones.append((min(inside) - 0.3, (later[0] if later else SECONDS) + 0.1))
    return left + data[end:], zones


def sound_offset(whole: np.ndarray, damaged: np.ndarray, at: int) -> float | None:
    """How many seconds later than it should the sound at a sample is; None where it is silent or of nowhere near."""
    window = damaged[at : at + SAMPLE_RATE // 4]
    if len(window) < SAMPLE_RATE // 4 or np.abs(window).max() < 1e-3:
        return None
    low = max(0, at - 3 * SAMPLE_RATE)
    likeness = correlate(whole[low : at + 3 * SAMPLE_RATE], window, "valid", "fft")
    best = int(likeness.argmax())
    return None if likeness[best] < 0.8 * np.dot(window, window) else (at - low - best) / SAMPLE_RATE
