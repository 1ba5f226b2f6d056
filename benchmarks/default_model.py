"""Make `emopipe-default` from public corpora, and measure its recipe on corpora that are left out of training.

    python benchmarks/default_model.py --data DATA --work WORK --crops CROPS [--seeds 3] [STEP ...]

DATA holds the archives and tables of the corpora; CROPS is the folder in which `expression_encoder.py` worked; WORK
keeps what lies between. The steps are voices, faces, words, clips, measure, people, train and card. On two cores they
take 4 minutes, 1, 2, 4, 15, 9 (of one seed), 3 and less than 1. WORK/answers keeps what is said of left-out corpora and
people, so that a call that was interrupted goes on: remove it when the recipe or the features change. The models that
say it are kept beside it, in WORK/without_corpora and WORK/without_person. `people` and `card` calibrate by what
`measure` found.

Faces, voices and sentences are single; of Java-SED a face and a voice belong together. The fused head also learns from
*label-matched triples* of different people, which are artificial, and in half of which the words do not go with the
rest: in life most sentences say nothing about emotion.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import av
import expression_encoder
import generalisation
import numpy as np
import pyarrow as pa
import torch
import words_encoder
from jinja2 import Environment, FileSystemLoader
from scipy import signal
from scipy.special import log_softmax, softmax
from sklearn.metrics import f1_score

from emopipe.constants import EXPRESSION_ENCODER, MODALITIES, SAMPLE_RATE
from emopipe.extractors.face.expression import ExpressionEncoder, network_input
from emopipe.extractors.face.table import EMOTIONS, EXPRESSION
from emopipe.extractors.speech.campplus import load_campplus
from emopipe.extractors.speech.vad import VoiceActivity
from emopipe.extractors.speech.whisper import load_whisper
from emopipe.extractors.voice.features import SHORTEST, VoiceExtractor, column_names
from emopipe.models import checkpoint
from emopipe.models.data import reading
from emopipe.models.data.dataset import Dataset, FeatureStore
from emopipe.models.metrics import expected_calibration_error
from emopipe.models.networks.ensemble import Ensemble
from emopipe.models.predictor import Predictor
from emopipe.models.sealed import CONFIDENCES, read_sealed
from emopipe.models.training.calibration import fit_product
from emopipe.models.training.config import TrainConfig, read_configuration
from emopipe.models.training.loop import train as fit
from emopipe.pipeline.backends.loading import libraries
from emopipe.pipeline.config import ExtractionConfig
from emopipe.pipeline.weights import resolve

CONFIG: Final = Path(__file__).with_suffix(".toml")
SHIPPED: Final = Path(__file__).parent.parent / "models" / "checkpoints" / "emopipe-default"
CLASSES: Final = expression_encoder.CLASSES
VOICES: Final = ("ravdess_speech", "emodb", "urdu", "javased")
#: Speakers who validate and never train.
HELD_OUT: Final = frozenset({"ravdess_19", "ravdess_20", "emodb_16", "urdu_SM1", "urdu_SF1"})
#: Changed copies of each sound; of RAVDESS, which is large, every second take is used.
COPIES: Final = 1
#: Training pictures and sentences of a class of a corpus, at most; of SFEW and Java-SED all.
MOST_FACES: Final = 700
MOST_WORDS: Final = 1500
#: Changed forms of each picture, and the most steps of a sequence that is made of them.
FORMS: Final = 2
STEPS: Final = 6
#: Noise of the landmarks' columns in changed forms, in standard deviations.
JITTER: Final = 0.3
#: How often an epoch reads the clips of Java-SED, the only corpus of faces that talk.
TALKING: Final = 8
#: Networks whose mean answer counts, each trained by itself from its own seed.
MEMBERS: Final = 3
#: Triples of a class; the share in which face or voice is replaced by that of another emotion.
TRIPLES: Final = 900
REPLACED: Final = 0.25
#: What the face is called where it is read relative to the speaker alone.
RELATIVE_FACE: Final = "face, relative alone"
#: What modalities are called of clips whose speaker is not told.
UNKNOWN: Final = ", unknown speaker"
#: Shares of the answers that are kept in the card's table of risk and coverage.
COVERAGES: Final = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
COLUMNS: Final = (*expression_encoder.SHAPES, *EMOTIONS, *EXPRESSION)
#: Of Whisper base, whose encoder has 6 layers of 512 channels, and the speaker encoder.
VOICE_COLUMNS: Final = tuple(column_names(6, 512, speakers=True))
Row = dict[str, Any]
Sequences = dict[str, np.ndarray]


@dataclass
class Part:
    """Rows of a corpus (a manifest's columns) and the feature sequences that they name, by modality and key."""

    rows: list[Row]
    features: dict[str, Sequences]


def voices(data: Path, work: Path) -> None:
    """Voice features of every take and of its changed copies, from the first to the last moment of speech."""
    whisper, speakers = load_whisper(resolve("whisper-base"), "cpu"), load_campplus(resolve("campplus"), "cpu")
    extractor = VoiceExtractor(whisper, speakers)
    detector = VoiceActivity(resolve("silero-vad"), 0.5)
    silence = np.zeros((0, len(extractor.feature_names())), np.float32)
    for name in VOICES:
        if (work / f"voice-{name}.npz").exists():
            continue
        rows, sequences = [], []
        with zipfile.ZipFile(data / f"{name}.zip") as archive:
            for number, row in enumerate(expression_encoder.read_table(data / f"{name}.csv")):
                if not row["emotion"] or (name == "ravdess_speech" and number % 2):
                    continue
                samples, rng = _sound(archive, row["file"]), np.random.default_rng(number)
                for copy_number in range(1 + COPIES):
                    heard = changed_sound(samples, rng) if copy_number else samples
                    spoken = _speech(heard, detector)
                    sequences.append(
                        silence if spoken is None else extractor.measure(spoken, start=0, window=1).features
                    )
                    rows.append((row["file"], row["speaker"], row["emotion"], copy_number))
        lengths = [len(one) for one in sequences]
        np.savez(work / f"voice-{name}.npz", steps=np.concatenate(sequences), lengths=lengths, keys=np.array(rows))


def _speech(samples: np.ndarray, detector: VoiceActivity) -> np.ndarray | None:
    """The samples from the first to the last moment of speech; None where there is hardly any."""
    segments = detector.segments(samples)
    if not segments or segments[-1][1] - segments[0][0] < SHORTEST:
        return None
    return samples[round(segments[0][0] * SAMPLE_RATE) : round(segments[-1][1] * SAMPLE_RATE)]


def _sound(archive: zipfile.ZipFile, file: str) -> np.ndarray:
    """Samples at 16 kHz, mono."""
    with archive.open(file) as stream, av.open(stream) as container:
        resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray() for frame in frames], 1)[0].astype(np.float32)


