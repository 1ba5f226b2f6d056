"""Make `emopipe-multilingual`: the recipe of `emopipe-default`, with words read in English and Chinese.

    python benchmarks/multilingual_model.py --data DATA --work WORK --words WORDS [STEP ...]

DATA holds the archives and tables of the corpora; WORK is the folder in which `default_model.py` has worked; WORDS
keeps sentences' vectors and the model. The steps are words, train and card.

Faces and voices are those of `emopipe-default`, and so are its figures on corpora that were left out, which have no
words. Sentences are of four corpora, as `multilingual-e5-emotion` reads them: those that it was tuned on least.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
import words_encoder
from default_model import CLASSES, READERS, Part, combine, complete, fit_members, read_by, sealed
from jinja2 import Environment, FileSystemLoader

from emopipe.constants import MODALITIES
from emopipe.models import checkpoint, metrics
from emopipe.models.data.dataset import Dataset
from emopipe.models.predictor import Predictor
from emopipe.models.sealed import CONFIDENCES, find, read_sealed

SHIPPED: Final = Path(__file__).parent.parent / "models" / "checkpoints" / "emopipe-multilingual"
CORPORA: Final = ("meld", "goemotions", "cped", "smp2020")
#: Training sentences of a class of a corpus, at most.
MOST_WORDS: Final = 800
#: Checkpoints whose reading of words is measured beside this one.
BESIDE: Final = ("emopipe-default-1", "emopipe-default")


def words(data: Path, folder: Path) -> None:
    """Token vectors of at most so many sentences of each class of a corpus: those that the encoder read least."""
    sentences = words_encoder.read(data)
    times, order = words_encoder.times_read(sentences), np.random.default_rng(0).permutation(len(sentences.texts))
    rows, taken = [], Counter[tuple[str, ...]]()
    for row in sentences_of(sentences, order[np.argsort(times[order], kind="stable")], valid=False):
        taken[row[1:]] += 1
        if taken[row[1:]] <= MOST_WORDS:
            rows.append(row)
    rows.sort(key=lambda row: len(row[0]))
    encoder = words_encoder.text_encoder(words_encoder.extraction(words_encoder.MULTILINGUAL)["text"])
    vectors = encoder.encode([row[0] for row in rows])
    np.save(folder / "words.npy", np.concatenate(vectors).astype(np.float16))
    kept = [(*row, len(one)) for row, one in zip(rows, vectors, strict=True)]
    (folder / "words.json").write_text(json.dumps(kept))


def sentences_of(
    sentences: words_encoder.Sentences, order: np.ndarray, *, valid: bool
) -> Iterator[tuple[str, str, str]]:
    """Text, emotion and corpus of the sentences that have one emotion, in that order, of one part."""
    for number in order:
        corpus, shares = str(sentences.corpus[number]), np.nan_to_num(sentences.emotions[number])
        if corpus in CORPORA and shares.max() == 1 and sentences.valid[number] == valid:
            yield str(sentences.texts[number]), CLASSES[shares.argmax()], corpus


def word_part(folder: Path) -> Part:
    """The sentences."""
    vectors, rows, sequences, end = np.load(folder / "words.npy"), [], {}, 0
    for number, (text, emotion, corpus, length) in enumerate(json.loads((folder / "words.json").read_text())):
        end += length
        key = f"{corpus}/{number}"
        sequences[key] = vectors[end - length : end].astype(np.float32)
        rows.append({"id": key, "text": key, "words": text, "label": emotion, "split": "train", "corpus": corpus})
    return Part(rows, {"text": sequences})


def train(work: Path, folder: Path) -> None:
    """Train on all corpora."""
    parts = [read(work, name) for name, (kind, read) in READERS.items() if kind != "text"]
    parts.append(word_part(folder))
    schema, text = read_sealed("emopipe-default").schema, words_encoder.extraction(words_encoder.MULTILINGUAL)["text"]
    dataset = combine(complete(parts, MODALITIES), schema, {**sealed(), "text": text})
    checkpoint.save(folder / "model", fit_members(dataset, 0), "")


def unread(predictor: Predictor, sentences: words_encoder.Sentences, corpus: str) -> Dataset:
    """The held-out sentences of a corpus as the text encoder of a checkpoint reads them."""
    chosen = np.flatnonzero(sentences.corpus == corpus)
    rows = []
    for number, (text, label, _) in enumerate(sentences_of(sentences, chosen, valid=True)):
        key = f"{corpus}/{number}"
        rows.append({"id": key, "text": key, "words": text, "label": label, "split": "valid", "corpus": corpus})
    part = Part(rows, {"text": read_by(predictor, rows)})
    return combine([part], predictor.spec.schema, dict(predictor.spec.extraction))


def figures(predictor: Predictor, dataset: Dataset) -> dict[str, float]:
    """Rows, UAR and weighted F1 of words alone."""
    scores = predictor.scores(dataset, None, ("text",))
    truth = dataset.column("label").astype(str)
    answers = np.array(predictor.spec.classes)[scores.logits.argmax(1)]
    measured = metrics.classification(truth, answers)
    return {"n": len(truth), "uar": measured["uar"], "weighted_f1": measured["weighted_f1"]}


def card(data: Path, folder: Path) -> None:
    """Ship the model with its card."""
    sentences, model = words_encoder.read(data), as_sure_as_default(checkpoint.load(folder / "model"))
    table: dict[str, dict[str, dict[str, float]]] = {name: {} for name in CORPORA}
    for name, predictor in (*((name, checkpoint.load(name)) for name in BESIDE), (SHIPPED.name, model)):
        for corpus in CORPORA:
            table[corpus][name] = figures(predictor, unread(predictor, sentences, corpus))
            print(corpus, name, table[corpus][name], flush=True)
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), keep_trailing_newline=True)
    facts = {"table": table, "most_words": MOST_WORDS, "names": (*BESIDE, SHIPPED.name)}
    checkpoint.save(SHIPPED, model, environment.get_template("multilingual_model.card.md").render(facts))


def as_sure_as_default(predictor: Predictor) -> Predictor:
    """The model with the temperature and confidences of `emopipe-default`, of faces and voices of left-out corpora."""
    before, spec = checkpoint.read_spec(find("emopipe-default")), predictor.spec
    training = {**spec.training, CONFIDENCES: before.training[CONFIDENCES]}
    return Predictor(replace(spec, temperature=before.temperature, training=training), predictor.module)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--data", "--work", "--words"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("steps", nargs="*", metavar="STEP")
    options = parser.parse_args()
    options.words.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    steps: dict[str, Callable[[], None]] = {
        "words": lambda: words(options.data, options.words),
        "train": lambda: train(options.work, options.words),
        "card": lambda: card(options.data, options.words),
    }
    for name in options.steps or steps:
        steps[name]()


if __name__ == "__main__":
    main()
