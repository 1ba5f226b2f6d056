"""Comparisons, ablations and pictures of models on a dataset, as tables (Markdown and CSV) and figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emopipe.errors import DatasetError, StudyError
from emopipe.models.data.split_names import split_name
from emopipe.options import StudyOptions, chosen_modalities
from emopipe.pipeline.backends.backbones import with_backbone
from emopipe.pipeline.progress import Hook, silent
from emopipe.pipeline.studies.tables import Row, markdown, write_csv, write_text
from emopipe.pipeline.studies.train import bridge

if TYPE_CHECKING:
    from emopipe.models.data.dataset import Dataset
    from emopipe.models.evaluation.compare import Difference, Run
    from emopipe.models.training.config import TrainConfig


#: Columns of the papers' tables and our metrics, in per cent but for those that are errors or correlations.
PAPER_COLUMNS: Final = (
    ("ACC7", "acc7"),
    ("ACC5", "acc5"),
    ("ACC2", "acc2_non0"),
    ("ACC2", "acc2"),
    ("ACC2 weak", "acc2_weak"),
    ("F1", "f1_non0"),
    ("F1", "f1"),
    ("MAE", "mae"),
    ("ACC", "accuracy"),
    ("F1", "macro_f1"),
    ("P", "macro_precision"),
    ("R", "macro_recall"),
    ("WF1", "weighted_f1"),
)
#: What they mean.
PAPER_NOTE: Final = {
    "mae": "ACC7, ACC2 and F1 in per cent, means over the runs; ACC2 and F1 (weighted) of negative and positive, zeros "
    "left out. Values scored as CH-SIMS's: ACC5, ACC2 and F1 of its classes.",
    "accuracy": "In per cent, means over the runs; F1, P and R are averaged over the classes (macro), WF1 is weighted.",
}
#: A modality alone is called by its name and this.
ONLY: Final = "-only"

METHOD: Final = (
    "Speakers (or, where unknown, media files) are cut into the same folds for every model; {epoch}. Scores are means "
    "and standard deviations over the runs (folds x seeds). `pooled` is the metric over the tested utterances of all "
    "folds together, averaged over seeds; its difference to the reference has a 95 % percentile interval from 4,000 "
    "bootstrap resamples of the tested speakers, drawn alike for both models. `runs` is the mean difference of runs "
    "that share fold and seed, with a 95 % t interval whose variance is corrected for overlapping training sets "
    "(Nadeau and Bengio 2003)."
)
#: The same for a split of the dataset.
SPLIT_METHOD: Final = (
    "Every model is trained on the dataset's own training rows and tested on its split {split}; {epoch}. Scores are "
    "means and standard deviations over the seeds. `pooled` is the mean over the seeds; its difference to the "
    "reference has a 95 % percentile interval from 4,000 bootstrap resamples of the tested speakers (or, where "
    "unknown, conversations or media files), drawn alike for both models. `runs` is the mean difference of runs that "
    "share a seed, with a 95 % t interval over seeds."
)
#: How an epoch comes to be the one that is tested, by `select` of the training.
EPOCH: Final = {
    "best": "the epoch is chosen on speakers outside the tested fold",
    "last": "the last epoch is tested, so nothing is chosen",
}
#: The same for a split of the dataset.
SPLIT_EPOCH: Final = {
    **EPOCH,
    "best": "the epoch is chosen on its validation rows, or where it has no others, on speakers held out of training",
}


@dataclass(frozen=True)
class Study:
    """How models are put to the test.

    Attributes:
        folds, seeds: how many.
        metric: of the differences; auto: uar for classes, mae for values.
        modalities: only these; empty for all.
        requires: validate and test only on rows that have all of these.
        split: test on this split of the dataset; "" for folds.
    """

    folds: int = 5
    seeds: int = 3
    metric: str = "auto"
    modalities: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    split: str = ""

    @classmethod
    def of(cls, options: StudyOptions) -> Study:
        """What options ask for."""
        default = cls()
        return cls(
            options.get("folds", default.folds),
            options.get("seeds", default.seeds),
            options.get("metric", default.metric),
            chosen_modalities(options.get("modalities")),
            chosen_modalities(options.get("require")),
            split_name(options.get("split", "")) or options.get("split", default.split),
        )

    def run(
        self, dataset: Dataset, configs: Mapping[str, TrainConfig], reference: str, out: Path, hook: Hook
    ) -> tuple[str, list[Row]]:
        """Train and test all; writes `runs.csv` (one row per run) and `runs.jsonl` (with the predictions).

        Returns:
            The metric of the differences, and one row per model: its scores and its difference to the reference.
        """
        from emopipe.models.evaluation import compare

        first = next(iter(configs.values())).seed
        seeds = range(first, first + self.seeds)
        split = self.split or None
        record = out / "runs.jsonl"
        runs = compare.compare(dataset, configs, self.folds, seeds, self.requires, record, bridge(hook), split=split)
        write_csv(out / "runs.csv", [_flat(run) for run in runs])
        metric = compare.default_metric(runs) if self.metric == "auto" else self.metric
        groups = dict(zip(dataset.ids, dataset.groups, strict=True))
        differences = {one.model: one for one in compare.differences(runs, reference, groups, metric)}
        return metric, [{**row, **_gap(differences[row["model"]], reference)} for row in compare.scores(runs)]

    def words(self, dataset: Dataset, reference: str) -> str:
        """What was tested on what, as a line of Markdown."""
        inside = f" having {' and '.join(self.requires)}" if self.requires else ""
        parts = f"split {self.split}" if self.split else f"{self.folds} folds"
        return (
            f"{len(dataset)} utterances, tested on those{inside or ' with a label'}; {parts} x "
            f"{self.seeds} seeds; reference `{reference}`.\n"
        )

    def method(self, configs: Sequence[TrainConfig], dataset: Dataset) -> str:
        """How the figures came about, as a paragraph of Markdown."""
        from emopipe.models.data.labelled import scoring_of

        scored = scoring_of(dataset, configs[0].label)
        return self._procedure(configs) + (f" {scored.words()}" if scored else "")

    def _procedure(self, configs: Iterable[TrainConfig]) -> str:
        epochs = SPLIT_EPOCH if self.split else EPOCH
        epoch = " or ".join(epochs[one] for one in sorted({config.select for config in configs}))
        return SPLIT_METHOD.format(split=self.split, epoch=epoch) if self.split else METHOD.format(epoch=epoch)


def configurations(
    names: Sequence[str], tables: Mapping[str, Any], modalities: Sequence[str]
) -> dict[str, TrainConfig]:
    """Model -> what to train.

    Args:
        names: registered models; `face-only` is a modality by itself, `unimodal` each of `modalities` by itself.
        tables: `[train]` for all models; `[model]` for the one it names (emoe without a name); `[models.NAME]` for
            any other, and `[models.NAME.train]` for what only that one is trained otherwise.
        modalities: of the dataset.

    Raises:
        ConfigError: for an unknown modality.
        ConfigError: an unknown model or option.
    """
    from emopipe.models.training.config import configuration

    train, model = dict(tables.get("train", {})), dict(tables.get("model", {}))
    options = {**tables.get("models", {}), model.pop("name", "emoe"): model} if model else tables.get("models", {})
    configs = {}
    for name in _expanded(names, modalities):
        alone = name.removesuffix(ONLY)
        kind = "unimodal" if name.endswith(ONLY) else name
        chosen = {"modalities": [alone]} if name.endswith(ONLY) else {}
        table = {"name": kind, **options.get(name, options.get(kind, {}))}
        model_train = table.pop("train", {})
        configs[name] = configuration({"model": table, "train": {**train, **model_train, **chosen}})
    return configs


def _expanded(names: Sequence[str], modalities: Sequence[str]) -> list[str]:
    expanded = []
    for name in names:
        expanded += [f"{modality}{ONLY}" for modality in modalities] if name == "unimodal" else [name]
    for name in expanded:
        if name.endswith(ONLY) and name.removesuffix(ONLY) not in modalities:
            raise DatasetError(f"the dataset has no {name.removesuffix(ONLY)} features")
    return list(dict.fromkeys(expanded))


def compare_models(
    folder: Path,
    out: Path,
    names: Sequence[str],
    tables: Mapping[str, Any],
    reference: str | None,
    study: Study,
    *,
    hook: Hook = silent,
    offline: bool = False,
) -> list[Row]:
    """Cross-validate models side by side; a killed call goes on where it was.

    Writes `comparison.md` and `comparison.csv`, one row per model, beside what :meth:`Study.run` writes.

    Args:
        folder: the dataset.
        out: folder of the results.
        names, tables: see :func:`configurations`.
        reference: the model that the others are compared with; None: emoe when it is there, else the last.
        study: folds, seeds, metric.
        hook: told of progress.
        offline: never fetch the backbone of a model that stands on one.

    Returns:
        One row per model, as text.
    """
    dataset = _read(folder, study.modalities)
    plain = configurations(names, tables, dataset.modalities)
    configs = {name: with_backbone(one, offline=offline, hook=hook) for name, one in plain.items()}
    chosen = reference or ("emoe" if "emoe" in configs else list(configs)[-1])
    metric, rows = study.run(dataset, configs, chosen, out, hook)
    write_csv(out / "comparison.csv", rows)
    head = f"# Models on {folder.name}\n\n{study.words(dataset, chosen)}"
    method = study.method([*configs.values()], dataset)
    paper = f"## With the papers' columns\n\n{paper_table(rows)}"
    write_text(out / "comparison.md", f"{head}\n{markdown(_readable(rows, metric))}\n\n{method}\n\n{paper}")
    return _readable(rows, metric)


def ablate_model(
    folder: Path,
    out: Path,
    config: TrainConfig,
    with_sweep: bool,
    study: Study,
    draw: Sequence[str] = (),
    *,
    hook: Hook = silent,
    offline: bool = False,
) -> dict[str, list[Row]]:
    """Train an EMOE or EGMF without its parts and with other settings; a killed call goes on where it was.

    Writes `ablations.md` and `ablations.csv`, for the sweep `sweep.md`, `sweep.csv`, `sweep.png` and `sweep.svg`,
    beside what :meth:`Study.run` writes; of the metrics to `draw` also `sweep-METRIC.png` and `.svg`.

    Returns:
        Table -> rows, as text.
    """
    from emopipe.models.evaluation import ablate

    dataset, config = _read(folder, study.modalities), with_backbone(config, offline=offline, hook=hook)
    tables = ablate.ablations(config, dataset.modalities)
    swept = ablate.sweep(config) if with_sweep else {}
    configs = {name: one for variants in tables.values() for name, one in variants.items()}
    configs |= {_setting(name, value): one for name, found in swept.items() for value, one in found.items()}
    metric, rows = study.run(dataset, configs, ablate.FULL, out, hook)
    by_name = {row["model"]: row for row in rows}
    found = {table: [by_name[name] for name in variants] for table, variants in tables.items()}
    write_csv(out / "ablations.csv", [{"table": table, **row} for table, part in found.items() for row in part])
    shown = {table: _readable(part, metric) for table, part in found.items()}
    head = f"# Ablations of {config.model} on {folder.name}\n\n{study.words(dataset, ablate.FULL)}"
    parts = [
        f"## {table[:1].upper()}{table[1:]}\n\n{markdown(part)}\n\n{paper_table(found[table])}"
        for table, part in shown.items()
    ]
    method = study.method([*configs.values()], dataset)
    write_text(out / "ablations.md", "\n".join([head, *parts, method, ""]))
    if swept:
        shown["sensitivity"] = _write_sweep(folder, out, config, swept, by_name, metric, method, draw)
    return shown


def _setting(name: str, value: float) -> str:
    return f"{name} = {value:g}"


def _write_sweep(
    folder: Path,
    out: Path,
    config: TrainConfig,
    swept: Mapping[str, Mapping[float, TrainConfig]],
    by_name: Mapping[str, Row],
    metric: str,
    method: str,
    draw: Sequence[str] = (),
) -> list[Row]:
    from emopipe.models.registry import configure
    from emopipe.pipeline.studies import plots

    rows = [by_name[_setting(name, value)] for name, variants in swept.items() for value in variants]
    unknown = [name for name in draw if name not in rows[0]]
    if unknown:
        known = ", ".join(name.removesuffix("_sd") for name in rows[0] if name.endswith("_sd"))
        raise StudyError(f"there is no metric {unknown[0]!r} to draw", hint=f"Choose among: {known}")
    settings = configure(config.model, config.options)
    chosen = {name: float(getattr(settings, name)) for name in swept}
    for drawn, place in ((metric, "sweep"), *((one, f"sweep-{one}") for one in draw)):
        panels = {
            name: [
                {"value": value, "mean": row[drawn], "sd": row[f"{drawn}_sd"]}
                for value, row in ((value, by_name[_setting(name, value)]) for value in variants)
            ]
            for name, variants in swept.items()
        }
        plots.sweep(panels, chosen, drawn, out / place)
    write_csv(out / "sweep.csv", rows)
    readable = _readable(rows, metric)
    head = f"# Sensitivity of {config.model} on {folder.name}\n\n`temperature` is the paper's t.\n"
    write_text(out / "sweep.md", f"{head}\n{markdown(readable)}\n\n{method}\n")
    return readable


def _read(folder: Path, modalities: Sequence[str]) -> Dataset:
    from emopipe.models.data import reading

    dataset = reading.read(folder)
    return dataset.select(modalities) if modalities else dataset


def _gap(difference: Difference, reference: str) -> Row:
    """A model's difference to the reference as cells; the reference has none to itself."""
    cells = {name: value for name, value in asdict(difference).items() if name != "model"}
    is_reference = difference.model == reference
    return {
        name: None if is_reference and name not in ("pooled", "reference") else value for name, value in cells.items()
    }


