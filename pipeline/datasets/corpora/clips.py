"""Corpora of single clips with tables of their own: MIntRec, MER2023 and CHERMA."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, Final

from emopipe.errors import CorpusError
from emopipe.models.data.known_corpora import COUNTS
from emopipe.models.data.split_names import split_name
from emopipe.pipeline.datasets.corpora.corpus import Corpus, CorpusFolder, Row, folder_split
from emopipe.pipeline.datasets.corpora.emotions import emotion

MINTREC_COLUMNS: Final = frozenset(["season", "episode", "clip", "text", "label"])


def mintrec_rows(folder: CorpusFolder) -> Iterator[Row]:
    """Rows of MIntRec: a table for each split, clips by season and episode."""
    tables = [file for name in ("train.tsv", "dev.tsv", "test.tsv") if (file := folder.first(name))]
    if not tables:
        folder.needed("train.tsv", "dev.tsv", "test.tsv")
    clips = {PurePosixPath(file).with_suffix("").parts[-3:]: file for file in folder.recordings}
    for file in tables:
        for cells in folder.table(file, *sorted(MINTREC_COLUMNS)).rows.values():
            place = cells["season"], cells["episode"], cells["clip"]
            yield Row(
                "_".join(place),
                {"label": cells["label"]},
                clips.get(place) or f"raw_data/{'/'.join(place)}.mp4",
                cells["text"],
                split=split_name(PurePosixPath(file).stem) or "",
            )


MINTREC: Final = Corpus(
    name="mintrec",
    title="Multimodal Intent Recognition",
    language="English",
    modalities="text, face, voice",
    labels="20 intents",
    licence="MIT; the pictures are the series' makers'",
    source="https://github.com/thuiar/MIntRec",
    layout="train.tsv, dev.tsv, test.tsv (season, episode, clip, text, label) beside raw_data/S04/E01/12.mp4; "
    "or beside its features, video_data/video_feats.pkl and audio_data/audio_feats.pkl",
    rows=mintrec_rows,
    counts=COUNTS["mintrec"],
    columns=MINTREC_COLUMNS,
)

#: Parts of MER2023, as its tables and folders are called.
MER_PARTS: Final = ("train", "test1", "test2", "test3")


def mer_rows(folder: CorpusFolder) -> Iterator[Row]:
    """Rows of MER2023: a table and a folder for each part; the parts for testing are told apart by `part`."""
    tables = {part: file for part in MER_PARTS if (file := folder.first(f"{part}-label.csv"))}
    if not tables:
        folder.needed("train-label.csv")
    for part, file in tables.items():
        for cells in folder.table(file, "name", "discrete").rows.values():
            name = cells["name"]
            clip = next((one for one in folder.by_stem.get(name, ()) if part in PurePosixPath(one).parts), None)
            yield Row(
                name,
                {"label": emotion(cells["discrete"]), "valence": cells.get("valence", ""), "part": part},
                clip or f"{part}/{name}.avi",
                split="train" if part == "train" else "test",
            )


MER2023: Final = Corpus(
    name="mer2023",
    title="Multimodal Emotion Recognition Challenge 2023",
    language="Chinese",
    modalities="face, voice",
    labels="6 emotions, valence",
    licence="research, after a signed request",
    source="https://huggingface.co/datasets/MERChallenge/MER2023",
    layout="train-label.csv (name, discrete, valence) beside train/NAME.avi; test1, test2 and test3 alike",
    rows=mer_rows,
    counts={"train": 3373, "test": 1657},
)

#: CHERMA's emotions in Chinese.
CHERMA_EMOTIONS: Final = {
    "愤怒": "anger",
    "厌恶": "disgust",
    "恐惧": "fear",
    "高兴": "happiness",
    "平静": "neutral",
    "悲伤": "sadness",
    "惊奇": "surprise",
}
_CHERMA_LABELS: Final = {
    "label": "video_label",
    "label_text": "txt_label",
    "label_voice": "audio_label",
    "label_face": "visual_label",
}


def cherma_rows(folder: CorpusFolder) -> Iterator[Row]:
    """Rows of CHERMA: a JSON list for each split, with a label of each modality and one of all."""
    lists = [file for name in ("train.json", "dev.json", "test.json") if (file := folder.first(name))]
    if not lists:
        folder.needed("train.json", "dev.json", "test.json")
    for file in lists:
        split = split_name(PurePosixPath(file).stem) or ""
        for entry in _entries(folder, file):
            labels = {ours: _cherma_label(entry.get(theirs, "")) for ours, theirs in _CHERMA_LABELS.items()}
            name = PurePosixPath(str(entry["audio_file"])).stem
            text = str(entry.get("txt") or entry.get("text") or "")
            yield Row(name, labels, _cherma_clip(folder, entry, split), text, split=split)


def _entries(folder: CorpusFolder, file: str) -> list[dict[str, Any]]:
    try:
        entries = json.loads(folder.words(file))
    except ValueError as error:
        raise CorpusError(f"{file} is not JSON: {error}", path=folder.path / file) from error
    if not isinstance(entries, list) or not all(isinstance(one, dict) and "audio_file" in one for one in entries):
        raise CorpusError(f"{file} is not a list of entries with an audio_file", path=folder.path / file)
    return entries


def _cherma_label(word: Any) -> str:
    return CHERMA_EMOTIONS.get(str(word).strip(), emotion(str(word)))


def _cherma_clip(folder: CorpusFolder, entry: dict[str, Any], split: str) -> str:
    """The clip, else its sound; where the clip should be when neither is there."""
    names = [PurePosixPath(str(entry[key])).name for key in ("video_file", "audio_file") if entry.get(key)]
    for name in names:
        files = folder.by_name.get(name, ())
        if files:
            return next((file for file in files if folder_split(file) == split), files[0])
    return f"video/{names[0]}"


CHERMA: Final = Corpus(
    name="cherma",
    title="Chinese Emotion Recognition dataset with Modality-wise Annotations",
    language="Chinese",
    modalities="text, face, voice",
    labels="7 emotions, also of text, voice and face alone",
    licence="research",
    source="https://github.com/sunjunaimer/LFMIM",
    layout="train.json, dev.json, test.json (audio_file, video_file, txt_label, ...) beside the clips",
    rows=cherma_rows,
)
