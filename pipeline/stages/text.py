"""Text: vectors of the words of each utterance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from emopipe.errors import Reason, reason
from emopipe.extractors.contracts import Interval, Span
from emopipe.extractors.windows import FeatureSequence
from emopipe.pipeline.records import AbsenceReason, Absent, Source
from emopipe.pipeline.stages.stage import Context, Inputs, Stage
from emopipe.pipeline.stages.voice import with_progress
from emopipe.pipeline.store.serialization import GROUP, FeatureStream


class TextInputs(Inputs):
    """The words of each utterance."""

    source: Source
    speech: list[Interval] | None
    spans: list[Span]
    language: str | None
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
    texts = [span.text for span in spans if span.text]
    translated = context.settings.speech.task == "translate" and inputs.source.text is None
    language = "en" if translated else inputs.language
    encoded = _encoded(texts, language, context)
    missing: AbsenceReason = "no_audio_stream" if inputs.speech is None else "no_speech"

    def embed(span: Span) -> FeatureSequence | Absent:
        if not span.text:
            return Absent(missing)
        vectors = next(encoded)
        edges = np.linspace(span.start, span.end, len(vectors) + 1)
        return FeatureSequence(edges[:-1], edges[1:], vectors)

    warnings = _language_warnings(language, context) if texts else []
    return TextFeatures(with_progress("text", spans, context.hook, embed), warnings)


def _encoded(texts: Sequence[str], language: str | None, context: Context) -> Iterator[np.ndarray]:
    """Vectors of each text, some texts at a time."""
    for first in range(0, len(texts), GROUP):
        yield from context.backends.text.encode(texts[first : first + GROUP], language)


def _language_warnings(language: str | None, context: Context) -> list[Reason]:
    """What to tell of words in a language that the text encoder was not trained to read."""
    settings, reads = context.settings.text, context.backends.languages
    if settings.multilingual or not reads or language is None or language in reads:
        return []
    what = f"the words are in the language {language!r}, but {settings.encoder} reads only {', '.join(reads)}"
    return [reason("language_not_read", what, modality="text")]


TEXT: Final = Stage(
    "text",
    1,
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
