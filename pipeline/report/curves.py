"""Curves of a recording for its page: action units, mouth motion, pitch, loudness and waveform, from the store."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from emopipe.extractors.face.table import ACTION_UNITS, AFFECT
from emopipe.pipeline.records import Absent
from emopipe.pipeline.stages.waveform import PEAK_RATE
from emopipe.pipeline.store.store import Store

#: A curve has at most so many points, however long the recording is.
MOST_POINTS: Final = 2000
#: Points lie at least so far apart, in seconds.
FINEST: Final = 0.1
#: Code of a point without a value; values are coded 0..254.
MISSING: Final = 255
UNIT_NAMES: Final = {
    "AU01": "inner brow raiser",
    "AU02": "outer brow raiser",
    "AU04": "brow lowerer",
    "AU05": "upper lid raiser",
    "AU06": "cheek raiser",
    "AU07": "lid tightener",
    "AU09": "nose wrinkler",
    "AU10": "upper lip raiser",
    "AU11": "nasolabial deepener",
    "AU12": "lip corner puller",
    "AU14": "dimpler",
    "AU15": "lip corner depressor",
    "AU17": "chin raiser",
    "AU20": "lip stretcher",
    "AU23": "lip tightener",
    "AU24": "lip pressor",
    "AU25": "lips part",
    "AU26": "jaw drop",
    "AU28": "lip suck",
    "AU43": "eyes closed",
}
#: What is shown until somebody chooses.
SHOWN: Final = ("AU04", "AU12", "mouth", "pitch", "waveform")
#: A waveform has at most so many points, which is two hours of all that is measured.
MOST_PEAKS: Final = 2 * 3600 * PEAK_RATE


def curves(facts: Mapping[str, Any], store: Store) -> list[dict[str, Any]]:
    """The curves of a recording: those of its faces, a curve per person, of its voices, and of its sound.

    Args:
        facts: the recording's document.
        store: holds what was measured; what it lacks has no curve.
    """
    keys, duration = facts.get("keys", {}), _duration(facts)
    if not duration:
        return []
    face = store.get(keys["face"]) if "face" in keys else None
    table = (face or {}).get("face_table")
    found = list(_face_curves(table, facts["people"], duration)) if isinstance(table, pa.Table) else []
    found += _voice_curves(keys.get("voice"), store, duration)
    return found + list(_waveform(keys.get("waveform"), store))


def _duration(facts: Mapping[str, Any]) -> float:
    ends = [row["end"] for row in facts["utterances"]]
    return float(facts["duration"] or max(ends, default=0.0))


def _face_curves(table: pa.Table, people: Sequence[Mapping[str, Any]], duration: float) -> Iterator[dict[str, Any]]:
    from emopipe.extractors.face.mouth import movement

    if not table.num_rows:
        return
    times, tracks = table["time"].to_numpy(), table["track"].to_numpy()
    columns = {name: _column(table, name) for name in (*ACTION_UNITS, *AFFECT)}
    columns["mouth"] = np.exp(movement(table))
    faces = _faces(people, tracks)
    for name, values in columns.items():
        for person, own in faces.items():
            rows = np.isin(tracks, own)
            points = sampled(times[rows], values[rows], duration)
            if not np.isnan(points).all():
                yield _curve(name, person, points, duration)


def _column(table: pa.Table, name: str) -> np.ndarray:
    return np.asarray(table[name].to_numpy(zero_copy_only=False), np.float64)


def _faces(people: Sequence[Mapping[str, Any]], tracks: np.ndarray) -> dict[str, Sequence[int]]:
    """Whose tracks are whose; where nobody's are known, the face that is seen longest."""
    faces = {person["name"]: person["tracks"] for person in people if person["tracks"]}
    return faces or {"": [int(np.bincount(tracks - tracks.min()).argmax() + tracks.min())]}


