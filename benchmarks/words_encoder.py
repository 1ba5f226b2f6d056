"""Tune a text encoder on labelled sentences; makes the low-rank changes that come with the package.

    python benchmarks/words_encoder.py --data DATA --work WORK [--encoder NAME] [--sentences N] [--seed 0] [STEP ...]

DATA holds the tables; WORK receives what lies between, of one encoder. The steps are train, measure, export and probe;
of `multilingual-e5-small`, which is tuned on English and Chinese, also sentiment, which makes `emopipe-sentiment` of
the map to valence; `minilm-l6` is tuned on English, and so that the means of its vectors keep their directions, by
which questions are compared. meaning, which runs where it is named, tells how questions are put together once
`low_rank.py` has the sha256 that export prints. Low-rank changes (LoRA, Hu et al. 2022) of the upper layers' linear
maps are learned. The mean of the tokens' vectors is read by a map to seven emotions and by one to valence. Each corpus
adds biases of its own (its classes' frequencies) and sees valence on its own scale, so that neither is learned as a
property of the words. A pass is 84,000 sentences in both languages, 55,000 in English.

Nothing is chosen on the rows that are measured: MELD's and GoEmotions' validation parts, two series of CPED, a tenth of
the posts (by a hash), and the validation parts of MOSI and CH-SIMS. MELD's lines are read without those before.
"""

from __future__ import annotations

import argparse
import copy
import csv
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from emopipe.extractors.text.transformer import TextEncoder
from emopipe.models import checkpoint, metrics
from emopipe.models.networks.linear import LinearConfig
from emopipe.models.predictor import Predictor, Spec
from emopipe.pipeline.config import ExtractionConfig, TextConfig
from emopipe.pipeline.report import questions
from emopipe.pipeline.weights import low_rank, resolve

CLASSES: Final = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
SHIPPED: Final = Path(__file__).parent.parent / "models" / "checkpoints" / "emopipe-sentiment"
QUESTIONS: Final = Path(__file__).with_name("questions.csv")


@dataclass(frozen=True)
class Recipe:
    """How an encoder is tuned.

    Attributes:
        encoder, tuned: its names in the catalogue as it comes, and with the changes.
        changes: the file of the changes.
        first_layer: layers below this one stay as they are.
        corpora: corpus -> share of the training sentences, label smoothing (more where labels are noisier), exponent
            of the inverse class frequencies by which its sentences are drawn.
        sentences: of a training.
        english: sentences in other languages are left out.
        direction: how much of the loss it is by how much the mean of a sentence's vectors turns: one less the cosine.
    """

    encoder: str
    tuned: str
    changes: Path
    first_layer: int
    corpora: Mapping[str, tuple[float, float, float]]
    sentences: int
    english: bool = False
    direction: float = 0.0


MULTILINGUAL: Final = Recipe(
    "multilingual-e5-small",
    "multilingual-e5-emotion",
    low_rank.MULTILINGUAL.file,
    first_layer=6,
    corpora={
        "meld": (0.34, 0.05, 0.0),
        "goemotions": (0.24, 0.05, 0.5),
        "cped": (0.22, 0.15, 0.3),
        "smp2020": (0.10, 0.1, 0.3),
        "mosi": (0.05, 0.0, 0.0),
        "chsims": (0.05, 0.0, 0.0),
    },
    sentences=120_000,
)
ENGLISH: Final = Recipe(
    "minilm-l6",
    "minilm-l6-emotion",
    low_rank.ENGLISH.file,
    first_layer=2,
    corpora={"meld": (0.4, 0.05, 0.0), "goemotions": (0.5, 0.05, 0.5), "mosi": (0.1, 0.0, 0.0)},
    sentences=110_000,
    english=True,
    direction=5.0,
)
RECIPES: Final = {recipe.encoder: recipe for recipe in (MULTILINGUAL, ENGLISH)}
HELD_OUT_SERIES: Final = ("28", "36")
VALENCES: Final = {"negative": -0.5, "neutral": 0.0, "positive": 0.5}
RANK: Final = 32
BATCH: Final = 32
RATE: Final = 1e-3
DECAY: Final = 0.01
DROPOUT: Final = 0.2
#: Dropout of the inputs of the low-rank changes: MELD's lines are read four times.
CHANGED: Final = 0.1
#: How much of the loss valence is.
VALENCE: Final = 1.0
#: Weights are averaged over the last steps with this decay.
AVERAGE: Final = 0.98
LONGEST: Final = 64
#: Corpora of valences without emotions, and the value of their strongest label.
VALUED: Final = {"mosi": 3.0, "chsims": 1.0}
#: Training sentences of a corpus that a probe learns from, at most.
PROBED: Final = 4000
Row = dict[str, Any]


