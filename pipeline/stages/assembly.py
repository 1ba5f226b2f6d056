"""Put together what stages found of a source: utterances with their speakers, features, absences and quality."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from emopipe.constants import MODALITIES
from emopipe.errors import Reason
from emopipe.extractors.contracts import Turn
from emopipe.extractors.windows import FeatureSequence
from emopipe.pipeline.records import AbsenceReason, Absent, Extraction, MediaInfo, Source, SpokenLanguage, Utterance
from emopipe.pipeline.stages.people import person_of
from emopipe.pipeline.stages.person_normalization import NormalizedInputs, normalized, normalized_absence
from emopipe.pipeline.stages.speech import language_spoken


class UtteranceFeatures(NormalizedInputs):
    """What an utterance is put together from."""

    speaker: str | None
    face_quality: list[float]


class ExtractionInputs(UtteranceFeatures):
    """What an extraction is put together from."""

    duration: float
    info: MediaInfo
    language: str | None
    languages: list[SpokenLanguage]
    turns: list[Turn]
    face_warnings: list[Reason]
    file_faults: list[Reason]
    video_faults: list[Reason]
    decoding_faults: list[Reason]
    word_warnings: list[Reason]
    text_warnings: list[Reason]
    people_warnings: list[Reason]


def assemble(source: Source, inputs: ExtractionInputs, unverified: Sequence[str], *, features: bool) -> Extraction:
    """Put together what was extracted from a source.

    Args:
        source: where it is from.
        inputs: the values that stages made, as they come from the store.
        unverified: names of the weights in use that are not the catalogue's.
        features: whether the utterances carry their features, which may be large.
    """
    from emopipe.extractors.speech.diarize import overlap_share

    utterances = []
    for index, span in enumerate(inputs.spans):
        absent = {name: why for name in MODALITIES if (why := _absence(source, inputs, name, index))}
        person = person_of(span, inputs.people)
        utterances.append(
            Utterance(
                source=source.id,
                start=span.start,
                end=span.end,
                text=span.text,
                language=language_spoken(span, inputs.languages) or inputs.language,
                speaker=speaker_name(inputs, index),
                role=person.role if person else None,
                overlap=overlap_share(inputs.turns, span.start, span.end),
                features=utterance_features(inputs, index) if features else {},
                absent=absent,
                quality=utterance_quality(inputs, index, set(MODALITIES) - set(absent)),
            )
        )
    info: MediaInfo = {"language": inputs.language, "languages": inputs.languages, **inputs.info}
    info["unverified_weights"] = list(unverified)
    people, turns = tuple(inputs.people), tuple(inputs.turns)
    return Extraction(source, utterances, inputs.duration, _warnings(inputs), info, people, turns)


def _warnings(inputs: ExtractionInputs) -> list[Reason]:
    """What went wrong without stopping the work, each thing once."""
    faults = dict.fromkeys([*inputs.file_faults, *inputs.video_faults, *inputs.decoding_faults])
    decoding = sorted(faults, key=lambda fault: fault.what)
    return [*inputs.face_warnings, *decoding, *inputs.word_warnings, *inputs.text_warnings, *inputs.people_warnings]


def _absence(source: Source, inputs: UtteranceFeatures, modality: str, index: int) -> AbsenceReason | None:
    """Why an utterance lacks a modality: of words alone, no file lacks a stream."""
    why = normalized_absence(inputs, modality, index)
    return "no_recording" if source.path is None and why in ("no_video_stream", "no_audio_stream") else why


def speaker_name(inputs: UtteranceFeatures, index: int) -> str | None:
    """Who speaks an utterance, or is seen while nobody does: as it was found, else as it is given with the source."""
    person = person_of(inputs.spans[index], inputs.people)
    if person is not None:
        return person.name
    return inputs.speaker if len(inputs.people) < 2 else None


def utterance_features(inputs: UtteranceFeatures, index: int) -> dict[str, FeatureSequence]:
    """The features that an utterance has, by modality, relative to baselines where that is wanted."""
    sequences = {name: normalized(inputs, name, index) for name in MODALITIES}
    return {name: sequence for name, sequence in sequences.items() if not isinstance(sequence, Absent)}


def utterance_quality(inputs: UtteranceFeatures, index: int, present: Iterable[str]) -> dict[str, float]:
    """How well each present modality was measured, 0 to 1."""
    words = inputs.spans[index].words
    heard = float(np.mean([word.probability for word in words])) if words else 1.0
    measured = {"face": inputs.face_quality[index], "text": heard, "voice": 1.0}
    return {name: measured[name] for name in MODALITIES if name in present}
