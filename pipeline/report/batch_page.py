"""Write one self-contained HTML page about all files of a run, from what the run left in its folder."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final
from urllib.parse import quote

from emopipe.pipeline.report.batch import Batch
from emopipe.pipeline.report.codes import explained
from emopipe.pipeline.report.drift import drift_across, drift_within, recordings_of_people
from emopipe.pipeline.report.group_differences import contrasts
from emopipe.pipeline.report.moments import compressed, packed_moments, said_and_shown_everywhere
from emopipe.pipeline.report.outputs import DISCLAIMER, SUMMARY, put
from emopipe.pipeline.report.pages import colours, render
from emopipe.pipeline.report.participants import Participants
from emopipe.pipeline.report.person_statistics import (
    DISTANCE,
    INTERVIEWER,
    NO_EVIDENCE,
    UNBOUNDED,
    UNCERTAIN,
    VALUE,
    Appearance,
    Comparison,
    per_person,
    spread,
)
from emopipe.pipeline.report.questions import as_json
from emopipe.pipeline.report.tables import TABLES, cohort_of, tables_of, write_tables
from emopipe.pipeline.store.store import Store

#: Seconds of utterances below which shares say little.
LITTLE: Final = 30.0
#: Groups of more persons are drawn without a mark for each.
MOST_MARKS: Final = 40

#: A ranking on the page shows so many utterances; its table holds all.
MOST_RANKED: Final = 20


def write_summary(folder: Path, participants: Participants | None = None, store: Store | None = None) -> Path:
    """Write `summary.html` about the run whose outputs lie in a folder, and its tables. Returns the page's path.

    Args:
        folder: outputs of `emopipe run`.
        participants: which groups people belong to; read with the inputs of that run.
        store: in which the run kept what it measured.

    Raises:
        InputNotFound: when there was no run, OutputError when its manifest cannot be used or the page cannot
            be written.
    """
    batch = Batch(folder, store)
    page = put(folder / SUMMARY, render_summary(batch, participants))
    write_tables(folder, tables_of(batch, cohort_of(batch, participants)))
    return page


def render_summary(batch: Batch, participants: Participants | None = None) -> str:
    """The page as text."""
    people = per_person(batch.appearances)
    labels = sorted(batch.labels)
    styles = {UNCERTAIN: "u", NO_EVIDENCE: "n", VALUE: "v"}
    styles |= {label: f"c{index}" for index, label in enumerate(labels)}
    cohort = cohort_of(batch, participants)
    tables = tables_of(batch, cohort)
    return render(
        "batch.html",
        batch=batch,
        states=Counter(batch.states.values()),
        material=sum(clip.duration for clip in batch.clips),
        people=people,
        reviewed=sum((clip.reviewed for clip in batch.clips), Counter[str]()),
        asked={person: tally for person, tally in people.items() if person.role != INTERVIEWER},
        interviewers={person: tally for person, tally in people.items() if person.role == INTERVIEWER},
        apart=any(person.speaker for person in people),
        outcomes=batch.outcomes,
        unseen=[label for label in labels if label not in batch.outcomes],
        styles=styles,
        colours=colours(labels),
        codes=explained(trouble.code for trouble in batch.troubles),
        cohort=cohort,
        contrasts=contrasts,
        within=drift_within(batch.interviewees, batch.outcomes),
        over=drift_across(batch.interviewees, batch.outcomes),
        recordings=recordings_of_people(batch.interviewees),
        ranked=said_and_shown_everywhere(batch.moments),
        most_ranked=MOST_RANKED,
        plain=(*UNBOUNDED, DISTANCE),
        pages={clip.media: _link(clip.entry) for clip in batch.clips},
        median=median,
        folder=TABLES,
        tables={name for name, table in tables.items() if table.rows},
        data=_data(batch, labels, participants),
        questions=as_json(batch.questions, batch.stems),
        name=batch.names.file,
        called=batch.names.person,
        link=_link,
        axis=_axis,
        spread=spread,
        little=LITTLE,
        most_marks=MOST_MARKS,
        disclaimer=DISCLAIMER,
    )


def _data(batch: Batch, labels: Sequence[str], participants: Participants | None) -> str:
    """What the search of the page works with: files, people and moments."""

    def groups(one: Appearance) -> list[str]:
        row = participants.find(one.media, one.speaker) if participants else None
        return [f"{column}: {value}" for column, value in row.groups.items() if value] if row else []

    facts = {
        "outcomes": batch.outcomes,
        "labels": labels,
        "files": [[batch.names.file(clip.media), _link(clip.entry)] for clip in batch.clips if clip.lanes],
        "people": [[batch.names.person(one.person), groups(one)] for one in batch.appearances],
        "moments": packed_moments(batch.moments, batch.appearances, batch.outcomes, labels),
    }
    return compressed(facts)


def _link(entry: Mapping[str, Any]) -> str:
    """The address of a file's own page, which lies beside this one."""
    return quote(os.fsencode(f"{entry['outputs']}.html"))


def _axis(comparison: Comparison, outcomes: Iterable[str]) -> float:
    """The end of an axis from 0 on which all shares and deviations of a comparison fit: the next tenth."""
    reach = [0.0]
    for shares in (group.shares(outcome) for group in comparison.groups for outcome in outcomes):
        if shares:
            mean, deviation = spread(shares)
            reach += [*shares, mean + (deviation or 0.0)]
    return min(1.0, max(1, math.ceil(round(10 * max(reach), 6))) / 10)
