"""A diagnosis of a checkpoint as one page, tables and pictures; see :mod:`emopipe.models.evaluation.diagnose`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Final

from emopipe.errors import OptionConflict, StudyError
from emopipe.models.data.split_names import split_or_all
from emopipe.pipeline.backends.backbones import load_predictor
from emopipe.pipeline.progress import Hook, silent, timed
from emopipe.pipeline.studies.tables import Row, markdown, write_csv, write_text
from emopipe.pipeline.studies.train import train_checkpoint

if TYPE_CHECKING:
    from emopipe.models.data.dataset import Dataset
    from emopipe.models.evaluation.compare import Difference
    from emopipe.models.evaluation.diagnose import Ablation, GateUse, Inside, Similarity
    from emopipe.models.predictor import Predictor

#: Metrics of which less is better, among those with intervals.
_ERRORS: Final = frozenset({"mae"})
#: Intervals from fewer speakers than this are too narrow.
FEW: Final = 10
#: What stands above the alarms, and where there are none.
ALARMED: Final = "What EGMF's paper takes for a failure of the mixture."
CALM: Final = "None of what EGMF's paper takes for a failure: a uniform gate, experts alike, information that is lost."
#: A branch that gets the largest weight in less than this share of the utterances is idle.
IDLE: Final = 0.01


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: of its table `<name>.csv` and, when it has one, its picture `<name>.png`.
        title: its heading.
        words: what its table shows, and how it was found.
        findings: what it means, a sentence each.
        rows: the table.
        drawn: whether there is a picture.
    """

    name: str
    title: str
    words: str
    findings: tuple[str, ...]
    rows: tuple[Row, ...]
    drawn: bool = True


def diagnose_checkpoint(
    model: str,
    folder: Path,
    out: Path,
    split: str = "valid",
    backbones: Sequence[str] = (),
    metric: str = "auto",
    by: str = "",
    *,
    device: str = "auto",
    offline: bool = False,
    hook: Hook = silent,
) -> tuple[list[str], list[Path]]:
    """Say what is alive inside a checkpoint of EGMF, EMOE or a form of it.

    Writes `diagnosis.md`, and for each of its parts a table (CSV) and a picture (PNG and SVG): `gate`, `correlation`,
    `similarity` (of pseudo tokens), `ablation`, and `backbones` when there are any to compare.

    Args:
        model: name of a shipped checkpoint, or the folder of another.
        folder: the dataset.
        out: folder of the results.
        split: rows to look at; "all" for every row.
        backbones: catalogue names, folders or hub ids. The checkpoint's own configuration is trained with each, on the
            dataset, into `out/backbones`; a killed call goes on where it was.
        metric: of the ablations; auto: uar for classes, mae for values.
        by: `language`, `speaker`, `corpus` or another column of the manifest: also tell what each part is worth in each
            group of it, in `groups.csv`; "" for none.
        device: "auto", "cpu" or "cuda".
        offline: never fetch a backbone.
        hook: told of progress.

    Returns:
        The findings, and the files.

    Raises:
        ConfigError: for backbones of a model that stands on none.
        EmopipeError: see :func:`emopipe.models.evaluation.diagnose.look_inside`.
    """
    from emopipe.models.data import reading
    from emopipe.models.evaluation.diagnose import look_inside

    predictor, name = load_predictor(model, device, offline=offline, hook=hook)
    dataset = reading.read(folder)
    others = _train_others(predictor, folder, backbones, out / "backbones", device, offline, hook)
    with timed(hook, "diagnose"):
        inside = look_inside(predictor, dataset, split_or_all(split))
    out.mkdir(parents=True, exist_ok=True)
    chosen = metric if metric != "auto" else "mae" if predictor.spec.task == "regression" else "uar"
    sections = list(_sections(predictor, dataset, inside, chosen, out, hook))
    if by:
        sections.append(_by_group(predictor, dataset, inside, chosen, by, hook))
    if others:
        sections.append(_backbones(predictor, others, dataset, inside, chosen, out))
    for section in filter(lambda one: one.rows, sections):
        write_csv(out / f"{section.name}.csv", section.rows)
    head = (
        f"# What is alive in {predictor.spec.model} {name}\n\n"
        f"Looked at on {len(inside.rows)} labelled utterances of {folder.name} ({split}).\n"
    )
    write_text(out / "diagnosis.md", _page(head, sections))
    files = [out / f"{one.name}{kind}" for one in sections for kind in (".csv", ".png", ".svg")]
    return [line for one in sections for line in one.findings], [out / "diagnosis.md", *filter(Path.exists, files)]


