"""Who speaks in a source, under which name, whose face that is, and which part they have in an interview."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from emopipe.errors import Reason, reason
from emopipe.extractors.contracts import Interval, Span, Turn
from emopipe.pipeline.backends.speakers import voice_of_clip
from emopipe.pipeline.config import VOICE_CLUSTERS, diarizes, given_clip, recognises
from emopipe.pipeline.media.sound import Sound
from emopipe.pipeline.records import Absent, Person
from emopipe.pipeline.stages.interview_roles import find_subject, role
from emopipe.pipeline.stages.probe import SPEAKERS_APART
from emopipe.pipeline.stages.stage import Context, Inputs, Stage


class TrackInputs(Inputs):
    """The sound of each microphone."""

    tracks: list[Sound]
    labelled: bool


@dataclass(frozen=True)
class TrackTurns:
    """Turns of speech where each person has a microphone, numbered by track; else none."""

    track_turns: list[Turn]


def find_track_turns(inputs: TrackInputs, context: Context) -> TrackTurns:
    """Find who speaks when, where each audio track is a person's microphone. A labelled source is one person's."""
    from emopipe.extractors.speech.separate_tracks import turns_of_tracks

    if context.settings.speech.tracks != SPEAKERS_APART or inputs.labelled or not inputs.tracks:
        return TrackTurns([])
    return TrackTurns(turns_of_tracks([np.asarray(track[:]) for track in inputs.tracks], context.backends.vad))


class DiarizationInputs(Inputs):
    """Speech and the faces beside it."""

    sound: Sound | None
    gain: float
    speech: list[Interval] | None
    face_table: pa.Table | Absent
    track_turns: list[Turn]
    labelled: bool


@dataclass(frozen=True)
class Diarization:
    """Turns of speech where more than one person was looked for, else none.

    Attributes:
        diarized: the turns, in order.
        people_doubt: why the number of people is in doubt, in words; "" when it is clear.
    """

    diarized: list[Turn]
    people_doubt: str


def diarize(inputs: DiarizationInputs, context: Context) -> Diarization:
    """Find who speaks when, as far as more than one person is looked for. A labelled source is one person's.

    Where the number of people is not given, two voices that one mouth speaks with are one person's.
    """
    from emopipe.extractors.face.face_voice_matching import Talkers, one_mouth, talkers
    from emopipe.extractors.speech.diarize import VoiceClusters, merged
    from emopipe.extractors.speech.level import raised

    settings = context.settings.people
    apart = inputs.labelled or bool(inputs.track_turns)
    if apart or not diarizes(settings) or not inputs.speech or inputs.sound is None:
        return Diarization([], "")
    sound, speech, diarizer = raised(inputs.sound, inputs.gain), inputs.speech, context.backends.diarizer
    if context.beside_faces and isinstance(diarizer, VoiceClusters):
        diarizer.prepare(sound, speech, people=settings.count, most=settings.most)
    faces = _table_or_none(inputs.face_table)
    shown = Talkers() if faces is None else talkers(faces, speech)
    diarization = diarizer.turns(
        sound,
        speech,
        people=settings.count,
        least=shown.least,
        most=settings.most,
        several_seen=shown.several,
    )
    if faces is not None and settings.diarizer in VOICE_CLUSTERS and not settings.count:
        same = one_mouth(faces, _unshared(diarization.turns))
        if shown.least <= len(set(same.values())) < len(same):
            return Diarization(merged(diarization.turns, same), "")
    return Diarization(diarization.turns, diarization.doubt)


class TurnInputs(Inputs):
    """Speech, and turns where people were told apart."""

    speech: list[Interval] | None
    track_turns: list[Turn]
    diarized: list[Turn]


@dataclass(frozen=True)
class Turns:
    """All speech in turns; of one person where no others were looked for."""

    turns: list[Turn]


def find_turns(inputs: TurnInputs, context: Context) -> Turns:
    """All speech as turns."""
    from emopipe.extractors.speech.diarize import one_speaker

    return Turns(inputs.track_turns or inputs.diarized or one_speaker(inputs.speech or []))


class IdentificationInputs(Inputs):
    """Voices, by turns."""

    sound: Sound | None
    tracks: list[Sound]
    track_turns: list[Turn]
    turns: list[Turn]
    speaker: str | None
    labelled: bool


@dataclass(frozen=True)
class Identification:
    """Whose voices are those of given clips.

    Attributes:
        known: number of a person and enrolled name.
        shown: number of who is in the baseline clip.
        unheard: enrolled names whose voice is not in the recording.
    """

    known: list[tuple[int, str]]
    shown: int | None
    unheard: list[str]


def identify_speakers(inputs: IdentificationInputs, context: Context) -> Identification:
    """Compare each person's voice with those of enrolment clips and of the baseline clip.

    A labelled source has one person, who needs no comparison where the table names them.
    """
    from emopipe.extractors.speech.speaker_identification import match_voices

    is_named = inputs.labelled and inputs.speaker is not None
    if not recognises(context.settings.people) or is_named or not inputs.turns:
        return Identification([], None, [])
    numbers = sorted({turn.person for turn in inputs.turns})
    voices = {number: _voice_of(number, inputs, context) for number in numbers}
    enrolled = context.backends.enrolled
    known = match_voices(voices, enrolled, context.backends.speakers.likeness.recognised)
    unheard = [name for name in enrolled if name not in known.values()]
    return Identification([*known.items()], _shown_in_baseline(voices, context), unheard)


def _voice_of(number: int, inputs: IdentificationInputs, context: Context) -> np.ndarray | None:
    """The mean voice of a person, from turns in which nobody else speaks where there are any."""
    from emopipe.extractors.speech.diarize import joined, voice_of

    sound = inputs.tracks[number] if inputs.track_turns else inputs.sound
    if sound is None:
        return None
    own = [turn for turn in inputs.turns if turn.person == number]
    clean = [turn for turn in own if not turn.overlapped] or own
    return voice_of(sound, [(turn.start, turn.end) for turn in joined(clean)], context.backends.speakers)


def _shown_in_baseline(voices: Mapping[int, np.ndarray | None], context: Context) -> int | None:
    """Whose the baseline clip is: the only speaker's, else that of the voice most like it; None without a clip."""
    from emopipe.extractors.speech.speaker_identification import match_voices

    clip = given_clip(context.settings.people.baseline)
    if clip is None:
        return None
    if len(voices) == 1:
        return min(voices)
    voice = voice_of_clip(clip, context.backends.vad, context.backends.speakers)
    recognised = context.backends.speakers.likeness.recognised
    return min(match_voices(voices, {"": voice}, recognised), default=None)


