"""The extraction config: every choice that decides what a feature means. A checkpoint seals the one it learned from."""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from annotated_types import Interval, MinLen

from emopipe.errors import ConfigError, ConfigFileError, InputNotFound
from emopipe.models.configs import Count, Length, Seconds, Share, Tokens, Window, Zero, change
from emopipe.pipeline.records import is_generic

#: Marks an option or a table that came after the first checkpoints: at its default it is left out, so that what was
#: sealed before and after it came compares equal.
LATER: Final = {"later": True}
#: Codes of languages, with or without a region.
_CODE: Final = re.compile("[a-z]{2,3}(-[A-Za-z]{2,4})?")
#: Tables of a sealed configuration that tell what measured, not how.
FACTS: Final = ("versions", "unverified")

#: Whisper divides by it, so nothing between 0 and what numbers of single precision bear.
Temperature = Zero | Annotated[float, Interval(ge=0.01, le=2)]
#: From the front, or from the back where it is negative.
LayerNumber = Annotated[int, Interval(ge=-1000, le=1000)]


@dataclass(frozen=True)
class FaceConfig:
    """How faces are measured.

    Attributes:
        backend: "mediapipe", "pyfeat", or what a plugin brings.
        detector: which of py-feat's detectors, "v2" or "v1"; "" for mediapipe, which has but one.
        weights: catalogue name or path of mediapipe's model; "" for pyfeat, whose parts have fixed catalogue names.
        rate: sampled frames per second.
        window: seconds over which frames are averaged into one step; 0 for the whole utterance.
        deviations: add the standard deviation of each feature within the window.
        max_faces: so many faces of a frame are measured at most; the largest, when there are more.
        features: column groups of the face table that become features.
        least_coverage: share of an utterance's sampled frames that must show the subject's face.
        options: of a plugin's own.
    """

    backend: str = "mediapipe"
    detector: str = field(default="", metadata=LATER)
    weights: str = "face-landmarker"
    rate: Annotated[float, Interval(ge=0.001, le=1000)] = 5.0
    window: Window = 1.0
    deviations: bool = field(default=False, metadata=LATER)
    max_faces: Annotated[int, Interval(ge=1, le=100)] = 16
    features: tuple[str, ...] = ("blendshapes", "mesh", "emotions", "expression")
    least_coverage: Share = 0.1
    options: Mapping[str, Any] = field(default_factory=dict, metadata=LATER)


#: What holds when a configuration names a face backend and no more. py-feat is slow without a GPU, hence fewer frames.
FACE_DEFAULTS: Final = {
    "mediapipe": FaceConfig(),
    "pyfeat": FaceConfig(
        backend="pyfeat",
        detector="v2",
        weights="",
        rate=2.0,
        features=("action_units", "emotions", "affect", "pose", "gaze"),
    ),
}


@dataclass(frozen=True)
class VoiceConfig:
    """How the voice is measured.

    Attributes:
        encoder: catalogue name or path of the Whisper model whose encoder listens.
        speaker_encoder: the same of CAM++, whose hidden states and vectors are features, too; "" for none.
        window: seconds over which frames are pooled into one step; 0 for the whole utterance.
        backend: "whisper-encoder", or what a plugin brings.
        options: of a plugin's own.
    """

    encoder: str = "whisper-base"
    speaker_encoder: str = "campplus"
    window: Window = 1.0
    backend: str = field(default="whisper-encoder", metadata=LATER)
    options: Mapping[str, Any] = field(default_factory=dict, metadata=LATER)


