"""Train and measure fusion models on datasets: the pipeline's side of it (progress, cards, checkpoints on disk)."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emopipe.errors import DatasetError, FeatureMismatch, LibraryMissing, OptionConflict, TrainingError
from emopipe.models.data.split_names import split_or_all
from emopipe.models.sealed import check_target
from emopipe.pipeline.backends.backbones import load_predictor, with_backbone
from emopipe.pipeline.formatting import span
from emopipe.pipeline.progress import Event, Hook, silent
from emopipe.pipeline.report.outputs import DISCLAIMER
from emopipe.pipeline.studies.tables import Row, markdown

if TYPE_CHECKING:
    from emopipe.models.data.dataset import Dataset
    from emopipe.models.evaluation.compare import Run
    from emopipe.models.evaluation.evaluate import Evaluation, Summary
    from emopipe.models.predictor import Predictor, Spec
    from emopipe.models.training.config import TrainConfig
    from emopipe.models.training.plan import Split

#: The model that every other one is compared with.
LINEAR: Final = "linear"
TRAIN_LINEAR: Final = "Train it with `emopipe train DATASET --out FOLDER --model linear`."
#: Folds that would take longer than this, in seconds, are left to `emopipe evaluate`.
LONGEST: Final = 1800.0
#: What training may start from beside a checkpoint: a shipped one that fits, or random weights.
AUTO_START, NO_START = "auto", "none"


@dataclass(frozen=True)
class TrainedCheckpoint:
    """What became of a training.

    Attributes:
        id: of the checkpoint.
        validation: its evaluation on the rows that it was validated on, None when there were none.
        linear: the same of a linear model, trained on the same rows; None for a linear model itself.
        folds: where there were no such rows: a row, as text, for each of the two on the same folds.
        folds_of: what was kept on one side of them, in words; "clips" for nothing but each clip itself.
        verdict: how the two compare, in a sentence; "" where that is not known.
    """

    id: str
    validation: Evaluation | None
    linear: Evaluation | None
    folds: list[Row]
    folds_of: str
    verdict: str


def train_checkpoint(
    folder: Path,
    out: Path,
    config: TrainConfig,
    *,
    hook: Hook = silent,
    offline: bool = False,
    tensorboard: Path | None = None,
    start: str = NO_START,
    given: Collection[str] | None = None,
) -> TrainedCheckpoint:
    """Train on a dataset and write the checkpoint; a killed call goes on where it was.

    Args:
        folder: the dataset.
        out: the checkpoint's folder, replaced when it exists; its training state lies beside it as `<out>.training`.
        config: what to train and how.
        hook: told of epochs.
        offline: never fetch the backbone of a model that stands on one.
        tensorboard: folder for event files that TensorBoard shows; None for none.
        start: a checkpoint to begin with, which then brings the model and its options; `auto` chooses a shipped one
            that was trained on the same features, `none` begins with random weights.
        given: names of the settings that someone asked for, so that others may follow the data; None: all of them.

    Returns:
        The checkpoint's id, its evaluation, and that of a linear model on the same rows.
    """
    from emopipe.models import checkpoint
    from emopipe.models.data import reading
    from emopipe.models.evaluation.evaluate import evaluate
    from emopipe.models.training.loop import train
    from emopipe.models.training.suitable import FEW

    out = Path(os.path.abspath(out))  # noqa: PTH100 - a link stays one
    check_target(out)
    dataset = reading.read(folder)
    config, first, chosen = begin(start, dataset, config, offline=offline, hook=hook, given=given)
    config = suited(config, dataset, first, given, hook=hook)
    state = out.with_name(f"{out.name}.training")
    located = with_backbone(config, offline=offline, hook=hook)
    began = time.monotonic()
    with _tensorboard(tensorboard) as record:

        def report(event: dict[str, Any]) -> None:
            record(event)
            bridge(hook)(event)

        trained = train(dataset, located, state=state, start=first, hook=report)
    valid = trained.split[1]
    measured = evaluate(trained.predictor, dataset, None, rows=valid) if len(valid) else None
    linear = linear_baseline(dataset, config, trained.split) if measured else None
    folds: list[Row] = []
    units = fold_units(dataset, config)
    predictor = trained.predictor
    verdict = beside_linear(measured, linear)
    if measured is None and len(trained.split[0]) < FEW:
        seconds = config.folds * (time.monotonic() - began)
        if seconds < LONGEST:
            folds, verdict, runs = by_folds(dataset, located, first, state / "folds.jsonl", hook=hook)
            predictor = calibrated_by_folds(predictor, runs, config, units, hook=hook)
        else:
            what = (
                f"folds of the {units} would take {span(seconds)}: measure with `emopipe evaluate --folds`; "
                "probabilities are not calibrated"
            )
            hook(Event("warning", "train", what))
    for alarm in mixture_alarms(predictor, dataset.subset(valid) if len(valid) else dataset):
        hook(Event("warning", "train", alarm))
    result = TrainedCheckpoint(checkpoint.identify(predictor), measured, linear, folds, units, verdict)
    about_start = origin_card(chosen, predictor) if chosen else []
    card = model_card(predictor, measured, folder.name, folds_card(result), about_start)
    checkpoint.save(out, predictor, card)
    return result


def calibrated_by_folds(
    predictor: Predictor, runs: Sequence[Run], config: TrainConfig, units: str, *, hook: Hook = silent
) -> Predictor:
    """A classifier with the temperature that models like it need, which were tested on folds."""
    from emopipe.models.evaluation.compare import answers_of
    from emopipe.models.training.calibration import Answers, calibrated, helps, tempered_across_folds

    classes = predictor.spec.classes
    folds = [answers_of(run, classes) for run in runs if run.logits and set(run.classes) <= set(classes)]
    folds = [fold for fold in folds if len(fold.truth)]
    if len(folds) < 2 or not classes:
        return predictor
    every = Answers.join(folds)
    chosen = tempered_across_folds(folds)
    others = Answers.join(chosen)
    figures = (
        f"on folds that did not choose it, log loss {every.log_loss():.3f} -> {others.log_loss():.3f}, "
        f"calibration error {every.error():.3f} -> {others.error():.3f}"
    )
    if not helps(folds, chosen):
        hook(Event("info", "train", f"the temperature stays 1: another is not better {figures}"))
        return predictor
    tempered = calibrated(predictor, every, accuracy=config.abstain_accuracy, doubt=every.doubt)
    what = f"temperature {tempered.spec.temperature:.2f}, chosen on folds of the {units}"
    hook(Event("info", "train", f"{what}; {figures}"))
    return tempered


def suited(
    config: TrainConfig, dataset: Dataset, start: Predictor | None, given: Collection[str] | None, *, hook: Hook
) -> TrainConfig:
    """The configuration with settings that suit the dataset, except for given ones; tells what was chosen and why."""
    from emopipe.models.training.suitable import remarks, suit

    for remark in remarks(dataset, config):
        hook(Event("warning", "train", remark))
    if given is None:
        return config
    config, chosen = suit(config, dataset, start, given)
    for line in chosen:
        hook(Event("info", "train", f"settings for {line}; those of --config win"))
    return config


def beside_linear(ours: Evaluation | None, theirs: Evaluation | None) -> str:
    """How a model compares with a linear one on the same rows, in a sentence; "" where that is not known."""
    from emopipe.models.training.validation import better

    if ours is None or theirs is None:
        return ""
    metric = "uar" if "uar" in ours.metrics else "mae"
    own, plain = ours.metrics[metric], theirs.metrics[metric]
    figures = f"on the same {theirs.rows} rows: {metric} {plain:.3f}, this model {own:.3f}."
    if better(metric, plain, own):
        return f"A linear model does better {figures} {TRAIN_LINEAR}"
    return f"A linear model {figures}"


def fold_units(dataset: Dataset, config: TrainConfig) -> str:
    """What folds keep on one side, in words: speakers, or where none are named recordings, or only clips."""
    data = _measured_by_folds(dataset, config)
    return "clips" if _is_cut_by_clip(data, config) else data.grouped_by


def _measured_by_folds(dataset: Dataset, config: TrainConfig) -> Dataset:
    data = dataset.select(config.modalities) if config.modalities else dataset
    return data.subset(data.split != "test")


def _is_cut_by_clip(data: Dataset, config: TrainConfig) -> bool:
    """Whether a speaker may be on both sides of folds: it is allowed, or there are no two."""
    return config.allow_speaker_overlap or len(set(data.groups)) < 2


def by_folds(
    dataset: Dataset, config: TrainConfig, start: Predictor | None, record: Path, *, hook: Hook
) -> tuple[list[Row], str, list[Run]]:
    """Measure a configuration and a linear model on the same folds; see :func:`fold_units`.

    Returns:
        A row for each as text, how they compare, in a sentence, and the runs of the configuration; nothing where the
        clips are too few to be parted, as when a class or the other classes are all of one fold.
    """
    from emopipe.models.evaluation import compare
    from emopipe.models.training.validation import better

    data = _measured_by_folds(dataset, config)
    fair = replace(config, select="last", allow_speaker_overlap=_is_cut_by_clip(data, config))
    plain = replace(fair, model=LINEAR, options={}, metric="auto", device="cpu")
    configs = {config.model: fair} if config.model == LINEAR else {config.model: fair, LINEAR: plain}
    starts = {} if start is None else {config.model: start}
    forward = bridge(hook, starts=False)
    try:
        runs = compare.compare(data, configs, config.folds, (config.seed,), record=record, hook=forward, starts=starts)
    except (DatasetError, TrainingError) as error:
        hook(Event("warning", "train", f"folds cannot measure what to expect: {error.what}"))
        return [], "", []
    metric, groups = compare.default_metric(runs), dict(zip(data.ids, data.groups, strict=True))
    found = {row["model"]: row for row in compare.scores(runs)}
    rows = [{"model": name, metric: f"{one[metric]:.3f} ± {one[f'{metric}_sd']:.3f}"} for name, one in found.items()]
    mine = [run for run in runs if run.model == config.model]
    if len(found) < 2:
        return rows, "", mine
    gap = compare.differences(runs, LINEAR, groups, metric)[0]
    interval = "" if math.isnan(gap.low) else f" [{gap.low:+.3f}, {gap.high:+.3f}]"
    told = f"{metric} less that of the linear model {gap.difference:+.3f}{interval}"
    if better(metric, gap.reference, gap.pooled):
        return rows, f"A linear model does better: {told}. {TRAIN_LINEAR}", mine
    return rows, f"{told[0].upper()}{told[1:]}.", mine


def folds_card(result: TrainedCheckpoint) -> list[str]:
    """The part of a card that compares with a linear model."""
    lines = []
    if result.folds:
        head = (
            f"Mean and standard deviation over folds in which {result.folds_of} were tested that training had not seen"
        )
        lines = [f"{head};\nthis model was then trained on all of them.", "", markdown(result.folds), ""]
    return [*lines, *([result.verdict, ""] if result.verdict else [])]


def choose_start(start: str, dataset: Dataset, config: TrainConfig) -> str | None:
    """The checkpoint to begin with; None for random weights.

    Args:
        start: one, `auto` or `none`.
        dataset: what is trained on.
        config: what is trained; options that a shipped checkpoint does not have rule it out.
    """
    from emopipe.models import checkpoint
    from emopipe.models.registry import entry

    if start != AUTO_START:
        return None if start == NO_START else start
    if not entry(config.model).model.learns_other_classes:
        return None
    modalities = set(config.modalities or dataset.modalities) & set(dataset.modalities)
    fitting = []
    for name in checkpoint.shipped():
        spec = checkpoint.read_spec(name)
        alike = spec.model == config.model and all(
            key in spec.options and spec.options[key] == value for key, value in config.options.items()
        )
        if alike and fits(spec, dataset):
            fitting.append((-len(modalities & set(spec.modalities)), name))
    return min(fitting)[1] if fitting else None


def fits(spec: Spec, dataset: Dataset) -> bool:
    """Whether a checkpoint was trained on the features of a dataset."""
    from emopipe.models.sealed import check_features

    try:
        check_features(spec.schema, spec.extraction, dataset.schema, dataset.extraction)
    except FeatureMismatch:
        return False
    return True


def begin(
    start: str,
    dataset: Dataset,
    config: TrainConfig,
    *,
    offline: bool,
    hook: Hook,
    given: Collection[str] | None = None,
) -> tuple[TrainConfig, Predictor | None, str | None]:
    """Find the checkpoint to begin with and load it; tells which one it is, or why there is none.

    Args:
        start: a checkpoint, `auto` or `none`.
        dataset: what is trained on.
        config: what is trained.
        offline: never fetch a weight.
        hook: told of it.
        given: names of the settings that someone asked for.

    Returns:
        The configuration with its model and options, the checkpoint, and its name; None for random weights.

    Raises:
        OptionConflict: the checkpoint that was asked for is of another model, or has other options, than was asked for.
    """
    from emopipe.models.registry import entry

    chosen = choose_start(start, dataset, config)
    if start == chosen:
        refuse_other_model(start, config, given)
    if chosen is None and start == AUTO_START and entry(config.model).model.by_gradient:
        told = Event("info", "train", f"begins with random weights: {why_none_fits(dataset, config)}")
        hook(replace(told, kind="warning") if entry(config.model).model.learns_other_classes else told)
    return *started(config, chosen, offline=offline, hook=hook), chosen


def refuse_other_model(start: str, config: TrainConfig, given: Collection[str] | None) -> None:
    """Refuse a model, or options of it, beside a checkpoint to begin with that brings others."""
    from emopipe.models import checkpoint

    spec, asked = checkpoint.read_spec(start), {*(given or ())} - {"backbone_path", "text_weights_path"}
    ours, theirs = (json.loads(json.dumps(dict(options))) for options in (config.options, spec.options))
    other = [name for name in sorted(asked & ours.keys()) if ours[name] != theirs.get(name)]
    if "name" in asked and config.model != spec.model:
        other.insert(0, f"the model {config.model}")
    if other:
        what = f"{start} is a checkpoint of the model {spec.model} and brings its options, not {', '.join(other)}"
        raise OptionConflict(what, hint="Leave these out, or begin with --start none")


def why_none_fits(dataset: Dataset, config: TrainConfig) -> str:
    """Why training cannot begin with a shipped checkpoint, in words."""
    from emopipe.models import checkpoint
    from emopipe.models.registry import entry

    if not entry(config.model).model.learns_other_classes:
        return f"the model {config.model} takes nothing over from a checkpoint of other classes; --start names one"
    same = [name for name in checkpoint.shipped() if checkpoint.read_spec(name).model == config.model]
    fitting = [name for name in same if fits(checkpoint.read_spec(name), dataset)]
    if fitting:
        return f"{', '.join(fitting)} has other options of the model than were asked for"
    if not same:
        return f"no checkpoint of the model {config.model} is shipped"
    return f"no shipped checkpoint ({', '.join(same)}) was trained on features like these, as other settings give them"


def started(
    config: TrainConfig, start: str | None, *, offline: bool, hook: Hook
) -> tuple[TrainConfig, Predictor | None]:
    """The configuration with the model and options of a checkpoint to begin with, and that checkpoint."""
    if start is None:
        return config, None
    first, name = load_predictor(start, "cpu", offline=offline, hook=hook)
    hook(Event("info", "train", f"begins with {start} ({name}); --start none begins with random weights"))
    return replace(config, model=first.spec.model, options=dict(first.spec.options)), first


def origin_card(start: str, predictor: Predictor) -> list[str]:
    """The part of a card that tells what a checkpoint's training began with, and what that was trained on."""
    from emopipe.models.sealed import find

    facts = predictor.spec.training["start"]
    kept = ", ".join([*facts["kept"]["modalities"], *facts["kept"]["classes"]]) or "nothing"
    path, told = find(start), ", ".join(facts["classes"]) or facts["label"]
    lines = [
        "## What it began with",
        "",
        f"The weights of `{path.name}` ({facts['id']}), which predicts {told};",
        f"kept of it: {kept}. What that one was trained on, and its terms, hold for this one too:",
        "",
    ]
    card = path / "README.md"
    return (
        [*lines, *_sections(card.read_text("utf-8"), ("Data", "Licence", "What it began with"))]
        if card.is_file()
        else lines
    )


