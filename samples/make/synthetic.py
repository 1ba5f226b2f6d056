"""A talking face made of freely usable parts, for sample clips, tests and benchmarks.

The picture is the public-domain NASA portrait that scikit-image carries; the voice is hibari-tts (Apache-2.0).
`astronaut_mesh.csv` holds MediaPipe's 468 face-mesh points of that portrait (x, y and depth z in its pixels),
found once with Face Landmarker, so that drawing needs no model. Needs `pip install 'emopipe[samples]'`.

Drawing one frame: a `Pose` says where lips, brows, eyelids and jaw go; a thin-plate spline carries the rest of
the face along; a small 3-D rotation turns the head; triangles between the points lead back to the portrait.
All lengths are pixels of the 512x512 portrait, in which the face is 105 pixels high.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator
from scipy.signal import resample_poly
from scipy.spatial import Delaunay
from skimage.data import astronaut

Floats = NDArray[np.float32]
Image = NDArray[np.uint8]

SAMPLE_RATE = 24_000  # Hz, hibari's own

# MediaPipe face-mesh indices; left and right as seen in the picture.
UPPER_OUTER = [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291]
LOWER_OUTER = [146, 91, 181, 84, 17, 314, 405, 321, 375]
UPPER_INNER = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308]
LOWER_INNER = [95, 88, 178, 87, 14, 317, 402, 318, 324]
LIPS = UPPER_OUTER + LOWER_OUTER + UPPER_INNER + LOWER_INNER
INNER_RING = UPPER_INNER + LOWER_INNER[::-1]
BROWS = [[70, 63, 105, 66, 107, 46, 53, 52, 65, 55], [300, 293, 334, 296, 336, 276, 283, 282, 295, 285]]
UPPER_LIDS = [[246, 161, 160, 159, 158, 157, 173], [466, 388, 387, 386, 385, 384, 398]]
LOWER_LIDS = [[7, 163, 144, 145, 153, 154, 155], [249, 390, 373, 374, 380, 381, 382]]
OVAL = [10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
        152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109]  # fmt: skip
NOSE = [6, 197, 195, 5, 4, 1, 19, 94, 2, 98, 327, 64, 294, 129, 358]
FIXED = [33, 133, 263, 362, *NOSE]  # corners of the eyes, nose
DRIVEN = [*LIPS, *itertools.chain(*BROWS, *UPPER_LIDS, *LOWER_LIDS), *OVAL, *FIXED]

MOUTH_X, MOUTH_Y = 223.2, 146.2  # middle of the portrait's parted lips
HEAD_X, HEAD_Y, HEAD_RX, HEAD_RY = 227.0, 100.0, 76.0, 88.0  # ellipse around face and hair
NECK = np.array([224.0, 175.0, 45.0])  # the head turns about this point
LIP_LINE, CAVITY = np.array([112, 58, 56], np.float32), np.array([52, 20, 22], np.float32)  # RGB
HEAD_BOX = (104, 0, 352, 256)  # left, top, right, bottom of the part that moves


@dataclass(frozen=True)
class Pose:
    """Where the movable parts of the face are. Lengths in portrait pixels, `lids` and `lips_*` as factors."""

    half_width: float  # mouth corner to mouth middle
    lift: float  # corners above the middle of the lip line
    line: float  # lip line below its place in the portrait
    gap: float  # distance between the lips
    lips_upper: float  # thickness relative to the portrait
    lips_lower: float
    brow_inner: float  # up is positive
    brow_outer: float
    brow_knit: float  # inner ends towards the middle
    lids: float  # 1 is as open as in the portrait, 0 is closed
    squint: float  # lower lids up


# The portrait smiles, so happiness is close to it and every other expression has to undo the smile.
EXPRESSIONS = {
    "neutral": Pose(16.5, -0.5, -1.5, 0.0, 1.25, 1.1, 0.0, 0.0, 0.0, 1.1, -0.3),
    "happiness": Pose(21.5, 6.4, 0.0, 5.0, 1.0, 1.0, 0.5, 0.5, 0.0, 0.95, 0.3),
    "sadness": Pose(18.5, -6.5, -2.0, 0.0, 1.1, 1.2, 4.5, -2.0, 1.5, 0.8, 0.0),
    "anger": Pose(16.0, -2.5, -1.0, 0.0, 0.7, 0.8, -6.0, -6.0, 4.0, 0.8, 0.6),
    "surprise": Pose(12.5, -1.0, 0.0, 13.0, 1.2, 1.1, 5.0, 4.5, 0.0, 1.5, -0.5),
}  # fmt: skip


def mix(first: Pose, second: Pose, share: float) -> Pose:
    """The pose `share` (0 to 1) of the way from `first` to `second`."""
    return Pose(*(a + (b - a) * share for a, b in zip(astuple(first), astuple(second), strict=True)))


def smoothstep(x: NDArray[np.floating] | float) -> NDArray[np.floating]:
    """0 below 0, 1 above 1, with level ends between."""
    x = np.clip(x, 0.0, 1.0)
    return np.asarray(x * x * (3 - 2 * x))


@dataclass(frozen=True)
class Turn:
    """Head turn in radians and shift in portrait pixels."""

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    dx: float = 0.0
    dy: float = 0.0

    def apply(self, points: Floats) -> Floats:
        """Move points (n, 3) with the head; returns (n, 2)."""
        (cy, sy), (cp, sp), (cr, sr) = ((np.cos(a), np.sin(a)) for a in (self.yaw, self.pitch, self.roll))
        yaw = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
        pitch = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
        roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        moved = (points - NECK) @ (roll @ pitch @ yaw).T + NECK
        return np.asarray(moved[:, :2] + (self.dx, self.dy), np.float32)


STILL = Turn()


def turn_at(t: float) -> Turn:
    """Slow, never quite repeating head motion at `t` seconds."""
    s = np.sin
    return Turn(
        yaw=0.07 * s(0.9 * t) + 0.04 * s(2.3 * t + 1),
        pitch=0.04 * s(0.7 * t + 2) + 0.025 * s(3.1 * t),
        roll=0.035 * s(0.6 * t + 1) + 0.015 * s(1.7 * t),
        dx=2.0 * s(0.5 * t + 0.5),
        dy=1.2 * s(0.8 * t + 0.3),
    )


def lip_shift(mesh: Floats, pose: Pose) -> Floats:
    """Shift (40, 2) of the points in LIPS: each lip line becomes a parabola between the corners."""
    left, right = mesh[61, :2], mesh[291, :2]
    t = (mesh[LIPS, 0] - left[0]) / (right[0] - left[0]) * 2 - 1  # -1 at the left corner, 1 at the right one
    bow = np.clip(1 - t**2, 0, 1)
    inner_upper, inner_lower = mesh[UPPER_INNER], mesh[[78, *LOWER_INNER, 308]]
    upper_y = np.interp(mesh[LIPS, 0], inner_upper[:, 0], inner_upper[:, 1])
    lower_y = np.interp(mesh[LIPS, 0], inner_lower[:, 0], inner_lower[:, 1])
    is_upper = np.isin(LIPS, UPPER_OUTER + UPPER_INNER)
    beyond = np.where(
        is_upper, (mesh[LIPS, 1] - upper_y) * pose.lips_upper, (mesh[LIPS, 1] - lower_y) * pose.lips_lower
    )
    line = MOUTH_Y + pose.line - pose.lift * (1 - bow)
    opening = np.where(is_upper, -0.4, 0.6) * pose.gap * bow**0.7
    target = np.stack([MOUTH_X + t * pose.half_width, line + opening + beyond], axis=1)
    return np.asarray(target - mesh[LIPS, :2], np.float32)


def brow_shift(mesh: Floats, pose: Pose) -> Floats:
    """Shift (20, 2) of the points in BROWS."""
    shifts = []
    for brow, towards_middle in zip(BROWS, (1, -1), strict=True):
        x = mesh[brow, 0]
        inner = np.abs(x - x[0]) / np.abs(x[4] - x[0])  # 0 at the outer end, 1 at the inner one
        up = pose.brow_outer + (pose.brow_inner - pose.brow_outer) * inner
        shifts.append(np.stack([towards_middle * pose.brow_knit * inner, -up], axis=1))
    return np.concatenate(shifts).astype(np.float32)


def lid_shift(mesh: Floats, pose: Pose) -> Floats:
    """Shift (28, 2) of the points in UPPER_LIDS, then LOWER_LIDS."""
    upper, lower = [], []
    for above, below in zip(UPPER_LIDS, LOWER_LIDS, strict=True):
        height = mesh[below, 1] - mesh[above, 1]
        raised = pose.squint * height / height.max()
        upper.append((1 - pose.lids) * height)
        lower.append(-raised * min(1.0, pose.lids))
    down = np.concatenate(upper + lower)
    return np.stack([np.zeros_like(down), down], axis=1).astype(np.float32)


def jaw_shift(mesh: Floats, pose: Pose) -> Floats:
    """Shift (36, 2) of the points in OVAL: the chin follows the lower lip."""
    below = smoothstep((mesh[OVAL, 1] - 130) / 45)
    drop = 0.9 * (0.6 * pose.gap - 3.0) * below
    return np.stack([np.zeros_like(drop), drop], axis=1).astype(np.float32)


class Face:
    """The portrait as a puppet. `draw` is quick enough for long clips: some 20 ms a frame at 1280x720."""

    def __init__(self, width: int, height: int, scale: float, centre: tuple[float, float] = (227.0, 112.0)) -> None:
        """Frame size in pixels; `scale` frame pixels to a portrait pixel; `centre` of the view in the portrait."""
        self.size, self.scale = (width, height), scale
        self.mesh = np.loadtxt(Path(__file__).with_name("astronaut_mesh.csv"), np.float32, delimiter=",", skiprows=1)
        left, top = centre[0] - width / scale / 2, max(0.0, centre[1] - height / scale / 2)
        self.origin = np.array([left, top], np.float32)
        self.picture = self._view(astronaut())  # type: ignore[no-untyped-call]
        self.teeth_mask = self._teeth_mask()
        self._plant_anchors()
        self._spread = self._spline()

    def _view(self, picture: Image) -> Image:
        """The enlarged view (height, width, 3) of the portrait."""
        affine = np.array([[self.scale, 0, 0], [0, self.scale, 0]], np.float64)
        affine[:, 2] = -self.scale * self.origin + (self.scale - 1) / 2
        view = cv2.warpAffine(picture, affine, self.size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(view, np.uint8)

    def _teeth_mask(self) -> Image:
        """Where the portrait shows teeth (height, width), 0 to 255 with a soft edge."""
        mask = np.zeros(self.picture.shape[:2], np.uint8)
        cv2.fillPoly(mask, [self._to_frame(self.mesh[INNER_RING, :2]).round().astype(np.int32)], 255)
        return np.asarray(cv2.GaussianBlur(mask, (0, 0), 0.5 * self.scale), np.uint8)

    def _plant_anchors(self) -> None:
        """Points around the face that hold hair and background, and the triangles over all points."""
        left, top, right, bottom = HEAD_BOX
        grid = np.stack(np.meshgrid(np.arange(left, right + 1, 15.5), np.arange(top, bottom + 1, 16.0)), -1).reshape(
            -1, 2
        )
        oval = self.mesh[OVAL, :2]
        wider = ((oval - oval.mean(0)) * 1.12 + oval.mean(0)).astype(np.float32)
        outside = [cv2.pointPolygonTest(wider, (float(x), float(y)), False) < 0 for x, y in grid]
        anchors = grid[outside]
        self.points = np.concatenate([self.mesh, np.c_[anchors, np.full(len(anchors), 40.0)]]).astype(np.float32)
        reach = np.hypot((self.points[:, 0] - HEAD_X) / HEAD_RX, (self.points[:, 1] - HEAD_Y) / HEAD_RY)
        self.grip = (smoothstep((1.5 - reach) / 0.5) * smoothstep(self.points[:, 1] / 14))[:, None]
        self.grip[: len(self.mesh)] = 1
        self.triangles = Delaunay(self.points[:, :2]).simplices

    def _spline(self) -> Floats:
        """Matrix (468, len(DRIVEN)) that carries shifts of the driven points to the whole mesh."""
        places = self.mesh[DRIVEN, :2]
        spline = RBFInterpolator(places, np.eye(len(DRIVEN)), smoothing=0.1, kernel="thin_plate_spline")
        return np.asarray(spline(self.mesh[:, :2]), np.float32)

    def targets(self, pose: Pose, turn: Turn) -> Floats:
        """Where each point goes (n, 2), in portrait pixels."""
        shifts = [lip_shift, brow_shift, lid_shift, jaw_shift]
        driven = [shift(self.mesh, pose) for shift in shifts] + [np.zeros((len(FIXED), 2), np.float32)]
        points = self.points.copy()
        points[: len(self.mesh), :2] += self._spread @ np.concatenate(driven)
        turned = turn.apply(points)
        return np.asarray(points[:, :2] + self.grip * (turned - points[:, :2]), np.float32)

    def draw(self, pose: Pose, turn: Turn = STILL) -> Image:
        """One RGB frame (height, width, 3)."""
        targets = self.targets(pose, turn)
        frame = self.picture.copy()
        x, y, w, h = self._box()
        sources = self._source_map(targets, x, y, w, h)
        frame[y : y + h, x : x + w] = cv2.remap(
            self.picture, sources[..., 0], sources[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return self._with_mouth(frame, targets, pose)

    def _to_frame(self, points: Floats) -> Floats:
        return np.asarray((points - self.origin) * self.scale + (self.scale - 1) / 2, np.float32)

    def _box(self) -> tuple[int, int, int, int]:
        """HEAD_BOX in frame pixels, cut to the frame: x, y, width, height."""
        corners = self._to_frame(np.array(HEAD_BOX, np.float32).reshape(2, 2)).round().astype(int)
        (x0, y0), (x1, y1) = np.clip(corners, 0, self.size)
        return int(x0), int(y0), int(x1 - x0), int(y1 - y0)

    def _source_map(self, targets: Floats, x: int, y: int, w: int, h: int) -> Floats:
        """For every pixel of the box the place (h, w, 2) in `picture` it is taken from.

        The map is continuous and bends only along triangle edges, so half the resolution is enough.
        """
        into, out = self._to_frame(targets), self._to_frame(self.points[:, :2])
        labels = np.zeros((-(-h // 2), -(-w // 2)), np.int32)
        corners = (((into[self.triangles] - (x, y)) / 2 - 0.25) * 16).round().astype(np.int32)
        for number in self._drawing_order(into):
            cv2.fillConvexPoly(labels, corners[number], int(number), shift=4)
        affine = self._affines(into[self.triangles], out[self.triangles]).take(labels, axis=0)
        ys = np.arange(labels.shape[0], dtype=np.float32)[:, None, None] * 2 + y + 0.5
        xs = np.arange(labels.shape[1], dtype=np.float32)[None, :, None] * 2 + x + 0.5
        source = affine[..., 0] * xs + affine[..., 1] * ys + affine[..., 2]
        return np.asarray(cv2.resize(source, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)[:h, :w])

    def _drawing_order(self, into: Floats) -> NDArray[np.intp]:
        """Triangles by area, so that thin ones (closed lids and lips) lose their ragged rim to others."""
        a, b, c = (into[self.triangles[:, i]] for i in range(3))
        area = np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
        order = np.argsort(area)
        return np.asarray(order[area[order] > 2])

    @staticmethod
    def _affines(into: Floats, out: Floats) -> Floats:
        """The affine maps (n, 2, 3) that take triangles (n, 3, 2) `into` to `out`."""
        ones = np.ones((*into.shape[:2], 1), np.float32)
        square = np.concatenate([into, ones], -1).astype(np.float64) + 1e-6 * np.eye(3)
        return np.linalg.solve(square, out.astype(np.float64)).transpose(0, 2, 1).astype(np.float32)

    def _with_mouth(self, frame: Image, targets: Floats, pose: Pose) -> Image:
        """Paint what shows between the lips: the portrait's upper teeth over a dark ground."""
        ring = self._to_frame(targets[INNER_RING])
        x, y, w, h = cv2.boundingRect(ring)
        x, y, w, h = x - 4, y - 4, w + 8, h + 8
        mask = np.zeros((h, w), np.uint8)
        outline = [((ring - (x, y)) * 16).round().astype(np.int32)]
        cv2.fillPoly(mask, outline, 255, cv2.LINE_AA, shift=4)
        cv2.polylines(mask, outline, True, 255, max(1, round(0.5 * self.scale)), cv2.LINE_AA, shift=4)
        share = cv2.GaussianBlur(mask, (0, 0), 0.35 * self.scale)[..., None] / 255.0
        inside = self._inside(targets, float(smoothstep(pose.gap / 3)), x, y, w, h)
        patch = frame[y : y + h, x : x + w]
        patch[:] = (patch * (1 - share) + inside * share).round().astype(np.uint8)
        return frame

    def _inside(self, targets: Floats, parted: float, x: int, y: int, w: int, h: int) -> Floats:
        """Teeth and cavity (h, w, 3) for the box at (x, y); lips not `parted` show only a dark line."""
        now, own = (self._to_frame(points[[78, 308, 13], :2]) for points in (targets, self.mesh))
        across = (now[1] - now[0]) / (own[1, 0] - own[0, 0])
        stretch = float(np.hypot(*across))
        cos, sin = across / stretch
        wide = (1 + stretch) / 2  # teeth stay stiffer than lips
        affine = np.array([[cos * wide, -sin, 0], [sin * wide, cos, 0]])
        affine[:, 2] = now[2] - affine[:, :2] @ own[2] - (x, y)
        teeth = cv2.warpAffine(self.picture, affine, (w, h), flags=cv2.INTER_LINEAR).astype(np.float32)
        share = cv2.warpAffine(self.teeth_mask, affine, (w, h), flags=cv2.INTER_LINEAR)[..., None] / np.float32(255)
        share *= parted
        ground = (1 - parted) * LIP_LINE + parted * CAVITY
        return np.asarray(teeth * share + ground * (1 - share))


