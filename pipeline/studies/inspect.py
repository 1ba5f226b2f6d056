"""Look at a dataset before training: counts, gaps, near-duplicates, doubtful labels, speakers confounded with classes.

Labels are doubted where a linear model that never heard the speaker finds another class far likelier.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emopipe.errors import Reason, counted
from emopipe.pipeline.studies.tables import Row, write_text

if TYPE_CHECKING:
    from emopipe.models.data.dataset import Dataset

#: Mean features of two rows are those of one recording when they differ by less than this share of their length.
ALIKE: Final = 0.02
#: Rows that are compared with all others at a time.
BLOCK: Final = 512
#: Utterances shorter than this, in seconds, say little.
SHORT: Final = 0.5
#: Doubtful labels and near-duplicates that are listed.
MOST: Final = 20
#: A label is doubted where another class is so many times as likely.
DOUBT: Final = 3.0


@dataclass(frozen=True)
class Inspection:
    """What a dataset holds and what is odd about it.

    Attributes:
        rows: how many, labelled or not.
        classes: class -> clips, speakers and clips of each split; one row for values.
        speakers: the clips of each speaker, and of each class.
        modalities: how many rows lack which, and why.
        durations: of the utterances, in seconds.
        duplicates: pairs of rows that are nearly the same.
        agreement: of the coders, where several labelled the same rows; their figures, and how many rows are tied.
        doubtful: rows whose label is contradicted, the most doubtful first.
        reasons: what was doubtful about its table and recordings when it was extracted, or was chosen; a row per code.
        advice: what to do first.
    """

    rows: int
    classes: list[Row]
    speakers: list[Row]
    modalities: list[Row]
    durations: list[Row]
    duplicates: list[Row]
    agreement: list[Row]
    doubtful: list[Row]
    reasons: list[Row]
    advice: list[str]

    @property
    def tables(self) -> dict[str, list[Row]]:
        """Title -> rows, those that there are."""
        every = {
            "Classes": self.classes,
            "Speakers": self.speakers,
            "Modalities": self.modalities,
            "Durations in seconds": self.durations,
            "Agreement of coders": self.agreement,
            "Near-duplicates": self.duplicates,
            "Labels to listen to": self.doubtful,
            "Doubts and choices when it was extracted": self.reasons,
        }
        return {title: rows for title, rows in every.items() if rows}


def inspect_dataset(folder: Path, label: str = "label", out: Path | None = None) -> Inspection:
    """Inspect a dataset.

    Args:
        folder: the dataset.
        label: the manifest column that would be predicted.
        out: an HTML page to write; None for none.

    Raises:
        DatasetError: it cannot be read, or has no such column.
    """
    from emopipe.models.data import reading
    from emopipe.models.training.config import TrainConfig
    from emopipe.models.training.suitable import remarks

    dataset = reading.read(folder)
    labels = np.array([_cell(one) for one in dataset.labels(label)], dtype=object)
    counted = numeric(dataset, label)
    duplicates = near_duplicates(dataset, labels)
    doubtful = [] if counted else doubtful_labels(dataset, label)
    found = Inspection(
        rows=len(dataset),
        classes=[_values(dataset.labels(label))] if counted else class_counts(dataset, labels),
        speakers=[] if counted else speaker_counts(dataset, labels),
        modalities=missing(dataset),
        durations=durations(dataset),
        duplicates=duplicates[:MOST],
        agreement=agreement_of_coders(dataset, label),
        doubtful=doubtful[:MOST],
        reasons=reasons_of_extraction(folder),
        advice=[*remarks(dataset, TrainConfig(label=label)), *advice(dataset, labels, duplicates, doubtful, counted)],
    )
    if out is not None:
        write_page(found, folder.name, out)
    return found


def numeric(dataset: Dataset, label: str) -> bool:
    """Whether labels are values."""
    return bool(dataset.labels(label).dtype != object)


def _cell(value: Any) -> str | None:
    missing_number = isinstance(value, float) and np.isnan(value)
    return None if value is None or missing_number else str(value)


def _values(values: Any) -> Row:
    """The spread of numeric labels."""
    known = values[np.isfinite(values)]
    quarters = np.quantile(known, (0, 0.25, 0.5, 0.75, 1)) if len(known) else np.full(5, np.nan)
    names = ("least", "quarter", "median", "three quarters", "most")
    return {"clips": str(len(known)), **{name: f"{one:.3g}" for name, one in zip(names, quarters, strict=True)}}


def class_counts(dataset: Dataset, labels: Any) -> list[Row]:
    """A row per class: its clips, its speakers, and its clips in each split."""
    splits = sorted({str(one) for one in dataset.split if one is not None})
    rows = []
    for name in sorted({one for one in labels if one is not None}):
        inside = labels == name
        people = {one for one in dataset.speakers[inside] if one is not None}
        rows.append({"class": name, "clips": str(inside.sum()), "speakers": str(len(people))})
        rows[-1] |= {split: str(int((dataset.split[inside] == split).sum())) for split in splits}
    return rows


def speaker_counts(dataset: Dataset, labels: Any) -> list[Row]:
    """A row per speaker: clips, and clips of each class."""
    names = sorted({one for one in labels if one is not None})
    rows = []
    for speaker in sorted({str(one) for one in dataset.speakers if one is not None}):
        own = Counter(labels[dataset.speakers == speaker])
        rows.append({"speaker": speaker, "clips": str(sum(own.values())), **{name: str(own[name]) for name in names}})
    return rows


def missing(dataset: Dataset) -> list[Row]:
    """A row per modality: how many rows have it, and why the others do not."""
    rows = []
    for column, name in enumerate(dataset.modalities):
        there = dataset.present[:, column]
        why = Counter(str(one or "not told") for one in dataset.column(f"{name}_absent")[~there])
        reasons = ", ".join(f"{reason} {count}" for reason, count in why.most_common(4))
        rows.append({"modality": name, "present": str(there.sum()), "absent": str((~there).sum()), "why": reasons})
    return rows


def lengths(dataset: Dataset) -> Any:
    """(N,) seconds of the utterances, NaN where they are not known: what is only written has a length of 0."""
    edges = [[np.nan if one is None else float(one) for one in dataset.column(name)] for name in ("start", "end")]
    found = np.array(edges[1]) - np.array(edges[0])
    return np.where(found > 0, found, np.nan)


def agreement_of_coders(dataset: Dataset, label: str) -> list[Row]:
    """How far the coders of a label agree, which is a ceiling for models; no row where there is one label a row."""
    from emopipe.models.evaluation.agreement import coder_agreement

    votes, agreement = dataset.votes(label), coder_agreement(dataset, label)
    if votes is None or agreement is None:
        return []
    facts = {"rows": str(agreement.rows), "votes each": f"{agreement.votes:.1f}", "alpha": f"{agreement.alpha:.3f}"}
    figures = {f"one coder against the others: {name}": f"{one:.3f}" for name, one in agreement.figures.items()}
    return [{**facts, **figures, "without a majority": str(int(votes.tied.sum()))}]


def reasons_of_extraction(folder: Path) -> list[Row]:
    """How often each code stands in the dataset's `reasons.csv` and `failures.csv`, with an example."""
    reasons = []
    for name in ("failures.csv", "reasons.csv"):
        if (folder / name).is_file():
            with (folder / name).open(newline="", encoding="utf-8") as file:
                reasons += [Reason(row["code"], row["reason"], row.get("hint", "")) for row in csv.DictReader(file)]
    return [
        {"code": one.code, "times": str(count), "for instance": one.what, "what to do": one.hint}
        for one, count in counted(reasons)
    ]


