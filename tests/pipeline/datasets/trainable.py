"""Published corpora in miniature that can be trained on: their layouts, with media in which somebody speaks."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from emopipe.pipeline.media.decoding import Media
from emopipe.pipeline.media.finding import IMAGE_SUFFIXES
from tests.conftest import RATE, SAMPLES, write_media

#: Seconds at which somebody speaks in samples/interview.mp4, first neutral, then happy; and for how long of each.
TAKES, SECONDS = (1.4, 6.4), 1.6
FPS = 5
#: Rows and columns of the sample's pictures in which the face is, and the width to which they are made small.
FACE, WIDTH = (slice(60, 420), slice(150, 510)), 120
EMOE = ("--epochs", "1")
WORDS = ("I hate it", "I love it")
CHINESE = ("我不喜欢", "我很喜欢")


@dataclass(frozen=True)
class Trainable:
    """A corpus from which something can be learned.

    Attributes:
        corpus: its name.
        files: path -> text, or the number of the take that a video, a sound or a picture holds.
        counts: split -> rows with a label; "" where the corpus has no splits.
        label: the column to learn.
        classes: what there is to learn; none where that are values.
        unlabelled: rows without a label.
        missing: files that the corpus names and that are not there; their rows have words.
        extract, train: options of these commands; training EMOE, which is the default, takes longer.
    """

    corpus: str
    files: Mapping[str, str | int]
    counts: Mapping[str, int]
    label: str = "label"
    classes: tuple[str, ...] = ("anger", "happiness")
    unlabelled: int = 0
    missing: tuple[str, ...] = ()
    extract: tuple[str, ...] = ()
    train: tuple[str, ...] = ("--model", "linear")

    def lay(self, folder: Path) -> Path:
        """Write its files below a folder."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else medium(path.suffix, content))
        return folder


@cache
def medium(suffix: str, take: int) -> bytes:
    """A take as a file of a kind: the face, the voice, or both."""
    frames, sound = _take(take)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"take{suffix}")
        if suffix in IMAGE_SUFFIXES:
            cv2.imwrite(str(path), frames[0][:, :, ::-1])
        else:
            write_media(path, [] if suffix == ".wav" else frames, sound, fps=FPS)
        return path.read_bytes()


@cache
def _take(number: int) -> tuple[list[np.ndarray], np.ndarray]:
    """RGB pictures, and sound."""
    path, start = SAMPLES / "interview.mp4", TAKES[number]
    with Media(path) as media:
        assert media.audio is not None
        sound = np.asarray(media.audio[round(start * RATE) : round((start + SECONDS) * RATE)])
    times, frames = iter(start + np.arange(SECONDS * FPS) / FPS), []
    with av.open(str(path)) as container:
        due = next(times)
        for frame in container.decode(video=0):
            if frame.time is not None and frame.time >= due - 0.01:
                picture = frame.to_ndarray(format="rgb24")[FACE]
                frames.append(cv2.resize(picture, (WIDTH, WIDTH), interpolation=cv2.INTER_AREA))
                due = next(times, np.inf)
            if not np.isfinite(due):
                break
    return frames, sound


def grey_values(take: int) -> str:
    """A take's first picture as FER2013 writes it: 48 x 48 grey values."""
    grey = cv2.cvtColor(_take(take)[0][0], cv2.COLOR_RGB2GRAY)
    return " ".join(map(str, cv2.resize(grey, (48, 48), interpolation=cv2.INTER_AREA).ravel()))


def table(header: str, rows: Iterable[Sequence[Any]], separator: str = ",") -> str:
    """Lines of a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator="\n")
    writer.writerow(header.split(","))
    writer.writerows(rows)
    return text.getvalue()


def _mmsa(corpus: str, name: str, *, chinese: bool) -> Trainable:
    """MMSA's table beside raw clips; in the Chinese ones clips of one video are in several splits."""
    rows, files, size = [], {}, 0.8 if chinese else 2.4
    for number, mode in enumerate(("train", "train", "valid", "test") * 4):
        take = number // 4 % 2
        video, clip = (f"video_{number // 4:04d}", f"{number % 4 + 1:04d}") if chinese else (f"03bSnI{number}", "1")
        value = round((size if take else -size) + 0.2 * (number % 2), 1)
        words = (CHINESE if chinese else WORDS)[take]
        rows.append((video, clip, words, value, value, -value, value, ("Negative", "Positive")[take], mode))
        files[f"Raw/{video}/{clip}.mp4"] = take
    lost, _ = files.popitem()
    head = "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode"
    return Trainable(
        corpus,
        {name: table(head, rows), **files},
        {"train": 8, "valid": 4, "test": 4},
        "sentiment",
        (),
        missing=(lost,),
        extract=("--text", "multilingual-e5-small") if chinese else (),
        train=EMOE if corpus == "mosi" else ("--model", "linear"),
    )


