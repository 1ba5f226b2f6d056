"""Recordings under folders and patterns, whatever their suffix; everything else is listed with the reason."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from emopipe.pipeline.media.finding import find_media
from tests.conftest import SAMPLES, blank, tone, write_media


def test_folders_are_searched_in_order_and_bad_ones_are_told(tmp_path: Path) -> None:
    (tmp_path / "deep er").mkdir()
    names = ["b.mp4", "a'quote.MOV", "deep er/ünï.wav"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "none").mkdir()
    media = find_media([tmp_path, tmp_path / "none"])
    assert [str(path.relative_to(tmp_path)) for path in media.files] == sorted(names)
    assert [error.code for error in media.errors] == ["EMO-106"]


def test_an_unreadable_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path, onerror: object, **options: object) -> list[object]:
        assert callable(onerror)
        onerror(PermissionError(13, "Permission denied", str(folder)))
        return []

    monkeypatch.setattr("os.walk", refuse)
    media = find_media([tmp_path])
    assert not media.files and media.errors[0].code == "EMO-102" and media.errors[0].path == str(tmp_path)


def test_what_can_be_decoded_is_a_recording_whatever_its_suffix(tmp_path: Path) -> None:
    for name in ("camera.dv", "disc.VOB", "no suffix", "old.3g2", "edit.mxf", "x.dat"):
        shutil.copy(SAMPLES / "happy.mp4", tmp_path / name)
    write_media(tmp_path / "sound.mka", sound=tone(1.0))
    media = find_media([tmp_path])
    assert len(media.files) == 7 and not media.skipped


def test_other_files_are_listed_with_the_reason(tmp_path: Path) -> None:
    write_media(tmp_path / "a.mp4", blank(1.0))
    (tmp_path / "notes.txt").write_text("hello " * 100)
    (tmp_path / ".hidden.mp4").touch()
    (tmp_path / "labels.csv").write_text("path,label\na.mp4,happy\n")
    (tmp_path / "subtitles.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
    (tmp_path / "face.jpg").touch()
    Image.new("L", (32, 32)).save(tmp_path / "waving.gif", save_all=True, append_images=[Image.new("L", (32, 32), 200)])
    (tmp_path / "noise.bin").write_bytes(bytes(range(256)) * 200)
    media = find_media([tmp_path])
    assert [path.name for path in media.files] == ["a.mp4"]
    told = {path.name: why.what for path, why in media.skipped.items()}
    nothing = "FFmpeg finds no video or audio in it"
    assert told == {
        "notes.txt": nothing,
        ".hidden.mp4": "hidden file",
        "labels.csv": nothing,
        "subtitles.srt": nothing,
        "face.jpg": "image",
        "waving.gif": "image",
        "noise.bin": nothing,
    }
    assert find_media([tmp_path / "*"]).files == media.files


def test_a_file_that_is_named_is_kept_whatever_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert find_media([tmp_path / "notes.txt"]).files == [tmp_path / "notes.txt"]


def test_lists_of_other_files_and_addresses_are_not_followed(tmp_path: Path) -> None:
    shutil.copy(SAMPLES / "happy.mp4", tmp_path / "happy.mp4")
    (tmp_path / "list.ffconcat").write_text("ffconcat version 1.0\nfile happy.mp4\n")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:9/a.ts\n")
    assert [path.name for path in find_media([tmp_path]).files] == ["happy.mp4"]


def test_linked_folders_are_searched_once_and_copies_by_link_are_told(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for name in (inside / "a.mp4", inside / "raw" / "c.mp4", inside / "deep" / "d.mp4", outside / "b.mp4"):
        name.parent.mkdir(exist_ok=True, parents=True)
        name.touch()
    for link, target in (("linked", outside), ("loop", inside), ("up", tmp_path), ("deep/raw", inside / "raw")):
        (inside / link).symlink_to(target)
    (inside / "0.mp4").symlink_to(inside / "a.mp4")
    found = find_media([inside])
    names = [path.relative_to(inside).as_posix() for path in found.files]
    assert names == ["a.mp4", "deep/d.mp4", "linked/b.mp4", "raw/c.mp4"] and not found.errors
    assert {path.name: why.what for path, why in found.skipped.items()} == {
        "0.mp4": f"the same file as {inside / 'a.mp4'}"
    }
    assert find_media([inside / "a.mp4", inside / "a.mp4"]).skipped == {}
