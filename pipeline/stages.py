"""The stages between a source and the features of its utterances.

Each stage declares what it requires and provides; :func:`check_plan` refuses an order in which something is missing
before any file is opened. Values pass from stage to stage under those names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from emopipe.pipeline.backends import Backends
from emopipe.pipeline.baseline import relative
from emopipe.pipeline.config import MODALITIES
from emopipe.pipeline.errors import EmopipeError
from emopipe.pipeline.media import SAMPLE_RATE, Frame, Media, ahead, read_image
from emopipe.pipeline.people import find_turns, named, recognise, tracks_of, with_person
from emopipe.pipeline.progress import Event, Hook, silent, timed
from emopipe.pipeline.records import AbsenceReason, Extraction, Source, Utterance

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Stage:
    """A step of the extraction.

    Attributes:
        name: as shown to people.
        version: raised whenever the stage's output changes.
        requires, provides: names of values.
        run: computes the provided values from the required ones.
    """

    name: str
    version: int
    requires: tuple[str, ...]
    provides: tuple[str, ...]
    run: Callable[[Values, Backends, Hook], dict[str, Any]]


@dataclass(frozen=True)
class Absent:
    """Stands in the place of features that there are none of."""

    reason: AbsenceReason


def measure_face(values: Values, backends: Backends, hook: Hook) -> dict[str, Any]:
    """Face table of the video (streamed) or of the picture."""
    source, media = values["source"], values["media"]
    if "face" not in values["wanted"]:
        return {"face_table": Absent("not_requested")}
    if source.image is not None:
        return {"face_table": backends.face.still(read_image(source.image))}
    if media is None or not media.info.has_video:
        return {"face_table": Absent("no_video_stream")}
    frames = _reported(media, ahead(media.frames(backends.config.face.rate)), hook)
    return {"face_table": backends.face.track(frames)}


def _reported(media: Media, frames: Iterable[Frame], hook: Hook) -> Iterable[Frame]:
    total = media.info.duration
    for frame in frames:
        yield frame
        hook(Event("progress", "face", done=frame.time, total=max(total, frame.time)))


def detect_speech(values: Values, backends: Backends, hook: Hook) -> dict[str, Any]:
    """The sound and the spans of it in which somebody speaks."""
    if not {"voice", "text"} & set(values["wanted"]):
        return {"sound": None, "speech": []}
    sound = values["sound_media"].audio if values["sound_media"] is not None else None
    if sound is None or not len(sound):
        return {"sound": None, "speech": []}
    return {"sound": sound, "speech": backends.vad.segments(sound)}


def find_utterances(values: Values, backends: Backends, hook: Hook) -> dict[str, Any]:
    """Spans of time with their words.

    A labelled source is one utterance; a clip with speech is cut at changes of speaker, pauses and sentence ends; a
    clip without speech is cut into fixed windows.
    """
    from emopipe.extractors.speech.attribution import speaker_utterances, turn_utterances
    from emopipe.extractors.speech.diarize import joined
    from emopipe.extractors.speech.transcript import transcribe
    from emopipe.extractors.speech.utterances import Span, fixed_windows

    source, config = values["source"], backends.config.speech
    whole = (source.start or 0.0, source.end if source.end is not None else _duration(values))
    turns = joined(values["turns"])
    if source.text is not None:
        spans = with_person([Span(*whole, source.text.strip())], turns)
        return {"spans": spans, "language": config.language or None}
    speech = [(turn.start, turn.end) for turn in turns]
    if values["labelled"]:
        speech = _inside(speech, *whole)
    cut = {"pause": config.pause, "longest": config.longest}
    several = len({turn.person for turn in turns}) > 1
    wordless = turn_utterances(turns, **cut) if several else fixed_windows(whole[1], config.silent_window)
    if not speech or "text" not in values["wanted"]:
        spans = [Span(*whole)] if values["labelled"] else wordless
        return {"spans": with_person(spans, turns), "language": None}
    transcript = transcribe(
        values["sound"],
        speech,
        backends.asr,
        language=config.language or None,
        least_confidence=config.least_confidence,
    )
    if values["labelled"]:
        text = "".join(word.text for word in transcript.words).strip()
        spans = [Span(*whole, text, tuple(transcript.words))]
        return {"spans": with_person(spans, turns), "language": transcript.language}
    spans = speaker_utterances(transcript.words, turns, **cut) or with_person(wordless, turns)
    return {"spans": spans, "language": transcript.language}


def measure_voice(values: Values, backends: Backends, hook: Hook) -> dict[str, Any]:
    """Voice features of each span, from its first to its last moment of speech."""
    return {"voice": [_voice(values, span.start, span.end, backends) for span in values["spans"]]}


def _voice(values: Values, start: float, end: float, backends: Backends) -> Any:
    from emopipe.extractors.voice.features import SHORTEST

    if "voice" not in values["wanted"]:
        return Absent("not_requested")
    if values["sound"] is None:
        return Absent("no_audio_stream")
    speech = _inside(values["speech"], start, end)
    if not speech:
        return Absent("no_speech")
    low, high = speech[0][0], speech[-1][1]
    if high - low < SHORTEST:
        return Absent("too_short")
    samples = values["sound"][round(low * SAMPLE_RATE) : round(high * SAMPLE_RATE)]
    return backends.voice.measure(samples, start=low, window=backends.config.voice.window)


def embed_text(values: Values, backends: Backends, hook: Hook) -> dict[str, Any]:
    """Token vectors of each span's words."""
    from emopipe.extractors.windows import Sequence as Steps

    spans = values["spans"]
    if "text" not in values["wanted"]:
        return {"text": [Absent("not_requested") for _ in spans], "text_warnings": []}
    spoken = [span for span in spans if span.text]
    translated = backends.config.speech.task == "translate" and values["source"].text is None
    language = "en" if translated else values["language"]
    encoded = iter(backends.text.encode([span.text for span in spoken], language) if spoken else [])
    missing: AbsenceReason = "no_speech" if values["sound"] is not None else "no_audio_stream"
    sequences: list[Any] = []
    for span in spans:
        if not span.text:
            sequences.append(Absent(missing))
            continue
        vectors = next(encoded)
        edges = np.linspace(span.start, span.end, len(vectors) + 1)
        sequences.append(Steps(edges[:-1], edges[1:], vectors))
    return {"text": sequences, "text_warnings": _unread(language, backends) if spoken else []}


