"""Fusion: what the model says of each utterance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from emopipe.errors import FeatureMismatch
from emopipe.extractors.windows import FeatureSequence
from emopipe.models.prediction import Prediction
from emopipe.pipeline.progress import Event
from emopipe.pipeline.stages.assembly import UtteranceFeatures, speaker_name, utterance_features, utterance_quality
from emopipe.pipeline.stages.stage import Context, Stage
from emopipe.pipeline.store.serialization import GROUP

if TYPE_CHECKING:
    import numpy as np

    from emopipe.models.data.speakers import SpeakerMeans
    from emopipe.models.predictor import Predictor


class FusionInputs(UtteranceFeatures):
    """The features of each utterance, the model, and what is usual for the speaker in other recordings."""

    predictor: Callable[[], Predictor]
    related_means: Callable[[], SpeakerMeans] | None


@dataclass(frozen=True)
class Predictions:
    """What is predicted for each utterance."""

    predictions: list[Prediction]


def fuse(inputs: FusionInputs, context: Context) -> Predictions:
    """Predict the emotion of each utterance from its features and the words said before it.

    Where the model reads features relative to the speaker's other utterances, these are those of the recording; where
    it has too few of them, those of all recordings of the run in which the same speaker is named.
    """
    from emopipe.models.data.conversation import spoken
    from emopipe.models.data.dataset import Sample

    predictor = inputs.predictor()
    predictions: list[Prediction] = []
    spans = inputs.spans
    means = _speaker_means(inputs) if predictor.module.relative else None
    lines = spoken([(speaker_name(inputs, index), span.text) for index, span in enumerate(spans)])
    for first in range(0, len(spans), GROUP):
        samples = []
        for index in range(first, min(first + GROUP, len(spans))):
            features = utterance_features(inputs, index)
            _refuse_other_widths(features, predictor.spec.schema)
            rows = {name: sequence.features for name, sequence in features.items()}
            earlier = tuple(line for line in lines[:index] if line)
            quality = utterance_quality(inputs, index, rows)
            usual = {} if means is None else _usual_of_others(inputs, means, speaker_name(inputs, index), rows)
            samples.append(Sample(rows, quality, spans[index].text, lines[index], earlier, usual))
        predictions += predictor.predict(samples, leave_one_out=True)
        context.hook(Event("progress", "fusion", done=len(predictions), total=len(spans)))
    return Predictions(predictions)


def _speaker_means(inputs: FusionInputs) -> SpeakerMeans:
    """What is usual for each person of the recording."""
    from emopipe.models.data.speakers import SpeakerMeans

    means = SpeakerMeans()
    count_utterances(means, inputs)
    return means


def count_utterances(means: SpeakerMeans, inputs: UtteranceFeatures, only: str | None = None) -> None:
    """Count the utterances of a recording, of one speaker where one is named, in what is usual for who speaks them."""
    for index in range(len(inputs.spans)):
        speaker = speaker_name(inputs, index)
        if only is None or speaker == only:
            features = {name: sequence.features for name, sequence in utterance_features(inputs, index).items()}
            means.add(speaker, features)


def _usual_of_others(
    inputs: FusionInputs, means: SpeakerMeans, speaker: str | None, rows: Mapping[str, np.ndarray]
) -> dict[str, tuple[np.ndarray, np.ndarray] | None]:
    """By modality, what is usual for the speaker: in the recording, or where that cannot tell, in related ones."""
    usual = {name: means.of_others(speaker, name, steps) for name, steps in rows.items()}
    if inputs.related_means is None or None not in usual.values():
        return usual
    shared = inputs.related_means()
    return {name: known or shared.of_others(speaker, name, rows[name]) for name, known in usual.items()}


def _refuse_other_widths(features: Mapping[str, FeatureSequence], schema: Mapping[str, Sequence[str]]) -> None:
    for name, sequence in features.items():
        width, wanted = sequence.features.shape[1], len(schema[name])
        if width != wanted:
            raise FeatureMismatch(f"{name}: trained on {wanted} features, offered {width}")


FUSION: Final = Stage("fusion", 4, FusionInputs, Predictions, fuse, settings=("checkpoint",), backend="model")
