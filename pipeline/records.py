"""The records that flow through the pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from emopipe.extractors.contracts import Turn
    from emopipe.extractors.windows import Sequence

#: Why an utterance lacks a modality.
AbsenceReason = Literal[
    "no_face",
    "other_face",
    "speaker_not_seen",
    "no_speech",
    "no_video_stream",
    "no_audio_stream",
    "too_short",
    "decode_error",
    "not_requested",
    "no_baseline",
]
Role = Literal["interviewer", "interviewee"]


@dataclass(frozen=True)
class Person:
    """Somebody who speaks in a clip.

    Attributes:
        number: as in turns and spans, in the order of first words.
        name: the enrolled name, else "S1", "S2", ...
        role: None when nobody else speaks.
        tracks: face tracks that are theirs; () when their face is never seen.
        talk: seconds of speech.
        reference: the given baseline clip is of them.
    """

    number: int
    name: str
    role: Role | None = None
    tracks: tuple[int, ...] = ()
    talk: float = 0.0
    reference: bool = False


@dataclass(frozen=True)
class Absent:
    """Stands in the place of features that there are none of."""

    reason: AbsenceReason


@dataclass(frozen=True)
class Source:
    """Where the signals of one clip, or of one row of a labels table, come from.

    Attributes:
        id: unique within a run or dataset.
        media: a video or sound file; gives face, voice and words.
        audio: a sound file that replaces the media file's sound.
        image: a picture that gives the face when there is no video.
        text: the words, when they are known; else they are recognised.
        start, end: seconds; the stretch of the media file that is one utterance. None: the whole file.
        speaker: who speaks, when known.
    """

    id: str
    media: Path | None = None
    audio: Path | None = None
    image: Path | None = None
    text: str | None = None
    start: float | None = None
    end: float | None = None
    speaker: str | None = None

    @property
    def path(self) -> Path | None:
        """The file that stands for the source in messages."""
        return self.media or self.audio or self.image


@dataclass(frozen=True)
class Utterance:
    """The unit of record: a stretch of a clip with its features.

    Attributes:
        source: the source's id.
        start, end: seconds on the media clock.
        text: the words, "" when there are none.
        language: ISO 639-1, None when unknown.
        speaker: who speaks, None when unknown.
        role: the speaker's part in an interview; None when unknown, or when nobody else speaks.
        overlap: share of its speech in which somebody else may be speaking too.
        features: modality -> sequence, for the modalities that are present.
        absent: modality -> reason, for those that are not.
        quality: modality -> 0..1, for those that are present.
    """

    source: str
    start: float
    end: float
    text: str = ""
    language: str | None = None
    speaker: str | None = None
    role: Role | None = None
    overlap: float = 0.0
    features: dict[str, Sequence] = field(default_factory=dict)
    absent: dict[str, AbsenceReason] = field(default_factory=dict)
    quality: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Extraction:
    """What was extracted from one source.

    Attributes:
        utterances: in order of time.
        duration: seconds of the media.
        warnings: what went wrong without stopping the work, for a person to read.
        info: facts about the media (width, height, frame rate, language), and `unverified_weights`: names of weights
            that measured it and are none of the catalogue's.
        people: who speaks, in the order of first words.
        turns: who speaks when, in order.
    """

    source: Source
    utterances: list[Utterance]
    duration: float
    warnings: list[str]
    info: dict[str, Any]
    people: tuple[Person, ...] = ()
    turns: tuple[Turn, ...] = ()
