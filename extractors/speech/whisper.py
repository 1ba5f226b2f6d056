"""Words with times by openai-whisper, only where a voice was detected, so that silence yields no words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emopipe.extractors.speech.vad import Samples

if TYPE_CHECKING:
    from torch import Tensor
    from whisper.model import Whisper

SAMPLE_RATE: Final = 16_000
#: Whisper hears at most this much at once, in seconds.
LONGEST_WINDOW: Final = 30.0
#: Sound left on both sides of a span of speech, in seconds.
MARGIN: Final = 0.2
#: Windows decoded side by side; a decoder step reads all weights, however many windows share it.
BATCH: Final = 8


@dataclass(frozen=True)
class Word:
    """A word as heard: times in seconds on the media clock, Whisper's probability of it."""

    text: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True)
class Transcript:
    """Words in order, the language they are in (ISO 639-1, None without speech)."""

    words: list[Word]
    language: str | None


def load_whisper(path: str | Path, device: str, size: str) -> Whisper:
    """Load an openai-whisper checkpoint by path.

    Args:
        path: a file with `dims` and `model_state_dict`.
        device: "cpu" or "cuda".
        size: Whisper's name of the model ("base"), under which it keeps the attention heads that follow time;
            without them, word times are poor.
    """
    import whisper

    model = whisper.load_model(str(path), device=device)
    heads = whisper._ALIGNMENT_HEADS.get(size)
    if heads is not None:
        model.set_alignment_heads(heads)
    return model.eval()


def speech_windows(segments: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Group spans of speech so that each group spans at most 30 s; a longer span is cut."""
    windows: list[list[tuple[float, float]]] = []
    longest = LONGEST_WINDOW - 2 * MARGIN
    for start, end in segments:
        pieces = math.ceil((end - start) / longest) or 1
        edges = np.linspace(start, end, pieces + 1).tolist()
        for piece in pairwise(edges):
            if windows and piece[1] - windows[-1][0][0] <= longest:
                windows[-1].append(piece)
            else:
                windows.append([piece])
    return windows


def transcribe(
    samples: Samples,
    segments: Sequence[tuple[float, float]],
    model: Whisper,
    *,
    language: str | None = None,
    least_confidence: float = 0.0,
) -> Transcript:
    """Words in the given spans of speech.

    Args:
        samples: float32 mono at 16 kHz (samples,), the whole clip; read slice by slice.
        segments: spans of speech in seconds.
        model: Whisper with alignment heads set.
        language: ISO 639-1 code, or None to detect it on the first window and keep it.
        least_confidence: a span of speech whose words have a lower mean probability yields no words: Whisper
            was guessing at a laugh, a sigh or noise.

    Returns:
        The transcript; word times are clipped to the spans of speech, and the first and last word of a span start
        and end with it: voice activity knows a word's outer edges better than attention does.
    """
    words: list[Word] = []
    windows = speech_windows(segments)
    for first in range(0, len(windows), BATCH):
        batch = windows[first : first + BATCH]
        starts = [max(0.0, window[0][0] - MARGIN) for window in batch]
        ends = [window[-1][1] + MARGIN for window in batch]
        sounds = [samples[int(a * SAMPLE_RATE) : int(b * SAMPLE_RATE)] for a, b in zip(starts, ends, strict=True)]
        heard, language = _listen(sounds, model, language)
        for start, window, timings in zip(starts, batch, heard, strict=True):
            words += [_placed(timing, start, window) for timing in timings]
    words = _sure(words, segments, least_confidence)
    return Transcript(_snapped(words, segments), language if words else None)


def _listen(sounds: Sequence[np.ndarray], model: Whisper, language: str | None) -> tuple[list[list[Any]], str]:
    """Word timings of each sound, and the language. Each sound is encoded once and all are decoded side by side.

    One sound fills one window of Whisper's, so no time stamps are decoded: attention gives the words' times.
    """
    import torch
    from whisper.audio import N_FRAMES, log_mel_spectrogram, pad_or_trim
    from whisper.decoding import DecodingOptions, decode
    from whisper.tokenizer import get_tokenizer

    mels = [log_mel_spectrogram(np.ascontiguousarray(sound, np.float32), model.dims.n_mels) for sound in sounds]
    with torch.inference_mode():
        features = model.encoder(torch.stack([pad_or_trim(mel, N_FRAMES) for mel in mels]).to(model.device))
        half = model.device.type == "cuda"
        options = DecodingOptions(language=language, without_timestamps=True, fp16=half)
        if language is None and model.is_multilingual:
            language = decode(model, features[:1], replace(options, task="lang_id"))[0].language
        options = replace(options, language=language or "en")
        results = decode(model, features, options)
        tokenizer = get_tokenizer(
            model.is_multilingual, num_languages=model.num_languages, language=options.language, task=options.task
        )
        timings = [
            _aligned(_Encoded(model, vectors), tokenizer, result.tokens, mel)
            for vectors, result, mel in zip(features, results, mels, strict=True)
        ]
    return timings, str(options.language)


class _Encoded:
    """Whisper with the sound already encoded, for code that would encode it again."""

    def __init__(self, model: Whisper, features: Tensor) -> None:
        self._model, self._features = model, features

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, mel: Tensor, tokens: Tensor) -> Tensor:
        logits: Tensor = self._model.decoder(tokens, self._features[None])
        return logits


def _aligned(model: Any, tokenizer: Any, tokens: list[int], mel: Tensor) -> list[Any]:
    """The words that the tokens spell, with times in the sound, punctuation joined to them."""
    from whisper.timing import find_alignment, merge_punctuations

    spoken = [token for token in tokens if token < tokenizer.eot]
    timings = find_alignment(model, tokenizer, spoken, mel, mel.shape[-1])
    merge_punctuations(timings, "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、")
    return [timing for timing in timings if timing.word]


def _placed(word: Any, offset: float, spans: Sequence[tuple[float, float]]) -> Word:
    """A word on the media clock, clipped to the span of speech that it overlaps most or lies nearest to."""
    start, end = float(word.start) + offset, float(word.end) + offset
    low, high = _home(start, end, spans)
    start = min(max(start, low), high)
    return Word(word.word, start, max(start, min(end, high)), float(word.probability))


def _home(start: float, end: float, spans: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The span that [start, end] overlaps most, or lies nearest to."""
    return max(spans, key=lambda span: min(end, span[1]) - max(start, span[0]))


def _sure(words: Sequence[Word], segments: Sequence[tuple[float, float]], least: float) -> list[Word]:
    """Words without those of spans in which the mean probability is below `least`."""
    homes = [_home(word.start, word.end, segments) for word in words]
    chances: dict[tuple[float, float], list[float]] = {}
    for word, home in zip(words, homes, strict=True):
        chances.setdefault(home, []).append(word.probability)
    return [word for word, home in zip(words, homes, strict=True) if np.mean(chances[home]) >= least]


def _snapped(words: Sequence[Word], segments: Sequence[tuple[float, float]]) -> list[Word]:
    """Stretch the first and the last word of each span of speech to the span's edges."""
    snapped = list(words)
    homes = [_home(word.start, word.end, segments) for word in words]
    for index, home in enumerate(homes):
        if index == 0 or homes[index - 1] != home:
            snapped[index] = replace(snapped[index], start=home[0])
        if index == len(homes) - 1 or homes[index + 1] != home:
            snapped[index] = replace(snapped[index], end=home[1])
    return snapped