def durations(dataset: Dataset) -> list[Row]:
    """The spread of the utterances' durations."""
    known = lengths(dataset)
    known = known[np.isfinite(known)]
    if len(known) == 0:
        return []
    return [
        {
            "shortest": f"{known.min():.2f}",
            "median": f"{np.median(known):.2f}",
            "longest": f"{known.max():.2f}",
            "all": f"{known.sum():.0f}",
            f"below {SHORT:g} s": str(int((known < SHORT).sum())),
        }
    ]


def near_duplicates(dataset: Dataset, labels: Any) -> list[Row]:
    """Pairs of rows with nearly the same mean features in every modality that both have; those that matter first."""
    vectors = [mean_vectors(dataset, name) for name in dataset.modalities]
    rows = []
    for at in range(0, len(dataset), BLOCK):
        block = slice(at, at + BLOCK)
        same, compared = np.ones((len(labels[block]), len(dataset)), dtype=bool), False
        for vector, there in vectors:
            both = there[block, None] & there[None]
            squares = (vector**2).sum(1)
            apart = squares[block, None] + squares[None] - 2 * vector[block] @ vector.T
            same &= ~both | (apart < ALIKE**2 * np.minimum(squares[block, None], squares[None]))
            compared = both | compared
        pairs = np.argwhere(same & compared)
        rows += [_pair(dataset, labels, at + int(one), int(other)) for one, other in pairs if at + one < other]
    return sorted(rows, key=lambda row: row["why it matters"] == "")