def _sections(card: str, titles: Sequence[str]) -> list[str]:
    """Sections of a card by their titles, one level deeper; all of a card that has none of them."""
    parts = card.split("\n## ")
    chosen = [part for part in parts[1:] if part.split("\n", 1)[0].strip() in titles]
    text = "\n\n".join(f"### {part.strip()}" for part in chosen) or parts[0].replace("# ", "", 1).strip()
    return [text, ""]


def linear_baseline(dataset: Dataset, config: TrainConfig, split: Split) -> Evaluation | None:
    """Train a linear model on the rows that a model was trained on, and measure it on those it was validated on."""
    from emopipe.models.evaluation.evaluate import evaluate
    from emopipe.models.training.loop import train

    if config.model == LINEAR:
        return None
    data = dataset.select(config.modalities) if config.modalities else dataset
    plain = replace(config, model=LINEAR, options={}, metric="auto", device="cpu")
    return evaluate(train(data, plain, split=split).predictor, data, None, rows=split[1])


@contextmanager
def _tensorboard(folder: Path | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Something that takes training's events, and writes the scalars of each epoch when there is a folder.

    Raises:
        LibraryMissing: without TensorBoard.
    """
    if folder is None:
        yield lambda event: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        hint = "pip install tensorboard, or leave out --tensorboard"
        raise LibraryMissing("TensorBoard is not installed", hint=hint) from None
    with SummaryWriter(str(folder)) as writer:  # type: ignore[no-untyped-call]

        def write(event: dict[str, Any]) -> None:
            if event["event"] == "epoch":
                scalars = {
                    f"{part}/{name}": value for part in ("train", "valid") for name, value in event[part].items()
                }
                for name, value in {**scalars, "lr": event["lr"]}.items():
                    writer.add_scalar(name, value, event["epoch"])  # type: ignore[no-untyped-call]

        yield write


def evaluate_checkpoint(
    model: str,
    folder: Path,
    split: str,
    modalities: Sequence[str] | None,
    prior: str,
    *,
    device: str = "auto",
    offline: bool = False,
    hook: Hook = silent,
) -> Evaluation:
    """Measure a checkpoint on a split of a dataset ("all": on every row); tells of classes that it does not know."""
    from emopipe.models.data import reading
    from emopipe.models.data.labelled import unknown_classes
    from emopipe.models.evaluation.evaluate import evaluate
    from emopipe.models.predictor import known_prior

    predictor, _ = load_predictor(model, device, offline=offline, hook=hook)
    dataset, chosen, spec = reading.read(folder), split_or_all(split), predictor.spec
    if strange := unknown_classes(dataset, spec.label, spec.classes, chosen):
        named = ", ".join(f"{name} ({count})" for name, count in strange.items())
        what = (
            f"{sum(strange.values())} labelled rows are not measured, of classes that the model does not know: {named}"
        )
        hook(Event("warning", "evaluate", what))
    return evaluate(predictor, dataset, chosen, modalities, known_prior(prior))


def evaluate_model(
    folder: Path,
    config: TrainConfig,
    folds: int,
    seeds: int,
    split: str,
    modalities: Sequence[str] | None,
    prior: str,
    *,
    hook: Hook = silent,
    offline: bool = False,
    start: str = NO_START,
    given: Collection[str] | None = None,
) -> Summary:
    """Train a model several times and measure it: on speaker-grouped folds, or (folds = 0) on the dataset's split."""
    from emopipe.models.data import reading
    from emopipe.models.evaluation.evaluate import cross_validate, evaluate_seeds
    from emopipe.models.predictor import known_prior

    dataset, tested, wanted = reading.read(folder), split_or_all(split), known_prior(prior)
    config, first, _ = begin(start, dataset, config, offline=offline, hook=hook, given=given)
    if given is not None and not folds:  # what is measured are rows that training holds out
        given = {*given, "select"}
    config = with_backbone(suited(config, dataset, first, given, hook=hook), offline=offline, hook=hook)
    chosen = range(config.seed, config.seed + seeds)
    if folds:
        return cross_validate(
            dataset, config, folds, chosen, modalities, wanted, bridge(hook, starts=False), start=first
        )
    return evaluate_seeds(dataset, config, chosen, tested, modalities, wanted, bridge(hook), start=first)


def is_checkpoint(model: str) -> bool:
    """Whether the name is a checkpoint's, shipped or in a folder, rather than that of a model to train."""
    from emopipe.models.registry import names

    return model not in names()


def shipped_checkpoints() -> list[tuple[str, str, str]]:
    """Name, classes and modalities of each checkpoint that comes with the package."""
    from emopipe.models import checkpoint

    specs = [(name, checkpoint.read_spec(name)) for name in checkpoint.shipped()]
    return [(name, ", ".join(spec.classes) or spec.label, ", ".join(spec.modalities)) for name, spec in specs]


def mixture_alarms(predictor: Predictor, dataset: Dataset) -> list[str]:
    """What EGMF's paper takes for a failure of its experts, on some rows; nothing for other models, or too few rows."""
    from emopipe.models.evaluation.diagnose import alarms, find_gate, look_inside

    if find_gate(predictor) is None:
        return []
    try:
        return alarms(look_inside(predictor, dataset), predictor.spec.modalities)
    except DatasetError:  # fewer than three rows
        return []


def model_card(
    predictor: Predictor,
    measured: Evaluation | None,
    dataset: str,
    compared: Sequence[str] = (),
    about_start: Sequence[str] = (),
) -> str:
    """The card of a checkpoint that a user trained: what it is, what it saw, how good it was, what it is for."""
    spec = predictor.spec
    rows, seed = spec.training["rows"], spec.training["config"]["seed"]
    into = f" into {', '.join(spec.classes)}" if spec.classes else ""
    lines = [
        f"# A fusion model trained on {dataset}",
        "",
        f"`{spec.model}`, {spec.task} of `{spec.label}`{into}.",
        f"Trained on {rows['train']} utterances, validated on {rows['valid']}, seed {seed}.",
        "",
        *([] if measured is None else _figures(measured)),
        *compared,
        *about_start,
        f"Intended use: {DISCLAIMER}",
        "",
    ]
    return "\n".join(lines)


def _figures(measured: Evaluation) -> list[str]:
    """The validation part of a card."""
    names = list(measured.metrics)
    table = [("modalities", "rows", *names), ("---",) * (len(names) + 2)]
    for subset, figures in measured.by_modalities().items():
        table.append((subset, f"{figures['rows']:.0f}", *(f"{figures[name]:.3f}" for name in names)))
    return [
        "Validation figures, with only the named modalities visible. The temperature, and the epoch unless the last",
        "was kept, were chosen on the same rows, so they flatter the model a little.",
        "",
        *("| " + " | ".join(row) + " |" for row in table),
        "",
        *([] if measured.scoring is None else [measured.scoring.words(), ""]),
        *([] if measured.agreement is None else [measured.agreement.words(), ""]),
    ]


def bridge(hook: Hook, *, starts: bool = True) -> Any:
    """Training events as pipeline events; `starts` also tells what each training takes over from a checkpoint."""

    def forward(event: dict[str, Any]) -> None:
        if event["event"] == "start" and starts:
            hook(Event("info", "train", event["message"]))
        elif event["event"] == "warning":
            hook(Event("warning", "train", event["message"]))
        elif event["event"] == "epoch":
            figures = ", ".join(
                f"{name} {value:.3f}" for name, value in event["valid"].items() if name in ("uar", "mae")
            )
            hook(Event("progress", "train", figures, done=event["epoch"], total=event["epochs"]))
        elif event["event"] == "run":
            figures = ", ".join(f"{name} {event[name]:.3f}" for name in ("uar", "weighted_f1", "mae") if name in event)
            run = f"fold {event['fold']} seed {event['seed']}" + (f" {event['model']}" if "model" in event else "")
            hook(Event("info", "evaluate", f"{run}: {figures}"))

    return forward
