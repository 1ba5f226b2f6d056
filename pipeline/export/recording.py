"""One recording of a run as exporters see it: its results, and what was measured, read from the store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emopipe.errors import OutputError
from emopipe.extractors.contracts import Word
from emopipe.extractors.windows import FeatureSequence
from emopipe.pipeline.privacy.disguise import Disguise, disguise_of
from emopipe.pipeline.records import Absent, Correction, FileResult, Person, Privacy, TurnResult, UtteranceResult
from emopipe.pipeline.report.outputs import document, read_manifest, reason_from_json
from emopipe.pipeline.store.serialization import absence
from emopipe.pipeline.store.store import Store, store_of_run

#: A document that lacks one of these was not written by a run.
_NEEDED: Final = ("media", "state", "reasons", "duration", "info", "checkpoint", "people", "turns", "utterances")


@dataclass(frozen=True)
class Recording:
    """A recording of a run.

    Attributes:
        result: what was found and predicted.
        stem: name of its files, without a suffix.
        store: holds what was measured; None when there is none.
        disguise: what is hidden in the words that the store holds.
        folder: of the run's results; None when there is none.
    """

    result: FileResult
    stem: str
    store: Store | None = None
    disguise: Disguise = field(default_factory=Disguise)
    folder: Path | None = None

    @property
    def media(self) -> str:
        """The recording's path as text, with escapes for what is not Unicode."""
        return str(self.result.media).encode("utf-8", "backslashreplace").decode()

    @property
    def played(self) -> Path | None:
        """The file that is played: the recording, or a copy beside the results; None for nothing."""
        copy = self.result.privacy.media
        if copy is None:
            return self.result.media
        return self.folder / copy if copy and self.folder is not None else None

    def lacks(self, stage: str) -> bool:
        """Whether a stage did measure something that is not in the store."""
        key = self.result.keys.get(stage)
        return not self.result.keys or (key is not None and not (self.store is not None and self.store.has(key)))

    def has(self, stage: str) -> bool:
        """Whether a stage found anything to measure, and it is in the store."""
        measured = self._measured(stage)
        if stage == "face":
            return isinstance(measured.get("face_table"), pa.Table)
        sequences = measured.get("voice", ())
        return any(absence(sequences, index) is None for index in range(len(sequences)))

    @cached_property
    def faces(self) -> pa.Table:
        """The face table; there is one when the recording has "face"."""
        return self._measured("face")["face_table"]

    @property
    def words(self) -> list[Word]:
        """The words that were recognised, with their times, hidden as in the result.

        Raises:
            PrivacyError: the result has pseudonyms, and they are not given.
        """
        disguise = disguise_of(self.result.privacy, self.disguise)
        return disguise.words(self._measured("words").get("words", []), self.result)

    def voice(self) -> Iterator[tuple[int, FeatureSequence]]:
        """Number of each utterance whose voice was measured, and its features."""
        sequences: Sequence[FeatureSequence | Absent] = self._measured("voice").get("voice", [])
        for index, sequence in enumerate(sequences):
            if not isinstance(sequence, Absent):
                yield index, sequence

    def mean_features(self, modality: str) -> dict[int, NDArray[np.float64]]:
        """Number of each utterance of which a modality was measured, and the mean of its features (D,)."""
        from emopipe.models.data.speakers import utterance_mean

        measured = self._measured("subject" if modality == "face" else modality).get(modality, [])
        return {
            index: utterance_mean(sequence.features)
            for index, sequence in enumerate(measured)
            if not isinstance(sequence, Absent) and len(sequence.features)
        }

    def facts(self, stage: str) -> Mapping[str, Any]:
        """What decided the result of a stage: its settings, weights and libraries."""
        key = self.result.keys.get(stage)
        return {} if key is None or self.store is None else self.store.facts(key)

    def name_of(self, number: int) -> str:
        """The name of a person."""
        names = {person.number: person.name for person in self.result.people}
        return names.get(number, f"S{number + 1}")

    def name_of_track(self) -> dict[int, str]:
        """Number of a face track -> name of whose face it is."""
        return {track: person.name for person in self.result.people for track in person.tracks}

    def _measured(self, stage: str) -> Mapping[str, Any]:
        key = self.result.keys.get(stage)
        return {} if key is None or self.store is None else self.store.get(key) or {}


def read_recordings(folder: Path, store: Store | None = None, disguise: Disguise | None = None) -> Iterator[Recording]:
    """The recordings of a run that did not fail, one at a time.

    Args:
        folder: the run's results.
        store: in which the run kept what it measured.
        disguise: what is hidden, beside what the run hid.

    Raises:
        InputNotFound: when there was no run, OutputError when what it wrote cannot be used, PrivacyError when several
            recordings would have one name.
    """
    hide = disguise or Disguise()
    stems = [Path(entry["outputs"]) for entry in read_manifest(folder).values() if entry["outputs"] is not None]
    for stem, shown in hide.paths(stems).items():
        yield Recording(hide.result(_read(folder / f"{stem}.json")), str(shown), store, hide, folder)


def recordings_of_run(folder: Path, store: Path, disguise: Disguise | None = None) -> Iterator[Recording]:
    """The same with a store by its folder, which need not be there; it is open while they are gone through."""
    with store_of_run(store) as opened:
        yield from read_recordings(folder, opened, disguise)


def recording_of(result: FileResult, stem: str, store: Store, disguise: Disguise) -> Recording:
    """The recording of a result in memory, with the numbers rounded as they are written to JSON."""
    return Recording(file_result(document(result, "", "")), stem, store, disguise)


def _read(path: Path) -> FileResult:
    try:
        return file_result(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        hint = "Run again: what was measured is taken from the store"
        raise OutputError(f"the results of an earlier run cannot be used: {error!r}", path=path, hint=hint) from None


def file_result(facts: Mapping[str, Any]) -> FileResult:
    """A result from the document that :func:`~emopipe.pipeline.report.outputs.document` makes of it.

    Raises:
        KeyError, TypeError, ValueError: it is not such a document.
    """
    known = {name: facts[name] for name in _NEEDED}
    return FileResult(
        media=Path(known["media"]),
        state=known["state"],
        reasons=[reason_from_json(reason) for reason in known["reasons"]],
        duration=known["duration"],
        info=known["info"],
        checkpoint=known["checkpoint"],
        people=[Person(**{**person, "tracks": tuple(person["tracks"])}) for person in known["people"]],
        turns=[TurnResult(**turn) for turn in known["turns"]],
        utterances=[_utterance(row) for row in known["utterances"]],
        keys=facts.get("keys", {}),
        privacy=Privacy(**facts.get("privacy", {})),
    )


def _utterance(row: Mapping[str, Any]) -> UtteranceResult:
    corrections = tuple(Correction.from_json(facts) for facts in row.get("corrections", ()))
    unverified = tuple(row.get("unverified_weights", ()))
    return UtteranceResult(**{**row, "unverified_weights": unverified, "corrections": corrections})
