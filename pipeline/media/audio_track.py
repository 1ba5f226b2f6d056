"""One audio stream as mono sound at 16 kHz in step with the media clock, and several as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NoReturn

import numpy as np

from emopipe.constants import SAMPLE_RATE
from emopipe.errors import Reason
from emopipe.pipeline.media.clock import Stamped, StreamClock, Timeline
from emopipe.pipeline.media.damage import DamageLog
from emopipe.pipeline.media.sound import Sound

#: Sound that is further than this from where its time stamps want it is put right by silence or a cut, in seconds.
MAX_AUDIO_JITTER: Final = 0.05
#: Levels of channels are compared in blocks of this many seconds.
BLOCK: Final = 0.5
#: A block is loud when a channel is within this factor (40 dB) of the loudest block.
LOUD: Final = 0.01
#: Channels cancel where their mix has less than this share (-12 dB) of what unrelated channels would add up to.
CANCELLED: Final = 0.25
#: A mix loses something when channels cancel for so many seconds.
LEAST_CANCELLED: Final = 1.0
#: A track whose loudest sample is below this (-80 dB) is silent.
SILENT: Final = 1e-4
#: Frames of more channels are not looked at channel by channel: PyAV cannot read their planes.
MANY_CHANNELS: Final = 8
#: No microphone gives fewer samples a second, and no recorder more: at other rates, nobody can be heard.
SAMPLE_RATES: Final = range(1_000, 1_000_000)
#: Samples mixed at a time.
CHUNK: Final = 60 * SAMPLE_RATE


class AudioTrack:
    """Collects the decoded frames of an audio stream.

    Args:
        timeline: of the file.
        apart: whether the channels are kept apart; else they are mixed.

    Attributes:
        sounds: the mix, or one for each channel; sample 0 at time 0.
        damage: of the stream.
    """

    def __init__(self, timeline: Timeline, *, apart: bool = False) -> None:
        self.sounds: list[Sound] = []
        self.damage = DamageLog("audio")
        self.clock: StreamClock[Any] = StreamClock(timeline)
        self._apart = apart
        self._received = 0.0
        self._length = 0
        self._channels = 1
        self._format: tuple[object, ...] | None = None
        self._resampler: Any = None
        self._levels = _Levels()

    def prepare(self, packet: Any) -> None:
        """Every packet is decoded."""

    def add(self, frame: Any) -> Iterator[NoReturn]:
        """Take over a decoded frame; gives none back."""
        stamp = None if frame.time is None else float(frame.time)
        if frame.sample_rate not in SAMPLE_RATES or not frame.layout.nb_channels:
            self.damage.sign(self.clock.estimate(stamp), f"{frame.sample_rate} samples a second")
            return iter(())
        for time, placed in self.clock.push(Stamped(stamp, frame.samples / frame.sample_rate, frame)):
            self._append(time, placed)
        return iter(())

    def close(self) -> Iterator[NoReturn]:
        """Take over what is still on its way."""
        for time, placed in self.clock.flush():
            self._append(time, placed)
        self._drain()
        return iter(())

    def faults(self) -> list[Reason]:
        """What is wrong with the stream."""
        return [*self.clock.faults(), *self.damage.reasons(self.clock.strays)]

    @property
    def loses(self) -> bool:
        """Whether channels cancel each other in the mix, or stand for nobody knows what."""
        return self._levels.unknown_layout or self._levels.cancelled() >= LEAST_CANCELLED

    def _append(self, time: float, frame: Any) -> None:
        """Take over a frame in its place, unless what came before has run past its time."""
        ahead = self._received - time
        if ahead > MAX_AUDIO_JITTER:
            return
        if ahead < -MAX_AUDIO_JITTER:
            self.damage.gap(self._received, time)
            self._drain()
            self._fill(-ahead)
        self._received += frame.samples / frame.sample_rate
        self._levels.add(time, frame)
        self._resample(frame)

    def _fill(self, seconds: float) -> None:
        """Silence for a late start or lost packets."""
        self._received += seconds
        self._append_silence(seconds)

    def _append_silence(self, seconds: float) -> None:
        samples = round(seconds * SAMPLE_RATE)
        self._length += samples
        for sound in self.sounds:
            sound.append_silence(samples)

    def _resample(self, frame: Any) -> None:
        """Convert a frame; a stream may change its rate and its channels on the way, also to what nothing can mix."""
        import av

        now = (frame.format.name, frame.layout.name, frame.sample_rate)
        if now != self._format:
            self._drain()
            layout = frame.layout if self._apart else "mono"
            self._resampler = av.AudioResampler(format="flt", layout=layout, rate=SAMPLE_RATE)
            self._format, self._channels = now, frame.layout.nb_channels if self._apart else 1
        frame.pts = None
        try:
            resampled = self._resampler.resample(frame)
        except av.FFmpegError:
            self._resampler = self._format = None
            self.damage.sign(self._received, f"{frame.layout.nb_channels} channels that cannot be mixed")
            self._append_silence(frame.samples / frame.sample_rate)
        else:
            self._keep(resampled)

    def _drain(self) -> None:
        """Take over what the resampler still holds."""
        if self._resampler is not None:
            self._keep(self._resampler.resample(None))
            self._resampler = self._format = None

    def _keep(self, resampled: Sequence[Any]) -> None:
        """Append samples to the sounds; those of channels that are not there now get silence."""
        for out in resampled:
            samples = np.nan_to_num(out.to_ndarray().reshape(-1, self._channels).T)
            while len(self.sounds) < len(samples):
                self.sounds.append(Sound())
                self.sounds[-1].append_silence(self._length)
            for number, sound in enumerate(self.sounds):
                sound.append(samples[number] if number < len(samples) else np.zeros(samples.shape[1], np.float32))
            self._length += samples.shape[1]


class _Levels:
    """How loud the channels of a stream are, and how much of them is left in their mix, block by block."""

    def __init__(self) -> None:
        self.unknown_layout = False
        self._apart: dict[int, float] = {}
        self._mixed: dict[int, float] = {}

    def add(self, time: float, frame: Any) -> None:
        """Note the energy of a decoded frame at a time in seconds."""
        channels = frame.layout.nb_channels
        if channels < 2:
            return
        if channels >= MANY_CHANNELS or (channels > 2 and frame.layout.channels[0].name == "NONE"):
            self.unknown_layout = True
            return
        samples = _samples_by_channel(frame)
        block, seconds = int(time / BLOCK), frame.samples / frame.sample_rate
        apart, mixed = np.square(samples).mean() / len(samples), np.square(samples.mean(axis=0)).mean()
        self._apart[block] = self._apart.get(block, 0.0) + float(apart) * seconds
        self._mixed[block] = self._mixed.get(block, 0.0) + float(mixed) * seconds

    def cancelled(self) -> float:
        """Seconds of loud blocks in which the channels cancel each other."""
        loudest = max(self._apart.values(), default=0.0)
        return BLOCK * sum(
            LOUD**2 * loudest < energy and self._mixed[block] < CANCELLED**2 * energy
            for block, energy in self._apart.items()
        )


def _samples_by_channel(frame: Any) -> np.ndarray:
    """Samples (channels, samples) of a frame as float32 within -1..1; without the low-frequency channel."""
    samples: np.ndarray = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    names = [channel.name for channel in frame.layout.channels]
    samples = samples[[number for number, name in enumerate(names) if name != "LFE"]]
    if samples.dtype.kind == "f":
        return np.nan_to_num(samples.astype(np.float32))
    middle = 128.0 if samples.dtype == np.uint8 else 0.0
    return (samples.astype(np.float32) - middle) / (np.iinfo(samples.dtype).max - middle)


def mixed(sounds: Sequence[Sound]) -> Sound:
    """The mean of sounds of one clock, silent ones left out."""
    heard = [sound for sound in sounds if sound.peak > SILENT] or list(sounds[:1])
    if len(heard) == 1:
        return heard[0]
    mix = Sound()
    for start in range(0, max(map(len, heard)), CHUNK):
        parts = [sound[start : start + CHUNK] for sound in heard]
        total = np.zeros(max(map(len, parts)), np.float32)
        for part in parts:
            total[: len(part)] += part
        mix.append(total / len(heard))
    return mix
