"""What changed between two runs: utterance by utterance, matched by time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emopipe.errors import OutputError
from emopipe.pipeline.corrections.agreement import cohens_kappa
from emopipe.pipeline.report.corrected import ClipDocuments
from emopipe.pipeline.report.outputs import put

if TYPE_CHECKING:
    import pandas as pd

#: What is compared -> its key in an utterance.
COMPARED: Final = {"label": "label", "abstained": "abstained", "person": "speaker", "words": "text", "absent": "absent"}
#: Seconds by which bounds, and amounts by which confidences and values may differ without being a change.
_NEAR: Final = 0.0015
#: Files that a comparison leaves.
DIFF_CSV, DIFF_JSON = "diff.csv", "diff.json"


@dataclass(frozen=True)
class Difference:
    """An utterance in one run and in the other.

    Attributes:
        recording: name of its files.
        start, end: in the first run; in the second where it is in that one alone.
        changed: what is not the same: label, abstained, value, confidence, person, words, absent, bounds; or "only in
            the first", "only in the second". Confidence counts only where the label is the same.
        before, after: the utterance in the first and in the second run, as in JSON; None where it is not there.
    """

    recording: str
    start: float
    end: float
    changed: tuple[str, ...]
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


@dataclass(frozen=True)
class Differences:
    """What changed between two runs.

    Attributes:
        utterances: of both runs, in order of recording and time; `changed` is empty where nothing did.
        alone: recording that only one of the runs has -> "first" or "second".
        made: of each run, the models and configurations that made it.
    """

    utterances: Sequence[Difference]
    alone: Mapping[str, str]
    made: Sequence[Mapping[str, Sequence[str]]]

    @property
    def changed(self) -> list[Difference]:
        """The utterances that are not the same."""
        return [one for one in self.utterances if one.changed]

    @property
    def counts(self) -> dict[str, int]:
        """What changed -> in how many utterances; "utterances" are those of both runs together."""
        counts = Counter(name for one in self.utterances for name in one.changed)
        return {"utterances": len(self.utterances), **dict(counts.most_common())}

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa of the labels of the two runs; None where it is not defined."""
        pairs = [(one.before["label"], one.after["label"]) for one in self.utterances if one.before and one.after]
        labelled = [pair for pair in pairs if None not in pair]
        return cohens_kappa(labelled) if labelled else None

    def to_pandas(self) -> pd.DataFrame:
        """One row per utterance, with the index (recording, start, end), `changed`, and both runs side by side."""
        import pandas as pd

        return pd.DataFrame(map(_flat, self.utterances), columns=_COLUMNS).set_index(["recording", "start", "end"])


_SIDES: Final = ("label", "confidence", "value", "speaker", "text")
_COLUMNS: Final = (
    *("recording", "start", "end", "changed"),
    *(f"{name}_{side}" for name in _SIDES for side in ("before", "after")),
)


def _flat(one: Difference) -> dict[str, Any]:
    sides = {"before": one.before or {}, "after": one.after or {}}
    values = {f"{name}_{side}": row.get(name) for name in _SIDES for side, row in sides.items()}
    return {"recording": one.recording, "start": one.start, "end": one.end, "changed": ", ".join(one.changed), **values}


def compare_results(first: Path, second: Path) -> Differences:
    """Compare two runs over the same recordings.

    Args:
        first, second: folders of the runs.

    Raises:
        InputNotFound: when there was no run, OutputError when its results cannot be used.
    """
    runs = (ClipDocuments(first), ClipDocuments(second))
    pairs = _same_recordings(runs[0].media, runs[1].media)
    alone = {one or other or "": "first" if one else "second" for one, other in pairs if one is None or other is None}
    made: tuple[dict[str, set[str]], ...] = ({}, {})
    utterances: list[Difference] = []
    for names in pairs:
        pair = [None if name is None else run.read(name) for name, run in zip(names, runs, strict=True)]
        for facts, one in zip(pair, made, strict=True):
            for key in ("checkpoint", "config_hash", "emopipe") if facts else ():
                one.setdefault(key, set()).add(str((facts or {}).get(key)))
        if pair[0] and pair[1]:
            utterances += _compared(names[0] or "", pair[0]["utterances"], pair[1]["utterances"])
    return Differences(utterances, alone, [{key: sorted(some) for key, some in one.items()} for one in made])


def _same_recordings(first: Mapping[str, Path], second: Mapping[str, Path]) -> list[tuple[str | None, str | None]]:
    """The names of each recording's files in two runs, None where it is not there: of one name, else of one path."""
    by_path = {path: name for name, path in second.items() if name not in first}
    pairs = [(name, name if name in second else by_path.get(path)) for name, path in first.items()]
    found = {other for _, other in pairs}
    return [*pairs, *((None, name) for name in second if name not in found)]


def _compared(name: str, before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> list[Difference]:
    pairs = dict(matched(before, after))
    taken = set(pairs.values())
    found = [_difference(name, one, after[pairs[i]] if i in pairs else None) for i, one in enumerate(before)]
    found += [_difference(name, None, other) for j, other in enumerate(after) if j not in taken]
    return sorted(found, key=lambda one: (one.start, one.end))


def _difference(name: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Difference:
    place = before or after or {}
    return Difference(name, place["start"], place["end"], tuple(changes(before, after)), before, after)


def matched(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """The places of utterances that are the same: those that share most time first, each at most once."""
    shares = []
    for i, one in enumerate(before):
        for j, other in enumerate(after):
            both = min(one["end"], other["end"]) - max(one["start"], other["start"])
            if both > 0:
                shares.append((both / (max(one["end"], other["end"]) - min(one["start"], other["start"])), i, j))
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for _, i, j in sorted(shares, key=lambda share: (-share[0], share[1], share[2])):
        if i not in pairs and j not in taken:
            pairs[i] = j
            taken.add(j)
    return sorted(pairs.items())


def changes(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Iterator[str]:
    """What is not the same in two utterances."""
    if before is None or after is None:
        yield "only in the second" if before is None else "only in the first"
        return
    for name, key in COMPARED.items():
        if before[key] != after[key]:
            yield name
    if before["label"] == after["label"]:
        yield from (name for name in ("value", "confidence") if _differ(before[name], after[name]))
    if any(abs(before[edge] - after[edge]) > _NEAR for edge in ("start", "end")):
        yield "bounds"


def _differ(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is not other
    return abs(one - other) > _NEAR


def write_differences(found: Differences, out: Path) -> list[Path]:
    """Write `diff.csv`, a row per utterance, and `diff.json`. Returns their paths.

    Raises:
        OutputError: they cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder cannot be made: {error.strerror}", path=out) from None
    facts = {
        "runs": [dict(one) for one in found.made],
        "counts": found.counts,
        "kappa": found.kappa,
        "only_in": dict(found.alone),
        "utterances": [asdict(one) for one in found.utterances],
    }
    return [
        put(out / DIFF_CSV, found.to_pandas().to_csv()),
        put(out / DIFF_JSON, json.dumps(facts, indent=1, ensure_ascii=False) + "\n"),
    ]