def _voice_curves(key: str | None, store: Store, duration: float) -> Iterator[dict[str, Any]]:
    from emopipe.extractors.voice.acoustic import COLUMNS
    from emopipe.extractors.voice.features import BACKEND

    measured = store.get(key) if key is not None else None
    if key is None or measured is None or store.facts(key).get("parameters", {}).get("voice.backend") != BACKEND.name:
        return
    wanted = [COLUMNS.index(name) for name in ("pitch", "level", "voiced")]
    steps = [one for one in measured["voice"] if not isinstance(one, Absent)]
    if not steps:
        return
    times = np.concatenate([(one.start + one.end) / 2 for one in steps])
    pitch, level, voiced = np.concatenate([one.features[:, wanted] for one in steps]).astype(np.float64).T
    hertz = np.where(voiced > 0, 65 * 2 ** (pitch / 12), np.nan)
    reach = max(float((one.end - one.start).max()) for one in steps)
    for name, values in (("pitch", hertz), ("level", 10 ** (np.minimum(level, 6) / 20))):
        points = sampled(times, values, duration, reach)
        if not np.isnan(points).all():
            yield _curve(name, "", points, duration)


def _waveform(key: str | None, store: Store) -> Iterator[dict[str, Any]]:
    measured = store.get(key) if key is not None else None
    if measured is None or not measured["waveform"].num_rows:
        return
    peaks = measured["waveform"]["peak"].to_numpy()
    together = -(-len(peaks) // MOST_PEAKS)
    peaks = np.pad(peaks, (0, -len(peaks) % together)).reshape(-1, together).max(axis=1)
    yield _curve("waveform", "", peaks, len(peaks) * together / PEAK_RATE)


def sampled(times: np.ndarray, values: np.ndarray, duration: float, reach: float = 0.0) -> np.ndarray:
    """Means in equal steps over the recording, NaN where nothing is known.

    Args:
        times: seconds (n,), in any order.
        values: (n,), NaN where unknown.
        duration: of the recording, in seconds.
        reach: a value holds for so many seconds around its time; 0: for the usual distance of two.
    """
    count = int(np.clip(np.ceil(duration / FINEST), 1, MOST_POINTS))
    reach, usable = reach or _distance(np.unique(times)), np.isfinite(values)
    order = np.argsort(times[usable], kind="stable")
    times, values = times[usable][order], values[usable][order]
    if not len(times):
        return np.full(count, np.nan)
    step = duration / count
    places = np.clip((times / step).astype(int), 0, count - 1)
    numbers = np.bincount(places, minlength=count)
    points = np.divide(np.bincount(places, values, count), numbers, out=np.full(count, np.nan), where=numbers > 0)
    return _held(points, times, values, (np.arange(count) + 0.5) * step, reach)


def _distance(times: np.ndarray) -> float:
    return float(np.median(np.diff(times))) if len(times) > 1 else 1.0


def _held(points: np.ndarray, times: np.ndarray, values: np.ndarray, middles: np.ndarray, reach: float) -> np.ndarray:
    """The points, each that has no value of its own with the nearest one within reach."""
    after = np.searchsorted(times, middles).clip(0, len(times) - 1)
    before = (after - 1).clip(0)
    nearest = np.where(np.abs(times[before] - middles) <= np.abs(times[after] - middles), before, after)
    near = np.abs(times[nearest] - middles) <= reach * 0.75
    return np.where(np.isnan(points) & near, values[nearest], points)


def _curve(name: str, person: str, points: np.ndarray, duration: float) -> dict[str, Any]:
    low, high = _range(name, points)
    return {
        "name": name,
        "title": _TITLES.get(name) or f"{name} {UNIT_NAMES[name]}",
        "person": person,
        "low": round(low, 3),
        "high": round(high, 3),
        "step": duration / len(points),
        "shown": name in SHOWN,
        "points": coded(points, low, high),
    }


_TITLES: Final = {
    "valence": "Valence of the face",
    "arousal": "Arousal of the face",
    "mouth": "Mouth motion",
    "pitch": "Pitch (Hz)",
    "level": "Loudness of speech",
    "waveform": "Waveform",
}


def _range(name: str, points: np.ndarray) -> tuple[float, float]:
    if name in AFFECT:
        return -1.0, 1.0
    if name in ACTION_UNITS:
        return 0.0, 1.0
    high = float(np.nanpercentile(points, 99))
    low = float(np.nanpercentile(points, 1)) if name == "pitch" else 0.0
    return low, max(high, low + 1e-3)


def coded(points: np.ndarray, low: float, high: float) -> str:
    """Points as base64 of a byte each: 0..254 from low to high, :data:`MISSING` where there is no value."""
    scaled = np.clip((points - low) / (high - low), 0, 1) * (MISSING - 1)
    codes = np.where(np.isnan(points), MISSING, np.rint(scaled)).astype(np.uint8)
    return base64.b64encode(codes.tobytes()).decode("ascii")
