"""Acoustic features of known sounds, and Whisper's encoder on a tiny random model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emopipe.extractors.speech.campplus import load_campplus
from emopipe.extractors.voice import spectral
from emopipe.extractors.voice.acoustic import COLUMNS, UNITS, acoustic_features
from emopipe.extractors.voice.features import feature_names, voice_sequence
from emopipe.extractors.voice.whisper_encoder import encoder_states
from emopipe.pipeline.media.decoding import Media
from tests.conftest import SAMPLES, tone


@pytest.fixture(scope="module")
def tiny_whisper() -> Any:
    """A randomly initialised Whisper of the right architecture."""
    import torch
    from whisper.model import ModelDimensions, Whisper

    torch.manual_seed(0)
    dims = ModelDimensions(80, 1500, 16, 2, 2, 51865, 32, 16, 2, 1)
    return Whisper(dims).eval()


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Six seconds of talk, silence and noise."""
    with Media(SAMPLES / "conversation.mp4") as media:
        talk = np.asarray(media.audio)[16_000 : 5 * 16_000]
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    return np.concatenate([talk, np.zeros(16_000, np.float32), noise])


def buzz(seconds: float, hertz: float) -> np.ndarray:
    """A voice-like sound: ten harmonics."""
    return np.sum([tone(seconds, hertz * k, 0.3 / k) for k in range(1, 11)], axis=0).astype(np.float32)


def test_pitch_is_found_and_noise_has_none() -> None:
    table = acoustic_features(buzz(1.0, 130.0))
    pitch = table["pitch"].to_numpy()[10:-10]
    assert np.nanmedian(pitch) == pytest.approx(12 * np.log2(130 / 65), abs=0.3)
    assert table["voiced"].to_numpy()[10:-10].mean() > 0.95
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    assert acoustic_features(noise)["voiced"].to_numpy().mean() < 0.2


def test_columns_have_units_and_times_are_on_the_media_clock() -> None:
    table = acoustic_features(tone(0.5), start=3.0)
    assert table.column_names == ["time", *COLUMNS]
    assert all(table.schema.field(name).metadata[b"unit"] == UNITS[name].encode() for name in COLUMNS)
    times = table["time"].to_numpy()
    assert times[0] == 3.0 and np.allclose(np.diff(times), 0.01)


def test_gain_does_not_matter_to_levels() -> None:
    quiet, loud = (acoustic_features(level * buzz(0.5, 150)) for level in (0.02, 0.8))
    for name in ("level", "mel_03", "centroid", "pitch", "contrast_2"):
        assert np.nanmean(quiet[name].to_numpy()) == pytest.approx(np.nanmean(loud[name].to_numpy()), abs=0.1)


def test_brighter_sounds_have_a_higher_centroid() -> None:
    low, high = (np.mean(acoustic_features(tone(0.5, f))["centroid"].to_numpy()) for f in (200, 3000))
    assert low < 0.5 < 2.5 < high


def test_too_little_sound_is_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        acoustic_features(np.zeros(100, np.float32))


def test_silence_gives_finite_numbers(tiny_whisper: Any) -> None:
    sequence = voice_sequence(np.zeros(16_000, np.float32), tiny_whisper, start=0.0, window=1.0)
    assert np.isfinite(sequence.features).all()


def test_encoder_states_equal_whispers_own_on_a_full_window(tiny_whisper: Any) -> None:
    """On 30 s nothing is cropped, so the last block's output, normed, is what Whisper's encoder returns."""
    import torch
    import whisper

    sound = buzz(30.0, 120.0)
    times, states = encoder_states(sound, tiny_whisper)
    assert states.shape == (1500, 32) and times[0] == pytest.approx(0.01)
    with torch.inference_mode():
        expected = tiny_whisper.encoder(whisper.log_mel_spectrogram(torch.from_numpy(sound))[None])[0]
        ours = tiny_whisper.encoder.ln_post(torch.from_numpy(states[:, 16:]))
    assert torch.allclose(ours, expected, atol=1e-4)