@dataclass(frozen=True)
class Line:
    """One thing to say, the face to say it with, and the silence after it in seconds."""

    text: str
    emotion: str
    pause: float = 1.5


@dataclass(frozen=True)
class Spoken:
    """A line with its place in the clip, in seconds. A silent clip has empty `text`."""

    start: float
    end: float
    emotion: str
    text: str


PACE = {"neutral": 1.0, "happiness": 1.1, "sadness": 0.85, "anger": 1.12, "surprise": 1.05}  # hibari's speed
LOUDNESS = {"neutral": 0.8, "happiness": 0.95, "sadness": 0.55, "anger": 1.25, "surprise": 1.1}  # factor


class Voice:
    """hibari-tts in its built-in voice; says each line once and remembers it."""

    def __init__(self) -> None:
        from hibari import Hibari  # type: ignore[import-untyped]

        self._tts = Hibari()
        self._said: dict[tuple[str, str], Floats] = {}

    def say(self, text: str, emotion: str) -> Floats:
        """Mono speech at SAMPLE_RATE: silent ends cut off, 0.25 s between sentences."""
        if (text, emotion) not in self._said:
            breath = np.zeros(SAMPLE_RATE // 4, np.float32)
            sentences = self._tts.stream(text, speed=PACE[emotion], seed=0)
            parts = [part for wave in sentences for part in (breath, trim(wave))]
            self._said[text, emotion] = np.concatenate(parts[1:]) * np.float32(LOUDNESS[emotion])
        return self._said[text, emotion]


def trim(wave: Floats) -> Floats:
    """Cut the silence off both ends."""
    loud = np.flatnonzero(np.abs(wave) > 0.02 * np.abs(wave).max())
    return wave[loud[0] : loud[-1] + 1]


def speak(lines: Iterable[Line], lead: float = 1.0, voice: Voice | None = None) -> tuple[Floats, list[Spoken]]:
    """Say the lines one after another, `lead` seconds into the clip.

    Returns the mono track at SAMPLE_RATE, with a faint seeded noise under it, and when each line is heard.
    """
    voice = voice or Voice()
    parts, spoken, time = [np.zeros(round(lead * SAMPLE_RATE), np.float32)], [], lead
    for line in lines:
        wave = voice.say(line.text, line.emotion)
        end = time + len(wave) / SAMPLE_RATE
        spoken.append(Spoken(round(time, 2), round(end, 2), line.emotion, line.text))
        parts += [wave, np.zeros(round(line.pause * SAMPLE_RATE), np.float32)]
        time = sum(map(len, parts)) / SAMPLE_RATE
    track = np.concatenate(parts)
    noise = np.random.default_rng(0).normal(0, 3e-4, len(track)).astype(np.float32)
    return np.clip(track + noise, -1, 1), spoken


def loudness(track: Floats, frames: int, fps: float) -> Floats:
    """Mouth opening 0 to 1 for each video frame, from the loudness of the speech."""
    hop = SAMPLE_RATE / fps
    padded = np.pad(track, (0, max(0, int(np.ceil(frames * hop)) - len(track))))
    energy = np.concatenate([[0.0], np.cumsum(padded.astype(np.float64) ** 2)])
    edges = np.minimum((np.arange(frames + 1) * hop).astype(int), len(padded))
    level = np.sqrt(np.diff(energy[edges]) / hop)
    smooth = np.convolve(level, [0.25, 0.5, 0.25], "same")
    return np.asarray(np.clip(smooth / 0.13, 0, 1) ** 0.7, np.float32)


def blinks(seconds: float, seed: int = 0) -> Floats:
    """Times of blinks, every 2.5 to 5 seconds."""
    gaps = np.random.default_rng(seed).uniform(2.5, 5.0, int(seconds / 2.5) + 1)
    return np.asarray(np.cumsum(gaps), np.float32)


def expression_at(spoken: Sequence[Spoken], t: float) -> Pose:
    """The face at `t` seconds: a line's expression is put on in the 0.7 s before it and kept until the next."""
    pose = EXPRESSIONS["neutral"]
    for line in itertools.takewhile(lambda line: line.start - 0.7 < t, spoken):
        pose = mix(pose, EXPRESSIONS[line.emotion], float(smoothstep((t - line.start + 0.7) / 0.6)))
    return pose


def poses(spoken: Sequence[Spoken], opening: Floats, fps: float) -> Iterator[tuple[Pose, Turn]]:
    """Pose and head turn of every frame; `opening` is 0 to 1 per frame, as from `loudness`."""
    shut = blinks(len(opening) / fps)
    for number, mouth in enumerate(opening):
        t = number / fps
        pose = expression_at(spoken, t)
        talking = max(
            (float(smoothstep(min(t - s.start, s.end - t) / 0.15 + 1)) for s in spoken if s.text), default=0.0
        )
        blink = float(np.clip(1.2 - np.abs(shut - t).min() / 0.1, 0, 1))
        yield (
            replace(
                pose,
                gap=pose.gap * (1 - 0.6 * talking) + 9 * float(mouth),
                half_width=pose.half_width - 1.2 * float(mouth),
                lids=pose.lids * (1 - 0.85 * blink),
            ),
            turn_at(t),
        )


def write_video(
    path: Path | str, frames: Iterable[Image], fps: int, track: Floats | None = None, crf: int = 20
) -> None:
    """Write RGB frames, and the mono track at SAMPLE_RATE if there is one, as an H.264 + AAC MP4.

    The sound is stored at 48 kHz, the index at the front. One encoder thread: the same frames give the same bytes.
    """
    frames = iter(frames)
    first = next(frames)
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as out:
        video = out.add_stream("libx264", rate=fps, options={"crf": str(crf), "preset": "veryfast"})
        video.height, video.width = first.shape[:2]
        video.pix_fmt, video.thread_count = "yuv420p", 1
        sound = None if track is None else out.add_stream("aac", rate=2 * SAMPLE_RATE, layout="mono", bit_rate=96_000)
        wide = None if track is None else resample_poly(track, 2, 1).astype(np.float32)
        done = 0
        for number, frame in enumerate(itertools.chain([first], frames)):
            out.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            if sound is not None and wide is not None:
                until = (number + 1) * 2 * SAMPLE_RATE // fps
                out.mux(sound.encode(_audio_frame(wide[done:until], done)) if done < len(wide) else [])
                done = until
        out.mux(video.encode())
        if sound is not None:
            out.mux(sound.encode())


def _audio_frame(samples: Floats, start: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 2 * SAMPLE_RATE, start, Fraction(1, 2 * SAMPLE_RATE)
    return frame


def write_clip(path: Path | str, face: Face, lines: Sequence[Line], fps: int = 25, crf: int = 20) -> list[Spoken]:
    """A clip in which `face` says `lines`; returns when each is heard."""
    track, spoken = speak(lines)
    opening = loudness(track, int(len(track) / SAMPLE_RATE * fps), fps)
    write_video(path, (face.draw(*state) for state in poses(spoken, opening, fps)), fps, track, crf)
    return spoken


def write_silent_clip(
    path: Path | str, face: Face, emotions: Sequence[str], each: float = 2.0, fps: int = 25
) -> list[Spoken]:
    """A clip without an audio stream that shows each emotion for `each` seconds."""
    shown = [Spoken(i * each, (i + 1) * each, emotion, "") for i, emotion in enumerate(emotions)]
    opening = np.zeros(round(len(shown) * each * fps), np.float32)
    write_video(path, (face.draw(*state) for state in poses(shown, opening, fps)), fps)
    return shown


SMALL_TALK = [
    Line("Let us begin with the plan for this week.", "neutral"),
    Line("We won the prize, and I could not be happier about it!", "happiness"),
    Line("Sadly, my best friend is moving far away next month.", "sadness"),
    Line("They lost my luggage again, and nobody even said sorry!", "anger"),
    Line("Wait, really? I had no idea that this was even possible!", "surprise"),
    Line("The train leaves at nine, and the meeting starts at noon.", "neutral"),
    Line("What a beautiful morning, I love the smell of fresh bread!", "happiness"),
    Line("I still think of her every day, and the evenings are lonely.", "sadness"),
]


def write_talking_clip(
    path: Path | str,
    seconds: float,
    width: int = 1280,
    height: int = 720,
    fps: int = 30,
    speech_share: float = 0.7,
) -> list[Spoken]:
    """A clip of any length in which the face talks for about `speech_share` of the time, for benchmarks.

    The face is 0.44 of the frame's height high. Returns the lines with their times.
    """
    voice, lines, time = Voice(), list[Line](), 1.0
    for line in itertools.cycle(SMALL_TALK):
        length = len(voice.say(line.text, line.emotion)) / SAMPLE_RATE
        if time + length > seconds:
            break
        lines.append(replace(line, pause=length * (1 / speech_share - 1)))
        time += length + lines[-1].pause
    track, spoken = speak(lines, voice=voice)
    track = np.pad(track, (0, max(0, round(seconds * SAMPLE_RATE) - len(track))))[: round(seconds * SAMPLE_RATE)]
    face = Face(width, height, height / 240)
    opening = loudness(track, round(seconds * fps), fps)
    write_video(path, (face.draw(*state) for state in poses(spoken, opening, fps)), fps, track)
    return spoken
