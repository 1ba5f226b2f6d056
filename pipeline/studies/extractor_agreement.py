"""How far two face backends agree on a clip: action unit by action unit, over the frames in which both see one face."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from emopipe.errors import NotMedia, OptionConflict, OutputError
from emopipe.extractors.face.table import ACTION_UNITS, BOX, subject_track
from emopipe.extractors.face.tracks import LEAST_OVERLAP, overlaps
from emopipe.pipeline.backends.loading import Backends
from emopipe.pipeline.config import FACE_DEFAULTS, ExtractionConfig, FaceConfig
from emopipe.pipeline.media.decoding import Media
from emopipe.pipeline.progress import Event, Hook, silent
from emopipe.pipeline.records import Absent
from emopipe.pipeline.stages.face import FaceInputs, measure_face
from emopipe.pipeline.stages.stage import Context


@dataclass(frozen=True)
class Agreement:
    """What two backends say of the same face.

    Attributes:
        names: of the two backends.
        times: (N,) seconds of the frames in which both see it.
        values: backend -> (N, A) action units in the order of the face table; NaN where it does not measure one.
        note: what the backends say of their weights.
    """

    names: tuple[str, str]
    times: np.ndarray
    values: dict[str, np.ndarray]
    note: str = ""

    def trace(self, name: str, unit: str) -> np.ndarray:
        """(N,) values of an action unit."""
        return self.values[name][:, ACTION_UNITS.index(unit)]

    def measures(self, name: str, unit: str) -> bool:
        """Whether a backend measures an action unit."""
        return not np.isnan(self.trace(name, unit)).any()

    def correlation(self, unit: str) -> float:
        """Pearson's r of an action unit; NaN when a backend does not measure it, or where one stays the same."""
        first, second = (self.trace(name, unit) for name in self.names)
        if not all(self.measures(name, unit) and np.ptp(self.trace(name, unit)) > 0 for name in self.names):
            return float("nan")
        return float(np.corrcoef(first, second)[0, 1])


def compare_backends(
    clip: Path, config: ExtractionConfig, *, device: str = "auto", offline: bool = False, hook: Hook = silent
) -> Agreement:
    """Measure a clip with MediaPipe and with the face backend of the configuration, at the rate of the latter.

    Args:
        clip: a video.
        config: its `face` names the other backend.
        device, offline: as for :class:`Backends`.
        hook: told of progress, and of what the backends say of their weights.

    Raises:
        InputError: for the clip, NotMedia also when the two never see the same face.
        WeightError: for weights.
        OptionConflict: when the other backend is MediaPipe too.
    """
    other = config.face
    embedded = replace(FACE_DEFAULTS["mediapipe"], rate=other.rate, max_faces=other.max_faces)
    if other.backend == embedded.backend:
        raise OptionConflict("mediapipe would be compared with itself", hint="Use --face pyfeat")
    measured = {face.backend: _measured(clip, face, device, offline, hook) for face in (other, embedded)}
    agreement = pair(measured[embedded.backend], measured[other.backend])
    if not len(agreement.times):
        what = "the backends see the same face in no frame"
        raise NotMedia(what, path=clip, hint="Choose a clip in which one is seen well")
    if agreement.note:
        hook(Event("warning", "face", agreement.note))
    return agreement


def _measured(clip: Path, face: FaceConfig, device: str, offline: bool, hook: Hook) -> pa.Table:
    config = ExtractionConfig(face=face)
    with Backends(config, device=device, offline=offline, hook=hook) as backends:
        backends.prepare("face")
        with Media(clip) as media:
            values = {"media": media, "image": None, "wanted": frozenset({"face"})}
            inputs = FaceInputs(values.__getitem__)
            table = measure_face(inputs, Context(config, backends, hook)).face_table
    if isinstance(table, Absent):
        raise NotMedia("the file has no video stream", path=clip, hint="Choose a video")
    return table


def pair(first: pa.Table, second: pa.Table) -> Agreement:
    """The subject of the first face table, and in each frame the face of the second that overlaps it most."""
    rows, others = first.to_pylist(), second.to_pylist()
    subject = subject_track(first)
    pairs = []
    for row in (row for row in rows if row["track"] == subject):
        faces = [face for face in others if face["time"] == row["time"]]
        closest = max(faces, key=lambda face: _overlap(row, face), default=None)
        if closest is not None and _overlap(row, closest) >= LEAST_OVERLAP:
            pairs.append((row, closest))
    name, other = (table.schema.metadata[b"backend"].decode() for table in (first, second))
    notes = {table.schema.metadata.get(b"note", b"").decode() for table in (first, second)} - {""}
    return Agreement(
        (name, other),
        np.array([row["time"] for row, _ in pairs]),
        {name: _units([row for row, _ in pairs]), other: _units([face for _, face in pairs])},
        "; ".join(sorted(notes)),
    )


def _overlap(one: dict[str, float], two: dict[str, float]) -> float:
    return float(overlaps(*(np.array([[face[side] for side in BOX]]) for face in (one, two)))[0, 0])


def _units(faces: list[dict[str, float]]) -> np.ndarray:
    """(N, A) action units of the faces."""
    return np.array([[face[unit] for unit in ACTION_UNITS] for face in faces], np.float64).reshape(
        -1, len(ACTION_UNITS)
    )


def write_agreement(agreement: Agreement, title: str, out: Path) -> list[Path]:
    """Write `agreement.csv` (one row per action unit), `traces.csv` (one per frame) and a picture of the traces.

    Raises:
        OutputError: when they cannot be written.
    """
    from emopipe.pipeline.studies.plots import traces

    units = [f"{unit} {name}" for unit in ACTION_UNITS for name in agreement.names]
    values = [agreement.trace(name, unit) for unit in ACTION_UNITS for name in agreement.names]
    frames = np.column_stack([agreement.times, *values])
    try:
        out.mkdir(parents=True, exist_ok=True)
        with (out / "agreement.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header(agreement), *summary(agreement)])
        with (out / "traces.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["time", *units], *frames.tolist()])
        shown = {
            f"{unit}: {_words(agreement, unit)}": {
                name: agreement.trace(name, unit) for name in agreement.names if agreement.measures(name, unit)
            }
            for unit in ACTION_UNITS
        }
        drawn = traces(agreement.times, agreement.names, shown, title, agreement.note, out / "agreement")
    except OSError as error:
        raise OutputError(f"the results cannot be written: {error.strerror}", path=out) from error
    return [out / "agreement.csv", out / "traces.csv", *drawn]


def header(agreement: Agreement) -> list[str]:
    """What the columns of :func:`summary` are."""
    return ["action unit", "r", "frames", *(f"mean {name}" for name in agreement.names)]


def summary(agreement: Agreement) -> list[list[str]]:
    """One row per action unit: its name, r, frames, and the mean of each backend."""
    rows = []
    for unit in ACTION_UNITS:
        r = agreement.correlation(unit)
        means = [
            f"{agreement.trace(name, unit).mean():.3f}" if agreement.measures(name, unit) else ""
            for name in agreement.names
        ]
        rows.append([unit, "" if np.isnan(r) else f"{r:.3f}", str(len(agreement.times)), *means])
    return rows


def _words(agreement: Agreement, unit: str) -> str:
    r = agreement.correlation(unit)
    if not np.isnan(r):
        return f"r = {round(r, 2) + 0.0:.2f}"
    lacking = [name for name in agreement.names if not agreement.measures(name, unit)]
    return f"not measured by {' or '.join(lacking)}" if lacking else "one does not move"
