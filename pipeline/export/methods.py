"""Describe for a paper how recordings were analysed: a methods section, versions, hashes, licences and references."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from emopipe.constants import MODALITIES
from emopipe.errors import REASONS, OutputError
from emopipe.files import write_atomic
from emopipe.models import sealed
from emopipe.pipeline import weights
from emopipe.pipeline.export.recording import Recording
from emopipe.pipeline.report.pages import render

#: Files that a description consists of.
SECTION: Final = "methods.md"
REFERENCES: Final = "references.bib"
#: Settings that say where something lies or how fast it runs, not how recordings are measured.
_BESIDE: Final = ("labelled",)


@dataclass(frozen=True)
class Weight:
    """A weight that took part: its catalogue name, title, licence and sha256; of unknown ones only name and sha256."""

    name: str
    title: str
    licence: str
    sha256: str


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that predicted: its id, and its name and model where it comes with the package."""

    id: str
    name: str = ""
    model: str = ""
    classes: Sequence[str] = ()


@dataclass(frozen=True)
class Description:
    """How the recordings of a run were analysed.

    Attributes:
        version: of emopipe.
        recordings, failed, seconds: how many results there are, how many files failed, and how long they last.
        utterances, answered, abstained: counts.
        absent: modality -> utterances without it.
        languages: language -> recordings.
        speakers: recordings in which so many people speak: number -> recordings.
        reasons: code -> recordings in which it is told.
        checkpoints: that predicted.
        related: recordings whose speaker is named in several, and which were read relative to what is usual in all.
        settings: stage -> setting -> its values; several where recordings were not measured alike.
        weights, libraries: that took part; library -> versions.
        incomplete: recordings of which the store no longer holds how they were measured.
    """

    version: str
    recordings: int
    failed: int
    seconds: float
    utterances: int
    answered: int
    abstained: int
    absent: Mapping[str, int]
    languages: Mapping[str, int]
    speakers: Mapping[int, int]
    reasons: Mapping[str, int]
    checkpoints: Sequence[Checkpoint]
    related: int
    settings: Mapping[str, Mapping[str, Sequence[Any]]]
    weights: Sequence[Weight]
    libraries: Mapping[str, Sequence[str]]
    incomplete: int

    def value(self, name: str) -> str:
        """The values of a setting such as ``face.rate`` in words, or nothing."""
        stage = next((one for one in self.settings.values() if name in one), {})
        return " and ".join(str(value) for value in stage.get(name, ()))

    def title(self, setting: str) -> str:
        """The titles of the weights that a setting names."""
        names = {one.name: one.title for one in self.weights}
        return " and ".join(names.get(name, name) for name in self.value(setting).split(" and "))

    def cite(self, *names: str) -> str:
        """Citations, in Pandoc's form, of what has these names and took part; empty where there are none."""
        keys = [key for key in self.cited() if set(references()[key]["of"]) & set(names)]
        return f" [{'; '.join(f'@{key}' for key in keys)}]" if keys else ""

    def cited(self) -> list[str]:
        """Keys of the references of everything that took part."""
        names = {one.name for one in self.weights} | set(self.libraries)
        names |= {one.model for one in self.checkpoints}
        names |= {name for name in MODALITIES if self.absent.get(name, 0) < self.utterances}
        return [key for key, entry in references().items() if set(entry["of"]) & names]


@cache
def references() -> Mapping[str, Mapping[str, Any]]:
    """Key of a reference -> `of`, the names of what it stands for, and `bibtex`."""
    return tomllib.loads(Path(__file__).with_name("references.toml").read_text("utf-8"))


