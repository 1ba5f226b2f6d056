"""Speech: where somebody speaks, the words, and the utterances that a source is cut into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypedDict

import numpy as np

from emopipe.constants import SAMPLE_RATE
from emopipe.errors import Reason, reason
from emopipe.extractors.contracts import Interval, Span, Turn, Word
from emopipe.pipeline.media.sound import Sound
from emopipe.pipeline.progress import Event, Hook
from emopipe.pipeline.records import Source, SpokenLanguage
from emopipe.pipeline.stages.stage import Context, Inputs, Stage

if TYPE_CHECKING:
    from emopipe.extractors.speech.languages import LanguageSpan

#: Words that were dropped are told of when they are at least this share of the speech.
MUCH_OF_SPEECH: Final = 0.1


class SpeechInputs(Inputs):
    """The sound."""

    sound: Sound | None
    sound_faults: list[Reason]


@dataclass(frozen=True)
class DetectedSpeech:
    """Where somebody speaks in the sound.

    Attributes:
        speech: spans of speech; None without sound.
        gain: the factor by which the sound is made louder before it is listened to; 1 unless it is quiet.
        decoding_faults: what was damaged in the sound.
    """

    speech: list[Interval] | None
    gain: float
    decoding_faults: list[Reason]


def detect_speech(inputs: SpeechInputs, context: Context) -> DetectedSpeech:
    """Find where somebody speaks."""
    from emopipe.extractors.speech.level import gain_of, raised

    sound = inputs.sound
    if sound is None:
        return DetectedSpeech(None, 1.0, inputs.sound_faults)
    gain = gain_of(sound)
    listened_to = raised(_ReportedSound(sound, "speech", context.hook), gain)
    return DetectedSpeech(context.backends.vad.segments(listened_to), gain, inputs.sound_faults)


class _ReportedSound:
    """Sound that tells a hook how far it was listened to."""

    def __init__(self, sound: Sound, stage: str, hook: Hook) -> None:
        self._sound, self._stage, self._hook = sound, stage, hook

    def __len__(self) -> int:
        return len(self._sound)

    def __getitem__(self, part: slice) -> np.ndarray:
        start, _, _ = part.indices(len(self))
        self._hook(Event("progress", self._stage, done=start / SAMPLE_RATE, total=len(self) / SAMPLE_RATE))
        return np.asarray(self._sound[part])


class TranscriptionInputs(Inputs):
    """The sound, and where somebody speaks."""

    source: Source
    sound: Sound | None
    tracks: list[Sound]
    track_turns: list[Turn]
    gain: float
    turns: list[Turn]
    duration: float
    labelled: bool
    wanted: frozenset[str]


class _HowWords(TypedDict):
    language: str
    least_confidence: float


@dataclass(frozen=True)
class Transcription:
    """The words that are spoken.

    Attributes:
        words: in order of time.
        language: ISO 639-1 code of the language that is spoken longest; None without words.
        languages: which language is spoken when, in order.
        unsure: spans of speech whose words the recogniser was too unsure of.
        word_warnings: what is to be told of speech without words.
    """

    words: list[Word]
    language: str | None
    languages: list[SpokenLanguage]
    unsure: list[list[float]]
    word_warnings: list[Reason]


def transcribe_words(inputs: TranscriptionInputs, context: Context) -> Transcription:
    """Recognise the words that are spoken (within a labelled source), and their language; none when not wanted."""
    from emopipe.extractors.speech.diarize import joined
    from emopipe.extractors.speech.level import raised
    from emopipe.extractors.speech.transcript import transcribe, transcribe_tracks

    source, settings = inputs.source, context.settings.speech
    if "text" not in inputs.wanted:
        return Transcription([], None, [], [], [])
    if source.text is not None:
        return Transcription([], settings.language or None, [], [], [])
    turns: list[Turn] = joined(inputs.turns)
    if inputs.labelled:
        turns = turns_within(turns, *stretch_of(source, inputs.duration))
    if not turns or inputs.sound is None:
        return Transcription([], None, [], [], [])
    how: _HowWords = {"language": settings.language, "least_confidence": settings.least_confidence}
    if inputs.track_turns:
        tracks = [_ReportedSound(track, "words", context.hook) for track in inputs.tracks]
        transcript = transcribe_tracks(tracks, turns, context.backends.asr, **how)
    else:
        sound = raised(_ReportedSound(inputs.sound, "words", context.hook), inputs.gain)
        transcript = transcribe(sound, turns, context.backends.asr, **how)
    languages = [_spoken_language(span) for span in transcript.languages]
    unsure = [[start, end] for start, end in transcript.unsure]
    return Transcription(
        transcript.words, transcript.language, languages, unsure, _unsure_words(unsure, turns, languages)
    )


def _spoken_language(span: LanguageSpan) -> SpokenLanguage:
    spoken: SpokenLanguage = {
        "start": round(span.start, 3),
        "end": round(span.end, 3),
        "language": span.language,
        "probability": span.probability,
    }
    if span.person is not None:
        spoken["person"] = span.person
    return spoken


def _unsure_words(
    unsure: Sequence[Sequence[float]], turns: Sequence[Turn], languages: Sequence[SpokenLanguage]
) -> list[Reason]:
    """What is to be told of words that were dropped, when they are much of the speech."""
    dropped, spoken = sum(end - start for start, end in unsure), sum(turn.end - turn.start for turn in turns)
    if dropped < MUCH_OF_SPEECH * spoken or dropped == 0:
        return []
    codes = dict.fromkeys(_language_as_told(span) for span in languages)
    what = f"the recogniser is not sure of the words in {dropped:.1f} of {spoken:.1f} s of speech, and gives none there"
    return [reason("words_unsure", f"{what} (language: {', '.join(codes)})", modality="text")]


def _language_as_told(span: SpokenLanguage) -> str:
    chance = span["probability"]
    return span["language"] + ("" if chance is None else f", {100 * chance:.0f} % sure")


class UtteranceInputs(Inputs):
    """Words and turns."""

    source: Source
    words: list[Word]
    turns: list[Turn]
    duration: float
    labelled: bool


@dataclass(frozen=True)
class UtteranceSpans:
    """The utterances: spans of time with their words and the number of who speaks them."""

    spans: list[Span]


def find_utterances(inputs: UtteranceInputs, context: Context) -> UtteranceSpans:
    """Cut a source into utterances.

    A labelled source, or one whose words are given, is one utterance; a clip with words is cut at changes of speaker,
    pauses and sentence ends; a clip without is cut at changes of speaker and pauses, or into fixed windows.
    """
    from emopipe.extractors.speech.attribution import speaker_utterances, turn_utterances, with_only_speaker
    from emopipe.extractors.speech.diarize import joined
    from emopipe.extractors.speech.utterances import fixed_windows

    source, words, turns = inputs.source, inputs.words, joined(inputs.turns)
    whole = stretch_of(source, inputs.duration)
    if source.text is not None:
        return UtteranceSpans(with_only_speaker([Span(*whole, source.text.strip())], turns))
    if inputs.labelled:
        text = "".join(word.text for word in words).strip()
        return UtteranceSpans(with_only_speaker([Span(*whole, text, tuple(words))], turns))
    settings = context.settings.speech
    if words:
        return UtteranceSpans(speaker_utterances(words, turns, pause=settings.pause, longest=settings.longest))
    if len({turn.person for turn in turns}) > 1:
        return UtteranceSpans(turn_utterances(turns, pause=settings.pause, longest=settings.longest))
    return UtteranceSpans(with_only_speaker(fixed_windows(whole[1], settings.silent_window), turns))


def stretch_of(source: Source, duration: float) -> Interval:
    """The stretch of the media that a source is, in seconds."""
    return source.start or 0.0, source.end if source.end is not None else duration


def language_spoken(span: Span, languages: Sequence[SpokenLanguage]) -> str | None:
    """The language of the part of a recording that a span overlaps most, or lies nearest to; None without any.

    Where each person has a track of their own, only what the person of the span speaks counts.
    """
    by_person = [part for part in languages if part.get("person", span.person) == span.person]
    nearest = max(
        by_person or languages,
        key=lambda part: min(span.end, part["end"]) - max(span.start, part["start"]),
        default=None,
    )
    return None if nearest is None else nearest["language"]


def turns_within(turns: Sequence[Turn], start: float, end: float) -> list[Turn]:
    """The parts of the turns within [start, end]."""
    clipped = [replace(turn, start=max(turn.start, start), end=min(turn.end, end)) for turn in turns]
    return [turn for turn in clipped if turn.end > turn.start]


def within(segments: Sequence[Interval], start: float, end: float) -> list[Interval]:
    """The parts of the segments within [start, end]."""
    clipped = [(max(low, start), min(high, end)) for low, high in segments]
    return [(low, high) for low, high in clipped if high > low]


SPEECH: Final = Stage(
    "speech",
    3,
    SpeechInputs,
    DetectedSpeech,
    detect_speech,
    settings=("speech.vad", "speech.vad_threshold"),
    backend="vad",
    modalities=("voice", "text"),
    signals=("sound_media",),
)
WORDS: Final = Stage(
    "words",
    5,
    TranscriptionInputs,
    Transcription,
    transcribe_words,
    settings=(
        "labelled",
        "speech.backend",
        "speech.asr",
        "speech.language",
        "speech.least_confidence",
        "speech.task",
        "speech.temperatures",
        "speech.prompt",
        "speech.options",
    ),
    backend="speech",
    signals=("sound_media",),
    modalities=("text",),
)
UTTERANCES: Final = Stage(
    "utterances",
    4,
    UtteranceInputs,
    UtteranceSpans,
    find_utterances,
    settings=("labelled", "speech.pause", "speech.longest", "speech.silent_window"),
    quick=True,
)
