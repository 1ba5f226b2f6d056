"""Words by openai-whisper, of any size (Radford et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

import numpy as np

from emopipe.extractors.contracts import Backend, Locate, Word

if TYPE_CHECKING:
    from torch import Tensor
    from whisper.decoding import DecodingOptions, DecodingResult
    from whisper.model import ModelDimensions, Whisper
    from whisper.tokenizer import Tokenizer

#: Whisper's own limits: text that compresses better repeats itself, less sure tokens are a guess.
COMPRESSION: Final = 2.4
LOG_PROBABILITY: Final = -1.0
#: Unsure text is dropped where silence is likelier than this.
NO_SPEECH: Final = 0.6


@dataclass(frozen=True)
class Decoding:
    """How words are decoded.

    Attributes:
        task: "transcribe", or "translate" into English.
        temperatures: the first is for all; sounds whose text fails Whisper's tests are decoded again with the next.
        prompt: words that come before each sound, as context: names, spelling, style. "" for none.

    Raises:
        ValueError: an unknown task, or no temperature.
    """

    task: str = "transcribe"
    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    prompt: str = ""

    def __post_init__(self) -> None:
        if self.task not in ("transcribe", "translate"):
            raise ValueError(f"unknown task {self.task!r} of speech recognition: use transcribe or translate")
        if not self.temperatures:
            raise ValueError("speech recognition needs at least one temperature")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Decoding:
        """What the table of a configuration says."""
        return cls(settings["task"], tuple(settings["temperatures"]), settings["prompt"])


def create(settings: Mapping[str, Any], locate: Locate, device: str) -> WhisperRecogniser:
    """The recogniser that a table `speech` of a configuration describes."""
    return WhisperRecogniser(load_whisper(locate(settings["asr"]), device), Decoding.of(settings))


BACKEND: Final = Backend(
    "whisper",
    create,
    weights=lambda settings: [settings["asr"]],
    libraries=("openai-whisper", "torch"),
    settings=("asr", "task", "temperatures", "prompt"),
)


#: What is loaded and in use: the encoder of the voice features is often the recogniser's.
_loaded: WeakValueDictionary[tuple[Path, int, str], Whisper] = WeakValueDictionary()


def load_whisper(path: str | Path, device: str) -> Whisper:
    """Load an openai-whisper checkpoint by path; one that is in use already is shared.

    The attention heads that follow time, without which word times are poor, are those of the published model with the
    checkpoint's dimensions; the two that share dimensions (large-v1 and large-v2) are told apart by the file's name.

    Args:
        path: a file with `dims` and `model_state_dict`.
        device: "cpu" or "cuda".

    Raises:
        ValueError: it is no such file.
    """
    file = Path(path).resolve()
    key = (file, file.stat().st_mtime_ns, device)
    if (model := _loaded.get(key)) is None:
        model = _loaded[key] = _load(file, device)
    return model


def _load(path: Path, device: str) -> Whisper:
    import whisper

    try:
        model = whisper.load_model(str(path), device=device)
    except Exception as error:  # whatever torch and whisper make of another file
        raise ValueError(f"{path} is not a checkpoint of openai-whisper: {error}") from error
    heads = whisper._ALIGNMENT_HEADS.get(published_size(model.dims, path.stem))
    if heads is not None:
        model.set_alignment_heads(heads)
    return model.eval()


def published_size(dims: ModelDimensions, stem: str = "") -> str | None:
    """Whisper's name of the published model with these dimensions ("base", "small.en", "large-v3" ...), if any.

    Args:
        dims: of the checkpoint.
        stem: of its file, which may tell large-v1 from large-v2.
    """
    depth = {4: "tiny", 6: "base", 12: "small", 24: "medium", 32: "large"}.get(dims.n_audio_layer)
    width = {4: 384, 6: 512, 12: 768, 24: 1024, 32: 1280}.get(dims.n_audio_layer)
    if depth is None or width != dims.n_audio_state or (dims.n_mels == 128) != (dims.n_vocab == 51866):
        return None
    if depth != "large":
        if dims.n_text_layer != dims.n_audio_layer:
            return None
        return f"{depth}.en" if dims.n_vocab == 51864 else depth
    if dims.n_mels == 128:
        return {4: "large-v3-turbo", 32: "large-v3"}.get(dims.n_text_layer)
    return "large-v1" if stem == "large-v1" else "large-v2"


class WhisperRecogniser:
    """Decodes sounds side by side. A sound fills one window of Whisper's, so no time stamps are decoded.

    Args:
        model: Whisper with alignment heads set.
        decoding: how.
    """

    def __init__(self, model: Whisper, decoding: Decoding | None = None) -> None:
        self.model = model
        self._decoding = decoding or Decoding()

    def listen(self, sounds: Sequence[np.ndarray], language: str | None) -> tuple[list[list[Word]], str]:
        """Words of each sound and the language, detected on the first sound when it is None.

        Raises:
            ValueError: the model has no such language.
        """
        import torch
        from whisper.audio import N_FRAMES, log_mel_spectrogram, pad_or_trim
        from whisper.decoding import DecodingOptions, decode
        from whisper.tokenizer import get_tokenizer

        model, how = self.model, self._decoding
        if not sounds:
            return [], language or "en"
        mels = [log_mel_spectrogram(np.ascontiguousarray(sound, np.float32), model.dims.n_mels) for sound in sounds]
        with torch.inference_mode():
            features = model.encoder(torch.stack([pad_or_trim(mel, N_FRAMES) for mel in mels]).to(model.device))
            options = DecodingOptions(
                language=language, without_timestamps=True, fp16=model.device.type == "cuda", prompt=how.prompt or None
            )
            if language is None and model.is_multilingual:
                language = decode(model, features[:1], replace(options, task="lang_id"))[0].language
            language = language if model.is_multilingual and language else "en"
            results = self._decode(features, replace(options, task=how.task, language=language))
            tokenizer = get_tokenizer(
                model.is_multilingual, num_languages=model.num_languages, language=language, task=how.task
            )
            words = [
                _aligned(_Encoded(model, vectors), tokenizer, result.tokens, mel)
                for vectors, result, mel in zip(features, results, mels, strict=True)
            ]
        return words, language

    def _decode(self, features: Tensor, options: DecodingOptions) -> list[DecodingResult]:
        """The text of each sound; one that fails Whisper's tests is decoded again by itself, warmer and warmer.

        Text that stays unsure where silence is likely has no tokens.
        """
        from whisper.decoding import decode

        first, *warmer = self._decoding.temperatures
        with _fixed_chance(features):
            results = list(decode(self.model, features, replace(options, temperature=first)))
        for index, first_try in enumerate(results):
            best = first_try
            for temperature in warmer:
                if not failed(best):
                    break
                with _fixed_chance(features):
                    again = replace(options, temperature=temperature)
                    (best,) = decode(self.model, features[index : index + 1], again)
            results[index] = replace(best, tokens=[], text="") if silent(best) else best
        return results


def failed(result: DecodingResult) -> bool:
    """Whether Whisper's own tests call for another try: the text repeats itself, or it is a guess at sound."""
    unsure = result.compression_ratio > COMPRESSION or result.avg_logprob < LOG_PROBABILITY
    return bool(unsure) and not silent(result)