def _sections(
    predictor: Predictor, dataset: Dataset, inside: Inside, metric: str, out: Path, hook: Hook
) -> Iterator[Section]:
    from emopipe.models.evaluation.diagnose import ablations, alarms, similarities

    yield from _gate(inside, out)
    sentences = alarms(inside, predictor.spec.modalities)
    yield Section("alarms", "Alarms", ALARMED if sentences else CALM, tuple(sentences), (), drawn=False)
    if inside.mixed.any():
        yield _correlation(inside, out)
    alike = similarities(inside, predictor.spec.modalities)
    if alike:
        yield _similarity(alike, out)
    with timed(hook, "ablate"):
        part_ablations = ablations(predictor, dataset, inside, metric)
    if part_ablations:
        yield _ablation(part_ablations, metric, len(set(dataset.groups[inside.rows])), out)


def _page(head: str, sections: Sequence[Section]) -> str:
    findings = "\n".join(f"- {line}" for one in sections for line in one.findings)
    parts = [head, f"## Findings\n\n{findings}\n"]
    for one in sections:
        picture = f"![{one.title}]({one.name}.png)\n\n" if one.drawn else ""
        table = f"{markdown([_shown(row) for row in one.rows])}\n" if one.rows else ""
        parts.append(f"## {one.title}\n\n{one.words}\n\n{picture}{table}")
    return "\n".join(parts)


def _shown(row: Row) -> Row:
    return {name: _number(value) if isinstance(value, float) else value for name, value in row.items()}


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.3f}"


# ------------------------------------------------------------------------------------------------------------ the gate


def _gate(inside: Inside, out: Path) -> list[Section]:
    from emopipe.models.evaluation.diagnose import gate_use
    from emopipe.pipeline.studies import plots

    called = "gate" if inside.kind == "expert" else "router"
    title, rows, use = f"The {called}'s weights", [], None
    for stage, weights in inside.weights.items():
        use = gate_use(weights, inside.there, inside.branches)
        if use is not None:
            rows += [{"stage": stage, **asdict(one)} for one in use.usage]
    if use is None:
        words = f"In no utterance did the {called} have a choice: none has two branches to mix."
        return [Section("gate", title, words, (words,), (), drawn=False)]
    choice = inside.there.sum(axis=1) > 1
    panels = {
        f"{inside.kind} {name}": inside.mixing[choice & inside.there[:, column], column]
        for column, name in enumerate(inside.branches)
        if use.usage[column].rows
    }
    panels["normalised entropy"] = use.entropies
    plots.histograms(panels, "weight, and entropy of the weights", (0, 1), title, out / "gate")
    words = (
        f"Over the {len(use.entropies)} utterances in which it has a choice. `largest`: share of them in which no "
        "other branch gets more; `alone`: share in which it gets more than 0.9. The entropy is 0 when one branch gets "
        "all and 1 when all get the same."
    )
    return [Section("gate", title, words, tuple(_gate_findings(use, called, inside.kind)), tuple(rows))]


def _gate_findings(use: GateUse, called: str, kind: str) -> Iterator[str]:
    measured = (
        f"its largest weight exceeds 0.9 in {use.hard:.0%} of {len(use.entropies)} utterances, the normalised entropy "
        f"is {use.entropies.mean():.2f} on average"
    )
    favourite = max(use.usage, key=lambda one: -1.0 if math.isnan(one.mean) else one.mean)
    if use.state == "collapsed":
        onto = f"{kind} {favourite.branch} (mean weight {favourite.mean:.2f})"
        yield f"The {called} has collapsed onto {onto}: {measured}."
    elif use.state == "still":
        yield f"The {called} does not look at the utterance, its weights hardly vary: {measured}."
    else:
        yield (
            f"The {called} is alive: {measured}; {kind} {favourite.branch} gets most on average ({favourite.mean:.2f})."
        )
    for one in use.usage:
        if one.rows and one.largest < IDLE and use.state == "alive":
            yield (
                f"{kind.capitalize()} {one.branch} is idle: it gets the largest weight in {one.largest:.1%} of them "
                f"(mean {one.mean:.2f})."
            )


