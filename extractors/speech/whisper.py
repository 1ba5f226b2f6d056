"""Words by openai-whisper, of any size (Radford et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary
from zipfile import is_zipfile

import numpy as np

from emopipe.constants import SAMPLE_RATE
from emopipe.errors import ConfigError
from emopipe.extractors.contracts import Backend, Locate, Word
from emopipe.extractors.import_isolation import numba_later
from emopipe.extractors.sharing import shared
from emopipe.extractors.speech.whisper_decoder import Encoded, NextTokens, hidden_states
from emopipe.extractors.speech.word_times import timed_words
from emopipe.extractors.threads import side_by_side

if TYPE_CHECKING:
    from torch import Tensor
    from whisper.decoding import DecodingOptions, DecodingResult
    from whisper.model import ModelDimensions, Whisper

#: Whisper's own limits: text that compresses better repeats itself, less sure tokens are a guess.
COMPRESSION: Final = 2.4
LOG_PROBABILITY: Final = -1.0
#: Unsure text is dropped where silence is likelier than this.
NO_SPEECH: Final = 0.6
#: Nobody says more tokens in a second. The fastest languages are spoken at 8 syllables a second (Pellegrino et al.,
#: 2011), fast speakers reach 10, and a syllable takes about 2 tokens in the scripts that Whisper's vocabulary cuts up
#: most. A full window of 30 s ends at Whisper's own limit, 224 tokens.
TOKENS_PER_SECOND: Final = 20
#: Tokens that a sound of any length may have: punctuation, a word that is cut off.
TOKENS_FOR_ALL: Final = 10
#: Decoding runs in a loop when its last tokens are so many repetitions of the same ones, and so many tokens in all.
LOOP_ROUNDS: Final = 4
LOOP_TOKENS: Final = 24
#: Windows that are decoded together on a CPU. What the decoder attends to takes 37 MiB of each with Whisper base, while
#: a token of three windows takes 2.5 ms each, of eight 1.6.
WINDOWS_AT_ONCE: Final = 3
#: Silence after a sound whose language is looked for, in frames of 10 ms: without it, Whisper is less sure.
QUIET_END: Final = 100
#: ISO 639-1 codes for which Whisper has another.
OTHER_CODES: Final = {"jv": "jw"}


@dataclass(frozen=True)
class Decoding:
    """How words are decoded.

    Attributes:
        task: "transcribe", or "translate" into English.
        temperatures: the first is for all; sounds whose decoding ran in a loop are decoded again with the next.
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
        ValueError: it is not such a file.
    """
    return shared(_loaded, _load, path, device)


def _load(path: Path, device: str) -> Whisper:
    import torch

    from emopipe.extractors.onednn import with_onednn

    with numba_later():  # what Whisper's own word times are computed by: see .word_times
        import whisper
    from whisper.model import ModelDimensions, Whisper

    try:
        # Mapped, the weights as they are stored take no memory beside those that are computed with.
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
        model = Whisper(ModelDimensions(**stored["dims"]))
        model.load_state_dict(stored["model_state_dict"])
    except Exception as error:  # whatever torch and whisper make of another file
        raise ValueError(f"{path} is not a checkpoint of openai-whisper: {error}") from error
    heads = whisper._ALIGNMENT_HEADS.get(published_size(model.dims, path.stem))
    if heads is not None:
        model.set_alignment_heads(heads)
    if device == "cpu":
        model = with_onednn(model)
        for block in model.encoder.blocks:
            block.attn.qkv_attention = partial(_attended, block.attn.n_head)
    return model.to(device).eval()


def _attended(
    heads: int, queries: Tensor, keys: Tensor, values: Tensor, _mask: Tensor | None = None
) -> tuple[Tensor, None]:
    """What the encoder's attention makes of queries, keys and values (batch, steps, width)."""
    from emopipe.extractors.onednn import attention

    parts = (whole.view(*whole.shape[:2], heads, -1).transpose(1, 2) for whole in (queries, keys, values))
    return attention(*parts).transpose(1, 2).flatten(2), None


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
        self._encoded: tuple[np.ndarray, Encoded] | None = None

    def languages(self, sounds: Sequence[np.ndarray]) -> list[Mapping[str, float]]:
        """How likely each language is spoken in each sound: ISO 639-1 code -> probability.

        A sound by itself is encoded in a whole window, and kept until it is listened to; several are encoded at their
        own lengths, which takes less time and is nearly as sure.
        """
        import torch

        if not self.model.is_multilingual:
            return [{"en": 1.0} for _ in sounds]
        with torch.inference_mode():
            if len(sounds) > 1:
                return list(side_by_side(lambda sound: _languages(self._at_own_length(sound)), sounds))
            encoded = self._whole_windows(sounds)
            self._encoded = (sounds[0], encoded)
            return [_languages(encoded)]

    def listen(self, sounds: Sequence[np.ndarray], language: str) -> list[list[Word]]:
        """Words of each sound; those of a decoding that never left its loop have the probability 0.

        Raises:
            ConfigError: the model has no such language.
        """
        at_once = WINDOWS_AT_ONCE if self.model.device.type == "cpu" else max(1, len(sounds))
        groups = (sounds[first : first + at_once] for first in range(0, len(sounds), at_once))
        return [words for group in groups for words in self._listen(group, language)]

    def _listen(self, sounds: Sequence[np.ndarray], language: str) -> list[list[Word]]:
        """The same of sounds that are decoded together."""
        import torch
        from whisper.audio import HOP_LENGTH
        from whisper.decoding import DecodingOptions
        from whisper.tokenizer import LANGUAGES, get_tokenizer

        model, how = self.model, self._decoding
        language = OTHER_CODES.get(language, language) if model.is_multilingual else "en"
        if language not in LANGUAGES:
            raise ConfigError(
                f"Whisper knows no language {language!r}", hint='Leave "" to detect it, or correct the code'
            )
        longest = [round(TOKENS_FOR_ALL + TOKENS_PER_SECOND * len(sound) / SAMPLE_RATE) for sound in sounds]
        with torch.inference_mode():
            encoded = self._whole_windows(sounds)
            self._encoded = None
            options = DecodingOptions(
                task=how.task,
                language=language,
                without_timestamps=True,
                fp16=model.device.type == "cuda",
                prompt=how.prompt or None,
            )
            results = self._decode(encoded, options, longest)
            tokenizer = get_tokenizer(
                model.is_multilingual, num_languages=model.num_languages, language=language, task=how.task
            )
            words = [
                timed_words(encoded[index], tokenizer, result.tokens, len(sound) // HOP_LENGTH)
                for index, (result, sound) in enumerate(zip(results, sounds, strict=True))
            ]
        return [
            [replace(word, probability=0.0) for word in said] if failed(result, limit) else said
            for said, result, limit in zip(words, results, longest, strict=True)
        ]

    def _mel(self, sound: np.ndarray) -> Tensor:
        from whisper.audio import log_mel_spectrogram

        mel: Tensor = log_mel_spectrogram(np.ascontiguousarray(sound, np.float32), self.model.dims.n_mels)
        return mel.to(self.model.device)

    def _whole_windows(self, sounds: Sequence[np.ndarray]) -> Encoded:
        """Sounds encoded in whole windows of 30 s."""
        import torch
        from whisper.audio import N_FRAMES, pad_or_trim

        kept = self._encoded
        if len(sounds) == 1 and kept is not None and np.array_equal(kept[0], sounds[0]):
            return kept[1]
        windows = torch.stack([pad_or_trim(self._mel(sound), N_FRAMES) for sound in sounds])
        # Together they are no faster on a CPU, and take more memory.
        at_once = len(windows) if windows.is_cuda else 1
        states = side_by_side(self.model.encoder, torch.split(windows, at_once))
        return Encoded(self.model, torch.cat(list(states)))

    def _at_own_length(self, sound: np.ndarray) -> Encoded:
        """A sound encoded with a second of silence after it."""
        from torch.nn.functional import gelu
        from whisper.audio import N_FRAMES, pad_or_trim

        encoder, mel = self.model.encoder, self._mel(sound)
        frames = min(N_FRAMES, (mel.shape[-1] + QUIET_END) // 2 * 2)
        steps = gelu(encoder.conv2(gelu(encoder.conv1(pad_or_trim(mel, frames)[None])))).permute(0, 2, 1)
        steps = (steps + encoder.positional_embedding[: steps.shape[1]]).to(steps.dtype)
        for block in encoder.blocks:
            steps = block(steps)
        return Encoded(self.model, encoder.ln_post(steps))

    def _decode(self, encoded: Encoded, options: DecodingOptions, longest: Sequence[int]) -> list[DecodingResult]:
        """The text of each sound; one that ran in a loop is decoded again by itself, warmer and warmer.

        A text that is merely unsure is not: the coolest decoding is the surest. Where silence is likely, it has no
        tokens.
        """
        first, *warmer = self._decoding.temperatures
        with _fixed_chance(encoded.states):
            results = decode(encoded, replace(options, temperature=first), longest)
        for index, first_try in enumerate(results):
            best = first_try
            for temperature in warmer:
                if not failed(best, longest[index]):
                    break
                with _fixed_chance(encoded.states):
                    again = replace(options, temperature=temperature)
                    (best,) = decode(encoded[index], again, longest[index : index + 1])
            results[index] = replace(best, tokens=[], text="") if silent(best) else best
        return results


def _languages(encoded: Encoded) -> dict[str, float]:
    """ISO 639-1 code -> probability, of one sound."""
    import torch
    from whisper.tokenizer import get_tokenizer

    model = encoded.model
    tokenizer = get_tokenizer(model.is_multilingual, num_languages=model.num_languages)
    (state,) = hidden_states(encoded, torch.tensor([[tokenizer.sot]], device=model.device))[0]
    codes = model.decoder.token_embedding.weight[list(tokenizer.all_language_tokens)]
    chances = (codes @ state).float().softmax(-1).tolist()
    iso = {theirs: ours for ours, theirs in OTHER_CODES.items()}
    return {iso.get(code, code): chance for code, chance in zip(tokenizer.all_language_codes, chances, strict=True)}


def decode(encoded: Encoded, options: DecodingOptions, longest: Sequence[int]) -> list[DecodingResult]:
    """Decode sounds, each until it is at its end, in a loop, or too long.

    Args:
        encoded: the sounds, in whole windows.
        options: how.
        longest: the greatest number of tokens of each sound.
    """
    from whisper.decoding import DecodingTask

    task = DecodingTask(encoded.model, options)
    if not encoded.states.is_cuda:
        task.inference = NextTokens(encoded, len(task.initial_tokens))
    task.logit_filters.append(_Stop(task.tokenizer.eot, task.sample_begin, longest))
    results: list[DecodingResult] = task.run(encoded.states)
    return results


class _Stop:
    """Ends the text of a sound that runs in a loop, or has as many tokens as it may; a logit filter of Whisper's."""

    def __init__(self, end: int, begin: int, longest: Sequence[int]) -> None:
        self._end, self._begin, self._longest = end, begin, longest

    def apply(self, logits: Tensor, tokens: Tensor) -> None:
        for row, said in enumerate(tokens[:, self._begin :].tolist()):
            if len(said) >= self._longest[row] or in_a_loop(said):
                logits[row] = -np.inf
                logits[row, self._end] = 0.0


def in_a_loop(tokens: Sequence[int]) -> bool:
    """Whether the last tokens are at least four repetitions of the same ones, and 24 tokens or more."""
    for period in range(1, len(tokens) // LOOP_ROUNDS + 1):
        length = max(LOOP_ROUNDS * period, LOOP_TOKENS)
        tail = tokens[-length:]
        if len(tail) == length and tail[period:] == tail[:-period]:
            return True
    return False


def failed(result: DecodingResult, longest: int) -> bool:
    """Whether the text repeats itself by Whisper's own test, or is longer than anybody can speak in that time."""
    return bool(result.compression_ratio > COMPRESSION) or len(result.tokens) >= longest


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
