"""The stages between a source and what is predicted of its utterances.

Each stage declares what it requires and provides, and everything else that its output depends on; :func:`check_plan`
refuses an order in which something is missing before any file is opened. A stage is handed the values that it requires
and no others, so that what it declares is what it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from emopipe.constants import MODALITIES, SAMPLE_RATE
from emopipe.errors import FeatureMismatch, PlanError
from emopipe.pipeline.backends.loading import Backends
from emopipe.pipeline.config import ExtractionConfig, diarizes, recognises
from emopipe.pipeline.datasets.person_normalization import find_baselines, relative, relative_absence
from emopipe.pipeline.media.decoding import Frame, Media, ahead, read_image
from emopipe.pipeline.progress import Event, Hook
from emopipe.pipeline.records import AbsenceReason, Absent, Extraction, Source, Utterance
from emopipe.pipeline.stages.people import (
    diarize,
    find_people,
    find_turns,
    named,
    recognise,
    tracks_of,
    with_person,
)
from emopipe.pipeline.store.serialization import GROUP

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Stage:
    """A step from source to prediction.

    Attributes:
        name: as shown to people.
        version: raised whenever the stage's output changes.
        requires, provides: names of values.
        run: computes the provided values from the required ones. At most one of them is tabular (see
            :mod:`emopipe.pipeline.store.serialization`); an iterator over utterances is stored as it goes.
        parameters: entries of the job that the stage reads: of its configuration ("face.rate") or its own ("labelled").
        backend: the kind of backend that works for it; its weights and libraries decide the output, too.
        libraries: other distributions whose versions decide it.
        modalities: it does its work only when one of these is wanted.
        needed: told the configuration, and whether sources are labelled: whether there is any work for it.
        signals: it does its work only when one of these files is there; (): without files, too.
        stored: False for what is quicker made again than kept.
        quick: it takes no time worth telling: it is done whenever it is asked for, and never stored.
    """

    name: str
    version: int
    requires: tuple[str, ...]
    provides: tuple[str, ...]
    run: Callable[[Values, Backends, Hook], dict[str, Any]]
    parameters: tuple[str, ...] = ()
    backend: str = ""
    libraries: tuple[str, ...] = ()
    modalities: tuple[str, ...] = MODALITIES
    needed: Callable[[ExtractionConfig, bool], bool] = lambda config, labelled: True
    signals: tuple[str, ...] = ()
    stored: bool = True
    quick: bool = False


def probe(values: Values, backends: Backends, hook: Hook) -> dict[str, Any]:
    """How long the source is, what its video is like, and what is wrong with its files as a whole."""
    examined = {media.path: media.examine() for media in (values["media"], values["sound_media"]) if media is not None}
    media = values["media"]
    info: dict[str, Any] = {}
    if media is not None:
        info = {"width": media.info.width, "height": media.info.height, "frame_rate": media.info.frame_rate}
    return {
        "duration": max((duration for duration, _ in examined.values()), default=0.0),
        "info": info,
        "file_faults": sorted({fault for _, faults in examined.values() for fault in faults}),
    }


def measure_face(values: Values, backends: Backends, hook: Hook) -> dict[str, Any]:
    """Face table of the video (streamed) or of the picture."""
    if "face" not in values["wanted"]:
        return _faces(Absent("not_requested"))
    image, media = values["image"], values["media"]
    if image is not None:
        return _faces(backends.face.still(read_image(image)), backends)
    if media is None or not media.info.has_video:
        return _faces(Absent("no_video_stream"))
    frames = media.frames(backends.config.face.rate)
    table = backends.face.track(_reported(media, frames if media.threads == 1 else ahead(frames), hook))
    return {**_faces(table, backends), "video_faults": media.video_faults}


def _faces(table: Any, backends: Backends | None = None) -> dict[str, Any]:
    """A face table, which of its columns are measured, and what is to be told of the weights."""
    note = None if isinstance(table, Absent) else table.schema.metadata.get(b"note")
    return {
        "face_table": table,
        "face_measured": sorted(backends.face.measured) if backends else [],
        "face_warnings": [f"face: {note.decode()}"] if note else [],
        "video_faults": [],
    }


def _reported(media: Media, frames: Iterable[Frame], hook: Hook) -> Iterable[Frame]:
    total = media.info.duration
    for frame in frames:
        yield frame
        hook(Event("progress", "face", done=frame.time, total=max(total, frame.time)))


def decode_sound(values: Values, backends: Backends, hook: Hook) -> dict[str, Any]:
    """The sound; None without an audio stream, an empty one included."""
    media = values["sound_media"] if {"voice", "text"} & set(values["wanted"]) else None
    if media is None or not media.info.has_audio:
        return {"sound": None, "sound_faults": []}
    sound = media.audio
    return {"sound": sound if len(sound) else None, "sound_faults": media.sound_faults}


def detect_speech(values: Values, backends: Backends, hook: Hook) -> dict[str, Any]:
    """The spans of the sound in which somebody speaks, None without sound, and what was damaged in it."""
    sound = values["sound"]
    speech = None if sound is None else backends.vad.segments(_Heard(sound, "speech", hook))
    return {"speech": speech, "decoding_faults": values["sound_faults"]}


class _Heard:
    """Sound that tells how far it was listened to."""

    def __init__(self, sound: Any, stage: str, hook: Hook) -> None:
        self._sound, self._stage, self._hook = sound, stage, hook

    def __len__(self) -> int:
        return len(self._sound)

    def __getitem__(self, part: slice) -> np.ndarray:
        start, _, _ = part.indices(len(self))
        self._hook(Event("progress", self._stage, done=start / SAMPLE_RATE, total=len(self) / SAMPLE_RATE))
        return np.asarray(self._sound[part])


def recognise_words(values: Values, backends: Backends, hook: Hook) -> dict[str, Any]:
    """The words that are spoken (within a labelled source), and their language; none when words are not wanted."""
    from emopipe.extractors.speech.diarize import joined
    from emopipe.extractors.speech.transcript import transcribe

    source, config = values["source"], backends.config.speech
    if "text" not in values["wanted"]:
        return {"words": [], "language": None}
    if source.text is not None:
        return {"words": [], "language": config.language or None}
    speech = [(turn.start, turn.end) for turn in joined(values["turns"])]
    if values["labelled"]:
        speech = _inside(speech, *_whole(source, values["duration"]))
    if not speech:
        return {"words": [], "language": None}
    transcript = transcribe(
        _Heard(values["sound"], "words", hook),
        speech,
        backends.asr,
        language=config.language or None,
        least_confidence=config.least_confidence,
    )
    return {"words": transcript.words, "language": transcript.language}


def find_utterances(values: Values, backends: Backends, hook: Hook) -> dict[str, Any]:
    """Spans of time with their words.

    A labelled source, or one whose words are given, is one utterance; a clip with words is cut at changes of speaker,
    pauses and sentence ends; a clip without is cut at changes of speaker and pauses, or into fixed windows.
    """
    from emopipe.extractors.contracts import Span
    from emopipe.extractors.speech.attribution import speaker_utterances, turn_utterances
    from emopipe.extractors.speech.diarize import joined
    from emopipe.extractors.speech.utterances import fixed_windows

    source, config, words = values["source"], backends.config.speech, values["words"]
    whole, turns = _whole(source, values["duration"]), joined(values["turns"])
    if source.text is not None:
        return {"spans": with_person([Span(*whole, source.text.strip())], turns)}
    if values["labelled"]:
        text = "".join(word.text for word in words).strip()
        return {"spans": with_person([Span(*whole, text, tuple(words))], turns)}
    cut = {"pause": config.pause, "longest": config.longest}
    if words:
        return {"spans": speaker_utterances(words, turns, **cut)}
    if len({turn.person for turn in turns}) > 1:
        return {"spans": turn_utterances(turns, **cut)}
    return {"spans": with_person(fixed_windows(whole[1], config.silent_window), turns)}


def _whole(source: Source, duration: float) -> tuple[float, float]:
    """The stretch of the media that the source is."""
    return source.start or 0.0, source.end if source.end is not None else duration


def measure_voice(values: Values, backends: Backends, hook: Hook) -> dict[str, Any]:
    """Voice features of each span, from its first to its last moment of speech."""
    return {"voice": _counted("voice", values["spans"], hook, lambda span: _voice(values, span, backends))}


def _counted(stage: str, spans: Sequence[Any], hook: Hook, measure: Callable[[Any], Any]) -> Iterator[Any]:
    """What is measured of each span, told as progress."""
    for number, span in enumerate(spans, start=1):
        yield measure(span)
        hook(Event("progress", stage, done=number, total=len(spans)))


def _voice(values: Values, span: Any, backends: Backends) -> Any:
    from emopipe.extractors.voice.features import SHORTEST

    if "voice" not in values["wanted"]:
        return Absent("not_requested")
    if values["sound"] is None:
        return Absent("no_audio_stream")
    speech = _inside(values["speech"], span.start, span.end)
    if not speech:
        return Absent("no_speech")
    low, high = speech[0][0], speech[-1][1]
    if high - low < SHORTEST:
        return Absent("too_short")
    samples = values["sound"][round(low * SAMPLE_RATE) : round(high * SAMPLE_RATE)]
    return backends.voice.measure(samples, start=low, window=backends.config.voice.window)


def embed_text(values: Values, backends: Backends, hook: Hook) -> dict[str, Any]:
    """Token vectors of each span's words."""
    spans = values["spans"]
    if "text" not in values["wanted"]:
        return {"text": [Absent("not_requested") for _ in spans], "text_warnings": []}
    texts = [span.text for span in spans if span.text]
    translated = backends.config.speech.task == "translate" and values["source"].text is None
    language = "en" if translated else values["language"]
    encoded = _encoded(texts, language, backends)
    missing: AbsenceReason = "no_audio_stream" if values["speech"] is None else "no_speech"

    def embed(span: Any) -> Any:
        from emopipe.extractors.windows import Sequence as Steps

        if not span.text:
            return Absent(missing)
        vectors = next(encoded)
        edges = np.linspace(span.start, span.end, len(vectors) + 1)
        return Steps(edges[:-1], edges[1:], vectors)

    warnings = _unread(language, backends) if texts else []
    return {"text": _counted("text", spans, hook, embed), "text_warnings": warnings}