# --------------------------------------------------------------------------------------------------------- the outputs


def _correlation(inside: Inside, out: Path) -> Section:
    from emopipe.models.evaluation.diagnose import HIGH, correlations, cosines, geometry
    from emopipe.pipeline.studies import plots

    table, raw = correlations(inside.outputs, inside.there), cosines(inside.outputs, inside.there)
    title = f"Correlation of what {_plural(inside.kind)} say"
    plots.matrix(table, inside.branches, "correlation", title, out / "correlation")
    rows = []
    for one, two in combinations(range(len(inside.branches)), 2):
        both, r = inside.there[:, one] & inside.there[:, two], float(table[one, two])
        same = geometry(inside.outputs[both, one], inside.outputs[both, two])
        pair = {"one": inside.branches[one], "two": inside.branches[two]}
        rows.append({**pair, "r": r, "redundant": r > HIGH, "cosine": float(raw[one, two]), "geometry": same})
    words = (
        "Over all dimensions, each centred over the utterances that have both; what is said of every utterance alike "
        f"counts for nothing. Above {HIGH:g} one of the two is redundant. `geometry` is the correlation of the cosines "
        "between utterances: above the same limit both tell the utterances apart alike, in whatever directions. "
        "`cosine` is the mean over utterances, not centred, as in EGMF's paper."
    )
    return Section("correlation", title, words, tuple(_correlation_findings(rows, inside.kind, HIGH)), tuple(rows))


def _correlation_findings(rows: Sequence[Row], kind: str, high: float) -> Iterator[str]:
    with_r = [row for row in rows if not math.isnan(row["r"])]
    for row in with_r:
        both = f"{_plural(kind).capitalize()} {row['one']} and {row['two']}"
        if row["r"] > high:
            yield f"{both} say the same: r = {row['r']:.2f}."
        elif row["geometry"] > high:
            yield f"{both} know the same and say it in different directions: geometry {row['geometry']:.2f}."
    if with_r and all(row["r"] <= high for row in with_r):
        most, same = (max(with_r, key=lambda row: float(row[name])) for name in ("r", "geometry"))
        yield (
            f"No two {_plural(kind)} say the same: the most alike, {most['one']} and {most['two']}, correlate at "
            f"r = {most['r']:.2f}; the largest geometry, of {same['one']} and {same['two']}, is {same['geometry']:.2f}."
        )


def _plural(kind: str) -> str:
    return "modalities" if kind == "modality" else "experts"


def _similarity(measures: Sequence[Similarity], out: Path) -> Section:
    from emopipe.pipeline.studies import plots

    title = "Pseudo tokens and what they are made of"
    cosines = {one.compared: one.values for one in measures if one.measure == "cosine"}
    plots.histograms(cosines, "cosine", (-1, 1), title, out / "similarity")
    rows = tuple(
        {
            "compared": one.compared,
            "measure": one.measure,
            "mean": float(one.values.mean()),
            "sd": float(one.values.std()) if one.measure == "cosine" else math.nan,
            "rows": one.rows,
        }
        for one in measures
    )
    words = (
        "`cosine` where both vectors live in one space. `geometry` where they do not: the correlation of the cosines "
        "between utterances in the two spaces, 1 when utterances that are alike in one are alike in the other."
    )
    return Section("similarity", title, words, tuple(_similarity_findings(rows)), rows)


def _similarity_findings(rows: Sequence[Row]) -> Iterator[str]:
    means = {row["compared"]: row["mean"] for row in rows}
    turned, others = means["f before and after the experts"], means["pseudo token and those of others"]
    hardly = ", so they hardly change it" if turned > 0.95 else ""
    yield f"The cosine of f before and after the experts is {turned:.2f} on average{hardly}."
    if others > 0.99:
        yield f"All utterances get nearly the same pseudo tokens: their cosine is {others:.3f} on average."
    else:
        yield f"Pseudo tokens tell utterances apart: the cosine between two is {others:.2f} on average."
    geometry_means = {row["compared"].split(" and ")[1]: row["mean"] for row in rows if row["measure"] == "geometry"}
    if geometry_means:
        listing = ", ".join(f"{name} {_number(value)}" for name, value in geometry_means.items())
        yield f"What pseudo tokens keep of their inputs' geometry (1 is all, 0 nothing): {listing}."


