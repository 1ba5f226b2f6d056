"""Who speaks, whose face it is, and who interviews whom, on generated interviews of two people with known turns.

    python benchmarks/people.py --data DATA --work WORK [--tune] [--people 2] [--diarizer ge2e] [--only TEXT]

Voices: actors of RAVDESS and guests of Urdu talk shows (DATA/ravdess_speech.zip, DATA/urdu.zip), and one synthetic
voice in two pitches that asks and answers (`pip install 'emopipe[samples]'`). Faces: photographs (DATA/faces350.zip)
whose mouths open with the voice. Each interview is filmed in one of three ways: both side by side; whoever speaks,
with shots of the listener; the interviewee alone. The interviewer speaks neutrally, the interviewee in any emotion in
half of the turns; one handover in eight overlaps. Words are recognised where there are questions among them. Clips are
made once, in WORK, and what was computed of them is kept there.

--people tells how many speak, as the option of `emopipe run` does; else that is estimated. --tune makes others, of
other voices and faces: settings were chosen on those and on earlier draws (DRAW), never on the ones that are reported.

The diarization error rate is that of `diarization_error.py`, as a share of the speech of all speakers (overlapped
speech counts for each), without 0.25 s on both sides of every boundary, under the best matching of names. The pipeline
gives every moment one speaker, so overlapped speech is missed once.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import zipfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from diarization_error import STEP, described, error_rate, masks
from scipy.signal import resample_poly

from emopipe.pipeline.backends.loading import Backends
from emopipe.pipeline.config import ExtractionConfig, PeopleConfig
from emopipe.pipeline.execution.engine import Here
from emopipe.pipeline.execution.jobs import extraction_job
from emopipe.pipeline.execution.plan import Task, contents, results
from emopipe.pipeline.records import Extraction, Source
from emopipe.pipeline.store.store import Store

sys.path.insert(0, str(Path(__file__).parent.parent / "samples" / "make"))
from conversation import INTERVIEWEE, INTERVIEWER, Part, Said, Shot, spoken_parts, write_conversation
from puppet import Puppet

#: Which interviews are drawn. Those of draws 0 to 2 were looked at while settings were changed.
DRAW = 3
TARGETS = "targets: error rate <= 15 %, roles right in 9 of 10, link right for >= 90 % of speech time"
FPS = 10
LAYOUTS = ("pair", "cuts", "pair", "cuts", "one")
#: Corpus -> speakers whose voices are reported, and those for tuning. All that have enough takes.
ACTED = ([f"ravdess_{actor}" for actor in range(11, 21)], [f"ravdess_{actor:02d}" for actor in range(1, 11)])
GUESTS = (
    ["urdu_SM5", "urdu_SM6", "urdu_SM7", "urdu_SM24", "urdu_SM25", "urdu_SF7"],
    ["urdu_SM1", "urdu_SM2", "urdu_SM4", "urdu_SF1", "urdu_SF6"],
)
PITCHES = ([(0.8, 1.0), (1.0, 0.82), (1.2, 0.95), (0.86, 1.12)], [(0.84, 1.05), (1.0, 0.78), (1.15, 0.9)])
TALK = [
    (
        "What did you do before you came to this town?",
        "I worked on a farm in the hills. We kept sheep and goats, and my brother sold the cheese at the "
        "market every Saturday.",
    ),
    (
        "And how did you find your first job here?",
        "That was pure luck. I met an old friend on the train, and she told me that the bakery was looking "
        "for somebody who gets up early.",
    ),
    (
        "Do you still see your family?",
        "Not as often as I would like. My mother is old now, and the road is closed for most of the winter. "
        "We write letters.",
    ),
    (
        "What was the hardest part of the last year?",
        "In spring my dog died. He had been with me for fourteen years. I came home and the house was so "
        "quiet that I could not stand it.",
    ),
    (
        "How do you feel about it today?",
        "Better. There are days when I forget, and then I see his bowl in the kitchen. But I can laugh about "
        "the things he did.",
    ),
    (
        "Would you tell me about the evening of the storm?",
        "The wind took the roof off the shed. We ran outside in our night clothes and held on to whatever we "
        "could. It was over in ten minutes.",
    ),
    (
        "Were you afraid?",
        "Of course I was! Everybody was. You hear that noise, and you think that the whole hill is coming down.",
    ),
    (
        "What are you looking forward to?",
        "My daughter is getting married in June. She asked me to bake the cake, and I have been trying "
        "recipes for weeks. The neighbours are happy to help me eat them.",
    ),
]


@dataclass(frozen=True)
class Plan:
    """An interview to be made: where the voices come from, who speaks, how it is filmed, its seed."""

    name: str
    kind: str
    voices: tuple[Any, Any]
    layout: Any
    seed: int


@dataclass(frozen=True)
class Truth:
    """What is known of a generated interview."""

    said: list[Said]
    shots: list[Shot]


def plans(tune: bool) -> list[Plan]:
    """Twelve interviews to report, or six to tune on; no two people meet twice."""
    chance, side = np.random.default_rng([DRAW, tune]), int(tune)
    plans: list[Plan] = []
    for kind, count, names in (("acted", 5, ACTED[side]), ("guests", 3, GUESTS[side]), ("synthetic", 4, PITCHES[side])):
        pairs: list[tuple[Any, Any]] = list(names) if kind == "synthetic" else []
        while len(pairs) < count and kind != "synthetic":
            one, other = chance.choice(names, 2, replace=False)
            if {str(one), str(other)} not in [set(pair) for pair in pairs]:
                pairs.append((str(one), str(other)))
        for pair in pairs[: 2 if tune else count]:
            number = len(plans)
            layout = LAYOUTS[number % len(LAYOUTS)]
            plans.append(Plan(f"{number:02d}_{kind}_{layout}", kind, pair, layout, 1000 * (2 * DRAW + side) + number))
    return plans


class Corpora:
    """Voices and faces of the data folder."""

    def __init__(self, folder: Path, backends: Backends, tune: bool) -> None:
        self._folder, self._backends, self._tune = folder, backends, tune

    @cache  # noqa: B019 (lives as long as the program)
    def takes(self, corpus: str) -> dict[str, dict[str, list[np.ndarray]]]:
        """Speaker -> emotion -> sounds at 24 kHz, silent ends cut off."""
        takes: dict[str, dict[str, list[np.ndarray]]] = {}
        with zipfile.ZipFile(self._folder / f"{corpus}.zip") as archive:
            inside = {Path(name).name: name for name in archive.namelist()}
            with (self._folder / f"{corpus}.csv").open(encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    if row["speaker"] in (*ACTED[0], *ACTED[1], *GUESTS[0], *GUESTS[1]):
                        sound = _trimmed(_decoded(archive.read(inside[row["file"]])))
                        takes.setdefault(row["speaker"], {}).setdefault(row["emotion"], []).append(sound)
        return takes

    @cached_property
    def faces(self) -> list[Puppet]:
        """Puppets of frontal faces with closed mouths, in a random order."""
        puppets: list[Puppet] = []
        with zipfile.ZipFile(self._folder / "faces350.zip") as archive:
            names = sorted(name for name in archive.namelist() if name.lower().endswith((".jpg", ".jpeg", ".png")))
            np.random.default_rng(DRAW).shuffle(names)
            for name in reversed(names) if self._tune else names:
                rgb = cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1].copy()
                puppet = self._puppet(rgb)
                if puppet is not None:
                    puppets.append(puppet)
                if len(puppets) == 2 * len(plans(self._tune)):
                    return puppets
        raise SystemExit("faces350.zip has too few faces")

    def _puppet(self, rgb: np.ndarray) -> Puppet | None:
        rows = self._backends.face.still(rgb).to_pylist()
        if len(rows) != 1 or rows[0]["AU25"] > 0.12 or abs(rows[0]["yaw"]) > 15 or abs(rows[0]["pitch"]) > 20:
            return None
        mesh = self._backends.face.meshes(rgb)[0]
        return (
            Puppet(rgb, mesh, side=280, share=0.4)
            if mesh[:, 0].max() <= rgb.shape[1] and mesh[:, 1].max() <= rgb.shape[0]
            else None
        )


def parts_of(plan: Plan, corpora: Corpora, seconds: float = 60.0) -> list[Part]:
    """What is said: takes of a corpus, an emotion to a turn; or questions and answers."""
    chance = np.random.default_rng(plan.seed)
    pauses = lambda: float(-chance.uniform(0.3, 0.9) if chance.random() < 0.125 else chance.uniform(0.15, 0.9))  # noqa: E731
    if plan.kind == "synthetic":
        order = chance.permutation(len(TALK))[:6]
        lines = [(who, TALK[i][who], pauses()) for i in order for who in (INTERVIEWER, INTERVIEWEE)]
        return spoken_parts(lines, plan.voices)
    takes = corpora.takes({"acted": "ravdess_speech", "guests": "urdu"}[plan.kind])
    parts: list[Part] = []
    length, person = 0.0, INTERVIEWER
    while length < seconds:
        target_seconds = chance.uniform(1.5, 5) if person == INTERVIEWER else chance.uniform(4, 16)
        voice_takes = takes[plan.voices[person]]
        calm = "neutral" in voice_takes and (person == INTERVIEWER or chance.random() < 0.5)
        pool = voice_takes["neutral" if calm else str(chance.choice(sorted(voice_takes)))]
        spoken_seconds, pause = 0.0, pauses()
        while spoken_seconds < target_seconds:
            sound = pool[int(chance.integers(len(pool)))]
            parts.append(Part(person, sound, pause))
            spoken_seconds += len(sound) / 24_000
            pause = float(chance.uniform(0.1, 0.45))
        length, person = length + spoken_seconds, 1 - person
    return parts


def _decoded(data: bytes) -> np.ndarray:
    with av.open(io.BytesIO(data)) as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=16_000)
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
    sound = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
    return np.asarray(resample_poly(sound, 3, 2), np.float32)


def _trimmed(sound: np.ndarray) -> np.ndarray:
    level = np.sqrt(np.convolve(sound**2, np.ones(1200) / 1200, "same"))
    loud = np.flatnonzero(level > 0.06 * level.max())
    return sound[max(0, loud[0] - 1200) : loud[-1] + 1200]


def made(plan: Plan, work: Path, corpora: Corpora) -> tuple[Path, Truth]:
    """The clip and its truth, from WORK or new."""
    clip, notes = work / f"{plan.name}_{plan.seed}.mp4", work / f"{plan.name}_{plan.seed}.json"
    if not notes.exists():
        faces = corpora.faces[2 * (plan.seed % 1000) :][:2]
        said, shots = write_conversation(clip, faces, parts_of(plan, corpora), plan.layout, plan.seed, FPS)
        notes.write_text(json.dumps({"said": [asdict(s) for s in said], "shots": [asdict(s) for s in shots]}), "utf-8")
    stored = json.loads(notes.read_text("utf-8"))
    shots = [Shot(one["start"], one["end"], tuple(one["people"])) for one in stored["shots"]]
    return clip, Truth([Said(**one) for one in stored["said"]], shots)


def faces_shown(table: Any, shots: Sequence[Shot]) -> dict[int, int]:
    """Track -> whose face it is, by where it is on the screen most of the time."""
    votes: dict[int, list[int]] = {}
    middles = (table["x0"].to_numpy() + table["x1"].to_numpy()) / 2
    for time, track, middle in zip(table["time"].to_pylist(), table["track"].to_pylist(), middles, strict=True):
        shot = next((one for one in shots if one.end > time), shots[-1])
        votes.setdefault(track, []).append(shot.people[min(int(middle * len(shot.people)), len(shot.people) - 1)])
    return {track: int(np.bincount(people).argmax()) for track, people in votes.items()}


def linked(extraction: Extraction, truth: dict[Any, np.ndarray], owners: dict[int, int], shown: set[int]) -> np.ndarray:
    """Steps in which one person speaks, and of these, steps in which the speaker found has the right face (or none)."""
    people = {person.number: person for person in extraction.people}
    alone = sum(mask.astype(int) for mask in truth.values()) == 1
    right = np.zeros(len(alone), bool)
    for turn in extraction.turns:
        faces = {owners[track] for track in people[turn.person].tracks}
        span = slice(round(turn.start / STEP), round(turn.end / STEP))
        for person, mask in truth.items():
            expected = {person} if person in shown else set()
            right[span] |= mask[span] & (faces == expected)
    in_turn = np.zeros(len(alone), bool)
    for turn in extraction.turns:
        in_turn[round(turn.start / STEP) : round(turn.end / STEP)] = True
    return np.array([(alone & in_turn).sum(), (alone & in_turn & right).sum()])


def measure(
    clip: Path, truth: Truth, engine: Here, store: Store, config: ExtractionConfig, words: bool
) -> dict[str, Any]:
    """One interview through the pipeline, and what it got right."""
    modalities, source = ("text" if words else "voice", "face"), Source(clip.stem, media=clip)
    job = extraction_job(config, store, modalities=modalities, device="cpu")
    ((_, outcome),) = engine.run(job, [Task(source)])
    stored = store.get(results(source, contents(source, store), job)["face"].key)
    if outcome.extraction is None or stored is None:
        raise SystemExit(f"{clip}: {outcome.error}")
    extraction = outcome.extraction
    steps = round(extraction.duration / STEP) + 200
    real = masks(((s.start, s.end, s.person) for s in truth.said), steps)
    seconds, who = error_rate(real, masks(((t.start, t.end, t.person) for t in extraction.turns), steps))
    roles = {person.role: who.get(person.number) for person in extraction.people}
    owners = faces_shown(stored["face_table"], truth.shots)
    shown = {person for shot in truth.shots for person in shot.people}
    link = linked(extraction, real, owners, shown)
    return {
        **seconds,
        "people": len(extraction.people),
        "doubts": sum(reason.code == "people_unsure" for reason in extraction.warnings),
        "roles": roles.get("interviewee") == INTERVIEWEE and roles.get("interviewer") == INTERVIEWER,
        "link_of": STEP * float(link[0]),
        "link_right": STEP * float(link[1]),
        "tracks": len(owners),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tune", action="store_true", help="the interviews for tuning instead of the reported ones")
    parser.add_argument("--people", type=int, default=0, help="how many speak; 0 estimates it")
    parser.add_argument("--diarizer", default=PeopleConfig().diarizer)
    parser.add_argument("--only", default="", help="interviews whose name holds this")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    config = ExtractionConfig(people=PeopleConfig(count=arguments.people, diarizer=arguments.diarizer))
    with (
        Backends(ExtractionConfig(), device="cpu") as backends,
        Store(arguments.work / "store") as store,
        closing(Here(debug=True)) as engine,
    ):
        corpora = Corpora(arguments.data, backends, arguments.tune)
        for plan in [one for one in plans(arguments.tune) if arguments.only in one.name]:
            row = measure(*made(plan, arguments.work, corpora), engine, store, config, words=plan.kind == "synthetic")
            rows.append(row)
            print(told(f"{plan.name} {' and '.join(map(str, plan.voices))}", [row]), flush=True)
    print(told(f"all {len(rows)}", rows))
    print(TARGETS)


def told(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """A line about some interviews."""
    total = {key: sum(row[key] for row in rows) for key in rows[0]}
    return (
        f"{name}: people found {'/'.join(str(row['people']) for row in rows)}, {described(total)}, "
        f"roles right {total['roles']}/{len(rows)}, doubts about the number {total['doubts']}, "
        f"link right {100 * total['link_right'] / max(total['link_of'], 1e-9):.1f} %, "
        f"face tracks {'/'.join(str(row['tracks']) for row in rows)}"
    )


if __name__ == "__main__":
    main()