def _encoded(texts: Sequence[str], language: str | None, backends: Backends) -> Iterator[Any]:
    """Features of each text, some at a time."""
    for first in range(0, len(texts), GROUP):
        yield from backends.text.encode(texts[first : first + GROUP], language)


def _unread(language: str | None, backends: Backends) -> list[str]:
    """What to tell of words in a language that the text encoder was not trained to read."""
    config, reads = backends.config.text, backends.languages
    if config.multilingual or not reads or language is None or language in reads:
        return []
    return [f"text: the words are in the language {language!r}, but {config.encoder} reads only {', '.join(reads)}"]


def slice_face(values: Values, backends: Backends, hook: Hook) -> dict[str, Any]:
    """Windows of the speaker's own face in each span, and how well it was seen."""
    from emopipe.extractors.face.table import feature_columns, subject_track

    table, spans = values["face_table"], values["spans"]
    if isinstance(table, Absent):
        return {"face": [table] * len(spans), "face_quality": [0.0] * len(spans)}
    frames = int(table.schema.metadata[b"frames"])
    columns = feature_columns(backends.config.face.features, values["face_measured"])
    matrix = np.column_stack([table[name].to_numpy() for name in columns]).astype(np.float64)
    times, quality, tracks = (table[name].to_numpy() for name in ("time", "quality", "track"))
    sampled = frames / values["duration"] if values["duration"] > 0 else 0.0
    main = subject_track(table)
    faces, qualities = [], []
    for span in spans:
        own = np.isin(tracks, tracks_of(span, values["people"], main))
        face, how_well = _face_in(span.start, span.end, times[own], matrix[own], quality[own], sampled, backends)
        if isinstance(face, Absent) and np.any((times >= span.start) & (times <= span.end) & ~own):
            face = Absent("other_face" if own.any() else "speaker_not_seen")
        faces.append(face if frames else Absent("decode_error"))
        qualities.append(how_well)
    return {"face": faces, "face_quality": qualities}