@dataclass
class Sentences:
    """Labelled sentences: texts, names of their corpora, emotions (n, 7; NaN for none), valences (n,), split."""

    texts: list[str]
    corpus: np.ndarray
    emotions: np.ndarray
    valence: np.ndarray
    valid: np.ndarray


def read(data: Path, recipe: Recipe = MULTILINGUAL) -> Sentences:
    """All sentences of the recipe's corpora."""
    rows = [row for name in recipe.corpora for row in READERS[name](data)]
    rows = [row for row in rows if not (recipe.english and _is_chinese(row["text"]))]
    return Sentences(
        [row["text"] for row in rows],
        np.array([row["corpus"] for row in rows]),
        np.array([_distribution(row["emotions"]) for row in rows]),
        np.array([row["valence"] for row in rows], dtype=float),
        np.array([row["valid"] for row in rows]),
    )


def _distribution(names: str) -> np.ndarray:
    chosen = [CLASSES.index(name) for name in names.split("|") if name]
    share = np.zeros(len(CLASSES))
    share[chosen] = 1 / max(len(chosen), 1)
    return share if chosen else np.full(len(CLASSES), np.nan)


def _is_chinese(text: str) -> bool:
    return any("\u4e00" <= sign <= "\u9fff" for sign in text)


def _meld(data: Path) -> Iterator[Row]:
    for row in _table(data / "meld_text.csv"):
        yield _row("meld", row["text"], row["split"] == "valid", row["emotion"], VALENCES[row["sentiment"]])


def _goemotions(data: Path) -> Iterator[Row]:
    for row in _table(data / "goemotions.csv"):
        if row["split"] == "train" or row["emotion"]:
            yield _row("goemotions", row["text"], row["split"] == "valid", row["emotions"])


def _cped(data: Path) -> Iterator[Row]:
    for row in _table(data / "cped.csv"):
        valence = VALENCES[row["sentiment"]]
        yield _row("cped", row["text"], row["series"] in HELD_OUT_SERIES, row["emotion"], valence)


def _smp2020(data: Path) -> Iterator[Row]:
    for row in _table(data / "smp2020.csv"):
        valid = hashlib.sha256(row["id"].encode()).digest()[0] < 26
        yield _row("smp2020", row["text"], valid, row["emotion"])


def _mosi(data: Path) -> Iterator[Row]:
    for row in _table(data / "mosi_text.csv"):
        for text in (row["text"].lower(), row["text_zh"]):
            yield _row("mosi", text, row["split"] == "valid", valence=float(row["sentiment"]) / 3)


def _chsims(data: Path) -> Iterator[Row]:
    for row in _table(data / "chsims_text.csv"):
        for text in (row["text"], row["text_zh"]):
            yield _row("chsims", text, row["split"] == "valid", valence=float(row["sentiment"]))


READERS: Final[dict[str, Callable[[Path], Iterator[Row]]]] = {
    "meld": _meld,
    "goemotions": _goemotions,
    "cped": _cped,
    "smp2020": _smp2020,
    "mosi": _mosi,
    "chsims": _chsims,
}


def _row(corpus: str, text: str, valid: bool, emotions: str = "", valence: float = float("nan")) -> Row:
    return {"corpus": corpus, "text": text, "valid": valid, "emotions": emotions, "valence": valence}


