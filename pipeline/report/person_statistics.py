"""How much of whose time was predicted as what, per person and per group.

A person is whoever has a name; speakers that are only numbered are somebody else in every file. Shares are of the time
of a person's utterances: what the model was unsure of, and what it saw nothing of, have shares of their own.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any, Final

from emopipe.pipeline.records import is_generic
from emopipe.pipeline.report.participants import Participant, Participants
from emopipe.pipeline.report.rankings import words_and_expression
from emopipe.pipeline.report.turn_taking import Talk

UNCERTAIN, NO_EVIDENCE, VALUE = "uncertain", "no evidence", "value"
INTERVIEWER: Final = "interviewer"
#: Measures of a person beside shares.
MEAN_VALUE, DISTANCE, TALK_SHARE = "mean value", "difference of words and expression", "share of talk"
LATENCY, PAUSE = "median response latency, s", "median pause, s"
MEASURES: Final = (MEAN_VALUE, DISTANCE, TALK_SHARE, LATENCY, PAUSE)
#: Those that are not between 0 and 1.
UNBOUNDED: Final = (MEAN_VALUE, LATENCY, PAUSE)
#: A column with more values than this is not a grouping.
MOST_GROUPS: Final = 8


def predicted(row: Mapping[str, Any]) -> str:
    """The label of an utterance as written to JSON, or what stands in its place.

    `VALUE` for a regression, `UNCERTAIN` where the model abstained, `NO_EVIDENCE` where nothing was predicted.
    """
    if row["label"] is None and row["value"] is None:
        return NO_EVIDENCE
    if row["abstained"]:
        return UNCERTAIN
    return VALUE if row["label"] is None else str(row["label"])


@dataclass
class Tally:
    """What was predicted for somebody's utterances.

    Attributes:
        seconds: what was predicted -> seconds of utterances.
        utterances: how many.
        silent: seconds of those that are stretches of a recording in which no speech was found.
        valued: sum of value times seconds, of a regression.
        distances: between words and expression, of each utterance that has both.
        talk: seconds of speech in recordings of several speakers.
        talk_of_all: seconds of speech of all speakers of those.
        latencies, pauses: as in :class:`~emopipe.pipeline.report.turn_taking.Talk`.
    """

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    utterances: int = 0
    silent: float = 0.0
    valued: float = 0.0
    distances: list[float] = field(default_factory=list)
    talk: float = 0.0
    talk_of_all: float = 0.0
    latencies: list[float] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    def add(self, row: Mapping[str, Any]) -> None:
        """Count an utterance in."""
        length, outcome = max(row["end"] - row["start"], 0.0), predicted(row)
        self.seconds[outcome] += length
        self.utterances += 1
        self.silent += 0.0 if {"no_speech", "no_audio_stream"}.isdisjoint(row["absent"].values()) else length
        self.valued += length * row["value"] if outcome == VALUE else 0.0
        if (opinions := words_and_expression(row)) is not None:
            self.distances.append(opinions.distance)

    def add_talk(self, talk: Talk) -> None:
        """Count in how somebody talks in a recording of several speakers."""
        self.talk += talk.seconds
        self.talk_of_all += talk.whole
        self.latencies += talk.latencies
        self.pauses += talk.pauses

    def merge(self, other: Tally) -> None:
        """Count all of another in."""
        for outcome, seconds in other.seconds.items():
            self.seconds[outcome] += seconds
        self.utterances += other.utterances
        self.silent += other.silent
        self.valued += other.valued
        self.distances += other.distances
        self.talk += other.talk
        self.talk_of_all += other.talk_of_all
        self.latencies += other.latencies
        self.pauses += other.pauses

    @property
    def total(self) -> float:
        """Seconds of all utterances."""
        return sum(self.seconds.values())

    def share(self, outcome: str) -> float:
        """Of the time of all utterances, 0 to 1."""
        return self.seconds.get(outcome, 0.0) / self.total if self.total else 0.0

    @property
    def mean(self) -> float | None:
        """The mean value over time of a regression; None without any."""
        return self.valued / self.seconds[VALUE] if self.seconds.get(VALUE) else None

    @property
    def measures(self) -> dict[str, float]:
        """What persons can be compared in beside shares, where it is known: name with unit -> number."""
        numbers = {
            MEAN_VALUE: self.mean,
            DISTANCE: fmean(self.distances) if self.distances else None,
            TALK_SHARE: self.talk / self.talk_of_all if self.talk_of_all else None,
            LATENCY: median(self.latencies) if self.latencies else None,
            PAUSE: median(self.pauses) if self.pauses else None,
        }
        return {name: number for name, number in numbers.items() if number is not None}


@dataclass(frozen=True)
class Person:
    """Somebody, apart from themselves as an interviewer.

    Attributes:
        speaker: the name, or the number in the file; None when speakers were not told apart.
        media: the file; None for a name, which is the same person in every file.
        role: "interviewer", "interviewee", or None where nobody else speaks; the last two are one person's.
        interviews: whether they are the interviewer.
    """

    speaker: str | None
    media: Path | None
    role: str | None = field(compare=False)
    interviews: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "interviews", self.role == INTERVIEWER)

    @classmethod
    def of(cls, media: Path, speaker: str | None, role: str | None) -> Person:
        """The person who is a speaker of a file."""
        return cls(speaker, media if is_generic(speaker) else None, role)


@dataclass(frozen=True)
class Appearance:
    """A person in a file.

    Attributes:
        media: the file.
        person: who.
        speaker: as the file's results call them.
        tally: of all their utterances in the file.
        quarters: of their utterances in each quarter of the file.
        talk: how they take part in the conversation; None where they are the only speaker, or turns are not known.
    """

    media: Path
    person: Person
    speaker: str | None
    tally: Tally
    quarters: tuple[Tally, ...] = ()
    talk: Talk | None = None


def per_person(appearances: Iterable[Appearance]) -> dict[Person, Tally]:
    """Everything of each person, in the order of first appearance."""
    people: dict[Person, Tally] = {}
    for one in appearances:
        people.setdefault(one.person, Tally()).merge(one.tally)
    return people


@dataclass(frozen=True)
class Group:
    """The persons who share a value in a column of the participants table.

    Attributes:
        value: in the column.
        tallies: person -> what was predicted for them in files where they belong to the group.
    """

    value: str
    tallies: dict[Person, Tally]

    def shares(self, outcome: str) -> list[float]:
        """Each person's share, 0 to 1."""
        return [tally.share(outcome) for tally in self.tallies.values()]

    def values(self) -> list[float]:
        """Each person's mean value, of those who have any."""
        return [tally.mean for tally in self.tallies.values() if tally.mean is not None]