def _face_in(
    start: float,
    end: float,
    times: np.ndarray,
    matrix: np.ndarray,
    quality: np.ndarray,
    sampled_rate: float,
    backends: Backends,
) -> tuple[Any, float]:
    """The face sequence within [start, end], or the reason for its absence, and its quality."""
    from emopipe.extractors.windows import Sequence as Steps
    from emopipe.extractors.windows import window_deviations, window_edges, window_means

    inside = (times >= start) & (times <= end)
    expected = max(1.0, (end - start) * sampled_rate)
    coverage = min(1.0, inside.sum() / expected)
    if not inside.any() or coverage < backends.config.face.least_coverage:
        return Absent("no_face"), 0.0
    edges = window_edges(start, end, backends.config.face.window)
    means, rows = window_means(times[inside], matrix[inside], edges)
    features, kept = means, rows > 0
    if backends.config.face.deviations:
        features = np.hstack([means, window_deviations(times[inside], matrix[inside], edges)])
    steps = Steps(edges[:-1][kept], edges[1:][kept], features[kept])
    return steps, float(np.clip(coverage * quality[inside].mean(), 0.01, 1.0))


def fuse(values: Values, backends: Backends, hook: Hook) -> dict[str, Any]:
    """What the fusion model says of each utterance: it sees its features, and the words said before it."""
    from emopipe.models.data.conversation import spoken
    from emopipe.models.data.dataset import Sample

    predictor = values["predictor"]()
    predictions: list[Any] = []
    spans = values["spans"]
    lines = spoken([(_speaker(values, span), span.text) for span in spans])
    for first in range(0, len(spans), GROUP):
        samples = []
        for index in range(first, min(first + GROUP, len(spans))):
            features = _features(values, index)
            _refuse_other_widths(features, predictor.spec.schema)
            rows = {name: sequence.features for name, sequence in features.items()}
            earlier = tuple(line for line in lines[:index] if line)
            samples.append(Sample(rows, _quality(values, index, rows), spans[index].text, lines[index], earlier))
        predictions += predictor.predict(samples)
        hook(Event("progress", "fusion", done=len(predictions), total=len(spans)))
    return {"predictions": predictions}