def _table(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        yield from csv.DictReader(file)


class Tuned(nn.Module):
    """The encoder with LoRA, read by a map to emotions and to valence."""

    def __init__(self, recipe: Recipe) -> None:
        from peft import LoraConfig, inject_adapter_in_model
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        super().__init__()
        logging.set_verbosity_error()
        folder, self.recipe = resolve(recipe.encoder), recipe
        self.tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
        # Without dropout inside, which takes a fifth of the time: most sentences are read once.
        options = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        self.encoder: Any = AutoModel.from_pretrained(str(folder), dtype=torch.float32, **options)
        self.encoder.requires_grad_(False)
        first = recipe.first_layer
        self.before = copy.deepcopy(self.encoder.encoder.layer[first:]) if recipe.direction else nn.ModuleList()
        upper = list(range(first, self.encoder.config.num_hidden_layers))
        linear = ["query", "key", "value", "dense"]
        changes = LoraConfig(
            r=RANK, lora_alpha=2 * RANK, lora_dropout=CHANGED, target_modules=linear, layers_to_transform=upper
        )
        inject_adapter_in_model(changes, self.encoder)
        self.lower, self.upper = self.encoder.encoder.layer[:first], self.encoder.encoder.layer[first:]
        self.kept: dict[str, Tensor] = {}
        self.directions: dict[str, Tensor] = {}
        width, count = int(self.encoder.config.hidden_size), len(recipe.corpora)
        self.dropout = nn.Dropout(DROPOUT)
        self.emotion = nn.Linear(width, len(CLASSES))
        self.valence = nn.Linear(width, 1)
        self.prior = nn.Parameter(torch.zeros(count, len(CLASSES)))
        self.scale = nn.Parameter(torch.ones(count))
        self.shift = nn.Parameter(torch.zeros(count))

    def mean(self, texts: Sequence[str]) -> Tensor:
        """(R, D) mean of the tokens' vectors."""
        return self._mean(*self._low(texts), self.upper)

    def turned(self, texts: Sequence[str], means: Tensor) -> Tensor:
        """(R,) by how much means (R, D) are turned from those of the encoder as it comes: one less the cosine."""
        new = [text for text in dict.fromkeys(texts) if text not in self.directions]
        if new:
            with torch.no_grad():
                before = self._mean(*self._low(new), self.before).float()
            self.directions.update(zip(new, nn.functional.normalize(before), strict=True))
        before = torch.stack([self.directions[text] for text in texts])
        return 1 - (nn.functional.normalize(means.float()) * before).sum(1)

    def _low(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """States (R, T, D) and tokens (R, T); what the lower layers, which nothing changes, make of a text is kept."""
        new = [text for text in dict.fromkeys(texts) if text not in self.kept]
        if new:
            tokens = self.tokenizer(new, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
            mask = tokens["attention_mask"].bool()
            with torch.no_grad():
                states = _through(self.encoder.embeddings(tokens["input_ids"]), mask, self.lower)
            self.kept.update((text, one[own].bfloat16()) for text, one, own in zip(new, states, mask, strict=True))
        parts = [self.kept[text] for text in texts]
        states = nn.utils.rnn.pad_sequence(parts, batch_first=True).float()
        return states, torch.arange(states.shape[1]) < torch.tensor([len(part) for part in parts]).unsqueeze(1)

    def _mean(self, states: Tensor, mask: Tensor, layers: Iterable[nn.Module]) -> Tensor:
        states = _through(states, mask, layers)
        mean: Tensor = (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        return mean

    def forward(self, means: Tensor, corpus: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (R, 7) with the corpus's biases, and valences (R,) on its scale, of means (R, D)."""
        means = self.dropout(means.float())
        valence = self.valence(means).squeeze(1) * self.scale[corpus] + self.shift[corpus]
        return self.emotion(means) + self.prior[corpus], valence

    def learned(self) -> dict[str, Tensor]:
        """What training changes, by name."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}


def _through(states: Tensor, mask: Tensor, layers: Iterable[nn.Module]) -> Tensor:
    for layer in layers:
        states = layer(states, mask[:, None, None])
    return states


def train(data: Path, work: Path, options: argparse.Namespace) -> None:
    """Learn in one pass; what is kept is the running mean of the weights."""
    torch.manual_seed(options.seed)
    recipe = options.encoder
    sentences, model = read(data, recipe), Tuned(recipe)
    if options.start:
        model.load_state_dict(torch.load(options.start, weights_only=True), strict=False)
    parameters = model.learned()
    average = {name: value.detach().clone() for name, value in parameters.items()}
    optimizer = torch.optim.AdamW(parameters.values(), options.rate, weight_decay=DECAY)
    steps = options.sentences // BATCH
    began, losses = time.monotonic(), []
    model.train()
    for step, rows in enumerate(_batches(sentences, steps, options.seed, model)):
        progress = max(step / steps, (time.monotonic() - began) / (60 * options.minutes) if options.minutes else 0)
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = options.rate * min(1, (step + 1) / 60) * 0.5 * (1 + np.cos(np.pi * progress))
        loss = _loss(model, sentences, rows)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        decay = min(AVERAGE, (1 + step) / (10 + step))
        for name, value in parameters.items():
            average[name].lerp_(value.detach(), 1 - decay)
        losses.append(float(loss.detach()))
        if step % 20 == 19:
            spent = time.monotonic() - began
            print(f"{(step + 1) * BATCH} sentences, loss {np.mean(losses[-20:]):.3f}, {spent:.0f} s", flush=True)
        if step % 300 == 299:
            torch.save(average, work / f"words-{options.seed}.partial.pt")
    torch.save(average, work / f"words-{options.seed}.pt")


def _batches(sentences: Sentences, steps: int, seed: int, model: Tuned) -> Iterator[np.ndarray]:
    """Rows of training batches of sentences of one length, corpora by their shares, in random order."""
    rng = np.random.default_rng(seed)
    for rows in _draws(sentences, steps, rng, model.recipe):
        lengths = [len(ids) for ids in model.tokenizer([sentences.texts[row] for row in rows])["input_ids"]]
        yield from rng.permutation(rows[np.argsort(lengths)].reshape(16, BATCH))


def _draws(sentences: Sentences, steps: int, rng: np.random.Generator, recipe: Recipe) -> Iterator[np.ndarray]:
    """Training rows of 16 batches at a time."""
    streams = {name: _stream(sentences, name, rng, recipe) for name in recipe.corpora}
    shares = [share for share, _, _ in recipe.corpora.values()]
    for _ in range(0, steps, 16):
        drawn = rng.choice(list(recipe.corpora), 16 * BATCH, p=np.array(shares) / sum(shares))
        yield np.array([next(streams[name]) for name in drawn])


def times_read(sentences: Sentences, recipe: Recipe = MULTILINGUAL, seed: int = 0) -> np.ndarray:
    """How often training reads each sentence (n,): a model on top learns best from what it read least."""
    rng, times = np.random.default_rng(seed), np.zeros(len(sentences.texts), int)
    for rows in _draws(sentences, recipe.sentences // BATCH, rng, recipe):
        np.add.at(times, rows, 1)
        rng.permutation(rows.reshape(16, BATCH))
    return times


def _stream(sentences: Sentences, corpus: str, rng: np.random.Generator, recipe: Recipe) -> Iterator[int]:
    """Training rows of a corpus without end; each pass takes half of them, fewer of the frequent classes."""
    rows = np.flatnonzero((sentences.corpus == corpus) & ~sentences.valid)
    shares = np.nan_to_num(sentences.emotions[rows])
    frequency = shares.mean(0).clip(1e-9) / shares.mean(0).max().clip(1e-9)
    weight = np.where(shares.sum(1) > 0, shares @ frequency ** -recipe.corpora[corpus][2], 1.0)
    while True:
        yield from map(int, rng.choice(rows, len(rows) // 2, replace=False, p=weight / weight.sum()))


def _loss(model: Tuned, sentences: Sentences, rows: np.ndarray) -> Tensor:
    recipe, names = model.recipe, list(model.recipe.corpora)
    corpus = torch.tensor([names.index(name) for name in sentences.corpus[rows]])
    texts = [sentences.texts[row] for row in rows]
    with torch.autocast("cpu", torch.bfloat16):
        means = model.mean(texts)
        logits, valence = model(means, corpus)
        turned = model.turned(texts, means).mean() if recipe.direction else torch.zeros(())
    goal = torch.from_numpy(sentences.emotions[rows]).float()
    smoothing = torch.tensor([recipe.corpora[name][1] for name in sentences.corpus[rows]]).unsqueeze(1)
    felt = goal.isfinite().all(1)
    soft = (goal.nan_to_num() * (1 - smoothing) + smoothing / len(CLASSES))[felt]
    total = -(soft * logits[felt].float().log_softmax(1)).sum() / len(rows)
    wanted = torch.from_numpy(sentences.valence[rows]).float()
    known = wanted.isfinite()
    squares = (valence[known].float() - wanted[known]).square().sum()
    return total + VALENCE * squares / len(rows) + recipe.direction * turned


def drawn(sentences: Sentences, corpus: str, recipe: Recipe) -> np.ndarray:
    """How frequent the emotions (7) are among the sentences of a corpus as training draws them."""
    rng, rows = np.random.default_rng(0), (sentences.corpus == corpus) & ~sentences.valid
    stream = _stream(sentences, corpus, rng, recipe)
    taken = [next(stream) for _ in range(int(rows.sum()) // 2)]
    return np.asarray(np.nanmean(sentences.emotions[taken], 0))


def _single(sentences: Sentences, corpus: str, *, valid: bool) -> np.ndarray:
    """Rows of a corpus, held out or not; of those with emotions those with a single one."""
    single = np.nan_to_num(sentences.emotions).max(1) == 1
    return np.flatnonzero((sentences.corpus == corpus) & (sentences.valid == valid) & (single | (corpus in VALUED)))


def answers(model: Tuned, sentences: Sentences, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, 7) and valences (n,) of sentences, as their corpora have them."""
    names = list(model.recipe.corpora)
    order = rows[np.argsort([len(sentences.texts[row]) for row in rows], kind="stable")]
    logits, values = {}, {}
    model.eval()
    for first in range(0, len(order), 64):
        part = order[first : first + 64]
        corpus = torch.tensor([names.index(name) for name in sentences.corpus[part]])
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            scores, valence = model(model.mean([sentences.texts[row] for row in part]), corpus)
        logits.update(zip(part, scores.float().numpy(), strict=True))
        values.update(zip(part, valence.float().numpy(), strict=True))
    return np.array([logits[row] for row in rows]), np.array([values[row] for row in rows])


def measure(data: Path, work: Path, options: argparse.Namespace) -> None:
    """Print a table of what the tuned encoder reaches on the sentences that it has not seen, and keep it in WORK."""
    recipe = options.encoder
    sentences, model = read(data, recipe), Tuned(recipe)
    model.load_state_dict(torch.load(work / f"words-{options.seed}.pt", weights_only=True), strict=False)
    figures, path = _figures(work, str(options.seed))
    for corpus in options.corpora or recipe.corpora:
        rows = _single(sentences, corpus, valid=True)
        logits, valence = answers(model, sentences, rows)
        if corpus in VALUED:
            figures.update(valued(sentences, corpus, rows, valence))
        else:
            natural = np.nanmean(sentences.emotions[(sentences.corpus == corpus) & ~sentences.valid], 0)
            smoothing = recipe.corpora[corpus][1]
            seen = (1 - smoothing) * drawn(sentences, corpus, recipe) + smoothing / len(CLASSES)
            equal = logits - np.log(seen)
            figures[corpus] = scores(sentences.emotions[rows], equal, natural)
        path.write_text(json.dumps(figures, indent=1) + "\n")
    show(figures)


def _figures(work: Path, name: str) -> tuple[dict[str, dict[str, float]], Path]:
    """Figures that an earlier call kept, by corpus, and where they are kept."""
    path = work / f"words-{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}, path


def valued(sentences: Sentences, corpus: str, rows: np.ndarray, predicted: np.ndarray) -> dict[str, dict[str, float]]:
    """Metrics of valences on the corpus's own scale, by language."""
    largest = VALUED[corpus]
    chinese = np.array([_is_chinese(sentences.texts[row]) for row in rows])
    truth = sentences.valence[rows]
    return {
        f"{corpus} {language}": metrics.regression(truth[part] * largest, predicted[part] * largest, largest)
        for language, part in (("en", ~chinese), ("zh", chinese))
        if part.any()
    }


def scores(goal: np.ndarray, logits: np.ndarray, prior: np.ndarray) -> dict[str, float]:
    """Metrics of answers that heed the corpus's class frequencies, and (`balanced_`) of answers that do not.

    Args:
        goal: (n, 7) emotions, one in each row.
        logits: (n, 7) as if all emotions were equally frequent.
        prior: (7,) frequencies; an emotion that the corpus does not have is never answered.
    """
    truth = goal.argmax(1)
    there = np.where(prior > 0, 0, -np.inf)
    heeding = metrics.classification(truth, (logits + np.log(prior.clip(1e-9)) + there).argmax(1))
    balanced = metrics.classification(truth, (logits + there).argmax(1))
    return {**heeding, **{f"balanced_{name}": value for name, value in balanced.items()}, "n": len(goal)}


def probe(data: Path, work: Path, options: argparse.Namespace) -> None:
    """The same for linear probes on the mean vectors of the encoder as it comes: logistic and ridge regression."""
    recipe = options.encoder
    sentences, model = read(data, recipe), Tuned(recipe).eval()
    figures, path = _figures(work, "probe")
    rng = np.random.default_rng(0)
    for corpus in options.corpora or recipe.corpora:
        rows = rng.permutation(_single(sentences, corpus, valid=False))[:PROBED]
        measured = _single(sentences, corpus, valid=True)
        means = [_means(model, sentences, part) for part in (rows, measured)]
        figures.update(_probe(sentences, corpus, means, rows, measured))
        path.write_text(json.dumps(figures, indent=1) + "\n")
    show(figures)


def sentiment(work: Path, options: argparse.Namespace) -> None:
    """Write the checkpoint `emopipe-sentiment`: the map from mean token vectors to valence.

    Its card shows the figures of the step measure.
    """
    from jinja2 import Environment, FileSystemLoader

    learned = torch.load(work / f"words-{options.seed}.pt", weights_only=True)
    spec = Spec(
        model="linear",
        options={**asdict(LinearConfig(relative=False)), "strengths": [1.0]},
        task="regression",
        label="sentiment",
        classes=(),
        schema={"text": tuple(f"token_{index:03d}" for index in range(learned["valence.weight"].shape[1]))},
        extraction=extraction(MULTILINGUAL),
        training={"config": {"label": "sentiment", "batch_size": BATCH, "lr": options.rate}, "largest_label": 1.0},
    )
    module = spec.build()
    places = [list(MULTILINGUAL.corpora).index(name) for name in VALUED]
    scale, shift = learned["scale"][places].mean(), learned["shift"][places].mean()
    expert = module.get_submodule("experts.text_plain")
    with torch.no_grad():
        expert.readout.weight.copy_(learned["valence.weight"] * scale)
        expert.readout.bias.copy_(learned["valence.bias"] * scale + shift)
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), keep_trailing_newline=True)
    facts = {
        "figures": _figures(work, str(options.seed))[0],
        "sentences": options.sentences,
        "corpora": MULTILINGUAL.corpora,
    }
    card = environment.get_template("words_encoder.card.md").render(facts)
    print(checkpoint.save(SHIPPED, Predictor(spec, module), card))


def _means(model: Tuned, sentences: Sentences, rows: np.ndarray) -> np.ndarray:
    order = np.argsort([len(sentences.texts[row]) for row in rows], kind="stable")
    means = np.zeros((len(rows), model.emotion.in_features), np.float32)
    for first in range(0, len(order), 64):
        part = order[first : first + 64]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            means[part] = model.mean([sentences.texts[row] for row in rows[part]]).float().numpy()
        model.kept.clear()
    return means


def _probe(
    sentences: Sentences, corpus: str, means: list[np.ndarray], rows: np.ndarray, measured: np.ndarray
) -> dict[str, dict[str, float]]:
    from sklearn.linear_model import LogisticRegressionCV, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, valid = means
    if corpus in VALUED:
        ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 21))).fit(train, sentences.valence[rows])
        return valued(sentences, corpus, measured, ridge.predict(valid))
    labels = sentences.emotions[rows].argmax(1)
    classifier = LogisticRegressionCV(Cs=[1e-4, 1e-3, 1e-2], cv=3, scoring="neg_log_loss")
    logistic = make_pipeline(StandardScaler(), classifier).fit(train, labels)
    logits = np.full((len(valid), len(CLASSES)), -1e9)
    logits[:, logistic.classes_] = logistic.predict_log_proba(valid)
    prior = np.bincount(labels, minlength=len(CLASSES)) / len(labels)
    return {corpus: scores(sentences.emotions[measured], logits - np.log(prior.clip(1e-4)), prior)}