class PeopleInputs(Inputs):
    """Turns, utterances and faces, and whose voices are known."""

    turns: list[Turn]
    spans: list[Span]
    face_table: pa.Table | Absent
    known: list[tuple[int, str]]
    shown: int | None
    unheard: list[str]
    people_doubt: str
    speaker: str | None


@dataclass(frozen=True)
class People:
    """The people of a source, in the order of first words, and what could not be settled about them."""

    people: list[Person]
    people_warnings: list[Reason]


def find_people(inputs: PeopleInputs, context: Context) -> People:
    """Name the people of a source, find their faces, and decide who is interviewed."""
    from emopipe.extractors.face.face_voice_matching import faces_of_speakers

    turns = inputs.turns
    if not turns:
        return People([], [])
    numbers = sorted({turn.person for turn in turns})
    names = {number: f"S{number + 1}" for number in numbers} | dict(inputs.known)
    talk = {n: sum(turn.end - turn.start for turn in turns if turn.person == n) for n in numbers}
    wish = context.settings.people.subject
    subject, unfulfilled = find_subject(names, talk, inputs.spans, wish)
    doubts = [f"enrolled {name} was not heard" for name in inputs.unheard]
    if inputs.speaker is not None:
        told = _speaker_told(inputs.speaker, talk, subject, dict(inputs.known))
        if told is None:
            doubts.append(f"{inputs.speaker} was not heard: all voices are those of enrolled people")
        else:
            names[told] = inputs.speaker
            if unfulfilled or wish in ("", inputs.speaker):
                subject = told
            if wish == inputs.speaker:
                unfulfilled = ""
    doubts += [unfulfilled] * bool(unfulfilled)
    table = _table_or_none(inputs.face_table)
    faces = faces_of_speakers(table, _unshared(turns)) if table is not None else {}
    people = [
        Person(n, names[n], role(n, subject, len(numbers)), faces.get(n, ()), round(talk[n], 3), n == inputs.shown)
        for n in numbers
    ]
    warnings = [reason("person_not_found", doubt) for doubt in doubts]
    if inputs.people_doubt:
        warnings.append(reason("people_unsure", inputs.people_doubt))
    return People(people, warnings)


