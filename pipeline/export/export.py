"""Export the results of a run; no video is read again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from emopipe.errors import OutputError, Reason, reason
from emopipe.files import atomic_file
from emopipe.pipeline.export.formats import FORMATS, OutputFile
from emopipe.pipeline.export.recording import Recording, recordings_of_run
from emopipe.pipeline.privacy.disguise import Disguise


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        files: in the order of the recordings.
        incomplete: recording -> why files of it are missing or lack something.
    """

    files: Sequence[Path] = ()
    incomplete: Mapping[Path, Reason] = field(default_factory=dict)


def export_folder(
    results: Path, formats: Sequence[str], *, out: Path | None = None, store: Path, disguise: Disguise | None = None
) -> Exported:
    """Export what a run left in its folder.

    Args:
        results: the run's folder.
        formats: of :data:`~emopipe.pipeline.export.formats.FORMATS`.
        out: folder for the files; None: beside the results.
        store: in which the run kept what it measured; need not be there.
        disguise: what is hidden, beside what the run hid.

    Raises:
        InputNotFound: when there was no run, OutputError when its results cannot be used or files not be written.
    """
    return export(recordings_of_run(results, store, disguise), formats, out or results)


def export(recordings: Iterable[Recording], formats: Sequence[str], out: Path) -> Exported:
    """Write recordings in formats.

    Args:
        recordings: what to write.
        formats: names of formats.
        out: folder for the files; made when missing.

    Raises:
        OutputError: a file cannot be written.
    """
    files: list[Path] = []
    incomplete: dict[Path, Reason] = {}
    wanted = [file for name in formats for file in FORMATS[name]]
    for recording in recordings:
        lacking = {stage: recording.lacks(stage) for file in wanted for stage in file.needs + file.uses}
        touched = [file.suffix for file in wanted if any(lacking[stage] for stage in file.needs + file.uses)]
        if touched:
            lost = ", ".join(stage for stage in lacking if lacking[stage])
            what = f"{lost}: not in the store, so left out or incomplete: {', '.join(touched)}"
            incomplete[recording.result.media] = reason("not_in_store", what)
        whole = [file for file in wanted if all(recording.has(stage) for stage in file.needs)]
        files += [_write(file, recording, out) for file in whole]
    return Exported(files, incomplete)


def _write(file: OutputFile, recording: Recording, out: Path) -> Path:
    """Write a file whole or not at all."""
    path = out / f"{recording.stem}{file.suffix}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as partial:
            file.write(recording, partial)
    except OSError as error:
        raise OutputError(f"an export cannot be written: {error.strerror or error}", path=path) from None
    return path
