"""Say before working what will run for which source and why, and how long it will take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from emopipe.pipeline.execution.plan import Job, Result, contents, missing, results
from emopipe.pipeline.records import Source
from emopipe.pipeline.stages.probe import PROBE
from emopipe.pipeline.stages.table import STAGES
from emopipe.pipeline.store.store import Store

#: What inputs are called that have no plain name.
_IN_WORDS: Final = {"related_means": "what is usual for the speaker in all recordings"}


@dataclass(frozen=True)
class Step:
    """A stage that will run for a source.

    Attributes:
        source: what on.
        stage: its name.
        why: in words.
        seconds: that it will take, as far as past times tell; None when they do not.
    """

    source: Source
    stage: str
    why: str
    seconds: float | None


def explain(source: Source, job: Job, store: Store, duration: float) -> list[Step]:
    """The stages that will run for a source, in order; none when everything is stored.

    Args:
        source: of readable files.
        job: what is wanted.
        store: what is there.
        duration: of the source in seconds.

    Raises:
        InputError: for a file that cannot be read.
    """
    files = contents(source, store)
    by_stage = results(source, files, job)
    new = not any(store.knows(content.hash, PROBE.name) for content in files.values())
    running: list[str] = []
    steps = []
    for result in missing(by_stage, job.values, store.has):
        name = result.stage.name
        rate = store.rate(name)
        why = "new file" if new else _reason(result, running, store)
        steps.append(Step(source, name, why, None if rate is None else rate * duration))
        running.append(name)
    return steps


def _reason(result: Result, running: Sequence[str], store: Store) -> str:
    """Why there is no such result though the file is known: what differs from the most similar one."""
    if not result.stage.stored:
        return "needed again"
    past = [_differences(old, result.facts) for old in store.made(str(result.facts["content"]), result.stage.name)]
    if not past:
        return "not done yet"
    differences = min(past, key=len)
    if not differences:
        return "its result was removed"
    direct = [text for kind, text in differences if kind != "inputs"]
    if direct:
        return "; ".join(direct)
    texts = list(dict.fromkeys(text for _, text in differences))
    return "; ".join([text for text in texts if text.removeprefix("follows ") in running] or texts)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Kind and words of everything in which the facts of two results differ."""
    if old["wanted"] != new["wanted"]:
        return [("wanted", "now wanted" if new["wanted"] else "no longer wanted")]
    raised = [("version", f"version raised from {old['version']} to {new['version']}")]
    return [
        *(raised if old["version"] != new["version"] else []),
        *(
            ("parameters", f"{name} changed from {_shown(before)} to {_shown(now)}")
            for name, before, now in _changes(old["parameters"], new["parameters"])
        ),
        *(
            ("weights", f"the weights {name} changed")
            for name, before, now in _changes(old["weights"], new["weights"])
            if None not in (before, now)
        ),
        *(
            ("libraries", f"{name} changed from {before} to {now}")
            for name, before, now in _changes(old["libraries"], new["libraries"])
        ),
        *(("inputs", _input(name, now)) for name, _, now in _changes(old["inputs"], new["inputs"])),
    ]


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Name, old and new value of what differs, None where there is none."""
    names = sorted(old.keys() | new.keys())
    return [(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]


def _input(name: str, key: Any) -> str:
    """In what an input differs; the result of a stage is named by the stage."""
    stage = key.split(" ")[0] if isinstance(key, str) else ""
    return f"follows {stage}" if stage in {one.name for one in STAGES} else f"{_IN_WORDS.get(name, name)} changed"


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def forecast(steps: Sequence[Step], jobs: int) -> tuple[float, int]:
    """Seconds until all is done by so many workers, and how many steps no past time tells about."""
    files: dict[str, float] = {}
    for step in steps:
        files[step.source.id] = files.get(step.source.id, 0.0) + (step.seconds or 0.0)
    longest, total = max(files.values(), default=0.0), sum(files.values())
    return max(longest, total / max(1, jobs)), sum(step.seconds is None for step in steps)