# ----------------------------------------------------------------------------------------------------------- the parts


def _ablation(part_ablations: Sequence[Ablation], metric: str, groups: int, out: Path) -> Section:
    from emopipe.pipeline.studies import plots

    title = "What each part is worth"
    rows = tuple({"part": one.part, "metric": metric, **asdict(one)} for one in part_ablations)
    drawn = [
        {"name": f"without {one.part}", **_interval(one)} for one in part_ablations if not math.isnan(one.difference)
    ]
    if drawn:
        plots.gaps(drawn, _gap_label(metric), title, out / "ablation")
    words = (
        f"{metric.upper()} without a part less {metric.upper()} of the whole model, with 95 % bootstrap intervals over "
        f"{groups} speakers (or media files); nothing is trained anew. A modality is hidden from the utterances that "
        "have another one; an expert that is closed leaves its weight to the others."
    )
    findings = [*_ablation_findings(part_ablations, metric)]
    if groups < FEW:
        findings.append(f"Distrust the intervals: they rest on {groups} speakers (or media files).")
    return Section("ablation", title, words, tuple(findings), rows, bool(drawn))


def group_names(dataset: Dataset, rows: Sequence[int], by: str) -> list[str | None]:
    """The group of each of some rows by a column of the manifest; a language that is not told is that of the words.

    Raises:
        StudyError: the dataset has no such column.
    """
    from emopipe.models.networks.egmf.asking import language_of

    given = [dataset.column(by)[row] for row in rows]
    if by == "language":
        words = [dataset.transcript.words(dataset.ids[row]) for row in rows]
        given = [name or (language_of([text]) if text else None) for name, text in zip(given, words, strict=True)]
    if not any(given):
        columns = ", ".join(dataset.manifest.column_names)
        raise StudyError(f"the dataset does not tell a {by}", hint=f"Give one of its columns: {columns}")
    return [None if name in (None, "") else str(name) for name in given]


def _by_group(predictor: Predictor, dataset: Dataset, inside: Inside, metric: str, by: str, hook: Hook) -> Section:
    """What each part is worth in each group."""
    import numpy as np

    from emopipe.models.evaluation.diagnose import LEAST, by_group

    names = np.array(group_names(dataset, inside.rows.tolist(), by), dtype=object)
    with timed(hook, "diagnose groups"):
        groups = by_group(predictor, dataset, inside, metric, names, by == "speaker")
    rows: list[Row] = []
    for one in groups:
        whole = {"part": "whole model", "rows": one.rows, metric: one.value, "difference": math.nan}
        rows.append({by: one.name, **whole, "low": one.low, "high": one.high, "failed": one.failed})
        for part in one.parts:
            shown = {"part": f"without {part.part}", "rows": part.rows, metric: part.without, **_interval(part)}
            rows.append({by: one.name, **shown, "failed": part.failed})
    words = (
        f"{metric.upper()} of the whole model with its 95 % bootstrap interval, and without each part with the "
        f"difference to the whole and the interval of that, for each {by} with at least {LEAST} utterances. "
        "`failed`: share of them that have no value, with the part or without it, and count in nothing else. "
        + ("Utterances" if by == "speaker" else "Speakers (or media files)")
        + " are resampled; nothing is trained anew."
    )
    findings = [
        f"{by.capitalize()} {one.name}: {finding}"
        for one in groups
        for part in one.parts
        if (finding := _worth(part, metric))
    ]
    left_out = len({name for name in names if name is not None}) - len(groups)
    if left_out:
        findings.append(f"{left_out} of the groups by {by} have fewer than {LEAST} utterances and are left out.")
    return Section("groups", f"By {by}", words, tuple(findings), tuple(rows), drawn=False)


def _interval(gap: Ablation | Difference) -> dict[str, float]:
    return {"difference": gap.difference, "low": gap.low, "high": gap.high}


def _gap_label(metric: str) -> str:
    return f"change of {metric.upper()} ({'right' if metric in _ERRORS else 'left'} is worse)"


def _ablation_findings(part_ablations: Sequence[Ablation], metric: str) -> Iterator[str]:
    unclear = []
    for one in part_ablations:
        if finding := _worth(one, metric):
            yield finding[0].upper() + finding[1:]
        else:
            unclear.append(one.part)
    if unclear:
        yield f"No difference can be shown without {', '.join(unclear)}: no interval excludes 0."


