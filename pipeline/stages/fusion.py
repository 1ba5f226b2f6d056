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
    """The features of each utterance, and the model."""

    predictor: Callable[[], Predictor]


@dataclass(frozen=True)
class Predictions:
    """What is predicted for each utterance."""

    predictions: list[Prediction]


def fuse(inputs: FusionInputs, context: Context) -> Predictions:
    """Predict the emotion of each utterance from its features and the words said before it."""
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
            usual = {} if means is None else _usual_of_others(means, speaker_name(inputs, index), rows)
            samples.append(Sample(rows, quality, spans[index].text, lines[index], earlier, usual))
        predictions += predictor.predict(samples, leave_one_out=True)
        context.hook(Event("progress", "fusion", done=len(predictions), total=len(spans)))
    return Predictions(predictions)


def _speaker_means(inputs: FusionInputs) -> SpeakerMeans:
    """What is usual for each person of the recording."""
    from emopipe.models.data.speakers import SpeakerMeans

    means = SpeakerMeans()
    for index in range(len(inputs.spans)):
        features = {name: sequence.features for name, sequence in utterance_features(inputs, index).items()}
        means.add(speaker_name(inputs, index), features)
    return means


def _usual_of_others(
    means: SpeakerMeans, speaker: str | None, rows: Mapping[str, np.ndarray]
) -> dict[str, tuple[np.ndarray, np.ndarray] | None]:
    return {name: means.of_others(speaker, name, steps) for name, steps in rows.items()}


def _refuse_other_widths(features: Mapping[str, FeatureSequence], schema: Mapping[str, Sequence[str]]) -> None:
    for name, sequence in features.items():
        width, wanted = sequence.features.shape[1], len(schema[name])
        if width != wanted:
            raise FeatureMismatch(f"{name}: trained on {wanted} features, offered {width}")


FUSION: Final = Stage("fusion", 3, FusionInputs, Predictions, fuse, settings=("checkpoint",), backend="model")
