"""MOSI and MOSEI as CMU hands them out: the raw files, and apart from them the labels and the standard split.

The raw download holds no labels. They are computational sequences of CMU's SDK (HDF5, `GROUP/data/VIDEO` with
`features` (segments, labels) and `intervals` (segments, 2) in seconds); older copies of MOSI have
`OpinionLevelSentiment.csv` (start, end, video, segment, label; no header) in their place.
"""

from __future__ import annotations

import ast
import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from emopipe.errors import CorpusError
from emopipe.pipeline.datasets.corpora.corpus import CorpusFolder, Row

_SDK: Final = "https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK"
_LABELS: Final = "http://immortal.multicomp.cs.cmu.edu/{0}/labels/{1}"
MOSI_LABELS: Final = ("OpinionLevelSentiment.csv", "CMU_MOSI_Opinion_Labels.csd", "Opinion Segment Labels.csd")
MOSEI_LABELS: Final = ("CMU_MOSEI_Labels.csd", "All Labels.csd")
#: The SDK's file of MOSEI's standard split: `standard_train_fold = ["VIDEO", ...]` and likewise.
MOSEI_SPLIT: Final = "cmu_mosei_std_folds.py"
#: MOSEI's labels in their order.
MOSEI_COLUMNS: Final = ("sentiment", "happiness", "sadness", "anger", "surprise", "disgust", "fear")
#: Seconds by which the start of a segment differs at most between MOSEI's words and its labels.
SAME_START: Final = 0.01

#: The videos that MOSI's standard split has for validation and for testing; the other 52 are for training.
MOSI_VALID: Final = frozenset(
    [
        "WKA5OygbEKI",
        "c5xsKMxpXnc",
        "atnd_PF-Lbs",
        "bvLlb-M3UXU",
        "bOL9jKpeJRs",
        "_dI--eQ6qVU",
        "ZAIRrfG22O0",
        "X3j2zQgwYgE",
        "aiEXnCPZubE",
        "ZUXBRvtny7o",
    ]
)
MOSI_TEST: Final = frozenset(
    [
        "tmZoasNr4rU",
        "zhpQhgha_KU",
        "lXPQBPVc5Cw",
        "iiK8YX8oH1E",
        "tStelxIAHjw",
        "nzpVDcQ0ywM",
        "etzxEpPuc6I",
        "cW1FSBF59ik",
        "d6hH302o4v8",
        "k5Y_838nuGo",
        "pLTX3ipuDJI",
        "jUzDDGyPkXU",
        "f_pcplsH_V0",
        "yvsjCA6Y5Fc",
        "nbWiPyCm4g0",
        "rnaNMUZpvvg",
        "wMbj6ajWbic",
        "cM3Yna7AavY",
        "yDtzw_Y-7RU",
        "vyB00TXsimI",
        "dq3Nf_lMPnE",
        "phBUpBr1hSo",
        "d3_k5Xpfmik",
        "v0zCBqDeKcE",
        "tIrG4oNLFzE",
        "fvVhgmXxadc",
        "ob23OKe5a9Q",
        "cXypl4FnoZo",
        "vvZ4IcEtiZc",
        "f9O3YtZ2VfI",
        "c7UH_rxdZv4",
    ]
)
_MOSI_WORDS: Final = re.compile(r"(?:.*/)?Transcript/Segmented/([^/]+)\.annotprocessed")
_MOSEI_WORDS: Final = re.compile(r"(?:.*/)?Transcript/Segmented/Combined/([^/]+)\.txt")
_FOLDS: Final = {"standard_train_fold": "train", "standard_valid_fold": "valid", "standard_test_fold": "test"}


@dataclass(frozen=True)
class _Segment:
    """A labelled stretch of a video, in seconds."""

    start: float
    end: float
    values: Sequence[float]


def is_raw(folder: CorpusFolder) -> bool:
    """Whether a folder holds CMU's transcripts of MOSI or MOSEI."""
    return any(_MOSI_WORDS.fullmatch(file) or _MOSEI_WORDS.fullmatch(file) for file in folder.files)