def _worth(part: Ablation, metric: str) -> str:
    """What the lack of a part changes, or that it cannot be said; empty where the interval holds 0."""
    if math.isnan(part.difference):
        return f"what {part.part} is worth cannot be said: no value was given."
    shown = part.low > 0 or part.high < 0
    return f"without {part.part} {_changed(part, metric)}, on {part.rows} utterances." if shown else ""


def _changed(gap: Ablation | Difference, metric: str) -> str:
    """A difference whose interval excludes 0 in words, such as `UAR falls by 0.034 [0.014, 0.053]`."""
    low, high = sorted((abs(gap.low), abs(gap.high)))
    verb = "falls" if gap.difference < 0 else "rises"
    better = (gap.difference < 0) == (metric in _ERRORS)
    return f"{metric.upper()} {verb} by {abs(gap.difference):.3f} [{low:.3f}, {high:.3f}]{' (better)' * better}"


def _train_others(
    predictor: Predictor, folder: Path, backbones: Sequence[str], out: Path, device: str, offline: bool, hook: Hook
) -> dict[str, Predictor]:
    """The checkpoint's configuration trained with each backbone.

    Raises:
        ConfigError: for a model that stands on none.
    """
    from emopipe.models.training.config import configuration

    spec, predictors = predictor.spec, {}
    if backbones and not spec.options.get("backbone"):
        raise OptionConflict(f"model {spec.model} stands on no backbone", hint="Omit --backbones")
    train = {**spec.training.get("config", {}), "modalities": list(spec.modalities), "device": device}
    for name in backbones:
        options = {**spec.options, "name": spec.model, "backbone": name, "backbone_path": "", "backbone_sha256": ""}
        options |= {"lora_targets": ()} if "lora_targets" in options else {}
        place = out / name.replace("/", "_")
        config = configuration({"model": options, "train": train})
        train_checkpoint(folder, place, config, hook=hook, offline=offline)
        predictors[name], _ = load_predictor(str(place), device, offline=offline, hook=hook)
    return predictors


def _backbones(
    predictor: Predictor, others: Mapping[str, Predictor], dataset: Dataset, inside: Inside, metric: str, out: Path
) -> Section:
    """Other backbones beside the checkpoint's, on the same utterances."""
    from emopipe.models.evaluation.compare import differences
    from emopipe.models.evaluation.diagnose import as_run
    from emopipe.pipeline.studies import plots

    reference = f"{predictor.spec.options['backbone']} (checkpoint)"
    runs = [as_run(reference, predictor, dataset, inside.rows, inside.logits)]
    for name, other in others.items():
        runs.append(as_run(name, other, dataset, inside.rows, other.scores(dataset, inside.rows).logits))
    groups = dict(zip(dataset.ids, dataset.groups, strict=True))
    gaps = differences(runs, reference, groups, metric)
    rows = tuple({"backbone": run.model, **run.metrics, **_interval(one)} for run, one in zip(runs, gaps, strict=True))
    drawn = [{"name": one.model, **_interval(one)} for one in gaps[1:] if not math.isnan(one.difference)]
    title = "Other backbones"
    if drawn:
        plots.gaps(drawn, _gap_label(metric), f"{title}, compared with {reference}", out / "backbones")
    words = (
        f"The checkpoint's configuration trained with each; `difference` is of {metric.upper()} to the checkpoint's, "
        "with a 95 % bootstrap interval over speakers (or media files). One training each: seeds move such figures too."
    )
    targets = predictor.spec.options.get("lora_targets")
    if targets:
        words += f" LoRA changes {', '.join(targets)} in the checkpoint, and the attention's projections in the others."
    return Section("backbones", title, words, tuple(_backbone_findings(gaps[1:], reference, metric)), rows, bool(drawn))


def _backbone_findings(gaps: Sequence[Difference], reference: str, metric: str) -> Iterator[str]:
    for one in gaps:
        if math.isnan(one.difference):
            yield f"With {one.model} instead of {reference} nothing can be said: no value was given."
        elif one.low > 0 or one.high < 0:
            yield f"With {one.model} instead of {reference} {_changed(one, metric)}."
        else:
            yield f"No difference can be shown between {one.model} and {reference}."
