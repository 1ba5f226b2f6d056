"""Published corpora: from the files as their authors hand them out to a labels table, a data set and a model."""

from __future__ import annotations

import csv
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from emopipe import api
from emopipe.errors import BackendUnusable, CorpusError, EmopipeError, OptionConflict, UnknownName
from emopipe.models.data.reading import read
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.datasets.corpora import registry
from emopipe.pipeline.datasets.corpora.corpus import CorpusFolder, Row
from emopipe.pipeline.datasets.corpora.reading import CorpusTable, _unique, check_features, read_corpus, write_labels
from emopipe.pipeline.datasets.labels import read_labels
from tests.conftest import ROOT, SHARED, blank, write_media
from tests.models import mintrec_files, mmsa_files
from tests.pipeline.backends.test_plugins import distribution
from tests.pipeline.datasets.commands import emopipe
from tests.pipeline.datasets.miniatures import CMU, MINIATURES, Miniature, csd, lay

DATA = SHARED / "data"


def rows_of(corpus: CorpusTable) -> dict[str, dict[str, str]]:
    return {cells["id"]: cells for cells in corpus.table.rows.values()}


def codes(corpus: CorpusTable) -> set[str]:
    return {one.code for one in corpus.labels().reasons}


# Layouts


def test_every_corpus_has_a_miniature_and_says_where_to_ask() -> None:
    assert registry.names()[: len(registry.BUILT_IN)] == list(MINIATURES)
    for name in MINIATURES:
        known = registry.corpus(name)
        assert known.name == name
        assert all([known.title, known.licence, known.layout, known.labels]) and known.source.startswith("http")


@pytest.mark.parametrize("name", MINIATURES)
def test_a_corpus_becomes_a_labels_table(name: str, tmp_path: Path) -> None:
    check_becomes_a_table(name, MINIATURES[name], tmp_path)


def check_becomes_a_table(name: str, small: Miniature, tmp_path: Path) -> None:
    corpus = read_corpus(name, lay(tmp_path / "corpus", small.files))
    assert corpus.counts == small.counts and not corpus.missing
    row = rows_of(corpus)[small.first["id"]]
    assert {column: row.get(column, "") for column in small.first} == small.first
    write_labels(corpus.table, tmp_path / "labels.csv")
    written = read_labels(tmp_path / "labels.csv", tmp_path / "corpus")
    assert written.rows == corpus.labels().rows
    assert all(one.source.path and one.source.path.exists() for one in written.rows)
    assert ("corpus_counts" in codes(corpus)) == bool(corpus.corpus.counts)


def test_words_that_were_stored_as_windows_1252_are_mended(tmp_path: Path) -> None:
    corpus = read_corpus("meld", lay(tmp_path, MINIATURES["meld"].files))
    assert rows_of(corpus)["train/dia0_utt0"]["text"] == "It\u2019s fine"


def test_of_several_files_of_one_recording_one_is_used(tmp_path: Path) -> None:
    corpus = read_corpus("tess", lay(tmp_path, MINIATURES["tess"].files))
    assert "rows_repeated" in codes(corpus) and len(corpus.table.rows) == 3
    corpus = read_corpus("ravdess", lay(tmp_path / "r", MINIATURES["ravdess"].files))
    assert {cells["file"][-4:] for cells in corpus.table.rows.values()} == {".mp4", ".wav"}
    assert "corpus_files_unknown" in codes(corpus)  # the song


def test_iemocap_is_cut_from_the_video_of_the_dialogue_where_that_is_there(tmp_path: Path) -> None:
    folder = lay(tmp_path, MINIATURES["iemocap"].files)
    video = folder / "Session1" / "dialog" / "avi" / "DivX" / "Ses01F_impro01.avi"
    video.parent.mkdir(parents=True)
    write_media(video.with_suffix(".mp4"), blank(12)).rename(video)
    corpus = read_corpus("iemocap", folder)
    row = rows_of(corpus)["Ses01F_impro01_M000"]
    assert (row["file"], row["start"], row["end"]) == (video.relative_to(folder).as_posix(), "8.24", "9.9")
    assert rows_of(corpus)["Ses01F_impro01_F001"]["label"] == ""  # nobody agreed
    assert [one.source.start for one in corpus.labels().rows] == [6.2901, 8.24, 10.01]


def test_meld_alone_in_one_split_needs_no_folder_of_that_name(tmp_path: Path) -> None:
    files = MINIATURES["meld"].files
    lay(tmp_path, {"dev_sent_emo.csv": files["dev_sent_emo.csv"], "clips/dia0_utt0.mp4": ""})
    assert not read_corpus("meld", tmp_path).missing


