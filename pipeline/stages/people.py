"""Who speaks in a clip, whose face that is, and which part they have in the interview."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emopipe.pipeline.backends.speakers import voice_of_clip
from emopipe.pipeline.config import diarizes, given_clip, recognises
from emopipe.pipeline.progress import Hook
from emopipe.pipeline.records import Person, Role

if TYPE_CHECKING:
    import pyarrow as pa

    from emopipe.extractors.contracts import Span, Turn
    from emopipe.pipeline.backends.loading import Backends

Values = Mapping[str, Any]

#: An enrolled voice is a person's when their mean vectors have at least this cosine. Voices of one person differ more
#: between emotions than this, but rarely between recordings.
RECOGNISED: Final = 0.75
#: Who asks only questions is as much an interviewer as somebody who talks this share less.
QUESTION_WORTH: Final = 0.4
QUESTION: Final = re.compile(r"[?？؟]")
SENTENCE: Final = re.compile(r"[^.?!。？！؟…]+[.?!。？！؟…]*")


def diarize(values: Values, backends: Backends, hook: Hook) -> dict[str, Any]:
    """Who speaks when, as far as more than one person is looked for. A labelled source is one person's.

    Where the number of people is not given, two voices that one mouth speaks with are one person's.
    """
    from emopipe.extractors.face.face_voice_matching import Talkers, one_mouth, talkers
    from emopipe.extractors.speech.diarize import ALIKE, ALIKE_IF_SEVERAL_SEEN, merged

    config = backends.config.people
    if values["labelled"] or not diarizes(config) or not values["speech"]:
        return {"diarized": []}
    seen, speech = face_table_of(values), values["speech"]
    shown = Talkers() if seen is None else talkers(seen, speech)
    turns = backends.diarizer.turns(
        values["sound"],
        speech,
        people=config.count,
        least=shown.least,
        most=config.most,
        alike=ALIKE_IF_SEVERAL_SEEN if shown.several else ALIKE,
    )
    if seen is not None and config.diarizer == "ge2e" and not config.count:
        same = one_mouth(seen, _alone(turns))
        if shown.least <= len(set(same.values())) < len(same):
            turns = merged(turns, same)
    return {"diarized": turns}


def _alone(turns: Sequence[Turn]) -> list[tuple[float, float, int]]:
    """Start, end and number of stretches in which one person alone speaks."""
    return [(turn.start, turn.end, turn.person) for turn in turns if not turn.overlapped]


def find_turns(values: Values, backends: Backends, hook: Hook) -> dict[str, Any]:
    """All speech in turns; of one person where no others were looked for."""
    from emopipe.extractors.speech.diarize import one_speaker

    return {"turns": values["diarized"] or one_speaker(values["speech"] or [])}


def recognise(values: Values, backends: Backends, hook: Hook) -> dict[str, Any]:
    """Whose voices are those of given clips: numbers with enrolled names, and whose baseline clip it is."""
    if not recognises(backends.config.people) or values["speaker"] is not None or not values["turns"]:
        return {"known": [], "shown": None, "unheard": []}
    numbers = sorted({turn.person for turn in values["turns"]})
    voices = {number: voice_in(values, number, backends) for number in numbers}
    known = match(voices, backends.enrolled)
    unheard = [name for name in backends.enrolled if name not in known.values()]
    return {"known": [*known.items()], "shown": _shown_in_baseline(voices, backends), "unheard": unheard}


def find_people(values: Values, backends: Backends, hook: Hook) -> dict[str, Any]:
    """The people of the clip with names, roles and faces, and what could not be settled about them."""
    from emopipe.extractors.face.face_voice_matching import faces_of_speakers

    turns = values["turns"]
    if not turns:
        return {"people": [], "people_warnings": []}
    numbers = sorted({turn.person for turn in turns})
    notes = [f"enrolled {name} was not heard" for name in values["unheard"]]
    names = {number: f"S{number + 1}" for number in numbers} | dict(values["known"])
    talk = {n: sum(turn.end - turn.start for turn in turns if turn.person == n) for n in numbers}
    subject = find_subject(names, talk, values["spans"], backends.config.people.subject, notes)
    table = face_table_of(values)
    faces = faces_of_speakers(table, _alone(turns)) if table is not None else {}
    people = [
        Person(n, names[n], _role(n, subject, numbers), faces.get(n, ()), round(talk[n], 3), n == values["shown"])
        for n in numbers
    ]
    return {"people": people, "people_warnings": notes}


def _shown_in_baseline(voices: Mapping[int, np.ndarray | None], backends: Backends) -> int | None:
    """Whose the baseline clip is: the only speaker's, else that of the voice most like it; None without a clip."""
    clip = given_clip(backends.config.people.baseline)
    if clip is None:
        return None
    alike = voices if len(voices) == 1 else match(voices, {"": voice_of_clip(clip, backends.vad, backends.speakers)})
    return next(iter(alike), None)