def changed_sound(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another speed (and pitch), room, telephone band or tone control, noise and level."""
    count = int(len(samples) / rng.uniform(0.9, 1.1))
    x = np.interp(np.linspace(0, len(samples) - 1, count), np.arange(len(samples)), samples)
    if rng.random() < 0.5:
        length = int(SAMPLE_RATE * rng.uniform(0.1, 0.5))
        room = rng.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length) * 0.3 * rng.random()
        room[0] = 1
        x = signal.fftconvolve(x, room)[:count]
    kind = rng.random()
    if kind < 0.3:
        band = [rng.uniform(150, 350), rng.uniform(3000, 3600)]
        x = signal.sosfilt(signal.butter(4, band, "bandpass", fs=SAMPLE_RATE, output="sos"), x)
    elif kind < 0.5:
        tone = "lowpass" if rng.random() < 0.5 else "highpass"
        edge = rng.uniform(500, 3000)
        x = 0.5 * x + 0.5 * signal.sosfilt(signal.butter(1, edge, tone, fs=SAMPLE_RATE, output="sos"), x)
    noise = rng.standard_normal(count)
    if rng.random() < 0.5:
        noise = signal.lfilter([1], [1, -0.95], noise)
    if rng.random() < 0.7:
        x = x + noise * np.std(x) / np.std(noise) * 10 ** (-rng.uniform(10, 40) / 20)
    x = x * 10 ** (rng.uniform(-12, 6) / 20)
    return np.asarray(x / max(1.0, np.abs(x).max()), np.float32)


def faces(data: Path, work: Path, crops: Path) -> None:
    """Columns of RAF-DB's and FER2013's pictures and of their changed forms."""
    torch.manual_seed(0)
    encoder = ExpressionEncoder()
    for corpus in expression_encoder.CORPORA:
        labels, valid = expression_encoder.targets(data, corpus)
        shapes, images = (np.load(crops / f"{corpus}{end}.npy", mmap_mode="r") for end in ("-shapes", ""))
        rng, rows = np.random.default_rng(0), []
        for one in range(len(CLASSES)):
            pool = np.flatnonzero(~valid & np.isfinite(shapes[:, 0]) & (labels.argmax(1) == one))
            rows.append(rng.permutation(pool)[:MOST_FACES])
        chosen = np.concatenate(rows)
        parts = [_forms(encoder, images[part]) for part in np.array_split(chosen, len(chosen) // 64)]
        np.savez(work / f"face-{corpus}.npz", new=np.concatenate(parts), old=shapes[chosen], labels=labels[chosen])


def _forms(encoder: ExpressionEncoder, images: np.ndarray) -> np.ndarray:
    """The encoder's columns (n, 1 + FORMS, 39) of pictures as they are and changed."""
    plain = encoder.columns(network_input(expression_encoder.inner(images)))
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    forms = [encoder.columns(expression_encoder.changed(pixels.clone(), expression_encoder.SIDE)) for _ in range(FORMS)]
    return torch.stack([plain, *forms], 1).numpy()


def words(data: Path, work: Path) -> None:
    """Token vectors of MELD's lines and of comments from GoEmotions, of each class at most so many.

    They are those that the text encoder read least when it was tuned.
    """
    sentences = words_encoder.read(data, words_encoder.ENGLISH)
    times = dict(zip(sentences.texts, words_encoder.times_read(sentences, words_encoder.ENGLISH), strict=True))
    rows, taken = [], Counter[tuple[str, ...]]()
    lines = [
        (row, f"meld_{row['split']}_{row['dialogue']}") for row in expression_encoder.read_table(data / "meld_text.csv")
    ]
    comments = [(row, row["text"]) for row in expression_encoder.read_table(data / "goemotions.csv")]
    for corpus, table in (("meld", lines), ("goemotions", comments)):
        for row, speaker in sorted(table, key=lambda pair: _least_read(pair[0]["text"], times)):
            pool = (corpus, row["split"], row["emotion"])
            taken[pool] += 1
            if row["emotion"] and (taken[pool] <= MOST_WORDS or row["split"] == "valid"):
                rows.append((row["text"], f"{corpus}/{speaker}", row["emotion"], row["split"], corpus))
    rows.sort(key=lambda row: len(row[0]))
    encoder = words_encoder.text_encoder(words_encoder.extraction(words_encoder.ENGLISH)["text"])
    vectors = []
    for at in range(0, len(rows), 64):
        vectors += encoder.encode([row[0] for row in rows[at : at + 64]])
    lengths = [len(one) for one in vectors]
    steps = np.concatenate(vectors).astype(np.float16)
    np.savez(work / "words.npz", steps=steps, lengths=lengths, keys=np.array(rows))


def _least_read(text: str, times: dict[str, int]) -> tuple[int, bytes]:
    """A place in an order that is random among what was read as often."""
    return times.get(text, 0), hashlib.sha256(text.encode()).digest()


def clips(data: Path, work: Path) -> None:
    """What the face backend sees of Java-SED's clips and SFEW's stills, by `emopipe.extract`."""
    corpora = ["sfew", "javased"]
    (work / "clips").mkdir(exist_ok=True)
    tables = {name: table for name, table in sealed().items() if name in generalisation.TABLES}
    generalisation.extract(data, work / "clips", corpora, ["face", "voice"], tables)


def sealed() -> dict[str, Any]:
    """The extraction tables of the checkpoint: those of the one before, with today's words, voices and faces."""
    extraction, today = read_sealed("emopipe-default").extraction, ExtractionConfig()
    words, voice = words_encoder.extraction(words_encoder.ENGLISH)["text"], today.as_dict()["voice"]
    versions = {**extraction["versions"], **libraries(today, "face")}
    return {**extraction, "text": words, "voice": voice, "versions": versions}


def voice_part(work: Path, corpus: str) -> Part:
    """Takes as they are, with their speakers; changed copies without, so that lone clips are learned, too.

    `person` is who speaks, or of pictures the film that they are from, by which people are held out and intervals made.
    """
    kept = dict(np.load(work / f"voice-{corpus}.npz"))
    ends = np.cumsum(kept["lengths"])
    rows, sequences = [], {}
    for end, length, (file, speaker, emotion, number) in zip(ends, kept["lengths"], kept["keys"], strict=True):
        key = f"{corpus}/{file}~{number}"
        if length:
            sequences[key] = kept["steps"][end - length : end]
        split = "valid" if speaker in HELD_OUT else "train"
        if split == "train" or number == "0":
            named = f"{corpus}/{speaker}" if number == "0" else None
            row = {"id": key, "voice": key if length else None, "label": emotion, "corpus": corpus, "split": split}
            rows.append({**row, "speaker": named, "person": f"{corpus}/{speaker}"})
    return Part(rows, {"voice": sequences})


def face_part(work: Path, corpus: str) -> Part:
    """Pictures as one step, and as sequences of two to STEPS steps in which they change a little."""
    kept = dict(np.load(work / f"face-{corpus}.npz"))
    rng, rows, sequences = np.random.default_rng(1), [], {}
    spread = JITTER * kept["old"].std(0)
    for number, (old, new, label) in enumerate(zip(kept["old"], kept["new"], kept["labels"], strict=True)):
        steps = 1 if number % 2 else int(rng.integers(2, STEPS + 1))
        seen = new[rng.integers(0, len(new), (steps, 2))].mean(1) if steps > 1 else new[rng.integers(0, len(new), 1)]
        noise = spread * rng.standard_normal((steps, len(old))) * (number % 4 > 0)
        key = f"{corpus}/{number}"
        sequences[key] = np.hstack([old + noise, seen]).astype(np.float32)
        rows.append({"id": key, "face": key, "label": CLASSES[label.argmax()], "corpus": corpus, "split": "train"})
    return Part(rows, {"face": sequences})


def clip_part(work: Path, corpus: str) -> Part:
    """Faces of pictures or clips; of Java-SED each with its voice, and with changed copies of it."""
    datasets = map(reading.read, sorted((work / "clips").glob("features-*")))
    dataset = next(one for one in datasets if _is_current(one) and corpus in set(one.column("corpus")))
    chosen = np.flatnonzero(dataset.column("corpus") == corpus)
    store = dataset._stores["face"]
    rows, sequences, heard = [], {}, voice_part(work, corpus) if corpus in VOICES else Part([], {"voice": {}})
    for row in dataset.subset(chosen).manifest.to_pylist():
        name = {"label": row["emotion"], "corpus": corpus, "split": "train", "person": row["speaker"]}
        if row["face"] is not None:
            sequences[row["face"]] = store.sequence(store.index[row["face"]])
        for number in range(1 + COPIES if corpus in VOICES else 1):
            key = f"{row['id']}~{number}"
            there = key in heard.features["voice"]
            speaker = row["speaker"] if number == 0 and corpus in VOICES else None
            parts = {"face": row["face"], "voice": key if there else None}
            rows.append({**name, "id": f"{key}~clip", "speaker": speaker, **parts})
    used = {row["id"].removesuffix("~clip") for row in rows}
    rest = [row for row in heard.rows if row["id"] not in used]
    return Part([*rows, *rest], {"face": sequences, **heard.features})


def _is_current(dataset: Dataset) -> bool:
    """Whether today's columns and expression encoder measured its faces."""
    encoder = libraries(ExtractionConfig(), "face")[EXPRESSION_ENCODER]
    return dataset.schema["face"] == COLUMNS and dataset.extraction["versions"].get(EXPRESSION_ENCODER) == encoder


def word_part(work: Path, corpus: str) -> Part:
    """Sentences of a corpus."""
    kept = dict(np.load(work / "words.npz"))
    ends, rows, sequences = np.cumsum(kept["lengths"]), [], {}
    held_out = {row[1] for row in kept["keys"] if row[3] == "valid"}
    for number, (text, speaker, emotion, split, name) in enumerate(kept["keys"]):
        if name == corpus and (split == "valid" or speaker not in held_out):
            key = f"{corpus}/{number}"
            sequences[key] = kept["steps"][ends[number] - kept["lengths"][number] : ends[number]].astype(np.float32)
            row = {"id": key, "text": key, "words": text, "speaker": speaker, "label": emotion}
            rows.append({**row, "split": split, "corpus": corpus})
    return Part(rows, {"text": sequences})


def combine(parts: Iterable[Part], schema: dict[str, tuple[str, ...]], extraction: dict[str, Any]) -> Dataset:
    """A dataset of these parts in memory."""
    parts, stores = list(parts), {}
    rows = [row for part in parts for row in part.rows]
    for modality in MODALITIES:
        sequences = {key: one for part in parts for key, one in part.features.get(modality, {}).items()}
        if sequences:
            stores[modality] = _store(modality, schema[modality], sequences)
    columns = ("id", "speaker", "person", "label", "corpus", "split", "words", *MODALITIES)
    table = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in columns}
    digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
    return Dataset(pa.table(table), stores, extraction, digest)