FER = "emotion,pixels,Usage\n" + "".join(
    f"{code},{' '.join([str(grey)] * 2304)},{usage}\n"
    for code, grey, usage in ((0, 10, "Training"), (3, 200, "PublicTest"), (6, 90, "PrivateTest"))
)
VOTES = (
    "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"
    "Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0\n"
    "PublicTest,fer0000001.png,0,5,5,0,0,0,0,0,0,0\n"
    "PrivateTest,,0,0,0,0,0,0,0,0,0,10\n"
)


def test_pictures_of_fer2013_are_written_from_its_table_and_labelled_by_votes(tmp_path: Path) -> None:
    import cv2

    folder = lay(tmp_path / "fer", {"fer2013.csv": FER})
    with pytest.raises(CorpusError, match="emopipe corpus fer2013"):
        read_corpus("fer2013", folder)
    plain = read_corpus("fer2013", folder, tmp_path / "pictures")
    assert [cells["label"] for cells in plain.table.rows.values()] == ["anger", "happiness", "neutral"]
    lay(folder, {"fer2013new.csv": VOTES})
    voted = read_corpus("fer2013", folder, tmp_path / "pictures")
    assert [cells["label"] for cells in voted.table.rows.values()] == ["neutral", "", ""]
    row = rows_of(voted)["fer0000000"]
    assert (row["label_fer2013"], row["votes_neutral"], row["split"]) == ("anger", "4", "train")
    picture = cv2.imread(row["file"], cv2.IMREAD_UNCHANGED)
    assert picture.shape == (48, 48) and (picture == 10).all()
    assert [one.source.image is not None for one in voted.labels().rows] == [True] * 3


def test_votes_of_ferplus_beside_its_own_pictures(tmp_path: Path) -> None:
    pictures = dict.fromkeys(("FER2013Train/fer0000000.png", "FER2013Valid/fer0000001.png"), "")
    corpus = read_corpus("fer2013", lay(tmp_path, {"fer2013new.csv": VOTES, **pictures}))
    assert [cells["split"] for cells in corpus.table.rows.values()] == ["train", "valid"]
    assert corpus.missing == ["FER2013/fer0000002.png"]


@pytest.mark.parametrize("broken", ["1 2 3", " ".join(["300"] * 2304), "grey"])
def test_a_damaged_picture_of_fer2013_is_named(tmp_path: Path, broken: str) -> None:
    lay(tmp_path, {"fer2013.csv": f"emotion,pixels,Usage\n0,{broken},Training\n"})
    with pytest.raises(CorpusError, match="picture 1 is not 48 x 48"):
        read_corpus("fer2013", tmp_path, tmp_path / "pictures")


# Real corpora, where they lie beside the checkout


@pytest.mark.parametrize(("name", "files"), [("emodb", "emodb"), ("java-sed", "javased"), ("fer2013", "fer2013")])
def test_names_of_real_files_give_the_labels_that_they_are_known_by(name: str, files: str, tmp_path: Path) -> None:
    if not (DATA / f"{files}.zip").is_file():
        pytest.skip("the corpus is not here")
    with zipfile.ZipFile(DATA / f"{files}.zip") as archive:
        lay(tmp_path, {member: "" for member in archive.namelist() if not member.endswith("/")})
    with (DATA / f"{files}.csv").open(encoding="utf-8", newline="") as table:
        known = {row["file"]: row for row in csv.DictReader(table)}
    corpus = read_corpus(name, tmp_path)
    found = {cells["file"]: cells for cells in corpus.table.rows.values()}
    assert found.keys() == known.keys()
    for file, cells in found.items():
        assert cells["label"] == known[file]["emotion"]
        assert cells.get("text", "") == known[file].get("text", "") and cells.get("split") == known[file].get("split")
        assert known[file].get("speaker", "").endswith(cells.get("speaker", ""))


# MOSI and MOSEI as CMU hands them out


@pytest.mark.parametrize("name", CMU)
def test_cmus_own_files_become_a_labels_table(name: str, tmp_path: Path) -> None:
    check_becomes_a_table(name, CMU[name], tmp_path)


