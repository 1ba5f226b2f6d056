"""Export of diarization turns: who speaks when, as RTTM."""

from __future__ import annotations

from pathlib import Path

from emopipe.pipeline.export.recording import Recording


def write_rttm(recording: Recording, path: Path) -> None:
    """RTTM: a line per turn. Blanks in names become underscores, for the format parts its fields by blanks."""
    from pyannote.core import Annotation, Segment

    annotation = Annotation(uri=_one_field(recording.stem))
    for index, turn in enumerate(recording.result.turns):
        annotation[Segment(turn.start, turn.end), index] = _one_field(recording.name_of(turn.person))
    path.write_text(annotation.to_rttm(), "utf-8", "backslashreplace", newline="\n")


def _one_field(text: str) -> str:
    return "_".join(text.split()) or "_"
