"""Settings about people that cannot be meant, and the voices of enrolled people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from emopipe.errors import ConfigError, InputNotFound, ReferenceClipUnusable
from emopipe.pipeline.config import PeopleConfig, given_clip
from emopipe.pipeline.media.decoding import Media

if TYPE_CHECKING:
    import numpy as np

    from emopipe.extractors.contracts import VoiceEncoder
    from emopipe.extractors.speech.vad import VoiceActivity


def check(config: PeopleConfig) -> None:
    """Refuse settings that cannot be meant.

    Raises:
        ConfigError: naming the setting; InputNotFound for a clip that is not there.
    """
    subject = config.subject
    if subject and subject != "longest" and not subject.isdecimal() and subject not in config.enrol:
        hint = "Give a number in the order of first words, longest, or a name enrolled with --enrol NAME=CLIP"
        raise ConfigError(f"nobody is enrolled as {subject!r}", hint=hint)
    for clip in map(Path, given_clips(config)):
        if not clip.is_file():
            raise InputNotFound("there is no such clip to learn a person from", path=clip)


def given_clips(config: PeopleConfig) -> list[str]:
    """The clips from which people are learnt."""
    return [*config.enrol.values(), *([config.baseline] if given_clip(config.baseline) else [])]


def enrol(config: PeopleConfig, vad: VoiceActivity, encoder: VoiceEncoder) -> dict[str, np.ndarray]:
    """Name -> mean voice of the enrolment clip.

    Raises:
        InputError: for a clip that cannot be used, ConfigError for one without speech.
    """
    return {name: voice_of_clip(Path(clip), vad, encoder) for name, clip in config.enrol.items()}


def voice_of_clip(clip: Path, vad: VoiceActivity, encoder: VoiceEncoder) -> np.ndarray:
    """The mean voice of a clip in which one person speaks.

    Raises:
        InputError: for a clip that cannot be used, ConfigError for one without speech.
    """
    from emopipe.extractors.speech.diarize import voice_of

    with Media(clip) as media:
        sound = media.audio
        speech = vad.segments(sound) if sound is not None else []
        voice = voice_of(sound, speech, encoder) if sound is not None else None
    if voice is None:
        hint = "Give one in which the person speaks, alone, for some seconds"
        raise ReferenceClipUnusable("nobody speaks in the clip to learn a person from", path=clip, hint=hint)
    return voice