def test_labels_and_split_that_the_raw_download_lacks_are_asked_for(tmp_path: Path) -> None:
    for name, lacks, where in (
        ("mosi", "CMU_MOSI_Opinion_Labels.csd", "CMU-MOSI/labels/CMU_MOSI_Opinion_Labels.csd"),
        ("mosei", "CMU_MOSEI_Labels.csd", "CMU-MOSEI/labels/CMU_MOSEI_Labels.csd"),
        ("mosei", "cmu_mosei_std_folds.py", "standard_datasets/CMU_MOSEI"),
    ):
        folder = tmp_path / lacks
        lay(folder, {path: content for path, content in CMU[name].files.items() if not path.endswith(lacks)})
        with pytest.raises(CorpusError, match=rf"not part of .* raw download: .*{lacks}") as caught:
            read_corpus(name, folder)
        assert where in caught.value.hint and "CMU-MultimodalSDK" in caught.value.hint


def test_mosis_older_table_of_labels_gives_the_same_rows(tmp_path: Path) -> None:
    files = dict(CMU["mosi"].files)
    del files["Labels/CMU_MOSI_Opinion_Labels.csd"]
    older = (
        "0.5,2.0,03bSnISJMiM,1,2.4\n2.0,4.5,03bSnISJMiM,2,-1.0\n0.0,1.5,WKA5OygbEKI,1,0.0\n1.0,3.0,tmZoasNr4rU,1,-2.2\n"
    )
    corpus = read_corpus("mosi", lay(tmp_path / "old", {**files, "OpinionLevelSentiment.csv": older}))
    assert rows_of(corpus) == rows_of(read_corpus("mosi", lay(tmp_path / "new", CMU["mosi"].files)))
    lay(tmp_path / "old", {"OpinionLevelSentiment.csv": older + "1.0,3.0,tmZoasNr4rU,two,-2.2\n"})
    with pytest.raises(CorpusError, match=r"line 5 of OpinionLevelSentiment\.csv is not start, end"):
        read_corpus("mosi", tmp_path / "old")


def test_segments_are_cut_from_whole_videos_where_there_are_no_clips(tmp_path: Path) -> None:
    files = {path: content for path, content in CMU["mosi"].files.items() if "Video/Segmented" not in path}
    corpus = read_corpus("mosi", lay(tmp_path, {**files, "Raw/Video/Full/03bSnISJMiM.mp4": ""}))
    rows = rows_of(corpus)
    cut = rows["03bSnISJMiM$_$2"]
    assert (cut["file"], cut["start"], cut["end"]) == ("Raw/Video/Full/03bSnISJMiM.mp4", "2", "4.5")
    sound = rows["tmZoasNr4rU$_$1"]
    assert (sound["file"], sound["start"]) == ("Raw/Audio/WAV_16000/Segmented/tmZoasNr4rU_1.wav", "")
    assert corpus.missing == ["Raw/Video/Segmented/WKA5OygbEKI_1.mp4"]


def test_rows_of_mosei_outside_of_the_standard_split_are_left_out_and_told(tmp_path: Path) -> None:
    corpus = read_corpus("mosei", lay(tmp_path, CMU["mosei"].files))
    (told,) = (one for one in corpus.reasons if one.code == "rows_without_split")
    assert told.what == "1 rows are of videos that the standard split leaves out"
    unmatched = rows_of(corpus)["-3g5yACwYnA$_$at9.5"]
    assert unmatched["text"] == "" and unmatched["start"] == "9.5"  # no line of the transcript begins there


@pytest.mark.parametrize(
    ("file", "content", "what"),
    [
        ("cmu_mosei_std_folds.py", "standard_train_fold = open('x')\n", "not the SDK's file of the split"),
        ("cmu_mosei_std_folds.py", "standard_train_fold = ['a']\n", "there is no standard_test_fold"),
        ("cmu_mosei_std_folds.py", "standard_train_fold = [", "not the SDK's file of the split"),
        ("CMU_MOSEI_Labels.csd", "not HDF5", "not a computational sequence of 7 labels"),
        ("CMU_MOSEI_Labels.csd", csd("Labels", {"a": [(0.0, 1.0, 2.0)]}), r"a has labels \(1, 1\)"),
    ],
)
def test_damaged_labels_and_splits_are_told(tmp_path: Path, file: str, content: str | bytes, what: str) -> None:
    lay(tmp_path, {**CMU["mosei"].files, file: content})
    with pytest.raises(CorpusError, match=what):
        read_corpus("mosei", tmp_path)


