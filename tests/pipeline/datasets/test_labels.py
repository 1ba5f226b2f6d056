"""Labels tables: what is understood, and what is refused with its line."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emopipe.errors import EmopipeError
from emopipe.pipeline.datasets.cells import seconds
from emopipe.pipeline.datasets.labels import Labels, read_labels


def table(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, "utf-8")
    return path


def touch(folder: Path, *names: str) -> None:
    """Files that need not be recordings."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()


def test_rows_point_to_any_mix_of_signals(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.PNG", "b.wav", "c.wav")
    rows = read_labels(
        table(
            tmp_path,
            "file,audio,image,text,label,speaker,split,arousal\n"
            "a.mp4,,,,anger,anna,train,0.5\n"
            "b.PNG,b.wav,,hello there,fear,ben,,\n"
            ",c.wav,,,neutral,,,1\n"
            ",,,just words,neutral,,valid,\n",
        )
    ).rows
    video, mixed, sound, words = (row.source for row in rows)
    assert (video.media, video.speaker, rows[0].split) == (tmp_path / "a.mp4", "anna", "train")
    assert rows[0].labels == {"label": "anger", "arousal": "0.5"}
    assert (mixed.media, mixed.image, mixed.audio) == (None, tmp_path / "b.PNG", tmp_path / "b.wav")
    assert mixed.text == "hello there"
    assert (sound.audio, sound.id) == (tmp_path / "c.wav", "c.wav")
    assert (words.text, words.path, words.id) == ("just words", None, "line5")


def test_stretches_of_one_file_are_rows_of_their_own(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    rows = read_labels(table(tmp_path, "video,start,end,label\na.mp4,0,2.5,x\na.mp4,2.5,4,y\n")).rows
    assert [(r.source.id, r.source.start, r.source.end) for r in rows] == [("a.mp4@0", 0, 2.5), ("a.mp4@2.5", 2.5, 4)]


def test_paths_may_be_relative_to_another_folder(tmp_path: Path) -> None:
    touch(tmp_path / "videos", "a.mp4")
    rows = read_labels(table(tmp_path, "file\na.mp4\n"), tmp_path / "videos").rows
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


SAMPLE = Path(__file__).parents[3] / "samples" / "interview.mp4"


def codes(labels: Labels) -> set[str]:
    return {one.code for one in labels.reasons}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("semicolons", b"text;start;label\nwe won;1,5;anger\n"),
        ("tabs", b"text\tstart\tlabel\nwe won\t1.5\tanger\n"),
        ("utf-16", "text\tstart\tlabel\nwe won\t1.5\tanger\n".encode("utf-16")),
        ("utf-16 without a mark", "text,start,label\nwe won,1.5,anger\n".encode("utf-16-le")),
        ("a mark", "\ufefftext,start,label\r\nwe won,1.5,anger\r\n".encode()),
        ("quotes", b'"text","start","label"\r\n"we won","1.5","anger"\r\n'),
        ("empty ends", b"text,start,label,,\nwe won,1.5,anger,,\n,,,,\n\n"),
        ("old Mac", b"text,start,label\rwe won,1.5,anger\r"),
        ("Excel's line", b"sep=;\r\ntext;start;label\r\nwe won;1,5;anger\r\n"),
        ("case", b"Text,START,Label\nwe won,1.5,anger\n"),
    ],
)
def test_spreadsheets_are_read_as_people_export_them(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    (row,) = read_labels(path).rows
    assert (row.source.text, row.source.start, row.labels) == ("we won", 1.5, {"label": "anger"})


def test_windows_1252_is_read_and_told(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes("text,label\nM\u00fcller,anger\n".encode("cp1252"))
    labels = read_labels(path)
    assert labels.rows[0].source.text == "M\u00fcller"
    assert codes(labels) == {"table_format"}


def test_votes_are_counts_and_no_labels_to_ask_about(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("text,votes_joy,mood_votes_calm\nwe won,3,0\nyou won,0,1\nI won,3,0\nshe won,0,1\n")
    assert not codes(read_labels(path))


@pytest.mark.parametrize(("name", "told"), [("labels.tsv", set()), ("labels.csv", {"table_format"})])
def test_tabs_are_told_where_the_name_does_not_say_so(tmp_path: Path, name: str, told: set[str]) -> None:
    path = tmp_path / name
    path.write_text("text\tlabel\nwe won\tanger\n")
    assert codes(read_labels(path)) == told


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\xd0\xcf\x11\xe0"])
def test_a_spreadsheet_file_says_how_to_export_it(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "labels.xlsx"
    path.write_bytes(start + bytes(100))
    with pytest.raises(EmopipeError, match=r"EMO-501.*save it as CSV"):
        read_labels(path)


def test_all_faults_are_told_together(tmp_path: Path) -> None:
    rows = "".join(f"w{n},{n},{n - 1},x,train\n" for n in range(8))
    with pytest.raises(EmopipeError, match=r"has 9 faults: line 2: .*line 6: .*; and 4 more") as caught:
        read_labels(table(tmp_path, "text,start,end,label,split\n" + rows + "w,1,2,x,holdout\n"))
    assert caught.value.code == "EMO-501"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("text,label,label\na,b,c\n", "the column label twice"),
        ("text,voice_quality\na,good\n", "voice_quality, which is a name"),
        ("text,split\na,holdout\n", "line 2 .*'holdout'.*Use train"),
        ("text,start,end\na,5,4\n", "line 2 .*not after its start"),
        ("text,start\na,nan\n", "line 2 .*'nan'"),
        ("text,start\na,-1\n", "line 2 .*'-1'"),
        ('text,label\n"a,b\n', "line 2 .*quotes"),
    ],
)
def test_faults_name_the_line_and_what_to_do(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(EmopipeError, match=part) as caught:
        read_labels(table(tmp_path, text))
    assert caught.value.code == "EMO-501"


def test_splits_go_by_their_usual_names(tmp_path: Path) -> None:
    names = ["train", "Training", "trn", "val", "valid", "Validation", "DEV", "test", "Testing", ""]
    labels = read_labels(table(tmp_path, "text,split\n" + "".join(f"w{i},{n}\n" for i, n in enumerate(names))))
    assert [row.split for row in labels.rows] == [*["train"] * 3, *["valid"] * 4, *["test"] * 2, None]
    assert codes(labels) == {"split_renamed"}


def test_spellings_of_a_label_are_one_and_missing_ones_are_counted(tmp_path: Path) -> None:
    cells = ["joy", "JOY", "joy", "big  joy", "Big joy", "big joy", "NA", "nan", ""]
    labels = read_labels(table(tmp_path, "text,label\n" + "".join(f"w{i},{n}\n" for i, n in enumerate(cells))))
    assert [row.labels["label"] for row in labels.rows][:3] == ["joy"] * 3
    assert len({row.labels["label"] for row in labels.rows}) == 3
    assert codes(labels) == {"labels_joined", "labels_missing"}


@pytest.mark.parametrize(
    ("cells", "code"),
    [(["0", "1"] * 3, "labels_numbers"), (["1,5", "2"], "decimal_comma"), (["1.5", "2", "x"], "labels_mixed")],
)
def test_doubtful_numbers_are_told(tmp_path: Path, cells: list[str], code: str) -> None:
    rows = "".join(f"w{i};{n}\n" for i, n in enumerate(cells))
    assert code in codes(read_labels(table(tmp_path, "text;score\n" + rows)))


def test_a_file_is_found_in_another_unicode_form(tmp_path: Path) -> None:
    (tmp_path / unicodedata.normalize("NFD", "M\u00fcller.mp4")).touch()
    labels = read_labels(table(tmp_path, "file,label\nM\u00fcller.mp4,x\n"))
    assert labels.rows[0].source.media is not None
    assert labels.rows[0].source.media.exists()
    assert codes(labels) == {"file_name_form"}


def test_when_no_file_is_there_a_similar_name_is_proposed(tmp_path: Path) -> None:
    touch(tmp_path, "A b.mp4")
    with pytest.raises(EmopipeError, match=r"line 2 .*no file 'a b\.MP4'.*Did you mean A b\.mp4"):
        read_labels(table(tmp_path, "file\na b.MP4\n"))


def test_rows_beyond_the_recording_are_refused_and_late_ends_are_cut(tmp_path: Path) -> None:
    head = f"file,start,end\n{SAMPLE},"
    with pytest.raises(EmopipeError, match=r"line 2 .*6150 s to 9590 s.*milliseconds\?"):
        read_labels(table(tmp_path, head + "6150,9590\n"))
    labels = read_labels(table(tmp_path, head + "1,1000\n".replace("1000", "40")))
    assert codes(labels) == {"row_cut"}
    assert labels.rows[0].source.end is not None
    assert labels.rows[0].source.end < 40
    assert read_labels(table(tmp_path, head + "6150 ms,9590 ms\n")).rows[0].source.start == 6.15


def test_repeated_rows_are_used_once_and_overlapping_ones_are_told(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    labels = read_labels(table(tmp_path, "file,start,end\na.mp4,0,5\na.mp4,0,5\na.mp4,3,8\n"))
    assert len(labels.rows) == 2
    assert codes(labels) == {"rows_repeated", "rows_overlap"}


def test_recordings_beside_a_table_that_names_none(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    assert codes(read_labels(table(tmp_path, "text,label\nhello,x\n"))) == {"media_not_named"}
    with pytest.raises(EmopipeError, match=r"a\.mp4 and other recordings lie"):
        read_labels(table(tmp_path, "name,label\na,x\n"))


@pytest.mark.parametrize("missing", ["NA", "nan", "NaN", "#N/A", "<NA>", "NULL"])
def test_words_that_programs_write_into_empty_cells_are_not_taken_as_values(tmp_path: Path, missing: str) -> None:
    touch(tmp_path, "a.mp4")
    labels = read_labels(
        table(
            tmp_path,
            f"file,text,speaker,split,label\na.mp4,{missing},{missing},{missing},x\n"
            f"{missing},Na und?,anna,train,{missing}\n",
        )
    )
    first, second = (row.source for row in labels.rows)
    assert (first.text, first.speaker, labels.rows[0].split) == (None, None, None)
    assert (second.media, second.text, second.speaker) == (None, "Na und?", "anna")
    assert [row.labels["label"] for row in labels.rows] == ["x", ""]
    assert codes(labels) == {"labels_missing"}


@pytest.mark.parametrize("missing", [".", "?", "-", "#REF!", "#DIV/0!", "#NULL!", "(null)", "N/A"])
def test_missing_values_of_spreadsheets_and_statistics_programs_are_no_labels(tmp_path: Path, missing: str) -> None:
    labels = read_labels(table(tmp_path, f"text,score\na,0.5\nb,{missing}\nc,0.7\n"))
    assert [row.labels["score"] for row in labels.rows] == ["0.5", "", "0.7"]
    assert codes(labels) == {"labels_missing"}


@pytest.mark.parametrize(
    ("text", "coding"),
    [
        ("\u043f\u0440\u0438\u0432\u0435\u0442,\u0440\u0430\u0434\u043e\u0441\u0442\u044c", "cp1251"),
        ("\u043f\u0440\u0438\u0432\u0435\u0442,\u0440\u0430\u0434\u043e\u0441\u0442\u044c", "koi8-r"),
        ("\u03ba\u03b1\u03bb\u03b7\u03bc\u03ad\u03c1\u03b1,\u03c7\u03b1\u03c1\u03ac", "cp1253"),
        ("\u4f60\u597d,\u6124\u6012", "gbk"),
        ("\u4f60\u597d\u55ce,\u61a4\u6012", "big5"),
        ("\u3053\u3093\u306b\u3061\u306f,\u6012\u308a", "shift-jis"),
        ("\uc548\ub155,\ubd84\ub178", "cp949"),
    ],
)
def test_tables_in_other_encodings_are_refused_and_not_taken_as_western(tmp_path: Path, text: str, coding: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(f"text,label\n{text}\n".encode(coding))
    with pytest.raises(EmopipeError, match=r"EMO-501.*CSV UTF-8"):
        read_labels(path)


@pytest.mark.parametrize(
    "words", ["\u00dc", "d\u00e9j\u00e0 vu", "\u00ab\u00e0 l\u2019\u00e9t\u00e9\u00bb", "\u00bfQu\u00e9?"]
)
def test_western_words_are_read(tmp_path: Path, words: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(f"text,label\n{words},x\n".encode("cp1252"))
    assert read_labels(path).rows[0].source.text == words


@pytest.mark.parametrize(
    "columns",
    ["onset,offset", "start (s),end (s)", "Begin Time - ss.msec,End Time - ss.msec", "StartTime,stop", "tmin,tmax"],
)
def test_columns_that_look_like_times_and_are_not_read_are_told(tmp_path: Path, columns: str) -> None:
    labels = read_labels(table(tmp_path, f"file,{columns},label\n{SAMPLE},1,2,x\n"))
    assert codes(labels) == {"times_ignored"}
    assert not codes(read_labels(table(tmp_path, f"file,start,end,onset_ms\n{SAMPLE},1,2,5\n")))


def test_a_start_with_a_duration_and_no_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmopipeError, match=r"EMO-501.*no end.*start \+ duration"):
        read_labels(table(tmp_path, f"file,Start,Duration (s)\n{SAMPLE},1,2\n"))
    assert read_labels(table(tmp_path, f"file,start,end,duration\n{SAMPLE},1,3,2\n")).rows[0].source.end == 3


@pytest.mark.parametrize(
    ("times", "guess"),
    [
        ("00:05:00,00:09:00", "spreadsheet"),
        ("5000,9000", "milliseconds"),
        ("125,250", "frames"),
        ("80000,144000", "milliseconds"),
    ],
)
def test_times_beyond_the_recording_come_with_a_guess(tmp_path: Path, times: str, guess: str) -> None:
    with pytest.raises(EmopipeError, match=f"EMO-501.*line 2.*{guess}"):
        read_labels(table(tmp_path, f"file,start,end\n{SAMPLE},{times}\n"))


@pytest.mark.parametrize(
    "time", ["12:00:05 AM", "00:00:05:12", "0m9s", "5 Sek.", "1.234,5", "-0.5", "5e0", "\u0665", "0'05", "5-9", "1:75"]
)
def test_times_that_can_be_misread_are_refused(tmp_path: Path, time: str) -> None:
    with pytest.raises(EmopipeError, match=r"EMO-501.*not a time.*hh:mm:ss"):
        read_labels(table(tmp_path, f'file,start\n{SAMPLE},"{time}"\n'))


@pytest.mark.parametrize(
    "name", [r"C:\\Users\\anna\\clips\\a b.mp4", "/home/anna/a b.mp4", "file:///home/a b.mp4", "clips/a b.mp4"]
)
def test_of_paths_of_another_computer_the_file_beside_the_table_is_proposed(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "a b.mp4")
    with pytest.raises(EmopipeError, match=r"EMO-501.*Did you mean a b\.mp4"):
        read_labels(table(tmp_path, f"file\n{name}\n"))


@pytest.mark.parametrize(
    ("cells", "code", "read"),
    [
        (["-2.5", "1.5", "-99", "0.2"], "labels_far", "-2.5"),
        (["1", "5", "999", "3"], "labels_far", "1"),
        (["50%", "60 %", "12,5 %"], "labels_mixed", "50%"),
        (["1.234,5", "2,5"], "labels_mixed", "1.234,5"),
        (["1'234.5", "2.5"], "labels_mixed", "1'234.5"),
        (["\u22120.5", "0,5"], "decimal_comma", "-0.5"),
    ],
)
def test_numbers_of_other_locales_and_programs_are_read_or_told(
    tmp_path: Path, cells: list[str], code: str, read: str
) -> None:
    labels = read_labels(table(tmp_path, "text;score\n" + "".join(f"w{i};{n}\n" for i, n in enumerate(cells))))
    assert code in codes(labels)
    assert labels.rows[0].labels["score"] == read


@pytest.mark.parametrize("cells", [["-1", "0", "1", "0.5"], ["97", "98", "99", "88"], ["-9", "-8", "-7.5"]])
def test_numbers_among_others_are_not_doubted(tmp_path: Path, cells: list[str]) -> None:
    labels = read_labels(table(tmp_path, "text,score\n" + "".join(f"w{i},{n}\n" for i, n in enumerate(cells))))
    assert not codes(labels)


@given(st.floats(0, 90_000), st.sampled_from(".,"))
def test_times_are_read_as_they_are_written(value: float, point: str) -> None:
    value = round(value, 3)
    clock = f"{int(value // 3600):02}:{int(value % 3600 // 60):02}:{value % 60:06.3f}".replace(".", point)
    if not clock.split(":")[2].startswith("60"):
        assert seconds(clock) == pytest.approx(value, abs=1e-6)
    assert seconds(f"{value:.3f}".replace(".", point)) == pytest.approx(value)
    assert seconds(f"{value * 1000:.0f} ms") == pytest.approx(value, abs=1e-3)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: f"text,start,label\n{text}".encode()))
def test_any_bytes_are_a_table_or_are_refused_with_a_code(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    try:
        assert read_labels(path).rows
    except EmopipeError as error:
        assert error.code == "EMO-501"
        assert error.hint or error.advice