def describe(recordings: Iterable[Recording], failed: int = 0) -> Description:
    """Describe how recordings were analysed.

    Args:
        recordings: of a run.
        failed: how many files could not be analysed.
    """
    counts: Counter[str] = Counter()
    absent, languages, speakers, reasons, checkpoints = (Counter[Any]() for _ in range(5))
    settings: dict[str, dict[str, list[Any]]] = {}
    shown: dict[tuple[str, str], None] = {}
    libraries: dict[str, list[str]] = {}
    seconds = 0.0
    for recording in recordings:
        result = recording.result
        seconds += result.duration or 0.0
        spoken = result.utterances
        counts += Counter(recordings=1, utterances=len(spoken), abstained=sum(one.abstained for one in spoken))
        counts["related"] += "related_recordings" in result.info
        counts["answered"] += sum(one.label is not None or one.value is not None for one in spoken)
        absent.update(name for one in spoken for name in one.absent)
        languages.update(filter(None, [result.info.get("language")]))
        speakers.update([len(result.people)])
        reasons.update({reason.code for reason in result.reasons})
        checkpoints.update([result.checkpoint])
        facts = [recording.facts(stage) for stage in result.keys]
        counts["incomplete"] += not facts or not all(facts)
        for one in facts:
            _gather(one, settings, shown, libraries)
    return Description(
        version=version("emopipe"),
        recordings=counts["recordings"],
        failed=failed,
        seconds=seconds,
        utterances=counts["utterances"],
        answered=counts["answered"],
        abstained=counts["abstained"],
        absent=absent,
        languages=dict(languages.most_common()),
        speakers=dict(sorted(speakers.items())),
        reasons=dict(reasons.most_common()),
        checkpoints=[_checkpoint(one) for one in checkpoints if one],
        related=counts["related"],
        settings=settings,
        weights=[_weight(*one) for one in shown],
        libraries={name: libraries[name] for name in sorted(libraries)},
        incomplete=counts["incomplete"],
    )


def _gather(
    facts: Mapping[str, Any],
    settings: dict[str, dict[str, list[Any]]],
    shown: dict[tuple[str, str], None],
    libraries: dict[str, list[str]],
) -> None:
    """Add the settings, weights and libraries of one result of a stage."""
    stage = settings.setdefault(facts["stage"], {}) if facts else {}
    for name, setting in facts.get("parameters", {}).items():
        value = _without_names(name, setting)
        if name not in _BESIDE and value not in stage.setdefault(name, []):
            stage[name].append(value)
    for name, sha256 in facts.get("weights", {}).items():
        shown[name, sha256] = None
    for name, installed in facts.get("libraries", {}).items():
        if installed not in libraries.setdefault(name, []):
            libraries[name].append(installed)


def _without_names(setting: str, value: Any) -> Any:
    """A setting as papers may tell it: of people who were enrolled, the sha256 of their clips."""
    if setting == "people.enrol":
        return sorted(value.values()) if value else value
    if setting == "people.subject" and value and value != "longest" and not value.isdigit():
        return "an enrolled person"
    return value


def _weight(name: str, sha256: str) -> Weight:
    entry = weights.known(name)
    return Weight(name, entry.title if entry else name, entry.licence if entry else "unknown", sha256)


def _checkpoint(identity: str) -> Checkpoint:
    """A checkpoint by its id."""
    for name in sealed.shipped():
        config = sealed.read_config(sealed.find(name))
        if config["id"] == identity:
            return Checkpoint(identity, name, config["model"], config["classes"])
    return Checkpoint(identity)


def write(description: Description, folder: Path) -> list[Path]:
    """Write `methods.md` and `references.bib`, whole or not at all.

    Raises:
        OutputError: they cannot be written.
    """
    bibtex = "\n\n".join(references()[key]["bibtex"].strip() for key in description.cited()) + "\n"
    texts = {
        SECTION: render(SECTION, run=description, meanings={code: kind.meaning for code, kind in REASONS.items()})
        + "\n",
        REFERENCES: bibtex,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_atomic(folder / name, text)
    except OSError as error:
        raise OutputError(f"the description cannot be written: {error.strerror or error}", path=folder) from None
    return [folder / name for name in texts]