def _store(modality: str, names: tuple[str, ...], sequences: Sequences) -> FeatureStore:
    lengths = np.array([len(one) for one in sequences.values()])
    values = list(sequences.values())
    return FeatureStore(Path(modality), modality, names, list(sequences), lengths, lambda: np.concatenate(values))


def triples(parts: list[Part], modalities: tuple[str, ...]) -> Iterator[Row]:
    """Rows that join a face, a voice and a sentence, as far as there are; see the head of this file."""
    rng = np.random.default_rng(0)
    rows = [row for part in parts for row in part.rows if row["split"] == "train"]
    pools: dict[str, dict[str, list[Row]]] = {m: {} for m in MODALITIES}
    for row in rows:
        for modality in MODALITIES:
            if row.get(modality):
                pools[modality].setdefault(row["label"], []).append(row)
    shared = [one for one in CLASSES if all(one in pools[m] for m in MODALITIES if pools[m])]
    for label in shared:
        for number in range(TRIPLES):
            shown = {m: label for m in MODALITIES if pools[m]}
            if rng.random() < REPLACED:
                shown[str(rng.choice(["face", "voice"]))] = str(rng.choice([*shared, "neutral"]))
            if "text" in shown and rng.random() < 0.5:
                shown["text"] = "neutral" if rng.random() < 0.7 else str(rng.choice(shared))
            chosen = {m: _any_corpus(pools[m][one], rng) for m, one in shown.items()}
            row = {"id": f"triple/{label}/{number}", "label": label, "corpus": "triples", "split": "train"}
            yield {**row, **{m: one[m] for m, one in chosen.items()}, "words": chosen.get("text", {}).get("words")}


