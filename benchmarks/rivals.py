"""How fast emopipe is beside what people use instead: a chain of libraries glued together, and MMSA-FET.

    python benchmarks/rivals.py --clips FOLDER --work FOLDER [--seconds 60] [--pairs 5] [--only NAME...]

A clip of 1280x720 at 25 frames per second is put together from the recordings in a folder that have sound. Everybody
works on it in turns, each time in a fresh process that has loaded its models and worked on the clip's first seconds
before the clock starts; every second round goes backwards. The table tells medians: seconds, real-time factor, seconds
of CPU per minute of video (with those of programs that were started), peak memory of the process with all that it
loads, and how many times as long it took as emopipe in the same round: median (least to most). All use the CPU and as
many threads as they like; for figures, let nothing else run. Linux alone.

The chain decodes every frame by OpenCV, looks at it with MediaPipe's Face Landmarker (one face, blendshapes, video
mode), transcribes with openai-whisper base and word times, takes pyin and 13 MFCCs by librosa, and the mean of
MiniLM's tokens of each segment. Its environment sees the packages of the interpreter that runs this file, so that
versions are the same, and it loads the same files of weights.

MMSA-FET has an environment of its own (`rivals_mmsa_fet.txt`). Two things differ from the package as it is:

- `FeatureExtractionTool` calls `extract(..., tool_output=...)`, which its MediaPipe extractor does not take: patched
  here, else it fails.
- Modules that its MediaPipe and librosa extractors do not use (torch, its readers of text, active speakers) are not
  installed, and replaced by mocks. That makes its memory less than it would be.

It loads MediaPipe's graph within the time measured; nobody can have it do so before.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import MagicMock

HERE = Path(__file__).parent
MODEL = "emopipe-default"
#: Works on a clip, and says what it found.
Work = Callable[[Path], str]
#: What MMSA-FET imports and its MediaPipe and librosa extractors do not use.
UNUSED = (
    "torch",
    "MSA_FET.dataset",
    "MSA_FET.aligners",
    "MSA_FET.extractors.audio.opensmile",
    "MSA_FET.extractors.audio.wave2vec",
    "MSA_FET.extractors.video.openface",
    "MSA_FET.extractors.text.bert",
    "MSA_FET.extractors.text.roberta",
)


@dataclass(frozen=True)
class Contender:
    """A row of the table.

    Attributes:
        title: what it is called.
        environment: which it runs in; "" for that of emopipe.
        beside: the contenders whose time its own is divided by.
    """

    title: str
    environment: str = ""
    beside: tuple[str, ...] = ()


CONTENDERS = {
    "face-5": Contender("emopipe, faces at 5/s"),
    "fet-5": Contender("MMSA-FET, MediaPipe at 5/s", "mmsa_fet", ("face-5",)),
    "fet-25": Contender("MMSA-FET, MediaPipe at 25/s (its default)", "mmsa_fet", ("face-5", "face-25")),
    "face-25": Contender("emopipe, faces at 25/s"),
    "fet-sound": Contender("MMSA-FET, librosa", "mmsa_fet"),
    "run": Contender(f"emopipe, all of {MODEL}"),
    "chain": Contender("OpenCV, MediaPipe, Whisper, librosa, MiniLM glued together", "chain", ("run",)),
}


# The contenders, each in a process of its own


@contextmanager
def emopipe_faces(rate: float) -> Iterator[Work]:
    """The face stage, with decoding and what it stores."""
    from dataclasses import replace

    from emopipe.pipeline.execution.jobs import extraction_job, prediction_job
    from emopipe.pipeline.execution.plan import Task, contents, results
    from emopipe.pipeline.execution.worker import Worker
    from emopipe.pipeline.records import Source
    from emopipe.pipeline.store.store import temporary_store

    with temporary_store() as store:
        config = prediction_job(MODEL, store, device="cpu").config
        config = replace(config, face=replace(config.face, rate=rate))
        job = extraction_job(config, store, modalities=("face",), device="cpu")
        with Worker(job, debug=True) as worker:

            def work(clip: Path) -> str:
                source = Source(str(clip), media=clip)
                worker.perform(Task(source, ("face",)))
                key = results(source, contents(source, worker.store), job)["face"].key
                table: Any = (worker.store.get(key) or {})["face_table"]
                return f"{table.num_rows} faces in {table.schema.metadata[b'frames'].decode()} frames"

            yield work


@contextmanager
def emopipe_run() -> Iterator[Work]:
    """The whole pipeline as it is by default, without pages and tables."""
    from emopipe.pipeline.execution.batch import find_inputs, run_files
    from emopipe.pipeline.execution.engine import Here
    from emopipe.pipeline.execution.jobs import prediction_job
    from emopipe.pipeline.store.store import temporary_store

    with temporary_store() as store:
        job, engine = prediction_job(MODEL, store, device="cpu"), Here(debug=True)

        def work(clip: Path) -> str:
            (result,) = run_files(find_inputs([clip]), job, None, engine)
            words = sum(len((one.text or "").split()) for one in result.utterances)
            return f"{len(result.utterances)} utterances, {words} words, {len(result.people)} people"

        yield work
        engine.close()


@contextmanager
def chain(weights: dict[str, str]) -> Iterator[Work]:
    """What people glue together."""
    import librosa
    import torch
    import whisper
    from transformers import AutoModel, AutoTokenizer

    recogniser = whisper.load_model(weights["whisper-base"], device="cpu")
    recogniser.set_alignment_heads(whisper._ALIGNMENT_HEADS["base"])
    tokenizer, encoder = (kind.from_pretrained(weights["minilm-l6"]) for kind in (AutoTokenizer, AutoModel))

    def work(clip: Path) -> str:
        frames, faces = every_face(clip, weights["face-landmarker"])
        with tempfile.TemporaryDirectory() as folder:
            wave = Path(folder) / "sound.wav"
            ffmpeg("-i", clip, "-vn", "-ac", 1, "-ar", 16000, wave)
            said = recogniser.transcribe(str(wave), word_timestamps=True, fp16=False)
            sound, rate = librosa.load(wave, sr=16000)
        low, high = librosa.note_to_hz("C2"), librosa.note_to_hz("C7")
        pitch, _, _ = librosa.pyin(sound, fmin=low, fmax=high, sr=rate)
        coefficients = librosa.feature.mfcc(y=sound, sr=rate, n_mfcc=13)
        batch = tokenizer([one["text"] for one in said["segments"]] or [""], padding=True, return_tensors="pt")
        with torch.inference_mode():
            states, mask = encoder(**batch).last_hidden_state, batch["attention_mask"][..., None]
            vectors = (states * mask).sum(1) / mask.sum(1)
        words = sum(len(one["words"]) for one in said["segments"])
        return (
            f"{faces} of {frames} frames with a face, {words} words, {len(pitch)} steps of pitch and "
            f"{coefficients.shape[1]} of MFCC, {len(vectors)} sentences"
        )

    yield work


def every_face(clip: Path, model: str) -> tuple[int, int]:
    """Decode every frame and look for landmarks; tells how many frames there are, and how many show a face."""
    import cv2
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.FaceLandmarkerOptions(
        BaseOptions(model_asset_path=model), vision.RunningMode.VIDEO, output_face_blendshapes=True
    )
    capture, frames, faces = cv2.VideoCapture(str(clip)), 0, 0
    rate = capture.get(cv2.CAP_PROP_FPS)
    with vision.FaceLandmarker.create_from_options(options) as landmarker:
        while True:
            there, picture = capture.read()
            if not there:
                return frames, faces
            rgb = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
            image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=rgb)
            faces += bool(landmarker.detect_for_video(image, round(1000 * frames / rate)).face_landmarks)
            frames += 1


@contextmanager
def mmsa_fet(tool: str, rate: int | None = None) -> Iterator[Work]:
    """MMSA-FET with one of its example configurations, patched as told above.

    Args:
        tool: "mediapipe" or "librosa".
        rate: frames per second; None for its default.
    """
    sys.modules.update({name: MagicMock() for name in UNUSED})
    from MSA_FET.extractors.video.mediapipe import mediapipeExtractor
    from MSA_FET.single import FeatureExtractionTool
    from MSA_FET.utils import get_default_config

    extract = mediapipeExtractor.extract
    mediapipeExtractor.extract = lambda self, folder, name, tool_output: extract(self, folder, name)
    config = get_default_config(tool)
    if rate is not None:
        config["video"]["fps"] = rate
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        tools = FeatureExtractionTool(config, tmp_dir=folder, log_dir=folder, verbose=0)

        def work(clip: Path) -> str:
            return ", ".join(f"{len(rows)} rows of {name}" for name, rows in tools.run_single(clip).items())

        yield work


def ffmpeg(*arguments: object) -> None:
    """Run the ffmpeg of the environments."""
    command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True)


def cpu_seconds() -> float:
    """CPU time of this process, and of the programs that it started and that have ended."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def contend(name: str, clip: Path, start: Path, weights: dict[str, str]) -> None:
    """Work on the first seconds, then on the clip; prints the figures of that as JSON."""
    makers: dict[str, Callable[[], Any]] = {
        "face-5": lambda: emopipe_faces(5),
        "face-25": lambda: emopipe_faces(25),
        "run": emopipe_run,
        "chain": lambda: chain(weights),
        "fet-5": lambda: mmsa_fet("mediapipe", 5),
        "fet-25": lambda: mmsa_fet("mediapipe"),
        "fet-sound": lambda: mmsa_fet("librosa"),
    }
    with makers[name]() as work:
        work(start)
        began, cpu = time.perf_counter(), cpu_seconds()
        found = work(clip)
        figures = {"seconds": time.perf_counter() - began, "cpu": cpu_seconds() - cpu, "found": found}
    print(json.dumps(figures))


