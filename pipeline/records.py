"""The records that flow through the pipeline, and those that come out of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, TypedDict

from emopipe.errors import Reason

if TYPE_CHECKING:
    from emopipe.extractors.contracts import Turn
    from emopipe.extractors.windows import FeatureSequence
    from emopipe.models.prediction import Prediction

#: Why an utterance lacks a modality.
AbsenceReason = Literal[
    "no_face",
    "other_face",
    "speaker_not_seen",
    "no_speech",
    "no_words",
    "words_unsure",
    "language_not_read",
    "no_video_stream",
    "no_audio_stream",
    "no_recording",
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
        name: the name that was enrolled or told, else "S1", "S2", ...
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


def is_generic(speaker: str | None) -> bool:
    """Whether it is not a name but a number that every file gives anew (S1, S2, ...), or nothing."""
    return speaker is None or re.fullmatch(r"S\d+", speaker) is not None


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
        speaker: who speaks, when known; where several people do, who is interviewed.
        related: the recordings of that speaker.
    """

    id: str
    media: Path | None = None
    audio: Path | None = None
    image: Path | None = None
    text: str | None = None
    start: float | None = None
    end: float | None = None
    speaker: str | None = None
    related: Related | None = field(default=None, compare=False, repr=False)

    @property
    def path(self) -> Path | None:
        """The file that stands for the source in messages."""
        return self.media or self.audio or self.image


@dataclass(frozen=True)
class Related:
    """The recordings of a run in which one speaker is named: what is usual for them is told from all of these.

    Attributes:
        key: hash of all that is measured of them.
        sources: the recordings, in an order that does not depend on their names.
    """

    key: str
    sources: tuple[Source, ...]


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
    features: dict[str, FeatureSequence] = field(default_factory=dict)
    absent: dict[str, AbsenceReason] = field(default_factory=dict)
    quality: dict[str, float] = field(default_factory=dict)


class SpokenLanguage(TypedDict):
    """A part of a recording in which one language is spoken.

    `start` and `end` are seconds, `language` is an ISO 639-1 code, `probability` tells how sure the recogniser is of it
    and is None for a language that was given. `person` is the number of who speaks it, where each person has a track of
    their own; people may then speak several languages at once.
    """

    start: float
    end: float
    language: str
    probability: float | None
    person: NotRequired[int]


class MediaInfo(TypedDict, total=False):
    """Facts about a medium, where they are known.

    `language` is the ISO 639-1 code of the language that is spoken longest, and `languages` tells which one is spoken
    when, in order, even where no words are sure enough to be given; `width` and `height` are pixels, `frame_rate` is
    frames per second; `pixel_aspect` is the width of a pixel by its height; `streams` are those of the container (see
    :class:`~emopipe.pipeline.media.streams.StreamFacts`) and which of them are used;
    `unverified_weights` are names of weights that measured it and are not the catalogue's; `related_recordings` tells
    in how many recordings of the run its speaker is named, where the model reads features relative to the speaker's.
    """

    language: str | None
    languages: list[SpokenLanguage]
    width: int
    height: int
    frame_rate: float
    pixel_aspect: float
    streams: list[dict[str, object]]
    unverified_weights: list[str]
    related_recordings: int


@dataclass(frozen=True)
class Extraction:
    """What was extracted from one source.

    Attributes:
        utterances: in order of time.
        duration: seconds of the media.
        warnings: what went wrong without stopping the work.
        info: facts about the media.
        people: who speaks, in the order of first words.
        turns: who speaks when, in order.
    """

    source: Source
    utterances: list[Utterance]
    duration: float
    warnings: list[Reason]
    info: MediaInfo
    people: tuple[Person, ...] = ()
    turns: tuple[Turn, ...] = ()


# Results


@dataclass(frozen=True)
class Unit:
    """The unit of a number in the results, for the description of the outputs."""

    name: str


Seconds = Annotated[float, Unit("s, on the media clock")]
Share = Annotated[float, Unit("0..1")]
State = Literal["ok", "degraded", "failed"]


@dataclass(frozen=True)
class TurnResult:
    """A stretch of speech of one person.

    Attributes:
        start, end: when.
        person: number of the speaker; see `people`.
        overlap: half of it or more may be spoken over by somebody else.
    """

    start: Seconds
    end: Seconds
    person: int
    overlap: bool


@dataclass(frozen=True)
class Correction:
    """What somebody says of an utterance; the prediction stays as it is beside it. What was not corrected is None.

    Attributes:
        by: who corrected.
        when: date and time, ISO 8601; "" when it is not known.
        label: the class in place of the predicted one.
        value: the value of a regression.
        person: who speaks.
        text: the words.
        bounds: when it starts and ends.
        note: a remark.
        confirmed: it was looked at, and what is not corrected is right.
    """

    by: str
    when: str = ""
    label: str | None = None
    value: float | None = None
    person: str | None = None
    text: str | None = None
    bounds: tuple[Seconds, Seconds] | None = None
    note: str | None = None
    confirmed: bool = False

    def as_json(self) -> dict[str, object]:
        """As it is written to JSON: `by`, `when` and what was corrected."""
        given = {name: value for name, value in asdict(self).items() if value is not None and value is not False}
        return {**given, "when": self.when, **({} if self.bounds is None else {"bounds": list(self.bounds)})}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Correction:
        """As it was written."""
        return cls(**{**facts, "bounds": tuple(facts["bounds"]) if facts.get("bounds") else None})