def _unread(language: str | None, backends: Backends) -> list[str]:
    """What to tell of words in a language that the text encoder was not trained to read."""
    config, reads = backends.config.text, backends.languages
    if config.multilingual or not reads or language is None or language in reads:
        return []
    return [f"text: the words are in the language {language!r}, but {config.encoder} reads only {', '.join(reads)}"]


def slice_face(values: Values, backends: Backends, hook: Hook) -> dict[str, Any]:
    """Windows of the speaker's own face in each span, and how well it was seen."""
    from emopipe.extractors.face.table import subject_track

    table, spans = values["face_table"], values["spans"]
    if isinstance(table, Absent):
        return {"face": [table] * len(spans), "face_quality": [0.0] * len(spans)}
    frames = int(table.schema.metadata[b"frames"])
    matrix = np.column_stack([table[name].to_numpy() for name in backends.face_columns()]).astype(np.float64)
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


STAGES: Final = (
    Stage("face", 2, ("source", "media", "wanted"), ("face_table",), measure_face),
    Stage("speech", 1, ("sound_media", "wanted"), ("sound", "speech"), detect_speech),
    Stage("speakers", 1, ("sound", "speech", "face_table", "labelled"), ("turns",), find_turns),
    Stage("utterances", 2, ("source", "sound", "turns", "labelled", "wanted"), ("spans", "language"), find_utterances),
    Stage("people", 1, ("source", "sound", "turns", "spans", "face_table"), ("people", "people_warnings"), recognise),
    Stage("voice", 1, ("sound", "speech", "spans", "wanted"), ("voice",), measure_voice),
    Stage("text", 1, ("source", "sound", "spans", "language", "wanted"), ("text", "text_warnings"), embed_text),
    Stage("subject", 2, ("face_table", "spans", "people", "duration"), ("face", "face_quality"), slice_face),
)
GIVEN: Final = ("source", "media", "sound_media", "wanted", "labelled", "duration")


def check_plan(stages: Sequence[Stage] = STAGES, given: Iterable[str] = GIVEN) -> None:
    """Refuse a plan in which a stage requires what nobody before it provides.

    Raises:
        EmopipeError: EMO-503, naming the stage and the value.
    """
    known = set(given)
    for stage in stages:
        for name in stage.requires:
            if name not in known:
                raise EmopipeError(
                    "EMO-503", f"stage {stage.name!r} requires {name!r}, which no stage before it provides"
                )
        known |= set(stage.provides)


