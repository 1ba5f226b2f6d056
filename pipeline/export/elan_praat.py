"""Export to annotation programs: ELAN (EAF) and Praat (TextGrid), with tiers for each person."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from emopipe.extractors.contracts import Word
from emopipe.pipeline.export.recording import Recording
from emopipe.pipeline.export.subtitles import one_line
from emopipe.pipeline.records import UtteranceResult

#: EAF tells when it was made; ours tells the same each time.
NO_DATE: Final = "2000-01-01T00:00:00+00:00"
#: The utterances have the annotation ids from "a2" on, person by person.
FIRST_ANNOTATION: Final = 2
#: Properties of an ELAN file: of which recording it is, and of which content.
RECORDING, PROBE = "emopipe.recording", "emopipe.probe"
#: Type of tier -> how it hangs on its parent, in ELAN's words; None: it stands alone.
_TYPES: Final = {
    "utterance": None,
    "emotion": "Symbolic_Association",
    "confidence": "Symbolic_Association",
    "words": "Included_In",
    "turns": None,
}


@dataclass(frozen=True)
class Interval:
    """An annotation: milliseconds on the media clock, and what it says."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class PersonTiers:
    """What is annotated of one person.

    Attributes:
        name: of the person; "" when it is not known who speaks.
        numbers: place of each of their utterances among all of the recording.
        utterances: what they say.
        emotions, confidences: of each utterance; "" where there is none.
        words: of each utterance.
        turns: when they speak.
    """

    name: str
    numbers: list[int]
    utterances: list[Interval]
    emotions: list[str]
    confidences: list[str]
    words: list[list[Interval]]
    turns: list[Interval]


def person_tiers(recording: Recording) -> list[PersonTiers]:
    """The tiers of each person, those of unknown speakers last."""
    result = recording.result
    heard_words = words_of(result.utterances, recording.words)
    spoken = [
        (one, heard, number) for number, (one, heard) in enumerate(zip(result.utterances, heard_words, strict=True))
    ]
    turns = [(recording.name_of(turn.person), turn) for turn in result.turns]
    names = dict.fromkeys([person.name for person in result.people])
    names |= dict.fromkeys([name for name, _ in turns] + [one.speaker or "" for one, *_ in spoken])
    people = []
    for name in sorted(names, key=lambda name: not name):
        pairs = sorted(
            (pair for pair in spoken if (pair[0].speaker or "") == name), key=lambda pair: (pair[0].start, pair[0].end)
        )
        utterances = apart((one.start, one.end, one.text) for one, *_ in pairs)
        words = [
            apart(((word.start, word.end, word.text) for word in heard), (place.start, place.end))
            for (_, heard, _), place in zip(pairs, utterances, strict=True)
        ]
        people.append(
            PersonTiers(
                name,
                [number for *_, number in pairs],
                utterances,
                [emotion(one) for one, *_ in pairs],
                ["" if one.confidence is None else f"{one.confidence:.4f}" for one, *_ in pairs],
                words,
                apart((turn.start, turn.end, "overlap" if turn.overlap else "") for who, turn in turns if who == name),
            )
        )
    return people


def emotion(utterance: UtteranceResult) -> str:
    """The label, or the value of a regression."""
    return one_line(utterance.label or "") or ("" if utterance.value is None else f"{utterance.value:.4f}")


def words_of(utterances: Sequence[UtteranceResult], words: Iterable[Word]) -> list[list[Word]]:
    """The words of each utterance: a word belongs to the one with which it shares most time, if any."""
    shares: list[list[Word]] = [[] for _ in utterances]
    first = 0
    for word in sorted(words, key=lambda word: word.start):
        while first < len(utterances) and utterances[first].end < word.start:
            first += 1
        best, most = None, 0.0
        for index in range(first, len(utterances)):
            if utterances[index].start > word.end:
                break
            shared = min(word.end, utterances[index].end) - max(word.start, utterances[index].start)
            if shared > most or best is None:
                best, most = index, shared
        if best is not None:
            shares[best].append(word)
    return shares


def apart(items: Iterable[tuple[float, float, str]], within: tuple[int, int] | None = None) -> list[Interval]:
    """Annotations of one tier, in order: none is empty and none overlaps the one before it.

    Args:
        items: start and end in seconds, and text.
        within: milliseconds in which they must lie; those for which no room is left are left out.
    """
    low, high = within or (0, None)
    intervals = []
    for start, end, text in sorted(items, key=lambda item: item[:2]):
        first = max(round(start * 1000), low)
        last = max(round(end * 1000), first + 1)
        if high is not None:
            first, last = max(min(first, high - 1), low), min(last, high)
        if last > first:
            intervals.append(Interval(first, last, one_line(text)))
            low = last
    return intervals


def write_eaf(recording: Recording, path: Path) -> None:
    """ELAN: tiers `utterance@NAME`, `emotion@NAME`, `confidence@NAME`, `words@NAME` and `turns@NAME`, media linked.

    Emotion and confidence hang on the utterance, so that an edit moves all; emotions are a controlled vocabulary.
    """
    from pympi import Eaf

    file = Eaf(author="emopipe")
    file.adocument["DATE"] = NO_DATE
    file.remove_tier("default")
    if recording.played is not None:
        _link_media(file, recording.disguise.path(recording.played.resolve()), path)
    _add_types(file, sorted({name for one in recording.result.utterances for name in one.probabilities}))
    people = person_tiers(recording)
    file.maxaid = FIRST_ANNOTATION - 1
    for person in people:
        _add_utterances(file, person)
    for person in people:
        _add_annotations(file, person)
    _order_slots(file)
    about = [(RECORDING, _text(recording.stem)), (PROBE, recording.result.keys.get("probe", ""))]
    file.properties = [("lastUsedAnnotationId", file.maxaid), *(pair for pair in about if pair[1])]
    file.to_file(str(path))


