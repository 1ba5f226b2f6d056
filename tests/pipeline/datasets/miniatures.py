"""Miniatures of published corpora: the layout of each as its authors hand it out, with a few rows and empty media."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np


@dataclass(frozen=True)
class Miniature:
    """A corpus's layout.

    Attributes:
        files: path -> content.
        counts: split -> rows.
        first: cells of a row, by which it is found by its id.
    """

    files: Mapping[str, str | bytes]
    counts: Mapping[str, int]
    first: Mapping[str, str]


def lay(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write files below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return folder


def media(*names: str) -> dict[str, str]:
    """Empty files."""
    return dict.fromkeys(names, "")


_MMSA_HEAD = "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n"
_MOSI = _MMSA_HEAD + (
    '03bSnISJMiM,1,"Anyhow, it was really good",2.4,,,,Positive,train\n'
    "03bSnISJMiM,11,They didn't really do a whole bunch,-1.0,,,,Negative,train\n"
    "0h-zjBukYpk,2,I just got it,0.0,,,,Neutral,valid\n"
    "5W7Z1C_fDaE,9,Not again,-2.2,,,,Negative,test\n"
)
_SIMS = _MMSA_HEAD + (
    "video_0001,0001,我不想嫁给李茶,-1.0,-0.8,-1.0,-0.6,Negative,train\n"
    "video_0001,0002,好,0.6,0.2,0.8,0.6,Positive,test\n"
    "video_0002,0001,不是,0.0,0.0,0.0,0.0,Neutral,valid\n"
)
_SIMS_CLIPS = media("Raw/video_0001/0001.mp4", "Raw/video_0001/0002.mp4", "Raw/video_0002/0001.mp4")
_MOSI_CLIPS = media("Raw/03bSnISJMiM/1.mp4", "Raw/03bSnISJMiM/11.mp4", "Raw/0h-zjBukYpk/2.mp4", "Raw/5W7Z1C_fDaE/9.mp4")
_MELD_HEAD = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
_MELD_TAIL = '8,21,"00:16:16,059","00:16:21,731"\n'
_IEMOCAP_EVALUATION = (
    "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
    "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\n"
    "C-E2:\tNeutral;\t()\nC-F1:\tNeutral;\t(curious)\nA-E3:\tval 3; act 2; dom  2;\t()\n\n"
    "[10.0100 - 11.3925]\tSes01F_impro01_F001\txxx\t[2.5000, 2.5000, 2.5000]\n\n"
    "[8.2400 - 9.9000]\tSes01F_impro01_M000\tfru\t[2.0000, 3.5000, 3.0000]\n"
)
_IEMOCAP_WORDS = (
    "Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.\n"
    "Ses01F_impro01_M000 [008.2400-009.9000]: Do you have your forms?\n"
    "Ses01F_impro01_F001 [010.0100-011.3925]: Yeah.\n"
)
_MINTREC_HEAD = "season\tepisode\tclip\ttext\tlabel\n"


def _cherma(name: str, *labels: str) -> dict[str, str]:
    keys = ("txt_label", "audio_label", "visual_label", "video_label")
    return {"audio_file": f"{name}.wav", "video_file": f"{name}.mp4", **dict(zip(keys, labels, strict=True))}


MINIATURES = {
    "mosi": Miniature(
        {"label.csv": _MOSI, **_MOSI_CLIPS},
        {"train": 2, "valid": 1, "test": 1},
        {
            "id": "03bSnISJMiM$_$11",
            "file": "Raw/03bSnISJMiM/11.mp4",
            "text": "They didn't really do a whole bunch",
            "speaker": "03bSnISJMiM",
            "split": "train",
            "dialogue": "03bSnISJMiM",
            "utterance": "11",
            "sentiment": "-1.0",
            "label": "negative",
        },
    ),
    "mosei": Miniature(
        {"MOSEI/label.csv": _MOSI, **{f"MOSEI/{name}": "" for name in _MOSI_CLIPS}},
        {"train": 2, "valid": 1, "test": 1},
        {"id": "5W7Z1C_fDaE$_$9", "file": "MOSEI/Raw/5W7Z1C_fDaE/9.mp4", "split": "test", "sentiment": "-2.2"},
    ),
    "ch-sims": Miniature(
        {"label.csv": _SIMS, **_SIMS_CLIPS},
        {"train": 1, "valid": 1, "test": 1},
        {
            "id": "video_0001$_$0002",
            "file": "Raw/video_0001/0002.mp4",
            "split": "test",
            "dialogue": "test/video_0001",
            "sentiment": "0.6",
            "sentiment_text": "0.2",
            "sentiment_voice": "0.8",
            "sentiment_face": "0.6",
        },
    ),
    # Numbers of clips lost their zeros in a spreadsheet.
    "ch-sims-v2": Miniature(
        {"meta.csv": _SIMS.replace(",000", ","), **_SIMS_CLIPS},
        {"train": 1, "valid": 1, "test": 1},
        {"id": "video_0001$_$2", "file": "Raw/video_0001/0002.mp4", "split": "test"},
    ),
    "meld": Miniature(
        {
            "train_sent_emo.csv": _MELD_HEAD
            + "1,It\x92s fine,Chandler,joy,positive,0,0,"
            + _MELD_TAIL
            + "2,Oh.,The Interviewer,neutral,neutral,0,1,"
            + _MELD_TAIL,
            "dev_sent_emo.csv": _MELD_HEAD + "1,What?,Joey,surprise,negative,0,0," + _MELD_TAIL,
            "test_sent_emo.csv": _MELD_HEAD + "1,Why?,Chandler,anger,negative,0,0," + _MELD_TAIL,
            **media(
                "train/train_splits/dia0_utt0.mp4",
                "train/train_splits/dia0_utt1.mp4",
                "train/train_splits/._dia0_utt0.mp4",
                "dev_splits_complete/dia0_utt0.mp4",
                "output_repeated_splits_test/dia0_utt0.mp4",
                "output_repeated_splits_test/final_videos_testdia0_utt0.mp4",
            ),
        },
        {"train": 2, "valid": 1, "test": 1},
        {
            "id": "test/dia0_utt0",
            "file": "output_repeated_splits_test/dia0_utt0.mp4",
            "text": "Why?",
            "speaker": "Chandler",
            "split": "test",
            "dialogue": "test/0",
            "utterance": "0",
            "label": "anger",
            "sentiment": "negative",
        },
    ),
    "cherma": Miniature(
        {
            "train.json": json.dumps([_cherma("a_1", "平静", "愤怒", "愤怒", "愤怒")], ensure_ascii=False),
            "dev.json": json.dumps([_cherma("b_1", "高兴", "高兴", "平静", "高兴")], ensure_ascii=False),
            "test.json": json.dumps([_cherma("c_1", "悲伤", "恐惧", "厌恶", "惊奇")], ensure_ascii=False),
            **media("video/train/a_1.mp4", "video/dev/b_1.mp4", "audio/test/c_1.wav"),
        },
        {"train": 1, "valid": 1, "test": 1},
        {
            "id": "a_1",
            "file": "video/train/a_1.mp4",
            "label": "anger",
            "label_text": "neutral",
            "label_voice": "anger",
            "label_face": "anger",
        },
    ),
    "iemocap": Miniature(
        {
            "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt": _IEMOCAP_EVALUATION,
            "Session1/dialog/EmoEvaluation/Categorical/Ses01F_impro01_e2_cat.txt": "Ses01F_impro01_F000 :Neutral;",
            "Session1/dialog/transcriptions/Ses01F_impro01.txt": _IEMOCAP_WORDS,
            **media(
                *(
                    f"Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_{turn}.wav"
                    for turn in ("F000", "F001", "M000")
                )
            ),
        },
        {"": 3},
        {
            "id": "Ses01F_impro01_M000",
            "file": "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M000.wav",
            "text": "Do you have your forms?",
            "speaker": "Ses01M",
            "dialogue": "Ses01F_impro01",
            "utterance": "1",
            "label": "frustration",
            "valence": "2",
            "arousal": "3.5",
            "session": "Session1",
        },
    ),
    "mintrec": Miniature(
        {
            "train.tsv": _MINTREC_HEAD + "S04\tE01\t12\tyou're late, again\tComplain\n",
            "dev.tsv": _MINTREC_HEAD + "S04\tE01\t13\ti am so sorry\tApologise\n",
            "test.tsv": _MINTREC_HEAD + "S05\tE02\t12\thello there\tGreet\n",
            **media("raw_data/S04/E01/12.mp4", "raw_data/S04/E01/13.mp4", "raw_data/S05/E02/12.mp4"),
        },
        {"train": 1, "valid": 1, "test": 1},
        {
            "id": "S05_E02_12",
            "file": "raw_data/S05/E02/12.mp4",
            "text": "hello there",
            "split": "test",
            "label": "Greet",
        },
    ),
    "mer2023": Miniature(
        {
            "train-label.csv": "name,discrete,valence\nsample_00000000,happy,3.5\nsample_00000001,worried,-1.0\n",
            "test1-label.csv": "name,discrete,valence\nsample_00000009,angry,-2.0\n",
            **media("train/sample_00000000.avi", "train/sample_00000001.avi", "test1/sample_00000009.avi"),
        },
        {"train": 2, "test": 1},
        {
            "id": "sample_00000009",
            "file": "test1/sample_00000009.avi",
            "split": "test",
            "label": "anger",
            "valence": "-2.0",
            "part": "test1",
        },
    ),
    # The speech of one actor as video with and without sound and as sound, another's as sound; and a song.
    "ravdess": Miniature(
        media(
            "Video_Speech_Actor_01/Actor_01/01-01-03-02-02-01-01.mp4",
            "Video_Speech_Actor_01/Actor_01/02-01-03-02-02-01-01.mp4",
            "Audio_Speech_Actors_01-24/Actor_01/03-01-03-02-02-01-01.wav",
            "Audio_Speech_Actors_01-24/Actor_02/03-01-02-01-01-02-02.wav",
            "Audio_Song_Actors_01-24/Actor_02/03-02-02-01-01-02-02.wav",
        ),
        {"": 2},
        {
            "id": "03-02-02-01-01",
            "file": "Video_Speech_Actor_01/Actor_01/01-01-03-02-02-01-01.mp4",
            "text": "Dogs are sitting by the door.",
            "speaker": "01",
            "label": "happiness",
            "intensity": "strong",
        },
    ),
    "ravdess-song": Miniature(
        media("Actor_02/03-02-02-01-01-02-02.wav", "Actor_02/03-01-02-01-01-02-02.wav"),
        {"": 1},
        {"id": "02-01-01-02-02", "file": "Actor_02/03-02-02-01-01-02-02.wav", "label": "calm"},
    ),
    "crema-d": Miniature(
        media("AudioWAV/1001_DFA_ANG_XX.wav", "VideoFlash/1001_DFA_ANG_XX.flv", "AudioWAV/1091_IEO_SAD_HI.wav"),
        {"": 2},
        {
            "id": "1001-DFA-ANG-XX",
            "file": "VideoFlash/1001_DFA_ANG_XX.flv",
            "text": "Don't forget a jacket.",
            "speaker": "1001",
            "label": "anger",
            "level": "",
        },
    ),
    "emodb": Miniature(
        media("wav/03a01Fa.wav", "wav/16b10Wb.wav", "wav/08a07La.wav"),
        {"": 3},
        {
            "id": "03-a01-F-a",
            "file": "wav/03a01Fa.wav",
            "text": "Der Lappen liegt auf dem Eisschrank.",
            "speaker": "03",
            "label": "happiness",
        },
    ),
    "savee": Miniature(
        media(
            "AudioData/DC/a01.wav",
            "AudioData/DC/sa15.wav",
            "AudioData/KL/n30.wav",
            "AudioVisualClip/DC/a1.avi",
            "JK_su03.wav",
        ),
        {"": 4},
        {"id": "DC-a-1", "file": "AudioVisualClip/DC/a1.avi", "speaker": "DC", "label": "anger"},
    ),
    "tess": Miniature(
        media(
            "OAF_angry/OAF_back_angry.wav",
            "OAF_neutral/OA_bite_neutral.wav",
            "YAF_pleasant_surprised/YAF_bar_ps.wav",
            "copy/YAF_pleasant_surprised/YAF_bar_ps.wav",
        ),
        {"": 3},
        {
            "id": "YAF-bar-ps",
            "file": "YAF_pleasant_surprised/YAF_bar_ps.wav",
            "text": "Say the word bar.",
            "speaker": "YAF",
            "label": "surprise",
        },
    ),
    "java-sed": Miniature(
        media("Actor_01/01-02-06-01.mp4", "Actor_01/01-02-06-01.wav", "Actor_10/10-04-05-02.wav"),
        {"": 2},
        {"id": "01-02-06-01", "file": "Actor_01/01-02-06-01.mp4", "speaker": "01", "label": "anger"},
    ),
    "fer2013": Miniature(
        media("train/happy/Training_3908.jpg", "test/angry/PrivateTest_88.jpg", "test/sad/PublicTest_5.jpg"),
        {"train": 1, "valid": 1, "test": 1},
        {"id": "angry-PrivateTest-88", "file": "test/angry/PrivateTest_88.jpg", "split": "test", "label": "anger"},
    ),
    "raf-db": Miniature(
        {
            "basic/EmoLabel/list_patition_label.txt": "train_00001.jpg 5\ntrain_00002.jpg 7\ntest_0001.jpg 1\n",
            **media(
                "basic/Image/aligned/train_00001_aligned.jpg",
                "basic/Image/aligned/train_00002_aligned.jpg",
                "basic/Image/aligned/test_0001_aligned.jpg",
                "basic/Image/original/train_00001.jpg",
            ),
        },
        {"train": 2, "test": 1},
        {
            "id": "train_00001",
            "file": "basic/Image/aligned/train_00001_aligned.jpg",
            "split": "train",
            "label": "sadness",
        },
    ),
}


def csd(group: str, videos: Mapping[str, Sequence[Sequence[float]]]) -> bytes:
    """A computational sequence of CMU's SDK: of each segment its start, its end and its labels."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for video, segments in videos.items():
            entry = file.create_group(f"{group}/data/{video}")
            numbers = np.array(segments, dtype=np.float32)
            entry["intervals"], entry["features"] = numbers[:, :2], numbers[:, 2:]
        file.create_group(f"{group}/metadata")
    return content.getvalue()


