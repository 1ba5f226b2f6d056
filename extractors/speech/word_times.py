"""When each word is spoken: Whisper's cross-attention aligned with its tokens by dynamic time warping.

The method is that of openai-whisper's `timing` module, and so are the times. That module has numba compile its dynamic
programme anew in every process, which takes longer than to transcribe a short clip; here it is arithmetic on whole
diagonals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from emopipe.extractors.contracts import Word
from emopipe.extractors.speech.whisper_decoder import hidden_states

if TYPE_CHECKING:
    from torch import Tensor
    from whisper.tokenizer import Tokenizer

    from emopipe.extractors.speech.whisper_decoder import Encoded

#: Width of the median filter over attention weights, in steps of the encoder.
FILTER_WIDTH: Final = 7
#: Steps of the encoder per second.
STEPS_PER_SECOND: Final = 50
#: Punctuation that belongs to the word after it, and to the one before it.
BEFORE_WORDS: Final = "\"'“¿([{-"
AFTER_WORDS: Final = "\"'.。,，!！?？:：”)]}、"


def timed_words(encoded: Encoded, tokenizer: Tokenizer, tokens: Sequence[int], frames: int) -> list[Word]:
    """The words that decoded tokens spell, with times in the sound, punctuation joined to them.

    Args:
        encoded: a sound, by Whisper with alignment heads set.
        tokenizer: of the language and the task that were decoded.
        tokens: what was decoded.
        frames: length of the sound in frames of 10 ms.
    """
    from whisper.timing import WordTiming, merge_punctuations

    spoken = [token for token in tokens if token < tokenizer.eot]
    words, word_tokens = tokenizer.split_to_word_tokens([*spoken, tokenizer.eot])
    if len(word_tokens) < 2:
        return []
    chances, attention = _attended(encoded, tokenizer, spoken, frames)
    rows, columns = cheapest_path(-attention)
    first_of_row = np.pad(np.diff(rows), (1, 0), constant_values=1).astype(bool)
    times = columns[first_of_row] / STEPS_PER_SECOND
    edges = np.cumsum([0, *(len(part) for part in word_tokens[:-1])])
    timings = [
        WordTiming(word, part, times[start], times[end], float(np.mean(chances[start:end])))
        for word, part, start, end in zip(words[:-1], word_tokens[:-1], edges[:-1], edges[1:], strict=True)
    ]
    merge_punctuations(timings, BEFORE_WORDS, AFTER_WORDS)
    return [Word(one.word, float(one.start), float(one.end), float(one.probability)) for one in timings if one.word]


def cheapest_path(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The path of least cost from the first to the last cell of a matrix, by steps down, to the right, or both.

    Where steps cost the same, openai-whisper's choice is taken: to the right.

    Args:
        costs: float64 (rows, columns).

    Returns:
        Rows and columns of the cells on the path, each ascending.
    """
    height, width = costs.shape
    # Cell (row, column) lies at [row + column, row]: what it depends on lies on the two diagonals before.
    skewed = np.full((height + width - 1, height), np.inf)
    row, column = np.indices(costs.shape)
    skewed[row + column, row] = costs
    goes_both, goes_down = np.zeros(skewed.shape, bool), np.zeros(skewed.shape, bool)
    # Totals of the last two diagonals, with the border above the first row in front.
    before_last, last = np.full(height + 1, np.inf), np.full(height + 1, np.inf)
    before_last[0] = 0.0
    for diagonal, here in enumerate(skewed):
        both, down, right = before_last[:-1], last[:-1], last[1:]
        goes_both[diagonal] = takes_both = (both < down) & (both < right)
        goes_down[diagonal] = takes_down = (down < both) & (down < right)
        before_last, last = last, np.full(height + 1, np.inf)
        last[1:] = here + np.where(takes_both, both, np.where(takes_down, down, right))
    return _traced(goes_both, goes_down, height, width)


def _traced(goes_both: np.ndarray, goes_down: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the path, from the last cell back to the first."""
    row, column = height - 1, width - 1
    cells = [(row, column)]
    while row or column:
        both, down = goes_both[row + column, row], goes_down[row + column, row]
        row, column = (
            row - (column == 0 or (row > 0 and (both or down))),
            column - (row == 0 or (column > 0 and not down)),
        )
        cells.append((row, column))
    rows, columns = np.array(cells[::-1]).T
    return rows, columns


def _attended(
    encoded: Encoded, tokenizer: Tokenizer, spoken: Sequence[int], frames: int
) -> tuple[np.ndarray, np.ndarray]:
    """Probability of each token, and how much it attends to each step of the sound (tokens and end, steps)."""
    import torch
    from whisper.timing import median_filter

    model, begin = encoded.model, len(tokenizer.sot_sequence)
    tokens = torch.tensor([*tokenizer.sot_sequence, tokenizer.no_timestamps, *spoken, tokenizer.eot])
    heads = model.alignment_heads.indices().T.tolist()
    queries: list[Tensor] = []
    with torch.inference_mode():
        (states,) = hidden_states(encoded, tokens.to(model.device)[None], asked=queries)
        logits = (states[begin:-2] @ model.decoder.token_embedding.weight[: tokenizer.eot].T).float()
        chances = logits.softmax(-1)[torch.arange(len(spoken)), list(spoken)].cpu().numpy()
        scores = [_scores(queries[layer], encoded, layer, head)[:, : frames // 2] for layer, head in heads]
        weights = torch.stack(scores).softmax(-1)
        deviation, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
        smooth = median_filter((weights - mean) / deviation, FILTER_WIDTH)
        attention: np.ndarray = smooth.mean(0)[begin:-1].double().cpu().numpy()
    return chances, attention


def _scores(queries: Tensor, encoded: Encoded, layer: int, head: int) -> Tensor:
    """How much a head of cross-attention looks at each step of the sound, before softmax: (tokens, steps)."""
    width = queries.shape[-1] // encoded.model.dims.n_text_head
    part = slice(head * width, (head + 1) * width)
    keys = encoded.attended[encoded.model.decoder.blocks[layer].cross_attn.key]
    scores: Tensor = (queries[0, :, part] @ keys[0, :, part].T).float() * width**-0.5
    return scores
