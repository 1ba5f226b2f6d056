"""What is asked of every source of a run: the job of predicting with a checkpoint, or of extracting features."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emopipe.constants import MODALITIES
from emopipe.errors import ConfigError, FeatureMismatch, ModalityNotRead, OptionConflict
from emopipe.options import ExtractionOptions, chosen_tracks, enrolments
from emopipe.pipeline.backends.backbones import locate
from emopipe.pipeline.backends.loading import Backends, libraries, model_basis
from emopipe.pipeline.backends.registry import speech_option, text_option
from emopipe.pipeline.backends.speakers import given_clips
from emopipe.pipeline.config import FACTS, ExtractionConfig, extraction_tables, given_tables
from emopipe.pipeline.execution.plan import Job
from emopipe.pipeline.progress import Hook, silent
from emopipe.pipeline.stages.probe import SPEAKERS_APART
from emopipe.pipeline.stages.stage import check_plan
from emopipe.pipeline.stages.table import Given
from emopipe.pipeline.store.store import Store

if TYPE_CHECKING:
    from emopipe.models.sealed import Sealed


def prediction_job(
    model: str,
    store: Store,
    *,
    modalities: Collection[str] = (),
    device: str = "auto",
    offline: bool = False,
    overrides: Mapping[str, Any] | None = None,
    abstain: str | float | None = None,
    backends: Callable[..., Backends] = Backends,
    hook: Hook = silent,
) -> Job:
    """The job of predicting with a checkpoint, by the extractors that it was trained on.

    Args:
        model: name of a shipped checkpoint, or the folder of another.
        store: where results are kept.
        modalities: look at these alone; () for all that the checkpoint reads.
        device: "auto", "cpu" or "cuda".
        offline: never fetch a weight.
        overrides: an extraction config that the user asks for; it must agree with the checkpoint's own.
        abstain: see :func:`least_confidence`.
        backends: what loads the extractors.
        hook: told when the network that the model stands on is fetched.

    Raises:
        CheckpointError: without the checkpoint; FeatureMismatch when `overrides` names other features, or the
            checkpoint's own cannot be extracted from media; ModalityNotRead when it does not read one of `modalities`.
        WeightError: when the network that it stands on is missing.
    """
    from emopipe.models.sealed import check_features, read_sealed

    sealed = read_sealed(model)
    _refuse_foreign(sealed.extraction, model)
    for name in modalities:
        if name not in sealed.modalities:
            hint = f"It reads {', '.join(sealed.modalities)}"
            raise ModalityNotRead(f"the checkpoint {model} does not read {name}", hint=hint)
    ExtractionConfig.from_dict(overrides or {})  # a value that does not fit is the options', not the checkpoint's
    tables = _overlaid(portable(sealed.extraction), overrides or {})
    config = ExtractionConfig.from_dict(tables, origin=f"the checkpoint {model}")
    wanted = tuple(name for name in sealed.modalities if not modalities or name in modalities)
    measured_by = {"versions": libraries(config, "face")} if "face" in wanted else {}
    check_features(sealed.schema, sealed.extraction, sealed.schema, config.as_dict() | measured_by)
    locate(sealed.options, offline=offline, hook=hook)
    job = Job(
        config,
        store.folder,
        modalities=wanted,
        model=model,
        checkpoint=sealed.id,
        device=device,
        offline=offline,
        backends=backends,
        least_confidence=least_confidence(sealed, abstain, model),
        relative=sealed.relative,
    )
    return based(job, store, hook, sealed)


def least_confidence(sealed: Sealed, abstain: str | float | None, model: str) -> float | None:
    """The confidence below which answers are uncertain; None: what the checkpoint says.

    Args:
        sealed: what the checkpoint says of itself.
        abstain: "never", or the share of its answers to corpora that it never saw which would be uncertain.
        model: its name, for messages.

    Raises:
        ConfigError: another `abstain`, or a share where the checkpoint does not tell of such answers.
    """
    if abstain is None:
        return None
    if abstain == "never":
        return 0.0
    try:
        share = math.nan if isinstance(abstain, bool) else float(abstain)
    except (TypeError, ValueError):
        share = math.nan
    if not 0 <= share <= 1:
        raise ConfigError(f"abstain is {abstain!r}", hint="Use never, or a share from 0 to 1 such as 0.2")
    if not sealed.confidences:
        what = f"how sure {model} is of recordings that it never saw was not measured, so a share tells nothing"
        raise ConfigError(what, hint="Use emopipe-default, or train with abstain_accuracy, or leave out --abstain")
    return float(np.interp(share, np.linspace(0, 1, len(sealed.confidences)), sealed.confidences))


def extraction_job(
    config: ExtractionConfig,
    store: Store,
    *,
    labelled: bool = False,
    modalities: Collection[str] = MODALITIES,
    device: str = "auto",
    offline: bool = False,
    hook: Hook = silent,
) -> Job:
    """The job of extracting features; arguments as for :class:`Job`.

    Raises:
        ConfigError: for an unknown backend or device, WeightError for a weight outside the catalogue
            that cannot be had.
    """
    job = Job(
        config,
        store.folder,
        modalities=tuple(modalities),
        labelled=labelled,
        device=device,
        offline=offline,
    )
    return based(job, store, hook)


def based(job: Job, store: Store, hook: Hook, sealed: Sealed | None = None) -> Job:
    """The job, knowing what it works with; weights that a checkpoint was trained without are refused."""
    check_plan(job.stages, Given)

    def digest(path: Path) -> str:
        return store.content(path).hash

    with job.backends(job.config, device=job.device, offline=job.offline, hook=hook) as backends:
        job = replace(job, clips={clip: digest(Path(clip)) for clip in given_clips(job.config.people)})
        bases = backends.bases([kind for kind in job.kinds if kind != "model"], digest)
        if sealed is not None:
            used = {name for basis in bases.values() for name in basis.weights}
            unverified = sealed.extraction.get("unverified", {})
            backends.check_weights({name: unverified[name] for name in unverified if name in used}, digest)
            bases["model"] = model_basis(sealed.model)
    return replace(job, bases=bases)


def config_hash(config: ExtractionConfig) -> str:
    """What identifies an extraction config in outputs."""
    return hashlib.sha256(json.dumps(config.as_dict(), sort_keys=True).encode()).hexdigest()[:12]


def _refuse_foreign(sealed: Mapping[str, Any], model: str) -> None:
    """Features that came in a file of somebody else's cannot be made from a recording."""
    for modality, table in sealed.items():
        if isinstance(table, Mapping) and "source" in table:
            what = f"the checkpoint {model} was trained on {modality} features of a {table['source']} file, "
            hint = "Measure it on such a file with `emopipe evaluate`, or train on what `emopipe extract` makes"
            raise FeatureMismatch(what + "which cannot be extracted from media", hint=hint)


