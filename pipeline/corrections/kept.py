"""Keep the corrections of a run in its folder, apart from the predictions, and put them beside these."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emopipe.errors import CorrectionsError, OutputError
from emopipe.files import write_atomic

if TYPE_CHECKING:
    from emopipe.pipeline.corrections.documents import Edit, RecordingCorrections

#: In the folder of a run: what everybody corrected, in the format of `corrections.json`.
KEPT: Final = "applied_corrections.json"
#: Times of an utterance are written to this precision.
_TOLERANCE: Final = 0.0006

#: Name of a recording and who corrected it -> their corrections.
Kept = dict[tuple[str, str], "RecordingCorrections"]


def read_kept(folder: Path, file: str = KEPT) -> Kept:
    """The corrections that were applied to a run's results, or those that another file in their folder holds.

    Raises:
        CorrectionsError: the file that holds them is damaged.
    """
    path = folder / file
    if not path.exists():
        return {}
    from emopipe.pipeline.corrections.documents import read_document

    recordings = read_document(path)
    if any(one.refused for one in recordings):
        hint = "Restore it from a copy, or remove it and apply the files of corrections again"
        raise CorrectionsError("the applied corrections are damaged", path=path, hint=hint)
    return {(one.name, one.by): one for one in recordings}


def write_kept(folder: Path, kept: Kept, file: str = KEPT) -> None:
    """Keep corrections; in an order that does not depend on when they were applied.

    Raises:
        OutputError: the file cannot be written.
    """
    from emopipe.pipeline.corrections.documents import as_document

    path = folder / file
    try:
        if any(one.edits for one in kept.values()):
            ordered = [kept[key] for key in sorted(kept) if kept[key].edits]
            write_atomic(path, json.dumps(as_document(ordered), indent=1, ensure_ascii=False) + "\n", durable=True)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"the corrections cannot be kept: {error.strerror or error}", path=path) from None


def attach(
    facts: dict[str, Any], name: str, kept: Kept, names: Collection[str]
) -> list[tuple[RecordingCorrections, Edit]]:
    """Put the corrections of a recording beside its predictions, in place of those that are there.

    Where its files had another name when they were made, the recording is known by its content and its own name.

    Args:
        facts: the recording's document, which is changed.
        name: of its files.
        kept: the corrections of the run.
        names: of the files of all recordings.

    Returns:
        Those that fit no utterance.
    """
    for row in facts["utterances"]:
        row.pop("corrections", None)
    homeless = []
    own = (Path(facts["media"]).name, probe_of(facts))
    moved = {key for key, one in kept.items() if (one.media, one.probe) == own and key[0] not in names}
    for _, one in sorted(item for item in kept.items() if item[0][0] == name or item[0] in moved):
        matches = one.probe == probe_of(facts)
        for edit in one.edits:
            row = find(facts["utterances"], edit) if matches else None
            if row is None:
                homeless.append((one, edit))
            else:
                row.setdefault("corrections", []).append(edit.correction.as_json())
    return homeless


def probe_of(facts: Mapping[str, Any]) -> str | None:
    """Which content a document tells of; None where an earlier version wrote it."""
    probe = facts.get("keys", {}).get("probe")
    return None if probe is None else str(probe)


def find(rows: Sequence[dict[str, Any]], edit: Edit) -> dict[str, Any] | None:
    """The utterance that a correction is of."""
    return next((row for row in rows if _is_of(row, edit)), None)


def _is_of(row: Mapping[str, Any], edit: Edit) -> bool:
    near = (abs(row[name] - time) < _TOLERANCE for name, time in (("start", edit.start), ("end", edit.end)))
    return row["speaker"] == edit.speaker and all(near)


def classes(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """The labels between which the model chose."""
    return {label for row in rows for label in row["probabilities"]}
