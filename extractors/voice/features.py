"""Voice features of one utterance: windows of acoustic measures, and of what two networks hear.

Whisper's encoder was trained on words, CAM++ on telling speakers apart, and what each keeps of tone of voice differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emopipe.constants import SAMPLE_RATE
from emopipe.extractors.contracts import Backend, Locate
from emopipe.extractors.speech.campplus import HIDDEN, WIDTH, load_campplus
from emopipe.extractors.speech.whisper import load_whisper
from emopipe.extractors.voice.acoustic import COLUMNS, acoustic_features
from emopipe.extractors.voice.whisper_encoder import LONGEST, encoder_states, layer_names
from emopipe.extractors.windows import FeatureSequence, window_deviations, window_edges, window_means

if TYPE_CHECKING:
    from whisper.model import Whisper

    from emopipe.extractors.speech.campplus import CampPlus

#: Less sound than this gives no voice features, in seconds.
SHORTEST: Final = 0.25


def create(settings: Mapping[str, Any], locate: Locate, device: str) -> VoiceExtractor:
    """The backend that a table `voice` of a configuration describes."""
    speakers = settings["speaker_encoder"]
    whisper = load_whisper(locate(settings["encoder"]), device)
    return VoiceExtractor(whisper, load_campplus(locate(speakers), device) if speakers else None)


BACKEND: Final = Backend(
    "whisper-encoder",
    create,
    weights=lambda settings: [settings["encoder"], settings["speaker_encoder"]],
    libraries=("numpy", "scipy", "torchaudio", "openai-whisper", "torch"),
    settings=("encoder", "speaker_encoder"),
    parallel=True,
)


class VoiceExtractor:
    """Acoustic measures, a Whisper encoder, which need not be the one that writes down words, and a speaker encoder."""

    def __init__(self, model: Whisper, speakers: CampPlus | None = None) -> None:
        self._model = model
        self._speakers = speakers

    def feature_names(self) -> list[str]:
        """Names of the feature columns, in order."""
        return feature_names(self._model, self._speakers)

    def measure(self, samples: np.ndarray, *, start: float, window: float) -> FeatureSequence:
        """See :func:`voice_sequence`."""
        return voice_sequence(samples, self._model, self._speakers, start=start, window=window)


def feature_names(model: Whisper, speakers: CampPlus | None = None) -> list[str]:
    """Names of the feature columns, in order."""
    return column_names(model.dims.n_audio_layer, model.dims.n_audio_state, speakers=speakers is not None)


def column_names(layers: int, width: int, *, speakers: bool) -> list[str]:
    """Names of the feature columns, in order: of an encoder of so many layers, with or without a speaker encoder."""
    names = [f"{name}_{statistic}" for statistic in ("mean", "std") for name in COLUMNS] + layer_names(layers, width)
    if speakers:
        names += [f"campplus_hidden_{unit:03d}" for unit in range(HIDDEN)]
        names += [f"campplus_vector_{unit:03d}" for unit in range(WIDTH)]
    return names


def voice_sequence(
    samples: np.ndarray, model: Whisper, speakers: CampPlus | None = None, *, start: float, window: float
) -> FeatureSequence:
    """Features of an utterance in windows.

    Args:
        samples: the utterance's sound, float32 mono at 16 kHz (samples,).
        model: Whisper, whose encoder listens.
        speakers: the speaker encoder that listens, too. Its vector of the whole utterance is in every window.
        start: seconds of the first sample on the media clock.
        window: length of a window in seconds.

    Returns:
        A sequence with the columns of :func:`feature_names`. Pitch of a window without voicing is filled with the
        utterance's mean (0 when nothing is voiced); the voicing columns beside it tell so.

    Raises:
        ValueError: less than 0.25 s of sound.
    """
    if len(samples) < SHORTEST * SAMPLE_RATE:
        raise ValueError(f"an utterance of {len(samples) / SAMPLE_RATE:.2f} s is too short for voice features")
    edges = window_edges(start, start + len(samples) / SAMPLE_RATE, window)
    table = acoustic_features(samples, start)
    times = table["time"].to_numpy()
    frames = np.column_stack([table[name].to_numpy() for name in COLUMNS]).astype(np.float64)
    state_times, states = encoder_states(samples, model)
    parts = [
        window_means(times, frames, edges)[0],
        window_deviations(times, frames, edges),
        window_means(state_times + start, states, edges)[0],
    ]
    if speakers is not None:
        hidden_times, hidden, vector = speakers.heard(samples[: round(LONGEST * SAMPLE_RATE)])
        parts += [window_means(hidden_times + start, hidden, edges)[0], np.tile(vector, (len(edges) - 1, 1))]
    features = np.hstack([_filled(part) for part in parts])
    return FeatureSequence(edges[:-1], edges[1:], features.astype(np.float32))


def _filled(windows: np.ndarray) -> np.ndarray:
    """Replace NaN (nothing measured in that window) by the mean over the other windows, or 0 when there is none."""
    counts = (~np.isnan(windows)).sum(0)
    means = np.divide(np.nansum(windows, 0), counts, out=np.zeros(windows.shape[1]), where=counts > 0)
    return np.where(np.isnan(windows), means, windows)
