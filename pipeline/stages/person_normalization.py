"""Person normalization within a recording: features relative to what is normal for each person (`--baseline`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from emopipe.errors import ReferenceClipUnusable
from emopipe.extractors.contracts import Span
from emopipe.extractors.person_normalization import Baselines, person_baselines
from emopipe.extractors.windows import FeatureSequence
from emopipe.pipeline.records import AbsenceReason, Absent, Person
from emopipe.pipeline.stages.stage import Context, Inputs, Stage
from emopipe.pipeline.store.serialization import FeatureSequences, absence

#: Number of a person -> modality -> the same as a list, as it is stored.
StoredBaselines = dict[str, dict[str, list[float] | None]]
NO_BASELINE: Final[AbsenceReason] = "no_baseline"


class FeatureInputs(Inputs):
    """The features of each utterance, by modality."""

    spans: list[Span]
    people: list[Person]
    text: FeatureSequences
    face: FeatureSequences
    voice: FeatureSequences

    def of(self, modality: str) -> FeatureSequences:
        """The features of a modality."""
        return {"text": lambda: self.text, "face": lambda: self.face, "voice": lambda: self.voice}[modality]()


class BaselineInputs(FeatureInputs):
    """The features of each utterance, and what a baseline clip shows."""

    labelled: bool
    reference: Callable[[], Baselines]


@dataclass(frozen=True)
class PersonBaselines:
    """What is normal for each person of a source."""

    baselines: StoredBaselines


def find_baselines(inputs: BaselineInputs, context: Context) -> PersonBaselines:
    """Find what is normal for each person of a clip: the mean of their calm utterances, or a given clip.

    The rows of a labelled source are too few to tell; a dataset is normalized when all of it is extracted.
    """
    settings = context.settings.people
    if inputs.labelled or settings.baseline == "none":
        return PersonBaselines({})
    spans, shown = inputs.spans, {person.number for person in inputs.people if person.reference}
    measured = {name: pair for name in settings.baseline_of if (pair := _means(inputs.of(name), len(spans)))}
    names = context.backends.feature_names({"voice"} & measured.keys())
    baselines: StoredBaselines = {}
    for number in dict.fromkeys(span.person for span in spans):
        rows = [index for index, span in enumerate(spans) if span.person == number]
        means = {name: found[0][rows] for name, found in measured.items()}
        lengths = {name: found[1][rows] for name, found in measured.items()}
        own = inputs.reference() if number in shown else person_baselines(means, lengths, names)
        baselines[str(number)] = {name: None if one is None else one.tolist() for name, one in own.items()}
    return PersonBaselines(baselines)


def _means(sequences: FeatureSequences, count: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean features (utterances, dims), NaN where absent, and steps (utterances,); None when all are absent."""
    lengths = np.zeros(count)
    means: np.ndarray | None = None
    for index in range(count):
        sequence = None if absence(sequences, index) else sequences[index]
        if isinstance(sequence, FeatureSequence):
            steps = sequence.features
            means = np.full((count, steps.shape[1]), np.nan) if means is None else means
            means[index], lengths[index] = np.nanmean(steps, axis=0), len(steps)
    return None if means is None else (means, lengths)


class NormalizedInputs(FeatureInputs):
    """The features of each utterance, and what is normal for who speaks it."""

    baselines: StoredBaselines


def normalized(inputs: NormalizedInputs, modality: str, index: int) -> FeatureSequence | Absent:
    """The features of an utterance, relative to its speaker's baseline where there is one to be; or their absence."""
    sequence, own = inputs.of(modality)[index], _baselines_of(inputs, index)
    if isinstance(sequence, Absent) or modality not in own:
        return sequence
    baseline = own[modality]
    if baseline is None:
        return Absent(NO_BASELINE)
    return replace(sequence, features=(sequence.features - np.asarray(baseline)).astype(np.float32))


def normalized_absence(inputs: NormalizedInputs, modality: str, index: int) -> AbsenceReason | None:
    """Why :func:`normalized` gives no features; None when it gives them. Reads none."""
    needed = _baselines_of(inputs, index).get(modality, [])
    return absence(inputs.of(modality), index) or (NO_BASELINE if needed is None else None)


def _baselines_of(inputs: NormalizedInputs, index: int) -> Mapping[str, list[float] | None]:
    """Modality -> what is normal for who speaks an utterance."""
    return inputs.baselines.get(str(inputs.spans[index].person), {})


def baselines_of_clip(inputs: FeatureInputs, clip: Path, modalities: Sequence[str]) -> Baselines:
    """The baseline that a clip shows: the mean over everything that its main person says and does.

    Args:
        inputs: of the clip.
        clip: where they are from.
        modalities: whose baselines are wanted.

    Raises:
        ReferenceClipUnusable: when it shows nothing.
    """
    main = max(inputs.people, key=lambda person: person.talk, default=None)
    own = [index for index, span in enumerate(inputs.spans) if main is None or span.person == main.number]
    baselines: dict[str, np.ndarray | None] = {}
    for modality in modalities:
        sequences = [inputs.of(modality)[index] for index in own]
        steps = [sequence.features for sequence in sequences if isinstance(sequence, FeatureSequence)]
        baselines[modality] = np.concatenate(steps).mean(0) if steps else None
    if all(value is None for value in baselines.values()):
        hint = "Give one in which the person is seen or heard"
        raise ReferenceClipUnusable("the baseline clip shows nobody's features", path=clip, hint=hint)
    return baselines


BASELINE: Final = Stage(
    "baseline",
    1,
    BaselineInputs,
    PersonBaselines,
    find_baselines,
    settings=("people.baseline", "people.baseline_of"),
    needed=lambda config, labelled: not labelled and config.people.baseline != "none",
)