def spread(numbers: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; the latter None for fewer than two."""
    return fmean(numbers), stdev(numbers) if len(numbers) > 1 else None


@dataclass(frozen=True)
class Comparison:
    """The groups of a column.

    Attributes:
        column: of the participants table.
        groups: in the order of the table.
        without: persons whose cell is empty.
        several: persons who belong to more than one group, by different files.
        values: how many values the column has. With more than `MOST_GROUPS`, or more than two of which none has two
            persons, there are no groups.
    """

    column: str
    groups: list[Group]
    without: list[Person]
    several: list[Person]
    values: int


@dataclass(frozen=True)
class Cohort:
    """The people of a batch as a participants table sees them. Interviewers belong to no group.

    Attributes:
        columns: of groups.
        comparisons: one for each of them.
        rows: person -> their rows in the table.
        unlisted: persons without a row.
        unheard: rows without a person, and why.
        shared: row -> its persons, where a file has several.
    """

    columns: tuple[str, ...]
    comparisons: list[Comparison]
    rows: dict[Person, list[Participant]]
    unlisted: list[Person]
    unheard: list[tuple[Participant, str]]
    shared: list[tuple[Participant, list[Person]]]

    def groups_of(self, person: Person) -> dict[str, list[str]]:
        """Column -> the values of a person's rows, each once; without columns in which they have none."""
        rows = self.rows.get(person, [])
        values = {
            name: list(dict.fromkeys(row.groups[name] for row in rows if row.groups[name])) for name in self.columns
        }
        return {name: each for name, each in values.items() if each}


def compare(participants: Participants, appearances: Sequence[Appearance], states: Mapping[Path, str]) -> Cohort:
    """Put the people of a batch into the groups of a participants table.

    Args:
        participants: the table.
        appearances: everybody in every file.
        states: input -> what became of it.
    """
    matched = [(participants.find(one.media, one.speaker), one) for one in appearances]
    interviewees = [(row, one) for row, one in matched if one.person.role != INTERVIEWER]
    rows: dict[Person, list[Participant]] = {one.person: [] for _, one in interviewees}
    people: dict[int, list[Person]] = defaultdict(list)
    for row, one in interviewees:
        if row is not None:
            rows[one.person] += [row] * (row not in rows[one.person])
            people[row.line] += [one.person] * (one.person not in people[row.line])
    interviewing = {row.line for row, one in matched if row is not None and one.person.role == INTERVIEWER}
    return Cohort(
        participants.columns,
        [_comparison(column, participants, interviewees) for column in participants.columns],
        rows,
        [person for person, table_rows in rows.items() if not table_rows],
        [(row, _why(row, states, interviewing)) for row in participants.rows if row.line not in people],
        [(row, people[row.line]) for row in participants.rows if len(people.get(row.line, [])) > 1],
    )


def _comparison(
    column: str, participants: Participants, interviewees: Sequence[tuple[Participant | None, Appearance]]
) -> Comparison:
    values = list(dict.fromkeys(row.groups[column] for row in participants.rows if row.groups[column]))
    groups = {value: Group(value, {}) for value in values}
    without: dict[Person, None] = {}
    for row, one in interviewees:
        if row is None:
            continue
        if value := row.groups[column]:
            groups[value].tallies.setdefault(one.person, Tally()).merge(one.tally)
        else:
            without[one.person] = None
    times = Counter(person for group in groups.values() for person in group.tallies)
    several = [person for person, count in times.items() if count > 1]
    alone = len(values) > 2 and all(len(group.tallies) < 2 for group in groups.values())
    shown = [] if alone or len(values) > MOST_GROUPS else list(groups.values())
    return Comparison(column, shown, list(without), several, len(values))


def _why(row: Participant, states: Mapping[Path, str], interviewing: set[int]) -> str:
    """Why nobody is found for a row."""
    if row.file and row.media is None:
        return "no input has that name"
    if row.media is not None and states[row.media] == "failed":
        return "the file failed"
    if row.line in interviewing:
        return "heard as interviewer only"
    return "nobody of that name was heard" if row.person else "nobody was seen or heard in the file"