def _any_corpus(rows: list[Row], rng: np.random.Generator) -> Row:
    """A row of any corpus, each as often, so that a large one does not stand for all."""
    corpora = sorted({row["corpus"] for row in rows})
    corpus = rng.choice(corpora)
    pool = [row for row in rows if row["corpus"] == corpus]
    return pool[rng.integers(len(pool))]


READERS: Final[dict[str, tuple[str, Callable[[Path, str], Part]]]] = {
    **{name: ("face", face_part) for name in expression_encoder.CORPORA},
    "sfew": ("face", clip_part),
    **{name: ("voice", voice_part) for name in VOICES[:3]},
    "javased": ("face+voice", clip_part),
    "meld": ("text", word_part),
    "goemotions": ("text", word_part),
}
#: What is left out together, the modalities that are trained, and what is measured of which corpus.
LEFT_OUT: Final[tuple[tuple[tuple[str, ...], tuple[str, ...], tuple[tuple[str, str], ...]], ...]] = (
    *(((name,), ("voice",), ((name, "voice"),)) for name in VOICES[:3]),
    (
        ("javased", "sfew"),
        ("face", "voice"),
        (("sfew", "face"), ("javased", "face"), ("javased", "voice"), ("javased", "face+voice")),
    ),
)


def load(
    work: Path, without: Iterable[str] = (), modalities: tuple[str, ...] = MODALITIES, person: str = ""
) -> Dataset:
    """A dataset of all corpora but some, and of all people but one, with triples where there are several modalities."""
    used = {
        name: one for name, one in READERS.items() if name not in without and set(one[0].split("+")) & set(modalities)
    }
    alone = modalities == ("voice",)
    parts = [(voice_part if alone else read)(work, name) for name, (_, read) in used.items()]
    parts = [Part([row for row in part.rows if row.get("person", "-") != person], part.features) for part in parts]
    return _dataset(complete(parts, modalities)).select([name for name in MODALITIES if name in modalities])


