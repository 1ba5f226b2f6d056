"""What a backend is: how it is declared and made, and what the pipeline asks of it. `testing` checks that one keeps it.

A backend is found by its name: those of this package in its own list, those of other packages through an entry point
of the group `emopipe.extractors.face`, `.voice`, `.speech`, `.text` or `.diarizer`. The entry point names a
:class:`Backend`, or a :class:`Create` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from emopipe.extractors.face.table import TimedPicture
from emopipe.extractors.windows import FeatureSequence

#: From a weight's name, a path, or "owner/model" of the hub, to what a library loads. A backend fetches nothing itself.
Locate = Callable[[str], Path]


#: Start and end in seconds.
Interval = tuple[float, float]


class Samples(Protocol):
    """Sound that need not be in memory as a whole: slices of it are float32 arrays (samples,)."""

    def __len__(self) -> int: ...
    def __getitem__(self, part: slice, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Word:
    """A word as heard.

    Attributes:
        text: with the blank that comes before it, if any.
        start, end: seconds on the media clock.
        probability: how sure the recogniser is of it; 0 for what it wrote down in a loop.
        person: number of the speaker, where each person has a track of their own; else turns tell it.
    """

    text: str
    start: float
    end: float
    probability: float
    person: int | None = None


@dataclass(frozen=True)
class Turn:
    """A stretch of speech of one person.

    Attributes:
        start, end: seconds.
        person: number of the speaker.
        overlapped: somebody else may be speaking too.
    """

    start: float
    end: float
    person: int
    overlapped: bool = False


@dataclass(frozen=True)
class SpeakerTurns:
    """Turns of speech, in order, and the doubt about how many people speak, in words; "" when it is clear."""

    turns: list[Turn]
    doubt: str = ""


@dataclass(frozen=True)
class Span:
    """A stretch of the clip: seconds, the words spoken in it ("" without speech), and the number of who speaks them."""

    start: float
    end: float
    text: str = ""
    words: tuple[Word, ...] = ()
    person: int | None = None


class Create(Protocol):
    """Makes a backend.

    Args:
        settings: the backend's table of the extraction configuration, as plain data; `options` is its own.
        locate: finds the weights that the settings name.
        device: "cpu" or "cuda".

    Raises:
        ValueError, OSError: settings or weights cannot be used; the words are shown to the user.
        ImportError: a library is missing.
    """

    def __call__(self, settings: Mapping[str, Any], locate: Locate, device: str) -> Any:
        """Make a backend from its settings, with weights that `locate` finds, on a device."""


@dataclass(frozen=True)
class Backend:
    """What a backend declares, in its own file.

    Attributes:
        name: what configurations and commands call it.
        create: makes it.
        weights: told its table of the configuration, names the weights that it loads.
        libraries: distributions whose versions decide what it measures.
        bundled: name -> weights that come with the package and decide what it measures.
        settings: entries of its table that it reads; it is handed no others. (): all, as for a plugin, whose results
            then depend on all of its table.
        gpu: it works on a GPU where there is one.
        parallel: its calls may run at the same time, in several threads.
        install: what to do when its library is missing.
        obtain: what to do when its weights are missing.
    """

    name: str
    create: Create
    weights: Callable[[Mapping[str, Any]], Sequence[str]] = lambda settings: ()
    libraries: tuple[str, ...] = ()
    bundled: Mapping[str, Path] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    gpu: bool = True
    parallel: bool = False
    install: str = ""
    obtain: str = ""


class FaceBackend(Protocol):
    """Measures faces.

    Attributes:
        measured: the columns of the face table (`face.table.SCHEMA`) that it fills; it leaves the others null.
    """

    measured: Collection[str]

    def track(self, frames: Iterable[TimedPicture]) -> pa.Table:
        """The face table of a clip, whose frames come one at a time in order."""

    def still(self, rgb: np.ndarray) -> pa.Table:
        """The face table of one picture, uint8 (height, width, 3), at time 0."""

    def close(self) -> None:
        """Free what must be freed by hand; may be called twice."""


class VoiceBackend(Protocol):
    """Measures how something was said."""

    def feature_names(self) -> list[str]:
        """Names of the feature columns, in order."""

    def measure(self, samples: np.ndarray, *, start: float, window: float) -> FeatureSequence:
        """Features of an utterance's sound, float32 mono at 16 kHz, at least 0.25 s, in windows of some seconds.

        Args:
            samples: (samples,).
            start: seconds of the first sample on the media clock.
            window: length of a step in seconds, roughly.
        """


class SpeechBackend(Protocol):
    """Writes down words."""

    def languages(self, sounds: Sequence[np.ndarray]) -> list[Mapping[str, float]]:
        """ISO 639-1 code -> how likely that language is spoken, for each sound; one at least.

        Args:
            sounds: float32 mono at 16 kHz, each at most 30 s.
        """

    def listen(self, sounds: Sequence[np.ndarray], language: str) -> list[list[Word]]:
        """Words of each sound, in order, timed in seconds from the beginning of their sound.

        Args:
            sounds: float32 mono at 16 kHz, each at most 30 s.
            language: ISO 639-1 code of what is spoken in all of them.
        """


class TextBackend(Protocol):
    """Turns words into vectors."""

    def feature_names(self) -> list[str]:
        """Names of the feature columns, in order."""

    def encode(self, texts: Sequence[str], language: str | None = None) -> list[np.ndarray]:
        """Vectors of each text, float32 (steps, width) with at least one step; NaN where nothing was measured.

        Args:
            texts: not empty, of any length, in any script.
            language: ISO 639-1 code of the texts, None when unknown.
        """


@dataclass(frozen=True)
class Likeness:
    """What the cosines of an encoder's vectors tell.

    Attributes:
        alike: two people whose mean vectors have a greater cosine are one.
        alike_of_more: the same when there are more than two: a third person must stand out more, because one person in
            two emotions is two clusters.
        alike_if_several_seen: the same of two, when the picture shows that more than one person talks.
        doubtful: between these, the greatest cosine of two people leaves a doubt whether they are two.
        recognised: a voice is that of an enrolled person when their mean vectors have at least this cosine.
    """

    alike: float
    alike_of_more: float
    alike_if_several_seen: float
    doubtful: Interval
    recognised: float


class VoiceEncoder(Protocol):
    """What gives pieces of speech their vectors; see :class:`emopipe.extractors.speech.campplus.CampPlus`.

    Attributes:
        likeness: what the cosines of its vectors tell.
    """

    likeness: Likeness

    def embed(self, samples: Samples, pieces: Sequence[Interval]) -> np.ndarray:
        """Embeddings (pieces, dims) of pieces of sound, each start and end in samples."""


class Diarizer(Protocol):
    """What cuts speech into turns."""

    def turns(
        self,
        samples: Samples,
        speech: Sequence[Interval],
        *,
        people: int,
        least: int,
        most: int,
        several_seen: bool,
    ) -> SpeakerTurns:
        """Turns in order, and whether the number of people is in doubt.

        Args:
            samples: float32 mono at 16 kHz (samples,), the whole clip.
            speech: spans of speech, ascending and apart.
            people: how many speak; 0 estimates it.
            least, most: the estimate is between these.
            several_seen: the picture shows that more than one person talks, as far as pictures can.
        """