def face_table_of(values: Values) -> pa.Table | None:
    """The face table, None when there is none."""
    import pyarrow as pa

    table = values["face_table"]
    return table if isinstance(table, pa.Table) else None


def _role(number: int, subject: int | None, numbers: Sequence[int]) -> Role | None:
    if len(numbers) < 2:
        return None
    return "interviewee" if number == subject else "interviewer"


def voice_in(values: Values, number: int, backends: Backends) -> np.ndarray | None:
    """The mean voice of a person of the clip."""
    from emopipe.extractors.speech.diarize import joined, voice_of

    own = [turn for turn in values["turns"] if turn.person == number]
    clean = [turn for turn in own if not turn.overlapped] or own
    return voice_of(values["sound"], [(turn.start, turn.end) for turn in joined(clean)], backends.speakers)


def match(voices: Mapping[int, np.ndarray | None], enrolled: Mapping[str, np.ndarray]) -> dict[int, str]:
    """Who is whom: the assignment of greatest total cosine; pairs below RECOGNISED are left out."""
    from scipy.optimize import linear_sum_assignment

    heard = {number: voice for number, voice in voices.items() if voice is not None}
    if not heard or not enrolled:
        return {}
    numbers, names = list(heard), list(enrolled)
    alike = np.array([[float(heard[number] @ enrolled[name]) for name in names] for number in numbers])
    pairs = zip(*linear_sum_assignment(-alike), strict=True)
    return {numbers[row]: names[column] for row, column in pairs if alike[row, column] >= RECOGNISED}


def find_subject(
    names: Mapping[int, str], talk: Mapping[int, float], spans: Sequence[Span], wanted: str, notes: list[str]
) -> int | None:
    """Who is interviewed: as asked for, else who talks much and asks little; None when nobody speaks.

    A wish that the clip cannot fulfil is noted, and decided as if there were none.
    """
    if not talk:
        return None
    if wanted == "longest":
        return max(talk, key=lambda number: talk[number])
    by_name = {name: number for number, name in names.items()}
    by_index = {str(place): number for place, number in enumerate(sorted(names), start=1)}
    if wanted in by_name:
        return by_name[wanted]
    if wanted in by_index:
        return by_index[wanted]
    if wanted:
        notes.append(f"the subject {wanted} was not found among {', '.join(names.values())}")
    whole = sum(talk.values()) or 1.0
    asks = question_shares(spans)
    return max(talk, key=lambda number: talk[number] / whole - QUESTION_WORTH * asks.get(number, 0.0))


def question_shares(spans: Sequence[Span]) -> dict[int, float]:
    """Number of a person -> share of questions among their sentences."""
    said: dict[int, list[str]] = {}
    for span in spans:
        if span.person is not None:
            said.setdefault(span.person, []).extend(SENTENCE.findall(span.text))
    return {
        number: sum(bool(QUESTION.search(one)) for one in sentences) / len(sentences)
        for number, sentences in said.items()
        if sentences
    }


def tracks_of(span: Span, people: Sequence[Person], fallback: int | None) -> tuple[int, ...]:
    """The face tracks whose features belong to an utterance; () when its speaker is never seen.

    Without a speaker it is the interviewee's face, else the most persistent large one (`fallback`).
    """
    main = (fallback,) if fallback is not None else ()
    if span.person is not None:
        return next((person.tracks for person in people if person.number == span.person), main)
    seen = [person.tracks for person in people if person.tracks and person.role != "interviewer"]
    return seen[0] if seen else main


def named(span: Span, people: Sequence[Person]) -> Person | None:
    """Who speaks an utterance."""
    return next((person for person in people if person.number == span.person), None)


def with_person(spans: Sequence[Span], turns: Sequence[Turn]) -> list[Span]:
    """Spans that were not cut by speaker, given to the only one there is."""
    numbers = {turn.person for turn in turns}
    if len(numbers) != 1:
        return list(spans)
    (number,) = numbers
    heard = [any(turn.start < span.end and turn.end > span.start for turn in turns) for span in spans]
    return [replace(span, person=number) if there else span for span, there in zip(spans, heard, strict=True)]
