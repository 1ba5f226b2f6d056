"""All stages between a source and its predictions, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from emopipe.extractors.person_normalization import Baselines
from emopipe.pipeline.media.decoding import Media
from emopipe.pipeline.records import Source
from emopipe.pipeline.stages.assembly import ExtractionInputs
from emopipe.pipeline.stages.face import FACE, SPEAKER_FACE
from emopipe.pipeline.stages.fusion import FUSION
from emopipe.pipeline.stages.people import NAMES, PEOPLE, SPEAKERS, TRACKS, TURNS
from emopipe.pipeline.stages.person_normalization import BASELINE
from emopipe.pipeline.stages.probe import PROBE, SOUND
from emopipe.pipeline.stages.speech import SPEECH, UTTERANCES, WORDS
from emopipe.pipeline.stages.stage import AnyStage, Inputs, input_names
from emopipe.pipeline.stages.text import TEXT
from emopipe.pipeline.stages.voice import VOICE
from emopipe.pipeline.stages.waveform import WAVEFORM

if TYPE_CHECKING:
    from emopipe.models.data.speakers import SpeakerMeans
    from emopipe.models.predictor import Predictor


class Given(Inputs):
    """What is there before the first stage: the source and its files, what is wanted, and what loads models."""

    source: Source
    speaker: str | None
    media: Media | None
    sound_media: Media | None
    image: Path | None
    wanted: frozenset[str]
    labelled: bool
    reference: Callable[[], Baselines]
    predictor: Callable[[], Predictor]
    related_means: Callable[[], SpeakerMeans] | None


#: From a source to its features.
STAGES: Final[tuple[AnyStage, ...]] = (
    PROBE,
    FACE,
    SOUND,
    SPEECH,
    TRACKS,
    SPEAKERS,
    TURNS,
    WORDS,
    UTTERANCES,
    NAMES,
    PEOPLE,
    VOICE,
    TEXT,
    SPEAKER_FACE,
    BASELINE,
)
#: From a source to its predictions, and to what its page shows.
ALL_STAGES: Final[tuple[AnyStage, ...]] = (*STAGES, WAVEFORM, FUSION)
#: Names of the values that an extraction is put together from.
EXTRACTED: Final = input_names(ExtractionInputs)
