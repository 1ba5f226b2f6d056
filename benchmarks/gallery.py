"""Whose face a lone speaker is given in a video call: own, another's or none, on generated galleries.

    python benchmarks/gallery.py --data DATA --work WORK [--tune] [--only TEXT] [--tiles 9] [--seeds 2] [--json FILE]

One tile shows somebody who really talks (DATA/clips and three speakers of DATA/javased.zip, said again and again with
pauses between), one somebody who listens and whose face moves, also real; all others show photographs
(DATA/faces350.zip) that sway, turn and zoom a little; noise is laid over everything. Kinds of gallery:

- plain: everybody stays where they are;
- cut: the gallery changes with the speaker alone, large, and with the gallery without the speaker, who goes on talking;
- joins: six tiles become nine, in other places, and later eight, in others again.

--tune makes others, of other people: other speakers of DATA/javased.zip, photographs from the other end of the archive,
nobody else who moves. Thresholds were chosen on those, never on the ones that are reported. Clips are made once, in
WORK, and what was computed of them is kept there.

Printed for each gallery and kind: the share of the time in which somebody speaks and is in view that has the speaker's
own face; the share of all speech that has another's face.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.signal import resample_poly

from emopipe.pipeline.backends.loading import Backends
from emopipe.pipeline.config import ExtractionConfig
from emopipe.pipeline.execution.engine import Here
from emopipe.pipeline.execution.jobs import extraction_job
from emopipe.pipeline.execution.plan import Task, contents, results
from emopipe.pipeline.media.decoding import Media
from emopipe.pipeline.records import Absent, Extraction, Source
from emopipe.pipeline.store.store import Store

sys.path.insert(0, str(Path(__file__).parent.parent / "samples" / "make"))
from synthetic import write_video

SIZE, FPS, SECONDS, RATE = (1280, 720), 10, 24.0, 24_000
LEAD, PAUSE = 1.0, 1.5
#: Height of a photograph in heights of its tile.
PHOTOGRAPH = 0.8
#: Sum of two sines per motion: shares of the tile, shares of the size, degrees.
SWAY, ZOOM, TURN, NOISE = 0.02, 0.02, 2.0, 2.0
TARGETS = "targets at 9 tiles: own >= 80 %, another's <= 2 %"
#: Clips of people who speak; the other clips of DATA/clips have no speech, and show the listeners.
TALKERS = ("ravdess_01_neutral", "mead_W036_happiness", "mead_M030_anger")
LISTENERS = ("self_happiness", "self_sadness")
#: Speakers of javased.zip whose clips are reported; those of the others are for tuning.
REPORTED = ("javased_02", "javased_05")
KINDS = (("plain", 9), ("plain", 4), ("plain", 16), ("cut", 9), ("joins", 9))


@dataclass(frozen=True)
class Plan:
    """A gallery to be made."""

    kind: str
    tiles: int
    talker: str
    seed: int

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"{self.kind}_{self.tiles:02d}_{self.talker}_{self.seed}"


@dataclass(frozen=True)
class Scene:
    """From `start` on, these people are in the tiles, in this order; 0 is who talks."""

    start: float
    people: tuple[int, ...]


@dataclass(frozen=True)
class Truth:
    """What is known of a generated gallery: who is where when, and when somebody speaks, in seconds."""

    scenes: list[Scene]
    speech: list[tuple[float, float]]

    def scene(self, time: float) -> Scene:
        """What is shown at a time."""
        return next(scene for scene in reversed(self.scenes) if scene.start <= time + 1e-6)


def plans(tune: bool, data: Path, tiles: int, seeds: int) -> list[Plan]:
    """All galleries."""
    with (data / "javased.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["file"].endswith("-01.mp4")]
    clips = sorted(row["file"] for row in rows if (row["speaker"] in REPORTED) != tune)
    chance = np.random.default_rng(5)
    talkers = (
        sorted(chance.choice(clips, 8, replace=False).tolist())
        if tune
        else [*TALKERS, *chance.choice(clips, 3, replace=False)]
    )
    kinds = [(kind, count) for kind, count in KINDS if tiles in (0, count)]
    return [
        Plan(kind, count, Path(one).stem, seed) for seed in range(seeds) for kind, count in kinds for one in talkers
    ]


class Material:
    """Talking clips and photographs of the data folder."""

    def __init__(self, folder: Path, work: Path, backends: Backends, tune: bool) -> None:
        self._folder, self._work, self._backends, self.tune = folder, work, backends, tune

    def talk(self, name: str) -> tuple[list[np.ndarray], np.ndarray]:
        """Frames at FPS and sound at RATE of a clip."""
        with Media(self._clip(name)) as media:
            frames = [frame.rgb for frame in media.frames(FPS)]
            loud = np.asarray(media.audio, np.float32)
        loud = 0.5 * loud / max(1e-6, float(np.abs(loud).max()))
        seconds = min(len(frames) / FPS, len(loud) / 16_000)
        track = np.asarray(resample_poly(loud, 3, 2), np.float32)[: int(seconds * RATE)]
        return frames[: round(seconds * FPS)], track

    def listen(self, name: str) -> list[np.ndarray]:
        """Frames at FPS of a clip, forwards and backwards."""
        with Media(self._clip(name)) as media:
            frames = [frame.rgb for frame in media.frames(FPS)]
        return [*frames, *frames[-2:0:-1]]

    def _clip(self, name: str) -> Path:
        clip = self._folder / "clips" / f"{name}.mp4"
        if clip.exists():
            return clip
        taken = self._work / f"{name}.mp4"
        with zipfile.ZipFile(self._folder / "javased.zip") as archive:
            inside = next(one for one in archive.namelist() if Path(one).name == taken.name)
            taken.write_bytes(archive.read(inside))
        return taken

    def speech(self, sound: np.ndarray) -> list[tuple[float, float]]:
        """When somebody speaks in a sound at RATE."""
        return self._backends.vad.segments(np.asarray(resample_poly(sound, 2, 3), np.float32))

    @cached_property
    def photographs(self) -> list[np.ndarray]:
        """Pictures of one frontal face each, in a random order."""
        found: list[np.ndarray] = []
        with zipfile.ZipFile(self._folder / "faces350.zip") as archive:
            names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
            np.random.default_rng(11).shuffle(names)
            for name in reversed(names) if self.tune else names:
                rgb = cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1].copy()
                rows = self._backends.face.still(rgb).to_pylist()
                if len(rows) == 1 and abs(rows[0]["yaw"]) < 30:
                    found.append(rgb)
                if len(found) == 60:
                    break
        return found


def scenes_of(plan: Plan, chance: np.random.Generator) -> list[Scene]:
    """Who is in which tile when."""
    everybody = list(range(plan.tiles))

    def shuffled(people: Sequence[int]) -> tuple[int, ...]:
        return tuple(int(one) for one in chance.permutation(list(people)))

    if plan.kind == "joins":
        return [Scene(0, shuffled(everybody[:6])), Scene(9, shuffled(everybody)), Scene(17, shuffled(everybody[:8]))]
    gallery = shuffled(everybody)
    if plan.kind == "plain":
        return [Scene(0, gallery)]
    without = tuple(one for one in gallery if one != 0)
    starts = [(0, gallery), (7, (0,)), (11, without), (16, gallery), (20, (0,))]
    return [Scene(start, people) for start, people in starts]


def made(plan: Plan, work: Path, material: Material) -> tuple[Path, Truth]:
    """The clip and its truth, from WORK or new."""
    clip, notes = work / f"{plan.name}.mp4", work / f"{plan.name}.json"
    if not notes.exists():
        chance = np.random.default_rng([plan.seed, plan.tiles, sum(map(ord, plan.kind + plan.talker))])
        frames, sound = material.talk(plan.talker)
        places = chance.permutation(len(material.photographs))[: plan.tiles - 1]
        people = [Tile(frames, 0), *(Tile([material.photographs[i]], int(i) + 1) for i in places)]
        if not material.tune:
            people[1] = Tile(material.listen(LISTENERS[plan.seed % len(LISTENERS)]), 1)
        scenes, (track, order) = scenes_of(plan, chance), timeline(len(frames), sound)
        write_video(clip, pictures(people, scenes, order, chance), FPS, track, crf=26)
        truth = Truth(scenes, material.speech(track))
        notes.write_text(json.dumps(asdict(truth)), "utf-8")
    told = json.loads(notes.read_text("utf-8"))
    scenes = [Scene(one["start"], tuple(one["people"])) for one in told["scenes"]]
    return clip, Truth(scenes, [(start, end) for start, end in told["speech"]])


def timeline(frames: int, sound: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """The sound of the gallery, and which frame of the talker's is shown at each time."""
    track, order = np.zeros(int(SECONDS * RATE), np.float32), np.zeros(int(SECONDS * FPS), int)
    start = LEAD
    while start + frames / FPS <= SECONDS:
        first = round(start * FPS)
        order[first : first + frames] = np.arange(frames)
        order[first + frames :] = frames - 1
        at = round(first / FPS * RATE)
        track[at : at + len(sound)] = sound[: len(track) - at]
        start += frames / FPS + PAUSE
    noise = np.random.default_rng(0).normal(0, 1e-3, len(track)).astype(np.float32)
    return track + noise, order.tolist()


