"""Export to tables: Parquet, CSV of faces as py-feat and OpenFace have it, Excel, JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from emopipe.extractors.face import pyfeat
from emopipe.extractors.face.table import ACTION_UNITS, AFFECT, BLENDSHAPES, EMOTIONS, GAZE, MESH_COMPONENTS, POSE
from emopipe.extractors.voice.features import BACKEND, column_names
from emopipe.pipeline.export.recording import Recording
from emopipe.pipeline.report.outputs import DISCLAIMER, flat_row, row_of

#: Columns of the utterances that are not numbers, and their types.
_KINDS: Final = {
    **dict.fromkeys(("media", "speaker", "role", "text", "label", "unverified_weights"), pa.string()),
    "abstained": pa.bool_(),
}
#: Columns of corrected utterances that are not numbers.
_CORRECTED: Final = ("correction", *(f"corrected_{name}" for name in ("label", "speaker", "text", "by")))
#: py-feat's columns that its accessors want in every table, whether they are measured or not.
_PYFEAT_ALWAYS: Final = (*("FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight", "FaceScore"), "X", "Y", "Z")
#: Action units that OpenFace has, too.
OPENFACE_UNITS: Final = tuple(
    f"AU{number:02d}" for number in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 28)
)
#: Layers and units of Whisper's encoders.
_WHISPER: Final = ((4, 384), (6, 512), (12, 768), (24, 1024), (32, 1280))
#: An action unit counts as present from here on.
PRESENT: Final = 0.5
#: Excel takes no longer text in a cell.
_LONGEST_CELL: Final = 32_767
#: Excel files tell when they were made; ours tell the same each time.
_NO_DATE: Final = datetime(2000, 1, 1)


def utterance_rows(recording: Recording) -> list[dict[str, Any]]:
    """The utterances as flat rows, with their number and the recording."""
    rows = map(row_of, recording.result.utterances)
    return [{"media": recording.media, "utterance": index, **flat_row(row)} for index, row in enumerate(rows)]


def write_utterances(recording: Recording, path: Path) -> None:
    """Parquet: a row per utterance."""
    rows = utterance_rows(recording)
    names = list(dict.fromkeys(name for row in rows for name in row)) or ["media", "utterance"]
    schema = pa.schema([(name, _kind(name)) for name in names])
    pq.write_table(pa.Table.from_pylist(rows, schema).replace_schema_metadata(_about(recording)), path)


def _kind(name: str) -> pa.DataType:
    if name.startswith("absent_") or name in _CORRECTED:
        return pa.string()
    return _KINDS.get(name, pa.int32() if name == "utterance" else pa.float64())


def _about(recording: Recording) -> dict[str, str]:
    return {"checkpoint": recording.result.checkpoint, "notice": DISCLAIMER}


def frames(recording: Recording) -> pa.Table:
    """The faces in py-feat's columns where they exist, a row per sampled frame and face.

    Angles are py-feat's, too: radians that grow upwards and towards the subject's right.
    """
    faces = recording.faces
    columns = {**_place(recording, faces), **_pixels(recording, faces), "quality": faces["quality"]}
    v2 = faces["valence"].null_count < faces.num_rows
    sources = pyfeat.SOURCES["v2" if v2 else "v1"]
    for name in (*POSE, *GAZE, *ACTION_UNITS, *EMOTIONS, *AFFECT, *BLENDSHAPES, *MESH_COMPONENTS):
        called, factor = sources.get(name, (name, 1.0))
        columns[called] = _scaled(faces[name], 1 / factor)
    wanted = {*_PYFEAT_ALWAYS, *(sources[name][0] for name in (*EMOTIONS, *POSE)), "person", "media"}
    table = pa.table(columns)
    kept = [name for name in table.column_names if name in wanted or not _is_empty(table[name])]
    return table.select(kept)


def _place(recording: Recording, faces: pa.Table) -> dict[str, Any]:
    """Which recording, frame and person each row is of."""
    seconds, rate = faces["time"].to_numpy(), recording.result.info.get("frame_rate")
    names = recording.name_of_track()
    return {
        "input": pa.array([recording.media] * faces.num_rows, pa.string()),
        "frame": pa.array(np.round(seconds * rate).astype(np.int64)) if rate else pa.nulls(faces.num_rows, pa.int64()),
        "timestamp": faces["time"],
        "track": faces["track"],
        "person": pa.array([names.get(track) for track in faces["track"].to_pylist()], pa.string()),
    }


def _pixels(recording: Recording, faces: pa.Table) -> dict[str, Any]:
    """The boxes in pixels, null where the size of the picture is not known; what else py-feat tells there is null."""
    columns = dict.fromkeys(_PYFEAT_ALWAYS, pa.nulls(faces.num_rows, pa.float32()))
    info = recording.result.info
    for axis, side, length in (("x", "Width", info.get("width")), ("y", "Height", info.get("height"))):
        if length:
            low, high = faces[f"{axis}0"].to_numpy(), faces[f"{axis}1"].to_numpy()
            columns[f"FaceRect{axis.upper()}"] = pa.array(low * np.float32(length))
            columns[f"FaceRect{side}"] = pa.array((high - low) * np.float32(length))
    return columns


def _scaled(column: pa.ChunkedArray, factor: float) -> pa.ChunkedArray:
    if factor == 1:
        return column
    import pyarrow.compute as pc

    return pc.multiply(column, pa.scalar(factor, pa.float32()))


def _is_empty(column: pa.ChunkedArray) -> bool:
    return bool(column.null_count == len(column))


def write_frames_parquet(recording: Recording, path: Path) -> None:
    """Parquet: a row per sampled frame and face."""
    table = frames(recording).replace_schema_metadata(_about(recording))
    pq.write_table(table, path, compression="zstd", use_dictionary=["input", "person"])


def write_frames_csv(recording: Recording, path: Path) -> None:
    """CSV: a row per sampled frame and face, for py-feat's `read_feat` and everything that reads tables."""
    pyarrow.csv.write_csv(frames(recording), path)