# What measures them


def environment(folder: Path, pins: Path, base: str = "") -> Path:
    """Make an environment, unless it is there; its interpreter, and its ffmpeg beside it.

    Args:
        folder: where.
        pins: what is installed, with nothing that it depends on.
        base: a folder of packages that are seen besides.
    """
    python, done = folder / "bin" / "python", folder / "installed.txt"
    if done.exists() and done.read_text() == pins.read_text():
        return python
    print(f"making the environment {folder}", file=sys.stderr)
    venv.create(folder, clear=True, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(folder), "install", "--quiet", "--no-compile", "--no-deps"]
    if subprocess.run([*pip, "-r", str(pins)], check=False).returncode:
        raise SystemExit(f"{pins.name} cannot be installed: making environments needs a package index (the network)")
    (packages,) = folder.glob("lib/python*/site-packages")
    if base:
        (packages / "base.pth").write_text(base)
    (program,) = packages.glob("imageio_ffmpeg/binaries/ffmpeg-*")
    (python.parent / "ffmpeg").symlink_to(program)
    done.write_text(pins.read_text())
    return python


def make_clip(folder: Path, seconds: float, path: Path) -> None:
    """Put a clip together from the recordings below a folder that have picture and sound, again and again."""
    import av

    from emopipe.pipeline.media.finding import find_media

    lengths = {}
    for file in find_media([folder]).files:
        with av.open(str(file)) as media:
            if media.streams.video and media.streams.audio and media.duration:
                lengths[file] = media.duration / av.time_base
    if not lengths:
        raise SystemExit(f"{folder} holds no recording with picture and sound")
    chosen: list[Path] = []
    for file in cycle(lengths):
        if sum(lengths[one] for one in chosen) > seconds:
            break
        chosen.append(file)
    fitted = "scale=1280:720:force_original_aspect_ratio=decrease,pad=1280:720:-1:-1,setsar=1,fps=25"
    filters = [
        f"[{i}:v]{fitted}[v{i}];[{i}:a]aresample=48000,aformat=channel_layouts=mono[a{i}]" for i in range(len(chosen))
    ]
    pairs = "".join(f"[v{i}][a{i}]" for i in range(len(chosen)))
    graph = f"{';'.join(filters)};{pairs}concat=n={len(chosen)}:v=1:a=1[v][a]"
    inputs = [word for file in chosen for word in ("-i", file)]
    coded = ("-c:v", "libx264", "-crf", 23, "-pix_fmt", "yuv420p", "-c:a", "aac")
    ffmpeg(*inputs, "-filter_complex", graph, "-map", "[v]", "-map", "[a]", *coded, "-t", seconds, path)
    print(f"{path.name}: {seconds:g} s of {len(lengths)} recordings, {path.stat().st_size / 1e6:.1f} MB")


