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
    """Turn the words of each utterance into vectors."""
    spans = inputs.spans
    if "text" not in inputs.wanted:
        return TextFeatures([Absent("not_requested") for _ in spans], [])
    with_words = [span for span in spans if span.text]
    languages = [language_of(span, inputs, context) for span in with_words]
    encoded = _encoded([span.text for span in with_words], languages, context)

    def embed(span: Span) -> FeatureSequence | Absent:
        if not span.text:
            return Absent(_why_no_text(span, inputs))
        vectors = next(encoded)
        edges = np.linspace(span.start, span.end, len(vectors) + 1)
        return FeatureSequence(edges[:-1], edges[1:], vectors)

    warnings = [warning for language in dict.fromkeys(languages) for warning in _language_warnings(language, context)]
    return TextFeatures(with_progress("text", len(spans), context.hook, map(embed, spans)), warnings)


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


def _encoded(texts: Sequence[str], languages: Sequence[str | None], context: Context) -> Iterator[np.ndarray]:
    """Vectors of each text, some texts of one language at a time."""
    for language, pairs in groupby(zip(languages, texts, strict=True), key=lambda pair: pair[0]):
        alike = [text for _, text in pairs]
        for first in range(0, len(alike), GROUP):
            yield from context.backends.text.encode(alike[first : first + GROUP], language)


def _language_warnings(language: str | None, context: Context) -> list[Reason]:
    """What to tell of words in a language that the text encoder was not trained to read."""
    settings, reads = context.settings.text, context.backends.languages
    if settings.multilingual or not reads or language is None or language in reads:
        return []
    what = f"the words are in the language {language!r}, but {settings.encoder} reads only {', '.join(reads)}"
    return [reason("language_not_read", what, modality="text")]


TEXT: Final = Stage(
    "text",
    3,
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