def test_the_table_of_mmsa_goes_before_cmus_labels_and_names_videos_not_their_sound(tmp_path: Path) -> None:
    files = {**CMU["mosi"].files, "label.csv": MINIATURES["mosi"].files["label.csv"]}
    corpus = read_corpus("mosi", lay(tmp_path, files))
    row = rows_of(corpus)["03bSnISJMiM$_$1"]
    assert (row["label"], row["file"]) == ("positive", "Raw/Video/Segmented/03bSnISJMiM_1.mp4")


# Checks that all corpora share


def test_missing_recordings_are_listed_and_leave_the_words(tmp_path: Path) -> None:
    folder = lay(tmp_path, MINIATURES["meld"].files)
    (folder / "dev_splits_complete" / "dia0_utt0.mp4").unlink()
    corpus = read_corpus("meld", folder)
    assert corpus.missing == ["dev_splits_complete/dia0_utt0.mp4"]
    assert "media_missing" in codes(corpus)
    row = rows_of(corpus)["valid/dia0_utt0"]
    assert (row["file"], row["text"]) == ("", "What?")


def test_rows_without_words_go_with_their_recording(tmp_path: Path) -> None:
    folder = lay(tmp_path, MINIATURES["mer2023"].files)
    (folder / "train" / "sample_00000001.avi").unlink()
    corpus = read_corpus("mer2023", folder)
    assert len(corpus.table.rows) == 2 and corpus.missing == ["train/sample_00000001.avi"]
    shutil.rmtree(folder / "train")
    shutil.rmtree(folder / "test1")
    with pytest.raises(CorpusError, match=r"none of 3 recordings.*Expected: train-label\.csv"):
        read_corpus("mer2023", folder)


def test_numbers_of_rows_are_compared_with_the_complete_corpus(tmp_path: Path) -> None:
    corpus = read_corpus("mosi", lay(tmp_path, MINIATURES["mosi"].files))
    (told,) = (one for one in corpus.reasons if one.code == "corpus_counts")
    assert told.what == "mosi: train has 2 rows of 1284, valid has 1 rows of 229, test has 1 rows of 686"


def test_speakers_in_several_splits_are_told(tmp_path: Path) -> None:
    corpus = read_corpus("meld", lay(tmp_path, MINIATURES["meld"].files))
    (told,) = (one for one in corpus.reasons if one.code == "speakers_in_splits")
    assert "Chandler" in told.what and "--allow-speaker-overlap" in told.hint


