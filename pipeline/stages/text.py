"""Text: vectors of the words of each utterance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import numpy as np

from emopipe.errors import Reason, reason
from emopipe.extractors.contracts import Interval, Span
from emopipe.extractors.windows import FeatureSequence
from emopipe.pipeline.records import AbsenceReason, Absent, Source, SpokenLanguage
from emopipe.pipeline.stages.speech import language_spoken, within
from emopipe.pipeline.stages.stage import Context, Inputs, Stage
from emopipe.pipeline.stages.voice import with_progress
from emopipe.pipeline.store.serialization import GROUP, FeatureStream


class TextInputs(Inputs):
    """The words of each utterance."""

    source: Source
    speech: list[Interval] | None
    spans: list[Span]
    language: str | None
    languages: list[SpokenLanguage]
    unsure: list[list[float]]
    wanted: frozenset[str]


@dataclass(frozen=True)
class TextFeatures:
    """Token vectors of each utterance, or the reason for their absence, and what is to be told of the language."""

    text: FeatureStream
    text_warnings: list[Reason]


def embed_text(inputs: TextInputs, context: Context) -> TextFeatures:
    """Turn the words of each utterance into vectors, as far as they are in a language that the encoder reads."""
    spans = inputs.spans
    if "text" not in inputs.wanted:
        return TextFeatures([Absent("not_requested") for _ in spans], [])
    languages = [language_of(span, inputs, context) if span.text else None for span in spans]
    spoken = [(language, span.text) for language, span in zip(languages, spans, strict=True) if span.text]
    encoded = _encoded([pair for pair in spoken if _is_read(pair[0], context)], context)

    def embed(span: Span, language: str | None) -> FeatureSequence | Absent:
        if not span.text:
            return Absent(_why_no_text(span, inputs))
        if not _is_read(language, context):
            return Absent("language_not_read")
        vectors = next(encoded)
        edges = np.linspace(span.start, span.end, len(vectors) + 1)
        return FeatureSequence(edges[:-1], edges[1:], vectors)

    unread = [language for language in dict.fromkeys(languages) if not _is_read(language, context)]
    warnings = [_left_out(language, context) for language in unread]
    return TextFeatures(with_progress("text", len(spans), context.hook, map(embed, spans, languages)), warnings)


def language_of(span: Span, inputs: TextInputs, context: Context) -> str | None:
    """The language of the words of an utterance."""
    if context.settings.speech.task == "translate" and inputs.source.text is None:
        return "en"
    return language_spoken(span, inputs.languages) or inputs.language


def _why_no_text(span: Span, inputs: TextInputs) -> AbsenceReason:
    """Why an utterance has no words."""
    if inputs.speech is None:
        return "no_audio_stream"
    if not within(inputs.speech, span.start, span.end):
        return "no_speech"
    unsure = [(start, end) for start, end in inputs.unsure]
    return "words_unsure" if within(unsure, span.start, span.end) else "no_words"


def _encoded(spoken: Sequence[tuple[str | None, str]], context: Context) -> Iterator[np.ndarray]:
    """Vectors of each text, which comes with its language, some texts of one language at a time."""
    for language, pairs in groupby(spoken, key=lambda pair: pair[0]):
        alike = [text for _, text in pairs]
        for first in range(0, len(alike), GROUP):
            yield from context.backends.text.encode(alike[first : first + GROUP], language)


def _is_read(language: str | None, context: Context) -> bool:
    """Whether words in a language have vectors that mean anything: an encoder reads it, or nobody knows which it is."""
    reads = context.backends.languages
    return bool(context.settings.text.multilingual) or not reads or language is None or language in reads


def _left_out(language: str | None, context: Context) -> Reason:
    """What to tell of words in a language that the text encoder was not trained to read."""
    reads = ", ".join(context.backends.languages)
    what = f"the words in the language {language!r} are left out: {context.settings.text.encoder} reads only {reads}"
    return reason("language_not_read", what, modality="text")


TEXT: Final = Stage(
    "text",
    4,
    TextInputs,
    TextFeatures,
    embed_text,
    settings=(
        "speech.task",
        "text.backend",
        "text.encoder",
        "text.multilingual",
        "text.languages",
        "text.max_tokens",
        "text.layers",
        "text.pooling",
        "text.options",
    ),
    backend="text",
    modalities=("text",),
)