def mean_vectors(dataset: Dataset, name: str) -> tuple[Any, Any]:
    """Standardised mean features (N, D) of a modality, and which rows have it (N,)."""
    from emopipe.models.data.speakers import utterance_mean

    there = dataset.present[:, dataset.modalities.index(name)]
    vectors = np.zeros((len(dataset), dataset.dims[name]))
    for row in np.flatnonzero(there):
        steps = dataset.sample(int(row)).features[name]
        assert steps is not None
        vectors[row] = utterance_mean(steps)
    finite = np.nan_to_num(vectors)
    spread = finite[there].std(0) if there.any() else np.ones(vectors.shape[1])
    return (finite - finite[there].mean(0, keepdims=True)) / np.where(spread > 0, spread, 1.0), there


def _pair(dataset: Dataset, labels: Any, one: int, other: int) -> Row:
    facts = []
    if dataset.split[one] != dataset.split[other]:
        facts.append(f"in {dataset.split[one]} and {dataset.split[other]}")
    if dataset.speakers[one] != dataset.speakers[other]:
        facts.append(f"said to be {dataset.speakers[one]} and {dataset.speakers[other]}")
    if labels[one] != labels[other]:
        facts.append(f"labelled {labels[one]} and {labels[other]}")
    return {"one": dataset.ids[one], "other": dataset.ids[other], "why it matters": ", ".join(facts)}


def doubtful_labels(dataset: Dataset, label: str) -> list[Row]:
    """Rows whose label a linear model contradicts that was trained on other speakers, the most doubtful first."""
    from emopipe.errors import TrainingError
    from emopipe.models.data.labelled import labelled, targets
    from emopipe.models.evaluation.evaluate import fold_datasets
    from emopipe.models.training.config import TrainConfig
    from emopipe.models.training.loop import train

    alone = len(set(dataset.groups)) < 3
    config = TrainConfig("linear", {"strengths": (10.0,)}, label=label, allow_speaker_overlap=alone, device="cpu")
    doubts: list[tuple[float, Row]] = []
    try:
        for inner, test in fold_datasets(dataset, config, 5):
            predictor = train(inner, config).predictor
            classes = predictor.spec.classes
            judged = test.subset(labelled(test, label, classes, modalities=predictor.spec.modalities))
            shares = predictor.probabilities(predictor.scores(judged))
            for row, (truth, share) in enumerate(zip(targets(judged, label, classes), shares, strict=True)):
                best = int(share.argmax())
                if share[best] > DOUBT * share[truth]:
                    facts = {"clip": judged.ids[row], "speaker": judged.speakers[row] or "", "label": classes[truth]}
                    facts |= {
                        "predicted": classes[best],
                        "probability": f"{share[best]:.2f}",
                        "of the label": f"{share[truth]:.2f}",
                    }
                    doubts.append((float(np.log(share[best] + 1e-9) - np.log(share[truth] + 1e-9)), facts))
    except TrainingError:  # too little to train on: nothing can be doubted
        return []
    return [facts for _, facts in sorted(doubts, key=lambda one: -one[0])]


def advice(
    dataset: Dataset, labels: Any, duplicates: Sequence[Row], doubtful: Sequence[Row], counted: bool
) -> list[str]:
    """What to do first, in words."""
    items = []
    apart = [row for row in duplicates if " and " in row["why it matters"]]
    if apart:
        items.append(
            f"{len(apart)} pairs of clips are nearly the same and differ in split, speaker or label: keep one each"
        )
    if doubtful:
        few = f", beginning with the first {MOST}" if len(doubtful) > MOST else ""
        items.append(f"{len(doubtful)} labels are contradicted by clips of other speakers: listen to them{few}")
    for name, speaker in [] if counted else confounded(dataset, labels):
        items.append(f"speaker {speaker!r} has the class {name!r} alone: record others of this person")
    short = int((lengths(dataset) < SHORT).sum())
    if short:
        items.append(f"{short} utterances are shorter than {SHORT:g} s: look whether start and end are right")
    for column, name in enumerate(dataset.modalities):
        share = 1 - dataset.present[:, column].mean() if len(dataset) else 0.0
        if share > 0.5:
            items.append(f"{name} is absent from {100 * share:.0f} % of the rows: train without it, or see why")
    return items


def confounded(dataset: Dataset, labels: Any) -> list[tuple[str, str]]:
    """Speakers of whom there is one class alone, where there are several speakers and classes."""
    people = {str(one) for one in dataset.speakers if one is not None}
    if len(people) < 2 or len({one for one in labels if one is not None}) < 2:
        return []
    own = {one: {name for name in labels[dataset.speakers == one] if name is not None} for one in sorted(people)}
    return [(next(iter(names)), one) for one, names in own.items() if len(names) == 1]


def write_page(found: Inspection, name: str, out: Path) -> None:
    """Write an inspection as a page that needs nothing beside it.

    Raises:
        OutputError: it cannot be written.
    """
    from emopipe.pipeline.report.pages import render

    most = max((int(row["clips"]) for row in found.classes if "class" in row), default=1)
    write_text(out, render("inspection.html", name=name, found=found, most=max(most, 1)))
