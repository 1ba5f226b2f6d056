"""What can be asked of emopipe, once for Python and the command line: every option with its type, help and bounds.

An option group is a :class:`typing.TypedDict` whose entries are all optional. Functions of the front door take them as
keywords; commands show them as options. `Annotated` carries what only the command line needs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, TypeVar, cast, get_args, get_origin, get_type_hints

from emopipe.constants import MODALITIES
from emopipe.errors import ConfigError

AnyPath = str | os.PathLike[str]
Options = TypeVar("Options")


@dataclass(frozen=True)
class Option:
    """How an option looks on the command line.

    Attributes:
        help: one sentence.
        flag: its name where it is not the keyword's.
        type: of what is typed, where that is not the keyword's type.
        least: the smallest number allowed.
        default: where the command line has one.
    """

    help: str
    flag: str = ""
    type: Any = None
    least: float | None = None
    default: Any = None


def checked(call: str, group: type, options: Options) -> Options:
    """Refuse keywords that a function does not have, and values that the command line would refuse.

    Args:
        call: name of the function.
        group: of its options.
        options: as they were given; None counts as left out.

    Returns:
        Those that are not left out.

    Raises:
        TypeError: there is no such option.
        ConfigError: a number below its bound, or a name that is not among those to choose from.
    """
    hints = get_type_hints(group, include_extras=True)
    given = {name: value for name, value in cast(Mapping[str, Any], options).items() if value is not None}
    for name in cast(Mapping[str, Any], options):
        if name not in hints:
            near = get_close_matches(name, hints, 1, 0.5)
            meant = f"; is {near[0]!r} meant?" if near else ""
            raise TypeError(f"{call}() got an unexpected keyword argument {name!r}{meant}")
    for name, value in given.items():
        kind, option = get_args(hints[name])
        if get_origin(kind) is Literal and value not in get_args(kind):
            raise ConfigError(f"{name} is {value!r}", hint=f"Choose among {', '.join(get_args(kind))}")
        if option.least is not None and not (isinstance(value, int | float) and value >= option.least):
            raise ConfigError(f"{name} is {value!r}", hint=f"It is a number, {option.least:g} or more")
    return cast(Options, given)


def listed(text: str) -> tuple[str, ...]:
    """The names of a comma-separated list."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def chosen_modalities(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """Modalities by name, or of a comma-separated list; () for None.

    Raises:
        ConfigError: for an unknown name.
    """
    chosen = listed(names) if isinstance(names, str) else tuple(names or ())
    if isinstance(names, str) and not chosen:
        raise ConfigError(
            "no modality is named", hint=f"Choose among {', '.join(MODALITIES)}, or leave them out for all"
        )
    for name in chosen:
        if name not in MODALITIES:
            raise ConfigError(f"unknown modality {name!r}", hint=f"Choose among {', '.join(MODALITIES)}")
    return chosen


def byte_size(size: str | int) -> int:
    """Bytes of a size such as 800M, 2.5G or 1T.

    Raises:
        ConfigError: when it is not a size.
    """
    units = {"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    number = str(size).strip().upper().removesuffix("B")
    try:
        found = round(float(number.rstrip("KMGT")) * units.get(number[-1:], 1))
    except (ValueError, OverflowError):
        found = 0
    if found <= 0:
        raise ConfigError(f"{size!r} is not a size", hint="Write it like 800M or 2.5G")
    return found


def chosen_tracks(tracks: str | int | None) -> str | int | None:
    """Which audio tracks are heard: a number of a track from what is typed, else the name as it is."""
    return int(tracks) if isinstance(tracks, str) and tracks.isdecimal() else tracks


def enrolments(texts: Sequence[str] | Mapping[str, AnyPath]) -> dict[str, str]:
    """Name -> clip of enrolments, which the command line writes as NAME=CLIP.

    Raises:
        ConfigError: when one is not NAME=CLIP.
    """
    if isinstance(texts, Mapping):
        return {name: str(clip) for name, clip in texts.items()}
    enrolled: dict[str, str] = {}
    for text in texts:
        name, _, clip = text.partition("=")
        if not name or not clip:
            raise ConfigError(f"--enrol {text!r} is not NAME=CLIP", hint="Write --enrol anna=anna.mp4")
        if name in enrolled:
            raise ConfigError(f"--enrol names {name} twice", hint="Give one clip of each person")
        enrolled[name] = clip
    return enrolled


class ModalityOptions(TypedDict, total=False):
    """What to look at."""

    modalities: Annotated[str | Sequence[str], Option("Comma-separated subset of text,face,voice.", type=str)]


class ExtractionOptions(ModalityOptions, total=False):
    """How features are extracted."""

    config: Annotated[AnyPath | Mapping[str, Any], Option("A TOML file; see `emopipe config show`.", type=Path)]
    face: Annotated[str, Option("Face backend: mediapipe, pyfeat or pyfeat:v1.")]
    asr: Annotated[str, Option("Speech recogniser: whisper:SIZE or faster-whisper:SIZE, SIZE or a path.")]
    text: Annotated[str, Option("Text encoder: a name of `emopipe models list`, a path or a hub id.")]
    fps: Annotated[float, Option("Sampled frames per second.")]
    subject: Annotated[str, Option("Who is interviewed: an enrolled name, longest, or 1, 2, ...")]
    enrol: Annotated[
        Mapping[str, AnyPath] | Sequence[str],
        Option("NAME=CLIP: a clip in which that person alone speaks; repeatable.", type=list[str]),
    ]
    tracks: Annotated[
        str | int,
        Option("Audio tracks: mix, first, a number from 1, or speakers: each is a person's microphone.", type=str),
    ]
    people: Annotated[int, Option("How many people speak; 0 estimates it.", least=0)]
    diarizer: Annotated[str, Option("campplus, ge2e, pyannote, or none: one person speaks.")]
    baseline: Annotated[str, Option("none, person (their own calm utterances), or a clip of them calm.")]


class MachineOptions(TypedDict, total=False):
    """Where models run, and whether the network may be used."""

    device: Annotated[str, Option("auto, cpu or cuda.", default="auto")]
    offline: Annotated[bool, Option("Never use the network.", default=False)]


class ExecutionOptions(MachineOptions, total=False):
    """What does the work, and where results are kept."""

    jobs: Annotated[int, Option("Worker processes; one per core as far as memory allows.", least=1)]
    limit_memory: Annotated[
        str | int,
        Option("What all workers together may take, such as 8G; who takes more is stopped.", type=str),
    ]
    engine: Annotated[
        Literal["processes", "ray"],
        Option("processes: on this machine; ray: on a Ray cluster.", default="processes"),
    ]
    ray_address: Annotated[
        str,
        Option(
            "HOST:PORT of the cluster's head; auto: the cluster that this machine is part of. All machines must see "
            "inputs, checkpoint and --store under the same path, and hold the same emopipe[ray].",
            default="auto",
        ),
    ]
    store: Annotated[AnyPath, Option("Folder in which results are kept and found again.", type=Path)]
    no_store: Annotated[bool, Option("Neither use results of earlier runs nor keep any.", default=False)]
    debug: Annotated[bool, Option("Show tracebacks, and work in this process.", default=False)]


class TrainingOptions(ModalityOptions, MachineOptions, total=False):
    """What is trained and how."""

    label: Annotated[str, Option("Manifest column to predict.")]
    epochs: Annotated[int, Option("At most so many passes over the data.", least=1)]
    seed: Annotated[int, Option("Seed of weights, order, dropout and split.")]
    allow_speaker_overlap: Annotated[bool, Option("Let a speaker into training and validation.", default=False)]
    config: Annotated[
        AnyPath | Mapping[str, Any],
        Option("A TOML file with the tables [model] and [train].", type=Path),
    ]


class StudyOptions(TrainingOptions, total=False):
    """How models are put to the test."""

    folds: Annotated[int, Option("Speaker-grouped folds.", least=2, default=5)]
    seeds: Annotated[int, Option("Trainings of each model on each fold.", least=1, default=3)]
    split: Annotated[
        str,
        Option("Test on this split of the dataset in place of folds, such as test; train and valid are trained on."),
    ]
    metric: Annotated[
        str, Option("What differences are measured in; auto: uar for classes, mae for values.", default="auto")
    ]
    require: Annotated[
        str | Sequence[str],
        Option("Validate and test only on rows that have all of these modalities.", type=str),
    ]


class PrivacyOptions(TypedDict, total=False):
    """What is hidden in the results."""

    pseudonyms: Annotated[
        AnyPath,
        Option("CSV with the columns name and pseudonym: names in paths, words and tables are replaced.", type=Path),
    ]
    redact: Annotated[
        str | Sequence[str], Option("Comma-separated subset of names,numbers: left out of words.", type=str)
    ]
    blurred: Annotated[bool, Option("Pages play a copy of the recording in which faces are blurred.", default=False)]
    blur_margin: Annotated[float, Option("What is blurred around a face, as a share of its size on each side (0.4).")]
    blur_hold: Annotated[float, Option("Seconds for which the place of a face stays blurred where it is lost (1).")]
    blur_whole: Annotated[bool, Option("Blur all of a picture of the copy where no face is found.", default=False)]
    pitch: Annotated[float, Option("Semitones by which the sound of that copy is shifted, such as -4.")]


class MeasurementOptions(ExtractionOptions, ExecutionOptions, total=False):
    """All options of :func:`emopipe.extract` beside its own parameters."""


class AnswerOptions(TypedDict, total=False):
    """Which answers are told as uncertain."""

    abstain: Annotated[
        str | float,
        Option(
            "never, or a share such as 0.2: answers as unsure as that share of those to corpora which the checkpoint "
            "never saw are uncertain. Else the checkpoint decides.",
            type=str,
        ),
    ]


class RunOptions(MeasurementOptions, PrivacyOptions, AnswerOptions, total=False):
    """All options of :func:`emopipe.run` beside its own parameters."""
