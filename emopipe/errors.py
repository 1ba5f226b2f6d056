"""Every failure as a type with a stable code, and every reason for an incomplete result as a value.

All errors derive from :class:`EmopipeError`. Groups share a base class (:class:`InputError`, :class:`WeightError` and
others), so that a caller may catch one kind of failure and let the others through. `docs/errors.md` is generated from
this file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os import PathLike
from typing import Any, ClassVar, Final


class EmopipeError(Exception):
    """A failure that a user can act on.

    Args:
        what: what happened, one sentence without a full stop.
        path: the file or folder that it happened to, when there is one.
        hint: what to do next, one sentence without a full stop.

    Attributes:
        code: stable; never changes its meaning once released. Empty for classes that only group others.
        advice: what to do next where the error itself gives no hint.
        stops_all: every other input would fail in the same way, so a batch ends.
        exit_code: of the command line.
    """

    code: ClassVar[str] = ""
    advice: ClassVar[str] = ""
    stops_all: ClassVar[bool] = False
    exit_code: ClassVar[int] = 2

    def __init__(self, what: str, *, path: str | PathLike[str] | None = None, hint: str = "") -> None:
        self.what = what
        self.path = None if path is None else str(path)
        self.hint = hint
        super().__init__(str(self))

    def __reduce__(self) -> tuple[Any, ...]:
        """Survive the way back from a worker process."""
        return _rebuilt, (type(self), self.what, self.path, self.hint)

    def __str__(self) -> str:
        """Code, what happened, to which file, and what to do."""
        code = f"{self.code}: " if self.code else ""
        where = f" ({self.path})" if self.path else ""
        todo = f". {self.hint}" if self.hint else ""
        return f"{code}{self.what}{where}{todo}"

    def changed(
        self, *, what: str | None = None, path: str | PathLike[str] | None = None, hint: str | None = None
    ) -> EmopipeError:
        """The same error in other words, of another file, or with another hint."""
        return type(self)(
            self.what if what is None else what,
            path=self.path if path is None else path,
            hint=self.hint if hint is None else hint,
        )

    def reason(self) -> Reason:
        """The error as a value, for manifests and pages."""
        where = Where(path=self.path) if self.path else None
        return Reason(self.code, self.what, self.hint or self.advice, where=where)


def _rebuilt(kind: type[EmopipeError], what: str, path: str | None, hint: str) -> EmopipeError:
    return kind(what, path=path, hint=hint)


# Input files


class InputError(EmopipeError):
    """An input cannot be used."""


class InputNotFound(InputError):
    """A path does not exist."""

    code = "EMO-101"
    advice = "Check the path; the file may have been moved or renamed"


class InputUnreadable(InputError):
    """A file or folder cannot be read: permissions, or an I/O error."""

    code = "EMO-102"
    advice = "Check the permissions of the file and the disk that it lies on"


class InputEmpty(InputError):
    """A file is empty."""

    code = "EMO-103"
    advice = "Copy or download the file again"


class NotMedia(InputError):
    """A file is not media that can be decoded."""

    code = "EMO-104"
    advice = "Play it in a media player to check; copy or export it again"


class NoStreams(InputError):
    """A file has neither a video nor an audio stream."""

    code = "EMO-105"
    advice = "Check that it is a recording; export it again"


class NoMediaFound(InputError):
    """No media files were found under a folder or pattern."""

    code = "EMO-106"
    advice = "Name a folder that holds recordings"


class InputChanged(InputError):
    """A file changed while it was being read."""

    code = "EMO-107"
    advice = "Wait until it is written or copied, and run again with --retry-failed"


class ReferenceClipUnusable(InputError):
    """A clip that a person or a baseline is learnt from cannot be read, or nobody is seen or heard in it."""

    code = "EMO-108"
    advice = "Give a clip in which the person is seen, or speaks alone for some seconds"
    stops_all = True


class ImageTooLarge(InputError):
    """An image file has more pixels than are decoded."""

    code = "EMO-109"
    advice = "Scale the image down and name the smaller one"


# Weights, libraries, devices


class EnvironmentFault(EmopipeError):
    """This machine lacks something that the work needs."""

    stops_all = True
    exit_code = 3


class WeightError(EnvironmentFault):
    """A weight cannot be used."""


class WeightMissing(WeightError):
    """A weight is not on this machine and may not be fetched (offline)."""

    code = "EMO-201"
    advice = "Run `emopipe models fetch` once with network"


class WeightChanged(WeightError):
    """The hash of a weight differs from the catalogue's, or from what was stored."""

    code = "EMO-202"
    advice = "Run `emopipe models fetch NAME` to replace it"


