"""Face and voice as one sequence, and its exchange with the words.

    H_t  = LN(W_t E(x_text))                                    (B, L, d)
    H_av = [Enc_a(X_a) + m_a ; Enc_v(X_v) + m_v]                (B, T_a + T_v, d)
    U = H_t + MHA(q=H_t, kv=H_av)      V = H_av + MHA(q=H_av, kv=H_t)
    f = W_f [mean(U) ; mean(V)]                                 (B, d)

What is absent is masked as a key and left out of the means; learned vectors stand for words when none were said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from emopipe.models.networks.model import Standardise


@dataclass(frozen=True)
class Steps:
    """A padded sequence.

    Attributes:
        x: (B, T, K).
        valid: (B, T) bool, which steps count.
    """

    x: Tensor
    valid: Tensor

    def mean(self) -> Tensor:
        """(B, K) over the valid steps."""
        weight = self.valid.unsqueeze(-1)
        return (self.x * weight).sum(1) / weight.sum(1).clamp(min=1)


class SequenceEncoder(nn.Module):
    """One modality: standardise, project, a bidirectional LSTM, and a vector m that tells the modality."""

    def __init__(self, dim: int, width: int, dropout: float, input_dropout: float) -> None:
        super().__init__()
        self.standardise = Standardise(dim)
        self.channels = nn.Dropout1d(input_dropout)
        self.project = nn.Linear(dim, width)
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(width, width // 2, batch_first=True, bidirectional=True)
        self.modality = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, D) of (B,) lengths above 0 -> (B, T', width), T' the longest; zeros behind the end."""
        standard = self.channels(self.standardise(x).transpose(1, 2)).transpose(1, 2)
        projected = self.dropout(self.project(standard))
        packed = pack_padded_sequence(projected, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return states + self.modality


class AudioVisualEncoder(nn.Module):
    """H_av: the encoded modalities one behind the other, those that an utterance lacks masked."""

    def __init__(self, dims: Mapping[str, int], width: int, dropout: float, input_dropout: Mapping[str, float]) -> None:
        super().__init__()
        self.width = width
        encoders = {name: SequenceEncoder(dim, width, dropout, input_dropout[name]) for name, dim in dims.items()}
        self.encoders = nn.ModuleDict(encoders)

    def forward(self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> Steps:
        """Modality -> (B, T, D), and modality -> (B,) valid steps, 0 where it is absent and never read."""
        parts = [self._encode(name, features[name], lengths[name]) for name in self.encoders]
        return Steps(torch.cat([part.x for part in parts], dim=1), torch.cat([part.valid for part in parts], dim=1))

    def _encode(self, name: str, x: Tensor, lengths: Tensor) -> Steps:
        rows = lengths.nonzero().squeeze(1)
        longest = int(lengths.max())
        if longest == 0:
            return Steps(x.new_zeros(len(x), 0, self.width), lengths.new_zeros(len(x), 0, dtype=torch.bool))
        encoded = self.encoders[name](x[rows], lengths[rows])
        full = encoded.new_zeros(len(x), longest, self.width).index_copy(0, rows, encoded)
        return Steps(full, torch.arange(longest, device=x.device) < lengths.unsqueeze(1))


class CrossAttention(nn.Module):
    """x + MHA(q=LN(x), kv=LN(y)), blind to the steps of y that do not count."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(width)
        self.key_norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)

    def forward(self, x: Steps, y: Steps) -> Steps:
        """(B, T, width), (B, S, width) with a valid step in each row -> (B, T, width)."""
        keys = self.key_norm(y.x)
        attended, _ = self.attention(self.query_norm(x.x), keys, keys, key_padding_mask=~y.valid, need_weights=False)
        return Steps(x.x + attended, x.valid)


class CrossModalFusion(nn.Module):
    """f: what words and signals say together.

    Args:
        embedding: width of the language model's token embeddings E.
        width, heads, dropout: of the attention.
    """

    def __init__(self, embedding: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(embedding, width)
        self.norm = nn.LayerNorm(width)
        self.unsaid = nn.Parameter(torch.zeros(width))
        self.words_look = CrossAttention(width, heads, dropout)
        self.signals_look = CrossAttention(width, heads, dropout)
        self.pool = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, text: Steps, signals: Steps) -> Tensor:
        """E(x_text) (B, L, embedding), rows may lack words, and H_av (B, T, width) -> f (B, width)."""
        words = self._words(text)
        u, v = self.words_look(words, signals), self.signals_look(signals, words)
        fused: Tensor = self.dropout(self.pool(torch.cat([u.mean(), v.mean()], dim=1)))
        return fused

    def _words(self, text: Steps) -> Steps:
        """H_t; the learned query stands first in rows without words, and counts only there."""
        projected = self.norm(self.project(text.x))
        query = self.unsaid.to(projected.dtype).expand(len(projected), 1, -1)
        silent = ~text.valid.any(1, keepdim=True)
        return Steps(torch.cat([query, projected], dim=1), torch.cat([silent, text.valid], dim=1))
