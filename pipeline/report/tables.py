"""The tables of the page about a batch, as CSV for spreadsheets and R, and as data frames."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, Final

from emopipe.pipeline.report.drift import Drift, drift_across, drift_within, recordings_of_people
from emopipe.pipeline.report.group_differences import contrasts
from emopipe.pipeline.report.intervals import Estimate
from emopipe.pipeline.report.moments import said_and_shown_everywhere
from emopipe.pipeline.report.outputs import put, unwritable
from emopipe.pipeline.report.person_statistics import MEASURES, Cohort, Person, Tally, compare, per_person

if TYPE_CHECKING:
    import pandas as pd

    from emopipe.pipeline.report.batch import Batch
    from emopipe.pipeline.report.participants import Participants

#: Folder of the tables, beside the page.
TABLES: Final = "tables"
#: What spreadsheets take for the beginning of a formula.
FORMULA: Final = tuple("=+-@\t\r\n")

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows under the name of their file, without suffix; all have the same columns."""

    name: str
    rows: Sequence[Row]

    def as_csv(self) -> str:
        """As CSV; words and names that a spreadsheet would take for a formula begin with an apostrophe."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(map(_harmless, self.rows[0]))
        writer.writerows(map(_harmless, row.values()) for row in self.rows)
        return text.getvalue()


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def cohort_of(batch: Batch, participants: Participants | None) -> Cohort | None:
    """The people of a batch in the groups of a participants table; None without one."""
    return compare(participants, batch.appearances, batch.states) if participants else None


def tables_of(batch: Batch, cohort: Cohort | None) -> dict[str, Table]:
    """Name -> table; those of what the run does not have are empty.

    Args:
        batch: the run.
        cohort: its people in the groups of a participants table; None without one.
    """
    made: dict[str, Iterable[Row]] = {
        "people": _people(batch, cohort),
        "turn_taking": _turn_taking(batch),
        "floor_transfers": _floor_transfers(batch),
        "groups": _groups(batch, cohort),
        "group_differences": _group_differences(batch, cohort),
        "said_and_shown": _said_and_shown(batch),
        "questions": _questions(batch),
        "drift_within_recordings": _drift(drift_within(batch.interviewees, batch.outcomes), _part_names),
        "drift_over_recordings": _drift(drift_across(batch.interviewees, batch.outcomes), _first_and_last),
        "recordings_of_people": _recordings(batch),
    }
    return {name: Table(name, list(rows)) for name, rows in made.items()}


def write_tables(folder: Path, tables: Mapping[str, Table]) -> None:
    """Write each table as CSV into the folder of tables of a run; one that is empty now is removed.

    Raises:
        OutputError: they cannot be written.
    """
    try:
        (folder / TABLES).mkdir(exist_ok=True)
    except OSError as error:
        raise unwritable(folder / TABLES, error) from None
    for name, table in tables.items():
        path = folder / TABLES / f"{name}.csv"
        if table.rows:
            put(path, table.as_csv())
        else:
            path.unlink(missing_ok=True)


def frames(tables: Mapping[str, Table]) -> dict[str, pd.DataFrame]:
    """Name -> table as a data frame."""
    import pandas as pd

    return {name: pd.DataFrame(list(table.rows)) for name, table in tables.items()}


# Each table


def _people(batch: Batch, cohort: Cohort | None) -> Iterator[Row]:
    for person, tally in per_person(batch.appearances).items():
        own = cohort.groups_of(person) if cohort else {}
        groups = {f"group_{name}": "; ".join(own.get(name, [])) for name in (cohort.columns if cohort else ())}
        yield {**_who(batch, person), **groups, "utterances": tally.utterances, **_numbers(tally, batch.outcomes)}


def _who(batch: Batch, person: Person) -> Row:
    """The person by name; the file is empty where they are the same person in every file."""
    file = batch.names.file(person.media) if person.media else ""
    return {"person": person.speaker or "", "file": file, "role": person.role or ""}


def _numbers(tally: Tally, outcomes: Sequence[str]) -> Row:
    shares = {f"share_{outcome}": round(tally.share(outcome), 4) for outcome in outcomes}
    measures = {column(name): _rounded(tally.measures.get(name)) for name in MEASURES}
    return {"seconds": round(tally.total, 3), **shares, **measures}


def column(measure: str) -> str:
    """The name of a measure as a column of a table."""
    return re.sub(r"\W+", "_", measure)


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 4)


def _turn_taking(batch: Batch) -> Iterator[Row]:
    for one in batch.appearances:
        if (talk := one.talk) is None:
            continue
        gaps = [offset for offset in talk.latencies if offset >= 0]
        yield {
            "file": batch.names.file(one.media),
            "person": one.speaker or "",
            "role": one.person.role or "",
            "seconds_of_speech": round(talk.seconds, 3),
            "share_of_talk": round(talk.seconds / talk.whole, 4) if talk.whole else None,
            "turns": talk.turns,
            "responses": len(talk.latencies),
            "response_latency_median_s": _rounded(median(talk.latencies)) if talk.latencies else None,
            "response_latency_mean_s": _rounded(fmean(talk.latencies)) if talk.latencies else None,
            "gaps": len(gaps),
            "overlaps": len(talk.latencies) - len(gaps),
            "inside_others_speech": talk.inside,
            "pauses": len(talk.pauses),
            "pause_median_s": _rounded(median(talk.pauses)) if talk.pauses else None,
            "pause_total_s": _rounded(sum(talk.pauses)),
        }


def _floor_transfers(batch: Batch) -> Iterator[Row]:
    for clip in batch.clips:
        for one in clip.transfers:
            yield {
                "file": batch.names.file(clip.media),
                "time": round(one.start, 3),
                "from": clip.speakers[one.before],
                "to": clip.speakers[one.after],
                "offset_s": round(one.offset, 3),
                "kind": "gap" if one.offset >= 0 else "overlap",
            }


def _estimate(one: Estimate | None) -> Row:
    if one is None:
        return {"mean": None, "low": None, "high": None, "persons": 0}
    return {"mean": _rounded(one.mean), "low": _rounded(one.low), "high": _rounded(one.high), "persons": one.persons}


def _groups(batch: Batch, cohort: Cohort | None) -> Iterator[Row]:
    for comparison in cohort.comparisons if cohort else ():
        for contrast in contrasts(comparison, batch.outcomes):
            for group, one in contrast.groups.items():
                yield {
                    "column": comparison.column,
                    "group": group,
                    "measure": _measure(contrast.measure),
                    **_estimate(one),
                }


def _group_differences(batch: Batch, cohort: Cohort | None) -> Iterator[Row]:
    for comparison in cohort.comparisons if cohort else ():
        for contrast in contrasts(comparison, batch.outcomes):
            first = next(iter(contrast.groups))
            for group, one in contrast.differences.items():
                if one is None:
                    continue
                estimate = _estimate(one.estimate)
                yield {
                    "column": comparison.column,
                    "group": group,
                    "compared_with": first,
                    "measure": _measure(contrast.measure),
                    "difference": estimate.pop("mean"),
                    **estimate,
                    "within_persons": one.within,
                    "left_out": one.left_out,
                }


def _measure(name: str) -> str:
    return column(name) if name in MEASURES else f"share_{name}"


def _said_and_shown(batch: Batch) -> Iterator[Row]:
    for rank, one in enumerate(said_and_shown_everywhere(batch.moments), 1):
        appearance = batch.appearances[one.appearance]
        yield {
            "rank": rank,
            "file": batch.names.file(appearance.media),
            "start": one.start,
            "end": one.end,
            "person": appearance.speaker or "",
            "role": appearance.person.role or "",
            "words_say": one.words,
            "face_and_voice_show": one.shown,
            "difference": _rounded(one.distance),
            "label": one.label,
            "text": one.text,
        }


def _questions(batch: Batch) -> Iterator[Row]:
    for number, same in enumerate(batch.questions.same, 1):
        for question in same.asked:
            for answer in question.answers:
                yield {
                    "question": number,
                    "question_text": same.text,
                    "file": batch.names.file(question.media),
                    "asked_at": question.start,
                    "asked_as": question.text,
                    "person": answer.person.speaker or "",
                    "answer_start": answer.start,
                    "answer_end": answer.end,
                    "latency_s": answer.latency,
                    "utterances": answer.tally.utterances,
                    **_shares_and_distance(answer.tally, batch.outcomes),
                    "answer": answer.text,
                }


def _shares_and_distance(tally: Tally, outcomes: Sequence[str]) -> Row:
    absent = {column(name) for name in MEASURES[2:]}
    return {name: number for name, number in _numbers(tally, outcomes).items() if name not in absent}


def _part_names(drift: Drift) -> Iterator[str]:
    return (f"part_{number}" for number, _ in enumerate(drift.parts, 1))


def _first_and_last(drift: Drift) -> Iterator[str]:
    return islice(("first", "last"), len(drift.parts))


def _drift(drifts: Iterable[Drift], names: Callable[[Drift], Iterator[str]]) -> Iterator[Row]:
    for one in drifts:
        parts = zip(names(one), one.parts, strict=True)
        means = {name: None if part is None else _rounded(part.mean) for name, part in parts}
        change = _estimate(one.change)
        yield {"measure": _measure(one.measure), **means, "change": change.pop("mean"), **change}


def _recordings(batch: Batch) -> Iterator[Row]:
    for person, recordings in recordings_of_people(batch.interviewees).items():
        for number, (media, tally) in enumerate(recordings, 1):
            file = batch.names.file(media)
            yield {
                "person": person.speaker or "",
                "recording": number,
                "file": file,
                **_numbers(tally, batch.outcomes),
            }
