"""Speech: where somebody speaks, the words, and the utterances that a source is cut into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from emopipe.constants import SAMPLE_RATE
from emopipe.errors import Reason
from emopipe.extractors.contracts import Interval, Span, Turn, Word
from emopipe.pipeline.media.sound import Sound
from emopipe.pipeline.progress import Event, Hook
from emopipe.pipeline.records import Source
from emopipe.pipeline.stages.stage import Context, Inputs, Stage


class SpeechInputs(Inputs):
    """The sound."""

    sound: Sound | None
    sound_faults: list[Reason]


@dataclass(frozen=True)
class DetectedSpeech:
    """The spans of the sound in which somebody speaks, None without sound, and what was damaged in it."""

    speech: list[Interval] | None
    decoding_faults: list[Reason]


def detect_speech(inputs: SpeechInputs, context: Context) -> DetectedSpeech:
    """Find where somebody speaks."""
    sound = inputs.sound
    speech = None if sound is None else context.backends.vad.segments(_ReportedSound(sound, "speech", context.hook))
    return DetectedSpeech(speech, inputs.sound_faults)


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
    turns: list[Turn]
    duration: float
    labelled: bool
    wanted: frozenset[str]


@dataclass(frozen=True)
class Transcription:
    """The words that are spoken, in order of time, and their language (ISO 639-1)."""

    words: list[Word]
    language: str | None


def transcribe_words(inputs: TranscriptionInputs, context: Context) -> Transcription:
    """Recognise the words that are spoken (within a labelled source), and their language; none when not wanted."""
    from emopipe.extractors.speech.diarize import joined
    from emopipe.extractors.speech.transcript import transcribe

    source, settings = inputs.source, context.settings.speech
    if "text" not in inputs.wanted:
        return Transcription([], None)
    if source.text is not None:
        return Transcription([], settings.language or None)
    speech = [(turn.start, turn.end) for turn in joined(inputs.turns)]
    if inputs.labelled:
        speech = within(speech, *stretch_of(source, inputs.duration))
    if not speech or inputs.sound is None:
        return Transcription([], None)
    transcript = transcribe(
        _ReportedSound(inputs.sound, "words", context.hook),
        speech,
        context.backends.asr,
        language=settings.language or None,
        least_confidence=settings.least_confidence,
    )
    return Transcription(transcript.words, transcript.language)


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


def within(segments: Sequence[Interval], start: float, end: float) -> list[Interval]:
    """The parts of the segments within [start, end]."""
    clipped = [(max(low, start), min(high, end)) for low, high in segments]
    return [(low, high) for low, high in clipped if high > low]


SPEECH: Final = Stage(
    "speech",
    1,
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
    2,
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
    2,
    UtteranceInputs,
    UtteranceSpans,
    find_utterances,
    settings=("labelled", "speech.pause", "speech.longest", "speech.silent_window"),
    quick=True,
)
