"""Settings about people that cannot be meant, and the voices of enrolled people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from emopipe.errors import ConfigError, InputError, InputNotFound, ReferenceClipUnusable
from emopipe.pipeline.config import PeopleConfig, given_clip
from emopipe.pipeline.media.decoding import Media

if TYPE_CHECKING:
    import numpy as np

    from emopipe.extractors.contracts import VoiceEncoder
    from emopipe.extractors.speech.vad import VoiceActivity


def check(config: PeopleConfig) -> None:
    """Refuse settings that cannot be meant.

    Raises:
        ConfigError: naming the setting; InputNotFound for a clip that is not there, ReferenceClipUnusable for one that
            is not a recording.
    """
    subject = config.subject
    if subject and subject != "longest" and not subject.isdecimal() and subject not in config.enrol:
        hint = "Give a number in the order of first words, longest, or a name enrolled with --enrol NAME=CLIP"
        raise ConfigError(f"nobody is enrolled as {subject!r}", hint=hint)
    for clip in map(Path, given_clips(config)):
        if not clip.is_file():
            raise InputNotFound("there is no such clip to learn a person from", path=clip)
        with learning_from(clip), Media(clip):
            pass


def given_clips(config: PeopleConfig) -> list[str]:
    """The clips from which people are learnt."""
    return [*config.enrol.values(), *([config.baseline] if given_clip(config.baseline) else [])]


def enrol(config: PeopleConfig, vad: VoiceActivity, encoder: VoiceEncoder) -> dict[str, np.ndarray]:
    """Name -> mean voice of the enrolment clip.

    Raises:
        ReferenceClipUnusable: for a clip that cannot be read, or without speech.
    """
    return {name: voice_of_clip(Path(clip), vad, encoder) for name, clip in config.enrol.items()}


def voice_of_clip(clip: Path, vad: VoiceActivity, encoder: VoiceEncoder) -> np.ndarray:
    """The mean voice of a clip in which one person speaks.

    Raises:
        ReferenceClipUnusable: for a clip that cannot be read, or without speech.
    """
    from emopipe.extractors.speech.diarize import voice_of

    with learning_from(clip), Media(clip) as media:
        sound = media.audio
        speech = vad.segments(sound) if sound is not None else []
        voice = voice_of(sound, speech, encoder) if sound is not None else None
    if voice is None:
        hint = "Give one in which the person speaks, alone, for some seconds"
        raise ReferenceClipUnusable("nobody speaks in the clip to learn a person from", path=clip, hint=hint)
    return voice


@contextmanager
def learning_from(clip: Path) -> Iterator[None]:
    """While a clip is read from which a person is learnt: a failure to read it is not the recording's.

    Raises:
        ReferenceClipUnusable: in the place of what else is wrong with the clip.
    """
    try:
        yield
    except ReferenceClipUnusable:
        raise
    except InputError as error:
        what = f"the clip to learn a person from cannot be used: {error.what}"
        raise ReferenceClipUnusable(what, path=clip, hint=error.hint) from error