class Tile:
    """Somebody in a gallery: the frames of a clip, or one picture that sways."""

    def __init__(self, frames: Sequence[np.ndarray], seed: int) -> None:
        self._frames = frames
        chance = np.random.default_rng(seed)
        self._periods, self._phases = chance.uniform(1.5, 6, (4, 2)), chance.uniform(0, 2 * np.pi, (4, 2))

    def draw(self, index: int, time: float, width: int, height: int) -> np.ndarray:
        """The tile at a time: the middle of a clip fills it; a photograph has the colours of its edges around it."""
        rgb = self._frames[index % len(self._frames)]
        filled = max(width / rgb.shape[1], height / rgb.shape[0])
        scale = filled if len(self._frames) > 1 else PHOTOGRAPH * height / rgb.shape[0]
        across, down, zoom, turn = np.sin(2 * np.pi * time / self._periods + self._phases).mean(1)
        matrix = cv2.getRotationMatrix2D((rgb.shape[1] / 2, rgb.shape[0] / 2), TURN * turn, scale * (1 + ZOOM * zoom))
        matrix[:, 2] += [width / 2 - rgb.shape[1] / 2, height / 2 - rgb.shape[0] / 2]
        matrix[:, 2] += [SWAY * across * height, SWAY * down * height]
        return cv2.warpAffine(rgb, matrix, (width, height), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)


