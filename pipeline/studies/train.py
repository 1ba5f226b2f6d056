"""Train and measure fusion models on datasets: the pipeline's side of it (progress, cards, checkpoints on disk)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emopipe.errors import ConfigError, LibraryMissing
from emopipe.pipeline.backends.backbones import load_predictor, with_backbone
from emopipe.pipeline.progress import Event, Hook, silent
from emopipe.pipeline.report.outputs import DISCLAIMER

if TYPE_CHECKING:
    from emopipe.models.evaluation.evaluate import Evaluation, Summary
    from emopipe.models.predictor import Predictor
    from emopipe.models.training.config import TrainConfig


def train_checkpoint(
    folder: Path,
    out: Path,
    config: TrainConfig,
    *,
    hook: Hook = silent,
    offline: bool = False,
    tensorboard: Path | None = None,
    start: str | None = None,
) -> tuple[str, Evaluation | None]:
    """Train on a dataset and write the checkpoint; a killed call goes on where it was.

    Args:
        folder: the dataset.
        out: the checkpoint's folder, replaced when it exists; its training state lies beside it as `<out>.training`.
        config: what to train and how.
        hook: told of epochs.
        offline: never fetch the backbone of a model that stands on one.
        tensorboard: folder for event files that TensorBoard shows; None for none.
        start: a checkpoint to begin with, which then brings the model and its options.

    Returns:
        The checkpoint's id, and its evaluation on the rows that it was validated on, None when there were none.
    """
    from emopipe.models import checkpoint
    from emopipe.models.data import reading
    from emopipe.models.evaluation.evaluate import evaluate
    from emopipe.models.training.loop import train

    dataset = reading.read(folder)
    first = load_predictor(start, "cpu", offline=offline, hook=hook)[0] if start else None
    if first is not None:
        config = replace(config, model=first.spec.model, options=dict(first.spec.options))
    state = out.with_name(f"{out.name}.training")
    located = with_backbone(config, offline=offline, hook=hook)
    with _tensorboard(tensorboard) as record:

        def told(event: dict[str, Any]) -> None:
            record(event)
            bridge(hook)(event)

        trained = train(dataset, located, state=state, start=first, hook=told)
    valid = trained.split[1]
    measured = evaluate(trained.predictor, dataset.subset(valid), None) if len(valid) else None
    name = checkpoint.save(out, trained.predictor, model_card(trained.predictor, measured, folder.name))
    return name, measured


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
    """Measure a checkpoint on a split of a dataset ("all": on every row)."""
    from emopipe.models.data import reading
    from emopipe.models.evaluation.evaluate import evaluate

    predictor, _ = load_predictor(model, device, offline=offline, hook=hook)
    return evaluate(predictor, reading.read(folder), split_or_all(split), modalities, _prior(prior))


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
) -> Summary:
    """Train a model several times and measure it: on speaker-grouped folds, or (folds = 0) on the dataset's split."""
    from emopipe.models.data import reading
    from emopipe.models.evaluation.evaluate import cross_validate, evaluate_seeds

    dataset, config = reading.read(folder), with_backbone(config, offline=offline, hook=hook)
    first = range(config.seed, config.seed + seeds)
    if folds:
        return cross_validate(dataset, config, folds, first, modalities, _prior(prior), bridge(hook))
    return evaluate_seeds(dataset, config, first, split, modalities, _prior(prior), bridge(hook))


def is_checkpoint(model: str) -> bool:
    """Whether the name is a checkpoint's, shipped or in a folder, rather than that of a model to train."""
    from emopipe.models.registry import names

    return model not in names()


def shipped_checkpoints() -> list[tuple[str, str, str]]:
    """Name, classes and modalities of each checkpoint that comes with the package."""
    from emopipe.models import checkpoint

    specs = [(name, checkpoint.read_spec(name)) for name in checkpoint.shipped()]
    return [(name, ", ".join(spec.classes) or spec.label, ", ".join(spec.modalities)) for name, spec in specs]


def model_card(predictor: Predictor, measured: Evaluation | None, dataset: str) -> str:
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
        f"Intended use: {DISCLAIMER}",
        "",
    ]
    return "\n".join(lines)


def _figures(measured: Evaluation) -> list[str]:
    """The validation part of a card."""
    names = [name for name in next(iter(measured.subsets.values())) if name != "rows"]
    table = [("modalities", "rows", *names), ("---",) * (len(names) + 2)]
    for subset, figures in measured.subsets.items():
        table.append((subset, f"{figures['rows']:.0f}", *(f"{figures[name]:.3f}" for name in names)))
    return [
        "Validation figures, with only the named modalities visible. The temperature, and the epoch unless the last",
        "was kept, were chosen on the same rows, so they flatter the model a little.",
        "",
        *("| " + " | ".join(row) + " |" for row in table),
        "",
    ]


def split_or_all(name: str) -> str | None:
    """A split by name; None stands for every row, `all`."""
    return None if name == "all" else name


def _prior(name: str) -> Any:
    if name not in ("uniform", "train"):
        raise ConfigError(f"unknown prior {name!r}", hint="Use uniform or train")
    return name


def bridge(hook: Hook) -> Any:
    """Training events as pipeline events."""

    def forward(event: dict[str, Any]) -> None:
        if event["event"] == "warning":
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
