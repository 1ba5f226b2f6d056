"""Say before working what will run for which source and why, and how long it will take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emopipe.pipeline.execution.plan import Job, Result, contents, missing, results
from emopipe.pipeline.records import Source
from emopipe.pipeline.stages.probe import PROBE
from emopipe.pipeline.stages.table import STAGES
from emopipe.pipeline.store.store import Store


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
    found = results(source, files, job)
    new = not any(store.knows(content.hash, PROBE.name) for content in files.values())
    running: list[str] = []
    steps = []
    for result in missing(found, job.values, store.has):
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
    own = [text for kind, text in differences if kind != "inputs"]
    if own:
        return "; ".join(own)
    told = list(dict.fromkeys(text for _, text in differences))
    return "; ".join([text for text in told if text.removeprefix("follows ") in running] or told)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Kind and words of everything in which the facts of two results differ."""
    if old["wanted"] != new["wanted"]:
        return [("wanted", "now wanted" if new["wanted"] else "no longer wanted")]
    found = []
    if old["version"] != new["version"]:
        found.append(("version", f"version raised from {old['version']} to {new['version']}"))
    for name in sorted(old["parameters"].keys() | new["parameters"].keys()):
        before, now = old["parameters"].get(name), new["parameters"].get(name)
        if before != now:
            found.append(("parameters", f"{name} changed from {_shown(before)} to {_shown(now)}"))
    for name in sorted(old["weights"].keys() & new["weights"].keys()):
        if old["weights"][name] != new["weights"][name]:
            found.append(("weights", f"the weights {name} changed"))
    for name in sorted(old["libraries"].keys() | new["libraries"].keys()):
        before, now = old["libraries"].get(name), new["libraries"].get(name)
        if before != now:
            found.append(("libraries", f"{name} changed from {before} to {now}"))
    for name in sorted(old["inputs"].keys() | new["inputs"].keys()):
        if old["inputs"].get(name) != new["inputs"].get(name):
            found.append(("inputs", _input(name, new["inputs"].get(name))))
    return found


def _input(name: str, key: Any) -> str:
    """In what an input differs; the result of a stage is named by the stage."""
    stage = key.split(" ")[0] if isinstance(key, str) else ""
    return f"follows {stage}" if stage in {one.name for one in STAGES} else f"{name} changed"


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def forecast(steps: Sequence[Step], jobs: int) -> tuple[float, int]:
    """Seconds until all is done by so many workers, and how many steps no past time tells about."""
    files: dict[str, float] = {}
    for step in steps:
        files[step.source.id] = files.get(step.source.id, 0.0) + (step.seconds or 0.0)
    longest, total = max(files.values(), default=0.0), sum(files.values())
    return max(longest, total / max(1, jobs)), sum(step.seconds is None for step in steps)
