"""Apply corrections to the results of a run: beside the predictions in JSON, CSV and pages; no video is read."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from emopipe.errors import OutputError, Reason, reason
from emopipe.pipeline.corrections.agreement import Agreement, agreements
from emopipe.pipeline.corrections.documents import Edit, Outcome, RecordingCorrections, summary
from emopipe.pipeline.corrections.kept import Kept, attach, classes, find, probe_of, read_kept, write_kept
from emopipe.pipeline.report.batch_page import write_summary
from emopipe.pipeline.report.outputs import SUMMARY, columns_of, played, read_manifest, write_clip, write_utterances
from emopipe.pipeline.report.participants import Participants

#: Seconds by which corrected bounds may lie beyond the end of the recording.
_BEYOND = 0.5


@dataclass(frozen=True)
class Corrected:
    """What became of corrections.

    Attributes:
        outcomes: of each correction.
        agreement: of those who corrected with the model and with each other, over all corrections of the results.
        files: that were written anew.
    """

    outcomes: Sequence[Outcome] = ()
    agreement: Sequence[Agreement] = ()
    files: Sequence[Path] = ()

    @property
    def applied(self) -> list[Outcome]:
        """The corrections that are beside the predictions now."""
        return [one for one in self.outcomes if one.reason is None]

    @property
    def refused(self) -> list[Outcome]:
        """Those that are not; their `reason` tells why."""
        return [one for one in self.outcomes if one.reason is not None]


class ClipDocuments:
    """The documents of a run's clips by the name of their files, read when they are asked for.

    Args:
        folder: of the run.

    Raises:
        InputNotFound: when there was no run, OutputError when its manifest cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.media = {entry["outputs"]: path for path, entry in read_manifest(folder).items() if entry["outputs"]}

    def read(self, name: str) -> dict[str, Any]:
        """A clip's document.

        Raises:
            OutputError: it cannot be used.
        """
        path = self.folder / f"{name}.json"
        try:
            facts = json.loads(path.read_text("utf-8"))
            columns_of(facts)
        except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
            hint = "Run again: what was measured is taken from the store"
            raise OutputError(
                f"the results of an earlier run cannot be used: {error!r}", path=path, hint=hint
            ) from None
        return dict(facts)

    @cached_property
    def labels(self) -> set[str]:
        """The labels of all clips."""
        return {label for name in self.media for label in classes(self.read(name)["utterances"])}


def apply_corrections(
    folder: Path, given: Iterable[RecordingCorrections], participants: Participants | None = None
) -> Corrected:
    """Put corrections beside the predictions of a run, in place of earlier ones of the same person and recording.

    Args:
        folder: of the run.
        given: of each person and recording.
        participants: which groups people belong to, for the page about the batch.

    Raises:
        InputNotFound: when there was no run, OutputError when its results cannot be used or not be written,
            CorrectionsError when corrections that were applied before cannot be read.
    """
    clips = ClipDocuments(folder)
    kept = read_kept(folder)
    outcomes: list[Outcome] = []
    for one in given:
        outcomes += _take(one, clips, kept)
    write_kept(folder, kept)
    rows, changed, homeless = _attached(clips, kept)
    changed += _batch_files(clips, participants) if changed else []
    return Corrected([*outcomes, *homeless], agreements(rows), changed)


def _take(given: RecordingCorrections, clips: ClipDocuments, kept: Kept) -> Iterator[Outcome]:
    """Take over what one person corrected of a recording."""
    facts = clips.read(given.name) if given.name in clips.media else None
    why = _foreign(given, facts)
    if facts is None or why is not None:
        yield Outcome(given.name, None, None, None, given.by, f"{len(given.edits)} corrections", why)
        return
    reasons = [_misfit(edit, facts, clips) for edit in given.edits]
    fitting = [_explicit(edit, facts) for edit, why in zip(given.edits, reasons, strict=True) if why is None]
    moved = [
        key
        for key, one in kept.items()
        if key[0] not in clips.media and (one.by, one.media, one.probe) == (given.by, given.media, given.probe)
    ]
    for key in moved:  # what they corrected while the files had another name
        del kept[key]
    kept[given.name, given.by] = replace(given, edits=fitting, refused=())
    yield from given.refused
    for edit, why in zip(given.edits, reasons, strict=True):
        yield _outcome(given, edit, why)