class WeightUnreachable(WeightError):
    """No source of a weight could be reached."""

    code = "EMO-203"
    advice = "Check the network and pip's index settings"


class CacheUnwritable(WeightError):
    """The disk is full, or the cache folder cannot be written."""

    code = "EMO-204"
    advice = "Free some space, or set EMOPIPE_CACHE to a folder on another disk"


class WeightUnknown(WeightError):
    """No weight of that name is known."""

    code = "EMO-205"
    advice = "`emopipe models list` shows the names"


class WeightFolderMissing(WeightError):
    """A folder or file of weights that the user names does not exist."""

    code = "EMO-206"
    advice = "Set EMOPIPE_WEIGHTS to a folder that exists, or unset it"


class LibraryMissing(EnvironmentFault):
    """A library is missing or has the wrong version."""

    code = "EMO-301"
    advice = "`emopipe doctor` lists what is missing"


class DeviceUnavailable(EnvironmentFault):
    """The requested device is not available."""

    code = "EMO-302"
    advice = "Use --device cpu or --device auto"


class ClusterUnavailable(EnvironmentFault):
    """A Ray cluster cannot be reached, or cannot be worked with."""

    code = "EMO-303"
    advice = "Check that the cluster runs and that all machines see the same folders"


class BackendUnusable(EnvironmentFault):
    """An extractor or model cannot be loaded with the weights and options that are configured."""

    code = "EMO-304"
    advice = "Check the weights and options that the configuration names (`emopipe config show`)"
    exit_code = 2


class PortUnavailable(EnvironmentFault):
    """A port of this machine cannot be listened on: another program has it, or only the administrator may."""

    code = "EMO-305"
    advice = "Choose another one with --port, or none: a free one is found"


# Checkpoints


class CheckpointError(EmopipeError):
    """A checkpoint is missing, incomplete or damaged."""

    code = "EMO-401"
    advice = "Give the folder of a checkpoint, or the name of a shipped one (`emopipe models list`)"
    stops_all = True


class FeatureMismatch(CheckpointError):
    """The features offered differ from those that the checkpoint was trained on."""

    code = "EMO-402"
    advice = "Extract with the checkpoint's own configuration, or train a new checkpoint on these features"


class ModalityNotRead(CheckpointError):
    """A modality is asked for that the checkpoint does not read."""

    code = "EMO-403"
    advice = "Ask for modalities that the checkpoint reads"


# Tables, datasets, configurations


class LabelsTableError(EmopipeError):
    """A labels table is unusable."""

    code = "EMO-501"
    advice = "Correct the table and repeat the command"


class DatasetError(EmopipeError):
    """A dataset is missing, incomplete or damaged."""

    code = "EMO-502"
    advice = "Make it again with `emopipe extract`"


class ConfigError(EmopipeError):
    """The value of a setting is unknown or out of bounds."""

    code = "EMO-503"
    advice = "`emopipe config show` lists the settings"
    stops_all = True


class BackboneError(ConfigError):
    """A pretrained network that a model stands on is missing, or is not the one that it was trained with."""

    code = "EMO-404"
    advice = "Give the folder that holds it, or set EMOPIPE_WEIGHTS to a folder that holds it under its name"


