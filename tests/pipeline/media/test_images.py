"""Image files: what is read, what is refused before it takes memory, and what is told."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from emopipe.errors import EmopipeError
from emopipe.pipeline.media.images import MOST_STILL_PIXELS, read_image

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF")


def stripes(shift: int = 0, height: int = 24, width: int = 32) -> Image.Image:
    rows = (np.arange(height)[:, None, None] + shift) % 8 < 4
    return Image.fromarray(np.where(rows, (200, 40, 90), (20, 120, 30)).repeat(width, 1).astype(np.uint8))


def encoded(kind: str, *more: Image.Image, image: Image.Image | None = None, **how: object) -> bytes:
    data = io.BytesIO()
    several = {"save_all": True, "append_images": list(more)} if more else {}
    (image or stripes()).save(data, kind, **several, **how)
    return data.getvalue()


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    """A PNG whose header says a size, whatever its data hold."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def code_of(path: Path) -> str:
    with pytest.raises(EmopipeError) as caught:
        read_image(path)
    assert caught.value.path == str(path)
    return caught.value.code


@pytest.mark.parametrize("kind", FORMATS)
def test_image_files_are_read_whatever_their_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "ü #1%.dat"
    path.write_bytes(encoded(kind))
    rgb, faults = read_image(path)
    assert rgb.shape == (24, 32, 3) and not faults
    assert abs(rgb[1, 16].astype(int) - (200, 40, 90)).max() < 40


@pytest.mark.parametrize("mode", ["L", "LA", "I;16", "RGBA", "P", "CMYK"])
def test_grey_transparent_deep_and_print_images_are_rgb(tmp_path: Path, mode: str) -> None:
    deep = Image.fromarray(np.full((8, 8), 200 * 257, np.uint16))
    grey = Image.new("RGB", (8, 8), (200, 200, 200))
    image = deep if mode == "I;16" else grey.quantize() if mode == "P" else grey.convert(mode)
    path = tmp_path / "a"
    path.write_bytes(encoded("JPEG" if mode == "CMYK" else "PNG", image=image))
    rgb, _ = read_image(path)
    assert rgb.shape == (8, 8, 3) and rgb.dtype == np.uint8
    assert abs(rgb.astype(int) - 200).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_as_their_camera_was_held(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded("JPEG", exif=exif))
    assert read_image(path)[0].shape == ((24, 32, 3) if orientation < 5 else (32, 24, 3))


@pytest.mark.parametrize(
    ("width", "height"), [(30_000, 30_000), (2**31 - 1, 2**31 - 1), (MOST_STILL_PIXELS + 1, 1), (1, 2**31 - 1)]
)
def test_images_of_absurd_size_are_refused_by_their_header(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(png(width, height, bytes(1000)))
    tracemalloc.start()
    try:
        assert code_of(path) == "EMO-109"
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_gigabytes_in_a_few_bytes_are_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(1 << 20)) for _ in range(500)) + rows.flush()
    whole = png(20_000, 20_000)
    path.write_bytes(whole[:33] + struct.pack(">I", len(packed)) + b"IDAT" + packed + bytes(4) + whole[-12:])
    assert path.stat().st_size < 1 << 20
    assert code_of(path) == "EMO-109"


def test_a_comment_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "comment.png"
    whole, packed = encoded("PNG"), b"a\0\0" + zlib.compress(bytes(300 << 20), 9)
    path.write_bytes(
        whole[:33] + struct.pack(">I", len(packed)) + b"zTXt" + packed
        + struct.pack(">I", zlib.crc32(b"zTXt" + packed)) + whole[33:]
    )  # fmt: skip
    try:
        assert read_image(path)[0].shape == (24, 32, 3)
    except EmopipeError as error:
        assert error.code == "EMO-104"


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_animations_and_pages_the_first_image_is_used_and_that_is_told(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "several"
    path.write_bytes(encoded(kind, stripes(4), stripes(2)))
    rgb, (fault,) = read_image(path)
    assert abs(rgb[1, 16].astype(int) - (200, 40, 90)).max() < 40
    assert fault.code == "first_of_images" and "3 images" in fault.what


def test_a_photo_with_its_preview_is_one_image(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    path.write_bytes(encoded("MPO", stripes(4)))
    assert read_image(path)[1] == []


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_images_that_are_cut_off_are_refused(tmp_path: Path, kind: str, share: float) -> None:
    path = tmp_path / "cut"
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    data = encoded(kind, image=noise)
    path.write_bytes(data[: int(len(data) * share)])
    assert code_of(path) == "EMO-104"


@pytest.mark.parametrize("content", [b"no picture", b"\x89PNG\r\n\x1a\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>"])
def test_what_is_not_an_image_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    assert code_of(path) == "EMO-104"


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_headers_end_in_an_image_or_a_code(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    path, whole = tmp_path / "damaged", bytearray(encoded(kind))
    for at in data.draw(st.lists(st.integers(0, min(len(whole), 120) - 1), min_size=1, max_size=6)):
        whole[at] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        rgb, _ = read_image(path)
    except EmopipeError as error:
        assert error.code in {"EMO-104", "EMO-109"}
    else:
        assert rgb.ndim == 3 and rgb.shape[2] == 3 and rgb.size
