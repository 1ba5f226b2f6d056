"""Voice: acoustic features of each utterance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from emopipe.constants import SAMPLE_RATE
from emopipe.extractors.contracts import Interval, Samples, Span, Turn
from emopipe.extractors.threads import side_by_side
from emopipe.extractors.windows import FeatureSequence
from emopipe.pipeline.media.sound import Sound
from emopipe.pipeline.progress import Event, Hook
from emopipe.pipeline.records import Absent
from emopipe.pipeline.stages.speech import within
from emopipe.pipeline.stages.stage import Context, Inputs, Stage
from emopipe.pipeline.store.serialization import FeatureStream


class VoiceInputs(Inputs):
    """The sound, and where the utterances are."""

    sound: Sound | None
    tracks: list[Sound]
    track_turns: list[Turn]
    gain: float
    speech: list[Interval] | None
    spans: list[Span]
    wanted: frozenset[str]


@dataclass(frozen=True)
class VoiceFeatures:
    """Acoustic features of each utterance, or the reason for their absence."""

    voice: FeatureStream


def measure_voice(inputs: VoiceInputs, context: Context) -> VoiceFeatures:
    """Measure the voice of each utterance, from its first to its last moment of speech."""
    measure: Callable[[Span], FeatureSequence | Absent] = partial(_voice_of, inputs=inputs, context=context)
    parallel = inputs.sound is not None and context.backends.runs_parallel("voice")
    measured = side_by_side(measure, inputs.spans) if parallel else map(measure, inputs.spans)
    return VoiceFeatures(with_progress("voice", len(inputs.spans), context.hook, measured))


def _voice_of(span: Span, inputs: VoiceInputs, context: Context) -> FeatureSequence | Absent:
    from emopipe.extractors.voice.features import SHORTEST

    if "voice" not in inputs.wanted:
        return Absent("not_requested")
    if inputs.sound is None:
        return Absent("no_audio_stream")
    sound, speech = _heard(span, inputs.sound, inputs)
    if not speech:
        return Absent("no_speech")
    low, high = speech[0][0], speech[-1][1]
    if high - low < SHORTEST:
        return Absent("too_short")
    samples = sound[round(low * SAMPLE_RATE) : round(high * SAMPLE_RATE)]
    return context.backends.voice.measure(samples, start=low, window=context.settings.voice.window)


def _heard(span: Span, sound: Sound, inputs: VoiceInputs) -> tuple[Samples, list[Interval]]:
    """The sound in which an utterance is heard, and the speech in it: its speaker's own track where they have one."""
    from emopipe.extractors.speech.level import gain_of, raised

    speech = inputs.speech or []
    if inputs.track_turns and span.person is not None:
        track = inputs.tracks[span.person]
        speech = [(turn.start, turn.end) for turn in inputs.track_turns if turn.person == span.person]
        return raised(track, gain_of(track)), within(speech, span.start, span.end)
    return raised(sound, inputs.gain), within(speech, span.start, span.end)


def with_progress(
    stage: str, total: int, hook: Hook, measured: Iterable[FeatureSequence | Absent]
) -> Iterator[FeatureSequence | Absent]:
    """What is measured of each utterance as it comes, telling a hook how many of all are done."""
    for number, one in enumerate(measured, start=1):
        yield one
        hook(Event("progress", stage, done=number, total=total))


VOICE: Final = Stage(
    "voice",
    3,
    VoiceInputs,
    VoiceFeatures,
    measure_voice,
    settings=("voice.backend", "voice.encoder", "voice.speaker_encoder", "voice.window", "voice.options"),
    backend="voice",
    modalities=("voice",),
    signals=("sound_media",),
)