class TrainingError(EmopipeError):
    """Training cannot start or go on with this dataset."""

    code = "EMO-504"
    advice = "Check labels, speakers and splits of the dataset"


class ParticipantsTableError(EmopipeError):
    """A participants table is unusable."""

    code = "EMO-505"
    advice = "Correct the table and repeat the command"


class ConfigFileError(ConfigError):
    """A configuration file is not TOML."""

    code = "EMO-506"
    advice = "Correct the file; `emopipe config show` prints a valid one"


class UnknownName(ConfigError):
    """No extractor, model or face detector has that name, or two packages bring it."""

    code = "EMO-507"
    advice = "`emopipe models list` shows the names"


class OptionConflict(ConfigError):
    """Options were combined that exclude each other."""

    code = "EMO-508"
    advice = "Leave out one of the options"


class StudyError(ConfigError):
    """A comparison, ablation or diagnosis cannot be made of this model or dataset."""

    code = "EMO-509"
    advice = "Choose another model, metric or reference"


class CorpusError(EmopipeError):
    """A folder does not hold a corpus as its authors hand it out."""

    code = "EMO-510"
    advice = "Compare the folder with the layout that `emopipe corpus NAME` tells"


class CorrectionsError(EmopipeError):
    """A file of corrections is unusable."""

    code = "EMO-511"
    advice = "Save it again from the page of the clip, or export to ELAN and edit again"


class SpeakersTableError(EmopipeError):
    """A speakers table is unusable."""

    code = "EMO-512"
    advice = "Correct the table and repeat the command"


class PseudonymsTableError(EmopipeError):
    """A pseudonyms table is unusable."""

    code = "EMO-513"
    advice = "Correct the table and repeat the command"
    stops_all = True


class PrivacyError(EmopipeError):
    """Output would tell what pseudonyms, or words left out, are to hide."""

    code = "EMO-514"
    advice = "Give the pseudonyms table, or name a new folder with --out"
    stops_all = True


# Output


class OutputError(EmopipeError):
    """Output cannot be written, or that of an earlier run cannot be used."""

    code = "EMO-601"
    advice = "Free some space or name another folder with --out"


class StoreError(EmopipeError):
    """Results cannot be stored."""

    code = "EMO-602"
    advice = "Free some space (`emopipe store --prune`), or name another folder with --store"


# Failures while working


class StageFailure(EmopipeError):
    """An unexpected failure inside a stage."""

    code = "EMO-901"
    advice = "Run this file alone with --debug to see where"


class WorkerDied(EmopipeError):
    """A worker process died."""

    code = "EMO-902"
    advice = "Lower --jobs or close other programs, and run again with --retry-failed"


class OutOfMemory(EmopipeError):
    """A file needs more memory than it may have."""

    code = "EMO-903"
    advice = "Raise --limit-memory or lower --jobs, and run again with --retry-failed"


class PlanError(EmopipeError):
    """The stages of a plan do not fit together."""

    code = "EMO-904"
    advice = "Please report this: it is a fault of the program or of a plugin"
    stops_all = True


def error_types() -> list[type[EmopipeError]]:
    """All errors that have a code, in the order of their codes."""

    def below(kind: type[EmopipeError]) -> Iterator[type[EmopipeError]]:
        for one in kind.__subclasses__():
            yield one
            yield from below(one)

    return sorted((one for one in below(EmopipeError) if one.code), key=lambda one: one.code)


# Reasons


