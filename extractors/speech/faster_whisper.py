"""Words by faster-whisper: Whisper on CTranslate2, with less time and memory (int8 on CPUs, float16 on GPUs)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from emopipe.extractors.contracts import Backend, Locate, Word
from emopipe.extractors.speech.whisper import Decoding

#: Without the last one, the library would look for it on the hub.
FILES: Final = ("model.bin", "config.json", "tokenizer.json")


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

    def listen(self, sounds: Sequence[np.ndarray], language: str | None) -> tuple[list[list[Word]], str]:
        """Words of each sound and the language, detected on the first sound when it is None."""
        words: list[list[Word]] = []
        for sound in sounds:
            segments, info = self._model.transcribe(
                np.ascontiguousarray(sound, np.float32),
                language=language,
                task=self._decoding.task,
                temperature=list(self._decoding.temperatures),
                initial_prompt=self._decoding.prompt or None,
                beam_size=1,
                best_of=1,
                condition_on_previous_text=False,
                without_timestamps=True,
                word_timestamps=True,
            )
            language = info.language
            words.append(
                [
                    Word(word.word, float(word.start), float(word.end), float(word.probability))
                    for segment in segments
                    for word in segment.words or ()
                ]
            )
        return words, language or "en"
