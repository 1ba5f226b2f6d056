"""Results of a run as it leaves them, and files of corrections, made without measuring anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emopipe.pipeline.records import FileResult, Person, UtteranceResult
from emopipe.pipeline.report.batch_page import write_summary
from emopipe.pipeline.report.outputs import Sink

LABELS = ("anger", "happiness", "neutral", "sadness")
#: Start, end, speaker, words and predicted label of each utterance.
SPOKEN = (
    (0.5, 1.75, "S1", "Good morning.", "happiness"),
    (2.0, 4.0, "S2", "I am tired.", "anger"),
    (4.5, 6.0, "S1", "Why is that?", "neutral"),
    (5.8, 8.0, "S2", "Nobody calls.", "sadness"),
    (8.5, 9.25, "S1", "Oh.", "neutral"),
)
PROBE = {"interview": "1" * 40, "second": "2" * 40}


def utterance(
    start: float, end: float, speaker: str | None, text: str, label: str | None, value: float | None = None
) -> UtteranceResult:
    shares = {} if label is None else {name: 0.7 if name == label else 0.1 for name in LABELS}
    return UtteranceResult(
        start=start,
        end=end,
        speaker=speaker,
        role=None,
        overlap=0.0,
        text=text,
        label=label,
        value=value,
        probabilities=shares,
        weights={"text": 1.0},
        unimodal={"text": shares},
        absent={"face": "no_face", "voice": "too_short"},
        quality={"text": 1.0},
        confidence=0.7 if label else None,
        abstained=False,
    )


def result_of(name: str, utterances: Sequence[UtteranceResult]) -> FileResult:
    people = [Person(0, "S1", None, (), 3.0), Person(1, "S2", None, (), 4.0)]
    keys = {"probe": PROBE[name]}
    path = Path("recordings") / f"{name}.mp4"
    return FileResult(path, "ok", [], 10.0, {"language": "en"}, "model", people, (), utterances, keys=keys)


def write_results(folder: Path, spoken: Sequence[Any] = SPOKEN) -> Path:
    """The folder of a run over two recordings in which the same is said."""
    files = [result_of(name, [utterance(*one) for one in spoken]) for name in PROBE]
    sink = Sink(folder, [file.media for file in files], "c0", "1.0")
    for file in files:
        sink.write(file)
    sink.finish()
    write_summary(folder)
    return folder


def rows(folder: Path, name: str = "interview") -> list[dict[str, Any]]:
    facts: dict[str, Any] = json.loads((folder / f"{name}.json").read_text("utf-8"))
    return list(facts["utterances"])


def edit(number: int, **changes: Any) -> dict[str, Any]:
    """A correction of an utterance by its place."""
    start, end, speaker, *_ = SPOKEN[number]
    return {"start": start, "end": end, "speaker": speaker, "when": "2026-11-28T11:59:00Z", **changes}


def document(by: str, *edits: Any, name: str = "interview", **rest: Any) -> dict[str, Any]:
    """What a page saves."""
    recording = {"name": name, "media": f"{name}.mp4", "probe": PROBE.get(name, ""), "utterances": list(edits)}
    facts = {"format": "emopipe-corrections", "version": 1, "by": by, "saved": "2026-11-28T12:00:00Z"}
    return {**facts, "recordings": [{**recording, **rest}]}


def save(path: Path, facts: Any) -> Path:
    path.write_text(json.dumps(facts), "utf-8")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