def complete(parts: list[Part], modalities: tuple[str, ...]) -> list[Part]:
    """These parts, triples of them where there are several modalities, and the clips that are read again."""
    made = list(triples(parts, modalities)) if len(modalities) > 1 else []
    return [*parts, Part(made, {}), Part(list(_again(parts)), {})]


def _again(parts: Iterable[Part]) -> Iterator[Row]:
    """The clips of Java-SED as often as they are read again, each time as those of other speakers."""
    for part in parts:
        for row in part.rows:
            for number in range(1, TALKING) if row["corpus"] == "javased" else ():
                speaker = row["speaker"] and f"{row['speaker']}~{number}"
                yield {**row, "id": f"{row['id']}~{number}", "speaker": speaker}


def measured(work: Path, corpus: str) -> Dataset:
    """The rows of a corpus that are measured: pictures and recordings as they are, with their speakers."""
    part = READERS[corpus][1](work, corpus)
    end = "~0~clip" if READERS[corpus][1] is clip_part else "~0"
    rows = [row for row in part.rows if row["id"].endswith(end)]
    return _dataset([Part(rows, part.features)])


def _dataset(parts: list[Part]) -> Dataset:
    schema = {**read_sealed("emopipe-default").schema, "face": COLUMNS, "voice": VOICE_COLUMNS}
    return combine(parts, schema, sealed())


def fit_members(dataset: Dataset, seed: int) -> Predictor:
    """Train the networks one after the other on all rows, and join them."""
    config = read_configuration(CONFIG)
    trained = [fit(dataset, member(config, MEMBERS * seed + number, number)).predictor for number in range(MEMBERS)]
    spec = trained[0].spec
    module = Ensemble([one.module for one in trained])
    return Predictor(replace(spec, options={**spec.options, "members": MEMBERS}), module, trained[0].device)


def member(config: TrainConfig, seed: int, number: int) -> TrainConfig:
    """How the network in that place is trained: alone, so its view is the first."""
    views = {name: [*each[number:], *each[:number]] for name, each in config.options["views"].items()}
    return replace(config, seed=seed, options={**config.options, "views": views})


Answers = dict[str, np.ndarray]


def answers(predictor: Predictor, dataset: Dataset, corpus: str, names: str, seed: int) -> Answers:
    """What a model says of a corpus by some modalities.

    Returns:
        Columns: logits (n, C) before calibration, truth, whether there was anything to read, speaker, corpus, the names
        of the modalities, seed, and a weight by which all measurements count the same.
    """
    scores = predictor.scores(dataset, None, names.split("+"))
    people = dataset.column("person")
    said = {
        "logits": scores.logits,
        "truth": np.array([CLASSES.index(label) for label in dataset.column("label")]),
        "seen": scores.present.any(1),
        "speakers": np.array([name or key for name, key in zip(people, dataset.ids, strict=True)]),
    }
    named = {"corpus": corpus, "names": names, "seed": seed, "weights": 1 / len(dataset)}
    return said | {name: np.full(len(dataset), value) for name, value in named.items()}


def _joined(parts: list[Answers]) -> Answers:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _kept(path: Path, make: Callable[[], list[Answers]]) -> Answers:
    """Answers of one training, which is not made again."""
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        np.savez(path, **_joined(make()))
    return dict(np.load(path))


def left_out_answers(work: Path, group: int, seed: int) -> Answers:
    """Train without the corpora of a row of LEFT_OUT, and ask about these."""
    left_out, modalities, tests = LEFT_OUT[group]

    def make() -> list[Answers]:
        predictor = fit_members(load(work, left_out, modalities), seed)
        checkpoint.save(without_corpora(work, left_out, seed), predictor, "")
        return [answers(predictor, measured(work, corpus), corpus, names, seed) for corpus, names in tests]

    return _kept(work / "answers" / f"without-{'-'.join(left_out)}-{seed}.npz", make)


def person_answers(work: Path, person: str, seed: int) -> Answers:
    """Train without one speaker of Java-SED, whose corpus otherwise trains, and ask about this speaker's clips."""

    def make() -> list[Answers]:
        predictor, clips = fit_members(load(work, (), ("face", "voice"), person), seed), measured(work, "javased")
        checkpoint.save(without_person(work, person, seed), predictor, "")
        dataset = clips.subset(np.flatnonzero(clips.speakers == person))
        asked = ("face", "voice", "face+voice")
        found = [answers(predictor, dataset, "javased", names, seed) for names in asked]
        lone = [answers(predictor, without_speakers(dataset), "javased", names, seed) for names in asked]
        relative = answers(relative_alone(predictor), dataset, "javased", "face", seed)
        renamed = [_renamed(one, one["names"][0] + UNKNOWN) for one in lone]
        return [*found, *renamed, _renamed(relative, RELATIVE_FACE)]

    return _kept(work / "answers" / f"without-{person.replace('/', '-')}-{seed}.npz", make)