@pytest.mark.parametrize("name", MINIATURES)
def test_another_folder_is_refused_with_the_layout(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(CorpusError) as caught:
        read_corpus(name, tmp_path, tmp_path / "pictures")
    assert caught.value.code == "EMO-510" and registry.corpus(name).layout in caught.value.hint


def test_unusable_folders_and_names(tmp_path: Path) -> None:
    with pytest.raises(EmopipeError, match="EMO-101"):
        read_corpus("mosi", tmp_path / "none")
    with pytest.raises(UnknownName, match="Did you mean mosei"):
        read_corpus("moseii", tmp_path)
    two = {f"{part}/{file}": text for part in ("MOSI", "MOSEI") for file, text in MINIATURES["mosi"].files.items()}
    with pytest.raises(CorpusError, match=r"several files label\.csv"):
        read_corpus("mosi", lay(tmp_path / "two", two))
    lay(tmp_path / "twice", {**MINIATURES["mosi"].files})
    table = tmp_path / "twice" / "label.csv"
    table.write_text(table.read_text("utf-8") + "03bSnISJMiM,1,Other words,1.0,,,,Positive,train\n", "utf-8")
    with pytest.raises(CorpusError, match=r"the same id: 03bSnISJMiM\$_\$1"):
        read_corpus("mosi", tmp_path / "twice")
    lay(tmp_path / "other", {"label.csv": "video_id,clip_id,text\na,1,x\n"})
    with pytest.raises(CorpusError, match="has no column label"):
        read_corpus("mosi", tmp_path / "other")


names = st.sampled_from(["a", "b", "c"])


@given(st.lists(st.tuples(st.sampled_from(["train", "valid", "test"]), names, names), unique_by=lambda row: row[:2]))
def test_ids_and_conversations_never_meet_across_splits(rows: list[tuple[str, str, str]]) -> None:
    unique = _unique([Row(name, {}, split=split, dialogue=dialogue) for split, name, dialogue in rows])
    assert len({row.id for row in unique}) == len(rows)
    splits: dict[str, set[str]] = {}
    for row in unique:
        splits.setdefault(row.dialogue, set()).add(row.split)
    assert all(len(one) == 1 for one in splits.values())
    assert len(splits) == len({(split, dialogue) for split, _, dialogue in rows})


# Feature files


def test_a_file_of_features_is_compared_with_the_corpus(tmp_path: Path) -> None:
    path = mmsa_files.write(tmp_path / "unaligned_50.pkl", mmsa_files.content(aligned=False))
    checked = check_features("mosi", path)
    assert checked.counts == mmsa_files.COUNTS and [one.code for one in checked.reasons] == ["corpus_counts"]
    assert checked.sizes == {"text": 16, "face": 7, "voice": 5} and not checked.missing
    with pytest.raises(CorpusError, match="emopipe train"):
        read_corpus("mosi", path)
    tables = mmsa_files.content()
    dev = mmsa_files.write(tmp_path / "dev.pkl", {"dev" if name == "valid" else name: tables[name] for name in tables})
    done = CliRunner().invoke(app, ["corpus", "mosei", str(dev)])
    assert done.exit_code == 0 and "24 in train, 8 in valid, 6 in test" in done.output


def test_a_folder_of_mintrecs_features_is_checked_and_what_is_missing_listed(tmp_path: Path) -> None:
    rows = mintrec_files.utterances()
    folder = mintrec_files.write(tmp_path / "MIntRec", rows, text=False)
    (folder / "audio_data" / "audio_feats.pkl").unlink()
    voices = {row["id"]: row["voice"][:, :9] for row in rows[2:]}
    mintrec_files.pickled(folder / "audio_data" / "audio_feats.pkl", voices)
    told = emopipe("corpus", "mintrec", folder, "--out", tmp_path / "labels.csv").output
    told = " ".join(told.split())
    for what in (
        "24 in train, 8 in valid, 8 in test",
        "corpus_counts",
        "features_missing",
        "2 features are missing: voice/S04_E01_0, voice/S04_E01_1",
        "feature_sizes",
        "voice has 9 numbers a step, not 768",
        "Numbers a step: face 256, voice 9",
        f"--corpus mintrec --modalities text --text bert-base-uncased --out {folder}/text_data",
        f"emopipe train {folder} --label label",
    ):
        assert what in told, what
    missing = tmp_path / "labels-missing-features.txt"
    assert missing.read_text() == "voice/S04_E01_0\nvoice/S04_E01_1\n"
    assert not (tmp_path / "labels.csv").exists()
    clip = folder / "raw_data" / "S04" / "E01" / "0.mp4"
    clip.parent.mkdir(parents=True)
    clip.touch()
    told = emopipe("corpus", "mintrec", folder, "--out", tmp_path / "labels.csv").output
    assert "40 rows are in" in told and "media_missing" in told
    assert len((tmp_path / "labels-missing.txt").read_text().splitlines()) == 39 and missing.exists()


# Guards


def test_the_table_of_a_corpus_beside_its_clips_is_not_taken_for_text(tmp_path: Path) -> None:
    folder = lay(tmp_path, MINIATURES["mosi"].files)
    with pytest.raises(EmopipeError, match=r"EMO-501.*Raw/.*emopipe corpus mosi .*or emopipe corpus mosei"):
        read_labels(folder / "label.csv")
    shutil.rmtree(folder / "Raw")
    with pytest.raises(EmopipeError, match=r"EMO-501.*mode holds train, valid, test.*emopipe corpus mosi"):
        read_labels(folder / "label.csv")
    folder = lay(tmp_path / "meld", MINIATURES["meld"].files)
    with pytest.raises(EmopipeError, match=r"EMO-501.*emopipe corpus meld"):
        read_labels(folder / "train_sent_emo.csv")


def test_recordings_in_folders_below_a_table_are_seen(tmp_path: Path) -> None:
    lay(tmp_path, {"labels.csv": "text,label\nhello,x\n", "clips/day 1/a.mp4": ""})
    (told,) = read_labels(tmp_path / "labels.csv").reasons
    assert told.code == "media_not_named" and "clips/day 1/a.mp4" in told.what


def test_a_column_that_looks_like_a_split_is_not_ignored(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("text,label,part\nhello,x,train\nyou,y,dev\n")
    with pytest.raises(EmopipeError, match=r"EMO-501.*the column part holds train, dev.*Call it split"):
        read_labels(table)
    table.write_text("text,label,part,split\nhello,x,train,train\nyou,y,dev,test\n")
    assert [one.code for one in read_labels(table).reasons] == ["split_ignored"]
    table.write_text("text,label,part\nhello,x,train\nyou,y,bus\n")
    assert not read_labels(table).reasons


def test_a_conversation_in_several_splits_is_told(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("text,label,dialogue,split\nhello,x,0,train\nyou,y,0,test\nwho,y,1,test\n")
    (told,) = read_labels(table).reasons
    assert told.code == "dialogue_splits" and "'0'" in told.what


# Plugins


PLUGIN = """
from emopipe.pipeline.datasets.corpora.corpus import Corpus, Row

def rows(folder):
    for file in folder.recordings:
        yield Row(file, {"label": file.split("_")[0]}, file)

TINY = Corpus("tiny", "Tiny", "none", "voice", "words", "free", "http://example.org", "LABEL_N.wav", rows)
BROKEN = Corpus("broken", "Broken", "", "", "", "", "", "LABEL_N.wav", lambda folder: 1 / 0)
NONE = 3
"""


def test_other_packages_bring_corpora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    points = {"tiny": "tinycorpus:TINY", "broken": "tinycorpus:BROKEN", "none": "tinycorpus:NONE"}
    distribution(site, "tinycorpus", {registry.GROUP: points}, PLUGIN)
    folder = lay(tmp_path / "data", {"anger_1.wav": "", "fear_1.wav": ""})
    assert [cells["label"] for cells in read_corpus("tiny", folder).table.rows.values()] == ["anger", "fear"]
    assert "tiny" in registry.names()
    listed = emopipe("corpus", "list", "--json").output
    assert '"Tiny"' in listed and "is not a Corpus" in listed
    with pytest.raises(CorpusError, match=r"ZeroDivisionError.*Expected: LABEL_N"):
        read_corpus("broken", folder)
    with pytest.raises(BackendUnusable, match="is not a Corpus but a int"):
        read_corpus("none", folder)
    distribution(site, "secondcorpus", {registry.GROUP: {"tiny": "tinycorpus:TINY"}})
    with pytest.raises(UnknownName, match="brought by"):
        read_corpus("tiny", folder)


def test_the_corpus_of_the_sample_plugin_reads_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "plugin"))
    from emopipe_sample.weather import rows

    words = "said,mood,part\nWhat a day,happy,train\nRain again,sad,test\n"
    folder = CorpusFolder(lay(tmp_path, {"words.csv": words, "sound/2.wav": ""}))
    assert [(row.file, row.split, row.text) for row in rows(folder)] == [
        ("sound/2.wav", "train", "What a day"),
        ("sound/3.wav", "test", "Rain again"),
    ]


# Commands


def test_commands_list_describe_and_write(tmp_path: Path) -> None:
    listed = emopipe("corpus", "list", "--json").output
    assert all(f'"{name}"' in listed for name in MINIATURES)
    described = emopipe("corpus", "iemocap").output
    assert "https://sail.usc.edu/iemocap" in described and "EmoEvaluation" in described
    folder = lay(tmp_path / "meld", MINIATURES["meld"].files)
    (folder / "dev_splits_complete" / "dia0_utt0.mp4").unlink()
    told = emopipe("corpus", "meld", folder, "--out", tmp_path / "labels.csv").output
    assert "GPL-3.0" in told and "4 rows are in" in told and "media_missing" in told
    assert (tmp_path / "labels-missing.txt").read_text() == "dev_splits_complete/dia0_utt0.mp4\n"
    assert len(read_labels(tmp_path / "labels.csv", folder).rows) == 4
    refused = CliRunner().invoke(app, ["corpus", "mosi", str(folder)])
    assert refused.exit_code == 2 and "EMO-510" in refused.output


@pytest.mark.slow
def test_lines_before_a_line_of_meld_are_of_its_own_split(tmp_path: Path, weight: Callable[[str], Path]) -> None:
    weight("minilm-l6-emotion")
    head = "Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID\n"
    files = {
        f"{split}_sent_emo.csv": head + "".join(f"{split} {n},Ross,joy,positive,0,{n}\n" for n in range(3))
        for split in ("train", "dev", "test")
    }
    folder, out = lay(tmp_path / "meld", files), tmp_path / "d"
    emopipe("extract", folder, "--corpus", "meld", "--modalities", "text", "--jobs", "1", "--out", out)
    dataset = read(out)
    for name, words in zip(dataset.ids, dataset.column("words"), strict=True):
        split, place = words.split()
        assert dataset.transcript.earlier(name) == tuple(f"{split} {n}" for n in range(int(place)))
    with pytest.raises(OptionConflict):
        api.extract(folder, tmp_path / "e", corpus="meld", labels=tmp_path / "labels.csv")
