"""Turn corrections into training labels: a row per utterance that people have labelled or confirmed."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from emopipe.errors import DatasetError, LabelsTableError, Reason, Where, reason
from emopipe.pipeline.corrections.review import Review, review_of
from emopipe.pipeline.datasets.labels import LabelledSource, Labels
from emopipe.pipeline.export.recording import Recording, read_recordings
from emopipe.pipeline.media.finding import find_media
from emopipe.pipeline.records import Source, is_generic
from emopipe.pipeline.report.outputs import row_of


def corrected_labels(results: Path, path: Path) -> Labels:
    """The utterances of a run that people have labelled or confirmed, as rows of a labels table.

    Args:
        results: of the run; corrections were applied to them.
        path: the recordings, a folder or a file.

    Raises:
        InputNotFound: when there was no run, or no recordings are there; OutputError when its results cannot be used.
        DatasetError: nobody has labelled or confirmed anything.
        LabelsTableError: a recording cannot be told from others of the same name.
    """
    files = find_media([path])
    if files.errors:
        raise files.errors[0]
    rows: list[LabelledSource] = []
    reasons: list[Reason] = []
    for recording in read_recordings(results):
        reviews = list(_reviews(recording))
        if reviews:
            media = _located(recording.result.media, path, files.files)
            for review in reviews:
                reasons += _doubts(recording, review)
                rows += [_row(recording, review, media)] if _answer(review) is not None else []
    if not rows:
        hint = "Correct utterances on the pages of the results, and apply what they save with `emopipe correct`"
        raise DatasetError("no utterance of the results was labelled or confirmed by anybody", path=results, hint=hint)
    return Labels(rows, reasons)


def _reviews(recording: Recording) -> Iterator[Review]:
    for utterance in recording.result.utterances:
        review = review_of(row_of(utterance))
        if review is not None:
            yield review


def _answer(review: Review) -> str | float | None:
    return review.value if review.value is not None else review.label


def _row(recording: Recording, review: Review, media: Path) -> LabelledSource:
    source = Source(
        id=f"{recording.stem}@{review.start:g}",
        media=media,
        text=review.text or None,
        start=review.start,
        end=review.end,
        speaker=_speaker(recording, review.person),
    )
    return LabelledSource(source, None, {"label": str(_answer(review))})


def _speaker(recording: Recording, person: str | None) -> str:
    """A name that holds across recordings: S1 of one is not S1 of another."""
    if person is None:
        return recording.stem
    return f"{recording.stem}/{person}" if is_generic(person) else person


def _doubts(recording: Recording, review: Review) -> Iterator[Reason]:
    if review.undecided:
        names = {"text": "words", "person": "person", "bounds": "bounds", "label": "label"}
        fields = ", ".join(names.get(field, field) for field in review.undecided)
        left = "it is left out" if "label" in review.undecided else "the results hold"
        what = f"{recording.stem} at {review.start:g} s: {', '.join(review.by)} do not agree on its {fields}; {left}"
        yield reason("correctors_disagree", what, where=Where(start=review.start, end=review.end))


def _located(media: Path, path: Path, files: Sequence[Path]) -> Path:
    """The recording among files: the same file, else the one whose path ends most alike.

    Raises:
        LabelsTableError: several end alike.
    """
    same = [file for file in files if file.resolve() == media.resolve()]
    alike = {file: _shared_end(file, media) for file in files if _shared_end(file, media)}
    best = same or [file for file, parts in alike.items() if parts == max(alike.values())]
    if len(best) > 1:
        what = f"several recordings are called {media.name}: {', '.join(map(str, best[:3]))}"
        raise LabelsTableError(what, path=path, hint="Name the folder of the one that was corrected")
    return best[0] if best else (path / media.name if path.is_dir() else media)


def _shared_end(one: Path, other: Path) -> int:
    """How many names at the end of two paths are the same."""
    count = 0
    for first, second in zip(reversed(one.parts), reversed(other.parts), strict=False):
        if unicodedata.normalize("NFC", first) != unicodedata.normalize("NFC", second):
            break
        count += 1
    return count