def mosi_rows(folder: CorpusFolder) -> Iterator[Row]:
    """Rows of MOSI: segments are numbered from 1; the standard split is known."""
    words = {video: _numbered(folder.words(file)) for video, file in _transcripts(folder, _MOSI_WORDS).items()}
    file = _needed(folder, MOSI_LABELS, "CMU-MOSI", "CMU_MOSI_Opinion_Labels.csd")
    labels = _opinions(folder, file) if file.endswith(".csv") else _sequence(folder, file, 1)
    media = _Media(folder, "Raw/Video/Segmented")
    for video, segments in labels.items():
        split = "valid" if video in MOSI_VALID else "test" if video in MOSI_TEST else "train"
        for number, segment in segments.items():
            file, start, end = media.place(video, str(number), segment)
            yield Row(
                f"{video}$_${number}",
                {"sentiment": segment.values[0]},
                file,
                words.get(video, {}).get(str(number), ""),
                start,
                end,
                speaker=video,
                split=split,
                dialogue=video,
                utterance=number,
            )


def mosei_rows(folder: CorpusFolder) -> Iterator[Row]:
    """Rows of MOSEI: a label belongs to the line of the transcript that begins when it does."""
    transcripts = _transcripts(folder, _MOSEI_WORDS)
    file = _needed(folder, MOSEI_LABELS, "CMU-MOSEI", "CMU_MOSEI_Labels.csd")
    split = _standard_split(folder)
    labels = _sequence(folder, file, len(MOSEI_COLUMNS))
    media, outside = _Media(folder, "Raw/Videos/Segmented/Combined"), 0
    for video, segments in labels.items():
        if video not in split:
            outside += len(segments)
            continue
        lines = _timed(folder.words(transcripts[video])) if video in transcripts else []
        for place, segment in segments.items():
            line = next((one for one in lines if abs(one[1] - segment.start) <= SAME_START), None)
            number, text = (line[0], line[2]) if line else (f"at{segment.start:g}", "")
            file, start, end = media.place(video, number, segment)
            yield Row(
                f"{video}$_${number}",
                dict(zip(MOSEI_COLUMNS, segment.values, strict=True)),
                file,
                text,
                start,
                end,
                speaker=video,
                split=split[video],
                dialogue=video,
                utterance=place,
            )
    if outside:
        folder.doubt("rows_without_split", f"{outside} rows are of videos that the standard split leaves out")


def _transcripts(folder: CorpusFolder, pattern: re.Pattern[str]) -> dict[str, str]:
    """Video -> its file of words."""
    return {match[1]: file for file in folder.files if (match := pattern.fullmatch(file))}


def _numbered(text: str) -> dict[str, str]:
    """Segment -> words, of lines `3_DELIM_words`."""
    lines = (line.partition("_DELIM_") for line in text.splitlines())
    return {number.strip(): words.strip() for number, delimiter, words in lines if delimiter}


def _timed(text: str) -> list[tuple[str, float, str]]:
    """Segment, start in seconds and words, of lines `VIDEO___3___12.5___17.0___words`."""
    found = []
    for line in text.splitlines():
        cells = line.split("___", 4)
        if len(cells) == 5 and re.fullmatch(r"\s*\d+\.?\d*\s*", cells[2]):
            found.append((cells[1].strip(), float(cells[2]), cells[4].strip()))
    return found


def _needed(folder: CorpusFolder, names: Sequence[str], corpus: str, published: str) -> str:
    """The file of labels, which the raw download lacks."""
    file = folder.first(*names)
    if file is None:
        what = f"the labels are not part of {corpus}'s raw download: there is no file {' or '.join(names)}"
        hint = f"Put {published} into the folder. It is at {_LABELS.format(corpus, published)}, see {_SDK}"
        raise CorpusError(what, path=folder.path, hint=hint)
    return file


