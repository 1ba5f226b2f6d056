"""The command line. Every heavy import happens inside the command that needs it, so that --help answers at once."""

from __future__ import annotations

import os
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from emopipe.errors import ConfigError, EmopipeError, OptionConflict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from emopipe.models.training.config import TrainConfig
    from emopipe.pipeline.cli.console import Console
    from emopipe.pipeline.execution.processes import Engine
    from emopipe.pipeline.store.store import Store

DEFAULT_CHECKPOINT: Final = "emopipe-default"
#: `unimodal` stands for each modality by itself.
COMPARED: Final = "unimodal,late-fusion,lf-dnn,tfn,lmf,mult,self-mm,misa,emoe"

app = typer.Typer(
    name="emopipe",
    help="Raw video in, emotion predictions per utterance out, on your own machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
models_app = typer.Typer(help="Weights of the extractors: what there is, fetch it, check it.", no_args_is_help=True)
config_app = typer.Typer(help="The extraction configuration.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(config_app, name="config")

Paths = Annotated[
    list[Path] | None,
    typer.Argument(help="Video or audio files, folders of them, or patterns.", show_default=False),
]
DatasetPath = Annotated[Path, typer.Argument(help="A dataset made by `emopipe extract`.", show_default=False)]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never use the network.")]
Json = Annotated[bool, typer.Option("--json", help="JSON lines instead of tables and progress.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="A TOML file; see `emopipe config show`.")]
FaceOption = Annotated[str | None, typer.Option("--face", help="Face backend: mediapipe, pyfeat or pyfeat:v1.")]
AsrOption = Annotated[
    str | None, typer.Option("--asr", help="Speech recogniser: whisper:SIZE or faster-whisper:SIZE, SIZE or a path.")
]
TextOption = Annotated[
    str | None,
    typer.Option("--text", help="Text encoder: a name of `emopipe models list`, a path or a hub id."),
]
FpsOption = Annotated[float | None, typer.Option("--fps", help="Sampled frames per second.")]
SubjectOption = Annotated[
    str | None, typer.Option("--subject", help="Who is interviewed: an enrolled name, longest, or 1, 2, ...")
]
EnrolOption = Annotated[
    list[str] | None, typer.Option("--enrol", help="NAME=CLIP: a clip in which that person alone speaks; repeatable.")
]
PeopleOption = Annotated[int | None, typer.Option("--people", min=0, help="How many people speak; 0 estimates it.")]
DiarizerOption = Annotated[str | None, typer.Option("--diarizer", help="ge2e, pyannote, or none: one person speaks.")]
BaselineOption = Annotated[
    str | None, typer.Option("--baseline", help="none, person (their own calm utterances), or a clip of them calm.")
]
Jobs = Annotated[
    int | None, typer.Option(min=1, help="Worker processes; one per core as far as memory allows.", show_default=False)
]
LimitMemory = Annotated[
    str | None, typer.Option(help="What all workers together may take, such as 8G; who takes more is stopped.")
]
EngineName = Annotated[
    Literal["processes", "ray"], typer.Option("--engine", help="processes: on this machine; ray: on a Ray cluster.")
]
RayAddress = Annotated[
    str,
    typer.Option(
        help="HOST:PORT of the cluster's head; auto: the cluster that this machine is part of. All machines must see "
        "inputs, checkpoint and --store under the same path, and hold the same emopipe[ray]."
    ),
]
StoreFolder = Annotated[Path | None, typer.Option("--store", help="Folder in which results are kept and found again.")]
NoStore = Annotated[bool, typer.Option("--no-store", help="Neither use results of earlier runs nor keep any.")]
ParticipantsTable = Annotated[
    Path | None,
    typer.Option(help="CSV with a column person or file, and columns of groups to compare.", show_default=False),
]
Modalities = Annotated[str | None, typer.Option(help="Comma-separated subset of text,face,voice.")]
Requires = Annotated[
    str | None, typer.Option("--require", help="Validate and test only on rows that have all of these modalities.")
]
Metric = Annotated[str, typer.Option(help="What differences are measured in; auto: uar for classes, mae for values.")]
Folds = Annotated[int, typer.Option(min=2, help="Speaker-grouped folds.")]
Seeds = Annotated[int, typer.Option(min=1, help="Trainings of each model on each fold.")]
Results = Annotated[
    Path, typer.Option(help="Folder for the results; repeated, the command goes on.", show_default=False)
]
Label = Annotated[str | None, typer.Option(help="Manifest column to predict.")]
Epochs = Annotated[int | None, typer.Option(min=1, help="At most so many passes over the data.")]


@contextmanager
def _session(json_lines: bool, debug: bool) -> Iterator[Console]:
    """A console; coded errors are shown and become the exit code."""
    from emopipe.pipeline.cli.console import Console

    _quieten()
    with Console(json_lines=json_lines) as console:
        try:
            yield console
        except EmopipeError as error:
            if debug:
                raise
            console.error(error)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


@contextmanager
def _store(folder: Path | None, temporary: bool, shared: bool = False) -> Iterator[Store]:
    """The store that the options name.

    Raises:
        ConfigError: when it shall be both temporary and shared with other machines.
    """
    from emopipe.pipeline.store.store import Store, store_dir, temporary_store

    if temporary and shared:
        hint = "Name a folder that all machines see with --store"
        raise OptionConflict("machines of a cluster meet in the store: --no-store cannot be", hint=hint)
    with temporary_store() if temporary else Store(folder or store_dir(), shared=shared) as store:
        yield store


@contextmanager
def _engine(
    files: int,
    kind: EngineName,
    address: str,
    jobs: int | None,
    limit_memory: str | None,
    device: str,
    debug: bool,
) -> Iterator[Engine]:
    """What does the work that the options ask for; see :func:`emopipe.pipeline.execution.batch.engine_for`."""
    from emopipe.pipeline.execution.batch import engine_for

    memory = None if limit_memory is None else _size(limit_memory)
    ray = address if kind == "ray" else None
    with closing(engine_for(files, jobs=jobs, memory=memory, device=device, debug=debug, ray=ray)) as engine:
        yield engine


def _size(text: str) -> int:
    """Bytes of a size such as 800M, 2.5G or 1T.

    Raises:
        ConfigError: when it is none.
    """

    units = {"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    number = text.strip().upper().removesuffix("B")
    try:
        return round(float(number.rstrip("KMGT")) * units.get(number[-1:], 1))
    except ValueError:
        raise ConfigError(f"{text!r} is no size", hint="Write it like 800M or 2.5G") from None


def _quieten() -> None:
    """Keep libraries from writing progress and notices of their own, and numba from changing torch's threads."""
    if "OMP_NUM_THREADS" in os.environ:
        os.environ.setdefault("NUMBA_NUM_THREADS", os.environ["OMP_NUM_THREADS"])
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


@app.command()
def run(
    paths: Paths = None,
    model: Annotated[
        str, typer.Option(help="Name of a shipped checkpoint, or a checkpoint folder.")
    ] = DEFAULT_CHECKPOINT,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("emopipe-out"),
    participants: ParticipantsTable = None,
    modalities: Modalities = None,
    config: ConfigFile = None,
    face: FaceOption = None,
    asr: AsrOption = None,
    text: TextOption = None,
    fps: FpsOption = None,
    subject: SubjectOption = None,
    enrol: EnrolOption = None,
    people: PeopleOption = None,
    diarizer: DiarizerOption = None,
    baseline: BaselineOption = None,
    jobs: Jobs = None,
    limit_memory: LimitMemory = None,
    engine: EngineName = "processes",
    ray_address: RayAddress = "auto",
    phases: Annotated[bool, typer.Option("--phases", help="One stage of all files after the other.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Only what failed in, or was missing from, the last run into --out.")
    ] = False,
    explain: Annotated[bool, typer.Option("--explain", help="First show what will be done, why, how long.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Explain, and do nothing.")] = False,
    store: StoreFolder = None,
    no_store: NoStore = False,
    device: Device = "auto",
    offline: Offline = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Predict the emotion of every utterance in videos or sound files."""
    if not paths and not retry_failed:
        raise typer.BadParameter("name files, folders or patterns", param_hint="PATHS")
    with _session(json, debug) as console, _store(store, no_store, shared=engine == "ray") as kept:
        from emopipe.pipeline.execution.batch import find_inputs, run_files
        from emopipe.pipeline.execution.jobs import prediction_job
        from emopipe.pipeline.report.participants import read_participants

        inputs = find_inputs(paths or [], out if retry_failed else None)
        groups = read_participants(participants, inputs.every) if participants else None
        who = _people(subject, enrol, people, diarizer, baseline)
        overrides = _overrides(config, face, asr, text, fps, who)
        job = prediction_job(
            model,
            kept,
            modalities=_chosen(modalities),
            device=device,
            offline=offline,
            overrides=overrides,
            hook=console.hook,
        )
        states = []
        files = len(inputs.files)
        with _engine(files, engine, ray_address, jobs, limit_memory, device, debug) as chosen:
            told = (lambda steps, stored: console.plan(steps, stored, chosen.jobs)) if explain or dry_run else None
            for result in run_files(
                inputs,
                job,
                out,
                chosen,
                participants=groups,
                phases=phases,
                explained=told,
                dry=dry_run,
                hook=console.hook,
            ):
                console.clip(result)
                states.append(result.state)
        if not dry_run:
            console.print(f"\nResults are in {out}/")
    raise typer.Exit(1 if "failed" in states else 0)


@app.command()
def extract(
    path: Annotated[Path, typer.Argument(help="A labels table, a folder or a media file.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder of the dataset; must not exist.", show_default=False)],
    labels: Annotated[Path | None, typer.Option(help="A labels table whose paths are relative to the folder.")] = None,
    modalities: Modalities = None,
    config: ConfigFile = None,
    face: FaceOption = None,
    asr: AsrOption = None,
    text: TextOption = None,
    fps: FpsOption = None,
    subject: SubjectOption = None,
    enrol: EnrolOption = None,
    people: PeopleOption = None,
    diarizer: DiarizerOption = None,
    baseline: BaselineOption = None,
    jobs: Jobs = None,
    limit_memory: LimitMemory = None,
    engine: EngineName = "processes",
    ray_address: RayAddress = "auto",
    store: StoreFolder = None,
    no_store: NoStore = False,
    device: Device = "auto",
    offline: Offline = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Extract features into a dataset, one utterance per row of a labels table (or per utterance found)."""
    with _session(json, debug) as console, _store(store, no_store, shared=engine == "ray") as kept:
        from emopipe.constants import MODALITIES
        from emopipe.pipeline.config import ExtractionConfig
        from emopipe.pipeline.datasets.labels import read_labels, unlabelled_sources
        from emopipe.pipeline.execution.extraction import write_dataset
        from emopipe.pipeline.execution.jobs import extraction_job

        table = labels or (path if path.suffix.lower() == ".csv" else None)
        rows = read_labels(table, path if labels else None) if table else unlabelled_sources([path])
        who = _people(subject, enrol, people, diarizer, baseline)
        job = extraction_job(
            ExtractionConfig.from_dict(_overrides(config, face, asr, text, fps, who)),
            kept,
            labelled=table is not None,
            modalities=_chosen(modalities) or MODALITIES,
            device=device,
            offline=offline,
            hook=console.hook,
        )
        with _engine(len(rows), engine, ray_address, jobs, limit_memory, device, debug) as chosen:
            failures = write_dataset(rows, out, job, chosen, hook=console.hook)
        console.print(f"{len(rows) - len(failures)} of {len(rows)} sources are in {out}/")
        if failures:
            console.print(f"{len(failures)} failed; their reasons are in {out / 'failures.csv'}")
    raise typer.Exit(1 if failures else 0)


@app.command()
def report(
    out: Annotated[Path, typer.Argument(help="Results of `emopipe run`.", show_default=False)],
    participants: ParticipantsTable = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the page about all files of a run once more, from its results alone."""
    with _session(json, debug) as console:
        from emopipe.pipeline.report.batch_page import write_summary
        from emopipe.pipeline.report.outputs import read_manifest
        from emopipe.pipeline.report.participants import read_participants

        people = read_participants(participants, read_manifest(out)) if participants else None
        console.print(f"The page is {write_summary(out, people)}")


@app.command("store")
def show_store(
    store: StoreFolder = None,
    prune: Annotated[bool, typer.Option("--prune", help="Remove results of outdated stages and libraries.")] = False,
    unused_for: Annotated[
        float | None, typer.Option(min=0, help="With --prune: also what was not used for so many days.")
    ] = None,
    down_to: Annotated[
        str | None,
        typer.Option(help="With --prune: also the longest unused, until the rest is as small as 500M or 20G."),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what the store of results holds, and make it smaller."""
    with _session(json, debug) as console, _store(store, False) as kept:
        from datetime import datetime

        from emopipe.pipeline.execution.plan import superseded

        if prune:
            age = None if unused_for is None else unused_for * 86_400
            count, size = kept.prune(superseded, unused_for=age, down_to=None if down_to is None else _size(down_to))
            console.print(f"{count} results were removed, {size / 1e6:.1f} MB")
        used = kept.usage()
        rows = [
            (u.stage, str(u.results), f"{u.bytes / 1e6:.1f}", f"{datetime.fromtimestamp(u.used):%Y-%m-%d}")
            for u in used
        ]
        console.table(str(kept.folder), ("stage", "results", "MB", "last used"), rows)
        console.print(f"{sum(u.results for u in used)} results, {sum(u.bytes for u in used) / 1e6:.1f} MB")


@app.command()
def train(
    dataset: DatasetPath,
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint.", show_default=False)],
    model: Annotated[str | None, typer.Option(help="Model to train.")] = None,
    start: Annotated[str | None, typer.Option(help="Checkpoint to go on from: its model, options and weights.")] = None,
    label: Annotated[str | None, typer.Option(help="Manifest column to predict.")] = None,
    modalities: Modalities = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most so many passes over the data.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order, dropout and split.")] = None,
    config: ConfigFile = None,
    allow_speaker_overlap: Annotated[bool, typer.Option(help="Let a speaker into training and validation.")] = False,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder of event files for TensorBoard.")] = None,
    device: Device = "auto",
    offline: Offline = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a fusion model on a dataset; a killed training goes on where it was."""
    with _session(json, debug) as console:
        from emopipe.pipeline.studies.train import train_checkpoint

        settings = _training(config, model, label, modalities, epochs, seed, allow_speaker_overlap, device)
        checkpoint, evaluation = train_checkpoint(dataset, out, settings, console.hook, offline, tensorboard, start)
        if evaluation is not None:
            _show_evaluation(console, "Validation, by what the model may see", evaluation)
        console.print(f"Checkpoint {checkpoint} is in {out}/")


@app.command()
def evaluate(
    dataset: DatasetPath,
    model: Annotated[str, typer.Option(help="A checkpoint, or the name of a model to train for the purpose.")] = "emoe",
    split: Annotated[str, typer.Option(help="Split to measure on; all for every row.")] = "valid",
    folds: Annotated[int, typer.Option(min=0, help="Cross-validate a model on so many speaker-grouped folds.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Train a model with so many seeds.")] = 1,
    label: Annotated[str | None, typer.Option(help="Manifest column to predict.")] = None,
    modalities: Modalities = None,
    prior: Annotated[str, typer.Option(help="uniform, or train: expect classes as often as in training.")] = "uniform",
    config: ConfigFile = None,
    allow_speaker_overlap: Annotated[bool, typer.Option(help="Let a speaker into training and validation.")] = False,
    device: Device = "auto",
    offline: Offline = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure a checkpoint, or train a model over seeds or folds and measure that."""
    with _session(json, debug) as console:
        from emopipe.pipeline.studies import train as training

        kept = _chosen(modalities) or None
        if training.is_checkpoint(model):
            found = training.evaluate_checkpoint(model, dataset, split, kept, prior, device, offline, console.hook)
            _show_evaluation(console, f"{model} on {dataset} ({split})", found)
            return
        settings = _training(config, model, label, None, None, None, allow_speaker_overlap, device)
        summary = training.evaluate_model(dataset, settings, folds, seeds, split, kept, prior, console.hook, offline)
        rows = [(name, f"{value:.4f}", f"{summary.sd[name]:.4f}") for name, value in summary.mean.items()]
        console.table(f"{model} on {dataset}, {len(summary.runs)} runs", ("metric", "mean", "sd"), rows)


@app.command()
def compare(
    dataset: DatasetPath,
    out: Results,
    models: Annotated[
        str, typer.Option(help="Comma-separated; face-only is one modality, unimodal each by itself.")
    ] = COMPARED,
    folds: Folds = 5,
    seeds: Seeds = 3,
    reference: Annotated[str | None, typer.Option(help="Model that the others are compared with: emoe.")] = None,
    metric: Metric = "auto",
    require: Requires = None,
    label: Label = None,
    modalities: Modalities = None,
    epochs: Epochs = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="A TOML file with the tables [train], [model] and [models.NAME].")
    ] = None,
    device: Device = "auto",
    offline: Offline = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Cross-validate several models on the same folds, with intervals of their differences."""
    with _session(json, debug) as console:
        from emopipe.pipeline.config import read_toml
        from emopipe.pipeline.studies.compare import Study, compare_models

        tables: dict[str, Any] = read_toml(config) if config else {}
        flags = {"label": label, "epochs": epochs, "device": device}
        tables["train"] = {**tables.get("train", {}), **{k: v for k, v in flags.items() if v is not None}}
        study = Study(folds, seeds, metric, _chosen(modalities), _chosen(require))
        names = _listed(models)
        rows = compare_models(dataset, out, names, tables, reference, study, console.hook, offline)
        _show_study(console, f"Models on {dataset}", rows)
        console.print(f"Tables are in {out}/")


@app.command()
def ablate(
    dataset: DatasetPath,
    out: Results,
    model: Annotated[str, typer.Option(help="emoe, or one of its forms.")] = "emoe",
    folds: Folds = 5,
    seeds: Seeds = 3,
    sweep: Annotated[bool, typer.Option(help="Also try other values of alpha, lambda1, lambda2 and t.")] = True,
    metric: Metric = "auto",
    require: Requires = None,
    label: Label = None,
    modalities: Modalities = None,
    epochs: Epochs = None,
    config: ConfigFile = None,
    device: Device = "auto",
    offline: Offline = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Take EMOE apart: without routing, without each loss, with other fusion and other settings."""
    with _session(json, debug) as console:
        from emopipe.pipeline.studies.compare import Study, ablate_model

        settings = _training(config, model, label, None, epochs, None, False, device)
        study = Study(folds, seeds, metric, _chosen(modalities), _chosen(require))
        for title, rows in ablate_model(dataset, out, settings, sweep, study, console.hook, offline).items():
            _show_study(console, title.capitalize(), rows)
        console.print(f"Tables and figures are in {out}/")


@app.command()
def visualize(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint: its name or its folder.", show_default=False)],
    dataset: DatasetPath,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.", show_default=False)],
    split: Annotated[str, typer.Option(help="Split to show; all for every row.")] = "valid",
    device: Device = "auto",
    offline: Offline = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw the fused features (t-SNE), and whom the router trusts beside who is right."""
    with _session(json, debug) as console:
        from emopipe.pipeline.studies.compare import visualize_checkpoint

        for path in visualize_checkpoint(checkpoint, dataset, out, split, device, offline, console.hook):
            console.print(str(path))


@app.command()
def diagnose(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint: its name or its folder.", show_default=False)],
    dataset: DatasetPath,
    out: Annotated[Path, typer.Option(help="Folder for the page, tables and pictures.", show_default=False)],
    split: Annotated[str, typer.Option(help="Split to look at; all for every row.")] = "valid",
    backbones: Annotated[
        str | None, typer.Option(help="Comma-separated; train the same configuration with these and compare.")
    ] = None,
    metric: Metric = "auto",
    device: Device = "auto",
    offline: Offline = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Look inside EGMF or EMOE: is the gate alive, do experts differ, what is each part worth."""
    with _session(json, debug) as console:
        from emopipe.pipeline.studies.diagnose import diagnose_checkpoint

        names = _listed(backbones)
        findings, files = diagnose_checkpoint(
            checkpoint, dataset, out, split, names, metric, device, offline, console.hook
        )
        for finding in findings:
            console.print(finding)
        if json:
            console.emit({"findings": findings, "files": [str(path) for path in files]})
        console.print(f"The page, tables and pictures are in {out}/")


@app.command("compare-extractors")
def compare_extractors(
    clip: Annotated[Path, typer.Argument(help="A video in which a face is seen.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the tables and the picture.")] = Path("emopipe-agreement"),
    config: ConfigFile = None,
    face: Annotated[
        str, typer.Option("--face", help="Whom to hold against mediapipe: pyfeat or pyfeat:v1.")
    ] = "pyfeat",
    fps: FpsOption = None,
    device: Device = "auto",
    offline: Offline = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Correlate the action units of two face backends on a clip, and draw both."""
    with _session(json, debug) as console:
        from emopipe.pipeline.config import ExtractionConfig
        from emopipe.pipeline.studies.extractor_agreement import compare_backends, header, summary, write_agreement

        extraction = ExtractionConfig.from_dict(_overrides(config, face, fps=fps))
        agreement = compare_backends(clip, extraction, device=device, offline=offline, hook=console.hook)
        title = f"{clip.name}: action units by {' and '.join(agreement.names)}"
        write_agreement(agreement, title, out)
        console.table(title, header(agreement), summary(agreement))
        console.print(f"Tables and picture are in {out}/")


@models_app.command("list")
def list_models(json: Json = False, debug: Debug = False) -> None:
    """Weights (licence, intended use, whether they are here), extractors, models and checkpoints."""
    with _session(json, debug) as console:
        from emopipe.pipeline.cli.catalogue_tables import tables

        for table in tables(flat=json):
            console.table(table.title, table.header, table.rows, table.notes)
            console.print("")


@models_app.command("fetch")
def fetch_models(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Which, also owner/model of the hub; left out: all that need no hub.", show_default=False),
    ] = None,
    offline: Offline = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Bring weights into the cache and check them."""
    with _session(json, debug) as console:
        from emopipe.pipeline import weights

        for name in names or [name for name in weights.names() if weights.entry(name).embedded]:
            entry = weights.find(name, offline=offline)
            console.print(f"{name}: {weights.fetch(entry, offline=offline, hook=console.hook)}")


@models_app.command("verify")
def verify_models(
    names: Annotated[
        list[str] | None, typer.Argument(help="Which; left out: all that are here.", show_default=False)
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Check the hashes of the weights that are here."""
    with _session(json, debug) as console:
        from emopipe.pipeline import weights

        chosen = [weights.find(name, offline=True) for name in names] if names else weights.here()
        found = [(entry.name, weights.verify(entry)) for entry in chosen]
        console.table("", ("name", "state", "detail"), [(name, s.state, s.detail) for name, s in found])
    raise typer.Exit(3 if any(status.code for _, status in found) else 0)


@app.command()
def doctor(json: Json = False, debug: Debug = False) -> None:
    """Check this machine for everything emopipe needs."""
    with _session(json, debug) as console:
        from emopipe.pipeline.doctor import checks

        found = checks()
        console.table(
            "", ("check", "state", "found", "what to do"), [(c.name, c.state, c.detail, c.hint) for c in found]
        )
    raise typer.Exit(3 if any(check.state == "fail" for check in found) else 0)


@config_app.command("show")
def show_config(
    config: ConfigFile = None,
    model: Annotated[str | None, typer.Option(help="Show the configuration that a checkpoint seals.")] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Print the resolved extraction configuration as TOML."""
    with _session(json, debug) as console:
        import tomli_w

        from emopipe.pipeline.config import ExtractionConfig

        if model is None:
            tables = ExtractionConfig.from_dict(_overrides(config)).as_dict(full=True)
        else:
            from emopipe.models.checkpoint import read_spec

            tables = dict(read_spec(model).extraction)
        console.print(tomli_w.dumps(tables).rstrip())
        if json:
            console.emit(tables)


def _overrides(
    config: Path | None,
    face: str | None = None,
    asr: str | None = None,
    text: str | None = None,
    fps: float | None = None,
    people: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Extraction tables from a file and from the flags, which win."""
    from emopipe.pipeline.backends.registry import speech_option, text_option
    from emopipe.pipeline.config import extraction_tables, read_toml

    tables: dict[str, dict[str, Any]] = extraction_tables(read_toml(config)) if config else {}
    backend, _, detector = (face or "").partition(":")
    flags = {
        ("face", "backend"): backend or None,
        ("face", "detector"): detector or None,
        ("face", "rate"): fps,
        **{("speech", name): value for name, value in speech_option(asr).items()},
        **{("text", name): value for name, value in text_option(text).items()},
        **{("people", name): value for name, value in (people or {}).items()},
    }
    for (table, name), value in flags.items():
        if value is not None:
            tables.setdefault(table, {})[name] = value
    return tables


def _people(
    subject: str | None, enrol: list[str] | None, count: int | None, diarizer: str | None, baseline: str | None
) -> dict[str, Any]:
    """What the flags say of the table `people`, None where they say nothing.

    Raises:
        ConfigError: when an enrolment is not NAME=CLIP.
    """

    enrolled: dict[str, str] = {}
    for text in enrol or ():
        name, _, clip = text.partition("=")
        if not name or not clip:
            raise ConfigError(f"--enrol {text!r} is not NAME=CLIP", hint="Write --enrol anna=anna.mp4")
        enrolled[name] = clip
    flags = {"subject": subject, "count": count, "diarizer": diarizer, "baseline": baseline}
    return {**flags, "enrol": enrolled or None}


def _listed(text: str | None) -> tuple[str, ...]:
    """The names of a comma-separated option, () when it was not given."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _chosen(modalities: str | None) -> tuple[str, ...]:
    """The modalities of a comma-separated option, () when it was not given.

    Raises:
        ConfigError: for an unknown name.
    """
    from emopipe.constants import MODALITIES

    names = _listed(modalities)
    for name in names:
        if name not in MODALITIES:
            raise ConfigError(f"unknown modality {name!r}", hint=f"Choose among {', '.join(MODALITIES)}")
    return names


def _training(
    config: Path | None,
    model: str | None,
    label: str | None,
    modalities: str | None,
    epochs: int | None,
    seed: int | None,
    allow_speaker_overlap: bool,
    device: str,
) -> TrainConfig:
    """A training configuration from a file and from the flags, which win."""
    from emopipe.models.training.config import configuration
    from emopipe.pipeline.config import read_toml

    tables = {name: dict(t) for name, t in (read_toml(config) if config else {}).items() if name in ("model", "train")}
    if model is not None and tables.get("model", {}).get("name", model) != model:
        tables["model"] = {}
    flags = {
        ("model", "name"): model,
        ("train", "label"): label,
        ("train", "modalities"): list(_chosen(modalities)) or None,
        ("train", "epochs"): epochs,
        ("train", "seed"): seed,
        ("train", "allow_speaker_overlap"): allow_speaker_overlap or None,
        ("train", "device"): device,
    }
    for (table, name), value in flags.items():
        if value is not None:
            tables.setdefault(table, {})[name] = value
    return configuration(tables)


def _show_study(console: Console, title: str, rows: list[dict[str, Any]]) -> None:
    """The columns that fit a terminal; the files have all."""
    names = [name for name in rows[0] if name not in ("runs", "parameters", "s/run", "pooled", "runs [95 %]")]
    console.table(title, names, [[row[name] for name in names] for row in rows])


def _show_evaluation(console: Console, title: str, evaluation: Any) -> None:
    names = [name for name in next(iter(evaluation.subsets.values()), {}) if name != "rows"]
    rows = [
        (subset, f"{figures['rows']:.0f}", *(f"{figures[name]:.4f}" for name in names))
        for subset, figures in evaluation.subsets.items()
    ]
    console.table(title, ("modalities", "rows", *names), rows)
    weights = ", ".join(f"{name} {share:.3f}" for name, share in evaluation.weights.items())
    if console.json_lines:
        console.emit({"weights": evaluation.weights, "no_evidence": evaluation.no_evidence})
    console.print(f"All rows: {evaluation.rows}; without evidence: {evaluation.no_evidence}; mean weights: {weights}")


def main() -> None:
    """Entry point of the console script."""
    app()
