"""What a source is like before anything is decoded, and its sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from emopipe.errors import Reason, reason
from emopipe.pipeline.media.audio_track import mixed
from emopipe.pipeline.media.decoding import Media
from emopipe.pipeline.media.sound import Sound
from emopipe.pipeline.media.streams import StreamFacts
from emopipe.pipeline.records import MediaInfo
from emopipe.pipeline.stages.stage import Context, Inputs, Stage

if TYPE_CHECKING:
    from emopipe.extractors.speech.vad import VoiceActivity

#: Value of `speech.tracks` with which each audio track is a person's microphone.
SPEAKERS_APART: Final = "speakers"
#: A mix that holds at least this share of the speech of the best channel is kept.
MIX_KEEPS: Final = 0.95


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
        info = {
            "width": media.info.width,
            "height": media.info.height,
            "frame_rate": media.info.frame_rate,
            "pixel_aspect": media.info.pixel_aspect,
        }
    opened = {one.path: one for one in (inputs.media, inputs.sound_media) if one is not None}
    streams = [facts for one in opened.values() for facts in one.info.streams]
    info["streams"] = [asdict(facts) for facts in streams]
    faults = {fault: None for file in examined.values() for fault in file.faults}
    faults |= dict.fromkeys(_choice(streams))
    return Probed(
        max((file.duration for file in examined.values()), default=0.0),
        info,
        sorted(faults, key=lambda one: one.what),
    )


def _choice(streams: Sequence[StreamFacts]) -> list[Reason]:
    """Which streams of several are used, as a note; none where there is nothing to choose."""
    notes = []
    for kind in ("video", "audio"):
        alike = [facts for facts in streams if facts.kind == kind]
        used = [_named(facts) for facts in alike if facts.used]
        left = [_named(facts) for facts in alike if not facts.used]
        if len(alike) > 1:
            rest = f"; {', '.join(left)} not" if left else ""
            together = " together" if len(used) > 1 else ""
            notes.append(f"of {len(alike)} {kind} streams, {', '.join(used) or 'none'} used{together}{rest}")
    return [reason("streams_chosen", "; ".join(notes))] if notes else []


def _named(facts: StreamFacts) -> str:
    name = facts.title or facts.language
    return f"number {facts.index}" + (f" ({name})" if name else "")


class SoundInputs(Inputs):
    """The file whose sound is heard."""

    sound_media: Media | None
    wanted: frozenset[str]


@dataclass(frozen=True)
class DecodedSound:
    """The sound of a source, mono at 16 kHz.

    Attributes:
        sound: None without an audio stream or with an empty one.
        tracks: where each of several people has a microphone: the sound of each; else none.
        sound_faults: what was damaged in it.
    """

    sound: Sound | None
    tracks: list[Sound]
    sound_faults: list[Reason]


def decode_sound(inputs: SoundInputs, context: Context) -> DecodedSound:
    """Decode the whole sound of a source; where channels cancel in the mix, the one with the most speech is heard."""
    media = inputs.sound_media if {"voice", "text"} & inputs.wanted else None
    if media is None or not media.info.has_audio:
        return DecodedSound(None, [], [])
    if context.settings.speech.tracks == SPEAKERS_APART:
        tracks = media.tracks if len(media.tracks) > 1 else media.channels()[0]
        return DecodedSound(mixed(tracks), tracks if len(tracks) > 1 else [], media.audio_faults)
    sound: Sound | None = media.audio
    notes: list[Reason] = []
    if any(media.mixes_lose):
        sound, notes = _without_cancelling(media, context.backends.vad)
    return DecodedSound(sound if sound is not None and len(sound) else None, [], [*notes, *media.audio_faults])


def _without_cancelling(media: Media, vad: VoiceActivity) -> tuple[Sound, list[Reason]]:
    """The mix of the tracks, of each its mix or the channel in which clearly more is spoken."""
    parts: list[Sound] = []
    notes: list[Reason] = []
    for number, (mix, channels) in enumerate(zip(media.tracks, media.channels(), strict=True), 1):
        spoken = [_spoken_seconds(one, vad) for one in (mix, *channels)]
        best = int(np.argmax(spoken))
        if not media.mixes_lose[number - 1] or spoken[0] >= MIX_KEEPS * spoken[best]:
            parts.append(mix)
            continue
        parts.append(channels[best - 1])
        what = (
            f"channel {best} of {len(channels)} of audio track {number} was heard alone: "
            f"it holds {spoken[best]:.1f} s of speech, the mix {spoken[0]:.1f} s"
        )
        notes.append(reason("channels_cancel", what, modality="voice"))
    return mixed(parts), notes


def _spoken_seconds(sound: Sound, vad: VoiceActivity) -> float:
    return sum(end - start for start, end in vad.segments(sound))


PROBE: Final = Stage(
    "probe",
    4,
    ProbeInputs,
    Probed,
    probe,
    settings=("speech.tracks",),
    libraries=("av",),
    signals=("media", "sound_media"),
)
SOUND: Final = Stage(
    "sound",
    3,
    SoundInputs,
    DecodedSound,
    decode_sound,
    libraries=("av",),
    settings=("speech.tracks", "speech.vad", "speech.vad_threshold"),
    backend="vad",
    modalities=("voice", "text"),
    signals=("sound_media",),
    stored=False,
)