def _opinions(folder: CorpusFolder, file: str) -> dict[str, dict[int, _Segment]]:
    """Video -> segment -> label, of the older table."""
    labels: dict[str, dict[int, _Segment]] = {}
    for line, cells in enumerate(csv.reader(io.StringIO(folder.words(file))), start=1):
        try:
            start, end, video, number, label = (cell.strip() for cell in cells)
            labels.setdefault(video, {})[int(number)] = _Segment(float(start), float(end), (float(label),))
        except ValueError:
            what = f"line {line} of {file} is not start, end, video, segment, label: {','.join(cells)[:80]!r}"
            raise CorpusError(what, path=folder.path / file) from None
    return labels


def _sequence(folder: CorpusFolder, file: str, columns: int) -> dict[str, dict[int, _Segment]]:
    """Video -> number of the segment, from 1 -> labels, of a computational sequence."""
    import h5py

    path = folder.path / file
    labels: dict[str, dict[int, _Segment]] = {}
    try:
        with h5py.File(path, "r") as opened:
            (group,) = opened.values()
            for video, entry in group["data"].items():
                features, intervals = entry["features"][()], entry["intervals"][()]
                if features.shape != (len(intervals), columns) or intervals.shape[1:] != (2,):
                    raise ValueError(f"{video} has labels {features.shape} of stretches {intervals.shape}")
                segments = zip(intervals.tolist(), features.tolist(), strict=True)
                labels[str(video)] = {
                    number: _Segment(start, end, [float(f"{one:.6g}") for one in values])
                    for number, ((start, end), values) in enumerate(segments, start=1)
                }
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        what = f"{file} is not a computational sequence of {columns} labels a segment: {error}"
        raise CorpusError(what, path=path, hint=f"Take the file as it is handed out, see {_SDK}") from error
    return labels


def _standard_split(folder: CorpusFolder) -> Mapping[str, str]:
    """Video -> split, of the SDK's file, which is read and not run."""
    file = folder.first(MOSEI_SPLIT)
    if file is None:
        what = f"the standard split is not part of CMU-MOSEI's raw download: there is no file {MOSEI_SPLIT}"
        where = "mmsdk/mmdatasdk/dataset/standard_datasets/CMU_MOSEI"
        raise CorpusError(what, path=folder.path, hint=f"Put it into the folder. It is in {where} of {_SDK}")
    try:
        assigned = [node for node in ast.parse(folder.words(file)).body if isinstance(node, ast.Assign)]
        folds = {_target(node): ast.literal_eval(node.value) for node in assigned if _target(node) in _FOLDS}
        if folds.keys() != _FOLDS.keys():
            raise ValueError(f"there is no {min(_FOLDS.keys() - folds.keys())}")
        return {str(video): _FOLDS[name] for name, videos in folds.items() for video in videos}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise CorpusError(f"{file} is not the SDK's file of the split: {error}", path=folder.path / file) from error


def _target(node: ast.Assign) -> str:
    return node.targets[0].id if isinstance(node.targets[0], ast.Name) else ""


class _Media:
    """Where segments were recorded: in clips of videos, else whole videos, else clips of sound, else whole sound.

    Args:
        folder: of the corpus.
        clips: where a clip should be, below the folder.
    """

    def __init__(self, folder: CorpusFolder, clips: str) -> None:
        self._missing = clips
        self._files: dict[tuple[bool, str, str], str] = {}
        for file in folder.recordings:
            path = PurePosixPath(file)
            kind = next((part for part in ("Segmented", "Full") if part in path.parts), "")
            self._files.setdefault(("Audio" in path.parts, kind, path.stem), file)

    def place(self, video: str, number: str, segment: _Segment) -> tuple[str, float | None, float | None]:
        """File, and start and end in it where it is a whole video's; where the clip should be when there is none."""
        for sound in (False, True):
            if clip := self._files.get((sound, "Segmented", f"{video}_{number}")):
                return clip, None, None
            if whole := self._files.get((sound, "Full", video)):
                return whole, segment.start, segment.end
        return f"{self._missing}/{video}_{number}.mp4", None, None