def without_corpora(work: Path, corpora: Iterable[str], seed: int) -> Path:
    """Where the model is kept that did not see some corpora."""
    return work / "without_corpora" / f"{'-'.join(corpora)}-{seed}"


def without_person(work: Path, person: str, seed: int) -> Path:
    """Where the model is kept that did not see a speaker of Java-SED."""
    return work / "without_person" / f"{person.replace('/', '-')}-{seed}"


def without_speakers(dataset: Dataset) -> Dataset:
    """The same rows, of which nobody says who speaks: each is read as a lone clip."""
    table = dataset.manifest
    nobody = pa.nulls(len(dataset), pa.string())
    table = table.set_column(table.schema.get_field_index("speaker"), "speaker", nobody)
    return Dataset(table, dataset._stores, dataset.extraction, dataset.hash)


def _renamed(said: Answers, name: str) -> Answers:
    return said | {"names": np.full(len(said["names"]), name)}


def relative_alone(predictor: Predictor) -> Predictor:
    """A model that answers relative to the speaker alone, however little the speaker varies."""
    module = copy.deepcopy(predictor.module)
    assert isinstance(module, Ensemble)
    for network in module:
        network.config = replace(network.config, relative_share=1.0)
    return Predictor(predictor.spec, module)


def measure(work: Path, seeds: int, jobs: int) -> None:
    """Train with corpora left out and ask about them; keeps the answers, to calibrate by."""
    tasks = [(work, group, seed) for group in reversed(range(len(LEFT_OUT))) for seed in range(seeds)]
    unseen = _all(left_out_answers, tasks, jobs)
    np.savez(work / "unseen.npz", **unseen)
    for (corpus, names), rows in figures(with_others_temperatures(unseen, unseen)).items():
        print(corpus, names, *(f"{name} {_mean(rows, name)}" for name in ("accuracy", "uar", "own")))


def people(work: Path, seeds: int, jobs: int) -> None:
    """The same of one speaker of Java-SED at a time; intervals, over speakers, are those among its own classes."""
    speakers = sorted(set(measured(work, "javased").speakers))
    raw = _all(person_answers, [(work, person, seed) for seed in range(seeds) for person in speakers], jobs)
    np.savez(work / "people.npz", **raw)
    said = of_people(work)
    for (_, names), rows in figures(said).items():
        low, high = (np.mean([row[bound] for row in rows]) for bound in ("low", "high"))
        print(names, "uar", _mean(rows, "uar"), "own", _mean(rows, "own"), f"[{low:.3f}, {high:.3f}]")
    print("face+voice less voice: {:.3f} [{:.3f}, {:.3f}]".format(*gain(said, "face+voice", "voice")))


def of_people(work: Path) -> Answers:
    """The answers that `people` kept, calibrated; those to the face relative to the speaker alone are as they are."""
    raw, unseen = dict(np.load(work / "people.npz")), dict(np.load(work / "unseen.npz"))
    relative, lone = raw["names"] == RELATIVE_FACE, np.char.endswith(raw["names"], UNKNOWN)
    known, alone = _chosen(raw, ~relative & ~lone), _chosen(raw, lone)
    plain = alone | {"names": np.char.replace(alone["names"], UNKNOWN, "")}
    calibrated_alone = with_others_temperatures(plain, unseen) | {"names": alone["names"]}
    return _joined([with_others_temperatures(known, unseen), calibrated_alone, _chosen(raw, relative)])


def gain(said: Answers, better: str, worse: str) -> tuple[float, float, float]:
    """How much higher the UAR by some modalities is than by others, and its 95 % bootstrap interval over speakers."""
    rows = [said["names"] == names for names in (better, worse)]
    truth, speakers = said["truth"][rows[0]], said["speakers"][rows[0]]
    right = [(said["logits"][row].argmax(1) == truth).astype(float) for row in rows]
    return generalisation.uar(truth, right[0] - right[1]), *generalisation.interval(
        truth.astype(str), right[0] - right[1], speakers
    )