_MOSEI_FOLDS = (
    "standard_train_fold=['-3g5yACwYnA', '103460']\nstandard_valid_fold=['-lqc32Zpr7M']\n"
    "standard_test_fold=['-6rXp3zJ3kc', '-9YyBTjo1zo']\n"
)
#: MOSI and MOSEI as CMU hands them out, the labels and the split beside the raw download.
CMU = {
    "mosi": Miniature(
        {
            "Raw/Transcript/Segmented/03bSnISJMiM.annotprocessed": "1_DELIM_IT WAS GOOD\n2_DELIM_THEY _DID_\n",
            "Raw/Transcript/Segmented/WKA5OygbEKI.annotprocessed": "1_DELIM_I JUST GOT IT\n",
            "Raw/Transcript/Segmented/tmZoasNr4rU.annotprocessed": "1_DELIM_NOT AGAIN\n",
            "Raw/Transcript/Full/tmZoasNr4rU.textonly": "NOT AGAIN",
            "Labels/CMU_MOSI_Opinion_Labels.csd": csd(
                "Opinion Segment Labels",
                {
                    "03bSnISJMiM": [(0.5, 2.0, 2.4), (2.0, 4.5, -1.0)],
                    "WKA5OygbEKI": [(0.0, 1.5, 0.0)],
                    "tmZoasNr4rU": [(1.0, 3.0, -2.2)],
                },
            ),
            **media(
                "Raw/Video/Segmented/03bSnISJMiM_1.mp4",
                "Raw/Video/Segmented/03bSnISJMiM_2.mp4",
                "Raw/Video/Segmented/WKA5OygbEKI_1.mp4",
                "Raw/Video/Segmented/tmZoasNr4rU_1.mp4",
                "Raw/Audio/WAV_16000/Segmented/03bSnISJMiM_1.wav",
                "Raw/Audio/WAV_16000/Segmented/tmZoasNr4rU_1.wav",
                "Raw/Audio/WAV_16000/Full/03bSnISJMiM.wav",
            ),
        },
        {"train": 2, "valid": 1, "test": 1},
        {
            "id": "03bSnISJMiM$_$2",
            "file": "Raw/Video/Segmented/03bSnISJMiM_2.mp4",
            "text": "THEY _DID_",
            "start": "",
            "speaker": "03bSnISJMiM",
            "split": "train",
            "dialogue": "03bSnISJMiM",
            "utterance": "2",
            "sentiment": "-1",
            "corpus": "mosi",
        },
    ),
    "mosei": Miniature(
        {
            "Raw/Transcript/Segmented/Combined/-3g5yACwYnA.txt": "-3g5yACwYnA___2___0.0___6.46___Hi there\n"
            "-3g5yACwYnA___10___6.46___9.2___It___was fine\n",
            "Raw/Transcript/Segmented/Combined/-lqc32Zpr7M.txt": "-lqc32Zpr7M___0___1.1___2.5___Yes\n",
            "Raw/Transcript/Segmented/Combined/-6rXp3zJ3kc.txt": "-6rXp3zJ3kc___0___0___1.5___No\n",
            "CMU_MOSEI_Labels.csd": csd(
                "All Labels",
                {
                    "-3g5yACwYnA": [
                        (6.46, 9.2, 1.0, 0.67, 0.0, 0.0, 0.0, 0.33, 0.0),
                        (9.5, 10.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
                    ],
                    "-lqc32Zpr7M": [(1.1, 2.5, -0.33, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0)],
                    "-6rXp3zJ3kc": [(0.0, 1.5, -2.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0)],
                    "nobody": [(0.0, 1.5, -2.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0)],
                },
            ),
            "cmu_mosei_std_folds.py": _MOSEI_FOLDS,
            **media(
                "Raw/Videos/Full/Combined/-3g5yACwYnA.mp4",
                "Raw/Videos/Full/Combined/-lqc32Zpr7M.mp4",
                "Raw/Videos/Segmented/Combined/-3g5yACwYnA_10.mp4",
                "Raw/Audio/Full/WAV_16000/-6rXp3zJ3kc.wav",
                "Raw/Audio/Full/WAV_16000/-3g5yACwYnA.wav",
            ),
        },
        {"train": 2, "valid": 1, "test": 1},
        {
            "id": "-3g5yACwYnA$_$10",
            "file": "Raw/Videos/Segmented/Combined/-3g5yACwYnA_10.mp4",
            "text": "It___was fine",
            "split": "train",
            "utterance": "1",
            "sentiment": "1",
            "happiness": "0.67",
            "disgust": "0.33",
        },
    ),
}