@dataclass(frozen=True)
class UtteranceResult:
    """What was found and predicted of one utterance.

    Attributes:
        start, end: when.
        speaker: the name that was enrolled or told, or S1, S2, ... in the order of first words; None when unknown.
        role: the speaker's part in an interview; None when nobody else speaks.
        overlap: share of its speech in which somebody else may be speaking too.
        text: the words, "" when there are none.
        label: the likeliest class; None for a regression, or without evidence.
        value: the predicted value of a regression, in the units of the labels that it was trained on.
        probabilities: class -> calibrated probability.
        weights: present modality -> the model's share of it, summing to one.
        unimodal: present modality -> what it alone says, class -> calibrated probability (of a regression: `value` ->
            number).
        absent: modality -> code of the reason why it is absent.
        quality: present modality -> how well it was measured.
        confidence: probability of `label`; None for a regression.
        without: present modality -> what the answer would be without it, class -> probability (of a regression:
            `value` -> number); empty where no other modality is present, and for models with a language model inside.
        abstained: the model is too unsure to answer, or there was no evidence.
        unverified_weights: names of weights that measured it and are not the catalogue's.
        corrections: what people say of it, one for each.
    """

    start: Seconds
    end: Seconds
    speaker: str | None
    role: Role | None
    overlap: Share
    text: str
    label: str | None
    value: float | None
    probabilities: Mapping[str, Share]
    weights: Mapping[str, Share]
    unimodal: Mapping[str, Mapping[str, float]]
    absent: Mapping[str, AbsenceReason]
    quality: Mapping[str, Share]
    confidence: Share | None
    abstained: bool
    unverified_weights: tuple[str, ...] = ()
    without: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    corrections: Sequence[Correction] = ()

    @classmethod
    def of(
        cls, utterance: Utterance, prediction: Prediction, unverified: Sequence[str], least: float | None = None
    ) -> UtteranceResult:
        """Join an utterance and what is predicted for it; below a `least` confidence, where given, it is uncertain."""
        confidence, abstained = prediction.confidence, prediction.abstained
        if least is not None and prediction.label is not None and confidence is not None:
            abstained = confidence < least
        return cls(
            start=utterance.start,
            end=utterance.end,
            speaker=utterance.speaker,
            role=utterance.role,
            overlap=utterance.overlap,
            text=utterance.text,
            label=prediction.label,
            value=prediction.value,
            probabilities=prediction.probabilities,
            weights=prediction.weights,
            unimodal=prediction.unimodal,
            absent=utterance.absent,
            quality=utterance.quality,
            confidence=confidence,
            abstained=abstained,
            unverified_weights=tuple(unverified),
            without=prediction.without,
        )


@dataclass(frozen=True)
class Privacy:
    """What is hidden in the results of a recording.

    Attributes:
        pseudonyms: names are replaced.
        redacted: "names", "numbers": what is left out of the words.
        media: name of the file beside the results that is played in place of the recording; "": nothing is played;
            None: the recording itself.
        pitch: semitones by which the sound of that file is shifted.
    """

    pseudonyms: bool = False
    redacted: Sequence[str] = ()
    media: str | None = None
    pitch: float = 0.0

    def __bool__(self) -> bool:
        return self.pseudonyms or bool(self.redacted) or self.media is not None


@dataclass(frozen=True)
class FileResult:
    """What became of one input file.

    Attributes:
        media: the input.
        state: "ok"; "degraded" when a modality or part of the file was unusable; "failed" without any result.
        reasons: why it is not ok.
        duration: of the media; None when failed.
        info: facts about the media.
        checkpoint: id of the model.
        people: who speaks, in the order of first words.
        turns: who speaks when, in order.
        utterances: in order of time.
        computed: stage -> seconds of work, for the stages whose results were not in the store.
        keys: stage -> key of its result in the store.
        privacy: what is hidden; in documents only where something is.
    """

    media: Path
    state: State
    reasons: Sequence[Reason]
    duration: Seconds | None = None
    info: MediaInfo = field(default_factory=MediaInfo)
    checkpoint: str = ""
    people: Sequence[Person] = ()
    turns: Sequence[TurnResult] = ()
    utterances: Sequence[UtteranceResult] = ()
    computed: Mapping[str, float] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    privacy: Privacy = field(default_factory=Privacy)


@dataclass(frozen=True)
class Failure:
    """A source of a dataset that gave nothing: its id, and why."""

    id: str
    reason: Reason
