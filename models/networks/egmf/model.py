"""EGMF: gated experts make pseudo tokens of face and voice, and a language model reads them with the words.

Written from the published description (Qiao et al.); what that leaves open is decided here and said where it stands.
Classes are answered by scoring their names, values by saying a number. An utterance without face and voice brings no
pseudo tokens: its prompt is one of words alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emopipe.errors import ConfigError, DatasetError
from emopipe.models.configs import of_modality
from emopipe.models.data.dataset import Batch, Dataset
from emopipe.models.networks import losses
from emopipe.models.networks.comparison.common import equal_shares
from emopipe.models.networks.egmf.asking import suit_prompts
from emopipe.models.networks.egmf.config import EgmfConfig
from emopipe.models.networks.egmf.decoding import Labels, label_answers, parse_number, say_number
from emopipe.models.networks.egmf.encoder import AudioVisualEncoder, CrossModalFusion, SequenceEncoder, Steps
from emopipe.models.networks.egmf.experts import BRANCHES, Experts, Mixed, PseudoTokens
from emopipe.models.networks.egmf.language_model import LanguageModel, Reading
from emopipe.models.networks.egmf.prompt import WORDINGS, Prompt, Prompter, grow, pad_left
from emopipe.models.networks.model import FusionModel, Output, Shape

#: Utterances that the language model reads at a time in evaluation on a CPU, where attention takes the time, and on
#: CUDA, where starting kernels does.
CHUNK: Final = 16
CUDA_CHUNK: Final = 64
#: Characters, and so tokens at most, of a number before the end of sequence, beside its decimals.
NUMBER_LENGTH: Final = 6
#: Least and largest value where neither the settings nor a training tell.
DEFAULT_RANGE: Final = (-3.0, 3.0)


class Adapter(nn.Module):
    """Everything between the features and the pseudo tokens."""

    def __init__(self, shape: Shape, signals: Sequence[str], embedding: int, scale: float, config: EgmfConfig) -> None:
        super().__init__()
        width = config.width
        dims = {name: shape.dims[name] for name in signals}
        rates = {name: of_modality(config.input_dropout, name) for name in signals}
        self.encoder = AudioVisualEncoder(dims, width, config.dropout, rates)
        self.fusion = CrossModalFusion(embedding, width, config.heads, config.dropout)
        self.experts = Experts(width, len(shape.modalities), config.gate, config.closed_experts)
        self.pseudo = PseudoTokens(width, embedding, config.pseudo_tokens, config.pseudo == "affine", scale)

    def forward(
        self, features: dict[str, Tensor], lengths: dict[str, Tensor], text: Steps, present: Tensor
    ) -> tuple[Tensor, Mixed]:
        """R rows that have a face or a voice -> pseudo tokens (R, K, D), and what the experts made.

        Args:
            features: modality -> (R, T, D_m).
            lengths: modality -> (R,), 0 where it is absent.
            text: E(x_text), (R, L, D).
            present: (R, M) bool.
        """
        mixed = self.experts(self.fusion(text, self.encoder(features, lengths)), present)
        return self.pseudo(mixed.enhanced), mixed


class Egmf(FusionModel):
    """The network. Rows are read only where a modality is present, so the content of an absent one cannot matter.

    The text's features are not used: the language model reads the words, and lines said before, as part of the text.
    """

    Config = EgmfConfig
    config: EgmfConfig

    def __init__(self, shape: Shape, config: EgmfConfig) -> None:
        """Read the backbone and add what is trained.

        Raises:
            BackboneError: see :class:`~emopipe.models.networks.egmf.language_model.LanguageModel`.
            ConfigError: the classes have no names, or the task prompt is unusable.
        """
        super().__init__(shape, config)
        if shape.task == "classification" and not shape.classes:
            raise ConfigError("egmf needs the names of the classes", hint="Build it from a dataset or a checkpoint")
        self.language_model = LanguageModel(config)
        self.signals = tuple(name for name in shape.modalities if name != "text")
        self.adapter: Adapter | None = None
        if self.signals:
            self.adapter = Adapter(shape, self.signals, self.language_model.width, self.language_model.scale, config)
        self.wording = WORDINGS["zh" if config.language == "zh" else "en"]
        self.low, self.high = config.value_range or DEFAULT_RANGE
        self.prompter = self._prompter()
        self.lead = self.wording.lead
        end = self.language_model.tokenizer.eos_token_id
        self.labels: Labels | None = None
        if shape.task == "classification":
            self.labels = label_answers(shape.classes, self.lead, self.prompter.tokens, end)

    def _prompter(self) -> Prompter:
        config, wording = self.config, self.wording
        low, high = (say_number(value, config.decimals) for value in (self.low, self.high))
        default_question = wording.choose if self.shape.task == "classification" else wording.rate
        try:
            question = (config.task_prompt or default_question).format(
                classes=wording.comma.join(self.shape.classes),
                low=low,
                high=high,
                question=wording.questions["emotion" if config.question == "auto" else config.question],
            )
        except (KeyError, IndexError, ValueError) as error:
            raise ConfigError(f"task_prompt cannot be filled in: {error!r}") from error
        tokenizer = self.language_model.tokenizer
        sizes = config.context, config.text_tokens, config.pseudo_tokens
        return Prompter(tokenizer, wording, question, *sizes, "text" in self.shape.modalities, config.echo)

    @classmethod
    def suited(
        cls, config: EgmfConfig, dataset: Dataset, label: str, classes: Sequence[str], values: Sequence[float]
    ) -> EgmfConfig:
        """Take language, question and range of values from the rows to train on, where the settings leave them open."""
        texts = (dataset.transcript.words(name) for name in dataset.ids)
        return suit_prompts(config, texts, label, classes, values)

    def groups(self, dataset: Dataset) -> NDArray[np.int64] | None:
        """The lines of a conversation show each other, and are read together as one."""
        return dataset.transcript.conversations(dataset.ids.tolist()) if self.config.context else None

    def sealed(self) -> EgmfConfig:
        """The configuration that a checkpoint of the model keeps: its backbone by hash, not by path."""
        return replace(self.config, backbone_path="", backbone_sha256=self.language_model.sha256)

    def fit_inputs(self, dataset: Dataset) -> None:
        """Standardise face and voice, and see that there is something to read and to train.

        Raises:
            DatasetError: utterances have text features but no words.
            ConfigError: nothing can be trained.
        """
        if "text" in self.shape.modalities:
            has_text = dataset.present[:, dataset.modalities.index("text")]
            if has_text.any() and not any(dataset.transcript.words(name) for name in dataset.ids[has_text]):
                raise DatasetError("the dataset has no words", hint="EGMF reads the manifest's column `words`")
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise ConfigError(
                "without LoRA, face and voice there is nothing to train",
                hint="Set lora_rank = 8 and freeze_lora = false",
            )
        if self.adapter is not None:
            for name, encoder in self.adapter.encoder.encoders.items():
                assert isinstance(encoder, SequenceEncoder)
                encoder.standardise.fit(torch.from_numpy(dataset.steps(name)))

    # ------------------------------------------------------------------------------------------------------- reading

    def forward(self, batch: Batch) -> Output:
        """Predict.

        `features` of the output: `fused` (B, D), the language model's state at the end of the prompt; zeros in rows
        without face and voice: `f` and `enhanced` (B, d), `experts` (B, 3, d), `gate` and `alpha` (B, 3), the `pseudo`
        tokens (B, K, D), and `words` (B, D), the mean embedding of the words that these stand beside; and
        `answer_costs` (B,), -ln p of the right answer per token, where the loss needs it. Values are said only in
        evaluation: in training the logits of a regression are NaN.
        """
        words = self._words(batch)
        pseudo, features = self._adapt(batch, words)
        prompts = self._prompts(batch, words)
        answer = self._answer(prompts, pseudo, batch.labels)
        return Output(answer.pop("logits"), {}, equal_shares(batch.present), {**features, **answer})

    def _words(self, batch: Batch) -> list[list[int]]:
        """Token ids of what each utterance says; none where the text is absent."""
        if "text" not in self.shape.modalities:
            return [[] for _ in range(len(batch))]
        has_text = batch.present[:, self.shape.modalities.index("text")].tolist()
        words = batch.lines if self.config.context else batch.words
        if any(has_text) and len(words) != len(batch):
            raise DatasetError("the batch has no words", hint="EGMF reads the manifest's column `words`")
        return [self.prompter.words(words[row]) if there else [] for row, there in enumerate(has_text)]

    def _prompts(self, batch: Batch, words: list[list[int]]) -> list[Prompt]:
        signals = self._has_signals(batch).tolist()
        earlier = [batch.earlier[row] if tokens and batch.earlier else () for row, tokens in enumerate(words)]
        return [self.prompter.prompt(*row) for row in zip(words, earlier, signals, strict=True)]

    def _has_signals(self, batch: Batch) -> Tensor:
        """(B,) bool: a face or a voice is present."""
        columns = [self.shape.modalities.index(name) for name in self.signals]
        return batch.present[:, columns].any(1)

    def _adapt(self, batch: Batch, words: list[list[int]]) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Pseudo tokens (R, K, D) of the R rows that have a face or a voice, and what the experts made of all B."""
        rows = self._has_signals(batch).nonzero().squeeze(1)
        width, embedding, count = self.config.width, self.language_model.width, len(BRANCHES)
        shapes: dict[str, tuple[int, ...]] = {"f": (width,), "enhanced": (width,), "experts": (count, width)}
        shapes |= {"gate": (count,), "alpha": (count,), "words": (embedding,)}
        shapes |= {"pseudo": (self.config.pseudo_tokens, embedding)}
        if self.adapter is None or len(rows) == 0:
            return None, {name: batch.quality.new_zeros(len(batch), *shape) for name, shape in shapes.items()}
        present = batch.present[rows]
        lengths = torch.where(present, batch.lengths[rows], 0)
        columns = {name: self.shape.modalities.index(name) for name in self.signals}
        text = self._embedded([words[row] for row in rows.tolist()])
        pseudo, mixed = self.adapter(
            {name: batch.features[name][rows] for name in columns},
            {name: lengths[:, column] for name, column in columns.items()},
            text,
            present,
        )
        outputs = {**vars(mixed), "words": text.mean(), "pseudo": pseudo}
        full = {name: x.new_zeros(len(batch), *shapes[name]).index_copy(0, rows, x) for name, x in outputs.items()}
        return pseudo, full

    def _embedded(self, words: list[list[int]]) -> Steps:
        """E(x_text), padded on the left."""
        tokens = pad_left([Prompt(row) for row in words], self._device)
        return Steps(self.language_model.embed(tokens.ids).float(), tokens.mask.bool())

    # ----------------------------------------------------------------------------------------------------- answering

    def _answer(self, prompts: list[Prompt], pseudo: Tensor | None, targets: Tensor | None) -> dict[str, Tensor]:
        """`logits`, `fused` and `answer_costs` of B prompts.

        In evaluation a chunk at a time, of prompts that begin alike or, where answers are generated, of similar length.
        """
        order = list(range(len(prompts)))
        if not self.training:
            order.sort(key=lambda row: len(prompts[row].ids) if self.labels is None else prompts[row].ids)
        with_pseudo = [row for row, prompt in enumerate(prompts) if prompt.count]
        size = len(prompts) if self.training else CUDA_CHUNK if self._device.type == "cuda" else CHUNK
        parts = []
        for at in range(0, len(order), size):
            rows = order[at : at + size]
            pseudo_rows = [with_pseudo.index(row) for row in rows if prompts[row].count]
            some = ([prompts[row] for row in rows], None if pseudo is None else pseudo[pseudo_rows])
            chosen = None if targets is None else targets[rows]
            parts.append(self._rate(*some, chosen) if self.labels is None else self._choose(*some, chosen, self.labels))
        back = torch.tensor(order, device=self._device).argsort()
        return {name: torch.cat([part[name] for part in parts])[back] for name in parts[0]}

    def _choose(
        self, prompts: list[Prompt], pseudo: Tensor | None, targets: Tensor | None, labels: Labels
    ) -> dict[str, Tensor]:
        """Class logits (B, C): of the next token where that tells the classes apart, else ln p of whole answers."""
        taught = self.config.objective == "language" and targets is not None
        true_answers = [labels.answers[int(one)] for one in targets] if taught and targets is not None else []
        costs: dict[str, Tensor] = {}
        if labels.first is not None:
            reading = self._read(prompts, true_answers or [()] * len(prompts), pseudo)
            logits = self.language_model.logits(reading.hidden)[:, list(labels.first)]
        else:
            readings = [self._read(prompts, [answer] * len(prompts), pseudo) for answer in labels.answers]
            reading, logits = readings[0], -torch.stack([one.costs for one in readings], dim=1)
        if taught and labels.first is not None:
            costs["answer_costs"] = _per_token(reading.costs, true_answers)
        elif taught and targets is not None:
            costs["answer_costs"] = _per_token(-logits.gather(1, targets.unsqueeze(1)).squeeze(1), true_answers)
        return {"logits": logits, "fused": reading.hidden.float(), **costs}

    def _rate(self, prompts: list[Prompt], pseudo: Tensor | None, targets: Tensor | None) -> dict[str, Tensor]:
        """Values (B, 1), NaN where no number was said."""
        costs: dict[str, Tensor] = {}
        if targets is not None:
            true_answers = [self._answer_tokens(float(value)) for value in targets]
            reading = self._read(prompts, true_answers, pseudo)
            costs = {"fused": reading.hidden.float(), "answer_costs": _per_token(reading.costs, true_answers)}
        if self.training:
            return {"logits": torch.full((len(prompts), 1), torch.nan, device=self._device), **costs}
        tokens = pad_left(prompts, self._device)
        answers, hidden = self.language_model.answer(tokens, pseudo, NUMBER_LENGTH + self.config.decimals)
        low, high = self.low, self.high
        values = torch.tensor([[parse_number(answer, low, high)] for answer in answers], device=self._device)
        return {"logits": values, **costs, "fused": hidden.float()}

    def _answer_tokens(self, value: float) -> tuple[int, ...]:
        """The answer that a value is taught as.

        Raises:
            ConfigError: it is outside of `value_range`.
        """
        low, high = self.low, self.high
        if not low - 1e-6 <= value <= high + 1e-6:
            raise ConfigError(f"the label {value} is not within value_range {low} to {high}", hint="Widen value_range")
        text = self.lead + say_number(value, self.config.decimals)
        return (*self.prompter.tokens(text), self.language_model.tokenizer.eos_token_id)

    def _read(self, prompts: list[Prompt], answers: Sequence[Sequence[int]], pseudo: Tensor | None) -> Reading:
        return self.language_model.read(grow(prompts, answers, self._device), pseudo)

    @property
    def _device(self) -> torch.device:
        return next(self.language_model.parameters()).device

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The `task` loss, the `entropy` term of the gate (not weighted), and their `total`."""
        if "answer_costs" in output.features:
            costs = output.features["answer_costs"]
        else:
            costs = losses.task_costs(output.logits, batch.targets, self.shape.task, self.config.label_smoothing)
        alpha = output.features["alpha"]
        mixed = self._has_signals(batch).unsqueeze(1).expand(alpha.shape)
        terms = {"task": losses.mean(costs, batch.weights), "entropy": losses.entropy(alpha, mixed)}
        terms["total"] = terms["task"] + self.config.entropy * terms["entropy"]
        return terms


def _per_token(costs: Tensor, answers: Sequence[Sequence[int]]) -> Tensor:
    """(B,) costs of whole answers -> per token of them."""
    return costs / costs.new_tensor([len(answer) for answer in answers])