def _meld() -> Trainable:
    """Conversations whose numbers restart in each split, and a speaker who is in all of them."""
    tables, files = {}, {}
    folders = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
    for split, folder in folders.items():
        rows = []
        for dialogue, utterance in product(range(2 if split == "train" else 1), range(4)):
            take = utterance % 2
            words = f"{split} {dialogue} {utterance}: {WORDS[take]}"
            speaker, emotion = ("Ross", "Monica")[utterance // 2], ("anger", "joy")[take]
            rows.append((words, speaker, emotion, ("negative", "positive")[take], dialogue, utterance))
            files[f"{folder}/dia{dialogue}_utt{utterance}.mp4"] = take
        tables[f"{split}_sent_emo.csv"] = table("Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID", rows)
    lost = "train_splits/dia1_utt3.mp4"
    del files[lost]
    counts = {"train": 8, "valid": 4, "test": 4}
    train = (*EMOE, "--allow-speaker-overlap")
    return Trainable("meld", {**tables, **files}, counts, missing=(lost,), train=train)


def _cherma() -> Trainable:
    """Clips with a label of each modality, one of which is there as sound alone."""
    lists, files = {}, {}
    for split, count in (("train", 8), ("dev", 4), ("test", 4)):
        entries = []
        for number in range(count):
            take, name = number % 2, f"{split}_{number}"
            label = ("愤怒", "高兴")[take]
            labels = dict.fromkeys(("txt_label", "audio_label", "visual_label", "video_label"), label)
            clip = {"audio_file": f"{name}.wav", "video_file": f"{name}.mp4", "txt": CHINESE[take]}
            entries.append({**clip, **labels})
            files[f"audio/{split}/{name}.wav" if number == 3 else f"video/{split}/{name}.mp4"] = take
        lists[f"{split}.json"] = json.dumps(entries, ensure_ascii=False)
    counts = {"train": 8, "valid": 4, "test": 4}
    return Trainable("cherma", {**lists, **files}, counts, extract=("--text", "multilingual-e5-small"))


def _iemocap() -> Trainable:
    """Sentences of two sessions; of one in each the raters did not agree what is felt."""
    files: dict[str, str | int] = {}
    for session in (1, 2):
        dialogue = f"Ses{session:02d}F_impro01"
        turns, words = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n"], []
        for number in range(5):
            turn, take = f"{dialogue}_{'FM'[number % 2]}{number // 2:03d}", number // 2 % 2
            emotion, span = "xxx" if number == 4 else ("ang", "hap")[take], (2.0 * number, 2.0 * number + 1.6)
            turns.append(f"[{span[0]:.4f} - {span[1]:.4f}]\t{turn}\t{emotion}\t[{2.5 - take:.4f}, 3.5000, 3.0000]\n")
            words.append(f"{turn} [{span[0]:08.4f}-{span[1]:08.4f}]: {WORDS[take]}")
            files[f"Session{session}/sentences/wav/{dialogue}/{turn}.wav"] = take
        place = f"Session{session}/dialog"
        files[f"{place}/EmoEvaluation/{dialogue}.txt"] = "\n".join(turns)
        files[f"{place}/transcriptions/{dialogue}.txt"] = "\n".join(words)
    return Trainable("iemocap", files, {"": 8}, unlabelled=2)


def _mintrec() -> Trainable:
    tables, files = {}, {}
    for season, (split, count) in enumerate((("train", 8), ("dev", 4), ("test", 4)), start=4):
        rows = []
        for clip in range(count):
            rows.append((f"S{season:02d}", "E01", clip, WORDS[clip % 2], ("Complain", "Praise")[clip % 2]))
            files[f"raw_data/S{season:02d}/E01/{clip}.mp4"] = clip % 2
        tables[f"{split}.tsv"] = table("season,episode,clip,text,label", rows, "\t")
    counts = {"train": 8, "valid": 4, "test": 4}
    return Trainable("mintrec", {**tables, **files}, counts, classes=("Complain", "Praise"))


def _mer2023() -> Trainable:
    """Two parts for testing, and none for validating."""
    tables, files = {}, {}
    for first, (part, count) in zip((0, 10, 20), (("train", 8), ("test1", 2), ("test2", 2)), strict=True):
        rows = []
        for number in range(count):
            name, take = f"sample_{first + number:08d}", number % 2
            rows.append((name, ("angry", "happy")[take], (-2.0, 3.5)[take]))
            files[f"{part}/{name}.avi"] = take
        tables[f"{part}-label.csv"] = table("name,discrete,valence", rows)
    return Trainable("mer2023", {**tables, **files}, {"train": 8, "test": 4})


def _named(corpus: str, names: Iterator[str], **facts: Any) -> Trainable:
    """Files whose names hold the labels, of every other the second take."""
    files: dict[str, str | int] = {name: number % 2 for number, name in enumerate(names)}
    return Trainable(corpus, files, {"": len(files)}, **facts)


def _ravdess(corpus: str, channel: str, **facts: Any) -> Trainable:
    places = ("Video_Actor_{0}/Actor_{0}/01-{1}.mp4", "Audio_Actors_01-24/Actor_{0}/03-{1}.wav")
    codes = product(("01", "02", "03", "04"), ("01", "02"), ("05", "03"))
    names = (
        places[int(actor) > 2].format(actor, f"{channel}-{emotion}-01-{said}-01-{actor}")
        for actor, said, emotion in codes
    )
    return _named(corpus, names, **facts)


def _fer2013_table() -> Trainable:
    """Grey values with the votes of FER+: the voters chose two classes for one picture, and saw no face in another."""
    usages = ("Training",) * 10 + ("PublicTest",) * 4 + ("PrivateTest",) * 4
    rows = [((0, 3)[n % 2], grey_values(n % 2), usage) for n, usage in enumerate(usages)]
    votes = {0: (8, 2, 0), 1: (1, 9, 0), 8: (5, 5, 0), 9: (0, 0, 10)}
    names = "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    lines = []
    for n, usage in enumerate(usages):
        anger, happiness, none = votes.get(n, votes[n % 2])
        lines.append((usage, f"fer{n:07d}.png", 0, happiness, 0, 0, anger, 0, 0, 0, 0, none))
    files = {
        "fer2013.csv": table("emotion,pixels,Usage", rows),
        "fer2013new.csv": table(f"Usage,Image name,{names}", lines),
    }
    return Trainable("fer2013", files, {"train": 8, "valid": 4, "test": 4}, unlabelled=2)


def _raf_db() -> Trainable:
    numbers = [*(("train", n) for n in range(1, 9)), *(("test", n) for n in range(1, 5))]
    lines = "".join(f"{split}_{n:05d}.jpg {(6, 4)[n % 2]}\n" for split, n in numbers)
    pictures = {f"Image/aligned/{split}_{n:05d}_aligned.jpg": n % 2 for split, n in numbers}
    return Trainable("raf-db", {"EmoLabel/list_patition_label.txt": lines, **pictures}, {"train": 8, "test": 4})


_FER_FOLDERS = ("Training",) * 8 + ("PublicTest",) * 4 + ("PrivateTest",) * 4

TRAINABLE = {
    "mosi": _mmsa("mosi", "label.csv", chinese=False),
    "mosei": _mmsa("mosei", "label.csv", chinese=False),
    "ch-sims": _mmsa("ch-sims", "label.csv", chinese=True),
    "ch-sims-v2": _mmsa("ch-sims-v2", "meta.csv", chinese=True),
    "meld": _meld(),
    "cherma": _cherma(),
    "iemocap": _iemocap(),
    "mintrec": _mintrec(),
    "mer2023": _mer2023(),
    "ravdess": _ravdess("ravdess", "01", train=EMOE),
    "ravdess-song": _ravdess("ravdess-song", "02"),
    "crema-d": _named(
        "crema-d",
        (
            f"VideoFlash/{actor}_{said}_{emotion}_XX.flv"
            if said == "DFA"
            else f"AudioWAV/{actor}_{said}_{emotion}_XX.wav"
            for actor, said, emotion in product((1001, 1002, 1003, 1004), ("DFA", "IEO"), ("ANG", "HAP"))
        ),
    ),
    "emodb": _named(
        "emodb",
        (
            f"wav/{speaker}{said}{emotion}a.wav"
            for speaker, said, emotion in product(("03", "08", "09", "16"), ("a01", "b10"), "WF")
        ),
    ),
    "savee": _named(
        "savee",
        (
            f"AudioVisualClip/{speaker}/{emotion}{n}.avi"
            for speaker, n, emotion in product(("DC", "JE", "JK", "KL"), (1, 2), "ah")
        ),
    ),
    "tess": _named(
        "tess",
        (
            f"{speaker}_{emotion}/{speaker}_{word}_{emotion}.wav"
            for speaker, word, emotion in product(("OAF", "YAF"), ("back", "bar", "bath", "bean"), ("angry", "happy"))
        ),
    ),
    "java-sed": _named(
        "java-sed",
        (
            f"Actor_{speaker}/{speaker}-01-{emotion}-{n:02d}.mp4"
            for speaker, n, emotion in product(("01", "02", "03", "04"), (1, 2), ("06", "03"))
        ),
    ),
    "fer2013": Trainable(
        "fer2013",
        {f"faces/{('angry', 'happy')[n % 2]}/{usage}_{n}.jpg": n % 2 for n, usage in enumerate(_FER_FOLDERS)},
        {"train": 8, "valid": 4, "test": 4},
    ),
    "fer2013 (grey values, FER+)": _fer2013_table(),
    "raf-db": _raf_db(),
}