@dataclass(frozen=True)
class SpeechConfig:
    """How words are found and cut into utterances.

    Attributes:
        asr: catalogue name or path of the Whisper model that writes down words (for faster-whisper also a hub id).
        vad: catalogue name or path of Silero VAD.
        vad_threshold: probability above which a frame counts as speech.
        language: ISO 639-1 code; "" detects it.
        pause: silence between words that ends an utterance, in seconds.
        longest: utterances are cut before they exceed this, in seconds.
        least_confidence: words of a span of speech whose mean probability is below this are taken for noise.
        silent_window: length of the windows of a clip without speech, in seconds.
        backend: "whisper", "faster-whisper", or what a plugin brings.
        task: "transcribe", or "translate" into English.
        temperatures: sounds whose text fails Whisper's own tests (it repeats itself, or is a guess) are decoded again
            with the next one; a single one forbids that.
        prompt: words that come before every window, as context: names, spelling, style.
        tracks: of a file with several audio tracks: "mix" hears those that belong together, "first" or a number (from
            1) one of them, and with "speakers" each track, or each channel of a lone one, is a person's microphone.
        options: of a plugin's own.
    """

    asr: str = "whisper-base"
    vad: str = "silero-vad"
    vad_threshold: Share = 0.5
    language: str = ""
    pause: Seconds = 0.6
    longest: Length = 15.0
    least_confidence: Share = 0.3
    silent_window: Length = 5.0
    backend: str = field(default="whisper", metadata=LATER)
    task: str = field(default="transcribe", metadata=LATER)
    temperatures: Annotated[tuple[Temperature, ...], MinLen(1)] = field(
        default=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0), metadata=LATER
    )
    prompt: str = field(default="", metadata=LATER)
    tracks: Literal["mix", "first", "speakers"] | Count = field(default="mix", metadata=LATER)
    options: Mapping[str, Any] = field(default_factory=dict, metadata=LATER)

    def __post_init__(self) -> None:
        if self.language and not _CODE.fullmatch(self.language):
            hint = 'Write its code, such as "en" or "de"; "" detects it'
            raise ConfigError(f"language is {self.language!r}, not the code of a language", hint=hint)


@dataclass(frozen=True)
class TextConfig:
    """How words become vectors.

    Attributes:
        encoder: catalogue name, path, or hub id of a transformers encoder; for `glove` the path of a table of vectors.
        max_tokens: longer utterances are cut.
        backend: "transformers", "glove" (vectors of words from a table), or what a plugin brings.
        layers: outputs of these layers of the encoder are averaged; 0 are its embeddings, -1 the last layer.
        pooling: "tokens" keeps a vector per token; "mean" and "first" make one per utterance.
        multilingual: a second encoder with columns of its own, for words in languages that `encoder` does not read.
        languages: ISO 639-1 codes of what `encoder` reads; none: what the catalogue says.
        options: of a plugin's own.
    """

    encoder: str = "minilm-l6-emotion"
    max_tokens: Tokens = 64
    backend: str = field(default="transformers", metadata=LATER)
    layers: Annotated[tuple[LayerNumber, ...], MinLen(1)] = field(default=(-1,), metadata=LATER)
    pooling: str = field(default="tokens", metadata=LATER)
    multilingual: str = field(default="", metadata=LATER)
    languages: tuple[str, ...] = field(default=(), metadata=LATER)
    options: Mapping[str, Any] = field(default_factory=dict, metadata=LATER)


@dataclass(frozen=True)
class PeopleConfig:
    """Who speaks, whose face that is, and what is normal for them.

    Attributes:
        diarizer: "campplus" or "ge2e" (clusters of the vectors of a packaged speaker encoder), "pyannote", or "none":
            all speech is one person's.
        encoder: catalogue name or path of the speaker encoder; "" for the diarizer's own.
        pyannote: hub id or local folder of pyannote's pipeline.
        count: how many people speak; 0 estimates it.
        most: the estimate is at most this.
        subject: the interviewee: an enrolled name, a number in the order of first words, or "longest" (who talks
            most); "" decides by talk share and questions.
        enrol: name -> a clip in which that person alone speaks.
        baseline: "none"; "person" takes features relative to the person's own calm portions; or the path of a clip
            in which the person is calm.
        baseline_of: modalities whose features are taken relative to the baseline.
    """

    diarizer: str = "campplus"
    encoder: str = ""
    pyannote: str = "pyannote/speaker-diarization-community-1"
    count: Annotated[int, Interval(ge=0, le=100)] = 0
    most: Annotated[int, Interval(ge=1, le=100)] = 4
    subject: str = ""
    enrol: Mapping[str, str] = field(default_factory=dict)
    baseline: str = "none"
    baseline_of: tuple[str, ...] = ("face", "voice")

    def __post_init__(self) -> None:
        if generic := next(filter(is_generic, self.enrol), None):
            hint = "S1, S2, ... are what results call people without a name: write P1, or a name"
            raise ConfigError(f"enrol names somebody {generic}", hint=hint)


#: Diarizers that cluster the vectors of a speaker encoder, which can compare voices with given clips, too; the first
#: does it for the others.
VOICE_CLUSTERS: Final = ("campplus", "ge2e")


