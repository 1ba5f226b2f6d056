"""The front door: run, export, methods, extract, train, evaluate and load; the command line is a thin layer over it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Unpack

from emopipe.constants import MODALITIES
from emopipe.errors import ConfigError, OptionConflict
from emopipe.options import (
    AnyPath,
    ExecutionOptions,
    MachineOptions,
    MeasurementOptions,
    RunOptions,
    StudyOptions,
    TrainingOptions,
    byte_size,
    checked,
    chosen_modalities,
)
from emopipe.pipeline.progress import Event, Hook, ProgressBar, silent
from emopipe.results import DatasetResult, Results

if TYPE_CHECKING:
    import pandas as pd

    from emopipe.model import Model
    from emopipe.models.evaluation.evaluate import Evaluation, Summary
    from emopipe.models.training.config import TrainConfig
    from emopipe.pipeline.datasets.labels import Labels
    from emopipe.pipeline.execution.batch import Inputs
    from emopipe.pipeline.execution.engine import Engine
    from emopipe.pipeline.execution.forecast import Step
    from emopipe.pipeline.export.export import Exported
    from emopipe.pipeline.export.share import Shared
    from emopipe.pipeline.privacy.blur import Blurred
    from emopipe.pipeline.privacy.disguise import Disguise
    from emopipe.pipeline.records import FileResult
    from emopipe.pipeline.report.corrected import Corrected
    from emopipe.pipeline.report.differences import Differences
    from emopipe.pipeline.report.participants import Participants
    from emopipe.pipeline.store.store import Store

DEFAULT_MODEL: Final = "emopipe-default"
#: What is told of a plan: the steps to do, how many files need none, and how many files are worked on at a time.
OnPlan = Callable[["list[Step]", int, int], None]


def run(
    paths: AnyPath | Sequence[AnyPath] = (),
    *,
    model: AnyPath = DEFAULT_MODEL,
    out: AnyPath | None = None,
    participants: AnyPath | None = None,
    speakers: AnyPath | Mapping[str, str] | Mapping[Path, str] | None = None,
    formats: str | Sequence[str] = (),
    retry_failed: bool = False,
    phases: bool = False,
    dry_run: bool = False,
    progress: bool | Hook = True,
    on_result: Callable[[FileResult], None] | None = None,
    on_plan: OnPlan | None = None,
    **options: Unpack[RunOptions],
) -> Results:
    """Predict the emotion of every utterance in videos or sound files.

    Args:
        paths: files, folders (searched recursively) and patterns; one or several.
        model: name of a shipped checkpoint, or a checkpoint's folder.
        out: folder for JSON, CSV and pages; None writes none.
        participants: CSV with a column person or file, and columns of groups to compare; needs `out`.
        speakers: who speaks in which file, or is interviewed in it: CSV with the columns file and speaker, or a
            mapping. Recordings of the same speaker are read relative to what is usual for them in all of these.
        formats: forms beside JSON and CSV in which the results are written, as for :func:`export`; need `out`.
        retry_failed: only what failed in, or was missing from, the last run into `out`.
        phases: one stage of all files after the other, so that one model at a time is loaded.
        dry_run: tell the plan and do nothing.
        progress: True shows a bar, False nothing; a hook receives every event.
        on_result: told of each file as it is done.
        on_plan: told of the plan before the work.
        options: those of the command `emopipe run`: `modalities`, `config`, `face`, `asr`, `text`, `fps`, `subject`,
            `enrol`, `people`, `diarizer`, `baseline`, `jobs`, `limit_memory`, `engine`, `ray_address`, `store`,
            `no_store`, `device`, `offline`, `debug`,
            `pseudonyms`, `redact`, `blurred`, `blur_margin`, `blur_hold`, `blur_whole`, `pitch`, `abstain`;
            see :mod:`emopipe.options`.

    Returns:
        One result per file, failed ones too.

    Raises:
        EnvironmentFault: a missing weight or library.
        CheckpointError: an unusable checkpoint, or options that name other features than it was trained on.
        ConfigError: an option that cannot be used.
        OutputError: outputs cannot be written.
        TypeError: there is no such option.
    """
    from emopipe.pipeline.datasets.speakers_table import read_speakers
    from emopipe.pipeline.execution.batch import find_inputs, run_files
    from emopipe.pipeline.execution.jobs import extraction_overrides, prediction_job
    from emopipe.pipeline.execution.protection import protection_of
    from emopipe.pipeline.export.export import export_folder
    from emopipe.pipeline.export.formats import chosen_formats

    options = checked("run", RunOptions, options)
    folder = None if out is None else Path(out)
    if folder is None and (retry_failed or participants is not None or formats or options.get("blurred")):
        what = "retry_failed, participants, formats and blurred need the folder of a run"
        raise OptionConflict(what, hint="Give out=FOLDER")
    protection = protection_of(options)
    disguise = protection.disguise
    forms = chosen_formats(formats) if formats else ()
    with ExitStack() as stack:
        stack.enter_context(disguise.errors())
        hook = disguise.hook(stack.enter_context(_hook(progress)))
        store, keep = stack.enter_context(_store(options))
        inputs = find_inputs(_paths(paths), folder if retry_failed else None, disguise)
        if speakers is not None:
            given = speakers if isinstance(speakers, Mapping) else Path(speakers)
            inputs = inputs.told(read_speakers(given, inputs.every))
        groups = None if participants is None else _participants(Path(participants), inputs, disguise, hook)
        job = prediction_job(
            os.fspath(model),
            store,
            modalities=chosen_modalities(options.get("modalities")),
            device=options.get("device", "auto"),
            offline=options.get("offline", False),
            overrides=extraction_overrides(options),
            abstain=options.get("abstain"),
            hook=hook,
        )
        protection.check(job.modalities)
        engine = stack.enter_context(_engine(len(inputs.files), options))
        results = run_files(
            inputs,
            job,
            folder,
            engine,
            participants=groups,
            protection=protection,
            phases=phases,
            explained=None if on_plan is None else lambda steps, stored: on_plan(steps, stored, engine.jobs),
            dry=dry_run,
            hook=hook,
        )
        files = []
        for result in results:
            files.append(result)
            if on_result is not None:
                on_result(result)
        if folder is not None and forms and not dry_run:
            _tell_incomplete(export_folder(folder, forms, store=store.folder, disguise=disguise), hook)
    order = {disguise.path(path): place for place, path in enumerate([*inputs.files, *inputs.refused])}
    ordered = sorted(files, key=lambda file: order.get(file.media, -1))
    return Results(ordered, store.folder, keep, inputs.skipped, disguise)


def _participants(table: Path, inputs: Inputs, disguise: Disguise, hook: Hook) -> Participants:
    """The participants of a run; rows that are of no input are told."""
    from emopipe.pipeline.report.participants import read_participants

    groups = read_participants(table, inputs.every).hidden(disguise)
    unknown = [row.file for row in groups.rows if row.file and row.media is None]
    if unknown:
        what = f"{len(unknown)} rows of the participants table name no input, such as {unknown[0]}"
        hook(Event("warning", "batch", what))
    return groups


def export(
    results: AnyPath,
    to: str | Sequence[str],
    *,
    out: AnyPath | None = None,
    store: AnyPath | None = None,
    pseudonyms: AnyPath | None = None,
    redact: str | Sequence[str] | None = None,
    progress: bool | Hook = True,
) -> Exported:
    """Write the results of a run in the formats of other programs; no video is read again.

    Args:
        results: folder of the run.
        to: formats, as a list or with commas: `parquet`, `frames.csv`, `openface.csv`, `srt`, `vtt`, `eaf`,
            `textgrid`, `rttm`, `xlsx`, `jsonl`.
        out: folder for the files; None: beside the results.
        store: folder in which the run kept what it measured; None: the default one.
        pseudonyms: CSV with the columns `name` and `pseudonym`: names are replaced. Needed for formats with words when
            the run had it.
        redact: `names`, `numbers`: left out of words, beside what the run left out.
        progress: as for :func:`run`; told of what is incomplete.

    Returns:
        The files, and why some are missing or incomplete.

    Raises:
        UnknownName: there is no such format.
        InputNotFound: no run has left results there.
        OutputError: the results cannot be used, or a file cannot be written.
    """
    from emopipe.pipeline.export.export import export_folder
    from emopipe.pipeline.export.formats import chosen_formats
    from emopipe.pipeline.privacy.disguise import read_disguise
    from emopipe.pipeline.store.store import store_dir

    kept, folder = Path(store or store_dir()), None if out is None else Path(out)
    disguise = read_disguise(pseudonyms, redact)
    with disguise.errors(), _hook(progress) as hook:
        exported = export_folder(Path(results), chosen_formats(to), out=folder, store=kept, disguise=disguise)
        _tell_incomplete(exported, disguise.hook(hook))
    return exported


def correct(
    results: AnyPath,
    corrections: AnyPath | Sequence[AnyPath] = (),
    *,
    by: str | None = None,
    participants: AnyPath | None = None,
    pseudonyms: AnyPath | None = None,
) -> Corrected:
    """Put corrections beside the predictions of a run, and measure how far people and model agree.

    The predictions stay as they are. Corrections of the same person and recording that were applied before are
    replaced; nothing is computed anew, and no video is read.

    Args:
        results: folder of the run.
        corrections: files that the page of a clip saved (`corrections.json`), or ELAN files that were exported and
            edited (`.eaf`); one or several; none to learn what was applied before.
        by: who corrected, in place of what the files say.
        participants: as for :func:`run`, for the page about all files.
        pseudonyms: CSV with the columns `name` and `pseudonym`; needed for participants, and for ELAN files, when the
            run had it.

    Returns:
        What became of each correction, and the agreement.

    Raises:
        InputNotFound: no run has left results there, or a file is missing.
        CorrectionsError: a file does not hold corrections, or nobody is named.
        OutputError: the results cannot be used, or not be written.
    """
    from emopipe.pipeline.corrections.documents import read_document
    from emopipe.pipeline.export.elan_edits import read_edits
    from emopipe.pipeline.privacy.disguise import read_disguise
    from emopipe.pipeline.report.batch import participants_of_run
    from emopipe.pipeline.report.corrected import apply_corrections

    folder = Path(results)
    groups, disguise = participants_of_run(participants, folder, pseudonyms), read_disguise(pseudonyms, None)
    given = []
    for path in _paths(corrections):
        given += [read_edits(path, folder, by, disguise)] if path.suffix.lower() == ".eaf" else read_document(path, by)
    return apply_corrections(folder, given, groups)


def diff(first: AnyPath, second: AnyPath, *, out: AnyPath | None = None) -> Differences:
    """Compare two runs over the same recordings, utterance by utterance; utterances are matched by time.

    Args:
        first, second: folders of the runs.
        out: folder for `diff.csv` and `diff.json`, with all utterances; None writes none.

    Raises:
        InputNotFound: no run has left results there.
        OutputError: the results cannot be used, or a file cannot be written.
    """
    from emopipe.pipeline.report.differences import compare_results, write_differences

    found = compare_results(Path(first), Path(second))
    if out is not None:
        write_differences(found, Path(out))
    return found


def tables(
    results: AnyPath,
    *,
    participants: AnyPath | None = None,
    pseudonyms: AnyPath | None = None,
    store: AnyPath | None = None,
) -> dict[str, pd.DataFrame]:
    """The tables of the page about all files of a run; no video is read again.

    Args:
        results: folder of the run.
        participants: as for :func:`run`, for groups.
        pseudonyms: CSV with the columns `name` and `pseudonym`; needed for participants when the run had it.
        store: folder in which the run kept what it measured, for questions; None: the default one.

    Returns:
        `people`, `turn_taking`, `floor_transfers`, `groups`, `group_differences`, `said_and_shown`, `questions`,
        `drift_within_recordings`, `drift_over_recordings` and `recordings_of_people`; a table is empty where the run
        has nothing of its kind.

    Raises:
        InputNotFound: no run has left results there, or there is no table of participants.
        OutputError: the results cannot be used.
    """
    from emopipe.pipeline.report.batch import Batch, participants_of_run
    from emopipe.pipeline.report.tables import cohort_of, frames, tables_of
    from emopipe.pipeline.store.store import store_of_run

    folder = Path(results)
    groups = participants_of_run(participants, folder, pseudonyms)
    with store_of_run(None if store is None else Path(store)) as opened:
        batch = Batch(folder, opened)
    return frames(tables_of(batch, cohort_of(batch, groups)))


def speakers(
    results: AnyPath, *, out: AnyPath | None = None, store: AnyPath | None = None, progress: bool | Hook = True
) -> pd.DataFrame:
    """Tell by their voices who may speak in which recordings of a run; no recording is read again.

    Check it before you give it to :func:`run`: `speakers=table.set_index("file")["speaker"].dropna().to_dict()`.

    Args:
        results: folder of the run.
        out: the table as CSV, which must not exist; None writes none.
        store: folder in which the run kept what it measured; None: the default one.
        progress: as for :func:`run`.

    Returns:
        A row per recording: `file`; `speaker`, the name in the results or of those whose voice is alike, else P1, P2,
        ..., missing where no voice can be compared; `recordings` of that speaker; `similarity`, the mean cosine with
        the voices in the others of these; `next_speaker`, whose voice is the nearest beside, and `next_similarity`.

    Raises:
        InputNotFound: no run has left results there.
        StudyError: no voices can be compared, or the table is there already.
        OutputError: the results cannot be used, or the table cannot be written.
    """
    import pandas as pd

    from emopipe.pipeline.store.store import store_dir
    from emopipe.pipeline.studies.speakers import suggest_speakers

    table = None if out is None else Path(out)
    with _hook(progress) as hook:
        return pd.DataFrame(suggest_speakers(Path(results), table, store=Path(store or store_dir()), hook=hook))


def methods(results: AnyPath, *, out: AnyPath | None = None, store: AnyPath | None = None) -> list[Path]:
    """Write what a paper tells of how recordings were analysed.

    Args:
        results: folder of the run.
        out: folder for the files; None: beside the results.
        store: folder in which the run kept what it measured; None: the default one.

    Returns:
        `methods.md`, a section with settings, versions, hashes and licences, and `references.bib`.

    Raises:
        InputNotFound: no run has left results there.
        OutputError: the results cannot be used, or the files cannot be written.
    """
    from emopipe.pipeline.export.methods import describe, write
    from emopipe.pipeline.export.recording import recordings_of_run
    from emopipe.pipeline.report.outputs import read_manifest
    from emopipe.pipeline.store.store import store_dir

    folder = Path(results)
    failed = sum(entry["state"] == "failed" for entry in read_manifest(folder).values())
    description = describe(recordings_of_run(folder, Path(store or store_dir())), failed)
    return write(description, folder if out is None else Path(out))


def blur(
    video: AnyPath,
    *,
    out: AnyPath | None = None,
    margin: float = 0.4,
    hold: float = 1.0,
    whole: bool = False,
    pitch: float = 0.0,
    store: AnyPath | None = None,
    offline: bool = False,
    progress: bool | Hook = True,
) -> Blurred:
    """Write a copy of a recording in which faces are blurred; nothing of the recording's metadata is in it.

    Faces are those that a run left in the store, or are measured as the default model's run would.

    Args:
        video: the recording.
        out: the copy, an MP4 file; None: `VIDEO.blurred.mp4` in the current folder.
        margin: what is blurred around a face, as a share of its width and height on each side.
        hold: seconds for which the place of a face stays blurred before it is first seen and after it is lost.
        whole: blur all of a picture where no face is known.
        pitch: semitones by which the sound is shifted; people who know a voice may still know it.
        store: folder in which faces are found and kept; None: the default one.
        offline: never use the network.
        progress: as for :func:`run`.

    Returns:
        The copy, and in how many of its pictures no face is known.

    Raises:
        InputError: the recording cannot be read.
        ConfigError: a setting is out of bounds.
        OutputError: the copy cannot be written.
        EnvironmentFault: a missing weight or library.
    """
    from emopipe.pipeline.execution.blurring import blur_recording
    from emopipe.pipeline.execution.jobs import prediction_job
    from emopipe.pipeline.privacy.face_boxes import BlurSettings

    media = Path(video)
    copy = Path(f"{media.stem}.blurred.mp4") if out is None else Path(out)
    if copy.suffix.lower() not in (".mp4", ".m4v"):
        raise ConfigError(f"{copy.name} is not the name of an MP4 file", hint="End it in .mp4")
    settings = BlurSettings(margin, hold, whole, pitch)
    settings.check()
    options: ExecutionOptions = {} if store is None else {"store": store}
    with _hook(progress) as hook, _store(options) as (opened, _):
        job = prediction_job(DEFAULT_MODEL, opened, offline=offline, hook=hook)
        return blur_recording(media, copy, job, opened, settings, hook)


def share(results: AnyPath, *, out: AnyPath | None = None, parts: str | Sequence[str] = ()) -> Shared:
    """Make an archive of results to hand on, without pictures, sound, words and paths but those asked for.

    Args:
        results: folder of the run.
        out: the archive; None: `RESULTS.zip`.
        parts: what else is in it: `words`, `corrections`, `pages`, `blurred`, as a list or with commas.

    Returns:
        The archive, and what it holds.

    Raises:
        InputNotFound: no run has left results there.
        ConfigError: there is no such part.
        PrivacyError: what is to be shared tells where a recording lies.
        OutputError: the results cannot be used, or the archive cannot be written.
    """
    from emopipe.pipeline.export.share import chosen_parts
    from emopipe.pipeline.export.share import share as write_archive

    folder = Path(results)
    archive = folder.with_name(f"{folder.resolve().name}.zip") if out is None else Path(out)
    return write_archive(folder, archive, chosen_parts(parts))


def _tell_incomplete(exported: Exported, hook: Hook) -> None:
    for media, why in exported.incomplete.items():
        hook(Event("warning", "export", f"{why}. {why.hint}", source=str(media)))


def extract(
    path: AnyPath,
    out: AnyPath,
    *,
    labels: AnyPath | None = None,
    corrections: AnyPath | None = None,
    corpus: str | None = None,
    progress: bool | Hook = True,
    **options: Unpack[MeasurementOptions],
) -> DatasetResult:
    """Extract features into a dataset, one utterance per row of a labels table (or per utterance found).

    Args:
        path: a labels table, a folder or a media file.
        out: folder of the dataset; must not exist.
        labels: a labels table whose paths are relative to the folder `path`.
        corrections: results with corrections (see :func:`correct`): what people labelled or confirmed in them is
            extracted from the recordings `path`.
        corpus: `path` is the folder of this published corpus, as its authors hand it out.
        progress, options: as for :func:`run`.

    Raises:
        LabelsTableError: an unusable table.
        OptionConflict: more than one of labels, corrections and corpus.
        CorpusError: the folder does not hold the corpus.
        OutputError: `out` exists or cannot be written.
        DatasetError: no source gave an utterance.
        EnvironmentFault, ConfigError: as for :func:`run`.
    """
    from emopipe.pipeline.config import ExtractionConfig
    from emopipe.pipeline.datasets.labels import TABLE_SUFFIXES
    from emopipe.pipeline.execution.extraction import write_dataset
    from emopipe.pipeline.execution.jobs import extraction_job, extraction_overrides

    options = checked("extract", MeasurementOptions, options)
    source = Path(path)
    table = Path(labels) if labels is not None else source if source.suffix.lower() in TABLE_SUFFIXES else None
    read = _sources(source, table, corpus, corrections)
    rows = read.rows
    with ExitStack() as stack:
        hook = stack.enter_context(_hook(progress))
        store, _ = stack.enter_context(_store(options))
        job = extraction_job(
            ExtractionConfig.from_dict(extraction_overrides(options)),
            store,
            labelled=not (table is None and corpus is None and corrections is None),
            modalities=chosen_modalities(options.get("modalities")) or MODALITIES,
            device=options.get("device", "auto"),
            offline=options.get("offline", False),
            hook=hook,
        )
        engine = stack.enter_context(_engine(len(rows), options))
        failures, reasons = write_dataset(rows, Path(out), job, engine, reasons=read.reasons, hook=hook)
    return DatasetResult(Path(out), len(rows), failures, reasons)


def _sources(source: Path, table: Path | None, corpus: str | None, corrections: AnyPath | None) -> Labels:
    """What a dataset is extracted from: rows of a corpus, of a labels table, of corrections, or unlabelled files.

    Raises:
        OptionConflict: more than one of a corpus, a table and corrections.
    """
    from emopipe.pipeline.datasets.corpora.reading import read_corpus
    from emopipe.pipeline.datasets.labels import Labels, read_labels, unlabelled_sources
    from emopipe.pipeline.export.corrected_labels import corrected_labels

    if corpus is not None and table is not None:
        raise OptionConflict("a corpus brings its own labels", hint="Leave out the labels table, or --corpus")
    if corrections is not None and (corpus is not None or table is not None):
        raise OptionConflict("corrections are labels of their own", hint="Leave out the table or corpus, or them")
    if corrections is not None:
        return corrected_labels(Path(corrections), source)
    if corpus is not None:
        return read_corpus(corpus, source).labels()
    if table is not None:
        return read_labels(table, None if table == source else source)
    return Labels(unlabelled_sources([source]))


def train(
    dataset: AnyPath,
    out: AnyPath,
    *,
    model: str | None = None,
    start: AnyPath = "auto",
    tensorboard: AnyPath | None = None,
    progress: bool | Hook = True,
    **options: Unpack[TrainingOptions],
) -> Model:
    """Train a fusion model on a dataset; a killed training goes on where it was.

    Args:
        dataset: made by :func:`extract`, or one of MMSA's files.
        out: folder of the checkpoint.
        model: which model to train; `emoe` by default.
        start: checkpoint to begin with: its model, options and weights; classes may be others. "auto" takes a shipped
            one that was trained on the same features, "none" begins with random weights.
        tensorboard: folder of event files for TensorBoard.
        progress: as for :func:`run`.
        options: those of the command `emopipe train`: `label`, `modalities`, `epochs`, `seed`,
            `allow_speaker_overlap`, `config`, `device`, `offline`; see :mod:`emopipe.options`.

    Returns:
        The trained model; its `validation` tells how good it is, its `linear` how good a linear model is on the same
        rows.

    Raises:
        DatasetError, TrainingError: an unusable dataset.
        ConfigError: an option that cannot be used.
    """
    from emopipe.pipeline.studies.train import train_checkpoint

    options = checked("train", TrainingOptions, options)
    with _hook(progress) as hook:
        result = train_checkpoint(
            Path(dataset),
            Path(out),
            training_config(model, options),
            hook=hook,
            offline=options.get("offline", False),
            tensorboard=None if tensorboard is None else Path(tensorboard),
            start=os.fspath(start),
            given=given_settings(model, options),
        )
        trained = load(out, device=options.get("device", "auto"), offline=options.get("offline", False))
    trained.validation, trained.linear = result.validation, result.linear
    trained.folds, trained.folds_of, trained.verdict = result.folds, result.folds_of, result.verdict
    return trained


def evaluate(
    dataset: AnyPath,
    model: AnyPath | None = None,
    *,
    split: str = "valid",
    folds: int = 0,
    seeds: int = 1,
    prior: str = "uniform",
    start: AnyPath = "auto",
    progress: bool | Hook = True,
    **options: Unpack[TrainingOptions],
) -> Evaluation | Summary:
    """Measure a checkpoint, or train a model over seeds or folds and measure that.

    Args:
        dataset: made by :func:`extract`, or one of MMSA's files.
        model: a checkpoint, or the name of a model to train for the purpose; `emoe` by default.
        split: to measure on; "all" for every row.
        folds: cross-validate a model on so many speaker-grouped folds; 0 trains on the dataset's own split.
        seeds: train a model with so many seeds.
        prior: "uniform", or "train" to expect classes as often as in training.
        start, progress, options: as for :func:`train`.

    Returns:
        Of a checkpoint an evaluation, of a model a summary over its runs; both have `to_pandas()`.
    """
    from emopipe.pipeline.studies import train as studies

    options = checked("evaluate", TrainingOptions, options)
    modalities = chosen_modalities(options.get("modalities")) or None
    device, offline = options.get("device", "auto"), options.get("offline", False)
    if seeds < 1 or folds < 0 or folds == 1:
        hint = "Use two folds or more, or 0 for none; one seed or more"
        raise ConfigError(f"folds is {folds}, seeds {seeds}", hint=hint)
    with _hook(progress) as hook:
        if model is not None and studies.is_checkpoint(os.fspath(model)):
            _refuse_training({"folds": folds, "seeds": seeds > 1, "start": start != "auto", **options})
            return studies.evaluate_checkpoint(
                os.fspath(model), Path(dataset), split, modalities, prior, device=device, offline=offline, hook=hook
            )
        training_options: TrainingOptions = {**options}
        training_options.pop("modalities", None)
        trained = None if model is None else os.fspath(model)
        config = training_config(trained, training_options)
        return studies.evaluate_model(
            Path(dataset),
            config,
            folds,
            seeds,
            split,
            modalities,
            prior,
            hook=hook,
            offline=offline,
            start=os.fspath(start),
            given=given_settings(trained, training_options),
        )


def _refuse_training(asked: Mapping[str, Any]) -> None:
    """Refuse what a checkpoint, which is not trained, cannot heed."""
    idle = [name for name, value in asked.items() if value and name not in ("modalities", "device", "offline")]
    if idle:
        hint = "Name a model to train, or leave them out"
        raise OptionConflict(f"a checkpoint is measured as it is, without {', '.join(idle)}", hint=hint)


def load(model: AnyPath, **options: Unpack[MachineOptions]) -> Model:
    """Load a checkpoint.

    Args:
        model: its folder, or the name of a shipped one.
        options: `device` and `offline`.

    Raises:
        CheckpointError: it is missing or damaged.
        WeightError: the network that it stands on is missing.
    """
    from emopipe.model import Model
    from emopipe.models.sealed import find
    from emopipe.pipeline.backends.backbones import load_predictor

    options = checked("load", MachineOptions, options)
    _quieten()
    predictor, identity = load_predictor(
        os.fspath(model), options.get("device", "auto"), offline=options.get("offline", False)
    )
    return Model(predictor, identity, find(Path(model)))


def training_config(model: str | None, options: TrainingOptions | StudyOptions) -> TrainConfig:
    """A training configuration from a file and from options, which win.

    Raises:
        ConfigError: an unknown model or option, or a value that cannot be used.
    """
    from emopipe.models.training.config import configuration

    return configuration(training_tables(model, options))


def given_settings(model: str | None, options: TrainingOptions) -> set[str]:
    """Names of the settings of training, and of options of the model, that a file or options give."""
    tables = training_tables(model, options)
    return {*tables.get("train", {}), *tables.get("model", {})}


def training_tables(model: str | None, options: TrainingOptions | StudyOptions) -> dict[str, dict[str, Any]]:
    """The tables `[model]` and `[train]` of a file, changed by options."""
    from emopipe.pipeline.config import given_tables
    from emopipe.pipeline.config import training_tables as without_extraction

    tables = without_extraction(given_tables(options.get("config")))
    if model is not None and tables.get("model", {}).get("name", model) != model:
        tables["model"] = {}
    settings = {
        ("model", "name"): model,
        ("train", "label"): options.get("label"),
        ("train", "modalities"): list(chosen_modalities(options.get("modalities"))) or None,
        ("train", "epochs"): options.get("epochs"),
        ("train", "seed"): options.get("seed"),
        ("train", "allow_speaker_overlap"): options.get("allow_speaker_overlap") or None,
        ("train", "device"): options.get("device", "auto"),
    }
    for (table, name), value in settings.items():
        if value is not None:
            tables.setdefault(table, {})[name] = value
    return tables


def _paths(paths: AnyPath | Sequence[AnyPath]) -> list[Path]:
    return [Path(paths)] if isinstance(paths, str | os.PathLike) else [Path(path) for path in paths]


@contextmanager
def _hook(progress: bool | Hook) -> Iterator[Hook]:
    """What is told of progress."""
    _quieten()
    if callable(progress):
        yield progress
    elif progress:
        with ProgressBar() as bar:
            yield bar
    else:
        yield silent


@contextmanager
def _store(options: ExecutionOptions) -> Iterator[tuple[Store, object]]:
    """The store that options ask for, and what must live as long as what is in it is wanted.

    Raises:
        OptionConflict: when it shall be both temporary and shared with other machines.
    """
    from emopipe.pipeline.store.store import Store, store_dir

    shared = options.get("engine") == "ray"
    if options.get("no_store"):
        if shared:
            hint = "Name a folder that all machines see with --store"
            raise OptionConflict("machines of a cluster meet in the store: --no-store cannot be", hint=hint)
        folder = tempfile.TemporaryDirectory(prefix="emopipe-", ignore_cleanup_errors=True)
        with Store(Path(folder.name)) as store:
            yield store, folder
        return
    with Store(Path(options.get("store") or store_dir()), shared=shared) as store:
        yield store, None


@contextmanager
def _engine(files: int, options: ExecutionOptions) -> Iterator[Engine]:
    """What does the work that options ask for; see :func:`emopipe.pipeline.execution.batch.engine_for`."""
    from emopipe.pipeline.execution.batch import engine_for

    limit = options.get("limit_memory")
    engine = engine_for(
        files,
        jobs=options.get("jobs"),
        memory=None if limit is None else byte_size(limit),
        device=options.get("device", "auto"),
        debug=options.get("debug", False),
        ray=options.get("ray_address", "auto") if options.get("engine") == "ray" else None,
    )
    with closing(engine):
        yield engine


def _quieten() -> None:
    """Keep libraries from writing progress and notices of their own, and numba from changing torch's threads."""
    if "OMP_NUM_THREADS" in os.environ:
        os.environ.setdefault("NUMBA_NUM_THREADS", os.environ["OMP_NUM_THREADS"])
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