def extraction(recipe: Recipe) -> dict[str, Any]:
    """The configuration of an extraction by which the tuned encoder reads."""
    return ExtractionConfig(text=TextConfig(encoder=recipe.tuned, max_tokens=LONGEST)).as_dict()


def text_encoder(settings: Mapping[str, Any]) -> TextEncoder:
    """The encoder of the table `text` of such a configuration."""
    return TextEncoder(resolve(settings["encoder"]), "cpu", settings["max_tokens"])


def meaning(options: argparse.Namespace) -> None:
    """Print how the installed encoder, as it comes and tuned, puts questions in several wordings together.

    Each wording is another recording's, and clustered as the page about many recordings does.
    """
    rows = list(_table(QUESTIONS))
    for name in (options.encoder.encoder, options.encoder.tuned):
        vectors = TextEncoder(resolve(name), pooling="mean").encode([row["wording"] for row in rows])
        together, mixed, threshold = _grouped([row[0] for row in vectors], [row["question"] for row in rows])
        print(f"{name}: {together:.2f} of the pairs of wordings together, {mixed} pairs of others ({threshold:.2f})")


def _grouped(vectors: list[np.ndarray], asked: Sequence[str]) -> tuple[float, int, float]:
    """Share of the pairs of one question's wordings that are together, number of other such pairs, threshold."""
    recordings = [Path(str(asked[:place].count(name))) for place, name in enumerate(asked)]
    groups, _, threshold = questions.grouped(vectors, recordings)
    first, second = np.triu_indices(len(asked), 1)
    same, together = np.array(asked)[first] == np.array(asked)[second], groups[first] == groups[second]
    return float(together[same].mean()), int(together[~same].sum()), threshold


