"""MOSI, MOSEI and CH-SIMS as MMSA hands them out: `label.csv` beside raw clips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Final

from emopipe.models.data.known_corpora import COUNTS
from emopipe.models.data.split_names import split_name
from emopipe.pipeline.datasets.corpora.corpus import Corpus, CorpusFolder, Row

#: Our columns, as the reader of MMSA's feature files calls them, and the table's.
VALUES: Final = {
    "sentiment": "label",
    "sentiment_text": "label_T",
    "sentiment_voice": "label_A",
    "sentiment_face": "label_V",
}
COLUMNS: Final = frozenset(["video_id", "clip_id", "label", "mode"])


def mmsa_rows(folder: CorpusFolder, *, monologues: bool) -> Iterator[Row]:
    """Rows of MMSA's table; a video is a conversation and, where it is a monologue, a speaker."""
    table = folder.table(folder.needed("label.csv", "meta.csv", "labels.csv"), *sorted(COLUMNS), "text")
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
    """(Video, clip without leading zeros) -> file: `video/clip.mp4`, or `video_clip.mp4` in any folder."""
    clips: dict[tuple[str, str], str] = {}
    for file in folder.recordings:
        path = PurePosixPath(file)
        video, _, clip = path.stem.rpartition("_")
        clips.setdefault((video, _number(clip)), file)
        clips[path.parent.name, _number(path.stem)] = file
    return clips


def _number(clip: str) -> str:
    return str(int(clip)) if clip.isdecimal() else clip


_LAYOUT: Final = "label.csv (video_id, clip_id, text, label, ..., mode) beside Raw/VIDEO/CLIP.mp4; or an MMSA pickle"

MOSI: Final = Corpus(
    name="mosi",
    title="CMU Multimodal Opinion Sentiment Intensity",
    language="English",
    modalities="text, face, voice",
    labels="sentiment -3 to 3",
    licence="research; the videos are their makers'",
    source="http://multicomp.cs.cmu.edu/resources/cmu-mosi-dataset; as MMSA's files: https://github.com/thuiar/MMSA",
    layout=_LAYOUT,
    rows=partial(mmsa_rows, monologues=True),
    counts=COUNTS["mosi"],
    columns=COLUMNS,
)
MOSEI: Final = Corpus(
    name="mosei",
    title="CMU Multimodal Opinion Sentiment and Emotion Intensity",
    language="English",
    modalities="text, face, voice",
    labels="sentiment -3 to 3",
    licence="research; the videos are their makers'",
    source="http://multicomp.cs.cmu.edu/resources/cmu-mosei-dataset; as MMSA's files: https://github.com/thuiar/MMSA",
    layout=_LAYOUT,
    rows=partial(mmsa_rows, monologues=True),
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