def _speaker_told(name: str, talk: Mapping[int, float], subject: int | None, known: Mapping[int, str]) -> int | None:
    """Whom a table means that names one speaker: whose voice is known by that name, else nobody with a known voice.

    Of these it is who seems to be interviewed, else who talks most.
    """
    heard = next((number for number, enrolled in known.items() if enrolled == name), None)
    if heard is not None or subject not in known:
        return subject if heard is None else heard
    return max(talk.keys() - known.keys(), key=lambda number: talk[number], default=None)


def _table_or_none(table: pa.Table | Absent) -> pa.Table | None:
    return None if isinstance(table, Absent) else table


def _unshared(turns: Sequence[Turn]) -> list[tuple[float, float, int]]:
    """Start, end and number of stretches in which one person alone speaks."""
    return [(turn.start, turn.end, turn.person) for turn in turns if not turn.overlapped]


def person_of(span: Span, people: Sequence[Person]) -> Person | None:
    """Who speaks an utterance; None when nobody known does."""
    return next((person for person in people if person.number == span.person), None)


def face_tracks_of(span: Span, people: Sequence[Person], main_track: int | None) -> tuple[int, ...]:
    """The face tracks whose features belong to an utterance; () when its speaker is never seen.

    Args:
        span: the utterance.
        people: of the source.
        main_track: the most persistent large face, which counts where nobody speaks and no interviewee is known.
    """
    main = (main_track,) if main_track is not None else ()
    if span.person is not None:
        return next((person.tracks for person in people if person.number == span.person), main)
    seen = [person.tracks for person in people if person.tracks and person.role != "interviewer"]
    return seen[0] if seen else main


TRACKS: Final = Stage(
    "tracks",
    2,
    TrackInputs,
    TrackTurns,
    find_track_turns,
    settings=("speech.tracks", "speech.vad", "speech.vad_threshold"),
    backend="vad",
    modalities=("voice", "text"),
    needed=lambda config, labelled: not labelled and config.speech.tracks == SPEAKERS_APART,
    signals=("sound_media",),
)
SPEAKERS: Final = Stage(
    "speakers",
    6,
    DiarizationInputs,
    Diarization,
    diarize,
    settings=("people.diarizer", "people.encoder", "people.pyannote", "people.count", "people.most"),
    backend="speakers",
    modalities=("voice", "text"),
    needed=lambda config, labelled: not labelled and diarizes(config.people),
    signals=("sound_media",),
)
TURNS: Final = Stage("turns", 1, TurnInputs, Turns, find_turns, quick=True)
NAMES: Final = Stage(
    "names",
    2,
    IdentificationInputs,
    Identification,
    identify_speakers,
    settings=("people.encoder", "people.enrol", "baseline_clip", "speech.vad", "speech.vad_threshold"),
    backend="people",
    modalities=("voice", "text"),
    needed=lambda config, labelled: recognises(config.people),
    signals=("sound_media",),
)
PEOPLE: Final = Stage(
    "people",
    7,
    PeopleInputs,
    People,
    find_people,
    settings=("people.subject",),
    modalities=("voice", "text"),
    signals=("sound_media",),
)
