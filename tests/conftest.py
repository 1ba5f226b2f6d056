"""Media made by the tests themselves, and the samples."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import settings

#: Processes that run tests side by side have a core each; more threads than cores wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

#: A busy machine is not a failure.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "samples"
#: Material beside the checkout that is not part of it; tests that need it are skipped where it is missing.
SHARED = ROOT.parent / "shared"
RATE = 16_000


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Have torch use two threads, on a machine of one core too."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def write_media(
    path: Path,
    frames: Sequence[np.ndarray] = (),
    sound: np.ndarray | None = None,
    *,
    fps: int = 25,
    times: Sequence[float] | None = None,
    sound_start: float = 0.0,
) -> Path:
    """Encode RGB frames (height, width, 3) and 16 kHz mono sound.

    Args:
        times: presentation time of each frame in seconds; None: regular at `fps`.
        sound_start: time stamp of the first sample in seconds.
    """
    with av.open(str(path), "w") as container:
        video = None
        if len(frames):
            video = container.add_stream("libx264", rate=fps)
            video.height, video.width = frames[0].shape[:2]
            video.pix_fmt = "yuv420p"
            video.codec_context.time_base = Fraction(1, 12_800)
            video.options = {"bf": "0"}
        audio = (
            container.add_stream("aac" if path.suffix != ".wav" else "pcm_s16le", rate=RATE)
            if sound is not None
            else None
        )
        if video is not None:
            for index, rgb in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
                time = index / fps if times is None else times[index]
                frame.pts, frame.time_base = round(time * 12_800), Fraction(1, 12_800)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        if audio is not None and sound is not None:
            for start in range(0, len(sound), 1024):
                chunk = (np.clip(sound[start : start + 1024], -1, 1) * 32767).astype(np.int16)[None]
                frame = av.AudioFrame.from_ndarray(chunk, format="s16", layout="mono")
                frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
                frame.pts = start + round(sound_start * RATE)
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


def first_pictures(source: Path, path: Path, seconds: float) -> Path:
    """Encode the first seconds of a video's picture."""
    with av.open(str(source)) as container:
        rate = float(container.streams.video[0].average_rate or 25)
        frames = islice(container.decode(video=0), round(seconds * rate))
        return write_media(path, [frame.to_ndarray(format="rgb24") for frame in frames], fps=round(rate))


def turn_by_metadata(path: Path) -> Path:
    """Mark an MP4 as filmed with the phone on its side: a player turns it 90 degrees clockwise."""
    data = bytearray(path.read_bytes())
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    plain = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    at = data.index(plain, data.index(b"tkhd"))
    data[at : at + len(matrix)] = matrix
    path.write_bytes(data)
    return path


def tone(seconds: float, hertz: float = 220.0, level: float = 0.3) -> np.ndarray:
    """A sine, float32 at 16 kHz."""
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def blank(seconds: float, *, fps: int = 25, size: tuple[int, int] = (120, 160), grey: int = 0) -> list[np.ndarray]:
    """Frames of one shade."""
    return [np.full((*size, 3), grey, np.uint8)] * round(seconds * fps)


@pytest.fixture(scope="session", autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the results of tests apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOPIPE_STORE", str(tmp_path_factory.mktemp("store")))
        yield


@pytest.fixture(scope="session")
def weight() -> Callable[[str], Path]:
    """Path of a weight, fetched if need be; the test is skipped when it is neither here nor to be had."""
    from emopipe.errors import EmopipeError
    from emopipe.pipeline import weights

    def path(name: str) -> Path:
        try:
            return weights.resolve(name)
        except EmopipeError as error:
            pytest.skip(f"weight {name}: {error}")

    return path


@pytest.fixture(scope="session")
def pyfeat_cache(weight: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A cache that holds the default weights, and test weights for the named detector of py-feat."""
    from emopipe.pipeline import weights
    from tests.pyfeat_weights import place_in_cache

    cache = tmp_path_factory.mktemp("cache")
    (cache / "weights").mkdir()
    for name in ("face-landmarker", "whisper-base", "minilm-l6", "minilm-l6-emotion", "silero-vad"):
        weight(name)
        (cache / "weights" / name).symlink_to(weights.cache_dir() / "weights" / name)

    def path(detector: str) -> Path:
        place_in_cache(cache, detector)
        return cache

    return path


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Whom the test asked for a connection; none is made."""
    import socket

    asked: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        asked.append(arguments[-1] if isinstance(arguments[0], socket.socket) else arguments[0])
        raise OSError("the network is blocked")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "create_connection", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    return asked
