"""Faces: the face table of a source, and the features of the speaker's own face in each utterance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from emopipe.errors import Reason, Where, reason
from emopipe.extractors.contracts import Span
from emopipe.extractors.windows import FeatureSequence, window_deviations, window_edges, window_means
from emopipe.pipeline.config import FaceConfig
from emopipe.pipeline.media.decoding import Frame, Media, ahead
from emopipe.pipeline.media.images import read_image
from emopipe.pipeline.progress import Event, Hook
from emopipe.pipeline.records import Absent, Person
from emopipe.pipeline.stages.people import face_tracks_of
from emopipe.pipeline.stages.stage import Context, Inputs, Stage
from emopipe.pipeline.store.serialization import FeatureSequences


class FaceInputs(Inputs):
    """What faces are looked for in."""

    media: Media | None
    image: Path | None
    wanted: frozenset[str]


@dataclass(frozen=True)
class FaceMeasurements:
    """The face table, which of its columns are measured, what is to be told of the weights, and of damaged pictures."""

    face_table: pa.Table | Absent
    face_measured: list[str]
    face_warnings: list[Reason]
    video_faults: list[Reason]


def measure_face(inputs: FaceInputs, context: Context) -> FaceMeasurements:
    """Measure every face in the sampled frames of a video, which stream through, or in a picture."""
    if "face" not in inputs.wanted:
        return FaceMeasurements(Absent("not_requested"), [], [], [])
    if inputs.image is not None:
        rgb, faults = read_image(inputs.image)
        return _measured(context.backends.face.still(rgb), context, faults)
    media = inputs.media
    if media is None or not media.info.has_video:
        return FaceMeasurements(Absent("no_video_stream"), [], [], [])
    frames = media.frames(context.settings.face.rate)
    source = frames if media.threads == 1 else ahead(frames)
    table = context.backends.face.track(_with_progress(media, source, context.hook))
    return _measured(table, context, media.video_faults)


def _measured(table: pa.Table, context: Context, video_faults: list[Reason]) -> FaceMeasurements:
    from emopipe.extractors.face.table import limit_reached

    note, limit = table.schema.metadata.get(b"note"), limit_reached(table)
    warnings = [reason("weights_unverified", note.decode(), modality="face")] if note else []
    if limit is not None:
        where = Where(start=round(limit.start, 2), end=round(limit.end, 2))
        what = f"more than {limit.most} faces were seen at once; no more were measured"
        warnings.append(reason("faces_beyond_limit", what, modality="face", where=where))
    return FaceMeasurements(table, sorted(context.backends.face.measured), warnings, video_faults)


def _with_progress(media: Media, frames: Iterable[Frame], hook: Hook) -> Iterator[Frame]:
    total = media.info.duration
    for frame in frames:
        yield frame
        hook(Event("progress", "face", done=frame.time, total=max(total, frame.time)))


class SpeakerFaceInputs(Inputs):
    """All faces, and who speaks when."""

    face_table: pa.Table | Absent
    face_measured: list[str]
    spans: list[Span]
    people: list[Person]
    duration: float


@dataclass(frozen=True)
class SpeakerFaces:
    """Of each utterance: features of the speaker's own face, or the reason for their absence; how well it was seen."""

    face: FeatureSequences
    face_quality: list[float]


def slice_face(inputs: SpeakerFaceInputs, context: Context) -> SpeakerFaces:
    """Pool the measurements of the speaker's own face into windows of each utterance."""
    from emopipe.extractors.face.table import feature_columns, subject_track

    table, spans = inputs.face_table, inputs.spans
    if isinstance(table, Absent):
        return SpeakerFaces([table] * len(spans), [0.0] * len(spans))
    frames = int(table.schema.metadata[b"frames"])
    columns = feature_columns(context.settings.face.features, inputs.face_measured)
    matrix = np.column_stack([table[name].to_numpy() for name in columns]).astype(np.float64)
    times, quality, tracks = (table[name].to_numpy() for name in ("time", "quality", "track"))
    rate = frames / inputs.duration if inputs.duration > 0 else 0.0
    main = subject_track(table)
    faces: list[FeatureSequence | Absent] = []
    qualities = []
    for span in spans:
        own = np.isin(tracks, face_tracks_of(span, inputs.people, main))
        seen = _Seen(times[own], matrix[own], quality[own], rate)
        face, how_well = seen.within(span.start, span.end, context.settings.face)
        if isinstance(face, Absent) and np.any((times >= span.start) & (times <= span.end) & ~own):
            face = Absent("other_face" if own.any() else "speaker_not_seen")
        faces.append(face if frames else Absent("decode_error"))
        qualities.append(how_well)
    return SpeakerFaces(faces, qualities)


@dataclass(frozen=True)
class _Seen:
    """Where one person's face was seen.

    Attributes:
        times: seconds (n,).
        matrix: features (n, dims).
        quality: 0..1 (n,).
        rate: sampled frames per second.
    """

    times: np.ndarray
    matrix: np.ndarray
    quality: np.ndarray
    rate: float

    def within(self, start: float, end: float, settings: FaceConfig) -> tuple[FeatureSequence | Absent, float]:
        """The features within [start, end], or the reason for their absence, and their quality."""
        inside = (self.times >= start) & (self.times <= end)
        expected = max(1.0, (end - start) * self.rate)
        coverage = min(1.0, inside.sum() / expected)
        if not inside.any() or coverage < settings.least_coverage:
            return Absent("no_face"), 0.0
        edges = window_edges(start, end, settings.window)
        means, rows = window_means(self.times[inside], self.matrix[inside], edges)
        features, kept = means, rows > 0
        if settings.deviations:
            features = np.hstack([means, window_deviations(self.times[inside], self.matrix[inside], edges)])
        steps = FeatureSequence(edges[:-1][kept], edges[1:][kept], features[kept])
        return steps, float(np.clip(coverage * self.quality[inside].mean(), 0.01, 1.0))


FACE: Final = Stage(
    "face",
    11,
    FaceInputs,
    FaceMeasurements,
    measure_face,
    settings=("face.backend", "face.detector", "face.weights", "face.rate", "face.max_faces", "face.options"),
    backend="face",
    signals=("media", "image"),
    libraries=("av",),
    modalities=("face",),
)
SPEAKER_FACE: Final = Stage(
    "subject",
    2,
    SpeakerFaceInputs,
    SpeakerFaces,
    slice_face,
    settings=("face.features", "face.window", "face.deviations", "face.least_coverage"),
    modalities=("face",),
    signals=("media", "image"),
)
