"""Read what was edited in an exported ELAN file: labels, words, bounds and persons become corrections."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emopipe.errors import CorrectionsError, reason
from emopipe.pipeline.corrections.documents import (
    FORMAT,
    VERSION,
    Outcome,
    RecordingCorrections,
    corrector,
    parse_document,
    read_limited,
)
from emopipe.pipeline.export.elan_praat import (
    FIRST_ANNOTATION,
    NO_DATE,
    PROBE,
    RECORDING,
    Interval,
    person_tiers,
    tier_name,
)
from emopipe.pipeline.export.recording import Recording, read_recordings
from emopipe.pipeline.export.subtitles import one_line
from emopipe.pipeline.privacy.disguise import Disguise

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_EXPORT_AGAIN: Final = "Export the results once more with `emopipe export --to eaf`, and edit that file"
#: Author that an export names when nobody has edited it.
_NOBODY: Final = ("", "emopipe", "unspecified")


@dataclass(frozen=True)
class Annotation:
    """An annotation of an utterance: its tier, and what hangs on it.

    Attributes:
        id: of the annotation.
        tier: name of its tier.
        participant: of the tier.
        place: when, and the words.
        emotion: the label or value; None where there is no annotation of it.
    """

    id: str
    tier: str
    participant: str
    place: Interval
    emotion: str | None = None


@dataclass(frozen=True)
class Exported:
    """An utterance as it is exported: its number in the recording and how it looks without edits."""

    number: int
    annotation: Annotation


@dataclass(frozen=True)
class ElanFile:
    """What is read of an ELAN file.

    Attributes:
        author, date: of the file.
        properties: of its header.
        utterances: the annotations of utterances.
    """

    author: str
    date: str
    properties: Mapping[str, str]
    utterances: Sequence[Annotation]


@dataclass
class _Edits:
    """What differs: corrections as `corrections.json` has them, and what cannot be one."""

    utterances: list[dict[str, Any]] = field(default_factory=list)
    refused: list[Outcome] = field(default_factory=list)


def read_edits(
    path: Path, results: Path, by: str | None = None, disguise: Disguise | None = None
) -> RecordingCorrections:
    """What was edited in an ELAN file that was exported from results.

    Args:
        path: the edited file.
        results: of the run.
        by: who edited, in place of the file's author.
        disguise: what the results hide.

    Raises:
        InputNotFound: without the file or the results; CorrectionsError when it is not such a file, or nobody is named.
    """
    file = read_elan(path)
    name, probe = file.properties.get(RECORDING, ""), file.properties.get(PROBE, "")
    if not name or not probe:
        what = "the ELAN file does not say of which recording it is"
        raise CorrectionsError(what, path=path, hint=_EXPORT_AGAIN)
    who = corrector(by or ("" if file.author.strip() in _NOBODY else file.author), path)
    saved = "" if file.date == NO_DATE else file.date
    recording = next((one for one in read_recordings(results, disguise=disguise) if one.stem == name), None)
    matches = recording is not None and recording.result.keys.get("probe") == probe
    edits = _edits(recording, file.utterances, who) if recording is not None and matches else _Edits()
    document = {
        "format": FORMAT,
        "version": VERSION,
        "saved": saved,
        "recordings": [{"name": name, "probe": probe, "utterances": edits.utterances}],
    }
    (read,) = parse_document(json.dumps(document).encode(), path, who)
    media = "" if recording is None else recording.result.media.name
    return RecordingCorrections(read.name, media, probe, who, read.saved, read.edits, [*read.refused, *edits.refused])


def _edits(recording: Recording, annotations: Sequence[Annotation], by: str) -> _Edits:
    """Compare annotations with what is exported of the recording."""
    edits = _Edits()
    pairs, new, gone = paired(list(exported(recording)), annotations)
    for before, after in pairs:
        changes = _changes(recording, before, after)
        if changes:
            row = recording.result.utterances[before.number]
            edits.utterances.append({"start": row.start, "end": row.end, "speaker": row.speaker, **changes})
    for one in new:
        what = "the annotation is new; utterances can be corrected, not added"
        edits.refused.append(_refused(recording, one, by, what))
    for annotation in (one.annotation for one in gone):
        what = "the annotation was deleted; utterances can be corrected, not deleted"
        edits.refused.append(_refused(recording, annotation, by, what))
    return edits


def _refused(recording: Recording, one: Annotation, by: str, what: str) -> Outcome:
    speaker = one.participant or None
    start, end = one.place.start / 1000, one.place.end / 1000
    return Outcome(recording.stem, start, end, speaker, by, "", reason("correction_unusable", what))


def exported(recording: Recording) -> Iterator[Exported]:
    """The utterances as they are exported, with the ids of their annotations."""
    ids = (f"a{number}" for number in itertools.count(FIRST_ANNOTATION))
    for person in person_tiers(recording):
        name = one_line(person.name)
        for index, place, emotion in zip(person.numbers, person.utterances, person.emotions, strict=True):
            yield Exported(index, Annotation(next(ids), tier_name("utterance", name), name, place, emotion or None))


def paired(
    before: Sequence[Exported], after: Sequence[Annotation]
) -> tuple[list[tuple[Exported, Annotation]], list[Annotation], list[Exported]]:
    """Which annotation is which utterance: by its id, else by its time, as when it was copied to another tier.

    Returns:
        The pairs in order, annotations that are new, and utterances whose annotation is gone.
    """
    by_id = {one.annotation.id: one for one in before}
    pairs = {
        one.id: (by_id[one.id], one)
        for one in after
        if one.id in by_id and _shared(by_id[one.id].annotation.place, one.place) > 0
    }
    gone = [one for one in before if one.annotation.id not in pairs]
    new = []
    for one in after:
        if one.id in pairs and pairs[one.id][1] is one:
            continue
        same = max(gone, key=lambda other: _shared(other.annotation.place, one.place), default=None)
        if same is not None and _shared(same.annotation.place, one.place) > 0.5:
            pairs[same.annotation.id] = (same, one)
            gone.remove(same)
        else:
            new.append(one)
    return sorted(pairs.values(), key=lambda pair: pair[0].number), new, gone


def _shared(one: Interval, other: Interval) -> float:
    """What two intervals share, as a part of what they cover together."""
    both = min(one.end, other.end) - max(one.start, other.start)
    return both / max(max(one.end, other.end) - min(one.start, other.start), 1)


def _changes(recording: Recording, before: Exported, after: Annotation) -> dict[str, Any]:
    """What was edited in an annotation."""
    was, row = before.annotation, recording.result.utterances[before.number]
    changes: dict[str, Any] = {}
    if after.emotion is not None and after.emotion != was.emotion and after.emotion.strip():
        changes |= _answer(after.emotion.strip(), is_value=row.value is not None)
    if after.place.text != was.place.text:
        changes["text"] = after.place.text
    if (after.place.start, after.place.end) != (was.place.start, was.place.end):
        start = row.start if after.place.start == was.place.start else after.place.start / 1000
        end = row.end if after.place.end == was.place.end else after.place.end / 1000
        changes["bounds"] = [start, end]
    person = _person(was, after)
    return changes | ({"person": person} if person else {})


def _answer(emotion: str, *, is_value: bool) -> dict[str, Any]:
    if is_value:
        try:
            return {"value": float(emotion)}
        except ValueError:
            pass
    return {"label": emotion}


def _person(was: Annotation, after: Annotation) -> str:
    """Whose tier the annotation is on now; "" where that was not edited."""
    if after.participant != was.participant and after.participant.strip():
        return after.participant
    return after.tier.partition("@")[2] if after.tier != was.tier else ""


def read_elan(path: Path) -> ElanFile:
    """Read an ELAN file; entities and references to other files are refused.

    Raises:
        InputNotFound: without the file; CorrectionsError when it is not one.
    """
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    content = read_limited(path)
    try:
        root = fromstring(content, forbid_dtd=True)
        return _elan(root)
    except (ParseError, DefusedXmlException, ValueError, KeyError, LookupError, RecursionError) as error:
        what = f"the file cannot be read as ELAN's: {str(error)[:200] or type(error).__name__}"
        raise CorrectionsError(what, path=path, hint=_EXPORT_AGAIN) from None


def _elan(root: Element) -> ElanFile:
    if root.tag != "ANNOTATION_DOCUMENT":
        raise ValueError(f"it is {root.tag[:40]}")
    properties = {one.get("NAME", ""): one.text or "" for one in root.iterfind("HEADER/PROPERTY")}
    slots = {one.attrib["TIME_SLOT_ID"]: one.get("TIME_VALUE") for one in root.iterfind("TIME_ORDER/TIME_SLOT")}
    emotions: dict[str, str] = {}
    utterances: list[Annotation] = []
    for tier in root.iterfind("TIER"):
        if tier.get("LINGUISTIC_TYPE_REF") == "emotion":
            emotions |= {one.attrib["ANNOTATION_REF"]: _value(one) for one in tier.iter("REF_ANNOTATION")}
        elif tier.get("LINGUISTIC_TYPE_REF") == "utterance":
            utterances += [_utterance(tier, one, slots) for one in tier.iter("ALIGNABLE_ANNOTATION")]
    whole = [Annotation(one.id, one.tier, one.participant, one.place, emotions.get(one.id)) for one in utterances]
    return ElanFile(root.get("AUTHOR", ""), root.get("DATE", ""), properties, whole)


def _utterance(tier: Element, annotation: Element, slots: Mapping[str, str | None]) -> Annotation:
    start, end = (int(slots[annotation.attrib[f"TIME_SLOT_REF{end}"]] or "") for end in (1, 2))
    place = Interval(start, end, _value(annotation))
    return Annotation(annotation.attrib["ANNOTATION_ID"], tier.attrib["TIER_ID"], tier.get("PARTICIPANT", ""), place)


def _value(annotation: Element) -> str:
    return annotation.findtext("ANNOTATION_VALUE") or ""