def silent(result: DecodingResult) -> bool:
    """Whether Whisper's own tests take the sound for silence."""
    return bool(result.no_speech_prob > NO_SPEECH and result.avg_logprob < LOG_PROBABILITY)


@contextmanager
def _fixed_chance(features: Tensor) -> Iterator[None]:
    """Draw the same tokens in every run, and leave the program's own random numbers alone."""
    import torch

    with torch.random.fork_rng([features.device] if features.is_cuda else []):
        torch.manual_seed(0)
        yield


class _Encoded:
    """Whisper with the sound already encoded, for code that would encode it again."""

    def __init__(self, model: Whisper, features: Tensor) -> None:
        self._model, self._features = model, features

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, mel: Tensor, tokens: Tensor) -> Tensor:
        logits: Tensor = self._model.decoder(tokens, self._features[None])
        return logits


def _aligned(model: Any, tokenizer: Tokenizer, tokens: list[int], mel: Tensor) -> list[Word]:
    """The words that the tokens spell, with times in the sound, punctuation joined to them."""
    from whisper.timing import find_alignment, merge_punctuations

    spoken = [token for token in tokens if token < tokenizer.eot]
    timings = find_alignment(model, tokenizer, spoken, mel, mel.shape[-1])
    merge_punctuations(timings, "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、")
    return [
        Word(timing.word, float(timing.start), float(timing.end), float(timing.probability))
        for timing in timings
        if timing.word
    ]