def given_clip(baseline: str) -> Path | None:
    """The clip that a setting of the baseline names."""
    return None if baseline in ("none", "person") else Path(baseline)


def diarizes(config: PeopleConfig) -> bool:
    """Whether more than one person may be told apart by voice."""
    return config.diarizer != "none" and config.count != 1


def recognises(config: PeopleConfig) -> bool:
    """Whether voices are compared with those of given clips."""
    return bool(config.enrol) or given_clip(config.baseline) is not None


@dataclass(frozen=True)
class ExtractionConfig:
    """Everything that decides what features mean."""

    face: FaceConfig = field(default_factory=FaceConfig)
    voice: VoiceConfig = field(default_factory=VoiceConfig)
    speech: SpeechConfig = field(default_factory=SpeechConfig)
    text: TextConfig = field(default_factory=TextConfig)
    people: PeopleConfig = field(default_factory=PeopleConfig, metadata=LATER)

    def as_dict(self, *, full: bool = False) -> dict[str, Any]:
        """Plain tables, ready for TOML or JSON; only on request with what :data:`LATER` leaves out."""
        tables = {name: _kept(table, full) for name, table in _kept(self, full).items()}
        return {name: {key: _plain(value) for key, value in table.items()} for name, table in tables.items()}

    @classmethod
    def from_dict(cls, tables: Mapping[str, Any], *, origin: str = "the configuration") -> ExtractionConfig:
        """Build from plain tables; keys that are left out keep their defaults, those of the face backend named.

        Raises:
            ConfigError: for an unknown table or key, or a value of the wrong type.
        """
        defaults = cls(face=_face_defaults(tables.get("face")))
        sections = {name: table for name, table in tables.items() if name not in FACTS}
        for name, table in sections.items():
            if hasattr(defaults, name) and isinstance(table, Mapping):
                sections[name] = change(getattr(defaults, name), table, f"{origin} [{name}]")
        return change(defaults, sections, origin)


def _face_defaults(table: Any) -> FaceConfig:
    """The defaults of the backend that the table names; those of an unknown one are refused later."""
    backend = table.get("backend") if isinstance(table, Mapping) else None
    return FACE_DEFAULTS.get(str(backend), FaceConfig())


def _kept(record: Any, full: bool) -> dict[str, Any]:
    """The fields of a record; unless in full, without what came later and is at its default."""
    values, default = {one.name: getattr(record, one.name) for one in dataclasses.fields(record)}, type(record)()
    left_out = {one.name for one in dataclasses.fields(record) if one.metadata == LATER and not full}
    return {k: v for k, v in values.items() if k not in left_out or v != getattr(default, k)}


def _plain(value: Any) -> Any:
    """A value as TOML and JSON know it."""
    return list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value


def load_config(path: Path) -> ExtractionConfig:
    """Read a TOML file with any of the tables [face], [voice], [speech], [text] and [people].

    Raises:
        InputNotFound: when there is no such file, ConfigError when it cannot be used.
    """
    return ExtractionConfig.from_dict(extraction_tables(read_toml(path)), origin=str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        InputNotFound: when there is no such file, ConfigError when it is not TOML.
    """
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputNotFound("there is no such configuration file", path=path) from None
    except OSError as error:
        raise ConfigFileError(f"the file cannot be read: {error.strerror}", path=path) from None
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, or of a number with 5,000 digits
        raise ConfigFileError(f"the file is not TOML: {error}", path=path) from None


def given_tables(config: str | os.PathLike[str] | Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """The tables of a configuration that is given as a file or in memory; {} for None.

    Raises:
        InputNotFound: when there is no such file, ConfigError when it is not TOML, or a setting is in no table.
    """
    tables = config if isinstance(config, Mapping) else {} if config is None else read_toml(Path(config))
    for name, table in tables.items():
        if not isinstance(table, Mapping):
            raise ConfigError(f"{name} = {table!r:.80} is in no table", hint=f"Is the table [{name}] meant?")
    return {name: dict(table) for name, table in tables.items()}


def extraction_tables(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the tables that belong to training; one file may hold both."""
    return {name: table for name, table in tables.items() if name not in ("model", "models", "train")}


def training_tables(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the tables that belong to extraction; one file may hold both."""
    extraction = {*FACTS, *(one.name for one in dataclasses.fields(ExtractionConfig))}
    return {name: table for name, table in tables.items() if name not in extraction}
