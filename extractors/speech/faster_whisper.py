"""Words by faster-whisper: Whisper on CTranslate2, with less time and memory (int8 on CPUs, float16 on GPUs)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from emopipe.constants import SAMPLE_RATE
from emopipe.extractors.contracts import Backend, Locate, Word
from emopipe.extractors.speech.whisper import (
    COMPRESSION,
    LOG_PROBABILITY,
    NO_SPEECH,
    OTHER_CODES,
    TOKENS_FOR_ALL,
    TOKENS_PER_SECOND,
    Decoding,
)

#: Without the last one, the library would look for it on the hub.
FILES: Final = ("model.bin", "config.json", "tokenizer.json")
#: Fewer tokens than this may be all that a sound can have; beyond it, the library's own limit holds.
FEW_TOKENS: Final = 200


def create(settings: Mapping[str, Any], locate: Locate, device: str) -> FasterWhisperRecogniser:
    """The recogniser that a table `speech` of a configuration describes."""
    return FasterWhisperRecogniser(locate(settings["asr"]), device, Decoding.of(settings))


BACKEND: Final = Backend(
    "faster-whisper",
    create,
    weights=lambda settings: [settings["asr"]],
    libraries=("faster-whisper", "ctranslate2"),
    settings=("asr", "task", "temperatures", "prompt"),
    install='pip install "emopipe[faster-whisper]"',
)


class FasterWhisperRecogniser:
    """Decodes one sound after another.

    Args:
        path: a folder with a Whisper model as CTranslate2 stores it, and its `tokenizer.json`.
        device: "cpu" or "cuda".
        decoding: how.

    Raises:
        FileNotFoundError: a file is missing.
        ImportError: faster-whisper is not installed.
    """

    def __init__(self, path: str | Path, device: str, decoding: Decoding | None = None) -> None:
        import torch
        from faster_whisper import WhisperModel

        for file in FILES:
            if not (Path(path) / file).is_file():
                raise FileNotFoundError(f"{path} is not a Whisper model for faster-whisper: it has no {file}")
        kind = "int8" if device == "cpu" else "float16"
        threads = torch.get_num_threads()
        self._model = WhisperModel(str(path), device, compute_type=kind, cpu_threads=threads, local_files_only=True)
        self._decoding = decoding or Decoding()

    def languages(self, sounds: Sequence[np.ndarray]) -> list[Mapping[str, float]]:
        """How likely each language is spoken in each sound: ISO 639-1 code -> probability."""
        if not self._model.model.is_multilingual:
            return [{"en": 1.0} for _ in sounds]
        iso = {theirs: ours for ours, theirs in OTHER_CODES.items()}
        detected = [self._model.detect_language(np.ascontiguousarray(sound, np.float32))[2] for sound in sounds]
        return [{iso.get(code, code): float(chance) for code, chance in chances} for chances in detected]

    def listen(self, sounds: Sequence[np.ndarray], language: str) -> list[list[Word]]:
        """Words of each sound."""
        return [self._words(np.ascontiguousarray(sound, np.float32), language) for sound in sounds]

    def _words(self, sound: np.ndarray, language: str) -> list[Word]:
        """Words of a sound; those of a decoding that never left its loop have the probability 0."""
        longest = round(TOKENS_FOR_ALL + TOKENS_PER_SECOND * len(sound) / SAMPLE_RATE)
        segments, _ = self._model.transcribe(
            sound,
            language=OTHER_CODES.get(language, language) if self._model.model.is_multilingual else "en",
            task=self._decoding.task,
            temperature=list(self._decoding.temperatures),
            initial_prompt=self._decoding.prompt or None,
            beam_size=1,
            best_of=1,
            log_prob_threshold=None,
            no_speech_threshold=None,
            max_new_tokens=longest if longest < FEW_TOKENS else None,
            condition_on_previous_text=False,
            without_timestamps=True,
            word_timestamps=True,
        )
        return [
            Word(
                word.word,
                float(word.start),
                float(word.end),
                0.0 if segment.compression_ratio > COMPRESSION else float(word.probability),
            )
            for segment in segments
            if segment.no_speech_prob <= NO_SPEECH or segment.avg_logprob >= LOG_PROBABILITY
            for word in segment.words or ()
        ]
