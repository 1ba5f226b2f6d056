"""Labels tables: what is understood, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from emopipe.errors import EmopipeError
from emopipe.pipeline.datasets.labels import read_labels


def table(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, "utf-8")
    return path


def test_rows_point_to_any_mix_of_signals(tmp_path: Path) -> None:
    rows = read_labels(
        table(
            tmp_path,
            "file,audio,image,text,label,speaker,split,arousal\n"
            "a.mp4,,,,anger,anna,train,0.5\n"
            "b.PNG,b.wav,,hello there,fear,ben,,\n"
            ",c.wav,,,neutral,,,1\n"
            ",,,just words,neutral,,valid,\n",
        )
    )
    video, mixed, sound, words = (row.source for row in rows)
    assert (video.media, video.speaker, rows[0].split) == (tmp_path / "a.mp4", "anna", "train")
    assert rows[0].labels == {"label": "anger", "arousal": "0.5"}
    assert (mixed.media, mixed.image, mixed.audio) == (None, tmp_path / "b.PNG", tmp_path / "b.wav")
    assert mixed.text == "hello there"
    assert (sound.audio, sound.id) == (tmp_path / "c.wav", "c.wav")
    assert (words.text, words.path, words.id) == ("just words", None, "line5")


def test_stretches_of_one_file_are_rows_of_their_own(tmp_path: Path) -> None:
    rows = read_labels(table(tmp_path, "video,start,end,label\na.mp4,0,2.5,x\na.mp4,2.5,4,y\n"))
    assert [(r.source.id, r.source.start, r.source.end) for r in rows] == [("a.mp4@0", 0, 2.5), ("a.mp4@2.5", 2.5, 4)]


def test_paths_may_be_relative_to_another_folder(tmp_path: Path) -> None:
    rows = read_labels(table(tmp_path, "file\na.mp4\n"), tmp_path / "videos")
    assert rows[0].source.media == tmp_path / "videos" / "a.mp4"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "no rows"),
        ("file,label\n", "no rows"),
        ("name,label\na,b\n", "only the columns name, label"),
        ("file,label\na.mp4,x\n,y\n", "line 3"),
        ("file,start\na.mp4,soon\n", "line 2 .* 'soon'"),
        ("file,label\na.mp4,x\na.mp4,y\n", "two rows for 'a.mp4'"),
    ],
)
def test_unusable_tables_are_refused(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(EmopipeError, match=part) as caught:
        read_labels(table(tmp_path, text))
    assert caught.value.code == "EMO-501"


def test_a_missing_table_and_one_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(EmopipeError, match="EMO-101"):
        read_labels(tmp_path / "none.csv")
    (tmp_path / "bytes.csv").write_bytes(b"file\n\xff\xfe\x00")
    with pytest.raises(EmopipeError, match="EMO-501"):
        read_labels(tmp_path / "bytes.csv")