def measured(command: Sequence[object], folder: Path) -> dict[str, Any]:
    """The figures that a process prints, and its peak memory in MiB."""
    log = folder / "stderr.txt"
    words = [str(word) for word in command]
    with log.open("w") as errors, subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, cwd=folder) as process:
        assert process.stdout is not None
        printed = process.stdout.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{log.read_text()[-2000:]}")
    figures: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return {**figures, "peak": usage.ru_maxrss / 1024}


def show(rounds: dict[str, list[dict[str, Any]]], seconds: float) -> None:
    """Print the table."""

    def middle(name: str, figure: str) -> float:
        return median(one[figure] for one in rounds[name])

    def ratio(name: str, other: str) -> str:
        both = zip(rounds[name], rounds[other], strict=True)
        times = [own["seconds"] / theirs["seconds"] for own, theirs in both]
        return f"{median(times):.2f} ({min(times):.2f} to {max(times):.2f}) of {CONTENDERS[other].title}"

    print("\n| what | seconds | real-time factor | CPU s per minute | peak MiB | times the seconds | found |")
    print("|---|---|---|---|---|---|---|")
    for name in rounds:
        ratios = "; ".join(ratio(name, other) for other in CONTENDERS[name].beside if other in rounds)
        print(
            f"| {CONTENDERS[name].title} | {middle(name, 'seconds'):.2f} | {middle(name, 'seconds') / seconds:.3f} "
            f"| {60 * middle(name, 'cpu') / seconds:.1f} | {middle(name, 'peak'):.0f} | {ratios} "
            f"| {rounds[name][-1]['found']} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="Folder of recordings that the clip is made of.")
    parser.add_argument("--work", type=Path, required=True, help="Folder for environments and pictures; left behind.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    options = parser.parse_args()

    from emopipe.errors import EmopipeError
    from emopipe.pipeline import weights

    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    pythons = {
        "": Path(sys.executable),
        "chain": environment(work / "chain", HERE / "rivals_chain.txt", sysconfig.get_path("purelib")),
        "mmsa_fet": environment(work / "mmsa_fet", HERE / "rivals_mmsa_fet.txt"),
    }
    os.environ["PATH"] = f"{pythons['chain'].parent}{os.pathsep}{os.environ['PATH']}"
    try:
        files = {name: str(weights.resolve(name)) for name in ("face-landmarker", "whisper-base", "minilm-l6")}
    except EmopipeError as error:
        raise SystemExit(str(error)) from None
    clip, start = work / "clip.mp4", work / "start.mp4"
    make_clip(options.clips, options.seconds, clip)
    ffmpeg("-i", clip, "-t", 4, "-c", "copy", start)

    names = [name for name in CONTENDERS if name in options.only]
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(options.pairs):
        for name in names if number % 2 == 0 else reversed(names):
            python = pythons[CONTENDERS[name].environment]
            command = [python, __file__, "--contend", name, clip, start, json.dumps(files)]
            rounds[name].append(measured(command, work))
            print(f"{number + 1}, {name}: {rounds[name][-1]}", file=sys.stderr, flush=True)
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {options.pairs} rounds")
    show(rounds, options.seconds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--contend"]:
        contend(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), json.loads(sys.argv[5]))
    else:
        main()
