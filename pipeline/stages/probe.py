"""What a source is like before anything is decoded, and its sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from emopipe.errors import Reason
from emopipe.pipeline.media.decoding import Media
from emopipe.pipeline.media.sound import Sound
from emopipe.pipeline.records import MediaInfo
from emopipe.pipeline.stages.stage import Context, Inputs, Stage


class ProbeInputs(Inputs):
    """The files of a source."""

    media: Media | None
    sound_media: Media | None


@dataclass(frozen=True)
class Probed:
    """How long a source is in seconds, what its video is like, and what is wrong with its files as a whole."""

    duration: float
    info: MediaInfo
    file_faults: list[Reason]


def probe(inputs: ProbeInputs, context: Context) -> Probed:
    """Measure how long a source is and look at its streams; nothing is decoded."""
    examined = {media.path: media.examine() for media in (inputs.media, inputs.sound_media) if media is not None}
    media = inputs.media
    info: MediaInfo = {}
    if media is not None:
        info = {"width": media.info.width, "height": media.info.height, "frame_rate": media.info.frame_rate}
    faults = {fault: None for _, faults in examined.values() for fault in faults}
    return Probed(
        max((duration for duration, _ in examined.values()), default=0.0),
        info,
        sorted(faults, key=lambda one: one.what),
    )


class SoundInputs(Inputs):
    """The file whose sound is heard."""

    sound_media: Media | None
    wanted: frozenset[str]


@dataclass(frozen=True)
class DecodedSound:
    """Mono sound at 16 kHz, None without an audio stream or with an empty one; and what was damaged in it."""

    sound: Sound | None
    sound_faults: list[Reason]


def decode_sound(inputs: SoundInputs, context: Context) -> DecodedSound:
    """Decode the whole sound of a source."""
    media = inputs.sound_media if {"voice", "text"} & inputs.wanted else None
    if media is None or not media.info.has_audio:
        return DecodedSound(None, [])
    sound = media.audio
    return DecodedSound(sound if sound is not None and len(sound) else None, media.sound_faults)


PROBE: Final = Stage("probe", 1, ProbeInputs, Probed, probe, libraries=("av",), signals=("media", "sound_media"))
SOUND: Final = Stage(
    "sound",
    1,
    SoundInputs,
    DecodedSound,
    decode_sound,
    libraries=("av",),
    modalities=("voice", "text"),
    signals=("sound_media",),
    stored=False,
)
