"""Prompts: `[earlier lines; prefix; pseudo tokens; words; suffix; task prompt]`, as trees or padded on the left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Wording:
    """The words of a prompt.

    Attributes:
        opening, closing: the marker around pseudo tokens and words; left out of a prompt without pseudo tokens.
        silent: said when there are no words though the model reads words.
        questions: what classes are called.
        choose: asks for one of `{classes}`, which are called `{question}`.
        rate: asks for a number from `{low}` to `{high}`.
        comma: between class names.
        lead: between prompt and answer.
    """

    opening: str
    closing: str
    silent: str
    questions: Mapping[str, str]
    choose: str
    rate: str
    comma: str
    lead: str


WORDINGS: Final[dict[str, Wording]] = {
    "en": Wording(
        opening="[",
        closing="]",
        silent="(no words)",
        questions={"emotion": "emotion", "sentiment": "sentiment", "intent": "intent", "class": "class"},
        choose="Which {question} does the last line express? One of: {classes}.\nThe {question} is",
        rate="How strong is the sentiment of the last line, from {low} (negative) to {high} (positive)?\n"
        "The sentiment is",
        comma=", ",
        lead=" ",
    ),
    "zh": Wording(
        opening="[",
        closing="]",
        silent="（没有话语）",
        questions={"emotion": "情感", "sentiment": "情感倾向", "intent": "意图", "class": "类别"},
        choose="最后一句话表达了哪种{question}？请从以下选项中选择：{classes}。\n{question}是：",
        rate="最后一句话的情感强度是多少？范围从{low}（消极）到{high}（积极）。\n情感强度是：",
        comma="、",
        lead="",
    ),
}


@dataclass(frozen=True)
class Prompt:
    """Token ids of one prompt; pseudo tokens take the place of `count` ids from `slot` on."""

    ids: list[int]
    slot: int = 0
    count: int = 0


class Prompter:
    """Makes prompts.

    Args:
        tokenizer: of the language model.
        wording: the words to use.
        question: the task prompt.
        context: earlier lines to show at most; see :meth:`_lines`.
        most: tokens of the words, and of each earlier line, that are kept.
        pseudo: K, pseudo tokens of an utterance that has a face or a voice.
        reads: words are among what the model reads; else none are missed.
        echo: show the words twice; see :class:`~emopipe.models.networks.egmf.config.EgmfConfig`.
    """

    def __init__(
        self,
        tokenizer: Any,
        wording: Wording,
        question: str,
        context: int,
        most: int,
        pseudo: int,
        reads: bool = True,
        echo: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._context, self._most, self._pseudo, self._echo = context, most, pseudo, echo
        # What the tokenizer puts before any text: BOS for Llama, [gMASK]<sop> for GLM, nothing for Qwen.
        self._start: list[int] = list(tokenizer("")["input_ids"])
        self._opening, self._closing = self.tokens(wording.opening), self.tokens(wording.closing)
        self._line_end = self.tokens("\n")
        self._silent = [*self.tokens(wording.silent), *self._line_end] if reads else []
        self._question = self.tokens(question)

    def tokens(self, text: str) -> list[int]:
        """Token ids of a piece of text, without special ones."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def words(self, text: str) -> list[int]:
        """Token ids of an utterance's words, cut to the longest allowed."""
        return self.tokens(text.strip())[: self._most] if text.strip() else []

    def prompt(self, words: list[int], earlier: Sequence[str], signals: bool) -> Prompt:
        """The prompt of one utterance.

        Args:
            words: of :meth:`words`; empty when nothing was said.
            earlier: lines before it, oldest first.
            signals: it has a face or a voice, so pseudo tokens and their marker belong in the prompt.
        """
        ids = [*self._start, *self._lines(earlier)]
        count = self._pseudo if signals else 0
        ids += self._opening if signals else []
        slot = len(ids)
        ids += [0] * count + words + (self._closing if signals else []) + self._line_end
        if not words:
            ids += self._silent
        elif self._echo:
            ids += words + self._line_end
        return Prompt(ids + self._question, slot, count)

    def _lines(self, earlier: Sequence[str]) -> list[int]:
        """The last lines, at most `context` of them.

        Where a long conversation is cut moves on by half a context at a
        time, so that the prompts of utterances in a row begin alike and a :class:`Tree` reads the lines once.
        """
        half = max(1, self._context // 2)
        start = -(-max(0, len(earlier) - self._context) // half) * half
        lines = [self.words(line) for line in earlier[start:]] if self._context else []
        return [token for line in lines for token in (*line, *self._line_end)]


@dataclass(frozen=True)
class Tree:
    """B prompts and their answers as one sequence of N tokens, in which what several begin with stands once.

    Each token sees those that lead to it and stands at the place that it has in its own prompt, so every prompt reads
    as if it were alone. A conversation, each line of which is asked about, costs little more than its lines.

    Attributes:
        ids: (1, N) int64.
        mask: (1, 1, N, N) bool, token i sees token j.
        positions: (1, N) int64.
        slots: (1, N) bool, where pseudo tokens go, prompt by prompt.
        ends: (B,) int64, where each prompt ends.
        rows, before, targets: (A,) int64, of A tokens of answers, the only ones that are learned: the prompt that it
            answers, the place of the token before it, and its id.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    slots: Tensor
    ends: Tensor
    rows: Tensor
    before: Tensor
    targets: Tensor


def grow(prompts: Sequence[Prompt], answers: Sequence[Sequence[int]], device: torch.device) -> Tree:
    """Join each prompt with its answer (which may be empty), and all of them where they begin alike."""
    places: dict[tuple[int, int, int], int] = {}
    parents: list[int] = []
    ends, answer_tokens = [], []
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        at, end = -1, len(prompt.ids)
        for index, token in enumerate((*prompt.ids, *answer)):
            if index == end:
                ends.append(at)
            if index >= end:
                answer_tokens.append((row, at, token))
            pseudo_row = row if prompt.slot <= index < prompt.slot + prompt.count else -1
            place = places.setdefault((at, token, pseudo_row), len(places))
            if place == len(parents):
                parents.append(at)
            at = place
        if not answer:
            ends.append(at)
    sees = np.eye(len(parents), dtype=bool)
    for place, parent in enumerate(parents):
        if parent >= 0:
            sees[place] |= sees[parent]
    keys = torch.tensor(list(places), device=device)
    mask = torch.from_numpy(sees).to(device)
    rows, before, targets = torch.tensor(answer_tokens, dtype=torch.long, device=device).view(-1, 3).unbind(1)
    positions = mask.sum(1).unsqueeze(0) - 1
    shown = (keys[:, 1].unsqueeze(0), mask[None, None], positions, (keys[:, 2] >= 0).unsqueeze(0))
    return Tree(*shown, torch.tensor(ends, device=device), rows, before, targets)


@dataclass(frozen=True)
class Tokens:
    """B prompts, padded on the left to the longest.

    Attributes:
        ids: (B, L) int64.
        mask: (B, L) int64, 0 for padding.
        positions: (B, L) int64, counted from the first token that is not padding.
        slots: (B, L) bool, where pseudo tokens go.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    slots: Tensor


def pad_left(prompts: Sequence[Prompt], device: torch.device) -> Tokens:
    """Pad prompts, to go on from their ends."""
    longest = max(len(prompt.ids) for prompt in prompts)
    ids, mask, slots = (torch.zeros(len(prompts), longest, dtype=kind) for kind in (torch.long, torch.long, torch.bool))
    for number, prompt in enumerate(prompts):
        start = longest - len(prompt.ids)
        ids[number, start:] = torch.tensor(prompt.ids)
        mask[number, start:] = 1
        slots[number, start + prompt.slot : start + prompt.slot + prompt.count] = True
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return Tokens(*(table.to(device) for table in (ids, mask, positions, slots)))