def test_a_voice_sequence_has_named_columns_and_windows(tiny_whisper: Any) -> None:
    sequence = voice_sequence(buzz(2.4, 140.0), tiny_whisper, start=5.0, window=1.0)
    names = feature_names(tiny_whisper)
    assert sequence.features.shape == (2, len(names)) and sequence.features.dtype == np.float32
    assert sequence.start.tolist() == [5.0, pytest.approx(6.2)]
    assert names[0] == "mfcc_00_mean" and names[-1] == "whisper_2_015"
    pitch = sequence.features[:, names.index("pitch_mean")]
    assert pitch == pytest.approx(12 * np.log2(140 / 65), abs=0.5)
    with pytest.raises(ValueError, match="too short"):
        voice_sequence(np.zeros(1000, np.float32), tiny_whisper, start=0, window=1)


def test_the_speaker_encoder_adds_hidden_states_by_window_and_a_vector_of_all(
    tiny_whisper: Any, weight: Callable[[str], Path], speech: np.ndarray
) -> None:
    speakers = load_campplus(weight("campplus"), "cpu")
    assert load_campplus(weight("campplus"), "cpu") is speakers
    names = feature_names(tiny_whisper, speakers)
    both = voice_sequence(speech, tiny_whisper, speakers, start=5.0, window=2.0)
    alone = voice_sequence(speech, tiny_whisper, start=5.0, window=2.0)
    own = len(feature_names(tiny_whisper))
    assert both.features.shape == (3, len(names)) and len(names) == own + 512 + 192
    assert np.array_equal(both.features[:, :own], alone.features)
    hidden, vector = (
        both.features[:, [name.startswith(f"campplus_{kind}_") for name in names]] for kind in ("hidden", "vector")
    )
    times, states, whole = speakers.heard(speech)
    assert np.diff(times) == pytest.approx(0.02) and times[-1] < len(speech) / 16_000
    assert hidden[1] == pytest.approx(states[(times >= 2) & (times < 4)].mean(0), abs=1e-4)
    assert np.array_equal(vector, np.tile(whole, (3, 1)))
    embedded = speakers.embed(speech, [(0, len(speech) / 16_000)])[0]
    assert whole / np.linalg.norm(whole) == pytest.approx(embedded, abs=1e-4)


def test_measures_are_those_of_librosa(speech: np.ndarray) -> None:
    import librosa
    from librosa import feature

    magnitude = spectral.magnitudes(speech, 512, 160)
    mel = spectral.decibels(spectral.mel_filters(512, 64) @ magnitude**2)
    expected_mel = librosa.power_to_db(feature.melspectrogram(S=magnitude**2, sr=16_000, n_mels=64), top_db=None)
    pairs = {
        "magnitudes": (magnitude, np.abs(librosa.stft(speech, n_fft=512, hop_length=160))),
        "mel": (mel, expected_mel),
        "cepstrum": (spectral.cepstrum(mel, 20), feature.mfcc(S=mel, n_mfcc=20)),
        "delta": (spectral.delta(mel), feature.delta(mel, mode="nearest")),
        "contrast": (spectral.contrast(magnitude, 5), feature.spectral_contrast(S=magnitude, sr=16_000, n_bands=5)),
        "zero crossings": (
            spectral.zero_crossings(speech, 512, 160),
            feature.zero_crossing_rate(speech, frame_length=512, hop_length=160)[0],
        ),
        "centroid": (spectral.centroid(magnitude), feature.spectral_centroid(S=magnitude, sr=16_000)[0]),
        "rolloff": (spectral.rolloff(magnitude), feature.spectral_rolloff(S=magnitude, sr=16_000)[0]),
        "flatness": (spectral.flatness(magnitude), feature.spectral_flatness(S=magnitude)[0]),
        "onsets": (spectral.onsets(mel, 6), librosa.onset.onset_strength(S=mel, sr=16_000, hop_length=160)),
        "yin": (
            spectral.yin(speech, 65, 500, 1024, 160),
            librosa.yin(speech, fmin=65, fmax=500, sr=16_000, frame_length=1024, hop_length=160),
        ),
    }
    for name, (ours, theirs) in pairs.items():
        assert ours.shape == theirs.shape, name
        assert np.allclose(ours, theirs, rtol=1e-4, atol=2e-4), name


def test_the_default_path_compiles_nothing() -> None:
    """Librosa has numba compile parts of it when it is first imported."""
    code = (
        "import sys, numpy as np\n"
        "from emopipe.extractors.voice.acoustic import acoustic_features\n"
        "acoustic_features(np.zeros(16_000, np.float32))\n"
        "assert not {'librosa', 'numba'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