def _explicit(edit: Edit, facts: Mapping[str, Any]) -> Edit:
    """A correction that names what it confirms, since a later run into the folder may predict something else."""
    correction, row = edit.correction, find(facts["utterances"], edit)
    if row is None or not correction.confirmed or correction.label is not None or correction.value is not None:
        return edit
    return replace(edit, correction=replace(correction, label=row["label"], value=row["value"]))


def _outcome(given: RecordingCorrections, edit: Edit, why: Reason | None) -> Outcome:
    return Outcome(given.name, edit.start, edit.end, edit.speaker, given.by, summary(edit.correction), why)


def _foreign(given: RecordingCorrections, facts: Mapping[str, Any] | None) -> Reason | None:
    """Why corrections are not of a recording of these results."""
    if facts is None:
        return reason("recording_not_in_results")
    probe = probe_of(facts)
    if probe is None:
        return reason("other_content", "the results are of an earlier version, which did not note their content")
    return None if given.probe == probe else reason("other_content")


def _misfit(edit: Edit, facts: Mapping[str, Any], clips: ClipDocuments) -> Reason | None:
    """Why a correction does not fit the results."""
    row = find(facts["utterances"], edit)
    if row is None:
        return reason("utterance_not_in_results")
    what = _label_fault(edit, facts, clips) or _bounds_fault(edit, row, facts)
    return reason("correction_unusable", what) if what else None


def _label_fault(edit: Edit, facts: Mapping[str, Any], clips: ClipDocuments) -> str:
    label, value = edit.correction.label, edit.correction.value
    if label is None and value is None:
        return ""
    labels = classes(facts["utterances"]) or clips.labels
    if value is not None:
        return "it gives a value, but the model chooses between labels" if labels else ""
    if not labels:
        return f"it gives the label {label!r}, but the model gives values"
    return "" if label in labels else f"there is no label {label!r}; choose of {', '.join(sorted(labels))}"


def _bounds_fault(edit: Edit, row: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    if edit.correction.bounds is None:
        return ""
    start, end = edit.correction.bounds
    if end <= start:
        return f"its end ({end:g} s) is not after its start ({start:g} s)"
    if facts["duration"] is not None and end > facts["duration"] + _BEYOND:
        return f"it ends at {end:g} s, the recording at {facts['duration']:g} s"
    return "" if start < row["end"] and end > row["start"] else "its bounds lie apart from the utterance"


def _attached(clips: ClipDocuments, kept: Kept) -> tuple[list[dict[str, Any]], list[Path], list[Outcome]]:
    """Put what is kept into the clips' documents.

    Returns:
        The corrected utterances, the files that were written anew, and corrections that fit no utterance any more.
    """
    rows: list[dict[str, Any]] = []
    written: list[Path] = []
    homeless: list[Outcome] = []
    for name in clips.media:
        facts = clips.read(name)
        before = json.dumps(facts)
        lost = attach(facts, name, kept, clips.media)
        homeless += [_outcome(one, edit, reason("utterance_not_in_results")) for one, edit in lost]
        if json.dumps(facts) != before:
            written += write_clip(clips.folder, name, facts, _link(clips.folder, name, facts))
        rows += [row for row in facts["utterances"] if row.get("corrections")]
    return rows, written, homeless


def _batch_files(clips: ClipDocuments, participants: Participants | None) -> list[Path]:
    """Write anew what tells of all clips."""
    stems = {media: name for name, media in clips.media.items()}
    columns = list(dict.fromkeys(column for name in clips.media for column in columns_of(clips.read(name))))
    written = [write_utterances(clips.folder, stems, columns)]
    if participants or (clips.folder / SUMMARY).exists():
        written.append(write_summary(clips.folder, participants))
    return written


def _link(folder: Path, name: str, facts: Mapping[str, Any]) -> str:
    """What a clip's page plays; as the page has it where the run began in another folder."""
    if facts.get("privacy", {}).get("media") is None and not Path(facts["media"]).exists():
        try:
            player = re.search(r'<(?:video|audio)\b[^>]*\bsrc="([^"]*)"', (folder / f"{name}.html").read_text("utf-8"))
        except (OSError, ValueError):
            player = None
        if player:
            return html.unescape(player[1])
    return played(folder, facts)