def portable(sealed: Mapping[str, Any]) -> dict[str, Any]:
    """A sealed configuration for other recordings.

    Who was enrolled in the training recordings is not in these, and how many faces are in view is another number;
    what is measured of each face does not depend on it.
    """
    table = sealed.get("people", {})
    people = {name: value for name, value in table.items() if name not in ("enrol", "subject", "count", "baseline")}
    people["baseline"] = "person" if table.get("baseline", "none") != "none" else "none"
    face = {name: value for name, value in sealed.get("face", {}).items() if name != "max_faces"}
    return {**sealed, "people": people, **({"face": face} if face else {})}


def _overlaid(sealed: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The sealed tables with single entries replaced."""
    return {name: {**sealed.get(name, {}), **overrides.get(name, {})} for name in {*sealed, *overrides} - {*FACTS}}


def extraction_overrides(options: ExtractionOptions) -> dict[str, dict[str, Any]]:
    """Tables of the extraction configuration that options ask for: those of a file, and single settings, which win.

    Raises:
        InputNotFound, ConfigFileError: a configuration file that cannot be used.
        UnknownName: an unknown backend.
    """
    tables = extraction_tables(given_tables(options.get("config")))
    backend, _, detector = options.get("face", "").partition(":")
    settings: dict[tuple[str, str], Any] = {
        ("face", "backend"): backend or None,
        ("face", "detector"): detector or None,
        ("face", "rate"): float(rate) if type(rate := options.get("fps")) is int else rate,
        **{("speech", name): value for name, value in speech_option(options.get("asr")).items()},
        **{("text", name): value for name, value in text_option(options.get("text")).items()},
        ("speech", "tracks"): chosen_tracks(options.get("tracks")),
        ("people", "subject"): options.get("subject"),
        ("people", "count"): options.get("people"),
        ("people", "diarizer"): options.get("diarizer"),
        ("people", "baseline"): options.get("baseline"),
        ("people", "enrol"): enrolments(options.get("enrol", {})) or None,
    }
    for (table, name), value in settings.items():
        if value is not None:
            tables.setdefault(table, {})[name] = value
    people, tracks = tables.get("people", {}), tables.get("speech", {}).get("tracks")
    if people.get("count") not in (None, 0, 1) and people.get("diarizer") == "none" and tracks != SPEAKERS_APART:
        hint = "Choose another diarizer than none, or leave out the number of people"
        raise OptionConflict(f"{people['count']} people cannot be told apart without a diarizer", hint=hint)
    return tables