def _speaker(values: Values, span: Any) -> str | None:
    """Who speaks: as it is given, else as it was found."""
    person = named(span, values["people"])
    given: str | None = values["speaker"]
    return person.name if given is None and person is not None else given


def _refuse_other_widths(features: Mapping[str, Any], schema: Mapping[str, Sequence[str]]) -> None:

    for name, sequence in features.items():
        found, wanted = sequence.features.shape[1], len(schema[name])
        if found != wanted:
            raise FeatureMismatch(f"{name}: trained on {wanted} features, offered {found}")


PROBE: Final = Stage(
    "probe",
    1,
    ("media", "sound_media"),
    ("duration", "info", "file_faults"),
    probe,
    libraries=("av",),
    signals=("media", "sound_media"),
)
STAGES: Final = (
    PROBE,
    Stage(
        "face",
        2,
        ("media", "image", "wanted"),
        ("face_table", "face_measured", "face_warnings", "video_faults"),
        measure_face,
        parameters=(
            "face.backend",
            "face.detector",
            "face.weights",
            "face.rate",
            "face.max_faces",
            "face.options",
        ),
        backend="face",
        signals=("media", "image"),
        libraries=("av",),
        modalities=("face",),
    ),
    Stage(
        "sound",
        1,
        ("sound_media", "wanted"),
        ("sound", "sound_faults"),
        decode_sound,
        libraries=("av",),
        modalities=("voice", "text"),
        signals=("sound_media",),
        stored=False,
    ),
    Stage(
        "speech",
        1,
        ("sound", "sound_faults"),
        ("speech", "decoding_faults"),
        detect_speech,
        parameters=("speech.vad", "speech.vad_threshold"),
        backend="vad",
        modalities=("voice", "text"),
        signals=("sound_media",),
    ),
    Stage(
        "speakers",
        3,
        ("sound", "speech", "face_table", "labelled"),
        ("diarized",),
        diarize,
        parameters=("people.diarizer", "people.encoder", "people.pyannote", "people.count", "people.most"),
        backend="speakers",
        modalities=("voice", "text"),
        needed=lambda config, labelled: not labelled and diarizes(config.people),
        signals=("sound_media",),
    ),
    Stage("turns", 1, ("speech", "diarized"), ("turns",), find_turns, quick=True),
    Stage(
        "words",
        2,
        ("source", "sound", "turns", "duration", "labelled", "wanted"),
        ("words", "language"),
        recognise_words,
        parameters=(
            "labelled",
            "speech.backend",
            "speech.asr",
            "speech.language",
            "speech.least_confidence",
            "speech.task",
            "speech.temperatures",
            "speech.prompt",
            "speech.options",
        ),
        backend="speech",
        signals=("sound_media",),
        modalities=("text",),
    ),
    Stage(
        "utterances",
        2,
        ("source", "words", "turns", "duration", "labelled"),
        ("spans",),
        find_utterances,
        parameters=("labelled", "speech.pause", "speech.longest", "speech.silent_window"),
        quick=True,
    ),
    Stage(
        "names",
        1,
        ("sound", "turns", "speaker"),
        ("known", "shown", "unheard"),
        recognise,
        parameters=("people.encoder", "people.enrol", "baseline_clip", "speech.vad", "speech.vad_threshold"),
        backend="people",
        modalities=("voice", "text"),
        needed=lambda config, labelled: recognises(config.people),
        signals=("sound_media",),
    ),
    Stage(
        "people",
        3,
        ("turns", "spans", "face_table", "known", "shown", "unheard"),
        ("people", "people_warnings"),
        find_people,
        parameters=("people.subject",),
        modalities=("voice", "text"),
        signals=("sound_media",),
    ),
    Stage(
        "voice",
        1,
        ("sound", "speech", "spans", "wanted"),
        ("voice",),
        measure_voice,
        parameters=("voice.backend", "voice.encoder", "voice.window", "voice.options"),
        backend="voice",
        modalities=("voice",),
        signals=("sound_media",),
    ),
    Stage(
        "text",
        1,
        ("source", "speech", "spans", "language", "wanted"),
        ("text", "text_warnings"),
        embed_text,
        parameters=(
            "speech.task",
            "text.backend",
            "text.encoder",
            "text.multilingual",
            "text.languages",
            "text.max_tokens",
            "text.layers",
            "text.pooling",
            "text.options",
        ),
        backend="text",
        modalities=("text",),
    ),
    Stage(
        "subject",
        2,
        ("face_table", "face_measured", "spans", "people", "duration"),
        ("face", "face_quality"),
        slice_face,
        parameters=("face.features", "face.window", "face.deviations", "face.least_coverage"),
        modalities=("face",),
        signals=("media", "image"),
    ),
    Stage(
        "baseline",
        1,
        ("spans", "people", "text", "face", "voice", "labelled", "reference"),
        ("baselines",),
        find_baselines,
        parameters=("people.baseline", "people.baseline_of"),
        needed=lambda config, labelled: not labelled and config.people.baseline != "none",
    ),
)
FUSION: Final = Stage(
    "fusion",
    2,
    ("speaker", "spans", "people", "text", "face", "voice", "face_quality", "baselines", "predictor"),
    ("predictions",),
    fuse,
    parameters=("checkpoint",),
    backend="model",
)
GIVEN: Final = ("source", "speaker", "media", "sound_media", "image", "wanted", "labelled", "reference", "predictor")
#: What an extraction is put together from.
EXTRACTED: Final = (
    "speaker", "duration", "info", "language", "spans", "turns", "people",
    "text", "face", "voice", "face_quality", "baselines",
    "face_warnings", "file_faults", "video_faults", "decoding_faults", "text_warnings", "people_warnings",
)  # fmt: skip


