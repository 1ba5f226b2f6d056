"""Active learning: which utterances of unlabelled recordings are most worth labelling next.

Uncertain ones that are typical of many others, and unlike each other: the most uncertain utterances by the entropy of
their probabilities are candidates, and of these the set is chosen that best represents them (facility location, each
counting as much as it is uncertain; FASS, Wei, Iyer and Bilmes 2015). Of near-duplicates one at most is chosen, and
what a labelled data set represents already counts less.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from emopipe.constants import MODALITIES
from emopipe.errors import DatasetError, reason
from emopipe.pipeline.progress import Event, Hook, silent
from emopipe.pipeline.studies.tables import Row, write_csv, write_text

if TYPE_CHECKING:
    from emopipe.pipeline.export.recording import Recording
    from emopipe.pipeline.records import UtteranceResult

Numbers = NDArray[np.float64]

#: Candidates for each utterance that is chosen, and at most: the distances of all pairs are in memory.
CANDIDATES, MOST = 20, 5000
#: Utterances shorter than this, in seconds, say little.
SHORT: Final = 0.5
#: Two utterances are nearly the same when their mean features differ by less than this share of a typical distance.
ALIKE: Final = 0.02
#: What is known of an utterance without the store: what the model and each modality say of it.
PREDICTED: Final = "predictions"


@dataclass(frozen=True)
class Candidate:
    """An utterance that could be labelled.

    Attributes:
        media: its recording.
        utterance: what was found and predicted.
        uncertainty: 0 for a sure answer, 1 for none.
        features: modality -> mean features; of a recording that is not in the store, what was predicted.
    """

    media: Path
    utterance: UtteranceResult
    uncertainty: float
    features: Mapping[str, Numbers]


@dataclass(frozen=True)
class Selection:
    """The utterances to label next.

    Attributes:
        rows: the most worthwhile first.
        candidates: how many utterances there were to choose among.
        without_features: those of them whose features are not in the store.
        passed_over: code of why others were not considered -> how many.
    """

    rows: list[Row]
    candidates: int
    without_features: int
    passed_over: Mapping[str, int] = field(default_factory=dict)


def select_utterances(
    results: Path,
    out: Path,
    count: int,
    *,
    store: Path,
    labelled: Path | None = None,
    hook: Hook = silent,
) -> Selection:
    """Choose the utterances of a run that are most worth labelling.

    Writes `select.csv`, a labels table whose column `label` waits to be filled in, and the page `select.html`.

    Args:
        results: folder of the run.
        out: folder for table and page.
        count: how many to choose.
        store: in which the run kept what it measured; without it, utterances differ by what was predicted.
        labelled: a dataset of what is labelled already.
        hook: told of progress.

    Raises:
        InputNotFound: no run has left results there.
        DatasetError: no utterance can be labelled.
    """
    from emopipe.pipeline.export.recording import recordings_of_run

    found: list[Candidate] = []
    passed: dict[str, int] = {}
    for number, recording in enumerate(recordings_of_run(results, store), start=1):
        hook(Event("progress", "select", recording.media, done=number))
        found += _candidates(recording, passed)
    if not found:
        raise DatasetError("no utterance can be labelled", hint="Run on recordings in which people speak or are seen")
    bare = sum(PREDICTED in one.features for one in found)
    if bare:
        hook(Event("warning", "select", str(reason("not_in_store", f"features of {bare} of {len(found)} utterances"))))
    known = [] if labelled is None else labelled_features(labelled)
    order, represents = choose(found, count, known)
    rows = [_row(found[at], rank, many) for rank, (at, many) in enumerate(zip(order, represents, strict=True), start=1)]
    selection = Selection(rows, len(found), bare, passed)
    _write(selection, [found[at] for at in order], results.name, out)
    return selection


def _candidates(recording: Recording, passed: dict[str, int]) -> Iterator[Candidate]:
    sequences = {name: recording.mean_features(name) for name in MODALITIES}
    for index, utterance in enumerate(recording.result.utterances):
        doubt = uncertainty(utterance)
        if doubt is None or utterance.end - utterance.start < SHORT:
            why = "no_evidence" if doubt is None else "too_short"
            passed[why] = passed.get(why, 0) + 1
            continue
        features = {name: found[index] for name, found in sequences.items() if index in found}
        yield Candidate(recording.result.media, utterance, doubt, features or {PREDICTED: predictions(utterance)})


def uncertainty(utterance: UtteranceResult) -> float | None:
    """How unsure an answer is: the entropy of its probabilities, as a share of the most; None without an answer.

    Of values, which have no probabilities, it is how far the modalities contradict each other.
    """
    if utterance.probabilities:
        shares = np.array(list(utterance.probabilities.values()))
        shares = shares[shares > 0]
        return float(-(shares * np.log(shares)).sum() / np.log(max(len(utterance.probabilities), 2)))
    if utterance.value is None:
        return None
    values = [said["value"] for said in utterance.unimodal.values() if "value" in said]
    spread = float(np.std(values)) if len(values) > 1 else 0.0
    return spread / (1 + spread)


def predictions(utterance: UtteranceResult) -> Numbers:
    """What the model says of an utterance, and each modality, as a vector."""
    parts = [utterance.probabilities or {"value": utterance.value or 0.0}]
    parts += [utterance.unimodal.get(name, parts[0]) for name in MODALITIES]
    return np.array([share for part in parts for _, share in sorted(part.items())], dtype=np.float64)


def labelled_features(folder: Path) -> list[dict[str, Numbers]]:
    """Mean features of each row of a dataset, by modality."""
    from emopipe.models.data import reading
    from emopipe.models.data.speakers import utterance_mean

    dataset = reading.read(folder)
    rows = (dataset.sample(row).features for row in range(len(dataset)))
    return [{name: utterance_mean(steps) for name, steps in row.items() if steps is not None} for row in rows]


def choose(
    found: Sequence[Candidate], count: int, known: Sequence[Mapping[str, Numbers]] = ()
) -> tuple[list[int], list[int]]:
    """Choose uncertain utterances that represent many others.

    Args:
        found: the candidates.
        count: how many at most; fewer where all others are nearly the same as a chosen or labelled one.
        known: features of what is labelled already.

    Returns:
        Which candidates, the most worthwhile first; and how many each represents.
    """
    doubts = np.array([one.uncertainty for one in found])
    pool = np.argsort(-doubts, kind="stable")[: min(max(CANDIDATES * count, 200), MOST)]
    squares = distances([found[at].features for at in pool], known)
    size = len(pool)
    near = np.sort(squares[:, :size], axis=1)[:, min(size - 1, max(1, size // max(count, 1)))]
    width = max(float(np.median(near)), 1e-9)
    similar = np.exp(-squares / width)
    alike = squares < ALIKE**2
    covered = similar[:, size:].max(axis=1, initial=0.0)
    free = ~alike[:, size:].any(axis=1)
    worth = doubts[pool] + 1e-6
    chosen: list[int] = []
    while free.any() and len(chosen) < count:
        gains = worth * (worth[:, None] * np.maximum(similar[:, :size] - covered[:, None], 0.0)).sum(axis=0)
        best = int(np.where(free, gains, -1.0).argmax())
        chosen.append(best)
        covered = np.maximum(covered, similar[:, best])
        free &= ~alike[:, best]
        free[best] = False
    nearest = similar[:, chosen].argmax(axis=1)
    represents = np.bincount(nearest, minlength=len(chosen)).tolist()
    return [int(pool[at]) for at in chosen], represents


def distances(features: Sequence[Mapping[str, Numbers]], known: Sequence[Mapping[str, Numbers]]) -> Numbers:
    """Squared distances (N, N + K) of candidates from each other and from what is known.

    It is the mean over the modalities that one of the two has; that of a typical pair is 1, and so is that of a
    modality which one alone has.
    """
    every, size = [*features, *known], len(features)
    total, counts = np.zeros((size, len(every))), np.zeros((size, len(every)))
    for name in sorted({name for one in every for name in one}):
        width = len(next(one[name] for one in every if name in one))
        there = np.array([name in one and len(one[name]) == width for one in every])
        table = np.zeros((len(every), width))
        table[there] = np.nan_to_num(np.stack([one[name] for one, has in zip(every, there, strict=True) if has]))
        spread = table[there].std(axis=0)
        table = (table - table[there].mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        lengths = (table**2).sum(axis=1)
        apart = np.maximum(lengths[:size, None] + lengths[None] - 2 * table[:size] @ table.T, 0.0)
        both, one = there[:size, None] & there[None], there[:size, None] ^ there[None]
        typical = float(np.median(apart[both])) if both.any() else 0.0
        total += np.where(both, apart / typical if typical > 0 else 0.0, one)
        counts += both | one
    return total / np.maximum(counts, 1)


def _row(one: Candidate, rank: int, represents: int) -> Row:
    """A row of a labels table, with an empty label; names such as S1 hold in one recording only."""
    utterance = one.utterance
    speaker = utterance.speaker or ""
    if re.fullmatch(r"S\d+", speaker):
        speaker = f"{one.media.stem}/{speaker}"
    value = "" if utterance.value is None else f"{utterance.value:.3f}"
    return {
        "file": str(one.media.absolute()),
        "start": f"{utterance.start:.3f}",
        "end": f"{utterance.end:.3f}",
        "speaker": speaker,
        "label": "",
        "rank": rank,
        "predicted": utterance.label or value,
        "uncertainty": f"{one.uncertainty:.3f}",
        "represents": represents,
        "transcription": utterance.text,
    }


def _write(selection: Selection, chosen: Sequence[Candidate], name: str, out: Path) -> None:
    from emopipe.pipeline.report.outputs import media_link
    from emopipe.pipeline.report.pages import colours, render

    write_csv(out / "select.csv", selection.rows)
    labels = sorted({label for one in chosen for label in one.utterance.probabilities})
    links = [media_link(out, one.media) for one in chosen]
    facts: dict[str, Any] = {"selection": selection, "chosen": list(zip(selection.rows, chosen, links, strict=True))}
    write_text(out / "select.html", render("select.html", name=name, labels=labels, colours=colours(labels), **facts))