def _all(ask: Callable[..., Answers], tasks: list[tuple[Any, ...]], jobs: int) -> Answers:
    with ProcessPoolExecutor(jobs, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return _joined(list(pool.map(ask, *zip(*tasks, strict=True))))


def figures(said: Answers) -> dict[tuple[str, str], list[dict[str, float]]]:
    """Accuracy, UAR, and UAR among the own classes with its interval, by corpus and modalities, of each seed."""
    found = {}
    for corpus, names in _asked(said):
        rows = (said["corpus"] == corpus) & (said["names"] == names)
        parts = [rows & (said["seed"] == seed) for seed in np.unique(said["seed"][rows])]
        found[corpus, names] = [_figures(_chosen(said, part)) for part in parts]
    return found


def _asked(said: Answers) -> list[tuple[str, str]]:
    """Corpora and modalities."""
    return sorted(set(zip(said["corpus"].tolist(), said["names"].tolist(), strict=True)))


def _chosen(said: Answers, rows: np.ndarray) -> Answers:
    return {name: column[rows] for name, column in said.items()}


def _figures(said: Answers) -> dict[str, float]:
    truth, logits, own = said["truth"], said["logits"], np.unique(said["truth"])
    right = (logits.argmax(1) == truth) & said["seen"]
    among = (own[logits[:, own].argmax(1)] == truth) & said["seen"]
    low, high = generalisation.interval(truth.astype(str), among, said["speakers"])
    shares = {
        "accuracy": float(right.mean()),
        "uar": generalisation.uar(truth, right),
        "own": generalisation.uar(truth, among),
    }
    return {"n": len(truth), **shares, "low": low, "high": high}


def train(work: Path, seed: int = 0) -> None:
    """Train on all corpora."""
    checkpoint.save(work / "model", fit_members(load(work), seed), "")


def calibrated(predictor: Predictor, unseen: Answers) -> Predictor:
    """The model with probabilities as sure as the answers on left-out corpora deserve; each corpus counts the same."""
    temperature = temperatures(unseen)
    confidence = confidences(with_temperatures(unseen, temperature))
    order = np.argsort(confidence)
    shares = unseen["weights"][order].cumsum() / unseen["weights"].sum()
    quantiles = np.interp(np.linspace(0, 1, 101), shares, confidence[order]).round(4).tolist()
    spec = predictor.spec
    spec = replace(spec, temperature=temperature, training={**spec.training, CONFIDENCES: quantiles})
    return Predictor(spec, predictor.module)


def temperatures(unseen: Answers) -> dict[str, float | dict[str, float]]:
    """Of each presence pattern that was measured, and of the same with words; of all together for the others.

    Face and voice have one each: they answer by the product of what each says alone. With words, the fused head does.
    """
    patterns = [str(names) for names in np.unique(unseen["names"])]
    heads = {names: _temperature(unseen, unseen["names"] == names) for names in patterns}
    products = {names: fitted_to(unseen, names, unseen["names"] == names) for names in patterns if "+" in names}
    with_words = {f"text+{names}": value for names, value in heads.items()}
    return {"": _temperature(unseen, np.full(len(unseen["truth"]), True)), **heads, **products, **with_words}


def _temperature(said: Answers, rows: np.ndarray) -> float:
    return fit_product({"": said["logits"][rows]}, said["truth"][rows], said["weights"][rows])[""]


def fitted_to(said: Answers, names: str, rows: np.ndarray) -> float | dict[str, float]:
    """The temperature that some answers by the same modalities choose; of several modalities one for each."""
    if "+" not in names:
        return _temperature(said, rows)
    return fit_product(each_alone(said, names, rows), said["truth"][rows], said["weights"][rows])


def each_alone(said: Answers, names: str, rows: np.ndarray) -> dict[str, np.ndarray]:
    """What each of several modalities says alone (n, C) of clips of which all of them were asked, too."""
    corpora = np.isin(said["corpus"], np.unique(said["corpus"][said["names"] == names]))
    place = rows[corpora & (said["names"] == names)]
    return {one: said["logits"][corpora & (said["names"] == one)][place] for one in names.split("+")}


def answered(said: Answers, names: str, rows: np.ndarray, temperature: float | dict[str, float]) -> np.ndarray:
    """Calibrated logits (n, C) of some answers by the same modalities."""
    if not isinstance(temperature, dict):
        return np.asarray(said["logits"][rows] / temperature)
    parts = each_alone(said, names, rows)
    return np.asarray(sum(log_softmax(parts[one], 1) / temperature[one] for one in parts))


def with_others_temperatures(said: Answers, unseen: Answers) -> Answers:
    """Some answers with calibrated logits, at temperatures that answers to other corpora or speakers choose.

    The temperatures are those of other corpora, of the same modalities; where no other has these, of other speakers.

    Args:
        said: the answers.
        unseen: answers on corpora that were left out, by which a model is calibrated; may be the same.
    """
    logits = np.zeros(said["logits"].shape)
    for corpus, names in _asked(said):
        rows = (said["names"] == names) & (said["corpus"] == corpus)
        alike = unseen["names"] == names
        apart = "corpus" if (alike & (unseen["corpus"] != corpus)).any() else "speakers"
        for group in np.unique(said[apart][rows]):
            part = rows & (said[apart] == group)
            chosen = fitted_to(unseen, names, alike & (unseen[apart] != group))
            logits[part] = answered(said, names, part, chosen)
    return said | {"logits": logits}


def with_temperatures(said: Answers, temperature: dict[str, float | dict[str, float]]) -> Answers:
    """These answers with calibrated logits."""
    logits = np.zeros(said["logits"].shape)
    for names in map(str, np.unique(said["names"])):
        rows = said["names"] == names
        logits[rows] = answered(said, names, rows, temperature[names])
    return said | {"logits": logits}


def confidences(said: Answers) -> np.ndarray:
    """How sure each calibrated answer is (n,)."""
    return np.asarray(softmax(said["logits"], 1).max(1))


def surety(unseen: Answers) -> Iterator[tuple[str, str, float, float, float]]:
    """How well confidence tells what is right on each left-out corpus, at temperatures that it did not choose.

    Yields:
        Corpus, modalities, expected calibration error, share of wrong answers, and that without the fifth of least
        confidence.
    """
    said = with_others_temperatures(unseen, unseen)
    right, confidence = said["logits"].argmax(1) == said["truth"], confidences(said)
    for corpus, names in _asked(said):
        rows = (said["corpus"] == corpus) & (said["names"] == names)
        sure = rows & (confidence > np.quantile(confidence[rows], 0.2))
        error = expected_calibration_error(confidence[rows], right[rows])
        yield corpus, names, error, 1 - right[rows].mean(), 1 - right[sure].mean()


def held_out(work: Path, model: str) -> dict[str, dict[str, float]]:
    """Figures of a checkpoint on rows of the training corpora that validate: speakers, scenes and comments."""
    told, predictor = {}, checkpoint.load(model)
    for corpus in (*VOICES[:3], "meld", "goemotions"):
        kind, read = READERS[corpus]
        part = read(work, corpus)
        rows = [row for row in part.rows if row["split"] == "valid"]
        sequences = read_by(predictor, rows) if kind == "text" else heard_by(predictor, part.features[kind])
        dataset = combine([Part(rows, {kind: sequences})], predictor.spec.schema, dict(predictor.spec.extraction))
        scores = predictor.scores(dataset, None, (kind,))
        truth = dataset.column("label").astype(str)
        answers = np.array(predictor.spec.classes)[scores.logits.argmax(1)]
        right = (answers == truth) & scores.present.any(1)
        weighted = float(f1_score(truth, answers, average="weighted"))
        told[corpus] = {"n": len(truth), "uar": generalisation.uar(truth, right), "weighted_f1": weighted}
    return told


def read_by(predictor: Predictor, rows: list[Row]) -> Sequences:
    """Token vectors of sentences as the text encoder of a checkpoint reads them."""
    ordered = sorted(rows, key=lambda row: len(row["words"]))
    encoder = words_encoder.text_encoder(predictor.spec.extraction["text"])
    vectors = encoder.encode([row["words"] for row in ordered])
    return {row["text"]: one for row, one in zip(ordered, vectors, strict=True)}


def heard_by(predictor: Predictor, voices: Sequences) -> Sequences:
    """Voices by the features that a checkpoint reads of them."""
    columns = [VOICE_COLUMNS.index(name) for name in predictor.spec.schema["voice"]]
    return {key: one[:, columns] for key, one in voices.items()}


def risks(said: Answers) -> list[tuple[float, float, float]]:
    """Of calibrated answers on corpora, each of which counts the same: share kept, least confidence, errors."""
    confidence, weights = confidences(said), said["weights"]
    wrong = said["logits"].argmax(1) != said["truth"]
    order = np.argsort(-confidence)
    kept = weights[order].cumsum() / weights.sum()
    rows = []
    for share in COVERAGES:
        chosen = order[: int(np.searchsorted(kept, share - 1e-9)) + 1]
        rows.append((share, float(confidence[chosen[-1]]), float(np.average(wrong[chosen], weights=weights[chosen]))))
    return rows


def card(work: Path) -> None:
    """Ship the model with its card."""
    environment = Environment(loader=FileSystemLoader(CONFIG.parent), keep_trailing_newline=True)
    table = (work / "generalisation.md").read_text("utf-8") if (work / "generalisation.md").exists() else ""
    unseen = dict(np.load(work / "unseen.npz"))
    facts = {
        "config": CONFIG.read_text(),
        "table": table,
        "left_out": figures(with_others_temperatures(unseen, unseen)),
        "mean": _mean,
    }
    model = calibrated(checkpoint.load(work / "model"), unseen)
    facts |= {
        "most_faces": MOST_FACES,
        "most_words": MOST_WORDS,
        "risks": risks(with_temperatures(unseen, dict(model.spec.temperature))),
        "surety": list(surety(unseen)),
    }
    if (work / "people.npz").exists():
        said = of_people(work)
        facts |= {"people": figures(said), "gain": gain(said, "face+voice", "voice")}
    facts["held_out"] = {name: held_out(work, name) for name in ("emopipe-default-1", str(work / "model"))}
    text = environment.get_template("default_model.card.md").render(facts)
    checkpoint.save(SHIPPED, model, text)


def _mean(rows: list[dict[str, float]], name: str) -> str:
    return mean_and_spread([row[name] for row in rows])


def mean_and_spread(values: list[float]) -> str:
    """The mean, with the standard deviation of several values."""
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--crops", type=Path, required=True, help="the WORK of expression_encoder.py")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, in measure and people")
    parser.add_argument("steps", nargs="*", metavar="STEP")
    options = parser.parse_args()
    data, work = options.data, options.work
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    steps: dict[str, Callable[[], None]] = {
        "voices": lambda: voices(data, work),
        "faces": lambda: faces(data, work, options.crops),
        "words": lambda: words(data, work),
        "clips": lambda: clips(data, work),
        "measure": lambda: measure(work, options.seeds, options.jobs),
        "people": lambda: people(work, options.seeds, options.jobs),
        "train": lambda: train(work),
        "card": lambda: card(work),
    }
    for name in options.steps or steps:
        steps[name]()


if __name__ == "__main__":
    main()