def paper_table(rows: Sequence[Row]) -> str:
    """The scores of models with the columns of the papers' tables, as Markdown with what they mean below it."""
    kind = "mae" if "mae" in rows[0] else "accuracy"
    columns = [(shown, name) for shown, name in PAPER_COLUMNS if name in rows[0]]
    if "acc7" in rows[0]:
        columns = [one for one in columns if one[1] != "acc5"]
    table = [{"model": row["model"]} | {shown: _paper_cell(row, name) for shown, name in columns} for row in rows]
    return f"{markdown(table)}\n\n{PAPER_NOTE[kind]}\n"


def _paper_cell(row: Row, name: str) -> str:
    return f"{row[name]:.3f}" if name == "mae" else f"{100 * row[name]:.1f}"


def _flat(run: Run) -> Row:
    facts = {name: value for name, value in asdict(replace(run, ids=[], truth=[], predicted=[])).items()}
    return {name: facts[name] for name in ("model", "fold", "seed", "parameters", "seconds")} | run.metrics


def _readable(rows: Sequence[Row], metric: str) -> list[Row]:
    """The columns that a person wants to see, as text."""
    shown = [metric, *(name for name in ("accuracy", "weighted_f1", "corr") if name in rows[0] and name != metric)]
    table = []
    for row in rows:
        cells: Row = {"model": row["model"], "runs": str(row["runs"]), "parameters": f"{row['parameters']:,}"}
        cells["s/run"] = f"{row['seconds']:.1f}"
        cells |= {name: f"{row[name]:.3f} ± {row[f'{name}_sd']:.3f}" for name in shown}
        cells["pooled"] = "" if row["pooled"] is None else f"{row['pooled']:.3f}"
        cells["difference [95 %]"] = _interval(row, "difference", "low", "high")
        cells["runs [95 %]"] = _interval(row, "run_difference", "run_low", "run_high")
        table.append(cells)
    return table


def _interval(row: Row, middle: str, low: str, high: str) -> str:
    return "" if row[middle] is None else f"{row[middle]:+.3f} [{row[low]:+.3f}, {row[high]:+.3f}]"