def write_openface(recording: Recording, path: Path) -> None:
    """CSV: a row per sampled frame and face in OpenFace's columns, for what was written for its output.

    What emopipe does not measure has no column: landmarks, places in millimetres, action units as intensities 0..5.
    """
    faces = recording.faces
    place = _place(recording, faces)
    columns = {
        "frame": place["frame"],
        "face_id": faces["track"],
        "timestamp": faces["time"],
        "confidence": faces["quality"],
        "success": pa.array(np.ones(faces.num_rows, np.int8)),
    }
    for name, (source, sign) in _OPENFACE_ANGLES.items():
        columns[name] = _scaled(faces[source], sign * np.pi / 180)
    for name in OPENFACE_UNITS:
        columns[f"{name}_c"] = _present(faces[name])
    table = pa.table(columns)
    pyarrow.csv.write_csv(table.select([name for name in columns if not _is_empty(table[name])]), path)


#: OpenFace's angle -> ours and the sign between them: OpenFace turns a face that looks along -z, with y downwards.
_OPENFACE_ANGLES: Final = {
    "gaze_angle_x": ("gaze_yaw", 1),
    "gaze_angle_y": ("gaze_pitch", 1),
    "pose_Rx": ("pitch", 1),
    "pose_Ry": ("yaw", -1),
    "pose_Rz": ("roll", -1),
}


def _present(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow.compute as pc

    return pc.cast(pc.greater_equal(column, pa.scalar(PRESENT, pa.float32())), pa.int8())


def write_voice(recording: Recording, path: Path) -> None:
    """Parquet: a row per window of each utterance's voice."""
    places, sequences = zip(*recording.voice(), strict=True)
    numbers = np.repeat(np.array(places, np.int32), [len(sequence.start) for sequence in sequences])
    speakers = [utterance.speaker for utterance in recording.result.utterances]
    columns = {
        "media": pa.array([recording.media] * len(numbers), pa.string()),
        "utterance": pa.array(numbers),
        "person": pa.array([speakers[number] for number in numbers], pa.string()),
        "start": pa.array(np.concatenate([sequence.start for sequence in sequences]), pa.float64()),
        "end": pa.array(np.concatenate([sequence.end for sequence in sequences]), pa.float64()),
    }
    features = np.concatenate([sequence.features for sequence in sequences]).T
    names = voice_names(len(features), recording.facts("voice"))
    columns |= {name: pa.array(np.ascontiguousarray(values)) for name, values in zip(names, features, strict=True)}
    table = pa.table(columns).replace_schema_metadata(_about(recording))
    pq.write_table(table, path, compression="zstd", use_dictionary=["media", "person"])


def voice_names(width: int, facts: Mapping[str, Any]) -> list[str]:
    """Names of the voice features, as checkpoints have them; those of other packages' backends by number.

    Args:
        width: how many there are.
        facts: what decided the result; see :meth:`Recording.facts`.
    """
    settings = facts.get("parameters", {})
    if settings.get("voice.backend") == BACKEND.name:
        for layers, units in _WHISPER:
            names = column_names(layers, units, speakers=bool(settings.get("voice.speaker_encoder")))
            if len(names) == width:
                return names
    return [f"voice_{index:04d}" for index in range(width)]


def write_jsonl(recording: Recording, path: Path) -> None:
    """JSON lines: an utterance each, as in the recording's JSON, with its recording and number."""
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        for index, utterance in enumerate(recording.result.utterances):
            row = {"media": recording.media, "utterance": index, **row_of(utterance)}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_xlsx(recording: Recording, path: Path) -> None:
    """Excel: sheets of utterances, people and turns, and what the recording is. No cell is a formula or a link."""
    import xlsxwriter

    result = recording.result
    turns = [{**asdict(turn), "name": recording.name_of(turn.person)} for turn in result.turns]
    people = [{**asdict(person), "tracks": ", ".join(map(str, person.tracks))} for person in result.people]
    about = {
        "media": recording.media,
        "state": result.state,
        "reasons": "; ".join(map(str, result.reasons)),
        "duration": result.duration,
        "language": result.info.get("language"),
        "checkpoint": result.checkpoint,
        "notice": DISCLAIMER,
    }
    with xlsxwriter.Workbook(str(path), {"in_memory": True}) as book:
        book.set_properties({"created": _NO_DATE})
        bold = book.add_format({"bold": True})
        _sheet(book.add_worksheet("utterances"), utterance_rows(recording), bold)
        _sheet(book.add_worksheet("people"), people, bold)
        _sheet(book.add_worksheet("turns"), turns, bold)
        _sheet(book.add_worksheet("about"), [{"what": name, "value": value} for name, value in about.items()], bold)


def _sheet(sheet: Any, rows: Sequence[Mapping[str, Any]], bold: Any) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    for column, name in enumerate(names):
        sheet.write_string(0, column, name, bold)
        for line, row in enumerate(rows, start=1):
            _cell(sheet, line, column, row.get(name))
    if names:
        sheet.freeze_panes(1, 0)
        sheet.autofilter(0, 0, len(rows), len(names) - 1)


def _cell(sheet: Any, line: int, column: int, value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool):
        sheet.write_boolean(line, column, value)
    elif isinstance(value, int | float):
        sheet.write_number(line, column, value)
    else:
        text = str(value).encode("utf-8", "backslashreplace").decode()
        sheet.write_string(line, column, text[:_LONGEST_CELL])