def _link_media(file: Any, whole: Path, path: Path) -> None:
    """Where ELAN finds the recording: by its full path, else from where the file lies. ELAN escapes no blanks there."""
    url = _text("file:///" + whole.as_posix().lstrip("/"))
    try:
        near = _text(Path(os.path.relpath(whole, path.parent.resolve())).as_posix())
        relative = near if near.startswith("../") else f"./{near}"
    except ValueError:  # on another drive
        relative = None
    file.add_linked_file(url, relpath=relative, mimetype=mimetypes.guess_type(whole.name)[0] or "unknown")


def _text(path: str) -> str:
    """A path as text, with escapes for what is not Unicode."""
    return one_line(path.encode("utf-8", "backslashreplace").decode())


def _add_types(file: Any, labels: Sequence[str]) -> None:
    file.remove_linguistic_type("default-lt")
    for name, constraint in _TYPES.items():
        file.add_linguistic_type(name, constraint, timealignable=constraint != "Symbolic_Association")
    if labels:
        file.add_language("und", "http://cdb.iso.org/lg/CDB-00138502-001", "undetermined (und)")
        file.add_controlled_vocabulary("emotion")
        file.add_cv_description("emotion", "und")
        for number, label in enumerate(labels):
            file.add_cv_entry("emotion", f"cveid_{number}", [(one_line(label), "und", None)])
        file.linguistic_types["emotion"]["CONTROLLED_VOCABULARY_REF"] = "emotion"


def tier_name(kind: str, person: str) -> str:
    """The name of a person's tier."""
    return f"{kind}@{person}" if person else kind


def _add_utterances(file: Any, person: PersonTiers) -> None:
    """Add a person's tiers and annotate the utterances.

    These come before all others, so that their ids follow from the results alone, not from what is in the store.
    """
    name = one_line(person.name)
    utterances = tier_name("utterance", name)
    for kind in _TYPES:
        parent = None if kind in ("utterance", "turns") else utterances
        if kind != "turns" or person.turns:
            file.add_tier(tier_name(kind, name), kind, parent, part=name or None)
    for place in person.utterances:
        file.add_annotation(utterances, place.start, place.end, place.text)


def _add_annotations(file: Any, person: PersonTiers) -> None:
    """Annotate all but the utterances."""
    utterances, emotions, confidences, words, turns = (tier_name(kind, one_line(person.name)) for kind in _TYPES)
    for called, values in ((emotions, person.emotions), (confidences, person.confidences)):
        for place, value in zip(person.utterances, values, strict=True):
            if value:
                file.add_ref_annotation(called, utterances, (place.start + place.end) / 2, value)
    for word in (word for heard in person.words for word in heard):
        file.add_annotation(words, word.start, word.end, word.text)
    for turn in person.turns:
        file.add_annotation(turns, turn.start, turn.end, turn.text)


def _order_slots(file: Any) -> None:
    """Number the time slots in order of time, as the format has it; the library numbers them as they come."""
    order = sorted(file.timeslots, key=lambda slot: file.timeslots[slot])
    names = {slot: f"ts{number}" for number, slot in enumerate(order, start=1)}
    file.timeslots = {names[slot]: file.timeslots[slot] for slot in order}
    for aligned, *_ in file.tiers.values():
        for key, (start, end, value, drawing) in list(aligned.items()):
            aligned[key] = (names[start], names[end], value, drawing)


def write_textgrid(recording: Recording, path: Path) -> None:
    """Praat: the same tiers as interval tiers; an utterance without words is "-", a turn is its person's name."""
    from praatio.data_classes.interval_tier import IntervalTier
    from praatio.data_classes.textgrid import Textgrid

    tiers = list(_praat_tiers(recording))
    ends = [place.end / 1000 for _, places in tiers for place in places]
    length = max([recording.result.duration or 0.0, *ends, 0.001])
    grid = Textgrid(0, length)
    for name, places in tiers:
        entries = [(place.start / 1000, place.end / 1000, place.text or "-") for place in places]
        grid.addTier(IntervalTier(name, entries, 0, length))
    grid.save(str(path), format="long_textgrid", includeBlankSpaces=True)


def _praat_tiers(recording: Recording) -> Iterator[tuple[str, list[Interval]]]:
    for person in person_tiers(recording):
        name = f"@{one_line(person.name)}" if person.name else ""
        labels = zip(person.utterances, person.emotions, person.confidences, strict=True)
        rows = [(place, label, confidence) for place, label, confidence in labels]
        yield f"utterance{name}", person.utterances
        yield f"emotion{name}", [Interval(place.start, place.end, label) for place, label, _ in rows if label]
        yield f"confidence{name}", [Interval(place.start, place.end, value) for place, _, value in rows if value]
        yield f"words{name}", [word for heard in person.words for word in heard]
        yield f"turns{name}", [Interval(turn.start, turn.end, turn.text or person.name) for turn in person.turns]