@dataclass(frozen=True)
class Where:
    """A place in a recording, or a file.

    Attributes:
        path: a file other than the recording itself, or the input that failed.
        start, end: seconds on the media clock.
    """

    path: str | None = None
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Reason:
    """Why a result is incomplete, doubtful or missing.

    Attributes:
        code: an error's ("EMO-104") where a file failed, else a key of :data:`REASONS` ("no_face").
        what: what happened, in words.
        hint: what to do next, in words.
        modality: "text", "face" or "voice", where it concerns one of them.
        where: the place or file that it concerns; None for the recording as a whole. In a dataset, its path is the id
            of the row.
    """

    code: str
    what: str
    hint: str = ""
    modality: str | None = None
    where: Where | None = None

    @property
    def is_note(self) -> bool:
        """Whether it tells of a choice, and the result is whole and not in doubt."""
        kind = REASONS.get(self.code)
        return kind is not None and kind.note

    def __str__(self) -> str:
        """In one line, as the terminal and tables show it."""
        if self.code.startswith("EMO-"):
            path = f" ({self.where.path})" if self.where and self.where.path else ""
            return f"{self.code}: {self.what}{path}" + (f". {self.hint}" if self.hint else "")
        about = f"{self.modality}: " if self.modality else ""
        return f"{about}{self.what}" + (f" ({self.code})" if self.code else "")


@dataclass(frozen=True)
class ReasonKind:
    """What a code of :class:`Reason` stands for.

    Attributes:
        meaning: in words.
        advice: what to do next.
        absence: a modality of an utterance is absent for this reason.
        note: it tells of a choice; the result is whole and not in doubt.
    """

    meaning: str
    advice: str
    absence: bool = False
    note: bool = False


