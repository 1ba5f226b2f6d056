"""MOSI, MOSEI and CH-SIMS as MMSA hands them out, `label.csv` beside raw clips; MOSI and MOSEI also as CMU does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Final

from emopipe.models.data.known_corpora import COUNTS
from emopipe.models.data.split_names import split_name
from emopipe.pipeline.datasets.corpora.cmu import MOSEI_SPLIT, is_raw, mosei_rows, mosi_rows
from emopipe.pipeline.datasets.corpora.corpus import Corpus, CorpusFolder, Row

#: Our columns, as the reader of MMSA's feature files calls them, and the table's.
VALUES: Final = {
    "sentiment": "label",
    "sentiment_text": "label_T",
    "sentiment_voice": "label_A",
    "sentiment_face": "label_V",
}
TABLES: Final = ("label.csv", "meta.csv", "labels.csv")
COLUMNS: Final = frozenset(["video_id", "clip_id", "label", "mode"])


def mmsa_rows(folder: CorpusFolder, *, monologues: bool) -> Iterator[Row]:
    """Rows of MMSA's table; a video is a conversation and, where it is a monologue, a speaker."""
    table = folder.table(folder.needed(*TABLES), *sorted(COLUMNS), "text")
    clips = _clips(folder)
    for cells in table.rows.values():
        video, clip = cells["video_id"], cells["clip_id"]
        values = {ours: cells.get(theirs, "") for ours, theirs in VALUES.items()}
        yield Row(
            f"{video}$_${clip}",
            {**values, "label": cells.get("annotation", "").lower()},
            clips.get((video, _number(clip))) or f"Raw/{video}/{clip}.mp4",
            cells["text"],
            speaker=video if monologues else "",
            split=split_name(cells["mode"]) or cells["mode"],
            dialogue=video,
            utterance=int(clip) if clip.isdecimal() else None,
        )


def _clips(folder: CorpusFolder) -> Mapping[tuple[str, str], str]:
    """(Video, clip without leading zeros) -> file: `video/clip.mp4`, else `video_clip.mp4` anywhere, else sound."""
    clips: dict[tuple[str, str], str] = {}
    others: dict[tuple[str, str], str] = {}
    for file in sorted(folder.recordings, key=lambda one: PurePosixPath(one).suffix.lower() == ".wav"):
        path = PurePosixPath(file)
        video, _, clip = path.stem.rpartition("_")
        clips.setdefault((path.parent.name, _number(path.stem)), file)
        others.setdefault((video, _number(clip)), file)
    return others | clips


def _number(clip: str) -> str:
    return str(int(clip)) if clip.isdecimal() else clip


def cmu_or_mmsa_rows(folder: CorpusFolder, *, cmu: Callable[[CorpusFolder], Iterator[Row]]) -> Iterator[Row]:
    """Rows of MMSA's table where that is there, else of CMU's own files."""
    if folder.first(*TABLES) is None and is_raw(folder):
        return cmu(folder)
    return mmsa_rows(folder, monologues=True)


_LAYOUT: Final = "label.csv (video_id, clip_id, text, label, ..., mode) beside Raw/VIDEO/CLIP.mp4; or an MMSA pickle"

MOSI: Final = Corpus(
    name="mosi",
    title="CMU Multimodal Opinion Sentiment Intensity",
    language="English",
    modalities="text, face, voice",
    labels="sentiment -3 to 3",
    licence="research; the videos are their makers'",
    source="http://multicomp.cs.cmu.edu/resources/cmu-mosi-dataset; as MMSA's files: https://github.com/thuiar/MMSA",
    layout=f"{_LAYOUT}; or CMU's Raw/Transcript/Segmented/VIDEO.annotprocessed, Raw/Video/Segmented/VIDEO_1.mp4 (or "
    "Video/Full, Audio/WAV_16000) with CMU_MOSI_Opinion_Labels.csd (or OpinionLevelSentiment.csv), handed out apart",
    rows=partial(cmu_or_mmsa_rows, cmu=mosi_rows),
    counts=COUNTS["mosi"],
    columns=COLUMNS,
)
MOSEI: Final = Corpus(
    name="mosei",
    title="CMU Multimodal Opinion Sentiment and Emotion Intensity",
    language="English",
    modalities="text, face, voice",
    labels="sentiment -3 to 3; CMU's files also 6 emotions, 0 to 3",
    licence="research; the videos are their makers'",
    source="http://multicomp.cs.cmu.edu/resources/cmu-mosei-dataset; as MMSA's files: https://github.com/thuiar/MMSA",
    layout=f"{_LAYOUT}; or CMU's Raw/Transcript/Segmented/Combined/VIDEO.txt, Raw/Videos/Segmented/Combined/VIDEO_1.mp4"
    f" (or Full/Combined, Audio/Full/WAV_16000) with CMU_MOSEI_Labels.csd and {MOSEI_SPLIT}, handed out apart",
    rows=partial(cmu_or_mmsa_rows, cmu=mosei_rows),
    counts=COUNTS["mosei"],
    columns=COLUMNS,
)
CH_SIMS: Final = Corpus(
    name="ch-sims",
    title="CH-SIMS, Chinese multimodal sentiment with labels of each modality",
    language="Chinese",
    modalities="text, face, voice",
    labels="sentiment -1 to 1, also of text, voice and face alone",
    licence="research",
    source="https://github.com/thuiar/MMSA",
    layout=_LAYOUT,
    rows=partial(mmsa_rows, monologues=False),
    counts=COUNTS["ch-sims"],
    columns=COLUMNS,
)
CH_SIMS_V2: Final = Corpus(
    name="ch-sims-v2",
    title="CH-SIMS v2.0, the supervised part",
    language="Chinese",
    modalities="text, face, voice",
    labels="sentiment -1 to 1, also of text, voice and face alone",
    licence="research",
    source="https://github.com/thuiar/ch-sims-v2",
    layout=_LAYOUT.replace("label.csv", "meta.csv"),
    rows=partial(mmsa_rows, monologues=False),
    counts=COUNTS["ch-sims-v2"],
    columns=COLUMNS,
)
