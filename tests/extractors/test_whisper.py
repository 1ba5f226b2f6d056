"""openai-whisper of any size: which model a file is, and how its text is decoded. Random weights of tiny dimensions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import whisper
from whisper.decoding import DecodingOptions, DecodingResult, DecodingTask
from whisper.model import ModelDimensions, Whisper

from emopipe.extractors.speech import whisper as ours
from emopipe.extractors.speech.whisper import (
    Decoding,
    WhisperRecogniser,
    decode,
    failed,
    in_a_loop,
    load_whisper,
    published_size,
    silent,
)
from emopipe.extractors.speech.whisper_decoder import Encoded, products

#: Layers and widths that Whisper was published with; mel bands, vocabulary, decoder layers.
PUBLISHED = {
    "tiny": (4, 384, 80, 51865, 4),
    "tiny.en": (4, 384, 80, 51864, 4),
    "base": (6, 512, 80, 51865, 6),
    "small.en": (12, 768, 80, 51864, 12),
    "medium": (24, 1024, 80, 51865, 24),
    "large-v2": (32, 1280, 80, 51865, 32),
    "large-v3": (32, 1280, 128, 51866, 32),
    "large-v3-turbo": (32, 1280, 128, 51866, 4),
}


def dims(layers: int, width: int, mels: int, vocabulary: int, decoder: int) -> ModelDimensions:
    return ModelDimensions(mels, 1500, width, 6, layers, vocabulary, 448, width, 6, decoder)


def random_model(vocabulary: int) -> Whisper:
    """Whisper leaves the places of its decoder as memory happens to be."""
    torch.manual_seed(0)
    made = Whisper(ModelDimensions(80, 1500, 16, 2, 2, vocabulary, 64, 16, 2, 1)).eval()
    torch.nn.init.normal_(made.decoder.positional_embedding, std=0.02)
    return made


@pytest.fixture(scope="module")
def model() -> Whisper:
    return random_model(51865)


def checkpoint(path: Path, model: Whisper) -> Path:
    torch.save({"dims": vars(model.dims), "model_state_dict": model.state_dict()}, path)
    return path


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_model_is_known_by_its_dimensions(name: str) -> None:
    found = published_size(dims(*PUBLISHED[name]), "my own file")
    assert found == name and found in whisper._ALIGNMENT_HEADS


def test_large_v1_is_told_by_its_files_name_and_others_are_unknown(model: Whisper) -> None:
    assert published_size(dims(*PUBLISHED["large-v2"]), "large-v1") == "large-v1"
    assert published_size(model.dims) is None
    assert published_size(dims(4, 384, 80, 51865, 2)) is None
    assert published_size(dims(32, 1280, 128, 51865, 32)) is None


def test_a_checkpoint_in_use_is_shared_and_freed_when_it_is_not(model: Whisper, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "own.pt", model)
    one, two = load_whisper(path, "cpu"), load_whisper(str(path), "cpu")
    assert one is two and not one.training
    one = two = None  # type: ignore[assignment]
    assert not [key for key in ours._loaded if key[0] == path.resolve()]


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"PK\3\4 half a zip"])
def test_another_file_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "other.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.pt is not a checkpoint of openai-whisper"):
        load_whisper(tmp_path / "other.pt", "cpu")


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "harm",)

    torch.save({"dims": Harm()}, tmp_path / "harmful.pt")
    with pytest.raises(ValueError, match="not a checkpoint"):
        load_whisper(tmp_path / "harmful.pt", "cpu")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("told", [{"task": "sing"}, {"temperatures": ()}], ids=["task", "temperatures"])
def test_impossible_decoding_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="speech recognition"):
        Decoding(**told)


def result(compression: float = 1.0, log_probability: float = -0.2, no_speech: float = 0.1) -> DecodingResult:
    return DecodingResult(
        torch.zeros(1),
        "en",
        tokens=[440],
        text=" hm",
        avg_logprob=log_probability,
        no_speech_prob=no_speech,
        compression_ratio=compression,
    )


def test_a_loop_and_an_impossible_length_call_for_another_try_and_a_guess_does_not() -> None:
    assert not failed(result(), 60)
    assert failed(result(compression=2.5), 60)
    assert failed(replace(result(), tokens=[440] * 60), 60)
    assert not failed(result(log_probability=-3.0), 60)
    assert silent(result(log_probability=-1.1, no_speech=0.7)) and not silent(result(no_speech=0.9))


class Scripted:
    """Stands in for decoding: notes each call and gives the results in order."""

    def __init__(self, *results: list[DecodingResult]) -> None:
        self.results = list(results)
        self.calls: list[tuple[int, DecodingOptions]] = []
        self.longest: list[int] = []

    def __call__(self, encoded: Encoded, options: DecodingOptions, longest: list[int]) -> list[DecodingResult]:
        self.calls.append((len(encoded), options))
        self.longest += longest
        return self.results.pop(0)


def listen(
    model: Whisper, decoding: Decoding, script: Scripted, monkeypatch: pytest.MonkeyPatch, sounds: int = 3
) -> Any:
    monkeypatch.setattr(ours, "decode", script)
    recogniser = WhisperRecogniser(model, decoding)
    return recogniser.listen([np.zeros(16_000, np.float32)] * sounds, "de")


def test_only_sounds_in_a_loop_are_decoded_again_one_by_one_and_warmer(
    model: Whisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Scripted(
        [result(), result(compression=3.0), result(log_probability=-2.0)],
        [result(compression=2.6)],
        [result(log_probability=-0.5)],
    )
    decoding = Decoding(temperatures=(0.0, 0.4, 0.9), prompt="Marlene, Jürgen", task="translate")
    words = listen(model, decoding, script, monkeypatch)
    assert [(rows, options.temperature) for rows, options in script.calls] == [(3, 0.0), (1, 0.4), (1, 0.9)]
    told = script.calls[0][1]
    assert (told.task, told.prompt, told.language, told.without_timestamps) == (
        "translate",
        "Marlene, Jürgen",
        "de",
        True,
    )
    assert [len(said) for said in words] == [1, 1, 1]
    assert set(script.longest) == {ours.TOKENS_FOR_ALL + ours.TOKENS_PER_SECOND}


def test_a_loop_that_no_try_leaves_is_not_sure_and_silence_has_no_words(
    model: Whisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    silence = result(log_probability=-1.5, no_speech=0.9)
    script = Scripted([result(compression=3.0), silence], [result(compression=4.0)])
    looped, silent_words = listen(model, Decoding(temperatures=(0.0, 0.5)), script, monkeypatch, sounds=2)
    assert [rows for rows, _ in script.calls] == [2, 1]
    assert [word.probability for word in looped] == [0.0] and silent_words == []


def test_a_single_temperature_forbids_another_try(model: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Scripted([result(compression=3.0)])
    listen(model, Decoding(temperatures=(0.0,)), script, monkeypatch, sounds=1)
    assert len(script.calls) == 1


def test_a_loop_is_known_by_its_last_tokens() -> None:
    assert in_a_loop([5, 6] + [1, 2, 3] * 8)
    assert in_a_loop([7] * 24) and not in_a_loop([7] * 23)
    assert not in_a_loop([1, 2] * 8), "somebody says no, no, no, no, no, no, no, no"
    assert not in_a_loop(list(range(100)))
    assert not in_a_loop([1, 2, 3, 4, 5, 6, 7] * 3 + [1, 2, 3])


def test_decoding_ends_at_a_length_that_the_duration_bounds(model: Whisper) -> None:
    """Random weights never end by themselves."""
    features = torch.zeros(2, 1500, 16)
    options = DecodingOptions(language="de", without_timestamps=True, fp16=False, sample_len=32)
    short, longer = decode(Encoded(model, features), options, [5, 11])
    assert (len(short.tokens), len(longer.tokens)) == (5, 11)


@pytest.mark.parametrize("sounds", [1, 3])
def test_the_next_token_is_as_likely_as_by_whispers_own_decoder(model: Whisper, sounds: int) -> None:
    features = torch.randn(sounds, 1500, 16)
    options = DecodingOptions(language="en", without_timestamps=True, fp16=False)
    with torch.inference_mode():
        made = decode(Encoded(model, features), options, [12] * sounds)
        usual = DecodingTask(model, replace(options, sample_len=12)).run(features)
    assert [one.tokens for one in made] == [one.tokens for one in usual]
    assert np.allclose([one.no_speech_prob for one in made], [one.no_speech_prob for one in usual], atol=1e-6)


def test_keys_and_values_of_a_sound_are_made_once(model: Whisper) -> None:
    """For its language, for decoding it twice, and for the times of its words."""
    made = []
    layer = model.decoder.blocks[0].cross_attn.key
    hook = layer.register_forward_hook(lambda *_: made.append(1))
    sound = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    recogniser = WhisperRecogniser(model, Decoding(temperatures=(0.0, 0.5)))
    recogniser.languages([sound])
    assert recogniser.listen([sound], "en") != [[]]
    hook.remove()
    assert len(made) == 1


@pytest.mark.parametrize("shape", [(1, 8), (3, 8), (2, 4, 8), (1, 1, 8)])
def test_products_are_those_of_a_matrix(shape: tuple[int, ...]) -> None:
    vectors, weight = torch.randn(*shape), torch.randn(20, 8)
    made = products(vectors, weight)
    assert made.shape == (*shape[:-1], 20)
    assert torch.allclose(made, vectors @ weight.T, atol=1e-5)


def test_chance_is_the_same_in_every_run_and_leaves_the_programs_own_alone(model: Whisper) -> None:
    decoding = Decoding(temperatures=(1.0,))
    sound = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    one = WhisperRecogniser(model, decoding).listen([sound], "en")
    assert torch.equal(torch.rand(1), expected)
    assert WhisperRecogniser(model, decoding).listen([sound], "en") == one


def test_an_english_model_hears_english_only(monkeypatch: pytest.MonkeyPatch) -> None:
    english = random_model(51864)
    script = Scripted([replace(result(), tokens=[])])
    monkeypatch.setattr(ours, "decode", script)
    sounds = [np.zeros(16_000, np.float32)]
    WhisperRecogniser(english).listen(sounds, "de")
    assert script.calls[0][1].language == "en"
    assert WhisperRecogniser(english).languages(sounds) == [{"en": 1.0}]
    assert WhisperRecogniser(english).listen([], "en") == []


def test_languages_are_iso_codes_with_probabilities_alone_or_together(model: Whisper) -> None:
    sounds = [np.random.default_rng(seed).normal(0, 0.1, 16_000).astype(np.float32) for seed in (0, 1)]
    recogniser = WhisperRecogniser(model)
    for chances in (*recogniser.languages(sounds), *recogniser.languages(sounds[:1])):
        assert sum(chances.values()) == pytest.approx(1, abs=1e-3)
        assert {"jv", "de", "zh"} <= chances.keys() and "jw" not in chances
    assert recogniser.listen(sounds[:1], "jv") == recogniser.listen(sounds[:1], "jv")


def test_a_sound_at_its_own_length_is_encoded_as_by_whisper(model: Whisper) -> None:
    """A whole window is what Whisper encodes."""
    sound = np.random.default_rng(0).normal(0, 0.1, 30 * 16_000).astype(np.float32)
    recogniser = WhisperRecogniser(model)
    with torch.inference_mode():
        own, whole = recogniser._at_own_length(sound), recogniser._whole_windows([sound])
    assert torch.allclose(own.states, whole.states, atol=1e-5)