def check_plan(stages: Sequence[Stage] = (*STAGES, FUSION), given: Iterable[str] = GIVEN) -> None:
    """Refuse a plan in which a stage requires what nobody before it provides.

    Raises:
        ConfigError: naming the stage and the value.
    """
    known = set(given)
    for stage in stages:
        for name in stage.requires:
            if name not in known:
                raise PlanError(f"stage {stage.name!r} requires {name!r}, which no stage before it provides")
        known |= set(stage.provides)


def assembled(source: Source, values: Values, unverified: Sequence[str], *, features: bool) -> Extraction:
    """What was extracted from a source.

    Args:
        source: where it is from.
        values: those of :data:`EXTRACTED`, as they come from the store.
        unverified: names of the weights in use that are none of the catalogue's.
        features: whether the utterances carry their features, which may be large.
    """
    from emopipe.extractors.speech.diarize import overlap_share

    utterances = []
    for index, span in enumerate(values["spans"]):
        absent = {name: reason for name in MODALITIES if (reason := relative_absence(values, name, index))}
        person = named(span, values["people"])
        utterances.append(
            Utterance(
                source=source.id,
                start=span.start,
                end=span.end,
                text=span.text,
                language=values["language"],
                speaker=_speaker(values, span),
                role=person.role if person else None,
                overlap=overlap_share(values["turns"], span.start, span.end),
                features=_features(values, index) if features else {},
                absent=absent,
                quality=_quality(values, index, set(MODALITIES) - set(absent)),
            )
        )
    faults = {*values["file_faults"], *values["video_faults"], *values["decoding_faults"]}
    decoding = (f"decoding: {fault}" for fault in sorted(faults))
    warnings = [*values["face_warnings"], *decoding, *values["text_warnings"], *values["people_warnings"]]
    info = {"language": values["language"], **values["info"], "unverified_weights": list(unverified)}
    given = {} if source.speaker is None else {"name": source.speaker}
    people = tuple(replace(person, **given) for person in values["people"])
    return Extraction(source, utterances, values["duration"], warnings, info, people, tuple(values["turns"]))


def _features(values: Values, index: int) -> dict[str, Any]:
    """The sequences that an utterance has, by modality, relative to baselines where that is wanted."""
    found = {name: relative(values, name, index) for name in MODALITIES}
    return {name: sequence for name, sequence in found.items() if not isinstance(sequence, Absent)}


def _quality(values: Values, index: int, present: Iterable[str]) -> dict[str, float]:
    span = values["spans"][index]
    heard = float(np.mean([word.probability for word in span.words])) if span.words else 1.0
    measured = {"face": values["face_quality"][index], "text": heard, "voice": 1.0}
    return {name: measured[name] for name in MODALITIES if name in present}


def _inside(segments: Sequence[tuple[float, float]], start: float, end: float) -> list[tuple[float, float]]:
    """The parts of the segments within [start, end]."""
    clipped = [(max(low, start), min(high, end)) for low, high in segments]
    return [(low, high) for low, high in clipped if high > low]