def grid(tiles: int) -> tuple[int, int]:
    """Columns and rows of a gallery."""
    columns = int(np.ceil(np.sqrt(tiles)))
    return columns, int(np.ceil(tiles / columns))


def pictures(
    people: Sequence[Tile], scenes: Sequence[Scene], order: Sequence[int], chance: np.random.Generator
) -> Iterator[np.ndarray]:
    """The frames of a gallery."""
    truth = Truth(list(scenes), [])
    for number, index in enumerate(order):
        shown = truth.scene(number / FPS).people
        columns, rows = grid(len(shown))
        width, height = SIZE[0] // columns, SIZE[1] // rows
        canvas = np.full((SIZE[1], SIZE[0], 3), 24, np.uint8)
        for place, person in enumerate(shown):
            left, top = place % columns * width, place // columns * height
            tile = people[person].draw(index if person == 0 else number, number / FPS, width - 4, height - 4)
            canvas[top + 2 : top + height - 2, left + 2 : left + width - 2] = tile
        noise = chance.normal(0, NOISE, (SIZE[1] // 2, SIZE[0] // 2)).astype(np.float32)
        noise = cv2.resize(noise, SIZE, interpolation=cv2.INTER_NEAREST)[:, :, None]
        yield np.clip(canvas + noise, 0, 255).astype(np.uint8)


def person_at(row: dict[str, float], scene: Scene) -> int | None:
    """Who is in the tile in which a face is."""
    columns, rows = grid(len(scene.people))
    place = int((row["y0"] + row["y1"]) / 2 * rows) * columns + int((row["x0"] + row["x1"]) / 2 * columns)
    return scene.people[place] if 0 <= place < len(scene.people) else None


def score(extraction: Extraction, table: Any, truth: Truth) -> dict[str, float]:
    """Sampled frames with speech: how many, with the talker in view, with the own face, with another's."""
    people = {person.number: person for person in extraction.people}
    names = {person.name: person.number for person in extraction.people}
    rows = table.select(["time", "track", "x0", "x1", "y0", "y1"]).to_pylist()
    by_time: dict[float, list[dict[str, float]]] = {}
    for row in rows:
        by_time.setdefault(row["time"], []).append(row)
    counts = dict.fromkeys(("speech", "in view", "own", "other", "seen"), 0.0)
    for time in np.arange(0, extraction.duration, 0.2):
        if not any(start <= time <= end for start, end in truth.speech):
            continue
        near = min(by_time, key=lambda one: abs(one - time), default=-1.0)
        found = by_time.get(near, []) if abs(near - time) < 0.15 else []
        scene = truth.scene(time)
        utterance = next((one for one in extraction.utterances if one.start <= time <= one.end), None)
        own: tuple[int, ...] = ()
        if utterance is not None and "face" not in utterance.absent and utterance.speaker in names:
            own = people[names[utterance.speaker]].tracks
        who = {person_at(row, scene) for row in found if row["track"] in own}
        counts["speech"] += 1
        counts["in view"] += 0 in scene.people
        counts["own"] += who == {0}
        counts["other"] += bool(who - {0})
        counts["seen"] += any(person_at(row, scene) == 0 for row in found)
    return counts


def measure(clip: Path, truth: Truth, engine: Here, store: Store) -> dict[str, float]:
    """One gallery through the pipeline, and whose face its speaker was given."""
    source = Source(clip.stem, media=clip)
    job = extraction_job(ExtractionConfig(), store, modalities=("voice", "face"), device="cpu")
    ((_, outcome),) = engine.run(job, [Task(source)])
    stored = store.get(results(source, contents(source, store), job)["face"].key)
    if outcome.extraction is None or stored is None or isinstance(stored["face_table"], Absent):
        raise SystemExit(f"{clip}: {outcome.error}")
    table = stored["face_table"]
    return {
        **score(outcome.extraction, table, truth),
        "people": len(outcome.extraction.people),
        "tracks": len(set(table["track"].to_pylist())),
    }


def told(name: str, rows: Sequence[dict[str, float]]) -> str:
    """A line about some galleries: shares of the time, mean and standard deviation over galleries."""
    own = np.array([100 * row["own"] / max(1, row["in view"]) for row in rows])
    other = np.array([100 * row["other"] / max(1, row["speech"]) for row in rows])
    seen = np.array([100 * row["seen"] / max(1, row["in view"]) for row in rows])
    spread = f" +- {own.std():.1f}" if len(rows) > 1 else ""
    more = f" +- {other.std():.1f}" if len(rows) > 1 else ""
    return (
        f"{name}: own {own.mean():.1f}{spread} %, another's {other.mean():.1f}{more} %, speaker found in "
        f"{seen.mean():.1f} % of frames, people {'/'.join(str(int(row['people'])) for row in rows)}, "
        f"tracks {'/'.join(str(int(row['tracks'])) for row in rows)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tune", action="store_true", help="the galleries for tuning instead of the reported ones")
    parser.add_argument("--tiles", type=int, default=0, help="galleries of so many tiles; 0: all")
    parser.add_argument("--seeds", type=int, default=2, help="so many galleries of each kind and speaker")
    parser.add_argument("--only", default="", help="galleries whose name holds this")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    by_kind: dict[str, list[dict[str, float]]] = {}
    with (
        Backends(ExtractionConfig(), device="cpu") as backends,
        Store(arguments.work / "store") as store,
        closing(Here(debug=True)) as engine,
    ):
        material = Material(arguments.data, arguments.work, backends, arguments.tune)
        for plan in plans(arguments.tune, arguments.data, arguments.tiles, arguments.seeds):
            if arguments.only in plan.name:
                row = measure(*made(plan, arguments.work, material), engine, store)
                by_kind.setdefault(f"{plan.kind} {plan.tiles}", []).append(row)
                print(told(plan.name, [row]), flush=True)
    for kind, rows in by_kind.items():
        print(told(f"{kind}, all {len(rows)}", rows))
    print(TARGETS)


if __name__ == "__main__":
    main()
