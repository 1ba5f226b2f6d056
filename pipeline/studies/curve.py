"""Learning curve of a dataset: would more clips, or more speakers, help? A table, JSON and a plot."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emopipe.errors import ConfigError
from emopipe.options import listed
from emopipe.pipeline.backends.backbones import with_backbone
from emopipe.pipeline.progress import Event, Hook, silent
from emopipe.pipeline.studies.tables import Row, markdown, write_csv, write_text
from emopipe.pipeline.studies.train import AUTO_START, begin

if TYPE_CHECKING:
    from emopipe.models.data.dataset import Dataset
    from emopipe.models.evaluation.agreement import Agreement
    from emopipe.models.evaluation.curve import Forecast, LearningCurve, Measured, Point
    from emopipe.models.training.config import TrainConfig

METHOD: Final = (
    "The speakers are cut into folds, each of which is tested once; models are trained on parts of the others: on some "
    "of the people with all of their clips, and on some of the clips of all of them, classes in proportion. Intervals "
    "are of 95 % and come from bootstrap resamples of the tested speakers, the same for all points. A power law, error "
    "= a + b / clips ** c with a, b >= 0, is fitted to each resample; how well its exponent is known is part of the "
    "doubt. It never expects more clips to harm, and beyond twice the clips that there are it is a guess."
)
#: Chance of a worthwhile gain from which more clips are likely, and below which they are unlikely to help.
LIKELY, UNLIKELY = 0.8, 0.2


@dataclass(frozen=True)
class CurveOptions:
    """How a learning curve is measured.

    Attributes:
        shares: of the speakers and clips that are trained on.
        more: numbers of clips whose worth is asked for.
        folds: that the speakers are cut into.
        seeds: trainings of each part of each fold, with another draw of the part each.
    """

    shares: Sequence[float] = (0.1, 0.2, 0.5, 1.0)
    more: Sequence[int] = (50, 200, 500)
    folds: int = 5
    seeds: int = 1

    def __post_init__(self) -> None:
        if not self.shares or not all(0 < share <= 1 for share in self.shares):
            raise ConfigError("shares of a learning curve lie between 0 and 100 %", hint="Write --shares 10,20,50,100")
        if not self.more or min(self.more) < 1:
            raise ConfigError("more clips are whole numbers from 1", hint="Write --more 50,200,500")


@dataclass(frozen=True)
class CurveResult:
    """A learning curve in words.

    Attributes:
        points, forecasts: rows as text.
        verdicts: what more clips would bring, a sentence each.
        agreement: of the coders, where several labelled the same rows.
    """

    points: list[Row]
    forecasts: list[Row]
    verdicts: list[str]
    agreement: Agreement | None = field(default=None)


def write_curve(
    folder: Path,
    out: Path,
    config: TrainConfig,
    options: CurveOptions,
    *,
    start: str = AUTO_START,
    given: Collection[str] | None = None,
    hook: Hook = silent,
    offline: bool = False,
) -> CurveResult:
    """Measure a learning curve; a killed call goes on where it was.

    Writes `curve.md`, `curve.csv` (the points), `curve.json` (all), `curve.png` and `curve.svg`, and `runs.jsonl`.

    Args:
        folder: the dataset.
        out: folder of the results.
        config: what is trained; settings that are not given suit each part, as in `emopipe train`.
        options: shares, folds, seeds.
        start: as for :func:`~emopipe.pipeline.studies.train.train_checkpoint`.
        given: names of the settings that someone asked for; None: all of them.
        hook: told of progress.
        offline: never fetch the backbone of a model that stands on one.
    """
    from emopipe.models.data import reading
    from emopipe.models.evaluation import curve
    from emopipe.models.evaluation.agreement import coder_agreement
    from emopipe.models.training.suitable import remarks, suit

    dataset = reading.read(folder)
    dataset = dataset.select(config.modalities) if config.modalities else dataset
    for remark in remarks(dataset, config):
        hook(Event("warning", "curve", remark))
    config, first, _ = begin(start, dataset, config, offline=offline, hook=hook)
    config = with_backbone(config, offline=offline, hook=hook)
    alone = len(set(dataset.groups)) < 2
    measured = curve.measure(
        dataset,
        replace(config, allow_speaker_overlap=config.allow_speaker_overlap or alone),
        shares=options.shares,
        folds=options.folds,
        seeds=range(config.seed, config.seed + options.seeds),
        suit=lambda one, part: one if given is None else suit(one, part, first, given)[0],
        start=first,
        record=out / "runs.jsonl",
        hook=lambda event: hook(Event("progress", "curve", event["message"], done=event["done"], total=event["total"])),
    )
    found = curve.learning_curve(measured, dataset, options.more)
    result = in_words(found, measured, coder_agreement(dataset, config.label))
    _write(folder.name, out, dataset, config, found, measured, result)
    return result


def in_words(found: LearningCurve, measured: Measured, agreement: Agreement | None) -> CurveResult:
    """The figures as text, and what they say."""
    points = [_point_row(point, found.metric) for point in found.points]
    forecasts = [_forecast_row(one, found.metric) for one in found.forecasts]
    verdicts = [verdict(one, found.metric, measured.speakers) for one in found.forecasts]
    return CurveResult(points, forecasts, verdicts, agreement)


def _point_row(point: Point, metric: str) -> Row:
    return {
        "more of": point.axis,
        "speakers": f"{point.speakers:.1f}",
        "clips": f"{point.clips:.0f}",
        metric: f"{point.value:.3f}",
        "95 %": f"[{point.low:.3f}, {point.high:.3f}]",
    }


def _forecast_row(one: Forecast, metric: str) -> Row:
    people = f", {one.speakers:.0f} other people" if one.speakers else ", the same people"
    return {
        "more": f"{one.more} clips{people}",
        "now": f"{one.now:.3f}",
        metric: f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]",
        "gain [95 %]": f"{one.gain:.3f} [{one.gain_low:.3f}, {one.gain_high:.3f}]",
        "chance of 0.01 or more": f"{one.chance:.0%}",
        "note": "a guess: more than there are now" if one.far else "",
    }


def verdict(one: Forecast, metric: str, speakers: int) -> str:
    """Whether so many more clips would help, in a sentence."""
    whose = f"of {one.speakers:.0f} other people" if one.speakers else f"of the same {speakers} people"
    kind = "are likely to" if one.chance >= LIKELY else "are unlikely to" if one.chance < UNLIKELY else "may or may not"
    gain = f"better by {one.gain:.3f} [{one.gain_low:.3f}, {one.gain_high:.3f}]"
    return f"{one.more} more clips {whose} {kind} help: {metric} {one.now:.3f} -> {one.value:.3f}, {gain}"


def _write(
    name: str,
    out: Path,
    dataset: Dataset,
    config: TrainConfig,
    found: LearningCurve,
    measured: Measured,
    result: CurveResult,
) -> None:
    from emopipe.models.evaluation.curve import ALL, CLIPS, SPEAKERS
    from emopipe.pipeline.studies import plots

    write_csv(out / "curve.csv", [asdict(point) for point in found.points])
    facts: dict[str, Any] = {
        "dataset": dataset.hash,
        "model": config.model,
        "label": config.label,
        "clips": measured.clips,
        "speakers": measured.speakers,
        "agreement": None if result.agreement is None else asdict(result.agreement),
        **asdict(found),
    }
    write_text(out / "curve.json", json.dumps(facts, indent=1) + "\n")
    titles = {SPEAKERS: "other people, all their clips", CLIPS: "clips of the same people"}
    panels = {
        title: [asdict(point) for point in found.points if point.axis in (axis, ALL)]
        for axis, title in titles.items()
        if axis in found.lines or axis == CLIPS
    }
    lines = {titles[axis]: rows for axis, rows in found.lines.items()}
    plots.learning_curves(panels, lines, found.metric, measured.clips, out / "curve")
    head = f"# Learning curve of {config.model} on {name}\n\n{measured.clips} clips of {measured.speakers} speakers.\n"
    parts = [head, markdown(result.points), "\n## What more would bring\n"]
    if result.forecasts:
        parts += [markdown(result.forecasts), "", *(f"- {one}" for one in result.verdicts)]
    else:
        parts += ["There are too few different parts to extrapolate from."]
    parts += [f"\n{result.agreement.words()}"] if result.agreement else []
    write_text(out / "curve.md", "\n".join([*parts, f"\n{METHOD}", ""]))


def percents(text: str) -> tuple[float, ...]:
    """The shares of a list of percents such as 10,20,50,100.

    Raises:
        ConfigError: something in it is not a number.
    """
    return tuple(number / 100 for number in _numbers(text, "--shares"))


def whole_numbers(text: str) -> tuple[int, ...]:
    """The numbers of a list such as 50,200,500.

    Raises:
        ConfigError: something in it is not a whole number.
    """
    numbers = _numbers(text, "--more")
    if any(not number.is_integer() for number in numbers):
        raise ConfigError(f"--more {text} holds something that is not a whole number", hint="Write --more 50,200,500")
    return tuple(int(number) for number in numbers)


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(one) for one in listed(text)]
    except ValueError:
        what = f"{option} {text} holds something that is not a number"
        raise ConfigError(what, hint="Write numbers with commas between them") from None