def extract(
    source: Source,
    backends: Backends,
    *,
    labelled: bool = False,
    modalities: Collection[str] = MODALITIES,
    hook: Hook = silent,
) -> Extraction:
    """Turn a source into utterances with features, relative to each person's baseline where that is configured.

    A labelled source is one utterance, which alone tells nothing of what is normal: whoever has all the utterances of
    a person takes them relative to a baseline.

    Args:
        source: what to read.
        backends: the configured extractors.
        labelled: take the whole source as one utterance instead of cutting it.
        modalities: which to extract; the others are absent as "not_requested".
        hook: told of progress.

    Raises:
        EmopipeError: EMO-101 to EMO-105 when a file of the source cannot be used at all, EMO-901 when a stage breaks.
    """
    extraction = measure(source, backends, labelled=labelled, modalities=modalities, hook=hook)
    if labelled or backends.config.people.baseline == "none":
        return extraction
    return relative(extraction, backends)


def measure(
    source: Source,
    backends: Backends,
    *,
    labelled: bool = False,
    modalities: Collection[str] = MODALITIES,
    hook: Hook = silent,
) -> Extraction:
    """Turn a source into utterances with features as they are measured; arguments as for :func:`extract`."""
    with _opened(source.media) as media, _opened(source.audio) as audio:
        sound_media = audio or (media if media is not None and media.info.has_audio else None)
        values: dict[str, Any] = {
            "source": source,
            "media": media,
            "sound_media": sound_media,
            "wanted": frozenset(modalities),
            "labelled": labelled,
        }
        for stage in STAGES:
            values["duration"] = _duration(values)
            with timed(hook, stage.name), _guarded(stage.name, source):
                values |= stage.run(values, backends, hook)
        return _assembled(values, backends)


@contextmanager
def _guarded(stage: str, source: Source) -> Iterator[None]:
    """Whatever breaks inside a stage becomes a coded error of that source, so that a batch goes on."""
    try:
        yield
    except EmopipeError:
        raise
    except Exception as error:
        what = f"stage {stage} broke: {type(error).__name__}: {error}"
        raise EmopipeError("EMO-901", what, path=source.path, hint="Repeat with --debug to see where") from error


def _opened(path: Any) -> Any:
    return nullcontext(None) if path is None else Media(path)


def _duration(values: Values) -> float:
    return max((m.duration for m in (values["media"], values["sound_media"]) if m is not None), default=0.0)


def _inside(segments: Sequence[tuple[float, float]], start: float, end: float) -> list[tuple[float, float]]:
    """The parts of the segments within [start, end]."""
    clipped = [(max(low, start), min(high, end)) for low, high in segments]
    return [(low, high) for low, high in clipped if high > low]


def _assembled(values: Values, backends: Backends) -> Extraction:
    from emopipe.extractors.speech.diarize import overlap_share

    source, people = values["source"], values["people"]
    utterances = []
    for index, span in enumerate(values["spans"]):
        found = {modality: values[modality][index] for modality in MODALITIES}
        present = {modality: value for modality, value in found.items() if not isinstance(value, Absent)}
        absent = {modality: value.reason for modality, value in found.items() if isinstance(value, Absent)}
        person = named(span, people)
        measured = {"face": values["face_quality"][index], "text": _word_confidence(span), "voice": 1.0}
        utterances.append(
            Utterance(
                source=source.id,
                start=span.start,
                end=span.end,
                text=span.text,
                language=values["language"],
                speaker=person.name if person else source.speaker,
                role=person.role if person else None,
                overlap=overlap_share(values["turns"], span.start, span.end),
                features=present,
                absent=absent,
                quality={modality: measured[modality] for modality in present},
            )
        )
    info = {**_info(values), "unverified_weights": backends.unverified()}
    facts = (_duration(values), _warnings(values), info)
    return Extraction(source, utterances, *facts, tuple(people), tuple(values["turns"]))


def _word_confidence(span: Any) -> float:
    """Mean probability of the recognised words; 1 for words that were given."""
    return float(np.mean([word.probability for word in span.words])) if span.words else 1.0


def _warnings(values: Values) -> list[str]:
    opened = [m for m in (values["media"], values["sound_media"]) if m is not None]
    errors = {f"decoding: {error}" for media in opened for error in media.decode_errors}
    table = values["face_table"]
    note = None if isinstance(table, Absent) else table.schema.metadata.get(b"note")
    notes = [f"face: {note.decode()}"] if note else []
    return notes + sorted(errors) + list(values["text_warnings"]) + list(values["people_warnings"])


def _info(values: Values) -> dict[str, Any]:
    media = values["media"]
    info: dict[str, Any] = {"language": values["language"]}
    if media is not None:
        info |= {"width": media.info.width, "height": media.info.height, "frame_rate": media.info.frame_rate}
    return info
