"""Corpora of conversations: MELD and IEMOCAP."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from emopipe.pipeline.datasets.corpora.corpus import Corpus, CorpusFolder, Row, folder_split
from emopipe.pipeline.datasets.corpora.emotions import emotion

#: Split -> MELD's table, and the folder in which its clips should be.
MELD_FILES: Final = {
    "train": ("train_sent_emo.csv", "train_splits"),
    "valid": ("dev_sent_emo.csv", "dev_splits_complete"),
    "test": ("test_sent_emo.csv", "output_repeated_splits_test"),
}
MELD_COLUMNS: Final = frozenset(["Dialogue_ID", "Utterance_ID", "Utterance", "Emotion"])
_CLIP: Final = re.compile(r"dia(\d+)_utt(\d+)\.\w+")


def meld_rows(folder: CorpusFolder) -> Iterator[Row]:
    """Rows of MELD: its numbers of dialogues restart in each split, so a clip is looked for in the split's folder."""
    tables = {split: file for split, (name, _) in MELD_FILES.items() if (file := folder.first(name))}
    if not tables:
        folder.needed(*(name for name, _ in MELD_FILES.values()))
    clips = _meld_clips(folder)
    for split, file in tables.items():
        for cells in folder.table(file, *sorted(MELD_COLUMNS), "Speaker").rows.values():
            dialogue, utterance = cells["Dialogue_ID"], cells["Utterance_ID"]
            name = f"dia{dialogue}_utt{utterance}"
            clip = clips.get((split, dialogue, utterance))
            if clip is None and len(tables) == 1:
                clip = clips.get(("", dialogue, utterance))
            yield Row(
                name,
                {"label": emotion(cells["Emotion"]), "sentiment": cells.get("Sentiment", "")},
                clip or f"{MELD_FILES[split][1]}/{name}.mp4",
                cells["Utterance"],
                speaker=cells["Speaker"],
                split=split,
                dialogue=dialogue,
                utterance=int(utterance) if utterance.isdecimal() else None,
            )


def _meld_clips(folder: CorpusFolder) -> Mapping[tuple[str, str, str], str]:
    """(Split that the folders name, dialogue, utterance) -> file."""
    clips: dict[tuple[str, str, str], str] = {}
    for file in folder.files:
        match = _CLIP.fullmatch(file.rpartition("/")[2])
        if match:
            clips.setdefault((folder_split(file), match[1], match[2]), file)
    return clips


MELD: Final = Corpus(
    name="meld",
    title="Multimodal EmotionLines Dataset",
    language="English",
    modalities="text, face, voice",
    labels="7 emotions, 3 sentiments",
    licence="GPL-3.0; the pictures are the series' makers'",
    source="https://affective-meld.github.io",
    layout="train_sent_emo.csv, dev_..., test_...; train_splits/dia0_utt0.mp4, dev_splits_complete/, "
    "output_repeated_splits_test/",
    rows=meld_rows,
    counts={"train": 9989, "valid": 1109, "test": 2610},
    columns=MELD_COLUMNS,
)

#: IEMOCAP's emotions that are not among the names that all corpora share; "xxx" says that the raters did not agree.
IEMOCAP_EMOTIONS: Final = {"fru": "frustration", "exc": "excitement", "oth": "other", "xxx": ""}
_TURN: Final = re.compile(
    r"\[(\d+\.?\d*) - (\d+\.?\d*)\]\s+(Ses\d\d[FM]_\w+)\s+([a-z]{3})\s+\[([\d.]+), ([\d.]+), ([\d.]+)\]"
)
_WORDS: Final = re.compile(r"(Ses\d\d[FM]_\w+) \[[\d.]+-[\d.]+\]:\s*(.*)")
_EVALUATION: Final = re.compile(r"(?:.*/)?(Session\d)/dialog/EmoEvaluation/(Ses\w+)\.txt")


def iemocap_rows(folder: CorpusFolder) -> Iterator[Row]:
    """Rows of IEMOCAP: a stretch of the dialogue's video where that is there, else the sound file of the sentence."""
    files = [match for file in folder.files if (match := _EVALUATION.fullmatch(file))]
    if not files:
        folder.needed("Session1/dialog/EmoEvaluation/Ses01F_impro01.txt")
    for match in files:
        session, dialogue = match[1], match[2]
        root = match[0].partition("dialog/EmoEvaluation/")[0]
        transcript = f"{root}dialog/transcriptions/{dialogue}.txt"
        lines = folder.words(transcript).splitlines() if transcript in folder.existing else []
        words = {one[1]: one[2].strip() for line in lines if (one := _WORDS.match(line))}
        video = f"{root}dialog/avi/DivX/{dialogue}.avi"
        stretch = video in folder.existing
        turns = sorted(_turns(folder.words(match[0])), key=lambda turn: float(turn[1]))
        for place, turn in enumerate(turns):
            name = turn[3]
            scales = dict(zip(("valence", "arousal", "dominance"), map(float, turn.groups()[4:]), strict=True))
            yield Row(
                name,
                {"label": IEMOCAP_EMOTIONS.get(turn[4], emotion(turn[4])), **scales, "session": session},
                video if stretch else f"{root}sentences/wav/{dialogue}/{name}.wav",
                words.get(name, ""),
                float(turn[1]) if stretch else None,
                float(turn[2]) if stretch else None,
                name[:5] + name.rpartition("_")[2][:1],
                dialogue=dialogue,
                utterance=place,
            )


def _turns(text: str) -> Iterator[re.Match[str]]:
    return (match for line in text.splitlines() if (match := _TURN.match(line)))


IEMOCAP: Final = Corpus(
    name="iemocap",
    title="Interactive Emotional Dyadic Motion Capture",
    language="English",
    modalities="text, face, voice",
    labels="9 emotions, valence, arousal, dominance",
    licence="research, after a signed request",
    source="https://sail.usc.edu/iemocap",
    layout="Session1/dialog/EmoEvaluation/, dialog/transcriptions/, dialog/avi/DivX/ or sentences/wav/",
    rows=iemocap_rows,
    counts={"": 10039},
)