#: Code -> what it stands for, of everything that makes a result incomplete or doubtful without making it fail.
REASONS: Final[dict[str, ReasonKind]] = {
    "no_face": ReasonKind(
        "no face was found in the utterance",
        "Check that a face is large enough, lit and uncovered; the other modalities count",
        absence=True,
    ),
    "other_face": ReasonKind(
        "only faces of other people were seen while the speaker spoke",
        "Check who is filmed; the other modalities count",
        absence=True,
    ),
    "speaker_not_seen": ReasonKind(
        "no face in the recording is seen to be the speaker's",
        "Check who is filmed, and that the speaker's mouth can be seen to move; the other modalities count",
        absence=True,
    ),
    "no_speech": ReasonKind(
        "nobody was heard speaking", "Check that the sound is not mute; the face counts", absence=True
    ),
    "no_words": ReasonKind(
        "somebody speaks, but the recogniser wrote down no words",
        "Listen there: a laugh, a sigh or a call has no words; the other modalities count",
        absence=True,
    ),
    "words_unsure": ReasonKind(
        "somebody speaks, but the recogniser was too unsure of the words to give them",
        "Name the language in [speech] language, use a larger model with --asr, or count on the other modalities",
        absence=True,
    ),
    "no_video_stream": ReasonKind(
        "the file has no video stream", "Nothing, if it is meant to be sound alone", absence=True
    ),
    "no_audio_stream": ReasonKind(
        "the file has no audio stream", "Nothing, if it is meant to be without sound", absence=True
    ),
    "no_recording": ReasonKind(
        "the row of the table has words alone: it names no recording, or one that is missing (`media_missing`)",
        "Nothing, if there are only words; else copy the recordings, or name them in a column file, and extract again",
        absence=True,
    ),
    "too_short": ReasonKind(
        "there is less speech than voice features need (0.25 s)", "Nothing; the other modalities count", absence=True
    ),
    "decode_error": ReasonKind("no picture could be decoded", "Copy or export the file again", absence=True),
    "not_requested": ReasonKind(
        "the run was not asked to look at this modality", "Nothing; leave out --modalities to have it", absence=True
    ),
    "no_baseline": ReasonKind(
        "what is normal for the person is not known, so features cannot be taken relative to it",
        "Give a baseline clip of the person",
        absence=True,
    ),
    "no_evidence": ReasonKind(
        "there is no utterance to predict from", "Check that the file shows or lets hear somebody"
    ),
    "not_in_store": ReasonKind(
        "what was measured for these results is not in the store",
        "Name the store of the run with --store, or run again; exports of runs with --no-store need --formats",
    ),
    "file_truncated": ReasonKind(
        "the file ends before the duration that it promises", "Copy or download the file again"
    ),
    "not_a_recording": ReasonKind(
        "the file lies among recordings and is not one", "Name the file itself to have it tried", note=True
    ),
    "streams_chosen": ReasonKind(
        "the file has several video streams or audio tracks",
        "Choose other audio tracks with --tracks",
        note=True,
    ),
    "channels_cancel": ReasonKind(
        "the channels of the sound cancel each other or have no known layout, so one of them was heard alone",
        "Listen to it; choose another track with --tracks if a voice is missing",
        note=True,
    ),
    "data_missing": ReasonKind(
        "the container promises more than it holds",
        "Copy the file again; times after a place where data are missing may be early",
    ),
    "no_timestamps": ReasonKind(
        "the video has no time stamps and was played at the frame rate of its stream",
        "If the recording had another rate, write it into a container first, for instance with "
        "`ffmpeg -framerate RATE -i IN -c copy OUT.mp4`",
    ),
    "timestamps_joined": ReasonKind(
        "time stamps leap; the parts were joined", "Compare the times with the recording before you rely on them"
    ),
    "data_damaged": ReasonKind("some data could not be decoded", "Copy or export the file again"),
    "frame_size": ReasonKind(
        "frames without a size, or of more than 40 million pixels, are not decoded",
        "Scale the video down first, for instance with `ffmpeg -i IN -vf scale=1920:-2 OUT.mp4`",
    ),
    "first_of_images": ReasonKind(
        "the image file is animated or has several pages, and its first image was used",
        "Save the image that is meant as a file of its own, or convert the animation to a video",
    ),
    "language_not_read": ReasonKind(
        "the words are in a language that the text encoder was not trained to read",
        "Use --model emopipe-multilingual for Chinese, or set [text] multilingual; [text] languages tells what the "
        "encoder reads nevertheless",
    ),
    "people_unsure": ReasonKind(
        "it is not clear from the voices how many people speak",
        "Listen, and give the number with --people if it is another",
    ),
    "person_not_found": ReasonKind(
        "a person who was named or enrolled was not heard", "Check the name and the enrolment clip"
    ),
    "faces_beyond_limit": ReasonKind(
        "more faces were seen at once than are measured",
        "Raise [face] max_faces if the speaker is among the others",
    ),
    "table_format": ReasonKind(
        "the table is not plain CSV with commas in UTF-8",
        "Save it as CSV in UTF-8 if names or numbers look wrong",
        note=True,
    ),
    "rows_repeated": ReasonKind("rows of the table are repeated, and were used once", "Delete the repeated rows"),
    "rows_overlap": ReasonKind(
        "rows of one speaker in one recording overlap", "Check their times; what they share counts twice"
    ),
    "times_ignored": ReasonKind(
        "the table has columns that look like times and are not read",
        "Call them start and end if the rows are stretches of their recordings, with seconds or hh:mm:ss in them",
    ),
    "row_cut": ReasonKind("rows end after their recording and were cut", "Check their times"),
    "split_renamed": ReasonKind("splits go by other names", "Check that they mean what they were taken for", note=True),
    "coders_joined": ReasonKind(
        "rows of several coders for the same recording were joined; their labels are columns for each of them",
        "Train with --label label: the shares of the votes are learned",
        note=True,
    ),
    "labels_joined": ReasonKind(
        "spellings of a label that differ in case or blanks were joined", "Write each label in one way", note=True
    ),
    "labels_missing": ReasonKind(
        "cells such as NA or nan were taken as missing", "Rename the label if it is meant as one"
    ),
    "labels_mixed": ReasonKind(
        "a column holds numbers and names", "Correct the cells, or the column is taken as names of classes"
    ),
    "labels_far": ReasonKind(
        "numbers such as -99 lie far from all others in their column, as programs write missing values",
        "Empty the cells if the values are missing; they are taken as they stand",
    ),
    "labels_numbers": ReasonKind(
        "small whole numbers are taken as values, so that training is a regression",
        "To learn classes, write names in place of the numbers",
        note=True,
    ),
    "decimal_comma": ReasonKind("numbers with a decimal comma were read", "Check the numbers", note=True),
    "file_name_form": ReasonKind(
        "names of files in the table differ in their Unicode form from those on the disk, and were found",
        "Nothing, if the files are the ones that are meant",
        note=True,
    ),
    "media_not_named": ReasonKind(
        "the table names no recording, although recordings lie beside it",
        "Add a column file that names them, if face and voice shall count",
    ),
    "recording_not_in_results": ReasonKind(
        "corrections are of a recording that is not in the results",
        "Name the results that they were made of; the recording may have been renamed or have failed",
    ),
    "other_content": ReasonKind(
        "corrections were made of a recording of the same name with other content",
        "Name the results that they were made of, or correct the new ones",
    ),
    "utterance_not_in_results": ReasonKind(
        "a correction is of an utterance that is not in the results",
        "Name the results that it was made of: other settings cut other utterances",
    ),
    "correction_unusable": ReasonKind(
        "a correction cannot be used", "Correct the utterance once more on the page of the clip"
    ),
    "correctors_disagree": ReasonKind(
        "those who corrected an utterance do not agree, and none of their answers has a majority",
        "Talk it over and correct it once more, or ask one more person",
    ),
    "split_ignored": ReasonKind(
        "the table has a split, and another column that looks like one and is not used",
        "Check that the column split is the one that is meant",
    ),
    "dialogue_splits": ReasonKind(
        "conversations have rows in several splits; rows of another split are not read as context",
        "Give each split's conversations names of their own, or keep a conversation in one split",
    ),
    "corpus_counts": ReasonKind(
        "the corpus has other numbers of rows than the complete one",
        "Check that all of it was copied; numbers measured on a part are not comparable with published ones",
    ),
    "corpus_files_unknown": ReasonKind(
        "files have names that the corpus does not use, and were left out", "Check that they belong to it"
    ),
    "rows_without_split": ReasonKind(
        "rows are of videos that the corpus's standard split leaves out, and were left out",
        "Nothing needs to be done; published figures leave them out too",
        note=True,
    ),
    "features_missing": ReasonKind(
        "utterances of the corpus have no features in one of its files",
        "Check that all of it was copied; these utterances lack the modality",
    ),
    "feature_sizes": ReasonKind(
        "features have other sizes than the published ones",
        "Check with which tool they were made; figures are not comparable with those of the published features",
    ),
    "media_missing": ReasonKind(
        "the corpus names recordings that are not in the folder",
        "Check that all of it was copied; rows with words are kept without face and voice, others are left out",
    ),
    "speakers_in_splits": ReasonKind(
        "the corpus's own splits share speakers",
        "Train with --allow-speaker-overlap to keep them; what is measured then holds for people it has seen",
        note=True,
    ),
    "weights_unverified": ReasonKind(
        "no hash vouches for a weight that measured the features", "See `emopipe models list`"
    ),
}


def counted(reasons: Iterable[Reason]) -> list[tuple[Reason, int]]:
    """The first reason of each code, and how many of the code there are; doubts before notes, frequent ones first."""
    of_code: dict[str, list[Reason]] = {}
    for one in reasons:
        of_code.setdefault(one.code, []).append(one)
    groups = sorted(of_code.values(), key=lambda group: (group[0].is_note, -len(group)))
    return [(group[0], len(group)) for group in groups]


def reason(code: str, what: str = "", *, modality: str | None = None, where: Where | None = None) -> Reason:
    """A reason of :data:`REASONS`, with the words and the advice that belong to it unless others are given."""
    kind = REASONS[code]
    return Reason(code, what or kind.meaning, kind.advice, modality, where)
