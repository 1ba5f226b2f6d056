"""Prompts: `[context; prefix; pseudo tokens; words; suffix; task prompt]`, and batches of them padded on the left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

#: What stands in `labels` where no loss is taken.
IGNORED: Final = -100


@dataclass(frozen=True)
class Wording:
    """The words of a prompt.

    Attributes:
        context: opens the earlier lines.
        words: opens the utterance.
        opening, closing: the marker around pseudo tokens and words; left out of a prompt without pseudo tokens.
        silent: said when there are no words.
        choose: asks for one of `{classes}`.
        rate: asks for a number from `{low}` to `{high}`.
        comma: between class names.
        lead: between prompt and answer.
    """

    context: str
    words: str
    opening: str
    closing: str
    silent: str
    choose: str
    rate: str
    comma: str
    lead: str


WORDINGS: Final[dict[str, Wording]] = {
    "en": Wording(
        context="Earlier lines:\n",
        words="Utterance:\n",
        opening="<multimodal>",
        closing="</multimodal>",
        silent="No speech was found.",
        choose="Which emotion does the utterance express? One of: {classes}.\nThe emotion is",
        rate="How strong is the sentiment of the utterance, from {low} (negative) to {high} (positive)?\n"
        "The sentiment is",
        comma=", ",
        lead=" ",
    ),
    "zh": Wording(
        context="之前的对话：\n",
        words="话语：\n",
        opening="<多模态>",
        closing="</多模态>",
        silent="没有检测到语音。",
        choose="这段话语表达了哪种情感？请从以下选项中选择：{classes}。\n情感是：",
        rate="这段话语的情感强度是多少？范围从{low}（消极）到{high}（积极）。\n情感强度是：",
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
        context: earlier lines to show.
        most: tokens of the words, and of each earlier line, that are kept.
        pseudo: K, pseudo tokens of an utterance that has a face or a voice.
    """

    def __init__(self, tokenizer: Any, wording: Wording, question: str, context: int, most: int, pseudo: int) -> None:
        self._tokenizer = tokenizer
        self._context, self._most, self._pseudo = context, most, pseudo
        # What the tokenizer puts before any text: BOS for Llama, [gMASK]<sop> for GLM, nothing for Qwen.
        self._start: list[int] = list(tokenizer("")["input_ids"])
        self._earlier, self._words = self.tokens(wording.context), self.tokens(wording.words)
        self._opening, self._closing = self.tokens(wording.opening), self.tokens(wording.closing)
        self._line_end, self._silent = self.tokens("\n"), self.tokens(wording.silent)
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
        ids = [*self._start, *self._lines(earlier), *self._words]
        count = self._pseudo if signals else 0
        ids += self._opening if signals else []
        slot = len(ids)
        ids += [0] * count + words + (self._closing if signals else []) + self._line_end
        if not words:
            ids += self._silent + self._line_end
        return Prompt(ids + self._question, slot, count)

    def _lines(self, earlier: Sequence[str]) -> list[int]:
        kept = [self.words(line) for line in earlier[-self._context :]] if self._context else []
        if not any(kept):
            return []
        return self._earlier + [token for line in kept for token in (*line, *self._line_end)]


@dataclass(frozen=True)
class Tokens:
    """B prompts and their answers, padded on the left to the longest.

    Attributes:
        ids: (B, L) int64.
        mask: (B, L) int64, 0 for padding.
        positions: (B, L) int64, counted from the first token that is no padding.
        slots: (B, L) bool, where pseudo tokens go.
        labels: (B, L) int64, the answer's ids at its own places and :data:`IGNORED` everywhere else.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    slots: Tensor
    labels: Tensor


def pad_left(prompts: Sequence[Prompt], answers: Sequence[Sequence[int]], device: torch.device) -> Tokens:
    """Join each prompt with its answer (which may be empty) and pad."""
    rows = [[*prompt.ids, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    longest = max(len(row) for row in rows)
    ids, mask = torch.zeros(len(rows), longest, dtype=torch.long), torch.zeros(len(rows), longest, dtype=torch.long)
    slots, labels = torch.zeros(len(rows), longest, dtype=torch.bool), torch.full((len(rows), longest), IGNORED)
    for number, (row, prompt, answer) in enumerate(zip(rows, prompts, answers, strict=True)):
        start = longest - len(row)
        ids[number, start:] = torch.tensor(row)
        mask[number, start:] = 1
        slots[number, start + prompt.slot : start + prompt.slot + prompt.count] = True
        if answer:
            labels[number, longest - len(answer) :] = torch.tensor(list(answer))
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return Tokens(*(table.to(device) for table in (ids, mask, positions, slots, labels)))
