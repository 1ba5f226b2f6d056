"""Corpora whose labels stand in the names of their files: a pattern and tables of codes, as data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from emopipe.models.data.split_names import split_name
from emopipe.pipeline.datasets.corpora.corpus import Corpus, CorpusFolder, Row, some
from emopipe.pipeline.media.finding import IMAGE_SUFFIXES, RECORDING_SUFFIXES

_SOUND: Final = frozenset([".wav", ".flac", ".mp3", ".m4a", ".ogg", ".aif", ".aiff"])
_FIELDS: Final = ("speaker", "split", "text")


@dataclass(frozen=True)
class FileNames:
    """Rows from names of files.

    Attributes:
        pattern: of the end of a path without its suffix. Its groups are part of the id; `speaker`, `split`, `text` and
            those with codes become columns; `medium` tells what of one recording a file holds.
        codes: group -> code -> cell. Of one recording the file whose medium comes first is used; a video comes before
            a sound file.
        suffixes: of the files that are looked at.
        text: the words, with groups in braces, where they follow from the name.
    """

    pattern: str
    codes: Mapping[str, Mapping[str, str]]
    suffixes: frozenset[str] = field(default=RECORDING_SUFFIXES)
    text: str = ""

    def __call__(self, folder: CorpusFolder) -> Iterator[Row]:
        """The rows of a folder; several files of one recording are one row."""
        pattern = re.compile(rf"(?:.*/)?(?:{self.pattern})")
        recordings: dict[tuple[str, ...], list[tuple[tuple[int, bool], str]]] = {}
        rows: dict[tuple[str, ...], dict[str, str]] = {}
        unknown = []
        for file in folder.files:
            path = PurePosixPath(file)
            if path.suffix.lower() not in self.suffixes:
                continue
            match = pattern.fullmatch(str(path.with_suffix("")))
            if match is None or not self._is_known(match):
                unknown.append(file)
                continue
            groups = {name: code for name, code in match.groupdict().items() if code is not None}
            medium = list(self.codes.get("medium", ())).index(groups.pop("medium")) if "medium" in groups else 0
            key = tuple(groups.values())
            rows[key] = groups
            recordings.setdefault(key, []).append(((medium, path.suffix.lower() in _SOUND), file))
        _tell(folder, unknown, recordings)
        for key, groups in sorted(rows.items()):
            yield self._row("-".join(key), min(recordings[key])[1], groups)

    def _is_known(self, match: re.Match[str]) -> bool:
        groups = match.groupdict()
        return all(groups.get(name) is None or groups[name] in table for name, table in self.codes.items())

    def _row(self, name: str, file: str, groups: Mapping[str, str]) -> Row:
        cells = {group: self.codes.get(group, {}).get(code, code) for group, code in groups.items()}
        labels = {group: cell for group, cell in cells.items() if group in self.codes and group not in _FIELDS}
        split = split_name(cells.get("split", "")) or ""
        text = self.text.format_map(cells) or cells.get("text", "")
        return Row(name, labels, file, text, speaker=cells.get("speaker", ""), split=split)


def _tell(
    folder: CorpusFolder, unknown: list[str], recordings: Mapping[tuple[str, ...], list[tuple[tuple[int, bool], str]]]
) -> None:
    if unknown and recordings:
        folder.doubt("corpus_files_unknown", f"{len(unknown)} files are left out: {some(unknown)}")
    copies = [sorted(files)[1][1] for files in recordings.values() if len({rank for rank, _ in files}) < len(files)]
    if copies:
        what = f"{len(copies)} recordings lie in the folder more than once, such as {copies[0]}; one of each is used"
        folder.doubt("rows_repeated", what)


_RAVDESS: Final = {
    "medium": {"01": "video with sound", "03": "sound", "02": "video without sound"},
    "label": {
        "01": "neutral",
        "02": "calm",
        "03": "happiness",
        "04": "sadness",
        "05": "anger",
        "06": "fear",
        "07": "disgust",
        "08": "surprise",
    },
    "intensity": {"01": "normal", "02": "strong"},
    "text": {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."},
}
_RAVDESS_NAMES: Final = (
    r"(?P<medium>\d\d)-{}-(?P<label>\d\d)-(?P<intensity>\d\d)-(?P<text>\d\d)-(?P<repetition>\d\d)-(?P<speaker>\d\d)"
)
_RAVDESS_LAYOUT: Final = "Actor_01/03-01-06-01-02-01-12.wav, or Video_Speech_Actor_01/Actor_01/01-01-...mp4"
_ZENODO: Final = "https://zenodo.org/records/1188976"

RAVDESS: Final = Corpus(
    name="ravdess",
    title="Ryerson Audio-Visual Database of Emotional Speech and Song: the speech",
    language="English",
    modalities="face, voice",
    labels="8 emotions, 2 intensities",
    licence="CC BY-NC-SA 4.0",
    source=_ZENODO,
    layout=_RAVDESS_LAYOUT,
    rows=FileNames(_RAVDESS_NAMES.format("01"), _RAVDESS),
    counts={"": 1440},
)
RAVDESS_SONG: Final = Corpus(
    name="ravdess-song",
    title="Ryerson Audio-Visual Database of Emotional Speech and Song: the song",
    language="English",
    modalities="face, voice",
    labels="6 emotions, 2 intensities",
    licence="CC BY-NC-SA 4.0",
    source=_ZENODO,
    layout=_RAVDESS_LAYOUT.replace("01-01-...", "01-02-...").replace("03-01-", "03-02-"),
    rows=FileNames(_RAVDESS_NAMES.format("02"), _RAVDESS),
    counts={"": 1012},
)
CREMA_D: Final = Corpus(
    name="crema-d",
    title="Crowd-sourced Emotional Multimodal Actors Dataset",
    language="English",
    modalities="face, voice",
    labels="6 emotions, 3 levels",
    licence="Open Database License 1.0",
    source="https://github.com/CheyneyComputerScience/CREMA-D",
    layout="VideoFlash/1001_DFA_ANG_XX.flv or AudioWAV/1001_DFA_ANG_XX.wav",
    rows=FileNames(
        r"(?P<speaker>1\d{3})_(?P<text>[A-Z]{3})_(?P<label>[A-Z]{3})_(?P<level>[A-Z]{2})",
        {
            "text": {
                "IEO": "It's eleven o'clock.",
                "TIE": "That is exactly what happened.",
                "IOM": "I'm on my way to the meeting.",
                "IWW": "I wonder what this is about.",
                "TAI": "The airplane is almost full.",
                "MTI": "Maybe tomorrow it will be cold.",
                "IWL": "I would like a new alarm clock.",
                "ITH": "I think I have a doctor's appointment.",
                "DFA": "Don't forget a jacket.",
                "ITS": "I think I've seen this before.",
                "TSI": "The surface is slick.",
                "WSI": "We'll stop in a couple of minutes.",
            },
            "label": {
                "ANG": "anger",
                "DIS": "disgust",
                "FEA": "fear",
                "HAP": "happiness",
                "NEU": "neutral",
                "SAD": "sadness",
            },
            "level": {"LO": "low", "MD": "medium", "HI": "high", "XX": "", "X": ""},
        },
    ),
    counts={"": 7442},
)
EMODB: Final = Corpus(
    name="emodb",
    title="Berlin Database of Emotional Speech",
    language="German",
    modalities="voice",
    labels="7 emotions (boredom, no surprise)",
    licence="free for research, with citation",
    source="http://emodb.bilderbar.info",
    layout="wav/03a01Fa.wav",
    rows=FileNames(
        r"(?P<speaker>\d\d)(?P<text>[ab]\d\d)(?P<label>[A-Z])(?P<version>[a-z]?)",
        {
            "text": {
                "a01": "Der Lappen liegt auf dem Eisschrank.",
                "a02": "Das will sie am Mittwoch abgeben.",
                "a04": "Heute abend könnte ich es ihm sagen.",
                "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
                "a07": "In sieben Stunden wird es soweit sein.",
                "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
                "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
                "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
                "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
                "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
            },
            "label": {
                "W": "anger",
                "L": "boredom",
                "E": "disgust",
                "A": "fear",
                "F": "happiness",
                "T": "sadness",
                "N": "neutral",
            },
        },
    ),
    counts={"": 535},
)
SAVEE: Final = Corpus(
    name="savee",
    title="Surrey Audio-Visual Expressed Emotion",
    language="English",
    modalities="face, voice",
    labels="7 emotions",
    licence="research only, after registration",
    source="http://kahlan.eps.surrey.ac.uk/savee",
    layout="AudioData/DC/a01.wav or DC_a01.wav; AudioVisualClip/DC/a1.avi",
    rows=FileNames(
        r"(?P<speaker>DC|JE|JK|KL)[/_](?P<label>sa|su|[adfhn])0?(?P<sentence>\d{1,2})",
        {
            "label": {
                "a": "anger",
                "d": "disgust",
                "f": "fear",
                "h": "happiness",
                "n": "neutral",
                "sa": "sadness",
                "su": "surprise",
            }
        },
    ),
    counts={"": 480},
)
TESS: Final = Corpus(
    name="tess",
    title="Toronto Emotional Speech Set",
    language="English",
    modalities="voice",
    labels="7 emotions",
    licence="CC BY-NC-ND 4.0",
    source="https://doi.org/10.5683/SP2/E8H2MF",
    layout="OAF_angry/OAF_back_angry.wav",
    rows=FileNames(
        r"(?P<speaker>OAF?|YAF)_(?P<word>[a-z]+)_(?P<label>[a-z]+)",
        {
            "speaker": {"OAF": "OAF", "OA": "OAF", "YAF": "YAF"},
            "label": {
                "angry": "anger",
                "disgust": "disgust",
                "fear": "fear",
                "happy": "happiness",
                "neutral": "neutral",
                "ps": "surprise",
                "sad": "sadness",
            },
        },
        text="Say the word {word}.",
    ),
    counts={"": 2800},
)
JAVA_SED: Final = Corpus(
    name="java-sed",
    title="Javanese Speech Emotion Database",
    language="Javanese",
    modalities="face, voice",
    labels="6 emotions (no disgust)",
    licence="MIT for the sound; the video states none: research use",
    source="https://github.com/2black0/Javanese-Face-Emotion-Recognition-Dataset",
    layout="01-02-03-01.mp4 or .wav: speaker, sentence, emotion, take",
    rows=FileNames(
        r"(?P<speaker>\d\d)-(?P<sentence>\d\d)-(?P<label>\d\d)-(?P<take>\d\d)",
        {
            "label": {
                "01": "neutral",
                "02": "sadness",
                "03": "happiness",
                "04": "surprise",
                "05": "fear",
                "06": "anger",
            }
        },
    ),
)
_RAF_LABELS: Final = {
    "1": "surprise",
    "2": "fear",
    "3": "disgust",
    "4": "happiness",
    "5": "sadness",
    "6": "anger",
    "7": "neutral",
}
_RAF_FOLDERS: Final = FileNames(
    r"(?P<label>[1-7])/(?P<split>train|test)_(?P<number>\d+)(?:_aligned)?", {"label": _RAF_LABELS}, IMAGE_SUFFIXES
)


def raf_db_rows(folder: CorpusFolder) -> Iterator[Row]:
    """Rows of RAF-DB's basic part: its own list of labels, or a folder for each class."""
    labels = folder.first("list_patition_label.txt", "list_partition_label.txt")
    if labels is None:
        yield from _RAF_FOLDERS(folder)
        return
    for line in folder.words(labels).splitlines():
        name, _, code = line.strip().partition(" ")
        if not name:
            continue
        stem, _, suffix = name.rpartition(".")
        aligned = folder.by_name.get(f"{stem}_aligned.{suffix}") or folder.by_name.get(name)
        file = aligned[0] if aligned else f"Image/aligned/{stem}_aligned.{suffix}"
        yield Row(stem, {"label": _RAF_LABELS.get(code.strip(), "")}, file, split=stem.partition("_")[0])


RAF_DB: Final = Corpus(
    name="raf-db",
    title="Real-world Affective Faces Database, basic emotions",
    language="none (pictures)",
    modalities="face",
    labels="7 emotions",
    licence="research only",
    source="http://www.whdeng.cn/RAF/model1.html",
    layout="EmoLabel/list_patition_label.txt beside Image/aligned/train_00001_aligned.jpg, or a folder for each class",
    rows=raf_db_rows,
    counts={"train": 12271, "test": 3068},
)