def show(figures: dict[str, dict[str, float]]) -> None:
    """Print figures as a table in Markdown."""
    columns = ("weighted_f1", "macro_f1", "balanced_macro_f1", "balanced_uar", "mae", "corr", "acc2_non0", "acc2")
    print("| |", " | ".join(columns), "|")
    print("|---" * (len(columns) + 1) + "|")
    for name, row in figures.items():
        print(f"| {name} |", " | ".join(f"{row[one]:.3f}" if one in row else "" for one in columns), "|")


def export(work: Path, options: argparse.Namespace) -> None:
    """Write the changes of the encoder, in half precision, where the package keeps them; print their sha256."""
    from safetensors.torch import save_file

    learned = torch.load(work / f"words-{options.seed}.pt", weights_only=True)
    changes = {}
    for name, value in learned.items():
        if ".lora_" in name:
            place, kind = name.removeprefix("encoder.").split(".lora_")
            scaled = 2 * value if kind.startswith("B") else value
            changes[f"{place}.{'out' if kind.startswith('B') else 'in'}"] = scaled.half().contiguous()
    path = options.encoder.changes
    save_file(changes, path)
    path.chmod(0o644)
    print(path, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--encoder", type=RECIPES.__getitem__, default=MULTILINGUAL, metavar="|".join(RECIPES))
    parser.add_argument("--sentences", type=int, help="of a training")
    parser.add_argument("--minutes", type=float, default=0, help="end sooner, the rate falling sooner too; 0: never")
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="go on from what an earlier call learned")
    parser.add_argument("--corpora", type=lambda text: text.split(","), help="to measure and probe")
    parser.add_argument("steps", nargs="*", metavar="STEP")
    options = parser.parse_args()
    if "sentiment" in options.steps and options.encoder is not MULTILINGUAL:
        parser.error(f"sentiment is made of {MULTILINGUAL.encoder}")
    options.sentences = options.sentences or options.encoder.sentences
    options.work.mkdir(parents=True, exist_ok=True)
    steps: dict[str, Callable[[], None]] = {
        "train": lambda: train(options.data, options.work, options),
        "measure": lambda: measure(options.data, options.work, options),
        "export": lambda: export(options.work, options),
        "sentiment": lambda: sentiment(options.work, options),
        "probe": lambda: probe(options.data, options.work, options),
        "meaning": lambda: meaning(options),
    }
    left_out = {"meaning"} if options.encoder is MULTILINGUAL else {"meaning", "sentiment"}
    for name in options.steps or [step for step in steps if step not in left_out]:
        steps[name]()


if __name__ == "__main__":
    main()
